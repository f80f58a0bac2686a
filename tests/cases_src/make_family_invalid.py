"""Files of the attention family that must be refused, as make_invalid.py makes those of the layer: `index.json`
has the word that the message must hold, the key or tensor at fault."""

import json

import numpy as np

from casefile import encode, f32
from family import FOLDER as ROOT
from family import build, forward

FOLDER = ROOT / "invalid"
index = {}


def broken(name, word, *, keys=None, drop=(), tensors=None, **options):
    """A good case of four heads over two, with everything, changed in one place."""
    good = {"kv_heads": 2, "past": 3, "q_len": 2, "kv_len": 2, "causal": True, "window": [3, 0], "softcap": 2.0, "alibi": True, "sinks": True,
            "kv_lens": [4, 5], "rope": {"base": 10000, "dims": 4, "interleaved": False, "q_offset": 3, "k_offset": 3}}
    layer = options.pop("dims_of_layer", None)
    meta, t = build("invalid", layer or 4, 4, **good | ({"rope": {}} if layer else {}) | options)
    results = forward(meta, t)
    t |= {n: f32(results[n]) for n in ("y", "scores", "present_k", "present_v")}
    t |= tensors or {}
    index[f"{name}.safetensors"] = word
    (FOLDER / f"{name}.safetensors").write_bytes(
        encode({n: x for n, x in t.items() if n not in drop}, {"mha": json.dumps(meta | (keys or {}))}))


def floats(*shape):
    return np.ones(shape, np.float32)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, value in (("zero", 0), ("negative", -2), ("fractional", 1.5), ("a_string", "two"), ("more_than_heads", 8), ("do_not_divide", 3)):
        broken(f"kv_heads_{name}", "kv_heads", keys={"kv_heads": value})
    broken("kv_heads_too_wide_k", "k", tensors={"k": floats(2, 2, 16)})
    broken("kv_heads_too_narrow_v", "v", tensors={"v": floats(2, 2, 4)})
    dims = {"q_in": 5, "qk": 8, "v": 8, "out": 3}
    broken("kv_heads_wk_of_all_heads", "wk", weights="in_out", dims_of_layer=dims, tensors={"wk": floats(5, 8)})
    broken("kv_heads_wv_of_all_heads", "wv", weights="in_out", dims_of_layer=dims, tensors={"wv": floats(5, 8)})
    broken("kv_heads_bk_of_all_heads", "bk", weights="in_out", dims_of_layer=dims, biases="k", tensors={"bk": floats(8)})

    for name, value in (("a_number", 3), ("three_numbers", [1, 2, 3]), ("below_minus_one", [-2, 0]), ("fractional", [1.5, 0]), ("of_strings", ["1", "2"])):
        broken(f"window_{name}", "window", keys={"window": value})
    for name, value in (("negative", -1.0), ("a_string", "2"), ("a_list", [2])):
        broken(f"softcap_{name}", "softcap", keys={"softcap": value})
    for name, value in (("a_number", 1), ("too_few", [0.5]), ("too_many", [0.5] * 5), ("of_strings", ["a"] * 4)):
        broken(f"alibi_{name}", "alibi", keys={"alibi": value})

    rope = {"base": 10000, "dims": 4, "interleaved": False, "q_offset": 3, "k_offset": 3}
    broken("rope_true", "rope", keys={"rope": True})
    broken("rope_dims_odd", "dims", keys={"rope": rope | {"dims": 3}})
    broken("rope_dims_wider_than_a_head", "dims", keys={"rope": rope | {"dims": 6}})
    broken("rope_dims_zero", "dims", keys={"rope": rope | {"dims": 0}})
    broken("rope_base_zero", "base", keys={"rope": rope | {"base": 0}})
    broken("rope_base_negative", "base", keys={"rope": rope | {"base": -10000}})
    broken("rope_interleaved_a_number", "interleaved", keys={"rope": rope | {"interleaved": 1}})
    broken("rope_offset_fractional", "q_offset", keys={"rope": rope | {"q_offset": 0.5}})
    broken("rope_member_unknown", "theta", keys={"rope": rope | {"theta": 10000}})

    broken("kv_lens_too_few", "kv_lens", tensors={"kv_lens": np.array([4])})
    broken("kv_lens_negative", "kv_lens", tensors={"kv_lens": np.array([4, -1])})
    broken("kv_lens_beyond_the_keys", "kv_lens", tensors={"kv_lens": np.array([4, 6])})
    broken("kv_lens_of_floats", "kv_lens", tensors={"kv_lens": floats(2)})
    broken("kv_lens_two_axes", "kv_lens", tensors={"kv_lens": np.array([[4, 5]])})

    broken("sinks_too_few", "sinks", tensors={"sinks": floats(2)})
    broken("sinks_two_axes", "sinks", tensors={"sinks": floats(1, 4)})
    broken("sinks_of_integers", "sinks", tensors={"sinks": np.ones(4, np.int64)})

    broken("past_v_missing", "past_v", drop=["past_v"])
    broken("past_k_missing", "past_k", drop=["past_k"])
    broken("past_k_heads", "past_k", tensors={"past_k": floats(2, 4, 3, 4)})
    broken("past_k_batch", "past_k", tensors={"past_k": floats(1, 2, 3, 4)})
    broken("past_k_width", "past_k", tensors={"past_k": floats(2, 2, 3, 3)})
    broken("past_v_length", "past_v", tensors={"past_v": floats(2, 2, 4, 4)})
    broken("past_k_three_axes", "past_k", tensors={"past_k": floats(2, 3, 8)})
    broken("present_k_length", "present_k", tensors={"present_k": floats(2, 2, 3, 4)})
    broken("present_without_past", "present_k", drop=["past_k", "past_v"])
    broken("scores_without_past", "scores", tensors={"scores": floats(2, 4, 2, 2)})
    broken("mask_without_past", "mask", tensors={"mask": np.ones((2, 2), bool)})

    x, table, rotated = floats(2, 3, 5, 8), floats(16, 4), floats(2, 3, 5, 8)
    good = {"x": x, "cos": table, "sin": table, "rotated": rotated}

    def rotary(name, word, keys=None, **tensors):
        index[f"{name}.safetensors"] = word
        tensors = {n: t for n, t in (good | tensors).items() if t is not None}
        meta = {"kind": "rope", "interleaved": False} | (keys or {})
        (FOLDER / f"{name}.safetensors").write_bytes(encode(tensors, {"mha": json.dumps(meta)}))

    positions = np.tile(np.arange(5), (2, 1))
    rotary("kind_unknown", "kind", {"kind": "rotary"}, positions=positions)
    rotary("kind_rope_key_unknown", "base", {"base": 10000}, positions=positions)
    rotary("kind_rope_no_positions", "cos")
    rotary("kind_rope_position_beyond", "positions", positions=positions + 12)
    rotary("kind_rope_position_negative", "positions", positions=positions - 1)
    rotary("kind_rope_positions_length", "positions", positions=positions[:, :4])
    rotary("kind_rope_table_wider_than_x", "cos", cos=floats(16, 5), sin=floats(16, 5), positions=positions)
    rotary("kind_rope_sin_unlike_cos", "sin", sin=floats(16, 3), positions=positions)
    rotary("kind_rope_without_rotated", "rotated", rotated=None, positions=positions)
    (FOLDER / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
