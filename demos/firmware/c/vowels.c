/* Which of nine speakers says this /ae/? The trained model with its weights in flash, on utterances in
   flash and then on all that the machine it hangs on has in a file. */
#include "memory.h"
#include "model.h"

enum { TOKEN = 12, TOKENS = 29, WIDTH = 32, HEADS = 4, HIDDEN = 64, CLASSES = 9 };

/* Frames that scratch has room for: as many as the longest utterance has, or as a small board holds. */
#ifndef FRAMES
#define FRAMES TOKENS
#define SCRATCH_LEN NETWORK_SCRATCH_LEN(WIDTH, HEADS, HIDDEN, FRAMES)
#else
#define SCRATCH_LEN NETWORK_MIN_SCRATCH_LEN(WIDTH, HEADS, HIDDEN, FRAMES)
#endif

/* The mean and the deviation of every feature, then the network. */
extern const float
    vowels_weights[2 * TOKEN + NETWORK_PARAMETERS(TOKEN, TOKENS, WIDTH, HIDDEN, CLASSES)];
/* Utterances one after the other: speaker, number of frames, frames. */
extern const uint32_t utterances[], utterances_end[];

static const network net =
    NETWORK(vowels_weights + 2 * TOKEN, TOKEN, TOKENS, WIDTH, HEADS, HIDDEN, CLASSES);
static float scratch[SCRATCH_LEN];

/* Token i is a frame, normalised. */
static void frame(const void *item, size_t i, float *features)
{
    const float *mean = vowels_weights, *deviation = vowels_weights + TOKEN;
    memcpy(features, (const char *)item + i * TOKEN * sizeof *features, TOKEN * sizeof *features);
    for (size_t f = 0; f < TOKEN; ++f) features[f] = (features[f] - mean[f]) / deviation[f];
}

int main(void)
{
    const model m = { &net, frame, scratch, MHA_COUNT(scratch), host_create("words.bin") };
    tally in_flash = { 0, 0 }, in_file = { 0, 0 };
    for (const uint32_t *at = utterances; at < utterances_end; at += 2 + at[1] * TOKEN) {
        if (at[1] > FRAMES) continue;
        model_answer(&m, "flash", at[1], at[1], at + 2, at[0], &in_flash);
    }
    model_score("flash", &in_flash);
    const int file = host_open("utterances.bin");
    if (file >= 0) {
        uint32_t header[2];
        static float frames[FRAMES][TOKEN];
        while (host_read(file, header, sizeof header)) {
            for (uint32_t i = 0; i < header[1]; ++i) {
                if (!host_read(file, frames[i < FRAMES ? i : 0], sizeof frames[0])) return 1;
            }
            if (header[1] > FRAMES) continue;
            model_answer(&m, "file", header[1], header[1], frames, header[0], &in_file);
        }
        model_score("file", &in_file);
    }
    return 0;
}
