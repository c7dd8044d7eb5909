//! Inputs for the fuzz targets: examples, changed by line, by word and by byte, from a seed.

pub mod row;
pub mod seeds;

pub use seeds::{
    PATH_WORDS, PATHS, ROW_WORDS, TEMPLATE_WORDS, TEMPLATES, TOKEN_WORDS, TOKENS, YAML, YAML_WORDS,
};

/// Random by a seed and a number alone (SplitMix64).
pub struct Mutator(u64);

impl Mutator {
    pub fn new(seed: u64, turn: u64) -> Self {
        Self(seed ^ turn.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// Below `bound`; 0 where there is nothing to choose.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound.max(1)).unwrap();
        usize::try_from(self.next() % bound).unwrap()
    }

    pub fn pick<'l, T>(&mut self, list: &'l [T]) -> &'l T {
        &list[self.below(list.len())]
    }

    /// One of the examples after one to eight changes.
    pub fn make(&mut self, seeds: &[String], words: &[&str]) -> Vec<u8> {
        let mut text = self.pick(seeds).clone().into_bytes();
        for _ in 0..=self.below(8) {
            self.change(&mut text, seeds, words);
        }
        text
    }

    fn change(&mut self, text: &mut Vec<u8>, seeds: &[String], words: &[&str]) {
        match self.below(12) {
            0..=2 => {
                let word = self.pick(words).as_bytes().to_vec();
                let (from, to) = self.word(text);
                text.splice(from..to, word);
            }
            3 | 4 => {
                let word = self.pick(words).as_bytes().to_vec();
                let at = self.below(text.len() + 1);
                text.splice(at..at, word);
            }
            5..=7 => self.change_line(text),
            8 => {
                let other = self.pick(seeds).as_bytes();
                let from = self.below(other.len());
                let at = self.below(text.len());
                text.truncate(at);
                text.extend_from_slice(&other[from..]);
            }
            9 => {
                let (from, to) = self.range(text);
                text.drain(from..to);
            }
            10 => {
                let (from, to) = self.range(text);
                let copy = text[from..to].to_vec();
                let times = 1 + self.below(20);
                text.splice(to..to, copy.repeat(times));
            }
            _ => {
                let at = self.below(text.len());
                let byte = u8::try_from(self.below(256)).unwrap();
                if let Some(place) = text.get_mut(at) {
                    *place = byte;
                }
            }
        }
        text.truncate(64 * 1024);
    }

    fn range(&mut self, text: &[u8]) -> (usize, usize) {
        let from = self.below(text.len());
        (from, (from + self.below(40)).min(text.len()))
    }

    /// A run of letters, digits and the like.
    fn word(&mut self, text: &[u8]) -> (usize, usize) {
        let at = self.below(text.len());
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(byte);
        let before = text[..at]
            .iter()
            .rev()
            .take_while(|byte| is_word(byte))
            .count();
        let behind = text[at..].iter().take_while(|byte| is_word(byte)).count();
        (at - before, at + behind)
    }

    fn change_line(&mut self, text: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> = text
            .split(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        let (one, other) = (self.below(lines.len()), self.below(lines.len()));
        match self.below(6) {
            0 => {
                lines.remove(one);
            }
            1 => {
                let line = lines[one].clone();
                lines.insert(other, line);
            }
            2 => lines.swap(one, other),
            3 => {
                lines[one].splice(0..0, *b"  ");
            }
            4 => {
                let spaces = lines[one].iter().take_while(|byte| **byte == b' ').count();
                lines[one].drain(..spaces.min(2));
            }
            _ => {
                let to = (one + self.below(10)).min(lines.len());
                let block = lines[one..to].to_vec();
                lines.splice(other..other, block);
            }
        }
        *text = lines.join(&b'\n');
    }
}
