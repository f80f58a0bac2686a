//! What can be wrong with a call.

use core::fmt;

/// What is wrong with a call. Nothing has been written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A slice has another length than the one that it goes with.
    Length {
        /// The slice.
        of: &'static str,
        /// Elements that it needs.
        needed: usize,
        /// Elements that it has.
        got: usize,
    },
    /// There is no such class.
    Class {
        /// Classes that there are.
        classes: usize,
        /// The class asked for.
        got: usize,
    },
    /// Steps are counted from 1.
    Step,
}

impl Error {
    /// An error unless `got` is `needed`.
    pub(crate) const fn unless(of: &'static str, needed: usize, got: usize) -> Result<(), Self> {
        if needed == got { Ok(()) } else { Err(Self::Length { of, needed, got }) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { of, needed, got } => {
                write!(f, "{of}: {needed} elements needed, {got} given")
            }
            Self::Class { classes, got } => write!(f, "class {got} of {classes}"),
            Self::Step => f.write_str("step 0: steps are counted from 1"),
        }
    }
}

impl core::error::Error for Error {}
