"""Recomputes the outputs of every case with a float64 reference and reports disagreements.

    python verify.py [--f32] [--list] [PATH ...]      default: every case under ../cases

The reference is vectorised over whole arrays and shares no code with the generators but the reading of
files: the generators transliterate Flux, call other people's libraries, or go through a row key by key.

Without options an expected value may differ from the reference by a tenth of what the case allows, since
stored values are f32 and some libraries compute in f32. With --f32 every case is run a second and third
time in single precision, once by the textbook and once with base-two logits and a maximum rounded up to
an integer, and must fit into the whole tolerance: no case may ask for more than f32 can give.
"""

import sys
from pathlib import Path

import numpy as np

from casefile import CASES, full_dims, read, widen

TOLERANCE = [2e-5, 2e-5]
KEYS = set("dims heads weights scale causal causal_offset scores_at dropout y_tol scores_tol source".split())
TENSORS = set("q k v wq wk wv wo bq bk bv bo bias mask y scores".split())


# --- the reference -----------------------------------------------------------------------------------

def allowed(batch, q_len, kv_len, causal, offset):
    """[batch, 1, q_len, kv_len]: key j is visible to query i when j <= i + offset of its batch item"""
    if not causal:
        return np.ones((batch, 1, q_len, kv_len), bool)
    p = np.broadcast_to(np.asarray(offset), (batch,))[:, None, None, None] + np.arange(q_len)[:, None]
    return np.arange(kv_len) <= p


def softmax(z, ok):
    """Over the last axis; entries that are not ok get 0, and +Inf entries share their row."""
    z = np.where(ok, z, -np.inf)
    m = z.max(-1, keepdims=True, initial=-np.inf)
    m = np.where(np.isneginf(m), z.dtype.type(0), m)
    top = np.isposinf(m)
    e = np.where(ok, np.where(top, np.where(np.isnan(z), z, np.isposinf(z)), np.exp(z - m)), z.dtype.type(0))
    d = e.sum(-1, keepdims=True)
    return np.divide(e, d, out=np.zeros_like(e), where=d != 0)


def softmax_base_two(z, ok):
    """The same through 2^x with the row's maximum rounded up to an integer. A finite logit stays finite:
    times log2(e) the largest of them would not fit into an f32."""
    limit = np.finfo(z.dtype).max
    scaled = z * z.dtype.type(np.log2(np.e))
    z = np.where(ok, np.where(np.isfinite(z), np.clip(scaled, -limit, limit), scaled), z.dtype.type(-np.inf))
    m = np.ceil(z.max(-1, keepdims=True, initial=-np.inf))
    m = np.where(np.isneginf(m), z.dtype.type(0), m)
    top = np.isposinf(m)
    e = np.where(ok, np.where(top, np.where(np.isnan(z), z, np.isposinf(z)), np.exp2(z - m)), z.dtype.type(0))
    d = e.sum(-1, keepdims=True)
    return np.divide(e, d, out=np.zeros_like(e), where=d != 0)


def philox4x32(counter, key):
    """Ten rounds over uint32 arrays [4, ...] and two key words."""
    mask, (k0, k1) = np.uint64(0xFFFFFFFF), key
    c = [np.asarray(x, np.uint64) for x in counter]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), b & mask, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), a & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def check_philox():
    """Against the known answers published with Random123."""
    for counter, key, want in (
        ([0] * 4, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ):
        got = " ".join(f"{int(x):08x}" for x in philox4x32(counter, key))
        assert got == want, (got, want)


def keep(shape, p, seed):
    """Which scores of [batch, heads, q_len, kv_len] survive dropout."""
    b, h, i, j = np.indices(shape)
    words = np.stack(philox4x32((j // 4, i, h, b), (seed & 0xFFFFFFFF, seed >> 32)))
    word = np.take_along_axis(words, (j % 4)[None], 0)[0]
    return (word >> np.uint64(8)) >= np.uint64(np.floor(p * 2**24))


def reference(meta, t, soft=softmax):
    """y and scores of a whole case, in the precision of the tensors in t."""
    kind = t["q"].dtype.type
    heads, (q_in, k_in, v_in, qk, vd, out) = meta["heads"], full_dims(meta["dims"])
    lead = t["q"].shape[:-2]
    q, k, v = t["q"], t.get("k", t["q"]), t.get("v", t.get("k", t["q"]))
    assert (q.shape[-1], k.shape[-1], v.shape[-1]) == (q_in, k_in, v_in), "widths of q, k, v"
    assert k.shape[:-1] == v.shape[:-1] and k.shape[:-2] == lead, "batch and length of k and v"
    q, k, v = (x.reshape((int(np.prod(lead)), *x.shape[-2:])) for x in (q, k, v))
    order = meta.get("weights", "in_out")

    def project(x, letter, rows, cols):
        if order == "none":
            assert "w" + letter not in t and "b" + letter not in t
            return x
        w = t["w" + letter] if order == "in_out" else t["w" + letter].T
        assert w.shape == (rows, cols), "w" + letter
        return x @ w + t.get("b" + letter, kind(0))

    q, k, v = project(q, "q", q_in, qk), project(k, "k", k_in, qk), project(v, "v", v_in, vd)
    split = lambda x: x.reshape(*x.shape[:2], heads, x.shape[-1] // heads).transpose(0, 2, 1, 3)
    q, k, v = split(q), split(k), split(v)
    (batch, _, q_len, d), kv_len = q.shape, k.shape[2]
    shape = (batch, heads, q_len, kv_len)

    logits = q @ k.transpose(0, 1, 3, 2) * kind(meta.get("scale", 1 / np.sqrt(d)))
    ok = np.broadcast_to(allowed(batch, q_len, kv_len, meta.get("causal"), meta.get("causal_offset", 0)), shape)
    if "mask" in t:
        ok = ok & np.broadcast_to(t["mask"] != 0, shape)
    bias = np.broadcast_to(t.get("bias", kind(0)), shape)
    ok = ok & ~np.isneginf(bias)
    masked = np.where(ok, logits + np.where(ok, bias, kind(0)), kind(-np.inf))
    p = soft(masked, ok)
    if "dropout" in meta:
        drop = meta["dropout"]
        p = np.where(keep(shape, drop["p"], drop["seed"]), p * kind(1 / (1 - drop["p"])), kind(0))
    v = np.where(ok.any(2)[..., None], v, kind(0))  # what nobody sees never counts
    y = (p @ v).transpose(0, 2, 1, 3).reshape(batch, q_len, vd)
    y = project(y, "o", vd, out)
    scores = {"softmax": p, "logits": logits, "capped": logits, "masked": masked}[meta.get("scores_at", "softmax")]
    return y.reshape(*lead, q_len, y.shape[-1]), scores.reshape(*lead, heads, q_len, kv_len)


# --- comparison --------------------------------------------------------------------------------------

def worst(expected, actual, tolerance):
    """(largest finite difference, largest share of the tolerance used); equal infinities and pairs of NaN pass."""
    e, a = expected.astype(np.float64), actual.astype(np.float64)
    same = (np.isnan(e) & np.isnan(a)) | (e == a)
    if same.all():
        return 0.0, 0.0
    with np.errstate(invalid="ignore"):  # infinity less infinity, where they are equal
        error = np.where(same, 0, np.abs(a - e))
    used = error / (tolerance[0] + tolerance[1] * np.where(np.isfinite(e), np.abs(e), 0))
    used = np.where(np.isfinite(error), used, np.inf)
    return error.max(), used.max()


def check(path, single):
    """A list of complaints about one case, and the largest share of the tolerance that f32 used."""
    meta, stored = read(path)
    complaints = [f"unknown {what}" for what in sorted(set(meta) - KEYS | set(stored) - TENSORS)]
    if not {"y", "scores"} & set(stored):
        complaints.append("nothing expected")
    share = 0.0
    runs = [("float64", widen(stored), softmax, 0.1)]
    if single:
        narrow = {n: x.astype(np.float32) if x.dtype.kind == "f" else x for n, x in widen(stored).items()}
        runs += [("f32", narrow, softmax, 1.0), ("f32 base two", narrow, softmax_base_two, 1.0)]
    for label, tensors, soft, limit in runs:
        with np.errstate(all="ignore"):
            results = dict(zip(("y", "scores"), reference(meta, tensors, soft)))
        for name, actual in results.items():
            if name not in stored:
                continue
            if actual.shape != stored[name].shape:
                complaints.append(f"{name} has shape {stored[name].shape}, {actual.shape} expected")
                continue
            error, used = worst(stored[name], actual, meta.get(name + "_tol", TOLERANCE))
            if label != "float64":
                share = max(share, used)
            if not used <= limit:
                complaints.append(f"{label} {name}: error {error:.3g}, {used:.2f} of the tolerance")
    return complaints, share


def main(arguments, check=check, folder=CASES):
    """Checks the files and folders among the arguments, or a folder."""
    check_philox()
    single, listing = "--f32" in arguments, "--list" in arguments
    roots = [Path(a) for a in arguments if not a.startswith("--")] or [folder]
    paths = sorted(p for root in roots for p in ([root] if root.is_file() else root.rglob("*.safetensors")) if p.parent.name != "invalid")
    try:
        from safetensors import deserialize
    except ImportError:
        deserialize = None  # the format check needs the package, the numbers do not
    failed = 0
    for path in paths:
        if deserialize:
            deserialize(path.read_bytes())
        complaints, share = check(path, single)
        failed += bool(complaints)
        for c in complaints:
            print(f"{path.parent.name}/{path.name}: {c}")
        if listing and single:
            print(f"{path.parent.name}/{path.name}: f32 uses {share:.3f} of the tolerance")
    print(f"{len(paths) - failed} agree, {failed} disagree")
    return 1 if failed or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
