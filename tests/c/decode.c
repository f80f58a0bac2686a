/* A decoder's layer, token by token: grouped heads, rotary positions, a linear cache. */
#include <stdio.h>
#include <string.h>

#include "mha.h"

enum { WIDTH = 16, HEADS = 4, KV_HEADS = 2, TOKENS = 12 };

static float w[WIDTH * WIDTH], x[TOKENS * WIDTH];
static const mha_layer layer = {
    .config = { .dims = MHA_DIMS(WIDTH), .heads = HEADS, .kv_heads = KV_HEADS },
    .weights = { .wq = MHA_SLICE(w), .wk = { w, WIDTH *WIDTH / 2 }, .wv = { w, WIDTH *WIDTH / 2 },
                 .wo = MHA_SLICE(w) },
};
static const mha_options options = {
    .rope = { .kind = MHA_ROPE_KIND_BASE, .base = 10000.0f },
};

static float keys[MHA_CACHE_KEYS_LEN(WIDTH, HEADS, KV_HEADS, 1, TOKENS)];
static float values[MHA_CACHE_VALUES_LEN(WIDTH, HEADS, KV_HEADS, 1, TOKENS)];
static mha_cache cache = {
    .attention = { .heads = HEADS, .qk = WIDTH, .v = WIDTH, .kv_heads = KV_HEADS },
    .config = { .capacity = TOKENS },
    .keys = MHA_SLICE(keys),
    .values = MHA_SLICE(values),
};
static float scratch[MHA_SCRATCH_LEN_GROUPED(WIDTH, WIDTH, HEADS, KV_HEADS, 1, TOKENS, TOKENS)];

int main(void)
{
    for (size_t i = 0; i < MHA_COUNT(w); ++i) w[i] = (float)(i * 7 % 13) / 13.0f - 0.5f;
    for (size_t i = 0; i < MHA_COUNT(x); ++i) x[i] = (float)(i * 5 % 11) / 11.0f - 0.5f;

    /* Each token sees those before it and itself: with a cache the causal rule knows where it is. */
    const mha_causal causal = { .mode = MHA_CAUSAL_MODE_NATURAL };
    static float y[TOKENS * WIDTH], whole[TOKENS * WIDTH];
    mha_status s = MHA_OK;
    for (size_t t = 0; t < TOKENS && s == MHA_OK; ++t) {
        const float *token = x + t * WIDTH;
        const mha_inputs inputs = { .q = { token, WIDTH }, .causal = causal };
        const mha_outputs outputs = { .y = { y + t * WIDTH, WIDTH } };
        s = mha_append(&layer, &cache, token, WIDTH, NULL, 0, &options);
        if (s == MHA_OK)
            s = mha_attend(&layer, &cache, 1, &inputs, &options, &outputs, scratch, MHA_COUNT(scratch));
    }

    const mha_shape shape = { .batch = 1, .q_len = TOKENS, .kv_len = TOKENS };
    const mha_inputs inputs = { .q = MHA_SLICE(x), .causal = causal };
    const mha_outputs outputs = { .y = MHA_SLICE(whole) };
    if (s == MHA_OK)
        s = mha_forward_with(&layer, shape, &inputs, &options, &outputs, scratch, MHA_COUNT(scratch));
    if (s != MHA_OK) {
        puts(mha_status_message(s));
        return 1;
    }
    /* Not nearly: bit for bit. */
    printf("token by token is the whole at once: %s\n",
           memcmp(y, whole, sizeof y) == 0 ? "yes" : "no");
    return 0;
}
