// mha.hpp: mha.h for C++17. Header only; no exceptions, no RTTI, no heap, nothing that mha.h has not.
//
//     #include "mha.hpp"
//
//     static constexpr float wq[64 * 64] = { ... }; // and wk, wv, wo
//     constexpr mha::config config = mha::config(mha::square(64)).heads(8);
//     constexpr mha::shape shape{1, 10, 10};        // batch, q_len, kv_len
//     constexpr mha::layer<config> layer(wq, wk, wv, wo);
//     static mha::scratch<config, shape> scratch;   // or on the stack, or an array of yours
//
//     mha::status attend(const float (&x)[10 * 64], float (&y)[10 * 64])
//     {
//         return layer.forward<shape>(mha::inputs(x).causal(), y, scratch);
//     }
//
// Here lengths are part of the types, and a wrong one does not compile. Where they are known when the
// program runs, `mha::layer layer(config, weights)` is the same with spans:
//
//     mha::status s = layer.forward(shape, mha::inputs(x).causal(), mha::outputs(y), scratch);
//
// Names and order of arguments are those of Rust and TypeScript. What mha.h says of shapes, order in
// memory, aliasing, threads and interrupts holds here. Whatever is given to a constructor here is
// borrowed: it must live as long as what was constructed.
#ifndef MHA_HPP
#define MHA_HPP

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "mha.h"

namespace mha {

/// What can be wrong with a call: `enum mha_kind`.
enum class kind : std::int32_t {
    ok = MHA_KIND_OK,
    zero = MHA_KIND_ZERO,
    heads = MHA_KIND_HEADS,
    too_large = MHA_KIND_TOO_LARGE,
    length = MHA_KIND_LENGTH,
    broadcast = MHA_KIND_BROADCAST,
    value = MHA_KIND_VALUE,
    range = MHA_KIND_RANGE,
    conflict = MHA_KIND_CONFLICT,
    cache_full = MHA_KIND_CACHE_FULL,
    null = MHA_KIND_NULL,
    misaligned = MHA_KIND_MISALIGNED,
    overlap = MHA_KIND_OVERLAP,
};

/// The argument at fault: `enum mha_argument`.
enum class argument : std::int32_t {
    none = MHA_ARGUMENT_NONE,
    dims = MHA_ARGUMENT_DIMS,
    heads = MHA_ARGUMENT_HEADS,
    scale = MHA_ARGUMENT_SCALE,
    shape = MHA_ARGUMENT_SHAPE,
    q = MHA_ARGUMENT_Q,
    k = MHA_ARGUMENT_K,
    v = MHA_ARGUMENT_V,
    wq = MHA_ARGUMENT_WQ,
    wk = MHA_ARGUMENT_WK,
    wv = MHA_ARGUMENT_WV,
    wo = MHA_ARGUMENT_WO,
    bq = MHA_ARGUMENT_BQ,
    bk = MHA_ARGUMENT_BK,
    bv = MHA_ARGUMENT_BV,
    bo = MHA_ARGUMENT_BO,
    bias = MHA_ARGUMENT_BIAS,
    mask = MHA_ARGUMENT_MASK,
    causal = MHA_ARGUMENT_CAUSAL,
    dropout = MHA_ARGUMENT_DROPOUT,
    rows = MHA_ARGUMENT_ROWS,
    y = MHA_ARGUMENT_Y,
    scores = MHA_ARGUMENT_SCORES,
    scratch = MHA_ARGUMENT_SCRATCH,
    weights = MHA_ARGUMENT_WEIGHTS,
    lens = MHA_ARGUMENT_LENS,
    softcap = MHA_ARGUMENT_SOFTCAP,
    alibi = MHA_ARGUMENT_ALIBI,
    rope = MHA_ARGUMENT_ROPE,
    sinks = MHA_ARGUMENT_SINKS,
    norm = MHA_ARGUMENT_NORM,
    segments = MHA_ARGUMENT_SEGMENTS,
    extra = MHA_ARGUMENT_EXTRA,
    lse = MHA_ARGUMENT_LSE,
    cache = MHA_ARGUMENT_CACHE,
    kv_heads = MHA_ARGUMENT_KV_HEADS,
    layer = MHA_ARGUMENT_LAYER,
    config = MHA_ARGUMENT_CONFIG,
    attention = MHA_ARGUMENT_ATTENTION,
    inputs = MHA_ARGUMENT_INPUTS,
    outputs = MHA_ARGUMENT_OUTPUTS,
    isa = MHA_ARGUMENT_ISA,
    weight_order = MHA_ARGUMENT_WEIGHT_ORDER,
    scores_at = MHA_ARGUMENT_SCORES_AT,
    kept = MHA_ARGUMENT_KEPT,
    weight = MHA_ARGUMENT_WEIGHT,
    rng = MHA_ARGUMENT_RNG,
    parameters = MHA_ARGUMENT_PARAMETERS,
    options = MHA_ARGUMENT_OPTIONS,
    other = MHA_ARGUMENT_OTHER,
};

/// The order of a weight's axes in memory: `enum mha_weight_order`.
enum class weight_order : std::int32_t {
    in_out = MHA_WEIGHT_ORDER_IN_OUT,
    out_in = MHA_WEIGHT_ORDER_OUT_IN,
};

/// Where scores are taken: `enum mha_scores_at`.
enum class scores_at : std::int32_t {
    softmax = MHA_SCORES_AT_SOFTMAX,
    logits = MHA_SCORES_AT_LOGITS,
    masked = MHA_SCORES_AT_MASKED,
    capped = MHA_SCORES_AT_CAPPED,
};

/// The instructions to run on: `enum mha_isa`.
enum class isa : std::int32_t {
    fastest = MHA_ISA_FASTEST,
    portable = MHA_ISA_PORTABLE,
    avx2 = MHA_ISA_AVX2,
    avx512 = MHA_ISA_AVX512,
    neon = MHA_ISA_NEON,
    simd128 = MHA_ISA_SIMD128,
};

/// What a call has come to. The compiler warns where nobody looks at it.
class [[nodiscard]] status {
public:
    constexpr status() noexcept = default;
    constexpr status(mha_status code) noexcept : code_(code) {}

    /// Whether nothing is wrong.
    [[nodiscard]] constexpr bool ok() const noexcept { return code_ == MHA_OK; }
    /// What is wrong.
    [[nodiscard]] constexpr mha::kind kind() const noexcept
    {
        return static_cast<mha::kind>(MHA_STATUS_KIND(code_));
    }
    /// With which argument.
    [[nodiscard]] constexpr mha::argument argument() const noexcept
    {
        return static_cast<mha::argument>(MHA_STATUS_ARGUMENT(code_));
    }
    /// Both, as C has them.
    [[nodiscard]] constexpr mha_status code() const noexcept { return code_; }
    /// Both, in words; lives as long as the program.
    [[nodiscard]] const char *message() const noexcept { return mha_status_message(code_); }

    friend constexpr bool operator==(status a, status b) noexcept { return a.code_ == b.code_; }
    friend constexpr bool operator!=(status a, status b) noexcept { return a.code_ != b.code_; }

private:
    mha_status code_ = MHA_OK;
};

/// A pointer and a length, from an array or anything that has data() and size(): std::array,
/// std::vector, std::span.
template <class T>
class span {
public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    template <std::size_t N>
    constexpr span(T (&array)[N]) noexcept : data_(array), size_(N)
    {
    }

    template <class C,
              class = std::enable_if_t<std::is_convertible_v<
                  std::remove_pointer_t<decltype(std::declval<C &>().data())> (*)[], T (*)[]>>,
              class = decltype(std::declval<C &>().size())>
    constexpr span(C &&container) noexcept : data_(container.data()), size_(container.size())
    {
    }

    [[nodiscard]] constexpr T *data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// The widths of a layer.
using dims = mha_dims;
/// The lengths of a call: batch, q_len, kv_len.
using shape = mha_shape;
/// A small random generator; see mha.h for the initialisers.
using rng = mha_rng;

/// `n`: one width for everything.
constexpr dims square(std::size_t n) noexcept { return MHA_DIMS(n); }
/// `in => qkv => out`: one width in, one inside, one out.
constexpr dims uniform(std::size_t in, std::size_t qkv, std::size_t out) noexcept
{
    return MHA_DIMS_UNIFORM(in, qkv, out);
}
/// `in => (qk, v) => out`: queries, keys and values come in with one width.
constexpr dims shared(std::size_t in, std::size_t qk, std::size_t v, std::size_t out) noexcept
{
    return MHA_DIMS_SHARED(in, qk, v, out);
}

/// Everything about a layer but its weights.
class config {
public:
    /// A layer of these widths with 8 heads (Flux's default), weights in [in][out] order.
    constexpr explicit config(dims widths) noexcept
        : c_{widths, 8, MHA_WEIGHT_ORDER_IN_OUT, 0, 0.0f, 0}
    {
    }

    /// Replaces the number of heads.
    [[nodiscard]] constexpr config heads(std::size_t count) const noexcept
    {
        config changed = *this;
        changed.c_.heads = count;
        return changed;
    }
    /// Replaces the factor on q * k^T.
    [[nodiscard]] constexpr config scale(float factor) const noexcept
    {
        config changed = *this;
        changed.c_.has_scale = 1;
        changed.c_.scale = factor;
        return changed;
    }
    /// Lets several heads share keys and values: the number of key/value heads.
    [[nodiscard]] constexpr config kv_heads(std::size_t count) const noexcept
    {
        config changed = *this;
        changed.c_.kv_heads = count;
        return changed;
    }
    /// The number of key/value heads.
    [[nodiscard]] constexpr std::size_t kv_heads() const noexcept
    {
        return c_.kv_heads == 0 ? c_.heads : c_.kv_heads;
    }
    /// Says in which order the weights lie in memory.
    [[nodiscard]] constexpr config weight_order(mha::weight_order order) const noexcept
    {
        config changed = *this;
        changed.c_.weight_order = static_cast<std::int32_t>(order);
        return changed;
    }

    /// Checks the widths, heads and scale.
    status check() const noexcept { return mha_config_check(&c_); }

    /// Floats of scratch for full speed, at compile time.
    [[nodiscard]] constexpr std::size_t scratch_len(shape s) const noexcept
    {
        return MHA_SCRATCH_LEN_GROUPED(c_.dims.qk, c_.dims.v, c_.heads, kv_heads(), s.batch, s.q_len,
                                       s.kv_len);
    }
    /// The least floats of scratch, at compile time.
    [[nodiscard]] constexpr std::size_t min_scratch_len(shape s) const noexcept
    {
        return MHA_MIN_SCRATCH_LEN_GROUPED(c_.dims.qk, c_.dims.v, c_.heads, kv_heads(), s.kv_len);
    }
    /// Floats of scratch for full speed when attending over a cache, whatever it holds.
    [[nodiscard]] constexpr std::size_t cached_scratch_len(std::size_t q_len) const noexcept
    {
        return MHA_CACHED_SCRATCH_LEN(c_.dims.qk, c_.dims.v, c_.heads, kv_heads(), q_len);
    }
    /// Floats of the keys of a cache.
    [[nodiscard]] constexpr std::size_t cache_keys_len(std::size_t capacity,
                                                       std::size_t batch = 1) const noexcept
    {
        return MHA_CACHE_KEYS_LEN(c_.dims.qk, c_.heads, kv_heads(), batch, capacity);
    }
    /// Floats of the values of a cache.
    [[nodiscard]] constexpr std::size_t cache_values_len(std::size_t capacity,
                                                         std::size_t batch = 1) const noexcept
    {
        return MHA_CACHE_VALUES_LEN(c_.dims.v, c_.heads, kv_heads(), batch, capacity);
    }
    /// Floats of y.
    [[nodiscard]] constexpr std::size_t y_len(shape s) const noexcept
    {
        return MHA_Y_LEN(c_.dims.out, s.batch, s.q_len);
    }
    /// Floats of the scores.
    [[nodiscard]] constexpr std::size_t scores_len(shape s) const noexcept
    {
        return MHA_SCORES_LEN(c_.heads, s.batch, s.q_len, s.kv_len);
    }

    /// As C has it.
    [[nodiscard]] constexpr const mha_config &get() const noexcept { return c_; }

private:
    mha_config c_;
};

/// The weights of a layer, borrowed.
class weights {
public:
    /// Four weights without biases.
    constexpr weights(span<const float> wq, span<const float> wk, span<const float> wv,
                      span<const float> wo) noexcept
        : w_{slice(wq), slice(wk), slice(wv), slice(wo), {}, {}, {}, {}}
    {
    }

    /// Adds a bias to every projection; an empty one is none.
    [[nodiscard]] constexpr weights biases(span<const float> bq, span<const float> bk,
                                           span<const float> bv, span<const float> bo) const noexcept
    {
        weights changed = *this;
        changed.w_.bq = slice(bq);
        changed.w_.bk = slice(bk);
        changed.w_.bv = slice(bv);
        changed.w_.bo = slice(bo);
        return changed;
    }

    /// As C has it.
    [[nodiscard]] constexpr const mha_weights &get() const noexcept { return w_; }

private:
    static constexpr mha_slice slice(span<const float> s) noexcept { return {s.data(), s.size()}; }

    mha_weights w_;
};

/// The inputs of one call, borrowed.
class inputs {
public:
    /// Self-attention.
    constexpr explicit inputs(span<const float> q) noexcept : inputs(q, q, q) {}
    /// The values are the keys.
    constexpr inputs(span<const float> q, span<const float> kv) noexcept : inputs(q, kv, kv) {}
    /// Queries, keys and values.
    constexpr inputs(span<const float> q, span<const float> k, span<const float> v) noexcept
        : i_{{q.data(), q.size()}, {k.data(), k.size()}, {v.data(), v.size()}, {}, {}, {}, {}}
    {
    }

    /// Adds a bias to the logits. An extent is 1, the axis's size, or 0 for the axis's size; the axes
    /// are batch, heads, q_len, kv_len.
    [[nodiscard]] constexpr inputs bias(span<const float> data, std::size_t batch, std::size_t heads,
                                        std::size_t q_len, std::size_t kv_len) const noexcept
    {
        inputs changed = *this;
        changed.i_.bias = {data.data(), data.size(), {batch, heads, q_len, kv_len}};
        return changed;
    }
    /// Restricts which keys a query may attend to: nonzero attends. Extents as for bias.
    [[nodiscard]] constexpr inputs mask(span<const std::uint8_t> data, std::size_t batch,
                                        std::size_t heads, std::size_t q_len,
                                        std::size_t kv_len) const noexcept
    {
        inputs changed = *this;
        changed.i_.mask = {data.data(), data.size(), {batch, heads, q_len, kv_len}, 0};
        return changed;
    }
    /// The mask in the opposite sense, PyTorch's: nonzero excludes.
    [[nodiscard]] constexpr inputs mask_excluding(span<const std::uint8_t> data, std::size_t batch,
                                                  std::size_t heads, std::size_t q_len,
                                                  std::size_t kv_len) const noexcept
    {
        inputs changed = mask(data, batch, heads, q_len, kv_len);
        changed.i_.mask.excluding = 1;
        return changed;
    }
    /// Lets query i attend to keys 0 to i only; with a cache, to all positions up to its own.
    [[nodiscard]] constexpr inputs causal() const noexcept
    {
        inputs changed = *this;
        changed.i_.causal = MHA_CAUSAL;
        return changed;
    }
    /// Lets query i attend to keys 0 to i + offset only.
    [[nodiscard]] constexpr inputs causal(std::ptrdiff_t offset) const noexcept
    {
        inputs changed = *this;
        changed.i_.causal = {MHA_CAUSAL_MODE_OFFSET, offset, nullptr, 0};
        return changed;
    }
    /// The same with an offset for each sequence of the batch.
    [[nodiscard]] constexpr inputs causal(span<const std::ptrdiff_t> offsets) const noexcept
    {
        inputs changed = *this;
        changed.i_.causal = {MHA_CAUSAL_MODE_PER_SEQUENCE, 0, offsets.data(), offsets.size()};
        return changed;
    }
    /// Drops scores at random, for training.
    [[nodiscard]] constexpr inputs dropout(float p, std::uint64_t seed) const noexcept
    {
        inputs changed = *this;
        changed.i_.dropout = {p, seed};
        return changed;
    }

    /// As C has it.
    [[nodiscard]] constexpr const mha_inputs &get() const noexcept { return i_; }

private:
    mha_inputs i_;
};

/// The outputs of one call, borrowed.
class outputs {
public:
    /// y alone.
    constexpr explicit outputs(span<float> y) noexcept : o_{{y.data(), y.size()}, {}, 0} {}

    /// Also writes the scores of every head.
    [[nodiscard]] constexpr outputs
    scores(span<float> to, mha::scores_at at = mha::scores_at::softmax) const noexcept
    {
        outputs changed = *this;
        changed.o_.scores = {to.data(), to.size()};
        changed.o_.scores_at = static_cast<std::int32_t>(at);
        return changed;
    }

    /// As C has it.
    [[nodiscard]] constexpr const mha_outputs &get() const noexcept { return o_; }

private:
    mha_outputs o_;
};

/// What a call may ask for beyond the plain layer, borrowed: `mha_options`. The functions that take it
/// are others than the plain ones, so a program that has no options does not contain their code.
class options {
public:
    /// None.
    constexpr options() noexcept = default;

    /// Position of the first query among the keys, for windows, ALiBi and rotation.
    [[nodiscard]] constexpr options offset(std::ptrdiff_t position) const noexcept
    {
        options changed = *this;
        changed.o_.offset = {MHA_CAUSAL_MODE_OFFSET, position, nullptr, 0};
        return changed;
    }
    /// Lets a query see that many keys before its own position at most.
    [[nodiscard]] constexpr options window_left(std::size_t keys) const noexcept
    {
        options changed = *this;
        changed.o_.window.has_left = 1;
        changed.o_.window.left = keys;
        return changed;
    }
    /// Lets a query see that many keys after its own position at most.
    [[nodiscard]] constexpr options window_right(std::size_t keys) const noexcept
    {
        options changed = *this;
        changed.o_.window.has_right = 1;
        changed.o_.window.right = keys;
        return changed;
    }
    /// How many keys of each sequence are real, [batch].
    [[nodiscard]] constexpr options lens(span<const std::size_t> of_sequences) const noexcept
    {
        options changed = *this;
        changed.o_.lens = of_sequences.data();
        changed.o_.lens_len = of_sequences.size();
        return changed;
    }
    /// Logits become c * tanh(logits / c).
    [[nodiscard]] constexpr options softcap(float c) const noexcept
    {
        options changed = *this;
        changed.o_.softcap = c;
        return changed;
    }
    /// A penalty on distance, with the usual slopes.
    [[nodiscard]] constexpr options alibi() const noexcept
    {
        options changed = *this;
        changed.o_.alibi.kind = MHA_ALIBI_KIND_STANDARD;
        return changed;
    }
    /// A penalty on distance, with a slope for each head.
    [[nodiscard]] constexpr options alibi(span<const float> slopes) const noexcept
    {
        options changed = *this;
        changed.o_.alibi = {MHA_ALIBI_KIND_SLOPES, {slopes.data(), slopes.size()}};
        return changed;
    }
    /// Rotary positions, as C has them.
    [[nodiscard]] constexpr options rope(const mha_rope &rotation) const noexcept
    {
        options changed = *this;
        changed.o_.rope = rotation;
        return changed;
    }
    /// Rotary positions over all features, half-split pairs, angles from a base.
    [[nodiscard]] constexpr options rope(float base) const noexcept
    {
        mha_rope rotation{};
        rotation.kind = MHA_ROPE_KIND_BASE;
        rotation.base = base;
        return rope(rotation);
    }
    /// A logit for each head without a value.
    [[nodiscard]] constexpr options sinks(span<const float> logits) const noexcept
    {
        options changed = *this;
        changed.o_.sinks = {logits.data(), logits.size()};
        return changed;
    }
    /// Normalisation of queries and keys, as C has it.
    [[nodiscard]] constexpr options norm(const mha_norm &normalisation) const noexcept
    {
        options changed = *this;
        changed.o_.norm = normalisation;
        return changed;
    }
    /// The document of each query, [batch][q_len], and of each key, [batch][kv_len].
    [[nodiscard]] constexpr options segments(span<const std::uint32_t> q,
                                             span<const std::uint32_t> kv) const noexcept
    {
        options changed = *this;
        changed.o_.segments = {q.data(), q.size(), kv.data(), kv.size()};
        return changed;
    }
    /// One more key and value that every query sees.
    [[nodiscard]] constexpr options extra(span<const float> k, span<const float> v) const noexcept
    {
        options changed = *this;
        changed.o_.extra = {{k.data(), k.size()}, {v.data(), v.size()}};
        return changed;
    }
    /// Also writes the log-sum-exp of each row, [batch][heads][q_len].
    [[nodiscard]] constexpr options lse(span<float> to) const noexcept
    {
        options changed = *this;
        changed.o_.lse = {to.data(), to.size()};
        return changed;
    }
    /// Writes the scores of one head alone.
    [[nodiscard]] constexpr options scores_of_head(std::size_t head) const noexcept
    {
        options changed = *this;
        changed.o_.scores = MHA_SELECT_HEAD;
        changed.o_.score_head = head;
        return changed;
    }
    /// Writes the mean of the heads' scores.
    [[nodiscard]] constexpr options scores_mean() const noexcept
    {
        options changed = *this;
        changed.o_.scores = MHA_SELECT_MEAN;
        return changed;
    }
    /// Writes the scores of each sequence's queries from start up to, not including, end.
    [[nodiscard]] constexpr options score_queries(std::size_t start, std::size_t end) const noexcept
    {
        options changed = *this;
        changed.o_.score_queries_start = start;
        changed.o_.score_queries_end = end;
        return changed;
    }

    /// As C has it.
    [[nodiscard]] constexpr const mha_options &get() const noexcept { return o_; }

private:
    mha_options o_{};
};

/// Keys and values that outlive a call, over the caller's two arrays: `mha_cache`.
///
///     static float keys[config.cache_keys_len(48)], values[config.cache_values_len(48)];
///     static mha::cache cache = mha::cache(config, 48, keys, values).ring();
class cache {
public:
    /// A linear cache of that many positions for the layer of a configuration.
    constexpr cache(const config &c, std::size_t capacity, span<float> keys, span<float> values) noexcept
        : c_{{c.get().heads, c.get().dims.qk, c.get().dims.v, 0, 0.0f, c.get().kv_heads},
             {1, capacity, 0, 0},
             {keys.data(), keys.size()},
             {values.data(), values.size()},
             {0, 0}}
    {
    }

    /// Makes it a ring that overwrites its oldest positions, except for the first `pinned`.
    [[nodiscard]] constexpr cache ring(std::size_t pinned = 0) const noexcept
    {
        cache changed = *this;
        changed.c_.config.ring = 1;
        changed.c_.config.pinned = pinned;
        return changed;
    }
    /// That many sequences side by side.
    [[nodiscard]] constexpr cache batch(std::size_t sequences) const noexcept
    {
        cache changed = *this;
        changed.c_.config.batch = sequences;
        return changed;
    }

    /// Positions appended so far, less those rolled back.
    [[nodiscard]] constexpr std::size_t size() const noexcept { return c_.state.len; }
    /// Positions that can still be attended to: `mha_cache_stored`.
    [[nodiscard]] std::size_t stored() const noexcept { return mha_cache_stored(&c_); }
    /// Forgets everything.
    status reset() noexcept { return mha_cache_reset(&c_); }
    /// Forgets the positions from `len` on.
    status rollback(std::size_t len) noexcept { return mha_cache_rollback(&c_, len); }
    /// Checks everything about it.
    status check() const noexcept { return mha_cache_check(&c_); }
    /// Appends keys and values that are projected already.
    status append(span<const float> k, span<const float> v, const options &with = {}) noexcept
    {
        return mha_cache_append(&c_, k.data(), k.size(), v.data(), v.size(), &with.get());
    }

    /// As C has it; `state` is what to save beside the arrays.
    [[nodiscard]] constexpr const mha_cache &get() const noexcept { return c_; }
    /// As C has it.
    [[nodiscard]] constexpr mha_cache &get() noexcept { return c_; }

private:
    mha_cache c_;
};

namespace detail {
/// Stands for a configuration that is known when the program runs.
inline constexpr config any{square(0)};
} // namespace detail

template <const config &C = detail::any>
class layer;

/// Multi-head attention with its four projections. A constexpr one lies in flash. `mha::layer` is one
/// whose configuration is a value, `mha::layer<config>` one whose configuration is its type.
template <>
class layer<detail::any> {
public:
    constexpr layer(const config &c, const weights &w, isa i = isa::fastest) noexcept
        : l_{c.get(), w.get(), static_cast<std::int32_t>(i)}
    {
    }

    /// Checks the configuration, and the weights against it.
    status check() const noexcept { return mha_layer_check(&l_); }

    /// Computes the layer: `mha_forward`.
    status forward(shape s, const inputs &in, const outputs &out,
                   span<float> scratch) const noexcept
    {
        return mha_forward(&l_, s, &in.get(), &out.get(), scratch.data(),
                           scratch.size());
    }

    /// The same with options: `mha_forward_with`.
    status forward(shape s, const inputs &in, const options &with, const outputs &out,
                   span<float> scratch) const noexcept
    {
        return mha_forward_with(&l_, s, &in.get(), &with.get(), &out.get(), scratch.data(),
                                scratch.size());
    }

    /// Sequences of different lengths without padding, `starts` having one more element than there are
    /// sequences: `mha_forward_packed`.
    status forward_packed(span<const std::size_t> q_starts, span<const std::size_t> kv_starts,
                          const inputs &in, const options &with, const outputs &out,
                          span<float> scratch) const noexcept
    {
        if (q_starts.size() != kv_starts.size() || q_starts.size() == 0) {
            return MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_ROWS);
        }
        return mha_forward_packed(&l_, q_starts.size() - 1, q_starts.data(), kv_starts.data(),
                                  &in.get(), &with.get(), &out.get(), scratch.data(),
                                  scratch.size());
    }

    /// Projects keys and values and appends them to a cache: `mha_append`.
    status append(cache &to, span<const float> k, span<const float> v,
                  const options &with = {}) const noexcept
    {
        return mha_append(&l_, &to.get(), k.data(), k.size(), v.data(), v.size(), &with.get());
    }

    /// Attends q_len queries of each sequence over a cache: `mha_attend`.
    status attend(const cache &over, std::size_t q_len, const inputs &in, const options &with,
                  const outputs &out, span<float> scratch) const noexcept
    {
        return mha_attend(&l_, &over.get(), q_len, &in.get(), &with.get(), &out.get(),
                          scratch.data(), scratch.size());
    }

    /// Computes the query rows from start up to, not including, end: `mha_forward_rows`.
    status forward_rows(shape s, std::size_t start, std::size_t end, const inputs &in,
                        const outputs &out, span<float> scratch) const noexcept
    {
        return mha_forward_rows(&l_, s, start, end, &in.get(), &out.get(),
                                scratch.data(), scratch.size());
    }

    /// The same with options: `mha_forward_rows_with`.
    status forward_rows(shape s, std::size_t start, std::size_t end, const inputs &in,
                        const options &with, const outputs &out, span<float> scratch) const noexcept
    {
        return mha_forward_rows_with(&l_, s, start, end, &in.get(), &with.get(), &out.get(),
                                     scratch.data(), scratch.size());
    }

    /// Where part `part` of `parts` of a call's rows begins, if threads share them: `mha_split_row`.
    [[nodiscard]] std::size_t split_row(shape s, const inputs &in, std::size_t part,
                                        std::size_t parts) const noexcept
    {
        return mha_split_row(&l_.config, s, &in.get().causal, part, parts);
    }

    /// As C has it.
    [[nodiscard]] constexpr const mha_layer &get() const noexcept { return l_; }

private:
    mha_layer l_;
};

layer(const config &, const weights &) -> layer<>;
layer(const config &, const weights &, isa) -> layer<>;

/// Scratch for calls of a layer with a configuration and a shape, for full speed: a static of this type,
/// one on the stack, or a member of something of yours. Where it is too large, any span of at least
/// `min_scratch_len` floats does as well.
template <const config &C, const shape &S>
class scratch {
public:
    [[nodiscard]] constexpr float *data() noexcept { return floats_; }
    [[nodiscard]] static constexpr std::size_t size() noexcept { return C.scratch_len(S); }

private:
    float floats_[C.scratch_len(S)];
};

/// Multi-head attention whose configuration is known to the compiler: what is wrong with it, or with the
/// length of an array of weights, does not compile.
///
///     constexpr mha::config config = mha::config(mha::square(64)).heads(8);
///     constexpr mha::shape shape{1, 10, 10};
///     constexpr mha::layer<config> layer(wq, wk, wv, wo);
///     static mha::scratch<config, shape> scratch;
///     float y[layer.y_len(shape)];
///     mha::status s = layer.forward<shape>(mha::inputs(x), y, scratch);
template <const config &C>
class layer : public layer<> {
    static constexpr const mha_dims &dims_ = C.get().dims;
    static constexpr std::size_t heads_ = C.get().heads;

    static_assert(dims_.q_in > 0 && dims_.k_in > 0 && dims_.v_in > 0 && dims_.qk > 0 &&
                      dims_.v > 0 && dims_.out > 0,
                  "a width of the configuration is zero");
    static_assert(heads_ > 0 && dims_.qk % heads_ == 0 && dims_.v % heads_ == 0,
                  "the number of heads does not divide qk and v");
    static_assert(heads_ % C.kv_heads() == 0, "the number of key/value heads does not divide the heads");

public:
    /// Floats of each weight.
    static constexpr std::size_t wq_len = dims_.q_in * dims_.qk;
    static constexpr std::size_t wk_len = dims_.k_in * (dims_.qk / heads_ * C.kv_heads());
    static constexpr std::size_t wv_len = dims_.v_in * (dims_.v / heads_ * C.kv_heads());
    static constexpr std::size_t wo_len = dims_.v * dims_.out;

    /// Arrays of as many floats as the configuration asks for, without biases.
    constexpr layer(const float (&wq)[wq_len], const float (&wk)[wk_len], const float (&wv)[wv_len],
                    const float (&wo)[wo_len], isa i = isa::fastest) noexcept
        : layer<>(C, weights(wq, wk, wv, wo), i)
    {
    }
    /// Weights whose lengths are checked by each call.
    constexpr explicit layer(const weights &w, isa i = isa::fastest) noexcept : layer<>(C, w, i) {}

    /// The configuration.
    [[nodiscard]] static constexpr const config &configuration() noexcept { return C; }
    /// Floats of y.
    [[nodiscard]] static constexpr std::size_t y_len(shape s) noexcept { return C.y_len(s); }
    /// Floats of the scores.
    [[nodiscard]] static constexpr std::size_t scores_len(shape s) noexcept { return C.scores_len(s); }
    /// Floats of scratch for full speed.
    [[nodiscard]] static constexpr std::size_t scratch_len(shape s) noexcept
    {
        return C.scratch_len(s);
    }
    /// The least floats of scratch.
    [[nodiscard]] static constexpr std::size_t min_scratch_len(shape s) noexcept
    {
        return C.min_scratch_len(s);
    }

    using layer<>::forward;

    /// Computes the layer into an array of the right length, with scratch of the right type.
    template <const shape &S>
    status forward(const inputs &in, float (&y)[C.y_len(S)], scratch<C, S> &with) const noexcept
    {
        return layer<>::forward(S, in, outputs(y), with);
    }
    /// The same with any scratch of at least `min_scratch_len` floats, an array.
    template <const shape &S, std::size_t N>
    status forward(const inputs &in, float (&y)[C.y_len(S)], float (&with)[N]) const noexcept
    {
        static_assert(N >= C.min_scratch_len(S), "scratch is shorter than min_scratch_len");
        return layer<>::forward(S, in, outputs(y), with);
    }
    /// The same with scratch for full speed on the stack.
    template <const shape &S>
    status forward(const inputs &in, float (&y)[C.y_len(S)]) const noexcept
    {
        scratch<C, S> with;
        return layer<>::forward(S, in, outputs(y), with);
    }
};

/// Attention between queries, keys and values that are projected already.
class attention {
public:
    constexpr attention(std::size_t heads, std::size_t qk, std::size_t v) noexcept
        : a_{heads, qk, v, 0, 0.0f, 0}
    {
    }

    /// Lets several heads share keys and values: the number of key/value heads.
    [[nodiscard]] constexpr attention kv_heads(std::size_t count) const noexcept
    {
        attention changed = *this;
        changed.a_.kv_heads = count;
        return changed;
    }
    /// Replaces the factor on q * k^T.
    [[nodiscard]] constexpr attention scale(float factor) const noexcept
    {
        attention changed = *this;
        changed.a_.has_scale = 1;
        changed.a_.scale = factor;
        return changed;
    }

    /// Checks the widths, heads and scale.
    status check() const noexcept { return mha_attention_check(&a_); }

    /// Floats of scratch for full speed, at compile time.
    [[nodiscard]] constexpr std::size_t scratch_len(shape s) const noexcept
    {
        return MHA_ATTENTION_SCRATCH_LEN(a_.qk, a_.v, a_.heads, s.q_len);
    }
    /// The least floats of scratch, at compile time.
    [[nodiscard]] constexpr std::size_t min_scratch_len() const noexcept
    {
        return MHA_ATTENTION_MIN_SCRATCH_LEN(a_.qk, a_.v, a_.heads);
    }
    /// Floats of the scores.
    [[nodiscard]] constexpr std::size_t scores_len(shape s) const noexcept
    {
        return MHA_SCORES_LEN(a_.heads, s.batch, s.q_len, s.kv_len);
    }

    /// As C has it.
    [[nodiscard]] constexpr const mha_attention &get() const noexcept { return a_; }

private:
    mha_attention a_;
};

/// Attention without projections: `mha_dot_product_attention`.
inline status dot_product_attention(const attention &a, isa i, shape s,
                                    const inputs &in, const outputs &out,
                                    span<float> scratch) noexcept
{
    return mha_dot_product_attention(&a.get(), static_cast<std::int32_t>(i), s,
                                     &in.get(), &out.get(), scratch.data(),
                                     scratch.size());
}

/// The same with options: `mha_dot_product_attention_with`.
inline status dot_product_attention(const attention &a, isa i, shape s, const inputs &in,
                                    const options &with, const outputs &out,
                                    span<float> scratch) noexcept
{
    return mha_dot_product_attention_with(&a.get(), static_cast<std::int32_t>(i), s, &in.get(),
                                          &with.get(), &out.get(), scratch.data(), scratch.size());
}

/// Attention over a cache, without projections: `mha_dot_product_attention_cached`.
inline status dot_product_attention(const attention &a, isa i, const cache &over, std::size_t q_len,
                                    const inputs &in, const options &with, const outputs &out,
                                    span<float> scratch) noexcept
{
    return mha_dot_product_attention_cached(&a.get(), static_cast<std::int32_t>(i), &over.get(),
                                            q_len, &in.get(), &with.get(), &out.get(),
                                            scratch.data(), scratch.size());
}

/// The attention over some keys and over others becomes that over all, in `y` and `lse`:
/// `mha_merge`.
inline status merge(const attention &a, span<float> y, span<float> lse, span<const float> other_y,
                    span<const float> other_lse) noexcept
{
    const std::size_t rows = a.get().v == 0 ? 0 : y.size() / a.get().v;
    if (y.size() != rows * a.get().v || other_y.size() != y.size()) {
        return MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_Y);
    }
    if (lse.size() != rows * a.get().heads || other_lse.size() != lse.size()) {
        return MHA_STATUS(MHA_KIND_LENGTH, MHA_ARGUMENT_LSE);
    }
    return mha_merge(&a.get(), rows, y.data(), lse.data(), other_y.data(), other_lse.data());
}

/// The scores of attention alone: `mha_dot_product_attention_scores`.
inline status dot_product_attention_scores(const attention &a, isa i, shape s,
                                           const inputs &in, span<float> scores,
                                           span<float> scratch) noexcept
{
    return mha_dot_product_attention_scores(&a.get(), static_cast<std::int32_t>(i), s,
                                            &in.get(), scores.data(), scores.size(),
                                            scratch.data(), scratch.size());
}

/// The same with options: `mha_dot_product_attention_scores_with`.
inline status dot_product_attention_scores(const attention &a, isa i, shape s, const inputs &in,
                                           const options &with, span<float> scores,
                                           span<float> scratch) noexcept
{
    return mha_dot_product_attention_scores_with(&a.get(), static_cast<std::int32_t>(i), s,
                                                 &in.get(), &with.get(), scores.data(),
                                                 scores.size(), scratch.data(), scratch.size());
}

/// The instructions that `isa::fastest` stands for on this machine.
inline isa detect() noexcept { return static_cast<isa>(mha_detect()); }

/// The name of instructions; null where this machine does not have them.
inline const char *name(isa i) noexcept { return mha_isa_name(static_cast<std::int32_t>(i)); }

} // namespace mha

#endif // MHA_HPP
