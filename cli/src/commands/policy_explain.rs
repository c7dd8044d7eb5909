//! `ravelin policy explain`: how a call would be decided, and why; the engine is the one that the proxies run.
//!
//! A token is made up with the claims that are given: its issuer, audience and times are judged, its signature is taken as valid.

use crate::arguments::Shared;
use crate::config;
use crate::exit::{Exit, Failure, Outcome};
use crate::mesh_folder;
use crate::output::{Format, escape_text, now, print_one};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use ravelin_policies::{
    Connection, CustomCheck, Explanation, HttpCall, KeyAddress, KeySource, MeshSet, RequestView,
    SignatureVerifier, WorkloadPolicies,
};
use ravelin_proto::jwks::{Curve, Jwk, JwkKey, JwkSet};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The call.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ravelin policy explain --from orders --to inventory --path /inventory/42
  ravelin policy explain --from orders --to payments --method POST --path /pay --audience payments
  ravelin policy explain --from notifications --to payments --method POST --path /pay
  ravelin policy explain --to inventory --path /inventory/42          a caller in plain text
  ravelin policy explain --from orders --to inventory --at 2026-12-31T23:00:00Z --sni inventory.shop -o json
Exit code 0: the call would be allowed, if an external authorizer that is asked agrees. 1: denied. 2: bad input.")]
pub(crate) struct ExplainArguments {
    /// The mesh folder; default: the current one, else policies/examples/shop
    mesh: Option<PathBuf>,
    /// Who calls: a SPIFFE ID, NAMESPACE/NAME or NAME; without it, a caller in plain text
    #[arg(long)]
    from: Option<String>,
    /// Who is called: a SPIFFE ID, NAMESPACE/NAME or NAME
    #[arg(long)]
    to: String,
    /// Method
    #[arg(long, default_value = "GET")]
    method: String,
    /// Path, with its query
    #[arg(long, default_value = "/")]
    path: String,
    /// Host; default: the service's own
    #[arg(long)]
    host: Option<String>,
    /// A header `NAME: VALUE`
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The call carries a JWT-SVID of the caller for this audience
    #[arg(long)]
    audience: Option<String>,
    /// The call carries a token with these claims (JSON); they go over those of --audience
    #[arg(long, value_name = "JSON", value_parser = claims)]
    claims: Option<Map<String, Value>>,
    /// Port of the workload
    #[arg(long)]
    port: Option<u16>,
    /// Address of the caller
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    source_ip: IpAddr,
    /// Address of the client, where forwarding headers are trusted; default: the caller's
    #[arg(long)]
    remote_ip: Option<IpAddr>,
    /// Address that is called
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    destination_ip: IpAddr,
    /// Server name of the TLS handshake
    #[arg(long)]
    sni: Option<String>,
    /// When, in RFC 3339; default: now
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// A connection whose content is not HTTP
    #[arg(long)]
    tcp: bool,
}

/// What would be decided.
struct Explained {
    is_allowed: bool,
    code: String,
    text: String,
    detail: Value,
    /// Provider and rule of the question to an external authorizer.
    custom: Value,
}

/// Explains the call.
pub(crate) fn run(arguments: ExplainArguments, shared: &Shared) -> Outcome {
    let mesh = mesh_folder::load_offline(&config::mesh_folder(arguments.mesh.as_deref()))?;
    let explained = explain(&mesh, arguments)?;
    if shared.output == Format::Table {
        for line in explained.text.lines() {
            say!("{}", escape_text(line))?;
        }
    } else {
        print_one(
            json!({"is_allowed": explained.is_allowed, "code": explained.code, "custom": explained.custom, "explanation": explained.detail}),
            shared.output,
        )?;
    }
    Ok(if explained.is_allowed {
        Exit::Yes
    } else {
        Exit::No
    })
}

fn explain(mesh: &MeshSet, arguments: ExplainArguments) -> Result<Explained, Failure> {
    let to = workload(mesh, &arguments.to)?;
    let from = arguments
        .from
        .as_deref()
        .map(|from| workload(mesh, from))
        .transpose()?;
    let policies = WorkloadPolicies::compile(mesh, &mesh.workload(&to), 0).map_err(|error| {
        Failure::usage(format!(
            "the policies of `{to}` cannot be compiled: {error}"
        ))
    })?;
    let connection = Connection {
        principal: from.clone(),
        source_ip: arguments.source_ip,
        remote_ip: arguments.remote_ip.unwrap_or(arguments.source_ip),
        destination_ip: arguments.destination_ip,
        destination_port: arguments.port.unwrap_or_else(|| port(mesh, &to)),
        sni: arguments.sni,
    };
    let at = arguments.at.unwrap_or_else(now);
    let is_plain_text_refused = from.is_none()
        && !policies
            .peer_mode(connection.destination_port)
            .accepts_plain_text();
    if arguments.tcp {
        let explained = of_engine(
            &policies.explain_tcp(&connection, at),
            &policies.custom_tcp(&connection, at),
        );
        return Ok(explained.unless_closed(is_plain_text_refused));
    }
    let path = match policies.normalize(&arguments.path) {
        Ok(path) => path,
        Err(refusal) => return Ok(refused(400, refusal.code(), &refusal.to_string())),
    };
    let mut headers = arguments.headers;
    if let Some(token) = token(
        mesh,
        from.as_ref(),
        arguments.audience,
        arguments.claims,
        at,
    )? {
        headers.push(("authorization".to_owned(), format!("Bearer {token}")));
    }
    let view = RequestView {
        method: &arguments.method,
        query: path.query(),
        headers: &headers,
    };
    let identity = match policies
        .authentication()
        .authenticate(&view, &AnyKey, &AnySignature, at)
    {
        Ok(identity) => identity,
        Err(refusal) => return Ok(refused(refusal.status, refusal.code, &refusal.message)),
    };
    let host = arguments.host.unwrap_or_else(|| host(mesh, &to));
    let call = HttpCall {
        connection: &connection,
        method: &arguments.method,
        host: &host,
        path: &path,
        headers: &headers,
        identity: &identity,
        now: at,
    };
    let explained = of_engine(&policies.explain_http(&call), &policies.custom_http(&call));
    Ok(explained.unless_closed(is_plain_text_refused))
}

/// The decision, and before it the question to an external authorizer.
fn of_engine(explanation: &Explanation, custom: &CustomCheck) -> Explained {
    let decision = &explanation.decision;
    let mut explained = Explained {
        is_allowed: decision.is_allowed,
        code: decision.code.to_owned(),
        text: explanation.to_string(),
        detail: json!(explanation),
        custom: Value::Null,
    };
    match custom {
        CustomCheck::NotNeeded => {}
        CustomCheck::Ask { provider, by } => {
            explained.text = format!(
                "{}\n  first the external authorizer `{}` is asked, and has to agree: {by}",
                explained.text, provider.name
            );
            explained.custom = json!({"provider": provider.name, "by": by});
        }
        CustomCheck::Refuse { code, by } => {
            explained.is_allowed = false;
            (*code).clone_into(&mut explained.code);
            explained.text = format!(
                "deny ({code}) by {by}\n  the external authorizer of this CUSTOM policy cannot be asked\nwithout it: {}",
                explained.text
            );
            explained.custom = json!({"provider": null, "code": code, "by": by});
        }
    }
    if let Some(shadow) = &decision.shadow
        && shadow.is_allowed == decision.is_allowed
    {
        explained
            .text
            .push_str("\n  the dry-run policies would not change that");
    }
    explained
}

impl Explained {
    /// A caller in plain text does not get as far as policies where mutual TLS is required (rule 82).
    fn unless_closed(self, is_closed: bool) -> Self {
        if !is_closed {
            return self;
        }
        let code = "plaintext_refused";
        Self {
            is_allowed: false,
            code: code.to_owned(),
            text: format!(
                "refuse ({code})\n  the port takes mutual TLS alone, and a caller without --from has no identity\npolicies by themselves: {}",
                self.text
            ),
            ..self
        }
    }
}

fn refused(status: u16, code: &str, message: &str) -> Explained {
    Explained {
        is_allowed: false,
        code: code.to_owned(),
        text: format!("refuse {status} ({code})\n  {message}"),
        detail: json!({"status": status, "code": code, "reason": message}),
        custom: Value::Null,
    }
}

/// A SPIFFE ID, `NAMESPACE/NAME` or `NAME` of an identity of the mesh.
pub(crate) fn workload(mesh: &MeshSet, text: &str) -> Result<SpiffeId, Failure> {
    if text.starts_with("spiffe://") {
        return SpiffeId::parse(text).map_err(|error| {
            Failure::usage(format!(
                "`{}` is not a SPIFFE ID: {error}",
                escape_text(text)
            ))
        });
    }
    let mut found = mesh
        .identities
        .iter()
        .filter(|identity| match text.split_once('/') {
            Some((namespace, name)) => {
                identity.metadata.namespace == namespace && identity.metadata.name == name
            }
            None => identity.metadata.name == text,
        });
    match (found.next(), found.next()) {
        (Some(identity), None) => Ok(identity.spiffe_id.clone()),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "several identities are named `{}`",
            escape_text(text)
        ))
        .with_help("write NAMESPACE/NAME or a SPIFFE ID")),
        (None, _) => {
            let names: Vec<&str> = mesh
                .identities
                .iter()
                .map(|identity| identity.metadata.name.as_str())
                .collect();
            Err(Failure::usage(format!(
                "no identity of the mesh is named `{}`",
                escape_text(text)
            ))
            .with_help(format!("there are: {}", names.join(", "))))
        }
    }
}

fn port(mesh: &MeshSet, to: &SpiffeId) -> u16 {
    let identity = mesh
        .identities
        .iter()
        .find(|identity| identity.spiffe_id == *to);
    identity
        .and_then(|identity| identity.launch.as_ref())
        .map_or(80, |launch| launch.port)
}

fn host(mesh: &MeshSet, to: &SpiffeId) -> String {
    let service = mesh
        .services
        .iter()
        .find(|service| service.subject_alt_names.contains(to));
    service
        .and_then(|service| service.hosts.first().cloned())
        .unwrap_or_default()
}

/// An unsigned token of the claims; none where none were asked for.
fn token(
    mesh: &MeshSet,
    from: Option<&SpiffeId>,
    audience: Option<String>,
    over: Option<Map<String, Value>>,
    at: Timestamp,
) -> Result<Option<String>, Failure> {
    if audience.is_none() && over.is_none() {
        return Ok(None);
    }
    let mut claims = Map::new();
    if let Some(audience) = audience {
        let from = from
            .ok_or_else(|| Failure::usage("--audience needs --from: a JWT-SVID is of somebody"))?;
        claims.insert("iss".to_owned(), json!(mesh.config.trust_domain.id()));
        claims.insert("sub".to_owned(), json!(from));
        claims.insert("aud".to_owned(), json!([audience]));
    }
    claims.insert("iat".to_owned(), json!(at.unix_secs()));
    claims.insert(
        "exp".to_owned(),
        json!(at.plus(Duration::from_mins(1)).unix_secs()),
    );
    claims.extend(over.unwrap_or_default());
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","typ":"JWT"}"#);
    let payload = URL_SAFE_NO_PAD.encode(Value::Object(claims).to_string());
    Ok(Some(format!(
        "{header}.{payload}.{}",
        URL_SAFE_NO_PAD.encode([0_u8; 64])
    )))
}

struct AnyKey;

impl AnyKey {
    fn set() -> Arc<JwkSet> {
        let key = Jwk {
            key: JwkKey::Ec {
                curve: Curve::P256,
                x: vec![0; 32],
                y: vec![0; 32],
            },
            kid: None,
            use_: None,
            alg: None,
            x5c: Vec::new(),
        };
        Arc::new(JwkSet {
            keys: vec![key],
            sequence: None,
            refresh_hint_secs: None,
        })
    }
}

impl KeySource for AnyKey {
    fn jwt_bundle(&self, _: &TrustDomain) -> Option<Arc<JwkSet>> {
        Some(Self::set())
    }

    fn fetched_keys(&self, _: &KeyAddress) -> Option<Arc<JwkSet>> {
        Some(Self::set())
    }

    fn note_missing_key(&self, _: &KeyAddress) {}
}

struct AnySignature;

impl SignatureVerifier for AnySignature {
    fn is_valid(&self, _: &Jwk, _: JwsAlgorithm, _: &[u8], _: &[u8]) -> bool {
        true
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write `NAME: VALUE`")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| "write a time of RFC 3339, such as `2026-01-31T12:00:00Z`".to_owned())
}

fn claims(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))
}
