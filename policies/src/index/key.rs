//! What a pattern can be found by, and the map from keys to what has them.
//!
//! A map gives a superset: a hash may collide, a key may say less than its pattern. Whoever asks checks what it got.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::trie::{Direction, Trie};

const STATE: FixedState = FixedState::with_seed(0x0052_4156_454c_494e);

/// What a value has to look like for a pattern to be able to match it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The hash of the whole value.
    Exact(u64),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
}

impl Key {
    pub(crate) fn exact(text: &[u8]) -> Self {
        Self::Exact(hash(text))
    }

    pub(crate) fn prefix(text: &[u8]) -> Self {
        Self::Prefix(text.into())
    }

    pub(crate) fn suffix(text: &[u8]) -> Self {
        Self::Suffix(text.into())
    }

    /// Any value that is there at all.
    pub(crate) fn any() -> Self {
        Self::prefix(b"")
    }
}

/// One hash for tables and values; the tables are fixed, so nobody who sends values can make one slow.
pub(crate) fn hash(text: &[u8]) -> u64 {
    let mut hasher = STATE.build_hasher();
    hasher.write(text);
    hasher.finish()
}

/// For tables whose keys are hashes already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Builds [`AsIs`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BuildAsIs;

impl BuildHasher for BuildAsIs {
    type Hasher = AsIs;

    fn build_hasher(&self) -> AsIs {
        AsIs(0)
    }
}

/// Keys to numbers.
#[derive(Debug, Default)]
pub(crate) struct KeyMap {
    exact: HashMap<u64, u32, BuildAsIs>,
    prefixes: Option<Trie>,
    suffixes: Option<Trie>,
}

impl KeyMap {
    /// Each key at most once.
    pub(crate) fn new(keys: &[(&Key, u32)]) -> Self {
        let mut exact = HashMap::with_hasher(BuildAsIs);
        let mut prefixes: Vec<(&[u8], u32)> = Vec::new();
        let mut suffixes: Vec<(&[u8], u32)> = Vec::new();
        for (key, number) in keys {
            match key {
                Key::Exact(hash) => {
                    exact.insert(*hash, *number);
                }
                Key::Prefix(text) => prefixes.push((text, *number)),
                Key::Suffix(text) => suffixes.push((text, *number)),
            }
        }
        exact.shrink_to_fit();
        let trie = |direction, texts: &[(&[u8], u32)]| {
            (!texts.is_empty()).then(|| Trie::new(direction, texts))
        };
        Self {
            exact,
            prefixes: trie(Direction::Forward, &prefixes),
            suffixes: trie(Direction::Backward, &suffixes),
        }
    }

    /// Visits the number of every key that fits to a value.
    pub(crate) fn each(&self, value: &[u8], mut visit: impl FnMut(u32)) {
        if !self.exact.is_empty()
            && let Some(number) = self.exact.get(&hash(value))
        {
            visit(*number);
        }
        if let Some(prefixes) = &self.prefixes {
            prefixes.each(value, &mut visit);
        }
        if let Some(suffixes) = &self.suffixes {
            suffixes.each(value, &mut visit);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let tries = self.prefixes.iter().chain(&self.suffixes);
        size_of::<Self>() + self.exact.capacity() * 13 + tries.map(Trie::bytes).sum::<usize>()
    }
}
