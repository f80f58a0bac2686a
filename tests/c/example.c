/* One query that is equally far from two keys: the output is the mean of their values. */
#include <stdio.h>

#include "mha.h"

/* Trained weights would stand here; `const`, so they stay in flash. */
static const float identity[2 * 2] = { 1.0f, 0.0f, 0.0f, 1.0f };

static const mha_layer layer = {
    .config = MHA_CONFIG(2, 1), /* 2 wide, 1 head */
    .weights = { .wq = MHA_SLICE(identity), .wk = MHA_SLICE(identity),
                 .wv = MHA_SLICE(identity), .wo = MHA_SLICE(identity) },
};
static float scratch[MHA_SCRATCH_LEN(2, 1, /*q_len*/ 1, /*kv_len*/ 2)];

int main(void)
{
    const float q[] = { 0.0f, 1.0f };
    const float k[] = { 1.0f, 0.0f, -1.0f, 0.0f };
    const float v[] = { 2.0f, 4.0f, 4.0f, 8.0f };
    float y[2], scores[2];

    const mha_shape shape = { .batch = 1, .q_len = 1, .kv_len = 2 };
    const mha_inputs inputs = { .q = MHA_SLICE(q), .k = MHA_SLICE(k), .v = MHA_SLICE(v) };
    const mha_outputs outputs = { .y = MHA_SLICE(y), .scores = MHA_SLICE(scores) };
    mha_status s = mha_forward(&layer, shape, &inputs, &outputs, scratch, MHA_COUNT(scratch));
    if (s != MHA_OK) {
        puts(mha_status_message(s));
        return 1;
    }
    printf("y = %g %g, scores = %g %g\n", y[0], y[1], scores[0], scores[1]);
    return 0; /* y = 3 6, scores = 0.5 0.5 */
}
