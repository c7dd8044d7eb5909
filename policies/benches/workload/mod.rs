//! One workload's rules in a realistic mix, and calls on it, as plain data: each engine gets the same ones.
//!
//! Of 20 rules: 8 exact principal, method, one or two exact paths; 5 exact principal and path prefix; 3 namespace and
//! path prefix; 2 exact principal and path template; 1 token issuer, group claim and path prefix; 1 DENY (in turn a
//! quarantined principal, and a principal's writing calls below an admin prefix). Four rules share a principal, up to
//! 5,000 principals in 200 namespaces; each rule has a resource of its own. Policies have 50 rules each.
#![allow(
    dead_code,
    reason = "the two programs that share this use their parts of it"
)]

use std::fmt::Write as _;

/// How many distinct calls are made in turn.
pub const CALLS: usize = 1024;
/// Rules of one policy.
pub const RULES_PER_POLICY: usize = 50;
/// The issuer of every token.
pub const ISSUER: &str = "https://login.shop.example";

/// One rule; an empty list is no condition. Paths are as in Istio: exact, `prefix*` or a template.
#[derive(Debug, Clone, Default)]
pub struct PlainRule {
    pub is_deny: bool,
    pub principals: Vec<String>,
    pub namespaces: Vec<String>,
    pub methods: Vec<&'static str>,
    pub paths: Vec<String>,
    /// Any of them in the claim `groups` of a token of [`ISSUER`].
    pub groups: Vec<String>,
}

/// One call.
#[derive(Debug, Clone)]
pub struct PlainCall {
    /// `TD/ns/NAMESPACE/sa/NAME`
    pub principal: String,
    pub namespace: String,
    pub method: &'static str,
    pub path: String,
    /// What the call's token says; empty: no token.
    pub groups: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    Namespace,
    Template,
    Deny,
    Claim,
}

const KINDS: [Kind; 20] = {
    use Kind::{Claim, Deny, Exact, Namespace, Prefix, Template};
    [
        Exact, Prefix, Exact, Namespace, Template, Exact, Deny, Prefix, Claim, Exact, Prefix,
        Exact, Namespace, Exact, Template, Prefix, Exact, Prefix, Namespace, Exact,
    ]
};

fn kind(index: usize) -> Kind {
    KINDS[index % KINDS.len()]
}

/// Neighbours in a policy are of different callers, as in files of real life.
fn caller(index: usize, rules: usize) -> (String, String) {
    let callers = (rules / 4).clamp(3, 5_000);
    let number = (index * 7 + index / callers) % callers;
    let namespace = format!("team-{}", number % (callers / 25).max(2));
    (
        format!("shop.example/ns/{namespace}/sa/caller-{number}"),
        namespace,
    )
}

/// `rules` rules.
pub fn rules(rules: usize) -> Vec<PlainRule> {
    (0..rules).map(|index| rule(index, rules)).collect()
}

fn rule(index: usize, rules: usize) -> PlainRule {
    let (principal, namespace) = caller(index, rules);
    let base = PlainRule {
        principals: vec![principal],
        methods: vec!["GET"],
        ..PlainRule::default()
    };
    match kind(index) {
        Kind::Exact => PlainRule {
            methods: if index.is_multiple_of(3) {
                vec!["GET", "HEAD"]
            } else {
                vec!["GET"]
            },
            paths: (0..=index % 2)
                .map(|n| format!("/api/v1/resource-{index}/list-{n}"))
                .collect(),
            ..base
        },
        Kind::Prefix => PlainRule {
            methods: vec!["POST", "PUT"],
            paths: vec![format!("/api/v1/resource-{index}/*")],
            ..base
        },
        Kind::Namespace => PlainRule {
            principals: Vec::new(),
            namespaces: vec![namespace],
            paths: vec![format!("/public/resource-{index}/*")],
            ..base
        },
        Kind::Template => PlainRule {
            paths: vec![format!("/api/v2/resource-{index}/{{*}}/items/{{**}}")],
            ..base
        },
        Kind::Claim => PlainRule {
            principals: Vec::new(),
            paths: vec![format!("/people/resource-{index}/*")],
            groups: vec![format!("group-{index}")],
            ..base
        },
        Kind::Deny if index % 40 == 6 => PlainRule {
            is_deny: true,
            principals: vec![format!("shop.example/ns/quarantine/sa/caller-{index}")],
            ..PlainRule::default()
        },
        Kind::Deny => PlainRule {
            is_deny: true,
            methods: vec!["PUT", "DELETE"],
            paths: vec![format!("/api/v1/resource-{}/admin/*", index - 1)],
            ..base
        },
    }
}

/// Calls that one ALLOW rule each allows, spread over all rules.
pub fn allowed_calls(rules: usize) -> Vec<PlainCall> {
    let allowing: Vec<usize> = (0..rules)
        .filter(|index| kind(*index) != Kind::Deny)
        .collect();
    (0..CALLS)
        .map(|n| {
            let index = allowing[scattered(n, allowing.len())];
            fitting(index, rules, n)
        })
        .collect()
}

/// Calls that are refused, in turn: another caller's resource, nobody's caller, a DENY, the wrong method.
pub fn denied_calls(rules: usize) -> Vec<PlainCall> {
    let denying: Vec<usize> = (0..rules)
        .filter(|index| kind(*index) == Kind::Deny)
        .collect();
    let exact: Vec<usize> = (0..rules)
        .filter(|index| kind(*index) == Kind::Exact)
        .collect();
    (0..CALLS)
        .map(|n| {
            let index = exact[scattered(n, exact.len())];
            let mut call = fitting(index, rules, n);
            match n % 4 {
                0 => call.path = format!("/api/v1/resource-{index}/secret-{n}"),
                1 => call.principal = format!("shop.example/ns/{}/sa/nobody-{n}", call.namespace),
                2 => {
                    let denying = denying[scattered(n, denying.len())];
                    let denied = &rule(denying, rules);
                    call.principal.clone_from(&denied.principals[0]);
                    call.namespace = if denied.paths.is_empty() {
                        "quarantine".into()
                    } else {
                        caller(denying, rules).1
                    };
                    if let Some(path) = denied.paths.first() {
                        call.path = path.replace('*', "users");
                        call.method = "PUT";
                    }
                }
                _ => call.method = "DELETE",
            }
            call
        })
        .collect()
}

fn fitting(index: usize, rules: usize, n: usize) -> PlainCall {
    let (principal, namespace) = caller(index, rules);
    let wanted = rule(index, rules);
    let path = wanted.paths.last().map_or_else(String::new, |path| {
        path.replace("{**}", "1/2")
            .replace("{*}", "42")
            .replace('*', &format!("item/{n}"))
    });
    PlainCall {
        principal,
        namespace,
        method: wanted.methods[n % wanted.methods.len()],
        path,
        groups: if wanted.groups.is_empty() {
            Vec::new()
        } else {
            vec!["everyone".into(), wanted.groups[0].clone()]
        },
    }
}

/// A place that looks random and is the same in each run (the finalizer of SplitMix64).
fn scattered(n: usize, below: usize) -> usize {
    let mut value = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((value ^ (value >> 31)) % below as u64) as usize
}

/// The rules as Istio's YAML, policy by policy; DENY rules in policies of their own.
pub fn to_yaml(rules: &[PlainRule]) -> Vec<String> {
    let mut policies = Vec::new();
    for is_deny in [false, true] {
        let of_kind: Vec<&PlainRule> = rules
            .iter()
            .filter(|rule| rule.is_deny == is_deny)
            .collect();
        for (number, chunk) in of_kind.chunks(RULES_PER_POLICY).enumerate() {
            let action = if is_deny { "DENY" } else { "ALLOW" };
            let mut text = format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {}-{number}\n  namespace: shop\nspec:\n  selector:\n    matchLabels:\n      app: payments\n  action: {action}\n  rules:\n",
                action.to_lowercase()
            );
            for rule in chunk {
                rule_to_yaml(rule, &mut text);
            }
            policies.push(text);
        }
    }
    policies
}

fn rule_to_yaml(rule: &PlainRule, text: &mut String) {
    let list = |values: &[String]| format!("[\"{}\"]", values.join("\", \""));
    let methods: Vec<String> = rule.methods.iter().map(ToString::to_string).collect();
    let mut dash = "  -";
    for (field, values) in [
        ("principals", &rule.principals),
        ("namespaces", &rule.namespaces),
    ] {
        if !values.is_empty() {
            let values = list(values);
            let _ = writeln!(
                text,
                "{dash} from:\n    - source:\n        {field}: {values}"
            );
            dash = "   ";
        }
    }
    if !rule.groups.is_empty() {
        let _ = writeln!(
            text,
            "{dash} from:\n    - source:\n        requestPrincipals: [\"{ISSUER}/*\"]"
        );
        dash = "   ";
    }
    if !rule.paths.is_empty() {
        let (methods, paths) = (list(&methods), list(&rule.paths));
        let _ = writeln!(
            text,
            "{dash} to:\n    - operation:\n        methods: {methods}\n        paths: {paths}"
        );
    }
    if !rule.groups.is_empty() {
        let groups = list(&rule.groups);
        let _ = writeln!(
            text,
            "    when:\n    - key: request.auth.claims[groups]\n      values: {groups}"
        );
    }
}

/// The rules as Cedar policies. A template becomes `like` with `*`, which also crosses `/`: a little less work.
pub fn to_cedar(rules: &[PlainRule]) -> String {
    let mut text = String::new();
    for rule in rules {
        let effect = if rule.is_deny { "forbid" } else { "permit" };
        let principal = match (rule.principals.first(), rule.namespaces.first()) {
            (Some(name), _) => format!("principal == Workload::\"{name}\""),
            (_, Some(name)) => format!("principal in Namespace::\"{name}\""),
            _ => "principal".into(),
        };
        let actions: Vec<String> = rule
            .methods
            .iter()
            .map(|method| format!("Action::\"{method}\""))
            .collect();
        let action = match actions.as_slice() {
            [] => "action".into(),
            [one] => format!("action == {one}"),
            several => format!("action in [{}]", several.join(", ")),
        };
        let mut conditions = Vec::new();
        if !rule.paths.is_empty() {
            let paths: Vec<String> = rule.paths.iter().map(|path| cedar_path(path)).collect();
            conditions.push(format!("({})", paths.join(" || ")));
        }
        if !rule.groups.is_empty() {
            let groups = rule.groups.join("\", \"");
            conditions.push(format!(
                "context has issuer && context.issuer == \"{ISSUER}\" && context.groups.containsAny([\"{groups}\"])"
            ));
        }
        let when = if conditions.is_empty() {
            String::new()
        } else {
            format!(" when {{ {} }}", conditions.join(" && "))
        };
        let _ = writeln!(text, "{effect}({principal}, {action}, resource){when};");
    }
    text
}

fn cedar_path(path: &str) -> String {
    let pattern = path.replace("{**}", "*").replace("{*}", "*");
    if pattern.contains('*') {
        format!("context.path like \"{pattern}\"")
    } else {
        format!("context.path == \"{pattern}\"")
    }
}
