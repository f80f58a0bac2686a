//! Cutting the rows of a call into parts that cost about the same, for threads or cores to share.
//!
//! Causal calls make rows unequal, and a cut inside of a sequence makes both sides project its keys
//! and values. This file weighs both; it never decides what a result is.

use core::ops::Range;

use crate::dims::{Config, Shape};
use crate::mask::Causal;

impl Config {
    /// The rows of one part of a call that is shared by `parts` threads or cores: what
    /// [`MultiHeadAttention::forward_rows`](crate::MultiHeadAttention::forward_rows) takes. The parts
    /// `0..parts` follow one another, cover every row once and cost about the same; there are empty
    /// ones where there are more parts than rows. `causal` is the rule of the call, if it has one.
    ///
    /// ```
    /// use mha::{Causal, Config, Dims, Shape};
    ///
    /// const CONFIG: Config = Config::new(Dims::square(64));
    /// const SHAPE: Shape = Shape::new(1, 1000, 1000);
    /// // The rows of a causal call grow, so the second part is the smaller one.
    /// let causal = Some(Causal::Natural);
    /// assert_eq!(CONFIG.split_rows(SHAPE, causal, 0, 2), 0..690);
    /// assert_eq!(CONFIG.split_rows(SHAPE, causal, 1, 2), 690..1000);
    /// assert_eq!(CONFIG.split_rows(SHAPE, None, 0, 2), 0..500);
    /// ```
    #[must_use]
    pub fn split_rows(
        &self,
        shape: Shape,
        causal: Option<Causal<'_>>,
        part: usize,
        parts: usize,
    ) -> Range<usize> {
        let costs = Costs::new(self, shape, causal);
        costs.cut(part, parts)..costs.cut(part.saturating_add(1), parts)
    }
}

/// What rows cost, in multiply-adds. As doubles: they count exactly whatever a call can cost, their
/// squares stay finite for any sizes, and small machines divide them without 128-bit arithmetic.
struct Costs<'a> {
    shape: Shape,
    causal: Option<Causal<'a>>,
    /// Projecting the keys and values of a sequence.
    keys: f64,
    /// What a row costs whatever it sees.
    row: f64,
    /// Each key that it sees.
    key: f64,
}

impl<'a> Costs<'a> {
    fn new(config: &Config, shape: Shape, causal: Option<Causal<'a>>) -> Self {
        let (dims, attention) = (&config.dims, &config.attention);
        let product = |a: usize, b: usize| a as f64 * b as f64;
        let position = product(dims.k_in, attention.key_features())
            + product(dims.v_in, attention.value_features());
        let keys = position * shape.kv_len as f64;
        let row = product(dims.q_in, dims.qk) + product(dims.v, dims.out);
        let key = dims.qk as f64 + dims.v as f64;
        Self { shape, causal, keys, row, key }
    }

    /// Where part `part` begins.
    fn cut(&self, part: usize, parts: usize) -> usize {
        let rows = self.shape.queries();
        if part >= parts {
            return rows;
        }
        let wanted = self.before(rows) * (part as f64 / parts as f64);
        // 1. The first row that has as much before it.
        let (mut low, mut high) = (0, rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.before(middle) < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.snap(low)
    }

    /// Moves a cut to the edge of its sequence where that is less uneven than projecting the
    /// sequence's keys and values on both sides.
    fn snap(&self, row: usize) -> usize {
        let q_len = self.shape.q_len;
        let Some(inside) = row.checked_rem(q_len) else { return row };
        if inside == 0 {
            return row;
        }
        let (lower, upper) = (row - inside, (row - inside).saturating_add(q_len));
        let here = self.before(row);
        let (left, right) = (here - self.before(lower), self.before(upper) - here);
        // 2. Cut here, the smaller side bears all of the keys' projection though only its share was
        //    counted; at the edge, one part is longer by the smaller side.
        let (small, large) = (left.min(right), left.max(right));
        if small * (left + right) > self.keys * large {
            row
        } else if left <= right {
            lower
        } else {
            upper
        }
    }

    /// The cost of all rows before this one. Each bears a share of its sequence's keys and values.
    fn before(&self, row: usize) -> f64 {
        let q_len = self.shape.q_len;
        let (Some(sequence), Some(inside)) = (row.checked_div(q_len), row.checked_rem(q_len))
        else {
            return 0.0;
        };
        let whole = match self.causal {
            Some(Causal::PerSequence(_)) => {
                (0..sequence).map(|batch| self.rows(batch, q_len) + self.keys).sum()
            }
            _ => (self.rows(0, q_len) + self.keys) * sequence as f64,
        };
        let (part, all) = (self.rows(sequence, inside), self.rows(sequence, q_len));
        let share = if all > 0.0 { self.keys * part / all } else { 0.0 };
        whole + part + share
    }

    /// The cost of the first `rows` of a sequence, without its keys and values.
    fn rows(&self, batch: usize, rows: usize) -> f64 {
        let kv_len = self.shape.kv_len;
        let seen = match self.causal {
            None => rows as f64 * kv_len as f64,
            Some(causal) => visible(rows, kv_len, causal.offset(batch, 0)),
        };
        seen * self.key + rows as f64 * self.row
    }
}

/// The keys that the first `rows` queries of a sequence see together under the causal rule.
fn visible(rows: usize, kv_len: usize, offset: isize) -> f64 {
    let (rows, kv_len, first) = (rows as f64, kv_len as f64, offset as f64 + 1.0);
    // Row i sees i + first keys, from the row on that sees one to the row that sees all.
    let start = (1.0 - first).max(0.0).min(rows);
    let end = (kv_len - first).max(start).min(rows);
    let growing = (end - start) * (2.0 * first + start + end - 1.0) / 2.0;
    growing + (rows - end) * kv_len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dims::Dims;

    /// What the rows of a range cost, counted one by one; every sequence that they touch has its
    /// keys and values projected.
    fn cost(config: &Config, shape: Shape, causal: Option<Causal<'_>>, rows: Range<usize>) -> i128 {
        let Dims { q_in, k_in, v_in, qk, v, out } = config.dims;
        let mut sum = 0;
        let mut touched = None;
        for row in rows {
            let (batch, query) = (row / shape.q_len, (row % shape.q_len) as isize);
            if touched != Some(batch) {
                touched = Some(batch);
                sum += shape.kv_len * (k_in * qk + v_in * v);
            }
            let sees = |key: &usize| {
                causal.is_none_or(|causal| *key as isize <= query + causal.offset(batch, 0))
            };
            sum += q_in * qk + v * out + (0..shape.kv_len).filter(sees).count() * (qk + v);
        }
        sum as i128
    }

    fn parts(
        config: &Config,
        shape: Shape,
        causal: Option<Causal<'_>>,
        parts: usize,
    ) -> impl Iterator<Item = Range<usize>> {
        (0..parts).map(move |part| config.split_rows(shape, causal, part, parts))
    }

    #[test]
    fn the_parts_cover_every_row_once() {
        let config = Config::new(Dims::new((8, 6, 4), (8, 16), 3)).heads(2);
        for (batch, q_len, kv_len) in
            [(1, 1, 1), (3, 7, 20), (2, 50, 9), (5, 1, 64), (0, 4, 4), (2, 0, 4)]
        {
            let shape = Shape::new(batch, q_len, kv_len);
            for offset in [None, Some(-60), Some(-3), Some(0), Some(5), Some(isize::MAX)] {
                for count in 1..9 {
                    let mut next = 0;
                    for rows in parts(&config, shape, offset.map(Causal::Offset), count) {
                        assert_eq!(rows.start, next);
                        assert!(rows.end >= rows.start);
                        next = rows.end;
                    }
                    assert_eq!(next, batch * q_len);
                }
            }
        }
    }

    #[test]
    fn no_cut_is_better_by_more_than_a_row() {
        let config = Config::new(Dims::square(8)).heads(2);
        for (batch, q_len, kv_len) in
            [(1, 40, 40), (1, 33, 100), (3, 20, 20), (4, 9, 5), (7, 5, 50)]
        {
            let shape = Shape::new(batch, q_len, kv_len);
            let offsets = [3, -10, 0, 30, 1, 2, -4];
            let each = Some(Causal::PerSequence(&offsets[..batch]));
            for causal in [None, Some(Causal::Natural), Some(Causal::Offset(-7)), each] {
                let rows = shape.queries();
                let slower = |cut: usize| {
                    let cost = |range| cost(&config, shape, causal, range);
                    cost(0..cut).max(cost(cut..rows))
                };
                let best = (0..=rows).map(slower).min().unwrap_or(0);
                let ours = slower(config.split_rows(shape, causal, 0, 2).end);
                let row = 2 * 64 + kv_len as i128 * 16;
                assert!(ours <= best + row, "{shape:?} {causal:?}: {ours} against {best}");
            }
        }
    }

    #[test]
    fn whole_sequences_stay_together() {
        let config = Config::new(Dims::square(64));
        let shape = Shape::new(32, 10, 60);
        assert!(parts(&config, shape, None, 4).eq([0..80, 80..160, 160..240, 240..320]));
        assert!(parts(&config, shape, None, 3).all(|rows| rows.start % 10 == 0));
    }

    #[test]
    fn sizes_beyond_every_call_do_not_overflow() {
        let config = Config::new(Dims::square(usize::MAX));
        let shape = Shape::new(usize::MAX, usize::MAX, usize::MAX);
        let offsets = [Some(isize::MIN), Some(isize::MAX), Some(0), None];
        for causal in offsets.map(|offset| offset.map(Causal::Offset)) {
            let rows = config.split_rows(shape, causal, 1, 3);
            assert!(rows.start <= rows.end);
        }
        assert_eq!(config.split_rows(Shape::new(1, 4, 4), None, 0, 0), 4..4);
        assert_eq!(config.split_rows(Shape::new(1, 4, 4), None, usize::MAX, usize::MAX), 4..4);
    }
}
