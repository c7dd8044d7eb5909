//! The index of a workload, so made that a small change costs little: a large base that is shared, what was removed
//! from it, and a small index of what was added. When the additions grow, all is built anew.

use std::sync::Arc;

use super::trie::{index, narrow};
use super::{Budget, Index, IndexedRule, Left, List, OverBudget, PerList, Question, Removed};
use crate::attached::Attached;
use crate::call::{Call, Connection};
use crate::compile::Options;

/// Sets up to this number of rules are built anew at each change.
const SMALL_MAX: usize = if cfg!(test) { 16 } else { 512 };
/// A base is replaced when more than this part of its rules was added or removed.
const CHANGED_PART: usize = if cfg!(test) { 2 } else { 8 };

/// All rules of a workload.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    base: Arc<Index>,
    /// Place in order of each policy of the base.
    base_places: Arc<[u32]>,
    removed: Option<Arc<Removed>>,
    added: Option<Added>,
    /// One a build: tells what was judged by these layers from what was judged by others.
    identity: Arc<()>,
}

/// The index of what the base does not have.
#[derive(Debug, Clone)]
struct Added {
    index: Arc<Index>,
    places: Arc<[u32]>,
}

/// The first rule that matched.
#[derive(Clone, Copy)]
pub(crate) struct Match<'l> {
    /// Place of the policy and of the rule in it: what comes first is reported.
    at: (u32, u32),
    pub(crate) rule: &'l IndexedRule,
    pub(crate) policy: &'l Arc<Attached>,
}

/// What the connection alone decides: which rules are left for its requests.
#[derive(Debug, Clone)]
pub struct ConnectionPolicies {
    identity: Arc<()>,
    connection: Connection,
    base: PerList<Left>,
    added: PerList<Left>,
}

impl ConnectionPolicies {
    /// The connection that was judged.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Match<'_> {
    pub(crate) fn first_of(left: Option<Self>, right: Option<Self>) -> Option<Self> {
        match (left, right) {
            (Some(left), Some(right)) if right.at < left.at => Some(right),
            (Some(found), _) | (None, Some(found)) => Some(found),
            (None, None) => None,
        }
    }
}

/// A call that layers are asked about.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'q> {
    layers: &'q Layers,
    base: Question<'q>,
    on_added: Option<&'q PerList<Left>>,
}

impl<'q> Asked<'q> {
    /// The first rule of a list that matches.
    pub(crate) fn first(&self, list: List) -> Option<Match<'q>> {
        let layers = self.layers;
        let base = if layers.base.has(list) {
            let rule = layers.base.first(list, &self.base);
            rule.and_then(|rule| matched(&layers.base, rule, &layers.base_places))
        } else {
            None
        };
        let Some(added) = &layers.added else {
            return base;
        };
        let found = added.index.first(list, &self.of_added());
        let found = found.and_then(|rule| matched(&added.index, rule, &added.places));
        Match::first_of(base, found)
    }

    fn of_added(&self) -> Question<'q> {
        Question {
            removed: None,
            left: self.on_added,
            ..self.base
        }
    }

    /// The ALLOW rule that lacks least for the call: its policy, and its place in it.
    pub(crate) fn nearest(&self) -> Option<(&'q Arc<Attached>, usize)> {
        let layers = self.layers;
        let ask = |layer: &'q Arc<Index>, places: &[u32], question: &Question<'_>| {
            let (weight, rule) = layer.nearest(question)?;
            let place = *places.get(index(rule.policy))?;
            Some(((weight, place, rule.place), rule.policy))
        };
        let base = ask(&layers.base, &layers.base_places, &self.base);
        let added = layers.added.as_ref().and_then(|added| {
            let found = ask(&added.index, &added.places, &self.of_added())?;
            Some((added, found))
        });
        let (layer, policy, rule) = match (base, added) {
            (Some((left, _)), Some((layer, (right, policy)))) if right < left => {
                (&layer.index, policy, right.2)
            }
            (Some((found, policy)), _) => (&layers.base, policy, found.2),
            (None, Some((layer, (found, policy)))) => (&layer.index, policy, found.2),
            (None, None) => return None,
        };
        Some((layer.policies.get(index(policy))?, index(rule)))
    }
}

impl Layers {
    /// Builds from all policies, by namespace and name.
    pub(crate) fn build(
        policies: &[Arc<Attached>],
        is_on_tcp: impl Fn(&Attached) -> bool,
    ) -> Result<Self, OverBudget> {
        let base = Index::build(policies.to_vec(), is_on_tcp, &mut Budget::new())?;
        Ok(Self {
            base: Arc::new(base),
            base_places: (0..narrow(policies.len())).collect(),
            removed: None,
            added: None,
            identity: Arc::new(()),
        })
    }

    /// The same for other policies; those that are shared with these cost nothing.
    pub(crate) fn rebuild(
        &self,
        policies: &[Arc<Attached>],
        is_on_tcp: impl Fn(&Attached) -> bool,
    ) -> Result<Self, OverBudget> {
        let base = &self.base;
        let places = places_in(&base.policies, policies);
        let mut is_known = vec![false; policies.len()];
        for place in places.iter().flatten() {
            if let Some(known) = is_known.get_mut(index(*place)) {
                *known = true;
            }
        }
        let (mut added, mut added_places) = (Vec::new(), Vec::new());
        for ((policy, place), is_known) in policies.iter().zip(0..).zip(is_known) {
            if !is_known {
                added.push(Arc::clone(policy));
                added_places.push(place);
            }
        }
        let removed_rules = || {
            (0..).zip(&*base.rules).filter_map(|(number, rule)| {
                let is_gone = places.get(index(rule.policy)).is_none_or(Option::is_none);
                is_gone.then_some(number)
            })
        };
        let added_count: usize = added.iter().map(|policy| policy.rules.len()).sum();
        let removed_count = removed_rules().count();
        if base.rules.len() <= SMALL_MAX
            || (added_count + removed_count) * CHANGED_PART > base.rules.len()
        {
            return Self::build(policies, is_on_tcp);
        }
        let added = if added.is_empty() {
            None
        } else {
            let index = Index::build(added, is_on_tcp, &mut Budget::new())?;
            Some(Added {
                index: Arc::new(index),
                places: added_places.into(),
            })
        };
        Ok(Self {
            base: Arc::clone(base),
            base_places: places
                .iter()
                .map(|place| place.unwrap_or(u32::MAX))
                .collect(),
            removed: (removed_count > 0)
                .then(|| Arc::new(Removed::new(base.rules.len(), removed_rules()))),
            added,
            identity: Arc::new(()),
        })
    }

    /// What these are asked of a call. `on`, where it is of these layers, saves the work on the connection.
    pub(crate) fn asked<'q>(
        &'q self,
        call: Call<'q>,
        options: Options,
        on: Option<&'q ConnectionPolicies>,
    ) -> Asked<'q> {
        let question = Question::new(call, options);
        Asked {
            layers: self,
            base: Question {
                removed: self.removed.as_deref(),
                left: on.map(|on| &on.base),
                ..question
            },
            on_added: on.map(|on| &on.added),
        }
    }

    /// What of these rules is left for the requests of a connection.
    pub(crate) fn judge_connection(
        &self,
        connection: &Connection,
        call: Call<'_>,
        options: Options,
    ) -> ConnectionPolicies {
        let question = Question::new(call, options);
        let on_base = Question {
            removed: self.removed.as_deref(),
            ..question
        };
        let added = self.added.as_ref();
        ConnectionPolicies {
            identity: Arc::clone(&self.identity),
            connection: connection.clone(),
            base: PerList::new(|list| self.base.left_on(list, &on_base)),
            added: PerList::new(|list| {
                let added = added.map(|added| added.index.left_on(list, &question));
                added.unwrap_or_default()
            }),
        }
    }

    /// True when `on` is of these layers and of this connection.
    pub(crate) fn is_current(&self, on: &ConnectionPolicies, connection: &Connection) -> bool {
        Arc::ptr_eq(&self.identity, &on.identity)
            && (std::ptr::eq(&raw const on.connection, connection) || on.connection == *connection)
    }

    /// Memory of the index, about.
    pub(crate) fn bytes(&self) -> usize {
        let added = self.added.as_ref();
        self.base.bytes() + added.map_or(0, |added| added.index.bytes())
    }
}

fn matched<'l>(index: &'l Index, rule: &'l IndexedRule, places: &[u32]) -> Option<Match<'l>> {
    let policy = self::index(rule.policy);
    Some(Match {
        at: (*places.get(policy)?, rule.place),
        rule,
        policy: index.policies.get(policy)?,
    })
}

/// Where each of `known` stands in `policies`; both are by namespace and name.
fn places_in(known: &[Arc<Attached>], policies: &[Arc<Attached>]) -> Vec<Option<u32>> {
    let mut left = (0..).zip(policies).peekable();
    known
        .iter()
        .map(|policy| {
            while left
                .next_if(|(_, other)| other.policy < policy.policy)
                .is_some()
            {}
            left.next_if(|(_, other)| Arc::ptr_eq(other, policy))
                .map(|(place, _)| place)
        })
        .collect()
}
