//! Attention with every option in `f64`, one number at a time: what random compositions are held
//! against. It shares nothing with the library, not even a type, and is slow.
//!
//! The order: rotate new queries and keys, append to the cache, scale · q · kᵀ, softcap, plus bias and
//! ALiBi, hide, softmax with the sink in its denominator, mix the values. What comes before and after
//! is in `steps.rs`. The value of a key that a query may not see is never read for it.

/// What is asked. Lists may be empty where they say so.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub batch: usize,
    pub q_len: usize,
    /// New keys; the cache's come in front of them.
    pub kv_len: usize,
    pub past_len: usize,
    pub heads: usize,
    /// Head h reads keys and values of `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Width of a head's queries and keys, and of its values.
    pub widths: (usize, usize),
    /// `[batch, q_len, heads · d]`
    pub q: &'a [f64],
    /// `[batch, kv_len, kv_heads · d]`, and values alike
    pub k: &'a [f64],
    pub v: &'a [f64],
    /// `[batch, kv_heads, past_len, d]`, and values alike; keys as they were rotated
    pub past_k: &'a [f64],
    pub past_v: &'a [f64],
    /// Default: 1/√d.
    pub scale: Option<f64>,
    pub softcap: Option<f64>,
    /// The first query's position, for each sequence; empty: the length of the past.
    pub positions: &'a [i64],
    pub causal: bool,
    /// Keys from `position − left` to `position + right`, both included.
    pub window: (Option<u64>, Option<u64>),
    /// How many keys of each sequence are real; empty: all.
    pub lengths: &'a [usize],
    /// Of ALiBi, a slope for each head; empty: none.
    pub slopes: &'a [f64],
    /// A logit for each head that has no value; empty: none.
    pub sinks: &'a [f64],
    pub rope: Option<Rope>,
    /// What is added for `[sequence, head, query, key]`; −∞ hides.
    pub bias: &'a dyn Fn([usize; 4]) -> f64,
    /// Whether `[sequence, head, query, key]` may be seen as far as masks, segments and the like say.
    pub mask: &'a dyn Fn([usize; 4]) -> bool,
}

/// Rotary positions of the first `dims` numbers of a head.
#[derive(Clone, Copy)]
pub struct Rope {
    pub base: f64,
    pub dims: usize,
    pub interleaved: bool,
    pub q_offset: i64,
    pub k_offset: i64,
}

/// What comes out; n is `past_len + kv_len`.
#[derive(Clone, Default)]
pub struct Answer {
    /// `[batch, q_len, heads · d_v]`
    pub y: Vec<f64>,
    /// Scaled products, then after softcap, after bias and masks, after softmax, each
    /// `[batch, heads, q_len, n]`; the first two hold every key's, hidden or not.
    pub scores: [Vec<f64>; 4],
    /// Logarithm of the softmax's denominator, the sink in it: `[batch, heads, q_len]`
    pub lse: Vec<f64>,
    /// `[batch, kv_heads, n, d]`, and values alike
    pub present_k: Vec<f64>,
    pub present_v: Vec<f64>,
}

fn rotate(row: &[f64], rope: Option<Rope>, position: impl Fn(Rope) -> i64) -> Vec<f64> {
    let mut turned = row.to_vec();
    let Some(r) = rope else { return turned };
    for i in 0..r.dims / 2 {
        let (a, b) = if r.interleaved { (2 * i, 2 * i + 1) } else { (i, i + r.dims / 2) };
        let angle = position(r) as f64 * r.base.powf(-2.0 * i as f64 / r.dims as f64);
        turned[a] = row[a] * angle.cos() - row[b] * angle.sin();
        turned[b] = row[b] * angle.cos() + row[a] * angle.sin();
    }
    turned
}

/// Computes everything.
pub fn attend(a: &Attention<'_>) -> Answer {
    let ((d, d_v), n) = (a.widths, a.past_len + a.kv_len);
    let mut out = Answer { y: vec![0.0; a.batch * a.q_len * a.heads * d_v], ..Answer::default() };
    for (b, g) in (0..a.batch).flat_map(|b| (0..a.kv_heads).map(move |g| (b, g))) {
        let past = (b * a.kv_heads + g) * a.past_len;
        let new = |j| (b * a.kv_len + j) * a.kv_heads + g;
        out.present_k.extend(&a.past_k[past * d..][..a.past_len * d]);
        out.present_v.extend(&a.past_v[past * d_v..][..a.past_len * d_v]);
        for j in 0..a.kv_len {
            let key = rotate(&a.k[new(j) * d..][..d], a.rope, |r| r.k_offset + j as i64);
            out.present_k.extend(key);
            out.present_v.extend(&a.v[new(j) * d_v..][..d_v]);
        }
    }
    for (b, h) in (0..a.batch).flat_map(|b| (0..a.heads).map(move |h| (b, h))) {
        let first = a.positions.get(b).copied().unwrap_or(a.past_len as i64);
        let group = (b * a.kv_heads + h / (a.heads / a.kv_heads)) * n;
        for i in 0..a.q_len {
            let (row, p) = ((b * a.q_len + i) * a.heads + h, first + i as i64);
            let query = rotate(&a.q[row * d..][..d], a.rope, |r| r.q_offset + i as i64);
            let dot = |j: usize| {
                query.iter().zip(&out.present_k[(group + j) * d..]).map(|(q, k)| q * k).sum::<f64>()
            };
            let logits: Vec<f64> =
                (0..n).map(|j| a.scale.unwrap_or((d as f64).sqrt().recip()) * dot(j)).collect();
            let capped: Vec<f64> =
                logits.iter().map(|s| a.softcap.map_or(*s, |c| c * (s / c).tanh())).collect();
            let sees = |j: usize| {
                let ahead = j as i64 - p; // how far the key is in front of the query
                j < a.lengths.get(b).copied().unwrap_or(n)
                    && !(a.causal && ahead > 0)
                    && a.window.0.is_none_or(|left| -ahead <= left as i64)
                    && a.window.1.is_none_or(|right| ahead <= right as i64)
                    && (a.mask)([b, h, i, j])
                    && (a.bias)([b, h, i, j]) != f64::NEG_INFINITY
            };
            let seen: Vec<usize> = (0..n).filter(|&j| sees(j)).collect();
            let slope = a.slopes.get(h).copied().unwrap_or(0.0);
            let mut masked = vec![f64::NEG_INFINITY; n];
            seen.iter().for_each(|&j| {
                masked[j] = capped[j] + (a.bias)([b, h, i, j]) - slope * (p - j as i64).abs() as f64
            });
            let sink = a.sinks.get(h).copied().unwrap_or(f64::NEG_INFINITY);
            let all = || seen.iter().map(|&j| masked[j]).chain([sink]);
            let larger = |m: f64, s: f64| if s > m || s.is_nan() { s } else { m };
            let top = all().fold(f64::NEG_INFINITY, larger);
            // Infinite logits share the row; a row without keys has no weight to divide.
            let weight = |s: f64| if s == top { 1.0 } else { (s - top).exp() };
            let whole: f64 = all().map(weight).sum();
            let mut alpha = vec![0.0; n];
            seen.iter().for_each(|&j| alpha[j] = weight(masked[j]) / whole);
            for c in 0..d_v {
                out.y[row * d_v + c] =
                    seen.iter().map(|&j| alpha[j] * out.present_v[(group + j) * d_v + c]).sum();
            }
            out.lse.push(top + whole.ln());
            for (stage, row) in out.scores.iter_mut().zip([logits, capped, masked, alpha]) {
                stage.extend(row);
            }
        }
    }
    out
}
