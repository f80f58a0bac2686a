//! From a drawn bitmap to an 8×8 image, the way the data set was made.
//!
//! The drawing's box is scaled to the full height of 32 pixels and to at most 24 of width, put in
//! the middle of 32×32 pixels, its strokes are thinned or thickened until about as many pixels are
//! ink as in the data, and the ink is counted in blocks of 4×4. Integers only; a bitmap is 32 words.

use crate::digits::Image;

/// Pixels along a side of the bitmap that blocks are counted in.
const SIDE: usize = 32;

/// The widest that a drawing gets, and the narrowest.
const WIDEST: usize = 24;
const NARROWEST: usize = 2;

/// How many of the 1024 pixels are ink in most images of the data set: 310 give or take 35. Pens
/// outside of this range are thickened or thinned, a pixel all around at a time.
const INK: core::ops::RangeInclusive<u32> = 230..=400;

/// The most times that strokes are thickened or thinned.
const ROUNDS: usize = 4;

/// A bitmap: bit `x` of word `y`.
type Bitmap = [u32; SIDE];

/// The 8×8 image of a drawing of `width` pixels a row, one byte a pixel, row by row: 128 and more is
/// ink. None where there is no ink.
///
/// ```
/// // A vertical stroke in the corner of a canvas becomes one in the middle of the image.
/// let mut canvas = [0; 40 * 40];
/// for y in 0..20 {
///     canvas[y * 40 + 3] = 255;
///     canvas[y * 40 + 4] = 255;
/// }
/// let image = mha_nets::drawing::image(&canvas, 40).unwrap();
/// assert_eq!(image[8..16], [0, 0, 4, 16, 16, 0, 0, 0]);
/// assert_eq!(mha_nets::drawing::image(&[0; 1600], 40), None);
/// ```
#[must_use]
pub fn image(canvas: &[u8], width: usize) -> Option<Image> {
    let area = Area::around_ink(canvas, width)?;
    let mut bitmap = scaled(canvas, width, &area);
    for _ in 0..ROUNDS {
        let ink: u32 = bitmap.iter().map(|row| row.count_ones()).sum();
        if ink < *INK.start() {
            bitmap = thicker(&bitmap);
        } else if ink > *INK.end() {
            let thin = thinner(&bitmap);
            // A blot would vanish; leave it as it is.
            if thin.iter().map(|row| row.count_ones()).sum::<u32>() < *INK.start() / 2 {
                break;
            }
            bitmap = thin;
        } else {
            break;
        }
    }
    Some(counted(&bitmap))
}

/// A box: columns from `left`, rows from `top`.
struct Area {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Area {
    fn around_ink(canvas: &[u8], width: usize) -> Option<Self> {
        if width == 0 {
            return None;
        }
        let (mut left, mut right, mut top, mut bottom) = (width, 0, usize::MAX, 0);
        for (y, row) in canvas.chunks_exact(width).enumerate() {
            for (x, &pixel) in row.iter().enumerate() {
                if pixel >= 128 {
                    left = left.min(x);
                    right = right.max(x);
                    top = top.min(y);
                    bottom = bottom.max(y);
                }
            }
        }
        let (width, height) = (right.checked_sub(left)? + 1, bottom.checked_sub(top)? + 1);
        Some(Self { left, top, width, height })
    }
}

/// The drawing at its new size, in the middle: each pixel is the nearest one of the drawing's.
fn scaled(canvas: &[u8], width: usize, area: &Area) -> Bitmap {
    // Rounded; at least one, so the divisions below are safe.
    let wide = (area.width.saturating_mul(SIDE) + area.height / 2) / area.height.max(1);
    let wide = wide.clamp(NARROWEST, WIDEST);
    let margin = (SIDE - wide) / 2;
    let mut bitmap = [0; SIDE];
    for (y, row) in bitmap.iter_mut().enumerate() {
        let from_y = area.top + (2 * y + 1).saturating_mul(area.height) / (2 * SIDE);
        for x in 0..wide {
            let from_x = area.left + (2 * x + 1).saturating_mul(area.width) / (2 * wide);
            let ink = canvas.get(from_y * width + from_x).is_some_and(|&pixel| pixel >= 128);
            *row |= u32::from(ink) << (margin + x);
        }
    }
    bitmap
}

/// Every pixel that is ink or touches ink along a side.
fn thicker(bitmap: &Bitmap) -> Bitmap {
    let mut out = *bitmap;
    let mut above = 0;
    let below = bitmap.iter().skip(1).chain(&[0]);
    for ((out, &row), &below) in out.iter_mut().zip(bitmap).zip(below) {
        *out = row | row << 1 | row >> 1 | above | below;
        above = row;
    }
    out
}

/// Every pixel of ink that touches nothing else along a side; beyond the edge there is ink.
fn thinner(bitmap: &Bitmap) -> Bitmap {
    let mut paper = *bitmap;
    for row in &mut paper {
        *row = !*row;
    }
    let mut out = thicker(&paper);
    for row in &mut out {
        *row = !*row;
    }
    out
}

/// Ink in blocks of 4×4.
fn counted(bitmap: &Bitmap) -> Image {
    let mut image = [0; 64];
    for (blocks, rows) in image.as_chunks_mut::<8>().0.iter_mut().zip(bitmap.as_chunks::<4>().0) {
        for (x, block) in blocks.iter_mut().enumerate() {
            // At most 16: no truncation.
            *block = rows.iter().map(|row| (row >> (4 * x) & 15).count_ones() as u8).sum();
        }
    }
    image
}
