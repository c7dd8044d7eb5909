//! Rows at random, from one seed: small alphabets, so that values meet, miss narrowly and overlap.
//!
//! The first rule of a row goes through every action, field and kind of match in turn, and its calls through every
//! protocol, identity and state of the token; the rest is chance.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::case::{Call, Row, Token, Workload};

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(bound).unwrap()).unwrap()
    }

    /// True once in `of` times.
    fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

pub const ACTIONS: [&str; 4] = ["ALLOW", "DENY", "AUDIT", "CUSTOM"];

/// How a value is made of a text that calls have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Exact,
    Prefix,
    Suffix,
    Presence,
    Near,
}

pub const KINDS: [Kind; 5] = [
    Kind::Exact,
    Kind::Prefix,
    Kind::Suffix,
    Kind::Presence,
    Kind::Near,
];

/// Where a field stands: in a source, an operation, or under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Source,
    Operation,
    When,
}

pub const FIELDS: [(Place, &str); 33] = [
    (Place::Source, "principals"),
    (Place::Source, "requestPrincipals"),
    (Place::Source, "namespaces"),
    (Place::Source, "serviceAccounts"),
    (Place::Source, "trustDomains"),
    (Place::Source, "ipBlocks"),
    (Place::Source, "remoteIpBlocks"),
    (Place::Operation, "hosts"),
    (Place::Operation, "ports"),
    (Place::Operation, "methods"),
    (Place::Operation, "paths"),
    (Place::When, "request.headers[x-a]"),
    (Place::When, "request.headers[X-B]"),
    (Place::When, "request.headers[:method]"),
    (Place::When, "request.headers[:path]"),
    (Place::When, "request.headers[:authority]"),
    (Place::When, "request.auth.principal"),
    (Place::When, "request.auth.audiences"),
    (Place::When, "request.auth.presenter"),
    (Place::When, "request.auth.claims[role]"),
    (Place::When, "request.auth.claims[groups]"),
    (Place::When, "request.auth.claims[nested][a]"),
    (Place::When, "request.auth.claims[scope]"),
    (Place::When, "request.auth.claims[foo.com/name]"),
    (Place::When, "source.principal"),
    (Place::When, "source.namespace"),
    (Place::When, "source.serviceAccount"),
    (Place::When, "source.trustDomain"),
    (Place::When, "source.ip"),
    (Place::When, "remote.ip"),
    (Place::When, "destination.ip"),
    (Place::When, "destination.port"),
    (Place::When, "connection.sni"),
];

/// What a call's token is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenState {
    None,
    Plain,
    Listed,
    Nested,
    Odd,
}

pub const TOKENS: [TokenState; 5] = [
    TokenState::None,
    TokenState::Plain,
    TokenState::Listed,
    TokenState::Nested,
    TokenState::Odd,
];

pub const IDENTITIES: [Option<&str>; 12] = [
    None,
    Some("spiffe://shop.example/ns/shop/sa/orders"),
    Some("spiffe://old.example/ns/shop/sa/orders"),
    Some("spiffe://evil.example/ns/shop/sa/orders"),
    Some("spiffe://shop.example/ns/front/sa/web"),
    Some("spiffe://shop.example/ns/shop/sa/order"),
    Some("spiffe://shop.example/host/a"),
    Some("spiffe://shop.example/ns/shop/k/v/sa/orders"),
    Some("spiffe://shop.example/ns/shop/sa/orders/x/y"),
    Some("spiffe://shop.example/x/ns/shop/sa/orders"),
    Some("spiffe://cluster.local/ns/shop/sa/orders"),
    Some("spiffe://shop.example/ns/istio-system/sa/orders"),
];

const ADDRESSES: [&str; 6] = [
    "10.1.2.3",
    "::ffff:10.1.2.3",
    "10.1.2.200",
    "203.0.113.9",
    "fd00::1",
    "::1",
];
const BLOCKS: [&str; 11] = [
    "10.1.2.3",
    "10.0.0.0/8",
    "10.1.2.0/25",
    "::ffff:10.0.0.0/104",
    "::ffff:10.1.2.3",
    "203.0.113.0/24",
    "fd00::/8",
    "0.0.0.0/0",
    "::/0",
    "10.1.2.3/32",
    "10.1.2.77/24",
];
const HOSTS: [&str; 11] = [
    "payments.shop:",
    ":80",
    "payments.shop:http",
    "payments.shop",
    "Payments.SHOP",
    "payments.shop:8080",
    "other.shop",
    "payments",
    "[::1]:80",
    "[::1]",
    "10.0.0.1:80",
];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "GETS", "DELETE"];
const PATHS: [&str; 28] = [
    "/charge",
    "/a/b",
    "/a/x/b",
    "/a/",
    "/a",
    "/",
    "/admin",
    "/a/b?q=1",
    "/A/b",
    "/a.txt",
    "/a/b.txt",
    "/adm%69n",
    "/a/b#top",
    "/a/../admin",
    "/a*b",
    "/a;x/b",
    "/a/%c0%ae/b",
    "/a/%25/b",
    "/a/\"/b",
    "/a//b",
    "/a%2fb",
    "/a/%2e%2e/admin",
    "/a\\b",
    "/a/..%5c%2e/admin",
    "/.../a",
    "/a/%00",
    "/a/%4",
    "a",
];
const PATH_VALUES: [&str; 22] = [
    "/charge",
    "/a/b",
    "/admin",
    "/",
    "/a/",
    "/a*",
    "/admin*",
    "/a/*",
    "*/b",
    "*.txt",
    "*/x/b",
    "*",
    "/a*b",
    "/{**}",
    "/a/{*}",
    "/a/{**}",
    "/a/{**}/b",
    "/{*}/b",
    "/a/{*}/{**}",
    "/a/{*}/b",
    "/{*}",
    "/{*}/{**}/b",
];
const HEADER_VALUES: [&str; 7] = ["admin", "adm", "guest", "admin,guest", "", "a*n", "*"];
const WORDS: [&str; 6] = ["admin", "dev", "adm", "read", "true", "42"];
const ISSUERS: [&str; 4] = ["idp", "idp/realm", "https://idp", "xidp"];
const SUBJECTS: [&str; 5] = ["alice", "alic", "bob", "a/b", "*"];
const DOMAINS: [&str; 4] = [
    "shop.example",
    "old.example",
    "evil.example",
    "cluster.local",
];
const NAMESPACES: [&str; 4] = ["shop", "front", "sho", "istio-system"];
const SNIS: [&str; 4] = ["payments.shop", "other.shop", "payments", "pay"];
const TIMES: [&str; 3] = [
    "2026-06-01T11:59:59Z",
    "2026-06-01T12:00:00Z",
    "2026-06-01T13:00:00Z",
];

/// Documents of one mesh; `turn` chooses what the first rule is about.
pub fn row(dice: &mut Dice, turn: usize) -> Row {
    let action = ACTIONS[turn % ACTIONS.len()];
    let field = FIELDS[(turn / ACTIONS.len()) % FIELDS.len()];
    let kind = KINDS[(turn / (ACTIONS.len() * FIELDS.len())) % KINDS.len()];
    let mut policies = Vec::new();
    let mut first = policy(dice, "p0", action);
    if is_allowed_in(field, action) {
        let negation = dice.below(3);
        let rule = only(dice, field, kind, negation);
        let rules = first
            .pointer_mut("/spec/rules")
            .unwrap()
            .as_array_mut()
            .unwrap();
        let at = dice.below(rules.len() + 1);
        rules.insert(at, rule);
    }
    first["metadata"]["namespace"] = json!("shop");
    policies.push(first);
    let tokens = if dice.once_in(4) {
        policies.push(authentication(dice));
        tokens(dice)
    } else {
        BTreeMap::new()
    };
    for number in 1..=dice.below(5) {
        let action = dice.pick(&["ALLOW", "ALLOW", "DENY", "DENY", "AUDIT", "CUSTOM"]);
        policies.push(policy(dice, &format!("p{number}"), action));
    }
    let last = policies.len();
    for at in (1..last).rev() {
        policies.swap(at, dice.below(at + 1));
    }
    Row {
        id: format!("turn-{turn}"),
        rules: Vec::new(),
        note: String::new(),
        config: config(dice),
        policies,
        workload: Workload::default(),
        others: vec![Workload {
            name: "orders".into(),
            namespace: "shop".into(),
            labels: BTreeMap::from([("app".into(), "orders".into())]),
        }],
        tokens,
        refused: None,
        warnings: Vec::new(),
        peer_modes: BTreeMap::new(),
        calls: Vec::new(),
    }
}

/// Two issuers; the second rule has its own places.
fn authentication(dice: &mut Dice) -> Value {
    let mut first = json!({"issuer": "idp", "jwks": "${jwks:k1}"});
    if dice.once_in(2) {
        first["audiences"] = json!(["pay"]);
    }
    if dice.once_in(3) {
        first["fromHeaders"] = json!([{"name": "x-token", "prefix": "T "}]);
        first["fromCookies"] = json!(["c"]);
    }
    let mut second = json!({"issuer": "second", "jwks": "${jwks:k9,k1}"});
    if dice.once_in(2) {
        second["fromParams"] = json!(["t"]);
    }
    let rules = if dice.once_in(2) {
        json!([first, second])
    } else {
        json!([first])
    };
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "jwt", "namespace": dice.pick(&["shop", "istio-system", "front"])},
        "spec": {"jwtRules": rules}
    })
}

const TOKEN_NAMES: [&str; 8] = [
    "good", "other", "second", "crossed", "old", "early", "forged", "endless",
];
/// 2026-06-01T12:00:00Z.
const NOON: i64 = 1_780_315_200;

fn tokens(dice: &mut Dice) -> BTreeMap<String, Token> {
    let mut tokens = BTreeMap::new();
    for name in TOKEN_NAMES {
        let mut claims = json!({"iss": "idp", "sub": "alice", "aud": "pay", "exp": NOON + 7200});
        let state = dice.pick(&TOKENS[1..]);
        let said = self::claims(dice, state).unwrap_or_default();
        for key in ["role", "groups", "nested", "scope", "azp"] {
            if let Some(value) = said.get(key) {
                claims[key] = value.clone();
            }
        }
        let mut key = "k1";
        match name {
            "other" => {
                claims["sub"] = json!("bob");
                claims["aud"] = json!(["ship"]);
            }
            "second" => {
                claims["iss"] = json!("second");
                key = "k9";
            }
            "crossed" => key = "k9",
            "old" => claims["exp"] = json!(NOON - 60 + i64::try_from(dice.below(2)).unwrap()),
            "early" => claims["nbf"] = json!(NOON + 60 + i64::try_from(dice.below(2)).unwrap()),
            "endless" => {
                claims.as_object_mut().unwrap().remove("exp");
            }
            _ => {}
        }
        let is_forged = name == "forged";
        tokens.insert(
            name.to_owned(),
            Token {
                header: None,
                claims,
                key: key.into(),
                is_forged,
            },
        );
    }
    tokens
}

/// Shows a token or two.
pub fn show_tokens(dice: &mut Dice, call: &mut Call) {
    call.claims = None;
    for _ in 0..dice.below(3) {
        let name = if dice.once_in(2) {
            "good"
        } else {
            dice.pick(&TOKEN_NAMES)
        };
        let mark = format!("${{token:{name}}}");
        match dice.below(6) {
            0 => call.headers.push(("x-token".into(), format!("T {mark}"))),
            1 => call
                .headers
                .push(("cookie".into(), format!("a=b; c={mark}"))),
            2 if call.path == "/charge" => call.path = format!("/charge?t={mark}"),
            3 if call.path == "/a/b" => call.path = format!("/a/b?q=1&access_token={mark}"),
            4 => call
                .headers
                .push(("authorization".into(), format!("bearer {mark}"))),
            _ => call
                .headers
                .push(("Authorization".into(), format!("Bearer {mark}"))),
        }
    }
}

fn config(dice: &mut Dice) -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("trustDomainAliases".into(), json!(["old.example"]));
    config.insert(
        "extensionProviders".into(),
        json!([
            {"name": "grpc", "envoyExtAuthzGrpc": {"service": "10.0.0.7", "port": 9000}},
            {"name": "http", "envoyExtAuthzHttp": {"service": "10.0.0.7", "port": 9001}}
        ]),
    );
    if dice.once_in(4) {
        config.insert("unlistedCalls".into(), json!("allow"));
    }
    if dice.once_in(4) {
        config.insert("hostMatching".into(), json!("EXACT"));
    }
    if dice.once_in(3) {
        config.insert("jwt".into(), json!({"typedClaims": true}));
    }
    if dice.once_in(3) {
        let option = dice.pick(&[
            "NONE",
            "BASE",
            "DEFAULT",
            "MERGE_SLASHES",
            "DECODE_AND_MERGE_SLASHES",
        ]);
        config.insert("pathNormalization".into(), json!(option));
    }
    config
}

fn policy(dice: &mut Dice, name: &str, action: &str) -> Value {
    let namespace = dice.pick(&["shop", "shop", "shop", "istio-system", "front"]);
    let mut spec = json!({"action": action});
    if action == "ALLOW" && dice.once_in(3) {
        spec = json!({});
    }
    match dice.below(8) {
        0 | 1 => spec["selector"] = json!({"matchLabels": {"app": "payments"}}),
        2 if namespace != "front" => spec["selector"] = json!({"matchLabels": {"app": "orders"}}),
        3 if dice.once_in(4) => {
            spec["targetRefs"] = json!([{"kind": "Service", "group": "", "name": "payments"}]);
        }
        _ => {}
    }
    if namespace == "front" {
        spec.as_object_mut().unwrap().remove("selector");
    }
    if action == "CUSTOM" {
        let provider = dice.pick(&["grpc", "grpc", "http"]);
        spec["provider"] = json!({"name": provider});
    }
    let least = usize::from(action == "DENY" || action == "CUSTOM");
    // Now and then so many that a linear search would show.
    let count = if dice.once_in(60) {
        70 + dice.below(80)
    } else {
        least.max(dice.below(4))
    };
    let rules: Vec<Value> = (0..count).map(|_| rule(dice, action)).collect();
    let mut annotations = annotations(dice, action);
    if let Some(key) = claim_with_values(&rules)
        && dice.once_in(2)
    {
        annotations["ravelin.dev/all-of"] = json!(key);
    }
    spec["rules"] = json!(rules);
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": spec
    })
}

/// A claim that some condition has `values` for.
fn claim_with_values(rules: &[Value]) -> Option<&str> {
    let conditions = rules
        .iter()
        .filter_map(|rule| rule["when"].as_array())
        .flatten();
    conditions
        .filter(|condition| condition.get("values").is_some())
        .filter_map(|condition| condition["key"].as_str())
        .find(|key| key.starts_with("request.auth.claims["))
}

fn annotations(dice: &mut Dice, action: &str) -> Value {
    let mut found = Map::new();
    if (action == "ALLOW" || action == "DENY") && dice.once_in(6) {
        found.insert("istio.io/dry-run".into(), json!("true"));
    }
    if dice.once_in(8) {
        found.insert(
            "ravelin.dev/not-before".into(),
            json!("2026-06-01T12:00:00Z"),
        );
    }
    if dice.once_in(8) {
        found.insert(
            "ravelin.dev/not-after".into(),
            json!("2026-06-01T13:00:00Z"),
        );
    }
    if dice.once_in(4) {
        found.insert("ravelin.dev/references".into(), json!("true"));
    }
    Value::Object(found)
}

/// Rule 60: an external authorizer is asked before tokens and peers are looked at.
fn is_allowed_in(field: (Place, &str), action: &str) -> bool {
    let of_peer = [
        "principals",
        "requestPrincipals",
        "namespaces",
        "serviceAccounts",
        "trustDomains",
    ];
    let is_key_of_peer = field.1.starts_with("request.auth.")
        || (field.1.starts_with("source.") && field.1 != "source.ip");
    action != "CUSTOM" || !(of_peer.contains(&field.1) || is_key_of_peer)
}

fn rule(dice: &mut Dice, action: &str) -> Value {
    let mut rule = Map::new();
    for (place, list, inner) in [
        (Place::Source, "from", "source"),
        (Place::Operation, "to", "operation"),
    ] {
        if dice.once_in(2) {
            let count = 1 + dice.below(2);
            let parts: Vec<Value> = (0..count)
                .map(|_| json!({inner: part(dice, place, action)}))
                .collect();
            rule.insert(list.into(), json!(parts));
        }
    }
    if dice.once_in(2) {
        let count = 1 + dice.below(2);
        let conditions: Vec<Value> = (0..count)
            .map(|_| {
                let (_, key) = field_of(dice, Place::When, action);
                let (kind, negation) = (dice.pick(&KINDS), dice.below(3));
                condition(dice, key, kind, negation)
            })
            .collect();
        rule.insert("when".into(), json!(conditions));
    }
    Value::Object(rule)
}

fn field_of(dice: &mut Dice, place: Place, action: &str) -> (Place, &'static str) {
    loop {
        let field = dice.pick(&FIELDS);
        if field.0 == place && is_allowed_in(field, action) {
            return field;
        }
    }
}

fn part(dice: &mut Dice, place: Place, action: &str) -> Value {
    let mut part = Map::new();
    for _ in 0..=dice.below(2) {
        let (_, name) = field_of(dice, place, action);
        let (kind, negation) = (dice.pick(&KINDS), dice.below(3));
        add_lists(dice, &mut part, name, kind, negation);
    }
    // Rule 31.
    if part.contains_key("serviceAccounts") || part.contains_key("notServiceAccounts") {
        for name in ["principals", "notPrincipals", "namespaces", "notNamespaces"] {
            part.remove(name);
        }
    }
    Value::Object(part)
}

/// A rule that is about one field alone.
fn only(dice: &mut Dice, field: (Place, &str), kind: Kind, negation: usize) -> Value {
    match field.0 {
        Place::When => json!({"when": [condition(dice, field.1, kind, negation)]}),
        Place::Source | Place::Operation => {
            let mut part = Map::new();
            add_lists(dice, &mut part, field.1, kind, negation);
            match field.0 {
                Place::Source => json!({"from": [{"source": part}]}),
                _ => json!({"to": [{"operation": part}]}),
            }
        }
    }
}

/// `negation`: 0 values, 1 values that must not be, 2 both.
fn add_lists(
    dice: &mut Dice,
    part: &mut Map<String, Value>,
    name: &str,
    kind: Kind,
    negation: usize,
) {
    let (first, rest) = name.split_at(1);
    if negation != 1 {
        part.insert(name.into(), values(dice, name, kind));
    }
    if negation != 0 {
        part.insert(
            format!("not{}{rest}", first.to_uppercase()),
            values(dice, name, kind),
        );
    }
}

fn condition(dice: &mut Dice, key: &str, kind: Kind, negation: usize) -> Value {
    let mut condition = json!({"key": key});
    if negation != 1 {
        condition["values"] = values(dice, key, kind);
    }
    if negation != 0 {
        condition["notValues"] = values(dice, key, kind);
    }
    condition
}

fn values(dice: &mut Dice, field: &str, kind: Kind) -> Value {
    let mut list = vec![value(dice, field, kind)];
    while dice.once_in(3) {
        let kind = dice.pick(&KINDS);
        list.push(value(dice, field, kind));
    }
    json!(list)
}

fn value(dice: &mut Dice, field: &str, kind: Kind) -> String {
    let base = match field {
        "principals" | "source.principal" => return principal(dice, kind),
        "requestPrincipals" | "request.auth.principal" => return request_principal(dice, kind),
        "serviceAccounts" | "source.serviceAccount" => {
            return dice
                .pick(&[
                    "orders",
                    "shop/orders",
                    "front/web",
                    "order",
                    "shop/order",
                    "v",
                ])
                .into();
        }
        "ipBlocks" | "remoteIpBlocks" | "source.ip" | "remote.ip" | "destination.ip" => {
            return dice.pick(&BLOCKS).into();
        }
        "ports" | "destination.port" => return dice.pick(&["8080", "9090", "80", "808"]).into(),
        "paths" => return dice.pick(&PATH_VALUES).into(),
        "trustDomains" | "source.trustDomain" => dice.pick(&DOMAINS),
        "namespaces" | "source.namespace" => dice.pick(&NAMESPACES),
        "hosts" | "request.headers[:authority]" => dice.pick(&HOSTS),
        "methods" | "request.headers[:method]" => dice.pick(&METHODS),
        "request.headers[:path]" => dice.pick(&["/charge", "/a/b", "/a/b?q=1", "/admin", "/a"]),
        "connection.sni" => dice.pick(&SNIS),
        _ if field.starts_with("request.headers") => {
            dice.pick(&["admin", "adm", "guest", "admin,guest", "a*n"])
        }
        _ if field.starts_with("request.auth.claims") && dice.once_in(8) => {
            return dice
                .pick(&[
                    "${request.headers[x-a]}",
                    "${request.path[1]}",
                    "${request.path[2]}",
                ])
                .into();
        }
        _ => dice.pick(&WORDS),
    };
    shaped(dice, base, kind, field)
}

fn shaped(dice: &mut Dice, base: &str, kind: Kind, field: &str) -> String {
    let cut = 1 + dice.below(base.len() - 1);
    match kind {
        Kind::Exact => base.to_owned(),
        Kind::Prefix => format!("{}*", &base[..cut]),
        Kind::Suffix => format!("*{}", &base[cut..]),
        Kind::Presence => "*".into(),
        Kind::Near => {
            let has_no_inner_star = [
                "namespaces",
                "source.namespace",
                "trustDomains",
                "source.trustDomain",
            ];
            match dice.below(5) {
                0 | 1 => base[..base.len() - 1].to_owned(),
                2 if !has_no_inner_star.contains(&field) => dice
                    .pick(&["**", "*A*", "*.*", "A**", "*:80", "*:8080"])
                    .into(),
                3 if !has_no_inner_star.contains(&field) && base.len() > 2 => {
                    format!("{}*{}", &base[..1], &base[2..])
                }
                _ => format!("{base}s").to_uppercase(),
            }
        }
    }
}

fn principal(dice: &mut Dice, kind: Kind) -> String {
    let id = dice.pick(&IDENTITIES[1..]).unwrap_or_default();
    let plain = id.trim_start_matches("spiffe://");
    match kind {
        Kind::Exact if dice.once_in(4) => id.to_owned(),
        Kind::Exact if dice.once_in(3) => {
            format!("cluster.local/{}", plain.split_once('/').unwrap().1)
        }
        Kind::Near => match dice.below(3) {
            0 => "*/ns/shop/sa/orders".into(),
            1 => "cluster.local/ns/shop/sa/*".into(),
            _ => plain[..plain.len() - 1].to_owned(),
        },
        _ => shaped(dice, plain, kind, "principals"),
    }
}

fn request_principal(dice: &mut Dice, kind: Kind) -> String {
    let (issuer, subject) = (dice.pick(&ISSUERS), dice.pick(&SUBJECTS[..4]));
    match kind {
        Kind::Exact => format!("{issuer}/{subject}"),
        Kind::Presence => "*".into(),
        Kind::Prefix => match dice.below(3) {
            0 => format!("{issuer}/*"),
            1 => format!("{issuer}/{}*", &subject[..1]),
            _ => format!("{}*", &issuer[..2]),
        },
        Kind::Suffix => match dice.below(3) {
            0 => format!("*/{subject}"),
            1 => format!("*{}/{subject}", &issuer[1..]),
            _ => format!("*{}", &subject[1..]),
        },
        Kind::Near => issuer.to_owned(),
    }
}

/// One call on a row; `turn` chooses protocol, identity and token.
pub fn call(dice: &mut Dice, turn: usize) -> Call {
    let is_tcp = turn % 4 == 3;
    let state = TOKENS[(turn / 4) % TOKENS.len()];
    let identity = IDENTITIES[(turn / (4 * TOKENS.len())) % IDENTITIES.len()];
    let headers = (0..dice.below(4))
        .map(|_| {
            let name = dice.pick(&["x-a", "X-A", "x-b", "x-b", "x-c"]);
            (name.to_owned(), dice.pick(&HEADER_VALUES).to_owned())
        })
        .collect();
    let bound = if dice.once_in(3) { PATHS.len() } else { 18 };
    Call {
        name: String::new(),
        protocol: if is_tcp { "tcp" } else { "http" }.into(),
        principal: identity.map(str::to_owned),
        source_ip: dice.pick(&ADDRESSES).into(),
        remote_ip: dice.pick(&ADDRESSES).into(),
        destination_ip: dice.pick(&ADDRESSES).into(),
        port: dice.pick(&[8080, 9090, 80]),
        sni: (!dice.once_in(4)).then(|| dice.pick(&SNIS).to_owned()),
        method: dice.pick(&METHODS).into(),
        host: dice.pick(&HOSTS).into(),
        path: PATHS[dice.below(bound)].into(),
        headers,
        claims: if is_tcp { None } else { claims(dice, state) },
        now: dice.pick(&TIMES).into(),
        ..Call::default()
    }
}

fn claims(dice: &mut Dice, state: TokenState) -> Option<Map<String, Value>> {
    let mut claims = json!({"iss": dice.pick(&ISSUERS), "sub": dice.pick(&SUBJECTS)});
    match state {
        TokenState::None => return None,
        TokenState::Plain => {
            claims["aud"] = json!(dice.pick(&WORDS));
            claims["azp"] = json!(dice.pick(&WORDS));
            claims["role"] = json!(dice.pick(&WORDS));
            claims["scope"] = json!("read dev");
            claims["foo.com/name"] = json!(dice.pick(&WORDS));
        }
        TokenState::Listed => {
            claims["aud"] = json!([dice.pick(&WORDS), dice.pick(&WORDS)]);
            claims["role"] = json!([dice.pick(&WORDS), true, 42]);
            claims["groups"] = json!([dice.pick(&WORDS), dice.pick(&WORDS)]);
            claims["scope"] = json!(["read dev", "adm"]);
        }
        TokenState::Nested => {
            claims["nested"] = json!({"a": dice.pick(&WORDS), "b": [dice.pick(&WORDS)]});
            claims["role"] = json!({"a": "admin"});
            claims["groups"] = json!(dice.pick(&WORDS));
        }
        TokenState::Odd => {
            claims["role"] = dice
                .pick(&[
                    &json!(true),
                    &json!(42),
                    &json!(null),
                    &json!(""),
                    &json!([]),
                ])
                .clone();
            claims["nested"] = json!({"a": [dice.pick(&WORDS), 42]});
            claims["scope"] = json!("  read  ");
            claims["azp"] = json!(7);
        }
    }
    claims.as_object().cloned()
}
