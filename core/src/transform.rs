//! What happens to projected queries and keys before they meet: each head is normalised, then
//! rotated. Works on one row in place; rows may lie strided, as keys do in their blocks.

use crate::call::Inputs;
use crate::dims::Shape;
use crate::error::{Argument, Error};
use crate::options::{Angles, Norm, NormKind, Options, Rope, Rules};

/// One head of one position: feature e lies at `at + e · stride`.
pub(crate) struct Features<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) at: usize,
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

impl Features<'_> {
    fn get(&self, e: usize) -> f32 {
        self.data.get(self.at + e * self.stride).copied().unwrap_or(0.0)
    }

    fn set(&mut self, e: usize, value: f32) {
        if let Some(x) = self.data.get_mut(self.at + e * self.stride) {
            *x = value;
        }
    }
}

/// Which side of the product a row is on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Query,
    Key,
}

/// Whether the options touch projected queries and keys at all.
pub(crate) fn transforms(options: &Options<'_>) -> bool {
    options.norm.is_some() || options.rope.is_some()
}

/// Checks that a table of angles has a row for each of `n` positions from `first` on.
fn check_angles(rope: &Rope<'_>, d: usize, first: usize, n: usize) -> Result<(), Error> {
    let Angles::Table { cos, .. } = rope.angles else { return Ok(()) };
    // Where nothing is rotated, no row is looked up.
    let len = cos.len().checked_div(rope.pairs(d)).unwrap_or(usize::MAX);
    let end = if n == 0 { 0 } else { first.saturating_add(n) };
    if end > len { Err(Error::Range { argument: Argument::Rope, len, end }) } else { Ok(()) }
}

/// Checks that `n` new keys of each sequence, the first of which stands at `first`, can be rotated.
pub(crate) fn check_key_angles<R: Rules>(
    rules: R,
    d: usize,
    first: usize,
    n: usize,
) -> Result<(), Error> {
    match rules.options().and_then(|options| options.rope) {
        Some(rope) => check_angles(&rope, d, rope.k_offset.unwrap_or(first), n),
        None => Ok(()),
    }
}

/// Checks that the queries of a call can be rotated; the first stands at `natural` where nothing else
/// is said.
pub(crate) fn check_query_angles<R: Rules>(
    inputs: &Inputs<'_, R>,
    d: usize,
    shape: Shape,
    natural: isize,
) -> Result<(), Error> {
    let Some(options) = inputs.rules.options() else { return Ok(()) };
    let Some(rope) = &options.rope else { return Ok(()) };
    if let Some(first) = rope.q_offset {
        return check_angles(rope, d, first, shape.q_len);
    }
    let said = inputs.causal.as_ref().or(options.offset.as_ref());
    for batch in 0..shape.batch {
        let first = said.map_or(natural, |said| said.offset(batch, natural));
        // A position in front of the first key is rotated as that is.
        let end = first.saturating_add_unsigned(shape.q_len).max(0).unsigned_abs();
        let n = end.min(shape.q_len);
        check_angles(rope, d, end - n, n)?;
    }
    Ok(())
}

/// Normalises and rotates one head of one position.
pub(crate) fn transform(options: &Options<'_>, side: Side, position: usize, x: &mut Features<'_>) {
    if let Some(norm) = &options.norm {
        normalise(norm, side, x);
    }
    if let Some(rope) = &options.rope {
        rotate(rope, position, x);
    }
}

fn normalise(norm: &Norm<'_>, side: Side, x: &mut Features<'_>) {
    let sum = (0..x.count).fold(0.0, |sum, e| sum + x.get(e) * x.get(e));
    let square = match norm.kind {
        NormKind::Rms => sum / x.count.max(1) as f32,
        NormKind::L2 => sum,
    };
    let length = libm::sqrtf(square + norm.epsilon);
    let factor = if length == 0.0 { 0.0 } else { 1.0 / length };
    let gain = if side == Side::Query { norm.q_gain } else { norm.k_gain };
    for e in 0..x.count {
        let gain = gain.and_then(|gain| gain.get(e)).copied().unwrap_or(1.0);
        x.set(e, x.get(e) * factor * gain);
    }
}

/// Takes the gradient of a rotated head back to before it was: rotates it the other way.
pub(crate) fn rotate_back(rope: &Rope<'_>, position: usize, x: &mut Features<'_>) {
    turn(rope, position, x, -1.0);
}

fn rotate(rope: &Rope<'_>, position: usize, x: &mut Features<'_>) {
    turn(rope, position, x, 1.0);
}

/// Rotates by an angle, or the other way round.
#[inline(always)]
fn turn(rope: &Rope<'_>, position: usize, x: &mut Features<'_>, way: f32) {
    let pairs = rope.pairs(x.count);
    for i in 0..pairs {
        let (first, second) = if rope.interleaved { (2 * i, 2 * i + 1) } else { (i, i + pairs) };
        let (cos, sin) = rope.angle(position, i, pairs);
        let sin = way * sin;
        let (a, b) = (x.get(first), x.get(second));
        x.set(first, a * cos - b * sin);
        x.set(second, b * cos + a * sin);
    }
}
