"""Cases of the attention family by the textbook of family.py: each option alone, at its edges, in pairs, and
everything at once at random."""

from functools import partial

import numpy as np
from ml_dtypes import bfloat16

from casefile import rng
from family import FOLDER, build, case, forward, widths

WIDE = {"q_in": 5, "k_in": 7, "v_in": 3, "qk": 12, "v": 18, "out": 9}
STAGES = ("logits", "capped", "masked", "softmax")


def grouped():
    put = partial(case, "grouped")
    for heads, kv_heads in ((4, 2), (6, 3), (8, 1), (9, 3), (5, 1), (12, 4), (6, 6)):
        put(f"{heads}_over_{kv_heads}", 4, heads, kv_heads=kv_heads)
    put("value_wider", widths(6, 3, 7, 2), 6, kv_heads=2)
    put("value_narrower", widths(4, 8, 1, 2), 4, kv_heads=2)
    put("head_width_1", 1, 6, kv_heads=2, q_len=5, kv_len=7)
    put("head_width_33", 33, 2, kv_heads=1, batch=(1,))
    put("one_query_129_keys", 4, 6, kv_heads=2, batch=(1,), q_len=1, kv_len=129)
    put("17_by_65_causal", 2, 4, kv_heads=2, batch=(1,), q_len=17, kv_len=65, causal=True, causal_offset=48, outputs="y")
    put("mask_per_head", 4, 6, kv_heads=3, mask=(2, 6, 3, 5))
    put("bias_per_head", 4, 6, kv_heads=3, bias=(6, 1, 5))
    put("unbatched", 4, 4, kv_heads=2, batch=())
    put("two_batch_axes", 4, 4, kv_heads=2, batch=(2, 2), causal=True)
    put("layer", WIDE, 6, kv_heads=2, weights="in_out", biases="qkvo")
    put("layer_out_in", WIDE, 6, kv_heads=3, weights="out_in", biases="ko")
    put("layer_multi_query_self", {"q_in": 8, "qk": 12, "v": 8, "out": 8}, 4, kv_heads=1, weights="out_in", call="q", q_len=7, causal=True)
    put("layer_key_is_value", {"q_in": 6, "k_in": 5, "v_in": 5, "qk": 8, "v": 8, "out": 6}, 4, kv_heads=2, weights="in_out", call="qk", biases="v")
    put("layer_empty_rows", {"q_in": 4, "qk": 8, "out": 5}, 4, kv_heads=2, weights="in_out", call="q", causal=True, causal_offset=-2, biases="o")
    for at in STAGES:
        put(f"scores_{at}", 4, 6, kv_heads=2, scores_at=at, mask=(2, 1, 3, 5), bias=(2, 1, 1, 5), softcap=1.5)


def cache():
    put = partial(case, "cache")
    for past, new in ((1, 1), (7, 1), (15, 1), (16, 1), (16, 3), (17, 16), (63, 2)):
        put(f"past_{past}_new_{new}", 3, 2, batch=(2 if past < 10 else 1,), past=past, q_len=new, kv_len=new, causal=True)
    put("past_unmasked", 4, 2, past=4, q_len=3, kv_len=2)
    put("past_longer_keys", 4, 2, past=4, q_len=2, kv_len=5, causal=True)
    put("past_longer_queries", 4, 2, past=2, q_len=6, kv_len=3, causal=True)
    put("past_offset_0", 4, 2, past=4, q_len=3, kv_len=3, causal=True, causal_offset=0)
    put("past_offset_negative", 4, 2, past=2, q_len=5, kv_len=2, causal=True, causal_offset=-2)
    put("past_offset_per_batch", 4, 2, past=4, q_len=2, kv_len=2, causal=True, causal_offset=[1, 4])
    put("past_only", 4, 2, past=6, q_len=3, kv_len=0)
    put("past_empty", 4, 2, q_len=3, kv_len=3, causal=True, given={"past_k": np.zeros((2, 2, 0, 4)), "past_v": np.zeros((2, 2, 0, 4))})
    put("past_mask", 4, 2, past=4, q_len=3, kv_len=3, mask=(2, 1, 3, 7))
    put("past_bias_causal", 4, 2, past=4, q_len=3, kv_len=3, bias=(2, 3, 7), causal=True)
    put("past_grouped", 4, 6, kv_heads=2, past=5, q_len=2, kv_len=2, causal=True)
    put("past_grouped_value_wider", widths(6, 3, 5, 3), 6, kv_heads=3, past=5, q_len=1, kv_len=1, causal=True)
    put("past_unbatched", 4, 2, batch=(), past=3, q_len=2, kv_len=2, causal=True)
    put("past_two_batch_axes", 4, 2, batch=(2, 1), past=3, q_len=2, kv_len=2, causal=True)
    put("past_key_is_value", 4, 2, call="qk", past=3, q_len=2, kv_len=2, causal=True)
    put("past_f16", 4, 2, past=5, q_len=2, kv_len=2, causal=True, cast={n: np.float16 for n in ("past_k", "past_v")})
    put("past_bf16", 4, 2, past=5, q_len=2, kv_len=2, causal=True, cast={n: bfloat16 for n in ("q", "k", "v", "past_k", "past_v")})
    put("layer_self", {"q_in": 6, "qk": 8, "out": 5}, 2, weights="in_out", call="q", past=5, q_len=3, causal=True, biases="qkvo")
    put("layer_grouped", WIDE, 6, kv_heads=2, weights="out_in", past=5, q_len=2, kv_len=2, causal=True, biases="kv")
    put("layer_cross_past_only", WIDE, 6, kv_heads=3, weights="in_out", past=7, q_len=3, kv_len=0, biases="qo")
    for at in STAGES:
        put(f"scores_{at}", 4, 2, past=4, q_len=3, kv_len=3, causal=True, scores_at=at)


def lengths():
    put = partial(case, "lengths")
    nan = np.nan

    def padded(name, lens, kv_len, fill=nan, width=8):
        r = rng("lengths poison " + name)
        k, v = r.standard_normal((2, len(lens), kv_len, width))
        for b, n in enumerate(lens):
            k[b, n:], v[b, n:] = fill, fill
        return {"k": k, "v": v}

    put("each_its_own", 4, 2, batch=(3,), kv_len=7, kv_lens=[7, 3, 1])
    put("none_at_all", 4, 2, batch=(3,), kv_len=5, kv_lens=[0, 5, 0])
    put("all_zero", 4, 2, kv_lens=[0, 0])
    put("nan_beyond", 4, 2, batch=(3,), kv_len=7, kv_lens=[7, 3, 0], given=padded("a", [7, 3, 0], 7))
    put("inf_beyond", 4, 2, kv_len=9, kv_lens=[4, 8], given=padded("b", [4, 8], 9, np.inf))
    put("nan_beyond_17_of_40", 4, 2, batch=(1,), q_len=2, kv_len=40, kv_lens=[17], given=padded("c", [17], 40))
    put("nan_beyond_scores_masked", 4, 2, kv_len=6, kv_lens=[2, 5], scores_at="masked", given=padded("d", [2, 5], 6))
    put("causal_top_left", 4, 2, q_len=4, kv_len=6, kv_lens=[2, 5], causal=True)
    put("cache_decode", 4, 4, kv_heads=2, batch=(3,), q_len=1, kv_len=8, kv_lens=[3, 8, 1], causal=True, causal_offset=[2, 7, 0])
    put("cache_decode_nan", 4, 4, kv_heads=2, batch=(3,), q_len=1, kv_len=8, kv_lens=[3, 8, 1], causal=True, causal_offset=[2, 7, 0],
        given=padded("e", [3, 8, 1], 8, width=8))
    put("cache_negative_offset", 4, 2, q_len=4, kv_len=5, kv_lens=[2, 3], causal=True, causal_offset=[-2, -1])
    put("mask_too", 4, 2, kv_len=6, kv_lens=[3, 6], mask=(2, 1, 3, 6))
    put("bias_too", 4, 2, kv_len=6, kv_lens=[3, 6], bias=(2, 2, 1, 6))
    put("two_batch_axes", 4, 2, batch=(2, 2), kv_len=4, kv_lens=[1, 2, 3, 4])
    put("unbatched", 4, 2, batch=(), kv_len=4, kv_lens=[2])
    put("past_too", 4, 2, past=4, q_len=2, kv_len=2, kv_lens=[5, 3], causal=True)
    put("layer_self", {"q_in": 6, "qk": 8, "out": 5}, 2, weights="in_out", call="q", q_len=5, kv_lens=[2, 5], causal=True, biases="kvo")
    put("layer_none_at_all", WIDE, 6, weights="out_in", kv_lens=[0, 3], biases="vo")
    k = rng("lengths layer").standard_normal((2, 5, 7))
    k[0, 2:] = nan
    put("layer_nan_beyond", WIDE, 6, kv_heads=2, weights="in_out", kv_lens=[2, 5], biases="k", given={"k": k})
    for at in STAGES:
        put(f"scores_{at}", 4, 2, kv_len=6, kv_lens=[2, 5], scores_at=at)


def window():
    put = partial(case, "window")
    for left, right in ((0, 0), (1, 2), (-1, 0), (0, -1), (2, -1), (-1, 1), (100, 100), (-1, -1), (3, 0)):
        tag = "_".join(str(x) if x >= 0 else "any" for x in (left, right))
        put(f"{tag}", 4, 2, q_len=6, kv_len=6, window=[left, right])
    put("3_0_causal", 4, 2, q_len=6, kv_len=6, window=[3, 0], causal=True)
    put("2_5_causal", 4, 2, q_len=6, kv_len=6, window=[2, 5], causal=True)
    put("offset_positive", 4, 2, q_len=3, kv_len=9, window=[2, 1], causal_offset=4)
    put("offset_negative", 4, 2, q_len=5, kv_len=5, window=[1, 1], causal_offset=-3)
    put("offset_per_batch", 4, 2, batch=(3,), q_len=3, kv_len=7, window=[1, 0], causal_offset=[0, 4, -2])
    put("behind_every_key", 4, 2, q_len=4, kv_len=5, window=[1, 0], causal_offset=4)
    put("past", 4, 2, past=6, q_len=3, kv_len=3, window=[2, 0], causal=True)
    put("past_decode", 4, 2, past=9, q_len=1, kv_len=1, window=[3, 0], causal=True)
    put("past_grouped", 4, 4, kv_heads=1, past=9, q_len=2, kv_len=2, window=[0, 0])
    put("grouped", 4, 6, kv_heads=2, q_len=5, kv_len=5, window=[2, 2])
    put("mask", 4, 2, q_len=5, kv_len=5, window=[2, 2], mask=(2, 1, 5, 5))
    put("lengths", 4, 2, q_len=4, kv_len=8, window=[2, 0], causal=True, kv_lens=[5, 8], causal_offset=[1, 4])
    put("lengths_zero", 4, 2, q_len=2, kv_len=4, window=[1, 1], kv_lens=[0, 4])
    put("64_of_300", 2, 1, batch=(1,), q_len=3, kv_len=300, window=[63, 0], causal=True, causal_offset=297)
    put("16_of_67", 2, 2, batch=(1,), q_len=35, kv_len=67, window=[15, 0], causal=True, causal_offset=32, outputs="y")
    put("both_sides_of_130", 2, 2, batch=(1,), q_len=2, kv_len=130, window=[17, 33], causal_offset=64, outputs="y")
    k, v = rng("window poison").standard_normal((2, 1, 40, 8))
    k[:, :11], v[:, :11], k[:, 34:], v[:, 34:] = np.nan, np.nan, np.nan, np.inf
    put("nan_outside_every_window", 4, 2, batch=(1,), q_len=3, kv_len=40, window=[9, 11], causal_offset=20, given={"k": k, "v": v})
    past_k, past_v = rng("window poison past").standard_normal((2, 1, 2, 12, 4))
    past_k[:, :, :7], past_v[:, :, :7] = np.nan, np.nan
    meta = {"past": 12, "q_len": 2, "kv_len": 2, "window": [5, 0], "causal": True, "batch": (1,)}
    # The first visible key is 12 - 5 = 7; what the ring would have overwritten is not a number.
    put("past_nan_outside", 4, 2, **meta, given={"past_k": past_k, "past_v": past_v})
    put("layer_self", {"q_in": 6, "qk": 8, "out": 5}, 2, weights="in_out", call="q", q_len=7, window=[2, 0], causal=True, biases="qkvo")
    put("layer_past", WIDE, 6, kv_heads=2, weights="out_in", past=5, q_len=2, kv_len=2, window=[1, 1])
    for at in STAGES:
        put(f"scores_{at}", 4, 2, q_len=4, kv_len=5, window=[1, 1], scores_at=at)


def caps():
    put = partial(case, "softcap")
    for cap in (0.5, 2, 30.0, 50, 1e-3, 1e6):
        put(f"{cap:g}".replace(".", "_").replace("+", ""), 4, 2, softcap=cap)
    put("large_logits", 4, 2, softcap=5, scale=40.0)
    put("largest_logits", 4, 2, softcap=20, scale=1e30)
    put("bias_after_it", 4, 2, softcap=0.75, bias=(2, 2, 3, 5))
    hole = np.zeros((3, 5))
    hole[0, 2:] = hole[2] = -np.inf
    put("bias_minus_inf", 4, 2, softcap=0.5, bias=hole)
    put("mask", 4, 2, softcap=0.5, mask=(2, 1, 3, 5))
    put("scale_negative", 4, 2, softcap=1.5, scale=-0.7)
    put("grouped_causal", 4, 6, kv_heads=2, softcap=2, causal=True, causal_offset=2)
    put("past_window", 4, 2, past=6, q_len=2, kv_len=2, softcap=3, window=[4, 0], causal=True)
    put("one_query_70_keys", 4, 2, batch=(1,), q_len=1, kv_len=70, softcap=1.25)
    put("layer", WIDE, 6, kv_heads=2, weights="in_out", biases="qk", softcap=1.0)
    for at in STAGES:
        put(f"scores_{at}", 4, 2, softcap=0.8, bias=(3, 5), mask=(2, 1, 1, 5), scores_at=at)


def alibis():
    put = partial(case, "alibi")
    for heads in (1, 2, 3, 5, 6, 7, 8, 12, 16, 20):
        put(f"heads_{heads}", 2, heads, batch=(1,), q_len=3, kv_len=4, alibi=True, causal=True, causal_offset=1)
    put("both_directions", 4, 4, q_len=5, kv_len=7, alibi=True)
    put("offset", 4, 2, q_len=3, kv_len=9, alibi=True, causal_offset=4)
    put("offset_negative", 4, 2, q_len=3, kv_len=5, alibi=True, causal_offset=-6)
    put("offset_per_batch", 4, 2, batch=(3,), q_len=2, kv_len=5, alibi=True, causal_offset=[0, 3, -1], causal=True)
    put("slopes_given", 4, 3, alibi=[0.5, 0.0, 1.25])
    put("slopes_given_causal", 4, 2, q_len=5, kv_len=5, alibi=[1, 0.03125], causal=True)
    put("false", 4, 2, alibi=False)
    put("bias_too", 4, 2, alibi=True, bias=(2, 2, 3, 5))
    put("softcap_before_it", 4, 2, alibi=True, softcap=0.5, scores_at="masked")
    put("grouped", 4, 6, kv_heads=2, alibi=True, q_len=4, kv_len=6)
    put("past", 4, 6, past=5, q_len=2, kv_len=2, alibi=True, causal=True)
    put("past_decode_65", 2, 3, batch=(1,), past=64, q_len=1, kv_len=1, alibi=True, causal=True)
    put("lengths", 4, 3, kv_len=7, q_len=2, alibi=True, kv_lens=[3, 6], causal_offset=[1, 4], causal=True)
    put("window", 4, 3, q_len=6, kv_len=6, alibi=True, window=[2, 1])
    put("layer_self", {"q_in": 6, "qk": 9, "out": 5}, 3, weights="in_out", call="q", q_len=6, alibi=True, causal=True)
    for at in STAGES:
        put(f"scores_{at}", 4, 3, alibi=True, scores_at=at, mask=(2, 1, 3, 5))


def rotary():
    put = partial(case, "rope")
    put("half", 8, 2, rope={"base": 10000, "dims": 8, "interleaved": False, "q_offset": 0, "k_offset": 0})
    put("interleaved", 8, 2, rope={"base": 10000, "dims": 8, "interleaved": True, "q_offset": 0, "k_offset": 0})
    put("every_default", 8, 2, rope={})
    put("dims_default", 6, 2, rope={"base": 100, "interleaved": True})
    for dims in (2, 4, 6):
        put(f"half_{dims}_of_8", 8, 2, rope={"dims": dims}, q_len=4, kv_len=4)
        put(f"interleaved_{dims}_of_8", 8, 2, rope={"dims": dims, "interleaved": True}, q_len=4, kv_len=4)
    put("4_of_7", 7, 2, rope={"dims": 4})
    put("head_width_2", 2, 3, rope={}, q_len=5, kv_len=5)
    put("head_width_34", 34, 1, batch=(1,), rope={"interleaved": True})
    for base in (2, 500, 500000, 1000000.0):
        put(f"base_{base:g}".replace("+", ""), 8, 2, rope={"base": base})
    put("offsets", 8, 2, rope={"q_offset": 7, "k_offset": 3})
    put("offsets_interleaved", 8, 2, rope={"q_offset": 2, "k_offset": 11, "interleaved": True})
    put("offset_of_queries_only", 8, 2, rope={"q_offset": 5}, kv_len=9, causal=True, causal_offset=5)
    # An angle of a thousand turns is known to 6e-5 in f32.
    put("offset_1000", 8, 2, rope={"q_offset": 1000, "k_offset": 996}, y_tol=[2e-3, 2e-3], scores_tol=[2e-3, 2e-3])
    put("self_causal", 8, 2, call="q", q_len=9, rope={}, causal=True)
    put("grouped", 8, 6, kv_heads=2, rope={})
    put("grouped_partial_interleaved", 6, 4, kv_heads=1, rope={"dims": 4, "interleaved": True}, causal=True, causal_offset=2)
    put("value_wider", widths(2, 4, 7), 2, rope={})
    put("past", 8, 2, past=5, q_len=2, kv_len=2, causal=True, rope={"q_offset": 5, "k_offset": 5})
    put("past_decode", 4, 4, kv_heads=2, past=16, q_len=1, kv_len=1, batch=(1,), causal=True, rope={"q_offset": 16, "k_offset": 16, "interleaved": True})
    put("past_ring", 4, 2, past=4, q_len=1, kv_len=1, rope={"q_offset": 30, "k_offset": 30})
    put("window_softcap", 8, 2, q_len=6, kv_len=6, rope={}, window=[2, 0], causal=True, softcap=2)
    put("layer", {"q_in": 5, "k_in": 7, "v_in": 3, "qk": 16, "v": 6, "out": 9}, 2, weights="in_out", biases="qkvo", rope={})
    put("layer_grouped_past", {"q_in": 5, "k_in": 5, "v_in": 5, "qk": 16, "v": 8, "out": 9}, 4, kv_heads=2, weights="out_in", call="q", biases="qkv",
        past=4, q_len=3, causal=True, rope={"q_offset": 4, "k_offset": 4, "interleaved": True})
    for at in STAGES:
        put(f"scores_{at}", 8, 2, rope={"q_offset": 2, "k_offset": 0}, scores_at=at, causal=True, causal_offset=2)


def sinks():
    put = partial(case, "sinks")
    put("learned", 4, 2, sinks=True)
    put("zero", 4, 3, sinks=[0, 0, 0])
    put("high", 4, 2, sinks=[50, 3])
    put("highest", 4, 2, sinks=[1e30, 0])
    put("low", 4, 2, sinks=[-50, -3])
    put("minus_infinity", 4, 2, sinks=[-np.inf, 0.5])
    put("neither_scaled_nor_capped", 4, 2, sinks=[2, 1], scale=0.05, softcap=0.1)
    put("mask", 4, 2, sinks=True, mask=(2, 1, 3, 5))
    put("empty_rows", 4, 2, sinks=True, q_len=4, causal=True, causal_offset=-2)
    put("no_keys", 4, 2, sinks=True, kv_lens=[0, 3])
    put("low_logits", 4, 2, sinks=[0, 1], bias=np.full((3, 5), -60.0))
    spike = np.zeros((3, 5))
    spike[1, [1, 4]] = np.inf
    put("bias_plus_infinity", 4, 2, sinks=[3, -1], bias=spike)
    put("grouped", 4, 6, kv_heads=2, sinks=True)
    put("past_window", 4, 4, kv_heads=2, past=7, q_len=2, kv_len=2, sinks=True, window=[3, 0], causal=True)
    put("rope_window", 8, 4, kv_heads=2, q_len=6, kv_len=6, sinks=True, window=[2, 0], causal=True, rope={"base": 150000})
    put("one_query_130_keys", 4, 2, batch=(1,), q_len=1, kv_len=130, sinks=True)
    put("f16", 4, 2, sinks=True, cast={"sinks": np.float16})
    put("layer", WIDE, 6, kv_heads=3, weights="in_out", biases="qkvo", sinks=True)
    for at in STAGES:
        put(f"scores_{at}", 4, 2, sinks=True, scores_at=at, mask=(2, 1, 3, 5))


def dropped():
    put = partial(case, "dropout")
    put("grouped", 4, 6, kv_heads=2, dropout={"p": 0.25, "seed": 7})
    put("softcap_sinks", 4, 2, softcap=1.5, sinks=True, dropout={"p": 0.5, "seed": 11})
    put("window_alibi", 4, 2, q_len=6, kv_len=9, window=[2, 2], alibi=True, causal_offset=2, dropout={"p": 0.25, "seed": 2**40 + 3})
    put("lengths_rope", 4, 2, kv_lens=[2, 5], rope={}, dropout={"p": 0.125, "seed": 1})


def compositions():
    """Everything at once, drawn at random, over awkward sizes; in every third what no query sees is NaN."""
    for n in range(60):
        r = rng(f"composition {n}")
        pick = lambda *choices: choices[r.integers(len(choices))]
        chance = lambda p: bool(r.random() < p)
        kv_heads = int(pick(1, 1, 2, 3))
        heads = kv_heads * int(pick(1, 2, 3, 4))
        d, dv = int(pick(1, 2, 3, 4, 6, 8)), int(pick(1, 2, 3, 5, 8))
        q_len, past = int(pick(1, 1, 2, 3, 5, 7, 17)), int(pick(0, 0, 1, 3, 8, 15, 16))
        new = q_len if past and chance(0.7) else int(pick(1, 2, 3, 5, 13, 16, 17, 33))
        batch = pick((), (1,), (2,), (2,), (3,))
        size = int(np.prod(batch))
        total_len = past + new
        call = "q" if new == q_len and chance(0.3) else pick("qkv", "qkv", "qk")
        options = {"weights": pick("none", "none", "in_out", "out_in"), "kv_heads": kv_heads, "past": past, "call": call,
                   "batch": batch, "q_len": q_len, "kv_len": new}
        if call != "qkv":
            dv = d if options["weights"] == "none" else dv
        dims = widths(heads, d, dv, kv_heads)
        if options["weights"] == "none":
            if call == "q" and heads != kv_heads:
                options["call"] = call = "qk"
        else:
            q_in, k_in, v_in = (int(pick(1, 2, 3, 5, 8)) for _ in range(3))
            k_in = q_in if call == "q" else k_in
            v_in = k_in if call != "qkv" else v_in
            dims = {"q_in": q_in, "k_in": k_in, "v_in": v_in, "qk": heads * d, "v": heads * dv, "out": int(pick(1, 3, 6))}
            options["biases"] = "".join(c for c in "qkvo" if chance(0.5))
        full = (size, heads, q_len, total_len)
        for kind, p in (("bias", 0.3), ("mask", 0.3)):
            if chance(p):
                options[kind] = tuple(s if chance(0.6) else 1 for s in full)[int(r.integers(0, 3)):]
        if chance(0.5):
            options["causal"] = True
        if chance(0.4):
            options["window"] = [int(pick(-1, 0, 1, 2, 5, 20)), int(pick(-1, 0, 0, 1, 3))]
        if chance(0.3):
            options["alibi"] = True if chance(0.7) else [float(x) for x in np.round(r.uniform(0, 1, heads), 3)]
        if chance(0.5) and {"causal", "window", "alibi"} & set(options):
            options["causal_offset"] = [int(x) for x in r.integers(-2, total_len, size)] if chance(0.4) else int(r.integers(-2, total_len))
        if chance(0.3):
            options["kv_lens"] = [int(x) for x in r.integers(0, total_len + 1, size)]
        if chance(0.3):
            options["softcap"] = float(pick(0.5, 2, 30))
        if chance(0.3):
            options["scale"] = float(np.round(r.uniform(-1, 1.5), 3))
        if chance(0.35):
            options["sinks"] = True
        if d > 1 and chance(0.4):
            options["rope"] = {"base": float(pick(100, 10000, 500000)), "interleaved": chance(0.5), "q_offset": past, "k_offset": past}
            if chance(0.4) or d % 2:
                options["rope"]["dims"] = 2 * int(r.integers(1, d // 2 + 1))
        options["scores_at"] = pick(*STAGES, "softmax")
        name = f"composition_{n:02}"
        if n % 3 == 0 and options["scores_at"] in ("softmax", "masked") and call == "qkv":
            options["given"] = poison(f"compositions/{name}", dims, heads, options)
        case("compositions", name, dims, heads, outputs="y scores" if np.prod(full) < 2500 else "y", **options)


def poison(name, dims, heads, options):
    """NaN in every new key and value, and every cached one, that nobody sees."""
    meta, tensors = build(name, dims, heads, **{**options, "scores_at": "masked"})
    seen = ~np.isneginf(forward(meta, tensors)["scores"])
    size = tensors.get("past_k", tensors["k"]).shape[0] if "past_k" in tensors else int(np.prod(options["batch"]))
    seen = seen.reshape(size, heads, *seen.shape[-2:]).any((1, 2))  # [batch, kv_len]
    past = options["past"]
    given = {}
    for n in "kv":
        x = tensors[n].copy()
        x.reshape(size, *x.shape[-2:])[~seen[:, past:]] = np.nan
        given[n] = x
        if past:
            x = tensors["past_" + n].copy()
            x.transpose(0, 2, 1, 3)[~seen[:, :past]] = np.nan
            given["past_" + n] = x
    return given


def main():
    for folder in "grouped cache lengths window softcap alibi rope sinks dropout compositions".split():
        for old in (FOLDER / folder).glob("*.safetensors"):
            old.unlink()
    grouped()
    cache()
    lengths()
    window()
    caps()
    alibis()
    rotary()
    sinks()
    dropped()
    compositions()


if __name__ == "__main__":
    main()
