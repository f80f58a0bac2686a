//! The words that name instructions in C, and the value of the crate that each stands for.
//!
//! A word comes from outside, and running instructions that a machine lacks is fatal, so a word only
//! ever selects among those that detection has found. Bare metal has one kind, and nothing to
//! detect. A desktop asks its processor, which takes microseconds, and more under a hypervisor: the
//! answer is remembered, the only state in this library.

use core::ffi::c_char;

use mha::Isa;

use crate::status::{Fault, mha_argument as A, mha_kind as K};

/// The instructions that a call runs on. The numbers are stable and never reused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mha_isa {
    /// The fastest that this machine has.
    Fastest = 0,
    /// Plain arithmetic, there on every machine and with the same bits on all of them.
    Portable = 1,
    /// x86-64 with AVX2 and FMA.
    Avx2 = 2,
    /// x86-64 with AVX-512F.
    Avx512 = 3,
    /// 64-bit Arm.
    Neon = 4,
    /// WebAssembly with 128-bit vectors.
    Simd128 = 5,
}

/// The crate's value for a word.
#[cfg(target_os = "none")]
pub(crate) fn isa(word: i32) -> Result<Isa, Fault> {
    let isa = match word {
        0 => Isa::detect(),
        1 => Isa::PORTABLE,
        _ => return Err(Fault::new(K::Value, A::Isa)),
    };
    Ok(isa)
}

#[cfg(not(target_os = "none"))]
pub(crate) use host::isa;

#[cfg(not(target_os = "none"))]
mod host {
    use core::cell::UnsafeCell;
    use core::sync::atomic::{AtomicU8, Ordering};

    use super::{A, Fault, Isa, K, mha_isa};

    /// The crate's value for a word.
    pub(crate) fn isa(word: i32) -> Result<Isa, Fault> {
        if word == mha_isa::Portable as i32 {
            return Ok(Isa::PORTABLE);
        }
        let index = usize::try_from(word).map_err(|_| Fault::new(K::Value, A::Isa))?;
        let found = FOUND.get().get(index).copied().flatten();
        found.ok_or(Fault::new(K::Value, A::Isa))
    }

    /// By word, what this machine has.
    type Table = [Option<Isa>; 6];

    /// The remembered answer of detection.
    static FOUND: Found = Found { state: AtomicU8::new(EMPTY), table: UnsafeCell::new([None; 6]) };

    const EMPTY: u8 = 0;
    const WRITING: u8 = 1;
    const READY: u8 = 2;

    struct Found {
        state: AtomicU8,
        table: UnsafeCell<Table>,
    }

    // SAFETY: the table is written by the one who takes the state from EMPTY to WRITING, and read
    // only after that one has made it READY.
    unsafe impl Sync for Found {}

    impl Found {
        fn get(&self) -> Table {
            if self.state.load(Ordering::Acquire) == READY {
                // SAFETY: nobody writes any more.
                return unsafe { *self.table.get() };
            }
            let table = detect();
            let (ok, fail) = (Ordering::Acquire, Ordering::Relaxed);
            // Who comes meanwhile does not wait: detection gives everybody the same.
            if self.state.compare_exchange(EMPTY, WRITING, ok, fail).is_ok() {
                // SAFETY: the exchange succeeds once, and nobody reads before READY.
                unsafe { *self.table.get() = table };
                self.state.store(READY, Ordering::Release);
            }
            table
        }
    }

    fn detect() -> Table {
        let mut table = [None; 6];
        for isa in core::iter::once(Isa::detect()).chain(Isa::available()) {
            let word = match isa.name() {
                "portable" => mha_isa::Portable,
                "avx2" => mha_isa::Avx2,
                "avx512" => mha_isa::Avx512,
                "neon" => mha_isa::Neon,
                "simd128" => mha_isa::Simd128,
                // One that has no number yet can still be the fastest.
                _ => mha_isa::Fastest,
            };
            if let Some(entry) = table.get_mut(word as usize)
                && entry.is_none()
            {
                *entry = Some(isa);
            }
        }
        if let Some(fastest) = table.first_mut() {
            *fastest = Some(Isa::detect());
        }
        // Where it goes by another name.
        table[mha_isa::Portable as usize] = Some(Isa::PORTABLE);
        table
    }
}

/// The instructions that `MHA_ISA_FASTEST` stands for on this machine.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return one of `enum mha_isa`.
#[unsafe(no_mangle)]
pub extern "C" fn mha_detect() -> i32 {
    // What exists is a matter of names: the crate's values cannot be counted.
    let fastest = isa(mha_isa::Fastest as i32).ok();
    let same = |word: &mha_isa| isa(*word as i32).ok() == fastest;
    let words =
        [mha_isa::Portable, mha_isa::Avx2, mha_isa::Avx512, mha_isa::Neon, mha_isa::Simd128];
    words.into_iter().find(same).unwrap_or(mha_isa::Fastest) as i32
}

/// The name of the instructions that a call with this word runs on, such as `"portable"` or
/// `"avx2"`.
///
/// @param isa one of `enum mha_isa`; for `MHA_ISA_FASTEST`, the name of what that is here.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; NULL where the machine does not have them or
/// there is no such word.
#[unsafe(no_mangle)]
pub extern "C" fn mha_isa_name(isa: i32) -> *const c_char {
    const NAMES: [&str; 6] =
        ["fastest\0", "portable\0", "avx2\0", "avx512\0", "neon\0", "simd128\0"];
    if self::isa(isa).is_err() {
        return core::ptr::null();
    }
    let word = if isa == mha_isa::Fastest as i32 { mha_detect() } else { isa };
    let name = usize::try_from(word).ok().and_then(|word| NAMES.get(word));
    name.map_or(core::ptr::null(), |name| name.as_ptr().cast())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::ffi::CStr;

    #[test]
    fn words_select_what_the_machine_has() {
        assert_eq!(isa(0), Ok(Isa::detect()));
        assert_eq!(isa(1), Ok(Isa::PORTABLE));
        for word in [-1, 6, 99, i32::MIN, i32::MAX] {
            assert_eq!(isa(word), Err(Fault::new(K::Value, A::Isa)));
            assert!(mha_isa_name(word).is_null());
        }
        let mut words = 0;
        for word in 1..4 {
            let Ok(isa) = isa(word) else {
                assert!(mha_isa_name(word).is_null());
                continue;
            };
            words += 1;
            assert!(Isa::available().any(|available| available == isa));
            // SAFETY: a name is a static string.
            let name = unsafe { CStr::from_ptr(mha_isa_name(word)) };
            assert_eq!(name.to_str(), Ok(isa.name()));
        }
        assert_eq!(words, Isa::available().count(), "an instruction set has no number in C");
    }

    #[test]
    fn detection_is_the_same_for_everybody() {
        let threads: std::vec::Vec<_> = (0..8).map(|_| std::thread::spawn(|| isa(0))).collect();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), Ok(Isa::detect()));
        }
        assert_eq!(isa(mha_detect()), Ok(Isa::detect()));
    }
}
