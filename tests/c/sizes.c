/* The macros of the header against the functions of the library, over a grid of shapes, and the
   uses that the macros are for: bounds of static arrays, initialisers of constants. */
#include <stdint.h>

#include "mha.h"
#include "test.h"

/* All of it constant: this must compile. */
static const float weight[8 * 8] = { 1.0f };
static const mha_layer layer = {
    .config = MHA_CONFIG(8, 2),
    .weights = { .wq = MHA_SLICE(weight), .wk = MHA_SLICE(weight), .wv = MHA_SLICE(weight),
                 .wo = MHA_SLICE(weight) },
};
static float scratch[MHA_SCRATCH_LEN(8, 2, 3, 5)];
static float least[MHA_MIN_SCRATCH_LEN(8, 2, 5)];
static float y[MHA_Y_LEN(8, 1, 3)];
static float scores[MHA_SCORES_LEN(2, 1, 3, 5)];
enum { in_an_enumeration = MHA_SCRATCH_LEN_DIMS(6, 4, 2, 3, 5) };

static void compare(size_t qk, size_t v, size_t heads, size_t q_len, size_t kv_len)
{
    const mha_config config = { .dims = { 3, 4, 5, qk, v, 7 }, .heads = heads };
    const mha_attention attention = { .heads = heads, .qk = qk, .v = v };
    const mha_shape shape = { 2, q_len, kv_len }, one = { 1, q_len, kv_len };
    CHECK(MHA_SCRATCH_LEN_DIMS(qk, v, heads, q_len, kv_len) == mha_scratch_len(&config, one));
    for (size_t batch = 0; batch < 40; batch += 3) {
        const mha_shape many = { batch, q_len, kv_len };
        CHECK(MHA_SCRATCH_LEN_GROUPED(qk, v, heads, heads, batch, q_len, kv_len)
              == mha_scratch_len(&config, many));
    }
    CHECK(MHA_MIN_SCRATCH_LEN_DIMS(qk, v, heads, kv_len) == mha_min_scratch_len(&config, shape));
    /* Key/value heads that divide the heads, and a cache of as many positions as there are keys. */
    for (size_t kv_heads = 1; kv_heads <= heads; ++kv_heads) {
        if (heads % kv_heads != 0) continue;
        const mha_config grouped = { .dims = { 3, 4, 5, qk, v, 7 }, .heads = heads,
                                     .kv_heads = kv_heads };
        const mha_attention of_cache = { .heads = heads, .qk = qk, .v = v, .kv_heads = kv_heads };
        const mha_cache_config cache = { .batch = 3, .capacity = kv_len };
        CHECK(MHA_SCRATCH_LEN_GROUPED(qk, v, heads, kv_heads, 2, q_len, kv_len)
              == mha_scratch_len(&grouped, shape));
        CHECK(MHA_MIN_SCRATCH_LEN_GROUPED(qk, v, heads, kv_heads, kv_len)
              == mha_min_scratch_len(&grouped, shape));
        CHECK(MHA_CACHED_SCRATCH_LEN(qk, v, heads, kv_heads, q_len)
              == mha_cached_scratch_len(&grouped, q_len));
        CHECK(MHA_MIN_CACHED_SCRATCH_LEN(qk, v, heads, kv_heads)
              == mha_min_cached_scratch_len(&grouped));
        CHECK(MHA_CACHE_KEYS_LEN(qk, heads, kv_heads, 3, kv_len)
              == mha_cache_keys_len(&of_cache, &cache));
        CHECK(MHA_CACHE_VALUES_LEN(v, heads, kv_heads, 3, kv_len)
              == mha_cache_values_len(&of_cache, &cache));
    }
    CHECK(MHA_ATTENTION_SCRATCH_LEN(qk, v, heads, q_len)
          == mha_attention_scratch_len(&attention, shape));
    CHECK(MHA_ATTENTION_MIN_SCRATCH_LEN(qk, v, heads) == mha_attention_min_scratch_len(&attention));
    CHECK(MHA_Y_LEN(7, 2, q_len) == mha_y_len(&config, shape));
    CHECK(MHA_SCORES_LEN(heads, 2, q_len, kv_len) == mha_scores_len(&config, shape));
    CHECK(MHA_SCORES_LEN(heads, 2, q_len, kv_len) == mha_attention_scores_len(&attention, shape));
    if (qk == v) {
        CHECK(MHA_SCRATCH_LEN(qk, heads, q_len, kv_len) == mha_scratch_len(&config, one));
        CHECK(MHA_MIN_SCRATCH_LEN(qk, heads, kv_len) == mha_min_scratch_len(&config, shape));
    }
}

static void grid(void)
{
    /* Around every block and tile of the plan. */
    static const size_t heads[] = { 1, 2, 3, 4, 7, 8, 9, 16, 17, 64, 65, 100 };
    static const size_t widths[] = { 1, 2, 3, 7, 8, 12, 16, 21, 22, 31, 32, 33, 63, 64, 65, 128, 1000 };
    static const size_t lengths[] = { 0,  1,  2,  3,  4,  5,  15, 16, 17,  31,  32,   33,   47,    48,
                                      49, 63, 64, 65, 79, 80, 81, 95, 96,  97,  127,  128,  129,   1000, 1024, 1025 };
    for (size_t h = 0; h < MHA_COUNT(heads); ++h)
        for (size_t a = 0; a < MHA_COUNT(widths); ++a)
            for (size_t b = 0; b < MHA_COUNT(widths); ++b)
                for (size_t q = 0; q < MHA_COUNT(lengths); ++q)
                    for (size_t k = 0; k < MHA_COUNT(lengths); k += a == b ? 1 : 3)
                        compare(widths[a] * heads[h], widths[b] * heads[h], heads[h], lengths[q],
                                lengths[k]);
}

int main(void)
{
    grid();

    const mha_shape shape = { 1, 3, 5 };
    CHECK(MHA_COUNT(scratch) == mha_scratch_len(&layer.config, shape));
    CHECK(MHA_COUNT(least) == mha_min_scratch_len(&layer.config, shape));
    CHECK(MHA_COUNT(y) == mha_y_len(&layer.config, shape));
    CHECK(MHA_COUNT(scores) == mha_scores_len(&layer.config, shape));
    CHECK(in_an_enumeration > 0);
    CHECK(mha_weights_len(&layer.config) == 4 * 8 * 8);
    CHECK(mha_biases_len(&layer.config) == 4 * 8);
    static const mha_config config = { .dims = MHA_DIMS_SHARED(2, 3, 5, 7), .heads = 1 };
    CHECK(mha_weights_len(&config) == 2 * 3 + 2 * 3 + 2 * 5 + 5 * 7);
    CHECK(mha_biases_len(&config) == 3 + 3 + 5 + 7);
    static const mha_dims uniform = MHA_DIMS_UNIFORM(2, 3, 5);
    CHECK(uniform.q_in == 2 && uniform.k_in == 2 && uniform.v_in == 2);
    CHECK(uniform.qk == 3 && uniform.v == 3 && uniform.out == 5);

    /* A length that there is not is the largest one. */
    const mha_shape huge = { SIZE_MAX, SIZE_MAX, SIZE_MAX };
    CHECK(mha_scratch_len(&layer.config, huge) == SIZE_MAX);
    CHECK(mha_y_len(&layer.config, huge) == SIZE_MAX);
    CHECK(mha_scores_len(&layer.config, huge) == SIZE_MAX);
    const mha_config *nothing = NULL;
    CHECK(mha_scratch_len(nothing, shape) == SIZE_MAX);
    CHECK(mha_min_scratch_len(nothing, shape) == SIZE_MAX);
    CHECK(mha_y_len(nothing, shape) == SIZE_MAX);
    CHECK(mha_scores_len(nothing, shape) == SIZE_MAX);
    CHECK(mha_weights_len(nothing) == SIZE_MAX);
    CHECK(mha_biases_len(nothing) == SIZE_MAX);
    CHECK(mha_split_row(nothing, shape, NULL, 0, 2) == SIZE_MAX);
    CHECK(mha_attention_scratch_len(NULL, shape) == SIZE_MAX);
    CHECK(mha_attention_min_scratch_len(NULL) == SIZE_MAX);
    CHECK(mha_attention_scores_len(NULL, shape) == SIZE_MAX);

    /* What the macros size is what a call takes. */
    static float x[3 * 8], kv[5 * 8];
    const mha_inputs inputs = { .q = MHA_SLICE(x), .k = MHA_SLICE(kv) };
    const mha_outputs outputs = { .y = MHA_SLICE(y), .scores = MHA_SLICE(scores) };
    CHECK(mha_forward(&layer, shape, &inputs, &outputs, scratch, MHA_COUNT(scratch)) == MHA_OK);
    CHECK(mha_forward(&layer, shape, &inputs, &outputs, least, MHA_COUNT(least)) == MHA_OK);
    CHECK(mha_forward(&layer, shape, &inputs, &outputs, least, MHA_COUNT(least) - 1)
          == MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_SCRATCH));
    return verdict("sizes");
}
