//! Whole handshakes between two configurations, in memory.

use std::time::Duration;

use rustls::{CertificateError, ClientConnection, ProtocolVersion, ServerConnection};

use super::super::PeerError;
use super::super::fixture::{Authority, bundles, clock, domain, set_validity, svid_params};
use super::*;
use crate::clock::TestClock;

const ORDERS: &str = "spiffe://one.test/orders";
const PAYMENTS: &str = "spiffe://one.test/payments";

struct Outcome {
    client: Result<(), rustls::Error>,
    server: Result<(), rustls::Error>,
    connections: (ClientConnection, ServerConnection),
}

fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    let name = "ignored.test".try_into().expect("name");
    let mut client = ClientConnection::new(client, name).expect("client");
    let mut server = ServerConnection::new(server).expect("server");
    let (mut client_outcome, mut server_outcome) = (Ok(()), Ok(()));
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).expect("memory");
            server_outcome = server_outcome.and(server.process_new_packets().map(|_| ()));
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).expect("memory");
            client_outcome = client_outcome.and(client.process_new_packets().map(|_| ()));
        }
    }
    Outcome {
        client: client_outcome,
        server: server_outcome,
        connections: (client, server),
    }
}

fn peer_code(outcome: &Result<(), rustls::Error>) -> &'static str {
    match outcome {
        Ok(()) => "accepted",
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => other
            .0
            .downcast_ref::<PeerError>()
            .map_or("other", PeerError::code),
        Err(rustls::Error::NoCertificatesPresented) => "none shown",
        Err(rustls::Error::AlertReceived(_)) => "alert",
        Err(_) => "other",
    }
}

struct Parts {
    authority: Authority,
    clock: TestClock,
}

impl Parts {
    fn new() -> Self {
        Self {
            authority: Authority::new("one.test"),
            clock: clock(),
        }
    }

    fn bundles(&self) -> Arc<X509Bundles> {
        bundles(&[("one.test", &[&self.authority])])
    }

    fn server(&self, identity: &Identity, auth: ClientAuth) -> Arc<ServerConfig> {
        server_config(
            identity,
            self.bundles(),
            auth,
            &[b"h2"],
            self.clock.shared(),
        )
        .expect("server")
    }

    fn client(&self, identity: Option<&Identity>, expect: Expect) -> Arc<ClientConfig> {
        client_config(
            identity,
            self.bundles(),
            expect,
            &[b"h2"],
            self.clock.shared(),
        )
        .expect("client")
    }
}

#[test]
fn both_ends_learn_who_the_other_is() {
    let parts = Parts::new();
    let (orders, payments) = (
        parts.authority.identity(ORDERS),
        parts.authority.identity(PAYMENTS),
    );
    let got = handshake(
        parts.client(Some(&orders), Expect::OneOf(vec![payments.id.clone()])),
        parts.server(&payments, ClientAuth::Required),
    );
    assert_eq!(
        (peer_code(&got.client), peer_code(&got.server)),
        ("accepted", "accepted")
    );
    let (client, server) = got.connections;
    assert_eq!(
        peer_identity(&client).map(|peer| peer.id),
        Some(payments.id)
    );
    assert_eq!(peer_identity(&server).map(|peer| peer.id), Some(orders.id));
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn who_is_not_trusted_or_not_expected_gets_no_connection() {
    let parts = Parts::new();
    let stranger = Authority::new("one.test");
    let (orders, payments) = (
        parts.authority.identity(ORDERS),
        parts.authority.identity(PAYMENTS),
    );
    let forged = stranger.identity(ORDERS);
    let nobody = Expect::OneOf(vec![]);
    let required = || parts.server(&payments, ClientAuth::Required);
    let optional = || parts.server(&payments, ClientAuth::Optional);
    let any = || Expect::AnyMember;
    for (name, client, server, want) in [
        (
            "no SVID, required",
            parts.client(None, any()),
            required(),
            ("alert", "none shown"),
        ),
        (
            "no SVID, optional",
            parts.client(None, any()),
            optional(),
            ("accepted", "accepted"),
        ),
        (
            "another CA's SVID, required",
            parts.client(Some(&forged), any()),
            required(),
            ("alert", "peer_untrusted"),
        ),
        (
            "another CA's SVID, optional",
            parts.client(Some(&forged), any()),
            optional(),
            ("alert", "peer_untrusted"),
        ),
        (
            "a server of another CA",
            parts.client(Some(&orders), any()),
            parts.server(&stranger.identity(PAYMENTS), ClientAuth::Required),
            ("peer_untrusted", "alert"),
        ),
        (
            "a server that is not expected",
            parts.client(Some(&orders), nobody),
            required(),
            ("peer_unexpected", "alert"),
        ),
        (
            "a server of another domain",
            parts.client(Some(&orders), Expect::TrustDomain(domain("two.test"))),
            required(),
            ("peer_unexpected", "alert"),
        ),
    ] {
        let got = handshake(client, server);
        assert_eq!(
            (peer_code(&got.client), peer_code(&got.server)),
            want,
            "{name}"
        );
    }
}

#[test]
fn x_09_an_expired_leaf_is_refused_on_either_side() {
    let parts = Parts::new();
    let mut short = svid_params(ORDERS);
    set_validity(&mut short, -60, 10);
    let short = parts.authority.identity_of(&short);
    let long = parts.authority.identity(PAYMENTS);
    for (secs, client, server, want) in [
        (10, &short, &long, ("accepted", "accepted")),
        (1, &short, &long, ("alert", "peer_expired")),
        (0, &long, &short, ("peer_expired", "alert")),
    ] {
        parts.clock.advance(Duration::from_secs(secs));
        let got = handshake(
            parts.client(Some(client), Expect::AnyMember),
            parts.server(server, ClientAuth::Required),
        );
        assert_eq!((peer_code(&got.client), peer_code(&got.server)), want);
    }
}

#[test]
fn threat_21_no_session_is_ever_resumed() {
    let parts = Parts::new();
    let (orders, payments) = (
        parts.authority.identity(ORDERS),
        parts.authority.identity(PAYMENTS),
    );
    let client = parts.client(Some(&orders), Expect::AnyMember);
    let server = parts.server(&payments, ClientAuth::Required);
    for _ in 0..3 {
        let got = handshake(Arc::clone(&client), Arc::clone(&server));
        let (client, _) = &got.connections;
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_key_that_is_not_the_leafs_is_refused() {
    let parts = Parts::new();
    let (orders, payments) = (
        parts.authority.identity(ORDERS),
        parts.authority.identity(PAYMENTS),
    );
    let mixed =
        Identity::new(orders.chain.clone(), payments.key_der()).expect("each is well formed");
    let got = server_config(
        &mixed,
        parts.bundles(),
        ClientAuth::None,
        &[],
        parts.clock.shared(),
    );
    assert!(matches!(got, Err(TlsError::Identity { .. })));
}

#[test]
fn threat_41_an_identity_does_not_show_its_key() {
    let parts = Parts::new();
    let orders = parts.authority.identity(ORDERS);
    let shown = format!("{orders:?}");
    assert!(shown.contains(ORDERS) && !shown.contains("key"), "{shown}");
}

#[test]
fn a_chain_survives_the_form_of_the_workload_api() {
    let parts = Parts::new();
    let below = parts
        .authority
        .below(super::super::fixture::authority_params("one.test"));
    let orders = below.identity(ORDERS);
    let whole = [&orders.chain_der()[..], &below.der].concat();
    let read = Identity::from_der(&whole, orders.key_der()).expect("read");
    assert_eq!((read.chain.len(), read.id.as_str()), (2, ORDERS));
    assert_eq!(read.chain_der(), whole);
    for bytes in [&whole[..whole.len() - 1], b"", &[&whole[..], b"x"].concat()] {
        assert!(Identity::from_der(bytes, orders.key_der()).is_err());
    }
}
