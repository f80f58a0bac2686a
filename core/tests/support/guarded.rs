//! Memory beside pages that nothing may touch: who reads or writes one element too far dies there.
//!
//! Where there are no such pages (not Unix) this is memory like any other.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

extern crate std;

/// The side on which what is placed touches a forbidden page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It begins where a forbidden page ends.
    Start,
    /// It ends where a forbidden page begins.
    End,
}

/// Room for one buffer at a time, a forbidden page on either side.
#[derive(Debug)]
pub struct Guarded {
    #[cfg(unix)]
    pages: unix::Pages,
    #[cfg(not(unix))]
    words: std::vec::Vec<u64>,
}

impl Guarded {
    /// Room for as many bytes.
    pub fn new(bytes: usize) -> Self {
        #[cfg(unix)]
        return Self { pages: unix::Pages::new(bytes) };
        #[cfg(not(unix))]
        Self { words: std::vec![0; bytes.div_ceil(8)] }
    }

    /// Places a copy at the edge.
    pub fn place<T: Copy>(&mut self, data: &[T], edge: Edge) -> &mut [T] {
        let to: *mut T = self.at(data.len(), edge);
        // SAFETY: the room is ours, lent with `self`, and the copy lies inside of it.
        unsafe {
            to.copy_from_nonoverlapping(data.as_ptr(), data.len());
            core::slice::from_raw_parts_mut(to, data.len())
        }
    }

    /// What lies at the edge, as floats, which any bytes are.
    pub fn again(&mut self, count: usize, edge: Edge) -> &mut [f32] {
        // SAFETY: the room is ours, lent with `self`, and zero where nothing was placed.
        unsafe { core::slice::from_raw_parts_mut(self.at(count, edge), count) }
    }

    /// Where as many elements lie at the edge. Aligned, because both ends of the room are.
    fn at<T>(&mut self, count: usize, edge: Edge) -> *mut T {
        let bytes = count * size_of::<T>();
        #[cfg(unix)]
        let (room, start) = (self.pages.room(), self.pages.start());
        #[cfg(not(unix))]
        let (room, start) = (self.words.len() * 8, self.words.as_mut_ptr().cast::<u8>());
        assert!(bytes <= room && align_of::<T>() <= 8, "{bytes} bytes in {room}");
        start.wrapping_add(if edge == Edge::Start { 0 } else { room - bytes }).cast()
    }

    /// Places as many copies of a value at the edge.
    pub fn fill<T: Copy>(&mut self, value: T, count: usize, edge: Edge) -> &mut [T] {
        self.place(&std::vec![value; count], edge)
    }
}

#[cfg(unix)]
mod unix {
    use core::ptr;

    /// Pages of this process, the first and the last of them forbidden.
    #[derive(Debug)]
    pub(super) struct Pages {
        start: *mut u8,
        len: usize,
        page: usize,
    }

    impl Pages {
        pub(super) fn new(bytes: usize) -> Self {
            // SAFETY: a question, and new pages that nobody else has; those between the first and
            // the last are opened.
            unsafe {
                let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
                let len = bytes.next_multiple_of(page) + 2 * page;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
                let start = libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0);
                assert_ne!(start, libc::MAP_FAILED, "no {len} bytes of memory");
                let open = libc::PROT_READ | libc::PROT_WRITE;
                assert_eq!(libc::mprotect(start.byte_add(page), len - 2 * page, open), 0);
                Self { start: start.cast(), len, page }
            }
        }

        pub(super) fn room(&self) -> usize {
            self.len - 2 * self.page
        }

        pub(super) fn start(&mut self) -> *mut u8 {
            self.start.wrapping_add(self.page)
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: the pages that `new` has got, which nobody borrows any more.
            unsafe { libc::munmap(self.start.cast(), self.len) };
        }
    }
}
