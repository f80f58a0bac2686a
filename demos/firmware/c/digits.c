/* Which of ten digits is this image of 8 x 8 blocks? The trained model with its weights in flash, on
   images in flash and then on all that the machine it hangs on has in a file. */
#include "model.h"

enum { TOKEN = 4, TOKENS = 16, WIDTH = 24, HEADS = 4, HIDDEN = 48, CLASSES = 10 };

/* A label and how many of 16 pixels of each block are ink, row by row. */
typedef struct image {
    uint8_t label, blocks[64];
} image;

extern const float digits_weights[NETWORK_PARAMETERS(TOKEN, TOKENS, WIDTH, HIDDEN, CLASSES)];
extern const image images[], images_end[];

static const network net = NETWORK(digits_weights, TOKEN, TOKENS, WIDTH, HEADS, HIDDEN, CLASSES);
static float scratch[NETWORK_SCRATCH_LEN(WIDTH, HEADS, HIDDEN, TOKENS)];

/* Token i is a patch of 2 x 2 blocks. */
static void patch(const void *item, size_t i, float *features)
{
    const uint8_t *first = ((const image *)item)->blocks + i / 4 * 16 + i % 4 * 2;
    features[0] = (float)first[0] / 16.0f;
    features[1] = (float)first[1] / 16.0f;
    features[2] = (float)first[8] / 16.0f;
    features[3] = (float)first[9] / 16.0f;
}

int main(void)
{
    const model m = { &net, patch, scratch, MHA_COUNT(scratch), host_create("words.bin") };
    tally in_flash = { 0, 0 }, in_file = { 0, 0 };
    for (const image *at = images; at < images_end; ++at) {
        model_answer(&m, "flash", 64, TOKENS, at, at->label, &in_flash);
    }
    model_score("flash", &in_flash);
    const int file = host_open("images.bin");
    if (file >= 0) {
        image read;
        while (host_read(file, &read, sizeof read)) {
            model_answer(&m, "file", 64, TOKENS, &read, read.label, &in_file);
        }
        model_score("file", &in_file);
    }
    return 0;
}
