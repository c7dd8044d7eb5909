//! Signs JWT-SVIDs: linted claims against a ticket, then read back and compared (rows J-1 to J-6).

use ravelin_proto::jws::CompactJws;
use ravelin_proto::jwt_svid::read_claims;
use ravelin_proto::time::Validity;
use ravelin_runtime::crypto::{JwsSigner, SignerError};
use serde_json::json;

use super::lint::Linted;
use super::sign::{SignError, Ticket};
use super::template::Claims;
use crate::authority::state::Authority;

/// Why no token came out.
#[derive(Debug, thiserror::Error)]
pub enum JwtSignError {
    /// The provider failed.
    #[error("the token could not be signed")]
    Signer(#[from] SignerError),
    /// The ticket does not fit, or what was signed is not what was linted.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// A JWT authority with its key.
#[derive(Debug)]
pub struct JwtSigner {
    authority: Authority,
    signer: JwsSigner,
}

impl JwtSigner {
    /// Joins an authority and its key, PKCS#8 DER.
    pub fn new(authority: Authority, pkcs8: &[u8]) -> Result<Self, SignError> {
        let refuse = || SignError::Key(authority.id.clone());
        let signer = JwsSigner::from_pkcs8(pkcs8).map_err(|_| refuse())?;
        if signer.spki() != authority.public || !signer.algorithm().is_svid_algorithm() {
            return Err(refuse());
        }
        Ok(Self { authority, signer })
    }

    /// The key id.
    pub fn id(&self) -> &str {
        &self.authority.id
    }

    /// When it may sign.
    pub fn validity(&self) -> Validity {
        self.authority.validity
    }

    /// Signs, reads back, compares.
    pub fn sign(&self, linted: &Linted<Claims>, ticket: Ticket) -> Result<String, JwtSignError> {
        let claims = linted.contents();
        ticket.redeem(&claims.jti)?;
        // SPEC: JWT-SVID 2 (J-3): alg, kid, typ and nothing else.
        let header = json!({
            "alg": self.signer.algorithm().name(),
            "kid": claims.key_id,
            "typ": "JWT",
        });
        let payload = json!({
            "iss": claims.issuer,
            "sub": claims.id.as_str(),
            "aud": claims.audience,
            "iat": claims.issued_at.unix_secs(),
            "exp": claims.expires_at.unix_secs(),
            "jti": claims.jti,
        });
        let input = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(payload.to_string())
        );
        let signature = self.signer.sign(input.as_bytes())?;
        let token = format!("{input}.{}", encode(signature));
        compare(&token, claims)?;
        Ok(token)
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn compare(token: &str, claims: &Claims) -> Result<(), SignError> {
    let parsed = CompactJws::parse(token).map_err(|_| SignError::Differs("it is no JWS"))?;
    let svid = read_claims(&parsed).map_err(|_| SignError::Differs("it is no JWT-SVID"))?;
    let rows = [
        ("id", svid.id == claims.id),
        ("audience", svid.audience == claims.audience),
        ("expiry", svid.expires_at == claims.expires_at),
        ("issued at", svid.issued_at == Some(claims.issued_at)),
        ("jti", svid.jti.as_deref() == Some(claims.jti.as_str())),
        (
            "key id",
            svid.key_id.as_deref() == Some(claims.key_id.as_str()),
        ),
        ("header", parsed.header.len() == 3),
        ("claims", svid.claims.len() == 6),
    ];
    match rows.into_iter().find(|(_, is_same)| !is_same) {
        None => Ok(()),
        Some((what, _)) => Err(SignError::Differs(what)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::lint::{self, Ground};
    use super::super::template::{self, tests as rows};
    use super::*;
    use crate::audit::Leaf;
    use crate::authority::certificate;
    use crate::authority::state::Kind;
    use ravelin_proto::jwks::Jwk;
    use ravelin_proto::time::Timestamp;
    use ravelin_runtime::crypto::verify_jws;

    #[test]
    fn j_01_to_j_06_a_token_carries_the_claims_of_the_standard_and_verifies() {
        let now = Timestamp::from_unix_secs(1_800_000_000);
        let domain = rows::profile().trust_domain;
        let made = certificate::generate(Kind::Jwt, &domain, Duration::from_hours(2), now).unwrap();
        let key = Jwk::from_spki(None, None, &made.authority.public).unwrap();
        let signer = JwtSigner::new(made.authority, &made.key).unwrap();
        let claims = template::jwt(
            &rows::grant(None),
            vec!["payments".to_owned()],
            &rows::profile(),
            (signer.id(), signer.validity()),
            "id-1".to_owned(),
            now,
        );
        let authority = signer.validity();
        let ground = Ground {
            trust_domain: &domain,
            authority,
            authority_keys: &[],
            now,
        };
        let linted = lint::jwt(claims, &ground).unwrap();
        let ticket = |jti: &str| {
            Ticket::new(
                jti.to_owned(),
                Leaf {
                    index: 0,
                    hash: [0; 32],
                },
            )
        };
        assert!(signer.sign(&linted, ticket("id-2")).is_err());
        let token = signer.sign(&linted, ticket("id-1")).unwrap();
        let parsed = CompactJws::parse(&token).unwrap();
        assert_eq!(parsed.typ.as_deref(), Some("JWT"));
        let verified = verify_jws(
            &key,
            parsed.algorithm,
            parsed.signing_input.as_bytes(),
            &parsed.signature,
        );
        assert!(verified.is_ok());
    }
}
