"""Cases from the attention modules of decoders in Hugging Face's transformers: grouped heads, rotary positions
of every layout, windows, softcap, sinks, ALiBi and their caches, as each model puts them together.

A model of one layer with random weights runs in float64 on a prompt and again on what follows it; hooks take
what goes into its attention and what comes out, and the cache is read between the two. So masks, positions and
the cropping of the cache are the model's own. Rotary tables and some softmaxes are f32 in the library.
"""

import copy
import os

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
import transformers
from transformers.cache_utils import DynamicCache

import casefile
from family import FOLDER as ROOT

FOLDER = ROOT / "transformers"
SOURCE = f"transformers {transformers.__version__}, {{}} in float64 on PyTorch {torch.__version__.split('+')[0]}"
COMMON = {"vocab_size": 8, "num_hidden_layers": 1, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def array(x):
    return x.detach().to(torch.float64).numpy()


def weights(module, heads, kv_heads, fused):
    """Weights and biases of an attention module by our names, [out][in]."""
    t = {}
    if fused:
        # [heads, (q, k, v), d] in one matrix, or [(q, k, v), heads, d]
        name, per_head, out = fused
        w, b = getattr(module, name).weight, getattr(module, name).bias
        d = w.shape[0] // (3 * heads)
        shape = (heads, 3, d) if per_head else (3, heads, d)
        for i, letter in enumerate("qkv"):
            pick = lambda x: x.reshape(*shape, *x.shape[1:]).select(1 if per_head else 0, i).reshape(heads * d, *x.shape[1:])
            t["w" + letter] = array(pick(w))
            if b is not None:
                t["b" + letter] = array(pick(b))
        parts = [("o", getattr(module, out))]
    else:
        output = next(getattr(module, n) for n in ("o_proj", "dense", "out_proj") if hasattr(module, n))
        parts = [("q", module.q_proj), ("k", module.k_proj), ("v", module.v_proj), ("o", output)]
    for letter, linear in parts:
        t["w" + letter] = array(linear.weight)
        if linear.bias is not None:
            t["b" + letter] = array(linear.bias)
    if hasattr(module, "sinks"):
        t["sinks"] = array(module.sinks)
    return t


def case(name, kind, attention, meta, *, config, prompt=5, then=0, batch=2, fused=None, residual=False, rope=None):
    """The model `kind` + "Config" on `prompt` positions, one case; then on `then` more, another.

    meta    the keys that say what this model does; rope lacks its offsets
    """
    r = casefile.rng("transformers/" + name)
    config = getattr(transformers, kind + "Config")(**COMMON | config)
    config._attn_implementation = "eager"
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").double().eval()
    with torch.no_grad():
        for n, p in sorted(model.named_parameters()):
            p.copy_(torch.from_numpy(casefile.f32(r.uniform(-0.7, 0.7, p.shape))))
    if kind == "GptOss":  # its experts do not run in float64, and nothing here depends on them
        model.layers[0].mlp.forward = lambda x: (x, None)
    module = model.get_submodule(attention)
    seen = {}

    def before(_, args, kwargs):
        seen["x"] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        seen["residual"] = kwargs.get("residual", args[1] if residual else None)
        # The case holds f32: let the module see what the case will hold.
        seen["x"] = seen["x"].to(torch.float32).double()
        if "hidden_states" in kwargs:
            return args, {**kwargs, "hidden_states": seen["x"]}
        return (seen["x"], *args[1:]), kwargs

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(lambda _, args, kwargs, result: seen.update(result=result), with_kwargs=True)
    heads = getattr(config, "num_attention_heads", None) or config.n_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    fixed = weights(module, heads, kv_heads, fused)
    hidden, (qk, _), v = fixed["wq"].shape[1], fixed["wq"].shape, fixed["wo"].shape[1]
    meta = {"dims": {"q_in": hidden, "k_in": hidden, "v_in": hidden, "qk": qk, "v": v, "out": fixed["wo"].shape[0]},
            "heads": heads, "kv_heads": kv_heads, "weights": "out_in", "causal": True, **meta, "source": SOURCE.format(type(module).__name__)}
    cache, position = DynamicCache(config=config), 0
    for length, suffix in ((prompt, ""), (then, "_then"))[: 2 if then else 1]:
        t = dict(fixed)
        old = cache.layers[0].keys if position else None
        if old is not None:
            # The cache too is rounded to what the case holds.
            for n, x in (("past_k", "keys"), ("past_v", "values")):
                kept = getattr(cache.layers[0], x).to(torch.float32)
                t[n] = array(kept)
                setattr(cache.layers[0], x, kept.double())
        embeds = torch.from_numpy(r.standard_normal((batch, length, config.hidden_size)))
        with torch.no_grad():
            model(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
        t["q"] = array(seen["x"])
        y, scores = seen["result"][0], seen["result"][1]
        t["y"] = array(y - seen["residual"] if residual else y)
        if isinstance(scores, torch.Tensor) and scores.dim() == 4:
            t["scores"] = array(scores)
        own = copy.deepcopy(meta)
        if rope is not None:
            own["rope"] = {**rope, "q_offset": position, "k_offset": position}
        casefile.write(FOLDER / f"{name}{suffix}.safetensors", own, {n: np.asarray(x, np.float32) for n, x in t.items()})
        position += length


def tables(name, interleaved=False, positions=None, **parameters):
    """Scaled rotary frequencies as their table: a case of kind "rope"."""
    from transformers.models.cohere import modeling_cohere
    from transformers.models.llama import modeling_llama

    r = casefile.rng("transformers/" + name)
    config = transformers.LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=4096,
                                      rope_parameters={"rope_theta": 10000.0, **parameters})
    cos, sin = modeling_llama.LlamaRotaryEmbedding(config)(torch.zeros(1, dtype=torch.float64), torch.arange(48)[None])
    x = torch.from_numpy(casefile.f32(r.standard_normal((2, 3, 5, 8)))).double()
    positions = torch.tensor(positions or [[0, 1, 2, 3, 4]] * 2)
    half = {"cos": cos[0, :, :4], "sin": sin[0, :, :4]}
    module, spread = modeling_llama, lambda t: torch.cat([t, t], -1)[positions]
    if interleaved:
        module, spread = modeling_cohere, lambda t: torch.repeat_interleave(t, 2, -1)[positions]
    rotated, _ = module.apply_rotary_pos_emb(x, x, spread(half["cos"]), spread(half["sin"]))
    t = {"x": x, **half, "rotated": rotated}
    stored = {n: np.asarray(array(v), np.float32) for n, v in t.items()}
    casefile.write(FOLDER / f"{name}.safetensors", {"kind": "rope", "interleaved": interleaved, "source": SOURCE.format("LlamaRotaryEmbedding")},
                   {**stored, "positions": positions.numpy()})


def rope_of(base):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": float(base)}}


def main():
    for old in FOLDER.glob("*.safetensors"):
        old.unlink()
    llama = {"hidden_size": 12, "intermediate_size": 8, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4}
    case("llama", "Llama", "layers.0.self_attn", {}, config=llama | rope_of(10000), then=3, rope={"base": 10000})
    case("llama_3_base", "Llama", "layers.0.self_attn", {}, config=llama | {"head_dim": 8} | rope_of(500000), then=1, rope={"base": 500000})
    case("qwen2", "Qwen2", "layers.0.self_attn", {}, config={**llama, "hidden_size": 24} | rope_of(1000000), then=2, rope={"base": 1000000})
    case("mistral", "Mistral", "layers.0.self_attn", {"window": [3, -1]}, config=llama | {"sliding_window": 4} | rope_of(10000),
         prompt=7, then=2, rope={"base": 10000})
    gemma = {**llama, "hidden_size": 18, "attn_logit_softcapping": 1.5, "query_pre_attn_scalar": 9, "sliding_window": 3}
    case("gemma2_window", "Gemma2", "layers.0.self_attn", {"window": [2, -1], "softcap": 1.5, "scale": 1 / 3},
         config=gemma | {"layer_types": ["sliding_attention"]} | rope_of(10000), prompt=6, then=1, rope={"base": 10000})
    case("gemma2_full", "Gemma2", "layers.0.self_attn", {"softcap": 1.5, "scale": 1 / 3},
         config=gemma | {"layer_types": ["full_attention"]} | rope_of(10000), prompt=6, then=2, rope={"base": 10000})
    oss = {**llama, "sliding_window": 3, "num_local_experts": 2, "num_experts_per_tok": 1, "attention_bias": True}
    case("gpt_oss_window", "GptOss", "layers.0.self_attn", {"window": [2, -1]},
         config=oss | {"layer_types": ["sliding_attention"]} | rope_of(150000), prompt=6, then=1, rope={"base": 150000})
    case("gpt_oss_full", "GptOss", "layers.0.self_attn", {},
         config=oss | {"layer_types": ["full_attention"]} | rope_of(150000), prompt=6, then=2, rope={"base": 150000})
    case("cohere", "Cohere", "layers.0.self_attn", {}, config={**llama, "hidden_size": 24, "use_qk_norm": False} | rope_of(10000), then=2,
         rope={"base": 10000, "interleaved": True})
    case("phi", "Phi", "layers.0.self_attn", {}, config={**llama, "hidden_size": 48, "head_dim": 8, "partial_rotary_factor": 0.5, "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}, then=2, rope={"base": 10000, "dims": 4})
    case("gpt_neox", "GPTNeoX", "layers.0.attention", {}, config={"hidden_size": 16, "intermediate_size": 8, "num_attention_heads": 2, "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}}, then=2, rope={"base": 10000, "dims": 2},
        fused=("query_key_value", True, "dense"))
    case("gptj", "GPTJ", "h.0.attn", {}, config={"n_embd": 16, "n_layer": 1, "n_head": 2, "n_inner": 8, "rotary_dim": 4}, then=2,
         rope={"base": 10000, "dims": 4, "interleaved": True})
    # Bloom's and MPT's ALiBi counts from the row's end; after the softmax that is the same.
    case("bloom", "Bloom", "h.0.self_attention", {"alibi": True}, config={"hidden_size": 12, "n_layer": 1, "n_head": 3}, then=2,
         fused=("query_key_value", True, "dense"), residual=True)
    case("mpt_6_heads", "Mpt", "blocks.0.attn", {"alibi": True}, config={"d_model": 12, "n_layers": 1, "n_heads": 6, "expansion_ratio": 1, "max_seq_len": 64},
         then=2, fused=("Wqkv", False, "out_proj"))
    tables("rope_table_linear", rope_type="linear", factor=4.0)
    tables("rope_table_llama3", rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32,
           positions=[[7, 8, 9, 10, 11], [0, 40, 47, 3, 3]])
    tables("rope_table_yarn", rope_type="yarn", factor=4.0, original_max_position_embeddings=16, positions=[[20, 21, 22, 23, 24], [0, 1, 2, 3, 4]])
    tables("rope_table_yarn_interleaved", interleaved=True, rope_type="yarn", factor=4.0, original_max_position_embeddings=16)


if __name__ == "__main__":
    main()
