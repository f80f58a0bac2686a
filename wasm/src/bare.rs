//! Attention without projections, and merging.

use mha::Attention;

use crate::cache::Store;
use crate::call::{Arrays, Call};
use crate::door::doors;
use crate::failure::Failure;

doors! {
    /// Makes room for [`call_attend`].
    fn call_reserve[call: Call](
        heads: usize, kv_heads: usize, qk: usize, v: usize, scale: Option<f32>
    ) -> i32 = Call::reserve;
    /// Attention without projections.
    fn call_attend[call: Call](
        heads: usize, kv_heads: usize, qk: usize, v: usize, scale: Option<f32>
    ) -> i32 = Call::attend;
    /// Makes room for [`call_attend_scores`].
    fn call_reserve_scores[call: Call](
        heads: usize, kv_heads: usize, qk: usize, scale: Option<f32>
    ) -> i32 = Call::reserve_scores;
    /// The scores of attention alone.
    fn call_attend_scores[call: Call](
        heads: usize, kv_heads: usize, qk: usize, scale: Option<f32>
    ) -> i32 = Call::attend_scores;
    /// Makes room for [`call_attend_cached`].
    fn call_reserve_cached[call: Call, store: Store](
        heads: usize, kv_heads: usize, qk: usize, v: usize, scale: Option<f32>
    ) -> i32 = Call::reserve_cached;
    /// Attention without projections over a cache.
    fn call_attend_cached[call: Call, store: Store](
        heads: usize, kv_heads: usize, qk: usize, v: usize, scale: Option<f32>
    ) -> i32 = Call::attend_cached;
    /// Merges: q is y, k its log-sum-exps, v the other y, the bias the other log-sum-exps. The results stand
    /// where q and k stood.
    fn call_merge[call: Call](heads: usize, v: usize) -> i32 = Call::merge;
}

impl Call {
    /// Makes room for [`Call::attend`].
    pub(crate) fn reserve(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
    ) -> i32 {
        let attention = bare(heads, kv_heads, qk, v, scale);
        let shape = self.shape();
        let scores = self.scores_of_shape(&attention, shape);
        let y = shape.batch.saturating_mul(shape.q_len).saturating_mul(v);
        self.make_room(y, scores, attention.scratch_len(shape))
    }

    /// Attention without projections.
    pub(crate) fn attend(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
    ) -> i32 {
        let (attention, isa) = (bare(heads, kv_heads, qk, v, scale), self.isa);
        self.run(|shape, inputs, arrays| {
            let (outputs, scratch) = arrays.outputs();
            mha::dot_product_attention(attention, isa, shape, inputs, outputs, scratch)
        })
    }

    /// Makes room for [`Call::attend_scores`].
    pub(crate) fn reserve_scores(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        scale: Option<f32>,
    ) -> i32 {
        // What values there were would be as wide as the keys; they take no room.
        let attention = bare(heads, kv_heads, qk, qk, scale);
        let shape = self.shape();
        let scores = self.scores_of_shape(&attention, shape);
        self.make_room(0, scores, attention.scratch_len(shape))
    }

    /// The scores of attention alone.
    pub(crate) fn attend_scores(
        &mut self,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        scale: Option<f32>,
    ) -> i32 {
        let (attention, isa) = (bare(heads, kv_heads, qk, qk, scale), self.isa);
        self.run(|shape, inputs, Arrays { scores, scratch, .. }| {
            let scores = scores.unwrap_or_default();
            mha::dot_product_attention_scores(attention, isa, shape, inputs, scores, scratch)
        })
    }

    /// Makes room for [`Call::attend_cached`].
    pub(crate) fn reserve_cached(
        &mut self,
        store: &Store,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
    ) -> i32 {
        let attention = bare(heads, kv_heads, qk, v, scale);
        let stored = self.over(store);
        let y = stored.batch.saturating_mul(stored.q_len).saturating_mul(v);
        let scores = self.scores_of_shape(&attention, stored);
        self.make_room(y, scores, attention.scratch_len(stored))
    }

    /// Attention without projections over a cache.
    pub(crate) fn attend_cached(
        &mut self,
        store: &Store,
        heads: usize,
        kv_heads: usize,
        qk: usize,
        v: usize,
        scale: Option<f32>,
    ) -> i32 {
        let (attention, isa) = (bare(heads, kv_heads, qk, v, scale), self.isa);
        self.run(|shape, inputs, arrays| {
            let (cache, (outputs, scratch)) = (store.view()?, arrays.outputs());
            let q_len = shape.q_len;
            mha::dot_product_attention_cached(
                attention, isa, &cache, q_len, inputs, outputs, scratch,
            )
        })
    }

    /// Merges: q is y, k its log-sum-exps, v the other y, the bias the other log-sum-exps. The results
    /// stand where q and k stood.
    pub(crate) fn merge(&mut self, heads: usize, v: usize) -> i32 {
        let [q, k, other_y, other_lse, ..] = self.parts;
        let mut rest = self.floats.as_mut_slice();
        let [y, lse, other_y, other_lse] = [q, k, other_y, other_lse].map(|len| {
            let (part, left) =
                core::mem::take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
            rest = left;
            part
        });
        let attention = Attention::new(heads, heads, v);
        let result = mha::merge(&attention, y, lse, other_y, other_lse).map_err(Failure::from);
        self.problem.settle(result)
    }
}

/// Attention without projections.
pub(crate) fn bare(
    heads: usize,
    kv_heads: usize,
    qk: usize,
    v: usize,
    scale: Option<f32>,
) -> Attention {
    Attention { scale, ..Attention::new(heads, qk, v).kv_heads(kv_heads) }
}
