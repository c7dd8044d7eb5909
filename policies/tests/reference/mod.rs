//! The policy engine once more, from its numbered rules alone: naive, slow, over plain documents.
//!
//! It shares nothing with the engine: no type, no parser, no order of evaluation. It interprets documents that the engine's loader
//! accepts and checks none of them. Where both disagree, one of them is wrong.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod case;
pub mod claims;
pub mod engine;
pub mod generate;
pub mod judge;
pub mod path;
pub mod peer;
pub mod rule;
pub mod shrink;
pub mod text;
pub mod token;

use serde_json::Value;

pub use case::{Call, Row, Workload};

/// The documents of a mesh, and the one workload that is asked about.
pub struct World<'w> {
    /// `spec` of the MeshConfig.
    pub config: &'w Value,
    /// Every other document.
    pub documents: &'w [Value],
    /// The destination.
    pub workload: &'w Workload,
}

impl<'w> World<'w> {
    pub fn trust_domain(&self) -> &'w str {
        text_at(self.config, &["trustDomain"]).unwrap_or("shop.example")
    }

    pub fn root_namespace(&self) -> &'w str {
        text_at(self.config, &["rootNamespace"]).unwrap_or("istio-system")
    }

    /// The mesh's own trust domain and its aliases (rule 34).
    pub fn own_domains(&self) -> Vec<&'w str> {
        let mut all = vec![self.trust_domain()];
        all.extend(texts(self.config.get("trustDomainAliases")));
        all
    }

    pub fn has_typed_claims(&self) -> bool {
        at(self.config, &["jwt", "typedClaims"]) == Some(&Value::Bool(true))
    }

    /// Documents of a kind that hold for the workload, by namespace and name (rules 65, 66).
    pub fn attached(&self, kind: &str) -> Vec<&'w Value> {
        let mut found: Vec<&Value> = self
            .documents
            .iter()
            .filter(|document| text_at(document, &["kind"]) == Some(kind))
            .filter(|document| {
                let namespace = namespace_of(document);
                namespace == self.root_namespace() || namespace == self.workload.namespace
            })
            .filter(|document| self.is_selected(document))
            .collect();
        found.sort_by_key(|document| (namespace_of(document), name_of(document)));
        found
    }

    /// Rule 65: every label; rule 67: with a target reference it holds for nobody here.
    fn is_selected(&self, document: &Value) -> bool {
        let spec = document.get("spec").unwrap_or(&Value::Null);
        if spec.get("targetRef").is_some() || spec.get("targetRefs").is_some() {
            return false;
        }
        let Some(Value::Object(labels)) = at(spec, &["selector", "matchLabels"]) else {
            return true;
        };
        labels.iter().all(|(key, wanted)| {
            self.workload.labels.get(key).map(String::as_str) == wanted.as_str()
        })
    }
}

pub fn namespace_of(document: &Value) -> &str {
    text_at(document, &["metadata", "namespace"]).unwrap_or("default")
}

pub fn name_of(document: &Value) -> &str {
    text_at(document, &["metadata", "name"]).unwrap_or_default()
}

pub fn annotation<'v>(document: &'v Value, name: &str) -> Option<&'v str> {
    text_at(document, &["metadata", "annotations", name])
}

/// The part below these keys.
pub fn at<'v>(value: &'v Value, keys: &[&str]) -> Option<&'v Value> {
    keys.iter().try_fold(value, |value, key| value.get(key))
}

pub fn text_at<'v>(value: &'v Value, keys: &[&str]) -> Option<&'v str> {
    at(value, keys).and_then(Value::as_str)
}

/// A list of texts.
pub fn texts(value: Option<&Value>) -> Vec<&str> {
    items(value).iter().filter_map(Value::as_str).collect()
}

pub fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
