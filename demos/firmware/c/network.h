/* The network around the layer, as demos/nets has it in Rust, to the same bits:

       x = tokens * embed + embed_bias + position
       x = x + layer(rms_norm(x))                         mha_forward
       x = x + relu(rms_norm(x) * feed1 + ...) * feed2 + ...
       logits = mean of rms_norm(x) over the tokens * classifier + ...

   Every sum runs from its first term to its last and every product is rounded before it is added, so
   compile with -ffp-contract=off. */
#ifndef NETWORK_H
#define NETWORK_H

#include <stddef.h>

#include "mha.h"

typedef struct network {
    size_t token, width, hidden, classes;
    const float *embed, *embed_bias, *position, *norm1;
    mha_layer layer;
    const float *norm2, *feed1, *feed1_bias, *feed2, *feed2_bias, *norm, *classifier, *classifier_bias;
} network;

/* Where the parts lie in one flat array of weights; matrices are [in][out]. */
#define NETWORK_EMBED_(t, n, w) ((t) * (w))
#define NETWORK_LAYER_(t, n, w) (NETWORK_EMBED_(t, n, w) + (w) + (n) * (w) + (w))
#define NETWORK_BIASES_(t, n, w) (NETWORK_LAYER_(t, n, w) + 4 * (w) * (w))
#define NETWORK_NORM2_(t, n, w) (NETWORK_BIASES_(t, n, w) + 4 * (w))
#define NETWORK_FEED_(t, n, w, h) (NETWORK_NORM2_(t, n, w) + (w) + (w) * (h))
#define NETWORK_NORM_(t, n, w, h) (NETWORK_FEED_(t, n, w, h) + (h) + (h) * (w) + (w))

/* How many floats the array has. */
#define NETWORK_PARAMETERS(t, n, w, h, c) (NETWORK_NORM_(t, n, w, h) + (w) + (w) * (c) + (c))

/* Initialises a network over a flat array: t features a token, at most n tokens, w wide, so many heads,
   h hidden, c classes. The whole of it is constant and stays in flash. */
#define NETWORK(flat, t, n, w, heads, h, c)                                                          \
    {                                                                                                \
        (t), (w), (h), (c),                                                                          \
        (flat), (flat) + NETWORK_EMBED_(t, n, w), (flat) + NETWORK_EMBED_(t, n, w) + (w),            \
        (flat) + NETWORK_LAYER_(t, n, w) - (w),                                                      \
        { MHA_CONFIG(w, heads),                                                                      \
          { { (flat) + NETWORK_LAYER_(t, n, w), (w) * (w) },                                         \
            { (flat) + NETWORK_LAYER_(t, n, w) + (w) * (w), (w) * (w) },                             \
            { (flat) + NETWORK_LAYER_(t, n, w) + 2 * (w) * (w), (w) * (w) },                         \
            { (flat) + NETWORK_LAYER_(t, n, w) + 3 * (w) * (w), (w) * (w) },                         \
            { (flat) + NETWORK_BIASES_(t, n, w), (w) },                                              \
            { (flat) + NETWORK_BIASES_(t, n, w) + (w), (w) },                                        \
            { (flat) + NETWORK_BIASES_(t, n, w) + 2 * (w), (w) },                                    \
            { (flat) + NETWORK_BIASES_(t, n, w) + 3 * (w), (w) } },                                  \
          MHA_ISA_PORTABLE },                                                                        \
        (flat) + NETWORK_NORM2_(t, n, w), (flat) + NETWORK_NORM2_(t, n, w) + (w),                    \
        (flat) + NETWORK_FEED_(t, n, w, h), (flat) + NETWORK_FEED_(t, n, w, h) + (h),                \
        (flat) + NETWORK_NORM_(t, n, w, h) - (w), (flat) + NETWORK_NORM_(t, n, w, h),                \
        (flat) + NETWORK_NORM_(t, n, w, h) + (w),                                                    \
        (flat) + NETWORK_NORM_(t, n, w, h) + (w) + (w) * (c)                                         \
    }

/* Floats of scratch for so many tokens: with the layer at full speed, and the least. */
#define NETWORK_SCRATCH_LEN(w, heads, h, tokens) \
    (3 * (tokens) * (w) + (h) + MHA_SCRATCH_LEN(w, heads, tokens, tokens))
#define NETWORK_MIN_SCRATCH_LEN(w, heads, h, tokens) \
    (3 * (tokens) * (w) + (h) + MHA_MIN_SCRATCH_LEN(w, heads, tokens))

/* Writes the features of token i of an item. */
typedef void network_token(const void *item, size_t i, float *features);

/* Logits of an item of so many tokens, and the multiply-accumulates of the layer in it. */
mha_status network_logits(const network *net, size_t tokens, network_token *token, const void *item,
                          float *logits, float *scratch, size_t scratch_len, uint32_t *macs);

/* The next token of an endless sequence: it attends to what the cache still holds, itself among it, and
   what comes out of the network before pooling is written to `out`, net->width floats. */
mha_status network_step(const network *net, mha_cache *cache, const float *token, size_t position,
                        float *out, float *scratch, size_t scratch_len);

/* Logits of the mean of so many rows of network_step's. */
void network_classify(const network *net, const float *rows, size_t count, float *logits);

/* The class with the largest logit; of equals the first. */
size_t network_best(const float *logits, size_t classes);

#endif
