//! The loops of [`dense`](super::dense) that Arm's single registers have in assembly, for all others.

use crate::softmax::{self, BLOCK};

pub(super) fn scale(row: &mut [f32], factor: f32) {
    row.iter_mut().for_each(|x| *x *= factor);
}

pub(super) fn scaled(to: &mut [f32], from: &[f32], factor: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
}

pub(super) fn fill(row: &mut [f32], value: f32) {
    row.iter_mut().for_each(|x| *x = value);
}

pub(super) fn total(sums: &mut [f32; BLOCK]) -> f32 {
    softmax::add_up(sums);
    sums[0]
}

/// The largest of a row and `m`, something at most as large as the smallest, and what is left to look at:
/// nothing is faster than to look.
pub(super) fn bounds(m: f32, row: &[f32]) -> Option<(f32, f32, &[f32])> {
    row.is_empty().then_some((m, f32::INFINITY, row))
}

/// How many weights need less care, and are computed.
pub(super) fn weigh_eights_near(_row: &mut [f32], _m: f32, _sums: &mut [f32; BLOCK]) -> usize {
    0
}
