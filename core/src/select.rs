//! Which scores are written: of which heads, and of which queries.

use core::ops::Range;

use crate::dims::{Attention, Shape};
use crate::error::{Argument, Error};
use crate::options::Options;

/// Of which heads scores are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// Those of every head, `[batch, heads, q_len, kv_len]`.
    #[default]
    All,
    /// Those of one head, `[batch, q_len, kv_len]`.
    Head(usize),
    /// Their mean over the heads, `[batch, q_len, kv_len]`: PyTorch's default.
    Mean,
}

impl Select {
    /// Heads that have scores of their own.
    pub(crate) const fn heads(self, heads: usize) -> usize {
        match self {
            Self::All => heads,
            Self::Head(_) | Self::Mean => 1,
        }
    }
}

impl Options<'_> {
    /// Elements of the scores of a call with these options: `[batch, heads, queries, kv_len]`, heads
    /// by [`Options::scores`] and queries by [`Options::score_queries`]. Over a cache `kv_len` is
    /// [`Cache::stored`](crate::Cache::stored).
    ///
    /// ```
    /// use mha::{Attention, Options, Select, Shape};
    ///
    /// // A look at what the last of 10 queries sees, on average over the heads.
    /// let last = Some([9, 10]);
    /// let options = Options { scores: Select::Mean, score_queries: last, ..Options::new() };
    /// assert_eq!(options.scores_len(&Attention::new(8, 64, 64), Shape::new(2, 10, 20)), 2 * 20);
    /// ```
    #[must_use]
    pub const fn scores_len(&self, attention: &Attention, shape: Shape) -> usize {
        let queries = match self.score_queries {
            Some([start, end]) => end.saturating_sub(start),
            None => shape.q_len,
        };
        let heads = self.scores.heads(attention.heads);
        let rows = heads.saturating_mul(shape.batch).saturating_mul(queries);
        rows.saturating_mul(shape.kv_len)
    }

    /// How many of the rows `rows` of all `batch · q_len` have scores.
    pub(crate) fn scored(&self, shape: Shape, rows: &Range<usize>) -> usize {
        scored_rows(shape, rows, self.score_queries)
    }

    /// Checks that there are such heads and queries.
    pub(crate) fn check_scores(&self, attention: &Attention, shape: Shape) -> Result<(), Error> {
        if let Select::Head(head) = self.scores
            && head >= attention.heads
        {
            let len = attention.heads;
            return Err(Error::Range { argument: Argument::Scores, len, end: head });
        }
        if let Some([start, end]) = self.score_queries
            && (start > end || end > shape.q_len)
        {
            return Err(Error::Range { argument: Argument::Scores, len: shape.q_len, end });
        }
        Ok(())
    }
}

/// The queries among `queries` of a sequence that have scores where only `chosen` have.
pub(crate) fn scored(queries: &Range<usize>, chosen: Option<[usize; 2]>) -> Range<usize> {
    let Some([start, end]) = chosen else { return queries.clone() };
    let start = queries.start.max(start);
    start..queries.end.min(end).max(start)
}

/// How many of the rows `rows` of all `batch · q_len` have scores where only the queries `chosen` of
/// each sequence have.
pub(crate) fn scored_rows(shape: Shape, rows: &Range<usize>, chosen: Option<[usize; 2]>) -> usize {
    let Some([start, end]) = chosen else { return rows.len() };
    // In front of a row: those of whole sequences, and those of the one that it is in.
    let before = |row: usize| {
        let (whole, part) = match row.checked_div(shape.q_len) {
            Some(whole) => (whole, row - whole * shape.q_len),
            None => (0, 0),
        };
        whole * (end - start) + part.max(start).min(end) - start
    };
    before(rows.end) - before(rows.start)
}
