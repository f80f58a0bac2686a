"""The attention family by the textbook: `textbook.py` grown by grouped heads, a cache, key lengths, windows,
softcap, ALiBi, rotary positions, sinks and every stage of the scores. One number at a time, exact sums, and no
look at a key that a query does not see.

How the format's words are taken here is written in README.md, "The attention family".
"""

import math

import numpy as np

import casefile
import textbook
from casefile import f32, full_dims, rng
from textbook import dropped, project, total

FOLDER = casefile.CASES.parent / "cases_family"
SOURCE = "textbook attention family, one number at a time in float64 (tests/cases_src/family.py)"
NONE = -1


def slopes(heads):
    """ALiBi's: a geometric sequence for a power of two; else that of the power below, then every other term
    of the next one's."""
    below = 1 << (heads.bit_length() - 1)
    usual = [2.0 ** (-8 * (h + 1) / below) for h in range(below)]
    return usual + [2.0 ** (-4 * (2 * h + 1) / below) for h in range(heads - below)]


def rotate(row, position, base=10000.0, dims=None, interleaved=False):
    """The first `dims` numbers of a head's row turned in pairs, pair i by position * base^(-2i/dims)."""
    dims = dims or len(row)
    half, turned = dims // 2, list(row)
    for i in range(half):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        angle = position * base ** (-2 * i / dims)
        c, s = math.cos(angle), math.sin(angle)
        turned[a] = total([row[a] * c, -row[b] * s])
        turned[b] = total([row[b] * c, row[a] * s])
    return turned


def softmax(logits, sink=None):
    """Of the logits of the visible keys; the sink takes its share and keeps it."""
    return textbook.softmax(logits + ([] if sink is None else [sink]))[:len(logits)]


def sees(meta, i, j, p, real):
    """Whether query i may see key j by the rules that need no array; p is the first query's position."""
    left, right = meta.get("window", (NONE, NONE))
    return (j < real
            and (not meta.get("causal") or j <= p + i)
            and (left == NONE or j >= p + i - left)
            and (right == NONE or j <= p + i + right))


def forward(meta, stored):
    """Every output of a case by name, in its own axes."""
    t = casefile.widen(stored)
    heads, (*_, qk, vd, out) = meta["heads"], full_dims(meta["dims"])
    kv_heads = meta.get("kv_heads", heads)
    lead, q_len = t["q"].shape[:-2], t["q"].shape[-2]
    batch = math.prod(lead)
    flat = {n: t[n].reshape(batch, *t[n].shape[-2:]).tolist() for n in "qkv" if n in t}
    flat.setdefault("k", flat["q"])
    flat.setdefault("v", flat["k"])
    order = meta.get("weights", "in_out")
    weights = {n: (t["w" + n] if order == "in_out" else t["w" + n].T).tolist() for n in "qkvo" if "w" + n in t}
    biases = {n: t["b" + n].tolist() for n in "qkvo" if "b" + n in t}
    d, dv = qk // heads, vd // heads
    past_len = t["past_k"].shape[2] if "past_k" in t else 0
    new_len = t.get("k", t["q"]).shape[-2]
    kv_len = past_len + new_len
    shape = (batch, heads, q_len, kv_len)
    bias = np.broadcast_to(t.get("bias", 0.0), shape)
    mask = np.broadcast_to(t.get("mask", True), shape)
    first = np.broadcast_to(meta.get("causal_offset", past_len), (batch,)).tolist()
    real = t["kv_lens"].tolist() if "kv_lens" in t else [kv_len] * batch
    scale = meta.get("scale", 1 / math.sqrt(d))
    cap = meta.get("softcap")
    alibi = meta.get("alibi")
    alibi = slopes(heads) if alibi is True else alibi or [0.0] * heads
    rope = meta.get("rope")
    at = meta.get("scores_at", "softmax")
    drop = meta.get("dropout")

    y = np.zeros((batch, q_len, out))
    scores = np.zeros(shape)
    present_k, present_v = np.zeros((batch, kv_heads, kv_len, d)), np.zeros((batch, kv_heads, kv_len, dv))
    for b in range(batch):
        q, k, v = (flat[n][b] if order == "none" else project(flat[n][b], weights[n], biases.get(n)) for n in "qkv")
        cut = lambda rows, g, width: [row[g * width:(g + 1) * width] for row in rows]
        turn = lambda rows, offset: rows
        if rope is not None:
            options = {n: rope[n] for n in ("base", "dims", "interleaved") if n in rope}
            turn = lambda rows, offset: [rotate(row, rope.get(offset, 0) + i, **options) for i, row in enumerate(rows)]
        keys, values = [], []
        for g in range(kv_heads):
            old_k, old_v = (t[n][b, g].tolist() if n in t else [] for n in ("past_k", "past_v"))
            keys.append(old_k + turn(cut(k, g, d), "k_offset"))
            values.append(old_v + cut(v, g, dv))
        present_k[b], present_v[b] = keys, values
        mixed = [[0.0] * vd for _ in range(q_len)]
        for h in range(heads):
            own_k, own_v = keys[h // (heads // kv_heads)], values[h // (heads // kv_heads)]
            for i, query in enumerate(turn(cut(q, h, d), "q_offset")):

                def logit(j):
                    return scale * total(x * z for x, z in zip(query, own_k[j]))

                def capped(j):
                    return cap * math.tanh(logit(j) / cap) if cap else logit(j)

                visible = [j for j in range(kv_len)
                           if sees(meta, i, j, first[b], real[b]) and mask[b, h, i, j] and bias[b, h, i, j] != -math.inf]
                biased = [capped(j) + float(bias[b, h, i, j]) - alibi[h] * abs(first[b] + i - j) for j in visible]
                alpha = softmax(biased, float(t["sinks"][h]) if "sinks" in t else None) if visible else []
                if drop:
                    alpha = [0.0 if dropped(drop["p"], drop["seed"], b, h, i, j) else a / (1 - drop["p"]) for j, a in zip(visible, alpha)]
                for c in range(dv):
                    mixed[i][h * dv + c] = total(a * own_v[j][c] for j, a in zip(visible, alpha))
                if at in ("logits", "capped"):
                    scores[b, h, i] = [(logit if at == "logits" else capped)(j) for j in range(kv_len)]
                else:
                    if at == "masked":
                        scores[b, h, i] = -math.inf
                    scores[b, h, i, visible] = biased if at == "masked" else alpha
        y[b] = np.reshape(mixed if order == "none" else project(mixed, weights["o"], biases.get("o")), (q_len, out))
    return {"y": y.reshape(*lead, q_len, out), "scores": scores.reshape(*lead, *shape[1:]),
            "present_k": present_k, "present_v": present_v}


def widths(heads, d, dv=None, kv_heads=None):
    """The dims of attention without projections."""
    dv, kv_heads = dv or d, kv_heads or heads
    return {"q_in": heads * d, "k_in": kv_heads * d, "v_in": kv_heads * dv, "qk": heads * d, "v": heads * dv, "out": heads * dv}


def build(name, dims, heads, *, kv_heads=None, past=0, sinks=None, kv_lens=None, batch=(2,), q_len=3, kv_len=5, call="qkv",
          weights="none", biases="", bias=None, mask=None, cast=None, given=None, **keys):
    """The description and the inputs of a case. As `casefile.build`, and

    dims      a number: the width of a head, without projections; else an object
    past      positions in the cache before the call
    sinks     True to fill them at random, or an array
    kv_lens   a list
    """
    r = rng("family/" + name)
    kv_heads = kv_heads or heads
    if not isinstance(dims, dict):
        assert weights == "none"
        dims = widths(heads, dims, None, kv_heads)
    q_in, k_in, v_in, qk, v, out = full_dims(dims)
    d, dv = qk // heads, v // heads
    kv_len = q_len if call == "q" else kv_len
    size, total_len = math.prod(batch), past + kv_len
    t = {"q": r.standard_normal((*batch, q_len, q_in))}
    if "k" in call:
        t["k"] = r.standard_normal((*batch, kv_len, k_in))
    if "v" in call:
        t["v"] = r.standard_normal((*batch, kv_len, v_in))
    if weights != "none":
        for letter, rows, cols in (("q", q_in, qk), ("k", k_in, kv_heads * d), ("v", v_in, kv_heads * dv), ("o", v, out)):
            limit = math.sqrt(6 / (rows + cols))
            w = r.uniform(-limit, limit, (rows, cols))
            t["w" + letter] = w if weights == "in_out" else w.T
            if letter in biases:
                t["b" + letter] = r.uniform(-0.5, 0.5, cols)
    if past:
        t["past_k"] = r.standard_normal((size, kv_heads, past, d))
        t["past_v"] = r.standard_normal((size, kv_heads, past, dv))
    if sinks is not None:
        t["sinks"] = r.standard_normal(heads) if sinks is True else np.asarray(sinks, float)
    if kv_lens is not None:
        t["kv_lens"] = np.asarray(kv_lens, np.int64)
    if bias is not None:
        t["bias"] = r.standard_normal(bias) if isinstance(bias, tuple) else np.asarray(bias)
    if mask is not None:
        t["mask"] = r.random(mask) < 0.6 if isinstance(mask, tuple) else np.asarray(mask)
    t.update(given or {})
    for n, x in t.items():
        x = np.asarray(x)
        t[n] = x.astype((cast or {}).get(n, np.float32 if x.dtype == np.float64 else x.dtype))
    meta = {"dims": dims, "heads": heads}
    if kv_heads != heads:
        meta["kv_heads"] = kv_heads
    if weights != "in_out":
        meta["weights"] = weights
    assert total_len >= 0
    meta.update(keys)
    return meta, t


def case(folder, name, dims, heads, *, outputs="y scores", **options):
    meta, tensors = build(f"{folder}/{name}", dims, heads, **options)
    meta["source"] = SOURCE
    results = forward(meta, tensors)
    wanted = outputs.split() + (["present_k", "present_v"] if "past_k" in tensors else [])
    path = FOLDER / folder / f"{name}.safetensors"
    assert not path.exists(), path
    casefile.write(path, meta, {**tensors, **{n: f32(results[n]) for n in wanted}})
