//! The same service on a Unix socket: the Workload API client, and what gRPC's C core sends.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::uds::UdsListener;
use crate::workload_client::{WorkloadClient, WorkloadError};

struct ServedSocket {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    drain: Drain,
    task: JoinHandle<Result<(), ServeError>>,
}

fn serve_socket() -> ServedSocket {
    let folder = tempfile::tempdir().expect("folder");
    let socket = folder.path().join("agent.sock");
    let listener = UdsListener::bind(&socket, 0o666).expect("bound");
    let drain = Drain::new();
    let routes = routes(&Arc::new(Authority::new("one.test")));
    let task = tokio::task::spawn(serve_uds(listener, routes, limits(), drain.clone()));
    ServedSocket {
        _folder: folder,
        socket,
        drain,
        task,
    }
}

#[tokio::test]
async fn e_02_the_workload_client_reads_every_profile() {
    let served = serve_socket();
    let client = WorkloadClient::connect(&served.socket)
        .await
        .expect("connected");
    let mut stream = Box::pin(client.x509_svids().await.expect("stream"));
    let update = stream.next().await.expect("first").expect("read");
    assert_eq!(
        update.svid(None).map(|svid| svid.identity.id.as_str()),
        Some(ORDERS)
    );
    assert_eq!(update.svids[0].hint, "internal");
    let now = crate::tls::fixture::NOW;
    let chain = &update.svids[0].identity.chain;
    assert!(crate::tls::verify_chain(&update.bundles, chain, now).is_ok());
    assert!(matches!(
        stream.next().await,
        Some(Err(WorkloadError::Closed))
    ));
    assert!(
        stream.next().await.is_none(),
        "a stream ends with its first error"
    );

    let mut stream = Box::pin(client.x509_bundles().await.expect("stream"));
    let trusted = stream.next().await.expect("first").expect("read");
    assert_eq!(
        trusted
            .trust_domains()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["one.test"]
    );
    let mut stream = Box::pin(client.jwt_bundles().await.expect("stream"));
    assert_eq!(stream.next().await.expect("first").expect("read").len(), 1);

    let pid = std::process::id();
    let valid = client.validate_jwt("a", "t").await.expect("valid");
    assert_eq!(valid.id.to_string(), format!("spiffe://process/{pid}"));
    assert_eq!(valid.claims["exp"], 1_800_000_000_i64);

    let denied = client
        .jwt_svid(&["a".to_owned()], None)
        .await
        .expect_err("denied");
    assert!(matches!(denied, WorkloadError::NoIdentity(_)) && denied.is_transient());
    let invalid = client.jwt_svid(&[], None).await.expect_err("invalid");
    assert!(matches!(invalid, WorkloadError::Refused { .. }) && !invalid.is_transient());
}

#[tokio::test]
async fn a_client_without_the_security_header_is_seen_as_such() {
    let served = serve_socket();
    let channel = connect(&ServerAddress::Unix(served.socket), None)
        .await
        .expect("connected");
    let answer = SpiffeWorkloadApiClient::new(channel)
        .fetch_x509svid(pb::X509svidRequest {})
        .await;
    assert_eq!(
        answer.err().map(|status| status.code()),
        Some(Code::InvalidArgument)
    );
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Literals with incremental indexing and a literal name, as the C core encodes them.
fn health_check(authority: &str) -> Vec<u8> {
    let mut block = vec![];
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0x40);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend(text.as_bytes());
        }
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [
        preface,
        frame(4, 0, 0, &[]),
        frame(1, 4, 1, &block),
        frame(0, 1, 1, &[0; 5]),
    ]
    .concat()
}

/// The kind of the first frame on stream 1: 1 is an answer, 3 a reset.
async fn first_frame_kind(socket: &mut tokio::net::UnixStream) -> u8 {
    loop {
        let mut head = [0; 9];
        socket.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("fits")];
        socket.read_exact(&mut payload).await.expect("its payload");
        if head[8] == 1 && matches!(head[3], 1 | 3) {
            return head[3];
        }
    }
}

#[tokio::test]
async fn a_sockets_path_as_authority_is_answered() {
    let served = serve_socket();
    for (authority, want) in [
        ("localhost", 1),
        ("%2Ftmp%2Fagent.sock", 1),
        ("/run/ravelin/agent.sock", 1),
        ("not\\an-authority", 3),
    ] {
        let mut socket = tokio::net::UnixStream::connect(&served.socket)
            .await
            .expect("connected");
        socket
            .write_all(&health_check(authority))
            .await
            .expect("sent");
        let answer = tokio::time::timeout(Duration::from_secs(10), first_frame_kind(&mut socket));
        assert_eq!(answer.await.expect("in time"), want, "{authority}");
    }
}

#[tokio::test]
async fn a_socket_drains_and_removes_its_file() {
    let served = serve_socket();
    served.drain.start();
    served.task.await.expect("joined").expect("no error");
    assert!(!served.socket.exists());
}
