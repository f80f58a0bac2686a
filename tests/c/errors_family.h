/* What errors.c does for the functions of the attention family: a good call of each, and the defects
   that only they can have. */
#ifndef ERRORS_FAMILY_H
#define ERRORS_FAMILY_H

/* Positions in the cache, and those that an append brings. */
enum { HELD = 4, BROUGHT = 3 };

/* The functions that take a layer. */
#define WITH_LAYER                                                                                \
    (1 << FORWARD | 1 << FORWARD_ROWS | 1 << FORWARD_WITH | 1 << ROWS_WITH | 1 << PACKED | 1 << APPEND \
     | 1 << ATTEND)
#define CACHED (1 << ATTEND | 1 << ATTENTION_CACHED)
#define OPTIONED (1 << FORWARD_WITH | 1 << ROWS_WITH | 1 << ATTENTION_WITH | 1 << SCORES_WITH | CACHED)
#define WITH_VALUES (OPTIONED & ~(1 << SCORES_WITH))
#define APPENDING (1 << APPEND | 1 << CACHE_APPEND)
#define CHANGING (APPENDING | 1 << CACHE_RESET | 1 << CACHE_ROLLBACK)
#define WITH_CACHE (CHANGING | CACHED | 1 << CACHE_CHECK)
/* Options that change keys have no place where keys are read as they lie. */
#define TRANSFORMING (1 << FORWARD_WITH | 1 << ROWS_WITH | 1 << PACKED | APPENDING | CACHED)
#define READING_KEYS (1 << ATTENTION_WITH | 1 << SCORES_WITH)

/* The arguments of a good call. The options are all of those that every function takes. */
static void restore_family(struct memory *m, struct call *c, enum function function)
{
    const int transforming = (TRANSFORMING >> function & 1) != 0;
    const int packed = function == PACKED, cached = (CACHED >> function & 1) != 0;
    const size_t kv = cached ? HELD : KV;
    for (size_t i = 0; i < BATCH + 1; ++i) {
        m->q_starts[i] = i * Q;
        m->kv_starts[i] = i * KV;
    }
    for (size_t i = 0; i < MHA_COUNT(m->lens); ++i) m->lens[i] = 2;
    for (size_t i = 0; i < MHA_COUNT(m->q_segments); ++i) m->q_segments[i] = 0;
    for (size_t i = 0; i < MHA_COUNT(m->kv_segments); ++i) m->kv_segments[i] = 0;
    c->q_starts = m->q_starts;
    c->kv_starts = m->kv_starts;
    c->sequences = BATCH;
    c->new_k = (mha_slice){ m->k + 1, BATCH * BROUGHT * (function == APPEND ? K_IN : QK) };
    c->new_v = (mha_slice){ m->v + 1, BATCH * BROUGHT * (function == APPEND ? V_IN : V) };
    m->cache = (mha_cache){
        .attention = c->attention,
        .config = { .batch = BATCH, .capacity = KV },
        .keys = { m->keys + 1, MHA_COUNT(m->keys) - 2 },
        .values = { m->values + 1, MHA_COUNT(m->values) - 2 },
        .state = { .len = HELD },
    };
    c->cache_at = &m->cache;
    c->rollback = HELD - 1;
    c->merge_rows = Q;
    c->merge_y = m->merge_y + 1;
    c->merge_lse = m->merge_lse + 1;
    c->other_y = m->other_y + 1;
    c->other_lse = m->other_lse + 1;
    c->options = (mha_options){
        .window = { .has_left = 1, .left = 5 },
        .alibi = { .kind = MHA_ALIBI_KIND_SLOPES, .slopes = { m->slopes + 1, HEADS } },
        .sinks = { m->sinks + 1, HEADS },
        .extra = { { m->extra_k + 1, QK }, { m->extra_v + 1, V } },
        .softcap = 3.0f,
    };
    if (function == SCORES_WITH) c->options.extra.v = (mha_slice){ 0 };
    if (!packed) {
        c->options.lens = m->lens + 1;
        c->options.lens_len = BATCH;
        c->options.segments = (mha_segments){ m->q_segments + 1, BATCH * Q, m->kv_segments + 1,
                                              BATCH * kv };
        c->options.lse = (mha_slice_mut){ m->lse + 1, BATCH * HEADS * Q };
    }
    if (transforming) {
        c->options.norm = (mha_norm){ MHA_NORM_KIND_RMS, 0.5f, { m->q_gain + 1, QK / HEADS },
                                      { m->k_gain + 1, QK / HEADS } };
        c->options.rope = (mha_rope){ .kind = MHA_ROPE_KIND_TABLE, .dims = 4,
                                      .cos = { m->cos + 1, 2 * ANGLES },
                                      .sin = { m->sin + 1, 2 * ANGLES } };
    }
    c->options_at = &c->options;
    if (packed || cached) {
        c->inputs.mask = (mha_mask){ 0 };
        c->inputs.bias = (mha_bias){ 0 };
        c->inputs.causal = (mha_causal){ .mode = MHA_CAUSAL_MODE_NATURAL };
    }
    if (packed) c->outputs.scores = (mha_slice_mut){ m->scores + 1, BATCH * HEADS * Q * KV };
    if (cached) c->outputs.scores.len = BATCH * HEADS * Q * HELD;
}

static mha_status run_family(const struct call *c, enum function function)
{
    switch (function) {
    case FORWARD_WITH:
        return mha_forward_with(c->layer_at, c->shape, c->inputs_at, c->options_at, c->outputs_at,
                                c->scratch.data, c->scratch.len);
    case ROWS_WITH:
        return mha_forward_rows_with(c->layer_at, c->shape, c->rows_start, c->rows_end, c->inputs_at,
                                     c->options_at, c->outputs_at, c->scratch.data, c->scratch.len);
    case PACKED:
        return mha_forward_packed(c->layer_at, c->sequences, c->q_starts, c->kv_starts, c->inputs_at,
                                  c->options_at, c->outputs_at, c->scratch.data, c->scratch.len);
    case ATTENTION_WITH:
        return mha_dot_product_attention_with(c->attention_at, c->isa, c->shape, c->inputs_at,
                                              c->options_at, c->outputs_at, c->scratch.data,
                                              c->scratch.len);
    case SCORES_WITH:
        return mha_dot_product_attention_scores_with(
            c->attention_at, c->isa, c->shape, c->inputs_at, c->options_at, c->outputs.scores.data,
            c->outputs.scores.len, c->scratch.data, c->scratch.len);
    case APPEND:
        return mha_append(c->layer_at, c->cache_at, c->new_k.data, c->new_k.len, c->new_v.data,
                          c->new_v.len, c->options_at);
    case CACHE_APPEND:
        return mha_cache_append(c->cache_at, c->new_k.data, c->new_k.len, c->new_v.data, c->new_v.len,
                                c->options_at);
    case ATTEND:
        return mha_attend(c->layer_at, c->cache_at, c->shape.q_len, c->inputs_at, c->options_at,
                          c->outputs_at, c->scratch.data, c->scratch.len);
    case ATTENTION_CACHED:
        return mha_dot_product_attention_cached(c->attention_at, c->isa, c->cache_at, c->shape.q_len,
                                                c->inputs_at, c->options_at, c->outputs_at,
                                                c->scratch.data, c->scratch.len);
    case CACHE_CHECK: return mha_cache_check(c->cache_at);
    case CACHE_RESET: return mha_cache_reset(c->cache_at);
    case CACHE_ROLLBACK: return mha_cache_rollback(c->cache_at, c->rollback);
    case MERGE:
        return mha_merge(c->attention_at, c->merge_rows, c->merge_y, c->merge_lse, c->other_y,
                         c->other_lse);
    default: return -1;
    }
}

/* A change of the cache is no write of the library's. */
#define OF_CACHE(change) (memory.cache.change, before = memory)

/* A slice of the options: absent data, misaligned, too large, and of other lengths. */
#define SLICE_ROWS(X, functions, argument, slice, type)                                               \
    X(functions, NULL, argument, slice.data = NULL)                                                   \
    X(functions, MISALIGNED, argument, slice.data = OFF_BY_ONE(type, slice.data))                     \
    X(functions, TOO_LARGE, argument, slice.len = HUGE_SIZE)

/* functions, kind, argument, defect */
#define FAMILY_ROWS(X)                                                                                \
    X(1 << FORWARD_WITH | 1 << ATTEND, MISALIGNED, OPTIONS,                                           \
      c->options_at = OFF_BY_ONE(const mha_options *, c->options_at))                                 \
    X(CONFIGS, VALUE, KV_HEADS, c->layer.config.kv_heads = 3)                                         \
    X(ATTENTIONS, VALUE, KV_HEADS, c->attention.kv_heads = 3)                                         \
    X(OPTIONED, VALUE, SOFTCAP, c->options.softcap = -1.0f)                                           \
    X(OPTIONED, VALUE, SOFTCAP, c->options.softcap = INFINITY)                                        \
    X(OPTIONED, VALUE, ALIBI, c->options.alibi.kind = 3)                                              \
    X(OPTIONED, LENGTH, ALIBI, c->options.alibi.slopes.len = HEADS + 1)                               \
    SLICE_ROWS(X, OPTIONED, ALIBI, c->options.alibi.slopes, const float *)                            \
    X(OPTIONED, LENGTH, SINKS, c->options.sinks.len = HEADS - 1)                                      \
    SLICE_ROWS(X, OPTIONED, SINKS, c->options.sinks, const float *)                                   \
    X(OPTIONED, LENGTH, EXTRA, c->options.extra.k.len = QK - 1)                                       \
    X(WITH_VALUES, LENGTH, EXTRA, c->options.extra.v.len = V + 1)                                     \
    SLICE_ROWS(X, WITH_VALUES, EXTRA, c->options.extra.v, const float *)                              \
    X(OPTIONED, LENGTH, LENS, c->options.lens_len = BATCH - 1)                                        \
    X(OPTIONED, RANGE, LENS, (memory.lens[1] = KV + 1, before = memory))                              \
    X(OPTIONED, NULL, LENS, c->options.lens = NULL)                                                   \
    X(OPTIONED, MISALIGNED, LENS, c->options.lens = OFF_BY_ONE(const size_t *, c->options.lens))      \
    X(OPTIONED, TOO_LARGE, LENS, c->options.lens_len = HUGE_SIZE)                                     \
    X(OPTIONED, LENGTH, SEGMENTS, c->options.segments.q_len -= 1)                                     \
    X(OPTIONED, LENGTH, SEGMENTS, c->options.segments.kv_len += 1)                                    \
    X(OPTIONED, NULL, SEGMENTS, c->options.segments.kv = NULL)                                        \
    X(OPTIONED, MISALIGNED, SEGMENTS,                                                                 \
      c->options.segments.q = OFF_BY_ONE(const uint32_t *, c->options.segments.q))                    \
    X(OPTIONED, TOO_LARGE, SEGMENTS, c->options.segments.q_len = HUGE_SIZE)                           \
    X(OPTIONED, LENGTH, LSE, c->options.lse.len -= 1)                                                 \
    X(OPTIONED, OVERLAP, LSE, c->options.lse.data = memory.sinks + 1)                                 \
    SLICE_ROWS(X, OPTIONED, LSE, c->options.lse, float *)                                             \
    X(TRANSFORMING, VALUE, NORM, c->options.norm.kind = 3)                                            \
    X(TRANSFORMING, VALUE, NORM, c->options.norm.epsilon = -1.0f)                                     \
    X(TRANSFORMING, LENGTH, NORM, c->options.norm.k_gain.len -= 1)                                    \
    SLICE_ROWS(X, TRANSFORMING, NORM, c->options.norm.k_gain, const float *)                          \
    X(TRANSFORMING, VALUE, ROPE, c->options.rope.kind = 3)                                            \
    X(TRANSFORMING, VALUE, ROPE, c->options.rope.dims = 3)                                            \
    X(TRANSFORMING, VALUE, ROPE, c->options.rope.dims = 6)                                            \
    X(TRANSFORMING, VALUE, ROPE, c->options.rope.sin.len -= 1)                                        \
    X(TRANSFORMING, RANGE, ROPE, (c->options.rope.cos.len = 2, c->options.rope.sin.len = 2))          \
    X(TRANSFORMING, VALUE, ROPE, (c->options.rope.kind = MHA_ROPE_KIND_BASE,                          \
                                  c->options.rope.base = 0.0f))                                       \
    SLICE_ROWS(X, TRANSFORMING, ROPE, c->options.rope.cos, const float *)                             \
    X(READING_KEYS, CONFLICT, ROPE, (c->options.rope.kind = MHA_ROPE_KIND_BASE,                       \
                                     c->options.rope.base = 10000.0f))                                \
    X(READING_KEYS, CONFLICT, NORM, c->options.norm.kind = MHA_NORM_KIND_L2)                          \
    X(OPTIONED, VALUE, SCORES, c->options.scores = 3)                                                 \
    X(OPTIONED, RANGE, SCORES, (c->options.scores = MHA_SELECT_HEAD, c->options.score_head = HEADS))  \
    X(OPTIONED, RANGE, SCORES, c->options.score_queries_end = Q + 1)                                  \
    X(OPTIONED, RANGE, SCORES, (c->options.score_queries_start = 2, c->options.score_queries_end = 1)) \
    X(1 << FORWARD_WITH | 1 << ATTENTION_WITH, CONFLICT, SCORES_AT,                                   \
      (c->options.scores = MHA_SELECT_MEAN, c->outputs.scores_at = MHA_SCORES_AT_LOGITS))             \
    X(1 << PACKED, NULL, ROWS, c->q_starts = NULL)                                                    \
    X(1 << PACKED, MISALIGNED, ROWS, c->kv_starts = OFF_BY_ONE(const size_t *, c->kv_starts))         \
    X(1 << PACKED, TOO_LARGE, ROWS, c->sequences = SIZE_MAX)                                          \
    X(1 << PACKED, RANGE, ROWS, (memory.q_starts[1] = BATCH * Q + 1, before = memory))                \
    X(1 << PACKED, CONFLICT, ROWS, (c->inputs.mask.data = memory.mask, c->inputs.mask.len = 1))       \
    X(1 << PACKED, CONFLICT, ROWS, (c->options.lens = memory.lens, c->options.lens_len = 1))          \
    X(WITH_CACHE, NULL, CACHE, c->cache_at = NULL)                                                    \
    X(WITH_CACHE, MISALIGNED, CACHE, c->cache_at = OFF_BY_ONE(mha_cache *, c->cache_at))              \
    X(WITH_CACHE, NULL, CACHE, OF_CACHE(keys.data = NULL))                                            \
    X(WITH_CACHE, MISALIGNED, CACHE,                                                                  \
      OF_CACHE(values.data = OFF_BY_ONE(float *, memory.cache.values.data)))                          \
    X(WITH_CACHE, TOO_LARGE, CACHE, OF_CACHE(keys.len = HUGE_SIZE))                                   \
    X(WITH_CACHE, LENGTH, CACHE, OF_CACHE(keys.len -= 1))                                             \
    X(WITH_CACHE, LENGTH, CACHE, OF_CACHE(values.len += 1))                                           \
    X(WITH_CACHE, LENGTH, CACHE, OF_CACHE(config.capacity -= 1))                                      \
    X(WITH_CACHE, VALUE, CACHE, OF_CACHE(config.pinned = 16))                                         \
    X(WITH_CACHE, VALUE, CACHE, OF_CACHE(config.ring = 1))                                            \
    X(WITH_CACHE & ~(1 << CACHE_RESET), RANGE, CACHE, OF_CACHE(state.len = KV + 1))                   \
    X(WITH_CACHE & ~(1 << CACHE_RESET), RANGE, CACHE, OF_CACHE(state.oldest = 1))                     \
    X(1 << CACHE_ROLLBACK, RANGE, CACHE, c->rollback = HELD + 1)                                      \
    X(1 << APPEND | CACHED, VALUE, CACHE, OF_CACHE(attention.heads = 1))                              \
    X(APPENDING, CACHE_FULL, CACHE, OF_CACHE(state.len = KV - BROUGHT + 1))                           \
    X(APPENDING, LENGTH, K, c->new_k.len -= 1)                                                        \
    X(APPENDING, LENGTH, V, c->new_v.len += 1)                                                        \
    X(APPENDING, NULL, K, c->new_k.data = NULL)                                                       \
    X(APPENDING, OVERLAP, CACHE, c->new_k.data = memory.keys + 1)                                     \
    X(CHANGING, OVERLAP, CACHE, OF_CACHE(values.data = memory.keys + 1))                              \
    X(1 << MERGE, NULL, Y, c->merge_y = NULL)                                                         \
    X(1 << MERGE, MISALIGNED, LSE, c->other_lse = OFF_BY_ONE(const float *, c->other_lse))            \
    X(1 << MERGE, OVERLAP, Y, c->other_y = c->merge_y)                                                \
    X(1 << MERGE, OVERLAP, LSE, c->other_lse = c->merge_lse)                                          \
    X(1 << MERGE, TOO_LARGE, Y, c->merge_rows = HUGE_SIZE)

#endif
