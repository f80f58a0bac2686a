#include "model.h"

void model_score(const char *source, const tally *score)
{
    print("right ");
    print(source);
    print_number(score->right);
    print_number(score->all);
    print("\n");
}
