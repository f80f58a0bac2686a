/* Every status that the library can return, provoked. A row is a defect put into a good call, and
   the status that it must give; after each, everything that the call could have written has the bits
   it had before. The test fails where a status has no row: the library tells which there are, for
   they have a message of their own. */
#include <math.h>
#include <stdint.h>

#include "mha.h"
#include "test.h"

/* Every width and length another one, so that nothing fits by accident. */
enum { Q_IN = 6, K_IN = 5, V_IN = 7, QK = 8, V = 4, OUT = 3, HEADS = 2, BATCH = 2, Q = 3, KV = 9 };
/* Positions that a table of angles has: as many as a query may be said to stand at. */
enum { ANGLES = 4 * KV };

/* One more element at either end than a buffer needs: a length of one more must not make the test
   itself step outside of an array. */
#define ROOM(len) ((len) + 2)

/* All memory of a call, so that two calls can be compared byte for byte. */
struct memory {
    float q[ROOM(BATCH * Q * Q_IN)], k[ROOM(BATCH * KV * K_IN)], v[ROOM(BATCH * KV * V_IN)];
    float wq[ROOM(Q_IN * QK)], wk[ROOM(K_IN * QK)], wv[ROOM(V_IN * V)], wo[ROOM(V * OUT)];
    float bq[ROOM(QK)], bk[ROOM(QK)], bv[ROOM(V)], bo[ROOM(OUT)];
    float bias[ROOM(BATCH * HEADS * Q * KV)];
    float y[ROOM(BATCH * Q * OUT)], scores[ROOM(BATCH * HEADS * Q * KV)];
    float scratch[ROOM(MHA_SCRATCH_LEN_DIMS(QK, V, HEADS, Q, KV))];
    float flat[ROOM(Q_IN * QK + K_IN * QK + V_IN * V + V * OUT + 2 * QK + V + OUT)];
    float weight[ROOM(4 * 5)];
    ptrdiff_t offsets[ROOM(BATCH)];
    uint8_t mask[ROOM(BATCH * HEADS * Q * KV)];
    float keys[ROOM(MHA_CACHE_KEYS_LEN(QK, HEADS, HEADS, BATCH, KV))];
    float values[ROOM(MHA_CACHE_VALUES_LEN(V, HEADS, HEADS, BATCH, KV))];
    float lse[ROOM(BATCH * HEADS * Q)], slopes[ROOM(HEADS)], sinks[ROOM(HEADS)];
    float q_gain[ROOM(QK / HEADS)], k_gain[ROOM(QK / HEADS)];
    float cos[ROOM(2 * ANGLES)], sin[ROOM(2 * ANGLES)];
    float extra_k[ROOM(QK)], extra_v[ROOM(V)];
    float merge_y[ROOM(Q * V)], merge_lse[ROOM(HEADS * Q)];
    float other_y[ROOM(Q * V)], other_lse[ROOM(HEADS * Q)];
    size_t lens[ROOM(BATCH)], q_starts[BATCH + 1], kv_starts[BATCH + 1];
    uint32_t q_segments[ROOM(BATCH * Q)], kv_segments[ROOM(BATCH * KV)];
    mha_cache cache;
    mha_weights weights;
    mha_rng rng;
    float gain;
    mha_truncated_normal normal;
};
static struct memory memory, before;

enum function {
    FORWARD, FORWARD_ROWS, ATTENTION, SCORES, CONFIG_CHECK, ATTENTION_CHECK, LAYER_CHECK, FROM_FLAT,
    GLOROT_UNIFORM, GLOROT_NORMAL, KAIMING_UNIFORM, KAIMING_NORMAL, TRUNCATED_NORMAL, ORTHOGONAL,
    IDENTITY, ZEROS, ONES, FORWARD_WITH, ROWS_WITH, PACKED, ATTENTION_WITH, SCORES_WITH, APPEND,
    CACHE_APPEND, ATTEND, ATTENTION_CACHED, CACHE_CHECK, CACHE_RESET, CACHE_ROLLBACK, MERGE, FUNCTIONS
};
static const char *const names[FUNCTIONS] = {
    "forward", "forward_rows", "dot_product_attention", "dot_product_attention_scores",
    "config_check", "attention_check", "layer_check", "weights_from_flat", "glorot_uniform",
    "glorot_normal", "kaiming_uniform", "kaiming_normal", "truncated_normal", "orthogonal",
    "identity", "zeros", "ones", "forward_with", "forward_rows_with", "forward_packed",
    "dot_product_attention_with", "dot_product_attention_scores_with", "append", "cache_append",
    "attend", "dot_product_attention_cached", "cache_check", "cache_reset", "cache_rollback", "merge"
};

/* The arguments of every function. */
struct call {
    const mha_config *config_at;
    const mha_attention *attention_at;
    const mha_layer *layer_at;
    const mha_inputs *inputs_at;
    const mha_outputs *outputs_at;
    mha_weights *weights_at;
    mha_rng *rng_at;
    const float *gain_at;
    const mha_truncated_normal *normal_at;
    mha_layer layer;
    mha_attention attention;
    mha_shape shape;
    size_t rows_start, rows_end;
    mha_inputs inputs;
    mha_outputs outputs;
    mha_slice_mut scratch;
    mha_slice flat;
    mha_slice_mut weight;
    int32_t isa;
    const mha_options *options_at;
    mha_options options;
    mha_cache *cache_at;
    size_t sequences;
    const size_t *q_starts, *kv_starts;
    mha_slice new_k, new_v;
    size_t rollback, merge_rows;
    float *merge_y, *merge_lse;
    const float *other_y, *other_lse;
};
static struct call call;

#include "errors_family.h"

/* A good call of any function, all memory filled with a pattern. */
static void restore(enum function function)
{
    struct memory *m = &memory;
    unsigned char *bytes = (unsigned char *)m;
    for (size_t i = 0; i < sizeof *m; ++i) bytes[i] = (unsigned char)(i * 7 + 3) & 0x3f;
    for (size_t i = 0; i < MHA_COUNT(m->offsets); ++i) m->offsets[i] = KV;
    m->gain = 2.0f;
    m->normal = (mha_truncated_normal){ 0.0f, 1.0f, -1.0f, 1.0f };

    memset(&call, 0, sizeof call);
    struct call *c = &call;
    c->layer = (mha_layer){
        .config = { .dims = { Q_IN, K_IN, V_IN, QK, V, OUT }, .heads = HEADS, .has_scale = 1,
                    .scale = 0.5f },
        .weights = { { m->wq + 1, Q_IN * QK }, { m->wk + 1, K_IN * QK }, { m->wv + 1, V_IN * V },
                     { m->wo + 1, V * OUT }, { m->bq + 1, QK }, { m->bk + 1, QK }, { m->bv + 1, V },
                     { m->bo + 1, OUT } },
    };
    c->attention = (mha_attention){ HEADS, QK, V, 1, 0.5f, 0 };
    c->shape = (mha_shape){ BATCH, Q, KV };
    c->rows_start = 0;
    c->rows_end = BATCH * Q;
    const int projected = (WITH_LAYER >> function & 1) != 0;
    const size_t q = projected ? Q_IN : QK, k = projected ? K_IN : QK, v = projected ? V_IN : V;
    /* The inputs of attention are wider than the arrays of that name: they lie in the larger. */
    static float wide_q[ROOM(BATCH * Q * QK)], wide_k[ROOM(BATCH * KV * QK)];
    c->inputs = (mha_inputs){
        .q = { (projected ? m->q : wide_q) + 1, BATCH * Q * q },
        .k = { (projected ? m->k : wide_k) + 1, BATCH * KV * k },
        .v = { m->v + 1, BATCH * KV * v },
        .bias = { m->bias + 1, BATCH * HEADS * Q * KV, { BATCH, HEADS, Q, KV } },
        .mask = { m->mask + 1, BATCH * HEADS * Q * KV, { BATCH, HEADS, Q, KV }, 0 },
        .causal = { MHA_CAUSAL_MODE_PER_SEQUENCE, 0, m->offsets + 1, BATCH },
        .dropout = { 0.25f, 1 },
    };
    c->outputs = (mha_outputs){
        .y = { m->y + 1, (size_t)BATCH * Q * (projected ? OUT : V) },
        .scores = { m->scores + 1, BATCH * HEADS * Q * KV },
    };
    /* The output of attention is wider than y: it lies in flat, which is not used there. */
    if (!projected) c->outputs.y.data = m->flat + 1;
    c->scratch = (mha_slice_mut){
        m->scratch + 1, projected ? MHA_SCRATCH_LEN_DIMS(QK, V, HEADS, Q, KV)
                                  : MHA_ATTENTION_SCRATCH_LEN(QK, V, HEADS, Q)
    };
    c->flat = (mha_slice){ m->flat + 1, MHA_COUNT(m->flat) - 2 };
    c->weight = (mha_slice_mut){ m->weight + 1, 4 * 5 };
    c->config_at = &c->layer.config;
    c->attention_at = &c->attention;
    c->layer_at = &c->layer;
    c->inputs_at = &c->inputs;
    c->outputs_at = &c->outputs;
    c->weights_at = &m->weights;
    c->rng_at = &m->rng;
    c->gain_at = &m->gain;
    c->normal_at = &m->normal;
    restore_family(m, c, function);
    before = memory;
}

static mha_status run(enum function function)
{
    const struct call *c = &call;
    float *w = c->weight.data;
    const size_t n = c->weight.len;
    switch (function) {
    case FORWARD:
        return mha_forward(c->layer_at, c->shape, c->inputs_at, c->outputs_at, c->scratch.data,
                           c->scratch.len);
    case FORWARD_ROWS:
        return mha_forward_rows(c->layer_at, c->shape, c->rows_start, c->rows_end, c->inputs_at,
                                c->outputs_at, c->scratch.data, c->scratch.len);
    case ATTENTION:
        return mha_dot_product_attention(c->attention_at, c->isa, c->shape, c->inputs_at,
                                         c->outputs_at, c->scratch.data, c->scratch.len);
    case SCORES:
        return mha_dot_product_attention_scores(
            c->attention_at, c->isa, c->shape, c->inputs_at, c->outputs.scores.data,
            c->outputs.scores.len, c->scratch.data, c->scratch.len);
    case CONFIG_CHECK: return mha_config_check(c->config_at);
    case ATTENTION_CHECK: return mha_attention_check(c->attention_at);
    case LAYER_CHECK: return mha_layer_check(c->layer_at);
    case FROM_FLAT:
        return mha_weights_from_flat(c->config_at, c->flat.data, c->flat.len, c->weights_at);
    case GLOROT_UNIFORM: return mha_init_glorot_uniform(w, n, 4, 5, c->rng_at);
    case GLOROT_NORMAL: return mha_init_glorot_normal(w, n, 4, 5, c->rng_at);
    case KAIMING_UNIFORM: return mha_init_kaiming_uniform(w, n, 4, c->rng_at);
    case KAIMING_NORMAL: return mha_init_kaiming_normal(w, n, 4, c->rng_at);
    case TRUNCATED_NORMAL: return mha_init_truncated_normal(w, n, c->normal_at, c->rng_at);
    case ORTHOGONAL: return mha_init_orthogonal(w, n, 5, c->gain_at, c->rng_at);
    case IDENTITY: return mha_init_identity(w, n, 5, c->gain_at);
    case ZEROS: return mha_init_zeros(w, n);
    case ONES: return mha_init_ones(w, n);
    default: return run_family(c, function);
    }
}

/* By kind and argument, whether some row has provoked it. */
static unsigned char provoked[256][256];

static void expect(enum function function, const char *row, int kind, int argument)
{
    ++checks;
    const mha_status wanted = MHA_STATUS(kind, argument), got = run(function);
    const char *what = NULL;
    if (got != wanted)
        what = "has another status";
    else if (memcmp(&memory, &before, sizeof memory) != 0)
        what = "has written something";
    else if (mha_status_kind(got) != kind || mha_status_argument(got) != argument)
        what = "has a status that cannot be taken apart";
    else if (strchr(mha_status_message(got), ':') == NULL)
        what = "has no message of its own";
    if (what != NULL) {
        ++failures;
        printf("%s, %s: %s: %s, not %s\n", names[function], row, what, mha_status_message(got),
               mha_status_message(wanted));
    } else {
        provoked[kind][argument] = 1;
    }
}

/* The functions that have a defect in common. */
#define WITHOUT_PROJECTIONS (1 << ATTENTION | 1 << SCORES)
#define WITH_PROJECTIONS (1 << FORWARD | 1 << FORWARD_ROWS)
#define CALLS (WITH_PROJECTIONS | WITHOUT_PROJECTIONS)
#define LAYERS (WITH_PROJECTIONS | 1 << LAYER_CHECK)
#define CONFIGS (LAYERS | 1 << CONFIG_CHECK | 1 << FROM_FLAT)
#define ATTENTIONS (WITHOUT_PROJECTIONS | 1 << ATTENTION_CHECK)
#define WITH_Y (WITH_PROJECTIONS | 1 << ATTENTION)
#define DRAWN                                                                             \
    (1 << GLOROT_UNIFORM | 1 << GLOROT_NORMAL | 1 << KAIMING_UNIFORM | 1 << KAIMING_NORMAL \
     | 1 << TRUNCATED_NORMAL | 1 << ORTHOGONAL)
#define GAINED (1 << ORTHOGONAL | 1 << IDENTITY)

#define HUGE_SIZE (SIZE_MAX / 2 + 1)
/* A pointer that is off by a byte. Through an integer: the compiler must not see it coming. */
#define OFF_BY_ONE(type, pointer) ((type)((uintptr_t)(pointer) + 1))

/* functions, kind, argument, defect */
#define ROWS(X)                                                                                      \
    X(CONFIGS, ZERO, DIMS, c->layer.config.dims.q_in = 0)                                            \
    X(CONFIGS, ZERO, DIMS, c->layer.config.dims.k_in = 0)                                            \
    X(CONFIGS, ZERO, DIMS, c->layer.config.dims.v_in = 0)                                            \
    X(CONFIGS, ZERO, DIMS, c->layer.config.dims.qk = 0)                                              \
    X(CONFIGS, ZERO, DIMS, c->layer.config.dims.v = 0)                                               \
    X(CONFIGS, ZERO, DIMS, c->layer.config.dims.out = 0)                                             \
    X(CONFIGS, ZERO, HEADS, c->layer.config.heads = 0)                                               \
    X(CONFIGS, HEADS, HEADS, c->layer.config.heads = 3)                                              \
    X(CONFIGS, HEADS, HEADS, c->layer.config.heads = 8)                                              \
    X(CONFIGS, HEADS, HEADS, c->layer.config.heads = SIZE_MAX)                                       \
    X(CONFIGS, TOO_LARGE, DIMS, c->layer.config.dims.q_in = HUGE_SIZE)                               \
    X(CONFIGS, TOO_LARGE, DIMS, c->layer.config.dims.out = SIZE_MAX)                                 \
    X(CONFIGS, VALUE, SCALE, c->layer.config.scale = NAN)                                            \
    X(CONFIGS, VALUE, SCALE, c->layer.config.scale = -INFINITY)                                      \
    X(CONFIGS, VALUE, WEIGHT_ORDER, c->layer.config.weight_order = 2)                                \
    X(CONFIGS, VALUE, WEIGHT_ORDER, c->layer.config.weight_order = -1)                               \
    X(LAYERS, VALUE, ISA, c->layer.isa = -1)                                                         \
    X(LAYERS, VALUE, ISA, c->layer.isa = 1000)                                                       \
    X(WITHOUT_PROJECTIONS, VALUE, ISA, c->isa = INT32_MAX)                                           \
    X(ATTENTIONS, ZERO, HEADS, c->attention.heads = 0)                                               \
    X(ATTENTIONS, ZERO, DIMS, c->attention.qk = 0)                                                   \
    X(1 << ATTENTION, ZERO, DIMS, c->attention.v = 0)                                                \
    X(ATTENTIONS, HEADS, HEADS, c->attention.heads = 3)                                              \
    X(ATTENTIONS, VALUE, SCALE, c->attention.scale = INFINITY)                                       \
    X(WITHOUT_PROJECTIONS, TOO_LARGE, SHAPE, (c->shape.batch = HUGE_SIZE, c->shape.kv_len = 0))      \
    X(WITH_PROJECTIONS, TOO_LARGE, Q, (c->shape.batch = HUGE_SIZE, c->shape.kv_len = 0))             \
    X(CALLS, BROADCAST, MASK, c->inputs.mask.extents[0] = 3)                                         \
    X(CALLS, BROADCAST, MASK, c->inputs.mask.extents[1] = 3)                                         \
    X(CALLS, BROADCAST, MASK, c->inputs.mask.extents[2] = 2)                                         \
    X(CALLS, BROADCAST, MASK, c->inputs.mask.extents[3] = SIZE_MAX)                                  \
    X(CALLS, BROADCAST, BIAS, c->inputs.bias.extents[0] = 3)                                         \
    X(CALLS, BROADCAST, BIAS, c->inputs.bias.extents[3] = 10)                                        \
    X(CALLS, LENGTH, MASK, c->inputs.mask.extents[3] = 1)                                            \
    X(CALLS, LENGTH, BIAS, c->inputs.bias.extents[0] = 1)                                            \
    X(CALLS, VALUE, CAUSAL, c->inputs.causal.mode = 4)                                               \
    X(CALLS, VALUE, CAUSAL, c->inputs.causal.mode = -1)                                              \
    X(CALLS, VALUE, DROPOUT, c->inputs.dropout.p = 1.0f)                                             \
    X(CALLS, VALUE, DROPOUT, c->inputs.dropout.p = -0.1f)                                            \
    X(CALLS, VALUE, DROPOUT, c->inputs.dropout.p = NAN)                                              \
    X(WITH_Y, VALUE, SCORES_AT, c->outputs.scores_at = 4)                                            \
    X(WITH_Y, VALUE, SCORES_AT, c->outputs.scores_at = -1)                                           \
    X(1 << FORWARD_ROWS, RANGE, ROWS, c->rows_end = BATCH * Q + 1)                                   \
    X(1 << FORWARD_ROWS, RANGE, ROWS, (c->rows_start = 3, c->rows_end = 2))                          \
    X(1 << FORWARD_ROWS, RANGE, ROWS, (c->rows_start = SIZE_MAX, c->rows_end = SIZE_MAX))            \
    X(1 << FORWARD_ROWS, LENGTH, Y, c->rows_end = BATCH * Q - 1)                                     \
    X(LAYERS, NULL, LAYER, c->layer_at = NULL)                                                       \
    X(LAYERS, MISALIGNED, LAYER, c->layer_at = OFF_BY_ONE(const mha_layer *, c->layer_at))           \
    X(1 << CONFIG_CHECK | 1 << FROM_FLAT, NULL, CONFIG, c->config_at = NULL)                         \
    X(1 << CONFIG_CHECK | 1 << FROM_FLAT, MISALIGNED, CONFIG,                                        \
      c->config_at = OFF_BY_ONE(const mha_config *, c->config_at))                                   \
    X(ATTENTIONS, NULL, ATTENTION, c->attention_at = NULL)                                           \
    X(ATTENTIONS, MISALIGNED, ATTENTION,                                                             \
      c->attention_at = OFF_BY_ONE(const mha_attention *, c->attention_at))                          \
    X(CALLS, NULL, INPUTS, c->inputs_at = NULL)                                                      \
    X(CALLS, MISALIGNED, INPUTS, c->inputs_at = OFF_BY_ONE(const mha_inputs *, c->inputs_at))        \
    X(WITH_Y, NULL, OUTPUTS, c->outputs_at = NULL)                                                   \
    X(WITH_Y, MISALIGNED, OUTPUTS, c->outputs_at = OFF_BY_ONE(const mha_outputs *, c->outputs_at))   \
    X(CALLS, NULL, MASK, c->inputs.mask.data = NULL)                                                 \
    X(CALLS, LENGTH, MASK, c->inputs.mask.len -= 1)                                                  \
    X(CALLS, LENGTH, MASK, c->inputs.mask.len += 1)                                                  \
    X(CALLS, LENGTH, MASK, c->inputs.mask.len = 0)                                                   \
    X(CALLS, TOO_LARGE, MASK, c->inputs.mask.len = HUGE_SIZE)                                        \
    X(CALLS, NULL, CAUSAL, c->inputs.causal.offsets = NULL)                                          \
    X(CALLS, MISALIGNED, CAUSAL,                                                                     \
      c->inputs.causal.offsets = OFF_BY_ONE(const ptrdiff_t *, c->inputs.causal.offsets))            \
    X(CALLS, LENGTH, CAUSAL, c->inputs.causal.offsets_len = BATCH - 1)                               \
    X(CALLS, LENGTH, CAUSAL, c->inputs.causal.offsets_len = BATCH + 1)                               \
    X(CALLS, LENGTH, CAUSAL, c->inputs.causal.offsets_len = 0)                                       \
    X(CALLS, TOO_LARGE, CAUSAL, c->inputs.causal.offsets_len = HUGE_SIZE)                            \
    X(1 << FROM_FLAT, NULL, WEIGHTS, c->weights_at = NULL)                                           \
    X(1 << FROM_FLAT, NULL, WEIGHTS, c->flat.data = NULL)                                            \
    X(1 << FROM_FLAT, MISALIGNED, WEIGHTS,                                                           \
      c->weights_at = OFF_BY_ONE(mha_weights *, c->weights_at))                                      \
    X(1 << FROM_FLAT, MISALIGNED, WEIGHTS, c->flat.data = OFF_BY_ONE(const float *, c->flat.data))   \
    X(1 << FROM_FLAT, LENGTH, WEIGHTS, c->flat.len -= 1)                                             \
    X(1 << FROM_FLAT, LENGTH, WEIGHTS, c->flat.len += 1)                                             \
    X(1 << FROM_FLAT, LENGTH, WEIGHTS, c->flat.len = 0)                                              \
    X(1 << FROM_FLAT, TOO_LARGE, WEIGHTS, c->flat.len = HUGE_SIZE)                                   \
    X(1 << FROM_FLAT, OVERLAP, WEIGHTS,                                                              \
      c->weights_at = (mha_weights *)(((uintptr_t)c->flat.data + 15) / 16 * 16))                     \
    X(DRAWN, NULL, RNG, c->rng_at = NULL)                                                            \
    X(DRAWN, MISALIGNED, RNG, c->rng_at = OFF_BY_ONE(mha_rng *, c->rng_at))                          \
    X(DRAWN, OVERLAP, WEIGHT,                                                                        \
      c->rng_at = (mha_rng *)(((uintptr_t)c->weight.data + 15) / 16 * 16))                           \
    X(DRAWN | GAINED | 1 << ZEROS | 1 << ONES, NULL, WEIGHT, c->weight.data = NULL)                  \
    X(DRAWN | GAINED | 1 << ZEROS | 1 << ONES, MISALIGNED, WEIGHT,                                   \
      c->weight.data = OFF_BY_ONE(float *, c->weight.data))                                          \
    X(DRAWN | GAINED | 1 << ZEROS | 1 << ONES, TOO_LARGE, WEIGHT, c->weight.len = HUGE_SIZE)         \
    X(GAINED, MISALIGNED, PARAMETERS, c->gain_at = OFF_BY_ONE(const float *, c->gain_at))            \
    X(1 << TRUNCATED_NORMAL, MISALIGNED, PARAMETERS,                                                 \
      c->normal_at = OFF_BY_ONE(const mha_truncated_normal *, c->normal_at))

static void rows(void)
{
    struct call *c = &call;
#define ROW(functions, kind, argument, defect)                                    \
    for (int f = 0; f < FUNCTIONS; ++f) {                                         \
        if (((functions) >> f & 1) == 0) continue;                                \
        restore((enum function)f);                                                \
        defect;                                                                   \
        expect((enum function)f, #defect, MHA_KIND_##kind, MHA_ARGUMENT_##argument); \
    }
    ROWS(ROW)
    FAMILY_ROWS(ROW)
}

/* The defects that every buffer of floats can have. */
struct buffer {
    unsigned functions;
    int argument;
    const float **data;
    size_t *len;
    /* Whether any longer one will do, and whether one without a length is as good. */
    int longer_is_fine, uncounted_is_fine;
};

static void buffers(void)
{
    struct call *c = &call;
    mha_weights *w = &c->layer.weights;
    mha_inputs *in = &c->inputs;
    /* A pointer to what is written is as good a place as any to put a defect. */
#define WRITTEN(member) (const float **)(uintptr_t)&c->member.data, &c->member.len
    const struct buffer all[] = {
        { CALLS, MHA_ARGUMENT_Q, &in->q.data, &in->q.len, 0, 0 },
        { CALLS, MHA_ARGUMENT_K, &in->k.data, &in->k.len, 0, 0 },
        { WITH_Y, MHA_ARGUMENT_V, &in->v.data, &in->v.len, 0, 0 },
        { CALLS, MHA_ARGUMENT_BIAS, &in->bias.data, &in->bias.len, 0, 0 },
        { LAYERS, MHA_ARGUMENT_WQ, &w->wq.data, &w->wq.len, 0, 1 },
        { LAYERS, MHA_ARGUMENT_WK, &w->wk.data, &w->wk.len, 0, 1 },
        { LAYERS, MHA_ARGUMENT_WV, &w->wv.data, &w->wv.len, 0, 1 },
        { LAYERS, MHA_ARGUMENT_WO, &w->wo.data, &w->wo.len, 0, 1 },
        { LAYERS, MHA_ARGUMENT_BQ, &w->bq.data, &w->bq.len, 0, 1 },
        { LAYERS, MHA_ARGUMENT_BK, &w->bk.data, &w->bk.len, 0, 1 },
        { LAYERS, MHA_ARGUMENT_BV, &w->bv.data, &w->bv.len, 0, 1 },
        { LAYERS, MHA_ARGUMENT_BO, &w->bo.data, &w->bo.len, 0, 1 },
        { WITH_Y, MHA_ARGUMENT_Y, WRITTEN(outputs.y), 0, 0 },
        { CALLS, MHA_ARGUMENT_SCORES, WRITTEN(outputs.scores), 0, 0 },
        { CALLS, MHA_ARGUMENT_SCRATCH, WRITTEN(scratch), 1, 0 },
    };
    for (size_t i = 0; i < MHA_COUNT(all); ++i)
        for (int f = 0; f < FUNCTIONS; ++f) {
            const struct buffer *b = &all[i];
            const enum function function = (enum function)f;
            if ((b->functions >> f & 1) == 0) continue;
            restore(function);
            *b->data = NULL;
            expect(function, "NULL", MHA_KIND_NULL, b->argument);
            for (uintptr_t off = 1; off < 4; ++off) {
                restore(function);
                *b->data = (const float *)((uintptr_t)*b->data + off);
                expect(function, "misaligned", MHA_KIND_MISALIGNED, b->argument);
            }
            restore(function);
            *b->len = HUGE_SIZE;
            expect(function, "too large", MHA_KIND_TOO_LARGE, b->argument);
            restore(function);
            *b->len = SIZE_MAX;
            expect(function, "the largest", MHA_KIND_TOO_LARGE, b->argument);
            restore(function);
            *b->data = (const float *)(UINTPTR_MAX / 4 * 4);
            expect(function, "at the end of memory", MHA_KIND_TOO_LARGE, b->argument);
            restore(function);
            if (b->longer_is_fine) {
                *b->len += 1;
                CHECK(run(function) == MHA_OK);
                restore(function);
                *b->len = 1;
                expect(function, "one", MHA_KIND_LENGTH, b->argument);
            } else {
                *b->len += 1;
                expect(function, "one too long", MHA_KIND_LENGTH, b->argument);
                restore(function);
                *b->len -= 1;
                expect(function, "one too short", MHA_KIND_LENGTH, b->argument);
            }
            restore(function);
            *b->len = 0;
            if (b->uncounted_is_fine)
                CHECK(run(function) == MHA_OK);
            else
                expect(function, "of no length", MHA_KIND_LENGTH, b->argument);
        }

    /* Scratch to the element. */
    restore(FORWARD);
    c->scratch.len = MHA_MIN_SCRATCH_LEN_DIMS(QK, V, HEADS, KV);
    CHECK(run(FORWARD) == MHA_OK);
    restore(FORWARD);
    c->scratch.len = MHA_MIN_SCRATCH_LEN_DIMS(QK, V, HEADS, KV) - 1;
    expect(FORWARD, "one too short", MHA_KIND_LENGTH, MHA_ARGUMENT_SCRATCH);
    restore(ATTENTION);
    c->scratch.len = MHA_ATTENTION_MIN_SCRATCH_LEN(QK, V, HEADS) - 1;
    expect(ATTENTION, "one too short", MHA_KIND_LENGTH, MHA_ARGUMENT_SCRATCH);

    /* What is written against everything else, at either end and in the middle. */
    struct written { int argument; float **data; size_t *len; };
    const struct written written[] = {
        { MHA_ARGUMENT_Y, &c->outputs.y.data, &c->outputs.y.len },
        { MHA_ARGUMENT_SCORES, &c->outputs.scores.data, &c->outputs.scores.len },
        { MHA_ARGUMENT_SCRATCH, &c->scratch.data, &c->scratch.len },
    };
    for (size_t i = 0; i < MHA_COUNT(written); ++i)
        for (size_t j = 0; j < MHA_COUNT(all); ++j)
            for (int f = 0; f < FUNCTIONS; ++f) {
                const enum function function = (enum function)f;
                if ((CALLS & all[j].functions & 1u << f) == 0) continue;
                if (written[i].argument == MHA_ARGUMENT_Y && function == SCORES) continue;
                /* Of two outputs the later is at fault. */
                const int other_is_output = j >= MHA_COUNT(all) - 3;
                if (other_is_output && all[j].argument >= written[i].argument) continue;
                for (int place = 0; place < 3; ++place) {
                    restore(function);
                    const uintptr_t other = (uintptr_t)*all[j].data;
                    const uintptr_t first = other - (*written[i].len - 1) * sizeof(float);
                    const uintptr_t last = other + (*all[j].len - 1) * sizeof(float);
                    const uintptr_t at = place == 0 ? first : place == 1 ? other : last;
                    *written[i].data = (float *)at;
                    /* It may hit a third buffer first, in its new place. */
                    const mha_status got = run(function);
                    CHECK(mha_status_kind(got) == MHA_KIND_OVERLAP);
                    CHECK(memcmp(&memory, &before, sizeof memory) == 0);
                    if (mha_status_argument(got) == written[i].argument)
                        provoked[MHA_KIND_OVERLAP][written[i].argument] = 1;
                    else
                        CHECK(mha_status_argument(got) == MHA_ARGUMENT_SCORES
                              || mha_status_argument(got) == MHA_ARGUMENT_SCRATCH);
                }
            }

    /* The mask and the offsets. */
    for (int f = 0; f < FUNCTIONS; ++f) {
        const enum function function = (enum function)f;
        if ((CALLS & 1u << f) == 0) continue;
        restore(function);
        c->inputs.mask.data = (const uint8_t *)(c->outputs.scores.data + 1) - 1;
        expect(function, "mask in scores", MHA_KIND_OVERLAP, MHA_ARGUMENT_SCORES);
        restore(function);
        c->inputs.causal.offsets
            = (const ptrdiff_t *)(((uintptr_t)c->scratch.data + 15) / 16 * 16);
        expect(function, "offsets in scratch", MHA_KIND_OVERLAP, MHA_ARGUMENT_SCRATCH);
    }
}

/* Sizes that overflow, with buffers that cannot be right whatever their length. */
static void overflows(void)
{
    static const size_t sizes[] = { SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 4, SIZE_MAX / 8, HUGE_SIZE,
                                    (size_t)1 << (sizeof(size_t) * 4) };
    for (int f = 0; f < FUNCTIONS; ++f)
        for (int where = 0; where < 3; ++where)
            for (size_t i = 0; i < MHA_COUNT(sizes); ++i) {
                if ((CALLS & 1u << f) == 0) continue;
                restore((enum function)f);
                size_t *const lengths[]
                    = { &call.shape.batch, &call.shape.q_len, &call.shape.kv_len };
                *lengths[where] = sizes[i];
                const mha_status got = run((enum function)f);
                CHECK(got != MHA_OK && strchr(mha_status_message(got), ':') != NULL);
                CHECK(memcmp(&memory, &before, sizeof memory) == 0);
            }
}

/* Every status that has a message of its own has been provoked, and only those. */
static void complete(void)
{
    size_t possible = 0;
    for (int kind = 1; kind < 256; ++kind)
        for (int argument = 1; argument < 256; ++argument) {
            const mha_status status = MHA_STATUS(kind, argument);
            const char *message = mha_status_message(status);
            if (strchr(message, ':') == NULL) continue;
            ++possible;
            ++checks;
            if (!provoked[kind][argument]) {
                ++failures;
                printf("no row provokes \"%s\"\n", message);
            }
            const char *name = mha_status_argument_name(status);
            CHECK(strncmp(message, name, strlen(name)) == 0 && message[strlen(name)] == ':');
            CHECK(mha_status_reason(status)[0] != 0);
        }
    CHECK(possible > 50);
    CHECK(strcmp(mha_status_message(MHA_OK), "ok") == 0);
    CHECK(strcmp(mha_status_message(MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_SCRATCH)),
                 "scratch: too short")
          == 0);
}

int main(void)
{
    /* The calls are good but for their defect. */
    for (int f = 0; f < FUNCTIONS; ++f) {
        restore((enum function)f);
        const mha_status status = run((enum function)f);
        CHECK(status == MHA_OK);
        if (status != MHA_OK) printf("%s: %s\n", names[f], mha_status_message(status));
        /* And they write: the comparison would see it. */
        const int checks_only = f == CONFIG_CHECK || f == ATTENTION_CHECK || f == LAYER_CHECK
                                || f == CACHE_CHECK;
        CHECK(checks_only == (memcmp(&memory, &before, sizeof memory) == 0));
    }
    rows();
    buffers();
    overflows();
    complete();
    return verdict("errors");
}
