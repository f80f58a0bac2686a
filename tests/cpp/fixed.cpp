// mha::layer<config>: everything that the compiler can check and size, and the three places of scratch.
// It needs no standard library but puts, so it runs on bare metal too.
#include <cstdio>

#include "mha.hpp"

namespace {

constexpr float identity[] = {1.0f, 0.0f, 0.0f, 1.0f};
constexpr float half[] = {0.5f, 0.0f, 0.0f, 0.5f};

constexpr mha::config config = mha::config(mha::square(2)).heads(1);
constexpr mha::shape shape{1, 2, 2};
constexpr mha::layer<config> layer(identity, half, identity, half, mha::isa::portable);

// What C says at compile time, the type says too.
static_assert(layer.y_len(shape) == 4 && layer.scores_len(shape) == 4);
static_assert(layer.scratch_len(shape) == MHA_SCRATCH_LEN(2, 1, 2, 2));
static_assert(layer.min_scratch_len(shape) == MHA_MIN_SCRATCH_LEN(2, 1, 2));
static_assert(sizeof(mha::scratch<config, shape>) == sizeof(float) * MHA_SCRATCH_LEN(2, 1, 2, 2));
static_assert(sizeof layer == sizeof(mha_layer), "nothing but what C has");

// Grouped heads and different widths: the lengths of the weights follow.
constexpr mha::config wide = mha::config(mha::shared(3, 8, 4, 5)).heads(4).kv_heads(2);
static_assert(mha::layer<wide>::wq_len == 24 && mha::layer<wide>::wk_len == 12);
static_assert(mha::layer<wide>::wv_len == 6 && mha::layer<wide>::wo_len == 20);

// Nothing can throw, and no constructor or destructor runs.
static_assert(noexcept(layer.forward<shape>(std::declval<const mha::inputs &>(),
                                            std::declval<float (&)[4]>())));
static_assert(std::is_trivially_destructible_v<mha::layer<config>>);
static_assert(std::is_trivially_copyable_v<mha::layer<config>>);

mha::scratch<config, shape> its_own;
float ours[config.min_scratch_len(shape)];

bool equal(const float (&a)[4], const float (&b)[4])
{
    for (int i = 0; i < 4; ++i) {
        if (!(a[i] == b[i])) return false;
    }
    return true;
}

int failures;

void check(bool condition, const char *what)
{
    if (!condition) {
        ++failures;
        std::puts(what);
    }
}

} // namespace

int main()
{
    const float x[] = {1.0f, 2.0f, -3.0f, 0.25f};
    const mha::inputs inputs(x);
    float from_static[4], from_stack[4], from_ours[4], from_spans[4];
    check(layer.forward<shape>(inputs, from_static, its_own).ok(), "a static scratch");
    check(layer.forward<shape>(inputs, from_stack).ok(), "scratch on the stack");
    check(layer.forward<shape>(inputs, from_ours, ours).ok(), "the least scratch");
    const mha::layer any(config, mha::weights(identity, half, identity, half), mha::isa::portable);
    check(any.forward(shape, inputs, mha::outputs(from_spans), its_own).ok(), "spans");
    check(equal(from_static, from_stack), "static and stack");
    check(equal(from_static, from_ours), "static and the least");
    check(equal(from_static, from_spans), "types and spans");
    // Two queries that see two keys each: no row of y is a row of x * wo.
    check(from_static[0] < 0.5f && from_static[0] > -1.5f, "a mixture");

    // A wrong call is a status that names the argument; it must be looked at.
    const mha::status s = layer.forward<shape>(mha::inputs(mha::span<const float>(x, 3)), from_stack);
    check(s.kind() == mha::kind::length && s.argument() == mha::argument::q, "a short q");
    check(equal(from_static, from_stack), "nothing was written");
    return failures;
}
