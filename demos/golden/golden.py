"""What the committed weights compute, in float64: an independent forward pass.

    python golden.py

Reads demos/models/{digits,vowels}.safetensors and demos/data, writes
demos/models/{digits,vowels}_golden.safetensors and prints the accuracies.
It shares no code with the training (only numpy, written as the formulas read),
so a mistake in either shows. The Rust network is tested against the result.

digits_golden: logits [1797, 10]; scores [8, heads, 16, 16] of the first eight
test items; items [8] their indices.
vowels_golden: logits [640, 9] with the mask; logits_unmasked [640, 9] where the
padding is attended and pooled as if it were speech; scores [8, heads, 29, 29]
and scores_unmasked of the first eight test items (rows of padding queries are
0 in `scores`: they are computed by nobody), items [8].
"""

import json
import pathlib

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

DEMOS = pathlib.Path(__file__).parent.parent
SHOWN = 8  # items whose scores are kept


def read(name):
    path = DEMOS / "models" / f"{name}.safetensors"
    with safe_open(path, "numpy") as f:
        about = json.loads(f.metadata()["network"])
    return about, {n: x.astype(np.float64) for n, x in load_file(path).items()}


def rms_norm(x, gain, epsilon):
    return x / np.sqrt((x**2).mean(1, keepdims=True) + epsilon) * gain


def multi_head_attention(w, x, heads):
    """Flux's layer on one sequence x [n, width]; scores [heads, n, n]."""
    n, width = x.shape
    d = width // heads
    q, k, v = (x @ w["w" + c] + w["b" + c] for c in "qkv")
    out, scores = np.zeros((n, width)), np.zeros((heads, n, n))
    for h in range(heads):
        own = slice(h * d, (h + 1) * d)
        logits = q[:, own] / np.sqrt(d) @ k[:, own].T
        e = np.exp(logits - logits.max(1, keepdims=True))
        scores[h] = e / e.sum(1, keepdims=True)
        out[:, own] = scores[h] @ v[:, own]
    return out @ w["wo"] + w["bo"], scores


def network(about, w, tokens):
    """Logits and the last block's scores of one item's tokens [n, token]."""
    x = tokens @ w["embed.weight"] + w["embed.bias"] + w["position"][: len(tokens)]
    for b in range(about["blocks"]):
        part = {n.removeprefix(f"block{b}."): t for n, t in w.items() if n.startswith(f"block{b}.")}
        layer = {n.removeprefix("attention."): t for n, t in part.items()}
        y, scores = multi_head_attention(layer, rms_norm(x, part["norm1.gain"], about["epsilon"]), about["heads"])
        x = x + y
        h = rms_norm(x, part["norm2.gain"], about["epsilon"]) @ part["feed1.weight"] + part["feed1.bias"]
        x = x + np.maximum(h, 0) @ part["feed2.weight"] + part["feed2.bias"]
    pooled = rms_norm(x, w["norm.gain"], about["epsilon"]).mean(0)
    return pooled @ w["classifier.weight"] + w["classifier.bias"], scores


def report(what, logits, labels, split):
    for part, title in enumerate(["training", "test"]):
        own = split == part
        wrong = int((logits[own].argmax(1) != labels[own]).sum())
        print(f"{what} {title}: {wrong} of {own.sum()} wrong, {100 - 100 * wrong / own.sum():.2f} %")


def digits():
    about, w = read("digits")
    d = load_file(DEMOS / "data" / "digits.safetensors")
    items = np.flatnonzero(d["split"] == 1)[:SHOWN]
    logits, scores = [], []
    for i, image in enumerate(d["images"].astype(np.float64)):
        tokens = [image[r : r + 2, c : c + 2].ravel() / 16 for r in range(0, 8, 2) for c in range(0, 8, 2)]
        y, s = network(about, w, np.array(tokens))
        logits.append(y)
        if i in items:
            scores.append(s)
    logits = np.array(logits)
    report("digits", logits, d["labels"], d["split"])
    return {"logits": logits, "scores": np.array(scores)}, items


def vowels():
    about, w = read("vowels")
    d = load_file(DEMOS / "data" / "vowels.safetensors")
    items = np.flatnonzero(d["split"] == 1)[:SHOWN]
    longest = d["frames"].shape[1]
    out = {"logits": [], "logits_unmasked": [], "scores": [], "scores_unmasked": []}
    for i, (frames, n) in enumerate(zip(d["frames"].astype(np.float64), d["lengths"])):
        # With the mask, padding might as well not exist.
        tokens = (frames[:n] - w["input.mean"]) / w["input.deviation"]
        y, s = network(about, w, tokens)
        out["logits"].append(y)
        # Without it, the zeros behind the last frame are frames like any other.
        yu, su = network(about, w, (frames - w["input.mean"]) / w["input.deviation"])
        out["logits_unmasked"].append(yu)
        if i in items:
            out["scores"].append(np.pad(s, ((0, 0), (0, longest - n), (0, longest - n))))
            out["scores_unmasked"].append(su)
    out = {k: np.array(v) for k, v in out.items()}
    report("vowels", out["logits"], d["labels"], d["split"])
    report("vowels without mask", out["logits_unmasked"], d["labels"], d["split"])
    return out, items


def main():
    for name, make in {"digits": digits, "vowels": vowels}.items():
        tensors, items = make()
        tensors = {k: v.astype(np.float32) for k, v in tensors.items()}
        tensors["items"] = items.astype(np.int64)
        path = DEMOS / "models" / f"{name}_golden.safetensors"
        save_file(tensors, path)
        path.chmod(0o644)


if __name__ == "__main__":
    main()
