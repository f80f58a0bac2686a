// One query that is equally far from two keys: the output is the mean of their values.
#include <cstdio>

#include "mha.hpp"

// Trained weights would stand here; constant, so they stay in flash.
constexpr float identity[] = {1.0f, 0.0f, 0.0f, 1.0f};

constexpr mha::config config = mha::config(mha::square(2)).heads(1);
constexpr mha::shape shape{1, 1, 2}; // batch, q_len, kv_len
constexpr mha::layer layer(config, mha::weights(identity, identity, identity, identity));
static float scratch[config.scratch_len(shape)];

int main()
{
    const float q[] = {0.0f, 1.0f};
    const float k[] = {1.0f, 0.0f, -1.0f, 0.0f};
    const float v[] = {2.0f, 4.0f, 4.0f, 8.0f};
    float y[config.y_len(shape)], scores[config.scores_len(shape)];

    const auto outputs = mha::outputs(y).scores(scores);
    const mha::status s = layer.forward(shape, mha::inputs(q, k, v), outputs, scratch);
    if (!s.ok()) {
        std::puts(s.message());
        return 1;
    }
    std::printf("y = %g %g, scores = %g %g\n", static_cast<double>(y[0]), static_cast<double>(y[1]),
                static_cast<double>(scores[0]), static_cast<double>(scores[1]));
    return 0; // y = 3 6, scores = 0.5 0.5
}
