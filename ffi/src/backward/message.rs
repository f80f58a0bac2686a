//! The texts of what can go wrong on the way back alone.

use core::ffi::c_char;

use super::written::GRADIENTS;
use crate::status::{
    Table, find, mha_argument as A, mha_kind as K, mha_status, mha_status_message, name,
};

/// What the functions of the way back alone can say, beside what there is a message of already.
const POSSIBLE: [(K, &[A], &str); 9] = {
    /// Everything that has a gradient, or with respect to which there is one.
    const ALL: &[A] = &[
        A::Q,
        A::K,
        A::V,
        A::Wq,
        A::Wk,
        A::Wv,
        A::Wo,
        A::Bq,
        A::Bk,
        A::Bv,
        A::Bo,
        A::Bias,
        A::Y,
        A::Scores,
    ];
    const WRITTEN: &[A] = &GRADIENTS;
    const OPTIONAL: &[A] = &[A::Wq, A::Wk, A::Wv, A::Wo, A::Bq, A::Bk, A::Bv, A::Bo, A::Bias];
    [
        (K::Null, ALL, "null pointer"),
        (K::Misaligned, ALL, "misaligned pointer"),
        (K::TooLarge, ALL, "too large"),
        (K::Length, ALL, "wrong length"),
        (K::Overlap, WRITTEN, "overlaps another buffer"),
        (K::Absent, OPTIONAL, "the call has none"),
        (K::Null, &[A::None], "null pointer"),
        (K::Misaligned, &[A::None], "misaligned pointer"),
        (K::Overlap, &[A::None], "overlaps another buffer"),
    ]
};

const fn messages<const N: usize>() -> Table<N> {
    let mut out = Table::new();
    let mut i = 0;
    while i < POSSIBLE.len() {
        let (kind, arguments, reason) = POSSIBLE[i];
        let mut j = 0;
        while j < arguments.len() {
            let argument = arguments[j];
            out = out.byte(kind as u8).byte(GRADIENT as u8 | argument as u8);
            let what = if argument as u8 == 0 { "gradients" } else { name(argument) };
            out = if argument as u8 == 0 { out } else { out.text("d") };
            out = out.text(what).text(": ").text(reason).byte(0);
            j += 1;
        }
        i += 1;
    }
    let options = [(A::Norm, "norm"), (A::Extra, "extra"), (A::Lse, "lse"), (A::Scores, "scores")];
    let mut i = 0;
    while i < options.len() {
        let (argument, what) = options[i];
        out = out.byte(K::Option as u8).byte(argument as u8);
        out = out.text(what).text(": no way back through it").byte(0);
        i += 1;
    }
    let kept = [
        (K::Null, "kept: null pointer"),
        (K::Misaligned, "kept: misaligned pointer"),
        (K::TooLarge, "kept: too large"),
        (K::Length, "kept: wrong length"),
        (K::Overlap, "kept: overlaps another buffer"),
    ];
    let mut i = 0;
    while i < kept.len() {
        out = out.byte(kept[i].0 as u8).byte(A::Kept as u8).text(kept[i].1).byte(0);
        i += 1;
    }
    out = out.byte(K::Range as u8).byte(A::KvHeads as u8).text("kv_heads: out of range").byte(0);
    out
}

/// What a status's argument has beside its number where it is the gradient of that argument.
pub(crate) const GRADIENT: i32 = 128;

static MESSAGES: [u8; messages::<0>().len()] = messages().bytes();

/// What is wrong with which argument: `mha_status_message` for a program that goes back too, such as
/// `"dwq: wrong length"`. The texts take about 2 KiB of flash beside those of that function.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; `"ok"` for `MHA_OK`.
#[unsafe(no_mangle)]
pub extern "C" fn mha_backward_status_message(status: mha_status) -> *const c_char {
    let [kind, argument, ..] = status.to_le_bytes();
    let own = find(&MESSAGES, &[kind, argument]).filter(|_| status != 0);
    own.unwrap_or_else(|| mha_status_message(status))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::status::{Fault, status};
    use core::ffi::CStr;

    #[test]
    fn every_status_of_the_way_back_has_its_message() {
        let message = |fault| {
            // SAFETY: every text ends in a zero and is static.
            unsafe { CStr::from_ptr(mha_backward_status_message(status(Err(fault)))) }
                .to_str()
                .expect("UTF-8")
        };
        for (kind, arguments, reason) in POSSIBLE {
            for &argument in arguments {
                let said = message(Fault::new(kind, argument).of_gradient());
                assert!(said.ends_with(reason), "{said}");
            }
        }
        assert_eq!(message(Fault::new(K::Length, A::Wq).of_gradient()), "dwq: wrong length");
        assert_eq!(message(Fault::new(K::Null, A::None).of_gradient()), "gradients: null pointer");
        assert_eq!(message(Fault::new(K::Option, A::Norm)), "norm: no way back through it");
        assert_eq!(message(Fault::new(K::Length, A::Scratch)), "scratch: too short");
        assert_eq!(message(Fault::new(K::Length, A::Kept)), "kept: wrong length");
        assert_eq!(message(Fault::new(K::Range, A::KvHeads)), "kv_heads: out of range");
        // What the compiler has made of them is what the program makes.
        assert_eq!(messages().bytes(), MESSAGES);
        assert!(MESSAGES.len() < 2250, "{}: the documentation says 2 KiB", MESSAGES.len());
    }
}
