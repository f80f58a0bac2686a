/* The three functions that the library needs of whoever links it. A firmware that has a C library has
   them already; this one has none. */
#include "memory.h"

/* Or the compiler makes a call of memset out of the loop in memset. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")

void *memcpy(void *restrict to, const void *restrict from, size_t length)
{
    return memmove(to, from, length);
}

void *memmove(void *to, const void *from, size_t length)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    if (out < in) {
        for (size_t i = 0; i < length; ++i) out[i] = in[i];
    } else {
        while (length-- > 0) out[length] = in[length];
    }
    return to;
}

void *memset(void *to, int byte, size_t length)
{
    unsigned char *out = to;
    for (size_t i = 0; i < length; ++i) out[i] = (unsigned char)byte;
    return to;
}

size_t strlen(const char *text)
{
    size_t length = 0;
    while (text[length] != '\0') ++length;
    return length;
}
