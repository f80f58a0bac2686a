//! Initialisers, writing into the caller's weights.

use core::convert::Infallible;

use mha::init::{self, SplitMix};
use rand_core::{Rng, SeedableRng, TryRng};

use crate::buffer::Buffer;
use crate::convert::read;
use crate::status::{Fault, mha_argument as A, mha_kind as K, mha_status, status};

/// A small random generator, owned by the caller: SplitMix64. Good for weights and shuffles, not for
/// secrets. `{ seed }` is an initialiser; every seed is a good one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_rng {
    /// The state: the seed at first.
    pub state: u64,
}

/// A normal distribution that is cut off.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct mha_truncated_normal {
    /// Mean before it is cut off.
    pub mean: f32,
    /// Standard deviation before it is cut off.
    pub deviation: f32,
    /// The least value.
    pub low: f32,
    /// The greatest value.
    pub high: f32,
}

/// The crate's generator, with its state in the caller's hands.
struct Generator<'a>(&'a mut mha_rng);

impl Generator<'_> {
    fn step(&mut self) -> u64 {
        let number = SplitMix::seed_from_u64(self.0.state).next_u64();
        // What a step adds to the state.
        self.0.state = self.0.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        number
    }
}

impl TryRng for Generator<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.step() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.step())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.step().to_le_bytes();
            chunk.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

/// Checks the pointers and fills a weight without a generator.
///
/// # Safety
/// A weight that passes the checks is `len` floats, which nobody else touches during the call.
unsafe fn fill(
    weight: *mut f32,
    len: usize,
    gain: *const f32,
    fill: impl FnOnce(&mut [f32], f32),
) -> mha_status {
    let run = || {
        let weight = Buffer::new(weight, len, A::Weight)?;
        // SAFETY: the caller's promise.
        let gain = unsafe { gain_or_one(gain)? };
        // SAFETY: the caller's promise.
        fill(unsafe { weight.slice_mut() }, gain);
        Ok(())
    };
    status(run())
}

/// Checks the pointers and fills a weight from a generator.
///
/// # Safety
/// A weight and a generator that pass the checks are there, and nobody else touches them during the
/// call.
unsafe fn draw(
    weight: *mut f32,
    len: usize,
    rng: *mut mha_rng,
    draw: impl FnOnce(&mut [f32], &mut Generator<'_>),
) -> mha_status {
    let run = || {
        let weight = Buffer::new(weight, len, A::Weight)?;
        let rng = Buffer::new(rng, 1, A::Rng)?;
        if weight.overlaps(&rng) {
            return Err(Fault::new(K::Overlap, A::Weight));
        }
        // SAFETY: the caller's promise, and they lie apart.
        let (weight, rng) = unsafe { (weight.slice_mut(), rng.slice_mut()) };
        if let [rng] = rng {
            draw(weight, &mut Generator(rng));
        }
        Ok(())
    };
    status(run())
}

/// # Safety
/// A pointer that passes the checks points to a float.
unsafe fn gain_or_one(gain: *const f32) -> Result<f32, Fault> {
    if gain.is_null() {
        return Ok(1.0);
    }
    // SAFETY: the caller's promise.
    unsafe { read(gain, A::Parameters) }.copied()
}

/// Glorot's uniform initialiser, Flux's default: uniform in +-sqrt(6 / (fan_in + fan_out)).
///
/// @param weight filled in.
/// @param len how many floats there are.
/// @param fan_in inputs of the projection, whichever way the weight lies in memory.
/// @param fan_out outputs of the projection.
/// @param rng the generator; its state moves on.
///
/// Safe to call from any number of threads, each with a generator of its own.
///
/// @return MHA_OK; NULL or MISALIGNED (weight, rng), TOO_LARGE or OVERLAP (weight). Nothing has
/// been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_init_glorot_uniform(
    weight: *mut f32,
    len: usize,
    fan_in: usize,
    fan_out: usize,
    rng: *mut mha_rng,
) -> mha_status {
    // SAFETY: this function's contract is that one's.
    unsafe { draw(weight, len, rng, |w, rng| init::glorot_uniform(w, fan_in, fan_out, rng)) }
}

/// Glorot's normal initialiser: mean 0, standard deviation sqrt(2 / (fan_in + fan_out)).
///
/// Parameters, threads and @return: as `mha_init_glorot_uniform`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_init_glorot_normal(
    weight: *mut f32,
    len: usize,
    fan_in: usize,
    fan_out: usize,
    rng: *mut mha_rng,
) -> mha_status {
    // SAFETY: this function's contract is that one's.
    unsafe { draw(weight, len, rng, |w, rng| init::glorot_normal(w, fan_in, fan_out, rng)) }
}

/// Kaiming's uniform initialiser with Flux's gain of sqrt(2): uniform in +-sqrt(6 / fan_in).
///
/// Parameters, threads and @return: as `mha_init_glorot_uniform`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_init_kaiming_uniform(
    weight: *mut f32,
    len: usize,
    fan_in: usize,
    rng: *mut mha_rng,
) -> mha_status {
    // SAFETY: this function's contract is that one's.
    unsafe { draw(weight, len, rng, |w, rng| init::kaiming_uniform(w, fan_in, rng)) }
}

/// Kaiming's normal initialiser with Flux's gain of sqrt(2): mean 0, standard deviation
/// sqrt(2 / fan_in).
///
/// Parameters, threads and @return: as `mha_init_glorot_uniform`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_init_kaiming_normal(
    weight: *mut f32,
    len: usize,
    fan_in: usize,
    rng: *mut mha_rng,
) -> mha_status {
    // SAFETY: this function's contract is that one's.
    unsafe { draw(weight, len, rng, |w, rng| init::kaiming_normal(w, fan_in, rng)) }
}

/// A normal distribution cut off: what falls outside of [low, high] is drawn again.
///
/// @param weight filled in.
/// @param len how many floats there are.
/// @param parameters read during the call only. NULL: Flux's, mean 0, deviation 1, -2 to 2.
/// @param rng the generator; its state moves on.
///
/// Safe to call from any number of threads, each with a generator of its own.
///
/// @return MHA_OK; NULL (weight, rng), MISALIGNED (weight, rng, parameters), TOO_LARGE or OVERLAP
/// (weight). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_init_truncated_normal(
    weight: *mut f32,
    len: usize,
    parameters: *const mha_truncated_normal,
    rng: *mut mha_rng,
) -> mha_status {
    const FLUX: mha_truncated_normal =
        mha_truncated_normal { mean: 0.0, deviation: 1.0, low: -2.0, high: 2.0 };
    let parameters = if parameters.is_null() {
        Ok(FLUX)
    } else {
        // SAFETY: a pointer that is not null points to a struct, by this function's contract.
        unsafe { read(parameters, A::Parameters) }.copied()
    };
    match parameters {
        // SAFETY: this function's contract is that one's.
        Ok(mha_truncated_normal { mean, deviation, low, high }) => unsafe {
            draw(weight, len, rng, |w, rng| {
                init::truncated_normal(w, mean, deviation, low, high, rng);
            })
        },
        Err(fault) => status(Err(fault)),
    }
}

/// Rows (or columns, whichever are fewer) that are orthogonal to each other and `gain` long.
///
/// @param weight filled in, row-major.
/// @param len how many floats there are.
/// @param columns how many of them make a row.
/// @param gain read during the call only. NULL: 1.
/// @param rng the generator; its state moves on.
///
/// Takes time in proportion to len * min(rows, columns). Safe to call from any number of threads,
/// each with a generator of its own.
///
/// @return MHA_OK; NULL (weight, rng), MISALIGNED (weight, rng, parameters), TOO_LARGE or OVERLAP
/// (weight). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_init_orthogonal(
    weight: *mut f32,
    len: usize,
    columns: usize,
    gain: *const f32,
    rng: *mut mha_rng,
) -> mha_status {
    // SAFETY: a pointer that is not null points to a float, by this function's contract.
    match unsafe { gain_or_one(gain) } {
        // SAFETY: this function's contract is that one's.
        Ok(gain) => unsafe {
            draw(weight, len, rng, |w, rng| init::orthogonal(w, columns, gain, rng))
        },
        Err(fault) => status(Err(fault)),
    }
}

/// The identity: ones on the main diagonal, times a gain, zeros elsewhere.
///
/// @param weight filled in, row-major.
/// @param len how many floats there are.
/// @param columns how many of them make a row.
/// @param gain read during the call only. NULL: 1.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL (weight), MISALIGNED (weight, parameters), TOO_LARGE (weight). Nothing has
/// been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_init_identity(
    weight: *mut f32,
    len: usize,
    columns: usize,
    gain: *const f32,
) -> mha_status {
    // SAFETY: this function's contract is that one's.
    unsafe { fill(weight, len, gain, |w, gain| init::identity(w, columns, gain)) }
}

/// All zeros.
///
/// @param weight filled in.
/// @param len how many floats there are.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL, MISALIGNED or TOO_LARGE (weight). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_init_zeros(weight: *mut f32, len: usize) -> mha_status {
    // SAFETY: this function's contract is that one's.
    unsafe { fill(weight, len, core::ptr::null(), |w, _| init::zeros(w)) }
}

/// All ones.
///
/// @param weight filled in.
/// @param len how many floats there are.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL, MISALIGNED or TOO_LARGE (weight). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_init_ones(weight: *mut f32, len: usize) -> mha_status {
    // SAFETY: this function's contract is that one's.
    unsafe { fill(weight, len, core::ptr::null(), |w, _| init::ones(w)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::MHA_OK;

    #[test]
    fn the_generator_is_the_crates() {
        let mut rng = mha_rng { state: 42 };
        let mut reference = SplitMix::seed_from_u64(42);
        for _ in 0..100 {
            assert_eq!(Generator(&mut rng).next_u64(), reference.next_u64());
            assert_eq!(Generator(&mut rng).next_u32(), reference.next_u32());
            let (mut a, mut b) = ([0; 11], [0; 11]);
            Generator(&mut rng).fill_bytes(&mut a);
            reference.fill_bytes(&mut b);
            assert_eq!(a, b);
        }
    }

    #[test]
    fn weights_are_the_crates_bit_for_bit() {
        let mut rng = mha_rng { state: 7 };
        let mut reference = SplitMix::seed_from_u64(7);
        let (mut a, mut b) = ([0.0f32; 6 * 5], [0.0f32; 6 * 5]);
        let (p, n) = (a.as_mut_ptr(), a.len());
        let same = |status: mha_status, b: &[f32; 6 * 5]| {
            assert_eq!(status, MHA_OK);
            // SAFETY: the array outlives its pointer.
            let a = unsafe { core::slice::from_raw_parts(p, n) };
            assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{a:?} {b:?}");
        };
        let (gain, none) = (2.5f32, core::ptr::null());
        let cut = mha_truncated_normal { mean: 1.0, deviation: 0.5, low: 0.75, high: 2.0 };
        // SAFETY: every pointer is to a variable of this function.
        unsafe {
            init::glorot_uniform(&mut b, 6, 5, &mut reference);
            same(mha_init_glorot_uniform(p, n, 6, 5, &mut rng), &b);
            init::glorot_normal(&mut b, 6, 5, &mut reference);
            same(mha_init_glorot_normal(p, n, 6, 5, &mut rng), &b);
            init::kaiming_uniform(&mut b, 6, &mut reference);
            same(mha_init_kaiming_uniform(p, n, 6, &mut rng), &b);
            init::kaiming_normal(&mut b, 6, &mut reference);
            same(mha_init_kaiming_normal(p, n, 6, &mut rng), &b);
            init::truncated_normal(&mut b, 0.0, 1.0, -2.0, 2.0, &mut reference);
            same(mha_init_truncated_normal(p, n, core::ptr::null(), &mut rng), &b);
            init::truncated_normal(&mut b, 1.0, 0.5, 0.75, 2.0, &mut reference);
            same(mha_init_truncated_normal(p, n, &cut, &mut rng), &b);
            init::orthogonal(&mut b, 5, 2.5, &mut reference);
            same(mha_init_orthogonal(p, n, 5, &gain, &mut rng), &b);
            init::identity(&mut b, 5, 1.0);
            same(mha_init_identity(p, n, 5, none), &b);
            init::identity(&mut b, 5, 2.5);
            same(mha_init_identity(p, n, 5, &gain), &b);
            init::zeros(&mut b);
            same(mha_init_zeros(p, n), &b);
            init::ones(&mut b);
            same(mha_init_ones(p, n), &b);
        }
    }
}
