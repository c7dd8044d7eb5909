//! A row of the corpus as plain data; `policies/corpus/README.md` says what each field means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Documents, a workload, and calls on it; or documents that must be refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Row {
    pub id: String,
    /// Numbers of the rules (`54`) and advisories (`A7`) that it holds.
    pub rules: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// `spec` of the MeshConfig, over the defaults of [`Row::config`].
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// Objects, or texts of YAML.
    #[serde(default)]
    pub policies: Vec<Value>,
    #[serde(default)]
    pub workload: Workload,
    /// Other workloads of the mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Workload>,
    /// Tokens by name, for `${token:NAME}` in headers and paths.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, Token>,
    /// Present when the documents must not load: code of the first error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Codes of warnings that loading must give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Port to mode.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peer_modes: BTreeMap<String, String>,
    #[serde(default)]
    pub calls: Vec<Call>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    pub name: String,
    pub namespace: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            name: "payments".into(),
            namespace: "shop".into(),
            labels: BTreeMap::from([("app".into(), "payments".into())]),
        }
    }
}

/// A signed token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Token {
    /// Header; by default ES256 with `key` as its `kid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Value>,
    pub claims: Value,
    /// Name of the key that signs.
    #[serde(default = "first_key")]
    pub key: String,
    /// The signature does not fit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_forged: bool,
}

fn first_key() -> String {
    "k1".into()
}

/// One request or bare connection, and what must become of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Call {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `http` or `tcp`.
    pub protocol: String,
    /// Null: plain text.
    pub principal: Option<String>,
    pub source_ip: String,
    pub remote_ip: String,
    pub destination_ip: String,
    pub port: u16,
    pub sni: Option<String>,
    pub method: String,
    pub host: String,
    /// As it comes over the wire, with query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// Of a token that was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Map<String, Value>>,
    pub now: String,
    pub expect: Expect,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            name: String::new(),
            protocol: "http".into(),
            principal: Some("spiffe://shop.example/ns/shop/sa/orders".into()),
            source_ip: "10.1.2.3".into(),
            remote_ip: "203.0.113.9".into(),
            destination_ip: "10.9.9.9".into(),
            port: 8080,
            sni: Some("payments.shop".into()),
            method: "GET".into(),
            host: "payments.shop".into(),
            path: "/charge".into(),
            headers: Vec::new(),
            claims: None,
            now: "2026-06-01T12:00:00Z".into(),
            expect: Expect::default(),
        }
    }
}

impl Call {
    pub fn is_tcp(&self) -> bool {
        self.protocol == "tcp"
    }
}

/// What must be; an absent field is not looked at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Expect {
    /// `allow` or `deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Deciding rule, `NAMESPACE/NAME#RULE`; empty: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_audited: Option<bool>,
    /// `allow CODE BY` or `deny CODE BY`; empty: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<String>,
    /// `not-needed`, `ask PROVIDER BY` or `refuse CODE BY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<String>,
    /// Code of the refusal of the path, before any policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_refused: Option<String>,
    /// The path that is judged and forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Code of the refusal of the tokens, `STATUS CODE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_refused: Option<String>,
    /// The token's principal, `ISSUER/SUBJECT`; empty: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_principal: Option<String>,
    /// Headers that the destination gets by tokens, `NAME: VALUE`; `-NAME` for one that is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_headers: Option<Vec<String>>,
}

impl Row {
    /// The MeshConfig's spec: what the row says over a mesh of one trust domain with one alias.
    pub fn config(&self) -> Value {
        let mut config = Map::new();
        config.insert("trustDomain".into(), "shop.example".into());
        config.extend(self.config.clone());
        Value::Object(config)
    }

    /// Every document as a plain value.
    pub fn documents(&self) -> Vec<Value> {
        let mut documents = Vec::new();
        for policy in &self.policies {
            match policy {
                Value::String(text) => {
                    let parsed: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
                    documents.extend(parsed);
                }
                other => documents.push(other.clone()),
            }
        }
        documents
    }
}
