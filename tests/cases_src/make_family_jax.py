"""Cases of the attention family from JAX's dot_product_attention, Keras' GroupQueryAttention and
MultiHeadAttention with a sliding window, and Flax nnx' MultiHeadAttention with fewer key heads; in float64.

Run with KERAS_BACKEND=jax and JAX_ENABLE_X64=1 (set here unless they are set).
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import flax
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax import nnx

import casefile
from casefile import f32, rng
from family import FOLDER, build


def put(folder, name, meta, t, source, **results):
    meta["source"] = source
    path = FOLDER / folder / f"{name}.safetensors"
    casefile.write(path, meta, {**t, **{n: f32(x) for n, x in results.items()}})


def jax_case(name, d, heads, **options):
    """jax.nn.dot_product_attention. Its window is [left, right] and its causal mask top-left, as ours."""
    meta, t = build("jax/" + name, d, heads, **options)
    kv_heads = meta.get("kv_heads", heads)
    split = lambda x, n: jnp.asarray(x.astype(np.float64)).reshape(*x.shape[:2], n, -1)
    lens = t.get("kv_lens")
    y = jax.nn.dot_product_attention(
        split(t["q"], heads), split(t["k"], kv_heads), split(t["v"], kv_heads),
        bias=jnp.asarray(t["bias"].astype(np.float64)) if "bias" in t else None,
        mask=jnp.asarray(t["mask"]) if "mask" in t else None,
        scale=meta.get("scale"), is_causal=bool(meta.get("causal")),
        key_value_seq_lengths=None if lens is None else jnp.asarray(lens, jnp.int32),
        local_window_size=tuple(meta["window"]) if "window" in meta else None, implementation="xla")
    put("jax", name, meta, t, f"JAX {jax.__version__} nn.dot_product_attention, float64", y=np.asarray(y).reshape(t["q"].shape))


def trained(layer, r):
    layer.set_weights([f32(r.uniform(-0.6, 0.6, w.shape)) for w in layer.weights])
    return layer


def kernels(named):
    """[in, heads, width] and [heads, width, out] with their biases, as [in][out]."""
    t = {}
    for letter, kernel, bias in named:
        w = np.asarray(kernel)
        t["w" + letter] = f32(w.reshape(w.shape[0], -1) if letter != "o" else w.reshape(-1, w.shape[-1]))
        if bias is not None:
            t["b" + letter] = f32(np.asarray(bias).reshape(-1))
    return t


def keras_case(name, heads, d, *, kv_heads=None, widths=(6, 7, 5), q_len=4, kv_len=6, call="qkv", use_bias=True, mask=None, causal=False, sliding=None,
               batch=2):
    """With kv_heads, GroupQueryAttention; without, MultiHeadAttention."""
    r = rng("family keras/" + name)
    kv_len = q_len if call == "q" else kv_len
    widths = widths[:1] * 3 if call == "q" else widths
    inputs = {n: f32(r.standard_normal((batch, length, w))) for n, length, w in zip("qkv", (q_len, kv_len, kv_len), widths)}
    options = {"use_bias": use_bias, "dtype": "float64", "sliding_window": sliding}
    if kv_heads:
        layer = keras.layers.GroupQueryAttention(d, heads, kv_heads, **options)
    else:
        layer = keras.layers.MultiHeadAttention(heads, d, **options)
    layer.build(*(inputs[n].shape for n in "qvk"))
    trained(layer, r)
    if mask is not None:
        mask = r.random(mask) < 0.6
        mask[..., 0] = True
    q, k, v = (inputs[n].astype(np.float64) for n in "qkv")
    if call == "q":
        k = v = q
    y, alpha = layer(q, v, k, attention_mask=mask, use_causal_mask=causal, return_attention_scores=True, training=False)
    dense = [getattr(layer, n) for n in ("_query_dense", "_key_dense", "_value_dense", "_output_dense")]
    t = {n: inputs[n] for n in call} | kernels((n, x.kernel, x.bias) for n, x in zip("qkvo", dense))
    if mask is not None:
        t["mask"] = mask[:, None] if mask.ndim == 3 else mask
    meta = {"dims": dict(zip("q_in k_in v_in qk v out".split(), (*widths, heads * d, heads * d, widths[0]))), "heads": heads}
    if kv_heads:
        meta["kv_heads"] = kv_heads
    if causal:
        meta["causal"] = True
    if sliding:
        meta["window"] = [sliding - 1, sliding - 1]
    put("keras", name, meta, t, f"Keras {keras.__version__} {type(layer).__name__} on jax, float64", y=np.asarray(y), scores=np.asarray(alpha))


def flax_case(name, heads, kv_heads, *, q_in=6, kv_in=5, qkv=12, out=7, batch=(2,), q_len=3, kv_len=5, use_bias=True, mask=None):
    r = rng("family flax/" + name)
    layer = nnx.MultiHeadAttention(num_heads=heads, num_kv_heads=kv_heads, in_features=q_in, in_kv_features=kv_in, qkv_features=qkv, out_features=out,
                                   use_bias=use_bias, decode=False, dtype=np.float64, param_dtype=np.float64, rngs=nnx.Rngs(0))
    parts = (layer.query, layer.key, layer.value, layer.out)
    for dense in parts:
        for p in (dense.kernel, dense.bias):
            if p is not None:
                p[...] = jnp.asarray(f32(r.uniform(-0.6, 0.6, p[...].shape)), np.float64)
    t = {"q": f32(r.standard_normal((*batch, q_len, q_in))), "k": f32(r.standard_normal((*batch, kv_len, kv_in)))}
    if mask is not None:
        t["mask"] = r.random(mask) < 0.6
        t["mask"][..., 0] = True
    y = layer(t["q"].astype(np.float64), t["k"].astype(np.float64), mask=t.get("mask"), deterministic=True)
    value = lambda p: None if p is None else np.asarray(p[...])
    t |= kernels((n, value(x.kernel), value(x.bias)) for n, x in zip("qkvo", parts))
    meta = {"dims": {"q_in": q_in, "k_in": kv_in, "v_in": kv_in, "qk": qkv, "v": qkv, "out": out}, "heads": heads, "kv_heads": kv_heads}
    put("flax", name, meta, t, f"Flax {flax.__version__} nnx.MultiHeadAttention, float64", y=np.asarray(y))


def main():
    for folder in ("jax", "keras", "flax"):
        for old in (FOLDER / folder).glob("*.safetensors"):
            old.unlink()
    jax_case("6_over_2", 4, 6, kv_heads=2)
    jax_case("window", 4, 2, q_len=7, kv_len=7, window=[2, 1])
    jax_case("window_0", 4, 2, q_len=5, kv_len=5, window=[0, 0])
    jax_case("window_wider_than_all", 4, 2, q_len=4, kv_len=4, window=[9, 9])
    jax_case("window_causal_grouped", 4, 4, kv_heads=1, q_len=8, kv_len=8, window=[3, 3], causal=True)
    jax_case("window_of_65", 4, 2, batch=(1,), q_len=65, kv_len=65, window=[7, 0])
    jax_case("lengths", 4, 2, batch=(3,), kv_len=6, kv_lens=[6, 2, 1])
    jax_case("lengths_causal", 4, 4, kv_heads=2, q_len=6, kv_len=6, kv_lens=[6, 3], causal=True)
    jax_case("lengths_window", 4, 2, q_len=4, kv_len=6, kv_lens=[6, 5], window=[2, 2])
    jax_case("bias_mask_grouped", 4, 6, kv_heads=3, bias=(1, 6, 3, 5), mask=np.tri(3, 5, 1, dtype=bool).reshape(1, 1, 3, 5))
    jax_case("scale", 4, 4, kv_heads=2, scale=0.3)

    keras_case("grouped", 6, 4, kv_heads=2)
    keras_case("grouped_no_bias", 4, 3, kv_heads=1, use_bias=False)
    keras_case("grouped_causal", 4, 4, kv_heads=2, call="q", q_len=7, causal=True)
    keras_case("grouped_mask", 4, 4, kv_heads=2, mask=(2, 4, 6))
    keras_case("grouped_sliding_causal", 4, 4, kv_heads=2, call="q", q_len=8, causal=True, sliding=3)
    keras_case("sliding", 2, 4, call="q", q_len=7, sliding=2)
    keras_case("sliding_causal", 2, 4, call="q", q_len=9, sliding=4, causal=True)
    keras_case("sliding_cross", 3, 4, q_len=5, kv_len=6, sliding=3)

    flax_case("grouped", 6, 2)
    flax_case("multi_query", 4, 1, use_bias=False)
    flax_case("grouped_mask", 4, 2, mask=(2, 1, 3, 5))
    flax_case("grouped_two_batch_axes", 6, 3, batch=(2, 2))
    flax_case("grouped_33_keys", 2, 1, batch=(1,), q_len=2, kv_len=33)


if __name__ == "__main__":
    main()
