// mha.hpp: sizes at compile time, a layer that is a constant, the same bits as mha.h, every error by
// its name.
#include <array>
#include <cstdio>
#include <cstring>
#include <vector>

#include "mha.hpp"

namespace {

std::size_t checks, failures;

void check(bool condition, const char *what, int line)
{
    ++checks;
    if (!condition) {
        ++failures;
        std::printf("wrapper.cpp:%d: failed: %s\n", line, what);
    }
}
#define CHECK(condition) check(condition, #condition, __LINE__)

// One query that is equally far from two keys: the output is the mean of their values.
constexpr float identity[] = {1.0f, 0.0f, 0.0f, 1.0f};
constexpr mha::config config = mha::config(mha::square(2)).heads(1);
constexpr mha::shape shape{1, 1, 2};
constexpr mha::layer layer(config, mha::weights(identity, identity, identity, identity));

float scratch[config.scratch_len(shape)];
static_assert(sizeof scratch / sizeof *scratch >= config.min_scratch_len(shape));
static_assert(config.y_len(shape) == 2 && config.scores_len(shape) == 2);
static_assert(config.scratch_len(shape) == MHA_SCRATCH_LEN(2, 1, 1, 2));

constexpr float q[] = {0.0f, 1.0f}, k[] = {1.0f, 0.0f, -1.0f, 0.0f}, v[] = {2.0f, 4.0f, 4.0f, 8.0f};

void computes()
{
    std::array<float, 2> y{};
    std::vector<float> scores(config.scores_len(shape));
    CHECK(layer.check().ok());
    const mha::status s = layer.forward(shape, mha::inputs(q, k, v),
                                        mha::outputs(y).scores(scores), scratch);
    CHECK(s.ok() && s.kind() == mha::kind::ok && s == mha::status());
    CHECK(y[0] == 3.0f && y[1] == 6.0f);
    CHECK(scores[0] == 0.5f && scores[1] == 0.5f);

    // Bits as from C.
    const mha_inputs inputs{{q, 2}, {k, 4}, {v, 4}, {}, {}, {}, {}};
    float y_c[2];
    const mha_outputs outputs{{y_c, 2}, {}, 0};
    CHECK(mha_forward(&layer.get(), shape, &inputs, &outputs, scratch, MHA_COUNT(scratch)) == MHA_OK);
    CHECK(std::memcmp(y.data(), y_c, sizeof y_c) == 0);

    // Rows.
    float row[2] = {};
    CHECK(layer.forward_rows(shape, 0, 1, mha::inputs(q, k, v), mha::outputs(row), scratch).ok());
    CHECK(row[0] == 3.0f && row[1] == 6.0f);
}

void sees()
{
    float y[2];
    const mha::inputs all(q, k, v);
    const std::uint8_t second[] = {0, 1};
    CHECK(layer.forward(shape, all.mask(second, 1, 1, 1, 0), mha::outputs(y), scratch).ok());
    CHECK(y[0] == 4.0f && y[1] == 8.0f);
    CHECK(layer.forward(shape, all.causal(), mha::outputs(y), scratch).ok());
    CHECK(y[0] == 2.0f && y[1] == 4.0f);
    const std::ptrdiff_t offsets[] = {1};
    CHECK(layer.forward(shape, all.causal(offsets), mha::outputs(y), scratch).ok());
    CHECK(y[0] == 3.0f && y[1] == 6.0f);
    const float bias[] = {0.0f, -1000.0f};
    CHECK(layer.forward(shape, all.bias(bias, 1, 1, 1, 2), mha::outputs(y), scratch).ok());
    CHECK(y[0] == 2.0f && y[1] == 4.0f);
    CHECK(layer.forward(shape, all.dropout(0.0f, 1), mha::outputs(y), scratch).ok());
    float logits[2];
    const auto to = mha::outputs(y).scores(logits, mha::scores_at::logits);
    CHECK(layer.forward(shape, all, to, scratch).ok() && logits[0] == 0.0f && logits[1] == 0.0f);

    // Self-attention and the two-argument form.
    constexpr mha::shape square{1, 2, 2};
    static float room[config.scratch_len(square)];
    float a[4], b[4];
    CHECK(layer.forward(square, mha::inputs(k), mha::outputs(a), room).ok());
    CHECK(layer.forward(square, mha::inputs(k, k), mha::outputs(b), room).ok());
    CHECK(std::memcmp(a, b, sizeof a) == 0);

    // Without projections.
    constexpr mha::attention attention(1, 2, 2);
    static float small[attention.scratch_len(shape)];
    static_assert(attention.min_scratch_len() <= attention.scratch_len(shape));
    float scores[attention.scores_len(shape)];
    CHECK(attention.check().ok());
    CHECK(mha::dot_product_attention(attention, mha::isa::fastest, shape, all, mha::outputs(y),
                                     small)
              .ok());
    CHECK(y[0] == 3.0f && y[1] == 6.0f);
    CHECK(mha::dot_product_attention_scores(attention, mha::isa::portable, shape, all, scores, small)
              .ok());
    CHECK(scores[0] == 0.5f && scores[1] == 0.5f);
    CHECK(std::strcmp(mha::name(mha::isa::portable), "portable") == 0);
    CHECK(std::strcmp(mha::name(mha::detect()), mha::name(mha::isa::fastest)) == 0);
}

// Options through the calls that take a part: rows, and scores alone.
void shares()
{
    constexpr std::size_t length = 9;
    constexpr mha::shape all{1, length, length};
    static float x[length * 2], whole[length * 2], parted[length * 2], room[config.scratch_len(all)];
    for (std::size_t i = 0; i < length * 2; ++i) x[i] = static_cast<float>(i * 5 % 11) / 11.0f - 0.5f;
    const mha::inputs in = mha::inputs(x).causal();
    const mha::options recent = mha::options().window_left(2).softcap(3.0f);
    CHECK(layer.forward(all, in, recent, mha::outputs(whole), room).ok());
    CHECK(layer.split_row(all, in, 0, 2) == 0 && layer.split_row(all, in, 2, 2) == length);
    for (std::size_t part = 0; part < 2; ++part) {
        const std::size_t start = layer.split_row(all, in, part, 2);
        const std::size_t end = layer.split_row(all, in, part + 1, 2);
        CHECK(start < end);
        const mha::outputs out(mha::span<float>(parted + start * 2, (end - start) * 2));
        CHECK(layer.forward_rows(all, start, end, in, recent, out, room).ok());
    }
    CHECK(std::memcmp(parted, whole, sizeof whole) == 0);
    CHECK(layer.forward(all, in, mha::outputs(parted), room).ok());
    CHECK(std::memcmp(parted, whole, sizeof whole) != 0);

    // The identity projects nothing: attention alone has the scores of the layer.
    constexpr mha::attention attention(1, 2, 2);
    static float scores[length * length], alone[length * length];
    CHECK(layer.forward(all, in, recent, mha::outputs(parted).scores(scores), room).ok());
    CHECK(mha::dot_product_attention_scores(attention, mha::isa::fastest, all, in, recent, alone, room)
              .ok());
    CHECK(std::memcmp(alone, scores, sizeof scores) == 0);
    CHECK(alone[8 * length + 5] == 0.0f && alone[8 * length + 6] > 0.0f);
    CHECK(mha::dot_product_attention_scores(attention, mha::isa::fastest, all, in, alone, room).ok());
    CHECK(alone[8 * length + 5] > 0.0f);
}

bool is(mha::status s, mha::kind kind, mha::argument argument)
{
    return s.kind() == kind && s.argument() == argument
           && s.code() == MHA_STATUS(static_cast<int>(kind), static_cast<int>(argument))
           && std::strchr(s.message(), ':') != nullptr;
}

void refuses()
{
    using A = mha::argument;
    using K = mha::kind;
    float y[2] = {7.0f, 7.0f};
    const mha::inputs all(q, k, v);
    const mha::outputs out(y);
    const mha::weights weights(identity, identity, identity, identity);
    const auto with = [&](const mha::config &other) {
        return mha::layer(other, weights).forward(shape, all, out, scratch);
    };
    CHECK(is(with(mha::config(mha::square(0))), K::zero, A::dims));
    CHECK(is(with(config.heads(0)), K::zero, A::heads));
    CHECK(is(with(config.heads(3)), K::heads, A::heads));
    CHECK(is(with(mha::config(mha::square(~std::size_t{0}))), K::too_large, A::dims));
    CHECK(is(with(mha::config(mha::uniform(2, 1, 2)).heads(1)), K::length, A::wq));
    CHECK(is(with(mha::config(mha::shared(2, 2, 1, 2)).heads(1)), K::length, A::wv));
    CHECK(is(with(config.weight_order(static_cast<mha::weight_order>(7))), K::value, A::weight_order));
    CHECK(is(config.heads(5).check(), K::heads, A::heads));
    CHECK(is(mha::attention(3, 2, 2).scale(2.0f).check(), K::heads, A::heads));
    CHECK(is(mha::layer(config, weights.biases(q, {}, {}, mha::span(q, 1))).check(), K::length, A::bo));
    CHECK(with(config.scale(0.25f)).ok() && with(config.weight_order(mha::weight_order::out_in)).ok());

    y[0] = y[1] = 7.0f;
    const auto forward = [&](const mha::inputs &inputs, const mha::outputs &outputs,
                             mha::span<float> room) {
        return layer.forward(shape, inputs, outputs, room);
    };
    const std::uint8_t mask[3] = {};
    const mha::span<const float> none;
    CHECK(is(forward(mha::inputs(k, k, v), out, scratch), K::length, A::q));
    CHECK(is(forward(all, mha::outputs(mha::span(y, 1)), scratch), K::length, A::y));
    CHECK(is(forward(all, out, mha::span(scratch, 1)), K::length, A::scratch));
    CHECK(is(forward(all.mask(mask, 1, 1, 1, 3), out, scratch), K::broadcast, A::mask));
    CHECK(is(forward(all.bias(q, 2, 1, 1, 1), out, scratch), K::broadcast, A::bias));
    CHECK(is(forward(all.dropout(1.0f, 1), out, scratch), K::value, A::dropout));
    CHECK(is(forward(mha::inputs(q, mha::span<const float>(nullptr, 4), v), out, scratch), K::null, A::k));
    CHECK(is(forward(mha::inputs(y, k, v), out, scratch), K::overlap, A::y));
    CHECK(is(forward(all, out, y), K::overlap, A::scratch));
    CHECK(is(forward(all, out.scores(mha::span(scratch, 2)), scratch), K::overlap, A::scratch));
    CHECK(is(layer.forward_rows(shape, 1, 2, all, out, scratch), K::range, A::rows));
    CHECK(is(mha::layer(config, weights, static_cast<mha::isa>(-1)).check(), K::value, A::isa));
    CHECK(is(forward(mha::inputs(none), out, scratch), K::length, A::q));
    CHECK(y[0] == 7.0f && y[1] == 7.0f);
}

// A stream through a ring equals a window over the whole, and the options refuse what they must.
void streams()
{
    using K = mha::kind;
    using A = mha::argument;
    constexpr mha::config grouped = mha::config(mha::square(8)).heads(4).kv_heads(2);
    constexpr std::size_t capacity = 16, length = 40;
    static float w[64], x[length * 8], whole[length * 8], stepped[length * 8];
    for (std::size_t i = 0; i < 64; ++i) w[i] = static_cast<float>(i * 7 % 13) / 13.0f - 0.5f;
    for (std::size_t i = 0; i < length * 8; ++i) x[i] = static_cast<float>(i * 5 % 11) / 11.0f - 0.5f;
    const mha::span<const float> half(w, 32);
    const mha::layer decoder(grouped, mha::weights(w, half, half, w));
    const mha::options recent = mha::options().window_left(7).rope(10000.0f).softcap(9.0f);

    constexpr mha::shape all{1, length, length};
    static float room[grouped.scratch_len(all)];
    CHECK(decoder.forward(all, mha::inputs(x).causal(), recent, mha::outputs(whole), room).ok());

    static float keys[grouped.cache_keys_len(capacity)], values[grouped.cache_values_len(capacity)];
    mha::cache ring = mha::cache(grouped, capacity, keys, values).ring();
    for (std::size_t t = 0; t < length; ++t) {
        const mha::span<const float> frame(x + t * 8, 8);
        CHECK(decoder.append(ring, frame, {}, recent).ok());
        const mha::outputs out(mha::span<float>(stepped + t * 8, 8));
        CHECK(decoder.attend(ring, 1, mha::inputs(frame).causal(), recent, out, room).ok());
    }
    CHECK(ring.size() == length && ring.stored() == capacity);
    CHECK(std::memcmp(stepped, whole, sizeof whole) == 0);
    CHECK(is(ring.rollback(3), K::range, A::cache));
    CHECK(ring.rollback(length - 1).ok() && ring.size() == length - 1);
    CHECK(ring.reset().ok() && ring.size() == 0);

    static const std::size_t starts[] = {0, 10, length};
    CHECK(decoder.forward_packed(starts, starts, mha::inputs(x), {}, mha::outputs(stepped), room).ok());
    CHECK(is(decoder.forward(all, mha::inputs(x), recent.softcap(-1.0f), mha::outputs(whole), room),
             K::value, A::softcap));
    mha::cache full = mha::cache(grouped, capacity, keys, values);
    CHECK(is(decoder.append(full, mha::span<const float>(x, 17 * 8), {}), K::cache_full, A::cache));
    CHECK(is(mha::cache(grouped, 8, keys, values).check(), K::length, A::cache));
}

} // namespace

int main()
{
    computes();
    sees();
    shares();
    refuses();
    streams();
    std::printf("wrapper: %zu checks, %zu failed\n", checks, failures);
    return failures == 0 && checks > 0 ? 0 : 1;
}
