//! Memory without an allocator: statics that are lent out once, cut into slices.

use core::cell::UnsafeCell;

/// A static that the program may change.
pub struct Memory<T>(UnsafeCell<T>);

// SAFETY: whoever takes it vouches for being the only one.
unsafe impl<T: Send> Sync for Memory<T> {}

impl<T> Memory<T> {
    /// Memory that begins with this value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The memory, to be changed.
    ///
    /// # Safety
    /// This is called at most once in the life of the program.
    #[expect(clippy::mut_from_ref, reason = "called once, so there is no other reference")]
    pub unsafe fn take(&'static self) -> &'static mut T {
        // SAFETY: there is no other reference, by the contract.
        unsafe { &mut *self.0.get() }
    }
}

/// Floats to cut slices off.
pub struct Arena<'a>(&'a mut [f32]);

impl<'a> Arena<'a> {
    /// All of `floats`.
    #[must_use]
    pub fn new(floats: &'a mut [f32]) -> Self {
        Self(floats)
    }

    /// The next `length` floats, or `None` where there are not as many left.
    pub fn take(&mut self, length: usize) -> Option<&'a mut [f32]> {
        match core::mem::take(&mut self.0).split_at_mut_checked(length) {
            Some((part, rest)) => {
                self.0 = rest;
                Some(part)
            }
            None => None,
        }
    }
}
