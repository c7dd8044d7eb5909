//! What openssl says of an issued X.509-SVID and of its authority, against the rows of the SPIFFE checklist.

use std::path::{Path, PathBuf};
use std::process::Command;

use ravelin_runtime::workload_client::WorkloadClient;
use ravelin_tests::admin::certificate_pem;
use ravelin_tests::node::{Node, NodeOptions, TRUST_DOMAIN};
use ravelin_tests::programs::{need, run, run_ok};
use ravelin_tests::wait::{SOON, within};
use tokio_stream::StreamExt as _;

struct Issued {
    // The folder lives as long as the files are looked at.
    _folder: tempfile::TempDir,
    leaf: PathBuf,
    bundle: PathBuf,
}

impl Issued {
    /// An SVID and the bundle as the Workload API gives them, in PEM.
    async fn fetch() -> Self {
        let node = Node::start(NodeOptions::default()).await;
        node.create_own_entry("/ns/shop/sa/orders").await;
        let client = WorkloadClient::connect(node.socket()).await.unwrap();
        let mut stream = std::pin::pin!(client.x509_svids().await.unwrap());
        let update = within("an SVID", SOON, stream.next()).await;
        let update = update.unwrap().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (leaf, bundle) = (
            folder.path().join("leaf.pem"),
            folder.path().join("bundle.pem"),
        );
        let der = &update.svids[0].identity.chain[0];
        std::fs::write(&leaf, certificate_pem(der)).unwrap();
        std::fs::write(&bundle, node.admin().bundle_pem().await).unwrap();
        Self {
            _folder: folder,
            leaf,
            bundle,
        }
    }

    fn text(certificate: &Path) -> String {
        run_ok(
            Command::new("openssl")
                .args(["x509", "-noout", "-text", "-in"])
                .arg(certificate),
        )
    }
}

/// The value lines of an extension, after whether it is critical.
fn extension(text: &str, name: &str) -> Option<(bool, String)> {
    let mut lines = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with(&format!("{name}:")));
    let head = lines.next()?;
    let indent = head.len() - head.trim_start().len();
    let value: Vec<&str> = lines
        .take_while(|line| line.len() - line.trim_start().len() > indent)
        .map(str::trim)
        .collect();
    Some((head.contains("critical"), value.join(" ")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_09_openssl_verifies_an_issued_svid_strictly_for_both_sides_of_tls() {
    if !need("openssl") {
        return;
    }
    let issued = Issued::fetch().await;
    for purpose in ["sslserver", "sslclient"] {
        let output = run(Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .arg(&issued.bundle)
            .arg(&issued.leaf));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.trim_end().ends_with(": OK"),
            "{purpose}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_01_to_x_05_openssl_shows_a_leaf_as_the_checklist_demands() {
    if !need("openssl") {
        return;
    }
    let issued = Issued::fetch().await;
    let text = Issued::text(&issued.leaf);
    let of = |name: &str| extension(&text, name).unwrap_or_else(|| panic!("no `{name}`:\n{text}"));
    let has_empty_subject = text.lines().any(|line| line.trim() == "Subject:");

    let (is_critical, names) = of("X509v3 Subject Alternative Name");
    let id = format!("URI:spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders");
    assert_eq!(names.matches("URI:").count(), 1, "X-1: {names}");
    assert!(names.contains(&id), "X-1: {names}");
    assert!(
        is_critical || !has_empty_subject,
        "X-3: an empty subject and a name that is not critical:\n{text}"
    );
    let (is_critical, constraints) = of("X509v3 Basic Constraints");
    assert!(
        is_critical && constraints.starts_with("CA:FALSE"),
        "X-2: {constraints}"
    );
    let (is_critical, usage) = of("X509v3 Key Usage");
    assert!(
        is_critical && usage.contains("Digital Signature"),
        "X-4: {usage}"
    );
    assert!(
        !usage.contains("Certificate Sign") && !usage.contains("CRL Sign"),
        "X-4: {usage}"
    );
    let (_, usage) = of("X509v3 Extended Key Usage");
    assert!(
        usage.contains("TLS Web Server Authentication")
            && usage.contains("TLS Web Client Authentication"),
        "X-5: {usage}"
    );
    of("X509v3 Authority Key Identifier");
    assert!(text.contains("NIST CURVE: P-256"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_06_to_x_07_openssl_shows_an_authority_as_the_checklist_demands() {
    if !need("openssl") {
        return;
    }
    let issued = Issued::fetch().await;
    let text = Issued::text(&issued.bundle);
    let of = |name: &str| extension(&text, name).unwrap_or_else(|| panic!("no `{name}`:\n{text}"));
    let (is_critical, constraints) = of("X509v3 Basic Constraints");
    assert!(
        is_critical && constraints.starts_with("CA:TRUE"),
        "X-6: {constraints}"
    );
    let (is_critical, usage) = of("X509v3 Key Usage");
    assert!(
        is_critical && usage.contains("Certificate Sign"),
        "X-6: {usage}"
    );
    let (_, names) = of("X509v3 Subject Alternative Name");
    assert_eq!(names, format!("URI:spiffe://{TRUST_DOMAIN}"), "X-7");
    of("X509v3 Subject Key Identifier");
}
