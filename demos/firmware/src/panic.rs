//! The panic gate. The handler calls a function that does not exist: an image links only if the
//! optimiser has proven that no panic can be reached, so that nothing is left to call the handler.
//!
//! It proves this of the image at hand, not of the source: it needs optimisation, link-time
//! optimisation and one code generation unit, as the workspace's release profile has them.

use core::panic::PanicInfo;

unsafe extern "C" {
    /// Never defined. An error of the linker that names it means: a panic is reachable.
    safe fn mha_panic_path_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    mha_panic_path_is_reachable()
}
