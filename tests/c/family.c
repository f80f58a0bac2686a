/* What the attention family does through the C interface, against what it must equal: one long call
   for a stream, one sequence at a time for a batch, the plain functions where nothing is asked for.
   (That the numbers are right is for the case files to say.) */
#include <math.h>

#include "mha.h"
#include "test.h"

enum { WIDTH = 16, HEADS = 4, KV_HEADS = 2, T = 40 };

static const mha_config config = { .dims = MHA_DIMS(WIDTH), .heads = HEADS, .kv_heads = KV_HEADS };
static float weights[WIDTH * WIDTH * 3];
static const mha_layer layer = {
    .config = { .dims = MHA_DIMS(WIDTH), .heads = HEADS, .kv_heads = KV_HEADS },
    .weights = { .wq = { weights, WIDTH *WIDTH }, .wk = { weights + 256, WIDTH *WIDTH / 2 },
                 .wv = { weights + 384, WIDTH *WIDTH / 2 }, .wo = { weights + 512, WIDTH *WIDTH } },
};
static float x[T * WIDTH], whole[T * WIDTH], y[T * WIDTH];
static float all_scores[HEADS * T * T], scores[HEADS * T * T];
static float scratch[MHA_SCRATCH_LEN_GROUPED(WIDTH, WIDTH, HEADS, KV_HEADS, 2, T, T)];

/* A cache in static memory: empty because its state is zero. */
static float keys[MHA_CACHE_KEYS_LEN(WIDTH, HEADS, KV_HEADS, 1, T)];
static float values[MHA_CACHE_VALUES_LEN(WIDTH, HEADS, KV_HEADS, 1, T)];
static mha_cache cache = {
    .attention = { .heads = HEADS, .qk = WIDTH, .v = WIDTH, .kv_heads = KV_HEADS },
    .config = { .capacity = T },
    .keys = MHA_SLICE(keys),
    .values = MHA_SLICE(values),
};

static const mha_options rotating = {
    .window = { .has_left = 1, .left = 12 },
    .rope = { .kind = MHA_ROPE_KIND_BASE, .base = 10000.0f },
    .softcap = 20.0f,
};

static mha_inputs causal(const float *q, size_t len)
{
    const mha_inputs inputs = { .q = { q, len }, .causal = { .mode = MHA_CAUSAL_MODE_NATURAL } };
    return inputs;
}

/* One causal call over everything. */
static void forward(const mha_options *options, float *to)
{
    const mha_shape shape = { 1, T, T };
    const mha_inputs inputs = causal(x, MHA_COUNT(x));
    const mha_outputs outputs = { .y = { to, T * WIDTH }, .scores = MHA_SLICE(all_scores) };
    CHECK(mha_forward_with(&layer, shape, &inputs, options, &outputs, scratch, MHA_COUNT(scratch))
          == MHA_OK);
}

/* The positions from .. to, appended and attended to. */
static void step(size_t from, size_t to, const mha_options *options)
{
    const float *at = x + from * WIDTH;
    const size_t len = (to - from) * WIDTH;
    CHECK(mha_append(&layer, &cache, at, len, NULL, 0, options) == MHA_OK);
    const mha_inputs inputs = causal(at, len);
    const mha_outputs outputs = { .y = { y + from * WIDTH, len },
                                  .scores = { scores, HEADS * (to - from) * to } };
    CHECK(mha_attend(&layer, &cache, to - from, &inputs, options, &outputs, scratch,
                     mha_min_cached_scratch_len(&config))
          == MHA_OK);
}

/* Any split of a stream gives the bits of one call; so does one that is saved and goes on, and one
   that is rolled back. */
static void stream(void)
{
    static const size_t pieces[] = { 1, 5, 2, 16, 1, 15 };
    const mha_options *const with[] = { NULL, &rotating };
    for (size_t o = 0; o < MHA_COUNT(with); ++o) {
        forward(with[o], whole);
        CHECK(mha_cache_reset(&cache) == MHA_OK && cache.state.len == 0);
        memset(y, 0, sizeof y);
        size_t at = 0;
        for (size_t i = 0; i < MHA_COUNT(pieces); ++i) {
            step(at, at + pieces[i], with[o]);
            /* The last query's scores are those of the whole call. */
            const size_t to = at + pieces[i];
            CHECK(same_bits(scores + (pieces[i] - 1) * to, all_scores + (to - 1) * T, to));
            at = to;
        }
        CHECK(at == T && mha_cache_stored(&cache) == T);
        CHECK(same_bits(y, whole, T * WIDTH));

        /* Rolled back, and with what a power cut leaves: copies of the arrays and the state. */
        static float saved_keys[MHA_COUNT(keys)], saved_values[MHA_COUNT(values)];
        CHECK(mha_cache_rollback(&cache, 7) == MHA_OK && cache.state.len == 7);
        memcpy(saved_keys, keys, sizeof keys);
        memcpy(saved_values, values, sizeof values);
        const mha_cache_state state = cache.state;
        memset(keys, 0xff, sizeof keys);
        memset(values, 0xff, sizeof values);
        memset(&cache.state, 0xff, sizeof cache.state);
        CHECK(mha_cache_check(&cache) != MHA_OK);
        memcpy(keys, saved_keys, sizeof keys);
        memcpy(values, saved_values, sizeof values);
        cache.state = state;
        memset(y, 0, sizeof y);
        step(7, 30, with[o]);
        CHECK(same_bits(y + 7 * WIDTH, whole + 7 * WIDTH, 23 * WIDTH));
    }
    CHECK(mha_status_kind(mha_append(&layer, &cache, x, 20 * WIDTH, NULL, 0, NULL))
          == MHA_KIND_CACHE_FULL);
}

/* A ring gives the bits of a window over everything, for ever. */
static void ring(void)
{
    enum { CAPACITY = 32, WINDOW = 15 };
    static float ring_keys[MHA_CACHE_KEYS_LEN(WIDTH, HEADS, KV_HEADS, 1, CAPACITY)];
    static float ring_values[MHA_CACHE_VALUES_LEN(WIDTH, HEADS, KV_HEADS, 1, CAPACITY)];
    mha_cache turning = cache;
    turning.config = (mha_cache_config){ .capacity = CAPACITY, .ring = 1 };
    turning.keys = (mha_slice_mut)MHA_SLICE(ring_keys);
    turning.values = (mha_slice_mut)MHA_SLICE(ring_values);
    turning.state = (mha_cache_state){ 0, 0 };
    const mha_options options = { .window = { .has_left = 1, .left = WINDOW } };
    forward(&options, whole);
    for (size_t t = 0; t < T; ++t) {
        CHECK(mha_append(&layer, &turning, x + t * WIDTH, WIDTH, NULL, 0, &options) == MHA_OK);
        const mha_inputs inputs = causal(x + t * WIDTH, WIDTH);
        const mha_outputs outputs = { .y = { y + t * WIDTH, WIDTH } };
        CHECK(mha_attend(&layer, &turning, 1, &inputs, &options, &outputs, scratch,
                         MHA_COUNT(scratch))
              == MHA_OK);
    }
    CHECK(turning.state.len == T && mha_cache_stored(&turning) == CAPACITY);
    CHECK(same_bits(y, whole, T * WIDTH));
}

/* Packed sequences, and padded ones with lengths, give what each gives by itself. */
static void batches(void)
{
    static const size_t starts[] = { 0, 3, 3, 20, T };
    const mha_inputs inputs = causal(x, MHA_COUNT(x));
    const mha_outputs outputs = { .y = MHA_SLICE(y) };
    CHECK(mha_forward_packed(&layer, 4, starts, starts, &inputs, NULL, &outputs, scratch,
                             MHA_COUNT(scratch))
          == MHA_OK);
    for (size_t i = 0; i + 1 < MHA_COUNT(starts); ++i) {
        const size_t n = starts[i + 1] - starts[i];
        const mha_shape shape = { 1, n, n };
        const mha_inputs one = causal(x + starts[i] * WIDTH, n * WIDTH);
        const mha_outputs to = { .y = { whole, n * WIDTH } };
        CHECK(mha_forward(&layer, shape, &one, &to, scratch, MHA_COUNT(scratch)) == MHA_OK);
        CHECK(same_bits(y + starts[i] * WIDTH, whole, n * WIDTH));
    }

    /* Two sequences of 20, of which 20 and 11 are real; what lies in the padding does not matter. */
    static const size_t lens[] = { 20, 11 };
    static float padded[T * WIDTH];
    memcpy(padded, x, sizeof x);
    for (size_t i = 31 * WIDTH; i < T * WIDTH; ++i) padded[i] = NAN;
    const mha_options options = { .lens = lens, .lens_len = 2 };
    const mha_shape shape = { 2, 20, 20 };
    const mha_inputs both = { .q = MHA_SLICE(x), .k = MHA_SLICE(padded) };
    CHECK(mha_forward_with(&layer, shape, &both, &options, &outputs, scratch, MHA_COUNT(scratch))
          == MHA_OK);
    const mha_shape second = { 1, 20, 11 };
    const mha_inputs short_one = { .q = { x + 20 * WIDTH, 20 * WIDTH },
                                   .k = { x + 20 * WIDTH, 11 * WIDTH } };
    const mha_outputs to = { .y = { whole, 20 * WIDTH } };
    CHECK(mha_forward(&layer, second, &short_one, &to, scratch, MHA_COUNT(scratch)) == MHA_OK);
    CHECK(same_bits(y + 20 * WIDTH, whole, 20 * WIDTH));
}

/* Which scores are written. */
static void selections(void)
{
    forward(&rotating, whole);
    static float some[T * T];
    mha_options options = rotating;
    const mha_shape shape = { 1, T, T };
    const mha_inputs inputs = causal(x, MHA_COUNT(x));
    mha_outputs outputs = { .y = MHA_SLICE(y), .scores = MHA_SLICE(some) };
    options.scores = MHA_SELECT_HEAD;
    options.score_head = 2;
    CHECK(mha_forward_with(&layer, shape, &inputs, &options, &outputs, scratch, MHA_COUNT(scratch))
          == MHA_OK);
    CHECK(same_bits(some, all_scores + 2 * T * T, T * T) && same_bits(y, whole, T * WIDTH));

    options.score_queries_start = 5;
    options.score_queries_end = 8;
    outputs.scores.len = 3 * T;
    CHECK(mha_forward_with(&layer, shape, &inputs, &options, &outputs, scratch, MHA_COUNT(scratch))
          == MHA_OK);
    CHECK(same_bits(some, all_scores + (2 * T + 5) * T, 3 * T));

    options.scores = MHA_SELECT_MEAN;
    CHECK(mha_forward_with(&layer, shape, &inputs, &options, &outputs, scratch, MHA_COUNT(scratch))
          == MHA_OK);
    for (size_t i = 0; i < 3 * T; ++i) {
        float sum = 0.0f;
        for (size_t h = 0; h < HEADS; ++h) sum += all_scores[(h * T + 5) * T + i];
        CHECK(fabsf(some[i] - sum / (float)(int)HEADS) < 1e-6f);
    }
}

/* Attention over two pieces, merged, is attention over both. */
static void merging(void)
{
    enum { ROWS = 4, LEFT = 10 };
    const mha_attention attention = { .heads = HEADS, .qk = WIDTH, .v = WIDTH };
    static float lse[2][HEADS * ROWS], part[2][ROWS * WIDTH];
    const mha_outputs to_whole = { .y = { whole, ROWS * WIDTH } };
    const mha_inputs all = { .q = { x, ROWS * WIDTH }, .k = MHA_SLICE(x) };
    CHECK(mha_dot_product_attention(&attention, 0, (mha_shape){ 1, ROWS, T }, &all, &to_whole,
                                    scratch, MHA_COUNT(scratch))
          == MHA_OK);
    for (size_t i = 0; i < 2; ++i) {
        const size_t n = i == 0 ? LEFT : T - LEFT;
        const mha_inputs inputs = { .q = { x, ROWS * WIDTH },
                                    .k = { x + i * LEFT * WIDTH, n * WIDTH } };
        const mha_options options = { .lse = MHA_SLICE(lse[i]) };
        const mha_outputs outputs = { .y = MHA_SLICE(part[i]) };
        CHECK(mha_dot_product_attention_with(&attention, 0, (mha_shape){ 1, ROWS, n }, &inputs,
                                             &options, &outputs, scratch, MHA_COUNT(scratch))
              == MHA_OK);
    }
    CHECK(mha_merge(&attention, ROWS, part[0], lse[0], part[1], lse[1]) == MHA_OK);
    for (size_t i = 0; i < ROWS * WIDTH; ++i) CHECK(fabsf(part[0][i] - whole[i]) < 1e-6f);
}

/* No options, and options that ask for nothing, are the plain call. */
static void nothing(void)
{
    const mha_options none = { 0 };
    const mha_shape shape = { 1, T, T };
    const mha_inputs inputs = causal(x, MHA_COUNT(x));
    const mha_outputs outputs = { .y = MHA_SLICE(y) };
    CHECK(mha_forward(&layer, shape, &inputs, &outputs, scratch, MHA_COUNT(scratch)) == MHA_OK);
    forward(&none, whole);
    CHECK(same_bits(y, whole, T * WIDTH));
    forward(NULL, whole);
    CHECK(same_bits(y, whole, T * WIDTH));
}

int main(void)
{
    fill(weights, MHA_COUNT(weights), 1);
    fill(x, MHA_COUNT(x), 2);
    stream();
    ring();
    batches();
    selections();
    merging();
    nothing();
    return verdict("family");
}
