/* Two other static libraries of Rust, made by whatever compilers there are, in one program with this
   one: each keeps its own run-time, and none takes another's. */
#include <math.h>
#include <stdio.h>

#include "mha.h"

float neighbour_one(float x);
float neighbour_two(float x);

static const float identity[2 * 2] = { 1.0f, 0.0f, 0.0f, 1.0f };
static const mha_layer layer = {
    .config = MHA_CONFIG(2, 1),
    .weights = { .wq = MHA_SLICE(identity), .wk = MHA_SLICE(identity),
                 .wv = MHA_SLICE(identity), .wo = MHA_SLICE(identity) },
    .isa = MHA_ISA_PORTABLE,
};

int main(void)
{
    const float x[] = { 0.0f, 1.0f, 1.0f, 0.0f };
    float y[4], scratch[MHA_SCRATCH_LEN(2, 1, 2, 2)];
    const mha_shape shape = { .batch = 1, .q_len = 2, .kv_len = 2 };
    const mha_inputs inputs = { .q = MHA_SLICE(x) };
    const mha_outputs outputs = { .y = MHA_SLICE(y) };
    const float before = neighbour_one(1.5f);
    if (mha_forward(&layer, shape, &inputs, &outputs, scratch, MHA_COUNT(scratch)) != MHA_OK) return 1;
    const float after = neighbour_two(1.5f);
    /* The C library's function, and a series. */
    if (fabsf(before - expf(1.5f)) > 1e-6f || fabsf(after - before) > 1e-6f) return 2;
    /* softmax of (0, 1/sqrt 2) */
    if (fabsf(y[1] - 0.669762f) > 1e-5f) return 3;
    puts("three of them in one program");
    return 0;
}
