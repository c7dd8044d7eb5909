//! The analysis against brute force: generated policies over small domains, every request through the engine.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::{Value, json};

use super::decide::{Table, decide, universe};
use super::difference::confirm;
use super::machine::Machine;
use super::question::Question;
use super::sample::{Verdict, judge, sample};
use super::side::Side;
use super::sort::TokenSort;
use super::space::{Aspect, Atom, Space};
use super::vocabulary::{ListField, TextField};
use super::{
    AnalyzeError, AnalyzeOptions, Idleness, Note, ReachQuery, Sample, difference, redundancy,
    who_can,
};
use crate::set::MeshSet;
use crate::source::SourceFile;

const OPTIONS: AnalyzeOptions = AnalyzeOptions {
    now: Timestamp::from_unix_secs(1_800_000_000),
    includes_dry_run: false,
    includes_connections: true,
};

const IDENTITIES: &str = "
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata: {name: pay, namespace: shop, labels: {app: pay}}
spec: {selectors: ['launch:name:pay']}
---
apiVersion: ravelin.dev/v1
kind: WorkloadIdentity
metadata: {name: web, namespace: front}
spec: {selectors: ['launch:name:web']}
";

const TOKENS: &str = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  jwtRules:
    - {issuer: 'spiffe://td', jwksUri: 'spiffe://td', audiences: [pay]}
---
";

fn set(config: &str, policies: &str) -> MeshSet {
    let file = |path: &str, content: String| SourceFile {
        path: path.into(),
        content,
    };
    let config = format!(
        "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {{trustDomain: td{config}}}\n"
    );
    let files = [
        file("ravelin.yaml", config),
        file("identities/a.yaml", IDENTITIES.to_owned()),
        file("policies/a.yaml", policies.to_owned()),
    ];
    match crate::load(&files) {
        Ok(set) => set,
        Err(found) => panic!("{found}\n{policies}"),
    }
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

fn pay() -> SpiffeId {
    SpiffeId::parse("spiffe://td/ns/shop/sa/pay").unwrap()
}

/// The atom of each dimension that a request falls into.
fn point(space: &Space, request: &Sample) -> Vec<usize> {
    let text = |field: TextField| match field {
        TextField::Principal => request
            .principal
            .as_deref()
            .map(|id| id.trim_start_matches("spiffe://").to_owned()),
        TextField::Method => Some(request.method.clone()),
        TextField::Path => Some(request.target.clone()),
        TextField::Host => Some(request.host.clone()),
        TextField::ServerName => request.sni.clone(),
        TextField::Subject => claim(request, "sub"),
        TextField::Presenter => claim(request, "azp"),
    };
    let values = |field: &ListField| -> Vec<String> {
        match field {
            ListField::Header(name) => request
                .headers
                .iter()
                .filter(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
                .collect(),
            ListField::Audience => listed(request, "aud"),
            ListField::Claim(steps) => listed(request, &steps[0]),
        }
    };
    space
        .dimensions
        .iter()
        .map(|dimension| {
            let found = dimension
                .atoms
                .iter()
                .position(|atom| match (&dimension.aspect, atom) {
                    (Aspect::Text(field), _) => {
                        space.class_of(*field, text(*field).as_deref()) == Some(atom)
                    }
                    (Aspect::Protocol, Atom::Http) => !request.is_connection,
                    (Aspect::Protocol, Atom::Connection) => request.is_connection,
                    (Aspect::Port, Atom::Port(port)) => *port == request.port,
                    (Aspect::Source, Atom::Address(address)) => *address == request.source_ip,
                    (Aspect::Remote, Atom::Address(address)) => *address == request.remote_ip,
                    (Aspect::Destination, Atom::Address(address)) => {
                        *address == request.destination_ip
                    }
                    (Aspect::Time, Atom::Period(period)) => period.contains(request.at),
                    (Aspect::Token, Atom::Token(sort)) => *sort == request.sort,
                    (Aspect::Has(field, class), Atom::Has(has)) => {
                        let list = &space.lists[field];
                        let is_one = |value: &String| {
                            list.named.iter().zip(&list.patterns.machines).all(
                                |(named, machine)| {
                                    named.atoms.contains(*class) == machine.matches(value)
                                },
                            )
                        };
                        values(field).iter().any(is_one) == *has
                    }
                    _ => false,
                });
            found.unwrap_or_else(|| panic!("{:?} has no atom for {request:?}", dimension.aspect))
        })
        .collect()
}

fn claim(request: &Sample, name: &str) -> Option<String> {
    request
        .claims
        .as_ref()?
        .get(name)?
        .as_str()
        .map(str::to_owned)
}

fn listed(request: &Sample, name: &str) -> Vec<String> {
    let claim = request.claims.as_ref().and_then(|claims| claims.get(name));
    match claim {
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().unwrap().to_owned())
            .collect(),
        Some(Value::String(text)) => vec![text.clone()],
        _ => Vec::new(),
    }
}

struct Domain {
    principals: &'static [Option<&'static str>],
    methods: &'static [&'static str],
    paths: &'static [&'static str],
    hosts: &'static [&'static str],
    headers: &'static [&'static [&'static str]],
    claims: Vec<Value>,
}

fn domain() -> Domain {
    Domain {
        principals: &[
            None,
            Some("spiffe://td/ns/shop/sa/pay"),
            Some("spiffe://td/ns/front/sa/web"),
            Some("spiffe://td/ns/front/env/x/sa/web"),
            Some("spiffe://other/ns/front/sa/web"),
            Some("spiffe://td/host/a"),
        ],
        methods: &["GET", "POST", "PUT"],
        paths: &["/", "/a", "/a/b", "/a/b/admin", "/admin", "/ab", "/a/b/c"],
        hosts: &["a.com", "a.com:80", "b.a.com.", "c"],
        headers: &[&[], &["x"], &["y"], &["x", "y"], &["x", "z"]],
        claims: vec![
            Value::Null,
            json!({"sub": "spiffe://td/w", "aud": ["pay"]}),
            json!({"sub": "spiffe://td/w", "aud": ["other"]}),
            json!({"sub": "someone", "aud": ["pay"], "groups": ["a"]}),
            json!({"sub": "spiffe://td/v", "aud": ["pay", "x"], "groups": ["a", "b"], "azp": "p"}),
            json!({"sub": "spiffe://td/w", "aud": ["pay"], "groups": ["b", "c"]}),
        ],
    }
}

fn requests(has_tokens: bool) -> Vec<Sample> {
    let domain = domain();
    let mut all = Vec::new();
    let base = Sample {
        is_connection: false,
        principal: None,
        source_ip: "192.0.2.1".parse().unwrap(),
        remote_ip: "198.51.100.1".parse().unwrap(),
        destination_ip: "127.0.0.1".parse().unwrap(),
        port: 8080,
        sni: None,
        method: "GET".into(),
        host: "a.com".into(),
        target: "/".into(),
        headers: Vec::new(),
        claims: None,
        at: OPTIONS.now,
        sort: None,
    };
    for principal in domain.principals {
        let connection = Sample {
            principal: principal.map(str::to_owned),
            ..base.clone()
        };
        all.push(Sample {
            is_connection: true,
            ..connection.clone()
        });
        for (method, path) in domain
            .methods
            .iter()
            .flat_map(|method| domain.paths.iter().map(move |path| (method, path)))
        {
            for (number, host) in domain.hosts.iter().enumerate() {
                for (order, values) in domain.headers.iter().enumerate() {
                    for (place, claims) in domain.claims.iter().enumerate() {
                        // A third of the product, evenly.
                        if (number + order + place + path.len()) % 3 != 0 {
                            continue;
                        }
                        let mut request = Sample {
                            method: (*method).to_owned(),
                            target: (*path).to_owned(),
                            host: (*host).to_owned(),
                            headers: values
                                .iter()
                                .map(|value| ("x-h".to_owned(), (*value).to_owned()))
                                .collect(),
                            ..connection.clone()
                        };
                        if let (Value::Object(claims), true) = (claims, has_tokens) {
                            let mut claims = claims.clone();
                            claims.insert("iss".to_owned(), json!("spiffe://td"));
                            claims.insert("exp".to_owned(), json!(OPTIONS.now.unix_secs() + 60));
                            request.claims = Some(claims);
                            request.sort = Some(0);
                        }
                        all.push(request);
                    }
                }
            }
        }
    }
    all
}

/// Parts of rules that together touch every kind of field and pattern.
const SOURCES: [&str; 12] = [
    "principals: [td/ns/front/sa/web]",
    "notPrincipals: ['td/*']",
    "principals: ['*/sa/web', 'other/*']",
    "notPrincipals: ['*']",
    "namespaces: [front]",
    "notNamespaces: ['fr*']",
    "serviceAccounts: [front/web, pay]",
    "trustDomains: [td]",
    "notTrustDomains: ['*er']",
    "requestPrincipals: ['spiffe://td/*']",
    "notRequestPrincipals: ['*']",
    "ipBlocks: [192.0.2.0/24], notIpBlocks: [192.0.2.128/25]",
];
const OPERATIONS: [&str; 13] = [
    "methods: [GET]",
    "notMethods: ['P*']",
    "paths: ['/a', '/a/*']",
    "paths: ['*/admin']",
    "notPaths: ['/a*']",
    "paths: ['/a/{*}']",
    "paths: ['/{*}/b/{**}']",
    "paths: ['/a/{**}/c']",
    "hosts: [a.com]",
    "notHosts: ['*.a.com', 'c*']",
    "ports: ['8080']",
    "notPorts: ['8080', '81']",
    "paths: ['*']",
];
const CONDITIONS: [&str; 12] = [
    "{key: 'request.headers[x-h]', values: [x]}",
    "{key: 'request.headers[x-h]', notValues: [x, 'y*']}",
    "{key: 'request.headers[x-h]', values: ['*']}",
    "{key: 'request.headers[:method]', values: [GET]}",
    "{key: 'request.headers[host]', notValues: ['a.com:80']}",
    "{key: 'request.auth.claims[groups]', values: [a]}",
    "{key: 'request.auth.claims[groups]', notValues: ['b', 'c*']}",
    "{key: 'request.auth.audiences', values: [x]}",
    "{key: 'request.auth.claims[sub]', values: ['spiffe://td/w']}",
    "{key: 'request.auth.presenter', notValues: [p]}",
    "{key: 'connection.sni', notValues: ['a.com']}",
    "{key: 'request.auth.claims[iss]', values: ['spiffe://td']}",
];

fn rule() -> impl Strategy<Value = String> {
    let some = |all: &'static [&'static str], most: usize| {
        prop::collection::vec(prop::sample::select(all), 0..=most)
    };
    let parts = (
        some(&SOURCES, 2),
        some(&OPERATIONS, 2),
        some(&CONDITIONS, 2),
    );
    parts.prop_map(|(from, to, when)| {
        let mut text = Vec::new();
        if !from.is_empty() {
            let all: Vec<String> = from
                .iter()
                .map(|part| format!("{{source: {{{part}}}}}"))
                .collect();
            text.push(format!("from: [{}]", all.join(", ")));
        }
        if !to.is_empty() {
            let all: Vec<String> = to
                .iter()
                .map(|part| format!("{{operation: {{{part}}}}}"))
                .collect();
            text.push(format!("to: [{}]", all.join(", ")));
        }
        if !when.is_empty() {
            text.push(format!("when: [{}]", when.join(", ")));
        }
        format!("{{{}}}", text.join(", "))
    })
}

fn policies() -> impl Strategy<Value = (String, bool)> {
    let effect = prop::sample::select(&["ALLOW", "DENY", "ALLOW", "AUDIT"][..]);
    let one = (effect, prop::collection::vec(rule(), 1..=3));
    (prop::collection::vec(one, 0..=3), any::<bool>()).prop_map(|(all, has_tokens)| {
        let mut text = String::new();
        if has_tokens {
            text.push_str(TOKENS);
        }
        text.push_str("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: PERMISSIVE}}\n");
        for (number, (effect, rules)) in all.iter().enumerate() {
            let rules = rules.join(", ");
            text.push_str(&policy(&format!("p{number}"), &format!("{{action: {effect}, rules: [{rules}]}}")));
        }
        (text, has_tokens)
    })
}

/// For every request the verdict of the analysis is the engine's, on both sides of one space; and the public answers
/// agree with that.
fn check(policies: [&str; 2], has_tokens: bool, requests: &[Sample]) {
    let sets = policies.map(|policies| set("", policies));
    let sides = [0, 1].map(|side| Side::new(&sets[side], &sets[side].workload(&pay())).unwrap());
    let both: Vec<&Side<'_>> = sides.iter().collect();
    let names = |vocabulary: &mut _| sides[0].name_identities(vocabulary);
    let mut question = Question::new(&both, &OPTIONS, 5_000_000, &names).unwrap();
    let vocabulary = question.vocabulary.clone();
    let mut table = Table::default();
    let mut builder = question.builder();
    let all = universe(&mut builder, &vocabulary).unwrap();
    let functions = [0, 1].map(|side| {
        let includes = |_: &_| true;
        let [http, tcp] = decide(&mut builder, &sides[side], all, &includes, &mut table).unwrap();
        builder.diagram.or_else(http.verdict, tcp.verdict).unwrap()
    });
    let sorts = question.space.sorts.clone();
    let judged = |side: usize, request: &Sample| judge(&sides[side].engine, request, &sorts, false);
    let agrees = |side: usize, leaf: u32, request: &Sample| {
        if let Err(error) = confirm(&pay(), leaf, &judged(side, request), &table, request) {
            panic!("{error}\n{}", policies[side]);
        }
    };
    let mut differs = false;
    let mut allowed: Vec<Option<String>> = Vec::new();
    for request in requests
        .iter()
        .filter(|request| has_tokens || request.claims.is_none())
    {
        let atoms = point(&question.space, request);
        for side in [0, 1] {
            let leaf = question.diagram.leaf(functions[side], &atoms);
            agrees(side, leaf, request);
        }
        differs |= judged(0, request) != judged(1, request);
        if judged(0, request) != Verdict::Deny && !allowed.contains(&request.principal) {
            allowed.push(request.principal.clone());
        }
    }
    for side in [0, 1] {
        let found = question
            .diagram
            .regions(functions[side], &|leaf| leaf != 0, 20_000);
        for region in found.unwrap() {
            agrees(side, region.leaf, &sample(&question.space, &region.sides));
        }
    }
    let report = difference(&sets[0], &sets[1], false, &OPTIONS);
    assert_eq!(report.unanswered, [], "{policies:?}");
    assert!(!differs || !report.differences.is_empty(), "{policies:?}");
    let reach = who_can(&sets[0], &pay(), &ReachQuery::default(), &OPTIONS).unwrap();
    for identity in &sets[0].identities {
        let id = identity.spiffe_id.to_string();
        let is_told = reach
            .groups
            .iter()
            .any(|group| group.identities.contains(&id));
        assert!(
            is_told || !allowed.contains(&Some(id.clone())),
            "{id} {policies:?}"
        );
    }
    check_idle(&sets[0], requests, &sorts, has_tokens);
}

/// Without its idle rules, all at once, the set decides every request as before.
fn check_idle(before: &MeshSet, requests: &[Sample], sorts: &[TokenSort], has_tokens: bool) {
    let report = redundancy(before);
    assert_eq!(report.unanswered, []);
    let mut after = before.clone();
    for policy in &mut after.authorization_policies {
        let name = format!("{}/{}", policy.metadata.namespace, policy.metadata.name);
        let is_idle = |number: u32| {
            let mut idle = report.idle.iter();
            idle.any(|rule| rule.policy == name && rule.rule == number)
        };
        let kept = (1..).zip(policy.rules.iter());
        policy.rules = kept
            .filter(|(number, _)| !is_idle(*number))
            .map(|(_, rule)| rule.clone())
            .collect();
    }
    let [before, after] =
        [before, &after].map(|set| Side::new(set, &set.workload(&pay())).unwrap());
    for request in requests
        .iter()
        .filter(|request| !request.is_connection && (has_tokens || request.claims.is_none()))
    {
        assert_eq!(
            judge(&before.engine, request, sorts, false),
            judge(&after.engine, request, sorts, false),
            "{request:?} {:?}",
            report.idle
        );
    }
}

fn run(cases: u32) {
    let every = requests(true);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let two = (policies(), policies());
    runner
        .run(&two, |((one, has_tokens), (other, _))| {
            let other = match (has_tokens, other.starts_with(TOKENS)) {
                (true, false) => format!("{TOKENS}{other}"),
                (false, true) => other[TOKENS.len()..].to_owned(),
                _ => other,
            };
            check([&one, &other], has_tokens, &every);
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_analysis_and_the_engine_decide_every_request_of_a_small_world_alike() {
    run(5);
}

#[test]
#[ignore = "by hand: minutes"]
fn the_analysis_and_the_engine_decide_alike_for_many_policies() {
    run(2_000);
}

#[test]
fn idle_rules_are_found_with_the_rules_that_make_them_idle() {
    let set = set(
        "",
        &[
            policy("allow", "{rules: [{to: [{operation: {paths: ['/a/*']}}]}, {to: [{operation: {paths: ['/a/b'], methods: [GET]}}]}, {to: [{operation: {paths: ['/x/admin']}}]}, {from: [{source: {requestPrincipals: ['*']}}]}, {to: [{operation: {paths: ['/c']}}]}]}"),
            policy("deny", "{action: DENY, rules: [{to: [{operation: {paths: ['*/admin'], methods: ['P*']}}]}, {to: [{operation: {paths: ['*/admin'], notMethods: ['P*']}}]}, {to: [{operation: {paths: ['/b/../c']}}]}]}"),
        ]
        .concat(),
    );
    let found: Vec<(String, u32, Idleness)> = redundancy(&set)
        .idle
        .into_iter()
        .map(|rule| (rule.policy, rule.rule, rule.reason))
        .collect();
    let names = |all: &[&str]| {
        all.iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found,
        [
            (
                "shop/allow".to_owned(),
                2,
                Idleness::Covered(names(&["shop/allow rule 1"]))
            ),
            (
                "shop/allow".to_owned(),
                3,
                Idleness::Denied(names(&["shop/deny rule 1", "shop/deny rule 2"]))
            ),
            ("shop/allow".to_owned(), 4, Idleness::NeverMatches),
            // No request has such a path, but it denies every bare connection, as the first one does (rule 54).
            (
                "shop/deny".to_owned(),
                3,
                Idleness::Covered(names(&["shop/deny rule 1"]))
            ),
        ]
    );
}

/// Both sets, and what changes for `pay`: before, after, requests.
fn changes(old: (&str, &str), new: (&str, &str)) -> (Vec<(String, String, String)>, Vec<Note>) {
    let (old, new) = (set(old.0, old.1), set(new.0, new.1));
    let options = AnalyzeOptions {
        includes_connections: false,
        ..OPTIONS
    };
    let report = difference(&old, &new, false, &options);
    assert_eq!(report.unanswered, []);
    let shown = report.differences.iter().map(|found| {
        let requests: Vec<String> = found
            .requests
            .iter()
            .map(|condition| format!("{}: {}", condition.field, condition.values))
            .collect();
        (
            found.before.decision.clone(),
            found.after.decision.clone(),
            requests.join("; "),
        )
    });
    (shown.collect(), report.notes)
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn each_sort_of_change_is_told_as_the_requests_that_it_touches() {
    let of_pay = |spec: &str| {
        policy(
            "p",
            &format!("{{selector: {{matchLabels: {{app: pay}}}}, {spec}}}"),
        )
    };
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
    let permissive = strict.replace("STRICT", "PERMISSIVE");
    let allow = of_pay("rules: [{to: [{operation: {paths: ['/a/*']}}]}]");
    let narrower = of_pay("rules: [{to: [{operation: {paths: ['/a/*'], notPaths: ['/a/b*']}}]}]");
    let tokens = format!(
        "{TOKENS}{}",
        of_pay("rules: [{from: [{source: {requestPrincipals: ['*']}}]}]")
    );
    let other_audience = tokens.replace("audiences: [pay]", "audiences: [pay, old]");
    let custom = |host: &str| {
        (
            format!(
                ", extensionProviders: [{{name: ext, envoyExtAuthzGrpc: {{service: {host}, port: 9000}}}}]"
            ),
            format!(
                "{}{}",
                allow.replace("name: p,", "name: q,"),
                of_pay(
                    "action: CUSTOM, provider: {name: ext}, rules: [{to: [{operation: {paths: ['/a/x']}}]}]"
                )
            ),
        )
    };
    let (one, two) = (custom("127.0.0.1"), custom("127.0.0.2"));
    let want = |all: &[(&str, &str, &str)]| {
        all.iter()
            .map(|(before, after, requests)| {
                (
                    (*before).to_owned(),
                    (*after).to_owned(),
                    (*requests).to_owned(),
                )
            })
            .collect::<Vec<_>>()
    };
    for (name, old, new, expected) in [
        (
            "nothing",
            ("", allow.as_str()),
            ("", allow.as_str()),
            want(&[]),
        ),
        (
            "a path",
            ("", &allow),
            ("", &narrower),
            want(&[("allow", "deny", "principal: any identity; path: /a/b*")]),
        ),
        (
            "plain text",
            ("", &format!("{strict}{allow}")),
            ("", &format!("{permissive}{allow}")),
            want(&[(
                "deny",
                "allow",
                "principal: plain text; path: /a/*; server name: none",
            )]),
        ),
        (
            "an audience",
            ("", &tokens),
            ("", &other_audience),
            want(&[(
                "deny",
                "allow",
                "principal: any identity; token: of `spiffe://td`; token's subject: spiffe://td/* and any SPIFFE ID; token's audience: has old and lacks pay",
            )]),
        ),
        (
            "a label",
            ("", &allow),
            (
                "",
                &allow.replace("selector: {matchLabels: {app: pay}}, ", ""),
            ),
            want(&[]),
        ),
        (
            "a provider",
            (&one.0, &one.1),
            (&two.0, &two.1),
            want(&[("ask ext", "ask ext", "principal: any identity; path: /a/x")]),
        ),
        (
            "an authorizer",
            ("", &allow),
            (&one.0, &one.1),
            want(&[("allow", "ask ext", "principal: any identity; path: /a/x")]),
        ),
    ] {
        let (found, notes) = changes(old, new);
        assert_eq!(found, expected, "{name}");
        assert_eq!(
            notes.len(),
            usize::from(matches!(name, "a path" | "an authorizer")),
            "{name} {notes:?}"
        );
    }
    let (found, notes) = changes(("", &allow), (", pathNormalization: NONE", &allow));
    assert_eq!(found, want(&[]));
    assert!(
        notes[0].text.contains("not in normal form") && notes[0].example.is_some(),
        "{notes:?}"
    );
}

#[test]
fn what_sets_cannot_tell_is_refused_by_name() {
    let spec = "{rules: [{when: [{key: 'request.headers[authorization]', values: ['x*']}]}]}";
    let set = set("", &format!("{TOKENS}{}", policy("p", spec)));
    let found = who_can(&set, &pay(), &ReachQuery::default(), &OPTIONS);
    assert!(
        matches!(&found, Err(AnalyzeError::NotModelled { what, .. }) if what.contains("authorization")),
        "{found:?}"
    );
}

#[test]
#[allow(clippy::too_many_lines, reason = "tables")]
fn a_machine_means_what_its_pattern_means() {
    use super::language::Language;
    use super::machine::{Template, Text};
    use crate::matcher::{Pattern, StringMatch};
    use crate::template::PathTemplate;
    let texts = [
        "a",
        "b",
        "/",
        "ab",
        "a/b",
        "aab",
        "/ns/a/b",
        "td/ns/a/sa/b",
        "td/x/ns/ab/sa/b/c",
        "td/ns/a/k/v/sa/b",
        "a.com",
        "a.com.",
        "a.com:80",
        "a.com.:80",
        "b.a.com",
        "/a/b/c",
        "/a//c",
        "/a/x/c",
        "/a/x",
        "/a/",
        "abab",
        "ababab",
    ];
    for pattern in [
        "a", "a*", "*a", "*", "ab", "*ab", "*bab", "a.com", "*.com", "a.*", "*a.com", "/a*", "*c",
    ] {
        let text = StringMatch::parse(pattern);
        let pattern_of = Pattern::Text(text.clone());
        for value in texts {
            let plain = Machine::Whole(Text::of(&text));
            assert_eq!(
                plain.matches(value),
                text.matches(value.as_bytes()),
                "{pattern} {value}"
            );
            let host = Machine::Host(Text::of(&text));
            assert_eq!(
                host.matches(value),
                pattern_of.matches_host(value, false),
                "{pattern} {value}"
            );
            if let Some((_, path)) = value.split_once('/') {
                let namespace = Machine::Namespace(Text::of(&text));
                let want = pattern_of.matches_namespace(&format!("/{path}"));
                assert_eq!(namespace.matches(value), want, "{pattern} {value}");
            }
        }
    }
    for (namespace, account) in [("a", "b"), ("ab", "b"), ("a", "v"), ("x", "b")] {
        let machine = Machine::Account(namespace.chars().collect(), account.chars().collect());
        let pattern = Pattern::ServiceAccount {
            namespace: namespace.into(),
            account: account.into(),
        };
        for value in texts {
            if let Some((_, path)) = value.split_once('/') {
                let want = pattern.matches_service_account(&format!("/{path}"));
                assert_eq!(
                    machine.matches(value),
                    want,
                    "{namespace}/{account} {value}"
                );
            }
        }
    }
    for text in [
        "/a/{*}",
        "/a/{*}/c",
        "/{*}/{**}",
        "/a/{**}",
        "/a/{**}/c",
        "/a//{*}",
        "/{**}",
    ] {
        let template = PathTemplate::parse(text).unwrap();
        let machine = Machine::Template(Template::of(text));
        for value in texts {
            assert_eq!(
                machine.matches(value),
                template.matches(value),
                "{text} {value}"
            );
        }
    }
    let host = Machine::Language(Language::Host);
    for (text, want) in [
        ("a", true),
        ("a.b", true),
        ("a.", true),
        (".a", false),
        ("a..b", false),
        ("a:65535", true),
        ("a:65536", false),
        ("a:7", true),
        ("a:70000", false),
        ("a:", false),
        ("a:080", false),
    ] {
        assert_eq!(host.matches(text), want, "{text}");
    }
}

#[test]
fn a_path_is_a_value_exactly_when_normalization_leaves_it_as_it_is() {
    use super::language::Language;
    use crate::path::{PathNormalization, normalize};
    let parts = [
        "a", "/", "//", ".", "..", "%2f", "%61", "%20", "%", "\\", "%5C", "%00", "...", "|", "?",
        "#",
    ];
    let mut texts: Vec<String> = vec!["/".into()];
    for _ in 0..3 {
        texts = texts
            .iter()
            .flat_map(|text| parts.iter().map(move |part| format!("{text}{part}")))
            .chain(texts.iter().cloned())
            .collect();
        texts.sort();
        texts.dedup();
    }
    for normalization in [
        PathNormalization::None,
        PathNormalization::Base,
        PathNormalization::MergeSlashes,
        PathNormalization::DecodeAndMergeSlashes,
    ] {
        let language = Machine::Language(Language::Path {
            normalization,
            has_query: true,
        });
        for text in &texts {
            let want = normalize(text, normalization).is_ok_and(|found| found.as_target() == text);
            assert_eq!(language.matches(text), want, "{text} {normalization:?}");
            if let Ok(found) = normalize(text, normalization) {
                assert!(
                    language.matches(found.as_target()),
                    "{text} {normalization:?}"
                );
            }
        }
    }
}
