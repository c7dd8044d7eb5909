//! The PyPI package `spiffe` on gRPC's C core: X.509-SVID, JWT-SVID, bundles, a rotation, a validated JWT.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ravelin_proto::bundle::x509_authority_id;
use ravelin_proto::pb::ravelin::v1::AuthorityKind;
use ravelin_proto::x509_svid::LeafSvid;
use ravelin_tests::node::{Node, NodeOptions, TRUST_DOMAIN};
use ravelin_tests::programs::python;
use ravelin_tests::wait::{CYCLE, within};
use ravelin_tests::workspace_root;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

struct Client {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(interpreter: &std::path::Path, node: &Node) -> Self {
        let mut child = Command::new(interpreter)
            .arg(workspace_root().join("tests/interop/workload_client.py"))
            .args([&node.endpoint(), TRUST_DOMAIN, "payments"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    /// The next line, which has to be about `event`.
    async fn saw(&mut self, event: &str) -> Value {
        let line = within(event, CYCLE, self.lines.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("the client ended before `{event}`"));
        let seen: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(seen["event"], event, "{line}");
        seen
    }

    async fn go_on(&mut self) {
        self.stdin.write_all(b"\n").await.unwrap();
    }

    async fn end(mut self) {
        let status = within("the client ends", CYCLE, self.child.wait()).await;
        assert!(status.unwrap().success());
    }
}

/// The authority that signed the leaf, and the ids of the authorities in the bundle.
fn authorities(state: &Value) -> (String, Vec<String>) {
    let der = |text: &Value| STANDARD.decode(text.as_str().unwrap()).unwrap();
    let leaf = LeafSvid::parse(&der(&state["chain"][0])).unwrap();
    let ids = state["authorities"].as_array().unwrap().iter();
    let ids = ids.map(|text| x509_authority_id(&der(text)).unwrap());
    (leaf.authority_id.unwrap(), ids.collect())
}

fn assert_jwt_is_judged(seen: &Value, id: &str) {
    assert_eq!(seen["spiffe_id"], id);
    assert_eq!(seen["audience"], json!(["payments"]));
    assert_eq!(seen["local_id"], id, "validated with the bundle");
    assert_eq!(seen["remote_id"], id, "validated by the agent");
    for refusal in [
        "wrong_audience_local",
        "wrong_audience_remote",
        "changed_local",
        "changed_remote",
    ] {
        assert!(!seen[refusal].is_null(), "{refusal} was accepted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_gets_svids_and_bundles_sees_a_rotation_and_validates_a_jwt() {
    let Some(interpreter) = tokio::task::spawn_blocking(python).await.unwrap() else {
        return;
    };
    let node = Node::start(NodeOptions::with_jwt_life(Duration::from_secs(20))).await;
    node.create_own_entry("/ns/shop/sa/python").await;
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/python");
    let mut client = Client::start(&interpreter, &node);

    let fetched = client.saw("fetched").await;
    assert_eq!(fetched["ids"], json!([id]));
    assert_eq!(fetched["x509_domains"], json!([TRUST_DOMAIN]));
    assert_eq!(fetched["jwt_domains"], json!([TRUST_DOMAIN]));

    let x509 = client.saw("x509").await;
    assert_eq!(x509["spiffe_id"], id);
    assert_eq!(x509["key_fits"], true);
    let (old_authority, known) = authorities(&x509);
    assert_eq!(known, std::slice::from_ref(&old_authority));
    let bundle = client.saw("jwt_bundle").await;
    assert_eq!(bundle["key_ids"].as_array().unwrap().len(), 1);
    assert_jwt_is_judged(&client.saw("jwt").await, &id);

    node.admin().rotate(AuthorityKind::X509, true).await;
    node.admin().rotate(AuthorityKind::Jwt, true).await;
    client.go_on().await;
    let rotated = client.saw("x509_rotated").await;
    assert_eq!(rotated["spiffe_id"], id);
    assert_eq!(rotated["key_fits"], true);
    let (new_authority, known) = authorities(&rotated);
    assert_ne!(new_authority, old_authority);
    assert_eq!(known, [new_authority]);
    client.saw("jwt_rotated").await;
    let later = client.saw("jwt_after_rotation").await;
    assert_eq!(later["spiffe_id"], id);
    assert!(
        !later["old_remote"].is_null(),
        "a token of a revoked key is accepted"
    );
    client.end().await;
}
