/* A sensor that never stops: a ring cache holds the last 48 frames, and every frame attends to them. */
#include <stdio.h>

#include "mha.h"

enum { WIDTH = 8, HEADS = 2, FRAMES = 48 };

/* Trained weights would stand here; `const`, so they stay in flash. */
static const float w[WIDTH * WIDTH] = { 0.5f, 0.25f };
static const mha_layer layer = {
    .config = MHA_CONFIG(WIDTH, HEADS),
    .weights = { .wq = MHA_SLICE(w), .wk = MHA_SLICE(w), .wv = MHA_SLICE(w), .wo = MHA_SLICE(w) },
};

/* All memory there is, sized by the compiler. A cache whose state is zero is empty. */
static float keys[MHA_CACHE_KEYS_LEN(WIDTH, HEADS, HEADS, 1, FRAMES)];
static float values[MHA_CACHE_VALUES_LEN(WIDTH, HEADS, HEADS, 1, FRAMES)];
static mha_cache cache = {
    .attention = { .heads = HEADS, .qk = WIDTH, .v = WIDTH },
    .config = { .capacity = FRAMES, .ring = 1 },
    .keys = MHA_SLICE(keys),
    .values = MHA_SLICE(values),
};
static float scratch[MHA_CACHED_SCRATCH_LEN(WIDTH, WIDTH, HEADS, HEADS, 1)];

/* One frame in, one answer out; called for ever. */
static mha_status on_frame(const float frame[WIDTH], float y[WIDTH])
{
    const mha_inputs inputs = { .q = { frame, WIDTH } };
    const mha_outputs outputs = { .y = { y, WIDTH } };
    mha_status s = mha_append(&layer, &cache, frame, WIDTH, NULL, 0, NULL);
    if (s == MHA_OK)
        s = mha_attend(&layer, &cache, 1, &inputs, NULL, &outputs, scratch, MHA_COUNT(scratch));
    return s;
}

int main(void)
{
    for (int t = 0; t < 1000; ++t) {
        float frame[WIDTH] = { 0 }, y[WIDTH];
        frame[t % WIDTH] = 1.0f;
        const mha_status s = on_frame(frame, y);
        if (s != MHA_OK) {
            puts(mha_status_message(s));
            return 1;
        }
    }
    printf("%lu frames, the last %lu kept\n", (unsigned long)cache.state.len,
           (unsigned long)mha_cache_stored(&cache));
    return 0;
}
