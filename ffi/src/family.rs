//! Attention with options: functions of their own, so that a program that calls none of them does not
//! contain their code.

use core::ops::Range;

use crate::buffer::{Buffer, Written};
use crate::cache::{Changed, mha_cache, positions};
use crate::call::Open;
use crate::convert::{Given, Values, read};
use crate::isa::isa;
use crate::options::mha_options;
use crate::status::{Fault, mha_argument as A, mha_kind as K, mha_status, status};
use crate::types::*;

/// Computes a layer as `mha_forward` does, with options.
///
/// @param layer as in `mha_forward`.
/// @param shape as in `mha_forward`.
/// @param inputs as in `mha_forward`.
/// @param options read during the call only, with everything it points to. NULL: none.
/// @param outputs as in `mha_forward`; `options->scores` says which scores, and so their length.
/// @param scratch as in `mha_forward`: options take none.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward` returns; MISALIGNED (options); VALUE (softcap, alibi, rope, norm,
/// scores); LENGTH, NULL, MISALIGNED or TOO_LARGE (lens, alibi, rope, sinks, norm, segments, extra,
/// lse); RANGE (lens, scores, rope); CONFLICT (scores_at) for the mean of scores that are not probabilities;
/// OVERLAP (lse). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_forward_with(
    layer: *const mha_layer,
    shape: mha_shape,
    inputs: *const mha_inputs,
    options: *const mha_options,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    // SAFETY: this function's contract is that one's.
    status(unsafe { forward(layer, shape, None, inputs, options, outputs, scratch, scratch_len) })
}

/// Computes some rows of a layer as `mha_forward_rows` does, with options.
///
/// @param layer as in `mha_forward`.
/// @param shape that of the whole call.
/// @param rows_start the first row.
/// @param rows_end one past the last row.
/// @param inputs those of the whole call.
/// @param options those of the whole call; lse is that of the whole call, of which the rows' places
/// are written: two calls at the same time must not be given the same. NULL: none.
/// @param outputs as in `mha_forward_rows`.
/// @param scratch as in `mha_forward`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward_with` returns, and RANGE (rows). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_forward_rows_with(
    layer: *const mha_layer,
    shape: mha_shape,
    rows_start: usize,
    rows_end: usize,
    inputs: *const mha_inputs,
    options: *const mha_options,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let rows = Some(rows_start..rows_end);
    // SAFETY: this function's contract is that one's.
    status(unsafe { forward(layer, shape, rows, inputs, options, outputs, scratch, scratch_len) })
}

/// A layer with options, whole or some rows.
///
/// # Safety
/// The contract of `mha_forward`: every pointer that passes the checks is good for its length, and
/// what is written is nobody else's during the call.
unsafe fn forward(
    layer: *const mha_layer,
    shape: mha_shape,
    rows: Option<Range<usize>>,
    inputs: *const mha_inputs,
    options: *const mha_options,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> Result<(), Fault> {
    // SAFETY: the caller's promise, in every block below. Slices to be written are made last.
    let given = unsafe { Given::new(options)? };
    // SAFETY: as above.
    let open = unsafe { Open::new(inputs, outputs, scratch, scratch_len, Some(&given.lse))? };
    // SAFETY: as above.
    let layer = unsafe { read(layer, A::Layer)?.get(&open.written)? };
    let shape = shape.get();
    let heads = layer.config().attention.heads;
    // SAFETY: as above.
    let inputs = unsafe { open.inputs(shape, heads, Values::Read)? };
    // SAFETY: as above.
    let options = unsafe { given.get(&open.written)? };
    // SAFETY: as above.
    let (outputs, scratch) = unsafe { open.written_to() };
    let rows = rows.unwrap_or(0..shape.batch.saturating_mul(shape.q_len));
    Ok(layer.forward_rows(shape, rows, inputs.options(&options), outputs, scratch)?)
}

/// Computes sequences of different lengths that lie one after another without padding.
///
/// Sequence i has the queries `q_starts[i]` up to, not including, `q_starts[i + 1]`, and likewise the
/// keys and values of `kv_starts`; elsewhere these arrays are called `cu_seqlens`. The causal rule
/// and the options apply to each sequence by itself.
///
/// @param layer as in `mha_forward`.
/// @param sequences how many there are.
/// @param q_starts `[sequences + 1]`, not falling; read during the call only.
/// @param kv_starts `[sequences + 1]`, not falling; read during the call only.
/// @param inputs q `[q_starts[sequences]][q_in]`, k and v `[kv_starts[sequences]][k_in]` and
/// `[v_in]`. What is given for each sequence of a batch has no place here: mask, bias, offsets.
/// @param options as in `mha_forward_with`, without lens, segments and lse. NULL: none.
/// @param outputs y `[queries][out]`; scores, if asked for, for each sequence in order
/// `[heads][its queries][its keys]`.
/// @param scratch as in `mha_forward`, for the longest sequence.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward_with` returns; NULL, MISALIGNED or TOO_LARGE (rows) of starts, RANGE
/// (rows) for starts that fall; CONFLICT (rows) for mask, bias, lens, segments, lse or offsets of
/// single sequences. Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_forward_packed(
    layer: *const mha_layer,
    sequences: usize,
    q_starts: *const usize,
    kv_starts: *const usize,
    inputs: *const mha_inputs,
    options: *const mha_options,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let packed = || {
        // SAFETY: this function's contract, in every block below; slices to be written are made
        // last.
        let given = unsafe { Given::new(options)? };
        // SAFETY: as above.
        let open = unsafe { Open::new(inputs, outputs, scratch, scratch_len, Some(&given.lse))? };
        // SAFETY: as above.
        let layer = unsafe { read(layer, A::Layer)?.get(&open.written)? };
        let count = sequences.checked_add(1).ok_or(Fault::new(K::TooLarge, A::Rows))?;
        // SAFETY: as above.
        let starts = |data| unsafe { open.written.read(data, count, A::Rows) };
        let (q_starts, kv_starts) = (starts(q_starts)?, starts(kv_starts)?);
        // Whether there are any keys decides what a key input that is left out means.
        let kv_len = kv_starts.last().copied().unwrap_or(0);
        let shape = mha_shape { batch: 1, q_len: 1, kv_len }.get();
        let heads = layer.config().attention.heads;
        // SAFETY: as above.
        let inputs = unsafe { open.inputs(shape, heads, Values::Read)? };
        // SAFETY: as above.
        let options = unsafe { given.get(&open.written)? };
        // SAFETY: as above.
        let (outputs, scratch) = unsafe { open.written_to() };
        let inputs = inputs.options(&options);
        Ok(layer.forward_packed(q_starts, kv_starts, inputs, outputs, scratch)?)
    };
    status(packed())
}

/// Projects keys and values and appends them to a cache. Appending n positions at once or one by one
/// leaves the same bits there.
///
/// @param layer as in `mha_forward`; its heads and widths must be those of the cache.
/// @param cache its arrays and state are written.
/// @param k keys, `[batch][n][k_in]`; n follows from the length. They may overlap nothing of the
/// cache, like everything else that is read.
/// @param k_len how many floats there are.
/// @param v values, `[batch][n][v_in]`. NULL, and `v_len` zero: the keys.
/// @param v_len how many floats there are.
/// @param options norm and rope, which change the keys on their way into the cache; the other
/// options belong to the attending and are not looked at. NULL: none.
///
/// It takes no scratch. Nothing else is read or written. Safe to call in interrupts, while nobody
/// else uses the cache.
///
/// @return MHA_OK; what `mha_layer_check` and `mha_cache_check` return; VALUE (cache) for a cache of
/// other heads or widths; the rest of `mha_cache_append`. Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_append(
    layer: *const mha_layer,
    cache: *mut mha_cache,
    k: *const f32,
    k_len: usize,
    v: *const f32,
    v_len: usize,
    options: *const mha_options,
) -> mha_status {
    let append = || {
        // SAFETY: this function's contract, in every block below: what passes the checks is there,
        // and the cache is nobody else's.
        let changed = unsafe { Changed::new(cache)? };
        // SAFETY: as above.
        let layer = unsafe { read(layer, A::Layer)?.get(&changed.written)? };
        // SAFETY: as above.
        let (k, v) = unsafe { positions(k, k_len, v, v_len, &changed.written)? };
        // SAFETY: as above.
        let options = unsafe { Given::new(options)?.for_keys(&changed.written)? };
        // SAFETY: as above.
        unsafe { changed.change(|cache| layer.append(cache, k, v, &options)) }
    };
    status(append())
}

/// Attends over a cache: queries are projected, keys and values are those that `mha_append` has left
/// there.
///
/// Where neither a causal rule nor `options->offset` says otherwise, the last query stands at the last
/// position, so a call with `MHA_CAUSAL` gives after each append what `mha_forward` gives for the
/// whole, bit for bit. Masks, biases and lens count keys by their positions, up to `cache->state.len`.
///
/// @param layer as in `mha_forward`.
/// @param cache read during the call only. Any number of calls may read one at the same time.
/// @param q_len queries of each sequence.
/// @param inputs q `[batch][q_len][q_in]`; k and v are not looked at; the rest as in `mha_forward`,
/// with kv_len being `cache->state.len`.
/// @param options as in `mha_forward_with`; norm and rope must be those of the appending. NULL: none.
/// @param outputs y `[batch][q_len][out]`; scores `[batch][heads][q_len][mha_cache_stored(cache)]`.
/// @param scratch working memory. `mha_cached_scratch_len` floats give full speed; less works down to
/// `mha_min_cached_scratch_len`, with the same bits, whatever the cache holds.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`, while nobody changes the cache.
///
/// @return what `mha_forward_with` and `mha_cache_check` return; VALUE (cache) for a cache of other
/// heads or widths; CONFLICT (scores_at) for scores that are not probabilities from a ring that has gone
/// round. Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_attend(
    layer: *const mha_layer,
    cache: *const mha_cache,
    q_len: usize,
    inputs: *const mha_inputs,
    options: *const mha_options,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let attend = || {
        // SAFETY: this function's contract, in every block below; slices to be written are made
        // last.
        let given = unsafe { Given::new(options)? };
        // SAFETY: as above.
        let open = unsafe { Open::new(inputs, outputs, scratch, scratch_len, Some(&given.lse))? };
        // SAFETY: as above.
        let layer = unsafe { read(layer, A::Layer)?.get(&open.written)? };
        // SAFETY: as above.
        let cache = unsafe { read(cache, A::Cache)?.view(&open.written)? };
        let shape = mha_shape { batch: cache.config().batch, q_len, kv_len: cache.len() }.get();
        let heads = layer.config().attention.heads;
        // SAFETY: as above.
        let inputs = unsafe { open.inputs(shape, heads, Values::Cached)? };
        // SAFETY: as above.
        let options = unsafe { given.get(&open.written)? };
        // SAFETY: as above.
        let (outputs, scratch) = unsafe { open.written_to() };
        Ok(layer.attend(&cache, q_len, inputs.options(&options), outputs, scratch)?)
    };
    status(attend())
}

/// Attention without projections as `mha_dot_product_attention` computes it, with options.
///
/// @param attention as in `mha_dot_product_attention`.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs as in `mha_dot_product_attention`; with grouped heads, k has kv_heads * qk / heads
/// features and v kv_heads * v / heads.
/// @param options as in `mha_forward_with`, without norm and rope: keys are read where they lie. A
/// cache has room for changed ones. NULL: none.
/// @param outputs as in `mha_dot_product_attention`; `options->scores` says which scores.
/// @param scratch as in `mha_dot_product_attention`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_dot_product_attention` returns; the rest of `mha_forward_with`; CONFLICT (rope,
/// norm). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_dot_product_attention_with(
    attention: *const mha_attention,
    isa: i32,
    shape: mha_shape,
    inputs: *const mha_inputs,
    options: *const mha_options,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let attend = || {
        // SAFETY: this function's contract, in every block below; slices to be written are made
        // last.
        let given = unsafe { Given::new(options)? };
        // SAFETY: as above.
        let open = unsafe { Open::new(inputs, outputs, scratch, scratch_len, Some(&given.lse))? };
        // SAFETY: as above.
        let attention = unsafe { read(attention, A::Attention)?.get() };
        let (shape, isa) = (shape.get(), self::isa(isa)?);
        // SAFETY: as above.
        let inputs = unsafe { open.inputs(shape, attention.heads, Values::Read)? };
        // SAFETY: as above.
        let options = unsafe { given.get(&open.written)? };
        // SAFETY: as above.
        let (outputs, scratch) = unsafe { open.written_to() };
        let inputs = inputs.options(&options);
        Ok(mha::dot_product_attention(attention, isa, shape, inputs, outputs, scratch)?)
    };
    status(attend())
}

/// The scores of attention alone as `mha_dot_product_attention_scores` computes them, with options.
///
/// @param attention as in `mha_dot_product_attention_scores`.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs as in `mha_dot_product_attention_with`, without v.
/// @param options as in `mha_dot_product_attention_with`. NULL: none.
/// @param scores filled in, `[batch][heads][q_len][kv_len]` or what `options->scores` makes of it; may
/// overlap nothing else.
/// @param scores_len how many floats there are.
/// @param scratch as in `mha_dot_product_attention`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_dot_product_attention_with` returns. Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_dot_product_attention_scores_with(
    attention: *const mha_attention,
    isa: i32,
    shape: mha_shape,
    inputs: *const mha_inputs,
    options: *const mha_options,
    scores: *mut f32,
    scores_len: usize,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let attend = || {
        // SAFETY: this function's contract, in every block below; slices to be written are made
        // last.
        let (attention, inputs, given) = unsafe {
            let attention = read(attention, A::Attention)?.get();
            (attention, read(inputs, A::Inputs)?, Given::new(options)?)
        };
        let (shape, isa) = (shape.get(), self::isa(isa)?);
        let scores = Buffer::new(scores, scores_len, A::Scores)?;
        let scratch = Buffer::new(scratch, scratch_len, A::Scratch)?;
        let mut written = Written::new(&Buffer::none(), &scores, &scratch)?;
        written.add(&given.lse, A::Lse)?;
        // SAFETY: as above.
        let inputs = unsafe { inputs.get(shape, attention.heads, Values::Ignored, &written)? };
        // SAFETY: as above.
        let options = unsafe { given.get(&written)? };
        // SAFETY: as above.
        let (scores, scratch) = unsafe { (scores.slice_mut(), scratch.slice_mut()) };
        let inputs = inputs.options(&options);
        Ok(mha::dot_product_attention_scores(attention, isa, shape, inputs, scores, scratch)?)
    };
    status(attend())
}

/// Attention without projections over a cache: `mha_attend` for queries that are projected already.
///
/// @param attention heads, widths and scale; heads and widths must be those of the cache.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param cache read during the call only, as in `mha_attend`.
/// @param q_len queries of each sequence.
/// @param inputs q `[batch][q_len][qk]`; the rest as in `mha_attend`.
/// @param options as in `mha_attend`. NULL: none.
/// @param outputs y `[batch][q_len][v]`; scores as in `mha_attend`.
/// @param scratch as in `mha_dot_product_attention`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_attend`.
///
/// @return what `mha_dot_product_attention` returns; the rest of `mha_attend`. Nothing has been
/// written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_dot_product_attention_cached(
    attention: *const mha_attention,
    isa: i32,
    cache: *const mha_cache,
    q_len: usize,
    inputs: *const mha_inputs,
    options: *const mha_options,
    outputs: *const mha_outputs,
    scratch: *mut f32,
    scratch_len: usize,
) -> mha_status {
    let attend = || {
        // SAFETY: this function's contract, in every block below; slices to be written are made
        // last.
        let given = unsafe { Given::new(options)? };
        // SAFETY: as above.
        let open = unsafe { Open::new(inputs, outputs, scratch, scratch_len, Some(&given.lse))? };
        // SAFETY: as above.
        let attention = unsafe { read(attention, A::Attention)?.get() };
        let isa = self::isa(isa)?;
        // SAFETY: as above.
        let cache = unsafe { read(cache, A::Cache)?.view(&open.written)? };
        let shape = mha_shape { batch: cache.config().batch, q_len, kv_len: cache.len() }.get();
        // SAFETY: as above.
        let inputs = unsafe { open.inputs(shape, attention.heads, Values::Cached)? };
        // SAFETY: as above.
        let options = unsafe { given.get(&open.written)? };
        // SAFETY: as above.
        let (outputs, scratch) = unsafe { open.written_to() };
        let inputs = inputs.options(&options);
        let (attention, cache) = (attention, &cache);
        Ok(mha::dot_product_attention_cached(
            attention, isa, cache, q_len, inputs, outputs, scratch,
        )?)
    };
    status(attend())
}

/// Merges the attention of one sequence over some keys with that over others into the attention over
/// all of them: two memories, two cores, a prefix that many share. Exact but for the rounding of two
/// products a value; pieces can be merged in any order.
///
/// @param attention read during the call only.
/// @param rows queries.
/// @param y attention without projections over some keys, `[rows][v]`; receives the result.
/// @param lse the log-sum-exps that belong to it (`mha_options.lse`), `[heads][rows]`; receives those
/// of the result.
/// @param other_y the attention over the other keys, `[rows][v]`.
/// @param other_lse the log-sum-exps that belong to it, `[heads][rows]`.
///
/// y and lse may overlap nothing else. Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; what `mha_attention_check` returns; NULL, MISALIGNED or TOO_LARGE (y, lse), OVERLAP
/// (y, lse). Nothing has been written then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mha_merge(
    attention: *const mha_attention,
    rows: usize,
    y: *mut f32,
    lse: *mut f32,
    other_y: *const f32,
    other_lse: *const f32,
) -> mha_status {
    let merge = || {
        // SAFETY: this function's contract, in every block below: what passes the checks is there.
        let attention = unsafe { read(attention, A::Attention)?.get() };
        attention.check()?;
        let (y_len, lse_len) =
            (rows.saturating_mul(attention.v), rows.saturating_mul(attention.heads));
        let (y, lse) = (Buffer::new(y, y_len, A::Y)?, Buffer::new(lse, lse_len, A::Lse)?);
        let mut written = Written::NOTHING;
        written.add(&y, A::Y)?;
        written.add(&lse, A::Lse)?;
        // SAFETY: as above.
        let other_y = unsafe { written.read(other_y, y_len, A::Y)? };
        // SAFETY: as above.
        let other_lse = unsafe { written.read(other_lse, lse_len, A::Lse)? };
        // SAFETY: as above, and both lie apart from all else.
        let (y, lse) = unsafe { (y.slice_mut(), lse.slice_mut()) };
        Ok(mha::merge(&attention, y, lse, other_y, other_lse)?)
    };
    status(merge())
}
