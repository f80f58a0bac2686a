//! Where the scores of a call go: all of them, one head's, or their mean.

use crate::attention::{add_scores, attend};
use crate::call::{Inputs, ScoresAt};
use crate::kernel::{Kernel, Matrix, MatrixMut};
use crate::options::{Rules, Select};
use crate::plan::{TileParts, take};
use crate::store::Head;
use crate::visible::Queries;

/// The scores of a call, of which sequences are cut off one after another.
pub(crate) struct ScoresRest<'a> {
    rest: Option<&'a mut [f32]>,
    at: ScoresAt,
    select: Select,
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
        let select = inputs.rules.options().map_or(Select::All, |options| options.scores);
        Self { rest, at, select, heads: select.heads(heads), columns }
    }

    /// The scores of the next sequence, of which there are `queries` queries.
    pub(crate) fn take(&mut self, queries: usize) -> Scores<'a> {
        let Self { at, select, columns, .. } = *self;
        let len = self.heads * queries * columns;
        let data = self.rest.as_mut().map(|rest| take(rest, len));
        Scores { data, at, select, columns, queries }
    }
}

/// The scores of the queries of one sequence, `[heads, queries, columns]`.
pub(crate) struct Scores<'a> {
    data: Option<&'a mut [f32]>,
    at: ScoresAt,
    select: Select,
    columns: usize,
    queries: usize,
}

impl Scores<'_> {
    /// [`attend`] for one tile of one head, with the scores where they belong; `row` is the tile's
    /// first among the sequence's queries.
    pub(crate) fn attend<K: Kernel, R: Rules>(
        &mut self,
        head: &Head<'_>,
        queries: Matrix<'_>,
        see: &Queries<'_, R>,
        mixed: &mut MatrixMut<'_>,
        tile: &mut TileParts<'_>,
        tile_keys: usize,
        row: usize,
    ) {
        let (rows, columns) = (queries.rows, self.columns);
        let place = match self.select {
            Select::All => Some(see.head),
            Select::Head(head) => (head == see.head).then_some(0),
            Select::Mean => Some(0),
        };
        let scores = self.data.as_deref_mut().zip(place).and_then(|(scores, place)| {
            let at = (place * self.queries + row) * columns;
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
