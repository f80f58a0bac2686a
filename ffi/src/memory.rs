//! The memory functions of Arm's run-time ABI in terms of C's.
//!
//! The compiler calls them where it copies or clears; not every C library has them, and the shipped
//! object is to need nothing but `memcpy`, `memmove` and `memset`. There they are local to it.

#[cfg(all(target_arch = "arm", target_os = "none"))]
core::arch::global_asm!(
    ".macro forward name, to",
    ".section .text.\\name, \"ax\", %progbits",
    ".thumb_func",
    ".global \\name",
    "\\name:",
    "push {{r4, lr}}",
    "bl \\to",
    "pop {{r4, pc}}",
    ".endm",
    // (to, from, length)
    "forward __aeabi_memcpy, memcpy",
    "forward __aeabi_memcpy4, memcpy",
    "forward __aeabi_memcpy8, memcpy",
    "forward __aeabi_memmove, memmove",
    "forward __aeabi_memmove4, memmove",
    "forward __aeabi_memmove8, memmove",
    // (to, length), and zeros to write
    ".macro clear name",
    ".section .text.\\name, \"ax\", %progbits",
    ".thumb_func",
    ".global \\name",
    "\\name:",
    "push {{r4, lr}}",
    "movs r2, r1",
    "movs r1, #0",
    "bl memset",
    "pop {{r4, pc}}",
    ".endm",
    "clear __aeabi_memclr",
    "clear __aeabi_memclr4",
    "clear __aeabi_memclr8",
    // (to, length, byte)
    ".macro fill name",
    ".section .text.\\name, \"ax\", %progbits",
    ".thumb_func",
    ".global \\name",
    "\\name:",
    "push {{r4, lr}}",
    "movs r3, r1",
    "movs r1, r2",
    "movs r2, r3",
    "bl memset",
    "pop {{r4, pc}}",
    ".endm",
    "fill __aeabi_memset",
    "fill __aeabi_memset4",
    "fill __aeabi_memset8",
    ".text",
);
