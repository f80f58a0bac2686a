/* What the two programs share: the call that is counted, and a line for each answer. */
#ifndef MODEL_H
#define MODEL_H

#include "host.h"
#include "network.h"

/* A model with its memory. */
typedef struct model {
    const network *net;
    network_token *token;
    float *scratch;
    size_t scratch_len;
    int words; /* the file of logits, for the host to compare */
} model;

/* How many answers were right. */
typedef struct tally {
    uint32_t right, all;
} tally;

/* Classifies an item of so many tokens and prints
   `answer <source> <size> <answer> <label> <digest>`, then what it cost. */
void model_answer(const model *m, const char *source, uint32_t size, size_t tokens, const void *item,
                  uint32_t label, tally *score);

/* `right <source> <right> <all>`. */
void model_score(const char *source, const tally *score);

#endif
