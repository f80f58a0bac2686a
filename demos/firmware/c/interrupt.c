/* One layer used from two contexts: the main loop computes it over and over, and a timer's interrupt
   computes it in the middle of that, with outputs and scratch of its own. Every result must have the bits
   of the first, which nobody interrupted. For Cortex-M with its SysTick. */
#include "memory.h"
#include "host.h"
#include "network.h"

enum { TOKEN = 4, TOKENS = 16, WIDTH = 24, HEADS = 4, HIDDEN = 48, CLASSES = 10 };
enum { LENGTH = TOKENS * WIDTH, SCRATCH = MHA_MIN_SCRATCH_LEN(WIDTH, HEADS, TOKENS) };
enum { WANTED = 40, MOST_CALLS = 2000 };

extern const float digits_weights[NETWORK_PARAMETERS(TOKEN, TOKENS, WIDTH, HIDDEN, CLASSES)];
static const network net = NETWORK(digits_weights, TOKEN, TOKENS, WIDTH, HEADS, HIDDEN, CLASSES);

static float x[LENGTH], alone[LENGTH];
static float of_main[LENGTH], of_interrupt[LENGTH];
static float scratch_of_main[SCRATCH], scratch_of_interrupt[SCRATCH];

static volatile uint32_t interrupts, calls, in_a_call, within, wrong;

static volatile uint32_t *const control = (volatile uint32_t *)0xE000E010u;
static volatile uint32_t *const reload = (volatile uint32_t *)0xE000E014u;
static volatile uint32_t *const current = (volatile uint32_t *)0xE000E018u;
enum { TICKS = 0xffffff };

static void compute(float *y, float *scratch)
{
    const mha_shape shape = { .batch = 1, .q_len = TOKENS, .kv_len = TOKENS };
    const mha_inputs inputs = { .q = MHA_SLICE(x), .causal = MHA_CAUSAL };
    const mha_outputs outputs = { .y = { y, LENGTH } };
    if (mha_forward(&net.layer, shape, &inputs, &outputs, scratch, SCRATCH) != MHA_OK) ++wrong;
}

static void compare(const float *y)
{
    const uint32_t *a = (const uint32_t *)(const void *)y, *b = (const uint32_t *)(const void *)alone;
    for (int i = 0; i < LENGTH; ++i) wrong += a[i] != b[i];
}

void on_tick(void);
void on_tick(void)
{
    ++interrupts;
    within += in_a_call;
    memset(of_interrupt, 0, sizeof of_interrupt);
    compute(of_interrupt, scratch_of_interrupt);
    compare(of_interrupt);
}

int main(void)
{
    uint32_t state = 1;
    for (int i = 0; i < LENGTH; ++i) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    *reload = TICKS;
    *current = 0;
    *control = 5; /* counts, without an interrupt */
    compute(alone, scratch_of_main);
    const uint32_t took = TICKS - *current;

    /* Often enough to hit every part of a call, seldom enough for the main loop to go on. */
    *reload = took + took / 3 + 7;
    *current = 0;
    *control = 7;
    while (within < WANTED && calls < MOST_CALLS) {
        memset(of_main, 0, sizeof of_main);
        in_a_call = 1;
        compute(of_main, scratch_of_main);
        in_a_call = 0;
        compare(of_main);
        ++calls;
    }
    *control = 0;
    print("calls");
    print_number(calls);
    print(" interrupted");
    print_number(within);
    print(" wrong words");
    print_number(wrong);
    print("\n");
    return wrong != 0 || within < WANTED;
}
