/* What runs before main on a bare processor: the floating-point unit is turned on, data is copied, bss
   is cleared. For Cortex-M a vector table, for RISC-V an entry that sets the stack. */
#include <stdint.h>

#include "host.h"

extern uint32_t stack_top[], data_load[], data_start[], data_end[], bss_start[], bss_end[];
int main(void);
void reset(void);

/* Any exception ends the program. */
static void fault(void)
{
    host_exit(99);
}

#if defined(__arm__)
/* Set by a program that has an interrupt of its own; SysTick is exception 15. */
void on_tick(void) __attribute__((weak, alias("unexpected_tick")));
void unexpected_tick(void);
void unexpected_tick(void)
{
    fault();
}

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} vectors = { stack_top, { reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0,
                           fault, on_tick } };
#elif defined(__riscv)
void entry(void) __attribute__((naked, used, section(".vectors")));
void entry(void)
{
    __asm__ volatile("la sp, stack_top\n"
                     "la t0, trap\n"
                     ".option push\n.option arch, +zicsr\n"
                     "csrw mtvec, t0\n"
                     ".option pop\n"
                     "j reset");
}

void trap(void) __attribute__((aligned(4), used));
void trap(void)
{
    fault();
}
#endif

void reset(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
    __asm__ volatile("dsb\n isb");
#endif
    const uint32_t *from = data_load;
    for (uint32_t *to = data_start; to < data_end; ++to) *to = *from++;
    for (uint32_t *to = bss_start; to < bss_end; ++to) *to = 0;
    host_exit(main());
}
