//! Why something was refused.

use alloc::string::{String, ToString};
use core::fmt;

use mha::{Argument, Error};

/// The errors of the core, and the one that only exists where there is an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The core refused the arguments.
    Core(Error),
    /// The module's memory cannot grow as far as the argument wants it to.
    Memory(Argument),
}

/// The number of [`Failure::Memory`]. The numbers from 64 on belong to this door.
const MEMORY: i32 = 67;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl Failure {
    /// The argument at fault.
    pub(crate) fn argument(self) -> Argument {
        match self {
            Self::Core(error) => error.argument(),
            Self::Memory(argument) => argument,
        }
    }

    /// The name of the argument at fault, empty where nothing failed. There once for all classes.
    #[inline(never)]
    pub(crate) fn argument_of(failure: Option<Self>) -> String {
        failure.map(|failure| failure.argument().name().into()).unwrap_or_default()
    }

    /// What is wrong, empty where nothing failed. There once for all classes.
    #[inline(never)]
    pub(crate) fn message_of(failure: Option<Self>) -> String {
        failure.map(|failure| failure.to_string()).unwrap_or_default()
    }

    /// The number of a result: 0 where nothing failed.
    pub(crate) fn code(result: Result<(), Self>) -> i32 {
        match result {
            Ok(()) => 0,
            Err(Self::Core(error)) => error.code(),
            Err(Self::Memory(_)) => MEMORY,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) => error.fmt(f),
            Self::Memory(argument) => write!(f, "{}: out of memory", argument.name()),
        }
    }
}
