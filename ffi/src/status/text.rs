//! The words for a status: names of arguments, reasons, and both together.

use core::ffi::c_char;

use super::number::{mha_argument, mha_kind};
use super::{MHA_OK, mha_status};

/// Names of the arguments, as the documentation of every language spells them.
const ARGUMENTS: [(mha_argument, &str); 48] = {
    use mha_argument as A;
    [
        (A::Dims, "dims"),
        (A::Heads, "heads"),
        (A::Scale, "scale"),
        (A::Shape, "shape"),
        (A::Q, "q"),
        (A::K, "k"),
        (A::V, "v"),
        (A::Wq, "wq"),
        (A::Wk, "wk"),
        (A::Wv, "wv"),
        (A::Wo, "wo"),
        (A::Bq, "bq"),
        (A::Bk, "bk"),
        (A::Bv, "bv"),
        (A::Bo, "bo"),
        (A::Bias, "bias"),
        (A::Mask, "mask"),
        (A::Causal, "causal"),
        (A::Dropout, "dropout"),
        (A::Rows, "rows"),
        (A::Y, "y"),
        (A::Scores, "scores"),
        (A::Scratch, "scratch"),
        (A::Weights, "weights"),
        (A::Lens, "lens"),
        (A::Softcap, "softcap"),
        (A::Alibi, "alibi"),
        (A::Rope, "rope"),
        (A::Sinks, "sinks"),
        (A::Norm, "norm"),
        (A::Segments, "segments"),
        (A::Extra, "extra"),
        (A::Lse, "lse"),
        (A::Cache, "cache"),
        (A::KvHeads, "kv_heads"),
        (A::ScoresAt, "scores_at"),
        (A::Kept, "kept"),
        (A::Layer, "layer"),
        (A::Config, "config"),
        (A::Attention, "attention"),
        (A::Inputs, "inputs"),
        (A::Outputs, "outputs"),
        (A::Isa, "isa"),
        (A::WeightOrder, "weight_order"),
        (A::Weight, "weight"),
        (A::Rng, "rng"),
        (A::Parameters, "parameters"),
        (A::Options, "options"),
    ]
};

/// What is wrong, in words.
const REASONS: [(mha_kind, &str); 12] = {
    use mha_kind as K;
    [
        (K::Zero, "a size is zero"),
        (K::Heads, "do not divide the width"),
        (K::TooLarge, "too large"),
        (K::Length, "wrong length"),
        (K::Broadcast, "does not broadcast"),
        (K::Value, "not a valid value"),
        (K::Range, "out of range"),
        (K::Conflict, "excludes another option"),
        (K::CacheFull, "full"),
        (K::Null, "null pointer"),
        (K::Misaligned, "misaligned pointer"),
        (K::Overlap, "overlaps another buffer"),
    ]
};

/// Which arguments each kind of error can name: exactly the statuses that the functions return, so
/// that no text is kept for one that cannot be.
const POSSIBLE: [(mha_kind, &[mha_argument]); 12] = {
    use mha_argument as A;
    use mha_kind as K;
    #[rustfmt::skip]
    let possible: [(mha_kind, &[mha_argument]); 12] = [
        (K::Zero, &[A::Dims, A::Heads]),
        (K::Heads, &[A::Heads]),
        (K::TooLarge, &[
            A::Dims, A::Shape, A::Q, A::K, A::V, A::Wq, A::Wk, A::Wv, A::Wo, A::Bq, A::Bk, A::Bv,
            A::Bo, A::Bias, A::Mask, A::Causal, A::Y, A::Scores, A::Scratch, A::Weights, A::Weight,
            A::Rows, A::Lens, A::Alibi, A::Rope, A::Sinks, A::Norm, A::Segments, A::Extra, A::Lse,
            A::Cache,
        ]),
        (K::Length, &[
            A::Q, A::K, A::V, A::Wq, A::Wk, A::Wv, A::Wo, A::Bq, A::Bk, A::Bv, A::Bo, A::Bias,
            A::Mask, A::Causal, A::Y, A::Scores, A::Scratch, A::Weights, A::Lens, A::Alibi, A::Sinks,
            A::Norm, A::Segments, A::Extra, A::Lse, A::Cache,
        ]),
        (K::Broadcast, &[A::Bias, A::Mask]),
        (K::Value, &[
            A::Scale, A::Dropout, A::Causal, A::Isa, A::WeightOrder, A::ScoresAt, A::KvHeads,
            A::Scores, A::Softcap, A::Alibi, A::Rope, A::Norm, A::Cache,
        ]),
        (K::Range, &[A::Rows, A::Lens, A::Scores, A::Rope, A::Cache]),
        (K::Conflict, &[A::Rows, A::ScoresAt, A::Rope, A::Norm]),
        (K::CacheFull, &[A::Cache]),
        (K::Null, &[
            A::Q, A::K, A::V, A::Wq, A::Wk, A::Wv, A::Wo, A::Bq, A::Bk, A::Bv, A::Bo, A::Bias,
            A::Mask, A::Causal, A::Y, A::Scores, A::Scratch, A::Weights, A::Layer, A::Config,
            A::Attention, A::Inputs, A::Outputs, A::Weight, A::Rng, A::Rows, A::Lens, A::Alibi,
            A::Rope, A::Sinks, A::Norm, A::Segments, A::Extra, A::Lse, A::Cache,
        ]),
        (K::Misaligned, &[
            A::Q, A::K, A::V, A::Wq, A::Wk, A::Wv, A::Wo, A::Bq, A::Bk, A::Bv, A::Bo, A::Bias,
            A::Causal, A::Y, A::Scores, A::Scratch, A::Weights, A::Layer, A::Config, A::Attention,
            A::Inputs, A::Outputs, A::Weight, A::Rng, A::Parameters, A::Options, A::Rows, A::Lens,
            A::Alibi, A::Rope, A::Sinks, A::Norm, A::Segments, A::Extra, A::Lse, A::Cache,
        ]),
        (K::Overlap, &[
            A::Y, A::Scores, A::Scratch, A::Weights, A::Weight, A::Lse, A::Cache,
        ]),
    ];
    possible
};

/// The name of an argument.
pub(crate) const fn name(argument: mha_argument) -> &'static str {
    let mut i = 0;
    while i < ARGUMENTS.len() {
        if ARGUMENTS[i].0 as i32 == argument as i32 {
            return ARGUMENTS[i].1;
        }
        i += 1;
    }
    "other"
}

const fn reason(kind: mha_kind) -> &'static str {
    let mut i = 0;
    while i < REASONS.len() {
        if REASONS[i].0 as i32 == kind as i32 {
            return REASONS[i].1;
        }
        i += 1;
    }
    ""
}

/// Writes a table of texts, each with its key in front and a zero behind. One blob and a linear
/// search: no pointers, so no relocations, and the least flash.
pub(crate) struct Table<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Table<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    pub(crate) const fn byte(mut self, byte: u8) -> Self {
        // While measuring, there is no room and only the length counts.
        if self.len < N {
            self.bytes[self.len] = byte;
        }
        self.len += 1;
        self
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn bytes(self) -> [u8; N] {
        self.bytes
    }

    pub(crate) const fn text(mut self, text: &str) -> Self {
        let mut i = 0;
        while i < text.len() {
            self = self.byte(text.as_bytes()[i]);
            i += 1;
        }
        self
    }
}

const fn names<const N: usize>() -> Table<N> {
    let mut out = Table::new();
    let mut i = 0;
    while i < ARGUMENTS.len() {
        let (argument, name) = ARGUMENTS[i];
        out = out.byte(argument as u8).text(name).byte(0);
        i += 1;
    }
    out
}

const fn reasons<const N: usize>() -> Table<N> {
    let mut out = Table::new();
    let mut i = 0;
    while i < REASONS.len() {
        let (kind, reason) = REASONS[i];
        out = out.byte(kind as u8).text(reason).byte(0);
        i += 1;
    }
    out
}

const fn messages<const N: usize>() -> Table<N> {
    let mut out = Table::new();
    let mut i = 0;
    while i < POSSIBLE.len() {
        let (kind, arguments) = POSSIBLE[i];
        let mut j = 0;
        while j < arguments.len() {
            let argument = arguments[j];
            let short = matches!((kind, argument), (mha_kind::Length, mha_argument::Scratch));
            let reason = if short { "too short" } else { reason(kind) };
            out = out.byte(kind as u8).byte(argument as u8);
            out = out.text(name(argument)).text(": ").text(reason).byte(0);
            j += 1;
        }
        i += 1;
    }
    out
}

static NAMES: [u8; names::<0>().len] = names().bytes;
static REASON_TEXTS: [u8; reasons::<0>().len] = reasons().bytes;
static MESSAGES: [u8; messages::<0>().len] = messages().bytes;

/// The text behind a key. What is returned ends in a zero byte.
pub(crate) fn find(table: &'static [u8], key: &[u8]) -> Option<*const c_char> {
    let mut entries = table.split(|&byte| byte == 0);
    entries.find_map(|entry| entry.strip_prefix(key)).map(|text| text.as_ptr().cast())
}

/// The two bytes of a status, or `None` for success and for what is no status.
fn bytes(status: mha_status) -> Option<[u8; 2]> {
    let [kind, argument, 0, 0] = status.to_le_bytes() else { return None };
    (kind != 0).then_some([kind, argument])
}

/// The name of the argument at fault, such as `"scratch"`.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; empty for `MHA_OK`, `"other"` for an argument
/// that this library does not know.
#[unsafe(no_mangle)]
pub extern "C" fn mha_status_argument_name(status: mha_status) -> *const c_char {
    match bytes(status) {
        Some([_, argument]) => find(&NAMES, &[argument]).unwrap_or(c"other".as_ptr()),
        None => c"".as_ptr(),
    }
}

/// What is wrong, without the argument, such as `"wrong length"`: less flash than
/// `mha_status_message`.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; `"ok"` for `MHA_OK`, `"unknown status"` for
/// what this library never returns.
#[unsafe(no_mangle)]
pub extern "C" fn mha_status_reason(status: mha_status) -> *const c_char {
    match bytes(status) {
        Some([kind, _]) => find(&REASON_TEXTS, &[kind]).unwrap_or(c"unknown status".as_ptr()),
        None if status == MHA_OK => c"ok".as_ptr(),
        None => c"unknown status".as_ptr(),
    }
}

/// What is wrong with which argument, such as `"scratch: too short"`.
///
/// The texts take about 4 KiB of flash, in programs that call this function; archives of the least code
/// have none, and this function is `mha_status_reason`. Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; `"ok"` for `MHA_OK`, and what
/// `mha_status_reason` says for a status that this library never returns.
#[unsafe(no_mangle)]
pub extern "C" fn mha_status_message(status: mha_status) -> *const c_char {
    if cfg!(feature = "size") {
        return mha_status_reason(status);
    }
    let message = bytes(status).and_then(|key| find(&MESSAGES, &key));
    message.unwrap_or_else(|| mha_status_reason(status))
}

#[cfg(all(test, not(feature = "size")))]
mod tests {
    extern crate std;
    use super::super::number::argument;
    use super::super::{Fault, mha_status_argument, mha_status_kind, status};
    use super::*;
    use core::ffi::CStr;
    use mha::{Argument, Error};
    use std::string::ToString;
    use std::vec::Vec;

    /// The crate's own source: its enumerations are open to growth, so a `match` cannot tell that a
    /// variant is missing here.
    const SOURCE: &str = include_str!("../../../core/src/error.rs");

    fn text(pointer: *const c_char) -> &'static str {
        // SAFETY: every text ends in a zero and is static.
        unsafe { CStr::from_ptr(pointer) }.to_str().expect("UTF-8")
    }

    #[test]
    fn every_argument_of_the_crate_has_a_number() {
        // Lines such as `Self::Wq => "wq",`.
        let names: Vec<&str> = SOURCE
            .lines()
            .filter_map(|line| {
                line.trim().strip_prefix("Self::")?.split_once(" => \"")?.1.split('"').next()
            })
            .collect();
        assert!(names.len() >= 24, "{names:?}");
        for name in names {
            let known = ARGUMENTS.iter().find(|(_, known)| *known == name);
            let &(number, _) = known.unwrap_or_else(|| panic!("no number for {name}"));
            assert!((number as i32) < 64, "{name} is an argument of C alone");
        }
        assert_eq!(argument(Argument::Dims) as i32, 1);
        for (known, variant) in [(Argument::Wo, "wo"), (Argument::Weights, "weights")] {
            assert_eq!(name(argument(known)), variant);
            assert_eq!(name(argument(known)), known.name());
        }
    }

    #[test]
    fn every_error_of_the_crate_has_a_kind() {
        // Lines such as `Self::Zero { .. } => 1,`.
        let mut codes = 0;
        for line in SOURCE.lines() {
            let Some((variant, code)) = line.trim().split_once(" { .. } => ") else { continue };
            let Ok(code) = code.trim_end_matches(',').parse::<i32>() else { continue };
            codes += 1;
            assert!((1..32).contains(&code), "{variant} has the code {code}");
            assert!(REASONS.iter().any(|(kind, _)| *kind as i32 == code), "no kind for {variant}");
        }
        assert!(codes >= 7, "{codes}");
    }

    #[test]
    fn a_status_says_kind_and_argument() {
        let error = Error::Length { argument: Argument::Scratch, needed: 10, got: 9 };
        let status = status(Err(Fault::from(error)));
        assert_eq!(status, 4 | 23 << 8);
        assert_eq!(mha_status_kind(status), mha_kind::Length as i32);
        assert_eq!(mha_status_argument(status), mha_argument::Scratch as i32);
        assert_eq!(text(mha_status_argument_name(status)), "scratch");
        assert_eq!(text(mha_status_reason(status)), "wrong length");
        assert_eq!(text(mha_status_message(status)), "scratch: too short");
    }

    #[test]
    fn every_possible_status_has_its_message() {
        for (kind, arguments) in POSSIBLE {
            for &argument in arguments {
                let status = status(Err(Fault::new(kind, argument)));
                let message = text(mha_status_message(status));
                let (first, rest) = message.split_once(": ").expect("name: reason");
                assert_eq!(first, name(argument));
                assert_eq!(text(mha_status_argument_name(status)), first);
                assert!(!rest.is_empty() && !text(mha_status_reason(status)).is_empty());
            }
        }
        // What the compiler has made of the tables is what the program makes.
        assert_eq!(names().bytes(), NAMES);
        assert_eq!(reasons().bytes(), REASON_TEXTS);
        assert_eq!(messages().bytes(), MESSAGES);
        assert!(MESSAGES.len() < 4096, "{}: the documentation says 4 KiB", MESSAGES.len());
    }

    #[test]
    fn any_integer_has_texts() {
        assert_eq!(text(mha_status_message(MHA_OK)), "ok");
        assert_eq!(text(mha_status_argument_name(MHA_OK)), "");
        for status in [-1, i32::MIN, i32::MAX, 0xff, 0x100, 0x1_0000, 4 | 200 << 8] {
            assert!(!text(mha_status_message(status)).is_empty());
            text(mha_status_argument_name(status)).to_string();
        }
        assert_eq!(text(mha_status_message(4 | 200 << 8)), "wrong length");
        assert_eq!(text(mha_status_message(99)), "unknown status");
    }
}
