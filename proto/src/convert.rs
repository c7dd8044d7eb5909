//! Between wire messages and the vocabulary: the one module that knows both.

use crate::bundle::{Bundle, JwtAuthority, X509Authority};
use crate::entry::RegistrationEntry;
use crate::pb::spire::api::types as pb;
use crate::selector::{Selector, SelectorError};
use crate::spiffe_id::{SpiffeId, SpiffeIdError, TrustDomain};
use crate::time::Timestamp;

/// Why a message does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A SPIFFE ID or trust domain is malformed.
    #[error("`{field}` is malformed: {source}")]
    SpiffeId {
        /// The field's name.
        field: &'static str,
        /// The rule that it breaks.
        source: SpiffeIdError,
    },
    /// A selector is malformed.
    #[error("a selector is malformed: {0}")]
    Selector(#[from] SelectorError),
    /// A number is outside of its range.
    #[error("`{0}` is out of range")]
    Range(&'static str),
}

/// To the message.
pub fn id_to_pb(id: &SpiffeId) -> pb::Spiffeid {
    pb::Spiffeid {
        trust_domain: id.trust_domain_str().to_owned(),
        path: id.path().to_owned(),
    }
}

/// From the message; `field` names it in errors.
pub fn id_from_pb(
    id: Option<&pb::Spiffeid>,
    field: &'static str,
) -> Result<SpiffeId, ConvertError> {
    let id = id.ok_or(ConvertError::Missing(field))?;
    let refuse = |source| ConvertError::SpiffeId { field, source };
    let trust_domain = TrustDomain::parse(&id.trust_domain).map_err(refuse)?;
    SpiffeId::new(&trust_domain, &id.path).map_err(refuse)
}

/// To the message.
pub fn selector_to_pb(selector: &Selector) -> pb::Selector {
    pb::Selector {
        r#type: selector.kind().to_owned(),
        value: selector.value().to_owned(),
    }
}

/// From the message.
pub fn selector_from_pb(selector: &pb::Selector) -> Result<Selector, ConvertError> {
    Ok(Selector::new(&selector.r#type, &selector.value)?)
}

/// To the message.
pub fn entry_to_pb(entry: &RegistrationEntry) -> pb::Entry {
    pb::Entry {
        id: entry.id.clone(),
        spiffe_id: Some(id_to_pb(&entry.spiffe_id)),
        parent_id: Some(id_to_pb(&entry.parent_id)),
        selectors: entry.selectors.iter().map(selector_to_pb).collect(),
        x509_svid_ttl: i32::try_from(entry.x509_svid_ttl_secs).unwrap_or(i32::MAX),
        federates_with: entry
            .federates_with
            .iter()
            .map(ToString::to_string)
            .collect(),
        admin: entry.is_admin,
        downstream: entry.is_downstream,
        expires_at: entry.expires_at.map_or(0, Timestamp::unix_secs),
        dns_names: entry.dns_names.clone(),
        revision_number: i64::try_from(entry.revision).unwrap_or(i64::MAX),
        store_svid: entry.store_svid,
        jwt_svid_ttl: i32::try_from(entry.jwt_svid_ttl_secs).unwrap_or(i32::MAX),
        hint: entry.hint.clone(),
        created_at: entry.created_at.unix_secs(),
        additional_attributes: Some(pb::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: entry.disable_x509_svid_prefetch,
            jwt_svid_include_jti: entry.jwt_svid_include_jti,
        }),
    }
}

/// From the message. The rules of [`RegistrationEntry::check`] are the caller's to ask for.
pub fn entry_from_pb(entry: pb::Entry) -> Result<RegistrationEntry, ConvertError> {
    let selectors = entry
        .selectors
        .iter()
        .map(selector_from_pb)
        .collect::<Result<Vec<_>, _>>()?;
    let mut out = RegistrationEntry::new(
        &entry.id,
        id_from_pb(entry.spiffe_id.as_ref(), "spiffe_id")?,
        id_from_pb(entry.parent_id.as_ref(), "parent_id")?,
        selectors,
    );
    let unsigned = |value: i32, field| u32::try_from(value).map_err(|_| ConvertError::Range(field));
    out.x509_svid_ttl_secs = unsigned(entry.x509_svid_ttl, "x509_svid_ttl")?;
    out.jwt_svid_ttl_secs = unsigned(entry.jwt_svid_ttl, "jwt_svid_ttl")?;
    out.federates_with = entry
        .federates_with
        .iter()
        .map(|name| TrustDomain::parse(name))
        .collect::<Result<_, _>>()
        .map_err(|source| ConvertError::SpiffeId {
            field: "federates_with",
            source,
        })?;
    out.is_admin = entry.admin;
    out.is_downstream = entry.downstream;
    out.expires_at = (entry.expires_at != 0).then(|| Timestamp::from_unix_secs(entry.expires_at));
    out.dns_names = entry.dns_names;
    out.revision =
        u64::try_from(entry.revision_number).map_err(|_| ConvertError::Range("revision_number"))?;
    out.store_svid = entry.store_svid;
    out.hint = entry.hint;
    out.created_at = Timestamp::from_unix_secs(entry.created_at);
    let more = entry.additional_attributes.unwrap_or_default();
    out.disable_x509_svid_prefetch = more.disable_x509_svid_prefetch;
    out.jwt_svid_include_jti = more.jwt_svid_include_jti;
    Ok(out)
}

/// To the message.
pub fn bundle_to_pb(bundle: &Bundle) -> pb::Bundle {
    pb::Bundle {
        trust_domain: bundle.trust_domain.to_string(),
        x509_authorities: bundle
            .x509_authorities
            .iter()
            .map(|authority| pb::X509Certificate {
                asn1: authority.der.clone(),
                tainted: authority.is_tainted,
            })
            .collect(),
        jwt_authorities: bundle
            .jwt_authorities
            .iter()
            .map(|authority| pb::JwtKey {
                public_key: authority.public_key_spki.clone(),
                key_id: authority.key_id.clone(),
                expires_at: authority.expires_at.unix_secs(),
                tainted: authority.is_tainted,
            })
            .collect(),
        refresh_hint: i64::from(bundle.refresh_hint_secs),
        sequence_number: bundle.sequence,
        wit_authorities: Vec::new(),
    }
}

/// From the message.
pub fn bundle_from_pb(bundle: pb::Bundle) -> Result<Bundle, ConvertError> {
    let trust_domain =
        TrustDomain::parse(&bundle.trust_domain).map_err(|source| ConvertError::SpiffeId {
            field: "trust_domain",
            source,
        })?;
    Ok(Bundle {
        trust_domain,
        x509_authorities: bundle
            .x509_authorities
            .into_iter()
            .map(|authority| X509Authority {
                der: authority.asn1,
                is_tainted: authority.tainted,
            })
            .collect(),
        jwt_authorities: bundle
            .jwt_authorities
            .into_iter()
            .map(|authority| JwtAuthority {
                key_id: authority.key_id,
                public_key_spki: authority.public_key,
                expires_at: Timestamp::from_unix_secs(authority.expires_at),
                is_tainted: authority.tainted,
            })
            .collect(),
        refresh_hint_secs: u32::try_from(bundle.refresh_hint)
            .map_err(|_| ConvertError::Range("refresh_hint"))?,
        sequence: bundle.sequence_number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_goes_there_and_back() {
        let td = TrustDomain::parse("td").unwrap();
        let mut entry = RegistrationEntry::new(
            "mesh:shop/orders",
            SpiffeId::new(&td, "/a").unwrap(),
            SpiffeId::new(&td, "/node/local").unwrap(),
            vec![Selector::parse("unix:uid:1").unwrap()],
        );
        entry.x509_svid_ttl_secs = 120;
        entry.federates_with = vec![TrustDomain::parse("other").unwrap()];
        entry.expires_at = Some(Timestamp::from_unix_secs(5));
        entry.revision = 9;
        entry.jwt_svid_include_jti = true;
        entry.hint = "h".into();
        assert_eq!(entry_from_pb(entry_to_pb(&entry)).unwrap(), entry);
    }

    #[test]
    fn malformed_messages_name_the_field() {
        let mut message = pb::Entry::default();
        assert_eq!(
            entry_from_pb(message.clone()),
            Err(ConvertError::Missing("spiffe_id"))
        );
        let id = |path: &str| {
            Some(pb::Spiffeid {
                trust_domain: "td".into(),
                path: path.into(),
            })
        };
        message.spiffe_id = id("/a/../b");
        assert!(matches!(
            entry_from_pb(message.clone()),
            Err(ConvertError::SpiffeId {
                field: "spiffe_id",
                ..
            })
        ));
        message.spiffe_id = id("/a");
        message.parent_id = id("/n");
        message.x509_svid_ttl = -1;
        assert_eq!(
            entry_from_pb(message),
            Err(ConvertError::Range("x509_svid_ttl")),
            "threat 25"
        );
    }
}
