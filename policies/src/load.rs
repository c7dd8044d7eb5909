//! From files to a set, in phases: trees, the mesh's config, identities, then what refers to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ravelin_proto::spiffe_id::TrustDomain;

use crate::diagnostic::{Diagnostic, Diagnostics, Problems, Span, bounded};
use crate::document::{self, Node, Value};
use crate::limits;
use crate::object::{Location, ObjectRecord};
use crate::read::{
    Context, Header, Kind, Reader, check_provider_services, default_config,
    read_authorization_policy, read_config, read_header, read_identity, read_peer_authentication,
    read_policy_test, read_request_authentication, read_service, read_workload_entry,
};
use crate::schema::{MeshConfig, WorkloadIdentity};
use crate::set::MeshSet;
use crate::source::{SourceFile, check_files};

/// The trust domain of Istio's examples, and of files without a MeshConfig.
pub const TRUST_DOMAIN_DEFAULT: &str = "cluster.local";
/// What other objects are read against when the MeshConfig cannot be read; the load fails anyway.
const TRUST_DOMAIN_UNKNOWN: &str = "unknown";

/// One object as a tree, with the number of its file.
struct Document {
    header: Header,
    node: Node,
    file: usize,
}

impl Document {
    fn spec(&self) -> Option<&Node> {
        let Value::Map(members) = &self.node.value else {
            return None;
        };
        let member = members.iter().find(|member| member.key == "spec")?;
        (!member.value.is_null()).then_some(&member.value)
    }
}

/// Loads a mesh folder. Files that are not `.yaml` or `.yml` are there to be referred to (`jwksFile`).
///
/// All errors of all files come at once, in the order of the paths; one error and nothing is loaded.
pub fn load(files: &[SourceFile]) -> Result<MeshSet, Diagnostics> {
    load_set(files, None)
}

/// As [`load`], for looking at files that no mesh enforces: without a MeshConfig its defaults hold, and the trust
/// domain is [`TRUST_DOMAIN_DEFAULT`]. [`MeshConfig::is_given`] tells.
pub fn load_with_defaults(files: &[SourceFile]) -> Result<MeshSet, Diagnostics> {
    load_set(files, TrustDomain::parse(TRUST_DOMAIN_DEFAULT).ok())
}

fn load_set(
    files: &[SourceFile],
    trust_domain: Option<TrustDomain>,
) -> Result<MeshSet, Diagnostics> {
    check_files(files)?;
    let mut problems: Vec<Problems<'_>> = files.iter().map(Problems::new).collect();
    let mut documents = read_documents(files, &mut problems);
    if let Some(found) = too_many_rules(&documents, files) {
        return Err(finish(problems, vec![found]));
    }
    documents.sort_by(|one, other| place_in_set(one, files).cmp(&place_in_set(other, files)));
    check_duplicates(files, &documents, &mut problems);
    let data: BTreeMap<&str, &str> = files
        .iter()
        .map(|file| (file.path.as_str(), file.content.as_str()))
        .collect();
    let mut general = Vec::new();
    let has_config = documents
        .iter()
        .any(|document| document.header.kind == Kind::MeshConfig);
    let config = match trust_domain {
        Some(trust_domain) if !has_config => Some(default_config(trust_domain)),
        _ => find_config(files, &documents, &data, &mut problems, &mut general),
    };
    let Some(base) = config.clone().or_else(fallback_config) else {
        return Err(finish(problems, general));
    };
    let (mut set, parts) = read_objects(files, &documents, &data, base, &mut problems);
    check_identities(files, &parts, &mut problems);
    check_hosts(files, &set, &mut problems);
    check_providers(&documents, &set, &mut problems);
    fill_endpoints(&mut set);
    set.objects = documents
        .iter()
        .map(|document| record(document, files))
        .collect();
    if config.is_none() || !general.is_empty() || problems.iter().any(Problems::has_errors) {
        return Err(finish(problems, general));
    }
    set.warnings = finish(problems, general).0;
    Ok(set)
}

fn fallback_config() -> Option<MeshConfig> {
    TrustDomain::parse(TRUST_DOMAIN_UNKNOWN)
        .ok()
        .map(default_config)
}

/// Kind, namespace, name, and of the same ones the path: in what order the files are given makes no difference.
fn place_in_set<'d>(
    document: &'d Document,
    files: &'d [SourceFile],
) -> (Kind, &'d str, &'d str, &'d str) {
    let header = &document.header;
    (
        header.kind,
        &header.metadata.namespace,
        &header.metadata.name,
        files
            .get(document.file)
            .map_or("", |file| file.path.as_str()),
    )
}

fn read_documents(files: &[SourceFile], problems: &mut [Problems<'_>]) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut nodes_left = limits::SET_NODES_MAX;
    for (index, (file, problems)) in files.iter().zip(problems).enumerate() {
        if !file.is_yaml() {
            continue;
        }
        for node in document::parse(&file.content, &mut nodes_left, problems) {
            if let Some(header) = read_header(&node, &file.path, problems) {
                documents.push(Document {
                    header,
                    node,
                    file: index,
                });
            }
        }
    }
    documents
}

/// Runs `read` on one object with a reader of its file.
fn with_reader<'f, T>(
    files: &[SourceFile],
    document: &Document,
    context: &Context<'_>,
    problems: &mut [Problems<'f>],
    read: impl FnOnce(&Header, &Node, &mut Reader<'_, 'f>) -> Option<T>,
) -> Option<T> {
    let problems = problems.get_mut(document.file)?;
    let header = &document.header;
    let Some(spec) = document.spec() else {
        let has_key = matches!(&document.node.value, Value::Map(members) if members.iter().any(|member| member.key == "spec"));
        if !has_key {
            problems.error(
                header.name_at,
                "missing-field",
                format!("this {} has no `spec`", header.kind.name()),
            );
        }
        return None;
    };
    let mut reader = Reader {
        problems,
        context,
        path: path_of(files, document.file),
        metadata: &header.metadata,
    };
    read(header, spec, &mut reader)
}

fn path_of(files: &[SourceFile], index: usize) -> Arc<str> {
    files
        .get(index)
        .map_or("", |file| file.path.as_str())
        .into()
}

fn find_config(
    files: &[SourceFile],
    documents: &[Document],
    data: &BTreeMap<&str, &str>,
    problems: &mut [Problems<'_>],
    general: &mut Vec<Diagnostic>,
) -> Option<MeshConfig> {
    let fallback = fallback_config()?;
    let context = Context::new(&fallback, &[], data);
    let mut found = documents
        .iter()
        .filter(|document| document.header.kind == Kind::MeshConfig);
    let Some(first) = found.next() else {
        // An object that could not be read may have been the one.
        if !problems.iter().any(Problems::has_errors) {
            let message = "the mesh folder has no MeshConfig".to_owned();
            let mut diagnostic = Diagnostic::error("no-mesh-config", "", 0, 0, message);
            diagnostic.help = Some("`ravelin.yaml` holds it: `apiVersion: ravelin.dev/v1`, `kind: MeshConfig`, `spec: {trustDomain: ..}`".into());
            general.push(diagnostic);
        }
        return None;
    };
    for other in found {
        let message = format!(
            "a second MeshConfig; the first is at {}:{}",
            path_of(files, first.file),
            first.header.at.line
        );
        if let Some(problems) = problems.get_mut(other.file) {
            problems.error(other.header.name_at, "duplicate-object", message);
        }
    }
    with_reader(files, first, &context, problems, read_config)
}

/// Identities with the number of their file and the place of their name.
type Identities = Vec<(WorkloadIdentity, usize, Span)>;

fn read_objects(
    files: &[SourceFile],
    documents: &[Document],
    data: &BTreeMap<&str, &str>,
    config: MeshConfig,
    problems: &mut [Problems<'_>],
) -> (MeshSet, Identities) {
    let context = Context::new(&config, &[], data);
    let mut parts: Identities = Vec::new();
    for document in documents
        .iter()
        .filter(|document| document.header.kind == Kind::WorkloadIdentity)
    {
        let identity = with_reader(files, document, &context, problems, read_identity);
        parts.extend(identity.map(|identity| (identity, document.file, document.header.name_at)));
    }
    let identities: Vec<WorkloadIdentity> = parts
        .iter()
        .map(|(identity, _, _)| identity.clone())
        .collect();
    let context = Context::new(&config, &identities, data);
    let mut set = empty_set(config.clone());
    for document in documents {
        macro_rules! read_into {
            ($list:ident, $read:expr) => {
                set.$list
                    .extend(with_reader(files, document, &context, problems, $read))
            };
        }
        match document.header.kind {
            Kind::MeshConfig | Kind::WorkloadIdentity => {}
            Kind::WorkloadEntry => {
                read_into!(workload_entries, read_workload_entry);
            }
            Kind::AuthorizationPolicy => {
                read_into!(authorization_policies, read_authorization_policy);
            }
            Kind::RequestAuthentication => {
                read_into!(request_authentications, read_request_authentication);
            }
            Kind::PeerAuthentication => {
                read_into!(peer_authentications, read_peer_authentication);
            }
            Kind::ServiceEntry => {
                read_into!(services, read_service);
            }
            Kind::PolicyTest => {
                read_into!(tests, read_policy_test);
            }
        }
    }
    set.identities = identities;
    (set, parts)
}

fn empty_set(config: MeshConfig) -> MeshSet {
    MeshSet {
        config,
        identities: Vec::new(),
        authorization_policies: Vec::new(),
        request_authentications: Vec::new(),
        peer_authentications: Vec::new(),
        services: Vec::new(),
        workload_entries: Vec::new(),
        tests: Vec::new(),
        objects: Vec::new(),
        warnings: Vec::new(),
    }
}

/// The same kind, namespace and name twice. The documents are sorted by these.
fn check_duplicates(files: &[SourceFile], documents: &[Document], problems: &mut [Problems<'_>]) {
    for pair in documents.windows(2) {
        let [one, other] = pair else { continue };
        let (a, b) = (&one.header, &other.header);
        let is_same = a.kind == b.kind
            && a.metadata.namespace == b.metadata.namespace
            && a.metadata.name == b.metadata.name;
        if is_same && a.kind != Kind::MeshConfig {
            let message = format!(
                "the {} `{}/{}` stands here a second time; the first is at {}:{}",
                a.kind.name(),
                a.metadata.namespace,
                a.metadata.name,
                path_of(files, one.file),
                a.at.line
            );
            if let Some(problems) = problems.get_mut(other.file) {
                problems.error(b.name_at, "duplicate-object", message);
            }
        }
    }
}

/// One SPIFFE ID with the same selectors twice, or with other labels or another namespace.
fn check_identities(files: &[SourceFile], parts: &Identities, problems: &mut [Problems<'_>]) {
    let mut exact: BTreeMap<_, String> = BTreeMap::new();
    let mut by_id: BTreeMap<_, (&WorkloadIdentity, String)> = BTreeMap::new();
    for (identity, file, at) in parts {
        let id = &identity.spiffe_id;
        let place = format!("{}:{}", path_of(files, *file), at.line);
        let Some(problems) = problems.get_mut(*file) else {
            continue;
        };
        if let Some(first) = exact.insert((id, &identity.selectors), place.clone()) {
            let message =
                format!("`{id}` has the same selectors as the WorkloadIdentity at {first}");
            problems.error(*at, "duplicate-identity", message);
            continue;
        }
        let (first, first_place) = by_id.entry(id).or_insert((identity, place));
        let (one, other) = (&first.metadata, &identity.metadata);
        if one.labels != other.labels || one.namespace != other.namespace {
            let message = format!(
                "`{id}` has other labels or another namespace than the WorkloadIdentity at {first_place}; policies could not tell which hold"
            );
            problems.error(*at, "conflicting-identity", message);
        }
    }
}

/// Two services under one host name and port, of those that are routed.
fn check_hosts(files: &[SourceFile], set: &MeshSet, problems: &mut [Problems<'_>]) {
    let mut seen: BTreeMap<(&str, u16), &Location> = BTreeMap::new();
    for service in set.services.iter().filter(|service| service.is_routed) {
        for (host, port) in service
            .hosts
            .iter()
            .flat_map(|host| service.ports.iter().map(move |port| (host, port.number)))
        {
            let Some(first) = seen.insert((host, port), &service.location) else {
                continue;
            };
            let file = files
                .iter()
                .position(|file| file.path == *service.location.path);
            if let Some(problems) = file.and_then(|index| problems.get_mut(index)) {
                let at = Span {
                    line: service.location.line,
                    column: 1,
                    width: 1,
                };
                problems.error(at, "duplicate-host", format!("`{host}` with port {port} is served twice; the first ServiceEntry is at {first}"));
            }
        }
    }
}

/// More rules than a set may have: nothing of it is read further.
fn too_many_rules(documents: &[Document], files: &[SourceFile]) -> Option<Diagnostic> {
    let rules_of = |document: &Document| match &document.spec()?.value {
        Value::Map(members) => match &members
            .iter()
            .find(|member| member.key == "rules")?
            .value
            .value
        {
            Value::List(rules) => Some(rules.len()),
            Value::Scalar { .. } | Value::Map(_) => None,
        },
        Value::Scalar { .. } | Value::List(_) => None,
    };
    let mut count = 0_usize;
    let past = documents.iter().find(|document| {
        count = count.saturating_add(rules_of(document).unwrap_or(0));
        count > limits::SET_RULES_MAX
    })?;
    let message = format!(
        "the policies of the set have more than {} rules",
        limits::SET_RULES_MAX
    );
    let (path, line) = (path_of(files, past.file), past.header.at.line);
    Some(Diagnostic::error("too-many-rules", &path, line, 1, message))
}

/// Providers of the MeshConfig whose service nobody serves.
fn check_providers(documents: &[Document], set: &MeshSet, problems: &mut [Problems<'_>]) {
    let found = documents
        .iter()
        .find(|document| document.header.kind == Kind::MeshConfig);
    if let Some(document) = found
        && let Some(spec) = document.spec()
        && let Some(problems) = problems.get_mut(document.file)
    {
        check_provider_services(spec, &set.services, problems);
    }
}

/// WorkloadEntries that a service of their namespace selects become its endpoints.
fn fill_endpoints(set: &mut MeshSet) {
    for service in &mut set.services {
        let Some(selector) = &service.workload_selector else {
            continue;
        };
        let chosen = set.workload_entries.iter().filter(|entry| {
            entry.metadata.namespace == service.metadata.namespace
                && selector
                    .iter()
                    .all(|(key, value)| entry.endpoint.labels.get(key) == Some(value))
        });
        service
            .endpoints
            .extend(chosen.map(|entry| entry.endpoint.clone()));
    }
}

fn record(document: &Document, files: &[SourceFile]) -> ObjectRecord {
    let header = &document.header;
    ObjectRecord {
        kind: header.kind.name(),
        namespace: header.metadata.namespace.clone(),
        name: header.metadata.name.clone(),
        fields: crate::read::flatten(&document.node),
        location: Location {
            path: path_of(files, document.file),
            line: header.at.line,
        },
    }
}

/// All findings in the order of path and place, bounded.
fn finish(problems: Vec<Problems<'_>>, general: Vec<Diagnostic>) -> Diagnostics {
    let is_full = problems.iter().any(|problems| problems.is_full);
    let mut found: Vec<Diagnostic> = problems
        .into_iter()
        .flat_map(|problems| problems.found)
        .collect();
    found.sort_by(|a, b| {
        (&a.path, a.line, a.column, !a.is_error).cmp(&(&b.path, b.line, b.column, !b.is_error))
    });
    found.dedup();
    let mut all = general;
    all.extend(found);
    Diagnostics(bounded(all, is_full))
}
