//! Memory for one call: each buffer an allocation of its own and of exactly its length, so that the
//! address sanitizer sees one element too many; and mistakes put into some of them.

use std::ptr;

/// The input's bytes; after their end some that follow from them and make no mistakes in buffers.
pub struct Bytes<'a> {
    left: &'a [u8],
    state: u32,
}

impl<'a> Bytes<'a> {
    pub fn new(left: &'a [u8]) -> Self {
        let state = left
            .iter()
            .fold(1, |state: u32, &byte| state.wrapping_mul(31).wrapping_add(byte.into()));
        Self { left, state }
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.left.split_first() else {
            self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            return (self.state >> 24) as u8 & 127;
        };
        self.left = rest;
        first
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u8) -> usize {
        usize::from(self.byte() % limit)
    }

    /// True for one byte in `of`.
    pub fn seldom(&mut self, of: u8) -> bool {
        self.byte() % of == of - 1
    }
}

/// More floats than any buffer of a call that is meant to be good has.
const MOST: usize = 1 << 14;

/// Lengths that overflow something.
const HUGE: [usize; 4] = [usize::MAX, usize::MAX / 4, usize::MAX / 4 + 1, isize::MAX as usize];

/// The buffers of a call.
#[derive(Default)]
pub struct Pool {
    floats: Vec<Box<[f32]>>,
    /// Whether the call may write into it.
    written: Vec<bool>,
    pub bytes: Vec<Box<[u8]>>,
    pub sizes: Vec<Box<[usize]>>,
    pub offsets: Vec<Box<[isize]>>,
    pub words: Vec<Box<[u32]>>,
    state: u64,
    /// Whether there may be infinities, NaN or sums that overflow: the bits may depend on tiles then.
    pub is_wild: bool,
}

impl Pool {
    fn random(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 33) as u32
    }

    /// A float between −2 and 2, or now and then anything.
    fn float(&mut self, wild: bool) -> f32 {
        let word = self.random();
        if wild && word % 16 == 0 {
            return f32::from_bits(self.random() ^ self.random() << 16);
        }
        (word & 0xffff) as f32 / 16384.0 - 2.0
    }

    fn make(&mut self, length: usize, wild: bool, is_written: bool) -> *mut f32 {
        let floats: Box<[f32]> = (0..length).map(|_| self.float(wild)).collect();
        self.floats.push(floats);
        self.written.push(is_written);
        self.floats.last_mut().map_or(ptr::null_mut(), |floats| floats.as_mut_ptr())
    }

    /// A buffer that should have `right` floats, and the length that is said to belong to it.
    pub fn buffer(
        &mut self,
        from: &mut Bytes<'_>,
        right: usize,
        is_written: bool,
    ) -> (*mut f32, usize) {
        let right = right.min(MOST);
        self.state ^= u64::from(from.byte()) << 40;
        let wild = from.seldom(8);
        self.is_wild |= wild;
        match from.byte() {
            200..=205 => {
                // None beside a pointer means as many as are asked for.
                let length = if right > 1 { right - 1 } else { right };
                (self.make(length, wild, is_written), length)
            }
            206..=211 => (self.make(right + 1, wild, is_written), right + 1),
            212..=216 => (ptr::null_mut(), right),
            217..=221 => (ptr::null_mut(), 0),
            222..=226 => {
                let start: *mut u8 = self.make(right + 1, wild, is_written).cast();
                (start.wrapping_add(from.below(3) + 1).cast(), right)
            }
            227..=231 => (self.make(right, wild, is_written), HUGE[from.below(4)]),
            232..=241 if !self.floats.is_empty() => {
                // In another buffer, as far as that reaches.
                let other = from.below(255) % self.floats.len();
                let length = self.floats[other].len();
                let skipped = if length == 0 { 0 } else { from.below(255) % length };
                if length - skipped < right {
                    return (self.make(right, wild, is_written), right);
                }
                self.written[other] |= is_written;
                (self.floats[other].as_mut_ptr().wrapping_add(skipped), right)
            }
            // What a weight's length may be where the configuration says it all.
            242..=244 => (self.make(right, wild, is_written), 0),
            _ => (self.make(right, wild, is_written), right),
        }
    }

    /// The bits of every buffer.
    pub fn bits(&self) -> Vec<Vec<u32>> {
        self.floats.iter().map(|floats| floats.iter().map(|x| x.to_bits()).collect()).collect()
    }

    /// Panics where a buffer has changed that must not: any after an error, those to be read otherwise.
    pub fn check(&self, before: &[Vec<u32>], failed: bool) {
        for (i, (now, before)) in self.bits().iter().zip(before).enumerate() {
            if failed || !self.written[i] {
                assert_eq!(now, before, "buffer {i} has changed");
            }
        }
    }

    /// The bits of the buffer at an address, if it begins one.
    pub fn at(&self, address: *const f32) -> Option<Vec<u32>> {
        let found = self.floats.iter().find(|floats| ptr::eq(floats.as_ptr(), address))?;
        Some(found.iter().map(|x| x.to_bits()).collect())
    }
}

/// Where two buffers differ first, and the floats there; one NaN is like another.
pub fn difference(first: &[u32], second: &[u32]) -> Option<(usize, f32, f32)> {
    assert_eq!(first.len(), second.len(), "another buffer");
    let pairs = first.iter().zip(second).map(|(a, b)| (f32::from_bits(*a), f32::from_bits(*b)));
    let same = |(a, b): (f32, f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    pairs.enumerate().find(|(_, pair)| !same(*pair)).map(|(at, (a, b))| (at, a, b))
}
