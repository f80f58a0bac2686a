"""The whole layer one number at a time, in plain Python floats with exact sums: too slow for anything but
small cases, and too simple to be wrong in the way a vectorised version is. It never looks at a key that a
query does not see, so whatever lies in one (NaN, infinity) cannot matter.
"""

import math

import numpy as np

import casefile
from casefile import build, full_dims


def total(terms):
    """The correctly rounded sum; infinities and NaN as IEEE addition has them."""
    terms = list(terms)
    if all(math.isfinite(x) for x in terms):
        return math.fsum(terms)
    return sum(terms)


def project(rows, w, b):
    """[len][in] by [in][out]"""
    return [[total([x * w[i][o] for i, x in enumerate(row)] + [b[o] if b is not None else 0.0]) for o in range(len(w[0]))]
            for row in rows]


def softmax(logits):
    """Of the logits of the visible keys, never empty."""
    if any(math.isnan(x) for x in logits):
        return [math.nan] * len(logits)
    top = max(logits)
    if top == math.inf:
        shares = logits.count(math.inf)
        return [1 / shares if x == math.inf else 0.0 for x in logits]
    e = [math.exp(x - top) for x in logits]
    whole = math.fsum(e)
    return [x / whole for x in e]


def philox4x32(counter, key):
    """Philox4x32-10 (Salmon and others, "Parallel random numbers: as easy as 1, 2, 3", 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = b >> 32 ^ c1 ^ k0, b & 0xFFFFFFFF, a >> 32 ^ c3 ^ k1, a & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def dropped(p, seed, batch, head, query, key):
    """Word key % 4 of the block (key / 4, query, head, batch); its upper 24 bits against p."""
    word = philox4x32((key // 4, query, head, batch), (seed & 0xFFFFFFFF, seed >> 32))[key % 4]
    return word >> 8 < math.floor(p * 2**24)


def forward(meta, stored):
    """y and scores of a case, in its own axes."""
    t = casefile.widen(stored)
    heads, (*_, qk, vd, out) = meta["heads"], full_dims(meta["dims"])
    lead, q_len = t["q"].shape[:-2], t["q"].shape[-2]
    kv_len = t.get("k", t["q"]).shape[-2]
    batch = math.prod(lead)
    flat = {n: t[n].reshape(batch, *t[n].shape[-2:]).tolist() for n in "qkv" if n in t}
    flat.setdefault("k", flat["q"])
    flat.setdefault("v", flat["k"])
    order = meta.get("weights", "in_out")
    weights = {n: (t["w" + n] if order == "in_out" else t["w" + n].T).tolist() for n in "qkvo" if "w" + n in t}
    biases = {n: t["b" + n].tolist() for n in "qkvo" if "b" + n in t}
    shape = (batch, heads, q_len, kv_len)
    bias = np.broadcast_to(t.get("bias", 0.0), shape)
    mask = np.broadcast_to(t.get("mask", True), shape)
    offsets = np.broadcast_to(meta.get("causal_offset", 0), (batch,)).tolist()
    dq, dv = qk // heads, vd // heads
    scale = meta.get("scale", 1 / math.sqrt(dq))
    at = meta.get("scores_at", "softmax")
    drop = meta.get("dropout")

    y = np.zeros((batch, q_len, out))
    scores = np.zeros(shape)
    for b in range(batch):
        q, k, v = (flat[n][b] if order == "none" else project(flat[n][b], weights[n], biases.get(n)) for n in "qkv")
        mixed = [[0.0] * vd for _ in range(q_len)]
        for h in range(heads):
            for i in range(q_len):
                query = q[i][h * dq:(h + 1) * dq]

                def logit(j):
                    return scale * total(x * z for x, z in zip(query, k[j][h * dq:(h + 1) * dq]))

                visible = [j for j in range(kv_len)
                           if mask[b, h, i, j] and bias[b, h, i, j] != -math.inf and (not meta.get("causal") or j <= i + offsets[b])]
                biased = [logit(j) + float(bias[b, h, i, j]) for j in visible]
                alpha = softmax(biased) if visible else []
                if drop:
                    alpha = [0.0 if dropped(drop["p"], drop["seed"], b, h, i, j) else a / (1 - drop["p"]) for j, a in zip(visible, alpha)]
                for d in range(h * dv, (h + 1) * dv):
                    mixed[i][d] = total(a * v[j][d] for j, a in zip(visible, alpha))
                if at in ("logits", "capped"):
                    scores[b, h, i] = [logit(j) for j in range(kv_len)]
                else:
                    if at == "masked":
                        scores[b, h, i] = -math.inf
                    scores[b, h, i, visible] = biased if at == "masked" else alpha
        y[b] = np.reshape(mixed if order == "none" else project(mixed, weights["o"], biases.get("o")), (q_len, out))
    return y.reshape(*lead, q_len, out), scores.reshape(*lead, *shape[1:])


def case(folder, name, dims, heads, *, outputs="y scores", **options):
    meta, tensors = build(f"{folder}/{name}", dims, heads, **options)
    meta["source"] = "textbook attention, one number at a time in float64 (tests/cases_src/textbook.py)"
    y, scores = forward(meta, tensors)
    expected = {n: x for n, x in (("y", y), ("scores", scores)) if n in outputs}
    casefile.write(casefile.CASES / folder / f"{name}.safetensors", meta, {**tensors, **expected})
