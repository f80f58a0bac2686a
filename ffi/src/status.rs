//! What a function returns: which kind of error, and which argument is at fault, in one integer.

use core::ffi::c_char;

use mha::{Argument, Error};

/// What a function returns: `MHA_OK`, or what is wrong and with which argument.
///
/// The low byte is one of `enum mha_kind`, the next byte one of `enum mha_argument`, the rest zero.
/// `MHA_STATUS(kind, argument)` puts one together, so a status can be compared with an expected one.
pub type mha_status = i32;

/// Success.
pub const MHA_OK: mha_status = 0;

/// What can be wrong with a call. The numbers are stable and never reused; those below 32 are the
/// same in Rust and JavaScript.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_kind {
    /// Nothing is wrong.
    Ok = 0,
    /// A width or the number of heads is zero.
    Zero = 1,
    /// The number of heads does not divide `qk` or `v`.
    Heads = 2,
    /// A size does not fit the address space.
    TooLarge = 3,
    /// A buffer has the wrong length. Scratch may be longer than needed, nothing else may.
    Length = 4,
    /// An extent of a mask or bias is neither 1 nor the size of its axis.
    Broadcast = 5,
    /// A value lies outside its domain: a scale that is not finite, a probability outside [0, 1),
    /// a word that its enumeration does not have.
    Value = 6,
    /// A range of rows ends before it starts, or past the last row.
    Range = 7,
    /// Two options that exclude each other.
    Conflict = 8,
    /// A cache has no room for what is to be appended.
    CacheFull = 9,
    /// The gradient of something is wanted that the call does not have.
    Absent = 10,
    /// There is no way back through an option.
    Option = 11,
    /// A pointer is NULL that must not be.
    Null = 32,
    /// A pointer is not aligned for what it points to.
    Misaligned = 33,
    /// A buffer that is written overlaps another one.
    Overlap = 34,
}

/// The argument at fault. The numbers are stable and never reused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_argument {
    /// No argument: success.
    None = 0,
    /// The widths of the layer.
    Dims = 1,
    /// The number of heads.
    Heads = 2,
    /// The factor on the products of queries and keys.
    Scale = 3,
    /// The lengths of the call.
    Shape = 4,
    /// The query input.
    Q = 5,
    /// The key input.
    K = 6,
    /// The value input.
    V = 7,
    /// The weight of the query projection.
    Wq = 8,
    /// The weight of the key projection.
    Wk = 9,
    /// The weight of the value projection.
    Wv = 10,
    /// The weight of the output projection.
    Wo = 11,
    /// The bias of the query projection.
    Bq = 12,
    /// The bias of the key projection.
    Bk = 13,
    /// The bias of the value projection.
    Bv = 14,
    /// The bias of the output projection.
    Bo = 15,
    /// The additive bias on the logits.
    Bias = 16,
    /// The boolean mask.
    Mask = 17,
    /// The causal rule.
    Causal = 18,
    /// The dropout on the scores.
    Dropout = 19,
    /// The range of query rows.
    Rows = 20,
    /// The output.
    Y = 21,
    /// The scores output.
    Scores = 22,
    /// The working memory.
    Scratch = 23,
    /// The weights of a layer: one flat array of them, or the struct.
    Weights = 24,
    /// The real lengths of the sequences.
    Lens = 25,
    /// The cap of the logits.
    Softcap = 26,
    /// The slopes of ALiBi.
    Alibi = 27,
    /// The rotary positions.
    Rope = 28,
    /// The logits of the sinks.
    Sinks = 29,
    /// The normalisation of q and k.
    Norm = 30,
    /// The documents of queries and keys.
    Segments = 31,
    /// The extra key and value.
    Extra = 32,
    /// The log-sum-exp output.
    Lse = 33,
    /// The key/value cache.
    Cache = 34,
    /// The number of key/value heads.
    KvHeads = 35,
    /// The point at which scores are taken.
    ScoresAt = 36,
    /// The layer.
    Layer = 64,
    /// The configuration.
    Config = 65,
    /// The attention without projections.
    Attention = 66,
    /// The struct of the inputs.
    Inputs = 67,
    /// The struct of the outputs.
    Outputs = 68,
    /// The instructions to run on.
    Isa = 69,
    /// The order of the weights in memory.
    WeightOrder = 70,
    /// The weight that an initialiser fills.
    Weight = 72,
    /// The random generator.
    Rng = 73,
    /// A gain, or the parameters of a distribution.
    Parameters = 74,
    /// The struct of the options.
    Options = 75,
    /// An argument that this version of the interface has no number for.
    Other = 255,
}

/// A status that is not `MHA_OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(mha_status);

impl Fault {
    pub(crate) const fn new(kind: mha_kind, argument: mha_argument) -> Self {
        Self(kind as i32 | (argument as i32) << 8)
    }

    /// The same about the gradient of the argument.
    pub(crate) const fn of_gradient(self) -> Self {
        Self(self.0 | crate::backward::GRADIENT << 8)
    }

    /// Whether it is of a kind.
    pub(crate) const fn is(self, kind: mha_kind) -> bool {
        self.0 & 0xff == kind as i32
    }
}

impl From<Argument> for mha_argument {
    fn from(of: Argument) -> Self {
        argument(of)
    }
}

impl From<Error> for Fault {
    #[inline]
    fn from(error: Error) -> Self {
        Self(error.code() | (argument(error.argument()) as i32) << 8)
    }
}

/// A result as C sees it.
#[inline]
pub(crate) fn status(result: Result<(), Fault>) -> mha_status {
    match result {
        Ok(()) => MHA_OK,
        Err(Fault(status)) => status,
    }
}

/// The number of an argument of the crate.
const fn argument(argument: Argument) -> mha_argument {
    match argument {
        Argument::Dims => mha_argument::Dims,
        Argument::Heads => mha_argument::Heads,
        Argument::Scale => mha_argument::Scale,
        Argument::Shape => mha_argument::Shape,
        Argument::Q => mha_argument::Q,
        Argument::K => mha_argument::K,
        Argument::V => mha_argument::V,
        Argument::Wq => mha_argument::Wq,
        Argument::Wk => mha_argument::Wk,
        Argument::Wv => mha_argument::Wv,
        Argument::Wo => mha_argument::Wo,
        Argument::Bq => mha_argument::Bq,
        Argument::Bk => mha_argument::Bk,
        Argument::Bv => mha_argument::Bv,
        Argument::Bo => mha_argument::Bo,
        Argument::Bias => mha_argument::Bias,
        Argument::Mask => mha_argument::Mask,
        Argument::Causal => mha_argument::Causal,
        Argument::Dropout => mha_argument::Dropout,
        Argument::Rows => mha_argument::Rows,
        Argument::Y => mha_argument::Y,
        Argument::Scores => mha_argument::Scores,
        Argument::Scratch => mha_argument::Scratch,
        Argument::Weights => mha_argument::Weights,
        Argument::Lens => mha_argument::Lens,
        Argument::Softcap => mha_argument::Softcap,
        Argument::Alibi => mha_argument::Alibi,
        Argument::Rope => mha_argument::Rope,
        Argument::Sinks => mha_argument::Sinks,
        Argument::Norm => mha_argument::Norm,
        Argument::Segments => mha_argument::Segments,
        Argument::Extra => mha_argument::Extra,
        Argument::Lse => mha_argument::Lse,
        Argument::Cache => mha_argument::Cache,
        Argument::KvHeads => mha_argument::KvHeads,
        Argument::ScoresAt => mha_argument::ScoresAt,
        // The crate's enumeration may grow; a test fails when it has.
        _ => mha_argument::Other,
    }
}

/// Names of the arguments, as the documentation of every language spells them.
const ARGUMENTS: [(mha_argument, &str); 47] = {
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

/// The kind of error: one of `enum mha_kind`. The macro `MHA_STATUS_KIND` is the same as a constant
/// expression.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the kind, `MHA_KIND_OK` for `MHA_OK`.
#[unsafe(no_mangle)]
pub extern "C" fn mha_status_kind(status: mha_status) -> i32 {
    status & 0xff
}

/// The argument at fault: one of `enum mha_argument`. The macro `MHA_STATUS_ARGUMENT` is the same as
/// a constant expression.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the argument, `MHA_ARGUMENT_NONE` for `MHA_OK`.
#[unsafe(no_mangle)]
pub extern "C" fn mha_status_argument(status: mha_status) -> i32 {
    status >> 8 & 0xff
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
    use super::*;
    use core::ffi::CStr;
    use std::string::ToString;
    use std::vec::Vec;

    /// The crate's own source: its enumerations are open to growth, so a `match` cannot tell that a
    /// variant is missing here.
    const SOURCE: &str = include_str!("../../core/src/error.rs");

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
