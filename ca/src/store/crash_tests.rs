//! Kill -9 in the middle of writing, again and again: what was acknowledged is there, and all of it verifies.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::tests::{entry, open};
use super::{Store, StoreError};
use crate::audit::{Event, Sequencer, VerifyOptions, verify_store_with};

const FOLDER: &str = "RAVELIN_TEST_CRASH_FOLDER";

async fn put(store: &Store, number: u64) {
    let new = entry(
        &format!("e{}", number % 5),
        &format!("/w/{number}"),
        "/node/local",
    );
    store
        .write::<_, StoreError, _>(move |tx| {
            Box::pin(async move { tx.put_entry(new, "test").await })
        })
        .await
        .unwrap();
}

/// The child's part: it does nothing unless the crash test started it.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let store = open(&folder).await;
    let sequencer = Sequencer::new(store.clone());
    for number in 0_u64.. {
        let appends = (0..8).map(|_| sequencer.append(vec![Event::new("test.ran", "test")]));
        let (leaves, ()) =
            tokio::join!(futures_util::future::join_all(appends), put(&store, number));
        let last = leaves.into_iter().map(|leaf| leaf.unwrap()[0].index).max();
        let note = store.checkpoint().await.unwrap().note;
        println!("acknowledged {} {}", last.unwrap(), hex::encode(note));
    }
}

/// Lets the child acknowledge some batches, kills it, and returns the last thing that it said.
fn run_and_kill(folder: &Path, batches: usize) -> (u64, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "store::crash_tests::writes_until_it_is_killed",
            "--exact",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let last = lines
        .map_while(Result::ok)
        .filter_map(|line| Some(line.split_once("acknowledged ")?.1.to_owned()))
        .nth(batches);
    child.kill().unwrap();
    child.wait().unwrap();
    let last = last.expect("the child acknowledges");
    let (index, note) = last.split_once(' ').unwrap();
    let note = String::from_utf8(hex::decode(note).unwrap()).unwrap();
    (index.parse().unwrap(), note)
}

#[tokio::test]
async fn after_a_kill_at_any_time_the_log_verifies_and_the_registry_equals_its_replay() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let (index, note) = run_and_kill(folder.path(), round * 3);
        let options = VerifyOptions {
            verifier_key: None,
            witness: Some(note),
        };
        let report = verify_store_with(folder.path(), &options).await.unwrap();
        assert!(
            report.log.size > index,
            "leaf {index} was acknowledged and is gone"
        );
        let store = open(folder.path()).await;
        assert_eq!(store.registry().entry_count(), report.entries);
        store.close().await;
    }
}
