/* What the test programs share: a check that counts and goes on, and the verdict at the end. */
#ifndef TEST_H
#define TEST_H

#include <stdio.h>
#include <string.h>

static size_t checks, failures;

#define CHECK(condition)                                                         \
    do {                                                                         \
        ++checks;                                                                \
        if (!(condition)) {                                                      \
            ++failures;                                                          \
            printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);       \
        }                                                                        \
    } while (0)

/* The program's exit status. */
static inline int verdict(const char *name)
{
    printf("%s: %lu checks, %lu failed\n", name, (unsigned long)checks, (unsigned long)failures);
    return failures == 0 && checks > 0 ? 0 : 1;
}

/* Whether two arrays have the same bits. */
static inline int same_bits(const float *a, const float *b, size_t len)
{
    return memcmp(a, b, len * sizeof *a) == 0;
}

/* Numbers in [-1, 1), the same on every machine. */
static inline void fill(float *to, size_t len, unsigned seed)
{
    unsigned state = seed * 2654435761u + 1u;
    for (size_t i = 0; i < len; ++i) {
        state = state * 1664525u + 1013904223u;
        to[i] = (float)(int)(state >> 16) / 32768.0f - 1.0f;
    }
}

#endif
