//! An X509-SVID with its private key, parsed once when it enters the agent.

use ravelin_proto::secret::Secret;
use ravelin_proto::spiffe_id::SpiffeId;
use ravelin_proto::time::{Timestamp, Validity};
use ravelin_proto::x509_svid::{LeafSvid, X509SvidError};

use crate::renewal::Tracked;

/// Why a chain from the CA or from disk is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SvidError {
    /// No certificate at all.
    #[error("the chain is empty")]
    ChainEmpty,
    /// The leaf breaks a rule of X509-SVID.
    #[error("the leaf is not an X509-SVID: {0}")]
    Leaf(#[from] X509SvidError),
    /// Signed for somebody else.
    #[error("the SVID is for `{got}`, not for `{want}`")]
    OtherId {
        /// The ID that was asked for.
        want: SpiffeId,
        /// The ID in the leaf.
        got: SpiffeId,
    },
}

/// An X509-SVID that this agent holds for a workload or for itself.
#[derive(Debug, Clone)]
pub(crate) struct X509Svid {
    /// The identity in the leaf.
    pub spiffe_id: SpiffeId,
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 DER.
    pub key: Secret<Vec<u8>>,
    /// Period of the leaf.
    pub validity: Validity,
    /// Subject key id of the authority that signed it, lower-case hex.
    pub authority_id: String,
    /// Lower-case hex without leading zeros.
    pub serial: String,
    /// Revision of the entry that it was signed for.
    pub entry_revision: u64,
    /// When the agent received it.
    pub issued_at: Timestamp,
    /// Moves its renewal, 0 to 1.
    pub jitter: f64,
}

impl X509Svid {
    /// Reads the leaf and keeps what the agent decides by.
    pub(crate) fn parse(
        chain: Vec<Vec<u8>>,
        key: Secret<Vec<u8>>,
        entry_revision: u64,
        issued_at: Timestamp,
    ) -> Result<Self, SvidError> {
        let leaf = LeafSvid::parse(chain.first().ok_or(SvidError::ChainEmpty)?)?;
        Ok(Self {
            jitter: jitter_of(&leaf.serial),
            spiffe_id: leaf.id,
            key,
            validity: leaf.validity,
            authority_id: leaf.authority_id.unwrap_or_default(),
            serial: leaf.serial,
            entry_revision,
            issued_at,
            chain,
        })
    }

    /// Refuses an SVID for another identity than `want`.
    pub(crate) fn expect_id(self, want: &SpiffeId) -> Result<Self, SvidError> {
        if &self.spiffe_id == want {
            return Ok(self);
        }
        Err(SvidError::OtherId {
            want: want.clone(),
            got: self.spiffe_id,
        })
    }

    /// The chain as the Workload API carries it: DER, concatenated, leaf first.
    pub(crate) fn chain_der(&self) -> Vec<u8> {
        self.chain.concat()
    }

    /// True until the leaf has expired.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        now < self.validity.not_after
    }

    /// What the renewal plan decides by.
    pub(crate) fn tracked(&self) -> Tracked<'_> {
        Tracked {
            validity: self.validity,
            authority_id: &self.authority_id,
            jitter: self.jitter,
        }
    }
}

/// Serial numbers are random, so they are as good a draw as another, and the same after a restart.
fn jitter_of(serial: &str) -> f64 {
    let sum = serial.bytes().fold(0_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    f64::from(sum % 1000) / 1000.0
}
