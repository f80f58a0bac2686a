#include "model.h"

#include "stack.h"

enum { MOST_CLASSES = 10 };

/* The call that is counted: from an item to logits. */
__attribute__((noinline)) mha_status measured_inference(const model *m, size_t tokens, const void *item,
                                                        float *logits, uint32_t *macs);

mha_status measured_inference(const model *m, size_t tokens, const void *item, float *logits,
                              uint32_t *macs)
{
    return network_logits(m->net, tokens, m->token, item, logits, m->scratch, m->scratch_len, macs);
}

void model_answer(const model *m, const char *source, uint32_t size, size_t tokens, const void *item,
                  uint32_t label, tally *score)
{
    float logits[MOST_CLASSES];
    const size_t classes = m->net->classes;
    uint32_t macs = 0;
    const uintptr_t top = stack_pointer();
    stack_paint(top);
    const mha_status status = measured_inference(m, tokens, item, logits, &macs);
    const uint32_t stack = stack_used(top);
    ++score->all;
    if (status != MHA_OK) {
        print("refused ");
        print(source);
        print(" ");
        print(mha_status_message(status));
        print("\n");
        return;
    }
    const size_t answer = network_best(logits, classes);
    score->right += answer == label;
    print("answer ");
    print(source);
    print_number(size);
    print_number((uint32_t)answer);
    print_number(label);
    print_hex(digest(logits, classes));
    (void)host_write(m->words, logits, classes * sizeof *logits);
    print("\ncost ");
    print(source);
    print_number(macs);
    print_number((uint32_t)(m->scratch_len * sizeof(float)));
    print_number(stack);
    print("\n");
}
