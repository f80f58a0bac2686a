/* The door of `cargo xtask check`: reads layers, inputs and shapes on its standard input, calls the
   library, and answers on its standard output, until the input ends.

   All integers are 64-bit little-endian, all floats 32-bit little-endian. A request is the magic
   number, the number of header words, those words, and the payload: q, k, v; for a layer the weights
   and such biases as there are; an offset for each sequence; the mask's bytes; the bias. The answer
   is the status; after MHA_OK y and, where they are wanted, the scores; after an error the length of
   its message and the message.

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
#define WORDS 32
#define NEWER (-100)

enum word {
    KIND, Q_IN, K_IN, V_IN, QK, V, OUT, HEADS, WEIGHT_ORDER, HAS_SCALE, SCALE, BATCH, Q_LEN, KV_LEN,
    CAUSAL, OFFSET, SCORES, SCORES_AT, HAS_DROPOUT, P, SEED, HAS_MASK, MASK_0, MASK_1, MASK_2, MASK_3,
    HAS_BIAS, BIAS_0, BIAS_1, BIAS_2, BIAS_3, BIASES
};

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
static void *owned[24];
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
    };
    const mha_dims *dims = &config.dims;
    const size_t queries = times(shape.batch, shape.q_len), keys = times(shape.batch, shape.kv_len);

    mha_inputs inputs = { 0 };
    inputs.q = read_floats(times(queries, dims->q_in));
    inputs.k = read_floats(times(keys, dims->k_in));
    inputs.v = read_floats(times(keys, dims->v_in));
    mha_layer layer = { .config = config, .isa = isa };
    if (h[KIND] == 1) {
        mha_weights *w = &layer.weights;
        const uint64_t biases = h[BIASES];
        w->wq = read_floats(times(dims->q_in, dims->qk));
        w->wk = read_floats(times(dims->k_in, dims->qk));
        w->wv = read_floats(times(dims->v_in, dims->v));
        w->wo = read_floats(times(dims->v, dims->out));
        if (biases & 1) w->bq = read_floats(dims->qk);
        if (biases & 2) w->bk = read_floats(dims->qk);
        if (biases & 4) w->bv = read_floats(dims->v);
        if (biases & 8) w->bo = read_floats(dims->out);
    }
    inputs.causal.mode = (int32_t)h[CAUSAL];
    inputs.causal.offset = (ptrdiff_t)(int64_t)h[OFFSET];
    if (inputs.causal.mode == MHA_CAUSAL_MODE_PER_SEQUENCE) {
        ptrdiff_t *offsets = own(allocate(shape.batch, sizeof *offsets));
        for (size_t i = 0; i < shape.batch; ++i) offsets[i] = (ptrdiff_t)(int64_t)read_word();
        inputs.causal.offsets = offsets;
        inputs.causal.offsets_len = shape.batch;
    }
    if (h[HAS_MASK]) {
        size_t len = 1;
        for (size_t i = 0; i < 4; ++i) {
            inputs.mask.extents[i] = (size_t)h[MASK_0 + i];
            len = times(len, inputs.mask.extents[i]);
        }
        uint8_t *bytes = own(allocate(len, 1));
        read_bytes(bytes, len);
        inputs.mask.data = bytes;
        inputs.mask.len = len;
    }
    if (h[HAS_BIAS]) {
        size_t len = 1;
        for (size_t i = 0; i < 4; ++i) {
            inputs.bias.extents[i] = (size_t)h[BIAS_0 + i];
            len = times(len, inputs.bias.extents[i]);
        }
        const mha_slice bias = read_floats(len);
        inputs.bias.data = bias.data;
        inputs.bias.len = bias.len;
    }
    if (h[HAS_DROPOUT]) {
        inputs.dropout.p = float_of((uint32_t)h[P]);
        inputs.dropout.seed = h[SEED];
    }

    const mha_attention attention = { config.heads, dims->qk, dims->v, config.has_scale,
                                      config.scale };
    mha_outputs outputs = { .scores_at = (int32_t)h[SCORES_AT] };
    outputs.y = output(times(queries, dims->out));
    if (h[SCORES]) outputs.scores = output(mha_scores_len(&config, shape));
    const size_t scratch_len = h[KIND] == 1 ? mha_scratch_len(&config, shape)
                                            : mha_attention_scratch_len(&attention, shape);
    const mha_slice_mut scratch = output(scratch_len);
    const mha_status status =
        h[KIND] == 1
            ? mha_forward(&layer, shape, &inputs, &outputs, scratch.data, scratch.len)
            : mha_dot_product_attention(&attention, isa, shape, &inputs, &outputs, scratch.data,
                                        scratch.len);
    if (status == MHA_OK) {
        write_word(0);
        write_floats(outputs.y);
        write_floats(outputs.scores);
    } else {
        write_error(status, mha_status_message(status));
    }
    free_all();
}

int main(int argc, char **argv)
{
    int32_t isa = MHA_ISA_FASTEST;
    if (argc > 1) {
        for (isa = MHA_ISA_PORTABLE; isa <= MHA_ISA_AVX512; ++isa) {
            const char *name = mha_isa_name(isa);
            if (name != NULL && strcmp(name, argv[1]) == 0) break;
        }
        if (isa > MHA_ISA_AVX512) die("this machine has no such instructions");
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
        if (newer || h[KIND] < 1 || h[KIND] > 2) {
            /* What follows has an unknown length: there is no going on. */
            write_error(NEWER, "newer protocol");
            return 0;
        }
        run(h, isa);
        if (fflush(stdout) != 0) die("cannot write");
    }
}
