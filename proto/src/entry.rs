//! Registration entries: which selectors stand for which SPIFFE ID, under which parent.

use crate::selector::Selector;
use crate::spiffe_id::{SpiffeId, TrustDomain};
use crate::time::Timestamp;

/// Longest hint in bytes (SPIFFE Workload API 5.2.1).
pub const HINT_BYTES_MAX: usize = 1024;
/// Most selectors of one entry.
pub const SELECTORS_MAX: usize = 64;
/// Most DNS names of one entry.
pub const DNS_NAMES_MAX: usize = 64;
/// Longest DNS name (RFC 1035 2.3.4).
pub const DNS_NAME_BYTES_MAX: usize = 253;
/// Longest entry id in bytes.
pub const ENTRY_ID_BYTES_MAX: usize = 255;

/// Why an entry is refused: one variant a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Nothing to match on: the entry would match every process (threat 9).
    #[error("the entry has no selector; it would match every process")]
    NoSelectors,
    /// Past [`SELECTORS_MAX`].
    #[error("the entry has more than {SELECTORS_MAX} selectors")]
    TooManySelectors,
    /// The trust domain's own ID is not for a workload.
    #[error("`{0}` is the ID of a trust domain; a workload's ID has a path")]
    RootId(SpiffeId),
    /// Parent and ID lie in different trust domains.
    #[error("`{id}` and its parent `{parent}` lie in different trust domains")]
    ForeignParent {
        /// The entry's ID.
        id: SpiffeId,
        /// The entry's parent.
        parent: SpiffeId,
    },
    /// An entry below itself.
    #[error("`{0}` is its own parent")]
    OwnParent(SpiffeId),
    /// The paths below `/spire` belong to servers and agents.
    #[error("`{0}` is reserved: paths below `/spire` belong to servers and agents")]
    ReservedId(SpiffeId),
    /// Not a DNS name of letters, digits and hyphens.
    #[error("`{0}` is not a DNS name")]
    DnsName(String),
    /// Past [`DNS_NAMES_MAX`].
    #[error("the entry has more than {DNS_NAMES_MAX} DNS names")]
    TooManyDnsNames,
    /// Past [`HINT_BYTES_MAX`].
    #[error("the hint is longer than {HINT_BYTES_MAX} bytes")]
    HintTooLong,
    /// Past [`ENTRY_ID_BYTES_MAX`], or with characters that an id does not have.
    #[error("an entry id has 1 to {ENTRY_ID_BYTES_MAX} printable characters without spaces")]
    EntryId,
}

/// One registration entry (SPIRE's `types.Entry` as a checked value).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationEntry {
    /// Unique id; `mesh:NAMESPACE/NAME` when it comes from the mesh folder.
    pub id: String,
    /// The identity that it gives.
    pub spiffe_id: SpiffeId,
    /// The agent, node alias or (for aliases) server that may hand it out.
    pub parent_id: SpiffeId,
    /// All of these must be attested. Sorted, without duplicates.
    pub selectors: Vec<Selector>,
    /// Seconds; 0 means the CA's default.
    pub x509_svid_ttl_secs: u32,
    /// Seconds; 0 means the CA's default.
    pub jwt_svid_ttl_secs: u32,
    /// Foreign trust domains whose bundles the workload gets.
    pub federates_with: Vec<TrustDomain>,
    /// May use the CA's administrative API.
    pub is_admin: bool,
    /// May ask for a downstream authority.
    pub is_downstream: bool,
    /// After this the entry is pruned; it does not shorten SVIDs.
    pub expires_at: Option<Timestamp>,
    /// DNS names for the X509-SVID.
    pub dns_names: Vec<String>,
    /// Operator's hint (Workload API 5.2.1).
    pub hint: String,
    /// For storage outside of the Workload API.
    pub store_svid: bool,
    /// Grows with each change of this entry.
    pub revision: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// Sign only when a workload asks.
    pub disable_x509_svid_prefetch: bool,
    /// Every JWT-SVID gets its own `jti`, so none is cached.
    pub jwt_svid_include_jti: bool,
}

impl RegistrationEntry {
    /// An entry with defaults for all that is optional. Sorts the selectors.
    pub fn new(
        id: &str,
        spiffe_id: SpiffeId,
        parent_id: SpiffeId,
        selectors: Vec<Selector>,
    ) -> Self {
        let mut selectors = selectors;
        selectors.sort();
        selectors.dedup();
        Self {
            id: id.to_owned(),
            spiffe_id,
            parent_id,
            selectors,
            x509_svid_ttl_secs: 0,
            jwt_svid_ttl_secs: 0,
            federates_with: Vec::new(),
            is_admin: false,
            is_downstream: false,
            expires_at: None,
            dns_names: Vec::new(),
            hint: String::new(),
            store_svid: false,
            revision: 0,
            created_at: Timestamp::default(),
            disable_x509_svid_prefetch: false,
            jwt_svid_include_jti: false,
        }
    }

    /// Every rule that an entry must meet on its own.
    pub fn check(&self) -> Result<(), EntryError> {
        if self.id.is_empty()
            || self.id.len() > ENTRY_ID_BYTES_MAX
            || !self.id.chars().all(|c| c.is_ascii_graphic())
        {
            return Err(EntryError::EntryId);
        }
        if self.selectors.is_empty() {
            return Err(EntryError::NoSelectors);
        }
        if self.selectors.len() > SELECTORS_MAX {
            return Err(EntryError::TooManySelectors);
        }
        self.check_ids()?;
        if self.dns_names.len() > DNS_NAMES_MAX {
            return Err(EntryError::TooManyDnsNames);
        }
        if let Some(bad) = self.dns_names.iter().find(|name| !is_dns_name(name)) {
            return Err(EntryError::DnsName(bad.chars().take(80).collect()));
        }
        if self.hint.len() > HINT_BYTES_MAX {
            return Err(EntryError::HintTooLong);
        }
        Ok(())
    }

    fn check_ids(&self) -> Result<(), EntryError> {
        if self.spiffe_id.is_root() {
            return Err(EntryError::RootId(self.spiffe_id.clone()));
        }
        if self.spiffe_id == self.parent_id {
            return Err(EntryError::OwnParent(self.spiffe_id.clone()));
        }
        if !self.parent_id.is_member_of(&self.spiffe_id.trust_domain()) {
            return Err(EntryError::ForeignParent {
                id: self.spiffe_id.clone(),
                parent: self.parent_id.clone(),
            });
        }
        let path = self.spiffe_id.path();
        if path == "/spire" || path.starts_with("/spire/") {
            return Err(EntryError::ReservedId(self.spiffe_id.clone()));
        }
        Ok(())
    }
}

/// A DNS name of letters, digits and hyphens; one `*` may stand as the first label.
pub fn is_dns_name(name: &str) -> bool {
    if name.is_empty() || name.len() > DNS_NAME_BYTES_MAX {
        return false;
    }
    let labels = name.strip_prefix("*.").unwrap_or(name);
    labels.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> RegistrationEntry {
        let td = TrustDomain::parse("td").unwrap();
        RegistrationEntry::new(
            "e1",
            SpiffeId::new(&td, "/a").unwrap(),
            SpiffeId::new(&td, "/node").unwrap(),
            vec![Selector::parse("unix:uid:1").unwrap()],
        )
    }

    #[test]
    fn each_rule_of_an_entry_refuses_by_name() {
        type Row = (
            &'static str,
            fn(&mut RegistrationEntry),
            fn(&EntryError) -> bool,
        );
        let rows: [Row; 9] = [
            (
                "no selector",
                |e| e.selectors.clear(),
                |e| *e == EntryError::NoSelectors,
            ),
            (
                "too many selectors",
                |e| {
                    e.selectors = (0..65)
                        .map(|n| Selector::new("x", &n.to_string()).unwrap())
                        .collect();
                },
                |e| *e == EntryError::TooManySelectors,
            ),
            (
                "root id",
                |e| e.spiffe_id = SpiffeId::parse("spiffe://td").unwrap(),
                |e| matches!(e, EntryError::RootId(_)),
            ),
            (
                "foreign parent",
                |e| e.parent_id = SpiffeId::parse("spiffe://other/node").unwrap(),
                |e| matches!(e, EntryError::ForeignParent { .. }),
            ),
            (
                "own parent",
                |e| e.parent_id = e.spiffe_id.clone(),
                |e| matches!(e, EntryError::OwnParent(_)),
            ),
            (
                "reserved",
                |e| e.spiffe_id = SpiffeId::parse("spiffe://td/spire/server").unwrap(),
                |e| matches!(e, EntryError::ReservedId(_)),
            ),
            (
                "dns",
                |e| e.dns_names = vec!["a..b".into()],
                |e| matches!(e, EntryError::DnsName(_)),
            ),
            (
                "hint",
                |e| e.hint = "h".repeat(1025),
                |e| *e == EntryError::HintTooLong,
            ),
            ("id", |e| e.id = "a b".into(), |e| *e == EntryError::EntryId),
        ];
        assert_eq!(entry().check(), Ok(()));
        for (name, spoil, is_wanted) in rows {
            let mut spoilt = entry();
            spoil(&mut spoilt);
            assert!(is_wanted(&spoilt.check().unwrap_err()), "{name}");
        }
    }

    #[test]
    fn dns_names_are_labels_of_letters_digits_and_hyphens() {
        for (name, want) in [
            ("orders.shop", true),
            ("*.shop", true),
            ("a", true),
            ("", false),
            ("-a.b", false),
            ("a_b", false),
            ("*.*.b", false),
            ("a\0b", false),
        ] {
            assert_eq!(is_dns_name(name), want, "{name:?}");
        }
    }
}
