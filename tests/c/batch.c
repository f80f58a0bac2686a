/* Sequences of different lengths in one call: padded to the longest, or packed without padding. */
#include <stdio.h>
#include <string.h>

#include "mha.h"

enum { WIDTH = 8, HEADS = 2, LONG = 6, SHORT = 4 };

static float w[WIDTH * WIDTH], padded[2 * LONG * WIDTH], packed[(LONG + SHORT) * WIDTH];
static const mha_layer layer = {
    .config = MHA_CONFIG(WIDTH, HEADS),
    .weights = { .wq = MHA_SLICE(w), .wk = MHA_SLICE(w), .wv = MHA_SLICE(w), .wo = MHA_SLICE(w) },
};
static float scratch[MHA_SCRATCH_LEN_GROUPED(WIDTH, WIDTH, HEADS, HEADS, 2, LONG, LONG)];

static int failed(mha_status s)
{
    if (s != MHA_OK) puts(mha_status_message(s));
    return s != MHA_OK;
}

int main(void)
{
    for (size_t i = 0; i < MHA_COUNT(w); ++i) w[i] = (float)(i * 7 % 13) / 13.0f - 0.5f;
    for (size_t i = 0; i < MHA_COUNT(packed); ++i) packed[i] = (float)(i * 5 % 11) / 11.0f - 0.5f;
    /* The second sequence's last positions are padding: whatever lies there, nobody sees it. */
    memcpy(padded, packed, sizeof packed);

    static float y_padded[2 * LONG * WIDTH], y_packed[(LONG + SHORT) * WIDTH], y_alone[SHORT * WIDTH];
    static const size_t lens[] = { LONG, SHORT }, starts[] = { 0, LONG, LONG + SHORT };
    const mha_options options = { .lens = lens, .lens_len = 2 };
    const mha_shape two = { .batch = 2, .q_len = LONG, .kv_len = LONG };
    const mha_inputs with_padding = { .q = MHA_SLICE(padded) };
    const mha_outputs to_padded = { .y = MHA_SLICE(y_padded) };
    if (failed(mha_forward_with(&layer, two, &with_padding, &options, &to_padded, scratch,
                                MHA_COUNT(scratch))))
        return 1;

    const mha_inputs without = { .q = MHA_SLICE(packed) };
    const mha_outputs to_packed = { .y = MHA_SLICE(y_packed) };
    if (failed(mha_forward_packed(&layer, 2, starts, starts, &without, NULL, &to_packed, scratch,
                                  MHA_COUNT(scratch))))
        return 1;

    const mha_shape one = { .batch = 1, .q_len = SHORT, .kv_len = SHORT };
    const mha_inputs alone = { .q = { packed + LONG * WIDTH, SHORT * WIDTH } };
    const mha_outputs to_alone = { .y = MHA_SLICE(y_alone) };
    if (failed(mha_forward(&layer, one, &alone, &to_alone, scratch, MHA_COUNT(scratch)))) return 1;

    const int agree = memcmp(y_padded + LONG * WIDTH, y_alone, sizeof y_alone) == 0
                      && memcmp(y_packed + LONG * WIDTH, y_alone, sizeof y_alone) == 0;
    printf("padded, packed and alone agree: %s\n", agree ? "yes" : "no");
    return 0;
}
