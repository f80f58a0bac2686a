//! The machine that a board hangs on: its console, its files, and how to end.
//!
//! On a board this is Arm's semihosting, which QEMU and debuggers speak: the program stops at a
//! certain instruction, with the number of an operation in one register and the address of its
//! arguments in another. On the desk it is the standard library, under the same names.

pub use imp::{File, exit};

#[cfg(target_os = "none")]
mod imp {
    use core::ffi::CStr;

    // Numbers of operations, from Arm's "Semihosting for AArch32 and AArch64".
    const SYS_OPEN: usize = 0x01;
    const SYS_CLOSE: usize = 0x02;
    const SYS_WRITE: usize = 0x05;
    const SYS_READ: usize = 0x06;
    const SYS_EXIT_EXTENDED: usize = 0x20;
    /// The reason to end that stands for an ordinary exit with a code.
    const APPLICATION_EXIT: usize = 0x2_0026;
    /// Modes of `SYS_OPEN`, those of C's `fopen`.
    const MODE_READ_BINARY: usize = 1;
    const MODE_WRITE_BINARY: usize = 5;
    /// What `SYS_OPEN` answers when it fails: −1.
    const FAILED: usize = usize::MAX;

    /// # Safety
    /// `arguments` points at as many words as the operation reads, and each address among them at
    /// as many bytes as its length says.
    #[inline(always)]
    unsafe fn call(operation: usize, arguments: *const usize) -> usize {
        let result;
        // SAFETY: the instruction hands over two registers and changes one; memory changes only
        // where the operation's arguments point, which the caller vouches for.
        #[cfg(target_arch = "arm")]
        unsafe {
            core::arch::asm!("bkpt 0xab", inlateout("r0") operation => result, in("r1") arguments);
        }
        // SAFETY: as above. The three instructions must not be compressed nor cross a page.
        #[cfg(target_arch = "riscv32")]
        unsafe {
            core::arch::asm!(
                ".option push", ".option norvc", ".balign 16",
                "slli x0, x0, 0x1f", "ebreak", "srai x0, x0, 7",
                ".option pop",
                inlateout("a0") operation => result, in("a1") arguments,
            );
        }
        result
    }

    /// An open file, or the console.
    pub struct File(usize);

    impl File {
        /// What goes to the terminal.
        #[must_use]
        pub fn console() -> Option<Self> {
            Self::with_mode(c":tt", MODE_WRITE_BINARY)
        }

        /// Makes a file or empties it, in the directory that QEMU runs in.
        #[must_use]
        pub fn create(name: &CStr) -> Option<Self> {
            Self::with_mode(name, MODE_WRITE_BINARY)
        }

        /// Opens a file to read, in the directory that QEMU runs in.
        #[must_use]
        pub fn open(name: &CStr) -> Option<Self> {
            Self::with_mode(name, MODE_READ_BINARY)
        }

        fn with_mode(name: &CStr, mode: usize) -> Option<Self> {
            let arguments = [name.as_ptr() as usize, mode, name.count_bytes()];
            // SAFETY: three words; the name is as long as the third says.
            let handle = unsafe { call(SYS_OPEN, arguments.as_ptr()) };
            (handle != FAILED).then_some(Self(handle))
        }

        /// Writes all of `bytes`; false where that fails.
        pub fn write(&mut self, bytes: &[u8]) -> bool {
            let arguments = [self.0, bytes.as_ptr() as usize, bytes.len()];
            // SAFETY: three words; the second and third are a slice that is only read.
            unsafe { call(SYS_WRITE, arguments.as_ptr()) == 0 }
        }

        /// Fills `bytes`; false where the file ends before.
        pub fn read(&mut self, bytes: &mut [u8]) -> bool {
            let arguments = [self.0, bytes.as_mut_ptr() as usize, bytes.len()];
            // SAFETY: three words; the second and third are a slice that is ours to write.
            unsafe { call(SYS_READ, arguments.as_ptr()) == 0 }
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            // SAFETY: one word, a handle that nobody else has.
            unsafe { call(SYS_CLOSE, [self.0].as_ptr()) };
        }
    }

    /// Ends the program with a code; QEMU's own exit code is the same.
    pub fn exit(code: i32) -> ! {
        let arguments = [APPLICATION_EXIT, code as usize];
        loop {
            // SAFETY: two words, no addresses.
            unsafe { call(SYS_EXIT_EXTENDED, arguments.as_ptr()) };
        }
    }
}

#[cfg(not(target_os = "none"))]
mod imp {
    use std::ffi::CStr;
    use std::fs;
    use std::io::{self, Read, Write};

    /// An open file, or the console.
    pub struct File(Kind);

    enum Kind {
        Console(io::Stdout),
        File(fs::File),
    }

    impl File {
        /// What goes to the terminal.
        #[must_use]
        pub fn console() -> Option<Self> {
            Some(Self(Kind::Console(io::stdout())))
        }

        /// Makes a file or empties it, in the working directory.
        #[must_use]
        pub fn create(name: &CStr) -> Option<Self> {
            fs::File::create(name.to_str().ok()?).ok().map(Kind::File).map(Self)
        }

        /// Opens a file to read, in the working directory.
        #[must_use]
        pub fn open(name: &CStr) -> Option<Self> {
            fs::File::open(name.to_str().ok()?).ok().map(Kind::File).map(Self)
        }

        /// Writes all of `bytes`; false where that fails.
        pub fn write(&mut self, bytes: &[u8]) -> bool {
            match &mut self.0 {
                Kind::Console(console) => console.write_all(bytes).is_ok(),
                Kind::File(file) => file.write_all(bytes).is_ok(),
            }
        }

        /// Fills `bytes`; false where the file ends before.
        pub fn read(&mut self, bytes: &mut [u8]) -> bool {
            match &mut self.0 {
                Kind::Console(_) => false,
                Kind::File(file) => file.read_exact(bytes).is_ok(),
            }
        }
    }

    /// Ends the program with a code.
    pub fn exit(code: i32) -> ! {
        let _ = io::stdout().flush();
        std::process::exit(code)
    }
}
