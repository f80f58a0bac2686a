/* The way back through the C interface: parts add up to the whole, gradients can be left out and added
   to, and every status that only a way back can return is provoked, after which nothing has been
   written. (That the gradients are right is for the case files to say.) */
#include <math.h>

#include "mha.h"
#include "test.h"

enum {
    BATCH = 2, Q = 3, KV = 5, HEADS = 2, Q_IN = 3, K_IN = 4, V_IN = 5, QK = 6, V = 8, OUT = 7,
    FLAT = Q_IN * QK + K_IN * QK + V_IN * V + V * OUT + QK + QK + V + OUT,
    SCORES = BATCH * HEADS * Q * KV
};

static const mha_config config = { .dims = { Q_IN, K_IN, V_IN, QK, V, OUT }, .heads = HEADS };
static const mha_shape shape = { BATCH, Q, KV };
static float flat[FLAT], scratch[4096];
static float q[BATCH * Q * Q_IN], k[BATCH * KV * K_IN], v[BATCH * KV * V_IN], bias[Q * KV];
static float dy[BATCH * Q * OUT], dscores[SCORES];
static float result[BATCH * Q * OUT], kept[BATCH * (Q * (QK + V) + KV * (QK + V))];

/* Everything that is written, so that all of it can be compared. */
static struct written {
    float q[BATCH * Q * Q_IN], k[BATCH * KV * K_IN], v[BATCH * KV * V_IN], flat[FLAT], bias[Q * KV];
} to, before, sum;

static mha_layer layer;
static mha_inputs inputs;
static mha_upstream upstream;
static mha_gradients gradients;

/* The arguments of a good call. */
static void restore(void)
{
    layer = (mha_layer){ .config = config };
    CHECK(mha_weights_from_flat(&config, flat, FLAT, &layer.weights) == MHA_OK);
    inputs = (mha_inputs){ .q = MHA_SLICE(q), .k = MHA_SLICE(k), .v = MHA_SLICE(v),
                           .bias = { bias, MHA_COUNT(bias), { 1, 1, Q, KV } } };
    upstream = (mha_upstream){ .dy = MHA_SLICE(dy), .dscores = MHA_SLICE(dscores) };
    gradients = (mha_gradients){ .q = MHA_SLICE(to.q), .k = MHA_SLICE(to.k), .v = MHA_SLICE(to.v),
                                 .bias = MHA_SLICE(to.bias) };
    CHECK(mha_gradients_from_flat(&config, to.flat, FLAT, &gradients) == MHA_OK);
}

static mha_status back(const mha_options *options)
{
    return mha_backward(&layer, shape, &inputs, options, &upstream, &gradients, scratch,
                        mha_backward_scratch_len(&config, shape));
}

/* Calls, and sees that the status is the one and that nothing has been written. */
static void expect(const mha_options *options, mha_status status, const char *message)
{
    before = to;
    const mha_status got = back(options);
    CHECK(got == status);
    CHECK(memcmp(&to, &before, sizeof to) == 0);
    CHECK(strcmp(mha_backward_status_message(got), message) == 0);
    if (got != status || strcmp(mha_backward_status_message(got), message) != 0)
        printf("   %s, not %s\n", mha_backward_status_message(got), message);
    restore();
}

/* A pointer that is off by a byte. Through an integer: the compiler must not see it coming. */
#define OFF_BY_ONE(pointer) ((float *)((uintptr_t)(pointer) + 1))
#define GRADIENT(kind, argument) \
    MHA_STATUS(MHA_KIND_##kind, MHA_GRADIENT(MHA_ARGUMENT_##argument))

/* Members of the gradients, their arguments and names. */
#define EACH(X)                                                                                        \
    X(q, Q) X(k, K) X(v, V) X(wq, WQ) X(wk, WK) X(wv, WV) X(wo, WO) X(bq, BQ) X(bk, BK) X(bv, BV) X(bo, BO) \
    X(bias, BIAS)

static void statuses(void)
{
#define DEFECTS(member, ARGUMENT)                                                                  \
    gradients.member.data = NULL;                                                                  \
    expect(NULL, GRADIENT(NULL, ARGUMENT), "d" #member ": null pointer");                          \
    gradients.member.data = OFF_BY_ONE(gradients.member.data);                                     \
    expect(NULL, GRADIENT(MISALIGNED, ARGUMENT), "d" #member ": misaligned pointer");              \
    gradients.member.len = SIZE_MAX / 2;                                                           \
    expect(NULL, GRADIENT(TOO_LARGE, ARGUMENT), "d" #member ": too large");                        \
    gradients.member.len -= 1;                                                                     \
    expect(NULL, GRADIENT(LENGTH, ARGUMENT), "d" #member ": wrong length");                        \
    gradients.member.data = scratch + 1;                                                           \
    expect(NULL, GRADIENT(OVERLAP, ARGUMENT), "d" #member ": overlaps another buffer");            \
    gradients.member.data = dy;                                                                    \
    upstream.dy.len = MHA_COUNT(dy);                                                               \
    expect(NULL, GRADIENT(OVERLAP, ARGUMENT), "d" #member ": overlaps another buffer");
    EACH(DEFECTS)
#undef DEFECTS
    /* Two of them, and one with what is read. */
    gradients.wo = gradients.wk;
    expect(NULL, GRADIENT(OVERLAP, WO), "dwo: overlaps another buffer");
    gradients.q.data = k;
    expect(NULL, GRADIENT(OVERLAP, Q), "dq: overlaps another buffer");
    gradients.bo.data = flat;
    expect(NULL, GRADIENT(OVERLAP, BO), "dbo: overlaps another buffer");

    /* The gradient of something that there is not. */
#define ABSENT(member, ARGUMENT)                                                     \
    layer.weights.member = (mha_slice){ 0 };                                         \
    expect(NULL, GRADIENT(ABSENT, ARGUMENT), "d" #member ": the call has none");
    ABSENT(bq, BQ) ABSENT(bk, BK) ABSENT(bv, BV) ABSENT(bo, BO)
#undef ABSENT
    inputs.bias.data = NULL;
    inputs.bias.len = 0;
    expect(NULL, GRADIENT(ABSENT, BIAS), "dbias: the call has none");

    /* From above. */
    upstream.dy.len -= 1;
    expect(NULL, GRADIENT(LENGTH, Y), "dy: wrong length");
    upstream.dy.data = NULL;
    expect(NULL, GRADIENT(NULL, Y), "dy: null pointer");
    upstream.dy.data = OFF_BY_ONE(dy);
    expect(NULL, GRADIENT(MISALIGNED, Y), "dy: misaligned pointer");
    upstream.dy.len = SIZE_MAX / 2;
    expect(NULL, GRADIENT(TOO_LARGE, Y), "dy: too large");
    upstream.dscores.len += 1;
    expect(NULL, GRADIENT(LENGTH, SCORES), "dscores: wrong length");
    upstream.dscores.data = NULL;
    expect(NULL, GRADIENT(NULL, SCORES), "dscores: null pointer");
    upstream.dscores.data = OFF_BY_ONE(dscores);
    expect(NULL, GRADIENT(MISALIGNED, SCORES), "dscores: misaligned pointer");
    upstream.dscores.len = SIZE_MAX / 2;
    expect(NULL, GRADIENT(TOO_LARGE, SCORES), "dscores: too large");

    /* What has been kept. */
    upstream.kept = (mha_slice){ kept, MHA_COUNT(kept) - 1 };
    expect(NULL, MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_KEPT), "kept: wrong length");
    upstream.kept = (mha_slice){ NULL, MHA_COUNT(kept) };
    expect(NULL, MHA_STATUS(MHA_KIND_NULL, MHA_ARGUMENT_KEPT), "kept: null pointer");
    upstream.kept = (mha_slice){ OFF_BY_ONE(kept), MHA_COUNT(kept) };
    expect(NULL, MHA_STATUS(MHA_KIND_MISALIGNED, MHA_ARGUMENT_KEPT), "kept: misaligned pointer");
    upstream.kept = (mha_slice){ kept, SIZE_MAX / 2 };
    expect(NULL, MHA_STATUS(MHA_KIND_TOO_LARGE, MHA_ARGUMENT_KEPT), "kept: too large");
    upstream.kept = (mha_slice){ to.q, MHA_COUNT(kept) };
    expect(NULL, GRADIENT(OVERLAP, Q), "dq: overlaps another buffer");

    /* What reads is refused as on the way forward. */
    layer.weights.wq.data = NULL;
    expect(NULL, MHA_STATUS(MHA_KIND_NULL, MHA_ARGUMENT_WQ), "wq: null pointer");

    /* Options that there is no way back through. */
    const mha_options norm = { .norm = { .kind = MHA_NORM_KIND_RMS } };
    expect(&norm, MHA_STATUS(MHA_KIND_OPTION, MHA_ARGUMENT_NORM), "norm: no way back through it");
    static float extra_k[QK], extra_v[V], lse[BATCH * HEADS * Q];
    const mha_options extra = { .extra = { MHA_SLICE(extra_k), MHA_SLICE(extra_v) } };
    expect(&extra, MHA_STATUS(MHA_KIND_OPTION, MHA_ARGUMENT_EXTRA), "extra: no way back through it");
    const mha_options sums = { .lse = MHA_SLICE(lse) };
    expect(&sums, MHA_STATUS(MHA_KIND_OPTION, MHA_ARGUMENT_LSE), "lse: no way back through it");
    const mha_options mean = { .scores = MHA_SELECT_MEAN };
    expect(&mean, MHA_STATUS(MHA_KIND_OPTION, MHA_ARGUMENT_SCORES), "scores: no way back through it");

    /* The structs themselves, and what every call can have. */
    CHECK(mha_backward(&layer, shape, &inputs, NULL, NULL, &gradients, scratch, 4096)
          == GRADIENT(NULL, Y));
    const mha_status nowhere =
        mha_backward(&layer, shape, &inputs, NULL, &upstream, NULL, scratch, 4096);
    CHECK(nowhere == GRADIENT(NULL, NONE));
    CHECK(strcmp(mha_backward_status_message(nowhere), "gradients: null pointer") == 0);
    CHECK(mha_backward(&layer, shape, &inputs, NULL, &upstream, &gradients, scratch,
                       mha_min_backward_scratch_len(&config, shape) - 1)
          == MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_SCRATCH));
    const mha_part beyond = { 0, BATCH, 1, HEADS + 1 };
    const mha_status part = mha_backward_part(&layer, shape, beyond, &inputs, NULL, &upstream,
                                              &gradients, scratch, MHA_COUNT(scratch));
    CHECK(part == MHA_STATUS(MHA_KIND_RANGE, MHA_ARGUMENT_KV_HEADS));
    CHECK(strcmp(mha_backward_status_message(part), "kv_heads: out of range") == 0);
    CHECK(mha_gradients_from_flat(&config, to.flat, FLAT - 1, &gradients)
          == MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_WEIGHTS));
    CHECK(mha_gradients_from_flat(&config, to.flat, FLAT, NULL) == GRADIENT(NULL, NONE));
    const mha_gradients as_given = gradients;
    const mha_status itself =
        mha_gradients_from_flat(&config, (float *)(void *)&gradients, FLAT, &gradients);
    CHECK(itself == GRADIENT(OVERLAP, NONE));
    CHECK(memcmp(&gradients, &as_given, sizeof gradients) == 0);
    CHECK(strcmp(mha_backward_status_message(itself), "gradients: overlaps another buffer") == 0);
    CHECK(strcmp(mha_backward_status_message(MHA_OK), "ok") == 0);
}

/* The largest difference between two sets of gradients. */
static float difference(const struct written *a, const struct written *b)
{
    const float *x = (const float *)(const void *)a, *y = (const float *)(const void *)b;
    float most = 0.0f;
    for (size_t i = 0; i < sizeof *a / sizeof *x; ++i) most = fmaxf(most, fabsf(x[i] - y[i]));
    return most;
}

static void parts(void)
{
    CHECK(back(NULL) == MHA_OK);
    const struct written whole = to;
    /* The least scratch gives the same bits. */
    memset(&to, 0x7f, sizeof to);
    CHECK(mha_backward(&layer, shape, &inputs, NULL, &upstream, &gradients, scratch,
                       mha_min_backward_scratch_len(&config, shape)) == MHA_OK);
    CHECK(memcmp(&to, &whole, sizeof to) == 0);
    for (size_t count = 1; count <= 4; ++count) {
        memset(&sum, 0, sizeof sum);
        for (size_t i = 0; i < count; ++i) {
            const mha_part part = mha_split_backward(&config, shape, i, count);
            memset(&to, 0x7f, sizeof to);
            CHECK(mha_backward_part(&layer, shape, part, &inputs, NULL, &upstream, &gradients,
                                    scratch, MHA_COUNT(scratch)) == MHA_OK);
            float *all = (float *)(void *)&sum;
            const float *one = (const float *)(const void *)&to;
            for (size_t j = 0; j < sizeof sum / sizeof *all; ++j) all[j] += one[j];
        }
        CHECK(difference(&sum, &whole) < 1e-5f);
    }
    /* Added to what is there. */
    to = whole;
    gradients.accumulate = 1;
    CHECK(back(NULL) == MHA_OK);
    for (size_t i = 0; i < FLAT; ++i) CHECK(fabsf(to.flat[i] - 2.0f * whole.flat[i]) < 1e-5f);
    /* Left out: not touched, and the others as before. */
    restore();
    memset(&to, 0, sizeof to);
    gradients.k = (mha_slice_mut){ 0 };
    gradients.wv = (mha_slice_mut){ 0 };
    CHECK(back(NULL) == MHA_OK);
    for (size_t i = 0; i < MHA_COUNT(to.k); ++i) CHECK(to.k[i] == 0.0f);
    CHECK(same_bits(to.q, whole.q, MHA_COUNT(to.q)));
    CHECK(same_bits(to.flat, whole.flat, Q_IN * QK + K_IN * QK));
}

/* A way forward that keeps: the outputs and gradients are those without it, bit for bit. */
static mha_status keep(const mha_options *options, float *to_keep, size_t length)
{
    const mha_outputs outputs = { .y = MHA_SLICE(result) };
    const mha_status got = mha_forward_keeping(&layer, shape, &inputs, options, &outputs, to_keep, length,
                                               scratch, MHA_COUNT(scratch));
    if (got != MHA_OK) {
        for (size_t i = 0; i < MHA_COUNT(result); ++i) CHECK(result[i] == 3.0f);
        for (size_t i = 0; i < MHA_COUNT(kept); ++i) CHECK(kept[i] == 4.0f);
    }
    return got;
}

static void keeping(void)
{
    static float expected[BATCH * Q * OUT];
    const mha_outputs outputs = { .y = MHA_SLICE(expected) };
    CHECK(mha_forward(&layer, shape, &inputs, &outputs, scratch, MHA_COUNT(scratch)) == MHA_OK);
    CHECK(mha_kept_len(&config, shape) == MHA_COUNT(kept));
    CHECK(mha_kept_len(NULL, shape) == SIZE_MAX);
    for (size_t i = 0; i < MHA_COUNT(result); ++i) result[i] = 3.0f;
    for (size_t i = 0; i < MHA_COUNT(kept); ++i) kept[i] = 4.0f;
#define KEPT(kind) MHA_STATUS(MHA_KIND_##kind, MHA_ARGUMENT_KEPT)
    CHECK(keep(NULL, kept, MHA_COUNT(kept) - 1) == KEPT(LENGTH));
    CHECK(keep(NULL, NULL, MHA_COUNT(kept)) == KEPT(NULL));
    CHECK(keep(NULL, OFF_BY_ONE(kept), MHA_COUNT(kept)) == KEPT(MISALIGNED));
    CHECK(keep(NULL, kept, SIZE_MAX / 2) == KEPT(TOO_LARGE));
    CHECK(keep(NULL, scratch + 1, MHA_COUNT(kept)) == KEPT(OVERLAP));
    CHECK(keep(NULL, result, MHA_COUNT(kept)) == KEPT(OVERLAP));
    CHECK(keep(NULL, q, MHA_COUNT(kept)) == KEPT(OVERLAP));
    CHECK(strcmp(mha_backward_status_message(KEPT(OVERLAP)), "kept: overlaps another buffer") == 0);
#undef KEPT
    static float lse[BATCH * HEADS * Q];
    const mha_options sums = { .lse = MHA_SLICE(lse) };
    CHECK(keep(&sums, kept, MHA_COUNT(kept)) == MHA_STATUS(MHA_KIND_OPTION, MHA_ARGUMENT_LSE));
    const mha_options norm = { .norm = { .kind = MHA_NORM_KIND_RMS } };
    CHECK(keep(&norm, kept, MHA_COUNT(kept)) == MHA_STATUS(MHA_KIND_OPTION, MHA_ARGUMENT_NORM));

    CHECK(keep(NULL, kept, MHA_COUNT(kept)) == MHA_OK);
    CHECK(same_bits(result, expected, MHA_COUNT(result)));
    CHECK(back(NULL) == MHA_OK);
    const struct written whole = to;
    memset(&to, 0x7f, sizeof to);
    upstream.kept = (mha_slice)MHA_SLICE(kept);
    CHECK(back(NULL) == MHA_OK);
    CHECK(memcmp(&to, &whole, sizeof to) == 0);
}

/* Attention without projections: the least scratch is enough, one float less is not. */
static void alone(void)
{
    static float qs[BATCH * Q * QK], ks[BATCH * KV * QK], vs[BATCH * KV * V], above[BATCH * Q * V];
    static struct { float q[BATCH * Q * QK], k[BATCH * KV * QK], v[BATCH * KV * V]; } got, whole;
    fill(qs, MHA_COUNT(qs), 8);
    fill(ks, MHA_COUNT(ks), 9);
    fill(vs, MHA_COUNT(vs), 10);
    fill(above, MHA_COUNT(above), 11);
    const mha_attention attention = { .heads = HEADS, .qk = QK, .v = V };
    const mha_inputs given = { .q = MHA_SLICE(qs), .k = MHA_SLICE(ks), .v = MHA_SLICE(vs) };
    const mha_upstream from = { .dy = MHA_SLICE(above) };
    const mha_gradients wanted = { .q = MHA_SLICE(got.q), .k = MHA_SLICE(got.k),
                                   .v = MHA_SLICE(got.v) };
#define ALONE(length)                                                                             \
    mha_dot_product_attention_backward(&attention, MHA_ISA_FASTEST, shape, &given, NULL, &from,   \
                                       &wanted, scratch, length)
    const size_t least = mha_attention_min_backward_scratch_len(&attention, shape);
    CHECK(least > 0 && least <= mha_attention_backward_scratch_len(&attention, shape));
    CHECK(mha_attention_backward_scratch_len(&attention, shape) <= MHA_COUNT(scratch));
    CHECK(ALONE(mha_attention_backward_scratch_len(&attention, shape)) == MHA_OK);
    whole = got;
    memset(&got, 0x7f, sizeof got);
    CHECK(ALONE(least) == MHA_OK);
    CHECK(memcmp(&got, &whole, sizeof got) == 0);
    memset(&got, 0x7f, sizeof got);
    whole = got;
    CHECK(ALONE(least - 1) == MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_SCRATCH));
    CHECK(memcmp(&got, &whole, sizeof got) == 0);
#undef ALONE
    CHECK(mha_attention_min_backward_scratch_len(NULL, shape) == SIZE_MAX);
}

int main(void)
{
    fill(flat, FLAT, 1);
    fill(q, MHA_COUNT(q), 2);
    fill(k, MHA_COUNT(k), 3);
    fill(v, MHA_COUNT(v), 4);
    fill(bias, MHA_COUNT(bias), 5);
    fill(dy, MHA_COUNT(dy), 6);
    fill(dscores, MHA_COUNT(dscores), 7);
    restore();
    CHECK(mha_backward_scratch_len(&config, shape) <= MHA_COUNT(scratch));
    parts();
    restore();
    keeping();
    restore();
    statuses();
    alone();
    return verdict("backward");
}
