"""Writes a case file from a trained keras.layers.MultiHeadAttention (Keras 3), for `cargo xtask check`.

    from export_keras import export_case
    export_case("layer.safetensors", layer, q, k, v, mask=mask)

The order is query, key, value as everywhere in mha; Keras itself takes query, value, key. The expected
outputs are the layer's own, in the layer's own precision: float32 is good enough for the default
tolerance on a processor; a graphics card may round its products more coarsely (TF32), so export on the CPU.

Keras spreads a query that sees no key evenly over all keys, mha gives zeros; such a mask is refused here.

Needs keras with a backend and safetensors. `python export_keras.py OUT.safetensors` writes a demonstration.
"""

import json
import sys

import keras
import numpy as np
from safetensors.numpy import save_file


def export_case(path, layer, q, k=None, v=None, *, mask=None, causal=False, scores=True, **keys):
    """mask: true where a query attends, [batch, q_len, kv_len] or [batch, heads, q_len, kv_len].
    k left out: self-attention; v left out: v is k. Further keywords, for example y_tol, go into the file."""
    if type(layer) is not keras.layers.MultiHeadAttention:
        raise ValueError("only MultiHeadAttention itself: other layers compute other things")
    config = layer.get_config()
    if config.get("use_gate") or config.get("sliding_window"):
        raise ValueError("a gate or a sliding window cannot be part of this case")
    q = np.asarray(q)
    if q.ndim != 3:
        raise ValueError("q must be [batch, q_len, features]")
    given = {n: np.asarray(x) for n, x in (("q", q), ("k", k), ("v", v)) if x is not None}
    key = given.get("k", q)
    value = given.get("v", key)
    if mask is not None:
        mask = np.asarray(mask, bool)
        visible = mask & np.tri(q.shape[1], key.shape[1], dtype=bool) if causal else mask
        if not visible.any(-1).all():
            raise ValueError("a query sees no key: Keras then averages all values, mha gives 0")
    arguments = dict(attention_mask=mask, use_causal_mask=causal, training=False)
    if scores:
        y, alpha = layer(q, value, key, return_attention_scores=True, **arguments)
    else:
        y = layer(q, value, key, **arguments)

    # Kernels are [in, heads, width] and [heads, width, out]: joining the two head axes gives [in][out].
    tensors, widths = dict(given), {}
    for letter, dense in zip("qkv", (layer.query_dense, layer.key_dense, layer.value_dense)):
        w = keras.ops.convert_to_numpy(dense.kernel)
        tensors["w" + letter] = w.reshape(w.shape[0], -1)
        widths[letter] = tensors["w" + letter].shape[1]
        if dense.bias is not None:
            tensors["b" + letter] = keras.ops.convert_to_numpy(dense.bias).reshape(-1)
    w = keras.ops.convert_to_numpy(layer.output_dense.kernel)
    tensors["wo"] = w.reshape(-1, w.shape[-1])
    if layer.output_dense.bias is not None:
        tensors["bo"] = keras.ops.convert_to_numpy(layer.output_dense.bias)
    if mask is not None:
        tensors["mask"] = mask[:, None] if mask.ndim == 3 else mask
    tensors["y"] = keras.ops.convert_to_numpy(y)
    if scores:
        tensors["scores"] = keras.ops.convert_to_numpy(alpha)

    meta = {
        "dims": {"q_in": q.shape[-1], "k_in": key.shape[-1], "v_in": value.shape[-1],
                 "qk": widths["q"], "v": widths["v"], "out": tensors["wo"].shape[1]},
        "heads": config["num_heads"], **({"causal": True} if causal else {}), **keys,
        "source": f"Keras {keras.__version__} MultiHeadAttention on {keras.backend.backend()}, {layer.compute_dtype}",
    }
    stored = {n: np.ascontiguousarray(x if x.dtype == bool else x.astype(np.float32)) for n, x in tensors.items()}
    save_file(stored, str(path), metadata={"mha": json.dumps(meta)})


def demo(path):
    keras.utils.set_random_seed(1)
    r = np.random.default_rng(1)
    layer = keras.layers.MultiHeadAttention(num_heads=3, key_dim=4, value_dim=5, output_shape=6)
    q, kv = r.standard_normal((2, 4, 7), np.float32), r.standard_normal((2, 6, 8), np.float32)
    layer.build(q.shape, kv.shape)  # a new layer has no weights; a trained one has
    mask = np.broadcast_to(np.arange(6) < np.array([6, 4])[:, None, None], (2, 4, 6))
    export_case(path, layer, q, kv, mask=mask)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python export_keras.py OUT.safetensors")
    demo(sys.argv[1])
