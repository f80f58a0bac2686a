/* Four threads share a causal call: the library cuts its rows into parts of equal cost, each thread has
   scratch of its own, and y has the bits that one thread gives. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "mha.h"

enum { WIDTH = 16, HEADS = 4, LENGTH = 100, THREADS = 4 };

static float w[WIDTH * WIDTH], x[LENGTH * WIDTH], y[LENGTH * WIDTH], whole[LENGTH * WIDTH];
static const mha_layer layer = {
    .config = { .dims = MHA_DIMS(WIDTH), .heads = HEADS },
    .weights = { .wq = MHA_SLICE(w), .wk = MHA_SLICE(w), .wv = MHA_SLICE(w), .wo = MHA_SLICE(w) },
};
static const mha_shape shape = { .batch = 1, .q_len = LENGTH, .kv_len = LENGTH };
static const mha_inputs inputs = {
    .q = MHA_SLICE(x),
    .causal = { .mode = MHA_CAUSAL_MODE_NATURAL },
};

struct part {
    pthread_t thread;
    size_t start, end;
    mha_status status;
    float scratch[MHA_SCRATCH_LEN(WIDTH, HEADS, LENGTH, LENGTH)];
};
static struct part parts[THREADS];

static void *compute(void *argument)
{
    struct part *part = argument;
    const size_t rows = part->end - part->start;
    const mha_outputs outputs = { .y = { y + part->start * WIDTH, rows * WIDTH } };
    part->status = mha_forward_rows(&layer, shape, part->start, part->end, &inputs, &outputs,
                                    part->scratch, MHA_COUNT(part->scratch));
    return NULL;
}

int main(void)
{
    for (size_t i = 0; i < MHA_COUNT(w); ++i) w[i] = (float)(i * 7 % 13) / 13.0f - 0.5f;
    for (size_t i = 0; i < MHA_COUNT(x); ++i) x[i] = (float)(i * 5 % 11) / 11.0f - 0.5f;

    for (size_t i = 0; i < THREADS; ++i) {
        parts[i].start = mha_split_row(&layer.config, shape, &inputs.causal, i, THREADS);
        parts[i].end = mha_split_row(&layer.config, shape, &inputs.causal, i + 1, THREADS);
        if (pthread_create(&parts[i].thread, NULL, compute, &parts[i]) != 0) return 1;
    }
    mha_status s = MHA_OK;
    for (size_t i = 0; i < THREADS; ++i) {
        pthread_join(parts[i].thread, NULL);
        if (parts[i].status != MHA_OK) s = parts[i].status;
    }

    const mha_outputs outputs = { .y = MHA_SLICE(whole) };
    if (s == MHA_OK)
        s = mha_forward(&layer, shape, &inputs, &outputs, parts[0].scratch,
                        MHA_COUNT(parts[0].scratch));
    if (s != MHA_OK) {
        puts(mha_status_message(s));
        return 1;
    }
    /* The later a query, the more it sees: the first part is the longest. */
    printf("rows %lu, %lu, %lu, %lu: the bits of one thread: %s\n",
           (unsigned long)(parts[0].end - parts[0].start), (unsigned long)(parts[1].end - parts[1].start),
           (unsigned long)(parts[2].end - parts[2].start), (unsigned long)(parts[3].end - parts[3].start),
           memcmp(y, whole, sizeof y) == 0 ? "yes" : "no");
    return 0;
}
