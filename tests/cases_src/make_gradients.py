"""Gradients by JAX's automatic differentiation in float64, of the layer with every option that there is a way
back through. The layer is written here in jax.numpy; the outputs of every case are compared with those of
`family.forward`, one number at a time, before its gradients are believed.

JAX_ENABLE_X64=1 and JAX_PLATFORMS=cpu are set here unless they are set.
"""

import math
import os

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

import casefile
import family
from casefile import f32, full_dims, rng
from family import build as family_build
from textbook import dropped

FOLDER = casefile.CASES.parent / "cases_gradients"
# How far f32 may be off: gradients are sums of many terms.
GRAD_TOL = [5e-5, 5e-5]


def rotate(x, offset, base=10000.0, dims=None, interleaved=False):
    """x is [batch, heads, length, d]."""
    dims = dims or x.shape[-1]
    half = dims // 2
    angle = (offset + np.arange(x.shape[2]))[:, None] * base ** (-2 * np.arange(half) / dims)
    c, s = np.cos(angle), np.sin(angle)
    first, second = (slice(0, dims, 2), slice(1, dims, 2)) if interleaved else (slice(0, half), slice(half, dims))
    a, b = x[..., first], x[..., second]
    return x.at[..., first].set(a * c - b * s).at[..., second].set(b * c + a * s)


def layer(meta, t, constant):
    """y and scores of the layer of arrays `t`; what is not differentiated is in `constant`."""
    heads, (*_, qk, vd, out) = meta["heads"], full_dims(meta["dims"])
    kv_heads = meta.get("kv_heads", heads)
    d, dv = qk // heads, vd // heads
    order = meta.get("weights", "in_out")
    lead = t["q"].shape[:-2]
    batch = math.prod(lead)
    flat = {n: t[n].reshape(batch, *t[n].shape[-2:]) for n in "qkv" if n in t}
    flat.setdefault("k", flat["q"])
    flat.setdefault("v", flat["k"])

    def project(x, letter):
        if order != "none":
            w = t["w" + letter]
            x = x @ (w if order == "in_out" else w.T)
            if "b" + letter in t:
                x = x + t["b" + letter]
        return x

    split = lambda x, n: x.reshape(batch, x.shape[1], n, -1).transpose(0, 2, 1, 3)
    q, k, v = split(project(flat["q"], "q"), heads), split(project(flat["k"], "k"), kv_heads), split(project(flat["v"], "v"), kv_heads)
    if rope := meta.get("rope"):
        options = {n: rope[n] for n in ("base", "dims", "interleaved") if n in rope}
        q, k = rotate(q, rope.get("q_offset", 0), **options), rotate(k, rope.get("k_offset", 0), **options)
    k, v = (jnp.repeat(x, heads // kv_heads, 1) for x in (k, v))
    q_len, kv_len = q.shape[2], k.shape[2]
    logits = q @ k.transpose(0, 1, 3, 2) * meta.get("scale", 1 / math.sqrt(d))
    if cap := meta.get("softcap"):
        logits = cap * jnp.tanh(logits / cap)
    i, j = np.arange(q_len)[:, None], np.arange(kv_len)
    first = np.broadcast_to(meta.get("causal_offset", 0), (batch,)).reshape(-1, 1, 1, 1)
    alibi = meta.get("alibi")
    if alibi:
        slope = np.array(family.slopes(heads) if alibi is True else alibi).reshape(-1, 1, 1)
        logits = logits - slope * np.abs(first + i - j)
    visible = np.broadcast_to(constant.get("mask", True), logits.shape)
    bias = np.broadcast_to(np.asarray(constant.get("bias", 0.0)), logits.shape)
    visible = visible & (bias != -np.inf)
    left, right = meta.get("window", (-1, -1))
    if meta.get("causal"):
        visible = visible & (j <= first + i)
    if left != -1:
        visible = visible & (j >= first + i - left)
    if right != -1:
        visible = visible & (j <= first + i + right)
    if "kv_lens" in constant:
        visible = visible & (j < constant["kv_lens"].reshape(-1, 1, 1, 1))
    if "bias" in t:
        # A key that is excluded is not differentiated either.
        logits = logits + jnp.where(np.asarray(constant["bias"]) == -np.inf, 0.0, t["bias"])
    # Hidden keys, and rows of nothing else, without a NaN on either way.
    logits = jnp.where(visible, logits, -1e300)
    top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    if "sinks" in constant:
        sinks = constant["sinks"].reshape(-1, 1, 1)
        top = jnp.maximum(top, sinks)
    e = jnp.where(visible, jnp.exp(logits - top), 0.0)
    total = e.sum(-1, keepdims=True)
    if "sinks" in constant:
        total = total + jnp.exp(sinks - top)
    scores = e / jnp.where(total == 0, 1.0, total)
    if drop := meta.get("dropout"):
        keep = np.array([[[[not dropped(drop["p"], drop["seed"], b, h, i, j) for j in range(kv_len)]
                           for i in range(q_len)] for h in range(heads)] for b in range(batch)])
        scores = jnp.where(keep, scores / (1 - drop["p"]), 0.0)
    mixed = (scores @ v).transpose(0, 2, 1, 3).reshape(batch, q_len, vd)
    y = mixed if order == "none" else project(mixed, "o")
    return y.reshape(*lead, q_len, out), scores.reshape(*lead, *scores.shape[1:])


MADE = set()


def case(name, dims, heads, *, dscores=False, wanted=None, **options):
    assert name not in MADE, name
    MADE.add(name)
    options.setdefault("weights", "in_out")
    if options["weights"] != "none" and not isinstance(dims, dict):
        dims = dict(zip("q_in k_in v_in qk v out".split(), full_dims(dims)))
    meta, t = family_build("gradients/" + name, dims, heads, **options)
    r = rng("gradients above/" + name)
    wide = casefile.widen(t)
    leaves = {n: jnp.asarray(x) for n, x in wide.items() if n in ("q", "k", "v", "bias") or n[0] in "wb" and n != "bias"}
    constant = {n: x for n, x in wide.items() if n in ("mask", "kv_lens", "sinks", "bias")}
    y, scores = layer(meta, leaves, constant)
    # 1. The same layer as the textbook's.
    textbook = family.forward(meta, t)
    np.testing.assert_allclose(np.asarray(y), textbook["y"], rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(np.asarray(scores), textbook["scores"], rtol=1e-9, atol=1e-9, err_msg=name)
    # 2. Its gradients.
    t["dy"] = f32(r.standard_normal(y.shape))
    if dscores:
        t["dscores"] = f32(r.standard_normal(scores.shape))
    dy, ds = t["dy"].astype(np.float64), t["dscores"].astype(np.float64) if dscores else 0.0

    def loss(leaves):
        y, scores = layer(meta, leaves, constant)
        return (y * dy).sum() + (scores * ds).sum()

    gradients = jax.grad(loss)(leaves)
    for n, gradient in gradients.items():
        if wanted is None or n in wanted:
            gradient = np.asarray(gradient)
            assert np.isfinite(gradient).all(), (name, n)
            t["d" + n] = f32(gradient)
    t["y"] = f32(y)
    meta["grad_tol"] = GRAD_TOL
    meta["source"] = f"JAX {jax.__version__} grad, float64"
    casefile.write(FOLDER / f"{name}.safetensors", meta, t)


DIMS = {"q_in": 6, "k_in": 5, "v_in": 7, "qk": 8, "v": 12, "out": 9}


def main():
    for old in FOLDER.glob("*.safetensors"):
        old.unlink()
    # The plain layer: every form of it.
    for order in ("in_out", "out_in", "none"):
        dims = DIMS if order != "none" else {"q_in": 8, "k_in": 8, "v_in": 12, "qk": 8, "v": 12, "out": 12}
        for ds in (False, True):
            case(f"plain_{order}{'_dscores' if ds else ''}", dims, 2, weights=order, dscores=ds)
            case(f"bias_{order}{'_dscores' if ds else ''}", dims, 4, weights=order, dscores=ds, bias=(2, 4, 3, 5))
    for biases in ("q", "k", "v", "o", "qkvo"):
        case(f"biases_{biases}", DIMS, 2, biases=biases, dscores=biases == "qkvo")
    case("biases_out_in", DIMS, 4, biases="qkvo", weights="out_in")
    case("self", 8, 2, call="q", q_len=6, biases="qkvo")
    case("self_none", 8, 4, call="q", q_len=7, weights="none", dscores=True)
    case("values_are_keys", {"q_in": 6, "k_in": 5, "v_in": 5, "qk": 8, "v": 4, "out": 3}, 2, call="qk")
    case("values_are_keys_none", 6, 3, call="qk", weights="none")
    case("unbatched", 8, 2, batch=(), biases="vo")
    case("two_batch_axes", 8, 2, batch=(2, 3))
    case("one_query", 8, 2, q_len=1, kv_len=9, dscores=True)
    case("one_key", 8, 2, q_len=4, kv_len=1)
    case("one_of_all", 1, 1, batch=(1,), q_len=1, kv_len=1)
    case("scale", 8, 2, scale=0.7, dscores=True)
    case("scale_negative", 8, 4, scale=-0.4)
    case("scale_zero", 8, 2, scale=0.0)
    case("wide_heads", {"q_in": 5, "k_in": 5, "v_in": 5, "qk": 34, "v": 66, "out": 4}, 2, batch=(1,))
    case("one_wide_head", {"q_in": 4, "k_in": 3, "v_in": 2, "qk": 17, "v": 33, "out": 5}, 1, dscores=True)
    case("many_heads", {"q_in": 6, "k_in": 6, "v_in": 6, "qk": 24, "v": 12, "out": 6}, 12, batch=(1,))
    for q_len, kv_len in ((16, 16), (17, 33), (33, 15), (5, 64), (3, 65), (48, 20), (2, 130), (49, 50)):
        case(f"{q_len}_by_{kv_len}", 4, 2, batch=(1,), q_len=q_len, kv_len=kv_len, dscores=q_len * kv_len < 600)
    case("130_by_17", 4, 1, batch=(1,), q_len=130, kv_len=17)
    case("3_by_300", 4, 2, batch=(1,), q_len=3, kv_len=300)
    case("2_by_660", 4, 1, batch=(1,), q_len=2, kv_len=660, dscores=True)
    case("many_sequences", 4, 2, batch=(21,), q_len=10, kv_len=9, biases="qkvo")
    # Only some are wanted.
    case("inputs_alone", DIMS, 2, wanted="qkv")
    case("weights_alone", DIMS, 2, biases="qkvo", wanted=["wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"])
    for n in ("q", "k", "v", "wq", "wk", "wv", "wo", "bq", "bo", "bias"):
        case(f"{n}_alone", DIMS, 2, biases="qkvo", bias=(1, 1, 3, 5), wanted=[n], dscores=n == "bias")
    # The bias on the logits, in every extent.
    for shape in ((5,), (1,), (3, 1), (3, 5), (2, 3, 5), (2, 1, 5), (2, 2, 3, 5), (2, 1, 1, 5), (2, 2, 1, 1), (1, 2, 3, 1), ()):
        case("bias_" + ("_".join(map(str, shape)) or "scalar"), 8, 2, bias=shape if shape else np.float32(0.5), dscores=len(shape) % 2 == 1)
    excluded = f32(rng("gradients excluded").standard_normal((2, 1, 3, 5)))
    excluded[:, :, :, 3] = -np.inf
    excluded[0, 0, 1, 2] = -np.inf
    case("bias_excludes", 8, 2, bias=excluded, dscores=True)
    case("bias_large", 8, 2, bias=f32(30 * rng("gradients large").standard_normal((1, 2, 3, 5))))
    # What a query may see.
    for shape in ((5,), (3, 5), (2, 1, 1, 5), (2, 2, 3, 5), (2, 3, 1)):
        case("mask_" + "_".join(map(str, shape)), 8, 2, mask=shape, dscores=len(shape) == 4)
    nobody = np.ones((2, 1, 4, 6), bool)
    nobody[0, 0, 2] = False
    nobody[1, 0, :, 4] = False
    case("mask_of_a_whole_query", 8, 2, q_len=4, kv_len=6, mask=nobody, biases="qkvo", dscores=True)
    case("mask_of_everything", 8, 2, mask=np.zeros((1, 1, 3, 5), bool), biases="qkvo")
    case("mask_and_bias", 8, 2, mask=(2, 1, 3, 5), bias=(2, 3, 5), biases="o")
    for offset in (0, 2, -1, -3):
        case(f"causal_{offset}".replace("-", "minus_"), 8, 2, q_len=4, kv_len=6, causal=True, causal_offset=offset, dscores=offset == 2)
    case("causal_each", 8, 2, batch=(3,), q_len=4, kv_len=6, causal=True, causal_offset=[0, 2, -2])
    case("causal_self", 8, 2, call="q", q_len=9, causal=True, biases="qkvo")
    case("causal_long", 4, 2, batch=(1,), q_len=70, kv_len=70, causal=True)
    case("causal_mask_bias", 8, 2, q_len=5, kv_len=5, causal=True, mask=(2, 1, 1, 5), bias=(2, 5, 5))
    case("lengths", 8, 2, batch=(3,), kv_len=6, kv_lens=[6, 2, 0], dscores=True)
    case("lengths_causal", 8, 2, batch=(2,), q_len=6, kv_len=6, kv_lens=[6, 3], causal=True)
    # The family.
    for kv_heads in (1, 2):
        dims = {"q_in": 8, "k_in": 6, "v_in": 5, "qk": 16, "v": 12, "out": 7}
        case(f"grouped_4_over_{kv_heads}", dims, 4, kv_heads=kv_heads, biases="qkvo", dscores=kv_heads == 1)
        case(f"grouped_4_over_{kv_heads}_out_in", dims, 4, kv_heads=kv_heads, weights="out_in")
        case(f"grouped_4_over_{kv_heads}_none", family.widths(4, 4, 3, kv_heads), 4, kv_heads=kv_heads, weights="none")
    for left, right in ((2, 1), (0, 0), (3, -1), (-1, 1)):
        case(f"window_{left}_{right}".replace("-", "minus_"), 8, 2, q_len=7, kv_len=7, window=[left, right], dscores=left == 2)
    case("window_causal", 8, 2, q_len=8, kv_len=8, window=[3, -1], causal=True)
    case("window_long", 4, 2, batch=(1,), q_len=60, kv_len=60, window=[20, 5])
    for cap in (0.5, 2.0, 30.0):
        case(f"softcap_{cap}", 8, 2, softcap=cap, dscores=cap == 2.0)
    case("softcap_bias_causal", 8, 2, q_len=5, kv_len=5, softcap=1.0, bias=(2, 5, 5), causal=True)
    case("softcap_long", 4, 2, batch=(1,), q_len=20, kv_len=150, softcap=1.5)
    case("softcap_2_by_650", 4, 1, batch=(1,), q_len=2, kv_len=650, softcap=1.5)
    case("alibi", 8, 4, q_len=6, kv_len=6, alibi=True)
    case("alibi_slopes_causal", 8, 2, q_len=6, kv_len=6, alibi=[0.5, 0.1], causal=True, dscores=True)
    case("rope", 8, 2, q_len=5, kv_len=5, rope={"base": 10000})
    case("rope_interleaved", 16, 2, q_len=5, kv_len=7, rope={"base": 100, "interleaved": True}, dscores=True)
    case("rope_partial_offsets", 16, 2, q_len=4, kv_len=6, rope={"base": 1000, "dims": 4, "q_offset": 7, "k_offset": 2})
    case("rope_grouped_causal", {"q_in": 8, "k_in": 8, "v_in": 8, "qk": 16, "v": 16, "out": 8}, 4, kv_heads=2, call="q", q_len=6, causal=True, rope={"base": 500})
    case("rope_none", 8, 2, weights="none", q_len=5, kv_len=5, rope={"base": 10000})
    case("sinks", 8, 2, sinks=(0.5, -1.0), dscores=True)
    case("sinks_causal", 8, 4, q_len=5, kv_len=5, sinks=(3.0, 0.0, -2.0, 1.0), causal=True)
    # Dropout, decided again on the way back.
    for p in (0.1, 0.5, 0.9):
        case(f"dropout_{p}", 8, 2, kv_len=17, dropout={"p": p, "seed": int(100 * p)}, dscores=p == 0.5)
    case("dropout_causal_bias", 8, 2, q_len=6, kv_len=6, causal=True, bias=(2, 6, 6), dropout={"p": 0.3, "seed": 9}, biases="qkvo")
    case("dropout_none_long", 4, 2, batch=(1,), weights="none", q_len=20, kv_len=140, dropout={"p": 0.25, "seed": 2**40 + 1})
    # All at once.
    case("everything", {"q_in": 8, "k_in": 6, "v_in": 5, "qk": 16, "v": 12, "out": 7}, 4, kv_heads=2, q_len=9, kv_len=11, biases="qkvo",
         bias=(2, 1, 9, 11), mask=(2, 1, 1, 11), causal=True, causal_offset=3, window=[6, -1], softcap=2.0, alibi=True,
         rope={"base": 300, "dims": 2}, sinks=(0.1, 0.2, -0.3, 1.0), kv_lens=[11, 8], dropout={"p": 0.2, "seed": 5}, dscores=True)
    print(len(MADE), "cases")


if __name__ == "__main__":
    main()
