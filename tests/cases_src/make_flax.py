"""Cases from Flax nnx, through the script that users export with. Layers compute in float64, except one
that is as a user would have it.

Run with JAX_ENABLE_X64=1 (set here unless it is set).
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax.numpy as jnp
import numpy as np
from flax import nnx

import casefile
from casefile import f32, rng

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "export"))
from export_flax import export_case

FOLDER = casefile.CASES / "flax"
FOLDER.mkdir(parents=True, exist_ok=True)


def case(name, heads, *, q_in=6, kv_in=None, qkv=8, out=None, call="qkv", batch=(2,), q_len=3, kv_len=5, use_bias=True,
         mask=None, dtype=np.float64, **options):
    r = rng("flax/" + name)
    layer = nnx.MultiHeadAttention(num_heads=heads, in_features=q_in, in_kv_features=kv_in, qkv_features=qkv, out_features=out,
                                   use_bias=use_bias, decode=False, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
    for dense in (layer.query, layer.key, layer.value, layer.out):
        for p in (dense.kernel, dense.bias):
            if p is not None:
                p[...] = jnp.asarray(f32(r.uniform(-0.6, 0.6, p[...].shape)), dtype)
    kv_len = q_len if call == "q" else kv_len
    shapes = [(*batch, q_len, q_in), (*batch, kv_len, kv_in or q_in), (*batch, kv_len, kv_in or q_in)]
    inputs = [f32(r.standard_normal(s)).astype(dtype) for s in shapes[:len(call)]]
    if isinstance(mask, tuple):
        mask = r.random(mask) < 0.6
        mask[..., 0] = True
    export_case(FOLDER / f"{name}.safetensors", layer, *inputs, mask=mask, **options)


def main():
    case("layer", 2)
    case("layer_float32", 2, dtype=np.float32)
    case("no_bias", 4, use_bias=False)
    case("widths_differ", 3, q_in=7, kv_in=5, qkv=12, out=10)
    case("self", 2, call="q", q_len=7)
    case("key_is_value", 2, call="qk", kv_in=9)
    case("unbatched", 2, batch=())
    case("two_batch_axes", 2, batch=(2, 3))
    case("mask", 2, mask=(2, 1, 3, 5))
    case("mask_per_head", 2, mask=(2, 3, 5))
    case("mask_two_batch_axes", 2, batch=(2, 3), mask=(2, 3, 1, 3, 5))
    case("causal", 2, call="q", q_len=8, causal=True)
    case("causal_and_mask", 2, call="q", q_len=6, causal=True, mask=(2, 1, 6, 6))
    case("head_width_1", 5, q_in=3, qkv=5, out=2)
    case("65_by_33", 2, batch=(1,), q_len=65, kv_len=33, scores=False)


if __name__ == "__main__":
    main()
