"""Cases of the attention family from PyTorch, in float64: scaled_dot_product_attention with enable_gqa,
flex_attention with its own score and mask functions, nn.MultiheadAttention with add_zero_attn."""

import math
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import casefile
from family import FOLDER as ROOT
from family import build, slopes

FOLDER = ROOT / "pytorch"
VERSION = f"PyTorch {torch.__version__.split('+')[0]}"


def split(x, heads):
    return torch.from_numpy(np.asarray(x, np.float64)).reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def joined(y):
    return y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1).numpy()


def parts(name, dims, heads, options):
    """The case and its q, k, v by heads, the cache in front."""
    meta, t = build("pytorch/" + name, dims, heads, **options)
    kv_heads = meta.get("kv_heads", heads)
    q, k, v = split(t["q"], heads), split(t["k"], kv_heads), split(t["v"], kv_heads)
    if "past_k" in t:
        k, v = (torch.cat([torch.from_numpy(t[n].astype(np.float64)), x], 2) for n, x in (("past_k", k), ("past_v", v)))
    return meta, t, q, k, v


def put(name, meta, t, how, **results):
    meta["source"] = f"{VERSION} {how}, float64"
    casefile.write(FOLDER / f"{name}.safetensors", meta, {**t, **{n: casefile.f32(x) for n, x in results.items()}})


def sdpa(name, dims, heads, **options):
    """F.scaled_dot_product_attention: grouped heads, its own causal mask, arrays for the others."""
    meta, t, q, k, v = parts("sdpa_" + name, dims, heads, options)
    arrays = [torch.from_numpy(t[n].astype(np.float64 if n == "bias" else bool)) for n in ("bias", "mask") if n in t]
    assert len(arrays) + bool(meta.get("causal")) <= 1
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=arrays[0] if arrays else None, is_causal=bool(meta.get("causal")),
                                       scale=meta.get("scale"), enable_gqa=True)
    put("sdpa_" + name, meta, t, "scaled_dot_product_attention", y=joined(y))


def flex(name, dims, heads, **options):
    """flex_attention: what shall be added or cut is said in PyTorch's functions of (batch, head, query, key)."""
    meta, t, q, k, v = parts("flex_" + name, dims, heads, options)
    batch, q_len, kv_len = q.shape[0], q.shape[2], k.shape[2]
    past = kv_len - t["k"].shape[-2]
    offsets = torch.tensor(np.broadcast_to(np.asarray(meta.get("causal_offset", past)), (batch,)).copy())
    lens = torch.from_numpy(t["kv_lens"]) if "kv_lens" in t else torch.full((batch,), kv_len)
    alibi = meta.get("alibi")
    steep = torch.tensor(slopes(heads) if alibi is True else alibi or [0.0] * heads, dtype=torch.float64)
    left, right = meta.get("window", (-1, -1))
    cap = torch.tensor(meta["softcap"], dtype=torch.float64) if "softcap" in meta else None

    def score_mod(score, b, h, i, j):
        if cap is not None:
            score = cap * torch.tanh(score / cap)
        return score - steep[h] * (offsets[b] + i - j).abs()

    def mask_mod(b, h, i, j):
        ok = j < lens[b]
        if meta.get("causal"):
            ok = ok & (j <= offsets[b] + i)
        if left >= 0:
            ok = ok & (offsets[b] + i - j <= left)
        if right >= 0:
            ok = ok & (j - offsets[b] - i <= right)
        return ok

    torch._dynamo.reset()  # what is remembered from another case's shapes is generalised too far
    mask = create_block_mask(mask_mod, batch, heads, q_len, kv_len, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is slow without a compiler
        y = flex_attention(q, k, v, score_mod=score_mod, block_mask=mask, scale=meta.get("scale"), enable_gqa=True)
    put("flex_" + name, meta, t, "flex_attention", y=joined(y))


def zero_attn(name, embed, heads, *, batch=2, q_len=3, kv_len=5, mask=None):
    """nn.MultiheadAttention with a key of zeros, which is a sink of 0."""
    r = casefile.rng("pytorch/" + name)
    layer = torch.nn.MultiheadAttention(embed, heads, add_zero_attn=True, batch_first=True).double().eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.from_numpy(casefile.f32(r.uniform(-0.5, 0.5, p.shape))))
    t = {n: casefile.f32(r.standard_normal((batch, length, embed))) for n, length in (("q", q_len), ("k", kv_len), ("v", kv_len))}
    excluded = None
    if mask is not None:
        t["mask"] = mask
        excluded = torch.from_numpy(~mask)
    with torch.no_grad():
        y, scores = layer(*(torch.from_numpy(t[n].astype(np.float64)) for n in "qkv"), attn_mask=excluded, average_attn_weights=False)
    for n, w, b in zip("qkv", layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)):
        t["w" + n], t["b" + n] = casefile.f32(w.detach()), casefile.f32(b.detach())
    t["wo"], t["bo"] = casefile.f32(layer.out_proj.weight.detach()), casefile.f32(layer.out_proj.bias.detach())
    t["sinks"] = np.zeros(heads, np.float32)
    put(name, {"dims": embed, "heads": heads, "weights": "out_in"}, t, "nn.MultiheadAttention(add_zero_attn=True)",
        y=y.numpy(), scores=scores[..., :-1].numpy())


def main():
    for old in FOLDER.glob("*.safetensors"):
        old.unlink()
    sdpa("6_over_2", 4, 6, kv_heads=2)
    sdpa("8_over_1", 4, 8, kv_heads=1)
    sdpa("causal", 4, 6, kv_heads=3, q_len=5, kv_len=5, causal=True)
    sdpa("causal_more_keys", 4, 4, kv_heads=2, q_len=3, kv_len=8, causal=True)
    sdpa("causal_more_queries", 4, 4, kv_heads=2, q_len=8, kv_len=3, causal=True)
    sdpa("mask", 4, 4, kv_heads=2, mask=(2, 1, 3, 5))
    sdpa("mask_per_head", 4, 4, kv_heads=2, mask=(1, 4, 3, 5))
    sdpa("mask_empty_row", 4, 4, kv_heads=2, mask=np.array([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0]], bool))
    sdpa("bias", 4, 4, kv_heads=2, bias=(2, 4, 3, 5))
    sdpa("past_bias", 4, 4, kv_heads=1, past=4, q_len=2, kv_len=2, bias=(2, 6))
    sdpa("scale", 4, 6, kv_heads=3, scale=0.2)
    sdpa("65_keys", 4, 4, kv_heads=2, batch=(1,), q_len=1, kv_len=65)

    flex("window", 4, 2, q_len=7, kv_len=7, window=[2, 1])
    flex("window_causal_grouped", 4, 6, kv_heads=2, q_len=9, kv_len=9, window=[3, -1], causal=True)
    flex("window_past", 4, 4, kv_heads=2, past=6, q_len=2, kv_len=2, window=[3, 0], causal=True)
    flex("window_empty_rows", 4, 2, q_len=5, kv_len=4, window=[1, 0], causal_offset=2)
    flex("softcap", 4, 2, softcap=1.5)
    flex("softcap_causal", 4, 4, kv_heads=2, q_len=6, kv_len=6, softcap=20.0, causal=True, scale=1.0)
    flex("alibi_3_heads", 4, 3, q_len=5, kv_len=5, alibi=True, causal=True)
    flex("alibi_both_directions", 4, 4, q_len=4, kv_len=7, alibi=True)
    flex("alibi_past_grouped", 4, 6, kv_heads=3, past=5, q_len=2, kv_len=2, alibi=True, causal=True)
    flex("lengths", 4, 2, batch=(3,), q_len=3, kv_len=6, kv_lens=[6, 2, 4])
    flex("lengths_causal_offsets", 4, 4, kv_heads=2, q_len=2, kv_len=8, kv_lens=[5, 8], causal=True, causal_offset=[3, 6])
    flex("everything", 4, 6, kv_heads=2, past=3, q_len=4, kv_len=4, kv_lens=[6, 7], causal=True, window=[3, -1], softcap=2.0, alibi=True, scale=0.4)
    flex("130_keys", 4, 2, batch=(1,), q_len=3, kv_len=130, window=[40, 0], causal=True, causal_offset=127, softcap=5.0)

    zero_attn("zero_attn", 8, 2)
    zero_attn("zero_attn_mask", 12, 3, mask=casefile.rng("zero attn mask").random((3, 5)) < 0.5)


if __name__ == "__main__":
    main()
