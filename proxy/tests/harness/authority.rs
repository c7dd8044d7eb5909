//! An X.509 authority of a trust domain, made for one test, and the SVIDs it signs.

use std::time::{Duration, SystemTime};

use ravelin_proto::pb::ravelin::v1 as pb;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    trust_domain: String,
}

impl Authority {
    pub fn new(trust_domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(
            format!("spiffe://{trust_domain}").try_into().unwrap(),
        )];
        window(&mut params, Duration::from_secs(3600));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self {
            issuer,
            trust_domain: trust_domain.to_owned(),
        }
    }

    pub fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    /// The SVID of `path`, in the form of the agent's message.
    pub fn svid(&self, path: &str) -> pb::ProxySvid {
        self.svid_for(path, Duration::from_secs(600))
    }

    pub fn svid_for(&self, path: &str, life: Duration) -> pb::ProxySvid {
        let key = KeyPair::generate().unwrap();
        let id = format!("spiffe://{}{path}", self.trust_domain);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = vec![SanType::URI(id.clone().try_into().unwrap())];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from(
            uuid::Uuid::new_v4().as_bytes()[..8].to_vec(),
        ));
        window(&mut params, life);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        pb::ProxySvid {
            spiffe_id: id,
            x509_svid: certificate.der().to_vec(),
            x509_svid_key: key.serialize_der(),
            x509_authority_id: String::new(),
            expires_at: 0,
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test's certificates are valid now"
)]
fn window(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + life).into();
}
