//! Judges a peer's chain: the leaf's own rules first, then RFC 5280 against the bundle of the leaf's own trust domain and no
//! other, then whether this peer is the one that was expected (X509-SVID 5; rows ).
//!
//! Names in DNS or IP play no part. A signing certificate is never a peer.

use std::sync::Arc;

use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use ravelin_proto::x509_svid::{LeafSvid, SigningCertificate, X509SvidError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use super::X509Bundles;
use super::verified::{ChainDigest, VerifiedChains};
use crate::clock::{from_unix_time, to_unix_time};
use crate::crypto;
use crate::limits::{CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};

/// Why a peer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    ChainEmpty,
    /// More certificates, or larger ones, than the limits allow.
    #[error("the peer's chain is longer than allowed")]
    ChainTooLong,
    /// The leaf breaks a rule of its own.
    #[error("the peer's certificate is not an X.509-SVID: {0}")]
    Leaf(#[from] X509SvidError),
    /// We hold no authority for the leaf's trust domain.
    #[error("there is no bundle for the trust domain `{0}`")]
    UnknownTrustDomain(TrustDomain),
    /// The leaf is past its end.
    #[error("the SVID of `{id}` expired at {not_after}")]
    Expired {
        /// Whose it is.
        id: SpiffeId,
        /// When it ended.
        not_after: Timestamp,
    },
    /// The leaf has not begun.
    #[error("the SVID of `{id}` is not valid before {not_before}")]
    NotYetValid {
        /// Whose it is.
        id: SpiffeId,
        /// When it begins.
        not_before: Timestamp,
    },
    /// No path from the leaf to an authority of its trust domain.
    #[error("the SVID of `{0}` does not chain to an authority of its trust domain")]
    Untrusted(SpiffeId),
    /// The peer is genuine, but not one that was expected here.
    #[error("the peer is `{0}`, which is not expected here")]
    Unexpected(SpiffeId),
}

impl PeerError {
    /// Stable code for logs, metrics and documentation.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ChainEmpty => "peer_no_certificate",
            Self::ChainTooLong => "peer_chain_too_long",
            Self::Leaf(_) => "peer_not_an_svid",
            Self::UnknownTrustDomain(_) => "peer_trust_domain",
            Self::Expired { .. } => "peer_expired",
            Self::NotYetValid { .. } => "peer_not_yet_valid",
            Self::Untrusted(_) => "peer_untrusted",
            Self::Unexpected(_) => "peer_unexpected",
        }
    }
}

/// A peer that has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// The leaf's serial number, lower-case hex without leading zeros.
    pub serial: String,
    /// Key identifier of the authority that signed the leaf, lower-case hex.
    pub authority_id: Option<String>,
    /// When the leaf expires.
    pub not_after: Timestamp,
    /// What the peer showed, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
}

impl PeerIdentity {
    pub(crate) fn new(leaf: LeafSvid, chain: &[CertificateDer<'_>]) -> Self {
        Self {
            id: leaf.id,
            serial: leaf.serial,
            authority_id: leaf.authority_id,
            not_after: leaf.validity.not_after,
            chain: chain
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
        }
    }
}

/// Whom a client expects to find at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Anybody with an SVID of a trust domain whose bundle we hold.
    AnyMember,
    /// Anybody of this trust domain.
    TrustDomain(TrustDomain),
    /// One of these. An empty list expects nobody.
    OneOf(Vec<SpiffeId>),
}

impl Expect {
    /// Whether this peer is one of those.
    pub fn accepts(&self, id: &SpiffeId) -> bool {
        match self {
            Self::AnyMember => true,
            Self::TrustDomain(domain) => id.is_member_of(domain),
            Self::OneOf(ids) => ids.contains(id),
        }
    }
}

/// Judges a chain, leaf first, at `now`.
pub fn verify_chain(
    bundles: &X509Bundles,
    chain: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<PeerIdentity, PeerError> {
    let (leaf, intermediates) = chain.split_first().ok_or(PeerError::ChainEmpty)?;
    let nothing = VerifiedChains::default();
    let svid = verify(bundles, &nothing, leaf, intermediates, now, Side::Client)?;
    Ok(PeerIdentity::new(svid, chain))
}

/// Whose chain it is: the usages that its certificates must allow differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn usage(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }
}

/// `verified` is what was found by these very bundles.
fn verify(
    bundles: &X509Bundles,
    verified: &VerifiedChains,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: Timestamp,
    side: Side,
) -> Result<LeafSvid, PeerError> {
    let is_bounded = |der: &CertificateDer<'_>| der.len() <= CERTIFICATE_BYTES_MAX;
    if intermediates.len() >= CHAIN_CERTIFICATES_MAX
        || !is_bounded(leaf)
        || !intermediates.iter().all(is_bounded)
    {
        return Err(PeerError::ChainTooLong);
    }
    let svid = LeafSvid::parse(leaf)?;
    let domain = svid.id.trust_domain();
    // SPEC: X509-SVID 5: the bundle of the leaf's own trust domain, never a pool.
    let authorities = bundles.of(&domain);
    if authorities.is_empty() {
        return Err(PeerError::UnknownTrustDomain(domain));
    }
    if now > svid.validity.not_after {
        return Err(PeerError::Expired {
            id: svid.id,
            not_after: svid.validity.not_after,
        });
    }
    if now < svid.validity.not_before {
        return Err(PeerError::NotYetValid {
            id: svid.id,
            not_before: svid.validity.not_before,
        });
    }
    let chain = ChainDigest::new(leaf, intermediates, side == Side::Client);
    if verified.holds(&chain, now) {
        return Ok(svid);
    }
    // WHY: webpki takes no notice of an anchor's own dates; an authority that has expired must sign for nobody.
    let authorities = || {
        let authorities = authorities.iter();
        authorities.filter(|authority| authority.validity.contains(now))
    };
    let anchors: Vec<TrustAnchor<'_>> = authorities()
        .map(|authority| authority.anchor.clone())
        .collect();
    if !build_path(&domain, leaf, intermediates, &anchors, now, side.usage()) {
        return Err(PeerError::Untrusted(svid.id));
    }
    // WHY: the path is one of those that can be made of these; it holds at least until the first of them ends.
    let ends = authorities().map(|authority| authority.validity.not_after);
    if let Some(until) = first_end(svid.validity.not_after, intermediates, ends) {
        verified.note(chain, now, until);
    }
    Ok(svid)
}

/// The first end of all that a path may rest on; `None` where an intermediate does not tell its own.
fn first_end(
    leaf: Timestamp,
    intermediates: &[CertificateDer<'_>],
    authorities: impl Iterator<Item = Timestamp>,
) -> Option<Timestamp> {
    let intermediates = intermediates.iter().map(|der| {
        let signing = SigningCertificate::parse(der).ok()?;
        Some(signing.validity.not_after)
    });
    let mut first = leaf;
    for end in authorities.map(Some).chain(intermediates) {
        first = first.min(end?);
    }
    Some(first)
}

fn build_path(
    domain: &TrustDomain,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now: Timestamp,
    usage: KeyUsage,
) -> bool {
    let (Ok(leaf), Some(time)) = (EndEntityCert::try_from(leaf), to_unix_time(now)) else {
        return false;
    };
    let provider = crypto::provider();
    let check_intermediates = |path: &VerifiedPath<'_>| {
        path.intermediate_certificates()
            .try_for_each(|certificate| {
                check_intermediate(domain, &certificate.der())
                    .then_some(())
                    .ok_or(webpki::Error::EndEntityUsedAsCa)
            })
    };
    leaf.verify_for_usage(
        provider.signature_verification_algorithms.all,
        anchors,
        intermediates,
        time,
        usage,
        None,
        Some(&check_intermediates),
    )
    .is_ok()
}

/// webpki asks an intermediate for `cA` alone; ours need `keyCertSign` too, and the leaf's trust domain if they have an
/// ID.
fn check_intermediate(domain: &TrustDomain, der: &[u8]) -> bool {
    SigningCertificate::parse(der)
        .is_ok_and(|signing| signing.id.is_none_or(|id| id.is_member_of(domain)))
}

/// Both sides of a handshake judge with this.
#[derive(Debug)]
pub(crate) struct SpiffeVerifier {
    bundles: Arc<X509Bundles>,
    verified: VerifiedChains,
    expect: Expect,
    is_client_required: bool,
}

impl SpiffeVerifier {
    pub(crate) fn new(bundles: Arc<X509Bundles>, expect: Expect, is_client_required: bool) -> Self {
        Self {
            bundles,
            verified: VerifiedChains::default(),
            expect,
            is_client_required,
        }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        side: Side,
    ) -> Result<(), Error> {
        let now = from_unix_time(now);
        let (bundles, verified) = (&self.bundles, &self.verified);
        let svid = verify(bundles, verified, leaf, intermediates, now, side).map_err(to_rustls)?;
        if !self.expect.accepts(&svid.id) {
            return Err(to_rustls(PeerError::Unexpected(svid.id)));
        }
        Ok(())
    }

    fn verify_tls13(
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            leaf,
            signature,
            &crypto::provider().signature_verification_algorithms,
        )
    }

    fn schemes() -> Vec<SignatureScheme> {
        crypto::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The reason travels inside, for our own log; the peer sees an alert only.
fn to_rustls(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// The verifier's own reason for a failed handshake, out of what rustls and tokio have wrapped around it; `None` if the
/// handshake failed otherwise, or the peer refused us.
pub fn peer_error(error: &std::io::Error) -> Option<&PeerError> {
    let inner = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(other)) = inner else {
        return None;
    };
    other.0.downcast_ref()
}

fn tls12_refused() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates, now, Side::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_client_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates, now, Side::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::verify_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Self::schemes()
    }
}

#[cfg(test)]
mod tests;
