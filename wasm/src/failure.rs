//! Why something was refused, as JavaScript reads it: it words what is wrong, so that the module holds no text
//! but the arguments' names.

#[cfg(feature = "training")]
use mha::BackwardError;
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

/// What `wasm/npm/src/run.ts` reads of a failure: where the argument's name lies, and the numbers that the
/// error has.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Problem {
    name: *const u8,
    name_len: usize,
    numbers: [usize; 3],
}

impl Problem {
    /// None.
    pub(crate) const NONE: Self = Self { name: core::ptr::null(), name_len: 0, numbers: [0; 3] };

    /// Takes down a result, and gives its number: 0 where nothing failed. There once for all classes.
    #[inline(never)]
    pub(crate) fn settle(&mut self, result: Result<(), Failure>) -> i32 {
        let Err(failure) = result else { return 0 };
        let (argument, code, numbers) = match failure {
            Failure::Memory(argument) => (argument, MEMORY, [0; 3]),
            Failure::Core(error) => (error.argument(), error.code(), numbers(error)),
        };
        self.note(argument, numbers);
        code
    }

    fn note(&mut self, argument: Argument, numbers: [usize; 3]) {
        let name = argument.name();
        (self.name, self.name_len, self.numbers) = (name.as_ptr(), name.len(), numbers);
    }

    /// [`Problem::settle`] for the way back. A third number says whether it is the argument's gradient that is
    /// at fault.
    #[cfg(feature = "training")]
    pub(crate) fn settle_back(&mut self, result: Result<(), BackwardError>) -> i32 {
        let Err(error) = result else { return 0 };
        let numbers = match error {
            BackwardError::Call(error) => return self.settle(Err(error.into())),
            BackwardError::Gradient { needed, got, .. } => [needed, got, 1],
            BackwardError::Absent { .. } => [0, 0, 1],
            _ => [0; 3],
        };
        self.note(error.argument(), numbers);
        error.code()
    }
}

/// The numbers of an error, in the order in which its sentence has them; of two options that exclude each other
/// where the other's name lies, and how long it is.
fn numbers(error: Error) -> [usize; 3] {
    match error {
        Error::Heads { heads, width } => [heads, width, 0],
        Error::Length { needed, got, .. } => [needed, got, 0],
        Error::Broadcast { axis, needed, got, .. } => [got, axis, needed],
        Error::CacheFull { capacity, needed } => [needed, capacity, 0],
        Error::Range { len, end, .. } => [end, len, 0],
        Error::Conflict { other, .. } => {
            let other = other.name();
            [other.as_ptr().expose_provenance(), other.len(), 0]
        }
        _ => [0; 3],
    }
}

#[cfg(test)]
impl Problem {
    /// The argument's name and the numbers.
    pub(crate) fn said(&self) -> (&'static str, [usize; 3]) {
        // SAFETY: where a name begins is set together with its length.
        let name = unsafe { core::slice::from_raw_parts(self.name, self.name_len) };
        (core::str::from_utf8(name).unwrap(), self.numbers)
    }
}
