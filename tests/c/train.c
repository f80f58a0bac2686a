/* Four threads share the way back: the library cuts the call into parts of equal cost, each thread has
   gradients and scratch of its own, and their sum trains a small layer to answer with the mean of what it
   sees. */
#include <pthread.h>
#include <stdio.h>

#include "mha.h"

enum { WIDTH = 8, HEADS = 4, BATCH = 6, LENGTH = 10, THREADS = 4, STEPS = 60 };
enum { ROWS = BATCH * LENGTH, WEIGHTS = 4 * WIDTH * WIDTH };

static float w[WEIGHTS], x[ROWS * WIDTH], goal[ROWS * WIDTH], y[ROWS * WIDTH], dy[ROWS * WIDTH];
static const mha_layer layer = {
    .config = { .dims = MHA_DIMS(WIDTH), .heads = HEADS },
    .weights = { .wq = { w, WIDTH * WIDTH },
                 .wk = { w + WIDTH * WIDTH, WIDTH * WIDTH },
                 .wv = { w + 2 * WIDTH * WIDTH, WIDTH * WIDTH },
                 .wo = { w + 3 * WIDTH * WIDTH, WIDTH * WIDTH } },
};
static const mha_shape shape = { .batch = BATCH, .q_len = LENGTH, .kv_len = LENGTH };
static const mha_inputs inputs = { .q = MHA_SLICE(x) };
static const mha_upstream upstream = { .dy = MHA_SLICE(dy) };
static float scratch[1 << 14];

struct share {
    pthread_t thread;
    mha_part part;
    mha_status status;
    float dw[WEIGHTS];
    float scratch[1 << 14];
};
static struct share shares[THREADS];

/* What one thread adds to the gradients of the weights. */
static void *back(void *argument)
{
    struct share *share = argument;
    mha_gradients gradients = { 0 };
    share->status = mha_gradients_from_flat(&layer.config, share->dw, MHA_COUNT(share->dw), &gradients);
    if (share->status == MHA_OK)
        share->status = mha_backward_part(&layer, shape, share->part, &inputs, NULL, &upstream, &gradients,
                                          share->scratch, MHA_COUNT(share->scratch));
    return NULL;
}

/* dw = the gradients of all weights, by all threads. The sum has an order, so its bits are the same each time. */
static mha_status share_back(float *dw)
{
    for (size_t i = 0; i < THREADS; ++i) {
        shares[i].part = mha_split_backward(&layer.config, shape, i, THREADS);
        if (pthread_create(&shares[i].thread, NULL, back, &shares[i]) != 0) return -1;
    }
    mha_status s = MHA_OK;
    for (size_t j = 0; j < WEIGHTS; ++j) dw[j] = 0.0f;
    for (size_t i = 0; i < THREADS; ++i) {
        pthread_join(shares[i].thread, NULL);
        if (shares[i].status != MHA_OK) s = shares[i].status;
        for (size_t j = 0; j < WEIGHTS; ++j) dw[j] += shares[i].dw[j];
    }
    return s;
}

/* Half the mean square of what y is off by, and in dy its gradient. */
static float loss(void)
{
    float sum = 0.0f;
    for (size_t i = 0; i < MHA_COUNT(y); ++i) {
        const float off = y[i] - goal[i];
        dy[i] = off / (float)MHA_COUNT(y);
        sum += 0.5f * off * dy[i];
    }
    return sum;
}

/* The largest of the numbers' sizes. */
static float most(const float *a, const float *b)
{
    float most = 0.0f;
    for (size_t i = 0; i < WEIGHTS; ++i) {
        const float off = a[i] - (b != NULL ? b[i] : 0.0f);
        if (most < off) most = off;
        if (most < -off) most = -off;
    }
    return most;
}

int main(void)
{
    static float dw[WEIGHTS], whole[WEIGHTS];
    mha_rng rng = { 1 };
    mha_status s = mha_init_glorot_uniform(w, MHA_COUNT(w), WIDTH, WIDTH, &rng);
    for (size_t i = 0; i < MHA_COUNT(x); ++i) x[i] = (float)(i * i % 23) / 11.0f - 1.0f;
    for (size_t i = 0; i < MHA_COUNT(x); ++i) { /* each row's goal is its sequence's mean */
        const size_t first = i / (LENGTH * WIDTH) * (LENGTH * WIDTH) + i % WIDTH;
        for (size_t t = 0; t < LENGTH; ++t) goal[i] += x[first + t * WIDTH] / (float)LENGTH;
    }
    const mha_outputs outputs = { .y = MHA_SLICE(y) };
    float first = 0.0f, last = 0.0f, apart = 0.0f;
    for (int step = 0; step < STEPS && s == MHA_OK; ++step) {
        s = mha_forward(&layer, shape, &inputs, &outputs, scratch, MHA_COUNT(scratch));
        if (s != MHA_OK) break;
        last = loss();
        s = share_back(dw);
        if (step == 0) {
            mha_gradients gradients = { 0 };
            first = last;
            if (s == MHA_OK) s = mha_gradients_from_flat(&layer.config, whole, WEIGHTS, &gradients);
            if (s == MHA_OK)
                s = mha_backward(&layer, shape, &inputs, NULL, &upstream, &gradients, scratch,
                                 MHA_COUNT(scratch));
            apart = most(dw, whole) / most(whole, NULL);
        }
        for (size_t i = 0; i < WEIGHTS; ++i) w[i] -= 3.0f * dw[i];
    }
    if (s != MHA_OK) {
        puts(mha_backward_status_message(s));
        return 1;
    }
    printf("four threads give what one does: %s; the loss falls to less than a tenth: %s\n",
           apart < 1e-5f ? "yes" : "no", last < 0.1f * first ? "yes" : "no");
    return 0;
}
