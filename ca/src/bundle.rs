//! The trust bundle that the authorities make up. Pure.

use ravelin_proto::bundle::{Bundle, JwtAuthority, X509Authority};
use ravelin_proto::spiffe_id::TrustDomain;

use crate::limits::BUNDLE_REFRESH_HINT_SECS;
use crate::store::Authorities;

/// Everything that is prepared, active or retired, oldest first.
pub fn assemble(trust_domain: &TrustDomain, authorities: &Authorities) -> Bundle {
    let x509 = authorities.x509.published().map(|authority| X509Authority {
        der: authority.public.clone(),
        is_tainted: authority.is_tainted,
    });
    let jwt = authorities.jwt.published().map(|authority| JwtAuthority {
        key_id: authority.id.clone(),
        public_key_spki: authority.public.clone(),
        expires_at: authority.validity.not_after,
        is_tainted: authority.is_tainted,
    });
    Bundle {
        trust_domain: trust_domain.clone(),
        x509_authorities: x509.collect(),
        jwt_authorities: jwt.collect(),
        refresh_hint_secs: BUNDLE_REFRESH_HINT_SECS,
        sequence: authorities.bundle.sequence,
    }
}
