//! The stack gauge: how far below the caller's frame a call wrote.
//!
//! The memory below the stack pointer is painted, the call is made, and the lowest word that lost
//! its paint is found. It all happens in one function's frame, with the stack pointer read once:
//! read in two functions, it differs, and the gauge with it. Memory that a function reserves and
//! never writes does not show.

/// Bytes painted: calls that go deeper read as this much.
pub const WINDOW: usize = 8192;

/// Makes a call, and says how many bytes of stack it used, its own frame included. 0 on the desk.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn gauge<R>(call: impl FnOnce() -> R) -> (R, usize) {
    const PAINT: u32 = 0xA5A5_5A5A;
    unsafe extern "C" {
        /// The end of static memory: where a heap would begin, and the stack must not go.
        static mut __sheap: u32;
    }
    let top: usize;
    // SAFETY: reads a register.
    #[cfg(target_arch = "arm")]
    unsafe {
        core::arch::asm!("mov {}, sp", out(reg) top, options(nomem, nostack, preserves_flags));
    }
    // SAFETY: reads a register.
    #[cfg(target_arch = "riscv32")]
    unsafe {
        core::arch::asm!("mv {}, sp", out(reg) top, options(nomem, nostack, preserves_flags));
    }
    let floor = (&raw mut __sheap as usize).max(top - WINDOW).next_multiple_of(4);
    let mut at = floor;
    while at < top {
        // SAFETY: above static memory and below the stack pointer, so nobody's.
        unsafe { (at as *mut u32).write_volatile(PAINT) };
        at += 4;
    }
    let result = call();
    let mut at = floor;
    // SAFETY: the same words.
    while at < top && unsafe { (at as *const u32).read_volatile() } == PAINT {
        at += 4;
    }
    (result, top - at)
}

/// Makes a call, and says how many bytes of stack it used. On the desk that is not known: 0.
#[cfg(not(target_os = "none"))]
pub fn gauge<R>(call: impl FnOnce() -> R) -> (R, usize) {
    (call(), 0)
}
