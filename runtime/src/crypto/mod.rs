//! The one place that picks the crypto provider: aws-lc by default, ring on request. TLS, tokens, randomness and
//! digests all come from here, so that a program never holds two.

mod signer;
mod verify;

use std::sync::Arc;

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

pub use signer::{JwsSigner, SignerError};
pub use verify::{SignatureError, verify_jws};

#[cfg(feature = "aws-lc")]
pub(crate) use aws_lc_rs as backend;
#[cfg(all(feature = "ring", not(feature = "aws-lc")))]
pub(crate) use ring as backend;

use backend::rand::{SecureRandom, SystemRandom};

/// Cipher suites (AES-128-GCM first), key exchange (X25519MLKEM768 first, where the provider has it) and signatures for TLS.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> = std::sync::LazyLock::new(|| {
        #[cfg(feature = "aws-lc")]
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        #[cfg(all(feature = "ring", not(feature = "aws-lc")))]
        let mut provider = rustls::crypto::ring::default_provider();
        // WHY: it takes less time than AES-256, and is no weaker than the P-256 keys that everything here is signed with.
        provider
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// Makes the provider the process's default, for libraries that ask for one. Calling it again changes nothing.
pub fn install() {
    // An error only says that a default is set already.
    let _ = CryptoProvider::install_default((*provider()).clone());
}

/// Bytes from the operating system's generator.
///
/// # Panics
/// If the operating system has no entropy to give: nothing safe can be done without it.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[allow(
        clippy::expect_used,
        reason = "to go on without entropy would be worse than to stop"
    )]
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

/// SHA-256.
pub fn digest_sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = backend::digest::digest(&backend::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// SHA-1, which proves nothing: for `Sec-WebSocket-Accept` alone (RFC 6455 section 4.2.2).
pub fn digest_sha1_for_websocket(bytes: &[u8]) -> [u8; 20] {
    let algorithm = &backend::digest::SHA1_FOR_LEGACY_USE_ONLY;
    let digest = backend::digest::digest(algorithm, bytes);
    let mut out = [0; 20];
    out.copy_from_slice(digest.as_ref());
    out
}

/// SHA-256 over parts.
#[derive(Clone)]
pub struct Sha256(backend::digest::Context);

impl Sha256 {
    /// Over nothing yet.
    #[allow(
        clippy::new_without_default,
        reason = "an empty digest is a start, not a default"
    )]
    pub fn new() -> Self {
        Self(backend::digest::Context::new(&backend::digest::SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken.
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sha256").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random_bytes::<32>(), random_bytes::<32>());
    }

    #[test]
    fn sha256_is_the_known_one() {
        let want = [0xba, 0x78, 0x16, 0xbf];
        assert_eq!(digest_sha256(b"abc")[..4], want);
        let mut parts = Sha256::new();
        parts.update(b"a");
        parts.update(b"bc");
        assert_eq!(parts.finish(), digest_sha256(b"abc"));
    }

    #[test]
    fn installing_twice_is_no_error() {
        install();
        install();
        assert!(CryptoProvider::get_default().is_some());
    }

    #[cfg(feature = "aws-lc")]
    #[test]
    fn the_hybrid_post_quantum_exchange_is_preferred() {
        let groups: Vec<_> = provider()
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect();
        assert_eq!(groups.first(), Some(&rustls::NamedGroup::X25519MLKEM768));
    }
}
