//! Who can reach what: every principal that some request of is allowed, with the requests and the rules that allow them.

use std::net::IpAddr;

use ipnet::IpNet;
use ravelin_proto::spiffe_id::SpiffeId;
use serde::Serialize;

use super::AnalyzeError;
use super::bits::Bits;
use super::decide::{ALLOW, Decided, Table, decide, universe};
use super::describe::{Condition, conditions, terms};
use super::diagram::{Function, Region};
use super::difference::{Unanswered, confirm};
use super::machine::{Machine, Text};
use super::predicate::Builder;
use super::question::{AnalyzeOptions, Question};
use super::sample::{Sample, judge, sample};
use super::side::{Side, bare, exactly};
use super::space::{Aspect, Atom, Space};
use super::vocabulary::{TextField, Vocabulary};
use crate::limits;
use crate::matcher::StringMatch;
use crate::set::MeshSet;

/// What is known of the requests that are asked about; what is not named may be anything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReachQuery {
    /// The peer.
    pub from: Option<SpiffeId>,
    /// Peers without identity alone.
    pub is_plain_text: bool,
    /// Method.
    pub method: Option<String>,
    /// Path, as it is after normalization.
    pub path: Option<String>,
    /// Host, in lower case.
    pub host: Option<String>,
    /// Port of the workload.
    pub port: Option<u16>,
    /// Address of the peer.
    pub source_ip: Option<IpAddr>,
    /// With a token, or without.
    pub has_token: Option<bool>,
    /// Not at `now` alone, but whenever a policy holds.
    pub is_at_any_time: bool,
}

/// Who can reach one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reach {
    /// SPIFFE ID of the destination.
    pub workload: String,
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// Disjoint; empty: nobody.
    pub groups: Vec<ReachGroup>,
}

/// Principals that may do the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReachGroup {
    /// SPIFFE IDs and classes of them, by the patterns of the policies; `plain text` has no identity.
    pub who: Vec<String>,
    /// Those of the mesh's own identities that belong to the group.
    pub identities: Vec<String>,
    /// Disjoint.
    pub access: Vec<Access>,
}

/// Requests that pass.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Access {
    /// `allow`, or `ask NAME`: if that external authorizer agrees.
    pub decision: String,
    /// Which requests: all of these hold. Empty: every request.
    pub requests: Vec<Condition>,
    /// Rules that allow some of them; empty: no ALLOW policy is attached.
    pub by: Vec<String>,
    /// One of them, confirmed by the engine.
    pub example: Sample,
}

/// Who can reach the workload `id`.
pub fn who_can(
    set: &MeshSet,
    id: &SpiffeId,
    query: &ReachQuery,
    options: &AnalyzeOptions,
) -> Result<Reach, AnalyzeError> {
    let workload = set.workload(id);
    let side = Side::new(set, &workload)?;
    let names = |vocabulary: &mut Vocabulary| name(query, &side, vocabulary);
    let steps_max = limits::ANALYSIS_STEPS_MAX;
    let mut question = Question::new(&[&side], options, steps_max, &names)?;
    let vocabulary = question.vocabulary.clone();
    let mut table = Table::default();
    let mut builder = question.builder();
    let all = universe(&mut builder, &vocabulary)?;
    let (asked, fixed) = restricted(&mut builder, query, options)?;
    let all = builder.diagram.and(asked, all)?;
    let includes = |policy: &_| options.includes(policy);
    let decided = decide(&mut builder, &side, all, &includes, &mut table)?;
    let [http, connection] = &decided;
    let function = builder.diagram.or_else(http.verdict, connection.verdict)?;
    let answer = Answer {
        side: &side,
        table: &table,
        decided: &decided,
        fixed: &fixed,
        options,
    };
    Ok(Reach {
        workload: id.to_string(),
        name: format!("{}/{}", workload.namespace, workload.name),
        groups: answer.groups(&mut question, function)?,
    })
}

/// What `query` can reach, over all workloads of the set; workloads without an answer apart.
pub fn reachable(
    set: &MeshSet,
    query: &ReachQuery,
    options: &AnalyzeOptions,
) -> (Vec<Reach>, Vec<Unanswered>) {
    let (mut found, mut unanswered) = (Vec::new(), Vec::new());
    let mut ids: Vec<&SpiffeId> = set
        .identities
        .iter()
        .map(|identity| &identity.spiffe_id)
        .filter(|id| id.is_member_of(&set.config.trust_domain))
        .collect();
    ids.sort();
    ids.dedup();
    for id in ids {
        match who_can(set, id, query, options) {
            Ok(reach) => found.push(reach),
            Err(error) => unanswered.push(Unanswered {
                workload: id.to_string(),
                reason: error.to_string(),
            }),
        }
    }
    (found, unanswered)
}

/// The values that the query names become classes of their own.
fn name(query: &ReachQuery, side: &Side<'_>, vocabulary: &mut Vocabulary) {
    side.name_identities(vocabulary);
    let texts = [
        (TextField::Method, query.method.as_deref()),
        (TextField::Host, query.host.as_deref()),
        (
            TextField::Principal,
            query.from.as_ref().map(|id| bare(id.as_str())),
        ),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            vocabulary.text(field).add(exactly(text), text);
        }
    }
    if let Some(path) = &query.path {
        vocabulary.text(TextField::Path).add(exact_path(path), path);
    }
    vocabulary.ports.extend(query.port);
    vocabulary.source.extend(query.source_ip.map(IpNet::from));
}

fn exact_path(path: &str) -> Machine {
    Machine::Before('?', Text::of(&StringMatch::Exact(path.to_owned())))
}

/// The requests that are asked about, and the dimensions that the query fixes.
fn restricted(
    builder: &mut Builder<'_>,
    query: &ReachQuery,
    options: &AnalyzeOptions,
) -> Result<(Function, Vec<usize>), AnalyzeError> {
    let space = builder.space;
    let mut wanted: Vec<(Aspect, Bits)> = Vec::new();
    let mut text = |field: TextField, machine: Machine| {
        wanted.push((Aspect::Text(field), space.matching(field, &machine)));
    };
    if let Some(id) = &query.from {
        text(TextField::Principal, exactly(bare(id.as_str())));
    }
    if let Some(method) = &query.method {
        text(TextField::Method, exactly(method));
    }
    if let Some(host) = &query.host {
        text(TextField::Host, exactly(host));
    }
    if let Some(path) = &query.path {
        text(TextField::Path, exact_path(path));
    }
    let mut choose = |aspect: Aspect, holds: &dyn Fn(&Atom) -> bool| {
        let atoms = space.chosen(&aspect, holds);
        wanted.push((aspect, atoms));
    };
    if query.is_plain_text {
        let aspect = Aspect::Text(TextField::Principal);
        choose(aspect, &|atom| *atom == Atom::Text(None));
    }
    if let Some(port) = query.port {
        choose(Aspect::Port, &|atom| *atom == Atom::Port(port));
    }
    if let Some(address) = query.source_ip {
        choose(Aspect::Source, &|atom| *atom == Atom::Address(address));
    }
    if let Some(has_token) = query.has_token {
        choose(Aspect::Token, &|atom| {
            (*atom != Atom::Token(None)) == has_token
        });
    }
    if !query.is_at_any_time {
        choose(
            Aspect::Time,
            &|atom| matches!(atom, Atom::Period(period) if period.contains(options.now)),
        );
    }
    let mut all = Vec::new();
    let mut fixed = Vec::new();
    for (aspect, atoms) in &wanted {
        all.push(builder.atoms(aspect, atoms));
        if atoms.count() <= 1 {
            fixed.push(space.number(aspect));
        }
    }
    Ok((builder.diagram.all(&all)?, fixed))
}

struct Answer<'q, 'a> {
    side: &'q Side<'a>,
    table: &'q Table,
    decided: &'q [Decided<'a>; 2],
    fixed: &'q [usize],
    options: &'q AnalyzeOptions,
}

impl Answer<'_, '_> {
    // Principals are the first dimension: its edges are the groups.
    fn groups(
        &self,
        question: &mut Question,
        function: Function,
    ) -> Result<Vec<ReachGroup>, AnalyzeError> {
        let dimension = question.space.number(&Aspect::Text(TextField::Principal));
        let mut groups = Vec::new();
        for (principals, next) in question.diagram.split(function, dimension) {
            let regions =
                question
                    .diagram
                    .regions(next, &|leaf| leaf >= ALLOW, Question::regions_max())?;
            if regions.is_empty() {
                continue;
            }
            let mut access = Vec::new();
            for region in regions {
                access.push(self.access(question, dimension, &principals, region)?);
            }
            groups.push(ReachGroup {
                who: who(&question.space, &principals),
                identities: self.identities(&question.space, &principals),
                access,
            });
        }
        groups.sort_by(|a, b| (&b.identities, &a.who).cmp(&(&a.identities, &b.who)));
        groups.sort_by_key(|group| group.identities.is_empty());
        Ok(groups)
    }

    fn access(
        &self,
        question: &mut Question,
        dimension: usize,
        principals: &Bits,
        region: Region,
    ) -> Result<Access, AnalyzeError> {
        let mut sides = vec![(dimension, principals.clone())];
        sides.extend(region.sides.iter().cloned());
        let example = sample(&question.space, &sides);
        let sorts = &question.space.sorts;
        let dry_run = self.options.includes_dry_run;
        let judged = judge(&self.side.engine, &example, sorts, dry_run);
        let id = &self.side.engine.workload().spiffe_id;
        confirm(id, region.leaf, &judged, self.table, &example)?;
        let shown: Vec<(usize, Bits)> = region
            .sides
            .into_iter()
            .filter(|(number, _)| !self.fixed.contains(number))
            .collect();
        Ok(Access {
            decision: self.table.verdict_name(region.leaf),
            requests: conditions(&question.space, &shown),
            by: self.rules(question, &sides, example.is_connection)?,
            example,
        })
    }

    /// The ALLOW rules that match something of the region.
    fn rules(
        &self,
        question: &mut Question,
        sides: &[(usize, Bits)],
        is_connection: bool,
    ) -> Result<Vec<String>, AnalyzeError> {
        let diagram = &mut question.diagram;
        let each: Vec<Function> = sides
            .iter()
            .map(|(dimension, atoms)| diagram.with(*dimension, atoms))
            .collect();
        let region = diagram.all(&each)?;
        let [http, connection] = self.decided;
        let decided = if is_connection { connection } else { http };
        let mut found = Vec::new();
        for rule in &decided.allow_rules {
            if diagram.and(rule.matching, region)? != Function::Leaf(0) {
                found.push(rule.name());
            }
        }
        Ok(found)
    }

    fn identities(&self, space: &Space, principals: &Bits) -> Vec<String> {
        let identities = self.side.set.identities.iter();
        identities
            .filter(|identity| {
                let machine = exactly(bare(identity.spiffe_id.as_str()));
                space
                    .matching(TextField::Principal, &machine)
                    .intersects(principals)
            })
            .map(|identity| identity.spiffe_id.to_string())
            .collect()
    }
}

/// The set of principals in words.
fn who(space: &Space, principals: &Bits) -> Vec<String> {
    let aspect = Aspect::Text(TextField::Principal);
    let Some(dimension) = space.dimension(&aspect) else {
        return Vec::new();
    };
    terms(&dimension.named, dimension.atoms.len(), principals)
}
