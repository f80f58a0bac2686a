"""Dropout cases, by the textbook implementation. Which scores are dropped is mha's own definition, so nobody
else can compute these; the generator underneath is checked against the answers its authors published.

Key j of query i in head h of batch item b takes word j % 4 of Philox4x32-10 with the key (low and high half
of the seed) and the counter (j / 4, i, h, b). It is dropped when the word's upper 24 bits are below
floor(p * 2^24), and multiplied by 1 / (1 - p) otherwise. More batch axes than one count as one.
"""

from functools import partial

from textbook import case as textbook_case, philox4x32

case = partial(textbook_case, "dropout")


def check_generator():
    """The known answers of Random123 for philox4x32-10."""
    for counter, key, want in (
        ((0,) * 4, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ):
        assert " ".join(f"{x:08x}" for x in philox4x32(counter, key)) == want


def main():
    check_generator()
    case("p_0.1", 8, 2, dropout={"p": 0.1, "seed": 1})
    case("p_0.5", 8, 2, dropout={"p": 0.5, "seed": 2}, biases="qkvo")
    case("p_0.9", 8, 2, kv_len=33, dropout={"p": 0.9, "seed": 3})
    case("p_0", 8, 2, dropout={"p": 0, "seed": 4})
    case("p_smallest", 8, 2, dropout={"p": 2.0**-24, "seed": 5})
    case("p_nearly_one", 4, 2, kv_len=65, dropout={"p": 1 - 2.0**-8, "seed": 6})
    case("seed_0", 8, 4, dropout={"p": 0.25, "seed": 0})
    case("seed_33_bits", 8, 4, dropout={"p": 0.25, "seed": 2**32 + 5})
    case("seed_53_bits", 8, 4, dropout={"p": 0.25, "seed": 2**53 - 1})
    case("seed_64_bits", 8, 4, dropout={"p": 0.25, "seed": 2**64 - 1})
    case("bare", 6, 3, weights="none", q_len=5, kv_len=7, dropout={"p": 0.4, "seed": 7})
    case("two_batch_axes", 4, 2, batch=(2, 3), dropout={"p": 0.5, "seed": 8})
    case("unbatched_self", 4, 2, batch=(), call="q", q_len=9, dropout={"p": 0.5, "seed": 9})
    case("causal_mask_bias", 8, 2, q_len=6, kv_len=11, causal=True, causal_offset=4, mask=(2, 1, 1, 11), bias=(2, 6, 11), biases="o",
         dropout={"p": 0.5, "seed": 10})
    case("one_key", 4, 2, q_len=17, kv_len=1, dropout={"p": 0.5, "seed": 11})
    for kv_len in (3, 4, 15, 16, 17, 63, 64, 65, 130, 257):
        case(f"kv_len_{kv_len}", 6, 2, batch=(1,), q_len=3, kv_len=kv_len, dropout={"p": 0.5, "seed": 100 + kv_len},
             outputs="y scores" if kv_len < 140 else "y")
    case("many_rows", 4, 2, batch=(3,), q_len=33, kv_len=5, dropout={"p": 0.375, "seed": 12}, outputs="y", weights="out_in")
    case("scores_at_logits", 8, 2, scores_at="logits", dropout={"p": 0.5, "seed": 13})
    case("scores_at_masked", 8, 2, scores_at="masked", causal=True, dropout={"p": 0.5, "seed": 14})
    case("scores_only", 8, 2, weights="none", dropout={"p": 0.5, "seed": 15}, outputs="scores")


if __name__ == "__main__":
    main()
