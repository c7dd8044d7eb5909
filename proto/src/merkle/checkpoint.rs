//! Checkpoints and signed notes (C2SP tlog-checkpoint and signed-note).
//!
//! The Ed25519 signature itself is made and checked by the caller: this is the text alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::tree::Hash;

/// Longest signed note in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most signatures of one note.
pub const SIGNATURES_MAX: usize = 16;
const ALGORITHM_ED25519: u8 = 1;
const SIGNATURE_LINE: &str = "\u{2014} ";

/// Why a note or a verifier key is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Past a limit.
    #[error("the note is too long")]
    TooLong,
    /// No empty line between text and signatures, or a broken signature line.
    #[error("the note is malformed")]
    Malformed,
    /// The text is no checkpoint: origin, size, root.
    #[error("the note's text is not a checkpoint")]
    NotCheckpoint,
    /// A verifier key is `name+hash+base64`.
    #[error("the verifier key is malformed")]
    VerifierKey,
}

/// What a log commits to: its name, its size and its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, unique among logs.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Root over those leaves.
    pub root: Hash,
}

impl Checkpoint {
    /// The note's text: three lines, each with its line feed.
    pub fn to_note_body(&self) -> String {
        format!(
            "{}\n{}\n{}\n",
            self.origin,
            self.size,
            STANDARD.encode(self.root)
        )
    }

    /// Reads the text of a note; further lines are extensions and are let through.
    pub fn parse(body: &str) -> Result<Self, NoteError> {
        let mut lines = body.split('\n');
        let mut line = || lines.next().ok_or(NoteError::NotCheckpoint);
        let (origin, size, root) = (line()?, line()?, line()?);
        let is_canonical = size == "0" || !size.starts_with(['0', '+']);
        let size: u64 = size.parse().map_err(|_| NoteError::NotCheckpoint)?;
        let root = STANDARD
            .decode(root)
            .map_err(|_| NoteError::NotCheckpoint)?;
        let root = Hash::try_from(root.as_slice()).map_err(|_| NoteError::NotCheckpoint)?;
        if origin.is_empty() || !is_canonical || !body.ends_with('\n') {
            return Err(NoteError::NotCheckpoint);
        }
        Ok(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }
}

/// A public key with the name that its signatures carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    /// The signer's name: no space, no `+`.
    pub name: String,
    /// Ed25519 public key, 32 bytes.
    pub public_key: [u8; 32],
}

impl VerifierKey {
    /// The key's id: first four bytes of SHA-256 over name, line feed, algorithm and key.
    pub fn key_hash(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ALGORITHM_ED25519])
            .chain_update(self.public_key)
            .finalize();
        let mut hash = [0; 4];
        hash.copy_from_slice(digest.get(..4).unwrap_or(&[0; 4]));
        hash
    }

    /// `name+hash+base64`, as tools of the field exchange it.
    pub fn to_text(&self) -> String {
        let key = [&[ALGORITHM_ED25519][..], &self.public_key].concat();
        format!(
            "{}+{}+{}",
            self.name,
            hex::encode(self.key_hash()),
            STANDARD.encode(key)
        )
    }

    /// Reads `name+hash+base64` and compares the hash.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let mut part = || parts.next().ok_or(NoteError::VerifierKey);
        let (name, hash, key) = (part()?, part()?, part()?);
        let key = STANDARD.decode(key).map_err(|_| NoteError::VerifierKey)?;
        let key = key
            .strip_prefix(&[ALGORITHM_ED25519])
            .ok_or(NoteError::VerifierKey)?;
        let public_key = <[u8; 32]>::try_from(key).map_err(|_| NoteError::VerifierKey)?;
        let verifier = Self {
            name: name.to_owned(),
            public_key,
        };
        if !is_key_name(name) || hex::encode(verifier.key_hash()) != hash {
            return Err(NoteError::VerifierKey);
        }
        Ok(verifier)
    }
}

fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('+') && !name.chars().any(char::is_whitespace)
}

/// A text with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    /// What was signed, with the final line feed.
    pub body: String,
    /// Signer's name, key hash, signature.
    pub signatures: Vec<NoteSignature>,
}

/// One signature line of a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    /// The signer's name.
    pub name: String,
    /// The key's id.
    pub key_hash: [u8; 4],
    /// The raw signature.
    pub signature: Vec<u8>,
}

impl SignedNote {
    /// The text form: body, empty line, signature lines.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.body);
        for line in &self.signatures {
            let bytes = [&line.key_hash[..], &line.signature].concat();
            text.extend([
                SIGNATURE_LINE,
                &line.name,
                " ",
                &STANDARD.encode(bytes),
                "
",
            ]);
        }
        text
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        if text.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong);
        }
        let end = text.rfind("\n\n").ok_or(NoteError::Malformed)?;
        let (body, lines) = text.split_at_checked(end + 1).ok_or(NoteError::Malformed)?;
        let lines = lines.strip_prefix('\n').ok_or(NoteError::Malformed)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed)?;
        let signatures = lines
            .split('\n')
            .map(parse_signature)
            .collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::TooLong);
        }
        Ok(Self {
            body: body.to_owned(),
            signatures,
        })
    }

    /// The signature of that key, when there is one.
    pub fn signature_of(&self, key: &VerifierKey) -> Option<&[u8]> {
        self.signatures
            .iter()
            .find(|line| line.name == key.name && line.key_hash == key.key_hash())
            .map(|line| line.signature.as_slice())
    }
}

fn parse_signature(line: &str) -> Result<NoteSignature, NoteError> {
    let line = line
        .strip_prefix(SIGNATURE_LINE)
        .ok_or(NoteError::Malformed)?;
    let (name, bytes) = line.split_once(' ').ok_or(NoteError::Malformed)?;
    let bytes = STANDARD.decode(bytes).map_err(|_| NoteError::Malformed)?;
    let (hash, signature) = bytes.split_at_checked(4).ok_or(NoteError::Malformed)?;
    let key_hash = <[u8; 4]>::try_from(hash).map_err(|_| NoteError::Malformed)?;
    if !is_key_name(name) || signature.is_empty() {
        return Err(NoteError::Malformed);
    }
    Ok(NoteSignature {
        name: name.to_owned(),
        key_hash,
        signature: signature.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "shop.example/audit".into(),
            size: 42,
            root: [7; 32],
        }
    }

    #[test]
    fn checkpoints_go_there_and_back_and_odd_ones_are_refused() {
        let body = checkpoint().to_note_body();
        assert_eq!(Checkpoint::parse(&body).unwrap(), checkpoint());
        for bad in [
            "",
            "o\n1\n",
            "o\n01\nAAAA\n",
            "o\n-1\nAAAA\n",
            "o\n1\nAAAA\n",
            "\n1\nAAAA\n",
            body.trim_end(),
        ] {
            assert_eq!(
                Checkpoint::parse(bad),
                Err(NoteError::NotCheckpoint),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn signed_notes_find_the_signature_of_a_key() {
        let key = VerifierKey {
            name: "shop.example/audit".into(),
            public_key: [9; 32],
        };
        assert_eq!(VerifierKey::parse(&key.to_text()).unwrap(), key);
        let note = SignedNote {
            body: checkpoint().to_note_body(),
            signatures: vec![NoteSignature {
                name: key.name.clone(),
                key_hash: key.key_hash(),
                signature: vec![1; 64],
            }],
        };
        let read = SignedNote::parse(&note.to_text()).unwrap();
        assert_eq!(read, note);
        assert_eq!(read.signature_of(&key), Some([1; 64].as_slice()));
        let other = VerifierKey {
            public_key: [8; 32],
            ..key.clone()
        };
        assert_eq!(read.signature_of(&other), None);
        let spoilt = key.to_text().replace('+', "-");
        assert_eq!(VerifierKey::parse(&spoilt), Err(NoteError::VerifierKey));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,100}(\n\\PC{0,20}){0,5}") {
            let _ = SignedNote::parse(&text);
            let _ = Checkpoint::parse(&text);
            let _ = VerifierKey::parse(&text);
        }
    }
}
