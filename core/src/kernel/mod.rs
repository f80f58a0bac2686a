//! The kernels: everything that touches memory by pointer, and nothing else does.
//!
//! A [`Kernel`] is a product of matrices, a transposition and the steps of the softmax. They are written once, in
//! [`generic`], over a [`vector::Vector`]; a machine gives the vector and a shell that turns its
//! instructions on. Which one runs is decided once a call, by the value of an [`Isa`].

#![allow(unsafe_code)]
#![cfg_attr(
    feature = "size",
    allow(
        dead_code,
        unused_macros,
        unused_imports,
        reason = "one small kernel stands for all others"
    )
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
mod cortex_m;
mod dense;
#[cfg_attr(
    all(target_arch = "arm", target_abi = "eabihf"),
    allow(dead_code, reason = "the product is written in assembly there")
)]
mod generic;
#[cfg(all(target_arch = "arm", target_abi = "eabihf", feature = "helium"))]
mod helium;
#[cfg(not(all(target_arch = "arm", target_abi = "eabihf", not(feature = "size"))))]
mod loops;
mod matrix;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable;
#[cfg_attr(
    all(target_arch = "arm", target_abi = "eabihf"),
    allow(
        unused_macros,
        unused_imports,
        reason = "there is one kernel, and it has a shell of its own"
    )
)]
mod shell;
#[cfg(feature = "size")]
mod small;
#[cfg(any(test, feature = "size", all(target_arch = "arm", target_abi = "eabihf")))]
mod turned;
#[cfg_attr(
    all(target_arch = "arm", target_abi = "eabihf"),
    allow(dead_code, reason = "the product is written in assembly there")
)]
mod vector;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(all(target_arch = "arm", target_abi = "eabihf"))]
pub(crate) use cortex_m::square_root;
pub(crate) use dense::{Dense, Extent, bounds, fill, scale, scaled, total, weigh};
pub(crate) use matrix::{Columns, Matrix, MatrixMut, Start};
#[cfg(all(not(feature = "size"), target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use wasm32::square_root;

#[cfg(not(all(target_arch = "arm", target_abi = "eabihf")))]
use shell::stamp;

/// The instructions that a call runs on.
///
/// Only detection makes one, so holding one is the proof that this machine can run it. Kernels of
/// one [family](Isa::is_fused) give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(all(target_arch = "arm", target_abi = "eabihf", feature = "helium"))]
    Helium,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// Plain Rust, for every machine. Unfused: the same bits on all of them. In a WebAssembly module
    /// that is compiled for vectors, which cannot run without them, they take its place; one that is
    /// compiled for relaxed vectors promises no bits.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// The fastest that this machine runs. On x86-64 this asks the processor, which can take a
    /// microsecond: ask once, not once a call.
    #[must_use]
    pub fn detect() -> Self {
        if cfg!(feature = "size") {
            return Self::PORTABLE;
        }
        #[cfg(target_arch = "x86_64")]
        {
            let features = x86::features();
            if features.avx512 {
                return Self(Kind::Avx512);
            }
            if features.avx2_fma {
                return Self(Kind::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        return Self(Kind::Neon);
        #[cfg(all(target_arch = "arm", target_abi = "eabihf", feature = "helium"))]
        return Self(Kind::Helium);
        #[cfg(not(any(
            target_arch = "aarch64",
            all(target_arch = "arm", target_abi = "eabihf", feature = "helium")
        )))]
        Self::PORTABLE
    }

    /// Every one that this machine runs, slowest first; for tests and benchmarks.
    pub fn available() -> impl Iterator<Item = Self> {
        let all = [
            Some(Self::PORTABLE),
            #[cfg(target_arch = "aarch64")]
            Some(Self(Kind::Neon)),
            #[cfg(all(target_arch = "arm", target_abi = "eabihf", feature = "helium"))]
            Some(Self(Kind::Helium)),
            #[cfg(target_arch = "x86_64")]
            x86::features().avx2_fma.then_some(Self(Kind::Avx2)),
            #[cfg(target_arch = "x86_64")]
            x86::features().avx512.then_some(Self(Kind::Avx512)),
        ];
        let count = if cfg!(feature = "size") { 1 } else { all.len() };
        all.into_iter().take(count).flatten()
    }

    /// The name: `portable`, `simd128`, `relaxed-simd`, `helium`, `neon`, `avx2`, `avx512`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable
                if cfg!(all(target_arch = "wasm32", target_feature = "relaxed-simd")) =>
            {
                "relaxed-simd"
            }
            Kind::Portable if cfg!(all(target_arch = "wasm32", target_feature = "simd128")) => {
                "simd128"
            }
            Kind::Portable => "portable",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(all(target_arch = "arm", target_abi = "eabihf", feature = "helium"))]
            Kind::Helium => "helium",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    /// Whether a multiply-add rounds once (fused) or twice. All kernels of one family give the same
    /// bits, on every machine, for every tiling, range and thread.
    #[must_use]
    pub const fn is_fused(self) -> bool {
        match self.0 {
            Kind::Portable => false,
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => true,
            #[cfg(all(target_arch = "arm", target_abi = "eabihf", feature = "helium"))]
            Kind::Helium => true,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx512 => true,
        }
    }

    /// Runs a task with this machine's kernel: the one dispatch of a call.
    #[inline(always)]
    pub(crate) fn run<T: Task>(self, task: T) -> T::Output {
        match self.0 {
            Kind::Portable => task.run::<PortableKernel>(),
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => task.run::<NeonKernel>(),
            #[cfg(all(target_arch = "arm", target_abi = "eabihf", feature = "helium"))]
            Kind::Helium => task.run::<helium::HeliumKernel>(),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => task.run::<Avx2Kernel>(),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => task.run::<Avx512Kernel>(),
        }
    }
}

/// Something that is generic over the kernel it runs on.
pub(crate) trait Task {
    type Output;
    fn run<K: Kernel>(self) -> Self::Output;
}

/// How far the logits of a tile lie apart, the running maxima among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Every logit is a number at most [`WIDE`](crate::softmax::WIDE) below what the maximum of its row
    /// becomes. A machine that makes nothing of it does not look.
    Near,
    /// Some may be hidden, or far below.
    Far,
    /// The tile must be taken block by block: [`is_wide`](crate::softmax::is_wide) for one of its rows.
    Wide,
}

/// What the driver asks of a machine. All of it is safe to call: views are checked against their
/// slices, and an [`Isa`] has vouched for the instructions.
pub(crate) trait Kernel {
    /// `c = start + a · b`, then times `scale`, each element summed over the depth in order.
    fn product(
        a: Matrix<'_>,
        b: Columns<'_>,
        c: &mut MatrixMut<'_>,
        start: Start<'_>,
        scale: Option<f32>,
    );

    /// `c = start + aᵀ · b`, then times `scale`, each element summed over the rows of `a` and `b` in
    /// order.
    fn product_turned(
        a: Matrix<'_>,
        b: Columns<'_>,
        c: &mut MatrixMut<'_>,
        start: Start<'_>,
        scale: Option<f32>,
    );

    /// `to[j][i] = from[i][j]`.
    fn turn(from: Matrix<'_>, to: &mut MatrixMut<'_>);

    /// The largest logit of each row of a tile, NaN passed over, −∞ for nothing; and how far the
    /// logits lie apart.
    fn tops(tile: &MatrixMut<'_>, maxima: &[f32], tops: &mut [f32]) -> Spread;

    /// Takes a tile of logits into the softmax, each row with its top: raises its maximum, shifts its
    /// sums and its row of `mixed`, turns its logits into weights and adds each to the partial sum of
    /// its place modulo 16. The row's first element has place 0. `near` says that the tile is
    /// [`Spread::Near`].
    fn advance(
        tile: &mut MatrixMut<'_>,
        tops: &[f32],
        maxima: &mut [f32],
        sums: &mut [[f32; 16]],
        mixed: Option<&mut MatrixMut<'_>>,
        near: bool,
    );

    /// [`Kernel::advance`] for rows of which this tile is everything: each top becomes the factor
    /// that normalises the row.
    fn settle(tile: &mut MatrixMut<'_>, tops: &mut [f32], maxima: &mut [f32], near: bool);

    /// Multiplies each row by its factor; a factor of 0 clears it, whatever it holds.
    fn scale_rows(rows: &mut MatrixMut<'_>, factors: &[f32]);

    /// The way back through the softmax: `g = w · (g − delta)`, each row with its delta; 0 where the weight
    /// is 0, whatever `g` is there.
    fn differentiate(weights: Matrix<'_>, gradients: &mut MatrixMut<'_>, deltas: &[f32]);
}

#[cfg(feature = "size")]
use small::SmallKernel as PortableKernel;

#[cfg(all(not(feature = "size"), target_arch = "arm", target_abi = "eabihf"))]
use cortex_m::CortexMKernel as PortableKernel;

#[cfg(not(any(
    feature = "size",
    all(target_arch = "arm", target_abi = "eabihf"),
    all(target_arch = "wasm32", target_feature = "simd128")
)))]
stamp!(PortableKernel, portable::Portable, half portable::Portable, rows 4, vectors PORTABLE_VECTORS, tall 4, wide false, pack 0);

/// On Arm's 32 single registers a tile of 4 × 4 fits, on 16 registers of four lanes 4 × 8.
#[cfg(not(any(
    feature = "size",
    all(target_arch = "arm", target_abi = "eabihf"),
    all(target_arch = "wasm32", target_feature = "simd128")
)))]
const PORTABLE_VECTORS: usize = if cfg!(target_arch = "arm") { 1 } else { 2 };

// Eight registers of C: engines for x86-64 have fifteen in all, and spill when it is ten.
#[cfg(all(not(feature = "size"), target_arch = "wasm32", target_feature = "simd128"))]
stamp!(PortableKernel, wasm32::Simd128, half wasm32::Simd128, rows 2, vectors 4, tall 4, wide true, pack 4096);

#[cfg(target_arch = "aarch64")]
stamp!(NeonKernel, aarch64::Neon, half aarch64::Neon, rows 6, vectors 4, tall 6, wide true, pack 8192, features "neon");

#[cfg(target_arch = "x86_64")]
stamp!(Avx2Kernel, x86::Avx2, half x86::Avx2, rows 6, vectors 2, tall 6, wide true, pack 16384, features "avx2,fma");

#[cfg(target_arch = "x86_64")]
stamp!(Avx512Kernel, x86::Avx512, half x86::Avx2, rows 6, vectors 4, tall 12, wide true, pack 16384, features "avx512f,avx2,fma");

/// The bytes of a slice of booleans: 1 for true, 0 for false.
pub(crate) const fn bool_bytes(bools: &[bool]) -> &[u8] {
    // SAFETY: a bool has the size and alignment of a u8 and is always 0 or 1.
    unsafe { core::slice::from_raw_parts(bools.as_ptr().cast(), bools.len()) }
}

#[cfg(test)]
mod tests;
