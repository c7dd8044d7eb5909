//! ValidateJWTSVID: a token judged by the bundle of its own trust domain, its claims returned.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use ravelin_proto::pb::{ValidateJwtsvidRequest, ValidateJwtsvidResponse};
use ravelin_proto::spiffe_id::TrustDomain;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::jwt::{JwtBundles, validate_jwt_svid};
use tonic::Status;

use crate::cache::WorkloadView;
use crate::limits;

/// Claims of a foreign trust domain that are passed on; what else it says is its own affair.
const FOREIGN_CLAIMS: [&str; 7] = ["sub", "aud", "exp", "iat", "nbf", "iss", "jti"];
/// Claims may not be nested deeper.
const DEPTH_MAX: u32 = 16;

/// Both fields are mandatory.
pub(super) fn check_fields(request: &ValidateJwtsvidRequest) -> Result<(), Status> {
    if request.audience.is_empty() {
        return Err(Status::invalid_argument("audience must be specified"));
    }
    if request.svid.is_empty() {
        return Err(Status::invalid_argument("svid must be specified"));
    }
    Ok(())
}

/// Judges the token by the bundles that this process may see.
pub(super) fn validate(
    request: &ValidateJwtsvidRequest,
    view: &WorkloadView,
    own: &TrustDomain,
    now: Timestamp,
) -> Result<ValidateJwtsvidResponse, Status> {
    let bundles: JwtBundles = view
        .bundle
        .iter()
        .chain(view.federated.values())
        .map(|bundle| (bundle.trust_domain.clone(), bundle.jwt_keys()))
        .collect();
    let svid = validate_jwt_svid(
        &request.svid,
        &bundles,
        &request.audience,
        now,
        limits::JWT_LEEWAY,
    )
    .map_err(|error| Status::invalid_argument(format!("the token is not valid: {error}")))?;
    let is_own = svid.id.is_member_of(own);
    let mut fields: BTreeMap<String, Value> = svid
        .claims
        .iter()
        .filter(|(name, _)| is_own || FOREIGN_CLAIMS.contains(&name.as_str()))
        .filter_map(|(name, value)| Some((name.clone(), to_value(value, 0)?)))
        .collect();
    let audience = svid.audience.iter().map(|text| text_value(text)).collect();
    fields.insert("aud".into(), list_value(audience));
    Ok(ValidateJwtsvidResponse {
        spiffe_id: svid.id.as_str().to_owned(),
        claims: Some(Struct { fields }),
    })
}

fn text_value(text: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    }
}

fn list_value(values: Vec<Value>) -> Value {
    Value {
        kind: Some(Kind::ListValue(ListValue { values })),
    }
}

/// JSON as protobuf's `Value`; `None` below the depth that is allowed.
fn to_value(value: &serde_json::Value, depth: u32) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(flag) => Kind::BoolValue(*flag),
        serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64()?),
        serde_json::Value::String(text) => Kind::StringValue(text.clone()),
        serde_json::Value::Array(items) => {
            let values = items
                .iter()
                .filter_map(|item| to_value(item, depth + 1))
                .collect();
            return Some(list_value(values));
        }
        serde_json::Value::Object(object) => Kind::StructValue(Struct {
            fields: object
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), to_value(value, depth + 1)?)))
                .collect(),
        }),
    };
    Some(Value { kind: Some(kind) })
}
