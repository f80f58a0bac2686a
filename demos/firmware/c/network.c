#include "memory.h"
#include "network.h"

enum { MOST_FEATURES = 12, WIDEST = 32, MOST_HIDDEN = 64 };

/* Correctly rounded, as the instruction is where there is one. */
static float square_root(float x)
{
#if defined(__ARM_FP)
    float root;
    __asm__("vsqrt.f32 %0, %1" : "=t"(root) : "t"(x));
    return root;
#else
    /* Digit by digit, for positive normal numbers; what this network takes the root of is one. */
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 23) - 127;
    uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u;
    if (exponent & 1) mantissa <<= 1;
    exponent >>= 1;
    mantissa <<= 1;
    uint32_t root = 0, sum = 0;
    for (uint32_t bit = 0x1000000u; bit != 0; bit >>= 1) {
        const uint32_t with = sum + bit;
        if (with <= mantissa) {
            sum = with + bit;
            mantissa -= with;
            root += bit;
        }
        mantissa <<= 1;
    }
    if (mantissa != 0) root += root & 1u; /* never a tie */
    bits = (root >> 1) + ((uint32_t)(exponent + 126) << 23);
    memcpy(&x, &bits, sizeof x);
    return x;
#endif
}

/* out = bias + x * weight, weight being [in][out]. */
static void affine(const float *x, size_t in, const float *weight, const float *bias, float *out,
                   size_t width)
{
    memcpy(out, bias, width * sizeof *out);
    for (size_t i = 0; i < in; ++i, weight += width) {
        for (size_t o = 0; o < width; ++o) out[o] += x[i] * weight[o];
    }
}

static void add(float *x, const float *y, size_t width)
{
    for (size_t i = 0; i < width; ++i) x[i] += y[i];
}

static void rms_norm(const float *x, const float *gain, float *out, size_t width)
{
    float squares = 0.0f;
    for (size_t i = 0; i < width; ++i) squares += x[i] * x[i];
    const float factor = 1.0f / square_root(squares / (float)width + 1e-5f);
    for (size_t i = 0; i < width; ++i) out[i] = x[i] * factor * gain[i];
}

/* The layer inside of the network, counted by itself. */
__attribute__((noinline)) mha_status measured_layer(const mha_layer *layer, mha_shape shape,
                                                    const mha_inputs *inputs,
                                                    const mha_outputs *outputs, float *scratch,
                                                    size_t scratch_len);

mha_status measured_layer(const mha_layer *layer, mha_shape shape, const mha_inputs *inputs,
                          const mha_outputs *outputs, float *scratch, size_t scratch_len)
{
#ifdef WITHOUT_CALLS
    __asm__ volatile("" : : "r"(layer), "r"(&shape), "r"(inputs), "r"(outputs), "r"(scratch),
                     "r"(scratch_len) : "memory");
    return MHA_OK;
#else
    return mha_forward(layer, shape, inputs, outputs, scratch, scratch_len);
#endif
}

mha_status network_logits(const network *net, size_t tokens, network_token *token, const void *item,
                          float *logits, float *scratch, size_t scratch_len, uint32_t *macs)
{
    const size_t width = net->width, each = tokens * width, own = 3 * each + net->hidden;
    if (scratch_len < own || net->token > MOST_FEATURES || width > WIDEST) {
        return MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_SCRATCH);
    }
    float *const x = scratch, *const normed = x + each, *const y = normed + each;
    float *const hidden = y + each;
    float features[MOST_FEATURES], pooled[WIDEST];

    for (size_t i = 0; i < tokens; ++i) {
        token(item, i, features);
        affine(features, net->token, net->embed, net->embed_bias, x + i * width, width);
        add(x + i * width, net->position + i * width, width);
        rms_norm(x + i * width, net->norm1, normed + i * width, width);
    }

    const mha_shape shape = { .batch = 1, .q_len = tokens, .kv_len = tokens };
    const mha_inputs inputs = { .q = { normed, each } };
    const mha_outputs outputs = { .y = { y, each } };
    const mha_status status = measured_layer(&net->layer, shape, &inputs, &outputs, scratch + own,
                                             scratch_len - own);
    if (status != MHA_OK) return status;
    *macs = (uint32_t)(tokens * 4 * width * width + tokens * tokens * 2 * width);

    memset(pooled, 0, sizeof pooled);
    for (size_t i = 0; i < tokens; ++i) {
        float *const xi = x + i * width, *const ni = normed + i * width, *const yi = y + i * width;
        add(xi, yi, width);
        rms_norm(xi, net->norm2, ni, width);
        affine(ni, width, net->feed1, net->feed1_bias, hidden, net->hidden);
        for (size_t h = 0; h < net->hidden; ++h) {
            if (hidden[h] < 0.0f) hidden[h] = 0.0f;
        }
        affine(hidden, net->hidden, net->feed2, net->feed2_bias, yi, width);
        add(xi, yi, width);
        rms_norm(xi, net->norm, ni, width);
        add(pooled, ni, width);
    }
    for (size_t i = 0; i < width; ++i) pooled[i] /= (float)tokens;
    affine(pooled, width, net->classifier, net->classifier_bias, logits, net->classes);
    return MHA_OK;
}

mha_status network_step(const network *net, mha_cache *cache, const float *token, size_t position,
                        float *out, float *scratch, size_t scratch_len)
{
    const size_t width = net->width;
    float x[WIDEST], normed[WIDEST], y[WIDEST], hidden[MOST_HIDDEN];
    if (width > WIDEST || net->hidden > MOST_HIDDEN) {
        return MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_SCRATCH);
    }
    affine(token, net->token, net->embed, net->embed_bias, x, width);
    add(x, net->position + position * width, width);
    rms_norm(x, net->norm1, normed, width);

    mha_status status = mha_append(&net->layer, cache, normed, width, normed, width, NULL);
    if (status != MHA_OK) return status;
    const mha_inputs inputs = { .q = { normed, width }, .causal = MHA_CAUSAL };
    const mha_outputs outputs = { .y = { y, width } };
    status = mha_attend(&net->layer, cache, 1, &inputs, NULL, &outputs, scratch, scratch_len);
    if (status != MHA_OK) return status;

    add(x, y, width);
    rms_norm(x, net->norm2, normed, width);
    affine(normed, width, net->feed1, net->feed1_bias, hidden, net->hidden);
    for (size_t h = 0; h < net->hidden; ++h) {
        if (hidden[h] < 0.0f) hidden[h] = 0.0f;
    }
    affine(hidden, net->hidden, net->feed2, net->feed2_bias, y, width);
    add(x, y, width);
    rms_norm(x, net->norm, out, width);
    return MHA_OK;
}

void network_classify(const network *net, const float *rows, size_t count, float *logits)
{
    float pooled[WIDEST];
    memset(pooled, 0, sizeof pooled);
    for (size_t i = 0; i < count; ++i) add(pooled, rows + i * net->width, net->width);
    for (size_t i = 0; i < net->width; ++i) pooled[i] /= (float)count;
    affine(pooled, net->width, net->classifier, net->classifier_bias, logits, net->classes);
}

size_t network_best(const float *logits, size_t classes)
{
    size_t best = 0;
    for (size_t i = 1; i < classes; ++i) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}
