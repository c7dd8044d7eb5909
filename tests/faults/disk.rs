//! Disks that fail and deaths between two durable steps, injected into the real CA's system calls by strace.
//!
//! After each: the CA comes up, its log verifies, and everything that it ever acknowledged is there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ravelin_proto::pb::ravelin::v1::HealthRequest;
use ravelin_proto::pb::spire::api::server::entry::v1::ListEntriesRequest;
use ravelin_tests::admin::CaAdmin;
use ravelin_tests::node::{NODE_ID, TRUST_DOMAIN};
use ravelin_tests::ports::free_address;
use ravelin_tests::process::Process;
use ravelin_tests::programs::{need, ravelin, run, skip};
use ravelin_tests::site::ca_toml;
use ravelin_tests::wait::{SOON, until};
use tempfile::TempDir;

/// A first start has fewer durable steps than this; a test that counts further is lost.
const STEPS_MAX: u32 = 60;
/// Entries that are created at most while a failure is waited for.
const ENTRIES_MAX: u32 = 500;

/// Whether strace is there and may trace.
fn can_inject() -> bool {
    need("strace")
        && (run(Command::new("strace").args(["-o", "/dev/null", "true"]))
            .status
            .success()
            || skip("`strace` may not trace here"))
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("ca").display().to_string();
        let text = ca_toml(&data, free_address());
        std::fs::write(folder.path().join("ca.toml"), text).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The CA, with this fault injected. It ends with strace, its parent.
    fn start_failing(&self, inject: &str) -> Process {
        let mut command = Command::new("strace");
        command
            .args([
                "-f",
                "-o",
                "/dev/null",
                "-e",
                "trace=fsync,fdatasync,pwrite64",
                "-e",
            ])
            .arg(format!("inject={inject}"))
            .arg(ravelin())
            .args(["ca", "serve", "--exit-with-parent", "--config"])
            .arg(self.path().join("ca.toml"));
        Process::start("failing", self.path(), &mut command)
    }

    /// The CA as it is.
    async fn start(&self) -> (Process, CaAdmin) {
        let mut command = Command::new(ravelin());
        command
            .args(["ca", "serve", "--config"])
            .arg(self.path().join("ca.toml"));
        let mut ca = Process::start("ca", self.path(), &mut command);
        let admin = ready_or_ended(&self.path().join("ca/admin.sock"), &mut ca).await;
        let admin = admin.unwrap_or_else(|| panic!("the CA does not come up:\n{}", ca.log()));
        (ca, admin)
    }

    fn assert_log_verifies(&self) {
        let server = format!("unix:{}", self.path().join("ca/admin.sock").display());
        let output = run(Command::new(ravelin()).args(["audit", "verify", "--server", &server]));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// The admin socket of a CA that is ready, or `None` when the process has ended first.
async fn ready_or_ended(socket: &Path, ca: &mut Process) -> Option<CaAdmin> {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let deadline = tokio::time::Instant::now() + SOON;
    while tokio::time::Instant::now() < deadline {
        pace.tick().await;
        if ca.ended().is_some() {
            return None;
        }
        if let Some(admin) = CaAdmin::connect(socket).await
            && is_ready(&admin).await
        {
            return Some(admin);
        }
    }
    panic!("the CA is neither ready nor ends:\n{}", ca.log());
}

/// Whether the CA says so; it may die while it is asked.
async fn is_ready(admin: &CaAdmin) -> bool {
    let health = admin.admin().get_health(HealthRequest {}).await;
    health.is_ok_and(|health| health.get_ref().is_ready)
}

/// Creates entries until the CA does not acknowledge one; those that it did.
async fn create_until_failure(admin: &CaAdmin) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for number in 0..ENTRIES_MAX {
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{number}");
        match admin.try_create_entry(&id, NODE_ID, &["unix:uid:1"]).await {
            Ok(entry) => acknowledged.insert(entry),
            Err(_) => return acknowledged,
        };
    }
    panic!("{ENTRIES_MAX} entries were created, and the fault did not come");
}

async fn entries(admin: &CaAdmin) -> BTreeSet<String> {
    let request = ListEntriesRequest {
        page_size: 1000,
        ..ListEntriesRequest::default()
    };
    let answer = admin.entries().list_entries(request).await.unwrap();
    let entries = answer.into_inner().entries.into_iter();
    entries.map(|entry| entry.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_dies_at_any_durable_step_of_its_first_start_comes_up_at_the_next() {
    if !can_inject() {
        return;
    }
    for step in 1..STEPS_MAX {
        let folder = Folder::new();
        let mut failing = folder.start_failing(&format!("fsync,fdatasync:signal=KILL:when={step}"));
        let socket = folder.path().join("ca/admin.sock");
        if ready_or_ended(&socket, &mut failing).await.is_some() {
            assert!(step > 5, "only {step} durable steps");
            return;
        }
        let (_ca, admin) = folder.start().await;
        let bundle = admin.bundle().await;
        assert_eq!(
            (bundle.x509_authorities.len(), bundle.jwt_authorities.len()),
            (1, 1),
            "after a death at step {step}"
        );
        folder.assert_log_verifies();
    }
    panic!("a first start has more than {STEPS_MAX} durable steps");
}

/// Runs a CA until the fault comes, and shows that it lost nothing that it had acknowledged.
async fn loses_nothing(inject: &str) {
    let folder = Folder::new();
    {
        let (mut ca, _) = folder.start().await;
        ca.terminate();
        assert!(ca.wait_soon().await.success(), "{}", ca.log());
    }
    let mut failing = folder.start_failing(inject);
    let socket = folder.path().join("ca/admin.sock");
    let admin = ready_or_ended(&socket, &mut failing).await;
    let admin = admin.unwrap_or_else(|| panic!("the fault came too early:\n{}", failing.log()));
    let acknowledged = create_until_failure(&admin).await;
    assert!(!acknowledged.is_empty());
    let status = until("the CA ends", SOON, || std::future::ready(failing.ended())).await;
    assert!(!status.success(), "it ended as if all were well");

    let (_ca, admin) = folder.start().await;
    let kept = entries(&admin).await;
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    folder.assert_log_verifies();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_39_a_failed_fsync_ends_the_ca_and_nothing_that_it_acknowledged_is_lost() {
    if can_inject() {
        loses_nothing("fsync,fdatasync:error=EIO:when=40+").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_a_full_disk_stops_the_ca_and_nothing_that_it_acknowledged_is_lost() {
    if can_inject() {
        loses_nothing("pwrite64:error=ENOSPC:when=400+").await;
    }
}
