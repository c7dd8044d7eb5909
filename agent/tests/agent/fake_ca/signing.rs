//! Authorities that sign, with rcgen.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ravelin_proto::bundle::x509_authority_id;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_runtime::clock::{Clock, SystemClock};
use ravelin_runtime::crypto::{self, JwsSigner};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use std::time::Duration;

pub struct SigningAuthority {
    pub id: String,
    pub der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn uri(id: &SpiffeId) -> Vec<SanType> {
    vec![SanType::URI(id.as_str().try_into().unwrap())]
}

impl SigningAuthority {
    pub fn generate(td: &TrustDomain) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let serial = crypto::random_bytes::<8>();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, hex::encode(serial));
        params.serial_number = Some(SerialNumber::from(serial.to_vec()));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = uri(&td.id());
        let now = SystemClock.now();
        params.not_before = now.minus(Duration::from_secs(60)).to_offset();
        params.not_after = now.plus(Duration::from_secs(86_400)).to_offset();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self {
            id: x509_authority_id(&der).unwrap(),
            der,
            issuer: Issuer::new(params, key),
        }
    }

    pub fn pem(&self) -> String {
        let body = base64::engine::general_purpose::STANDARD.encode(&self.der);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    fn leaf(id: &SpiffeId, lifetime_secs: i64) -> CertificateParams {
        let mut params = CertificateParams::default();
        let mut serial = crypto::random_bytes::<16>();
        serial[0] = 1;
        params.serial_number = Some(SerialNumber::from(serial.to_vec()));
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = uri(id);
        params.use_authority_key_identifier_extension = true;
        let now = SystemClock.now();
        params.not_before = now.minus(Duration::from_secs(1)).to_offset();
        let lifetime = Duration::from_secs(lifetime_secs.unsigned_abs());
        params.not_after = now.plus(lifetime).to_offset();
        params
    }

    pub fn sign_csr(&self, csr: &[u8], id: &SpiffeId, lifetime_secs: i64) -> Vec<u8> {
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        request.params = Self::leaf(id, lifetime_secs);
        request.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    pub fn own_svid(&self, id: &SpiffeId) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let leaf = Self::leaf(id, 3600).signed_by(&key, &self.issuer).unwrap();
        (leaf.der().to_vec(), key.serialize_der())
    }
}

pub struct JwtKey {
    pub id: String,
    pub signer: JwsSigner,
}

impl JwtKey {
    pub fn generate(id: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self {
            id: id.into(),
            signer: JwsSigner::from_pkcs8(&key.serialize_der()).unwrap(),
        }
    }

    pub fn sign(&self, id: &SpiffeId, audience: &[String], lifetime_secs: i64) -> String {
        let now = SystemClock.now().unix_secs();
        let header = serde_json::json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        let claims = serde_json::json!({
            "sub": id.as_str(), "aud": audience, "iat": now, "exp": now + lifetime_secs, "role": "clerk",
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&header), part(&claims));
        let signature = self.signer.sign(input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
