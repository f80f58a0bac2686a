/* What runs before main on a Cortex-M without an operating system: the floating-point unit is turned
   on, data copied, bss cleared. Standard output and the exit status go to the emulator. */
#include <stdint.h>
#include <stdlib.h>

extern uint32_t stack_top[], data_load[], data_start[], data_end[], bss_start[], bss_end[];
extern void initialise_monitor_handles(void);
extern int main(void);
extern void _init(void);
extern void _fini(void);

void reset(void);
static void fault(void);

void _init(void) {}
void _fini(void) {}

/* The vector table: where the stack begins, then the handlers. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} vectors = { stack_top, { reset, fault, fault, fault, fault, fault } };

void reset(void)
{
#if defined(__ARM_FP) || defined(BOARD_HAS_FPU)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 */
    __asm volatile("dsb\n isb");
#endif
    const uint32_t *from = data_load;
    for (uint32_t *to = data_start; to < data_end; ++to) *to = *from++;
    for (uint32_t *to = bss_start; to < bss_end; ++to) *to = 0;
    initialise_monitor_handles();
    exit(main());
}

static void fault(void)
{
    _Exit(99);
}
