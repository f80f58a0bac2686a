//! What stands around attention: a call without options to start from, projections, the normalisation
//! of queries and keys before it, the usual slopes of ALiBi; in `f64`, for the oracle.

use crate::oracle::Attention;

/// One sequence of nothing, one head of width 1, no option: `Attention { q_len: 3, ..PLAIN }`.
pub const PLAIN: Attention<'static> = Attention {
    batch: 1,
    q_len: 0,
    kv_len: 0,
    past_len: 0,
    heads: 1,
    kv_heads: 1,
    widths: (1, 1),
    q: &[],
    k: &[],
    v: &[],
    past_k: &[],
    past_v: &[],
    scale: None,
    softcap: None,
    positions: &[],
    causal: false,
    window: (None, None),
    lengths: &[],
    slopes: &[],
    sinks: &[],
    rope: None,
    bias: &|_| 0.0,
    mask: &|_| true,
};

/// ALiBi's slopes: a geometric sequence for a power of two; otherwise that of the power below, and the
/// rest every other term of the power above.
pub fn slopes(heads: usize) -> Vec<f64> {
    let below = 1 << heads.ilog2();
    let term = |h| 2f64.powf(-8.0 * (h + 1) as f64 / below as f64);
    let between = |h| 2f64.powf(-4.0 * (2 * h + 1) as f64 / below as f64);
    (0..heads).map(|h| if h < below { term(h) } else { between(h - below) }).collect()
}

/// Rows of `x · w + bias`; `w(i, o)` is the weight from input i to output o, `bias` may be empty.
pub fn dense(
    x: &[f64],
    inputs: usize,
    outputs: usize,
    w: impl Fn(usize, usize) -> f64,
    bias: &[f64],
) -> Vec<f64> {
    let product = |row: &[f64], o| row.iter().enumerate().map(|(i, x)| x * w(i, o)).sum::<f64>();
    let output = |row, o| product(row, o) + bias.get(o).copied().unwrap_or(0.0);
    x.chunks(inputs).flat_map(|row| (0..outputs).map(move |o| output(row, o))).collect()
}

/// Each head's row over the root of its mean square (or, `sum`, of its sum of squares) plus `epsilon`,
/// times `gain`, which may be empty.
pub fn normalise(x: &mut [f64], d: usize, sum: bool, epsilon: f64, gain: &[f64]) {
    for row in x.chunks_mut(d) {
        let squares = row.iter().map(|x| x * x).sum::<f64>() / if sum { 1.0 } else { d as f64 };
        let root = (squares + epsilon).sqrt();
        row.iter_mut().enumerate().for_each(|(c, x)| *x *= gain.get(c).unwrap_or(&1.0) / root);
    }
}
