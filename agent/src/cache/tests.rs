//! The cache beside a naive model that looks at everything each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use ravelin_proto::entry::RegistrationEntry;
use ravelin_proto::pb::ravelin::v1::DenylistEntry;
use ravelin_proto::pb::ravelin::v1::denylist_entry::Subject;
use ravelin_proto::secret::Secret;
use ravelin_proto::selector::{Selector, is_subset};
use ravelin_proto::spiffe_id::{SpiffeId, TrustDomain};
use ravelin_proto::time::{Timestamp, Validity};

use super::*;
use crate::renewal::Reason;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(secs)
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://td/{name}")).unwrap()
}

fn selectors(texts: &[&str]) -> BTreeSet<Selector> {
    texts
        .iter()
        .map(|text| Selector::parse(text).unwrap())
        .collect()
}

fn entry(name: &str, spiffe: &str, needed: &[&str]) -> RegistrationEntry {
    RegistrationEntry::new(
        name,
        id(spiffe),
        id("node/local"),
        selectors(needed).into_iter().collect(),
    )
}

fn svid(spiffe: &str, serial: &str, from: i64, to: i64) -> X509Svid {
    X509Svid {
        spiffe_id: id(spiffe),
        chain: vec![vec![1]],
        key: Secret::new(vec![2]),
        validity: Validity {
            not_before: at(from),
            not_after: at(to),
        },
        authority_id: "a".into(),
        serial: serial.into(),
        entry_revision: 0,
        issued_at: at(from),
        jitter: 0.5,
    }
}

fn cache_with(entries: Vec<RegistrationEntry>) -> Cache {
    let mut cache = Cache::new(TrustDomain::parse("td").unwrap());
    let delta = Delta {
        revision: 1,
        is_snapshot: true,
        upserted: entries,
        ..Delta::default()
    };
    cache.apply(delta, at(0)).unwrap();
    cache
}

fn ids(view: &WorkloadView) -> Vec<&str> {
    view.identities
        .iter()
        .map(|identity| identity.entry.id.as_str())
        .collect()
}

#[test]
fn a_14_identities_have_a_stable_order_launched_first_then_most_specific_then_oldest() {
    let mut young = entry("young", "c", &["unix:uid:1"]);
    young.created_at = at(9);
    let cache = cache_with(vec![
        young,
        entry("b", "b", &["unix:uid:1"]),
        entry("a", "a", &["unix:uid:1"]),
        entry("two", "d", &["unix:uid:1", "unix:gid:1"]),
        entry("launched", "e", &["launch:name:x"]),
        entry("other", "f", &["unix:uid:2"]),
    ]);
    let view = cache.view(
        &selectors(&["unix:uid:1", "unix:gid:1", "launch:name:x"]),
        at(0),
    );
    assert_eq!(ids(&view), ["launched", "two", "a", "b", "young"]);
}

#[test]
fn a_07_the_oldest_entry_keeps_a_hint_that_two_have() {
    let mut rows = Vec::new();
    for (name, hint, created) in [("a", "blue", 5), ("b", "blue", 3), ("c", "red", 9)] {
        let mut entry = entry(name, name, &["unix:uid:1"]);
        entry.hint = hint.into();
        entry.created_at = at(created);
        rows.push(entry);
    }
    let view = cache_with(rows).view(&selectors(&["unix:uid:1"]), at(0));
    let got: BTreeMap<_, _> = view
        .identities
        .iter()
        .map(|identity| (identity.entry.id.as_str(), identity.hint.as_str()))
        .collect();
    assert_eq!(
        got,
        BTreeMap::from([("a", ""), ("b", "blue"), ("c", "red")])
    );
}

#[test]
fn threat_10_a_process_never_sees_the_svid_of_another_entry() {
    let mut cache = cache_with(vec![
        entry("mine", "mine", &["unix:uid:1"]),
        entry("theirs", "theirs", &["unix:uid:1", "unix:gid:7"]),
    ]);
    cache
        .store_svid("theirs", svid("theirs", "1", 0, 100))
        .unwrap();
    let view = cache.view(&selectors(&["unix:uid:1"]), at(1));
    assert_eq!(ids(&view), ["mine"]);
    // The CA's answer for one entry is not kept under another.
    assert!(
        cache
            .store_svid("mine", svid("theirs", "2", 0, 100))
            .is_none()
    );
}

#[test]
fn an_identity_that_is_kept_for_a_store_is_not_served_to_a_process() {
    let mut stored = entry("e", "x", &["unix:uid:1"]);
    stored.store_svid = true;
    let mut cache = cache_with(vec![stored]);
    cache.subscribe(selectors(&["unix:uid:1"]), at(0));
    assert!(
        cache
            .view(&selectors(&["unix:uid:1"]), at(0))
            .identities
            .is_empty()
    );
    assert!(cache.issue_plan(at(0)).due.is_empty());
}

#[test]
fn threat_11_a_deleted_entry_takes_its_svid_along() {
    let mut cache = cache_with(vec![entry("e", "x", &["unix:uid:1"])]);
    let subscriber = cache.subscribe(selectors(&["unix:uid:1"]), at(0));
    cache.store_svid("e", svid("x", "1", 0, 100)).unwrap();
    let removal = Delta {
        revision: 2,
        removed: vec!["e".into()],
        ..Delta::default()
    };
    let touched = cache.apply(removal, at(1)).unwrap();
    assert_eq!(touched, BTreeSet::from([subscriber]));
    assert_eq!(cache.svids().count(), 0);
    assert!(
        cache
            .view(&selectors(&["unix:uid:1"]), at(1))
            .identities
            .is_empty()
    );
}

#[test]
fn an_entry_that_means_another_identity_loses_its_svid_and_a_changed_one_is_renewed() {
    let mut cache = cache_with(vec![entry("e", "x", &["unix:uid:1"])]);
    cache.subscribe(selectors(&["unix:uid:1"]), at(0));
    cache.store_svid("e", svid("x", "1", 0, 100)).unwrap();
    let mut renamed = entry("e", "x", &["unix:uid:1"]);
    renamed.revision = 2;
    let change = |entry| Delta {
        upserted: vec![entry],
        ..Delta::default()
    };
    cache.apply(change(renamed), at(1)).unwrap();
    let plan = cache.issue_plan(at(1));
    assert_eq!(plan.due[0].reason, Reason::EntryChanged);
    assert_eq!(cache.svids().count(), 1, "the old one is served until then");
    cache
        .apply(change(entry("e", "y", &["unix:uid:1"])), at(1))
        .unwrap();
    assert_eq!(cache.svids().count(), 0);
    assert_eq!(cache.issue_plan(at(1)).due[0].reason, Reason::Missing);
}

#[test]
fn only_identities_in_use_are_signed_and_a_refused_one_waits() {
    let mut cache = cache_with(vec![
        entry("used", "x", &["unix:uid:1"]),
        entry("unused", "y", &["unix:uid:2"]),
    ]);
    assert!(cache.issue_plan(at(0)).due.is_empty());
    let subscriber = cache.subscribe(selectors(&["unix:uid:1"]), at(0));
    let due = |cache: &Cache, now| -> Vec<String> {
        cache
            .issue_plan(at(now))
            .due
            .iter()
            .map(|due| due.entry.id.clone())
            .collect()
    };
    assert_eq!(due(&cache, 0), ["used"]);
    cache.note_failure("used", "no", |_| Duration::from_secs(5), at(0));
    assert!(due(&cache, 4).is_empty());
    assert_eq!(cache.issue_plan(at(4)).wake_at, Some(at(5)));
    assert_eq!(due(&cache, 5), ["used"]);
    cache.unsubscribe(subscriber, at(10));
    assert_eq!(due(&cache, 11), ["used"], "used lately");
    assert!(
        due(&cache, 10 + 24 * 3600).is_empty(),
        "forgotten after a day"
    );
}

#[test]
fn the_deny_list_drops_svids_by_serial_id_and_agent_and_never_goes_back() {
    let list = |number, entries| Delta {
        denylist: Some(Denylist { number, entries }),
        ..Delta::default()
    };
    let entry_of = |subject, issued_until, serials: &[&str]| DenylistEntry {
        subject: Some(subject),
        issued_until,
        serials: serials.iter().map(ToString::to_string).collect(),
        ..DenylistEntry::default()
    };
    let rows = [
        (
            "serial",
            entry_of(Subject::Serial("1".into()), 0, &[]),
            true,
        ),
        (
            "other serial",
            entry_of(Subject::Serial("2".into()), 0, &[]),
            false,
        ),
        (
            "id",
            entry_of(Subject::SpiffeId("spiffe://td/x".into()), 0, &[]),
            true,
        ),
        (
            "id, issued before",
            entry_of(Subject::SpiffeId("spiffe://td/x".into()), 10, &[]),
            true,
        ),
        (
            "id, issued after",
            entry_of(Subject::SpiffeId("spiffe://td/x".into()), 9, &[]),
            false,
        ),
        (
            "agent",
            entry_of(Subject::AgentId("spiffe://td/n".into()), 0, &["1"]),
            true,
        ),
        ("token", entry_of(Subject::Jti("1".into()), 0, &[]), false),
    ];
    for (name, denied, is_dropped) in rows {
        let mut cache = cache_with(vec![entry("e", "x", &["unix:uid:1"])]);
        cache.store_svid("e", svid("x", "1", 10, 100)).unwrap();
        cache.apply(list(5, vec![denied]), at(11)).unwrap();
        assert_eq!(cache.svids().count(), usize::from(!is_dropped), "{name}");
        cache.apply(list(4, Vec::new()), at(11)).unwrap();
        assert_eq!(
            cache.denylist().number,
            5,
            "{name}: a smaller number is ignored"
        );
    }
}

#[test]
fn threat_56_an_older_bundle_is_refused_whole_unless_the_node_attested_anew() {
    let delta = |sequence| Delta {
        revision: sequence,
        bundle: Some(Bundle {
            sequence,
            ..Bundle::new(TrustDomain::parse("td").unwrap())
        }),
        ..Delta::default()
    };
    let older = |held, got| Err(DeltaRefusal::OlderBundle { held, got });
    let mut cache = cache_with(Vec::new());
    for (sequence, want, held) in [
        (5, Ok(()), 5),
        (4, older(5, 4), 5),
        (5, Ok(()), 5),
        (6, Ok(()), 6),
        (0, older(6, 0), 6),
    ] {
        let got = cache.apply(delta(sequence), at(0)).map(|_| ());
        assert_eq!(got, want, "{sequence}");
        assert_eq!(cache.bundle_sequence(), held, "{sequence}");
        assert_eq!(cache.revision(), held, "{sequence}");
    }
    cache.trust_anew();
    assert!(cache.apply(delta(2), at(0)).is_ok());
    assert_eq!(cache.apply(delta(1), at(0)).err(), older(2, 1).err());
}

#[test]
fn threat_65_a_token_on_the_deny_list_is_not_handed_out_again() {
    let x = || Subject::SpiffeId("spiffe://td/x".into());
    let rows = [
        ("its name", Subject::Jti("j".into()), 0, true),
        ("another name", Subject::Jti("k".into()), 0, false),
        ("its identity", x(), 0, true),
        ("its identity, issued before", x(), 10, true),
        ("its identity, issued after", x(), 9, false),
        ("a certificate", Subject::Serial("j".into()), 0, false),
    ];
    for (name, subject, issued_until, is_dropped) in rows {
        let denylist = Denylist {
            number: 1,
            entries: vec![DenylistEntry {
                subject: Some(subject),
                issued_until,
                ..DenylistEntry::default()
            }],
        };
        let key = JwtKey {
            entry_id: "e".into(),
            audiences: BTreeSet::from(["a".to_owned()]),
        };
        let token = JwtToken {
            token: "t".into(),
            spiffe_id: id("x"),
            key_id: "k".into(),
            jti: Some("j".into()),
            issued_at: at(10),
            expires_at: at(100),
        };
        let mut jwts = JwtCache::default();
        jwts.store(key.clone(), token, at(11));
        jwts.retain(|_, _| true, |token| !is_token_denied(&denylist, token));
        assert_eq!(
            jwts.token(&key, &id("x"), at(12)).is_none(),
            is_dropped,
            "{name}"
        );
    }
}

#[test]
fn an_expired_svid_is_not_shown_and_is_dropped() {
    let mut cache = cache_with(vec![entry("e", "x", &["unix:uid:1"])]);
    let subscriber = cache.subscribe(selectors(&["unix:uid:1"]), at(0));
    cache.store_svid("e", svid("x", "1", 0, 100)).unwrap();
    assert!(
        cache.view(&selectors(&["unix:uid:1"]), at(99)).identities[0]
            .svid
            .is_some()
    );
    assert!(
        cache.view(&selectors(&["unix:uid:1"]), at(100)).identities[0]
            .svid
            .is_none()
    );
    assert_eq!(cache.expire(at(99)), None);
    assert_eq!(cache.expire(at(100)), Some(BTreeSet::from([subscriber])));
    assert_eq!(cache.svids_by_authority(at(100)), BTreeMap::new());
}

/// The naive model: lists, and a look at everything.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, RegistrationEntry>,
    subscribers: BTreeMap<SubscriberId, BTreeSet<Selector>>,
}

impl Model {
    fn matches(&self, attested: &BTreeSet<Selector>) -> BTreeSet<String> {
        self.entries
            .values()
            .filter(|entry| is_subset(&entry.selectors, attested))
            .map(|entry| entry.id.clone())
            .collect()
    }

    fn subscribers_of(&self, entry: &RegistrationEntry) -> BTreeSet<SubscriberId> {
        self.subscribers
            .iter()
            .filter(|(_, attested)| is_subset(&entry.selectors, attested))
            .map(|(id, _)| *id)
            .collect()
    }
}

#[derive(Debug, Clone)]
enum Act {
    Upsert(u8, BTreeSet<u8>),
    Remove(u8),
    Snapshot(Vec<(u8, BTreeSet<u8>)>),
    Subscribe(BTreeSet<u8>),
    Unsubscribe(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let set = || prop::collection::btree_set(0_u8..5, 1..4);
    let act = prop_oneof![
        3 => (0_u8..6, set()).prop_map(|(id, set)| Act::Upsert(id, set)),
        1 => (0_u8..6).prop_map(Act::Remove),
        1 => prop::collection::vec((0_u8..6, set()), 0..4).prop_map(Act::Snapshot),
        3 => prop::collection::btree_set(0_u8..5, 0..5).prop_map(Act::Subscribe),
        1 => (0_usize..8).prop_map(Act::Unsubscribe),
    ];
    prop::collection::vec(act, 1..40)
}

fn numbered(set: &BTreeSet<u8>) -> BTreeSet<Selector> {
    set.iter()
        .map(|n| Selector::new("unix", &format!("gid:{n}")).unwrap())
        .collect()
}

fn numbered_entry(number: u8, set: &BTreeSet<u8>) -> RegistrationEntry {
    let name = format!("e{number}");
    RegistrationEntry::new(
        &name,
        id(&name),
        id("node/local"),
        numbered(set).into_iter().collect(),
    )
}

proptest! {
    #[test]
    fn the_cache_and_the_naive_model_agree(acts in acts()) {
        let mut cache = cache_with(Vec::new());
        let mut model = Model::default();
        for act in acts {
            step(&mut cache, &mut model, act)?;
            for (subscriber, attested) in &model.subscribers {
                let view = cache.view(attested, at(0));
                let got: BTreeSet<String> = view.identities.iter().map(|i| i.entry.id.clone()).collect();
                prop_assert_eq!(&got, &model.matches(attested), "subscriber {}", subscriber);
            }
            let used: BTreeSet<String> = model.subscribers.values().flat_map(|set| model.matches(set)).collect();
            let due: BTreeSet<String> = cache.issue_plan(at(0)).due.iter().map(|due| due.entry.id.clone()).collect();
            prop_assert!(used.is_subset(&due));
        }
    }
}

fn step(cache: &mut Cache, model: &mut Model, act: Act) -> Result<(), TestCaseError> {
    let mut want = BTreeSet::new();
    let delta = match act {
        Act::Subscribe(set) => {
            let subscriber = cache.subscribe(numbered(&set), at(0));
            model.subscribers.insert(subscriber, numbered(&set));
            return Ok(());
        }
        Act::Unsubscribe(nth) => {
            if let Some(subscriber) = model.subscribers.keys().nth(nth).copied() {
                cache.unsubscribe(subscriber, at(0));
                model.subscribers.remove(&subscriber);
            }
            return Ok(());
        }
        Act::Remove(number) => Delta {
            removed: vec![format!("e{number}")],
            ..Delta::default()
        },
        Act::Upsert(number, set) => Delta {
            upserted: vec![numbered_entry(number, &set)],
            ..Delta::default()
        },
        Act::Snapshot(rows) => Delta {
            is_snapshot: true,
            upserted: rows
                .iter()
                .map(|(number, set)| numbered_entry(*number, set))
                .collect(),
            ..Delta::default()
        },
    };
    let before = model.entries.clone();
    if delta.is_snapshot {
        model.entries.clear();
    }
    for name in &delta.removed {
        model.entries.remove(name);
    }
    for entry in &delta.upserted {
        model.entries.insert(entry.id.clone(), entry.clone());
        want.extend(model.subscribers_of(entry));
    }
    let changed = before
        .iter()
        .filter(|(id, entry)| model.entries.get(*id) != Some(entry));
    for (_, entry) in changed {
        want.extend(model.subscribers_of(entry));
    }
    let touched = cache.apply(delta, at(0)).unwrap();
    prop_assert!(
        want.is_subset(&touched),
        "want {:?}, got {:?}",
        want,
        touched
    );
    Ok(())
}
