"""Cases from Keras 3 on JAX, through the script that users export with. Layers compute in float64, except
one that is as a user would have it.

Run with KERAS_BACKEND=jax and JAX_ENABLE_X64=1 (set here unless they are set).
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import keras
import numpy as np

import casefile
from casefile import f32, rng

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "export"))
from export_keras import export_case

FOLDER = casefile.CASES / "keras"
FOLDER.mkdir(parents=True, exist_ok=True)


def case(name, heads, key_dim, *, value_dim=None, out=None, widths=(6, 6, 6), call="qkv", batch=2, q_len=3, kv_len=5,
         use_bias=True, mask=None, dtype="float64", **options):
    r = rng("keras/" + name)
    kv_len = q_len if call == "q" else kv_len
    shapes = [(batch, q_len, widths[0]), (batch, kv_len, widths[1]), (batch, kv_len, widths[2])]
    layer = keras.layers.MultiHeadAttention(heads, key_dim, value_dim=value_dim, output_shape=out, use_bias=use_bias, dtype=dtype)
    layer.build(shapes[0], shapes[2], shapes[1])
    layer.set_weights([f32(r.uniform(-0.6, 0.6, w.shape)) for w in layer.weights])
    inputs = [f32(r.standard_normal(s)).astype(dtype) for s in shapes[:len(call)]]
    if isinstance(mask, tuple):
        mask = r.random(mask) < 0.6
        mask[..., 0] = True
    export_case(FOLDER / f"{name}.safetensors", layer, *inputs, mask=mask, **options)


def main():
    case("layer", 2, 4)
    case("layer_float32", 2, 4, dtype="float32")
    case("no_bias", 2, 4, use_bias=False)
    case("all_widths_differ", 3, 4, value_dim=5, out=8, widths=(7, 11, 2))
    case("all_widths_differ_no_bias", 3, 2, value_dim=7, out=1, widths=(3, 5, 8), use_bias=False)
    case("self", 4, 3, call="q", q_len=7)
    case("key_is_value", 2, 5, call="qk", widths=(6, 9, 9))
    case("key_dim_1", 5, 1, widths=(5, 5, 5))
    case("one_head_33", 1, 33, batch=1, widths=(4, 3, 2))
    case("mask", 2, 4, mask=(2, 3, 5))
    case("mask_per_head", 2, 4, mask=(2, 2, 3, 5))
    case("causal", 2, 4, call="q", q_len=9, causal=True)
    case("causal_longer_keys", 2, 4, q_len=4, kv_len=9, causal=True)
    case("causal_and_mask", 2, 4, call="q", q_len=6, causal=True, mask=(2, 6, 6))
    case("one_query_one_key", 2, 3, batch=1, q_len=1, kv_len=1)
    case("one_query_129_keys", 2, 3, batch=1, q_len=1, kv_len=129)
    case("batch_of_five_17_by_31", 2, 3, batch=5, q_len=17, kv_len=31, scores=False)


if __name__ == "__main__":
    main()
