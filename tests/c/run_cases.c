/* The door of `cargo xtask check`: reads layers, inputs and shapes on its standard input, calls the
   library, and answers on its standard output, until the input ends.

   tests/conformance/src/wire.rs has the protocol: a request's header word by word, its payload, and
   the answer.

   Buffers are allocated each on its own and exactly as long as they must be, so that a sanitizer
   sees a step past any end. `run_cases portable` runs on those instructions instead of the fastest. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mha.h"

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

#define MAGIC 0x3143414D41484D31ull
#define BLOCK 16u
#define NEWER (-100)

enum word {
    KIND, Q_IN, K_IN, V_IN, QK, V, OUT, HEADS, WEIGHT_ORDER, HAS_SCALE, SCALE, BATCH, Q_LEN, KV_LEN,
    CAUSAL, OFFSET, SCORES, SCORES_AT, HAS_DROPOUT, P, SEED, HAS_MASK, MASK_0, MASK_1, MASK_2, MASK_3,
    HAS_BIAS, BIAS_0, BIAS_1, BIAS_2, BIAS_3, BIASES, KV_HEADS, POSITION, POSITION_OFFSET, HAS_LEFT,
    LEFT, HAS_RIGHT, RIGHT, HAS_LENS, HAS_SOFTCAP, SOFTCAP, ALIBI, HAS_ROPE, ROPE_DIMS,
    ROPE_INTERLEAVED, ROPE_BASE, HAS_ROPE_Q, ROPE_Q, HAS_ROPE_K, ROPE_K, HAS_SINKS, CACHE, PAST_LEN,
    PRESENT, TABLE_ROWS, GRADIENTS, HAS_DSCORES, WORDS
};

enum { KIND_LAYER = 1, KIND_ATTENTION = 2, KIND_ROTATION = 3 };

static void die(const char *why)
{
    fprintf(stderr, "run_cases: %s\n", why);
    exit(1);
}

/* Exactly as much as asked for, so that a sanitizer sees a step past the end; never NULL. */
static void *allocate(size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size) die("a size overflows");
    void *memory = malloc(count * size > 0 ? count * size : 1);
    if (memory == NULL) die("no memory");
    return memory;
}

static void read_bytes(void *to, size_t len)
{
    if (len > 0 && fread(to, 1, len, stdin) != len) die("the input ends within a request");
}

static uint64_t word_of(const unsigned char *bytes)
{
    uint64_t word = 0;
    for (int i = 7; i >= 0; --i) word = word << 8 | bytes[i];
    return word;
}

static uint64_t read_word(void)
{
    unsigned char bytes[8];
    read_bytes(bytes, sizeof bytes);
    return word_of(bytes);
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Floats that were allocated, to be freed when the case is done. */
static void *owned[40];
static size_t owned_len;

static void *own(void *memory)
{
    if (owned_len == MHA_COUNT(owned)) die("too many buffers");
    owned[owned_len++] = memory;
    return memory;
}

static void free_all(void)
{
    while (owned_len > 0) free(owned[--owned_len]);
}

static mha_slice read_floats(size_t len)
{
    unsigned char *bytes = allocate(len, 4);
    float *floats = own(allocate(len, sizeof *floats));
    read_bytes(bytes, len * 4);
    for (size_t i = 0; i < len; ++i) {
        const unsigned char *b = bytes + 4 * i;
        floats[i] = float_of((uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16
                             | (uint32_t)b[3] << 24);
    }
    free(bytes);
    return (mha_slice){ floats, len };
}

static mha_slice_mut output(size_t len)
{
    float *floats = own(allocate(len, sizeof *floats));
    /* Nobody may read what was there before. */
    for (size_t i = 0; i < len; ++i) floats[i] = float_of(0x7fc00bad);
    return (mha_slice_mut){ floats, len };
}

static void write_bytes(const void *from, size_t len)
{
    if (len > 0 && fwrite(from, 1, len, stdout) != len) die("cannot write");
}

static void write_word(uint64_t word)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = (unsigned char)(word >> 8 * i);
    write_bytes(bytes, sizeof bytes);
}

static void write_floats(mha_slice_mut floats)
{
    for (size_t i = 0; i < floats.len; ++i) {
        uint32_t bits;
        unsigned char bytes[4];
        memcpy(&bits, &floats.data[i], sizeof bits);
        for (int b = 0; b < 4; ++b) bytes[b] = (unsigned char)(bits >> 8 * b);
        write_bytes(bytes, sizeof bytes);
    }
}

static void write_error(int64_t status, const char *message)
{
    write_word((uint64_t)status);
    write_word(strlen(message));
    write_bytes(message, strlen(message));
}

/* The product of sizes that must be read or allocated. */
static size_t times(size_t a, size_t b)
{
    if (b != 0 && a > SIZE_MAX / b) die("a size overflows");
    return a * b;
}

/* A position for the first query of all sequences or of each. */
static mha_causal read_causal(const uint64_t *mode_and_offset, size_t batch)
{
    mha_causal causal = { .mode = (int32_t)mode_and_offset[0],
                          .offset = (ptrdiff_t)(int64_t)mode_and_offset[1] };
    if (causal.mode == MHA_CAUSAL_MODE_PER_SEQUENCE) {
        ptrdiff_t *offsets = own(allocate(batch, sizeof *offsets));
        for (size_t i = 0; i < batch; ++i) offsets[i] = (ptrdiff_t)(int64_t)read_word();
        causal.offsets = offsets;
        causal.offsets_len = batch;
    }
    return causal;
}

static const size_t *read_sizes(size_t len)
{
    size_t *sizes = own(allocate(len, sizeof *sizes));
    for (size_t i = 0; i < len; ++i) sizes[i] = (size_t)read_word();
    return sizes;
}

/* The product of the four extents that begin at a word. */
static size_t extents(const uint64_t *words, size_t to[4])
{
    size_t len = 1;
    for (size_t i = 0; i < 4; ++i) {
        to[i] = (size_t)words[i];
        len = times(len, to[i]);
    }
    return len;
}

/* What of the options the header holds; what is in the payload comes later. */
static mha_options read_options(const uint64_t *h)
{
    mha_options options = { .softcap = float_of((uint32_t)h[SOFTCAP]) };
    options.window.has_left = (uint32_t)h[HAS_LEFT];
    options.window.left = (size_t)h[LEFT];
    options.window.has_right = (uint32_t)h[HAS_RIGHT];
    options.window.right = (size_t)h[RIGHT];
    options.alibi.kind = (int32_t)h[ALIBI];
    if (h[HAS_ROPE]) {
        options.rope.kind = MHA_ROPE_KIND_BASE;
        options.rope.base = float_of((uint32_t)h[ROPE_BASE]);
    }
    options.rope.dims = (size_t)h[ROPE_DIMS];
    options.rope.interleaved = (uint32_t)h[ROPE_INTERLEAVED];
    options.rope.has_q_offset = (uint32_t)h[HAS_ROPE_Q];
    options.rope.q_offset = (size_t)h[ROPE_Q];
    options.rope.has_k_offset = (uint32_t)h[HAS_ROPE_K];
    options.rope.k_offset = (size_t)h[ROPE_K];
    return options;
}

/* Whether a plain call will do, which then goes the plain way. */
static int has_options(const uint64_t *h)
{
    return h[POSITION] || h[HAS_LEFT] || h[HAS_RIGHT] || h[HAS_LENS] || h[HAS_SOFTCAP] || h[ALIBI]
           || h[HAS_ROPE] || h[HAS_SINKS];
}

static mha_cache new_cache(mha_attention attention, size_t batch, size_t capacity)
{
    mha_cache cache = { .attention = attention, .config = { .batch = batch, .capacity = capacity } };
    cache.keys = output(mha_cache_keys_len(&attention, &cache.config));
    cache.values = output(mha_cache_values_len(&attention, &cache.config));
    return cache;
}

/* A feature of a key of one head, as the cache keeps it; heads are counted over all sequences. */
static float key_of(const mha_cache *cache, size_t head, size_t features, size_t position,
                    size_t feature)
{
    const size_t blocks = (cache->config.capacity + BLOCK - 1) / BLOCK;
    return cache->keys.data[((head * blocks + position / BLOCK) * features + feature) * BLOCK
                            + position % BLOCK];
}

/* What a full cache holds, `[batch][kv_heads][positions][features of a head]`, keys and then values. */
static void write_present(const mha_cache *cache, size_t kv_heads, size_t d, size_t d_v)
{
    const size_t batch = cache->config.batch, positions = cache->config.capacity;
    const mha_slice_mut keys = output(times(times(batch, positions), kv_heads * d));
    const mha_slice_mut values = output(times(times(batch, positions), kv_heads * d_v));
    size_t k = 0, v = 0;
    for (size_t b = 0; b < batch; ++b)
        for (size_t head = 0; head < kv_heads; ++head)
            for (size_t i = 0; i < positions; ++i) {
                for (size_t e = 0; e < d; ++e)
                    keys.data[k++] = key_of(cache, b * kv_heads + head, d, i, e);
                const float *row = cache->values.data + ((b * kv_heads + head) * positions + i) * d_v;
                for (size_t e = 0; e < d_v; ++e) values.data[v++] = row[e];
            }
    write_floats(keys);
    write_floats(values);
}

/* Rotation alone: each position as a key that is appended to a cache, where it can be read. */
static void rotate(const uint64_t *h)
{
    const size_t batch = (size_t)h[BATCH], length = (size_t)h[Q_LEN], heads = (size_t)h[HEADS];
    const size_t d = (size_t)h[QK] / (heads > 0 ? heads : 1), features = heads * d;
    const mha_slice x = read_floats(times(times(batch, length), features));
    const size_t *rows = read_sizes(times(batch, length));
    const size_t table = times((size_t)h[TABLE_ROWS], (size_t)h[ROPE_DIMS] / 2);
    mha_options options = read_options(h);
    options.rope.kind = MHA_ROPE_KIND_TABLE;
    options.rope.has_k_offset = 1;
    options.rope.cos = read_floats(table);
    options.rope.sin = read_floats(table);
    const mha_slice_mut rotated = output(x.len);
    mha_status status = MHA_OK;
    if (x.len > 0) {
        const mha_attention attention = { .heads = heads, .qk = features, .v = heads };
        mha_cache cache = new_cache(attention, 1, batch * length);
        const mha_slice_mut key = output(features), value = output(heads);
        for (size_t at = 0; at < batch * length && status == MHA_OK; ++at) {
            const size_t b = at / length, i = at % length;
            for (size_t f = 0; f < features; ++f)
                key.data[f] = x.data[((b * heads + f / d) * length + i) * d + f % d];
            options.rope.k_offset = rows[at];
            status = mha_cache_append(&cache, key.data, key.len, value.data, value.len, &options);
        }
        size_t to = 0;
        for (size_t b = 0; b < batch; ++b)
            for (size_t head = 0; head < heads; ++head)
                for (size_t i = 0; i < length; ++i)
                    for (size_t e = 0; e < d; ++e)
                        rotated.data[to++] = key_of(&cache, head, d, b * length + i, e);
    }
    if (status == MHA_OK) {
        write_word(0);
        write_floats(rotated);
    } else {
        write_error(status, mha_status_message(status));
    }
}

/* The members of `mha_gradients`, in the order of the bits and of the answer. */
#define GRADIENT_MEMBERS(X) \
    X(0, q) X(1, k) X(2, v) X(3, wq) X(4, wk) X(5, wv) X(6, wo) X(7, bq) X(8, bk) X(9, bv) X(10, bo) \
    X(11, bias)

/* Goes back over a call and keeps its gradients. */
static mha_status go_back(const uint64_t *h, const mha_layer *layer, const mha_attention *attention,
                          int32_t isa, mha_shape shape, const mha_inputs *inputs,
                          const mha_options *options, const mha_upstream *upstream,
                          mha_gradients *gradients)
{
    const mha_weights *w = &layer->weights;
    const size_t lens[] = { inputs->q.len, inputs->k.len, inputs->v.len, w->wq.len, w->wk.len, w->wv.len,
                            w->wo.len, w->bq.len, w->bk.len, w->bv.len, w->bo.len, inputs->bias.len };
#define TAKE(bit, member) \
    if (h[GRADIENTS] >> (bit) & 1) gradients->member = output(lens[bit]);
    GRADIENT_MEMBERS(TAKE)
#undef TAKE
    const mha_options *given = has_options(h) ? options : NULL;
    if (h[KIND] == KIND_LAYER) {
        const mha_slice_mut scratch = output(mha_backward_scratch_len(&layer->config, shape));
        return mha_backward(layer, shape, inputs, given, upstream, gradients, scratch.data, scratch.len);
    }
    const mha_slice_mut scratch = output(mha_attention_backward_scratch_len(attention, shape));
    return mha_dot_product_attention_backward(attention, isa, shape, inputs, given, upstream, gradients,
                                              scratch.data, scratch.len);
}

static void run(const uint64_t *h, int32_t isa)
{
    const mha_shape shape = { (size_t)h[BATCH], (size_t)h[Q_LEN], (size_t)h[KV_LEN] };
    const mha_config config = {
        .dims = { (size_t)h[Q_IN], (size_t)h[K_IN], (size_t)h[V_IN], (size_t)h[QK], (size_t)h[V],
                  (size_t)h[OUT] },
        .heads = (size_t)h[HEADS],
        .weight_order = (int32_t)h[WEIGHT_ORDER],
        .has_scale = (uint32_t)h[HAS_SCALE],
        .scale = float_of((uint32_t)h[SCALE]),
        .kv_heads = (size_t)h[KV_HEADS],
    };
    const mha_dims *dims = &config.dims;
    const mha_attention attention = { .heads = config.heads, .qk = dims->qk, .v = dims->v,
                                      .has_scale = config.has_scale, .scale = config.scale,
                                      .kv_heads = config.kv_heads };
    const size_t kv_heads = config.kv_heads > 0 ? config.kv_heads : config.heads;
    const size_t d = dims->qk / (config.heads > 0 ? config.heads : 1);
    const size_t d_v = dims->v / (config.heads > 0 ? config.heads : 1);
    const size_t key_features = times(kv_heads, d), value_features = times(kv_heads, d_v);
    const size_t queries = times(shape.batch, shape.q_len), keys = times(shape.batch, shape.kv_len);
    const size_t past_len = (size_t)h[PAST_LEN], past = times(shape.batch, past_len);

    mha_inputs inputs = { 0 };
    inputs.q = read_floats(times(queries, dims->q_in));
    const mha_slice k = read_floats(times(keys, dims->k_in)), v = read_floats(times(keys, dims->v_in));
    mha_layer layer = { .config = config, .isa = isa };
    if (h[KIND] == KIND_LAYER) {
        mha_weights *w = &layer.weights;
        const uint64_t biases = h[BIASES];
        w->wq = read_floats(times(dims->q_in, dims->qk));
        w->wk = read_floats(times(dims->k_in, key_features));
        w->wv = read_floats(times(dims->v_in, value_features));
        w->wo = read_floats(times(dims->v, dims->out));
        if (biases & 1) w->bq = read_floats(dims->qk);
        if (biases & 2) w->bk = read_floats(key_features);
        if (biases & 4) w->bv = read_floats(value_features);
        if (biases & 8) w->bo = read_floats(dims->out);
    }
    inputs.causal = read_causal(h + CAUSAL, shape.batch);
    if (h[HAS_MASK]) {
        inputs.mask.len = extents(h + MASK_0, inputs.mask.extents);
        uint8_t *bytes = own(allocate(inputs.mask.len, 1));
        read_bytes(bytes, inputs.mask.len);
        inputs.mask.data = bytes;
    }
    if (h[HAS_BIAS]) {
        const mha_slice bias = read_floats(extents(h + BIAS_0, inputs.bias.extents));
        inputs.bias.data = bias.data;
        inputs.bias.len = bias.len;
    }
    if (h[HAS_DROPOUT]) {
        inputs.dropout.p = float_of((uint32_t)h[P]);
        inputs.dropout.seed = h[SEED];
    }
    mha_options options = read_options(h);
    options.offset = read_causal(h + POSITION, shape.batch);
    if (h[HAS_LENS]) {
        options.lens = read_sizes(shape.batch);
        options.lens_len = shape.batch;
    }
    if (h[ALIBI] == MHA_ALIBI_KIND_SLOPES) options.alibi.slopes = read_floats(config.heads);
    if (h[HAS_SINKS]) options.sinks = read_floats(config.heads);
    mha_slice past_k = { 0 }, past_v = { 0 };
    if (past_len > 0) {
        past_k = read_floats(times(past, key_features));
        past_v = read_floats(times(past, value_features));
    }

    mha_upstream upstream = { 0 };
    if (h[GRADIENTS]) {
        upstream.dy = read_floats(times(queries, dims->out));
        if (h[HAS_DSCORES])
            upstream.dscores = read_floats(times(times(queries, config.heads), shape.kv_len));
    }

    mha_shape whole = shape;
    whole.kv_len += past_len;
    mha_outputs outputs = { .scores_at = (int32_t)h[SCORES_AT] };
    outputs.y = output(times(queries, dims->out));
    if (h[SCORES]) outputs.scores = output(mha_scores_len(&config, whole));
    const int is_layer = h[KIND] == KIND_LAYER;
    mha_cache cache = { 0 };
    mha_status status = MHA_OK;
    if (h[CACHE]) {
        cache = new_cache(attention, shape.batch, whole.kv_len);
        const mha_slice_mut scratch =
            output(is_layer ? mha_cached_scratch_len(&config, shape.q_len)
                            : mha_attention_scratch_len(&attention, shape));
        if (past_len > 0)
            status = mha_cache_append(&cache, past_k.data, past_k.len, past_v.data, past_v.len, NULL);
        if (status == MHA_OK)
            status = is_layer
                         ? mha_append(&layer, &cache, k.data, k.len, v.data, v.len, &options)
                         : mha_cache_append(&cache, k.data, k.len, v.data, v.len, &options);
        if (status == MHA_OK)
            status = is_layer ? mha_attend(&layer, &cache, shape.q_len, &inputs, &options, &outputs,
                                           scratch.data, scratch.len)
                              : mha_dot_product_attention_cached(&attention, isa, &cache, shape.q_len,
                                                                 &inputs, &options, &outputs,
                                                                 scratch.data, scratch.len);
    } else {
        inputs.k = k;
        inputs.v = v;
        const mha_slice_mut scratch = output(is_layer ? mha_scratch_len(&config, shape)
                                                      : mha_attention_scratch_len(&attention, shape));
        if (is_layer && has_options(h))
            status = mha_forward_with(&layer, shape, &inputs, &options, &outputs, scratch.data,
                                      scratch.len);
        else if (is_layer)
            status = mha_forward(&layer, shape, &inputs, &outputs, scratch.data, scratch.len);
        else if (has_options(h))
            status = mha_dot_product_attention_with(&attention, isa, shape, &inputs, &options,
                                                    &outputs, scratch.data, scratch.len);
        else
            status = mha_dot_product_attention(&attention, isa, shape, &inputs, &outputs,
                                               scratch.data, scratch.len);
    }
    mha_gradients gradients = { 0 };
    if (status == MHA_OK && h[GRADIENTS]) {
        inputs.k = k;
        inputs.v = v;
        status = go_back(h, &layer, &attention, isa, shape, &inputs, &options, &upstream, &gradients);
    }
    if (status == MHA_OK) {
        write_word(0);
        write_floats(outputs.y);
        write_floats(outputs.scores);
        if (h[PRESENT]) write_present(&cache, kv_heads, d, d_v);
#define WRITE(bit, member) write_floats(gradients.member);
        GRADIENT_MEMBERS(WRITE)
#undef WRITE
    } else {
        write_error(status, mha_backward_status_message(status));
    }
}

int main(int argc, char **argv)
{
    int32_t isa = MHA_ISA_FASTEST;
    if (argc > 1) {
        for (isa = MHA_ISA_PORTABLE; isa <= MHA_ISA_SIMD128; ++isa) {
            const char *name = mha_isa_name(isa);
            if (name != NULL && strcmp(name, argv[1]) == 0) break;
        }
        if (isa > MHA_ISA_SIMD128) die("this machine has no such instructions");
    }
#ifdef _WIN32
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#endif
    unsigned char first[8];
    for (;;) {
        const size_t got = fread(first, 1, sizeof first, stdin);
        if (got == 0) return 0;
        if (got != sizeof first || word_of(first) != MAGIC) die("the input is no request");
        const uint64_t words = read_word();
        if (words < WORDS) die("a header is too short");
        uint64_t h[WORDS];
        int newer = 0;
        for (size_t i = 0; i < WORDS; ++i) h[i] = read_word();
        for (uint64_t i = WORDS; i < words; ++i) newer |= read_word() != 0;
        if (newer || h[KIND] < KIND_LAYER || h[KIND] > KIND_ROTATION) {
            /* What follows has an unknown length: there is no going on. */
            write_error(NEWER, "newer protocol");
            return 0;
        }
        if (h[KIND] == KIND_ROTATION)
            rotate(h);
        else
            run(h, isa);
        free_all();
        if (fflush(stdout) != 0) die("cannot write");
    }
}
