"""A hundred steps of training in float64, by JAX: what ours must come near.

    python curve.py

Writes ../models/{digits,vowels}_curve.safetensors:

start [parameters]: weights to begin with, flat in the order of the Rust crate;
order [100, 16]: the items of the data file that each step learns from;
gradient [parameters]: that of the first step's mean loss, before clipping;
losses [100]: the mean loss of each step, before the step is made;
logits [16, classes]: of the first step's items, before it.

The step is AdamW after clipping to a norm of 1, decay on matrices other than
`position`, and its constants are what they are in float32. The derivatives are
JAX's own: nothing here says how the network goes back.
"""

import json
import pathlib

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

DEMOS = pathlib.Path(__file__).parent.parent
STEPS, BATCH, SMOOTHING = 100, 16, 0.1
ORDER = """embed.weight embed.bias position block0.norm1.gain
block0.attention.wq block0.attention.wk block0.attention.wv block0.attention.wo
block0.attention.bq block0.attention.bk block0.attention.bv block0.attention.bo
block0.norm2.gain block0.feed1.weight block0.feed1.bias block0.feed2.weight
block0.feed2.bias norm.gain classifier.weight classifier.bias""".split()
f32 = lambda x: float(np.float32(x))
RATE, BETA1, BETA2, EPSILON, DECAY = map(f32, (3e-3, 0.9, 0.999, 1e-8, 0.1))


def rms_norm(x, gain):
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gain


def logits(p, tokens, valid, heads):
    """tokens [batch, n, token], valid [batch, n]: [batch, classes]."""
    batch, n, _ = tokens.shape
    x = tokens @ p["embed.weight"] + p["embed.bias"] + p["position"][:n]
    a = {name.removeprefix("block0.attention."): w for name, w in p.items() if "attention" in name}
    h = rms_norm(x, p["block0.norm1.gain"])
    q, k, v = ((h @ a["w" + c] + a["b" + c]).reshape(batch, n, heads, -1) for c in "qkv")
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    scores = jax.nn.softmax(jnp.where(valid[:, None, None], scores, -jnp.inf))
    x = x + jnp.einsum("bhqk,bkhd->bqhd", scores, v).reshape(batch, n, -1) @ a["wo"] + a["bo"]
    h = rms_norm(x, p["block0.norm2.gain"])
    h = jax.nn.relu(h @ p["block0.feed1.weight"] + p["block0.feed1.bias"])
    x = x + h @ p["block0.feed2.weight"] + p["block0.feed2.bias"]
    x = rms_norm(x, p["norm.gain"]) * valid[..., None]
    return x.sum(1) / valid.sum(1, keepdims=True) @ p["classifier.weight"] + p["classifier.bias"]


def loss(p, tokens, valid, labels, heads):
    out = logits(p, tokens, valid, heads)
    classes = out.shape[-1]
    target = (1 - SMOOTHING) * jax.nn.one_hot(labels, classes) + SMOOTHING / classes
    return -(target * jax.nn.log_softmax(out)).sum(-1).mean()


def begin(model, rng):
    """Weights of the committed model's shapes, in float32."""
    out = {}
    for name in ORDER:
        shape = model[name].shape
        if name.endswith("gain"):
            x = rng.uniform(0.8, 1.2, shape)
        elif len(shape) == 2:
            limit = np.sqrt(6 / sum(shape))
            x = rng.uniform(-limit, limit, shape)
        else:
            x = rng.uniform(-0.1, 0.1, shape)
        out[name] = x.astype(np.float32)
    return out


def run(name, tokens, valid, labels, split, rng):
    path = DEMOS / "models" / f"{name}.safetensors"
    with safe_open(path, "numpy") as f:
        heads = json.loads(f.metadata()["network"])["heads"]
    start = begin(load_file(path), rng)
    own = np.flatnonzero(split == 0)
    order = rng.choice(own, (STEPS, BATCH))
    flat = lambda p: np.concatenate([np.asarray(p[n]).ravel() for n in ORDER]).astype(np.float32)

    def value_and_grad(p, items):
        return jax.value_and_grad(loss)(p, tokens[items], valid[items], labels[items], heads)

    value_and_grad = jax.jit(value_and_grad)
    p = {n: jnp.array(x, jnp.float64) for n, x in start.items()}
    m = {n: jnp.zeros_like(x) for n, x in p.items()}
    v, losses = dict(m), []
    first = order[0]
    out = {"logits": np.asarray(logits(p, tokens[first], valid[first], heads), np.float32)}
    for t, items in enumerate(order, 1):
        value, g = value_and_grad(p, items)
        if t == 1:
            out["gradient"] = flat(g)
        losses.append(value)
        clip = jnp.minimum(1, 1 / jnp.sqrt(sum((x * x).sum() for x in g.values())))
        for n in p:
            gn = g[n] * clip
            m[n] = BETA1 * m[n] + (1 - BETA1) * gn
            v[n] = BETA2 * v[n] + (1 - BETA2) * gn * gn
            up = m[n] / (1 - BETA1**t) / (jnp.sqrt(v[n] / (1 - BETA2**t)) + EPSILON)
            decays = p[n].ndim == 2 and n != "position"
            p[n] = p[n] - RATE * (up + (DECAY * p[n] if decays else 0))
    out |= {"start": flat(start), "order": order.astype(np.int64), "losses": np.array(losses, np.float32)}
    path = DEMOS / "models" / f"{name}_curve.safetensors"
    save_file(out, path)
    path.chmod(0o644)
    print(f"{name}: loss {losses[0]:.4f} to {losses[-1]:.4f}")


def main():
    d = load_file(DEMOS / "data" / "digits.safetensors")
    n = len(d["images"])
    tokens = d["images"].reshape(n, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(n, 16, 4) / 16.0
    run("digits", jnp.array(tokens), jnp.ones((n, 16), bool), jnp.array(d["labels"], int), d["split"], np.random.default_rng(5))

    d = load_file(DEMOS / "data" / "vowels.safetensors")
    w = load_file(DEMOS / "models" / "vowels.safetensors")
    tokens = (d["frames"].astype(np.float64) - w["input.mean"]) / w["input.deviation"]
    valid = np.arange(tokens.shape[1]) < d["lengths"][:, None]
    run("vowels", jnp.array(tokens), jnp.array(valid), jnp.array(d["labels"], int), d["split"], np.random.default_rng(5))


main()
