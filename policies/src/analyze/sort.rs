//! Sorts of tokens: by issuer, key and place. Which rules of a workload find and accept a token depends on nothing else
//! but its audiences and subject.

use std::fmt::Write as _;
use std::sync::Arc;

use ravelin_proto::jwks::Jwk;
use ravelin_proto::spiffe_id::TrustDomain;

use super::AnalyzeError;
use crate::limits;
use crate::schema::{JwtRule, KeyOrigin, TokenPlace};

/// Tokens of one issuer, signed by one key, at one place of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenSort {
    pub(crate) issuer: String,
    pub(crate) signer: Signer,
    pub(crate) place: TokenPlace,
}

/// Who signed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Signer {
    /// A key that stands in the files.
    Key(Jwk),
    /// Some key of keys that come from elsewhere.
    Origin(KeyOrigin),
}

/// What a rule makes of a token, before its audiences and subject are looked at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reception {
    /// The rule does not look where the token stands.
    NotSeen,
    Refused,
    /// Accepted, with an audience of the rule, and a subject of this trust domain.
    Accepted(Option<TrustDomain>),
}

/// Every sort that some rule may accept.
pub(crate) fn sorts(rules: &[Arc<JwtRule>]) -> Result<Vec<TokenSort>, AnalyzeError> {
    let mut found: Vec<TokenSort> = Vec::new();
    for rule in rules {
        let Some(issuer) = &rule.issuer else {
            return Err(AnalyzeError::NotModelled {
                what: "a JWT rule without an issuer".to_owned(),
                location: rule.location.clone(),
            });
        };
        let signers: Vec<Signer> = match &rule.keys {
            KeyOrigin::Inline(set) => {
                let usable = set.keys.iter().filter(|key| is_for_signing(key));
                usable.cloned().map(Signer::Key).collect()
            }
            KeyOrigin::TrustDomain(_) | KeyOrigin::Remote(_) => {
                vec![Signer::Origin(rule.keys.clone())]
            }
        };
        for signer in signers {
            for place in &rule.places {
                let sort = TokenSort {
                    issuer: issuer.clone(),
                    signer: signer.clone(),
                    place: place.clone(),
                };
                if !found.iter().any(|known| known.is_same(&sort)) {
                    found.push(sort);
                }
            }
        }
        if found.len() > limits::ANALYSIS_TOKEN_SORTS_MAX {
            return Err(AnalyzeError::OverBudget("sorts of tokens"));
        }
    }
    Ok(found)
}

/// How long a fetch may take changes no answer.
fn is_same_origin(one: &KeyOrigin, other: &KeyOrigin) -> bool {
    match (one, other) {
        (KeyOrigin::Remote(one), KeyOrigin::Remote(other)) => one.address == other.address,
        _ => one == other,
    }
}

fn is_for_signing(key: &Jwk) -> bool {
    matches!(key.use_.as_deref(), None | Some("sig" | "jwt-svid")) && !key.algorithms().is_empty()
}

impl TokenSort {
    /// The same sort: how long a fetch of its keys may take does not count.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_same_signer = match (&self.signer, &other.signer) {
            (Signer::Origin(one), Signer::Origin(other)) => is_same_origin(one, other),
            (one, other) => one == other,
        };
        is_same_signer && self.issuer == other.issuer && self.place == other.place
    }

    /// What `rule` makes of a token of this sort.
    pub(crate) fn reception(&self, rule: &JwtRule) -> Reception {
        if !rule.places.contains(&self.place) {
            // A shorter prefix of the same header sees the token too, with something before it that is no token.
            return if rule
                .places
                .iter()
                .any(|place| is_cut_short(place, &self.place))
            {
                Reception::Refused
            } else {
                Reception::NotSeen
            };
        }
        let is_signed = match (&self.signer, &rule.keys) {
            (Signer::Key(key), KeyOrigin::Inline(set)) => set.keys.contains(key),
            (Signer::Origin(origin), keys) => is_same_origin(origin, keys),
            (Signer::Key(_), KeyOrigin::TrustDomain(_) | KeyOrigin::Remote(_)) => false,
        };
        if rule.issuer.as_ref() != Some(&self.issuer) || !is_signed {
            return Reception::Refused;
        }
        Reception::Accepted(rule.keys.trust_domain().cloned())
    }

    /// For a person: issuer, and what tells it from the other sorts.
    pub(crate) fn label(&self, all: &[Self]) -> String {
        let mut text = format!("of `{}`", self.issuer);
        let others = || {
            all.iter()
                .filter(|other| *other != self && other.issuer == self.issuer)
        };
        if others().any(|other| other.signer != self.signer) {
            match &self.signer {
                Signer::Key(key) => {
                    let name = key.kid.as_deref().unwrap_or("without a name");
                    let _ = write!(text, " signed by the key `{name}`");
                }
                Signer::Origin(KeyOrigin::TrustDomain(domain)) => {
                    let _ = write!(text, " signed by the trust domain `{domain}`");
                }
                Signer::Origin(_) => text.push_str(" signed by a fetched key"),
            }
        }
        if others().any(|other| other.place != self.place) {
            let (what, name) = match &self.place {
                TokenPlace::Header { name, .. } => ("header", name),
                TokenPlace::Param(name) => ("parameter", name),
                TokenPlace::Cookie(name) => ("cookie", name),
            };
            let _ = write!(text, " in the {what} `{name}`");
        }
        text
    }
}

fn is_cut_short(place: &TokenPlace, of: &TokenPlace) -> bool {
    match (place, of) {
        (
            TokenPlace::Header { name, prefix },
            TokenPlace::Header {
                name: of_name,
                prefix: of_prefix,
            },
        ) => name == of_name && of_prefix.starts_with(prefix.as_str()),
        _ => false,
    }
}

/// Headers that tokens travel in, or that rules make of claims: what policies see there is not the caller's own.
pub(crate) fn token_headers(rules: &[Arc<JwtRule>]) -> Vec<String> {
    rules
        .iter()
        .flat_map(|rule| {
            let places = rule.places.iter().filter_map(|place| match place {
                TokenPlace::Header { name, .. } => Some(name.clone()),
                TokenPlace::Cookie(_) => Some("cookie".to_owned()),
                TokenPlace::Param(_) => None,
            });
            let made = rule.claim_headers.iter().map(|(name, _)| name.clone());
            places.chain(made).chain(rule.payload_header.clone())
        })
        .collect()
}
