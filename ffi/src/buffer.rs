//! Buffers that C names by pointer and length: what must hold before they are slices.

use core::ops::Range;

use crate::status::{Fault, mha_argument as A, mha_kind as K};

/// A pointer and a length that could be a slice: not null, aligned, inside the address space. One
/// without elements has no place at all: its pointer is not looked at.
pub(crate) struct Buffer<T> {
    data: *const T,
    len: usize,
}

impl<T> Buffer<T> {
    /// Checks what can be told from the two numbers.
    pub(crate) fn new(data: *const T, len: usize, argument: A) -> Result<Self, Fault> {
        if len == 0 {
            return Ok(Self::none());
        }
        check(data, argument)?;
        fits(data.addr(), len, size_of::<T>(), argument)?;
        Ok(Self { data, len })
    }

    /// No elements.
    pub(crate) const fn none() -> Self {
        Self { data: core::ptr::dangling(), len: 0 }
    }

    /// Whether it has no elements.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether two buffers share a byte.
    pub(crate) fn overlaps<U>(&self, other: &Buffer<U>) -> bool {
        overlap(&self.addresses(), &other.addresses())
    }

    /// The addresses that it takes; empty without elements.
    fn addresses(&self) -> Range<usize> {
        let start = self.data.addr();
        // Has not overflowed before.
        start..start.wrapping_add(self.len.wrapping_mul(size_of::<T>()))
    }

    /// The slice.
    ///
    /// # Safety
    /// There are `len` elements, which nobody writes during `'a`.
    pub(crate) unsafe fn slice<'a>(self) -> &'a [T] {
        // SAFETY: not null, aligned and inside the address space; the rest is the caller's promise.
        unsafe { core::slice::from_raw_parts(self.data, self.len) }
    }

    /// The slice, to write to.
    ///
    /// # Safety
    /// There are `len` elements, made from a pointer that may be written to, which nobody else
    /// touches during `'a`.
    pub(crate) unsafe fn slice_mut<'a>(self) -> &'a mut [T] {
        // SAFETY: not null, aligned and inside the address space; the rest is the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.data.cast_mut(), self.len) }
    }
}

/// Checks that a pointer could point to something.
pub(crate) fn check<T>(data: *const T, argument: A) -> Result<(), Fault> {
    points(data.addr(), align_of::<T>(), argument)
}

// The two below are functions of their own, for all types and places, because they are many: inlined
// they would be half of what this library takes in flash.

/// Checks that an address is neither null nor misaligned.
#[inline(never)]
fn points(address: usize, align: usize, argument: A) -> Result<(), Fault> {
    if address == 0 {
        Err(Fault::new(K::Null, argument))
    } else if address & (align - 1) != 0 {
        Err(Fault::new(K::Misaligned, argument))
    } else {
        Ok(())
    }
}

/// Checks that a slice ends inside the address space.
#[inline(never)]
fn fits(address: usize, len: usize, size: usize, argument: A) -> Result<(), Fault> {
    let bytes = len.checked_mul(size).filter(|&bytes| bytes <= isize::MAX as usize);
    match bytes.and_then(|bytes| address.checked_add(bytes)) {
        Some(_) => Ok(()),
        None => Err(Fault::new(K::TooLarge, argument)),
    }
}

/// The buffers that a call writes. Everything that it reads must lie apart from them: in Rust the
/// borrow checker sees to that, here this does, before any slice is made.
pub(crate) struct Written([(Range<usize>, A); 4]);

impl Written {
    /// For a call that writes nothing.
    pub(crate) const NOTHING: Self = Self([const { (0..0, A::None) }; 4]);

    /// Checks that the buffers lie apart from each other; of two that do not, the later is at fault.
    pub(crate) fn new(
        y: &Buffer<f32>,
        scores: &Buffer<f32>,
        scratch: &Buffer<f32>,
    ) -> Result<Self, Fault> {
        let mut written = Self::NOTHING;
        written.add(y, A::Y)?;
        written.add(scores, A::Scores)?;
        written.add(scratch, A::Scratch)?;
        Ok(written)
    }

    /// Adds a buffer, of four at most, that must lie apart from those before it.
    pub(crate) fn add<T>(&mut self, buffer: &Buffer<T>, argument: A) -> Result<(), Fault> {
        self.add_addresses(buffer.addresses(), argument)
    }

    #[inline(never)]
    fn add_addresses(&mut self, addresses: Range<usize>, argument: A) -> Result<(), Fault> {
        if self.overlapping(&addresses).is_some() {
            return Err(Fault::new(K::Overlap, argument));
        }
        if let Some(free) = self.0.iter_mut().find(|(taken, _)| taken.is_empty()) {
            *free = (addresses, argument);
        }
        Ok(())
    }

    /// A slice that is read, apart from everything that is written.
    ///
    /// # Safety
    /// If the pointer passes the checks, `len` elements are there, and nobody writes them during
    /// `'a`.
    // Once for all buffers of a call: inlined, it would be half of this library's flash.
    #[inline(never)]
    pub(crate) unsafe fn read<'a, T>(
        &self,
        data: *const T,
        len: usize,
        argument: A,
    ) -> Result<&'a [T], Fault> {
        let buffer = self.apart(Buffer::new(data, len, argument)?)?;
        // SAFETY: the caller's promise.
        Ok(unsafe { buffer.slice() })
    }

    /// Passes a buffer that is read through; an error names the one that would be written over it.
    pub(crate) fn apart<T>(&self, read: Buffer<T>) -> Result<Buffer<T>, Fault> {
        match self.overlapping(&read.addresses()) {
            None => Ok(read),
            Some(argument) => Err(Fault::new(K::Overlap, argument)),
        }
    }

    #[inline(never)]
    fn overlapping(&self, addresses: &Range<usize>) -> Option<A> {
        let found = self.0.iter().find(|(written, _)| overlap(written, addresses));
        found.map(|&(_, argument)| argument)
    }
}

/// Whether two ranges of addresses share one. An empty range shares nothing.
fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: usize, len: usize) -> Buffer<f32> {
        Buffer { data: core::ptr::without_provenance(address), len }
    }

    #[test]
    fn pointers_are_checked() {
        let new = |address, len| {
            Buffer::<f32>::new(core::ptr::without_provenance(address), len, A::Q).map(|b| b.len)
        };
        assert_eq!(new(0, 0), Ok(0));
        assert_eq!(new(3, 0), Ok(0));
        assert_eq!(new(4, 1), Ok(1));
        assert_eq!(new(0, 1), Err(Fault::new(K::Null, A::Q)));
        for address in 5..8 {
            assert_eq!(new(address, 1), Err(Fault::new(K::Misaligned, A::Q)));
        }
        for len in [usize::MAX, usize::MAX / 4 + 1, isize::MAX as usize / 4 + 1] {
            assert_eq!(new(4, len), Err(Fault::new(K::TooLarge, A::Q)), "{len}");
        }
        assert_eq!(new(usize::MAX - 3, 1), Err(Fault::new(K::TooLarge, A::Q)));
        assert_eq!(new(usize::MAX - 7, 1), Ok(1));
    }

    #[test]
    fn overlaps_are_found_to_the_byte() {
        // y [100, 140), scores [140, 180), scratch [200, 240)
        let apart = Written::new(&at(100, 10), &at(140, 10), &at(200, 10)).expect("apart");
        let of = |address, len| apart.apart(at(address, len)).map(|_| ()).err();
        let overlap = |argument| Some(Fault::new(K::Overlap, argument));
        assert_eq!(of(96, 1), None);
        assert_eq!(of(96, 2), overlap(A::Y));
        assert_eq!(of(136, 1), overlap(A::Y));
        assert_eq!(of(140, 1), overlap(A::Scores));
        assert_eq!(of(180, 5), None);
        assert_eq!(of(180, 6), overlap(A::Scratch));
        assert_eq!(of(204, 1), overlap(A::Scratch));
        assert_eq!(of(240, 1000), None);
        assert_eq!(of(0, 1000), overlap(A::Y));
        // Nothing has no place.
        assert_eq!(of(120, 0), None);

        let new =
            |y: Buffer<f32>, scores, scratch| Written::new(&y, &scores, &scratch).map(|_| ()).err();
        assert_eq!(new(at(100, 2), at(104, 1), at(200, 1)), overlap(A::Scores));
        assert_eq!(new(at(100, 2), at(108, 1), at(96, 2)), overlap(A::Scratch));
        assert_eq!(new(at(100, 2), at(108, 1), at(108, 2)), overlap(A::Scratch));
        assert_eq!(new(at(100, 0), at(100, 0), at(100, 2)), None);
    }
}
