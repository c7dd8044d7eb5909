//! A small mesh and calls on it, for the rule tests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::IpAddr;

use ravelin_policies::*;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::Value;

/// When every call of these tests happens.
pub const NOW: Timestamp = Timestamp::from_unix_secs(1_800_000_000);

pub const CONFIG: &str = "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: shop.example, trustDomainAliases: [old.example], jwt: {typedClaims: true}}\n";

pub const IDENTITIES: &str = "
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata: {name: payments, namespace: shop, labels: {app: payments, tier: core}}
spec: {selectors: ['launch:name:payments']}
---
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata: {name: orders, namespace: shop, labels: {app: orders}}
spec: {selectors: ['launch:name:orders']}
---
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata: {name: web, namespace: front}
spec: {selectors: ['launch:name:web']}
";

pub fn file(path: &str, content: &str) -> SourceFile {
    SourceFile {
        path: path.into(),
        content: content.into(),
    }
}

pub fn files(policies: &str) -> Vec<SourceFile> {
    vec![
        file("ravelin.yaml", CONFIG),
        file("identities/all.yaml", IDENTITIES),
        file("policies/all.yaml", policies),
    ]
}

/// An AuthorizationPolicy of namespace `shop`.
pub fn policy(name: &str, spec: &str) -> String {
    policy_in("shop", name, spec)
}

pub fn policy_in(namespace: &str, name: &str, spec: &str) -> String {
    let spec = spec.trim();
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  {}\n",
        spec.replace('\n', "\n  ")
    )
}

pub fn set(policies: &str) -> MeshSet {
    match load(&files(policies)) {
        Ok(set) => set,
        Err(found) => panic!("{found}"),
    }
}

pub fn errors(policies: &str) -> Vec<&'static str> {
    match load(&files(policies)) {
        Ok(_) => Vec::new(),
        Err(found) => found
            .iter()
            .filter(|found| found.is_error)
            .map(|found| found.code)
            .collect(),
    }
}

pub fn warnings(policies: &str) -> Vec<&'static str> {
    set(policies)
        .warnings
        .iter()
        .map(|found| found.code)
        .collect()
}

/// The policies of `payments`.
pub fn compile(policies: &str) -> WorkloadPolicies {
    compile_for(policies, "/ns/shop/sa/payments")
}

pub fn compile_for(policies: &str, path: &str) -> WorkloadPolicies {
    let set = set(policies);
    let id = SpiffeId::parse(&format!("spiffe://shop.example{path}")).unwrap();
    WorkloadPolicies::compile(&set, &set.workload(&id), 7).unwrap()
}

/// One call; fields are changed as a test needs.
#[derive(Clone)]
pub struct Call {
    pub principal: Option<String>,
    pub source: &'static str,
    pub remote: &'static str,
    pub destination: &'static str,
    pub port: u16,
    pub sni: Option<String>,
    pub method: &'static str,
    pub host: &'static str,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub claims: Option<Value>,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            principal: Some("spiffe://shop.example/ns/shop/sa/orders".into()),
            source: "10.1.2.3",
            remote: "203.0.113.9",
            destination: "10.9.9.9",
            port: 8080,
            sni: Some("payments.shop".into()),
            method: "GET",
            host: "payments.shop",
            path: "/charge".into(),
            headers: Vec::new(),
            claims: None,
        }
    }
}

impl Call {
    pub fn path(path: &str) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    pub fn from(principal: &str) -> Self {
        Self {
            principal: Some(principal.into()),
            ..Self::default()
        }
    }

    pub fn plain_text() -> Self {
        Self {
            principal: None,
            ..Self::default()
        }
    }

    pub fn headers(list: &[(&str, &str)]) -> Self {
        let headers = list
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            headers,
            ..Self::default()
        }
    }

    pub fn claims(claims: Value) -> Self {
        Self {
            claims: Some(claims),
            ..Self::default()
        }
    }

    pub fn connection(&self) -> Connection {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        Connection {
            principal: self
                .principal
                .as_ref()
                .map(|id| SpiffeId::parse(id).unwrap()),
            source_ip: ip(self.source),
            remote_ip: ip(self.remote),
            destination_ip: ip(self.destination),
            destination_port: self.port,
            sni: self.sni.clone(),
        }
    }

    fn identity(&self) -> RequestIdentity {
        let Some(Value::Object(claims)) = &self.claims else {
            return RequestIdentity::default();
        };
        RequestIdentity::of_claims(claims.clone())
    }

    pub fn http(&self, policies: &WorkloadPolicies) -> Decision {
        let connection = self.connection();
        let path = policies.normalize(&self.path).unwrap();
        policies.authorize_http(&HttpCall {
            connection: &connection,
            method: self.method,
            host: self.host,
            path: &path,
            headers: &self.headers,
            identity: &self.identity(),
            now: NOW,
        })
    }

    pub fn explain(&self, policies: &WorkloadPolicies) -> Explanation {
        let connection = self.connection();
        let path = policies.normalize(&self.path).unwrap();
        policies.explain_http(&HttpCall {
            connection: &connection,
            method: self.method,
            host: self.host,
            path: &path,
            headers: &self.headers,
            identity: &self.identity(),
            now: NOW,
        })
    }

    pub fn is_allowed(&self, policies: &WorkloadPolicies) -> bool {
        self.http(policies).is_allowed
    }

    pub fn tcp(&self, policies: &WorkloadPolicies) -> Decision {
        policies.authorize_tcp(&self.connection(), NOW)
    }
}
