//! What else the hand might have drawn: augmented digits.
//!
//! An 8×8 image is read as a smooth sheet of ink, bent and moved, sometimes inked with a thicker or thinner
//! pen, and counted again in blocks, as the data was made (blocks of 4×4 pixels of a 32×32 bitmap).

use mha_nets::digits::Image;

use crate::random::Random;

/// Samples along a side when counting again: 3×3 a block.
const FINE: usize = 24;

/// A displacement for every sample.
type Field = [[f32; FINE]; FINE];

/// A sheet of ink with two blank blocks all around.
type Sheet = [[f32; 12]; 12];

/// A distorted copy of an image.
pub(crate) fn distort(image: &Image, random: &mut Random) -> Image {
    let mut sheet: Sheet = [[0.0; 12]; 12];
    for (row, blocks) in sheet.iter_mut().skip(2).zip(image.as_chunks::<8>().0) {
        for (ink, &block) in row.iter_mut().skip(2).zip(blocks) {
            *ink = block.into();
        }
    }
    let (sin, cos) = libm::sincosf(random.normal(7.0).to_radians());
    let shear = random.normal(0.12);
    let (scale_y, scale_x) = (libm::expf(random.normal(0.06)), libm::expf(random.normal(0.10)));
    let (move_y, move_x) = (random.normal(0.35), random.normal(0.5));
    let (bend_y, bend_x) = (bend(random, 0.3), bend(random, 0.3));
    // Half of them: a crisp pen of another thickness instead of the blur of resampling. Its slope is
    // steep enough that blank paper stays blank.
    let level = random.between(5.0, 10.0);
    let edge = random.between(1.0, 2.5) * 8.0 / level;
    let crisp = random.unit() < 0.5;
    let noisy = random.unit() < 0.5;
    let mut counted = [[0.0; 8]; 8];
    // Sample places, the centre at 0.
    let place = |i: usize| (i as f32 + 0.5) * 8.0 / FINE as f32 - 4.0;
    for i in 0..FINE {
        for j in 0..FINE {
            let x = place(j) + shear * place(i);
            let (y, x) = (cos * place(i) - sin * x, sin * place(i) + cos * x);
            let y = scale_y * y + move_y + bend_y[i][j] + 3.5;
            let x = scale_x * x + move_x + bend_x[i][j] + 3.5;
            let mut ink = ink_at(&sheet, y, x);
            if crisp {
                ink = ((ink - level) * edge + 8.0).clamp(0.0, 16.0);
            }
            counted[i / 3][j / 3] += ink / 9.0;
        }
    }
    let mut out = [0; 64];
    for (out, &count) in out.iter_mut().zip(counted.as_flattened()) {
        let noise = if noisy && count > 0.25 { random.normal(0.6) } else { 0.0 };
        *out = (count + noise).round_ties_even().clamp(0.0, 16.0) as u8;
    }
    out
}

/// The ink at a place, between the middles of four blocks; nothing outside.
fn ink_at(sheet: &Sheet, y: f32, x: f32) -> f32 {
    let (y, x) = (y.clamp(-1.5, 8.5) + 2.0, x.clamp(-1.5, 8.5) + 2.0);
    let (row, column) = (y as usize, x as usize);
    let (fy, fx) = (y - row as f32, x - column as f32);
    let (above, below) = (&sheet[row], &sheet[row + 1]);
    let mix = |row: &[f32; 12]| row[column] * (1.0 - fx) + row[column + 1] * fx;
    mix(above) * (1.0 - fy) + mix(below) * fy
}

/// A smooth field of displacements, from a lattice of 4×4.
fn bend(random: &mut Random, amount: f32) -> Field {
    let lattice: [[f32; 4]; 4] =
        std::array::from_fn(|_| std::array::from_fn(|_| random.normal(amount)));
    let at = |i: usize| {
        let at = 3.0 * i as f32 / (FINE - 1) as f32;
        let cell = (at as usize).min(2);
        (cell, at - cell as f32)
    };
    std::array::from_fn(|i| {
        let (row, f) = at(i);
        let along: [f32; 4] =
            std::array::from_fn(|c| lattice[row][c] * (1.0 - f) + lattice[row + 1][c] * f);
        std::array::from_fn(|j| {
            let (column, f) = at(j);
            along[column] * (1.0 - f) + along[column + 1] * f
        })
    })
}
