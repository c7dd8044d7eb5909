//! Callers that are not of the mesh: one without TLS, one with a certificate of another CA.

use super::Actual;
use super::calls::broken;
use crate::commands::bundle;
use crate::exit::Failure;
use crate::limits;
use crate::up::RunningMesh;
use ravelin_proto::x509_svid::split_der_chain;
use ravelin_runtime::clock::SystemClock;
use ravelin_runtime::tls::{self, Expect, Identity, X509Bundles};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const REQUEST: &[u8] =
    b"POST /pay HTTP/1.1\r\nHost: payments.shop\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A call without TLS.
pub(super) async fn plain_text(inbound: SocketAddr) -> Actual {
    let exchange = async {
        let mut stream = TcpStream::connect(inbound).await?;
        let source = stream.local_addr()?.to_string();
        let answer = converse(&mut stream).await;
        Ok::<_, std::io::Error>((source, answer))
    };
    match tokio::time::timeout(limits::HTTP_CALL_DEADLINE, exchange).await {
        Ok(Ok((source, answer))) => judged(source, answer),
        Ok(Err(error)) => broken(error.to_string()),
        Err(_) => broken("the listener neither answered nor closed".to_owned()),
    }
}

/// A TLS client whose certificate says `orders`, signed by a CA that was made a moment ago.
pub(super) async fn foreign_certificate(
    running: &RunningMesh,
    inbound: SocketAddr,
) -> Result<Actual, Failure> {
    let orders = &super::service(running.plan(), "orders")?.spiffe_id;
    let identity = forged(orders.as_str()).map_err(|error| {
        Failure::usage(format!("cannot make a certificate of another CA: {error}"))
    })?;
    let own = bundle::get(&running.connect_ca().await?).await?;
    let mut bundles = X509Bundles::new();
    let authorities: Vec<CertificateDer<'_>> = own
        .x509_authorities
        .iter()
        .map(|authority| CertificateDer::from(authority.asn1.as_slice()))
        .collect();
    bundles.insert(running.plan().trust_domain.clone(), &authorities);
    let config = tls::client_config(
        Some(&identity),
        Arc::new(bundles),
        Expect::AnyMember,
        &[b"http/1.1"],
        SystemClock::shared(),
    )
    .map_err(|error| Failure::usage(format!("cannot use a certificate of another CA: {error}")))?;
    let exchange = async {
        let stream = TcpStream::connect(inbound).await?;
        let source = stream.local_addr()?.to_string();
        let name = ServerName::IpAddress(inbound.ip().into());
        // WHY: in TLS 1.3 the client is through before the server has judged it; the refusal comes with the first read.
        let answer = match TlsConnector::from(config).connect(name, stream).await {
            Ok(mut stream) => converse(&mut stream).await,
            Err(error) => Err(error),
        };
        Ok::<_, std::io::Error>((source, answer))
    };
    Ok(
        match tokio::time::timeout(limits::HTTP_CALL_DEADLINE, exchange).await {
            Ok(Ok((source, answer))) => judged(source, answer),
            Ok(Err(error)) => broken(error.to_string()),
            Err(_) => broken("the listener neither answered nor closed".to_owned()),
        },
    )
}

async fn converse<S>(stream: &mut S) -> std::io::Result<Vec<u8>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    let limit = u64::try_from(limits::HTTP_BODY_BYTES_MAX).unwrap_or(u64::MAX);
    stream.take(limit).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Closed is as declared; an answer in HTTP is not.
fn judged(source: String, answer: std::io::Result<Vec<u8>>) -> Actual {
    let (status, seen) = match answer {
        Ok(bytes) if bytes.starts_with(b"HTTP/") => (status(&bytes), "answered in HTTP".to_owned()),
        Ok(_) => (0, "connection closed".to_owned()),
        Err(error) => (0, error.to_string()),
    };
    Actual {
        status,
        seen,
        source,
        ..Actual::default()
    }
}

fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or(u16::MAX)
}

fn forged(spiffe_id: &str) -> Result<Identity, Box<dyn std::error::Error>> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let domain = spiffe_id.split('/').take(3).collect::<Vec<_>>().join("/");
    authority.subject_alt_names = vec![SanType::URI(rcgen::string::Ia5String::try_from(domain)?)];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut leaf = CertificateParams::default();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.use_authority_key_identifier_extension = true;
    leaf.subject_alt_names = vec![SanType::URI(rcgen::string::Ia5String::try_from(spiffe_id)?)];
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, &authority)?;
    let chain = split_der_chain(leaf.der()).map_or_else(Vec::new, |chain| chain.concat());
    Ok(Identity::from_der(&chain, &key.serialize_der())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_in_http_counts_as_one() {
        let table: [(&[u8], u16); 3] = [
            (b"HTTP/1.1 200 OK\r\n", 200),
            (b"", 0),
            (b"\x15\x03\x03\x00\x02\x02\x32", 0),
        ];
        for (answer, want) in table {
            assert_eq!(judged(String::new(), Ok(answer.to_vec())).status, want);
        }
    }

    #[test]
    fn a_forged_certificate_is_well_formed() {
        let identity = forged("spiffe://shop.example/ns/shop/sa/orders").unwrap();
        assert_eq!(
            identity.id.as_str(),
            "spiffe://shop.example/ns/shop/sa/orders"
        );
    }
}
