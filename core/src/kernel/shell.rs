//! The shells: where a machine's instructions are turned on around the generic kernels.

/// Makes a type of the given name a [`Kernel`](super::Kernel) over a vector type. The tile has
/// `rows` rows and `vectors` registers of columns; `pack` is the room, in floats on the stack, to
/// bring columns that do not lie side by side together (0: load them one by one). With `features`,
/// the kernels are compiled for them.
macro_rules! stamp {
    ($name:ident, $vector:ty, rows $rows:expr, vectors $vectors:expr, pack $pack:expr $(, features $features:literal)?) => {
        pub(crate) struct $name;

        impl $crate::kernel::Kernel for $name {
            #[inline]
            fn product(
                a: $crate::kernel::Matrix<'_>,
                b: $crate::kernel::Columns<'_>,
                c: &mut $crate::kernel::MatrixMut<'_>,
                start: $crate::kernel::Start<'_>,
                scale: Option<f32>,
            ) {
                $(#[target_feature(enable = $features)])?
                unsafe fn shell(
                    a: $crate::kernel::Matrix<'_>,
                    b: $crate::kernel::Columns<'_>,
                    c: &mut $crate::kernel::MatrixMut<'_>,
                    start: $crate::kernel::Start<'_>,
                    scale: Option<f32>,
                ) {
                    // SAFETY: this function is compiled for the vector's instructions.
                    unsafe {
                        $crate::kernel::generic::product::<$vector, { $rows }, { $vectors }, { $pack }>(
                            a, b, c, start, scale,
                        );
                    }
                }
                // SAFETY: the type is reached through an Isa only, which vouches for the features.
                unsafe { shell(a, b, c, start, scale) }
            }

            #[inline]
            fn extremes(row: &[f32]) -> (f32, f32) {
                $(#[target_feature(enable = $features)])?
                unsafe fn shell(row: &[f32]) -> (f32, f32) {
                    // SAFETY: this function is compiled for the vector's instructions.
                    unsafe { $crate::kernel::generic::extremes::<$vector>(row) }
                }
                // SAFETY: as in `product`.
                unsafe { shell(row) }
            }

            #[inline]
            fn weights(row: &mut [f32], m: f32, sums: &mut [f32; 16]) {
                $(#[target_feature(enable = $features)])?
                unsafe fn shell(row: &mut [f32], m: f32, sums: &mut [f32; 16]) {
                    // SAFETY: this function is compiled for the vector's instructions.
                    unsafe { $crate::kernel::generic::weights::<$vector>(row, m, sums) }
                }
                // SAFETY: as in `product`.
                unsafe { shell(row, m, sums) }
            }

            #[inline]
            fn scale(row: &mut [f32], factor: f32) {
                $(#[target_feature(enable = $features)])?
                unsafe fn shell(row: &mut [f32], factor: f32) {
                    // SAFETY: this function is compiled for the vector's instructions.
                    unsafe { $crate::kernel::generic::scale::<$vector>(row, factor) }
                }
                // SAFETY: as in `product`.
                unsafe { shell(row, factor) }
            }
        }
    };
}

pub(super) use stamp;
