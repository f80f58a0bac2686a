"""Cases by the formulas of Flux's MultiHeadAttention and NNlib's dot_product_attention, in float64.

Written after the Julia sources, in Julia's axis order: an array of size (features, len, batch) in column
order is byte for byte the row-major [batch][len][features] of a case file, so `x.T`, which reverses the
axes without moving a byte, is the Julia view of a stored tensor. Dense's W of size (out, in) is likewise
the transposed view of a stored [in][out].

One deliberate difference: Flux gives NaN for a query that sees no key, mha (like ONNX) gives zeros.
"""

import numpy as np
from ml_dtypes import bfloat16

import casefile
from casefile import build, full_dims, rng

SOURCE = "Flux 0.16 MultiHeadAttention / NNlib 0.9 attention formulas in float64 (numpy)"


def dense(w, b, x):
    y = np.einsum("oi,ilb->olb", w, x)
    return y if b is None else y + b[:, None, None]


def split_heads(x, nheads):
    """(features, len, batch) -> (features / nheads, nheads, len, batch); column order, as Julia's reshape"""
    return x.reshape((x.shape[0] // nheads, nheads, *x.shape[1:]), order="F")


def join_heads(x):
    return x.reshape((-1, *x.shape[2:]), order="F")


def softmax(x):
    """NNlib's softmax over the first axis, with its branch for +Inf: those entries share the column."""
    top = x.max(axis=0, keepdims=True)
    with np.errstate(invalid="ignore"):
        e = np.where(top == np.inf, x == np.inf, np.exp(x - top))
    e = np.where(top == -np.inf, 0.0, e)  # nothing visible: zeros where Flux has NaN
    total = e.sum(axis=0, keepdims=True)
    return np.divide(e, total, out=np.zeros_like(e), where=total != 0)


def four_axes(x):
    """Julia lines up axes from the first; missing trailing ones have size 1."""
    return x.reshape(x.shape + (1,) * (4 - x.ndim))


def dot_product_attention(q, k, v, bias, mask, nheads):
    q, k, v = (split_heads(x, nheads) for x in (q, k, v))
    logits = np.einsum("dhjb,dhib->jihb", k, q / np.sqrt(q.shape[0]))
    if bias is not None:
        logits = logits + four_axes(bias)
    if mask is not None:
        logits = np.where(four_axes(mask) != 0, logits, -np.inf)
    alpha = softmax(logits)
    return join_heads(np.einsum("dhjb,jihb->dhib", v, alpha)), alpha


def make_causal_mask(q_len, kv_len):
    """triu(ones(kv_len, q_len)): key j is visible to query i when j <= i."""
    return np.triu(np.ones((kv_len, q_len), bool))


def forward(meta, stored):
    """y and scores, in a case's row-major axes."""
    t = casefile.widen(stored)
    lead = t["q"].shape[:-2]
    julia = {n: x.reshape((-1, *x.shape[-2:])).T if n in ("q", "k", "v") else x.T for n, x in t.items()}
    if meta.get("weights") == "out_in":
        julia.update({n: julia[n].T for n in ("wq", "wk", "wv", "wo")})
    q = julia["q"]
    k = julia.get("k", q)
    v = julia.get("v", k)
    if meta.get("weights") != "none":
        q, k, v = (dense(julia["w" + n], julia.get("b" + n), x) for n, x in (("q", q), ("k", k), ("v", v)))
    mask = julia.get("mask")
    if meta.get("causal"):
        causal = four_axes(make_causal_mask(q.shape[1], k.shape[1]))
        mask = causal if mask is None else causal & (four_axes(mask) != 0)
    x, alpha = dot_product_attention(q, k, v, julia.get("bias"), mask, meta["heads"])
    y = x if meta.get("weights") == "none" else dense(julia["wo"], julia.get("bo"), x)
    y, alpha = y.T, alpha.T
    return y.reshape(lead + y.shape[1:]), alpha.reshape(lead + alpha.shape[1:])


def case(name, dims, heads, *, outputs="y scores", **options):
    meta, tensors = build("flux/" + name, dims, heads, **options)
    meta["source"] = SOURCE
    y, scores = forward(meta, tensors)
    expected = {n: x for n, x in (("y", y), ("scores", scores)) if n in outputs}
    casefile.write(casefile.CASES / "flux" / f"{name}.safetensors", meta, {**tensors, **expected})


def main():
    # The four forms of dims. The last is Flux's most general one.
    case("dims_a_number", 16, 4, q_len=6, kv_len=7)
    case("dims_b_in_qkv_out", {"q_in": 6, "qk": 8, "out": 10}, 2)
    case("dims_c_in_qk_v_out", {"q_in": 6, "qk": 8, "v": 12, "out": 5}, 4)
    case("dims_d_all_different", {"q_in": 5, "k_in": 7, "v_in": 3, "qk": 8, "v": 12, "out": 9}, 4, biases="qkvo")
    case("dims_only_q_in", {"q_in": 12}, 3)
    case("dims_q_in_and_out", {"q_in": 12, "out": 7}, 3)
    case("dims_q_in_and_v", {"q_in": 8, "v": 12}, 4)
    case("dims_q_in_and_qk", {"q_in": 6, "qk": 10}, 5)
    case("dims_k_in_differs", {"q_in": 6, "k_in": 9, "v_in": 6, "qk": 6, "v": 6, "out": 6}, 3)
    case("dims_v_in_differs", {"q_in": 6, "k_in": 6, "v_in": 11, "qk": 6, "v": 6, "out": 6}, 2)
    case("dims_documented_wide", {"q_in": 16, "qk": 64, "out": 64}, 8, call="q", batch=(1,), q_len=4, outputs="y")
    case("dims_all_one", 1, 1, batch=(1,), q_len=1, kv_len=1)
    case("dims_one_head_per_feature", 7, 7, biases="qkvo")
    case("dims_prime_widths", {"q_in": 13, "k_in": 17, "v_in": 19, "qk": 11, "v": 23, "out": 29}, 1)
    case("dims_out_one", {"q_in": 8, "qk": 8, "out": 1}, 2, biases="o")
    case("dims_in_one", {"q_in": 1, "qk": 6, "v": 9, "out": 3}, 3, biases="qkvo")

    # Every subset of projection biases, in both weight orders turn about.
    letters = "qkvo"
    for bits in range(16):
        biases = "".join(c for i, c in enumerate(letters) if bits >> i & 1)
        case(f"projection_biases_{biases or 'none'}", {"q_in": 5, "qk": 6, "v": 4, "out": 7}, 2, q_len=3, kv_len=4,
             biases=biases, weights=("in_out", "out_in")[bits.bit_count() % 2])

    # The three ways to call, and the shapes of a batch.
    wide = {"q_in": 6, "qk": 8, "v": 4, "out": 5}
    case("call_q_kv", wide, 2, call="qk")
    case("call_q", wide, 2, call="q", q_len=7)
    case("call_q_kv_out_in", wide, 4, call="qk", weights="out_in", biases="qkvo")
    case("call_q_k_in_differs", {"q_in": 4, "k_in": 7, "v_in": 7, "qk": 8, "v": 8, "out": 4}, 2, call="qk")
    case("unbatched", wide, 2, batch=())
    case("unbatched_self", wide, 2, batch=(), call="q", mask=(3, 3))
    case("unbatched_q_kv", wide, 2, batch=(), call="qk", bias=(2, 1, 5))
    case("two_batch_axes", wide, 2, batch=(2, 3))
    case("two_batch_axes_mask", wide, 2, batch=(2, 3), mask=(6, 1, 3, 5))
    case("three_batch_axes", wide, 2, batch=(2, 1, 2), bias=(4, 2, 1, 5), call="qk")
    case("batch_of_seventeen", 4, 2, batch=(17,), q_len=2, kv_len=3)

    # Additive bias and mask, each of sizes 1 or full along each of the four axes.
    small = {"q_in": 3, "qk": 4, "v": 6, "out": 2}
    for bits in range(16):
        shape = tuple(n if bits >> i & 1 else 1 for i, n in enumerate((2, 2, 3, 5)))
        tag = "x".join(map(str, shape))
        r = rng("mask type " + tag)
        mask = r.random(shape) < 0.6
        mask.flat[0] = True
        other = tuple(1 if a > 1 else n for a, n in zip(shape, (2, 2, 3, 5)))
        case(f"bias_{tag}", small, 2, bias=shape)
        case(f"mask_{tag}", small, 2, mask=mask if bits % 2 else mask.astype(np.uint8), biases="o")
        case(f"bias_{tag}_mask_{'x'.join(map(str, other))}", small, 2, bias=shape, mask=other)
    for shape in ((5,), (1,), (3, 5), (1, 5), (3, 1), (2, 3, 5), (1, 3, 5), (2, 1, 5), (2, 1, 1)):
        tag = "x".join(map(str, shape))
        case(f"bias_fewer_axes_{tag}", small, 2, bias=shape)
        case(f"mask_fewer_axes_{tag}", small, 2, mask=shape, biases="o")

    # Causal masks, as NNlib.make_causal_mask has them: from the top left corner.
    case("causal", 8, 2, call="q", q_len=7, causal=True)
    case("causal_longer_keys", 8, 2, q_len=4, kv_len=9, causal=True)
    case("causal_longer_queries", 8, 2, q_len=9, kv_len=4, causal=True)
    case("causal_with_bias_and_mask", 8, 2, q_len=6, kv_len=6, causal=True, bias=(2, 6, 6), mask=(2, 1, 1, 6), biases="o")
    case("causal_as_mask", 8, 2, q_len=6, kv_len=6, mask=make_causal_mask(6, 6).T)
    case("causal_65", 8, 2, batch=(1,), call="q", q_len=65, causal=True, outputs="y")
    case("causal_false_said", 8, 2, causal=False)

    # Bare attention. The first is NNlib's own test "specific results" with its published numbers.
    ramp = (np.arange(1, 13) / 12).reshape(1, 3, 4)
    meta, tensors = build("flux/nnlib", 4, 2, batch=(1,), q_len=3, kv_len=3, weights="none", given={n: ramp for n in "qkv"})
    published = {
        "y": [.429754, .513087, .613791, .697125, .46431, .547644, .647876, .73121, .49773, .581064, .680455, .763788],
        "scores": [.313896, .332948, .353157, .264431, .328206, .407362, .219215, .31838, .462405,
                   .288691, .331243, .380066, .241239, .323893, .434868, .198438, .311761, .489801],
    }
    meta["source"] = "NNlib.jl, test/attention.jl, testset \"specific results\" (published with six digits)"
    casefile.write(casefile.CASES / "flux" / "nnlib_published.safetensors", meta, {
        **tensors, "y": np.reshape(published["y"], (1, 3, 4)), "scores": np.reshape(published["scores"], (1, 2, 3, 3))})
    case("bare", 8, 2, weights="none")
    case("bare_one_head", 8, 1, weights="none", call="qk")
    case("bare_self", 9, 3, weights="none", call="q", q_len=5)
    case("bare_v_wider", {"q_in": 6, "k_in": 6, "v_in": 10, "qk": 6, "v": 10, "out": 10}, 2, weights="none")
    case("bare_v_narrower", {"q_in": 15, "k_in": 15, "v_in": 3, "qk": 15, "v": 3, "out": 3}, 3, weights="none", batch=())
    case("bare_batch_axes", 8, 2, weights="none", batch=(2, 2, 2), bias=(2, 3, 5))
    case("bare_scores_only", 8, 4, weights="none", outputs="scores")
    case("scores_only", 8, 4, biases="qk", outputs="scores")

    # Flux's quirk that we share: entries of a row whose logit is +Inf have it to themselves, in equal parts.
    quirk = np.zeros((4, 6))
    quirk[0] = [np.inf, 1, np.inf, 2, 0, -1]
    quirk[1, 5] = np.inf
    quirk[2] = np.inf
    case("plus_inf_bias", 8, 2, q_len=4, kv_len=6, bias=quirk)
    case("plus_inf_bias_bare", 4, 1, weights="none", q_len=4, kv_len=6, bias=quirk, mask=(6,))
    late = np.zeros((2, 70))
    late[0, [3, 66]] = np.inf
    late[1, 69] = np.inf
    case("plus_inf_bias_late", 8, 2, q_len=2, kv_len=70, bias=late, biases="o")

    # Where Flux differs: a query that sees nothing.
    blind = np.ones((3, 5), bool)
    blind[1] = False
    case("empty_row", small, 2, mask=blind, biases="qkvo")
    case("empty_row_all", small, 2, mask=np.zeros((1, 1, 1, 1), bool), biases="o")
    case("empty_row_of_one_batch_item", small, 2, mask=np.array([1, 0], np.uint8).reshape(2, 1, 1, 1), biases="o")
    case("empty_row_bare", 4, 2, weights="none", mask=blind.astype(np.uint8))

    # Types that are widened when read: outputs are those of the rounded inputs.
    for tag, kind in (("f16", np.float16), ("bf16", bfloat16)):
        case(f"{tag}_everything", wide, 2, biases="qkvo", bias=(3, 5),
             cast={n: kind for n in "q k v wq wk wv wo bq bk bv bo bias".split()})
        case(f"{tag}_inputs", wide, 2, cast={n: kind for n in "q k v".split()})
        case(f"{tag}_weights", wide, 2, weights="out_in", cast={n: kind for n in "wq wk wv wo".split()})
        case(f"{tag}_bias", 8, 2, weights="none", bias=(2, 1, 5), cast={"bias": kind})
    case("f16_and_bf16_mixed", wide, 2, biases="o", cast={"q": np.float16, "k": bfloat16, "wv": np.float16, "bo": bfloat16})

    # Lengths around every block that an implementation may have, with head widths that are no multiple of one.
    lengths = (1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257)
    widths = ((4, 4), (3, 1), (4, 2), (6, 2), (15, 3), (16, 2), (33, 1), (8, 8), (32, 2))
    for n, kv_len in enumerate(lengths):
        dims, heads = widths[n % len(widths)]
        case(f"kv_len_{kv_len}", dims, heads, batch=(1,), q_len=3, kv_len=kv_len, biases="vo" if n % 2 else "",
             outputs="y scores" if kv_len < 70 else "y")
    for n, q_len in enumerate(lengths):
        dims, heads = widths[-1 - n % len(widths)]
        case(f"q_len_{q_len}", dims, heads, batch=(1,), q_len=q_len, kv_len=4 + n % 3, mask=(q_len, 1) if n % 3 == 2 else None,
             outputs="y scores" if q_len < 70 else "y", weights=("in_out", "out_in")[n % 2])
    for width in (1, 2, 3, 5, 8, 16, 31, 33, 64, 65):
        case(f"head_width_{width}", 2 * width, 2, batch=(1,), q_len=3, kv_len=5, weights="none")
    for a, b in ((15, 17), (17, 15), (33, 31), (64, 63)):
        case(f"square_{a}_{b}", {"q_in": 4, "qk": 6, "v": 10, "out": 3}, 2, batch=(1,), q_len=a, kv_len=b, biases="qkvo",
             mask=(1, 1, a, b), bias=(b,), outputs="y")
    case("larger", {"q_in": 24, "k_in": 20, "v_in": 16, "qk": 32, "v": 48, "out": 40}, 4, q_len=19, kv_len=131, batch=(1,),
         biases="qkvo", bias=(4, 1, 1), outputs="y")
    case("larger_512_keys", 16, 2, q_len=5, kv_len=512, batch=(1,), outputs="y", causal=False, biases="qkvo")


if __name__ == "__main__":
    main()
