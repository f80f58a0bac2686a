/*
 * What CMSIS-DSP needs for the two products of attention over 64 queries and 64 keys of width 32: its
 * matrix product of floats, counted by count.c. The results are compared with plain loops.
 */
#include "dsp/matrix_functions.h"

enum { QUERIES = 64, KEYS = 64, WIDTH = 32 };

static float q[QUERIES * WIDTH], kt[WIDTH * KEYS], logits[QUERIES * KEYS];
static float v[KEYS * WIDTH], mixed[QUERIES * WIDTH];

static unsigned state = 1;

static void fill(float *x, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) * (1.0f / 8388608.0f) - 1.0f;
    }
}

__attribute__((noinline)) void measured_products(void);

void measured_products(void)
{
    const arm_matrix_instance_f32 a = {QUERIES, WIDTH, q}, b = {WIDTH, KEYS, kt};
    const arm_matrix_instance_f32 d = {KEYS, WIDTH, v};
    arm_matrix_instance_f32 c = {QUERIES, KEYS, logits}, e = {QUERIES, WIDTH, mixed};
    arm_mat_mult_f32(&a, &b, &c);
    arm_mat_mult_f32(&c, &d, &e);
}

static int wrong(const float *a, const float *b, const float *c, unsigned depth, unsigned columns)
{
    for (unsigned i = 0; i < QUERIES; i++) {
        for (unsigned j = 0; j < columns; j++) {
            float sum = 0.0f, size = 1.0f;
            for (unsigned k = 0; k < depth; k++) {
                const float product = a[i * depth + k] * b[k * columns + j];
                sum += product;
                size += product < 0.0f ? -product : product;
            }
            const float error = sum - c[i * columns + j];
            if (!(error < 1e-5f * size && error > -1e-5f * size)) {
                return 1;
            }
        }
    }
    return 0;
}

int main(void)
{
    fill(q, QUERIES * WIDTH);
    fill(kt, WIDTH * KEYS);
    fill(v, KEYS * WIDTH);
    measured_products();
    return wrong(q, kt, logits, WIDTH, KEYS) || wrong(logits, v, mixed, KEYS, WIDTH);
}
