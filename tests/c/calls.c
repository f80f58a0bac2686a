/* What a call computes in C's own terms: what is left out, what may be empty, what may be shared.
   The numbers themselves are checked by the cases; here one call is compared with another. */
#include <math.h>
#include <stdint.h>

#include "mha.h"
#include "test.h"

enum { N = 6, HEADS = 2, BATCH = 2, Q = 3, KV = 5 };

static float wq[N * N], wk[N * N], wv[N * N], wo[N * N], bq[N], bk[N], bv[N], bo[N];
static const mha_layer layer = {
    .config = MHA_CONFIG(N, HEADS),
    .weights = { MHA_SLICE(wq), MHA_SLICE(wk), MHA_SLICE(wv), MHA_SLICE(wo), MHA_SLICE(bq),
                 MHA_SLICE(bk), MHA_SLICE(bv), MHA_SLICE(bo) },
};
static const mha_attention attention = { .heads = HEADS, .qk = N, .v = N };
static const mha_shape shape = { BATCH, Q, KV };
static float q[BATCH * Q * N], k[BATCH * KV * N], v[BATCH * KV * N];
static float scratch[MHA_SCRATCH_LEN(N, HEADS, Q, KV)];
static float y[2][BATCH * Q * N], scores[2][BATCH * HEADS * Q * KV];

/* Runs a layer into y[to] and scores[to]. */
static mha_status run(int to, const mha_layer *with, const mha_inputs *inputs)
{
    const mha_outputs outputs = { .y = MHA_SLICE(y[to]), .scores = MHA_SLICE(scores[to]) };
    return mha_forward(with, shape, inputs, &outputs, scratch, MHA_COUNT(scratch));
}

static int same(void)
{
    return same_bits(y[0], y[1], MHA_COUNT(y[0]))
           && same_bits(scores[0], scores[1], MHA_COUNT(scores[0]));
}

static const mha_inputs all = { .q = MHA_SLICE(q), .k = MHA_SLICE(k), .v = MHA_SLICE(v) };

static void lengths_of_weights_are_optional(void)
{
    mha_layer pointers = { .config = MHA_CONFIG(N, HEADS) };
    pointers.weights.wq.data = wq;
    pointers.weights.wk.data = wk;
    pointers.weights.wv.data = wv;
    pointers.weights.wo.data = wo;
    pointers.weights.bq.data = bq;
    pointers.weights.bk.data = bk;
    pointers.weights.bv.data = bv;
    pointers.weights.bo.data = bo;
    CHECK(mha_layer_check(&pointers) == MHA_OK);
    CHECK(run(0, &layer, &all) == MHA_OK);
    CHECK(run(1, &pointers, &all) == MHA_OK);
    CHECK(same());

    /* One flat array of them. */
    static float flat[4 * N * N + 4 * N];
    const float *const parts[] = { wq, wk, wv, wo, bq, bk, bv, bo };
    float *next = flat;
    for (size_t i = 0; i < MHA_COUNT(parts); ++i) {
        const size_t len = i < 4 ? N * N : N;
        memcpy(next, parts[i], len * sizeof *next);
        next += len;
    }
    mha_layer split = { .config = MHA_CONFIG(N, HEADS) };
    CHECK(MHA_COUNT(flat) == mha_weights_len(&split.config) + mha_biases_len(&split.config));
    CHECK(mha_weights_from_flat(&split.config, flat, MHA_COUNT(flat), &split.weights) == MHA_OK);
    CHECK(split.weights.bo.data == flat + 4 * N * N + 3 * N && split.weights.bo.len == N);
    CHECK(run(1, &split, &all) == MHA_OK);
    CHECK(same());
    CHECK(mha_weights_from_flat(&split.config, flat, 4 * N * N, &split.weights) == MHA_OK);
    CHECK(split.weights.bq.data == NULL && split.weights.bq.len == 0);
    CHECK(mha_layer_check(&split) == MHA_OK);
}

static void inputs_that_are_left_out(void)
{
    /* q and k: the values are the keys. */
    const mha_inputs cross = { .q = MHA_SLICE(q), .k = MHA_SLICE(k) };
    const mha_inputs cross_said = { .q = MHA_SLICE(q), .k = MHA_SLICE(k), .v = MHA_SLICE(k) };
    CHECK(run(0, &layer, &cross_said) == MHA_OK);
    CHECK(run(1, &layer, &cross) == MHA_OK);
    CHECK(same());

    /* q alone: self-attention. */
    const mha_shape square = { BATCH, Q, Q };
    const mha_inputs self = { .q = MHA_SLICE(q) };
    const mha_inputs self_said = { .q = MHA_SLICE(q), .k = MHA_SLICE(q), .v = MHA_SLICE(q) };
    const mha_outputs to_0 = { .y = MHA_SLICE(y[0]) }, to_1 = { .y = MHA_SLICE(y[1]) };
    CHECK(mha_forward(&layer, square, &self_said, &to_0, scratch, MHA_COUNT(scratch)) == MHA_OK);
    CHECK(mha_forward(&layer, square, &self, &to_1, scratch, MHA_COUNT(scratch)) == MHA_OK);
    CHECK(same_bits(y[0], y[1], MHA_COUNT(y[0])));
    /* That is no way out of a wrong shape. */
    CHECK(run(0, &layer, &self) == MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_K));

    /* A scale that is said. */
    mha_layer scaled = layer;
    scaled.config.has_scale = 1;
    scaled.config.scale = 0.0f;
    CHECK(run(0, &scaled, &all) == MHA_OK);
    for (size_t i = 0; i < MHA_COUNT(scores[0]); ++i) CHECK(fabsf(scores[0][i] - 1.0f / (float)KV) < 1e-6f);
}

static void masks(void)
{
    /* The causal rule three ways: the rule, a mask, a bias; and with extents left out. */
    static uint8_t mask[Q * KV];
    static float bias[Q * KV];
    static ptrdiff_t offsets[BATCH] = { 0, 0 };
    for (size_t i = 0; i < Q; ++i)
        for (size_t j = 0; j < KV; ++j) {
            mask[i * KV + j] = j <= i ? 0x80 : 0;
            bias[i * KV + j] = j <= i ? 0.0f : -INFINITY;
        }
    mha_inputs inputs = all;
    inputs.causal = (mha_causal)MHA_CAUSAL;
    CHECK(run(0, &layer, &inputs) == MHA_OK);
    CHECK(scores[0][0] == 1.0f && scores[0][1] == 0.0f);

    inputs.causal = (mha_causal){ .mode = MHA_CAUSAL_MODE_PER_SEQUENCE, .offsets = offsets,
                                  .offsets_len = BATCH };
    CHECK(run(1, &layer, &inputs) == MHA_OK && same());

    inputs = all;
    inputs.mask = (mha_mask){ mask, MHA_COUNT(mask), { 1, 1, Q, KV }, 0 };
    CHECK(run(1, &layer, &inputs) == MHA_OK && same());
    inputs.mask = (mha_mask){ mask, MHA_COUNT(mask), { 1, 1, 0, 0 }, 0 };
    CHECK(run(1, &layer, &inputs) == MHA_OK && same());

    inputs = all;
    inputs.bias = (mha_bias){ bias, MHA_COUNT(bias), { 1, 1, 0, KV } };
    CHECK(run(1, &layer, &inputs) == MHA_OK && same());

    /* An offset that leaves queries without a key: the scores are 0 and y is the output's bias. */
    inputs = all;
    inputs.causal = (mha_causal){ .mode = MHA_CAUSAL_MODE_OFFSET, .offset = -Q };
    CHECK(run(0, &layer, &inputs) == MHA_OK);
    for (size_t i = 0; i < MHA_COUNT(scores[0]); ++i) CHECK(scores[0][i] == 0.0f);
    for (size_t i = 0; i < MHA_COUNT(y[0]); ++i) CHECK(y[0][i] == bo[i % N]);
}

static void dropout(void)
{
    mha_inputs inputs = all;
    CHECK(run(0, &layer, &inputs) == MHA_OK);
    inputs.dropout = (mha_dropout){ .p = 0.5f, .seed = 1 };
    CHECK(run(1, &layer, &inputs) == MHA_OK);
    size_t dropped = 0;
    for (size_t i = 0; i < MHA_COUNT(scores[0]); ++i) {
        CHECK(scores[1][i] == 0.0f || scores[1][i] == 2.0f * scores[0][i]);
        dropped += scores[1][i] == 0.0f;
    }
    CHECK(dropped > 0 && dropped < MHA_COUNT(scores[0]));
    inputs.dropout.p = 0.0f;
    CHECK(run(1, &layer, &inputs) == MHA_OK && same());
}

static void nothing_to_do(void)
{
    /* Empty buffers need no pointers. */
    const mha_inputs inputs = { 0 };
    const mha_outputs outputs = { 0 };
    const mha_shape no_batch = { 0, Q, KV }, no_queries = { BATCH, 0, 0 };
    CHECK(mha_forward(&layer, no_batch, &inputs, &outputs, scratch, MHA_COUNT(scratch)) == MHA_OK);
    CHECK(mha_forward(&layer, no_queries, &inputs, &outputs, scratch, MHA_COUNT(scratch)) == MHA_OK);
    CHECK(mha_dot_product_attention(&attention, MHA_ISA_FASTEST, no_queries, &inputs, &outputs,
                                    scratch, MHA_COUNT(scratch))
          == MHA_OK);

    /* No keys: y is the output's bias. */
    const mha_shape no_keys = { BATCH, Q, 0 };
    const mha_inputs queries = { .q = MHA_SLICE(q) };
    const mha_outputs to_y = { .y = MHA_SLICE(y[0]) };
    CHECK(mha_forward(&layer, no_keys, &queries, &to_y, scratch, MHA_COUNT(scratch)) == MHA_OK);
    for (size_t i = 0; i < MHA_COUNT(y[0]); ++i) CHECK(y[0][i] == bo[i % N]);
}

static void rows(void)
{
    CHECK(run(0, &layer, &all) == MHA_OK);
    for (size_t row = 0; row < BATCH * Q; ++row) {
        const mha_outputs outputs = { .y = { y[1] + row * N, N } };
        CHECK(mha_forward_rows(&layer, shape, row, row + 1, &all, &outputs, scratch,
                               MHA_COUNT(scratch))
              == MHA_OK);
    }
    CHECK(same_bits(y[0], y[1], MHA_COUNT(y[0])));
    /* None is no error. */
    const mha_outputs none = { 0 };
    CHECK(mha_forward_rows(&layer, shape, 4, 4, &all, &none, scratch, MHA_COUNT(scratch)) == MHA_OK);
}

static void scratch_and_instructions(void)
{
    static float least[MHA_MIN_SCRATCH_LEN(N, HEADS, KV)];
    const mha_outputs outputs = { .y = MHA_SLICE(y[1]), .scores = MHA_SLICE(scores[1]) };
    for (int32_t isa = MHA_ISA_FASTEST; isa <= MHA_ISA_SIMD128; ++isa) {
        mha_layer on = layer;
        on.isa = isa;
        if (mha_isa_name(isa) == NULL) {
            CHECK(mha_layer_check(&on) == MHA_STATUS(MHA_KIND_VALUE, MHA_ARGUMENT_ISA));
            continue;
        }
        /* Less scratch, the same bits. */
        CHECK(run(0, &on, &all) == MHA_OK);
        CHECK(mha_forward(&on, shape, &all, &outputs, least, MHA_COUNT(least)) == MHA_OK);
        CHECK(same());
    }
    CHECK(mha_isa_name(mha_detect()) != NULL);
    CHECK(strcmp(mha_isa_name(mha_detect()), mha_isa_name(MHA_ISA_FASTEST)) == 0);
    CHECK(strcmp(mha_isa_name(MHA_ISA_PORTABLE), "portable") == 0);
    CHECK(mha_isa_name(-1) == NULL && mha_isa_name(99) == NULL);
}

/* Attention without projections, against a layer whose projections are identities. */
static void without_projections(void)
{
    static float identity[N * N];
    CHECK(mha_init_identity(identity, MHA_COUNT(identity), N, NULL) == MHA_OK);
    const mha_layer plain = {
        .config = MHA_CONFIG(N, HEADS),
        .weights = { .wq = MHA_SLICE(identity), .wk = MHA_SLICE(identity),
                     .wv = MHA_SLICE(identity), .wo = MHA_SLICE(identity) },
    };
    const mha_outputs outputs = { .y = MHA_SLICE(y[1]), .scores = MHA_SLICE(scores[1]) };
    CHECK(run(0, &plain, &all) == MHA_OK);
    CHECK(mha_attention_check(&attention) == MHA_OK);
    CHECK(mha_dot_product_attention(&attention, MHA_ISA_FASTEST, shape, &all, &outputs, scratch,
                                    MHA_COUNT(scratch))
          == MHA_OK);
    CHECK(same());
    memset(scores[1], 0, sizeof scores[1]);
    const mha_inputs no_values = { .q = MHA_SLICE(q), .k = MHA_SLICE(k) };
    CHECK(mha_dot_product_attention_scores(&attention, MHA_ISA_FASTEST, shape, &no_values, scores[1],
                                           MHA_COUNT(scores[1]), scratch, MHA_COUNT(scratch))
          == MHA_OK);
    CHECK(same());
}

static void both_weight_orders(void)
{
    static float transposed[4][N * N];
    const float *const weights[] = { wq, wk, wv, wo };
    for (size_t w = 0; w < 4; ++w)
        for (size_t i = 0; i < N * N; ++i)
            transposed[w][i % N * N + i / N] = weights[w][i];
    mha_layer other = layer;
    other.config.weight_order = MHA_WEIGHT_ORDER_OUT_IN;
    other.weights.wq.data = transposed[0];
    other.weights.wk.data = transposed[1];
    other.weights.wv.data = transposed[2];
    other.weights.wo.data = transposed[3];
    CHECK(run(0, &layer, &all) == MHA_OK);
    CHECK(run(1, &other, &all) == MHA_OK && same());
}

static void initialisers(void)
{
    static float a[N * N], b[N * N];
    mha_rng rng = { 42 }, again = { 42 };
    CHECK(mha_init_glorot_uniform(a, N * N, N, N, &rng) == MHA_OK);
    CHECK(mha_init_glorot_uniform(b, N * N, N, N, &again) == MHA_OK);
    CHECK(same_bits(a, b, N * N) && rng.state == again.state && rng.state != 42);
    const float bound = sqrtf(6.0f / (float)(2 * N));
    for (size_t i = 0; i < N * N; ++i) CHECK(fabsf(a[i]) <= bound);
    CHECK(mha_init_glorot_uniform(b, N * N, N, N, &again) == MHA_OK);
    CHECK(!same_bits(a, b, N * N));
    CHECK(mha_init_glorot_normal(a, N * N, N, N, &rng) == MHA_OK);
    CHECK(mha_init_kaiming_uniform(a, N * N, N, &rng) == MHA_OK);
    CHECK(mha_init_kaiming_normal(a, N * N, N, &rng) == MHA_OK);
    CHECK(mha_init_truncated_normal(a, N * N, NULL, &rng) == MHA_OK);
    for (size_t i = 0; i < N * N; ++i) CHECK(fabsf(a[i]) <= 2.0f);
    const mha_truncated_normal cut = { .mean = 5.0f, .deviation = 1.0f, .low = 5.0f, .high = 6.0f };
    CHECK(mha_init_truncated_normal(a, N * N, &cut, &rng) == MHA_OK);
    for (size_t i = 0; i < N * N; ++i) CHECK(a[i] >= 5.0f && a[i] <= 6.0f);
    const float two = 2.0f;
    CHECK(mha_init_orthogonal(a, N * N, N, &two, &rng) == MHA_OK);
    for (size_t i = 0; i < N; ++i)
        for (size_t j = 0; j < N; ++j) {
            float dot = 0.0f;
            for (size_t e = 0; e < N; ++e) dot += a[i * N + e] * a[j * N + e];
            CHECK(fabsf(dot - (i == j ? 4.0f : 0.0f)) < 1e-5f);
        }
    CHECK(mha_init_identity(a, N * N, N, &two) == MHA_OK && a[0] == 2.0f && a[1] == 0.0f);
    CHECK(mha_init_zeros(a, N * N) == MHA_OK && a[0] == 0.0f && a[N * N - 1] == 0.0f);
    CHECK(mha_init_ones(a, N * N) == MHA_OK && a[0] == 1.0f && a[N * N - 1] == 1.0f);
    CHECK(mha_init_ones(NULL, 0) == MHA_OK);
}

static void versions(void)
{
    char text[32];
    CHECK(mha_version() == MHA_VERSION);
    (void)snprintf(text, sizeof text, "%d.%d.%d", MHA_VERSION_MAJOR, MHA_VERSION_MINOR,
                   MHA_VERSION_PATCH);
    CHECK(strcmp(mha_version_string(), text) == 0);
}

int main(void)
{
    fill(q, MHA_COUNT(q), 1);
    fill(k, MHA_COUNT(k), 2);
    fill(v, MHA_COUNT(v), 3);
    float *const weights[] = { wq, wk, wv, wo };
    for (unsigned i = 0; i < 4; ++i) fill(weights[i], N * N, 10 + i);
    float *const biases[] = { bq, bk, bv, bo };
    for (unsigned i = 0; i < 4; ++i) fill(biases[i], N, 20 + i);

    CHECK(mha_config_check(&layer.config) == MHA_OK);
    CHECK(mha_layer_check(&layer) == MHA_OK);
    lengths_of_weights_are_optional();
    inputs_that_are_left_out();
    masks();
    dropout();
    nothing_to_do();
    rows();
    scratch_and_instructions();
    without_projections();
    both_weight_orders();
    initialisers();
    versions();
    return verdict("calls");
}
