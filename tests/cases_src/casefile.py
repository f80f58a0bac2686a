"""Reading and writing case files: a layer, its inputs and the outputs that someone computed for them,
in one safetensors file whose metadata entry `mha` is a JSON description of the call.

The format is written by hand here (eight bytes of header length, JSON, raw little-endian data): it is
short, and the order of the tensors and every byte then depend on nothing but our own code.
"""

import hashlib
import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np

CASES = Path(__file__).resolve().parent.parent / "cases"

DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "U8": np.uint8, "BOOL": np.bool_,
}
NAMES = {np.dtype(t): name for name, t in DTYPES.items()}
ORDER = "q k v wq bq wk bk wv bv wo bo bias mask y scores".split()


def encode(tensors, metadata):
    """The bytes of a safetensors file. float64 becomes f32: that is what a case holds."""
    header = {"__metadata__": metadata} if metadata is not None else {}
    data = b""
    for name in sorted(tensors, key=lambda n: (ORDER.index(n) if n in ORDER else len(ORDER), n)):
        x = np.asarray(tensors[name])
        if x.dtype == np.float64:
            x = x.astype(np.float32)
        raw = x.tobytes()  # always row-major, whatever the strides
        header[name] = {"dtype": NAMES[x.dtype], "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write(path, meta, tensors):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(tensors, {"mha": json.dumps(meta)}))


def read(path):
    """The description and the tensors, each in the type it is stored in."""
    raw = Path(path).read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + size])
    meta = json.loads(header.pop("__metadata__")["mha"])
    tensors = {}
    for name, t in header.items():
        begin, end = t["data_offsets"]
        tensors[name] = np.frombuffer(raw[8 + size + begin:8 + size + end], DTYPES[t["dtype"]]).reshape(t["shape"])
    return meta, tensors


def widen(tensors):
    """The float tensors in float64 as they are after rounding to their stored type, the others untouched."""
    return {n: x if x.dtype in (np.bool_, np.uint8, np.int64) else x.astype(np.float64) for n, x in tensors.items()}


def full_dims(dims):
    """(q_in, k_in, v_in, qk, v, out) from a number or a partial object."""
    if not isinstance(dims, dict):
        return (dims,) * 6
    q_in = dims["q_in"]
    qk = dims.get("qk", q_in)
    return q_in, dims.get("k_in", q_in), dims.get("v_in", q_in), qk, dims.get("v", qk), dims.get("out", q_in)


def rng(name):
    """A generator that depends on the case's name alone, so adding a case does not change the others."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def f32(x):
    return np.asarray(x).astype(np.float32)


def build(name, dims, heads, *, batch=(2,), q_len=3, kv_len=5, call="qkv", weights="in_out", biases="",
          bias=None, mask=None, cast=None, given=None, **keys):
    """The description and the input tensors of a case, without its outputs.

    batch   leading axes of q, k and v; () for none
    call    "qkv", "qk" (v is k) or "q" (self-attention, kv_len is q_len)
    biases  which projections have one: any of the letters q k v o
    bias, mask   a shape to fill at random, or an array
    cast    tensor name -> type to store it in
    given   tensors to use in place of the random ones
    keys    further entries of the description
    """
    r = rng(name)
    q_in, k_in, v_in, qk, v, out = full_dims(dims)
    kv_len = q_len if call == "q" else kv_len
    t = {"q": r.standard_normal((*batch, q_len, q_in))}
    if "k" in call:
        t["k"] = r.standard_normal((*batch, kv_len, k_in))
    if "v" in call:
        t["v"] = r.standard_normal((*batch, kv_len, v_in))
    if weights != "none":
        for letter, rows, cols in (("q", q_in, qk), ("k", k_in, qk), ("v", v_in, v), ("o", v, out)):
            limit = np.sqrt(6 / (rows + cols))  # glorot_uniform, Flux's default
            w = r.uniform(-limit, limit, (rows, cols))
            t["w" + letter] = w if weights == "in_out" else w.T
            if letter in biases:
                t["b" + letter] = r.uniform(-0.5, 0.5, cols)
    if bias is not None:
        t["bias"] = r.standard_normal(bias) if isinstance(bias, tuple) else bias
    if mask is not None:
        if isinstance(mask, tuple):
            m = r.random(mask) < 0.6
            if not m.any():
                m.flat[0] = True
            mask = m
        t["mask"] = np.asarray(mask)
    t.update(given or {})
    for n, x in t.items():
        x = np.asarray(x)
        t[n] = x.astype((cast or {}).get(n, np.float32 if x.dtype == np.float64 else x.dtype))
    meta = {"dims": dims, "heads": heads}
    if weights != "in_out":
        meta["weights"] = weights
    meta.update(keys)
    return meta, t
