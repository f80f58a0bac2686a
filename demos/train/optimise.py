"""AdamW with a cosine schedule, an exponential average of the weights, and
nothing else: one run, one set of weights."""

import functools
import time

import jax
import jax.numpy as jnp

import network


def loss(p, arch, tokens, valid, target, drop, key):
    """Cross-entropy against soft targets [batch, classes]."""
    logits = network.forward(p, arch, tokens, valid, drop, key)
    return -(target * jax.nn.log_softmax(logits)).sum(-1).mean()


def smooth(labels, classes, amount):
    return (1 - amount) * jax.nn.one_hot(labels, classes) + amount / classes


def decays(name):
    """Weight decay is for matrices; gains, biases and positions are free."""
    return not (name.endswith(("gain", "bias", "position")) or name[-2:] in ("bq", "bk", "bv", "bo"))


def train(arch, make_batch, data, steps, rate, decay, drop, average, seed, report=print):
    """Returns the averaged weights.

    `make_batch(data, key)` gives (tokens, valid, soft targets) and runs inside
    the compiled step. `average` is the decay of the weights' average.
    """
    key = jax.random.key(seed)
    key, k = jax.random.split(key)
    p = network.init(arch, k)
    zeros = {n: jnp.zeros_like(x) for n, x in p.items()}
    state = (p, zeros, zeros, p)

    def step(carry, i):
        p, m, v, ema = carry
        k = jax.random.fold_in(key, i)
        k1, k2 = jax.random.split(k)
        tokens, valid, target = make_batch(data, k1)
        value, g = jax.value_and_grad(loss)(p, arch, tokens, valid, target, drop, k2)
        norm = jnp.sqrt(sum((x * x).sum() for x in g.values()))
        clip = jnp.minimum(1, 1 / (norm + 1e-9))
        t = i + 1
        warm = jnp.minimum(1, t / 200)
        lr = rate * warm * 0.5 * (1 + jnp.cos(jnp.pi * t / steps))
        # The average's decay grows with time, so that it forgets the start.
        d = jnp.minimum(average, (1 + t) / (10 + t))
        new = ({}, {}, {}, {})
        for n in p:
            gn = g[n] * clip
            mn = 0.9 * m[n] + 0.1 * gn
            vn = 0.999 * v[n] + 0.001 * gn * gn
            up = (mn / (1 - 0.9**t)) / (jnp.sqrt(vn / (1 - 0.999**t)) + 1e-8)
            pn = p[n] - lr * (up + (decay * p[n] if decays(n) else 0))
            new[0][n], new[1][n], new[2][n], new[3][n] = pn, mn, vn, d * ema[n] + (1 - d) * pn
        return new, value

    @functools.partial(jax.jit, donate_argnums=0)
    def many(state, start):
        return jax.lax.scan(step, state, start + jnp.arange(chunk))

    chunk = max(1, steps // 20)
    began = time.time()
    for start in range(0, steps, chunk):
        state, values = many(jax.tree.map(jnp.copy, state), start)
        report(f"step {start + chunk:6d}  loss {values.mean():.4f}  {time.time() - began:5.0f} s")
    return state[3]
