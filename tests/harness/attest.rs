//! An agent by hand: the CA's API as any agent speaks it, so that tests can say what an honest agent never would.

use std::net::SocketAddr;
use std::sync::Arc;

use ravelin_proto::pb::spire::api::server::agent::v1::agent_client::AgentClient;
use ravelin_proto::pb::spire::api::server::agent::v1::{
    AgentX509svidParams, AttestAgentRequest, attest_agent_request, attest_agent_response,
};
use ravelin_proto::pb::spire::api::types::{AttestationData, Bundle, X509svid};
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_runtime::clock::SystemClock;
use ravelin_runtime::rpc::{RpcError, ServerAddress, connect};
use ravelin_runtime::tls::{Expect, Identity, X509Bundles, client_config};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::CertificateDer;
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic::transport::Channel;

use crate::node::TRUST_DOMAIN;

/// A key pair and a request for a certificate over it.
#[derive(Debug)]
pub struct Csr {
    /// PKCS#8 DER.
    pub key: Vec<u8>,
    /// PKCS#10 DER.
    pub csr: Vec<u8>,
}

impl Csr {
    /// A plain one.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Self::of(params)
    }

    /// One that asks for what `params` says.
    pub fn of(params: CertificateParams) -> Self {
        ravelin_runtime::crypto::install();
        let key = KeyPair::generate().unwrap();
        let csr = params.serialize_request(&key).unwrap();
        Self {
            csr: csr.der().to_vec(),
            key: key.serialize_der(),
        }
    }
}

impl Default for Csr {
    fn default() -> Self {
        Self::new()
    }
}

/// The authorities of the CA's bundle message, as the verifier takes them.
pub fn trusted(bundle: &Bundle) -> Arc<X509Bundles> {
    let authorities: Vec<CertificateDer<'_>> = bundle
        .x509_authorities
        .iter()
        .map(|authority| CertificateDer::from(authority.asn1.as_slice()))
        .collect();
    let mut bundles = X509Bundles::new();
    bundles.insert(TrustDomain::parse(TRUST_DOMAIN).unwrap(), &authorities);
    Arc::new(bundles)
}

/// A connection to the CA's TCP listener, with an SVID or without one.
pub async fn dial(
    ca: SocketAddr,
    bundles: &Arc<X509Bundles>,
    identity: Option<&Identity>,
) -> Result<Channel, RpcError> {
    let trust_domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
    let server = SpiffeId::new(&trust_domain, "/spire/server").unwrap();
    let config = client_config(
        identity,
        Arc::clone(bundles),
        Expect::OneOf(vec![server]),
        &[b"h2"],
        SystemClock::shared(),
    )
    .unwrap();
    let address = ServerAddress::parse(&format!("https://{ca}")).unwrap();
    connect(&address, Some(config)).await
}

/// Attests with a join token. The agent's identity, or the CA's refusal.
pub async fn attest(channel: Channel, token: &str) -> Result<Identity, Status> {
    let csr = Csr::new();
    let params = attest_agent_request::Params {
        data: Some(AttestationData {
            r#type: "join_token".to_owned(),
            payload: token.as_bytes().to_vec(),
        }),
        params: Some(AgentX509svidParams {
            csr: csr.csr.clone(),
        }),
    };
    let request = AttestAgentRequest {
        step: Some(attest_agent_request::Step::Params(params)),
    };
    let mut answers = AgentClient::new(channel)
        .attest_agent(tokio_stream::iter([request]))
        .await?
        .into_inner();
    let answer = answers
        .next()
        .await
        .unwrap_or_else(|| Err(Status::unknown("no answer")))?;
    match answer.step {
        Some(attest_agent_response::Step::Result(result)) => {
            Ok(identity(&result.svid.unwrap_or_default(), &csr.key))
        }
        _ => Err(Status::unknown("a challenge for a join token")),
    }
}

/// The identity in an answer of the CA.
pub fn identity(svid: &X509svid, key: &[u8]) -> Identity {
    let chain = svid
        .cert_chain
        .iter()
        .map(|der| CertificateDer::from(der.clone()))
        .collect();
    Identity::new(chain, key).unwrap()
}
