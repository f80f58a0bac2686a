// mha.hpp: mha.h for C++17. Header only; no exceptions, no RTTI, no heap, nothing that mha.h has not.
//
//     #include "mha.hpp"
//
//     static constexpr float wq[64 * 64] = { ... }; // and wk, wv, wo
//     constexpr mha::config config = mha::config(mha::square(64)).heads(8);
//     constexpr mha::shape shape{1, 10, 10};        // batch, q_len, kv_len
//     constexpr mha::layer layer(config, mha::weights(wq, wk, wv, wo));
//     static float scratch[config.scratch_len(shape)];
//
//     mha::status attend(mha::span<const float> x, mha::span<float> y)
//     {
//         return layer.forward(shape, mha::inputs(x).causal(), mha::outputs(y), scratch);
//     }
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
    layer = MHA_ARGUMENT_LAYER,
    config = MHA_ARGUMENT_CONFIG,
    attention = MHA_ARGUMENT_ATTENTION,
    inputs = MHA_ARGUMENT_INPUTS,
    outputs = MHA_ARGUMENT_OUTPUTS,
    isa = MHA_ARGUMENT_ISA,
    weight_order = MHA_ARGUMENT_WEIGHT_ORDER,
    scores_at = MHA_ARGUMENT_SCORES_AT,
    weight = MHA_ARGUMENT_WEIGHT,
    rng = MHA_ARGUMENT_RNG,
    parameters = MHA_ARGUMENT_PARAMETERS,
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
};

/// The instructions to run on: `enum mha_isa`.
enum class isa : std::int32_t {
    fastest = MHA_ISA_FASTEST,
    portable = MHA_ISA_PORTABLE,
    avx2 = MHA_ISA_AVX2,
    avx512 = MHA_ISA_AVX512,
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
        changed.i_.bias = {data.data(), data.size(), {batch, heads, q_len, kv_len}, 0};
        return changed;
    }
    /// Restricts which keys a query may attend to: nonzero attends. Extents as for bias.
    [[nodiscard]] constexpr inputs mask(span<const std::uint8_t> data, std::size_t batch,
                                        std::size_t heads, std::size_t q_len,
                                        std::size_t kv_len) const noexcept
    {
        inputs changed = *this;
        changed.i_.mask = {data.data(), data.size(), {batch, heads, q_len, kv_len}};
        return changed;
    }
    /// Lets query i attend to keys 0 to i + offset only.
    [[nodiscard]] constexpr inputs causal(std::ptrdiff_t offset = 0) const noexcept
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

/// Multi-head attention with its four projections. A constexpr one lies in flash.
class layer {
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

    /// Computes the query rows from start up to, not including, end: `mha_forward_rows`.
    status forward_rows(shape s, std::size_t start, std::size_t end, const inputs &in,
                        const outputs &out, span<float> scratch) const noexcept
    {
        return mha_forward_rows(&l_, s, start, end, &in.get(), &out.get(),
                                scratch.data(), scratch.size());
    }

    /// As C has it.
    [[nodiscard]] constexpr const mha_layer &get() const noexcept { return l_; }

private:
    mha_layer l_;
};

/// Attention between queries, keys and values that are projected already.
class attention {
public:
    constexpr attention(std::size_t heads, std::size_t qk, std::size_t v) noexcept
        : a_{heads, qk, v, 0, 0.0f, 0}
    {
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

/// The scores of attention alone: `mha_dot_product_attention_scores`.
inline status dot_product_attention_scores(const attention &a, isa i, shape s,
                                           const inputs &in, span<float> scores,
                                           span<float> scratch) noexcept
{
    return mha_dot_product_attention_scores(&a.get(), static_cast<std::int32_t>(i), s,
                                            &in.get(), scores.data(), scores.size(),
                                            scratch.data(), scratch.size());
}

/// The instructions that `isa::fastest` stands for on this machine.
inline isa detect() noexcept { return static_cast<isa>(mha_detect()); }

/// The name of instructions; null where this machine does not have them.
inline const char *name(isa i) noexcept { return mha_isa_name(static_cast<std::int32_t>(i)); }

} // namespace mha

#endif // MHA_HPP
