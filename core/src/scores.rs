//! Where the scores of a call go: all of them, those of one head or of some queries, or their mean.

use core::ops::Range;

use crate::attention::{add_scores, attend};
use crate::call::{Inputs, ScoresAt};
use crate::dims::Shape;
use crate::kernel::{Kernel, Matrix, MatrixMut};
use crate::options::Rules;
use crate::plan::TileParts;
use crate::select::{Select, scored, scored_rows};
use crate::store::Head;
use crate::visible::Queries;
use crate::work::width;

/// The scores of a call: for each sequence that its rows touch, in order, those of its queries.
pub(crate) struct AllScores<'a> {
    data: Option<&'a mut [f32]>,
    at: ScoresAt,
    select: Select,
    /// First and one past the last query of a sequence that has scores; `None`: all.
    chosen: Option<[usize; 2]>,
    heads: usize,
    /// The last axis: keys, or positions that a cache has stored.
    columns: usize,
}

impl<'a> AllScores<'a> {
    pub(crate) fn new<R: Rules>(
        data: Option<&'a mut [f32]>,
        at: ScoresAt,
        inputs: &Inputs<'_, R>,
        heads: usize,
        columns: usize,
    ) -> Self {
        let options = inputs.rules.options();
        let select = options.map_or(Select::All, |options| options.scores);
        let chosen = options.and_then(|options| options.score_queries);
        Self { data, at, select, chosen, heads: select.heads(heads), columns }
    }

    /// The scores of a sequence that the rows `rows` of all `batch · q_len` touch.
    pub(crate) fn of(&mut self, shape: Shape, rows: &Range<usize>, batch: usize) -> Scores<'_> {
        let Self { at, select, chosen, heads, columns, .. } = *self;
        let first = batch * shape.q_len;
        let start = rows.start.max(first);
        let queries = start - first..rows.end.min(first + shape.q_len) - first;
        let queries = scored(&queries, chosen);
        let before = scored_rows(shape, &(rows.start..start), chosen);
        let data = self.data.as_deref_mut().and_then(|data| {
            let at = heads * before * columns;
            data.get_mut(at..at + heads * width(&queries) * columns)
        });
        Scores { data, at, select, columns, queries }
    }
}

/// The scores of some queries of one sequence, `[heads, queries, columns]`.
pub(crate) struct Scores<'a> {
    data: Option<&'a mut [f32]>,
    at: ScoresAt,
    select: Select,
    columns: usize,
    queries: Range<usize>,
}

impl Scores<'_> {
    /// [`attend`] for one tile of one head, with the scores where they belong.
    pub(crate) fn attend<K: Kernel, R: Rules>(
        &mut self,
        head: &Head<'_>,
        queries: Matrix<'_>,
        see: &Queries<'_, R>,
        mixed: &mut MatrixMut<'_>,
        tile: &mut TileParts<'_>,
        tile_keys: usize,
    ) {
        if !R::OPTIONAL {
            self.attend_piece::<K, R>(head, queries, see, mixed, tile, tile_keys);
            return;
        }
        // A tile can begin before the queries that have scores, and end after them.
        let mut from = 0;
        while from < queries.rows {
            let left = queries.rows - from;
            let query = see.first + from;
            let edges = [self.queries.start, self.queries.end];
            let count = edges.iter().filter_map(|edge| edge.checked_sub(query));
            let count = count.filter(|&count| count > 0).fold(left, usize::min);
            let piece = Matrix {
                data: queries.data.get(from * queries.row_stride..).unwrap_or(&[]),
                rows: count,
                ..queries
            };
            let mut mixed = MatrixMut {
                data: mixed.data.get_mut(from * mixed.row_stride..).unwrap_or_default(),
                rows: count,
                ..*mixed
            };
            let see = Queries { first: query, ..*see };
            self.attend_piece::<K, R>(head, piece, &see, &mut mixed, tile, tile_keys);
            from += count;
        }
    }

    /// The same for queries of which all or none have scores.
    fn attend_piece<K: Kernel, R: Rules>(
        &mut self,
        head: &Head<'_>,
        queries: Matrix<'_>,
        see: &Queries<'_, R>,
        mixed: &mut MatrixMut<'_>,
        tile: &mut TileParts<'_>,
        tile_keys: usize,
    ) {
        let (rows, columns) = (queries.rows, self.columns);
        let place = match self.select {
            Select::All => Some(see.head),
            Select::Head(head) => (head == see.head).then_some(0),
            Select::Mean => Some(0),
        };
        let place = place.filter(|_| self.queries.contains(&see.first));
        let scores = self.data.as_deref_mut().zip(place).and_then(|(scores, place)| {
            let at = (place * width(&self.queries) + see.first - self.queries.start) * columns;
            scores.get_mut(at..at + rows * columns).filter(|scores| !scores.is_empty())
        });
        let mean = self.select == Select::Mean;
        if R::OPTIONAL && (mean || columns != see.kv_len) {
            attend::<K, R>(head, queries, see, mixed, tile, tile_keys, None);
            if let Some(scores) = scores {
                if !mean || see.head == 0 {
                    scores.fill(0.0);
                }
                let factor = if mean { 1.0 / see.heads as f32 } else { 1.0 };
                add_scores::<K, R>(head, queries, see, tile, tile_keys, scores, factor);
            }
        } else {
            let scores = scores.map(|scores| (scores, self.at));
            attend::<K, R>(head, queries, see, mixed, tile, tile_keys, scores);
        }
    }
}
