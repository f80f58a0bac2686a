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
