"""Cases of every option that Flux itself does not have (scale, offsets of the causal mask, where scores are
taken) and of mixtures of everything, by the textbook implementation."""

from functools import partial

import numpy as np
from ml_dtypes import bfloat16

from casefile import rng
from textbook import case as textbook_case

case = partial(textbook_case, "options")
BARE = {"weights": "none"}
WIDE = {"q_in": 5, "k_in": 7, "v_in": 3, "qk": 8, "v": 12, "out": 9}


def scales():
    case("scale_one", 8, 2, scale=1)
    case("scale_zero", 8, 2, scale=0)
    case("scale_zero_masked", 8, 2, **BARE, scale=0.0, mask=(2, 1, 3, 5), causal=True, causal_offset=2)
    case("scale_zero_bias", 8, 2, **BARE, scale=0, bias=(2, 3, 5))
    case("scale_negative", 8, 2, **BARE, scale=-1.25)
    case("scale_negative_layer", WIDE, 2, scale=-0.5, biases="qkvo")
    case("scale_ten", 8, 2, **BARE, scale=10)
    case("scale_hundred_small_inputs", WIDE, 4, scale=100.0, given={"q": rng("scale 100").standard_normal((2, 3, 5)) / 64})
    case("scale_tiny", 8, 2, **BARE, scale=1e-30)
    case("scale_is_the_default", 12, 3, scale=0.5)
    case("scale_half_unbatched", 6, 3, batch=(), scale=0.5, call="q", q_len=5)


def offsets():
    case("causal_offset_0", 8, 2, q_len=4, kv_len=6, causal=True, causal_offset=0)
    case("causal_offset_positive", 8, 2, q_len=4, kv_len=9, causal=True, causal_offset=3)
    case("causal_offset_sees_all", 8, 2, q_len=4, kv_len=5, causal=True, causal_offset=100)
    case("causal_offset_very_large", 4, 2, **BARE, causal=True, causal_offset=2**31 - 1)
    case("causal_offset_negative", 8, 2, q_len=6, kv_len=4, causal=True, causal_offset=-2, biases="o")
    case("causal_offset_sees_nothing", 8, 2, q_len=4, kv_len=5, causal=True, causal_offset=-4, biases="vo")
    case("causal_offset_very_negative", 4, 2, **BARE, causal=True, causal_offset=-(2**31))
    case("causal_offset_per_batch", 8, 2, batch=(4,), q_len=3, kv_len=7, causal=True, causal_offset=[0, 4, -1, -9], biases="o")
    case("causal_offset_per_batch_bare", 4, 2, **BARE, batch=(3,), q_len=5, kv_len=5, causal=True, causal_offset=[-2, 2, 0])
    case("causal_offset_list_of_one", 8, 2, batch=(1,), q_len=3, kv_len=5, causal=True, causal_offset=[2])
    case("causal_offset_list_unbatched", 8, 2, batch=(), q_len=3, kv_len=5, causal=True, causal_offset=[1])
    case("causal_offset_two_batch_axes", 4, 2, **BARE, batch=(2, 2), q_len=3, kv_len=5, causal=True, causal_offset=[0, 1, -1, 2])
    case("causal_offset_bias_mask", 8, 2, q_len=4, kv_len=8, causal=True, causal_offset=3, bias=(2, 1, 4, 8), mask=(2, 1, 1, 8), biases="o")
    case("causal_offset_last_query", 8, 2, q_len=1, kv_len=17, causal=True, causal_offset=16)
    for offset in (14, 15, 16, 17, 31, 63, 64):
        case(f"causal_offset_{offset}_of_67", 6, 2, batch=(1,), **BARE, q_len=3, kv_len=67, causal=True, causal_offset=offset)
    case("causal_offset_15_by_33", 6, 2, batch=(1,), q_len=15, kv_len=33, causal=True, causal_offset=18, outputs="y")
    case("causal_offset_65_by_17", 6, 2, batch=(1,), q_len=65, kv_len=17, causal=True, causal_offset=-48, outputs="y", biases="o")


def scores():
    masked = np.tri(3, 5, 1, dtype=bool)
    hole = np.zeros((3, 5))
    hole[0, 1:] = -np.inf
    hole[2] = -np.inf
    case("scores_at_softmax", 8, 2, scores_at="softmax")
    for at in ("logits", "capped", "masked"):
        case(f"scores_{at}", 8, 2, scores_at=at)
        case(f"scores_{at}_masked_out", 8, 2, **BARE, scores_at=at, mask=masked)
        case(f"scores_{at}_causal_bias", WIDE, 2, scores_at=at, bias=(2, 2, 3, 5), causal=True, causal_offset=-1, biases="qo")
        case(f"scores_{at}_bias_minus_inf", 4, 2, **BARE, scores_at=at, bias=hole)
        case(f"scores_{at}_only", 6, 3, scores_at=at, scale=0.25, bias=(5,), outputs="scores", weights="out_in", biases="k")
        case(f"scores_{at}_only_bare", 6, 2, **BARE, batch=(), scores_at=at, mask=masked, outputs="scores")
        case(f"scores_{at}_70_keys", 6, 2, batch=(1,), q_len=2, kv_len=70, scores_at=at, causal=True, causal_offset=65)
    spike = np.zeros((3, 5))
    spike[1, 2] = np.inf
    case("scores_masked_bias_plus_inf", 4, 2, **BARE, scores_at="masked", bias=spike)
    case("scores_logits_scale_zero", 4, 2, **BARE, scores_at="logits", scale=0)


def types():
    everything = "q k v wq wk wv wo bq bk bv bo bias".split()
    for tag, kind in (("f16", np.float16), ("bf16", bfloat16)):
        case(f"{tag}_bare", 8, 2, **BARE, cast={n: kind for n in "qkv"}, causal=True, causal_offset=2)
        case(f"{tag}_wide", WIDE, 4, biases="qkvo", weights="out_in", bias=(4, 1, 5), cast={n: kind for n in everything})
        case(f"{tag}_q_only", WIDE, 2, cast={"q": kind})
        case(f"{tag}_odd_length", 3, 1, batch=(1,), q_len=1, kv_len=7, **BARE, call="qk", cast={"q": kind, "k": kind})
        infinite = np.zeros((3, 5))
        infinite[0, 2:] = -np.inf
        infinite[1, [1, 4]] = np.inf
        case(f"{tag}_bias_infinite", 4, 2, **BARE, bias=infinite, cast={"bias": kind})
    r = rng("subnormal")
    # The smallest f16 numbers there are, made large again by the scale, and the largest.
    tiny = r.integers(-1023, 1024, (1, 3, 4)) * 2.0**-24
    case("f16_subnormal", 4, 2, batch=(1,), **BARE, scale=2.0**15, given={"q": tiny}, cast={"q": np.float16})
    big = np.sign(r.standard_normal((1, 5, 4))) * np.array([65504, 60000, 1, 0])
    case("f16_largest", 4, 2, batch=(1,), **BARE, given={"v": big}, cast={"v": np.float16}, y_tol=[5e-3, 2e-5])
    case("bf16_range", 4, 2, batch=(1,), **BARE, given={"v": np.abs(r.standard_normal((1, 5, 4))) * 1e30, "q": r.standard_normal((1, 3, 4)) * 1e-20,
                                                       "k": r.standard_normal((1, 5, 4)) * 1e20}, cast={n: bfloat16 for n in "qkv"})


def odd_masks():
    case("mask_u8_other_than_one", 8, 2, mask=np.array([[1, 0, 2, 255, 0], [128, 0, 0, 0, 0], [0, 0, 0, 0, 7]], np.uint8))
    case("mask_all_true", 8, 2, mask=np.ones((1, 1, 1, 1), bool))
    case("bias_no_axes", 8, 2, bias=np.array(0.75))
    case("bias_zero", 8, 2, bias=np.zeros((2, 2, 3, 5)))
    case("mask_one_key_each", 8, 2, mask=np.eye(3, 5, dtype=bool))
    case("mask_one_axis_per_head", 8, 4, mask=np.array([1, 1, 0, 1], np.uint8).reshape(4, 1, 1), biases="o")
    case("mask_and_bias_leave_nothing", 8, 2, mask=np.tri(3, 5, dtype=bool), bias=np.where(np.tri(3, 5, dtype=bool), -np.inf, 0), biases="o")
    case("mask_and_causal_leave_nothing", 8, 2, mask=~np.tri(3, 5, dtype=bool), causal=True, biases="vo")


def mixtures():
    """Everything at once, drawn at random, over awkward sizes."""
    lengths = (1, 2, 3, 5, 7, 13, 15, 16, 17, 31, 33)
    for n in range(32):
        r = rng(f"mixture {n}")
        pick = lambda *choices: choices[r.integers(len(choices))]
        heads = int(pick(1, 2, 3, 4))
        q_len, kv_len = int(pick(*lengths)), int(pick(*lengths, 63, 64, 65))
        call = pick("qkv", "qkv", "qk", "q")
        kv_len = q_len if call == "q" else kv_len
        batch = pick((), (1,), (2,), (2, 1))
        size = int(np.prod(batch))
        qk, v = heads * int(pick(1, 2, 3, 4, 5)), heads * int(pick(1, 2, 3, 4, 6))
        q_in, k_in, v_in = (int(pick(1, 2, 3, 4, 5, 8)) for _ in range(3))
        if call != "qkv":
            v_in = k_in = q_in if call == "q" else k_in
        options = {"weights": pick("in_out", "out_in", "none")}
        out = int(pick(1, 3, 4, 7))
        if options["weights"] == "none":
            q_in = k_in = qk
            v_in = out = v = qk if call != "qkv" else v
        else:
            options["biases"] = "".join(c for c in "qkvo" if r.random() < 0.5)
        full = (size, heads, q_len, kv_len)
        for kind in ("bias", "mask"):
            if r.random() < 0.6:
                shape = tuple(s if r.random() < 0.6 else 1 for s in full)
                options[kind] = shape[int(r.integers(0, 3)):]
        if r.random() < 0.4:
            options["causal"] = True
            options["causal_offset"] = int(r.integers(-2, 6)) if r.random() < 0.5 else [int(x) for x in r.integers(-2, 6, size)]
        if r.random() < 0.3:
            options["scale"] = float(np.round(r.uniform(-1, 1.5), 3))
        if r.random() < 0.3:
            options["cast"] = {name: pick(np.float16, bfloat16) for name in "q k v wq wk wv wo bq bk bv bo".split() if r.random() < 0.5}
        dims = {"q_in": q_in, "k_in": k_in, "v_in": v_in, "qk": qk, "v": v, "out": out}
        textbook_case("mixed", f"mixture_{n:02}", dims, heads, batch=batch, q_len=q_len, kv_len=kv_len, call=call,
                      outputs="y scores" if q_len * kv_len < 600 else "y", **options)


def main():
    scales()
    offsets()
    scores()
    types()
    odd_masks()
    mixtures()


if __name__ == "__main__":
    main()
