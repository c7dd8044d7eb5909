//! Parts that cannot start, and tools that cannot reach them: one clear message, exit code 2 or 3, the state as it was.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use ravelin_tests::admin::CaAdmin;
use ravelin_tests::node::TRUST_DOMAIN;
use ravelin_tests::ports::free_address;
use ravelin_tests::process::Process;
use ravelin_tests::programs::{ravelin, run};
use ravelin_tests::site::ca_toml;
use ravelin_tests::wait::{SOON, until};

fn assert_says(output: &Output, code: i32, wanted: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for want in wanted {
        assert!(text.contains(want), "`{want}` is missing: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn serve(part: &str, folder: &Path) -> Command {
    let mut command = Command::new(ravelin());
    command
        .args([part, "serve", "--config"])
        .arg(folder.join(format!("{part}.toml")))
        .current_dir(folder)
        .env_remove("RAVELIN_SERVER");
    command
}

/// Runs a part that is to end by itself.
async fn refused(part: &str, folder: &Path) -> Output {
    let mut child = tokio::process::Command::from(serve(part, folder));
    child.kill_on_drop(true);
    let running = child.output();
    ravelin_tests::wait::within("the part ends by itself", SOON, running)
        .await
        .unwrap()
}

/// A folder with a CA's configuration and what it makes at its first start, and its trust bundle.
async fn used_ca_folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    write_ca_toml(folder.path(), free_address());
    let bundle = start_and_end_ca(folder.path()).await;
    (folder, bundle)
}

/// Starts the CA, takes its trust bundle and ends it in order.
async fn start_and_end_ca(folder: &Path) -> String {
    let (mut ca, admin) = start_ca(folder).await;
    let bundle = admin.bundle_pem().await;
    ca.terminate();
    assert!(ca.wait_soon().await.success(), "{}", ca.log());
    bundle
}

fn write_ca_toml(folder: &Path, listen: std::net::SocketAddr) {
    let data = folder.join("ca").display().to_string();
    std::fs::write(folder.join("ca.toml"), ca_toml(&data, listen)).unwrap();
}

async fn start_ca(folder: &Path) -> (Process, CaAdmin) {
    let ca = Process::start("ca", folder, &mut serve("ca", folder));
    let socket = folder.join("ca/admin.sock");
    let admin = until("the CA answers", SOON, || CaAdmin::connect(&socket)).await;
    (ca, admin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_whose_port_is_in_use_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    write_ca_toml(folder.path(), address);
    let output = refused("ca", folder.path()).await;
    assert_says(&output, 2, &[&address.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_on_the_data_of_another_trust_domain_is_refused_and_the_data_is_left() {
    let (folder, bundle) = used_ca_folder().await;
    let path = folder.path().join("ca.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(TRUST_DOMAIN, "other.example")).unwrap();
    let output = refused("ca", folder.path()).await;
    assert_says(&output, 2, &["data folder", TRUST_DOMAIN, "other.example"]);
    std::fs::write(&path, text).unwrap();
    assert_eq!(start_and_end_ca(folder.path()).await, bundle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_with_a_corrupt_database_names_the_file_and_leaves_it() {
    let (folder, _) = used_ca_folder().await;
    let database = folder.path().join("ca/ca.db");
    let mut bytes = std::fs::read(&database).unwrap();
    let half = bytes.len() / 2;
    for byte in &mut bytes[16..half] {
        *byte ^= 0x5a;
    }
    std::fs::write(&database, &bytes).unwrap();
    let output = refused("ca", folder.path()).await;
    assert_says(&output, 2, &["ca.db"]);
    assert!(
        std::fs::read(&database).unwrap() == bytes,
        "the file was changed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_27_a_ca_without_its_key_encryption_key_does_not_start_with_new_keys() {
    let (folder, bundle) = used_ca_folder().await;
    let kek = folder.path().join("ca/kek");
    let kept = std::fs::read(&kek).unwrap();
    std::fs::write(&kek, vec![7_u8; kept.len()]).unwrap();
    let output = refused("ca", folder.path()).await;
    assert_says(&output, 2, &["key"]);
    std::fs::write(&kek, kept).unwrap();
    assert_eq!(start_and_end_ca(folder.path()).await, bundle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_ca_on_one_data_folder_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    write_ca_toml(folder.path(), free_address());
    let (mut first, _) = start_ca(folder.path()).await;
    write_ca_toml(folder.path(), free_address());
    let output = refused("ca", folder.path()).await;
    assert_says(&output, 2, &["in use"]);
    assert!(first.ended().is_none(), "{}", first.log());
    let socket = folder.path().join("ca/admin.sock");
    assert!(CaAdmin::connect(&socket).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_key_in_a_configuration_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (
            "ca",
            format!("{}lisen = \"127.0.0.1:1\"\n", ca_toml("ca", free_address())),
            "lisen",
        ),
        (
            "agent",
            format!("trust_domain = \"{TRUST_DOMAIN}\"\nsockt = \"a\"\n"),
            "sockt",
        ),
        (
            "proxy",
            "name = \"orders\"\nagent_socket = \"a\"\nworkrs = 1\n".to_owned(),
            "workrs",
        ),
    ];
    for (part, text, key) in cases {
        std::fs::write(folder.path().join(format!("{part}.toml")), text).unwrap();
        let output = refused(part, folder.path()).await;
        assert_says(&output, 2, &[key, &format!("{part}.toml"), "^"]);
    }
}

#[test]
fn a_command_without_a_ca_or_an_agent_says_how_to_name_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = format!("unix:{}", folder.path().join("admin.sock").display());
    let socket = folder.path().join("agent.sock").display().to_string();
    let commands: [&[&str]; 4] = [
        &["entry", "list", "--server", &server],
        &["audit", "verify", "--server", &server],
        &["rotate", "x509", "--wait", "--server", &server],
        &["svid", "fetch", "x509", "--socket", &socket],
    ];
    for arguments in commands {
        let output = run(Command::new(ravelin())
            .args(arguments)
            .current_dir(folder.path()));
        assert_says(&output, 3, &["cannot be reached"]);
    }
}
