//! What a function returns: which kind of error, and which argument is at fault, in one integer.
//!
//! `number` has the numbers of kinds and arguments, `text` their words.

mod number;
mod text;

use mha::Error;

pub use number::*;
pub use text::*;
pub(crate) use text::{Table, find, name};

/// What a function returns: `MHA_OK`, or what is wrong and with which argument.
///
/// The low byte is one of `enum mha_kind`, the next byte one of `enum mha_argument`, the rest zero.
/// `MHA_STATUS(kind, argument)` puts one together, so a status can be compared with an expected one.
pub type mha_status = i32;

/// Success.
pub const MHA_OK: mha_status = 0;

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

impl From<Error> for Fault {
    #[inline]
    fn from(error: Error) -> Self {
        Self(error.code() | (number::argument(error.argument()) as i32) << 8)
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
