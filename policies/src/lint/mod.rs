//! Lints: what loads and is probably not what was meant. Asked for by `policy check`, never by a load.
//!
//! Each lint is a function from the mesh to findings, with a stable code, and names what would be right.

mod claims;
mod identity;
mod idle;
mod peers;
mod protocol;
mod rule;
mod scope;

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Span, bounded, snippet};
use crate::limits;
use crate::object::{Labels, Location, Metadata, Workload, has_labels};
use crate::schema::AuthorizationPolicy;
use crate::set::MeshSet;
use crate::source::SourceFile;

/// One lint.
type Check = fn(&Mesh<'_>, &mut Findings<'_>);

const CHECKS: [Check; 14] = [
    rule::split_rules,
    rule::negative_allows,
    rule::denies_by_path,
    rule::hosts_with_ports,
    identity::any_trust_domain,
    identity::unknown_names,
    claims::bare_issuers,
    claims::unauthenticated_claims,
    claims::loose_tokens,
    peers::denies_in_plain_text,
    scope::empty_namespaces,
    protocol::http_fields_on_tcp,
    protocol::providers,
    idle::idle_rules,
];

/// Everything suspicious in a set that was loaded from these files, in the order of path and line.
pub fn all(set: &MeshSet, files: &[SourceFile]) -> Vec<Diagnostic> {
    let mesh = Mesh::new(set);
    let mut findings = Findings::new(files);
    for check in CHECKS {
        check(&mesh, &mut findings);
    }
    findings.finish()
}

/// The set, and its workloads by namespace.
struct Mesh<'s> {
    set: &'s MeshSet,
    /// Those of WorkloadIdentity; without any, one stand-in for whomever each policy selects.
    workloads: BTreeMap<String, Vec<Workload>>,
}

impl<'s> Mesh<'s> {
    fn new(set: &'s MeshSet) -> Self {
        let mut workloads: BTreeMap<String, Vec<Workload>> = BTreeMap::new();
        let mut add = |workload: Workload| {
            let known = workloads.entry(workload.namespace.clone()).or_default();
            if set.identities.is_empty() && known.contains(&workload) {
                return;
            }
            known.push(workload);
        };
        for identity in &set.identities {
            add(set.workload(&identity.spiffe_id));
        }
        if set.identities.is_empty() {
            for policy in &set.authorization_policies {
                add(stand_in(&policy.metadata, policy.selector.as_ref(), set));
            }
        }
        Self { set, workloads }
    }

    /// Policies that hold for workloads here at all (rule 67).
    fn policies(&self) -> impl Iterator<Item = &'s AuthorizationPolicy> {
        let policies = self.set.authorization_policies.iter();
        policies.filter(|policy| !policy.has_target_refs)
    }

    /// The workloads that an object of this namespace with this selector holds for (rules 65, 66).
    fn workloads_of<'m>(
        &'m self,
        namespace: &'m str,
        selector: Option<&'m Labels>,
    ) -> impl Iterator<Item = &'m Workload> {
        let is_root = namespace == self.set.config.root_namespace;
        let of_namespaces = self
            .workloads
            .iter()
            .filter(move |(name, _)| is_root || name.as_str() == namespace);
        of_namespaces
            .flat_map(|(_, workloads)| workloads)
            .filter(move |workload| {
                selector.is_none_or(|labels| has_labels(&workload.labels, labels))
            })
    }

    fn workloads_of_policy<'m>(
        &'m self,
        policy: &'m AuthorizationPolicy,
    ) -> impl Iterator<Item = &'m Workload> {
        self.workloads_of(&policy.metadata.namespace, policy.selector.as_ref())
    }
}

fn stand_in(metadata: &Metadata, selector: Option<&Labels>, set: &MeshSet) -> Workload {
    let namespace = match metadata.namespace.as_str() {
        root if root == set.config.root_namespace => "default",
        namespace => namespace,
    };
    Workload {
        spiffe_id: set.config.trust_domain.id(),
        namespace: namespace.to_owned(),
        name: String::new(),
        labels: selector.cloned().unwrap_or_default(),
    }
}

/// Gathers what lints find; bounded.
struct Findings<'f> {
    files: BTreeMap<&'f str, &'f SourceFile>,
    found: Vec<Diagnostic>,
    is_full: bool,
}

impl<'f> Findings<'f> {
    fn new(files: &'f [SourceFile]) -> Self {
        Self {
            files: files
                .iter()
                .map(|file| (file.path.as_str(), file))
                .collect(),
            found: Vec::new(),
            is_full: false,
        }
    }

    /// A warning at the first line of an object or a rule.
    fn warn(&mut self, code: &'static str, at: &Location, message: String, help: &str) {
        self.warn_line(code, &at.path, at.line, message, help);
    }

    /// A warning at a line of a file.
    fn warn_line(
        &mut self,
        code: &'static str,
        path: &str,
        line: u32,
        message: String,
        help: &str,
    ) {
        if self.found.len() >= limits::DIAGNOSTICS_MAX {
            self.is_full = true;
            return;
        }
        let content = self
            .files
            .get(path)
            .map_or("", |file| file.content.as_str());
        let at = text_of_line(content, line);
        let mut diagnostic = Diagnostic::error(code, path, at.line, at.column, message);
        diagnostic.is_error = false;
        diagnostic.help = Some(help.to_owned());
        diagnostic.snippet = snippet(content, at);
        self.found.push(diagnostic);
    }

    /// A warning about the set, without a place.
    fn warn_set(&mut self, code: &'static str, message: String, help: &str) {
        let mut diagnostic = Diagnostic::error(code, "", 0, 0, message);
        diagnostic.is_error = false;
        diagnostic.help = Some(help.to_owned());
        self.found.push(diagnostic);
    }

    fn finish(mut self) -> Vec<Diagnostic> {
        self.found
            .sort_by(|a, b| (&a.path, a.line, a.code).cmp(&(&b.path, b.line, b.code)));
        self.found.dedup();
        bounded(self.found, self.is_full)
    }
}

/// The text of a line, without what indents it.
fn text_of_line(content: &str, line: u32) -> Span {
    let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
    let text = content.lines().nth(index).unwrap_or_default();
    let body = text.trim_start_matches([' ', '-']);
    let indent = text.chars().count() - body.chars().count();
    let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Span {
        line,
        column: small(indent + 1),
        width: small(body.trim_end().chars().count().max(1)),
    }
}
