//! Fetches from an issuer on loopback that the test plays, and the schedule of one address.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use ravelin_proto::http_url::HttpUrl;
use ravelin_proto::time::Timestamp;
use ravelin_runtime::clock::SystemClock;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer as Signer, KeyPair};
use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const WAIT: Duration = Duration::from_secs(20);

fn key_set(kids: &[&str]) -> String {
    let point = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let keys: Vec<String> = kids
        .iter()
        .map(|kid| {
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{point}","y":"{point}","kid":"{kid}"}}"#)
        })
        .collect();
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Answers by path; an empty answer is silence.
#[derive(Clone, Default)]
struct Issuer {
    answers: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Issuer {
    async fn start(tls: Option<Arc<ServerConfig>>) -> (Self, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = Self::default();
        let served = issuer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                served.asked.lock().unwrap().push("connection".to_owned());
                let (served, tls) = (served.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => served.answer(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                                served.answer(stream).await;
                            }
                        }
                    }
                });
            }
        });
        (issuer, address)
    }

    fn set(&self, path: &str, answer: Vec<u8>) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let answer = self.answers.lock().unwrap().get(&path).cloned();
        match answer {
            Some(answer) if answer.is_empty() => std::future::pending().await,
            Some(answer) => {
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
            None => {
                let _ = stream
                    .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    .await;
            }
        }
    }
}

fn config() -> JwksConfig {
    JwksConfig {
        allow_private_addresses: true,
        ..JwksConfig::default()
    }
}

fn fetcher(config: &JwksConfig) -> Fetcher {
    Fetcher::new(config, Roots::new(config.ca_file.clone()).unwrap())
}

fn jwks_uri(url: &str) -> KeyAddress {
    KeyAddress::JwksUri(HttpUrl::parse(url).unwrap())
}

fn issuer(url: &str) -> KeyAddress {
    KeyAddress::Issuer(HttpUrl::parse(url).unwrap())
}

async fn code(config: &JwksConfig, address: &KeyAddress, wait: Duration) -> &'static str {
    let (fetcher, clock) = (fetcher(config), SystemClock::shared());
    match fetcher.fetch(address, wait, &clock).await {
        Ok(_) => "ok",
        Err(error) => error.code(),
    }
}

#[tokio::test]
async fn threat_46_answers_that_attack_the_fetcher_are_refused_by_name() {
    let (server, at) = Issuer::start(None).await;
    let long = "x".repeat(limits::KEY_BODY_BYTES_MAX + 1);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        long.len()
    );
    let many: Vec<String> = (0..=limits::KEYS_PER_ISSUER_MAX)
        .map(|n| n.to_string())
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let to = |location: &str| {
        format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
            .into_bytes()
    };
    let headers: String = (0..100).map(|n| format!("x-{n}: y\r\n")).collect();
    let body = key_set(&["k1"]);
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("good", ok(&body), "ok"),
        ("redirect", to("http://169.254.169.254/latest"), "redirect"),
        ("redirect to a file", to("file:///etc/passwd"), "redirect"),
        ("redirect to itself", to("/keys"), "redirect"),
        (
            "not found",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
            "status",
        ),
        (
            "no content",
            b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "status",
        ),
        ("huge", ok(&long), "too_large"),
        ("huge in chunks", chunked.into_bytes(), "too_large"),
        (
            "a length of a terabyte",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\nx".to_vec(),
            "http",
        ),
        (
            "compressed",
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b"
                .to_vec(),
            "encoded",
        ),
        (
            "cut off",
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(),
            "http",
        ),
        (
            "many headers",
            format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes(),
            "http",
        ),
        (
            "long head",
            format!(
                "HTTP/1.1 200 OK\r\nx: {}\r\n\r\n",
                "y".repeat(4 * limits::KEY_HEAD_BYTES_MAX)
            )
            .into_bytes(),
            "http",
        ),
        ("no HTTP", b"SSH-2.0-x\r\n".to_vec(), "http"),
        ("silence", Vec::new(), "timeout"),
        ("no JSON", ok("<html>"), "not_key_set"),
        ("no set", ok("{}"), "not_key_set"),
        ("deep", ok(&deep), "not_key_set"),
        (
            "not text",
            ok(&body).into_iter().chain([0xff]).collect::<Vec<u8>>(),
            "ok",
        ),
        ("48 too many keys", ok(&key_set(&many)), "too_many_keys"),
        ("48 no key", ok(r#"{"keys":[]}"#), "no_usable_key"),
        (
            "48 a private key alone",
            ok(&body.replace("\"kid\"", "\"d\":\"AAAA\",\"kid\"")),
            "no_usable_key",
        ),
        (
            "48 a shared secret alone",
            ok(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#),
            "no_usable_key",
        ),
    ];
    let address = jwks_uri(&format!("http://{at}/keys"));
    for (name, answer, want) in rows {
        server.set("/keys", answer);
        let wait = if want == "timeout" {
            Duration::from_millis(50)
        } else {
            WAIT
        };
        assert_eq!(code(&config(), &address, wait).await, want, "{name}");
    }
}

#[tokio::test]
async fn a10_threat_46_private_addresses_are_refused_before_a_byte_is_sent() {
    let (server, at) = Issuer::start(None).await;
    server.set("/keys", ok(&key_set(&["k1"])));
    let port = at.port();
    let only_name = JwksConfig {
        allow_private_hosts: vec!["localhost".to_owned()],
        ..JwksConfig::default()
    };
    for (name, url, config, want) in [
        (
            "address",
            format!("http://127.0.0.1:{port}/keys"),
            JwksConfig::default(),
            "address_refused",
        ),
        (
            "name",
            format!("http://localhost:{port}/keys"),
            JwksConfig::default(),
            "address_refused",
        ),
        (
            "mapped",
            format!("http://[::ffff:127.0.0.1]:{port}/keys"),
            JwksConfig::default(),
            "address_refused",
        ),
        (
            "NAT64",
            format!("http://[64:ff9b::7f00:1]:{port}/keys"),
            JwksConfig::default(),
            "address_refused",
        ),
        (
            "another name than the listed one",
            format!("http://127.0.0.1:{port}/keys"),
            only_name.clone(),
            "address_refused",
        ),
    ] {
        assert_eq!(code(&config, &jwks_uri(&url), WAIT).await, want, "{name}");
    }
    assert_eq!(server.asked(), 0, "nobody was connected to");
    let url = format!("http://localhost:{port}/keys");
    assert_eq!(code(&only_name, &jwks_uri(&url), WAIT).await, "ok");

    let base = format!("http://localhost:{port}");
    let document = format!(r#"{{"issuer":"{base}","jwks_uri":"http://127.0.0.1:{port}/keys"}}"#);
    server.set("/.well-known/openid-configuration", ok(&document));
    assert_eq!(
        code(&only_name, &issuer(&base), WAIT).await,
        "address_refused",
        "what a discovery document names is judged as well"
    );
}

#[tokio::test]
async fn rule_76_discovery_follows_the_issuers_own_document_alone() {
    let (server, at) = Issuer::start(None).await;
    server.set("/keys", ok(&key_set(&["k1"])));
    let base = format!("http://{at}/realm");
    let keys = format!("http://{at}/keys");
    let document = |issuer: &str, keys: &str| {
        ok(&format!(
            r#"{{"issuer":"{issuer}","jwks_uri":"{keys}","response_types_supported":[]}}"#
        ))
    };
    for (name, answer, want) in [
        ("good", document(&base, &keys), "ok"),
        (
            "another issuer",
            document("http://evil.example", &keys),
            "issuer_mismatch",
        ),
        (
            "almost the issuer",
            document(&format!("{base}/"), &keys),
            "issuer_mismatch",
        ),
        ("no address", document(&base, "/keys"), "jwks_uri"),
        ("a file", document(&base, "file:///etc/passwd"), "jwks_uri"),
        (
            "user information",
            document(&base, "http://a@b/"),
            "jwks_uri",
        ),
        (
            "no keys named",
            ok(&format!(r#"{{"issuer":"{base}"}}"#)),
            "document",
        ),
        ("no JSON", ok("<html>"), "document"),
        (
            "the issuer twice",
            ok(&format!(
                r#"{{"issuer":"{base}","issuer":"{base}","jwks_uri":"{keys}"}}"#
            )),
            "document",
        ),
        (
            "a redirect",
            b"HTTP/1.1 301 Moved\r\nlocation: /\r\ncontent-length: 0\r\n\r\n".to_vec(),
            "redirect",
        ),
        ("silence", Vec::new(), "timeout"),
    ] {
        server.set("/realm/.well-known/openid-configuration", answer);
        let wait = if want == "timeout" {
            Duration::from_millis(50)
        } else {
            WAIT
        };
        assert_eq!(code(&config(), &issuer(&base), wait).await, want, "{name}");
    }
    let with_slash = format!("{base}/");
    server.set(
        "/realm/.well-known/openid-configuration",
        document(&with_slash, &keys),
    );
    assert_eq!(
        code(&config(), &issuer(&with_slash), WAIT).await,
        "ok",
        "one slash"
    );
}

/// A server's configuration for `name` and the PEM of the authority behind it.
fn tls(
    name: &str,
    version: &'static rustls::SupportedProtocolVersion,
) -> (Arc<ServerConfig>, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let signer = Signer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &signer)
        .unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder_with_provider(ravelin_runtime::crypto::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())
        .unwrap();
    (Arc::new(config), root.pem())
}

#[tokio::test]
async fn threat_46_https_issuers_are_known_by_name_and_authority() {
    let folder = tempfile::tempdir().unwrap();
    for (name, of, version, trusts_own, want) in [
        ("TLS 1.3", "localhost", &TLS13, true, "ok"),
        ("TLS 1.2", "localhost", &TLS12, true, "ok"),
        ("another name", "idp.example", &TLS13, true, "tls"),
        ("another authority", "localhost", &TLS13, false, "tls"),
    ] {
        let (server_config, pem) = tls(of, version);
        let (_, other) = tls(of, version);
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, if trusts_own { pem } else { other }).unwrap();
        let (server, at) = Issuer::start(Some(server_config)).await;
        server.set("/keys", ok(&key_set(&["k1"])));
        let config = JwksConfig {
            ca_file: Some(file),
            ..config()
        };
        let address = jwks_uri(&format!("https://localhost:{}/keys", at.port()));
        assert_eq!(code(&config, &address, WAIT).await, want, "{name}");
        let base = format!("https://localhost:{}", at.port());
        let document = format!(r#"{{"issuer":"{base}","jwks_uri":"http://localhost/keys"}}"#);
        server.set("/.well-known/openid-configuration", ok(&document));
        let want = if want == "ok" { "downgrade" } else { want };
        assert_eq!(
            code(&config, &issuer(&base), WAIT).await,
            want,
            "{name}: downgrade"
        );
    }
}

#[test]
fn a_bad_file_of_authorities_shows_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    for path in [
        folder.path().join("missing.pem"),
        file("empty.pem", ""),
        file(
            "broken.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
    ] {
        assert!(
            Roots::new(Some(path.clone())).is_err(),
            "{}",
            path.display()
        );
    }
}

/// The ends that a test holds of running fetchers.
struct Held {
    wanted: watch::Sender<WantedKeys>,
    missing: mpsc::Sender<KeyAddress>,
    keys: watch::Receiver<Arc<FetchedKeys>>,
    lines: watch::Receiver<Vec<OriginLine>>,
}

fn fetchers(config: &JwksConfig) -> (Fetchers, Held) {
    let (wanted, wants) = watch::channel(WantedKeys::new());
    let (missing, missed) = mpsc::channel(4);
    let (keys, fetched) = watch::channel(Arc::default());
    let (lines, shown) = watch::channel(Vec::new());
    let ports = FetchPorts {
        wanted: wants,
        missing: missed,
        keys,
        lines,
    };
    let roots = Roots::new(None).unwrap();
    let clock = SystemClock::shared();
    let fetchers = Fetchers::new(config, roots, clock, JwksMetrics::default(), ports);
    let held = Held {
        wanted,
        missing,
        keys: fetched,
        lines: shown,
    };
    (fetchers, held)
}

impl Held {
    fn want(&self, addresses: &[&KeyAddress]) {
        let wanted = addresses.iter().map(|address| ((*address).clone(), WAIT));
        self.wanted.send_replace(wanted.collect());
    }

    async fn state(&mut self, is_reached: impl FnMut(&Vec<OriginLine>) -> bool) -> Vec<OriginLine> {
        let reached = self.lines.wait_for(is_reached);
        tokio::time::timeout(WAIT, reached)
            .await
            .unwrap()
            .unwrap()
            .clone()
    }

    fn kids(&self, address: &KeyAddress) -> Option<Vec<String>> {
        let set = self.keys.borrow().get(address)?;
        Some(
            set.keys
                .iter()
                .map(|key| key.kid.clone().unwrap_or_default())
                .collect(),
        )
    }
}

#[tokio::test]
async fn keys_are_fetched_when_wanted_refetched_when_missed_and_dropped_when_nobody_wants_them() {
    let (server, at) = Issuer::start(None).await;
    let address = jwks_uri(&format!("http://{at}/keys"));
    let config = JwksConfig {
        refetch_pause: Duration::ZERO,
        ..config()
    };
    let (fetchers, mut held) = fetchers(&config);
    let script = async {
        server.set("/keys", ok(&key_set(&["k1"])));
        held.want(&[&address]);
        let lines = held
            .state(|lines| lines.iter().any(|line| line.state == "fresh"))
            .await;
        assert_eq!(
            (lines[0].kind, lines[0].key_ids.as_slice()),
            ("jwks_uri", &["k1".to_owned()][..])
        );
        assert_eq!(held.kids(&address), Some(vec!["k1".to_owned()]));
        let before = Arc::clone(&held.keys.borrow());

        held.missing.send(address.clone()).await.unwrap();
        held.state(|_| server.asked() == 2).await;
        assert!(
            Arc::ptr_eq(&before, &held.keys.borrow()),
            "the same keys are the same value"
        );

        server.set("/keys", ok(&key_set(&["k1", "k2"])));
        held.missing.send(address.clone()).await.unwrap();
        held.state(|lines| lines[0].key_ids.len() == 2).await;
        assert_eq!(
            held.kids(&address),
            Some(vec!["k1".to_owned(), "k2".to_owned()])
        );

        held.want(&[]);
        held.state(Vec::is_empty).await;
        assert_eq!(held.kids(&address), None);
    };
    tokio::select! {
        () = fetchers.run() => panic!("the fetchers ended"),
        () = script => {}
    }
}

#[tokio::test]
async fn threat_47_the_last_good_keys_stay_while_fetches_fail_and_not_past_their_age() {
    let (server, at) = Issuer::start(None).await;
    let address = jwks_uri(&format!("http://{at}/keys"));
    for (max_age, want) in [
        (Duration::from_hours(1), Some(vec!["k1".to_owned()])),
        (Duration::from_millis(300), None),
    ] {
        let config = JwksConfig {
            refresh: Duration::from_millis(50),
            max_age,
            ..config()
        };
        server.set("/keys", ok(&key_set(&["k1"])));
        let (fetchers, mut held) = fetchers(&config);
        let script = async {
            held.want(&[&address]);
            held.state(|lines| lines.iter().any(|line| line.state == "fresh"))
                .await;
            server.set(
                "/keys",
                b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n".to_vec(),
            );
            let is_reached = |lines: &Vec<OriginLine>| {
                let wanted = if want.is_some() { "stale" } else { "missing" };
                lines[0].state == wanted && lines[0].failure.is_some()
            };
            let lines = held.state(is_reached).await;
            assert!(lines[0].failure.as_deref().unwrap().starts_with("status: "));
            assert_eq!(held.kids(&address), want);
        };
        tokio::select! {
            () = fetchers.run() => panic!("the fetchers ended"),
            () = script => {}
        }
    }
}

#[tokio::test]
async fn one_silent_issuer_holds_up_no_other() {
    let (silent, at) = Issuer::start(None).await;
    silent.set("/keys", Vec::new());
    let (server, other_at) = Issuer::start(None).await;
    server.set("/keys", ok(&key_set(&["k1"])));
    let (one, other) = (
        jwks_uri(&format!("http://{at}/keys")),
        jwks_uri(&format!("http://{other_at}/keys")),
    );
    let (fetchers, mut held) = fetchers(&config());
    let script = async {
        held.want(&[&one, &other]);
        held.state(|lines| lines.iter().any(|line| line.state == "fresh"))
            .await;
        assert!(held.kids(&other).is_some());
        assert_eq!(held.kids(&one), None);
    };
    tokio::select! {
        () = fetchers.run() => panic!("the fetchers ended"),
        () = script => {}
    }
}

mod schedule {
    use super::*;
    use crate::jwks::origin::{Origin, Schedule};

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule() -> Schedule {
        Schedule::new(&JwksConfig::default())
    }

    fn set(kid: &str) -> JwkSet {
        JwkSet::parse(&key_set(&[kid])).unwrap()
    }

    fn fetched(origin: &mut Origin, kid: &str, at: Instant) -> bool {
        origin.start(at);
        let shown = Timestamp::from_unix_secs(1);
        origin.succeeded(set(kid), at, shown, &schedule(), 0.0)
    }

    #[test]
    fn threat_46_unknown_key_ids_lead_to_one_fetch_in_a_pause_however_many_there_are() {
        let start = Instant::now();
        let mut origin = Origin::new(start);
        assert!(origin.is_due(start), "due at once");
        assert_eq!(origin.wakes_at(&schedule(), true), Some(start));
        assert_eq!(
            origin.wakes_at(&schedule(), false),
            None,
            "while others fill every place, no time wakes it"
        );
        assert!(fetched(&mut origin, "k1", start));
        let mut fetches = 0;
        for second in 0..=300 {
            let now = start + SECOND * second;
            origin.key_is_missing(now, &schedule());
            if origin.is_due(now) {
                fetches += 1;
                assert!(!fetched(&mut origin, "k1", now), "the same keys");
            }
        }
        assert_eq!(fetches, 10, "300 s, one in 30 s");
    }

    #[test]
    fn threat_47_refreshes_come_at_their_time_and_failures_wait_longer_and_longer() {
        let start = Instant::now();
        let mut origin = Origin::new(start);
        fetched(&mut origin, "k1", start);
        let at = start + schedule().refresh;
        assert!(!origin.is_due(at.checked_sub(SECOND).unwrap()));
        assert!(origin.is_due(at));
        let mut now = at;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            origin.start(now);
            assert!(!origin.is_due(now), "one at a time");
            origin.failed(&FetchError::Timeout, now, &schedule(), 1.0);
            origin.key_is_missing(now, &schedule());
            pauses.push((origin.next_at() - now).as_secs());
            now = origin.next_at();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(origin.keys().is_some(), "the last good keys");
        let end = start + schedule().max_age;
        assert!(!origin.expire(end.checked_sub(SECOND).unwrap(), &schedule()));
        assert!(origin.expire(end, &schedule()));
        assert!(origin.keys().is_none());
        assert!(fetched(&mut origin, "k1", end), "and good again");
    }
}
