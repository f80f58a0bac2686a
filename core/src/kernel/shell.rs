//! The shells: where a machine's instructions are turned on around the generic kernels.

/// Makes a type of the given name a [`Kernel`](super::Kernel) over a vector type. The tile has
/// `rows` rows and `vectors` registers of columns, or `tall` rows and at most two registers, or, if
/// `wide`, one row and [`WIDEST`](super::generic::WIDEST) registers; `pack` is the room, in floats on the stack, to bring columns that do not lie side by side together (0: load
/// them one by one). With `features`, the kernels are compiled for them.
macro_rules! stamp {
    ($name:ident, $vector:ty, half $half:ty, rows $rows:expr, vectors $vectors:expr, tall $tall:expr, wide $wide:expr, pack $pack:expr $(, features $features:literal)?) => {
        pub(crate) struct $name;

        impl $crate::kernel::generic::Tiles for $name {
            type Vector = $vector;
            type Half = $half;
            const ROWS: usize = $rows;
            const VECTORS: usize = $vectors;
            const TALL: usize = $tall;
            const WIDE: bool = $wide;

            // The compiler (1.95) forgets `inline(never)` where features are enabled, so it stands
            // outside of that.
            #[inline(never)]
            unsafe fn tile<const M: usize, const N: usize, const LANES: u8>(
                t: &$crate::kernel::generic::Tile,
            ) {
                $(#[target_feature(enable = $features)])?
                unsafe fn shell<const M: usize, const N: usize, const LANES: u8>(
                    t: &$crate::kernel::generic::Tile,
                ) {
                    use $crate::kernel::generic::{HALF, TURNED, WHOLE, tile};
                    const TURNED_HALF: u8 = TURNED | HALF;
                    // SAFETY: this function is compiled for the vector's instructions; the rest is
                    // passed on.
                    unsafe {
                        match LANES {
                            HALF => tile::<$half, M, N, WHOLE>(t),
                            TURNED_HALF => tile::<$half, M, N, { TURNED | WHOLE }>(t),
                            _ => tile::<$vector, M, N, LANES>(t),
                        }
                    }
                }
                // SAFETY: passed on; the type is reached through an Isa only.
                unsafe { shell::<M, N, LANES>(t) }
            }

            #[inline(never)]
            unsafe fn straight(
                t: &$crate::kernel::generic::Tile,
                rows: usize,
                vectors: usize,
            ) {
                use $crate::kernel::generic::{STRAIGHT, by_rows};
                // SAFETY: passed on.
                unsafe { by_rows::<$name, STRAIGHT>(t, rows, vectors) }
            }

            #[inline(never)]
            unsafe fn turned(t: &$crate::kernel::generic::Tile, rows: usize, vectors: usize) {
                use $crate::kernel::generic::{TURNED, by_rows};
                // SAFETY: passed on.
                unsafe { by_rows::<$name, TURNED>(t, rows, vectors) }
            }

            #[inline(never)]
            unsafe fn packed<const TURN: u8>(
                a: $crate::kernel::Matrix<'_>,
                b: $crate::kernel::Columns<'_>,
                c: &mut $crate::kernel::MatrixMut<'_>,
                start: $crate::kernel::Start<'_>,
                scale: Option<f32>,
                pack: bool,
            ) {
                $(#[target_feature(enable = $features)])?
                unsafe fn shell<const TURN: u8>(
                    a: $crate::kernel::Matrix<'_>,
                    b: $crate::kernel::Columns<'_>,
                    c: &mut $crate::kernel::MatrixMut<'_>,
                    start: $crate::kernel::Start<'_>,
                    scale: Option<f32>,
                    pack: bool,
                ) {
                    let mut room = core::mem::MaybeUninit::<
                        [core::mem::MaybeUninit<f32>; $pack],
                    >::uninit();
                    // SAFETY: floats that may hold anything need nothing to be there; the rest is
                    // as above.
                    unsafe {
                        let room = if pack { &mut room.assume_init_mut()[..] } else { &mut [] };
                        let panels = $crate::kernel::generic::panels::<$name, TURN>;
                        panels(a, b, c, start, scale, room);
                    }
                }
                // SAFETY: as above.
                unsafe { shell::<TURN>(a, b, c, start, scale, pack) }
            }
        }

        impl $crate::kernel::Kernel for $name {
            $crate::kernel::shell::shell! {
                fn product(
                    a: $crate::kernel::Matrix<'_>,
                    b: $crate::kernel::Columns<'_>,
                    c: &mut $crate::kernel::MatrixMut<'_>,
                    start: $crate::kernel::Start<'_>,
                    scale: Option<f32>,
                ) -> () = product::<$name, { $pack > 0 }, { $crate::kernel::generic::STRAIGHT }> $(, $features)?
            }
            $crate::kernel::shell::shell! {
                fn product_turned(
                    a: $crate::kernel::Matrix<'_>,
                    b: $crate::kernel::Columns<'_>,
                    c: &mut $crate::kernel::MatrixMut<'_>,
                    start: $crate::kernel::Start<'_>,
                    scale: Option<f32>,
                ) -> () = product::<$name, { $pack > 0 }, { $crate::kernel::generic::TURNED }> $(, $features)?
            }
            $crate::kernel::shell::shell! {
                fn turn(
                    from: $crate::kernel::Matrix<'_>,
                    to: &mut $crate::kernel::MatrixMut<'_>,
                ) -> () = turn::<$vector> $(, $features)?
            }
            $crate::kernel::shell::shell! {
                fn tops(
                    tile: &$crate::kernel::MatrixMut<'_>,
                    maxima: &[f32],
                    tops: &mut [f32],
                ) -> $crate::kernel::Spread = tops::<$vector> $(, $features)?
            }
            $crate::kernel::shell::shell! {
                fn advance(
                    tile: &mut $crate::kernel::MatrixMut<'_>,
                    tops: &[f32],
                    maxima: &mut [f32],
                    sums: &mut [[f32; 16]],
                    mixed: Option<&mut $crate::kernel::MatrixMut<'_>>,
                    near: bool,
                ) -> () = advance::<$vector> $(, $features)?
            }
            $crate::kernel::shell::shell! {
                fn settle(
                    tile: &mut $crate::kernel::MatrixMut<'_>,
                    tops: &mut [f32],
                    maxima: &mut [f32],
                    near: bool,
                ) -> () = settle::<$vector> $(, $features)?
            }
            $crate::kernel::shell::shell! {
                fn scale_rows(
                    rows: &mut $crate::kernel::MatrixMut<'_>,
                    factors: &[f32],
                ) -> () = scale_rows::<$vector> $(, $features)?
            }
            $crate::kernel::shell::shell! {
                fn differentiate(
                    weights: $crate::kernel::Matrix<'_>,
                    gradients: &mut $crate::kernel::MatrixMut<'_>,
                    deltas: &[f32],
                ) -> () = differentiate::<$vector> $(, $features)?
            }
        }
    };
}

/// One function of a kernel: the generic one, inside a function that is compiled for the features.
macro_rules! shell {
    (fn $name:ident($($argument:ident: $type:ty,)*) -> $result:ty = $generic:ident::<$($parameter:tt),*> $(, $features:literal)?) => {
        #[inline]
        fn $name($($argument: $type),*) -> $result {
            $(#[target_feature(enable = $features)])?
            unsafe fn shell($($argument: $type),*) -> $result {
                // SAFETY: this function is compiled for the vector's instructions.
                unsafe { $crate::kernel::generic::$generic::<$($parameter),*>($($argument),*) }
            }
            // SAFETY: the type is reached through an Isa only, which vouches for the features.
            unsafe { shell($($argument),*) }
        }
    };
}

pub(super) use {shell, stamp};
