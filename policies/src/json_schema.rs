//! JSON Schema (draft 2020-12) of every kind, for editors: made from the shapes that the readers themselves use.

use serde_json::{Map, Value, json};

use crate::read::{CONDITION_KEYS, EXPORTED, IGNORED_KINDS, KINDS, Kind};
use crate::shape::{self, Shape, ValueShape};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
const IDENTIFIER: &str = "urn:ravelin:schema:v1";

/// The kinds that have a schema.
pub fn schema_kinds() -> Vec<&'static str> {
    KINDS.iter().map(|(_, name, _)| *name).collect()
}

/// The schema of one kind, by its name; `None` when there is no such kind.
pub fn schema_of_kind(name: &str) -> Option<Value> {
    let (kind, name, versions) = KINDS.iter().find(|(_, known, _)| *known == name)?;
    let mut schema = object(*kind, name, versions);
    if let Value::Object(members) = &mut schema {
        members.insert("$schema".into(), DRAFT.into());
        members.insert("$id".into(), format!("{IDENTIFIER}:{name}").into());
        members.insert("title".into(), (*name).into());
    }
    Some(schema)
}

/// One schema for a file of any kind. Kinds that are ignored pass.
pub fn schema_of_all() -> Value {
    let kinds: Vec<&str> = schema_kinds()
        .into_iter()
        .chain(IGNORED_KINDS.iter().map(|(name, _, _)| *name))
        .collect();
    let branches: Vec<Value> = KINDS
        .iter()
        .map(|(_, name, _)| {
            json!({
                "if": {"properties": {"kind": {"const": name}}, "required": ["kind"]},
                "then": {"$ref": format!("#/$defs/{name}")},
            })
        })
        .collect();
    let definitions: Map<String, Value> = KINDS
        .iter()
        .map(|(kind, name, versions)| ((*name).to_owned(), object(*kind, name, versions)))
        .collect();
    json!({
        "$schema": DRAFT,
        "$id": IDENTIFIER,
        "title": "A document of a Ravelin mesh folder",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {"kind": {"enum": kinds}},
        "allOf": branches,
        "$defs": definitions,
    })
}

fn object(kind: Kind, name: &str, versions: &[&str]) -> Value {
    let spec = match kind {
        Kind::MeshConfig => &shape::MESH_CONFIG,
        Kind::WorkloadIdentity => &shape::WORKLOAD_IDENTITY,
        Kind::WorkloadEntry => &shape::ENDPOINT,
        Kind::AuthorizationPolicy => &shape::AUTHORIZATION_POLICY,
        Kind::RequestAuthentication => &shape::REQUEST_AUTHENTICATION,
        Kind::PeerAuthentication => &shape::PEER_AUTHENTICATION,
        Kind::ServiceEntry => &shape::SERVICE_ENTRY,
        Kind::PolicyTest => &shape::POLICY_TEST,
    };
    let mut required = vec!["apiVersion", "kind", "spec"];
    if kind != Kind::MeshConfig {
        required.push("metadata");
    }
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": {
            "apiVersion": {"enum": versions},
            "kind": {"const": name},
            "metadata": metadata(),
            "spec": mapping(spec),
            "status": {},
        },
    })
}

fn metadata() -> Value {
    let mut properties: Map<String, Value> = EXPORTED
        .iter()
        .map(|name| ((*name).to_owned(), json!({})))
        .collect();
    let label = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";
    let name = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";
    properties.insert("name".into(), json!({"type": "string", "pattern": name}));
    properties.insert(
        "namespace".into(),
        json!({"type": "string", "pattern": label}),
    );
    properties.insert("labels".into(), value(&ValueShape::Labels));
    properties.insert("annotations".into(), value(&ValueShape::Labels));
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": properties,
    })
}

fn mapping(shape: &Shape) -> Value {
    let properties: Map<String, Value> = shape
        .fields
        .iter()
        .map(|field| {
            let mut schema = value(&field.value);
            if let Value::Object(members) = &mut schema {
                members.insert("description".into(), field.about.into());
            }
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> = shape
        .fields
        .iter()
        .filter(|field| field.is_required)
        .map(|field| field.name)
        .collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

fn value(shape: &ValueShape) -> Value {
    let text = || json!({"type": "string", "minLength": 1});
    match shape {
        ValueShape::Text => text(),
        ValueShape::AnyText => json!({"type": "string"}),
        ValueShape::Bool => json!({"type": "boolean"}),
        ValueShape::Integer(min, max) => json!({
            "anyOf": [
                {"type": "integer", "minimum": min, "maximum": max},
                {"type": "string", "pattern": "^[0-9]+$"},
            ],
        }),
        ValueShape::Duration => json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"}),
        ValueShape::Words(words) => json!({"enum": words()}),
        ValueShape::Texts(min) => json!({"type": "array", "minItems": min, "items": text()}),
        ValueShape::TextsOrNumbers => json!({
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [text(), {"type": "integer"}]},
        }),
        ValueShape::Labels => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        ValueShape::ConditionKey => json!({
            "anyOf": [
                {"enum": CONDITION_KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>()},
                {"type": "string", "pattern": "^request\\.(headers|auth\\.claims)\\[.+\\]$"},
            ],
        }),
        ValueShape::List(shape, min) => {
            json!({"type": "array", "minItems": min, "items": mapping(shape)})
        }
        ValueShape::Object(shape) => mapping(shape),
        ValueShape::Map(shape) => json!({"type": "object", "additionalProperties": value(shape)}),
        ValueShape::TextOrTexts => json!({
            "anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": text()}],
        }),
        ValueShape::TextOrFalse => json!({"anyOf": [text(), {"const": false}]}),
        ValueShape::Anything => json!({}),
    }
}
