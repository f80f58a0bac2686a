"""Recomputes every case under ../cases_family with a vectorised float64 reference and reports disagreements.

    python verify_family.py [--f32] [--list] [PATH ...]

The counterpart of verify.py for every key of the format, over whole arrays, sharing nothing with the generators
but the reading of files. The same limits: in float64 a tenth of the usual tolerance, or the whole of one that
the case brings with it; with --f32 each case runs twice more, in single precision, and may use the whole.
"""

import sys

import numpy as np

from casefile import CASES, full_dims, read, widen
from verify import TOLERANCE, keep, main, softmax, softmax_base_two, worst

FOLDER = CASES.parent / "cases_family"
KEYS = set("dims heads kv_heads weights scale causal causal_offset window softcap alibi rope scores_at dropout y_tol scores_tol source".split())
TENSORS = set("q k v wq wk wv wo bq bk bv bo bias mask kv_lens past_k past_v present_k present_v sinks y scores".split())
ROPE_KEYS = set("kind interleaved rotated_tol source".split())
ROPE_TENSORS = set("x cos sin positions rotated".split())


def alibi_slopes(h, max_bias=8.0):
    n2 = 1 << (h.bit_length() - 1)
    m0, m1 = 2.0 ** (-max_bias / n2), 2.0 ** (-max_bias / 2 / n2)
    return np.array([m0 ** (i + 1) if i < n2 else m1 ** (2 * (i - n2) + 1) for i in range(h)])


def rotated(x, cos, sin, interleaved):
    """x [..., d]; cos and sin broadcast to [..., r/2]"""
    r = 2 * cos.shape[-1]
    h, y = r // 2, x.copy()
    a, b = (x[..., 0:r:2], x[..., 1:r:2]) if interleaved else (x[..., :h], x[..., h:r])
    u, w = a * cos - b * sin, b * cos + a * sin
    if interleaved:
        y[..., 0:r:2], y[..., 1:r:2] = u, w
    else:
        y[..., :h], y[..., h:r] = u, w
    return y


def with_sinks(soft, z, ok, sinks):
    """The sink as one more key, first, whose share nobody gets."""
    if sinks is None:
        return soft(z, ok)
    column = np.broadcast_to(sinks[None, :, None, None], (*z.shape[:-1], 1))
    p = soft(np.concatenate([column, z], -1), np.concatenate([np.ones_like(column, bool), ok], -1))
    return p[..., 1:]


def reference(meta, t, soft):
    """Every output of a case, in the precision of its tensors."""
    kind = t["q"].dtype.type
    heads, (q_in, k_in, v_in, qk, vd, out) = meta["heads"], full_dims(meta["dims"])
    groups = meta.get("kv_heads", heads)
    assert heads % groups == 0 and qk % heads == 0 and vd % heads == 0
    d, dv = qk // heads, vd // heads
    lead = t["q"].shape[:-2]
    q, k, v = t["q"], t.get("k", t["q"]), t.get("v", t.get("k", t["q"]))
    assert (q.shape[-1], k.shape[-1], v.shape[-1]) == (q_in, k_in, v_in), "widths of q, k, v"
    assert k.shape[:-1] == v.shape[:-1] and k.shape[:-2] == lead, "batch and length of k and v"
    q, k, v = (x.reshape((int(np.prod(lead)), *x.shape[-2:])) for x in (q, k, v))
    order = meta.get("weights", "in_out")

    def project(x, letter, rows, cols):
        if order == "none":
            assert "w" + letter not in t and "b" + letter not in t and rows == cols
            return x
        w = t["w" + letter] if order == "in_out" else t["w" + letter].T
        assert w.shape == (rows, cols), "w" + letter
        return x @ w + t.get("b" + letter, kind(0))

    q, k, v = project(q, "q", q_in, qk), project(k, "k", k_in, groups * d), project(v, "v", v_in, groups * dv)
    split = lambda x, n: x.reshape(*x.shape[:2], n, x.shape[-1] // n).transpose(0, 2, 1, 3)
    q, k, v = split(q, heads), split(k, groups), split(v, groups)
    if "rope" in meta:
        rope = meta["rope"]
        assert not set(rope) - set("base dims interleaved q_offset k_offset".split())
        r = rope.get("dims", d)

        def turn(x, offset):
            theta = kind(rope.get("base", 1e4)) ** (-np.arange(0, r, 2, dtype=kind) / kind(r))
            angle = (offset + np.arange(x.shape[2], dtype=kind))[:, None] * theta
            return rotated(x, np.cos(angle), np.sin(angle), rope.get("interleaved", False))

        q, k = turn(q, rope.get("q_offset", 0)), turn(k, rope.get("k_offset", 0))
    past = 0
    if "past_k" in t:
        past = t["past_k"].shape[2]
        k, v = np.concatenate([t["past_k"], k], 2), np.concatenate([t["past_v"], v], 2)
    present = k, v
    k, v = np.repeat(k, heads // groups, 1), np.repeat(v, heads // groups, 1)
    (batch, _, q_len, _), kv_len = q.shape, k.shape[2]
    shape = (batch, heads, q_len, kv_len)

    logits = q @ k.transpose(0, 1, 3, 2) * kind(meta.get("scale", 1 / np.sqrt(d)))
    cap = meta.get("softcap")
    capped = kind(cap) * np.tanh(logits / kind(cap)) if cap else logits
    p = (np.broadcast_to(np.asarray(meta.get("causal_offset", past)), (batch,))[:, None] + np.arange(q_len))[:, None, :, None]
    j = np.arange(kv_len)
    ok = np.ones(shape, bool)
    if meta.get("causal"):
        ok &= j <= p
    left, right = meta.get("window", (-1, -1))
    if left >= 0:
        ok &= j >= p - left
    if right >= 0:
        ok &= j <= p + right
    if "kv_lens" in t:
        ok &= j < t["kv_lens"][:, None, None, None]
    if "mask" in t:
        ok &= np.broadcast_to(t["mask"] != 0, shape)
    bias = np.broadcast_to(t.get("bias", kind(0)), shape)
    ok &= ~np.isneginf(bias)
    added = np.where(ok, bias, kind(0))
    if meta.get("alibi"):
        m = alibi_slopes(heads) if meta["alibi"] is True else np.array(meta["alibi"], float)
        added = added - (m[:, None, None] * np.abs(p - j)).astype(kind)
    masked = np.where(ok, capped + added, kind(-np.inf))
    w = with_sinks(soft, masked, ok, t.get("sinks"))
    if "dropout" in meta:
        drop = meta["dropout"]
        w = np.where(keep(shape, drop["p"], drop["seed"]), w * kind(1 / (1 - drop["p"])), kind(0))
    v = np.where(ok.any(2)[..., None], v, kind(0))  # what nobody sees never counts
    y = (w @ v).transpose(0, 2, 1, 3).reshape(batch, q_len, vd)
    y = project(y, "o", vd, out)
    scores = {"softmax": w, "logits": logits, "capped": capped, "masked": masked}[meta.get("scores_at", "softmax")]
    return {"y": y.reshape(*lead, q_len, out), "scores": scores.reshape(*lead, heads, q_len, kv_len),
            "present_k": present[0], "present_v": present[1]}


def rope_reference(meta, t):
    """A case of kind "rope"."""
    cos, sin = t["cos"], t["sin"]
    if "positions" in t:
        cos, sin = cos[t["positions"]], sin[t["positions"]]
    return {"rotated": rotated(t["x"], cos[:, None], sin[:, None], meta.get("interleaved", False))}


def check(path, single):
    """A list of complaints about one case, and the largest share of the tolerance that f32 used."""
    meta, stored = read(path)
    rope = meta.get("kind") == "rope"
    keys, names = (ROPE_KEYS, ROPE_TENSORS) if rope else (KEYS, TENSORS)
    complaints = [f"unknown {what}" for what in sorted(set(meta) - keys | set(stored) - names)]
    outputs = ["rotated"] if rope else ["y", "scores", "present_k", "present_v"]
    if not {"y", "scores", "rotated"} & set(stored):
        complaints.append("nothing expected")
    share = 0.0
    runs = [("float64", widen(stored), softmax)]
    if single:
        narrow = {n: x.astype(np.float32) if x.dtype.kind == "f" else x for n, x in widen(stored).items()}
        runs += [("f32", narrow, softmax), ("f32 base two", narrow, softmax_base_two)]
    for label, tensors, soft in runs:
        with np.errstate(all="ignore"):
            results = rope_reference(meta, tensors) if rope else reference(meta, tensors, soft)
        for name in outputs:
            if name not in stored:
                continue
            if results[name].shape != stored[name].shape:
                complaints.append(f"{name} has shape {stored[name].shape}, {results[name].shape} expected")
                continue
            error, used = worst(stored[name], results[name], meta.get(name + "_tol", TOLERANCE))
            if label != "float64":
                share = max(share, used)
            if not used <= (0.1 if label == "float64" and name + "_tol" not in meta else 1.0):
                complaints.append(f"{label} {name}: error {error:.3g}, {used:.2f} of the tolerance")
    return complaints, share


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], check, FOLDER))
