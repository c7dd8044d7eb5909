//! Filters and masks of SPIRE's entry API. Pure.

use std::collections::BTreeSet;

use ravelin_proto::convert::{ConvertError, id_from_pb, selector_from_pb};
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb::spire::api::server::entry::v1 as pb;
use ravelin_proto::pb::spire::api::types;
use ravelin_proto::selector::Selector;
use ravelin_proto::spiffe_id::SpiffeId;

/// A parsed filter; `None` asks for nothing.
#[derive(Debug, Default)]
pub struct EntryFilter {
    spiffe_id: Option<SpiffeId>,
    parent_id: Option<SpiffeId>,
    selectors: Option<(BTreeSet<Selector>, Match)>,
    federates_with: Option<(BTreeSet<String>, Match)>,
    hint: Option<String>,
    downstream: Option<bool>,
}

/// How two sets have to relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Exact,
    Subset,
    Superset,
    Any,
}

impl Match {
    fn parse(number: i32) -> Result<Self, ConvertError> {
        match number {
            0 => Ok(Self::Exact),
            1 => Ok(Self::Subset),
            2 => Ok(Self::Superset),
            3 => Ok(Self::Any),
            _ => Err(ConvertError::Range("match")),
        }
    }

    fn holds<T: Ord>(self, entry: &BTreeSet<T>, asked: &BTreeSet<T>) -> bool {
        match self {
            Self::Exact => entry == asked,
            Self::Subset => entry.is_subset(asked),
            Self::Superset => entry.is_superset(asked),
            Self::Any => !entry.is_disjoint(asked),
        }
    }
}

impl EntryFilter {
    /// Reads the filter of `ListEntries`; that of `CountEntries` has the same fields.
    pub fn parse(filter: Option<pb::list_entries_request::Filter>) -> Result<Self, ConvertError> {
        let Some(filter) = filter else {
            return Ok(Self::default());
        };
        let id = |id: Option<types::Spiffeid>, field| {
            id.map(|id| id_from_pb(Some(&id), field)).transpose()
        };
        let selectors = filter
            .by_selectors
            .map(|by| {
                let set = by
                    .selectors
                    .iter()
                    .map(selector_from_pb)
                    .collect::<Result<_, _>>()?;
                Ok::<_, ConvertError>((set, Match::parse(by.r#match)?))
            })
            .transpose()?;
        let federates_with = filter
            .by_federates_with
            .map(|by| {
                let set = by.trust_domains.into_iter().collect();
                Ok::<_, ConvertError>((set, Match::parse(by.r#match)?))
            })
            .transpose()?;
        Ok(Self {
            spiffe_id: id(filter.by_spiffe_id, "by_spiffe_id")?,
            parent_id: id(filter.by_parent_id, "by_parent_id")?,
            selectors,
            federates_with,
            hint: filter.by_hint,
            downstream: filter.by_downstream,
        })
    }

    /// True when the entry meets all that is asked.
    pub fn accepts(&self, entry: &RegistrationEntry) -> bool {
        let is_none_or =
            |asked: &Option<SpiffeId>, id| asked.as_ref().is_none_or(|asked| asked == id);
        is_none_or(&self.spiffe_id, &entry.spiffe_id)
            && is_none_or(&self.parent_id, &entry.parent_id)
            && self.selectors.as_ref().is_none_or(|(asked, how)| {
                how.holds(&entry.selectors.iter().cloned().collect(), asked)
            })
            && self.federates_with.as_ref().is_none_or(|(asked, how)| {
                let names = entry
                    .federates_with
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                how.holds(&names, asked)
            })
            && self.hint.as_ref().is_none_or(|hint| *hint == entry.hint)
            && self
                .downstream
                .is_none_or(|asked| asked == entry.is_downstream)
    }
}

/// Blanks every field that the mask leaves out; the id always stays.
pub fn mask(entry: &mut types::Entry, mask: Option<&types::EntryMask>) {
    let Some(mask) = mask else { return };
    let blank = types::Entry::default();
    macro_rules! keep {
        ($($field:ident),*) => { $(if !mask.$field { entry.$field = blank.$field; })* };
    }
    keep!(
        spiffe_id,
        parent_id,
        selectors,
        x509_svid_ttl,
        federates_with,
        admin,
        downstream,
        expires_at,
        dns_names,
        revision_number,
        store_svid,
        jwt_svid_ttl,
        hint,
        created_at,
        additional_attributes
    );
}

/// `update` over `stored`, field by field as the mask says; without a mask all of it.
pub fn merge(
    stored: types::Entry,
    update: types::Entry,
    mask: Option<&types::EntryMask>,
) -> types::Entry {
    let Some(mask) = mask else { return update };
    let mut merged = stored;
    macro_rules! take {
        ($($field:ident),*) => { $(if mask.$field { merged.$field = update.$field; })* };
    }
    take!(
        spiffe_id,
        parent_id,
        selectors,
        x509_svid_ttl,
        federates_with,
        admin,
        downstream,
        expires_at,
        dns_names,
        store_svid,
        jwt_svid_ttl,
        hint,
        additional_attributes
    );
    merged
}
