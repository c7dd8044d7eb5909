//! The decision on every request at once: the order of `evaluate.rs` and of the proxy, over sets instead of calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use ravelin_proto::spiffe_id::TrustDomain;

use super::AnalyzeError;
use super::bits::Bits;
use super::diagram::{ALWAYS, Function, NEVER};
use super::predicate::{Builder, Judged};
use super::side::{Side, any_id, exactly, members_of, plain_path, rules};
use super::sort::{Reception, TokenSort};
use super::space::{Aspect, Atom};
use super::vocabulary::{ListField, TextField, Vocabulary};
use crate::schema::{AuthorizationPolicy, Effect, ExtensionProvider, JwtRule, PeerMode};

/// Leaf of a request that is refused.
pub(crate) const DENY: u32 = 1;
/// Leaf of a request that passes.
pub(crate) const ALLOW: u32 = 2;
/// First leaf of requests that pass if an external authorizer lets them.
const FIRST_ASK: u32 = 3;

/// What decisions are made of, the same for both sides of a comparison.
#[derive(Debug, Default)]
pub(crate) struct Table {
    providers: Vec<Arc<ExtensionProvider>>,
    deciders: Vec<String>,
}

/// One rule as the set of what it matches.
#[derive(Debug, Clone)]
pub(crate) struct RuleSet<'a> {
    pub(crate) policy: &'a AuthorizationPolicy,
    /// From 1.
    pub(crate) number: u32,
    pub(crate) matching: Function,
}

/// All decisions of a side on requests, or on connections.
#[derive(Debug)]
pub(crate) struct Decided<'a> {
    /// [`DENY`], [`ALLOW`] or an authorizer.
    pub(crate) verdict: Function,
    /// What decides; a number of the table.
    pub(crate) decider: Function,
    pub(crate) allow_rules: Vec<RuleSet<'a>>,
}

impl Table {
    pub(crate) fn width(&self) -> u32 {
        FIRST_ASK + length(self.providers.len())
    }

    pub(crate) fn provider(&self, leaf: u32) -> Option<&Arc<ExtensionProvider>> {
        let number = usize::try_from(leaf.checked_sub(FIRST_ASK)?).ok()?;
        self.providers.get(number)
    }

    /// `allow`, `deny` or `ask NAME`.
    pub(crate) fn verdict_name(&self, leaf: u32) -> String {
        match leaf {
            ALLOW => "allow".to_owned(),
            DENY => "deny".to_owned(),
            _ => match self.provider(leaf) {
                Some(provider) => format!("ask {}", provider.name),
                None => "nothing".to_owned(),
            },
        }
    }

    pub(crate) fn decider(&self, leaf: u32) -> Option<&str> {
        let number = usize::try_from(leaf.checked_sub(1)?).ok()?;
        self.deciders.get(number).map(String::as_str)
    }

    pub(crate) fn decider_width(&self) -> u32 {
        length(self.deciders.len()) + 1
    }

    fn ask(&mut self, provider: &Arc<ExtensionProvider>) -> u32 {
        // Where it stands in the files changes nothing.
        let is_same = |known: &Arc<ExtensionProvider>| {
            ExtensionProvider {
                location: provider.location.clone(),
                ..ExtensionProvider::clone(known)
            } == **provider
        };
        let number = self.providers.iter().position(is_same).unwrap_or_else(|| {
            self.providers.push(Arc::clone(provider));
            self.providers.len() - 1
        });
        FIRST_ASK + length(number)
    }

    fn decided_by(&mut self, text: String) -> Function {
        let known = self.deciders.iter().position(|known| *known == text);
        let number = known.unwrap_or_else(|| {
            self.deciders.push(text);
            self.deciders.len() - 1
        });
        Function::Leaf(length(number) + 1)
    }
}

fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The requests that exist: plain text has no server name, a claim is not a text and an object at once.
pub(crate) fn universe(
    builder: &mut Builder<'_>,
    vocabulary: &Vocabulary,
) -> Result<Function, AnalyzeError> {
    let plain = is_absent(builder, TextField::Principal);
    let no_name = is_absent(builder, TextField::ServerName);
    let named = builder.diagram.minus(plain, no_name)?;
    let mut universe = builder.diagram.not(named)?;
    for field in vocabulary.lists.keys() {
        for other in vocabulary.lists.keys() {
            let (ListField::Claim(outer), ListField::Claim(inner)) = (field, other) else {
                continue;
            };
            if inner.len() > outer.len() && inner.starts_with(outer) {
                let (outer, inner) = (has_some(builder, field)?, has_some(builder, other)?);
                let both = builder.diagram.and(outer, inner)?;
                universe = builder.diagram.minus(universe, both)?;
            }
        }
    }
    Ok(universe)
}

fn has_some(builder: &mut Builder<'_>, field: &ListField) -> Result<Function, AnalyzeError> {
    let size = builder
        .space
        .lists
        .get(field)
        .map_or(0, |list| list.witnesses.len());
    builder.has_any(field, &Bits::full(size))
}

fn is_absent(builder: &mut Builder<'_>, field: TextField) -> Function {
    builder.chosen(&Aspect::Text(field), |atom| *atom == Atom::Text(None))
}

/// Requests and connections together, without what does not exist.
pub(crate) fn decide<'a>(
    builder: &mut Builder<'_>,
    side: &Side<'a>,
    universe: Function,
    includes: &dyn Fn(&AuthorizationPolicy) -> bool,
    table: &mut Table,
) -> Result<[Decided<'a>; 2], AnalyzeError> {
    let mut both = Vec::new();
    for (is_connection, atom) in [(false, Atom::Http), (true, Atom::Connection)] {
        let here = builder.chosen(&Aspect::Protocol, |found| *found == atom);
        let here = builder.diagram.and(universe, here)?;
        let mut decided = Decision {
            builder: &mut *builder,
            side,
            is_connection,
            includes,
        }
        .make(table)?;
        decided.verdict = builder.diagram.only(here, decided.verdict)?;
        decided.decider = builder.diagram.only(here, decided.decider)?;
        both.push(decided);
    }
    <[Decided<'a>; 2]>::try_from(both).map_err(|_| AnalyzeError::OverBudget("protocols"))
}

/// Every rule of the side as what it matches of requests and of connections, in the order of the policies.
pub(crate) fn rule_sets<'a>(
    builder: &mut Builder<'_>,
    side: &Side<'a>,
    universe: Function,
    includes: &dyn Fn(&AuthorizationPolicy) -> bool,
) -> Result<Vec<RuleSet<'a>>, AnalyzeError> {
    let mut all: Vec<RuleSet<'a>> = Vec::new();
    for (is_connection, atom) in [(false, Atom::Http), (true, Atom::Connection)] {
        let here = builder.chosen(&Aspect::Protocol, |found| *found == atom);
        let here = builder.diagram.and(universe, here)?;
        let mut decision = Decision {
            builder: &mut *builder,
            side,
            is_connection,
            includes,
        };
        let (has_token, _) = decision.tokens()?;
        let mut found = Vec::new();
        for effect in [Effect::Custom, Effect::Deny, Effect::Allow, Effect::Audit] {
            found.extend(decision.rule_sets(effect, has_token)?);
        }
        for rule in &mut found {
            rule.matching = builder.diagram.and(rule.matching, here)?;
        }
        if all.is_empty() {
            all = found;
            continue;
        }
        for (rule, more) in all.iter_mut().zip(found) {
            rule.matching = builder.diagram.or(rule.matching, more.matching)?;
        }
    }
    Ok(all)
}

struct Decision<'d, 'b, 'a> {
    builder: &'d mut Builder<'b>,
    side: &'d Side<'a>,
    is_connection: bool,
    includes: &'d dyn Fn(&AuthorizationPolicy) -> bool,
}

impl<'a> Decision<'_, '_, 'a> {
    fn make(mut self, table: &mut Table) -> Result<Decided<'a>, AnalyzeError> {
        let (has_token, bad_token) = self.tokens()?;
        let bad_path = self.bad_paths();
        let bad_peer = self.bad_peers()?;
        let (asked, no_authorizer) = self.custom(has_token, table)?;
        let deny_rules = self.rule_sets(Effect::Deny, has_token)?;
        let allow_rules = self.rule_sets(Effect::Allow, has_token)?;
        let denying = self.union(&deny_rules)?;
        let allowing = self.union(&allow_rules)?;
        let diagram = &mut *self.builder.diagram;
        let refused = diagram.any(&[bad_peer, bad_path, bad_token, no_authorizer, denying])?;
        // An ALLOW counts also outside of its window: its end opens nothing.
        let has_allow = if self.attached(Effect::Allow).is_empty() {
            NEVER
        } else {
            ALWAYS
        };
        let has_other = self.has(&[Effect::Deny, Effect::Custom])?;
        let unlisted = if self.side.set.config.are_unlisted_calls_allowed {
            ALWAYS
        } else {
            NEVER
        };
        let diagram = &mut *self.builder.diagram;
        let by_default = diagram.or(has_other, unlisted)?;
        let by_default = diagram.minus(by_default, has_allow)?;
        let passing = diagram.or(allowing, by_default)?;
        let passing = diagram.minus(passing, refused)?;
        let asked = diagram.only(passing, asked)?;
        let allowed = diagram.only(passing, Function::Leaf(ALLOW))?;
        let otherwise = diagram.or_else(allowed, Function::Leaf(DENY))?;
        let verdict = diagram.or_else(asked, otherwise)?;
        let mut layers = vec![
            (bad_peer, "the peer's mode".to_owned()),
            (bad_path, "path_ambiguous".to_owned()),
            (bad_token, "the token".to_owned()),
            (no_authorizer, "bad_provider".to_owned()),
        ];
        for rule in deny_rules.iter().chain(&allow_rules) {
            layers.push((rule.matching, rule.name()));
        }
        layers.push((has_allow, "no_allow_matched".to_owned()));
        layers.push((has_other, "allowed".to_owned()));
        layers.push((ALWAYS, "no_policy".to_owned()));
        let mut decider = NEVER;
        for (holds, text) in layers.into_iter().rev() {
            let leaf = table.decided_by(text);
            let here = diagram.only(holds, leaf)?;
            decider = diagram.or_else(here, decider)?;
        }
        Ok(Decided {
            verdict,
            decider,
            allow_rules,
        })
    }

    fn union(&mut self, rules: &[RuleSet<'_>]) -> Result<Function, AnalyzeError> {
        let all: Vec<Function> = rules.iter().map(|rule| rule.matching).collect();
        self.builder.diagram.any(&all)
    }

    fn rule_sets(
        &mut self,
        effect: Effect,
        has_token: Function,
    ) -> Result<Vec<RuleSet<'a>>, AnalyzeError> {
        let judged = Judged {
            effect,
            is_connection: self.is_connection,
            has_token,
        };
        let mut found = Vec::new();
        for policy in self.attached(effect) {
            let window = self.builder.window(&policy.window);
            for (number, rule) in rules(policy) {
                let matching = self.builder.rule(rule, judged, self.side)?;
                found.push(RuleSet {
                    policy,
                    number,
                    matching: self.builder.diagram.and(matching, window)?,
                });
            }
        }
        Ok(found)
    }

    fn attached(&self, effect: Effect) -> Vec<&'a AuthorizationPolicy> {
        self.side
            .attached
            .iter()
            .copied()
            .filter(|policy| policy.effect == effect && (self.includes)(policy))
            .collect()
    }

    fn has_http_authorizer(&self, policy: &AuthorizationPolicy) -> bool {
        self.side
            .provider(policy.provider.as_deref())
            .is_some_and(|found| !found.judges_connections())
    }

    /// When a policy of one of these effects exists and says something here.
    fn has(&mut self, effects: &[Effect]) -> Result<Function, AnalyzeError> {
        let policies = effects
            .iter()
            .flat_map(|effect| self.attached(*effect))
            .filter(|policy| !self.is_connection || !self.has_http_authorizer(policy));
        let windows: Vec<Function> = policies
            .collect::<Vec<_>>()
            .into_iter()
            .map(|policy| self.builder.window(&policy.window))
            .collect();
        self.builder.diagram.any(&windows)
    }

    fn bad_paths(&mut self) -> Function {
        if self.is_connection || !self.side.engine.judges_paths() {
            return NEVER;
        }
        let space = self.builder.space;
        let aspect = Aspect::Text(TextField::Path);
        let plain = [false, true].iter().find_map(|has_query| {
            let machine = plain_path(*has_query);
            space
                .knows(TextField::Path, &machine)
                .then(|| space.matching(TextField::Path, &machine))
        });
        // Not asked for: every path of the space is read alike.
        let Some(plain) = plain else {
            return NEVER;
        };
        let other = Bits::full(space.size(&aspect)).minus(&plain);
        self.builder.atoms(&aspect, &other)
    }

    // Rule 82: STRICT wants an identity, DISABLE none.
    fn bad_peers(&mut self) -> Result<Function, AnalyzeError> {
        let plain = is_absent(self.builder, TextField::Principal);
        let engine = &self.side.engine;
        let ports = |wanted: PeerMode| move |atom: &Atom| matches!(atom, Atom::Port(port) if engine.peer_mode(*port) == wanted);
        let strict = self.builder.chosen(&Aspect::Port, ports(PeerMode::Strict));
        let disabled = self.builder.chosen(&Aspect::Port, ports(PeerMode::Disable));
        let diagram = &mut *self.builder.diagram;
        let no_identity = diagram.and(plain, strict)?;
        let identity = diagram.minus(disabled, plain)?;
        diagram.or(no_identity, identity)
    }

    /// Where a token is accepted, and where one is refused (rules 70 to 75).
    fn tokens(&mut self) -> Result<(Function, Function), AnalyzeError> {
        if self.is_connection {
            return Ok((NEVER, NEVER));
        }
        let space = self.builder.space;
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        let size = space.size(&Aspect::Token);
        accepted.push((Bits::single(size, 0), NEVER));
        refused.push((Bits::single(size, 0), NEVER));
        for (atom, sort) in (1..).zip(&space.sorts) {
            let (good, bad) = self.token(sort)?;
            accepted.push((Bits::single(size, atom), good));
            refused.push((Bits::single(size, atom), bad));
        }
        let dimension = space.number(&Aspect::Token);
        let diagram = &mut *self.builder.diagram;
        Ok((
            diagram.branch(dimension, accepted),
            diagram.branch(dimension, refused),
        ))
    }

    // One rule that accepts it is enough; a rule that sees it and does not accept it refuses it otherwise (rule 75).
    fn token(&mut self, sort: &TokenSort) -> Result<(Function, Function), AnalyzeError> {
        let (mut good, mut is_seen) = (NEVER, false);
        for rule in &self.side.jwt_rules {
            let accepted = match sort.reception(rule) {
                Reception::NotSeen => continue,
                Reception::Refused => NEVER,
                Reception::Accepted(domain) => {
                    self.claims(rule, domain.as_ref().map(TrustDomain::as_str))?
                }
            };
            is_seen = true;
            good = self.builder.diagram.or(good, accepted)?;
        }
        let bad = if is_seen {
            self.builder.diagram.not(good)?
        } else {
            NEVER
        };
        Ok((good, bad))
    }

    /// Audience and subject as a rule wants them (rule 74).
    fn claims(&mut self, rule: &JwtRule, domain: Option<&str>) -> Result<Function, AnalyzeError> {
        let space = self.builder.space;
        let subject = match domain {
            None => ALWAYS,
            Some(domain) => {
                let members = space.matching(TextField::Subject, &members_of(domain));
                let ids = space.matching(TextField::Subject, &any_id());
                self.builder
                    .atoms(&Aspect::Text(TextField::Subject), &members.and(&ids))
            }
        };
        if rule.audiences.is_empty() {
            return Ok(subject);
        }
        let field = ListField::Audience;
        let Some(list) = space.lists.get(&field) else {
            return Ok(NEVER);
        };
        let numbers = rule
            .audiences
            .iter()
            .filter_map(|audience| list.patterns.number(&exactly(audience)));
        let classes = numbers
            .filter_map(|number| list.named.get(number))
            .fold(Bits::empty(list.witnesses.len()), |so_far, named| {
                so_far.or(&named.atoms)
            });
        let audience = self.builder.has_any(&field, &classes)?;
        self.builder.diagram.and(subject, audience)
    }

    /// Whom to ask, and where nobody can be asked (rules 57, 61, 63).
    fn custom(
        &mut self,
        has_token: Function,
        table: &mut Table,
    ) -> Result<(Function, Function), AnalyzeError> {
        let rules = self.rule_sets(Effect::Custom, has_token)?;
        let is_only = self.side.engine.has_one_provider();
        let mut by_leaf: BTreeMap<u32, Vec<Function>> = BTreeMap::new();
        for rule in rules {
            let provider = self.side.provider(rule.policy.provider.as_deref());
            if self.is_connection && self.has_http_authorizer(rule.policy) {
                continue;
            }
            let leaf = provider
                .filter(|_| is_only)
                .map_or(DENY, |provider| table.ask(provider));
            by_leaf.entry(leaf).or_default().push(rule.matching);
        }
        let (mut asked, mut nobody) = (NEVER, NEVER);
        for (leaf, sets) in by_leaf {
            let matching = self.builder.diagram.any(&sets)?;
            if leaf == DENY {
                nobody = matching;
            } else {
                let here = self.builder.diagram.only(matching, Function::Leaf(leaf))?;
                asked = self.builder.diagram.or_else(asked, here)?;
            }
        }
        Ok((asked, nobody))
    }
}

impl RuleSet<'_> {
    /// `NAMESPACE/NAME rule N`.
    pub(crate) fn name(&self) -> String {
        let metadata = &self.policy.metadata;
        format!(
            "{}/{} rule {}",
            metadata.namespace, metadata.name, self.number
        )
    }
}
