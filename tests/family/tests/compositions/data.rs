//! The numbers of a composition: drawn from its seed, each array by a stream of its own, so that a
//! switch turned off changes nothing else.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::spec::{Layer, Position, Slopes, Spec};

/// An array that is broadcast to `[batch, heads, q_len, keys]`.
pub(crate) struct Grid<T> {
    pub(crate) data: Vec<T>,
    pub(crate) extents: [usize; 4],
}

impl<T: Copy> Grid<T> {
    pub(crate) fn at(&self, place: [usize; 4]) -> T {
        let step = |sum, (&extent, i)| sum * extent + if extent == 1 { 0 } else { i };
        self.data[self.extents.iter().zip(place).fold(0, step)]
    }
}

pub(crate) struct Data {
    /// Inputs, `[batch, length, features]`.
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    /// `[batch, past, key features]`, and values alike.
    pub(crate) past_k: Vec<f32>,
    pub(crate) past_v: Vec<f32>,
    pub(crate) weights: [Vec<f32>; 4],
    pub(crate) biases: [Option<Vec<f32>>; 4],
    pub(crate) causal_each: Vec<isize>,
    pub(crate) offset_each: Vec<isize>,
    pub(crate) lens: Vec<usize>,
    pub(crate) slopes: Vec<f32>,
    pub(crate) cos: Vec<f32>,
    pub(crate) sin: Vec<f32>,
    pub(crate) sinks: Vec<f32>,
    pub(crate) gains: [Vec<f32>; 2],
    pub(crate) bias: Option<Grid<f32>>,
    pub(crate) mask: Option<Grid<bool>>,
    pub(crate) q_segments: Vec<u32>,
    pub(crate) kv_segments: Vec<u32>,
    pub(crate) extra_k: Vec<f32>,
    pub(crate) extra_v: Vec<f32>,
}

/// Positions that a table of angles has.
const TABLE: usize = 700;

impl Data {
    pub(crate) fn of(spec: &Spec) -> Self {
        let stream = |tag: u64| StdRng::seed_from_u64(spec.seed.wrapping_mul(1000) + tag);
        let floats = |tag: u64, n: usize, size: f32| -> Vec<f32> {
            let mut rng = stream(tag);
            (0..n).map(|_| rng.random_range(-size..size)).collect()
        };
        let Spec { batch, q_len, kv_len, past, kv_heads, d, d_v, .. } = *spec;
        let (heads, keys) = (spec.heads(), spec.keys());
        let (key_features, value_features) = (kv_heads * d, kv_heads * d_v);
        let bare = [heads * d, key_features, value_features, heads * d_v];
        let widths = spec.layer.as_ref().map_or(bare, |layer| layer.widths);
        let ins = [widths[0], widths[1], widths[2], bare[3]];
        let outs = [bare[0], bare[1], bare[2], widths[3]];
        let each = |tag| -> Vec<isize> {
            let angles = spec.rope.is_some_and(|rope| rope.q_offset.is_none());
            let mut rng = stream(tag);
            (0..batch)
                .map(|_| rng.random_range(if angles { 0 } else { -5 }..140i32) as isize)
                .collect()
        };
        let extents = |axes: [bool; 4]| {
            let full = [batch, heads, q_len, keys];
            [0, 1, 2, 3].map(|i| if axes[i] { full[i] } else { 1 })
        };
        let ids = |tag, n: usize| -> Vec<u32> {
            let mut rng = stream(tag);
            (0..n).map(|_| rng.random_range(0..3)).collect()
        };
        let angle = |position: usize, i: usize| {
            let rope = spec.rope.unwrap();
            let dims = if rope.dims == 0 { d } else { rope.dims };
            position as f64 * f64::from(rope.base).powf(-2.0 * i as f64 / dims as f64)
        };
        let pairs = spec.rope.filter(|rope| rope.table);
        let pairs = pairs.map_or(0, |rope| if rope.dims == 0 { d } else { rope.dims } / 2);
        let places = || (0..TABLE).flat_map(|p| (0..pairs).map(move |i| (p, i)));
        let mut data = Self {
            q: floats(1, batch * q_len * ins[0], 1.5),
            k: floats(2, batch * kv_len * ins[1], 1.5),
            v: floats(3, batch * kv_len * ins[2], 1.5),
            past_k: floats(4, batch * past * key_features, 1.5),
            past_v: floats(5, batch * past * value_features, 1.5),
            weights: [0, 1, 2, 3].map(|i| {
                let size = 1.5 / (ins[i] as f32).sqrt();
                floats(6 + i as u64, ins[i] * outs[i], size)
            }),
            biases: [0, 1, 2, 3].map(|i| {
                let biases = spec.layer.as_ref().is_some_and(|layer| layer.biases[i]);
                biases.then(|| floats(10 + i as u64, outs[i], 0.5))
            }),
            causal_each: each(14),
            offset_each: each(15),
            lens: {
                let mut rng = stream(16);
                (0..batch).map(|_| rng.random_range(0..=keys)).collect()
            },
            slopes: match spec.alibi {
                Some(Slopes::Given) => floats(17, heads, 0.5),
                _ => Vec::new(),
            },
            cos: places().map(|(p, i)| angle(p, i).cos() as f32).collect(),
            sin: places().map(|(p, i)| angle(p, i).sin() as f32).collect(),
            sinks: floats(18, heads, 3.0),
            gains: [floats(19, d, 2.0), floats(20, d, 2.0)],
            bias: spec.bias.map(|axes| {
                let mut rng = stream(21);
                let one = |_| match rng.random_range(0..12) {
                    0 => f32::NEG_INFINITY,
                    1 if spec.infinite => f32::INFINITY,
                    _ => rng.random_range(-2.0..2.0),
                };
                let extents = extents(axes);
                Grid { data: (0..extents.iter().product()).map(one).collect(), extents }
            }),
            mask: spec.mask.map(|axes| {
                let mut rng = stream(22);
                let extents = extents(axes);
                let one = |_| rng.random_bool(0.6);
                Grid { data: (0..extents.iter().product()).map(one).collect(), extents }
            }),
            q_segments: ids(23, batch * q_len),
            kv_segments: ids(24, batch * keys),
            extra_k: floats(25, key_features, 1.5),
            extra_v: floats(26, value_features, 1.5),
        };
        if spec.poison {
            data.poison(spec);
        }
        data
    }

    /// Position of a sequence's first query.
    pub(crate) fn position(&self, spec: &Spec, batch: usize) -> isize {
        let natural = match spec.cache {
            Some(_) => spec.keys() as isize - spec.q_len as isize,
            None => 0,
        };
        let said = match spec.causal {
            Some(position) => Some((position, &self.causal_each)),
            None => spec.offset.map(|position| (position, &self.offset_each)),
        };
        match said {
            None | Some((Position::Natural, _)) => natural,
            Some((Position::Offset(offset), _)) => offset,
            Some((Position::PerSequence, each)) => each[batch],
        }
    }

    /// What bias, mask, segments and a ring say of `[sequence, head, query, key]`.
    pub(crate) fn lets(&self, spec: &Spec, at: [usize; 4]) -> bool {
        let [b, _, i, j] = at;
        let together = self.q_segments[b * spec.q_len + i] == self.kv_segments[b * spec.keys() + j];
        self.bias.as_ref().is_none_or(|bias| bias.at(at) != f32::NEG_INFINITY)
            && self.mask.as_ref().is_none_or(|mask| mask.at(at) != spec.excluding)
            && (!spec.segments || together)
            && !spec.gone().contains(&j)
    }

    /// What causal rule, window and lengths say of it besides.
    pub(crate) fn sees(&self, spec: &Spec, at: [usize; 4]) -> bool {
        let [b, _, i, j] = at;
        let ahead = j as isize - self.position(spec, b) - i as isize;
        let within = |side: Option<usize>, far| side.is_none_or(|side| far <= side as isize);
        self.lets(spec, at)
            && (spec.causal.is_none() || ahead <= 0)
            && within(spec.window.0, -ahead)
            && within(spec.window.1, ahead)
            && (!spec.lens || j < self.lens[b])
    }

    /// Puts what is not a number where no query looks.
    fn poison(&mut self, spec: &Spec) {
        let rows = |data: &[f32], n: usize| data.len().checked_div(spec.batch * n).unwrap_or(0);
        let (k, v) = (rows(&self.k, spec.kv_len), rows(&self.v, spec.kv_len));
        let (past_k, past_v) = (rows(&self.past_k, spec.past), rows(&self.past_v, spec.past));
        for (b, j) in (0..spec.batch).flat_map(|b| (0..spec.keys()).map(move |j| (b, j))) {
            let queries = (0..spec.heads()).flat_map(|h| (0..spec.q_len).map(move |i| (h, i)));
            if queries.into_iter().any(|(h, i)| self.sees(spec, [b, h, i, j])) {
                continue;
            }
            let (targets, row) = match j.checked_sub(spec.past) {
                Some(new) => ([(&mut self.k, k), (&mut self.v, v)], b * spec.kv_len + new),
                None => {
                    ([(&mut self.past_k, past_k), (&mut self.past_v, past_v)], b * spec.past + j)
                }
            };
            for (data, width) in targets {
                data[row * width..][..width].fill(f32::NAN);
            }
        }
    }

    /// The weight of projection `which` from input i to output o.
    pub(crate) fn weight(&self, layer: &Layer, which: usize, place: [usize; 4]) -> f64 {
        let [i, o, inputs, outputs] = place;
        let at = if layer.out_in { o * inputs + i } else { i * outputs + o };
        f64::from(self.weights[which][at])
    }
}
