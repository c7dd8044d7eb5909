//! Times the `cedar-policy` crate on the workload of the policy engine's benchmark.
//!
//! `ravelin-policies-cedar SIZE..` prints a line of figures a size: rules, parse ms, then ns a decision for allowed and
//! denied calls, both again with request and entities made for each call, and allocations a decision.

#[path = "../../workload/mod.rs"]
mod workload;

#[path = "../../../tests/counting/mod.rs"]
mod counting;

use std::collections::HashSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet, Request, RestrictedExpression,
};
use workload::{ISSUER, PlainCall};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Each figure may take about this long; slow sizes make fewer calls, at least [`CALLS_MIN`].
const BUDGET: Duration = Duration::from_millis(1500);
const CALLS_MIN: usize = 24;

fn main() {
    for size in std::env::args().skip(1) {
        let size: usize = size.parse().expect("a number of rules");
        let rules = workload::rules(size);
        let text = workload::to_cedar(&rules);
        let started = Instant::now();
        let policies: PolicySet = text.parse().expect("the policies are Cedar");
        let parse = started.elapsed().as_secs_f64() * 1000.0;
        let allowed = workload::allowed_calls(size);
        let denied = workload::denied_calls(size);
        let mut line = format!("{size} {parse:.0}");
        for is_built_in_turn in [false, true] {
            for (calls, want) in [(&allowed, Decision::Allow), (&denied, Decision::Deny)] {
                let ns = time(calls, want, &policies, is_built_in_turn);
                line += &format!(" {ns:.0}");
            }
        }
        let prepared = prepare(&allowed[0]);
        let entities = entities_of(&allowed[..1]);
        let authorizer = Authorizer::new();
        let (_, taken) =
            counting::counted(|| authorizer.is_authorized(&prepared, &policies, &entities));
        println!("{line} {}", taken.allocations);
    }
}

fn time(calls: &[PlainCall], want: Decision, policies: &PolicySet, is_built_in_turn: bool) -> f64 {
    let authorizer = Authorizer::new();
    let entities = entities_of(calls);
    let requests: Vec<Request> = calls.iter().map(prepare).collect();
    let decide = |n: usize| {
        let n = n % calls.len();
        let decision = if is_built_in_turn {
            let entities = entities_of(&calls[n..=n]);
            let request = prepare(&calls[n]);
            authorizer.is_authorized(&request, policies, &entities)
        } else {
            authorizer.is_authorized(&requests[n], policies, &entities)
        };
        assert_eq!(decision.decision(), want, "{:?}", calls[n]);
        black_box(decision);
    };
    let warm = Instant::now();
    decide(0);
    let slices = if warm.elapsed() > BUDGET / 40 { 1 } else { 9 };
    let mut figures: Vec<f64> = (0..slices)
        .map(|slice| {
            let started = Instant::now();
            let mut made = 0;
            while started.elapsed() < BUDGET / slices || made < CALLS_MIN {
                // Steps over the calls so that few of them still come from everywhere.
                decide((made + slice as usize * 131) * 389);
                made += 1;
            }
            started.elapsed().as_secs_f64() * 1e9 / made as f64
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn uid(kind: &str, id: &str) -> EntityUid {
    let kind: EntityTypeName = kind.parse().expect("a type name");
    EntityUid::from_type_name_and_id(kind, EntityId::new(id))
}

/// The callers with their namespaces.
fn entities_of(calls: &[PlainCall]) -> Entities {
    let mut seen = HashSet::new();
    let callers = calls
        .iter()
        .filter(|call| seen.insert(&call.principal))
        .map(|call| {
            Entity::new_no_attrs(
                uid("Workload", &call.principal),
                HashSet::from([uid("Namespace", &call.namespace)]),
            )
        });
    Entities::from_entities(callers.collect::<Vec<_>>(), None).expect("entities")
}

fn prepare(call: &PlainCall) -> Request {
    let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
    let mut facts = vec![("path".to_owned(), text(&call.path))];
    if !call.groups.is_empty() {
        let groups = call.groups.iter().map(|group| text(group));
        facts.push(("groups".into(), RestrictedExpression::new_set(groups)));
        facts.push(("issuer".into(), text(ISSUER)));
    }
    Request::new(
        uid("Workload", &call.principal),
        uid("Action", call.method),
        uid("Service", "payments"),
        Context::from_pairs(facts).expect("a context"),
        None,
    )
    .expect("a request")
}
