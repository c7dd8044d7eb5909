//! The index against the plain reading of the rules: every rule tried, in order, by its own text.

use std::sync::Arc;

use proptest::prelude::*;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::Timestamp;
use serde_json::json;

use crate::attached::{Attached, has_http_authorizer};
use crate::call::{Call, Connection, HttpCall, RequestIdentity};
use crate::clause::clause_matches;
use crate::compile::WorkloadPolicies;
use crate::decision::{
    ALLOWED, BAD_PROVIDER, CustomCheck, Decision, NO_ALLOW_MATCHED, NO_POLICY, POLICY_DENIED,
    RuleRef, Shadow,
};
use crate::matcher::{Pattern, Reference, StringMatch};
use crate::object::{Labels, Location, Metadata};
use crate::path::{PathNormalization, normalize};
use crate::schema::{
    AuthorizationPolicy, CheckProtocol, Clause, Effect, ExtensionProvider, Field, Rule, Window,
};
use crate::set::MeshSet;
use crate::source::SourceFile;
use crate::template::PathTemplate;

// ---- The model.

fn rule_matches(rule: &Rule, effect: Effect, call: Call<'_>, policies: &WorkloadPolicies) -> bool {
    let all = |clauses: &Vec<Clause>| {
        clauses
            .iter()
            .all(|clause| clause_matches(clause, effect, call, policies.options))
    };
    let is_skipped = matches!(call, Call::Tcp(..))
        && effect == Effect::Allow
        && rule.clauses().any(|clause| clause.field.is_http_only());
    !is_skipped
        && (rule.from.is_empty() || rule.from.iter().any(all))
        && (rule.to.is_empty() || rule.to.iter().any(all))
        && all(&rule.when)
}

fn first_match<'p>(
    policies: &'p WorkloadPolicies,
    call: Call<'_>,
    is_asked: impl Fn(&Attached) -> bool,
) -> Option<(&'p Attached, &'p Arc<RuleRef>)> {
    policies
        .attached
        .iter()
        .filter(|attached| is_asked(attached) && attached.window.contains(call.now()))
        .find_map(|attached| {
            let index = attached
                .rules
                .iter()
                .position(|rule| rule_matches(rule, attached.effect, call, policies))?;
            Some((&**attached, attached.refs.get(index)?))
        })
}

/// A CUSTOM policy whose authorizer speaks HTTP has no say on TCP (rule 57).
fn is_judged(policies: &WorkloadPolicies, attached: &Attached, call: Call<'_>) -> bool {
    matches!(call, Call::Http(_)) || !has_http_authorizer(attached, &policies.providers)
}

fn answer(
    policies: &WorkloadPolicies,
    call: Call<'_>,
    with_dry_run: bool,
) -> (bool, &'static str, Option<Arc<RuleRef>>, bool) {
    let of = |effect: Effect| {
        move |attached: &Attached| {
            attached.effect == effect && (with_dry_run || !attached.is_dry_run)
        }
    };
    let has = |effect: Effect| {
        policies.attached.iter().any(|attached| {
            let holds = effect == Effect::Allow || attached.window.contains(call.now());
            of(effect)(attached) && holds && is_judged(policies, attached, call)
        })
    };
    let by = |is_allowed, code, (attached, by): (&Attached, &Arc<RuleRef>)| {
        (
            is_allowed,
            code,
            Some(Arc::clone(by)),
            attached.window.is_always(),
        )
    };
    if let Some(found) = first_match(policies, call, of(Effect::Deny)) {
        return by(false, POLICY_DENIED, found);
    }
    if has(Effect::Allow) {
        return match first_match(policies, call, of(Effect::Allow)) {
            Some(found) => by(true, ALLOWED, found),
            None => (false, NO_ALLOW_MATCHED, None, true),
        };
    }
    if has(Effect::Deny) || has(Effect::Custom) {
        return (true, ALLOWED, None, true);
    }
    (
        policies.options.are_unlisted_calls_allowed,
        NO_POLICY,
        None,
        true,
    )
}

fn decide(policies: &WorkloadPolicies, call: Call<'_>) -> Decision {
    let (is_allowed, code, by, is_always) = answer(policies, call, false);
    let audit = first_match(policies, call, |attached| attached.effect == Effect::Audit);
    let has_dry_run = policies.attached.iter().any(|attached| attached.is_dry_run);
    Decision {
        is_allowed,
        code,
        by,
        revision: policies.revision,
        is_audited: !is_always || audit.is_some(),
        shadow: has_dry_run.then(|| {
            let (is_allowed, code, by, _) = answer(policies, call, true);
            Shadow {
                is_allowed,
                code,
                by,
            }
        }),
    }
}

fn custom(policies: &WorkloadPolicies, call: Call<'_>, set: &MeshSet) -> CustomCheck {
    let provider = |attached: &Attached| {
        let providers = &set.config.extension_providers;
        providers
            .iter()
            .find(|provider| Some(&provider.name) == attached.provider.as_ref())
    };
    let found = first_match(policies, call, |attached| {
        attached.effect == Effect::Custom
            && !(matches!(call, Call::Tcp(..))
                && provider(attached)
                    .is_some_and(|provider| provider.protocol != CheckProtocol::Grpc))
    });
    let Some((attached, by)) = found else {
        return CustomCheck::NotNeeded;
    };
    let is_only = policies
        .attached
        .iter()
        .filter(|other| other.effect == Effect::Custom)
        .all(|other| other.provider == attached.provider);
    let by = Arc::clone(by);
    match provider(attached) {
        Some(provider) if is_only => CustomCheck::Ask {
            provider: Arc::clone(provider),
            by,
        },
        Some(_) | None => CustomCheck::Refuse {
            code: BAD_PROVIDER,
            by,
        },
    }
}

// ---- Sets and calls out of one number.

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap() % sides
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.roll(from.len())]
    }

    fn word(&mut self) -> String {
        let length = 1 + self.roll(2);
        (0..length).map(|_| self.pick(&["a", "b", "c"])).collect()
    }

    /// The same words as values have, so that patterns meet values.
    fn starred(&mut self, value: String) -> StringMatch {
        let cut = self.roll(value.len() + 1);
        StringMatch::parse(&match self.roll(8) {
            0 => format!("{}*", &value[..cut]),
            1 => format!("*{}", &value[cut..]),
            2 => "*".into(),
            _ => value,
        })
    }

    fn path(&mut self) -> String {
        let segments = 1 + self.roll(3);
        (0..segments).fold(String::new(), |path, _| path + "/" + &self.word())
    }

    fn template(&mut self) -> Pattern {
        let mut text = String::new();
        for segment in self.path().split('/').skip(1) {
            text.push('/');
            text.push_str(if self.one_in(2) { "{*}" } else { segment });
        }
        text.push_str(self.pick(&["/{*}", "/{**}", "/{**}/a", "/{*}/b"]));
        Pattern::Template(PathTemplate::parse(&text).unwrap())
    }

    fn principal(&mut self) -> String {
        let (namespace, account) = (self.word(), self.word());
        let extra = self.pick(&["", "", "", "env/x/"]);
        format!("td/ns/{namespace}/{extra}sa/{account}")
    }

    fn address(&mut self) -> String {
        match self.roll(4) {
            0 => format!("fd00::{}", self.roll(3)),
            1 => format!("::ffff:10.0.{}.{}", self.roll(2), self.roll(4)),
            _ => format!("10.0.{}.{}", self.roll(2), self.roll(4)),
        }
    }

    fn block(&mut self) -> Pattern {
        let address: std::net::IpAddr = self.address().parse().unwrap();
        let address = address.to_canonical();
        let bits: &[u8] = if address.is_ipv4() {
            &[0, 8, 23, 24, 31, 32]
        } else {
            &[0, 12, 120, 128]
        };
        let bits = bits[self.roll(bits.len())];
        Pattern::Address(ipnet::IpNet::new(address, bits).unwrap().trunc())
    }

    fn text(&mut self, value: fn(&mut Self) -> String) -> Pattern {
        let value = value(self);
        Pattern::Text(self.starred(value))
    }

    fn pattern(&mut self, field: &Field) -> Pattern {
        match field {
            Field::Principal => self.text(Self::principal),
            Field::TrustDomain => Pattern::Text(StringMatch::parse(
                self.pick(&["td", "t*", "*", "xx", "*d"]),
            )),
            Field::ServiceAccount => Pattern::ServiceAccount {
                namespace: self.word(),
                account: self.word(),
            },
            Field::SourceAddress | Field::RemoteAddress | Field::DestinationAddress => self.block(),
            Field::DestinationPort => Pattern::Port(u16::try_from(self.roll(12)).unwrap()),
            Field::Method => {
                Pattern::Text(StringMatch::parse(self.pick(&["GET", "PUT", "P*", "*"])))
            }
            Field::Path if self.one_in(3) => self.template(),
            Field::Path => self.text(Self::path),
            Field::RequestPrincipal => {
                let (issuer, subject) = (self.word(), self.word());
                Pattern::RequestPrincipal {
                    issuer: self.starred(issuer),
                    subject: self.starred(subject),
                }
            }
            Field::Claim(_) if self.one_in(6) => Pattern::Reference(if self.one_in(2) {
                Reference::Header("x-a".into())
            } else {
                Reference::PathSegment(1)
            }),
            Field::Namespace
            | Field::ServerName
            | Field::Host
            | Field::Header(_)
            | Field::Audience
            | Field::Presenter
            | Field::Claim(_) => self.text(Self::word),
        }
    }

    fn clause(&mut self, field: Field) -> Clause {
        let count = if self.one_in(6) {
            9 + self.roll(20)
        } else {
            1 + self.roll(3)
        };
        Clause {
            is_negative: self.one_in(5),
            is_all_of: matches!(field, Field::Claim(_)) && self.one_in(3),
            patterns: (0..count).map(|_| self.pattern(&field)).collect(),
            name: "any".into(),
            values: vec!["any".into()],
            line: 1,
            field,
        }
    }

    fn clauses(&mut self, fields: &[Field], max: usize) -> Vec<Clause> {
        (0..=self.roll(max))
            .map(|_| {
                let field = fields[self.roll(fields.len())].clone();
                self.clause(field)
            })
            .collect()
    }

    fn rule(&mut self) -> Rule {
        let source = [
            Field::Principal,
            Field::Principal,
            Field::Namespace,
            Field::ServiceAccount,
            Field::TrustDomain,
            Field::SourceAddress,
            Field::RemoteAddress,
            Field::RequestPrincipal,
        ];
        let operation = [
            Field::Path,
            Field::Path,
            Field::Method,
            Field::Host,
            Field::DestinationPort,
        ];
        let condition = [
            Field::Header("x-a".into()),
            Field::Header(":path".into()),
            Field::Claim(vec!["a".into()]),
            Field::Claim(vec!["b".into(), "c".into()]),
            Field::Audience,
            Field::Presenter,
            Field::ServerName,
            Field::DestinationAddress,
        ];
        let count = |dice: &mut Self| {
            if dice.one_in(12) {
                9 + dice.roll(3)
            } else {
                dice.roll(3)
            }
        };
        let (from, to) = (count(self), count(self));
        Rule {
            location: place(),
            from: (0..from).map(|_| self.clauses(&source, 2)).collect(),
            to: (0..to).map(|_| self.clauses(&operation, 3)).collect(),
            when: if self.one_in(3) {
                self.clauses(&condition, 2)
            } else {
                Vec::new()
            },
        }
    }

    fn policy(&mut self, number: usize) -> AuthorizationPolicy {
        let effects = [Effect::Allow, Effect::Deny, Effect::Audit, Effect::Custom];
        let effect = effects[self.roll(4)];
        let bound = |dice: &mut Self| {
            dice.one_in(6)
                .then(|| Timestamp::from_unix_secs(i64::try_from(dice.roll(10)).unwrap()))
        };
        AuthorizationPolicy {
            metadata: Metadata {
                name: format!("p{number:03}"),
                namespace: "shop".into(),
                labels: Labels::new(),
                annotations: Labels::new(),
            },
            location: place(),
            selector: None,
            has_target_refs: false,
            effect,
            provider: (effect == Effect::Custom)
                .then(|| self.pick(&["grpc", "grpc", "http", "none"]).into()),
            is_dry_run: matches!(effect, Effect::Allow | Effect::Deny) && self.one_in(4),
            window: Window {
                not_before: bound(self),
                not_after: bound(self),
            },
            rules: (0..self.roll(6)).map(|_| self.rule()).collect(),
        }
    }

    fn connection(&mut self) -> Connection {
        let mut address = || self.address().parse().unwrap();
        let (source_ip, remote_ip, destination_ip) = (address(), address(), address());
        Connection {
            principal: (!self.one_in(6))
                .then(|| SpiffeId::parse(&format!("spiffe://{}", self.principal())).unwrap()),
            source_ip,
            remote_ip,
            destination_ip,
            destination_port: u16::try_from(self.roll(12)).unwrap(),
            sni: self.one_in(2).then(|| self.word()),
        }
    }

    fn identity(&mut self) -> RequestIdentity {
        if self.one_in(3) {
            return RequestIdentity::default();
        }
        let value = |dice: &mut Self| match dice.roll(4) {
            0 => json!([dice.word(), dice.word(), 1, true, [dice.word()]]),
            1 => json!(dice.roll(2) == 0),
            _ => json!(dice.word()),
        };
        let claims = json!({
            "iss": self.word(), "sub": self.word(), "aud": [self.word(), self.word()],
            "azp": self.word(), "a": value(self), "b": {"c": value(self)},
        });
        let serde_json::Value::Object(claims) = claims else {
            unreachable!("it is written as an object")
        };
        RequestIdentity::of_claims(claims)
    }
}

fn place() -> Location {
    Location {
        path: "p.yaml".into(),
        line: 1,
    }
}

fn empty_set() -> MeshSet {
    let config = "apiVersion: ravelin.dev/v1\nkind: MeshConfig\nspec: {trustDomain: td, jwt: {typedClaims: true}}\n";
    let provider = |name: &str, protocol| {
        Arc::new(ExtensionProvider {
            name: name.into(),
            location: place(),
            service: "authz.shop".into(),
            port: 9000,
            timeout: std::time::Duration::from_secs(2),
            is_fail_open: false,
            status_on_error: 403,
            body: None,
            protocol,
        })
    };
    let mut set = crate::load(&[SourceFile {
        path: "ravelin.yaml".into(),
        content: config.into(),
    }])
    .unwrap();
    set.config.extension_providers = vec![
        provider("grpc", CheckProtocol::Grpc),
        provider("http", http_protocol()),
    ];
    set
}

fn http_protocol() -> CheckProtocol {
    CheckProtocol::Http {
        path_prefix: String::new(),
        request_headers: Vec::new(),
        additional_headers: Vec::new(),
        upstream_headers_on_allow: Vec::new(),
        downstream_headers_on_allow: Vec::new(),
        downstream_headers_on_deny: Vec::new(),
    }
}

/// One call, by the index in every way that it can be asked, and by the model.
fn agree(
    dice: &mut Dice,
    policies: &WorkloadPolicies,
    stale: &WorkloadPolicies,
    set: &MeshSet,
) -> Result<(), TestCaseError> {
    let connection = dice.connection();
    let path = normalize(&dice.path(), PathNormalization::Base).unwrap();
    let headers: Vec<(String, String)> = (0..dice.roll(3))
        .map(|_| ("x-a".to_owned(), dice.word()))
        .collect();
    let host = match dice.roll(4) {
        0 => dice.word() + ":80",
        1 => dice.word().to_uppercase() + ".",
        _ => dice.word(),
    };
    let (identity, method) = (dice.identity(), dice.pick(&["GET", "PUT", "POST"]));
    let now = Timestamp::from_unix_secs(i64::try_from(dice.roll(10)).unwrap());
    let call = HttpCall {
        connection: &connection,
        method,
        host: &host,
        path: &path,
        headers: &headers,
        identity: &identity,
        now,
    };
    let want = decide(policies, Call::Http(&call));
    prop_assert_eq!(&policies.authorize_http(&call), &want);
    prop_assert_eq!(policies.explain_http(&call).decision, want.clone());
    let other = dice.connection();
    for (judged_by, on) in [
        (policies, &connection),
        (stale, &connection),
        (policies, &other),
    ] {
        let on = judged_by.judge_connection(on);
        prop_assert_eq!(&policies.authorize_http_on(&on, &call), &want);
        let explained = policies.explain_http_on(&on, &call).to_string();
        prop_assert_eq!(explained, policies.explain_http(&call).to_string());
        let asked = policies.custom_http_on(&on, &call);
        prop_assert_eq!(asked, custom(policies, Call::Http(&call), set));
    }
    let tcp = Call::Tcp(&connection, now);
    prop_assert_eq!(
        policies.authorize_tcp(&connection, now),
        decide(policies, tcp)
    );
    prop_assert_eq!(
        policies.explain_tcp(&connection, now).decision,
        decide(policies, tcp)
    );
    prop_assert_eq!(
        policies.custom_tcp(&connection, now),
        custom(policies, tcp, set)
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_index_decides_as_trying_every_rule_does_also_after_changes(seed: u64) {
        let mut dice = Dice(seed);
        let mut set = empty_set();
        set.config.is_host_exact = dice.one_in(3);
        let id = SpiffeId::parse("spiffe://td/ns/shop/sa/a").unwrap();
        let workload = set.workload(&id);
        let count = if dice.one_in(4) { 60 } else { dice.roll(12) };
        set.authorization_policies = (0..count).map(|number| dice.policy(number)).collect();
        let mut policies = WorkloadPolicies::compile(&set, &workload, 1).unwrap();
        for _ in 0..4 {
            let stale = policies.clone();
            for _ in 0..=dice.roll(2) {
                let at = dice.roll(count.max(1));
                let changed = dice.policy(at);
                match set.authorization_policies.get_mut(at) {
                    Some(policy) if !dice.one_in(4) => *policy = changed,
                    Some(_) => drop(set.authorization_policies.remove(at)),
                    None => {}
                }
            }
            policies = policies.recompile(&set, &workload, 1).unwrap();
            for _ in 0..8 {
                agree(&mut dice, &policies, &stale, &set)?;
            }
        }
    }
}
