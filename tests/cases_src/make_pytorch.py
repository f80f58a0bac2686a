"""Cases from PyTorch: nn.MultiheadAttention through the script that users export with, and
scaled_dot_product_attention. Computed in float64 from values that are exact in f32."""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right

import casefile
from casefile import build

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "export"))
from export_pytorch import export_case

FOLDER = casefile.CASES / "pytorch"
FOLDER.mkdir(parents=True, exist_ok=True)


def generator(name):
    return torch.Generator().manual_seed(int(casefile.rng("pytorch/" + name).integers(2**31)))


def layer_case(name, embed, heads, *, batch=2, q_len=3, kv_len=5, call="qkv", kdim=None, vdim=None, bias=True,
               batch_first=True, masks=lambda g, n, h, q, k: {}, scores=True, dtype=torch.float32, **keys):
    """nn.MultiheadAttention with trained-looking values in all its weights, the biases too."""
    g = generator(name)
    layer = torch.nn.MultiheadAttention(embed, heads, bias=bias, kdim=kdim, vdim=vdim, batch_first=batch_first)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_((torch.rand(p.shape, generator=g) * 2 - 1) * (3 / (p.shape[-1] + embed)) ** 0.5)
    kv_len = q_len if call == "q" else kv_len
    inputs = []
    for length, width in ((q_len, embed), (kv_len, kdim or embed), (kv_len, vdim or embed))[:len(call)]:
        x = torch.randn((batch or 1, length, width), generator=g)
        inputs.append(x[0] if batch is None else x if batch_first else x.transpose(0, 1).contiguous())
    export_case(FOLDER / f"{name}.safetensors", layer, *inputs, scores=scores,
                **masks(g, batch or 1, heads, q_len, kv_len), **keys)


def sdpa_case(name, heads, width, *, v_width=None, batch=(2,), q_len=3, kv_len=5, mask=None, bias=None, call="qkv",
              scale=None, causal=False, lower_right=False, kind=torch.float32, scores=False):
    """F.scaled_dot_product_attention, which never returns its weights."""
    g = generator(name)
    v_width = v_width or width
    n = 1
    for b in batch:
        n *= b
    wide = lambda length, w: torch.randn((*batch, length, heads * w), generator=g).to(kind)
    t = {"q": wide(q_len, width)}
    if "k" in call:
        t["k"] = wide(kv_len, width)
    if "v" in call:
        t["v"] = wide(kv_len, v_width)
    q = t["q"].double()
    k = t.get("k", t["q"]).double()
    v = t.get("v", t.get("k", t["q"])).double()
    split = lambda x: x.reshape(n, x.shape[-2], heads, -1).transpose(1, 2)
    attn_mask = None
    if mask is not None:
        m = torch.rand(mask, generator=g) < 0.6
        m.view(-1)[0] = True
        t["mask"] = attn_mask = m
    if bias is not None:
        t["bias"] = torch.randn(bias, generator=g)
        attn_mask = t["bias"].double()
        if mask is not None:  # a boolean mask beside a bias is the bias with -inf
            attn_mask = attn_mask.masked_fill(~m, -torch.inf)
    d = heads * width
    dims = d if v_width == width else {"q_in": d, "k_in": d, "v_in": heads * v_width, "qk": d, "v": heads * v_width, "out": heads * v_width}
    meta = {"dims": dims, "heads": heads, "weights": "none"}
    if scale is not None:
        meta["scale"] = scale
    if causal or lower_right:
        meta["causal"] = True
    if lower_right:
        meta["causal_offset"] = kv_len - q_len
        # PyTorch's own matrix for "aligned at the lower right corner", as a boolean mask
        attn_mask = causal_lower_right(q_len, kv_len)._materialize("cpu")
    y = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=attn_mask, is_causal=causal, scale=scale)
    t["y"] = y.transpose(1, 2).reshape(*batch, q_len, -1).float()
    meta["source"] = f"PyTorch {torch.__version__.split('+')[0]} scaled_dot_product_attention, float64"
    stored = {}
    for n_, x in t.items():
        if x.dtype == torch.bfloat16:
            stored[n_] = x.float().numpy().astype(casefile.DTYPES["BF16"])
        else:
            stored[n_] = x.numpy()
    casefile.write(FOLDER / f"{name}.safetensors", meta, stored)


def excluded(shape):
    """A boolean attn_mask in PyTorch's sense, true where a key is left out; no row is left without a key."""
    def masks(g, n, h, q, k):
        m = torch.rand([{"nh": n * h, "q": q, "k": k}[s] for s in shape], generator=g) < 0.4
        m[..., 0] = False
        return {"attn_mask": m}
    return masks


def floats(shape):
    def masks(g, n, h, q, k):
        return {"attn_mask": torch.randn([{"nh": n * h, "q": q, "k": k}[s] for s in shape], generator=g)}
    return masks


def padding(kind=torch.bool):
    """The last keys of every batch item but the first are padding."""
    def masks(g, n, h, q, k):
        real = torch.tensor([max(1, k - 2 * i) for i in range(n)])
        m = torch.arange(k) >= real[:, None]
        return {"key_padding_mask": m if kind == torch.bool else torch.zeros(n, k).masked_fill(m, -torch.inf)}
    return masks


def both(*parts):
    return lambda *a: {k: v for part in parts for k, v in part(*a).items()}


def causal(g, n, h, q, k):
    return {"attn_mask": torch.ones(q, k, dtype=torch.bool).triu(1)}


def main():
    layer_case("layer", 12, 3)
    layer_case("layer_no_bias", 12, 3, bias=False)
    layer_case("layer_self", 16, 4, call="q", q_len=7)
    layer_case("layer_q_kv", 10, 2, call="qk")
    layer_case("layer_one_head", 7, 1)
    layer_case("layer_head_width_1", 5, 5)
    layer_case("layer_kdim_vdim", 12, 3, kdim=7, vdim=5)
    layer_case("layer_kdim_vdim_no_bias", 8, 2, kdim=11, vdim=3, bias=False)
    layer_case("layer_kdim_only", 6, 2, kdim=9)
    layer_case("layer_vdim_only", 6, 3, vdim=13)
    layer_case("layer_kdim_wider_key_is_value", 6, 3, kdim=10, vdim=10, call="qk")
    layer_case("layer_sequence_first", 12, 3, batch_first=False)
    layer_case("layer_sequence_first_padding", 8, 2, batch_first=False, batch=3, kv_len=7, masks=padding())
    layer_case("unbatched", 12, 3, batch=None)
    layer_case("unbatched_self", 12, 4, batch=None, call="q", q_len=6)
    layer_case("unbatched_mask", 8, 2, batch=None, masks=excluded(("q", "k")))
    layer_case("unbatched_kdim_vdim", 8, 2, batch=None, kdim=3, vdim=5)
    layer_case("mask_2d", 8, 2, masks=excluded(("q", "k")))
    layer_case("mask_3d_per_head", 8, 4, masks=excluded(("nh", "q", "k")))
    layer_case("mask_causal", 8, 2, call="q", q_len=9, masks=causal)
    layer_case("float_mask_2d", 8, 2, masks=floats(("q", "k")))
    layer_case("float_mask_3d_per_head", 8, 4, masks=floats(("nh", "q", "k")))
    layer_case("float_mask_minus_inf", 8, 2, call="q", q_len=6,
               masks=lambda g, n, h, q, k: {"attn_mask": torch.nn.Transformer.generate_square_subsequent_mask(q)})
    layer_case("padding", 8, 2, batch=3, kv_len=8, masks=padding())
    layer_case("padding_float", 8, 2, batch=3, kv_len=8, masks=padding(torch.float32))
    layer_case("padding_and_mask", 8, 2, batch=3, kv_len=8, masks=both(excluded(("q", "k")), padding()))
    layer_case("padding_and_mask_per_head", 8, 2, batch=2, kv_len=6, masks=both(excluded(("nh", "q", "k")), padding()))
    layer_case("padding_and_float_mask", 8, 2, batch=3, kv_len=7, masks=both(floats(("q", "k")), padding()))
    layer_case("padding_float_and_mask", 8, 2, batch=3, kv_len=7, masks=both(excluded(("q", "k")), padding(torch.float32)))
    layer_case("padding_and_causal_self", 8, 2, batch=3, call="q", q_len=9, masks=both(causal, padding()))
    for q_len, kv_len in ((1, 1), (1, 17), (17, 1), (15, 33), (31, 65), (3, 127), (64, 16)):
        layer_case(f"layer_{q_len}_by_{kv_len}", 6, 2, batch=1, q_len=q_len, kv_len=kv_len, scores=q_len * kv_len < 500)
    layer_case("layer_65_self_causal", 9, 3, batch=1, call="q", q_len=65, masks=causal, scores=False)
    layer_case("layer_257_keys_padding", 8, 2, batch=2, q_len=2, kv_len=257, masks=padding(), scores=False)
    # PyTorch's fused path gives zeros for a query without a key, as mha does; its path with scores gives NaN.
    layer_case("empty_rows_without_scores", 8, 2, scores=False,
               masks=lambda g, n, h, q, k: {"attn_mask": torch.tensor([[0] * k, [1] * k, [0] * k], dtype=torch.bool)})

    sdpa_case("sdpa", 2, 4)
    sdpa_case("sdpa_self", 3, 5, call="q", q_len=7)
    sdpa_case("sdpa_key_is_value", 2, 8, call="qk")
    sdpa_case("sdpa_value_wider", 2, 4, v_width=7)
    sdpa_case("sdpa_value_narrower", 3, 5, v_width=2)
    sdpa_case("sdpa_unbatched", 2, 4, batch=())
    sdpa_case("sdpa_two_batch_axes", 2, 4, batch=(3, 2))
    sdpa_case("sdpa_causal", 2, 4, q_len=6, kv_len=6, causal=True)
    sdpa_case("sdpa_causal_top_left", 2, 4, q_len=3, kv_len=8, causal=True)
    sdpa_case("sdpa_causal_more_queries", 2, 4, q_len=8, kv_len=3, causal=True)
    sdpa_case("sdpa_causal_lower_right", 2, 4, q_len=3, kv_len=8, lower_right=True)
    sdpa_case("sdpa_causal_lower_right_65", 2, 4, batch=(1,), q_len=17, kv_len=65, lower_right=True)
    sdpa_case("sdpa_causal_lower_right_empty_rows", 2, 4, q_len=8, kv_len=3, lower_right=True)
    sdpa_case("sdpa_scale", 2, 4, scale=0.3)
    sdpa_case("sdpa_scale_negative", 2, 4, scale=-0.7)
    sdpa_case("sdpa_mask", 2, 4, mask=(2, 1, 3, 5))
    sdpa_case("sdpa_mask_per_head", 2, 4, mask=(1, 2, 3, 5))
    sdpa_case("sdpa_bias", 2, 4, bias=(2, 2, 3, 5))
    sdpa_case("sdpa_bias_2d", 2, 4, bias=(3, 5))
    sdpa_case("sdpa_bias_and_mask", 2, 4, bias=(1, 2, 3, 5), mask=(2, 1, 1, 5))
    sdpa_case("sdpa_f16", 2, 8, kind=torch.float16)
    sdpa_case("sdpa_bf16", 2, 8, kind=torch.bfloat16, mask=(3, 5))
    for width in (1, 3, 16, 33, 64):
        sdpa_case(f"sdpa_head_width_{width}", 1 if width > 16 else 2, width, batch=(1,), q_len=4, kv_len=9)
    sdpa_case("sdpa_129_keys", 2, 5, batch=(1,), q_len=5, kv_len=129)
    sdpa_case("sdpa_512_keys", 2, 4, batch=(1,), q_len=3, kv_len=512, mask=(1, 512))


if __name__ == "__main__":
    main()
