//! The heap of the module: a list of free pieces in the order of their addresses, first fit, joined
//! where they touch.
//!
//! It serves layers and calls: a few large pieces that live long. What it promises is that memory
//! which is given back is used again, whatever the order, so that making and dropping layers for
//! ever takes no more memory than the most that lived at once. Free pieces carry the list; pieces in
//! use carry nothing, because Rust says the size again when it frees.

use core::ptr::{null_mut, without_provenance_mut};

/// Every piece begins at and is a multiple of this: the alignment of a 128-bit vector, and room for
/// a [`Piece`].
pub(crate) const GRAIN: usize = 16;

/// The head of a free piece, which lies in it.
struct Piece {
    /// Bytes, this head included.
    len: usize,
    next: *mut Piece,
}

/// The free pieces.
pub(crate) struct Heap {
    first: *mut Piece,
}

impl Heap {
    /// A heap without memory.
    pub(crate) const fn new() -> Self {
        Self { first: null_mut() }
    }

    /// The length of the piece that serves a request, or `None` where that overflows.
    pub(crate) fn rounded(len: usize) -> Option<usize> {
        Some(len.max(1).checked_add(GRAIN - 1)? & !(GRAIN - 1))
    }

    /// Takes the first piece of `len` bytes that is free; null where there is none.
    ///
    /// # Safety
    /// - `len` is a result of [`Heap::rounded`].
    /// - Nobody but this heap touches what was given to it and not taken.
    pub(crate) unsafe fn take(&mut self, len: usize) -> *mut u8 {
        let mut link: *mut *mut Piece = &raw mut self.first;
        // SAFETY: `link` points at the head of the list or at a free piece's `next`, and every piece
        // in the list is free memory of at least its own length, aligned to GRAIN.
        unsafe {
            while let Some(piece) = (*link).as_mut() {
                if piece.len >= len {
                    let taken: *mut Piece = piece;
                    *link = if piece.len == len {
                        piece.next
                    } else {
                        let rest = taken.byte_add(len);
                        rest.write(Piece { len: piece.len - len, next: piece.next });
                        rest
                    };
                    return taken.cast();
                }
                link = &raw mut piece.next;
            }
        }
        null_mut()
    }

    /// Gives memory to the heap: new memory, or what was taken before.
    ///
    /// # Safety
    /// - The `len` bytes from `start` on are the caller's to give; both are multiples of [`GRAIN`],
    ///   and `len` is not 0.
    /// - No other piece of this heap overlaps them.
    pub(crate) unsafe fn give(&mut self, start: *mut u8, len: usize) {
        let given: *mut Piece = start.cast();
        let mut before: *mut Piece = null_mut();
        let mut after = self.first;
        // SAFETY: as in `take`; `given` has room for a head and lies between `before` and `after`.
        unsafe {
            while !after.is_null() && after < given {
                before = after;
                after = (*after).next;
            }
            let mut piece = Piece { len, next: after };
            if given.byte_add(len) == after {
                piece = Piece { len: len + (*after).len, next: (*after).next };
            }
            if before.is_null() {
                given.write(piece);
                self.first = given;
            } else if before.byte_add((*before).len) == given {
                *before = Piece { len: (*before).len + piece.len, next: piece.next };
            } else {
                given.write(piece);
                (*before).next = given;
            }
        }
    }

    /// The length of the free piece that ends at the address `end`, 0 where that is in use.
    pub(crate) fn free_before(&self, end: usize) -> usize {
        let end = without_provenance_mut::<Piece>(end);
        let mut piece = self.first;
        // SAFETY: every piece in the list is free memory with a head in it.
        unsafe {
            while let Some(Piece { len, next }) = piece.as_ref() {
                if piece.wrapping_byte_add(*len) == end {
                    return *len;
                }
                piece = *next;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 16;

    #[repr(align(16))]
    struct Memory([u8; SIZE]);

    /// A heap over a block that outlives the test, and the block's address.
    fn heap() -> (Heap, *mut u8) {
        let memory: *mut u8 = Box::leak(Box::new(Memory([0; SIZE]))).0.as_mut_ptr();
        let mut heap = Heap::new();
        // SAFETY: the block is leaked and aligned, and its size is a multiple of the grain.
        unsafe { heap.give(memory, SIZE) };
        (heap, memory)
    }

    fn pieces(heap: &Heap) -> Vec<(usize, usize)> {
        let mut pieces = Vec::new();
        let mut piece = heap.first;
        // SAFETY: the list holds free pieces.
        while let Some(head) = unsafe { piece.as_ref() } {
            pieces.push((piece as usize, head.len));
            piece = head.next;
        }
        pieces
    }

    #[test]
    fn lengths_are_rounded_up_and_never_wrap() {
        assert_eq!(Heap::rounded(0), Some(GRAIN));
        assert_eq!(Heap::rounded(GRAIN), Some(GRAIN));
        assert_eq!(Heap::rounded(GRAIN + 1), Some(2 * GRAIN));
        assert_eq!(Heap::rounded(usize::MAX), None);
    }

    #[test]
    fn a_piece_too_large_is_null_and_takes_nothing() {
        let (mut heap, memory) = heap();
        // SAFETY: the lengths are multiples of the grain.
        unsafe {
            assert!(heap.take(SIZE + GRAIN).is_null());
            assert_eq!(heap.take(SIZE), memory);
            assert!(heap.take(GRAIN).is_null());
        }
        assert_eq!(heap.free_before(memory as usize + SIZE), 0);
    }

    /// Takes and gives back at random, filling each piece with a pattern that must still be there
    /// when it goes. Free pieces must stay sorted, apart and whole.
    #[test]
    fn pieces_never_overlap_and_always_come_together_again() {
        let (mut heap, memory) = heap();
        let mut held: Vec<(*mut u8, usize, u8)> = Vec::new();
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for round in 0..20_000 {
            if random(2) == 0 || held.is_empty() {
                let len = Heap::rounded(random(if round % 5 == 0 { 8000 } else { 200 })).unwrap();
                // SAFETY: the length is rounded; a piece that is taken is ours to fill.
                unsafe {
                    let start = heap.take(len);
                    if !start.is_null() {
                        start.write_bytes(round as u8, len);
                        held.push((start, len, round as u8));
                    }
                }
            } else {
                let (start, len, pattern) = held.swap_remove(random(held.len()));
                // SAFETY: the piece was taken with this length and is given back once.
                unsafe {
                    assert!((0..len).all(|i| *start.add(i) == pattern), "piece overwritten");
                    heap.give(start, len);
                }
            }
            let pieces = pieces(&heap);
            assert!(pieces.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "unsorted or not joined");
            let free: usize = pieces.iter().map(|piece| piece.1).sum();
            let used: usize = held.iter().map(|piece| piece.1).sum();
            assert_eq!(free + used, SIZE, "bytes lost in round {round}");
        }
        for (start, len, _) in held {
            // SAFETY: as above.
            unsafe { heap.give(start, len) };
        }
        assert_eq!(pieces(&heap), [(memory as usize, SIZE)]);
        assert_eq!(heap.free_before(memory as usize + SIZE), SIZE);
    }
}
