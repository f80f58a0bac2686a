"""Writes a case file from a trained flax.nnx.MultiHeadAttention, for `cargo xtask check`.

    from export_flax import export_case
    export_case("layer.safetensors", layer, q, k, v, mask=mask)

The expected outputs are the layer's own, in the layer's own precision: float32 is good enough for the
default tolerance on a processor; an accelerator may round its products more coarsely, so export on the CPU.

Flax spreads a query that sees no key evenly over all keys, mha gives zeros; such a mask is refused here.
Flax's lengths and features are the last two axes, and so are a case's; axes in front of them are batch.

Needs flax and safetensors. `python export_flax.py OUT.safetensors` writes a small demonstration.
"""

import json
import math
import sys

import flax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file


def export_case(path, layer, q, k=None, v=None, *, mask=None, causal=False, scores=True, **keys):
    """mask: true where a query attends, broadcastable to [batch, heads, q_len, kv_len].
    k left out: self-attention; v left out: v is k. Further keywords, for example y_tol, go into the file."""
    if layer.normalize_qk or (layer.num_kv_heads or layer.num_heads) != layer.num_heads:
        raise ValueError("normalize_qk and fewer key heads than query heads cannot be part of this case")
    given = {n: np.asarray(x) for n, x in (("q", q), ("k", k), ("v", v)) if x is not None}
    query = given["q"]
    key = given.get("k", query)
    visible = np.ones((1, 1), bool) if mask is None else np.asarray(mask, bool)
    if causal:
        visible = visible & np.tri(query.shape[-2], key.shape[-2], dtype=bool)
    if not visible.any(-1).all():
        raise ValueError("a query sees no key: Flax then averages all values, mha gives 0")
    y = layer(*given.values(), mask=jnp.asarray(visible) if mask is not None or causal else None,
              deterministic=True, decode=False, sow_weights=scores)
    tensors = dict(given)
    if scores:
        (alpha,) = nnx.pop(layer, nnx.Intermediate)["attention_weights"].get_value()
        tensors["scores"] = np.asarray(alpha)
    tensors["y"] = np.asarray(y)

    # Kernels are [in, heads, width] and [heads, width, out]: joining the two head axes gives [in][out].
    for letter, dense in (("q", layer.query), ("k", layer.key), ("v", layer.value), ("o", layer.out)):
        w = np.asarray(dense.kernel[...])
        tensors["w" + letter] = w.reshape((-1, w.shape[-1]) if letter == "o" else (w.shape[0], -1))
        if dense.bias is not None:
            tensors["b" + letter] = np.asarray(dense.bias[...]).reshape(-1)
    if mask is not None:
        m = np.asarray(mask, bool)
        # A case has one batch axis in its mask, however many the inputs have.
        lead = m.ndim - 3
        if lead > 1:
            m = np.broadcast_to(m, (*query.shape[:-2], *m.shape[lead:]))
            m = m.reshape(math.prod(query.shape[:-2]), *m.shape[-3:])
        tensors["mask"] = m

    meta = {
        "dims": {"q_in": query.shape[-1], "k_in": key.shape[-1], "v_in": given.get("v", key).shape[-1],
                 "qk": tensors["wq"].shape[1], "v": tensors["wv"].shape[1], "out": tensors["wo"].shape[1]},
        "heads": layer.num_heads, **({"causal": True} if causal else {}), **keys,
        "source": f"Flax {flax.__version__} nnx.MultiHeadAttention, {np.asarray(y).dtype}",
    }
    stored = {n: np.ascontiguousarray(x if x.dtype == bool else x.astype(np.float32)) for n, x in tensors.items()}
    save_file(stored, str(path), metadata={"mha": json.dumps(meta)})


def demo(path):
    r = np.random.default_rng(1)
    layer = nnx.MultiHeadAttention(num_heads=3, in_features=7, in_kv_features=8, qkv_features=12, out_features=6,
                                   decode=False, rngs=nnx.Rngs(1))
    q, kv = r.standard_normal((2, 4, 7), np.float32), r.standard_normal((2, 6, 8), np.float32)
    mask = np.arange(6) < np.array([6, 4])[:, None, None, None]
    export_case(path, layer, q, kv, mask=mask)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python export_flax.py OUT.safetensors")
    demo(sys.argv[1])
