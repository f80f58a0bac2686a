//! Digits drawn with a pen: strokes that are written down as curves, bent at random, and brought to 8×8 the
//! way the data was made.
//!
//! The data's 43 writers do not write every form of a digit that people draw on a screen: a 1 with a flag
//! and a foot, a 4 of two strokes with square corners, a 7 with a bar. A small share of these drawings
//! teaches those forms.

use std::f32::consts::PI;

use mha_nets::digits::Image;

use crate::forms::{FORMS, Form, Piece};
use crate::random::Random;

/// Pixels along a side of the bitmap in which blocks are counted, and the most that a drawing is wide.
const SIDE: usize = 32;
const WIDEST: f32 = 24.0;

type Point = [f32; 2];

/// A drawing of a digit.
pub(crate) fn draw(digit: usize, random: &mut Random) -> Image {
    let forms = FORMS[digit];
    let strokes = bent(forms[random.below(forms.len())], random);
    count_blocks(&strokes, random.between(1.7, 3.2))
}

/// The points of a stroke.
fn points(stroke: &[Piece]) -> Vec<Point> {
    let mut points = Vec::new();
    for piece in stroke {
        match *piece {
            Piece::At(x, y) => points.push([x, y]),
            Piece::Arc([x, y], [wide, high], [start, end], lines) => {
                points.extend((0..=lines).map(|i| {
                    let angle = PI * (start + (end - start) * f32::from(i) / f32::from(lines));
                    let (sin, cos) = libm::sincosf(angle);
                    [x + wide * cos, y + high * sin]
                }));
            }
        }
    }
    points
}

/// The form as another hand would draw it.
fn bent(form: Form, random: &mut Random) -> Vec<Vec<Point>> {
    let (sin, cos) = libm::sincosf(random.normal(0.09));
    let shear = -0.08 + random.normal(0.15);
    let wide = libm::expf(-0.15 + random.normal(0.18));
    // One smooth wave over the plane, in each direction.
    let wave: [[f32; 2]; 2] = std::array::from_fn(|_| std::array::from_fn(|_| random.normal(2.5)));
    let phase: [f32; 2] = std::array::from_fn(|_| random.between(0.0, 2.0 * PI));
    let size: [f32; 2] = std::array::from_fn(|_| random.normal(0.035));
    let strokes = form.iter().map(|stroke| {
        // Strokes do not quite meet.
        let moved: [f32; 2] = std::array::from_fn(|_| random.normal(0.03));
        let points = points(stroke).into_iter().map(|[x, y]| {
            let s = [x - 0.5, y - 0.5];
            let [x, y]: Point = std::array::from_fn(|d| {
                let at = s[0] * wave[0][d] + s[1] * wave[1][d] + phase[d];
                s[d] + size[d] * libm::sinf(at) + moved[d] + random.normal(0.012)
            });
            let x = x * wide + shear * y;
            [x * cos - y * sin, x * sin + y * cos]
        });
        points.collect()
    });
    strokes.collect()
}

/// Counts of ink 0..=16: scaled to the full height, at most [`WIDEST`] wide, in the middle, inked with a
/// round pen of radius `pen` pixels.
fn count_blocks(strokes: &[Vec<Point>], pen: f32) -> Image {
    let (mut low, mut high) = ([f32::INFINITY; 2], [f32::NEG_INFINITY; 2]);
    for point in strokes.iter().flatten() {
        for d in 0..2 {
            low[d] = low[d].min(point[d]);
            high[d] = high[d].max(point[d]);
        }
    }
    let size = [(high[0] - low[0]).max(1e-3), (high[1] - low[1]).max(1e-3)];
    let scale_y = (SIDE as f32 - 2.0 * pen) / size[1];
    let scale_x = scale_y.min((WIDEST - 2.0 * pen) / size[0]);
    let scale = [scale_x, scale_y];
    let mut ink = [0u32; SIDE];
    for stroke in strokes {
        let place = |point: &Point| -> Point {
            std::array::from_fn(|d| (point[d] - f32::midpoint(low[d], high[d])) * scale[d] + 16.0)
        };
        for pair in stroke.windows(2) {
            line(&mut ink, place(&pair[0]), place(&pair[1]), pen);
        }
    }
    let mut image = [0; 64];
    for (y, blocks) in image.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for (x, block) in blocks.iter_mut().enumerate() {
            let rows = &ink[4 * y..4 * y + 4];
            *block = rows.iter().map(|row| (row >> (4 * x) & 15).count_ones() as u8).sum();
        }
    }
    image
}

/// Inks what is nearer than `pen` to the line from `a` to `b`.
fn line(ink: &mut [u32; SIDE], a: Point, b: Point, pen: f32) {
    let d = [b[0] - a[0], b[1] - a[1]];
    let length = (d[0] * d[0] + d[1] * d[1]).max(1e-9);
    // Saturating: a negative number is 0.
    let first = |axis: usize| (a[axis].min(b[axis]) - pen) as usize;
    let end = |axis: usize| ((a[axis].max(b[axis]) + pen) as usize + 1).min(SIDE);
    for (y, row) in ink.iter_mut().enumerate().take(end(1)).skip(first(1)) {
        for x in first(0)..end(0) {
            let (px, py) = (x as f32 + 0.5 - a[0], y as f32 + 0.5 - a[1]);
            let along = ((px * d[0] + py * d[1]) / length).clamp(0.0, 1.0);
            let (px, py) = (px - along * d[0], py - along * d[1]);
            if px * px + py * py < pen * pen {
                *row |= 1 << x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::count_blocks;

    #[test]
    fn a_stroke_stands_in_the_middle() {
        let image = count_blocks(&[vec![[3.0, 0.0], [3.0, 10.0]]], 2.0);
        // Four columns of pixels, from 14 to 17: half of blocks 3 and 4.
        assert_eq!(image[24..32], [0, 0, 0, 8, 8, 0, 0, 0]);
        let wide = count_blocks(&[vec![[0.0, 0.0], [9.0, 0.0], [9.0, 1.0]]], 2.0);
        assert!(wide.as_chunks::<8>().0.iter().all(|row| row[0] == 0 && row[7] == 0));
    }
}
