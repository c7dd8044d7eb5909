//! The same rows put to the engine, through its public door.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ravelin_policies::*;
use ravelin_proto::jwks::{Jwk, JwkSet};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use serde_json::{Value, json};

use super::case::{Call, Expect, Row, Token, Workload};

/// A row's documents, loaded and compiled for its workload.
pub struct Engine {
    pub policies: WorkloadPolicies,
    set: MeshSet,
}

/// By which door a request is judged; the answer is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// All of it at once.
    Whole,
    /// On a connection that was judged before.
    OnConnection,
    /// For a person who wants to know why.
    Explained,
}

/// The files of a mesh folder.
pub fn files(row: &Row) -> Vec<SourceFile> {
    let config =
        json!({"apiVersion": "ravelin.dev/v1", "kind": "MeshConfig", "spec": row.config()});
    let workloads = std::iter::once(&row.workload).chain(&row.others);
    let policies = row.policies.iter().map(|policy| match policy {
        Value::String(text) => with_keys(text),
        other => with_keys_inside(other.clone()).to_string(),
    });
    vec![
        file("ravelin.yaml", config.to_string()),
        file("identities/all.yaml", join(workloads.map(identity))),
        file("policies/all.yaml", join(policies)),
    ]
}

fn file(path: &str, content: String) -> SourceFile {
    let path = path.to_owned();
    SourceFile { path, content }
}

fn join(documents: impl Iterator<Item = String>) -> String {
    documents
        .map(|text| format!("---\n{}\n", text.trim_end()))
        .collect()
}

fn identity(workload: &Workload) -> String {
    let Workload {
        name,
        namespace,
        labels,
    } = workload;
    json!({
        "apiVersion": "ravelin.dev/v1", "kind": "WorkloadIdentity",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"selectors": [format!("launch:name:{namespace}-{name}")]}
    })
    .to_string()
}

impl Engine {
    /// Or what is wrong with the documents.
    pub fn load(row: &Row) -> Result<Self, Diagnostics> {
        Self::load_after(None, row)
    }

    /// As a change of what was in force before.
    pub fn load_after(before: Option<&Self>, row: &Row) -> Result<Self, Diagnostics> {
        let set = load(&files(row))?;
        let domain = set.config.trust_domain.as_str();
        let id = format!(
            "spiffe://{domain}/ns/{}/sa/{}",
            row.workload.namespace, row.workload.name
        );
        let workload = set.workload(&SpiffeId::parse(&id).unwrap());
        let policies = match before {
            Some(before) => before.policies.recompile(&set, &workload, 1),
            None => WorkloadPolicies::compile(&set, &workload, 1),
        };
        Ok(Self {
            policies: policies.unwrap(),
            set,
        })
    }

    /// Codes of what loads and is suspicious.
    pub fn warnings(&self, row: &Row) -> Vec<&'static str> {
        let linted = lint::all(&self.set, &files(row));
        let all = self.set.warnings.iter().chain(&linted);
        all.map(|warning| warning.code).collect()
    }

    pub fn mode(&self, port: u16) -> &'static str {
        match self.policies.peer_mode(port) {
            PeerMode::Strict => "STRICT",
            PeerMode::Permissive => "PERMISSIVE",
            PeerMode::Disable => "DISABLE",
        }
    }

    /// Everything that the engine says about a call.
    pub fn ask(&self, row: &Row, call: &Call) -> Expect {
        self.ask_by(Door::Whole, row, call)
    }

    pub fn ask_by(&self, door: Door, row: &Row, call: &Call) -> Expect {
        let connection = connection(call);
        let now = Timestamp::parse_rfc3339(&call.now).unwrap();
        if call.is_tcp() {
            let decision = match door {
                Door::Whole | Door::OnConnection => self.policies.authorize_tcp(&connection, now),
                Door::Explained => self.policies.explain_tcp(&connection, now).decision,
            };
            let custom = self.policies.custom_tcp(&connection, now);
            return Expect {
                custom: Some(custom_line(&custom)),
                ..of_decision(&decision)
            };
        }
        let call = with_tokens(row, call);
        let path = match self.policies.normalize(&call.path) {
            Ok(path) => path,
            Err(refusal) => {
                return Expect {
                    path_refused: Some(refusal.code().into()),
                    ..Expect::default()
                };
            }
        };
        let identity = if self.policies.authentication().is_empty() {
            call.claims
                .clone()
                .map(RequestIdentity::of_claims)
                .unwrap_or_default()
        } else {
            match self.authenticate(&call, &path, now) {
                Ok(identity) => identity,
                Err(refusal) => {
                    let refused = format!("{} {}", refusal.status, refusal.code);
                    return Expect {
                        token_refused: Some(refused),
                        ..Expect::default()
                    };
                }
            }
        };
        let http = HttpCall {
            connection: &connection,
            method: &call.method,
            host: &call.host,
            path: &path,
            headers: &call.headers,
            identity: &identity,
            now,
        };
        let (decision, custom) = match door {
            Door::Whole => (
                self.policies.authorize_http(&http),
                self.policies.custom_http(&http),
            ),
            Door::OnConnection => {
                let on = self.policies.judge_connection(&connection);
                let decision = self.policies.authorize_http_on(&on, &http);
                (decision, self.policies.custom_http_on(&on, &http))
            }
            Door::Explained => {
                let explained = self.policies.explain_http(&http);
                (explained.decision, self.policies.custom_http(&http))
            }
        };
        Expect {
            custom: Some(custom_line(&custom)),
            path: Some(path.path().into()),
            token_principal: Some(identity.principal.clone().unwrap_or_default()),
            token_headers: Some(header_lines(&identity)),
            ..of_decision(&decision)
        }
    }

    fn authenticate(
        &self,
        call: &Call,
        path: &NormalizedPath,
        now: Timestamp,
    ) -> Result<RequestIdentity, AuthRefusal> {
        let view = RequestView {
            method: &call.method,
            query: path.query(),
            headers: &call.headers,
        };
        self.policies
            .authentication()
            .authenticate(&view, &Bundles, &KidIsSignature, now)
    }
}

fn connection(call: &Call) -> Connection {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    Connection {
        principal: call
            .principal
            .as_deref()
            .map(|id| SpiffeId::parse(id).unwrap()),
        source_ip: ip(&call.source_ip),
        remote_ip: ip(&call.remote_ip),
        destination_ip: ip(&call.destination_ip),
        destination_port: call.port,
        sni: call.sni.clone(),
    }
}

fn rule_line(rule: Option<&RuleRef>) -> String {
    rule.map(|rule| format!("{}#{}", rule.policy, rule.rule))
        .unwrap_or_default()
}

fn of_decision(decision: &Decision) -> Expect {
    let word = |is_allowed| if is_allowed { "allow" } else { "deny" };
    let shadow = decision.shadow.as_ref().map(|shadow| {
        let by = rule_line(shadow.by.as_deref());
        format!("{} {} {by}", word(shadow.is_allowed), shadow.code)
            .trim_end()
            .to_owned()
    });
    Expect {
        decision: Some(word(decision.is_allowed).into()),
        code: Some(decision.code.into()),
        by: Some(rule_line(decision.by.as_deref())),
        is_audited: Some(decision.is_audited),
        shadow: Some(shadow.unwrap_or_default()),
        ..Expect::default()
    }
}

fn custom_line(check: &CustomCheck) -> String {
    match check {
        CustomCheck::NotNeeded => "not-needed".into(),
        CustomCheck::Ask { provider, by } => {
            format!("ask {} {}", provider.name, rule_line(Some(by)))
        }
        CustomCheck::Refuse { code, by } => format!("refuse {code} {}", rule_line(Some(by))),
    }
}

fn header_lines(identity: &RequestIdentity) -> Vec<String> {
    let removed = identity
        .remove_headers
        .iter()
        .map(|name| format!("-{name}"));
    let set = identity
        .set_headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}"));
    removed.chain(set).collect()
}

/// `${jwks:k1,k2}` is the set of these public keys.
fn with_keys(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${jwks:") else {
        return text.to_owned();
    };
    let (names, after) = rest.split_once('}').unwrap();
    let keys: Vec<String> = names.split(',').map(key).collect();
    format!(
        "{before}{{\"keys\":[{}]}}{}",
        keys.join(","),
        with_keys(after)
    )
}

fn with_keys_inside(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(with_keys(&text)),
        Value::Array(items) => items.into_iter().map(with_keys_inside).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (key, with_keys_inside(value)))
            .collect(),
        other => other,
    }
}

fn key(kid: &str) -> String {
    let point = URL_SAFE_NO_PAD.encode([7_u8; 32]);
    json!({"kty": "EC", "crv": "P-256", "x": point, "y": point, "kid": kid}).to_string()
}

/// `${token:NAME}` is that token, signed.
fn with_tokens(row: &Row, call: &Call) -> Call {
    let mut call = call.clone();
    for (name, token) in &row.tokens {
        let signed = signed(token);
        let mark = format!("${{token:{name}}}");
        call.path = call.path.replace(&mark, &signed);
        for (_, value) in &mut call.headers {
            *value = value.replace(&mark, &signed);
        }
    }
    call
}

fn signed(token: &Token) -> String {
    let default = json!({"alg": "ES256", "kid": token.key});
    let header = token.header.as_ref().unwrap_or(&default);
    let signature = if token.is_forged {
        "forged"
    } else {
        token.key.as_str()
    };
    let parts = [
        header.to_string(),
        token.claims.to_string(),
        signature.to_owned(),
    ];
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
}

/// Stands in for signatures: one fits when it is the key's own name.
struct KidIsSignature;

impl SignatureVerifier for KidIsSignature {
    fn is_valid(&self, key: &Jwk, _: JwsAlgorithm, _: &[u8], signature: &[u8]) -> bool {
        key.kid.as_deref().map(str::as_bytes) == Some(signature)
    }
}

/// The trust domain's own key is `b1`; nothing was fetched from anywhere.
struct Bundles;

impl KeySource for Bundles {
    fn jwt_bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<JwkSet>> {
        (trust_domain.as_str() == "shop.example")
            .then(|| Arc::new(JwkSet::parse(&with_keys("${jwks:b1}")).unwrap()))
    }

    fn fetched_keys(&self, _: &KeyAddress) -> Option<Arc<JwkSet>> {
        None
    }

    fn note_missing_key(&self, _: &KeyAddress) {}
}
