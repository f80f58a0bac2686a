//! Where the scores of a call go: all of them, those of one head or of some queries, or their mean.

use core::ops::Range;

use crate::attention::{add_scores, attend};
use crate::call::{Inputs, ScoresAt};
use crate::kernel::{Kernel, Matrix, MatrixMut};
use crate::options::Rules;
use crate::plan::{TileParts, take};
use crate::select::{Select, scored};
use crate::store::Head;
use crate::visible::Queries;

/// The scores of a call, of which sequences are cut off one after another.
pub(crate) struct ScoresRest<'a> {
    rest: Option<&'a mut [f32]>,
    at: ScoresAt,
    select: Select,
    /// First and one past the last query of a sequence that has scores; `None`: all.
    chosen: Option<[usize; 2]>,
    heads: usize,
    /// The last axis: keys, or positions that a cache has stored.
    columns: usize,
}

impl<'a> ScoresRest<'a> {
    pub(crate) fn new<R: Rules>(
        rest: Option<&'a mut [f32]>,
        at: ScoresAt,
        inputs: &Inputs<'_, R>,
        heads: usize,
        columns: usize,
    ) -> Self {
        let options = inputs.rules.options();
        let select = options.map_or(Select::All, |options| options.scores);
        let chosen = options.and_then(|options| options.score_queries);
        Self { rest, at, select, chosen, heads: select.heads(heads), columns }
    }

    /// The scores of the next sequence, of which the queries `queries` are asked.
    pub(crate) fn take(&mut self, queries: &Range<usize>) -> Scores<'a> {
        let Self { at, select, columns, .. } = *self;
        let queries = scored(queries, self.chosen);
        let len = self.heads * queries.len() * columns;
        let data = self.rest.as_mut().map(|rest| take(rest, len));
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
            let at = (place * self.queries.len() + see.first - self.queries.start) * columns;
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
