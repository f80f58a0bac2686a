//! What a module without the standard library brings itself: the allocator over the module's memory,
//! and the end of the road for panics, of which there should be none.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32::{memory_grow, memory_size};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

use crate::heap::{GRAIN, Heap};

#[cfg(target_feature = "atomics")]
compile_error!("the heap is for one thread");

/// Bytes of a page of memory.
const PAGE: usize = 1 << 16;

/// The heap, with all of the module's memory behind the linker's data.
struct Memory(UnsafeCell<Heap>);

// SAFETY: without atomics a module has one thread.
unsafe impl Sync for Memory {}

#[global_allocator]
static MEMORY: Memory = Memory(UnsafeCell::new(Heap::new()));

unsafe extern "C" {
    /// Where the linker's data ends.
    static __heap_base: u8;
}

// SAFETY: pieces are distinct, as long as asked for and aligned to GRAIN; what asks for more gets
// null.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(len) = Heap::rounded(layout.size()) else { return null_mut() };
        if layout.align() > GRAIN {
            return null_mut();
        }
        // SAFETY: one thread, and the heap calls nothing that allocates; the length is rounded.
        unsafe {
            let heap = &mut *self.0.get();
            let piece = heap.take(len);
            if !piece.is_null() {
                return piece;
            }
            if grow(heap, len).is_none() {
                return null_mut();
            }
            heap.take(len)
        }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if let Some(len) = Heap::rounded(layout.size()) {
            // SAFETY: the piece was taken with this length.
            unsafe { (*self.0.get()).give(start, len) };
        }
    }
}

/// Adds memory until a piece of `len` bytes lies free at its end.
///
/// # Safety
/// The heap is the module's only one.
unsafe fn grow(heap: &mut Heap, len: usize) -> Option<()> {
    // The first time, what the first pages have left is not in the heap yet.
    static mut FRESH: bool = true;
    let end = memory_size::<0>().checked_mul(PAGE)?;
    // SAFETY: one thread; the memory between the linker's data and the end is nobody's.
    unsafe {
        if FRESH {
            FRESH = false;
            let start = (&raw const __heap_base).cast_mut();
            let start = start.byte_add(start.align_offset(GRAIN));
            let left = end.saturating_sub(start as usize);
            if left > 0 {
                heap.give(start, left);
            }
        }
        let more = len.saturating_sub(heap.free_before(end)).div_ceil(PAGE);
        if more > 0 {
            if memory_grow::<0>(more) == usize::MAX {
                return None;
            }
            heap.give(core::ptr::with_exposed_provenance_mut(end), more * PAGE);
        }
    }
    Some(())
}

/// The core cannot panic and this crate does not; wasm-bindgen's checks could, on misuse.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
