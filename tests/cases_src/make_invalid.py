"""Files that must be refused, and for each the word that the message must hold: the key or tensor at fault,
`mha` where the metadata entry itself is, `safetensors` where the file is not one."""

import json
import struct

import numpy as np

import casefile
from casefile import build, encode
from textbook import forward

FOLDER = casefile.CASES / "invalid"
DIMS = {"q_in": 6, "k_in": 6, "v_in": 6, "qk": 8, "v": 4, "out": 5}
index = {}


def good(**options):
    meta, tensors = build("invalid", DIMS, 2, biases="qkvo", **options)
    y, scores = forward(meta, tensors)
    return meta, {**tensors, "y": y.astype(np.float32), "scores": scores.astype(np.float32)}


def put(name, word, raw):
    index[f"{name}.safetensors"] = word
    (FOLDER / f"{name}.safetensors").write_bytes(raw)


def broken(name, word, *, keys=None, drop_keys=(), tensors=None, drop=(), **options):
    """A good case with keys or tensors changed or taken away."""
    meta, t = good(**options)
    meta.update(keys or {})
    t.update(tensors or {})
    meta = {k: v for k, v in meta.items() if k not in drop_keys}
    t = {k: v for k, v in t.items() if k not in drop}
    put(name, word, encode(t, {"mha": json.dumps(meta)}))


def with_header(raw, change):
    """The same file with its header edited as text."""
    (size,) = struct.unpack("<Q", raw[:8])
    text = change(raw[8:8 + size].decode()).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + size:]


def floats(*shape):
    return np.ones(shape, np.float32)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)

    # The file
    meta, t = good()
    raw = encode(t, {"mha": json.dumps(meta)})
    put("empty_file", "safetensors", b"")
    put("text_file", "safetensors", b"This is not a case.\n")
    put("truncated_data", "safetensors", raw[:-10])
    put("truncated_header", "safetensors", raw[:100])
    put("trailing_bytes", "safetensors", raw + b"\0\0\0\0")
    put("header_length_absurd", "safetensors", struct.pack("<Q", 2**63) + raw[8:])
    put("header_not_json", "safetensors", with_header(raw, lambda h: h.replace("{", "[", 1)))
    put("offsets_beyond_the_end", "safetensors", with_header(raw, lambda h: h.replace('"data_offsets":[0,', '"data_offsets":[4,')))
    put("dtype_unknown", "F31", with_header(raw, lambda h: h.replace('"F32"', '"F31"', 1)))
    put("metadata_missing", "mha", encode(t, None))
    put("metadata_entry_missing", "mha", encode(t, {"format": "pt"}))
    put("metadata_not_json", "mha", encode(t, {"mha": "dims: 8"}))
    put("metadata_not_an_object", "mha", encode(t, {"mha": "[8, 2]"}))

    # The description
    broken("key_unknown", "windows", keys={"windows": [1, 1]})
    broken("key_misspelt_scale", "sclae", keys={"sclae": 0.5})
    broken("key_in_capitals", "Causal", keys={"Causal": True})
    broken("dims_missing", "dims", drop_keys=["dims"])
    broken("dims_a_string", "dims", keys={"dims": "8"})
    # Only the width is wrong: every tensor fits it.
    broken("dims_zero", "dims", keys={"dims": 0}, drop=["scores"], tensors={
        **{n: floats(2, 5 if n in "kv" else 3, 0) for n in "qkvy"},
        **{f"w{n}": floats(0, 0) for n in "qkvo"}, **{f"b{n}": floats(0) for n in "qkvo"}})
    broken("dims_negative", "dims", keys={"dims": -8})
    broken("dims_fractional", "dims", keys={"dims": 6.5})
    broken("dims_member_zero", "dims", keys={"dims": {**DIMS, "qk": 0}}, tensors={
        "wq": floats(6, 0), "wk": floats(6, 0), "bq": floats(0), "bk": floats(0)})
    broken("dims_member_unknown", "value", keys={"dims": {**DIMS, "value": 4}})
    broken("dims_without_q_in", "q_in", keys={"dims": {"qk": 8, "out": 5}})
    broken("heads_missing", "heads", drop_keys=["heads"])
    broken("heads_zero", "heads", keys={"heads": 0}, drop=["scores"])
    broken("heads_do_not_divide_qk", "heads", keys={"heads": 3}, drop=["scores"])
    broken("heads_do_not_divide_v", "heads", keys={"heads": 8}, drop=["scores"])
    broken("kv_heads_do_not_divide", "kv_heads", keys={"kv_heads": 3})
    broken("weights_unknown", "weights", keys={"weights": "in-out"})
    broken("scale_a_string", "scale", keys={"scale": "half"})
    broken("causal_a_string", "causal", keys={"causal": "yes"})
    broken("causal_offset_fractional", "causal_offset", keys={"causal": True, "causal_offset": 1.5})
    broken("causal_offset_too_few", "causal_offset", keys={"causal": True, "causal_offset": [1]})
    broken("causal_offset_too_many", "causal_offset", keys={"causal": True, "causal_offset": [1, 2, 3]})
    broken("window_a_string", "window", keys={"window": "left"})
    broken("window_one_number", "window", keys={"window": [3]})
    broken("softcap_negative", "softcap", keys={"softcap": -1})
    broken("rope_a_number", "rope", keys={"rope": 10000})
    broken("alibi_a_string", "alibi", keys={"alibi": "usual"})
    broken("scores_at_unknown", "scores_at", keys={"scores_at": "raw"})
    broken("dropout_p_above_one", "dropout", keys={"dropout": {"p": 1.5, "seed": 1}})
    broken("dropout_p_one", "dropout", keys={"dropout": {"p": 1, "seed": 1}})
    broken("dropout_p_negative", "dropout", keys={"dropout": {"p": -0.5, "seed": 1}})
    broken("dropout_without_seed", "seed", keys={"dropout": {"p": 0.5}})
    broken("dropout_seed_negative", "seed", keys={"dropout": {"p": 0.5, "seed": -1}})
    broken("dropout_a_number", "dropout", keys={"dropout": 0.5})
    broken("y_tol_one_number", "y_tol", keys={"y_tol": 1e-5})
    broken("y_tol_negative", "y_tol", keys={"y_tol": [-1e-5, 1e-5]})
    broken("source_a_number", "source", keys={"source": 3})

    # The tensors
    broken("tensor_unknown", "wz", tensors={"wz": floats(6, 8)})
    broken("nothing_expected", "y", drop=["y", "scores"])
    broken("q_missing", "q", drop=["q"])
    broken("v_without_k", "k", drop=["k"])
    for n in ("wq", "wk", "wv", "wo"):
        broken(f"{n}_missing", n, drop=[n])
    broken("wq_wrong_order", "wq", tensors={"wq": floats(8, 6)})
    broken("wo_wrong_order", "wo", tensors={"wo": floats(5, 4)})
    broken("wk_three_axes", "wk", tensors={"wk": floats(1, 6, 8)})
    broken("wv_too_small", "wv", tensors={"wv": floats(6, 3)})
    broken("bq_too_long", "bq", tensors={"bq": floats(9)})
    broken("bk_two_axes", "bk", tensors={"bk": floats(1, 8)})
    broken("bo_too_short", "bo", tensors={"bo": floats(4)})
    broken("weights_none_with_wq", "wq", keys={"weights": "none", "dims": 6}, drop=["wk", "wv", "wo", "bq", "bk", "bv", "bo"])
    broken("weights_none_widths", "dims", keys={"weights": "none"}, drop=["wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"])
    broken("q_one_axis", "q", tensors={"q": floats(6)})
    broken("q_width", "q", tensors={"q": floats(2, 3, 7)})
    broken("k_width", "k", tensors={"k": floats(2, 5, 7)})
    broken("k_batch", "k", tensors={"k": floats(3, 5, 6)})
    broken("v_batch", "v", tensors={"v": floats(1, 5, 6)})
    broken("v_length", "v", tensors={"v": floats(2, 4, 6)})
    broken("q_integers", "q", tensors={"q": np.ones((2, 3, 6), np.int32)})
    broken("q_bool", "q", tensors={"q": np.ones((2, 3, 6), bool)})
    broken("mask_of_floats", "mask", tensors={"mask": floats(3, 5)})
    broken("bias_of_bools", "bias", tensors={"bias": np.ones((3, 5), bool)})
    broken("mask_does_not_broadcast", "mask", tensors={"mask": np.ones((3, 4), bool)})
    broken("mask_heads", "mask", tensors={"mask": np.ones((2, 3, 3, 5), bool)})
    broken("mask_five_axes", "mask", tensors={"mask": np.ones((1, 1, 1, 3, 5), bool)})
    broken("mask_key_axis_first", "mask", tensors={"mask": np.ones((5, 3), bool)})
    broken("bias_does_not_broadcast", "bias", tensors={"bias": floats(2, 5)})
    broken("bias_batch", "bias", tensors={"bias": floats(3, 1, 1, 5)})
    broken("y_shape", "y", tensors={"y": floats(2, 3, 6)})
    broken("y_queries", "y", tensors={"y": floats(2, 4, 5)})
    broken("scores_heads", "scores", tensors={"scores": floats(2, 4, 3, 5)})
    broken("scores_transposed", "scores", tensors={"scores": floats(2, 2, 5, 3)})
    broken("y_integers", "y", tensors={"y": np.ones((2, 3, 5), np.int32)})

    (FOLDER / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
