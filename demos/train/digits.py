"""Train demos/models/digits.safetensors: which of ten digits is this 8x8 image?

    python digits.py             # train on the training split, write the model
    python digits.py --validate  # three-fold validation inside the training split

The test split takes no part in any of this: it is for golden.py and for the
Rust tests. What was tried, and what it scored in validation: README.md.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import augment
import network
import optimise
import store
import strokes

ARCH = dict(model="digits", token=4, tokens=16, width=24, hidden=48, blocks=1, heads=4, classes=10, position=True)
STEPS, BATCH, COPIES, DRAWN = 12000, 128, 100, 2000
SETTINGS = dict(steps=STEPS, rate=3e-3, decay=0.05, drop=0.0, average=0.999, seed=0)
SMOOTHING = 0.1


def patches(images):
    """Images [n, 8, 8] of 0..16 to tokens [n, 16, 4] of 0..1.

    Token 4·r + c is the 2x2 patch in patch row r, patch column c; its four
    features are the patch's pixels in reading order, a sixteenth of each.
    """
    n = images.shape[0]
    tokens = images.reshape(n, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(n, 16, 4)
    return tokens / 16


def batch(data, key):
    images, labels = data
    i = jax.random.randint(key, (BATCH,), 0, images.shape[0])
    tokens = patches(images[i].astype(jnp.float32))
    return tokens, jnp.ones((BATCH, 16), bool), optimise.smooth(labels[i], 10, SMOOTHING)


def fit(images, labels):
    rng = np.random.Generator(np.random.PCG64(3))
    pool, drawn = augment.pool(images, labels, COPIES, rng), strokes.drawings(DRAWN, rng)
    data = tuple(jnp.array(np.concatenate(both)) for both in zip(pool, drawn))
    return optimise.train(ARCH, batch, data, **SETTINGS)


def errors(params, images, labels):
    tokens = patches(jnp.array(images, jnp.float32))
    logits = network.forward(params, ARCH, tokens, jnp.ones(tokens.shape[:2], bool))
    return int((np.asarray(logits).argmax(1) != labels).sum())


def main():
    d = store.data("digits")
    own = d["split"] == 0
    images, labels = d["images"][own], d["labels"][own]
    if "--validate" in sys.argv:
        fold = np.random.Generator(np.random.PCG64(7)).permutation(len(images)) % 3
        wrong = 0
        for f in range(3):
            params = fit(images[fold != f], labels[fold != f])
            wrong += errors(params, images[fold == f], labels[fold == f])
        print(f"validation: {wrong} of {len(images)} wrong, {100 - 100 * wrong / len(images):.2f} %")
        return
    params = fit(images, labels)
    about = {
        "input": "tokens are 2x2 patches in reading order, pixels/16",
        "data": "UCI Optical Recognition of Handwritten Digits, doi 10.24432/C50P49, CC-BY-4.0",
    }
    store.save("digits", ARCH, params, about)


main()
