//! `psql` with a PostgreSQL, `redis-cli` with a Redis, and a server that speaks first.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use ravelin_proxy::config::Protocol;
use ravelin_tests::node::{Node, NodeOptions};
use ravelin_tests::servers::{postgres, redis};
use ravelin_tests::services::{Service, Services};
use ravelin_tests::wait::within;
use ravelin_tests::wait::{CYCLE, SOON};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Runs a client to its end, beside the proxies of this process.
async fn run(mut command: Command, input: &str) -> Output {
    let input = input.to_owned();
    let running = tokio::task::spawn_blocking(move || {
        use std::io::Write as _;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || {
            // WHY: a client that was refused reads nothing.
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        output
    });
    within("a client ends", CYCLE, running).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn psql(address: SocketAddr, commands: &[&str]) -> Command {
    let mut command = Command::new("psql");
    command
        .args(["--no-psqlrc", "--tuples-only", "--no-align"])
        .args(["--username", "postgres", "--host", "127.0.0.1"])
        .args(["--port", &address.port().to_string()])
        .args(["--set", "ON_ERROR_STOP=1"])
        .env("PGCONNECT_TIMEOUT", "20")
        .env_remove("PGPASSWORD");
    for part in commands {
        command.args(["--command", part]);
    }
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_reaches_a_postgres_where_policy_lets_it() {
    let Some(server) = postgres().await else {
        return;
    };
    let node = Node::start(NodeOptions::default()).await;
    let service = Service::new("postgres", server.address, Protocol::Tcp);
    let services = Services::start(&node, &[service]).await;
    let address = services.tcp_address("postgres");
    let refused = run(psql(address, &["select 1"]), "").await;
    assert!(!refused.status.success(), "{}", text(&refused.stdout));
    services.allow(&node, &[]).await;
    let commands = [
        "select 40 + 2",
        "create table items (name text)",
        "copy items from stdin",
        "select count(*), max(length(name)) from items",
        "select string_agg(i::text, ',') from generate_series(1, 100000) i",
    ];
    let lines: Vec<String> = (0..20_000)
        .map(|number| format!("item {number}\n"))
        .collect();
    let lines = lines.concat();
    let answer = run(psql(address, &commands), &lines).await;
    assert!(answer.status.success(), "{}", text(&answer.stderr));
    let answer = text(&answer.stdout);
    assert!(answer.starts_with("42\n"), "{answer:.80}");
    assert!(answer.contains("20000|10\n"), "{answer:.80}");
    assert!(answer.ends_with("99999,100000\n"), "{}", answer.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_cli_reaches_a_redis_where_policy_lets_it() {
    let Some(server) = redis().await else {
        return;
    };
    let node = Node::start(NodeOptions::default()).await;
    let service = Service::new("redis", server.address, Protocol::Tcp);
    let services = Services::start(&node, &[service]).await;
    let port = services.tcp_address("redis").port().to_string();
    let cli = |arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command
            .args(["-h", "127.0.0.1", "-p", &port, "-e"])
            .args(arguments);
        command
    };
    let refused = run(cli(&["ping"]), "").await;
    assert!(!text(&refused.stdout).contains("PONG"));
    services.allow(&node, &[]).await;
    let pong = run(cli(&["ping"]), "").await;
    assert_eq!(text(&pong.stdout), "PONG\n", "{}", text(&pong.stderr));
    let sets: Vec<String> = (0..5_000)
        .map(|number| format!("SET key:{number} {number}\r\n"))
        .collect();
    let sets = sets.concat();
    let piped = run(cli(&["--pipe"]), &sets).await;
    assert!(
        text(&piped.stdout).contains("replies: 5000"),
        "{}",
        text(&piped.stdout)
    );
    let asked = run(cli(&["get", "key:4999"]), "").await;
    assert_eq!(text(&asked.stdout), "4999\n");
    let size = run(cli(&["dbsize"]), "").await;
    assert_eq!(text(&size.stdout), "5000\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_first_is_heard_and_opaque_tls_is_not_altered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let greeter = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                if write.write_all(b"220 ready\r\n").await.is_ok() {
                    // WHY: the caller may end first.
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.write_all(b"221 bye\r\n").await;
                }
            });
        }
    });
    let node = Node::start(NodeOptions::default()).await;
    let service = Service::new("mail", address, Protocol::Tcp);
    let services = Services::start(&node, &[service]).await;
    services.allow(&node, &[]).await;
    let mut stream = TcpStream::connect(services.tcp_address("mail"))
        .await
        .unwrap();
    let mut greeting = [0; 11];
    within("a greeting", SOON, stream.read_exact(&mut greeting))
        .await
        .unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    // The beginning of a ClientHello, and bytes of every value.
    let mut sent = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc];
    sent.extend((0..=u8::MAX).cycle().take(100_000));
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    within("the echo", SOON, stream.read_to_end(&mut back))
        .await
        .unwrap();
    let want = [sent.as_slice(), b"221 bye\r\n"].concat();
    assert!(back == want, "{} of {} bytes", back.len(), want.len());
    greeter.abort();
}
