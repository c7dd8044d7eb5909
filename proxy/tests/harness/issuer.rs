//! An OpenID issuer on loopback: discovery document, key set, and tokens signed by the key in use.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ravelin_proto::jwks::Jwk;
use ravelin_runtime::clock::{Clock, SystemClock};
use ravelin_runtime::crypto::JwsSigner;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[derive(Clone)]
pub struct Issuer {
    pub address: SocketAddr,
    key: Arc<Mutex<(String, JwsSigner)>>,
}

impl Issuer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            key: Arc::new(Mutex::new(new_key("k1"))),
        };
        let served = issuer.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let body = served.document(head.split(' ').nth(1).unwrap_or_default());
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        issuer
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Another key under another id; the old one is gone.
    pub fn rotate(&self, kid: &str) {
        *self.key.lock().unwrap() = new_key(kid);
    }

    /// A token of `subject` by the key in use.
    pub fn token(&self, subject: &str) -> String {
        let (kid, signer) = &*self.key.lock().unwrap();
        let now = SystemClock.now().unix_secs();
        let header = json!({"alg": signer.algorithm().name(), "kid": kid});
        let claims = json!({"iss": self.url(), "sub": subject, "exp": now + 300});
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let signature = signer.sign(input.as_bytes()).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn document(&self, path: &str) -> String {
        let (kid, signer) = &*self.key.lock().unwrap();
        let key = Jwk::from_spki(Some(kid), Some("sig"), signer.spki()).unwrap();
        match path {
            "/keys" => json!({ "keys": [key.to_json()] }),
            _ => json!({"issuer": self.url(), "jwks_uri": format!("{}/keys", self.url())}),
        }
        .to_string()
    }
}

/// Ed25519: some issuers sign with it.
fn new_key(kid: &str) -> (String, JwsSigner) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let signer = JwsSigner::from_pkcs8(pair.serialized_der()).unwrap();
    (kid.to_owned(), signer)
}
