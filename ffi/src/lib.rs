//! The C interface of [`mha`]: what `include/mha.h` declares.
//!
//! Thin on purpose. A function here checks what C can get wrong and Rust cannot (null, misaligned
//! and overlapping buffers, words that are no value of their enumeration), makes slices of the
//! pointers, and hands over to the crate. It must never panic, allocate, keep a pointer, or write
//! anything before every check has passed.
//!
//! The header is generated from this source (`cargo xtask header`), so the documentation of the
//! items is written for readers of C. `header/manual.h` is the header's top, `header/macros.h` its
//! macros.
//!
//! | module | what is in it |
//! |---|---|
//! | `version` | the version of the interface |
//! | `status` | what a function returns, and its texts |
//! | `types` | the structs |
//! | `convert` | how each struct becomes its twin in Rust |
//! | `buffer` | pointer and length: null, alignment, overlap |
//! | `options` | the structs of the attention family |
//! | `cache` | keys and values between calls |
//! | `isa` | the words that name instructions |
//! | `call` | the layer and attention |
//! | `family` | both with options, over caches, packed, merged |
//! | `backward` | gradients |
//! | `size` | lengths of buffers |
//! | `init` | initialisers |
//! | `memory` | what the compiler calls to copy and clear, for the shipped object |

#![no_std]
#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(clippy::missing_safety_doc, reason = "the text above a function is its contract in C")]

mod backward;
mod buffer;
mod cache;
mod call;
mod convert;
mod family;
mod init;
mod isa;
#[cfg(feature = "one-object")]
mod memory;
mod options;
mod size;
mod status;
mod types;
mod version;

pub use backward::*;
pub use cache::*;
pub use call::*;
pub use family::*;
pub use init::*;
pub use isa::*;
pub use options::*;
pub use size::*;
pub use status::*;
pub use types::*;
pub use version::*;

/// Nothing panics here, and the link proves it: this handler calls a function that nobody defines,
/// so it must have been optimised away, with everything that leads to it.
#[cfg(all(feature = "panic-handler", not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        fn mha_panic_path_is_reachable() -> !;
    }
    // SAFETY: never executed: a program in which this could be reached does not link.
    unsafe { mha_panic_path_is_reachable() }
}
