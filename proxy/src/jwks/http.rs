//! One bounded GET to an address that was judged: no redirect, no compression, no second resolution of the name.

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::{Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ravelin_proto::http_url::{HttpHost, HttpUrl};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::address::Reach;
use super::fetch::FetchError;
use crate::limits;

const USER_AGENT: &str = concat!("ravelin-proxy/", env!("CARGO_PKG_VERSION"));

/// The body that `url` answers with. The caller sets the deadline. `tls` is needed for `https`.
pub(super) async fn get(
    url: &HttpUrl,
    reach: &Reach,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Vec<u8>, FetchError> {
    let stream = connect(url, reach).await?;
    if !url.is_tls() {
        return exchange(stream, url).await;
    }
    let tls = tls.ok_or(FetchError::Roots)?;
    let name = server_name(url.host())?;
    let stream = TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .map_err(FetchError::Tls)?;
    exchange(stream, url).await
}

/// INVARIANT: what is judged is what is connected to: the name is resolved once (DNS rebinding, threat 46).
async fn connect(url: &HttpUrl, reach: &Reach) -> Result<TcpStream, FetchError> {
    let addresses: Vec<SocketAddr> = match url.host() {
        HttpHost::Ip(ip) => vec![SocketAddr::new(*ip, url.port())],
        HttpHost::Name(name) => lookup_host((name.as_str(), url.port()))
            .await
            .map_err(FetchError::Resolve)?
            .collect(),
    };
    let allowed = addresses
        .iter()
        .filter(|address| reach.allows(url.host(), address.ip()))
        .take(limits::KEY_ADDRESSES_MAX);
    let mut failure = FetchError::AddressRefused(url.host().to_string());
    for address in allowed {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = FetchError::Connect(*address, error),
        }
    }
    Err(failure)
}

fn server_name(host: &HttpHost) -> Result<ServerName<'static>, FetchError> {
    match host {
        HttpHost::Ip(ip) => Ok(ServerName::IpAddress((*ip).into())),
        HttpHost::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| FetchError::ServerName),
    }
}

async fn exchange<S>(stream: S, url: &HttpUrl) -> Result<Vec<u8>, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::KEY_HEAD_BYTES_MAX)
        .max_headers(limits::KEY_HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    let request = Request::get(url.target())
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::ServerName)?;
    let mut answer = std::pin::pin!(answer(sender, request));
    // WHY: the connection may end first, with the whole body read: the answer is then taken from what it read.
    tokio::select! {
        body = answer.as_mut() => return body,
        ended = connection => ended?,
    }
    answer.await
}

async fn answer(
    mut sender: http1::SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<Vec<u8>, FetchError> {
    let (parts, body) = sender.send_request(request).await?.into_parts();
    if parts.status.is_redirection() {
        return Err(FetchError::Redirect(parts.status.as_u16()));
    }
    if parts.status != StatusCode::OK {
        return Err(FetchError::Status(parts.status.as_u16()));
    }
    let encodings = parts.headers.get_all(header::CONTENT_ENCODING);
    if encodings.iter().any(|encoding| encoding != "identity") {
        return Err(FetchError::Encoded);
    }
    read(body).await
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > limits::KEY_BODY_BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}
