//! What a query may see.
//!
//! Three things decide it, and all must agree: the causal rule, a boolean mask, and an additive
//! bias that is not −∞. The causal rule is never expanded: it turns a query into a range of keys,
//! and keys outside of that range cost nothing.

use crate::dims::Shape;
use crate::error::{Argument, Error};

/// An array that stands for one of shape `[batch, heads, q_len, kv_len]`: each extent is that
/// axis's size, or 1 where the array is the same all along it. Row-major.
#[derive(Clone, Copy, Debug)]
pub struct Broadcast<'a, T> {
    data: &'a [T],
    extents: [usize; 4],
}

impl<'a, T> Broadcast<'a, T> {
    /// `data` as an array `[batch | 1, heads | 1, q_len | 1, kv_len | 1]`.
    #[must_use]
    pub const fn new(data: &'a [T], extents: [usize; 4]) -> Self {
        Self { data, extents }
    }

    /// Checks the extents against `[batch, heads, q_len, kv_len]` and the data against the extents.
    pub(crate) fn check(&self, argument: Argument, sizes: [usize; 4]) -> Result<(), Error> {
        check_extents(argument, &self.extents, sizes, self.data.len())
    }

    /// The row of one query: its elements from the first key on, and how far apart they are (0
    /// where one element stands for all keys).
    pub(crate) fn row(&self, batch: usize, head: usize, query: usize) -> (&'a [T], usize) {
        let (at, step) = self.place(batch, head, query);
        (self.data.get(at..).unwrap_or(&[]), step)
    }

    /// Where the row of one query begins, and how far apart its elements are.
    pub(crate) fn place(&self, batch: usize, head: usize, query: usize) -> (usize, usize) {
        place(&self.extents, [batch, head, query])
    }

    /// One element.
    pub(crate) fn at(&self, at: usize) -> Option<T>
    where
        T: Copy,
    {
        self.data.get(at).copied()
    }

    /// How many elements there are.
    pub(crate) const fn len(&self) -> usize {
        self.data.len()
    }
}

/// Checks extents against an array's sizes, and the elements that there are against the extents.
fn check_extents(
    argument: Argument,
    extents: &[usize; 4],
    sizes: [usize; 4],
    len: usize,
) -> Result<(), Error> {
    let mut needed = 1usize;
    for (axis, (&got, &size)) in extents.iter().zip(&sizes).enumerate() {
        if got != 1 && got != size {
            return Err(Error::Broadcast { argument, axis, needed: size, got });
        }
        needed = match needed.checked_mul(got) {
            Some(needed) => needed,
            None => return Err(Error::TooLarge { argument }),
        };
    }
    if len != needed {
        return Err(Error::Length { argument, needed, got: len });
    }
    Ok(())
}

/// Where the row of one batch, head and query begins, and how far apart its elements are.
fn place(extents: &[usize; 4], of: [usize; 3]) -> (usize, usize) {
    let pick = |index: usize, extent: usize| if extent == 1 { 0 } else { index };
    let [.., last] = *extents;
    let row =
        extents.iter().zip(of).fold(0, |row, (&extent, index)| row * extent + pick(index, extent));
    (row * last, usize::from(last != 1))
}

/// A boolean mask: which keys a query may attend to. Flux's sense, and ONNX's: true attends. (In
/// PyTorch's `nn.MultiheadAttention` and in Burn true means excluded: say so with
/// [`Mask::excluding`].)
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    bytes: Broadcast<'a, u8>,
    excluding: bool,
}

impl<'a> Mask<'a> {
    /// A mask of bytes, nonzero attends, of shape `[batch | 1, heads | 1, q_len | 1, kv_len | 1]`.
    #[must_use]
    pub const fn bytes(data: &'a [u8], extents: [usize; 4]) -> Self {
        Self { bytes: Broadcast::new(data, extents), excluding: false }
    }

    /// A mask of booleans, true attends, of shape `[batch | 1, heads | 1, q_len | 1, kv_len | 1]`.
    #[must_use]
    pub const fn bools(data: &'a [bool], extents: [usize; 4]) -> Self {
        Self::bytes(crate::kernel::bool_bytes(data), extents)
    }

    /// Reads the mask in the opposite sense: true is excluded.
    #[must_use]
    pub const fn excluding(self) -> Self {
        Self { excluding: true, ..self }
    }

    pub(crate) fn check(&self, sizes: [usize; 4]) -> Result<(), Error> {
        self.bytes.check(Argument::Mask, sizes)
    }

    pub(crate) fn row(&self, batch: usize, head: usize, query: usize) -> (&'a [u8], usize) {
        self.bytes.row(batch, head, query)
    }

    /// Where the row of one query begins, and how far apart its elements are.
    pub(crate) fn place(&self, batch: usize, head: usize, query: usize) -> (usize, usize) {
        self.bytes.place(batch, head, query)
    }

    /// Whether an element hides its key.
    pub(crate) fn hides_at(&self, at: usize) -> bool {
        self.bytes.at(at).is_none_or(|byte| self.hides(byte))
    }

    /// Whether a byte of the mask hides its key.
    pub(crate) fn hides(&self, byte: u8) -> bool {
        (byte == 0) != self.excluding
    }
}

/// The causal rule: query `i` may attend to key `j` when `j <= i + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causal<'a> {
    /// As it comes naturally: the first query is at the first key (Flux, PyTorch, Keras), or, with a
    /// cache, the last query at the last position.
    Natural,
    /// One offset for the whole batch. 0 aligns the first query with the first key (Flux, PyTorch,
    /// Keras); `kv_len - q_len` aligns the last with the last. A negative offset leaves the first
    /// queries without any key.
    Offset(isize),
    /// An offset for each sequence of the batch, `[batch]`.
    PerSequence(&'a [isize]),
}

impl Causal<'_> {
    pub(crate) fn check(&self, shape: Shape) -> Result<(), Error> {
        match self {
            Self::PerSequence(offsets) if offsets.len() != shape.batch => Err(Error::Length {
                argument: Argument::Causal,
                needed: shape.batch,
                got: offsets.len(),
            }),
            _ => Ok(()),
        }
    }

    /// The position of the first query of a sequence, `natural` where nothing else is said.
    pub(crate) fn offset(&self, batch: usize, natural: isize) -> isize {
        match *self {
            Self::Natural => natural,
            Self::Offset(offset) => offset,
            Self::PerSequence(offsets) => offsets.get(batch).copied().unwrap_or(0),
        }
    }
}
