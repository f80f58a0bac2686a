/* mha.h: multi-head attention for places without an allocator.

   The transformer layer of Flux, PyTorch, Keras and Flax, for firmware: queries, keys and values in,
   attention and its four projections, y out, and the scores if you want to see them. Floats of 32
   bits. It works in buffers that you give it. It has NO heap, NO global state on bare metal, NO I/O,
   NO threads, NO callbacks, and it never aborts: every mistake comes back as a status, before
   anything has been written.

   THE WHOLE OF IT

       #include <stdio.h>
       #include "mha.h"

       // Trained elsewhere; `const`, so they stay in flash.
       static const float wq[64 * 64] = { ... }, wk[64 * 64] = { ... };
       static const float wv[64 * 64] = { ... }, wo[64 * 64] = { ... };

       static const mha_layer layer = {
           .config = MHA_CONFIG(64, 8),                  // 64 wide, 8 heads
           .weights = { .wq = MHA_SLICE(wq), .wk = MHA_SLICE(wk),
                        .wv = MHA_SLICE(wv), .wo = MHA_SLICE(wo) },
       };
       static float scratch[MHA_SCRATCH_LEN(64, 8, 10, 10)]; // q_len 10, kv_len 10

       int attend(const float x[10 * 64], float y[10 * 64])
       {
           const mha_shape shape = { .batch = 1, .q_len = 10, .kv_len = 10 };
           const mha_inputs inputs = { .q = { x, 10 * 64 }, .causal = MHA_CAUSAL };
           const mha_outputs outputs = { .y = { y, 10 * 64 } };
           mha_status s = mha_forward(&layer, shape, &inputs, &outputs,
                                      scratch, MHA_COUNT(scratch));
           if (s != MHA_OK) puts(mha_status_message(s)); // such as "y: wrong length"
           return s == MHA_OK;
       }

   LINK: one archive per target, libmha.a. It needs memcpy, memset and memmove, on cores without a
   floating-point unit also the compiler's helpers (__aeabi_fmul and its kin), and nothing else: no
   libm, no libc. No float is passed by value, so one archive serves soft, softfp and hard float.

   ARRAYS are row-major and dense, the last axis first in memory: x[batch][length][features] is what
   Flux calls (features, length, batch). A weight is [in][out] (Flux, Keras, Flax, ONNX) or [out][in]
   (PyTorch; say MHA_WEIGHT_ORDER_OUT_IN); neither is copied. Every length is a number of elements,
   never of bytes. Floats are aligned to 4 bytes.

   STRUCTS are plain: fill them with designated initialisers. A member that is left out is zero, and
   zero is the default: no mask, no bias, no scores, self-attention. Widths and heads have no
   default. All of them are read during a call only; nothing keeps a pointer. Whatever is only read
   may be const and in flash, the layer included.

   THE THREE FORMS of Flux: with .q alone, self-attention; with .q and .k, the values are the keys;
   with all three, each its own.

   WHAT A QUERY SEES: .causal needs no array; .mask is bytes, nonzero attends; .bias is added to the
   logits. Each is the same along an axis where its extent is 1. All may be used at once. A query
   that sees nothing gets an attention of zero, so its y is the output's bias. A key that no query
   sees never influences anything, even if NaN lies there.

   SCRATCH: MHA_SCRATCH_LEN is a constant expression, mha_scratch_len the same at run time. It grows
   with kv_len, not with q_len * kv_len. Less works, more slowly and with the same bits, down to
   MHA_MIN_SCRATCH_LEN. What scratch holds before or after a call does not matter.

   BEYOND THE PLAIN LAYER: functions that take `options` have what attention has learned since 2017:
   windows, lengths, softcap, ALiBi, rotary positions, sinks, normalised heads, documents, scores of one
   head or of some queries. config.kv_heads groups heads. mha_append and mha_attend go on from call
   to call over a mha_cache, linear or a ring, in your arrays; mha_forward_packed takes sequences of
   different lengths without padding; mha_merge joins results over pieces. Options are data, a NULL is
   none. A program that calls none of these functions does not contain their code.

   TRAINING: mha_backward has the gradients of inputs, weights and the additive bias from those of y
   and of the scores; it keeps nothing of the way forward. A program that does not call it does not
   contain it. mha_backward_status_message has words for its errors too.

   SIZE: the archives whose names end in -size have the same functions and bits in two thirds of the flash,
   at some per cent of speed where floats are function calls, a fifth to two fifths with an FPU.

   ERRORS: a status is zero, or kind | argument << 8. When it is not zero, nothing has been written.
   What is checked: every pointer for NULL and alignment, every length, every buffer that is written
   for overlap with every other one. What cannot be checked: that a pointer is good for its length.

   THREADS AND INTERRUPTS: a function touches what it is given, and nothing else. Calls may run at
   the same time, in interrupts too, if what they write is not shared. Each uses the floating-point
   registers, where there are any. mha_forward_rows shares one call among threads or cores, and
   mha_split_row cuts its rows into parts of equal cost.

   NUMBERS: with MHA_ISA_PORTABLE the bits of y are the same on every machine, for any scratch, any
   split into rows, with and without scores. Bare metal is always portable. Desktops use fused
   multiply-adds unless told otherwise; these agree with each other, bit for bit.

   VERSIONS: MHA_VERSION is this header's, mha_version() the library's. Before 1.0 the two must agree
   in major and minor number. Numbers of kinds, arguments and instructions never change.

   Generated from the library's source by `cargo xtask header`; do not edit. MIT or Apache-2.0. */

#ifndef MHA_H
#define MHA_H

#include <stddef.h>
#include <stdint.h>

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

/// Major version of this header.
#define MHA_VERSION_MAJOR 0

/// Minor version of this header.
#define MHA_VERSION_MINOR 1

/// Patch version of this header.
#define MHA_VERSION_PATCH 0

/// What can be wrong with a call. The numbers are stable and never reused; those below 32 are the
/// same in Rust and JavaScript.
typedef enum mha_kind {
    /// Nothing is wrong.
    MHA_KIND_OK = 0,
    /// A width or the number of heads is zero.
    MHA_KIND_ZERO = 1,
    /// The number of heads does not divide `qk` or `v`.
    MHA_KIND_HEADS = 2,
    /// A size does not fit the address space.
    MHA_KIND_TOO_LARGE = 3,
    /// A buffer has the wrong length. Scratch may be longer than needed, nothing else may.
    MHA_KIND_LENGTH = 4,
    /// An extent of a mask or bias is neither 1 nor the size of its axis.
    MHA_KIND_BROADCAST = 5,
    /// A value lies outside its domain: a scale that is not finite, a probability outside [0, 1),
    /// a word that its enumeration does not have.
    MHA_KIND_VALUE = 6,
    /// A range of rows ends before it starts, or past the last row.
    MHA_KIND_RANGE = 7,
    /// Two options that exclude each other.
    MHA_KIND_CONFLICT = 8,
    /// A cache has no room for what is to be appended.
    MHA_KIND_CACHE_FULL = 9,
    /// The gradient of something is wanted that the call does not have.
    MHA_KIND_ABSENT = 10,
    /// There is no way back through an option.
    MHA_KIND_OPTION = 11,
    /// A pointer is NULL that must not be.
    MHA_KIND_NULL = 32,
    /// A pointer is not aligned for what it points to.
    MHA_KIND_MISALIGNED = 33,
    /// A buffer that is written overlaps another one.
    MHA_KIND_OVERLAP = 34,
} mha_kind;

/// The argument at fault. The numbers are stable and never reused.
typedef enum mha_argument {
    /// No argument: success.
    MHA_ARGUMENT_NONE = 0,
    /// The widths of the layer.
    MHA_ARGUMENT_DIMS = 1,
    /// The number of heads.
    MHA_ARGUMENT_HEADS = 2,
    /// The factor on the products of queries and keys.
    MHA_ARGUMENT_SCALE = 3,
    /// The lengths of the call.
    MHA_ARGUMENT_SHAPE = 4,
    /// The query input.
    MHA_ARGUMENT_Q = 5,
    /// The key input.
    MHA_ARGUMENT_K = 6,
    /// The value input.
    MHA_ARGUMENT_V = 7,
    /// The weight of the query projection.
    MHA_ARGUMENT_WQ = 8,
    /// The weight of the key projection.
    MHA_ARGUMENT_WK = 9,
    /// The weight of the value projection.
    MHA_ARGUMENT_WV = 10,
    /// The weight of the output projection.
    MHA_ARGUMENT_WO = 11,
    /// The bias of the query projection.
    MHA_ARGUMENT_BQ = 12,
    /// The bias of the key projection.
    MHA_ARGUMENT_BK = 13,
    /// The bias of the value projection.
    MHA_ARGUMENT_BV = 14,
    /// The bias of the output projection.
    MHA_ARGUMENT_BO = 15,
    /// The additive bias on the logits.
    MHA_ARGUMENT_BIAS = 16,
    /// The boolean mask.
    MHA_ARGUMENT_MASK = 17,
    /// The causal rule.
    MHA_ARGUMENT_CAUSAL = 18,
    /// The dropout on the scores.
    MHA_ARGUMENT_DROPOUT = 19,
    /// The range of query rows.
    MHA_ARGUMENT_ROWS = 20,
    /// The output.
    MHA_ARGUMENT_Y = 21,
    /// The scores output.
    MHA_ARGUMENT_SCORES = 22,
    /// The working memory.
    MHA_ARGUMENT_SCRATCH = 23,
    /// The weights of a layer: one flat array of them, or the struct.
    MHA_ARGUMENT_WEIGHTS = 24,
    /// The real lengths of the sequences.
    MHA_ARGUMENT_LENS = 25,
    /// The cap of the logits.
    MHA_ARGUMENT_SOFTCAP = 26,
    /// The slopes of ALiBi.
    MHA_ARGUMENT_ALIBI = 27,
    /// The rotary positions.
    MHA_ARGUMENT_ROPE = 28,
    /// The logits of the sinks.
    MHA_ARGUMENT_SINKS = 29,
    /// The normalisation of q and k.
    MHA_ARGUMENT_NORM = 30,
    /// The documents of queries and keys.
    MHA_ARGUMENT_SEGMENTS = 31,
    /// The extra key and value.
    MHA_ARGUMENT_EXTRA = 32,
    /// The log-sum-exp output.
    MHA_ARGUMENT_LSE = 33,
    /// The key/value cache.
    MHA_ARGUMENT_CACHE = 34,
    /// The number of key/value heads.
    MHA_ARGUMENT_KV_HEADS = 35,
    /// The point at which scores are taken.
    MHA_ARGUMENT_SCORES_AT = 36,
    /// What the way forward keeps for the way back.
    MHA_ARGUMENT_KEPT = 37,
    /// The layer.
    MHA_ARGUMENT_LAYER = 64,
    /// The configuration.
    MHA_ARGUMENT_CONFIG = 65,
    /// The attention without projections.
    MHA_ARGUMENT_ATTENTION = 66,
    /// The struct of the inputs.
    MHA_ARGUMENT_INPUTS = 67,
    /// The struct of the outputs.
    MHA_ARGUMENT_OUTPUTS = 68,
    /// The instructions to run on.
    MHA_ARGUMENT_ISA = 69,
    /// The order of the weights in memory.
    MHA_ARGUMENT_WEIGHT_ORDER = 70,
    /// The weight that an initialiser fills.
    MHA_ARGUMENT_WEIGHT = 72,
    /// The random generator.
    MHA_ARGUMENT_RNG = 73,
    /// A gain, or the parameters of a distribution.
    MHA_ARGUMENT_PARAMETERS = 74,
    /// The struct of the options.
    MHA_ARGUMENT_OPTIONS = 75,
    /// An argument that this version of the interface has no number for.
    MHA_ARGUMENT_OTHER = 255,
} mha_argument;

/// The instructions that a call runs on. The numbers are stable and never reused.
typedef enum mha_isa {
    /// The fastest that this machine has.
    MHA_ISA_FASTEST = 0,
    /// Plain arithmetic, there on every machine and with the same bits on all of them.
    MHA_ISA_PORTABLE = 1,
    /// x86-64 with AVX2 and FMA.
    MHA_ISA_AVX2 = 2,
    /// x86-64 with AVX-512F.
    MHA_ISA_AVX512 = 3,
    /// 64-bit Arm.
    MHA_ISA_NEON = 4,
    /// WebAssembly with 128-bit vectors.
    MHA_ISA_SIMD128 = 5,
} mha_isa;

/// The order in which the two axes of a weight lie in memory. Both are used as they are, without a
/// copy, and give the same bits.
typedef enum mha_weight_order {
    /// `[in][out]`: Flux's `Dense` as stored (column-major `(out, in)`), Keras, Flax, ONNX MatMul.
    MHA_WEIGHT_ORDER_IN_OUT = 0,
    /// `[out][in]`: PyTorch, Hugging Face.
    MHA_WEIGHT_ORDER_OUT_IN = 1,
} mha_weight_order;

/// Which causal rule a call follows.
typedef enum mha_causal_mode {
    /// None: a query may attend to every key.
    MHA_CAUSAL_MODE_NONE = 0,
    /// One offset for the whole batch.
    MHA_CAUSAL_MODE_OFFSET = 1,
    /// An offset for each sequence of the batch.
    MHA_CAUSAL_MODE_PER_SEQUENCE = 2,
    /// As it comes naturally: the first query is at the first key or, with a cache, the last query at
    /// the last position.
    MHA_CAUSAL_MODE_NATURAL = 3,
} mha_causal_mode;

/// At which point of the way from products to probabilities the scores are taken.
typedef enum mha_scores_at {
    /// Probabilities, after softmax and dropout. Keys that a query may not see have 0.
    MHA_SCORES_AT_SOFTMAX = 0,
    /// scale * q * k^T, for every key, whether the query may see it or not.
    MHA_SCORES_AT_LOGITS = 1,
    /// Capped logits plus bias, and minus infinity where the query may not see the key.
    MHA_SCORES_AT_MASKED = 2,
    /// Logits after the softcap of the options, for every key; the same as logits without one.
    MHA_SCORES_AT_CAPPED = 3,
} mha_scores_at;

/// Which slopes ALiBi has.
typedef enum mha_alibi_kind {
    /// No penalty on distance.
    MHA_ALIBI_KIND_NONE = 0,
    /// The usual slopes: 2^(-8 (h + 1) / n) for n heads, a power of two; for other counts those of
    /// the next lower power of two, then every other one of the next higher.
    MHA_ALIBI_KIND_STANDARD = 1,
    /// Those that are given.
    MHA_ALIBI_KIND_SLOPES = 2,
} mha_alibi_kind;

/// Where the angles of a rotation come from.
typedef enum mha_rope_kind {
    /// Nothing is rotated.
    MHA_ROPE_KIND_NONE = 0,
    /// position * base^(-2 i / dims), computed in doubles: exact, and slow without a
    /// double-precision unit.
    MHA_ROPE_KIND_BASE = 1,
    /// Tables of cosines and sines: a lookup, for any scaling of the frequencies.
    MHA_ROPE_KIND_TABLE = 2,
} mha_rope_kind;

/// By what a head of queries or keys is divided.
typedef enum mha_norm_kind {
    /// By nothing.
    MHA_NORM_KIND_NONE = 0,
    /// sqrt(mean x^2 + epsilon).
    MHA_NORM_KIND_RMS = 1,
    /// sqrt(sum x^2 + epsilon).
    MHA_NORM_KIND_L2 = 2,
} mha_norm_kind;

/// Which scores are written.
typedef enum mha_select {
    /// Those of every head, `[batch][heads][q_len][kv_len]`.
    MHA_SELECT_ALL = 0,
    /// Those of one head, `[batch][q_len][kv_len]`.
    MHA_SELECT_HEAD = 1,
    /// Their mean over the heads, `[batch][q_len][kv_len]`: PyTorch's default.
    MHA_SELECT_MEAN = 2,
} mha_select;

/// What a function returns: `MHA_OK`, or what is wrong and with which argument.
///
/// The low byte is one of `enum mha_kind`, the next byte one of `enum mha_argument`, the rest zero.
/// `MHA_STATUS(kind, argument)` puts one together, so a status can be compared with an expected one.
typedef int32_t mha_status;

/// Attention between queries, keys and values that are projected already.
typedef struct mha_attention {
    /// Number of heads, at least 1; divides `qk` and `v`.
    size_t heads;
    /// Features of queries and keys, all heads together, at least 1.
    size_t qk;
    /// Features of values, all heads together, at least 1.
    size_t v;
    /// Nonzero: `scale` counts. Zero: the factor is 1 / sqrt(qk / heads).
    uint32_t has_scale;
    /// Factor on q * k^T, finite.
    float scale;
    /// Number of key/value heads, as in `mha_config`. Zero: as many as `heads`.
    size_t kv_heads;
} mha_attention;

/// How a cache is built.
typedef struct mha_cache_config {
    /// Sequences that grow side by side. Zero: 1.
    size_t batch;
    /// Positions that each can hold. RAM: `MHA_CACHE_KEYS_LEN` and `MHA_CACHE_VALUES_LEN` floats.
    size_t capacity;
    /// For a ring: the first positions, which are never overwritten (attention sinks). A multiple of
    /// 16, less than `capacity`. Zero: none.
    size_t pinned;
    /// Zero: the cache is full when it is full. Nonzero: it is a ring that overwrites its oldest
    /// positions, and `capacity` is a multiple of 16. Positions count on, so windows, ALiBi and
    /// rotation stay right however often it has gone round.
    uint32_t ring;
} mha_cache_config;

/// Floats that are written. Either both members are zero (there is no such buffer), or `data` points
/// to `len` floats, aligned to 4 bytes, that nobody else touches during a call. What they hold
/// before does not matter.
typedef struct mha_slice_mut {
    /// The first float. Not looked at where `len` is zero.
    float *data;
    /// How many floats there are.
    size_t len;
} mha_slice_mut;

/// What of a cache changes beside its arrays. Zero: it is empty.
typedef struct mha_cache_state {
    /// Positions appended so far, less those rolled back; a ring counts on past its capacity.
    size_t len;
    /// The first position after the pinned ones that has not been overwritten.
    size_t oldest;
} mha_cache_state;

/// Keys and values between calls. The caller owns the struct and both arrays: they can be static,
/// and lie in different memories. A struct whose `state` is zero is an empty cache; what the arrays
/// hold then does not matter.
///
/// To go on after power was off, save `state` and both arrays with `memcpy`, and copy them back. A
/// struct that makes no sense, because a copy went wrong, is an error of every function that takes
/// one, as long as its two pointers are good for their lengths.
///
/// Functions that append, reset or roll back need the cache for themselves; any number of calls may
/// attend over one at the same time, in interrupts too, while nobody changes it.
typedef struct mha_cache {
    /// Heads and widths of what it holds: those of the layer. `scale` does not matter.
    struct mha_attention attention;
    /// How it is built.
    struct mha_cache_config config;
    /// Room for keys: `mha_cache_keys_len` floats.
    struct mha_slice_mut keys;
    /// Room for values: `mha_cache_values_len` floats.
    struct mha_slice_mut values;
    /// What changes. Set by the functions.
    struct mha_cache_state state;
} mha_cache;

/// The causal rule: query i may attend to key j when j <= i + offset. No array is needed for it, and
/// keys that it hides cost nothing. Zero: no rule. `MHA_CAUSAL` is an initialiser for the usual one.
typedef struct mha_causal {
    /// One of `enum mha_causal_mode`. Zero: no rule.
    int32_t mode;
    /// For `MHA_CAUSAL_MODE_OFFSET`. 0 aligns the first query with the first key (Flux, PyTorch,
    /// Keras); `kv_len - q_len` aligns the last with the last. A negative offset leaves the first
    /// queries without any key.
    ptrdiff_t offset;
    /// For `MHA_CAUSAL_MODE_PER_SEQUENCE`: the offsets, `[batch]`.
    const ptrdiff_t *offsets;
    /// How many offsets there are.
    size_t offsets_len;
} mha_causal;

/// How far to both sides of its own position a query may see. Zero: without bounds.
///
/// A window of w keys in the sense of Mistral and Keras is the causal rule with `has_left` set and
/// `left` w - 1.
typedef struct mha_window {
    /// Nonzero: `left` counts.
    uint32_t has_left;
    /// Nonzero: `right` counts.
    uint32_t has_right;
    /// Keys before the query's own position that it sees.
    size_t left;
    /// Keys after it that it sees.
    size_t right;
} mha_window;

/// Floats that are read. Either both members are zero (there is no such buffer), or `data` points to
/// `len` floats, aligned to 4 bytes, that stay as they are during a call.
typedef struct mha_slice {
    /// The first float. Not looked at where `len` is zero.
    const float *data;
    /// How many floats there are.
    size_t len;
} mha_slice;

/// Attention with linear biases: a query at position p and a key at j have -slope * |p - j| added to
/// their logit. Zero: none.
typedef struct mha_alibi {
    /// One of `enum mha_alibi_kind`.
    int32_t kind;
    /// For `MHA_ALIBI_KIND_SLOPES`: a slope for each head, `[heads]`.
    struct mha_slice slopes;
} mha_alibi;

/// Rotary positions: pairs of features of queries and keys are rotated by an angle that grows with
/// the position. Keys lie rotated in a cache. Zero: none.
typedef struct mha_rope {
    /// One of `enum mha_rope_kind`.
    int32_t kind;
    /// Zero: pairs are (i, i + dims / 2), as in NeoX and Hugging Face's Llama. Nonzero: (2 i,
    /// 2 i + 1), as in GPT-J and ONNX with interleaved = 1.
    uint32_t interleaved;
    /// For `MHA_ROPE_KIND_BASE`: the base, usually 10000; finite, above zero.
    float base;
    /// Nonzero: `q_offset` counts. Zero: the first query is rotated by its position.
    uint32_t has_q_offset;
    /// Nonzero: `k_offset` counts. Zero: the first new key is rotated by 0, or by the length of the
    /// cache that it is appended to.
    uint32_t has_k_offset;
    /// Features of each head that are rotated, from the first on; even. Zero: all of them.
    size_t dims;
    /// Position by which the first query is rotated.
    size_t q_offset;
    /// Position by which the first new key is rotated.
    size_t k_offset;
    /// For `MHA_ROPE_KIND_TABLE`: cosines, `[positions][dims / 2]`. A position past the end is refused,
    /// RANGE (rope).
    struct mha_slice cos;
    /// For `MHA_ROPE_KIND_TABLE`: sines, likewise.
    struct mha_slice sin;
} mha_rope;

/// Normalises each head of queries and keys before it is rotated (Gemma 3, Qwen 3). Keys lie
/// normalised in a cache. Zero: none.
typedef struct mha_norm {
    /// One of `enum mha_norm_kind`.
    int32_t kind;
    /// Added under the square root; finite, not below zero.
    float epsilon;
    /// Factor on each feature of a query's head, `[qk / heads]`. Zero: 1.
    struct mha_slice q_gain;
    /// Factor on each feature of a key's head, `[qk / heads]`. Zero: 1.
    struct mha_slice k_gain;
} mha_norm;

/// Documents in one row: a query sees keys of its own document only. Zero: none.
typedef struct mha_segments {
    /// The document of each query, `[batch][q_len]`.
    const uint32_t *q;
    /// How many there are.
    size_t q_len;
    /// The document of each key, `[batch][kv_len]`.
    const uint32_t *kv;
    /// How many there are.
    size_t kv_len;
} mha_segments;

/// One more key and value that every query sees: PyTorch's `add_bias_kv`. It has no column in the
/// scores. Zero: none.
typedef struct mha_extra {
    /// The key, projected, `[kv_heads * qk / heads]`.
    struct mha_slice k;
    /// The value, projected, `[kv_heads * v / heads]`.
    struct mha_slice v;
} mha_extra;

/// Every option of a call; zero is none. Plain data: it can be a `static const`, and is read during
/// a call only, with everything it points to.
///
/// The order in which they act is ONNX's: normalise queries and keys, rotate them, scale * q * k^T,
/// softcap, bias and ALiBi, visibility (mask, causal rule, window, lens, segments: all must agree),
/// softmax with sinks in its denominator. Any of them may be combined, but where a function says
/// otherwise.
typedef struct mha_options {
    /// Position of the first query among the keys, for windows, ALiBi and rotation, in the terms of a
    /// causal rule. Zero: that of the causal rule if there is one, else the one that a cache implies,
    /// else 0.
    struct mha_causal offset;
    /// How far a query may see. Keys outside cost nothing.
    struct mha_window window;
    /// How many keys of each sequence are real, `[batch]`, each at most kv_len: padding. Zero: all.
    const size_t *lens;
    /// How many lengths there are.
    size_t lens_len;
    /// A penalty on the distance between query and key.
    struct mha_alibi alibi;
    /// Rotary positions.
    struct mha_rope rope;
    /// A logit for each head, `[heads]`, that takes part in the softmax's denominator and has no
    /// value. Zero: none. An array of zeros is the quiet softmax, and PyTorch's `add_zero_attn`.
    struct mha_slice sinks;
    /// Normalisation of queries and keys.
    struct mha_norm norm;
    /// Documents in one row.
    struct mha_segments segments;
    /// One more key and value.
    struct mha_extra extra;
    /// Filled in with the log-sum-exp of each row in natural units, `[batch][heads][q_len]`; minus
    /// infinity for a row that sees nothing. `mha_merge` takes it. Zero: not wanted. It may overlap
    /// nothing else in the call.
    struct mha_slice_mut lse;
    /// Above zero, c: logits become c * tanh(logits / c). Zero: they stay as they are.
    float softcap;
    /// Which scores are written, where they are asked for: one of `enum mha_select`. Zero: those of
    /// every head.
    int32_t scores;
    /// For `MHA_SELECT_HEAD`: the head.
    size_t score_head;
    /// The first query of each sequence whose scores are written.
    size_t score_queries_start;
    /// One past the last of them: the scores have that many rows in place of q_len. Both zero: all.
    size_t score_queries_end;
} mha_options;

/// The widths of a layer: `(q_in, k_in, v_in) => (qk, v) => out`. None may be zero.
///
/// `MHA_DIMS`, `MHA_DIMS_UNIFORM` and `MHA_DIMS_SHARED` are initialisers for the short forms.
typedef struct mha_dims {
    /// Features of a query input.
    size_t q_in;
    /// Features of a key input.
    size_t k_in;
    /// Features of a value input.
    size_t v_in;
    /// Features of the projected queries and keys, all heads together.
    size_t qk;
    /// Features of the projected values, all heads together.
    size_t v;
    /// Features of the output.
    size_t out;
} mha_dims;

/// Everything about a layer but its weights. `MHA_CONFIG(n, heads)` is an initialiser.
typedef struct mha_config {
    /// The widths.
    struct mha_dims dims;
    /// Number of heads, at least 1; divides `dims.qk` and `dims.v`. Head h owns the features
    /// h * d to (h + 1) * d of queries, keys and values.
    size_t heads;
    /// How the weights lie in memory: one of `enum mha_weight_order`. Zero: `[in][out]`.
    int32_t weight_order;
    /// Nonzero: `scale` counts. Zero: the factor is 1 / sqrt(qk / heads), and `scale` is not looked
    /// at.
    uint32_t has_scale;
    /// Factor on q * k^T, finite. (Flux's and NNlib's argument of that name is a denominator.)
    float scale;
    /// Number of key/value heads; divides `heads`. Head h reads key/value head h / (heads /
    /// kv_heads): grouped-query attention, 1 is multi-query attention. Keys are then projected to
    /// kv_heads * qk / heads features, values to kv_heads * v / heads. Zero: as many as `heads`.
    size_t kv_heads;
} mha_config;

/// The weights of a layer, in the shapes below; with grouped heads (`kv_heads`), qk and v stand for
/// the features of keys and of values in wk, wv, bk and bv. They are borrowed and only read: they can stay in flash, and must live as
/// long as the layer is used.
///
/// A length of zero beside a pointer means that nobody counted: the length is then taken from the
/// configuration. `MHA_SLICE(array)` counts, and a wrong count is an error.
typedef struct mha_weights {
    /// Query projection, `[q_in][qk]` or `[qk][q_in]`.
    struct mha_slice wq;
    /// Key projection, `[k_in][qk]` or `[qk][k_in]`.
    struct mha_slice wk;
    /// Value projection, `[v_in][v]` or `[v][v_in]`.
    struct mha_slice wv;
    /// Output projection, `[v][out]` or `[out][v]`.
    struct mha_slice wo;
    /// Bias of the query projection, `[qk]`. Zero: none.
    struct mha_slice bq;
    /// Bias of the key projection, `[qk]`. Zero: none.
    struct mha_slice bk;
    /// Bias of the value projection, `[v]`. Zero: none.
    struct mha_slice bv;
    /// Bias of the output projection, `[out]`. Zero: none.
    struct mha_slice bo;
} mha_weights;

/// Multi-head attention with its four projections: Flux's `MultiHeadAttention`.
///
/// It can be a `static const` in flash, weights and all. Nothing is ever written to it, so any
/// number of threads, tasks and interrupts may use one at the same time, each with outputs and
/// scratch of its own.
typedef struct mha_layer {
    /// Widths, heads, scale, order of the weights.
    struct mha_config config;
    /// The weights.
    struct mha_weights weights;
    /// The instructions to run on: one of `enum mha_isa`. Zero: the fastest that the machine has.
    int32_t isa;
} mha_layer;

/// The lengths of one call. Any may be zero: an empty batch or no queries writes nothing; without
/// keys, attention is zero.
typedef struct mha_shape {
    /// Independent sequences.
    size_t batch;
    /// Queries of each.
    size_t q_len;
    /// Keys and values of each.
    size_t kv_len;
} mha_shape;

/// A bias that is added to the logits, before the softmax. Zero: no bias.
///
/// Minus infinity excludes a key as a mask does; keys whose logit is plus infinity share the row.
typedef struct mha_bias {
    /// A float each, row-major `[batch][heads][q_len][kv_len]` after the extents below.
    const float *data;
    /// How many floats there are: the product of the extents.
    size_t len;
    /// For each of the axes batch, heads, q_len, kv_len: 1 where the bias is the same all along it,
    /// otherwise the axis's size. Zero stands for the axis's size.
    size_t extents[4];
} mha_bias;

/// A boolean mask: which keys a query may attend to, with or without the causal rule. Zero: no mask.
///
/// Nonzero attends, as in Flux and ONNX, unless `excluding` says otherwise.
typedef struct mha_mask {
    /// A byte each, row-major `[batch][heads][q_len][kv_len]` after the extents below. An array of
    /// `bool` will do with a cast.
    const uint8_t *data;
    /// How many bytes there are: the product of the extents.
    size_t len;
    /// For each of the axes batch, heads, q_len, kv_len: 1 where the mask is the same all along it,
    /// otherwise the axis's size. Zero stands for the axis's size. A mask of padded keys, say, is
    /// `{ 0, 1, 1, 0 }`, `[batch][kv_len]`.
    size_t extents[4];
    /// Nonzero: the opposite sense, a nonzero byte is excluded, as in PyTorch's
    /// `nn.MultiheadAttention` and in Burn.
    uint32_t excluding;
} mha_mask;

/// Dropout on the scores, for training. Zero: none.
///
/// The same seed, batch, head, query and key give the same decision on every machine.
typedef struct mha_dropout {
    /// Probability of dropping a score, 0 <= p < 1; those that stay are multiplied by 1 / (1 - p).
    float p;
    /// Seed of the decisions.
    uint64_t seed;
} mha_dropout;

/// The inputs of one call. Zero is the default for all of it but `q`.
typedef struct mha_inputs {
    /// Queries, `[batch][q_len][q_in]`.
    struct mha_slice q;
    /// Keys, `[batch][kv_len][k_in]`. Zero: the queries (self-attention), unless kv_len is zero.
    /// Functions that take a cache do not look at keys and values.
    struct mha_slice k;
    /// Values, `[batch][kv_len][v_in]`. Zero: the keys, unless kv_len is zero.
    struct mha_slice v;
    /// Additive bias.
    struct mha_bias bias;
    /// Boolean mask.
    struct mha_mask mask;
    /// Causal rule.
    struct mha_causal causal;
    /// Dropout.
    struct mha_dropout dropout;
} mha_inputs;

/// The outputs of one call: overwritten, and never read before that. They may overlap nothing else
/// in the call.
typedef struct mha_outputs {
    /// The output, `[batch][q_len][out]`.
    struct mha_slice_mut y;
    /// The scores of every head, `[batch][heads][q_len][kv_len]`. Zero: not wanted, and then they
    /// cost nothing. `y` has the same bits either way.
    struct mha_slice_mut scores;
    /// Which scores: one of `enum mha_scores_at`. Zero: probabilities.
    int32_t scores_at;
} mha_outputs;

/// The gradient of a loss with respect to what the layer returned.
typedef struct mha_upstream {
    /// With respect to y, `[batch][q_len][out]`.
    struct mha_slice dy;
    /// With respect to the scores (after the softmax and after dropout),
    /// `[batch][heads][q_len][kv_len]`; left out where the loss does not look at them.
    struct mha_slice dscores;
    /// What `mha_forward_keeping` has kept of the same call; left out where it is to be computed again.
    struct mha_slice kept;
} mha_upstream;

/// Where gradients go: those that are wanted, the others left out. What is left out is not computed.
/// Each has the shape and the order of what it is the gradient of; none may overlap anything else of
/// the call. Where an input was left out (self-attention), its gradient is that of the array that took
/// its place, and is added to that one's by the caller.
typedef struct mha_gradients {
    /// Of the query input, `[batch][q_len][q_in]`.
    struct mha_slice_mut q;
    /// Of the key input, `[batch][kv_len][k_in]`.
    struct mha_slice_mut k;
    /// Of the value input, `[batch][kv_len][v_in]`.
    struct mha_slice_mut v;
    /// Of the query projection.
    struct mha_slice_mut wq;
    /// Of the key projection.
    struct mha_slice_mut wk;
    /// Of the value projection.
    struct mha_slice_mut wv;
    /// Of the output projection.
    struct mha_slice_mut wo;
    /// Of the bias of the query projection.
    struct mha_slice_mut bq;
    /// Of the bias of the key projection.
    struct mha_slice_mut bk;
    /// Of the bias of the value projection.
    struct mha_slice_mut bv;
    /// Of the bias of the output projection.
    struct mha_slice_mut bo;
    /// Of the additive bias on the logits, in its extents: summed where it stands for several.
    struct mha_slice_mut bias;
    /// Nonzero: gradients are added to what is there. Zero: they overwrite it.
    uint32_t accumulate;
} mha_gradients;

/// What one thread or core does of a way back that several share: some key/value heads (and the query
/// heads that read them) of some sequences. `mha_split_backward` makes one.
typedef struct mha_part {
    /// The first sequence of the batch.
    size_t sequences_start;
    /// One past the last sequence.
    size_t sequences_end;
    /// The first key/value head.
    size_t kv_heads_start;
    /// One past the last key/value head.
    size_t kv_heads_end;
} mha_part;

/// A small random generator, owned by the caller: SplitMix64. Good for weights and shuffles, not for
/// secrets. `{ seed }` is an initialiser; every seed is a good one.
typedef struct mha_rng {
    /// The state: the seed at first.
    uint64_t state;
} mha_rng;

/// A normal distribution that is cut off.
typedef struct mha_truncated_normal {
    /// Mean before it is cut off.
    float mean;
    /// Standard deviation before it is cut off.
    float deviation;
    /// The least value.
    float low;
    /// The greatest value.
    float high;
} mha_truncated_normal;

/// Success.
#define MHA_OK 0

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// Version of the library that was linked, `major << 24 | minor << 16 | patch`: compare with
/// `MHA_VERSION`, the version of the header.
///
/// Structs may differ between two versions that differ in major or minor number. Safe to call from
/// anywhere, interrupts included.
///
/// @return the version; there is no status.
uint32_t mha_version(void);

/// Version of the library that was linked as text, such as `"0.1.0"`.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; there is no status.
const char *mha_version_string(void);

/// The kind of error: one of `enum mha_kind`. The macro `MHA_STATUS_KIND` is the same as a constant
/// expression.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the kind, `MHA_KIND_OK` for `MHA_OK`.
int32_t mha_status_kind(mha_status status);

/// The argument at fault: one of `enum mha_argument`. The macro `MHA_STATUS_ARGUMENT` is the same as
/// a constant expression.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the argument, `MHA_ARGUMENT_NONE` for `MHA_OK`.
int32_t mha_status_argument(mha_status status);

/// The name of the argument at fault, such as `"scratch"`.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; empty for `MHA_OK`, `"other"` for an argument
/// that this library does not know.
const char *mha_status_argument_name(mha_status status);

/// What is wrong, without the argument, such as `"wrong length"`: less flash than
/// `mha_status_message`.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; `"ok"` for `MHA_OK`, `"unknown status"` for
/// what this library never returns.
const char *mha_status_reason(mha_status status);

/// What is wrong with which argument, such as `"scratch: too short"`.
///
/// The texts take about 4 KiB of flash, in programs that call this function; archives of the least code
/// have none, and this function is `mha_status_reason`. Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; `"ok"` for `MHA_OK`, and what
/// `mha_status_reason` says for a status that this library never returns.
const char *mha_status_message(mha_status status);

/// The instructions that `MHA_ISA_FASTEST` stands for on this machine.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return one of `enum mha_isa`.
int32_t mha_detect(void);

/// The name of the instructions that a call with this word runs on, such as `"portable"` or
/// `"avx2"`.
///
/// @param isa one of `enum mha_isa`; for `MHA_ISA_FASTEST`, the name of what that is here.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; NULL where the machine does not have them or
/// there is no such word.
const char *mha_isa_name(int32_t isa);

/// Checks a cache: its attention, its configuration, both arrays against them, and its state.
///
/// @param cache read during the call only; the arrays are not looked at.
///
/// Safe to call from anywhere, interrupts included, while nobody changes the cache.
///
/// @return MHA_OK; NULL or MISALIGNED (cache); what `mha_attention_check` returns; VALUE (cache) for
/// a ring whose capacity or pinned positions are no multiple of 16, or pinned positions without a
/// ring; LENGTH or TOO_LARGE (cache) for an array of another length; RANGE (cache) for a state that
/// such a cache cannot have.
mha_status mha_cache_check(const struct mha_cache *cache);

/// Positions of each sequence that can still be attended to: the last axis of the scores. For a ring
/// that has gone round, the pinned ones and those from `state.oldest` on, in that order; otherwise
/// `state.len`.
///
/// @param cache read during the call only.
///
/// Safe to call from anywhere, interrupts included, while nobody changes the cache.
///
/// @return the count; SIZE_MAX for what `mha_cache_check` refuses.
size_t mha_cache_stored(const struct mha_cache *cache);

/// Forgets everything that a cache holds, whatever its state says. The arrays stay as they are.
///
/// @param cache its state is set.
///
/// Safe to call from anywhere, interrupts included, while nobody else uses the cache.
///
/// @return what `mha_cache_check` returns, but for RANGE; OVERLAP (cache) for arrays that overlap
/// each other or the struct. Nothing has been written then.
mha_status mha_cache_reset(struct mha_cache *cache);

/// Forgets the positions of a cache from `len` on, as when a speculation failed.
///
/// @param cache its state is set.
/// @param len how many positions are to stay.
///
/// Safe to call from anywhere, interrupts included, while nobody else uses the cache.
///
/// @return MHA_OK; what `mha_cache_check` returns; OVERLAP (cache) as in `mha_cache_reset`; RANGE
/// (cache) where there are not as many positions, or a ring has overwritten what would come before.
/// Nothing has been written then.
mha_status mha_cache_rollback(struct mha_cache *cache, size_t len);

/// Appends keys and values that are projected already.
///
/// @param cache its arrays and state are written.
/// @param k keys, `[batch][n][kv_heads * qk / heads]`; n follows from the length. They may overlap
/// nothing of the cache, like everything else that is read.
/// @param k_len how many floats there are.
/// @param v values, `[batch][n][kv_heads * v / heads]`. NULL, and `v_len` zero: the keys.
/// @param v_len how many floats there are.
/// @param options norm and rope, which change the keys on their way into the cache; the other
/// options belong to the attending and are not looked at. NULL: none.
///
/// Nothing else is read or written. Safe to call in interrupts, while nobody else uses the cache.
///
/// @return MHA_OK; what `mha_cache_check` returns; NULL or MISALIGNED (any buffer), LENGTH or
/// TOO_LARGE (any buffer), CACHE_FULL (cache), VALUE (rope, norm), MISALIGNED (options), OVERLAP
/// (cache). Nothing has been written then.
mha_status mha_cache_append(struct mha_cache *cache,
                            const float *k,
                            size_t k_len,
                            const float *v,
                            size_t v_len,
                            const struct mha_options *options);

/// Checks the widths, heads, scale and weight order of a configuration.
///
/// @param config read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL or MISALIGNED (config), ZERO (dims, heads), HEADS (heads), TOO_LARGE
/// (dims), VALUE (scale, weight_order).
mha_status mha_config_check(const struct mha_config *config);

/// Checks the widths, heads and scale of attention without projections.
///
/// @param attention read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL or MISALIGNED (attention), ZERO (dims, heads), HEADS (heads), VALUE
/// (scale).
mha_status mha_attention_check(const struct mha_attention *attention);

/// Checks a layer: its configuration, and every weight against it. Once a layer has passed, a call
/// fails only for what belongs to the call.
///
/// @param layer read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; what `mha_config_check` returns; NULL or MISALIGNED (layer, wq to bo), LENGTH or
/// TOO_LARGE (wq to bo), VALUE (isa).
mha_status mha_layer_check(const struct mha_layer *layer);

/// Takes one flat array of weights apart: wq wk wv wo and, where the array is longer, bq bk bv bo.
///
/// @param config read during the call only.
/// @param flat the array, `mha_weights_len(config)` floats, or that plus `mha_biases_len(config)`.
/// It is borrowed by `weights`, not copied.
/// @param flat_len how many floats there are.
/// @param weights filled in.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; what `mha_config_check` returns; NULL or MISALIGNED (config, weights), LENGTH or
/// TOO_LARGE (weights) for an array of another length, OVERLAP (weights) for a struct that lies in
/// the array. Nothing has been written then.
mha_status mha_weights_from_flat(const struct mha_config *config,
                                 const float *flat,
                                 size_t flat_len,
                                 struct mha_weights *weights);

/// Computes a layer: y = Wo (heads of attention (Wq q, Wk k, Wv v)).
///
/// A query that may not see any key gets scores of 0 and an attention output of 0, so its y is the
/// output bias. (Flux gives NaN there.)
///
/// @param layer read during the call only; may be `const` and in flash.
/// @param shape batch, q_len, kv_len.
/// @param inputs read during the call only, with everything it points to.
/// @param outputs where to write; the struct itself is only read. What the buffers hold before does
/// not matter. They may not overlap each other, scratch, the inputs or the weights.
/// @param scratch working memory. `mha_scratch_len` floats give full speed; less works down to
/// `mha_min_scratch_len`, with the same bits. What it holds before and after does not matter.
/// @param scratch_len how many floats of scratch there are.
///
/// Nothing else is read or written, and nothing is kept: calls with outputs and scratch of their own
/// may run at the same time, in interrupts too.
///
/// @return MHA_OK; what `mha_layer_check` returns; NULL or MISALIGNED (inputs, outputs, or any
/// buffer), LENGTH (any buffer), TOO_LARGE (shape, or any buffer), BROADCAST (mask, bias), VALUE
/// (causal, dropout, scores_at), OVERLAP (y, scores, scratch). Nothing has been written then.
mha_status mha_forward(const struct mha_layer *layer,
                       struct mha_shape shape,
                       const struct mha_inputs *inputs,
                       const struct mha_outputs *outputs,
                       float *scratch,
                       size_t scratch_len);

/// Computes some rows of a layer: the queries from `rows_start` up to, not including, `rows_end` of
/// the batch * q_len there are, with the bits that `mha_forward` gives them. Threads or cores can
/// share a call so, each with outputs and scratch of its own.
///
/// @param layer as in `mha_forward`.
/// @param shape that of the whole call.
/// @param rows_start the first row.
/// @param rows_end one past the last row.
/// @param inputs those of the whole call.
/// @param outputs y holds the rows alone, `[rows][out]`; scores hold, for each sequence that the
/// rows touch, in order, `[heads][its rows][kv_len]`.
/// @param scratch as in `mha_forward`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward` returns, and RANGE (rows) for rows that there are not. Nothing has
/// been written then.
mha_status mha_forward_rows(const struct mha_layer *layer,
                            struct mha_shape shape,
                            size_t rows_start,
                            size_t rows_end,
                            const struct mha_inputs *inputs,
                            const struct mha_outputs *outputs,
                            float *scratch,
                            size_t scratch_len);

/// Attention between queries, keys and values that are projected already: NNlib's
/// `dot_product_attention`.
///
/// Heads split the features: head h owns the features h * d to (h + 1) * d of queries and keys,
/// likewise of values and of y; nothing is moved.
///
/// @param attention read during the call only.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs q `[batch][q_len][qk]`, k `[batch][kv_len][qk]`, v `[batch][kv_len][v]`, and the
/// rest as in `mha_forward`.
/// @param outputs y `[batch][q_len][v]`, scores `[batch][heads][q_len][kv_len]`.
/// @param scratch working memory: `mha_attention_scratch_len` floats give full speed; less works
/// down to `mha_attention_min_scratch_len`, which does not depend on the shape.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return MHA_OK; what `mha_attention_check` returns; VALUE (isa); the rest of `mha_forward`.
/// Nothing has been written then.
mha_status mha_dot_product_attention(const struct mha_attention *attention,
                                     int32_t isa,
                                     struct mha_shape shape,
                                     const struct mha_inputs *inputs,
                                     const struct mha_outputs *outputs,
                                     float *scratch,
                                     size_t scratch_len);

/// The scores of attention alone: NNlib's `dot_product_attention_scores`. The values, and
/// `attention`'s width of them, are not looked at.
///
/// @param attention read during the call only.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs as in `mha_dot_product_attention`, without v.
/// @param scores filled in, `[batch][heads][q_len][kv_len]`; may overlap nothing else.
/// @param scores_len how many floats there are.
/// @param scratch as in `mha_dot_product_attention`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_dot_product_attention` returns. Nothing has been written then.
mha_status mha_dot_product_attention_scores(const struct mha_attention *attention,
                                            int32_t isa,
                                            struct mha_shape shape,
                                            const struct mha_inputs *inputs,
                                            float *scores,
                                            size_t scores_len,
                                            float *scratch,
                                            size_t scratch_len);

/// Computes a layer as `mha_forward` does, with options.
///
/// @param layer as in `mha_forward`.
/// @param shape as in `mha_forward`.
/// @param inputs as in `mha_forward`.
/// @param options read during the call only, with everything it points to. NULL: none.
/// @param outputs as in `mha_forward`; `options->scores` says which scores, and so their length.
/// @param scratch as in `mha_forward`: options take none.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward` returns; MISALIGNED (options); VALUE (softcap, alibi, rope, norm,
/// scores); LENGTH, NULL, MISALIGNED or TOO_LARGE (lens, alibi, rope, sinks, norm, segments, extra,
/// lse); RANGE (lens, scores, rope); CONFLICT (scores_at) for the mean of scores that are not probabilities;
/// OVERLAP (lse). Nothing has been written then.
mha_status mha_forward_with(const struct mha_layer *layer,
                            struct mha_shape shape,
                            const struct mha_inputs *inputs,
                            const struct mha_options *options,
                            const struct mha_outputs *outputs,
                            float *scratch,
                            size_t scratch_len);

/// Computes some rows of a layer as `mha_forward_rows` does, with options.
///
/// @param layer as in `mha_forward`.
/// @param shape that of the whole call.
/// @param rows_start the first row.
/// @param rows_end one past the last row.
/// @param inputs those of the whole call.
/// @param options those of the whole call; lse is that of the whole call, of which the rows' places
/// are written: two calls at the same time must not be given the same. NULL: none.
/// @param outputs as in `mha_forward_rows`.
/// @param scratch as in `mha_forward`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward_with` returns, and RANGE (rows). Nothing has been written then.
mha_status mha_forward_rows_with(const struct mha_layer *layer,
                                 struct mha_shape shape,
                                 size_t rows_start,
                                 size_t rows_end,
                                 const struct mha_inputs *inputs,
                                 const struct mha_options *options,
                                 const struct mha_outputs *outputs,
                                 float *scratch,
                                 size_t scratch_len);

/// Computes sequences of different lengths that lie one after another without padding.
///
/// Sequence i has the queries `q_starts[i]` up to, not including, `q_starts[i + 1]`, and likewise the
/// keys and values of `kv_starts`; elsewhere these arrays are called `cu_seqlens`. The causal rule
/// and the options apply to each sequence by itself.
///
/// @param layer as in `mha_forward`.
/// @param sequences how many there are.
/// @param q_starts `[sequences + 1]`, not falling; read during the call only.
/// @param kv_starts `[sequences + 1]`, not falling; read during the call only.
/// @param inputs q `[q_starts[sequences]][q_in]`, k and v `[kv_starts[sequences]][k_in]` and
/// `[v_in]`. What is given for each sequence of a batch has no place here: mask, bias, offsets.
/// @param options as in `mha_forward_with`, without lens, segments and lse. NULL: none.
/// @param outputs y `[queries][out]`; scores, if asked for, for each sequence in order
/// `[heads][its queries][its keys]`.
/// @param scratch as in `mha_forward`, for the longest sequence.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward_with` returns; NULL, MISALIGNED or TOO_LARGE (rows) of starts, RANGE
/// (rows) for starts that fall; CONFLICT (rows) for mask, bias, lens, segments, lse or offsets of
/// single sequences. Nothing has been written then.
mha_status mha_forward_packed(const struct mha_layer *layer,
                              size_t sequences,
                              const size_t *q_starts,
                              const size_t *kv_starts,
                              const struct mha_inputs *inputs,
                              const struct mha_options *options,
                              const struct mha_outputs *outputs,
                              float *scratch,
                              size_t scratch_len);

/// Projects keys and values and appends them to a cache. Appending n positions at once or one by one
/// leaves the same bits there.
///
/// @param layer as in `mha_forward`; its heads and widths must be those of the cache.
/// @param cache its arrays and state are written.
/// @param k keys, `[batch][n][k_in]`; n follows from the length. They may overlap nothing of the
/// cache, like everything else that is read.
/// @param k_len how many floats there are.
/// @param v values, `[batch][n][v_in]`. NULL, and `v_len` zero: the keys.
/// @param v_len how many floats there are.
/// @param options norm and rope, which change the keys on their way into the cache; the other
/// options belong to the attending and are not looked at. NULL: none.
///
/// It takes no scratch. Nothing else is read or written. Safe to call in interrupts, while nobody
/// else uses the cache.
///
/// @return MHA_OK; what `mha_layer_check` and `mha_cache_check` return; VALUE (cache) for a cache of
/// other heads or widths; the rest of `mha_cache_append`. Nothing has been written then.
mha_status mha_append(const struct mha_layer *layer,
                      struct mha_cache *cache,
                      const float *k,
                      size_t k_len,
                      const float *v,
                      size_t v_len,
                      const struct mha_options *options);

/// Attends over a cache: queries are projected, keys and values are those that `mha_append` has left
/// there.
///
/// Where neither a causal rule nor `options->offset` says otherwise, the last query stands at the last
/// position, so a call with `MHA_CAUSAL` gives after each append what `mha_forward` gives for the
/// whole, bit for bit. Masks, biases and lens count keys by their positions, up to `cache->state.len`.
///
/// @param layer as in `mha_forward`.
/// @param cache read during the call only. Any number of calls may read one at the same time.
/// @param q_len queries of each sequence.
/// @param inputs q `[batch][q_len][q_in]`; k and v are not looked at; the rest as in `mha_forward`,
/// with kv_len being `cache->state.len`.
/// @param options as in `mha_forward_with`; norm and rope must be those of the appending. NULL: none.
/// @param outputs y `[batch][q_len][out]`; scores `[batch][heads][q_len][mha_cache_stored(cache)]`.
/// @param scratch working memory. `mha_cached_scratch_len` floats give full speed; less works down to
/// `mha_min_cached_scratch_len`, with the same bits, whatever the cache holds.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`, while nobody changes the cache.
///
/// @return what `mha_forward_with` and `mha_cache_check` return; VALUE (cache) for a cache of other
/// heads or widths; CONFLICT (scores_at) for scores that are not probabilities from a ring that has gone
/// round. Nothing has been written then.
mha_status mha_attend(const struct mha_layer *layer,
                      const struct mha_cache *cache,
                      size_t q_len,
                      const struct mha_inputs *inputs,
                      const struct mha_options *options,
                      const struct mha_outputs *outputs,
                      float *scratch,
                      size_t scratch_len);

/// Attention without projections as `mha_dot_product_attention` computes it, with options.
///
/// @param attention as in `mha_dot_product_attention`.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs as in `mha_dot_product_attention`; with grouped heads, k has kv_heads * qk / heads
/// features and v kv_heads * v / heads.
/// @param options as in `mha_forward_with`, without norm and rope: keys are read where they lie. A
/// cache has room for changed ones. NULL: none.
/// @param outputs as in `mha_dot_product_attention`; `options->scores` says which scores.
/// @param scratch as in `mha_dot_product_attention`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_dot_product_attention` returns; the rest of `mha_forward_with`; CONFLICT (rope,
/// norm). Nothing has been written then.
mha_status mha_dot_product_attention_with(const struct mha_attention *attention,
                                          int32_t isa,
                                          struct mha_shape shape,
                                          const struct mha_inputs *inputs,
                                          const struct mha_options *options,
                                          const struct mha_outputs *outputs,
                                          float *scratch,
                                          size_t scratch_len);

/// The scores of attention alone as `mha_dot_product_attention_scores` computes them, with options.
///
/// @param attention as in `mha_dot_product_attention_scores`.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs as in `mha_dot_product_attention_with`, without v.
/// @param options as in `mha_dot_product_attention_with`. NULL: none.
/// @param scores filled in, `[batch][heads][q_len][kv_len]` or what `options->scores` makes of it; may
/// overlap nothing else.
/// @param scores_len how many floats there are.
/// @param scratch as in `mha_dot_product_attention`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_dot_product_attention_with` returns. Nothing has been written then.
mha_status mha_dot_product_attention_scores_with(const struct mha_attention *attention,
                                                 int32_t isa,
                                                 struct mha_shape shape,
                                                 const struct mha_inputs *inputs,
                                                 const struct mha_options *options,
                                                 float *scores,
                                                 size_t scores_len,
                                                 float *scratch,
                                                 size_t scratch_len);

/// Attention without projections over a cache: `mha_attend` for queries that are projected already.
///
/// @param attention heads, widths and scale; heads and widths must be those of the cache.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param cache read during the call only, as in `mha_attend`.
/// @param q_len queries of each sequence.
/// @param inputs q `[batch][q_len][qk]`; the rest as in `mha_attend`.
/// @param options as in `mha_attend`. NULL: none.
/// @param outputs y `[batch][q_len][v]`; scores as in `mha_attend`.
/// @param scratch as in `mha_dot_product_attention`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_attend`.
///
/// @return what `mha_dot_product_attention` returns; the rest of `mha_attend`. Nothing has been
/// written then.
mha_status mha_dot_product_attention_cached(const struct mha_attention *attention,
                                            int32_t isa,
                                            const struct mha_cache *cache,
                                            size_t q_len,
                                            const struct mha_inputs *inputs,
                                            const struct mha_options *options,
                                            const struct mha_outputs *outputs,
                                            float *scratch,
                                            size_t scratch_len);

/// Merges the attention of one sequence over some keys with that over others into the attention over
/// all of them: two memories, two cores, a prefix that many share. Exact but for the rounding of two
/// products a value; pieces can be merged in any order.
///
/// @param attention read during the call only.
/// @param rows queries.
/// @param y attention without projections over some keys, `[rows][v]`; receives the result.
/// @param lse the log-sum-exps that belong to it (`mha_options.lse`), `[heads][rows]`; receives those
/// of the result.
/// @param other_y the attention over the other keys, `[rows][v]`.
/// @param other_lse the log-sum-exps that belong to it, `[heads][rows]`.
///
/// y and lse may overlap nothing else. Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; what `mha_attention_check` returns; NULL, MISALIGNED or TOO_LARGE (y, lse), OVERLAP
/// (y, lse). Nothing has been written then.
mha_status mha_merge(const struct mha_attention *attention,
                     size_t rows,
                     float *y,
                     float *lse,
                     const float *other_y,
                     const float *other_lse);

/// Floats that `mha_forward_keeping` keeps.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_kept_len(const struct mha_config *config,
                    struct mha_shape shape);

/// Computes a layer as `mha_forward_with` does, the same bits, and keeps what `mha_backward` would
/// compute again: with `upstream.kept` it gives the same gradients, and both together take about a sixth
/// less time. For machines with plenty of memory.
///
/// @param layer as in `mha_forward`.
/// @param shape as in `mha_forward`.
/// @param inputs as in `mha_forward`.
/// @param options as in `mha_backward`. NULL: none.
/// @param outputs as in `mha_forward`.
/// @param kept filled in; may overlap nothing else.
/// @param kept_len `mha_kept_len(config, shape)`.
/// @param scratch as in `mha_forward`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward_with` returns; NULL, MISALIGNED, TOO_LARGE, LENGTH or OVERLAP (kept); OPTION
/// (norm, extra, lse) for an option that there is no way back through. Nothing has been written then.
/// `mha_backward_status_message` has words for all of them.
mha_status mha_forward_keeping(const struct mha_layer *layer,
                               struct mha_shape shape,
                               const struct mha_inputs *inputs,
                               const struct mha_options *options,
                               const struct mha_outputs *outputs,
                               float *kept,
                               size_t kept_len,
                               float *scratch,
                               size_t scratch_len);

/// Computes the gradients of a loss with respect to the inputs, the weights and the additive bias of
/// `mha_forward`, from those with respect to y and, where they matter, to the scores.
///
/// Nothing of the way forward has to be kept: scores are computed again, a block of queries at a time,
/// and dropout decides again what it decided. A key that nobody may see, and a query that sees nothing,
/// gets a gradient of zero and gives none.
///
/// @param layer as in `mha_forward`.
/// @param shape as in `mha_forward`.
/// @param inputs those of the way forward.
/// @param options as in `mha_forward_with`, without norm, extra and lse, and with dscores without a
/// choice of scores. NULL: none.
/// @param upstream read during the call only, with everything it points to.
/// @param gradients where to write; the struct itself is only read.
/// @param scratch working memory. `mha_backward_scratch_len` floats give full speed; less works down
/// to `mha_min_backward_scratch_len`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_forward_with` returns, y and scores apart; with `MHA_GRADIENT(argument)` in place
/// of the argument, NULL, MISALIGNED, TOO_LARGE, LENGTH or OVERLAP for a gradient (dy and dscores:
/// y, scores; the structs upstream: y, gradients: none), ABSENT for the gradient of something that the
/// call does not have; OPTION (norm, extra, lse, scores) for an option that there is no way back
/// through; NULL, MISALIGNED, TOO_LARGE or LENGTH (kept). Nothing has been written then.
/// `mha_backward_status_message` has words for all of them.
mha_status mha_backward(const struct mha_layer *layer,
                        struct mha_shape shape,
                        const struct mha_inputs *inputs,
                        const struct mha_options *options,
                        const struct mha_upstream *upstream,
                        const struct mha_gradients *gradients,
                        float *scratch,
                        size_t scratch_len);

/// Computes what a part of a call adds to its gradients. Threads or cores can share a way back so, each
/// with scratch and gradients of its own: the sum of all parts' gradients is what `mha_backward`
/// computes, up to the rounding of that sum.
///
/// @param layer as in `mha_forward`.
/// @param shape that of the whole call.
/// @param part which heads of which sequences.
/// @param inputs those of the whole call.
/// @param options those of the whole call.
/// @param upstream that of the whole call.
/// @param gradients as in `mha_backward`, each as long as for the whole call.
/// @param scratch as in `mha_backward`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_backward` returns, and RANGE (rows, kv_heads) for a part that there is not.
/// Nothing has been written then.
mha_status mha_backward_part(const struct mha_layer *layer,
                             struct mha_shape shape,
                             struct mha_part part,
                             const struct mha_inputs *inputs,
                             const struct mha_options *options,
                             const struct mha_upstream *upstream,
                             const struct mha_gradients *gradients,
                             float *scratch,
                             size_t scratch_len);

/// Computes the gradients of `mha_dot_product_attention`: of queries, keys, values and the additive
/// bias. Rotary positions are allowed here: keys are rotated in scratch.
///
/// @param attention as in `mha_dot_product_attention`.
/// @param isa the instructions to run on, one of `enum mha_isa`.
/// @param shape batch, q_len, kv_len.
/// @param inputs those of the way forward.
/// @param options as in `mha_backward`.
/// @param upstream as in `mha_backward`; dy is `[batch][q_len][v]`.
/// @param gradients as in `mha_backward`, those of weights and their biases left out.
/// @param scratch working memory. `mha_attention_backward_scratch_len` floats give full speed; less
/// works down to `mha_attention_min_backward_scratch_len`.
/// @param scratch_len how many floats of scratch there are.
///
/// Threads and interrupts: as in `mha_forward`.
///
/// @return what `mha_dot_product_attention_with` returns, y and scores apart; the rest of
/// `mha_backward`. Nothing has been written then.
mha_status mha_dot_product_attention_backward(const struct mha_attention *attention,
                                              int32_t isa,
                                              struct mha_shape shape,
                                              const struct mha_inputs *inputs,
                                              const struct mha_options *options,
                                              const struct mha_upstream *upstream,
                                              const struct mha_gradients *gradients,
                                              float *scratch,
                                              size_t scratch_len);

/// Takes one flat array of gradients apart, in the order of `mha_weights_from_flat`.
///
/// @param config read during the call only.
/// @param flat `mha_weights_len(config)` floats, or that plus `mha_biases_len(config)`. It is lent to
/// `gradients`, not copied.
/// @param flat_len how many floats there are.
/// @param gradients its members of weights and, where the array is longer, of their biases are set;
/// the others stay.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return what `mha_weights_from_flat` returns, with the struct's pointer as `MHA_GRADIENT(none)`.
/// Nothing has been written then.
mha_status mha_gradients_from_flat(const struct mha_config *config,
                                   float *flat,
                                   size_t flat_len,
                                   struct mha_gradients *gradients);

/// One part of a way back that is shared by `parts` threads or cores. The parts 0 to parts - 1 together
/// are everything and cost about the same: they share the sequences out, or the heads where those come
/// out more even. There are empty ones where there are too many.
///
/// @param config read during the call only.
/// @param shape that of the whole call.
/// @param part which part, from 0.
/// @param parts how many there are.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the part; an empty one where config is NULL or misaligned.
struct mha_part mha_split_backward(const struct mha_config *config,
                                   struct mha_shape shape,
                                   size_t part,
                                   size_t parts);

/// Floats of scratch for full speed on `mha_backward`. More is no faster; less works down to
/// `mha_min_backward_scratch_len`.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_backward_scratch_len(const struct mha_config *config,
                                struct mha_shape shape);

/// The least floats of scratch with which `mha_backward` works.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_min_backward_scratch_len(const struct mha_config *config,
                                    struct mha_shape shape);

/// Floats of scratch for full speed on `mha_dot_product_attention_backward`.
///
/// @param attention read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or attention is NULL or
/// misaligned).
size_t mha_attention_backward_scratch_len(const struct mha_attention *attention,
                                          struct mha_shape shape);

/// The least floats of scratch with which `mha_dot_product_attention_backward` works.
///
/// @param attention read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or attention is NULL or
/// misaligned).
size_t mha_attention_min_backward_scratch_len(const struct mha_attention *attention,
                                              struct mha_shape shape);

/// What is wrong with which argument: `mha_status_message` for a program that goes back too, such as
/// `"dwq: wrong length"`. The texts take about 2 KiB of flash beside those of that function.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return a string that lives as long as the program; `"ok"` for `MHA_OK`.
const char *mha_backward_status_message(mha_status status);

/// Floats of scratch for full speed on a call of a layer. More is no faster; less works, more
/// slowly and with the same bits, down to `mha_min_scratch_len`. `MHA_SCRATCH_LEN` and
/// `MHA_SCRATCH_LEN_DIMS` are the same as constant expressions.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call; the batch does not matter.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_scratch_len(const struct mha_config *config,
                       struct mha_shape shape);

/// The least floats of scratch with which a call of a layer works. `MHA_MIN_SCRATCH_LEN` and
/// `MHA_MIN_SCRATCH_LEN_DIMS` are the same as constant expressions.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call; only kv_len matters.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_min_scratch_len(const struct mha_config *config,
                           struct mha_shape shape);

/// Floats of y, batch * q_len * out.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_y_len(const struct mha_config *config,
                 struct mha_shape shape);

/// Floats of the scores, batch * heads * q_len * kv_len.
///
/// @param config read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_scores_len(const struct mha_config *config,
                      struct mha_shape shape);

/// Floats of the four weights together.
///
/// @param config read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_weights_len(const struct mha_config *config);

/// Floats of the four biases together.
///
/// @param config read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_biases_len(const struct mha_config *config);

/// Where a part of a call's rows begins, if threads or cores share them: part i of `parts` has the rows
/// from `mha_split_row(…, i, parts)` up to, not including, `mha_split_row(…, i + 1, parts)`, for
/// `mha_forward_rows`. The parts cost about the same, causal rule and the keys that each of them projects
/// included; there are empty ones where there are more parts than rows.
///
/// @param config read during the call only.
/// @param shape that of the whole call.
/// @param causal the rule of the call, or NULL; read during the call only.
/// @param part which part, from 0; `parts` gives the end of the last one.
/// @param parts how many there are.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the row; SIZE_MAX where there is none (a pointer is NULL, if it may not be, or misaligned, or
/// the causal rule is not a valid one).
size_t mha_split_row(const struct mha_config *config,
                     struct mha_shape shape,
                     const struct mha_causal *causal,
                     size_t part,
                     size_t parts);

/// Floats of scratch for full speed on `mha_dot_product_attention`. `MHA_ATTENTION_SCRATCH_LEN` is
/// the same as a constant expression.
///
/// @param attention read during the call only.
/// @param shape batch, q_len, kv_len of the call; only q_len matters.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (attention is NULL or misaligned).
size_t mha_attention_scratch_len(const struct mha_attention *attention, struct mha_shape shape);

/// The least floats of scratch with which `mha_dot_product_attention` works, whatever the shape.
/// `MHA_ATTENTION_MIN_SCRATCH_LEN` is the same as a constant expression.
///
/// @param attention read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (attention is NULL or misaligned).
size_t mha_attention_min_scratch_len(const struct mha_attention *attention);

/// Floats of the scores of attention, batch * heads * q_len * kv_len.
///
/// @param attention read during the call only.
/// @param shape batch, q_len, kv_len of the call.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or attention is NULL or
/// misaligned).
size_t mha_attention_scores_len(const struct mha_attention *attention, struct mha_shape shape);

/// Floats of scratch for full speed on `mha_attend`, whatever the cache holds. More is no faster; less
/// works, more slowly and with the same bits, down to `mha_min_cached_scratch_len`.
/// `MHA_CACHED_SCRATCH_LEN` is the same as a constant expression.
///
/// @param config read during the call only.
/// @param q_len queries of each sequence.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or config is NULL or misaligned).
size_t mha_cached_scratch_len(const struct mha_config *config,
                              size_t q_len);

/// The least floats of scratch with which `mha_attend` works, whatever the cache holds and however
/// many queries there are. `MHA_MIN_CACHED_SCRATCH_LEN` is the same as a constant expression.
///
/// @param config read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (config is NULL or misaligned).
size_t mha_min_cached_scratch_len(const struct mha_config *config);

/// Floats of the keys of a cache: for each sequence, whole blocks of sixteen positions.
/// `MHA_CACHE_KEYS_LEN` is the same as a constant expression.
///
/// @param attention read during the call only.
/// @param cache read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or a pointer is NULL or
/// misaligned).
size_t mha_cache_keys_len(const struct mha_attention *attention,
                          const struct mha_cache_config *cache);

/// Floats of the values of a cache. `MHA_CACHE_VALUES_LEN` is the same as a constant expression.
///
/// @param attention read during the call only.
/// @param cache read during the call only.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return the length; SIZE_MAX where there is none (it overflows, or a pointer is NULL or
/// misaligned).
size_t mha_cache_values_len(const struct mha_attention *attention,
                            const struct mha_cache_config *cache);

/// Glorot's uniform initialiser, Flux's default: uniform in +-sqrt(6 / (fan_in + fan_out)).
///
/// @param weight filled in.
/// @param len how many floats there are.
/// @param fan_in inputs of the projection, whichever way the weight lies in memory.
/// @param fan_out outputs of the projection.
/// @param rng the generator; its state moves on.
///
/// Safe to call from any number of threads, each with a generator of its own.
///
/// @return MHA_OK; NULL or MISALIGNED (weight, rng), TOO_LARGE or OVERLAP (weight). Nothing has
/// been written then.
mha_status mha_init_glorot_uniform(float *weight,
                                   size_t len,
                                   size_t fan_in,
                                   size_t fan_out,
                                   struct mha_rng *rng);

/// Glorot's normal initialiser: mean 0, standard deviation sqrt(2 / (fan_in + fan_out)).
///
/// Parameters, threads and @return: as `mha_init_glorot_uniform`.
mha_status mha_init_glorot_normal(float *weight,
                                  size_t len,
                                  size_t fan_in,
                                  size_t fan_out,
                                  struct mha_rng *rng);

/// Kaiming's uniform initialiser with Flux's gain of sqrt(2): uniform in +-sqrt(6 / fan_in).
///
/// Parameters, threads and @return: as `mha_init_glorot_uniform`.
mha_status mha_init_kaiming_uniform(float *weight, size_t len, size_t fan_in, struct mha_rng *rng);

/// Kaiming's normal initialiser with Flux's gain of sqrt(2): mean 0, standard deviation
/// sqrt(2 / fan_in).
///
/// Parameters, threads and @return: as `mha_init_glorot_uniform`.
mha_status mha_init_kaiming_normal(float *weight, size_t len, size_t fan_in, struct mha_rng *rng);

/// A normal distribution cut off: what falls outside of [low, high] is drawn again.
///
/// @param weight filled in.
/// @param len how many floats there are.
/// @param parameters read during the call only. NULL: Flux's, mean 0, deviation 1, -2 to 2.
/// @param rng the generator; its state moves on.
///
/// Safe to call from any number of threads, each with a generator of its own.
///
/// @return MHA_OK; NULL (weight, rng), MISALIGNED (weight, rng, parameters), TOO_LARGE or OVERLAP
/// (weight). Nothing has been written then.
mha_status mha_init_truncated_normal(float *weight,
                                     size_t len,
                                     const struct mha_truncated_normal *parameters,
                                     struct mha_rng *rng);

/// Rows (or columns, whichever are fewer) that are orthogonal to each other and `gain` long.
///
/// @param weight filled in, row-major.
/// @param len how many floats there are.
/// @param columns how many of them make a row.
/// @param gain read during the call only. NULL: 1.
/// @param rng the generator; its state moves on.
///
/// Takes time in proportion to len * min(rows, columns). Safe to call from any number of threads,
/// each with a generator of its own.
///
/// @return MHA_OK; NULL (weight, rng), MISALIGNED (weight, rng, parameters), TOO_LARGE or OVERLAP
/// (weight). Nothing has been written then.
mha_status mha_init_orthogonal(float *weight,
                               size_t len,
                               size_t columns,
                               const float *gain,
                               struct mha_rng *rng);

/// The identity: ones on the main diagonal, times a gain, zeros elsewhere.
///
/// @param weight filled in, row-major.
/// @param len how many floats there are.
/// @param columns how many of them make a row.
/// @param gain read during the call only. NULL: 1.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL (weight), MISALIGNED (weight, parameters), TOO_LARGE (weight). Nothing has
/// been written then.
mha_status mha_init_identity(float *weight, size_t len, size_t columns, const float *gain);

/// All zeros.
///
/// @param weight filled in.
/// @param len how many floats there are.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL, MISALIGNED or TOO_LARGE (weight). Nothing has been written then.
mha_status mha_init_zeros(float *weight, size_t len);

/// All ones.
///
/// @param weight filled in.
/// @param len how many floats there are.
///
/// Safe to call from anywhere, interrupts included.
///
/// @return MHA_OK; NULL, MISALIGNED or TOO_LARGE (weight). Nothing has been written then.
mha_status mha_init_ones(float *weight, size_t len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MHA_H */

/* What the library was built with: fails to compile where an option of the compiler, such as one
   that packs structs, has changed the layout. */
#define MHA_ASSERT_(name, condition) typedef char mha_assert_##name[(condition) ? 1 : -1]
MHA_ASSERT_(float, sizeof(float) == 4);
MHA_ASSERT_(word, sizeof(size_t) == sizeof(void *) && sizeof(ptrdiff_t) == sizeof(void *));
MHA_ASSERT_(slice, sizeof(mha_slice) == 2 * sizeof(void *));
MHA_ASSERT_(config, sizeof(mha_config) == 8 * sizeof(void *) + (sizeof(void *) == 8 ? 16 : 12));
MHA_ASSERT_(layer, sizeof(mha_layer) == sizeof(mha_config) + 17 * sizeof(void *));
MHA_ASSERT_(mask, sizeof(mha_mask) == 7 * sizeof(void *));
MHA_ASSERT_(rope, sizeof(mha_rope) == (sizeof(void *) == 8 ? 80 : 48));
MHA_ASSERT_(cache, sizeof(mha_cache) == 4 * sizeof(void *) + 8 + 4 * sizeof(void *) + 6 * sizeof(void *));
MHA_ASSERT_(causal, sizeof(mha_causal) == 4 * sizeof(void *));
#if !defined(__i386__)
MHA_ASSERT_(dropout, sizeof(mha_dropout) == 16);
#endif
#undef MHA_ASSERT_
