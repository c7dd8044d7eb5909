//! The load: calls over kept or new connections, plain or with mutual TLS, each as soon as the last one was answered.
//!
//! It shows a client certificate and does not judge the server's: its own time is not measured.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ravelin_runtime::tls::Identity;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::backend::head_end;

/// The `Host` of every call.
pub(crate) const HOST: &str = "inventory.shop";

/// A call as it goes over HTTP/1.1, and as it goes over HTTP/2.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The request line and the headers.
    pub(crate) head: Arc<[u8]>,
    path: String,
    token: String,
}

impl Call {
    /// A GET with a token.
    pub(crate) fn new(path: &str, token: &str) -> Self {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {HOST}\r\nuser-agent: proxy-bench\r\naccept: */*\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        Self {
            head: head.into_bytes().into(),
            path: path.to_owned(),
            token: token.to_owned(),
        }
    }

    fn http2(&self) -> Request<Empty<Bytes>> {
        Request::get(format!("https://{HOST}{}", self.path))
            .header("user-agent", "proxy-bench")
            .header("accept", "*/*")
            .header("authorization", format!("Bearer {}", self.token))
            .body(Empty::new())
            .unwrap()
    }
}

/// The client's TLS: TLS 1.3, X25519 and AES-128-GCM for every proxy alike, no resumption.
pub(crate) fn tls(identity: &Identity, alpn: &[u8]) -> TlsConnector {
    let mut provider = (*ravelin_runtime::crypto::provider()).clone();
    provider
        .kx_groups
        .retain(|group| group.name() == rustls::NamedGroup::X25519);
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unjudged))
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

#[derive(Debug)]
struct Unjudged;

impl ServerCertVerifier for Unjudged {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One HTTP/1.1 connection.
pub(crate) struct Http1 {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Http1 {
    /// Connects, through TLS where there is a connector.
    pub(crate) async fn open(
        address: SocketAddr,
        tls: Option<&TlsConnector>,
    ) -> Result<Self, String> {
        let stream = tcp(address).await?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(stream),
            Some(tls) => Box::new(secured(tls, stream).await?),
        };
        Ok(Self {
            stream,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Makes one call and reads its answer to the end.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<(), String> {
        self.stream.write_all(&call.head).await.map_err(said)?;
        let mut filled = 0;
        let end = loop {
            let count = self.read(filled).await?;
            filled += count;
            if let Some(end) = head_end(&self.buffer[..filled]) {
                break end;
            }
        };
        let mut left = body_bytes(&self.buffer[..end])?
            .checked_sub(filled - end)
            .ok_or("more bytes than the answer has")?;
        while left > 0 {
            let count = self.read(0).await?;
            left = left
                .checked_sub(count)
                .ok_or("more bytes than the answer has")?;
        }
        Ok(())
    }

    async fn read(&mut self, from: usize) -> Result<usize, String> {
        match self.stream.read(&mut self.buffer[from..]).await {
            Ok(0) => Err("the connection ended".to_owned()),
            Ok(count) => Ok(count),
            Err(error) => Err(said(error)),
        }
    }

    /// Ends the connection in order.
    pub(crate) async fn close(mut self) {
        // WHY: the answer is here; how the other end takes the goodbye is its affair.
        let _ = self.stream.shutdown().await;
    }
}

/// The length of the body that this head announces, if it is a 200.
fn body_bytes(head: &[u8]) -> Result<usize, String> {
    let head = std::str::from_utf8(head).map_err(|_| "a head that is no text".to_owned())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        return Err(head.trim_end().to_owned());
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    length
        .and_then(|length| length.trim().parse().ok())
        .ok_or_else(|| "an answer without a length".to_owned())
}

/// One HTTP/2 connection; copies share it.
#[derive(Clone)]
pub(crate) struct Http2 {
    sender: SendRequest<Empty<Bytes>>,
}

impl Http2 {
    /// Connects with mutual TLS.
    pub(crate) async fn open(address: SocketAddr, tls: &TlsConnector) -> Result<Self, String> {
        let stream = secured(tls, tcp(address).await?).await?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(said)?;
        tokio::spawn(async move {
            // WHY: whoever waits for an answer learns of the error.
            let _ = connection.await;
        });
        Ok(Self { sender })
    }

    /// Makes one call and reads its answer to the end.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<(), String> {
        let answer = self.sender.send_request(call.http2()).await.map_err(said)?;
        if answer.status() != http::StatusCode::OK {
            return Err(format!("{} {:?}", answer.status(), answer.headers()));
        }
        answer.into_body().collect().await.map_err(said)?;
        Ok(())
    }
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(said)?;
    stream.set_nodelay(true).map_err(said)?;
    Ok(stream)
}

async fn secured(
    tls: &TlsConnector,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(HOST).map_err(said)?;
    tls.connect(name, stream).await.map_err(said)
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
