/* Who is speaking? An answer after each frame, for ever, in constant memory and time.

   Frames arrive in an interrupt, which puts them into a lock-free queue of fixed size and does nothing
   else; the main loop takes them out, appends each to a ring of keys and values and answers. The
   interrupt is simulated: it is called where the main loop can be interrupted, with a frame or two. */
#include <stdatomic.h>

#include "memory.h"
#include "model.h"
#include "stack.h"

enum { TOKEN = 12, TOKENS = 29, WIDTH = 32, HEADS = 4, HIDDEN = 64, CLASSES = 9, RECENT = 16 };

extern const float
    vowels_weights[2 * TOKEN + NETWORK_PARAMETERS(TOKEN, TOKENS, WIDTH, HIDDEN, CLASSES)];
extern const uint32_t utterances[], utterances_end[];

static const network net =
    NETWORK(vowels_weights + 2 * TOKEN, TOKEN, TOKENS, WIDTH, HEADS, HIDDEN, CLASSES);

/* ---- the queue: one end is the interrupt's, the other the main loop's ---- */

enum { SLOTS = 4 }; /* one of them stays empty */
static struct {
    float frames[SLOTS][TOKEN];
    atomic_uint head, tail;
} queue;

static int enqueue(const float *frame)
{
    const unsigned tail = atomic_load_explicit(&queue.tail, memory_order_relaxed);
    const unsigned after = (tail + 1) % SLOTS;
    if (after == atomic_load_explicit(&queue.head, memory_order_acquire)) return 0;
    memcpy(queue.frames[tail], frame, sizeof queue.frames[tail]);
    atomic_store_explicit(&queue.tail, after, memory_order_release);
    return 1;
}

static int dequeue(float *frame)
{
    const unsigned head = atomic_load_explicit(&queue.head, memory_order_relaxed);
    if (head == atomic_load_explicit(&queue.tail, memory_order_acquire)) return 0;
    memcpy(frame, queue.frames[head], sizeof queue.frames[head]);
    atomic_store_explicit(&queue.head, (head + 1) % SLOTS, memory_order_release);
    return 1;
}

/* ---- the sensor ---- */

static struct {
    const char *frames; /* as they lie in flash or in a file's buffer */
    uint32_t left, lost;
} sensor;

static void sensor_interrupt(void)
{
    float frame[TOKEN];
    if (sensor.left == 0) return;
    memcpy(frame, sensor.frames, sizeof frame);
    sensor.frames += sizeof frame;
    --sensor.left;
    if (!enqueue(frame)) ++sensor.lost;
}

/* ---- the listener: all its memory, sized by the compiler ---- */

static float keys[MHA_CACHE_KEYS_LEN(WIDTH, HEADS, HEADS, 1, RECENT)];
static float values[MHA_CACHE_VALUES_LEN(WIDTH, HEADS, HEADS, 1, RECENT)];
static float scratch[MHA_CACHED_SCRATCH_LEN(WIDTH, WIDTH, HEADS, HEADS, 1)];
static float rows[RECENT][WIDTH];
static mha_cache cache;
static uint32_t heard;

__attribute__((noinline)) mha_status measured_inference(float *frame, float *logits);

/* The call that is counted: from a frame to an answer. */
mha_status measured_inference(float *frame, float *logits)
{
    const float *mean = vowels_weights, *deviation = vowels_weights + TOKEN;
    for (size_t f = 0; f < TOKEN; ++f) frame[f] = (frame[f] - mean[f]) / deviation[f];
    const size_t position = heard < TOKENS ? heard : TOKENS - 1;
    const mha_status status = network_step(&net, &cache, frame, position, rows[heard % RECENT], scratch,
                                           MHA_COUNT(scratch));
    if (status != MHA_OK) return status;
    ++heard;
    network_classify(&net, rows[0], heard < RECENT ? heard : RECENT, logits);
    return MHA_OK;
}

static int words;

/* Somebody else begins to speak. */
static void forget(void)
{
    (void)mha_cache_reset(&cache);
    heard = 0;
}

/* An utterance from its first frame to its last. */
static int listen(const char *source, const void *frames, uint32_t count, uint32_t speaker, tally *score)
{
    uint32_t word = DIGEST_OF_NOTHING, before, first = heard;
    size_t answer = CLASSES;
    sensor.frames = frames;
    sensor.left = count;
    sensor.lost = 0;
    do {
        /* Sometimes one, sometimes two while the main loop was busy. */
        before = heard;
        sensor_interrupt();
        if ((heard - first) % 3 == 0) sensor_interrupt();
        float frame[TOKEN], logits[CLASSES];
        while (dequeue(frame)) {
            const uintptr_t top = stack_pointer();
            stack_paint(top);
            const mha_status status = measured_inference(frame, logits);
            const uint32_t stack = stack_used(top);
            if (status != MHA_OK) {
                print(mha_status_message(status));
                return 0;
            }
            (void)host_write(words, logits, sizeof logits);
            word = digest_more(word, logits, CLASSES);
            answer = network_best(logits, CLASSES);
            const uint32_t remembered = heard < RECENT ? heard : RECENT;
            print("cost ");
            print(source);
            print_number(4 * WIDTH * WIDTH + 2 * WIDTH * remembered);
            print_number(sizeof scratch);
            print_number(stack);
            print("\n");
        }
    } while (heard != before);
    score->right += answer == speaker;
    ++score->all;
    print("answer ");
    print(source);
    print_number(heard - first);
    print_number((uint32_t)answer);
    print_number(speaker);
    print_number(sensor.lost);
    print_hex(word);
    print("\n");
    return 1;
}

int main(void)
{
    const mha_cache empty = {
        .attention = { .heads = HEADS, .qk = WIDTH, .v = WIDTH },
        .config = { .capacity = RECENT, .ring = 1 },
        .keys = MHA_SLICE(keys),
        .values = MHA_SLICE(values),
    };
    cache = empty;
    words = host_create("words.bin");
    tally in_flash = { 0, 0 }, in_file = { 0, 0 };
    for (const uint32_t *at = utterances; at < utterances_end; at += 2 + at[1] * TOKEN) {
        forget();
        if (!listen("flash", at + 2, at[1], at[0], &in_flash)) return 1;
    }
    model_score("flash", &in_flash);
    /* The same without being told where one ends and the next begins: the ring goes round and round. */
    forget();
    tally unsaid = { 0, 0 };
    for (const uint32_t *at = utterances; at < utterances_end; at += 2 + at[1] * TOKEN) {
        if (!listen("endless", at + 2, at[1], at[0], &unsaid)) return 1;
    }
    const int file = host_open("utterances.bin");
    if (file >= 0) {
        uint32_t header[2];
        static float frames[TOKENS][TOKEN];
        while (host_read(file, header, sizeof header)) {
            if (header[1] > TOKENS || !host_read(file, frames, header[1] * sizeof frames[0])) return 1;
            forget();
            if (!listen("file", frames, header[1], header[0], &in_file)) return 1;
        }
        model_score("file", &in_file);
    }
    return 0;
}
