//! The committed weights as constants.
//!
//! The files are flat little-endian floats, written by `mha-desk` from `demos/models`. They are
//! decoded while compiling, so that the floats are aligned, lie in flash, and need no unsafe cast.

use crate::digits::Digits;
use crate::vowels::Vowels;

/// The weights of the digits.
pub(crate) static DIGITS: [f32; Digits::PARAMETERS] = floats(include_bytes!("weights/digits.bin"));

/// The weights of the vowels.
pub(crate) static VOWELS: [f32; Vowels::PARAMETERS] = floats(include_bytes!("weights/vowels.bin"));

const fn floats<const N: usize>(bytes: &[u8]) -> [f32; N] {
    let (words, rest) = bytes.as_chunks::<4>();
    assert!(words.len() == N && rest.is_empty(), "the file has another length"); // while compiling
    let mut floats = [0.0; N];
    let mut i = 0;
    while i < N {
        floats[i] = f32::from_le_bytes(words[i]);
        i += 1;
    }
    floats
}
