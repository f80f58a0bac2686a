//! The version of the interface, the same as the crate's.

use core::ffi::c_char;

/// Major version of this header.
pub const MHA_VERSION_MAJOR: u32 = 0;
/// Minor version of this header.
pub const MHA_VERSION_MINOR: u32 = 1;
/// Patch version of this header.
pub const MHA_VERSION_PATCH: u32 = 0;

/// The version as one number, as `MHA_VERSION` computes it.
const VERSION: u32 = MHA_VERSION_MAJOR << 24 | MHA_VERSION_MINOR << 16 | MHA_VERSION_PATCH;

const TEXT: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

/// Version of the library that was linked, `major << 24 | minor << 16 | patch`: compare with
/// `MHA_VERSION`, the version of the header.
///
/// Structs may differ between two versions that differ in major or minor number. Safe to call from
/// anywhere, interrupts included.
///
/// @return the version; there is no status.
#[unsafe(no_mangle)]
pub extern "C" fn mha_version() -> u32 {
    VERSION
}

/// Version of the library that was linked as text, such as `"0.1.0"`.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; there is no status.
#[unsafe(no_mangle)]
pub extern "C" fn mha_version_string() -> *const c_char {
    TEXT.as_ptr().cast()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    #[test]
    fn the_header_has_the_version_of_the_crate() {
        let header = format!("{MHA_VERSION_MAJOR}.{MHA_VERSION_MINOR}.{MHA_VERSION_PATCH}");
        assert_eq!(header, env!("CARGO_PKG_VERSION"));
        assert_eq!(TEXT, format!("{header}\0"));
    }
}
