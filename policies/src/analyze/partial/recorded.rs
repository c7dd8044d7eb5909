//! The request part of a record, as the policies of its workload would see it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{PATH_AS_IT_CAME, PartialHttp, TOKEN};
use crate::analyze::record::HttpFacts;
use crate::authenticate::identity_of_claims;
use crate::call::RequestIdentity;
use crate::compile::WorkloadPolicies;
use crate::limits;
use crate::path::{PathNormalization, PathRefusal, normalize};
use crate::schema::Field;

pub(super) fn recorded_http(
    policies: &WorkloadPolicies,
    http: &HttpFacts,
    unknown: &mut Vec<Field>,
    doubts: &mut Vec<&'static str>,
) -> Result<PartialHttp, &'static str> {
    let root =
        || normalize("/", PathNormalization::None).map_err(|refusal: PathRefusal| refusal.code());
    let path = match (&http.raw_path, &http.path) {
        (Some(raw), _) => policies
            .normalize(raw)
            .map_err(|refusal: PathRefusal| refusal.code())?,
        (None, Some(path)) => {
            if policies.judges_paths() {
                doubts.push(PATH_AS_IT_CAME);
            }
            match policies.normalize(path) {
                Ok(found) if found.path() == path => found,
                Ok(_) | Err(_) => {
                    doubts.push(PATH_AS_IT_CAME);
                    unknown.push(Field::Path);
                    root()?
                }
            }
        }
        (None, None) => {
            doubts.push(PATH_AS_IT_CAME);
            unknown.push(Field::Path);
            root()?
        }
    };
    if http.method.is_none() {
        unknown.push(Field::Method);
    }
    if http.host.is_none() {
        unknown.push(Field::Host);
    }
    let identities = match &http.request_principal {
        // Without any RequestAuthentication no token is looked at (rule 53).
        _ if policies.authentication().is_empty() => vec![RequestIdentity::default()],
        Some(principal) if principal.is_empty() => vec![RequestIdentity::default()],
        Some(principal) => identities_of(policies, principal),
        None => Vec::new(),
    };
    if identities.is_empty() {
        doubts.push(TOKEN);
    }
    Ok(PartialHttp {
        method: http.method.clone().unwrap_or_default(),
        host: http.host.clone().unwrap_or_default(),
        path,
        has_query: false,
        headers: None,
        identities,
        has_claims: false,
    })
}

/// The ways in which `<issuer>/<subject>` may be read: by the issuers that these policies accept.
fn identities_of(policies: &WorkloadPolicies, principal: &str) -> Vec<RequestIdentity> {
    let mut splits: BTreeSet<(&str, &str)> = BTreeSet::new();
    for rule in policies.authentication().rules() {
        match rule.issuer.as_deref() {
            Some(issuer) => {
                let subject = principal
                    .strip_prefix(issuer)
                    .and_then(|rest| rest.strip_prefix('/'));
                splits.extend(
                    subject.and_then(|subject| Some((principal.get(..issuer.len())?, subject))),
                );
            }
            // Any issuer.
            None => splits.extend(
                principal
                    .match_indices('/')
                    .filter_map(|(at, _)| Some((principal.get(..at)?, principal.get(at + 1..)?))),
            ),
        }
    }
    splits
        .into_iter()
        .take(limits::PRINCIPAL_READINGS_MAX + 1)
        .map(|(issuer, subject)| {
            let mut claims = Map::new();
            claims.insert("iss".into(), Value::from(issuer));
            if !subject.is_empty() {
                claims.insert("sub".into(), Value::from(subject));
            }
            identity_of_claims(claims, &[])
        })
        .collect()
}
