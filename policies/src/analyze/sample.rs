//! One real request out of a region, and what an engine decides on it: the proof that the analysis is about requests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ravelin_proto::jwks::{Curve, Jwk, JwkKey, JwkSet};
use ravelin_proto::jws::JwsAlgorithm;
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::bits::Bits;
use super::sort::{Signer, TokenSort};
use super::space::{Aspect, Atom, Space};
use super::vocabulary::{ListField, TextField};
use crate::authenticate::{KeySource, RequestView, SignatureVerifier};
use crate::call::{Connection, HttpCall, RequestIdentity};
use crate::compile::WorkloadPolicies;
use crate::decision::{CustomCheck, Decision};
use crate::schema::{ExtensionProvider, KeyAddress, KeyOrigin, PeerMode, TokenPlace};

/// A request, or a connection whose content is not HTTP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// A bare connection: method, host, path, headers and token mean nothing.
    pub is_connection: bool,
    /// The peer's SPIFFE ID; `None` for plain text.
    pub principal: Option<String>,
    /// Address of the peer.
    pub source_ip: IpAddr,
    /// Address of the client.
    pub remote_ip: IpAddr,
    /// Local address.
    pub destination_ip: IpAddr,
    /// Port of the workload.
    pub port: u16,
    /// Server name of the handshake.
    pub sni: Option<String>,
    /// Method.
    pub method: String,
    /// Host, with its port if it has one.
    pub host: String,
    /// Path, with its query if it has one.
    pub target: String,
    /// Name and value; without the token.
    pub headers: Vec<(String, String)>,
    /// The claims of a valid token that the request carries.
    pub claims: Option<Map<String, Value>>,
    /// When.
    pub at: Timestamp,
    /// Number of the token's sort.
    #[serde(skip)]
    pub(crate) sort: Option<usize>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    Deny,
    Ask(Arc<ExtensionProvider>),
}

/// A request of the region; what the region leaves open is as ordinary as possible.
pub(crate) fn sample(space: &Space, sides: &[(usize, Bits)]) -> Sample {
    let pick = |aspect: &Aspect, ordinary: usize| -> Option<&Atom> {
        let number = space.number(aspect);
        let side = sides.iter().find(|(dimension, _)| *dimension == number);
        let atom = match side {
            Some((_, atoms)) if !atoms.contains(ordinary) => atoms.first()?,
            _ => ordinary,
        };
        space.dimensions.get(number)?.atoms.get(atom)
    };
    let text = |field: TextField, ordinary: usize| match pick(&Aspect::Text(field), ordinary) {
        Some(Atom::Text(text)) => text.clone(),
        _ => None,
    };
    let address = |aspect: &Aspect| match pick(aspect, 0) {
        Some(Atom::Address(address)) => *address,
        _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let sort = match pick(&Aspect::Token, 0) {
        Some(Atom::Token(sort)) => *sort,
        _ => None,
    };
    let list = |field: &ListField| -> Vec<String> {
        let Some(list) = space.lists.get(field) else {
            return Vec::new();
        };
        (0..)
            .zip(&list.witnesses)
            .filter(|(class, _)| {
                let aspect = Aspect::Has(field.clone(), *class);
                pick(&aspect, 0) == Some(&Atom::Has(true))
            })
            .map(|(_, witness)| witness.clone())
            .collect()
    };
    let at = match pick(&Aspect::Time, ordinary_period(space)) {
        Some(Atom::Period(period)) => period.moment(space.now),
        _ => space.now,
    };
    let headers = space.lists.keys().filter_map(|field| match field {
        ListField::Header(name) => Some((name, list(field))),
        ListField::Audience | ListField::Claim(_) => None,
    });
    let headers = headers
        .flat_map(|(name, values)| values.into_iter().map(|value| (name.clone(), value)))
        .collect();
    let principal = text(TextField::Principal, ordinary_principal(space));
    Sample {
        is_connection: pick(&Aspect::Protocol, 0) == Some(&Atom::Connection),
        sni: text(TextField::ServerName, usize::from(principal.is_some())),
        principal: principal.map(|bare| format!("spiffe://{bare}")),
        source_ip: address(&Aspect::Source),
        remote_ip: address(&Aspect::Remote),
        destination_ip: address(&Aspect::Destination),
        port: match pick(&Aspect::Port, space.size(&Aspect::Port).saturating_sub(1)) {
            Some(Atom::Port(port)) => *port,
            _ => 0,
        },
        method: text(TextField::Method, 0).unwrap_or_default(),
        host: text(TextField::Host, 0).unwrap_or_default(),
        target: text(TextField::Path, 0).unwrap_or_default(),
        headers,
        claims: sort.and_then(|number| {
            let sort = space.sorts.get(number)?;
            Some(claims(space, sort, &text, &list, at))
        }),
        at,
        sort,
    }
}

fn ordinary_period(space: &Space) -> usize {
    let now = space.now;
    let found = space.chosen(
        &Aspect::Time,
        |atom| matches!(atom, Atom::Period(period) if period.contains(now)),
    );
    found.first().unwrap_or(0)
}

/// The first atom of principals that has an identity.
fn ordinary_principal(space: &Space) -> usize {
    usize::from(space.size(&Aspect::Text(TextField::Principal)) > 1)
}

fn claims(
    space: &Space,
    sort: &TokenSort,
    text: &dyn Fn(TextField, usize) -> Option<String>,
    list: &dyn Fn(&ListField) -> Vec<String>,
    at: Timestamp,
) -> Map<String, Value> {
    let mut claims = Map::new();
    claims.insert("iss".to_owned(), json!(sort.issuer));
    if let Some(subject) = text(TextField::Subject, 0) {
        claims.insert("sub".to_owned(), json!(subject));
    }
    if let Some(presenter) = text(TextField::Presenter, 0) {
        claims.insert("azp".to_owned(), json!(presenter));
    }
    for field in space.lists.keys() {
        let values = list(field);
        if values.is_empty() {
            continue;
        }
        match field {
            ListField::Audience => {
                claims.insert("aud".to_owned(), json!(values));
            }
            ListField::Claim(steps) => put(&mut claims, steps, json!(values)),
            ListField::Header(_) => {}
        }
    }
    claims.insert(
        "exp".to_owned(),
        json!(at.plus(Duration::from_hours(1)).unix_secs()),
    );
    claims
}

fn put(claims: &mut Map<String, Value>, steps: &[String], value: Value) {
    let Some((first, rest)) = steps.split_first() else {
        return;
    };
    if rest.is_empty() {
        claims.insert(first.clone(), value);
        return;
    }
    let inner = claims
        .entry(first.clone())
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(inner) = inner {
        put(inner, rest, value);
    }
}

/// What the engine and the steps around it make of the request, in the proxy's order.
pub(crate) fn judge(
    engine: &WorkloadPolicies,
    sample: &Sample,
    sorts: &[TokenSort],
    includes_dry_run: bool,
) -> Verdict {
    let Some(connection) = connection(sample) else {
        return Verdict::Deny;
    };
    let is_peer_refused = match engine.peer_mode(sample.port) {
        PeerMode::Strict => connection.principal.is_none(),
        PeerMode::Disable => connection.principal.is_some(),
        PeerMode::Permissive => false,
    };
    if is_peer_refused {
        return Verdict::Deny;
    }
    if sample.is_connection {
        let check = engine.custom_tcp(&connection, sample.at);
        let decision = engine.authorize_tcp(&connection, sample.at);
        return verdict(check, &decision, includes_dry_run);
    }
    judge_request(engine, sample, &connection, sorts, includes_dry_run).unwrap_or(Verdict::Deny)
}

/// `None`: refused before any policy.
fn judge_request(
    engine: &WorkloadPolicies,
    sample: &Sample,
    connection: &Connection,
    sorts: &[TokenSort],
    includes_dry_run: bool,
) -> Option<Verdict> {
    let (headers, target, signed) = with_token(sample, sorts);
    let path = engine.normalize(&target).ok()?;
    let view = RequestView {
        method: &sample.method,
        query: path.query(),
        headers: &headers,
    };
    let keys = &signed;
    let identity = engine
        .authentication()
        .authenticate(&view, keys, keys, sample.at)
        .ok()?;
    let path = path.without_params(&identity.remove_params);
    let call = |identity| HttpCall {
        connection,
        method: &sample.method,
        host: &sample.host,
        path: &path,
        headers: &sample.headers,
        identity,
        now: sample.at,
    };
    let unknown = RequestIdentity::default();
    let check = engine.custom_http(&call(&unknown));
    let decision = engine.authorize_http(&call(&identity));
    Some(verdict(check, &decision, includes_dry_run))
}

fn verdict(check: CustomCheck, decision: &Decision, includes_dry_run: bool) -> Verdict {
    let is_allowed = match &decision.shadow {
        Some(shadow) if includes_dry_run => shadow.is_allowed,
        Some(_) | None => decision.is_allowed,
    };
    match check {
        _ if !is_allowed => Verdict::Deny,
        CustomCheck::NotNeeded => Verdict::Allow,
        CustomCheck::Ask { provider, .. } => Verdict::Ask(provider),
        CustomCheck::Refuse { .. } => Verdict::Deny,
    }
}

fn connection(sample: &Sample) -> Option<Connection> {
    let principal = sample.principal.as_deref().map(SpiffeId::parse);
    Some(Connection {
        principal: principal.transpose().ok()?,
        source_ip: sample.source_ip,
        remote_ip: sample.remote_ip,
        destination_ip: sample.destination_ip,
        destination_port: sample.port,
        sni: sample.sni.clone(),
    })
}

/// Headers and target with a made-up token, and the one key that it is valid under.
fn with_token(sample: &Sample, sorts: &[TokenSort]) -> (Vec<(String, String)>, String, OneKey) {
    let mut headers = sample.headers.clone();
    let mut target = sample.target.clone();
    let sort = sample.sort.and_then(|number| sorts.get(number));
    let (Some(sort), Some(claims)) = (sort, &sample.claims) else {
        return (headers, target, OneKey::default());
    };
    let signed = OneKey::of(&sort.signer);
    let token = signed.token(claims);
    match &sort.place {
        TokenPlace::Header { name, prefix } => {
            headers.push((name.clone(), format!("{prefix}{token}")));
        }
        TokenPlace::Cookie(name) => headers.push(("cookie".to_owned(), format!("{name}={token}"))),
        TokenPlace::Param(name) => {
            let joint = if target.contains('?') { '&' } else { '?' };
            target = format!("{target}{joint}{name}={token}");
        }
    }
    (headers, target, signed)
}

/// The key of one signer; nothing else verifies.
#[derive(Default)]
struct OneKey {
    origin: Option<KeyOrigin>,
    key: Option<Jwk>,
}

impl OneKey {
    fn of(signer: &Signer) -> Self {
        match signer {
            Signer::Key(key) => Self {
                origin: None,
                key: Some(key.clone()),
            },
            Signer::Origin(origin) => Self {
                origin: Some(origin.clone()),
                key: Some(Jwk {
                    key: JwkKey::Ec {
                        curve: Curve::P256,
                        x: vec![1; 32],
                        y: vec![2; 32],
                    },
                    kid: Some("example".to_owned()),
                    use_: None,
                    alg: None,
                    x5c: Vec::new(),
                }),
            },
        }
    }

    fn token(&self, claims: &Map<String, Value>) -> String {
        let key = self.key.as_ref();
        let algorithm = key.and_then(|key| key.algorithms().first());
        let name = algorithm.map_or("ES256", |algorithm| algorithm.name());
        let mut header = json!({"alg": name});
        if let (Some(kid), Value::Object(header)) =
            (key.and_then(|key| key.kid.clone()), &mut header)
        {
            header.insert("kid".to_owned(), json!(kid));
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!(
            "{}.{}.{}",
            part(&header),
            part(&Value::Object(claims.clone())),
            URL_SAFE_NO_PAD.encode([0_u8; 64])
        )
    }

    fn set(&self, is_asked: impl Fn(&KeyOrigin) -> bool) -> Option<Arc<JwkSet>> {
        let key = self.key.clone()?;
        self.origin.as_ref().filter(|origin| is_asked(origin))?;
        Some(Arc::new(JwkSet {
            keys: vec![key],
            ..JwkSet::default()
        }))
    }
}

impl KeySource for OneKey {
    fn jwt_bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<JwkSet>> {
        self.set(|origin| origin.trust_domain() == Some(trust_domain))
    }

    fn fetched_keys(&self, address: &KeyAddress) -> Option<Arc<JwkSet>> {
        self.set(|origin| matches!(origin, KeyOrigin::Remote(keys) if keys.address == *address))
    }

    fn note_missing_key(&self, _: &KeyAddress) {}
}

impl SignatureVerifier for OneKey {
    fn is_valid(&self, key: &Jwk, _: JwsAlgorithm, _: &[u8], _: &[u8]) -> bool {
        self.key.as_ref() == Some(key)
    }
}
