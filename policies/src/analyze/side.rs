//! One state of the mesh as a workload sees it: what is attached to it, which tokens count, who may connect.

use std::sync::Arc;

use super::AnalyzeError;
use super::machine::{Machine, Text};
use super::sort::{self, TokenSort};
use super::space::Scope;
use super::vocabulary::{ListField, TextField, Vocabulary};
use crate::attached::{jwt_rules_of, policies_of, provider_named};
use crate::compile::WorkloadPolicies;
use crate::matcher::StringMatch;
use crate::object::Workload;
use crate::path::PathNormalization;
use crate::schema::{
    AuthorizationPolicy, ExtensionProvider, Field, JwtRule, LaunchProtocol, Rule, WorkloadIdentity,
};
use crate::set::MeshSet;

/// A workload in one set.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    pub(crate) set: &'a MeshSet,
    pub(crate) identity: Option<&'a WorkloadIdentity>,
    pub(crate) engine: WorkloadPolicies,
    /// In the order in which the engine looks for the rule that decides.
    pub(crate) attached: Vec<&'a AuthorizationPolicy>,
    pub(crate) jwt_rules: Vec<Arc<JwtRule>>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(set: &'a MeshSet, workload: &Workload) -> Result<Self, AnalyzeError> {
        let engine =
            WorkloadPolicies::compile(set, workload, 0).map_err(AnalyzeError::NotCompiled)?;
        let mut jwt_rules = jwt_rules_of(set, workload);
        jwt_rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        Ok(Self {
            set,
            identity: set
                .identities
                .iter()
                .find(|identity| identity.spiffe_id == workload.spiffe_id),
            engine,
            attached: policies_of(set, workload).collect(),
            jwt_rules,
        })
    }

    pub(crate) fn normalization(&self) -> PathNormalization {
        self.set.config.path_normalization
    }

    pub(crate) fn provider(&self, name: Option<&str>) -> Option<&'a Arc<ExtensionProvider>> {
        provider_named(name, &self.set.config.extension_providers)
    }

    /// Takes everything that this side looks at into the vocabulary.
    pub(crate) fn describe(
        &self,
        vocabulary: &mut Vocabulary,
        includes: impl Fn(&AuthorizationPolicy) -> bool,
    ) -> Result<(), AnalyzeError> {
        let taken = sort::token_headers(&self.jwt_rules);
        for policy in self.attached.iter().filter(|policy| includes(policy)) {
            if !policy.window.is_always() {
                vocabulary.windows.push(policy.window);
            }
            for rule in policy.rules.iter() {
                for clause in rule.clauses() {
                    if let Field::Header(name) = &clause.field
                        && taken.contains(name)
                    {
                        return Err(AnalyzeError::NotModelled {
                            what: format!(
                                "the condition on `{}`, which carries a token or what is made of one",
                                clause.name
                            ),
                            location: rule.location.clone(),
                        });
                    }
                    vocabulary.add(clause, self.set.config.is_host_exact, &rule.location)?;
                }
            }
        }
        for rule in &self.jwt_rules {
            for audience in &rule.audiences {
                let patterns = vocabulary.lists.entry(ListField::Audience).or_default();
                patterns.add(exactly(audience), audience);
            }
            if let Some(domain) = rule.keys.trust_domain() {
                let label = format!("spiffe://{domain}/*");
                let subjects = vocabulary.text(TextField::Subject);
                subjects.add(members_of(domain.as_str()), &label);
                subjects.add(any_id(), "any SPIFFE ID");
            }
        }
        for object in &self.set.peer_authentications {
            vocabulary.ports.extend(object.port_modes.keys());
        }
        Ok(())
    }

    /// The set's own identities, as principals without scheme, with the names that people know.
    pub(crate) fn name_identities(&self, vocabulary: &mut Vocabulary) {
        let principals = vocabulary.text(TextField::Principal);
        for identity in &self.set.identities {
            let principal = bare(identity.spiffe_id.as_str());
            principals.add(exactly(principal), principal);
        }
    }

    pub(crate) fn scope(&self) -> Scope {
        let id = self.engine.workload().spiffe_id.clone();
        let launch = self.identity.and_then(|identity| identity.launch.as_ref());
        let service = self
            .set
            .services
            .iter()
            .find(|service| service.subject_alt_names.contains(&id));
        let host = service.and_then(|service| service.hosts.first().cloned());
        let is_tcp = launch.map(|launch| launch.protocol == LaunchProtocol::Tcp);
        Scope {
            has_http: is_tcp != Some(true),
            has_connections: is_tcp == Some(true),
            normalization: self.normalization(),
            port: launch.map_or(8080, |launch| launch.port),
            host: host.unwrap_or_else(|| "example.com".to_owned()),
            now: ravelin_proto::time::Timestamp::default(),
            identities: self
                .set
                .identities
                .iter()
                .map(|identity| bare(identity.spiffe_id.as_str()).to_owned())
                .collect(),
        }
    }

    pub(crate) fn sorts(&self) -> Result<Vec<TokenSort>, AnalyzeError> {
        sort::sorts(&self.jwt_rules)
    }
}

pub(crate) fn bare(id: &str) -> &str {
    id.strip_prefix("spiffe://").unwrap_or(id)
}

pub(crate) fn exactly(text: &str) -> Machine {
    Machine::Whole(Text::of(&StringMatch::Exact(text.to_owned())))
}

/// Texts that begin as members of the trust domain do; SPIFFE IDs among them are members.
pub(crate) fn members_of(domain: &str) -> Machine {
    Machine::Whole(Text::of(&StringMatch::Prefix(format!(
        "spiffe://{domain}/"
    ))))
}

pub(crate) fn any_id() -> Machine {
    Machine::Language(super::language::Language::SpiffeUri)
}

/// The path that normalizing in full leaves as it is: nobody reads it differently (rule 90).
pub(crate) fn plain_path(has_query: bool) -> Machine {
    Machine::Language(super::language::Language::Path {
        normalization: PathNormalization::DecodeAndMergeSlashes,
        has_query,
    })
}

/// A rule of a policy.
pub(crate) fn rules(policy: &AuthorizationPolicy) -> impl Iterator<Item = (u32, &Rule)> {
    (1..).zip(policy.rules.iter())
}
