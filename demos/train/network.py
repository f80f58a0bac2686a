"""The network around the layer, for training: JAX, float32.

A list of tokens x [n, width] goes through

    x = tokens · embed.weight + embed.bias (+ position)
    for every block b:
        x = x + attention_b(rms_norm(x))         # exactly Flux's MultiHeadAttention
        x = x + feed_forward_b(rms_norm(x))      # ReLU between two linear maps
    logits = mean over the valid tokens of rms_norm(x) · classifier.weight + classifier.bias

Outside the attention's softmax there is nothing but + - * / sqrt and
comparisons, so an implementation that keeps the order of its sums gives the
same bits on every IEEE machine: no exp, erf or tanh whose last bit belongs to
somebody's libm.

Parameters are one flat dict; a name here is the tensor's name in the file.
Every weight matrix is [in][out].
"""

import os

# One processor, even where there are more: how XLA divides a sum among threads
# changes its last bit and, after thousands of steps, the weights. This is read
# when JAX first computes, not when it is imported.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-5  # under the norm's square root


def shapes(arch):
    """Every tensor's shape, in the order in which the network meets them."""
    w, hidden = arch["width"], arch["hidden"]
    out = {"embed.weight": (arch["token"], w), "embed.bias": (w,)}
    if arch["position"]:
        out["position"] = (arch["tokens"], w)
    for b in range(arch["blocks"]):
        p = f"block{b}."
        out[p + "norm1.gain"] = (w,)
        for name in "qkvo":
            out[p + "attention.w" + name] = (w, w)
            out[p + "attention.b" + name] = (w,)
        out[p + "norm2.gain"] = (w,)
        out[p + "feed1.weight"], out[p + "feed1.bias"] = (w, hidden), (hidden,)
        out[p + "feed2.weight"], out[p + "feed2.bias"] = (hidden, w), (w,)
    out["norm.gain"] = (w,)
    out["classifier.weight"] = (w, arch["classes"])
    out["classifier.bias"] = (arch["classes"],)
    return out


def count(arch):
    return sum(int(np.prod(s)) for s in shapes(arch).values())


def init(arch, key):
    """Glorot uniform for matrices, as Flux does; gains one, biases zero."""
    params = {}
    for name, shape in shapes(arch).items():
        key, k = jax.random.split(key)
        if name.endswith("gain"):
            params[name] = jnp.ones(shape)
        elif name == "position":
            params[name] = 0.1 * jax.random.normal(k, shape)
        elif len(shape) == 2:
            limit = np.sqrt(6 / sum(shape))
            params[name] = jax.random.uniform(k, shape, minval=-limit, maxval=limit)
        else:
            params[name] = jnp.zeros(shape)
    return params


def rms_norm(x, gain):
    return x * (1 / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + EPSILON)) * gain


def attention(p, prefix, x, valid, heads, drop, key):
    batch, n, w = x.shape
    def split(name):
        y = x @ p[prefix + "w" + name] + p[prefix + "b" + name]
        return y.reshape(batch, n, heads, w // heads).transpose(0, 2, 1, 3)
    q, k, v = split("q"), split("k"), split("v")
    logits = q @ k.transpose(0, 1, 3, 2) / np.sqrt(w // heads)
    logits = jnp.where(valid[:, None, None, :], logits, -jnp.inf)
    scores = jax.nn.softmax(logits, -1)
    if drop:
        scores = dropout(scores, drop, key)
    x = (scores @ v).transpose(0, 2, 1, 3).reshape(batch, n, w)
    return x @ p[prefix + "wo"] + p[prefix + "bo"]


def dropout(x, rate, key):
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def forward(p, arch, tokens, valid, drop=0.0, key=None):
    """Logits [batch, classes] of tokens [batch, n, token]; valid [batch, n] bool.

    `drop` (training only) is dropout on the attention scores and on what each
    branch adds to the residual stream.
    """
    keys = iter(jax.random.split(key, 3 * arch["blocks"])) if drop else iter([None] * 99)
    x = tokens @ p["embed.weight"] + p["embed.bias"]
    if arch["position"]:
        x = x + p["position"]
    for b in range(arch["blocks"]):
        pre = f"block{b}."
        h = rms_norm(x, p[pre + "norm1.gain"])
        h = attention(p, pre + "attention.", h, valid, arch["heads"], drop, next(keys))
        k1, k2 = next(keys), next(keys)
        x = x + (dropout(h, drop, k1) if drop else h)
        h = rms_norm(x, p[pre + "norm2.gain"])
        h = jax.nn.relu(h @ p[pre + "feed1.weight"] + p[pre + "feed1.bias"])
        h = h @ p[pre + "feed2.weight"] + p[pre + "feed2.bias"]
        x = x + (dropout(h, drop, k2) if drop else h)
    x = rms_norm(x, p["norm.gain"])
    weight = valid.astype(x.dtype)[..., None]
    pooled = (x * weight).sum(1) / weight.sum(1)
    return pooled @ p["classifier.weight"] + p["classifier.bias"]
