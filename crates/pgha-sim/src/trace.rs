//! The trace hash: one number over everything that happened, in its order. Two runs of one plan must give the same one.
//!
//! Every event of the calendar goes in with its time and its kind, every decision with its rule, every effect with its
//! kind, and every line of the trace with its text. What an event carries is not hashed: it shows in the times and kinds
//! of what follows from it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::discriminant;

/// FNV-1a on words of 64 bits, with a rotation for what stands in the high bits. A [`Hasher`], so that discriminants can be
/// fed to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceHash(u64);

impl Default for TraceHash {
    fn default() -> TraceHash {
        TraceHash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for TraceHash {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

impl TraceHash {
    /// Takes in the kind of a value, and numbers that go with it.
    pub(crate) fn kind<T>(&mut self, of: &T, numbers: [u64; 2]) {
        discriminant(of).hash(self);
        numbers.into_iter().for_each(|number| self.write_u64(number));
    }
}

impl fmt::LowerHex for TraceHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}
