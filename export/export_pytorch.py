"""Writes a case file from a trained torch.nn.MultiheadAttention, for `cargo xtask check`.

    from export_pytorch import export_case
    export_case("layer.safetensors", layer, q, k, v, attn_mask=mask)

Takes what the layer's own forward takes. The expected outputs are the layer's, computed in float64 in
evaluation mode, so that what the check measures is mha's rounding and not PyTorch's.

PyTorch's boolean masks say which keys are left out, a case's say which are attended: they are inverted.
PyTorch gives NaN scores for a query that sees no key, mha gives zeros; such a call can only be exported
with scores=False, where recent PyTorch gives zeros too.

Needs torch and safetensors. `python export_pytorch.py OUT.safetensors` writes a small demonstration.
"""

import copy
import json
import sys

import torch
from safetensors.torch import save_file


def export_case(path, layer, q, k=None, v=None, *, attn_mask=None, key_padding_mask=None, scores=True, **keys):
    """k left out: self-attention; v left out: v is k. Further keywords, for example y_tol, go into the file."""
    if layer.bias_k is not None or layer.add_zero_attn:
        raise ValueError("add_bias_kv and add_zero_attn add a key that a case cannot hold")
    double = copy.deepcopy(layer).cpu().double().eval()
    heads, embed = layer.num_heads, layer.embed_dim
    given = {n: x.detach().cpu().float() for n, x in (("q", q), ("k", k), ("v", v)) if x is not None}
    q64 = given["q"].double()
    k64 = given["k"].double() if "k" in given else q64
    v64 = given["v"].double() if "v" in given else k64

    tensors = dict(given)
    if q.dim() == 3 and not layer.batch_first:
        tensors = {n: x.transpose(0, 1) for n, x in given.items()}
    batch = tensors["q"].shape[0] if q.dim() == 3 else 1

    state = layer.state_dict()
    if "in_proj_weight" in state:
        weights = state["in_proj_weight"].chunk(3)
    else:
        weights = [state[f"{n}_proj_weight"] for n in "qkv"]
    tensors.update(zip(("wq", "wk", "wv"), weights), wo=state["out_proj.weight"])
    if "in_proj_bias" in state:
        tensors.update(zip(("bq", "bk", "bv"), state["in_proj_bias"].chunk(3)), bo=state["out_proj.bias"])

    # Booleans meet in one mask, floats in one bias, each with as few axes as it can have.
    attend, bias = [], []
    for given_mask, is_padding in ((attn_mask, False), (key_padding_mask, True)):
        if given_mask is None:
            continue
        m = given_mask.detach().cpu()
        if is_padding:
            m = m.reshape(-1, 1, 1, m.shape[-1])
        elif m.dim() == 3:
            m = m.reshape(batch, heads, *m.shape[1:])
        attend.append(~m) if m.dtype == torch.bool else bias.append(m.double())
    if attend:
        tensors["mask"] = attend[0] & attend[1] if len(attend) > 1 else attend[0]
    if bias:
        tensors["bias"] = sum(bias[1:], bias[0])

    # PyTorch wants its two masks of one type; a boolean one beside a float one becomes -inf.
    to_float = bool(attend) and bool(bias)

    def for_torch(m):
        if m is None:
            return None
        m = m.detach().cpu()
        if m.dtype != torch.bool:
            return m.double()
        return torch.zeros(m.shape, dtype=torch.float64).masked_fill(m, -torch.inf) if to_float else m

    with torch.no_grad():
        y, weights = double(q64, k64, v64, attn_mask=for_torch(attn_mask), key_padding_mask=for_torch(key_padding_mask),
                            need_weights=scores, average_attn_weights=False)
    if scores and weights.isnan().any() and not any(x.isnan().any() for x in tensors.values()):
        raise ValueError("a query sees no key: PyTorch's scores are NaN there, mha's are 0; export with scores=False")
    tensors["y"] = y.transpose(0, 1) if q.dim() == 3 and not layer.batch_first else y
    if scores:
        tensors["scores"] = weights

    kdim, vdim = layer.kdim, layer.vdim
    dims = embed if kdim == vdim == embed else {"q_in": embed, "k_in": kdim, "v_in": vdim, "qk": embed, "v": embed, "out": embed}
    meta = {"dims": dims, "heads": heads, "weights": "out_in", **keys,
            "source": f"PyTorch {torch.__version__.split('+')[0]} nn.MultiheadAttention, float64"}
    stored = {n: (x if x.dtype == torch.bool else x.float()).detach().cpu().contiguous().clone() for n, x in tensors.items()}
    save_file(stored, str(path), metadata={"mha": json.dumps(meta)})


def demo(path):
    torch.manual_seed(1)
    layer = torch.nn.MultiheadAttention(12, 3, kdim=7, vdim=5, batch_first=True)
    q, k, v = torch.randn(2, 4, 12), torch.randn(2, 6, 7), torch.randn(2, 6, 5)
    padding = torch.arange(6).expand(2, 6) >= torch.tensor([[6], [4]])
    export_case(path, layer, q, k, v, key_padding_mask=padding)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python export_pytorch.py OUT.safetensors")
    demo(sys.argv[1])
