/// The version of this header as one number: compare with `mha_version()`.
#define MHA_VERSION \
    (MHA_VERSION_MAJOR * 0x1000000u + MHA_VERSION_MINOR * 0x10000u + MHA_VERSION_PATCH)

/// A status from its kind and its argument, a constant expression:
/// `s == MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_Y)`.
#define MHA_STATUS(kind, argument) ((kind) | (argument) << 8)

/// The kind of a status, one of `enum mha_kind`.
#define MHA_STATUS_KIND(status) ((status) & 0xff)

/// The argument at fault of a status, one of `enum mha_argument`.
#define MHA_STATUS_ARGUMENT(status) ((status) >> 8 & 0xff)

/// The argument of a status that is about the gradient of `argument`:
/// `s == MHA_STATUS(MHA_KIND_LENGTH, MHA_GRADIENT(MHA_ARGUMENT_WQ))`.
#define MHA_GRADIENT(argument) (128 | (argument))

/// How many elements an array has. Not for pointers.
#define MHA_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/// Initialises a `mha_slice` or `mha_slice_mut` with a whole array. Not for pointers: write
/// `{ pointer, length }`.
#define MHA_SLICE(array) { (array), MHA_COUNT(array) }

/// Initialises `mha_dims`: one width for everything.
#define MHA_DIMS(n) { (n), (n), (n), (n), (n), (n) }

/// Initialises `mha_dims`: one width in, one inside, one out.
#define MHA_DIMS_UNIFORM(in, qkv, out) { (in), (in), (in), (qkv), (qkv), (out) }

/// Initialises `mha_dims`: one width in, queries and keys of another width than values, one out.
#define MHA_DIMS_SHARED(in, qk, v, out) { (in), (in), (in), (qk), (v), (out) }

/// Initialises `mha_config`: one width for everything, split over `heads`, weights in [in][out] order,
/// the usual scale.
#define MHA_CONFIG(n, heads) { MHA_DIMS(n), (heads), MHA_WEIGHT_ORDER_IN_OUT, 0, 0.0f, 0 }

/// Initialises `mha_causal`: query i may attend to keys 0 to i; with a cache, to all positions up to
/// its own.
#define MHA_CAUSAL { MHA_CAUSAL_MODE_NATURAL, 0, NULL, 0 }

/* Whether the library is one for bare metal, whose tiles are smaller. Told from the absence of an
   operating system's macros; define it as 0 or 1 where that is wrong. A wrong guess costs memory or
   speed, never correctness: the library works with any scratch from MHA_MIN_SCRATCH_LEN on. */
#ifndef MHA_BARE_METAL
#if defined(__unix__) || defined(__unix) || defined(__linux__) || defined(__APPLE__) || \
    defined(_WIN32) || defined(__Fuchsia__) || defined(__EMSCRIPTEN__) || defined(__wasi__) || \
    defined(__NuttX__) || defined(__QNX__) || defined(__VXWORKS__)
#define MHA_BARE_METAL 0
#else
#define MHA_BARE_METAL 1
#endif
#endif

/* The formula of the library's plan. A test compares the two over a grid of shapes. */
#if MHA_BARE_METAL
#define MHA_PLAN_QUERIES_ 8
#define MHA_PLAN_SHORT_QUERIES_ 8
#define MHA_PLAN_ROWS_ 8
#define MHA_PLAN_KEYS_ 64
#define MHA_PLAN_STEP_KEYS_ 64
#define MHA_PLAN_FEATURES_ 64
#define MHA_PLAN_GATHER_ 0
#else
#define MHA_PLAN_QUERIES_ 96
#define MHA_PLAN_SHORT_QUERIES_ 160
#define MHA_PLAN_ROWS_ 48
#define MHA_PLAN_KEYS_ 128
#define MHA_PLAN_STEP_KEYS_ 1024
#define MHA_PLAN_FEATURES_ 128
#define MHA_PLAN_GATHER_ 1
#endif
#define MHA_PLAN_BLOCK_ 16
#define MHA_PLAN_TOGETHER_ 512
#define MHA_PLAN_LONG_ 1024
#define MHA_PLAN_LONG_FEATURES_ 64
/* A size_t, without a cast. */
#define MHA_SIZE_(x) (sizeof(char) * (x))
#define MHA_MIN_(a, b) ((a) < (b) ? (a) : (b))
#define MHA_MAX_(a, b) ((a) > (b) ? (a) : (b))
#define MHA_HEAD_(width, heads) (MHA_SIZE_(width) / MHA_SIZE_(heads))
#define MHA_WIDEST_(qk, v, heads) \
    MHA_MAX_(MHA_MAX_(MHA_HEAD_(qk, heads), MHA_HEAD_(v, heads)), MHA_SIZE_(1))
#define MHA_GROUP_(qk, v, heads, kv_heads, kv_len) \
    MHA_MAX_(MHA_SIZE_(1), \
             MHA_MIN_((MHA_SIZE_(kv_len) > MHA_PLAN_LONG_ ? MHA_PLAN_LONG_FEATURES_ \
                                                          : MHA_PLAN_FEATURES_) \
                          / MHA_WIDEST_(qk, v, heads), \
                      MHA_SIZE_(kv_heads)))
#define MHA_SEQUENCES_(batch, q_len, kv_len) \
    MHA_MAX_(MHA_SIZE_(1), \
             MHA_MIN_(MHA_MIN_(MHA_PLAN_SHORT_QUERIES_ / MHA_MAX_(MHA_SIZE_(q_len), MHA_SIZE_(1)), \
                               MHA_PLAN_TOGETHER_ / MHA_MAX_(MHA_SIZE_(kv_len), MHA_SIZE_(1))), \
                      MHA_SIZE_(batch)))
#define MHA_BLOCK_(batch, q_len, kv_len) \
    MHA_MIN_(MHA_SIZE_(q_len) * MHA_SEQUENCES_(batch, q_len, kv_len), \
             MHA_SEQUENCES_(batch, q_len, kv_len) > 1 ? MHA_SIZE_(MHA_PLAN_SHORT_QUERIES_) \
                                                      : MHA_SIZE_(MHA_PLAN_QUERIES_))
#define MHA_BLOCKS_(positions) \
    ((MHA_SIZE_(positions) + (MHA_PLAN_BLOCK_ - 1)) / MHA_PLAN_BLOCK_ * MHA_PLAN_BLOCK_)
#define MHA_KEPT_(qk, v, heads, kv_len) \
    (MHA_BLOCKS_(kv_len) * MHA_HEAD_(qk, heads) + MHA_SIZE_(kv_len) * MHA_HEAD_(v, heads))
#define MHA_QUERIES_(qk, v, heads, queries) \
    ((queries) * (MHA_HEAD_(qk, heads) + MHA_HEAD_(v, heads)))
#define MHA_SHARED_(qk, v, heads, kv_heads, queries) \
    (MHA_SIZE_(heads) / MHA_SIZE_(kv_heads) * MHA_QUERIES_(qk, v, heads, queries))
#define MHA_KEYS_(q_len) \
    ((q_len) == 1 ? MHA_SIZE_(MHA_PLAN_STEP_KEYS_) : MHA_SIZE_(MHA_PLAN_KEYS_))
#define MHA_TILE_(rows, keys) ((rows) * (MHA_SIZE_(keys) + MHA_PLAN_BLOCK_ + 2))

/// Floats of scratch for full speed on `mha_forward` of one sequence, a constant expression:
/// `mha_scratch_len` for a layer with one width `n`. Unlike the function it wraps where a length overflows.
#define MHA_SCRATCH_LEN(n, heads, q_len, kv_len) MHA_SCRATCH_LEN_DIMS(n, n, heads, q_len, kv_len)

/// Floats of scratch for full speed on `mha_forward` of one sequence, a constant expression:
/// `mha_scratch_len` for a layer with `dims.qk` and `dims.v`. The other widths do not matter.
#define MHA_SCRATCH_LEN_DIMS(qk, v, heads, q_len, kv_len) \
    MHA_SCRATCH_LEN_GROUPED(qk, v, heads, heads, 1, q_len, kv_len)

/// Floats of scratch for full speed on `mha_forward`, a constant expression: `mha_scratch_len` for a
/// layer with `dims.qk`, `dims.v`, `kv_heads` key/value heads, and a batch. Short sequences are worked
/// on together, which the other macros, meant for one sequence, leave no room for; that costs speed
/// only.
#define MHA_SCRATCH_LEN_GROUPED(qk, v, heads, kv_heads, batch, q_len, kv_len) \
    (MHA_GROUP_(qk, v, heads, kv_heads, kv_len) * MHA_SEQUENCES_(batch, q_len, kv_len) * \
         MHA_KEPT_(qk, v, heads, kv_len) + \
     MHA_SIZE_(heads) / MHA_SIZE_(kv_heads) * \
         MHA_BLOCK_(batch, q_len, kv_len) * \
         (MHA_GROUP_(qk, v, heads, kv_heads, kv_len) * MHA_HEAD_(qk, heads) + \
          (MHA_PLAN_GATHER_ && (kv_len) > 0 ? MHA_SIZE_(kv_heads) \
                                            : MHA_GROUP_(qk, v, heads, kv_heads, kv_len)) * \
              MHA_HEAD_(v, heads)) + \
     MHA_TILE_(MHA_MIN_(MHA_SIZE_(q_len), MHA_PLAN_ROWS_), MHA_KEYS_(q_len)))

/// The least floats of scratch for `mha_forward`, a constant expression: `mha_min_scratch_len` for a
/// layer with one width `n`.
#define MHA_MIN_SCRATCH_LEN(n, heads, kv_len) MHA_MIN_SCRATCH_LEN_DIMS(n, n, heads, kv_len)

/// The least floats of scratch for `mha_forward`, a constant expression: `mha_min_scratch_len` for a
/// layer with `dims.qk` and `dims.v`.
#define MHA_MIN_SCRATCH_LEN_DIMS(qk, v, heads, kv_len) \
    MHA_MIN_SCRATCH_LEN_GROUPED(qk, v, heads, heads, kv_len)

/// The same for a layer with `kv_heads` key/value heads.
#define MHA_MIN_SCRATCH_LEN_GROUPED(qk, v, heads, kv_heads, kv_len) \
    (MHA_KEPT_(qk, v, heads, kv_len) + MHA_MIN_CACHED_SCRATCH_LEN(qk, v, heads, kv_heads))

/// Floats of scratch for full speed on `mha_attend`, a constant expression: `mha_cached_scratch_len`.
/// It does not depend on the cache's capacity.
#define MHA_CACHED_SCRATCH_LEN(qk, v, heads, kv_heads, q_len) \
    (MHA_GROUP_(qk, v, heads, kv_heads, 0) * \
         MHA_SHARED_(qk, v, heads, kv_heads, MHA_MIN_(MHA_SIZE_(q_len), MHA_PLAN_QUERIES_)) + \
     MHA_TILE_(MHA_MIN_(MHA_SIZE_(q_len), MHA_PLAN_ROWS_), MHA_KEYS_(q_len)))

/// The least floats of scratch for `mha_attend`, a constant expression:
/// `mha_min_cached_scratch_len`.
#define MHA_MIN_CACHED_SCRATCH_LEN(qk, v, heads, kv_heads) \
    (MHA_SHARED_(qk, v, heads, kv_heads, 1) + MHA_TILE_(1, MHA_PLAN_BLOCK_))

/// Floats of the keys of a cache, a constant expression: `mha_cache_keys_len`.
#define MHA_CACHE_KEYS_LEN(qk, heads, kv_heads, batch, capacity) \
    (MHA_SIZE_(batch) * MHA_BLOCKS_(capacity) * (MHA_SIZE_(kv_heads) * MHA_HEAD_(qk, heads)))

/// Floats of the values of a cache, a constant expression: `mha_cache_values_len`.
#define MHA_CACHE_VALUES_LEN(v, heads, kv_heads, batch, capacity) \
    (MHA_SIZE_(batch) * MHA_SIZE_(capacity) * (MHA_SIZE_(kv_heads) * MHA_HEAD_(v, heads)))

/// Floats of scratch for full speed on `mha_dot_product_attention`, a constant expression:
/// `mha_attention_scratch_len`.
#define MHA_ATTENTION_SCRATCH_LEN(qk, v, heads, q_len) \
    (MHA_QUERIES_(qk, v, heads, MHA_MIN_(MHA_SIZE_(q_len), MHA_PLAN_QUERIES_)) + \
     MHA_TILE_(MHA_MIN_(MHA_SIZE_(q_len), MHA_PLAN_ROWS_), MHA_KEYS_(q_len)))

/// The least floats of scratch for `mha_dot_product_attention`, a constant expression:
/// `mha_attention_min_scratch_len`.
#define MHA_ATTENTION_MIN_SCRATCH_LEN(qk, v, heads) \
    (MHA_QUERIES_(qk, v, heads, 1) + MHA_TILE_(1, MHA_PLAN_BLOCK_))

/// Floats of y, a constant expression: `mha_y_len`.
#define MHA_Y_LEN(out, batch, q_len) (MHA_SIZE_(batch) * (q_len) * (out))

/// Floats of the scores, a constant expression: `mha_scores_len`.
#define MHA_SCORES_LEN(heads, batch, q_len, kv_len) \
    (MHA_SIZE_(batch) * (heads) * (q_len) * (kv_len))
