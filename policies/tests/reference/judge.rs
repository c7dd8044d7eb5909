//! From rules to an answer: order of actions, defaults, audit, dry run, external authorizers (rules 1 to 12, 57, 61, 64).

use ravelin_proto::time::Timestamp;
use serde_json::Value;

use super::case::{Expect, Row};
use super::rule::{Question, Side};
use super::{Call, World, annotation, items, name_of, namespace_of, path, text_at, token};

/// One answer; `by` is `NAMESPACE/NAME#RULE`, or empty.
struct Verdict<'w> {
    is_allowed: bool,
    code: &'static str,
    by: String,
    decider: Option<&'w Value>,
}

impl Verdict<'_> {
    fn line(&self) -> String {
        let word = if self.is_allowed { "allow" } else { "deny" };
        format!("{word} {} {}", self.code, self.by)
            .trim_end()
            .to_owned()
    }
}

/// AuthorizationPolicy objects that hold for the workload.
pub fn policies<'w>(world: &World<'w>) -> Vec<&'w Value> {
    world.attached("AuthorizationPolicy")
}

pub fn action(policy: &Value) -> &str {
    text_at(policy, &["spec", "action"]).unwrap_or("ALLOW")
}

pub fn is_dry_run(policy: &Value) -> bool {
    let said = annotation(policy, "istio.io/dry-run").unwrap_or("false");
    ["1", "t", "T", "true", "True", "TRUE"].contains(&said)
}

fn provider_of(policy: &Value) -> &str {
    text_at(policy, &["spec", "provider", "name"]).unwrap_or_default()
}

fn window(policy: &Value) -> [Option<Timestamp>; 2] {
    ["ravelin.dev/not-before", "ravelin.dev/not-after"]
        .map(|name| annotation(policy, name).and_then(Timestamp::parse_rfc3339))
}

fn is_in_force(policy: &Value, call: &Call) -> bool {
    let now = Timestamp::parse_rfc3339(&call.now).unwrap();
    let [start, end] = window(policy);
    start.is_none_or(|start| now >= start) && end.is_none_or(|end| now < end)
}

/// When a policy that holds for the workload begins or ceases to be in force next.
pub fn next_change(world: &World<'_>, now: Timestamp) -> Option<Timestamp> {
    let bounds = policies(world).into_iter().flat_map(window).flatten();
    bounds.filter(|bound| *bound > now).min()
}

/// One call, and the policies that are in force then.
struct Court<'w> {
    world: &'w World<'w>,
    call: &'w Call,
    path: Option<&'w (String, String)>,
    list: Vec<&'w Value>,
}

impl<'w> Court<'w> {
    fn new(world: &'w World<'w>, call: &'w Call, path: Option<&'w (String, String)>) -> Self {
        let mut list = policies(world);
        list.retain(|policy| is_in_force(policy, call));
        Self {
            world,
            call,
            path,
            list,
        }
    }

    /// The first rule that matches, of the policies of one action.
    fn first(&self, list: &[&'w Value], wanted: &str) -> Option<(&'w Value, String)> {
        let (world, call, path) = (self.world, self.call, self.path);
        for policy in list.iter().filter(|policy| action(policy) == wanted) {
            let side = if wanted == "ALLOW" {
                Side::Narrow
            } else {
                Side::Wide
            };
            let question = Question {
                world,
                policy,
                call,
                path,
                side,
            };
            let rules = items(policy.pointer("/spec/rules"));
            for (index, rule) in rules.iter().enumerate() {
                if question.is_matched_by(rule) {
                    let by = format!("{}/{}#{}", namespace_of(policy), name_of(policy), index + 1);
                    return Some((policy, by));
                }
            }
        }
        None
    }

    /// Rules 2 to 5 over these policies. Ours: without any policy nobody calls, unless `unlistedCalls: allow`.
    /// An ALLOW policy asks for an ALLOW also outside of its time.
    fn answer(&self, list: &[&'w Value], with_dry_run: bool) -> Verdict<'w> {
        let said = |is_allowed, code| Verdict {
            is_allowed,
            code,
            by: String::new(),
            decider: None,
        };
        for (action, is_allowed, code) in
            [("DENY", false, "policy_denied"), ("ALLOW", true, "allowed")]
        {
            if let Some((policy, by)) = self.first(list, action) {
                return Verdict {
                    by,
                    decider: Some(policy),
                    ..said(is_allowed, code)
                };
            }
        }
        let has_allow = policies(self.world)
            .into_iter()
            .any(|policy| action(policy) == "ALLOW" && (with_dry_run || !is_dry_run(policy)));
        let has = |wanted: &str| list.iter().any(|policy| action(policy) == wanted);
        if has_allow {
            return said(false, "no_allow_matched");
        }
        // Rule 57: what an HTTP provider would say, it does not say of connections.
        let asks = |policy: &&Value| {
            action(policy) == "CUSTOM"
                && !(self.call.is_tcp() && self.is_grpc(policy) == Some(false))
        };
        if has("DENY") || list.iter().any(asks) {
            return said(true, "allowed");
        }
        said(
            text_at(self.world.config, &["unlistedCalls"]) == Some("allow"),
            "no_policy",
        )
    }

    /// What is enforced.
    fn decide(&self) -> Verdict<'w> {
        let mut list = self.list.clone();
        list.retain(|policy| !is_dry_run(policy));
        self.answer(&list, false)
    }

    /// Rule 64, in one answer: what would be decided if dry-run policies were enforced; nothing without one.
    fn shadow(&self) -> Option<Verdict<'w>> {
        let has_some = policies(self.world).into_iter().any(is_dry_run);
        has_some.then(|| self.answer(&self.list, true))
    }

    /// Rule 7, and ours: what a policy of limited time decides is always audited.
    fn is_audited(&self, verdict: &Verdict<'_>) -> bool {
        let is_timed = |policy: &Value| window(policy).iter().any(Option::is_some);
        verdict.decider.is_some_and(is_timed) || self.first(&self.list, "AUDIT").is_some()
    }

    /// What the policy's provider speaks; nothing for one that does not exist.
    fn is_grpc(&self, policy: &Value) -> Option<bool> {
        items(self.world.config.get("extensionProviders"))
            .iter()
            .find(|provider| text_at(provider, &["name"]) == Some(provider_of(policy)))
            .map(|provider| provider.get("envoyExtAuthzGrpc").is_some())
    }

    /// Rules 6, 57, 61, 63: `not-needed`, `ask PROVIDER BY` or `refuse CODE BY`.
    fn custom(&self) -> String {
        let mut list = self.list.clone();
        if self.call.is_tcp() {
            // Rule 57: only a gRPC provider judges connections; one that is missing refuses them.
            list.retain(|policy| action(policy) == "CUSTOM" && self.is_grpc(policy) != Some(false));
        }
        let Some((policy, by)) = self.first(&list, "CUSTOM") else {
            return "not-needed".into();
        };
        // Two providers are one too many, even where one of them has nothing to say on this call.
        let is_other =
            |other: &Value| action(other) == "CUSTOM" && provider_of(other) != provider_of(policy);
        if self.is_grpc(policy).is_none() || policies(self.world).into_iter().any(is_other) {
            return format!("refuse bad_provider {by}");
        }
        format!("ask {} {by}", provider_of(policy))
    }

    fn say(&self) -> Expect {
        let verdict = self.decide();
        let word = if verdict.is_allowed { "allow" } else { "deny" };
        Expect {
            is_audited: Some(self.is_audited(&verdict)),
            decision: Some(word.into()),
            code: Some(verdict.code.into()),
            by: Some(verdict.by),
            shadow: Some(
                self.shadow()
                    .map(|shadow| shadow.line())
                    .unwrap_or_default(),
            ),
            custom: Some(self.custom()),
            ..Expect::default()
        }
    }
}

/// Everything that the reference says about a call.
pub fn ask(row: &Row, documents: &[Value], config: &Value, call: &Call) -> Expect {
    let world = World {
        config,
        documents,
        workload: &row.workload,
    };
    if call.is_tcp() {
        return Court::new(&world, call, None).say();
    }
    let path = match path::normalize(&world, &call.path) {
        Ok(found) => found,
        Err(code) => {
            return Expect {
                path_refused: Some(code.into()),
                ..Expect::default()
            };
        }
    };
    let mut call = call.clone();
    if !world.attached("RequestAuthentication").is_empty() {
        match token::authenticate(&world, row, &call) {
            Ok(claims) => call.claims = claims,
            Err(status) => {
                return Expect {
                    token_refused: Some(status.to_string()),
                    ..Expect::default()
                };
            }
        }
    }
    let who = call.claims.as_ref().map(|claims| {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        format!("{}/{}", text("iss"), text("sub"))
    });
    let said = Court::new(&world, &call, Some(&path)).say();
    Expect {
        path: Some(path.0),
        token_principal: Some(who.unwrap_or_default()),
        ..said
    }
}
