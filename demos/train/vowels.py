"""Train demos/models/vowels.safetensors: which of nine speakers says this /ae/?

    python vowels.py             # train on the 270 training utterances, write the model
    python vowels.py --validate  # five-fold validation among those 270

The 370 test utterances take no part in any of this: they are for golden.py and
for the Rust tests. What was tried, and what it scored: README.md.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import network
import optimise
import store

LONGEST, FEATURES = 29, 12
ARCH = dict(
    model="vowels", token=FEATURES, tokens=LONGEST, width=32, hidden=64, blocks=1, heads=4, classes=9, position=True
)
BATCH = 64
SETTINGS = dict(steps=4000, rate=3e-3, decay=0.3, drop=0.1, average=0.999, seed=0)
SMOOTHING = 0.05


def batch(data, key):
    """Utterances as the same speakers might have said them on another day.

    The test utterances were recorded on other occasions than the training
    ones. A cepstrum turns a change of channel or loudness into an added
    constant, hence the shift; the rest is speaking faster, slower, cut off.
    """
    frames, lengths, labels = data
    k = iter(jax.random.split(key, 8))
    i = jax.random.randint(next(k), (BATCH,), 0, frames.shape[0])
    x, length, label = frames[i], lengths[i], labels[i]
    # Cut up to 15 % off each end, stretch by about 15 %, resample linearly.
    low = 0.15 * jax.random.uniform(next(k), (BATCH,))
    high = 1 - 0.15 * jax.random.uniform(next(k), (BATCH,))
    stretch = jnp.exp(0.15 * jax.random.normal(next(k), (BATCH,)))
    n = jnp.clip(jnp.round(length * (high - low) * stretch), 6, LONGEST)
    last = (length - 1)[:, None]
    step = ((high - low) * (length - 1) / (n - 1))[:, None]
    at = jnp.clip((low * (length - 1))[:, None] + step * jnp.arange(LONGEST), 0, last)
    before = jnp.minimum(at.astype(int), last - 1)
    f = (at - before)[..., None]
    take = lambda j: jnp.take_along_axis(x, j[..., None], 1)
    x = take(before) * (1 - f) + take(before + 1) * f
    # Another channel: shifted, scaled, drifting features; and noise.
    each = (BATCH, 1, FEATURES)
    x = x + 0.25 * jax.random.normal(next(k), each)
    x = x * jnp.exp(0.1 * jax.random.normal(next(k), each))
    time = jnp.linspace(-1, 1, LONGEST)[:, None] * LONGEST / n[:, None, None]
    x = x + 0.15 * time * jax.random.normal(next(k), each)
    x = x + 0.2 * jax.random.normal(next(k), x.shape)
    valid = jnp.arange(LONGEST) < n[:, None]
    return jnp.where(valid[..., None], x, 0), valid, optimise.smooth(label, 9, SMOOTHING)


def valid_frames(lengths):
    return np.arange(LONGEST) < lengths[:, None]


def normal(frames, lengths, mean, deviation):
    """Normalised features; padding stays zero."""
    x = (frames - mean) / deviation
    return np.where(valid_frames(lengths)[..., None], x, 0).astype(np.float32)


def fit(frames, lengths, labels):
    return optimise.train(ARCH, batch, tuple(map(jnp.array, (frames, lengths, labels))), **SETTINGS)


def main():
    d = store.data("vowels")
    own = d["split"] == 0
    frames, lengths, labels = d["frames"][own], d["lengths"][own].astype(np.int32), d["labels"][own]
    spoken = frames[valid_frames(lengths)].astype(np.float64)
    mean, deviation = spoken.mean(0).astype(np.float32), spoken.std(0).astype(np.float32)
    x = normal(frames, lengths, mean, deviation)
    if "--validate" in sys.argv:
        # Six successive utterances of each speaker are held out together:
        # neighbours were recorded together, and would tell on each other.
        fold = np.arange(270) % 30 // 6
        wrong = 0
        for f in range(5):
            params = fit(x[fold != f], lengths[fold != f], labels[fold != f])
            out = fold == f
            logits = network.forward(params, ARCH, jnp.array(x[out]), jnp.array(valid_frames(lengths[out])))
            wrong += int((np.asarray(logits).argmax(1) != labels[out]).sum())
        print(f"validation: {wrong} of 270 wrong, {100 - 100 * wrong / 270:.2f} %")
        return
    params = dict(fit(x, lengths, labels))
    # Applied before the embedding: (frame - input.mean) / input.deviation.
    params["input.mean"], params["input.deviation"] = mean, deviation
    about = {
        "input": "tokens are frames, (frame - input.mean) / input.deviation, at most 29",
        "data": "Japanese Vowels, doi 10.24432/C5NS47, CC-BY-4.0",
    }
    store.save("vowels", ARCH, params, about)


main()
