//! What the tests of the layer share: seeded random calls, and the layer in doubles.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

// For the core's own tests, where there is no `std` but what is named.
use std::vec;
use std::vec::Vec;

use mha::{Broadcast, Causal, Config, Dims, Dropout, Inputs, Mask, Shape, WeightOrder, Weights};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A layer and one call of it, owned.
#[derive(Clone, Debug)]
pub struct Call {
    pub config: Config,
    pub shape: Shape,
    pub w: [Vec<f32>; 4],
    pub b: [Option<Vec<f32>>; 4],
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub bias: Option<(Vec<f32>, [usize; 4])>,
    pub mask: Option<(Vec<bool>, [usize; 4])>,
    pub causal: Option<isize>,
    pub dropout: Option<(f32, u64)>,
}

pub fn floats(rng: &mut StdRng, n: usize, size: f32) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-size..size)).collect()
}

impl Call {
    /// A random call: every option is on or off by chance, sizes around the tiles' edges.
    pub fn random(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let lens = [0, 1, 2, 3, 5, 8, 13, 15, 16, 17, 31, 33, 47, 49, 63, 64, 65, 97, 130];
        let heads = rng.random_range(1..=5);
        let head_widths = [1, 2, 3, 4, 7, 8, 15, 16, 17, 33];
        let mut pick = |from: &[usize]| from[rng.random_range(0..from.len())];
        let (d, d_v) = (pick(&head_widths), pick(&head_widths));
        let widths = [1, 2, 3, 5, 8, 16, 17, 31, 32, 40];
        let (q_in, k_in, v_in, out) = (pick(&widths), pick(&widths), pick(&widths), pick(&widths));
        let shape = Shape::new(pick(&[0, 1, 1, 1, 2, 3]), pick(&lens), pick(&lens));
        let dims = Dims::new((q_in, k_in, v_in), (d * heads, d_v * heads), out);
        Self::of(rng, dims, heads, shape)
    }

    /// A random call of at most thirteen rows, its sizes on both sides of every multiple of a
    /// register, a tile and a block. Each width is the columns of one product and the depth of the
    /// next.
    pub fn around_tiles(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed ^ 0x7469_6c65);
        let near = |rng: &mut StdRng, multiples: &[usize]| {
            (multiples[rng.random_range(0..multiples.len())] + rng.random_range(0..3usize)).max(2)
                - 1
        };
        let heads = rng.random_range(1..=3);
        let (small, large) = ([0, 4, 8, 12, 16, 24, 32], [16, 32, 48, 64, 80, 96, 128]);
        let (d, d_v) = (near(rng, &small), near(rng, &small));
        let widths = [0; 4].map(|_| {
            let multiples = if rng.random_bool(0.7) { &small } else { &large };
            near(rng, multiples)
        });
        let [q_in, k_in, v_in, out] = widths;
        let batch = [1, 1, 1, 2, 3][rng.random_range(0..5)];
        let shape = Shape::new(batch, rng.random_range(1..=13 / batch), near(rng, &large));
        Self::of(rng, Dims::new((q_in, k_in, v_in), (d * heads, d_v * heads), out), heads, shape)
    }

    fn of(rng: &mut StdRng, dims: Dims, heads: usize, shape: Shape) -> Self {
        let order = if rng.random() { WeightOrder::InOut } else { WeightOrder::OutIn };
        let mut config = Config::new(dims).heads(heads).weight_order(order);
        if rng.random_bool(0.2) {
            config = config.scale(rng.random_range(-2.0..2.0));
        }
        // Now and then logits so far apart that weights vanish and the maximum leaps.
        let size = [1.0, 1.0, 3.0, 30.0][rng.random_range(0..4)];
        let w = [config.wq_len(), config.wk_len(), config.wv_len(), config.wo_len()]
            .map(|n| floats(rng, n, 1.0));
        let b = [dims.qk, dims.qk, dims.v, dims.out]
            .map(|n| rng.random_bool(0.4).then(|| floats(rng, n, 1.0)));
        let Shape { batch, q_len, kv_len } = shape;
        let extents = |rng: &mut StdRng| {
            [batch, heads, q_len, kv_len].map(|n| if rng.random() { n } else { 1 })
        };
        let bias = rng.random_bool(0.3).then(|| {
            let extents = extents(rng);
            let mut data = floats(rng, extents.iter().product(), 4.0);
            for x in &mut data {
                match rng.random_range(0..40) {
                    0 | 1 => *x = f32::NEG_INFINITY,
                    2 => *x = -1e9,
                    3 => *x = rng.random_range(-300.0..300.0),
                    _ => {}
                }
            }
            (data, extents)
        });
        let mask = rng.random_bool(0.4).then(|| {
            let extents = extents(rng);
            let density = rng.random_range(0.0..1.0);
            ((0..extents.iter().product()).map(|_| rng.random_bool(density)).collect(), extents)
        });
        Self {
            config,
            shape,
            w,
            b,
            q: floats(rng, batch * q_len * dims.q_in, size),
            k: floats(rng, batch * kv_len * dims.k_in, size),
            v: floats(rng, batch * kv_len * dims.v_in, 1.0),
            bias,
            mask,
            causal: rng.random_bool(0.3).then(|| rng.random_range(-10i32..20) as isize),
            dropout: rng.random_bool(0.2).then(|| (rng.random_range(0.0..0.9), rng.random())),
        }
    }

    pub fn weights(&self) -> Weights<'_> {
        let [wq, wk, wv, wo] = &self.w;
        let [bq, bk, bv, bo] = self.b.each_ref().map(Option::as_deref);
        Weights { bq, bk, bv, bo, ..Weights::new(wq, wk, wv, wo) }
    }

    pub fn inputs(&self) -> Inputs<'_> {
        let inputs = Inputs::new(&self.q, &self.k, &self.v);
        let bias = self.bias.as_ref().map(|(data, _)| data.as_slice());
        self.restricted(inputs, bias, self.mask.as_ref().map(|(data, _)| data.as_slice()))
    }

    /// Inputs with what this call adds to them, its bias and its mask lying where the caller says.
    pub fn restricted<'a>(
        &'a self,
        mut inputs: Inputs<'a>,
        bias: Option<&'a [f32]>,
        mask: Option<&'a [bool]>,
    ) -> Inputs<'a> {
        if let (Some(data), Some((_, extents))) = (bias, &self.bias) {
            inputs = inputs.bias(Broadcast::new(data, *extents));
        }
        if let (Some(data), Some((_, extents))) = (mask, &self.mask) {
            inputs = inputs.mask(Mask::bools(data, *extents));
        }
        if let Some(offset) = self.causal {
            inputs = inputs.causal_from(Causal::Offset(offset));
        }
        if let Some((p, seed)) = self.dropout {
            inputs = inputs.dropout(Dropout::new(p, seed));
        }
        inputs
    }

    /// Whether the query may see the key, and the bias between them.
    pub fn sees(&self, b: usize, h: usize, i: usize, j: usize) -> Option<f64> {
        let at = |extents: &[usize; 4]| {
            [b, h, i, j]
                .iter()
                .zip(extents)
                .fold(0, |at, (&index, &extent)| at * extent + if extent == 1 { 0 } else { index })
        };
        if self.mask.as_ref().is_some_and(|(data, extents)| !data[at(extents)]) {
            return None;
        }
        if self.causal.is_some_and(|offset| j as isize > i as isize + offset) {
            return None;
        }
        let bias = self.bias.as_ref().map_or(0.0, |(data, extents)| f64::from(data[at(extents)]));
        (bias != f64::NEG_INFINITY).then_some(bias)
    }

    /// The layer in doubles, without dropout: y and scores. Written from the formula, not from the
    /// library.
    pub fn doubles(&self) -> (Vec<f64>, Vec<f64>) {
        self.doubles_dropped(None)
    }

    /// The same with each score multiplied by a factor, as dropout does.
    pub fn doubles_dropped(&self, factors: Option<&[f64]>) -> (Vec<f64>, Vec<f64>) {
        let Dims { q_in, k_in, v_in, qk, v: v_width, out } = self.config.dims;
        let heads = self.config.attention.heads;
        let Shape { batch, q_len, kv_len } = self.shape;
        let dense = |x: &[f32], inputs: usize, which: usize, outputs: usize| -> Vec<f64> {
            let mut y = Vec::new();
            for row in x.chunks(inputs) {
                for o in 0..outputs {
                    let mut sum = self.b[which].as_ref().map_or(0.0, |b| f64::from(b[o]));
                    for (i, x) in row.iter().enumerate() {
                        let w = match self.config.weight_order {
                            WeightOrder::InOut => self.w[which][i * outputs + o],
                            WeightOrder::OutIn => self.w[which][o * inputs + i],
                        };
                        sum += f64::from(*x) * f64::from(w);
                    }
                    y.push(sum);
                }
            }
            y
        };
        let q = dense(&self.q, q_in, 0, qk);
        let k = dense(&self.k, k_in, 1, qk);
        let v = dense(&self.v, v_in, 2, v_width);
        let (d, d_v) = (qk / heads, v_width / heads);
        let scale = self.config.attention.scale.map_or(1.0 / (d as f64).sqrt(), f64::from);
        let mut scores = vec![0.0; batch * heads * q_len * kv_len];
        let mut y = Vec::new();
        for b in 0..batch {
            for i in 0..q_len {
                let mut x = vec![0.0; v_width];
                for h in 0..heads {
                    let q = &q[(b * q_len + i) * qk + h * d..][..d];
                    let logits: Vec<f64> = (0..kv_len)
                        .map(|j| match self.sees(b, h, i, j) {
                            Some(bias) => {
                                let k = &k[(b * kv_len + j) * qk + h * d..][..d];
                                scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() + bias
                            }
                            None => f64::NEG_INFINITY,
                        })
                        .collect();
                    let m = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    if m == f64::NEG_INFINITY {
                        continue;
                    }
                    let total: f64 = logits.iter().map(|l| (l - m).exp()).sum();
                    for (j, l) in logits.iter().enumerate() {
                        let at = ((b * heads + h) * q_len + i) * kv_len + j;
                        let p = (l - m).exp() / total * factors.map_or(1.0, |all| all[at]);
                        scores[at] = p;
                        for (e, x) in x[h * d_v..][..d_v].iter_mut().enumerate() {
                            *x += p * v[(b * kv_len + j) * v_width + h * d_v + e];
                        }
                    }
                }
                for o in 0..out {
                    let mut sum = self.b[3].as_ref().map_or(0.0, |b| f64::from(b[o]));
                    for (e, x) in x.iter().enumerate() {
                        let w = match self.config.weight_order {
                            WeightOrder::InOut => self.w[3][e * out + o],
                            WeightOrder::OutIn => self.w[3][o * v_width + e],
                        };
                        sum += x * f64::from(w);
                    }
                    y.push(sum);
                }
            }
        }
        (y, scores)
    }
}

/// A call that doubles can judge: nothing is dropped, and no row is decided by digits that a float has
/// not.
pub fn judged(mut call: Call) -> Call {
    call.dropout = None;
    if let Some((bias, _)) = &mut call.bias {
        // A row of nothing but -1e9 is decided by digits that an f32 at 1e9 has not.
        bias.iter_mut().filter(|b| **b == -1e9).for_each(|b| *b = -300.0);
    }
    call
}

/// The largest error of the results against doubles, as a part of what is allowed.
///
/// A logit of size l has an error of about l · 2⁻²³ per product, and its weight the same error
/// relative to itself.
pub fn error(
    call: &Call,
    doubles: &(Vec<f64>, Vec<f64>),
    y: &[f32],
    scores: &[f32],
    what: &str,
) -> f64 {
    let rms = |x: &[f32]| {
        (x.iter().map(|x| f64::from(x * x)).sum::<f64>() / x.len().max(1) as f64).sqrt()
    };
    let inputs = rms(&call.q) * rms(&call.k);
    let width = (call.config.dims.qk * call.config.dims.q_in.max(call.config.dims.k_in)) as f64;
    let logits = 1.0 + inputs * width + if call.bias.is_some() { 300.0 } else { 0.0 };
    let bound = 3e-7 * logits;
    let size = doubles.0.iter().fold(1.0f64, |size, y| size.max(y.abs()));
    let mut worst = 0.0f64;
    for (got, expected) in y.iter().zip(&doubles.0) {
        let error = (f64::from(*got) - expected).abs() / size;
        assert!(error <= bound, "{what}: {got} for {expected}, {error:e} > {bound:e}");
        worst = worst.max(error / bound);
    }
    for (got, expected) in scores.iter().zip(&doubles.1) {
        let error = (f64::from(*got) - expected).abs();
        assert!(error <= bound, "{what}: score {got} for {expected}");
    }
    worst
}

/// Floats by their bits, NaNs all alike.
pub fn bits(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}
