//! Cases of kind "rope": rotation alone, by a table of the case's.

use anyhow::{Context, Result, bail, ensure};
use mha::{Attention, Cache, CacheConfig, Options, Rope};

use crate::tensors::{Floats, Tensors};

/// Positions that lie side by side in a cache's keys.
pub(crate) const BLOCK: usize = 16;

/// What is rotated by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Sequences, heads, positions of each, and features of a head.
    pub sizes: [usize; 4],
    /// The row of the table for each position, `[batch, length]`.
    pub positions: Vec<usize>,
    /// Cosines, `[rows, pairs]`.
    pub cos: Vec<f32>,
    /// Sines, alike.
    pub sin: Vec<f32>,
    /// Features of a head that are rotated.
    pub dims: usize,
    /// Whether pairs lie side by side.
    pub interleaved: bool,
}

impl Rotation {
    /// Takes everything but `x` and `rotated`, both of these `sizes`.
    pub(crate) fn take(
        tensors: &mut Tensors<'_>,
        sizes: [usize; 4],
        interleaved: bool,
    ) -> Result<Self> {
        let [batch, _, length, d] = sizes;
        let Floats { data: cos, shape } = tensors.required("cos")?;
        let given = tensors.sizes("positions")?;
        let (rows, pairs) = match (shape.as_slice(), &given) {
            (&[rows, pairs], Some(_)) => (rows, pairs),
            (&[b, l, pairs], None) if (b, l) == (batch, length) => (b * l, pairs),
            _ => bail!(
                "cos: {shape:?}, {} positions",
                if given.is_some() { "with" } else { "without" }
            ),
        };
        ensure!((1..=d / 2).contains(&pairs), "cos: {pairs} pairs for a head of {d} features");
        let sin = tensors.exact("sin", &shape)?;
        let positions = match given {
            None => (0..rows).collect(),
            Some((positions, shape)) => {
                ensure!(
                    shape == [batch, length],
                    "positions: {shape:?} where {:?} is expected",
                    [batch, length]
                );
                if let Some(beyond) = positions.iter().find(|position| **position >= rows) {
                    bail!("positions: {beyond} in a table of {rows}");
                }
                positions
            }
        };
        Ok(Self { sizes, positions, cos, sin, dims: 2 * pairs, interleaved })
    }

    /// Lets the library rotate `[batch, heads, length, d]`: each position as a key that is appended
    /// to a cache, where it can be read.
    pub(crate) fn run(&self, x: &[f32]) -> Result<Vec<f32>> {
        let [batch, heads, length, d] = self.sizes;
        if x.is_empty() {
            return Ok(Vec::new());
        }
        let attention = Attention::new(heads, heads * d, heads);
        let config = CacheConfig::linear(batch * length);
        let mut keys = vec![f32::NAN; config.keys_len(&attention)];
        let mut values = vec![f32::NAN; config.values_len(&attention)];
        let mut cache = Cache::new(config, &attention, &mut keys, &mut values)?;
        for (place, &row) in self.positions.iter().enumerate() {
            let (b, i) = (place / length, place % length);
            let key: Vec<f32> = (0..heads)
                .flat_map(|h| &x[((b * heads + h) * length + i) * d..][..d])
                .copied()
                .collect();
            let rope = Rope {
                dims: self.dims,
                interleaved: self.interleaved,
                k_offset: Some(row),
                ..Rope::table(&self.cos, &self.sin)
            };
            let options = Options { rope: Some(rope), ..Options::new() };
            cache.append(&key, &vec![0.0; heads], &options).context("append")?;
        }
        let mut rotated = Vec::with_capacity(x.len());
        for (b, h) in (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))) {
            for i in 0..length {
                let keys = &keys[h * keys.len() / heads..];
                rotated.extend((0..d).map(|e| key(keys, d, b * length + i, e)));
            }
        }
        Ok(rotated)
    }
}

/// A feature of the key at a position, in the keys of one head: `[capacity / 16, features, 16]`.
pub(crate) fn key(keys: &[f32], features: usize, position: usize, feature: usize) -> f32 {
    keys[(position / BLOCK * features + feature) * BLOCK + position % BLOCK]
}
