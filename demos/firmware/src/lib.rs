//! What the firmware images share: the way in and out, a console, the stack gauge, and memory.
//!
//! An image is a program in `src/bin`. It runs on a board (in QEMU, or on silicon under a debugger
//! with semihosting) and as an ordinary program on the desk, from the same source; what it prints
//! must not differ but for the lines that begin with `cost`. `cargo xtask firmware` compares them.
//!
//! Nothing here may panic or format through `core::fmt`: an image in which a panic can be reached
//! does not link. The gate is in `src/panic.rs`.

#![cfg_attr(target_os = "none", no_std)]

pub mod cases;
pub mod console;
pub mod cost;
pub mod host;
pub mod images;
pub mod lessons;
pub mod memory;
#[cfg(target_os = "none")]
mod panic;
pub mod record;
pub mod score;
pub mod stack;
pub mod utterances;

/// The instructions of the layer's and attention's programs.
#[cfg(not(feature = "fused"))]
#[must_use]
pub fn isa() -> mha::Isa {
    mha::Isa::PORTABLE
}

/// The instructions of the layer's and attention's programs: of the fused family, so that the desk can tell
/// whether Helium is right.
#[cfg(feature = "fused")]
#[must_use]
pub fn isa() -> mha::Isa {
    mha::Isa::available().find(|isa| isa.is_fused()).unwrap_or(mha::Isa::PORTABLE)
}

/// Makes `main`, a function that returns an exit code, the program.
#[macro_export]
macro_rules! program {
    ($main:ident) => {
        #[cfg(target_os = "none")]
        mod start {
            // The start-up code jumps to this symbol with memory and stack ready.
            #[unsafe(export_name = "main")]
            extern "C" fn start() -> ! {
                $crate::host::exit(super::$main())
            }
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            $crate::host::exit($main())
        }
    };
}

// The start-up code, linked for its vectors and its reset handler.
#[cfg(all(target_arch = "arm", target_os = "none"))]
use cortex_m_rt as _;
#[cfg(all(target_arch = "riscv32", target_os = "none"))]
use riscv_rt as _;
