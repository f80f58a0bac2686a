/* The stack gauge: how far below the caller's frame a call wrote. The memory below the stack pointer is
   painted, the call is made, and the lowest word that lost its paint is found. Memory that a function
   reserves and never writes does not show. */
#ifndef STACK_H
#define STACK_H

#include <stdint.h>

/* Bytes painted: calls that go deeper read as this much. */
enum { STACK_WINDOW = 8192 };

extern uint32_t static_end[]; /* the end of static memory: below it the stack must not go */

static inline uintptr_t stack_pointer(void)
{
    uintptr_t sp;
#if defined(__arm__)
    __asm__ volatile("mov %0, sp" : "=r"(sp));
#else
    __asm__ volatile("mv %0, sp" : "=r"(sp));
#endif
    return sp;
}

#define STACK_PAINT 0xA5A55A5Au

/* Both are given the same stack pointer, read once. */
static inline volatile uint32_t *stack_floor(uintptr_t top)
{
    const uintptr_t lowest = (uintptr_t)static_end;
    const uintptr_t window = top - lowest > STACK_WINDOW ? top - STACK_WINDOW : lowest;
    return (volatile uint32_t *)((window + 3u) / 4u * 4u);
}

static inline void stack_paint(uintptr_t top)
{
    for (volatile uint32_t *at = stack_floor(top); (uintptr_t)at < top; ++at) *at = STACK_PAINT;
}

/* Bytes of stack that were written to since. */
static inline uint32_t stack_used(uintptr_t top)
{
    volatile uint32_t *at = stack_floor(top);
    while ((uintptr_t)at < top && *at == STACK_PAINT) ++at;
    return (uint32_t)(top - (uintptr_t)at);
}

#endif
