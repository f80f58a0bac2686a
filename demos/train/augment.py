"""What else the hand might have drawn: augmented digits.

An 8x8 image is read as a smooth sheet of ink, bent and moved, sometimes inked
with a thicker or thinner pen, and counted again in blocks, as the data was
made (blocks of 4x4 pixels of a 32x32 bitmap, values 0..16). All of it is done
once, before training, in numpy.
"""

import numpy as np

FINE = 24  # samples along a side when counting again: 3x3 per block


def bilinear(images, y, x):
    """images [n, 8, 8] at pixel-centre coordinates y, x [n, FINE, FINE]; zero outside."""
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    y, x = np.clip(y, -1.5, 8.5) + 2, np.clip(x, -1.5, 8.5) + 2
    y0, x0 = y.astype(np.int32), x.astype(np.int32)
    fy, fx = y - y0, x - x0
    n = np.arange(len(images))[:, None, None]
    return (
        padded[n, y0, x0] * (1 - fy) * (1 - fx)
        + padded[n, y0, x0 + 1] * (1 - fy) * fx
        + padded[n, y0 + 1, x0] * fy * (1 - fx)
        + padded[n, y0 + 1, x0 + 1] * fy * fx
    )


def bend(rng, n, amount):
    """A smooth field of displacements [n, FINE, FINE], from a 4x4 lattice."""
    lattice = rng.normal(0, amount, (n, 4, 4))
    at = np.linspace(0, 3, FINE)
    i = np.minimum(at.astype(int), 2)
    f = at - i
    rows = lattice[:, i] * (1 - f)[None, :, None] + lattice[:, i + 1] * f[None, :, None]
    return rows[:, :, i] * (1 - f) + rows[:, :, i + 1] * f


def distort(images, rng, strength=1.0):
    """One distorted copy of every image [n, 8, 8]; values 0..16, integers as float32."""
    n = len(images)
    s = strength
    angle = np.deg2rad(rng.normal(0, 7 * s, n))
    shear = rng.normal(0, 0.12 * s, n)
    sy, sx = np.exp(rng.normal(0, 0.06 * s, n)), np.exp(rng.normal(0, 0.10 * s, n))
    dy, dx = rng.normal(0, 0.35 * s, n), rng.normal(0, 0.5 * s, n)
    c = (np.arange(FINE) + 0.5) * 8 / FINE - 0.5 - 3.5  # sample places, centre at 0
    gy, gx = np.meshgrid(c, c, indexing="ij")
    e = lambda a: a[:, None, None]
    x = gx + e(shear) * gy
    y = e(np.cos(angle)) * gy - e(np.sin(angle)) * x
    x = e(np.sin(angle)) * gy + e(np.cos(angle)) * x
    y = e(sy) * y + e(dy) + bend(rng, n, 0.3 * s) + 3.5
    x = e(sx) * x + e(dx) + bend(rng, n, 0.3 * s) + 3.5
    fine = bilinear(images.astype(np.float64), y, x)
    # Half of them: a crisp pen of another thickness instead of the blur of resampling.
    # Its slope is steep enough that blank paper stays blank.
    level = rng.uniform(5.0, 10.0, n)
    edge = rng.uniform(1.0, 2.5, n) * 8 / level
    crisp = np.clip((fine - e(level)) * e(edge) + 8, 0, 16)
    fine = np.where(e(rng.random(n) < 0.5), crisp, fine)
    k = FINE // 8
    counted = fine.reshape(n, 8, k, 8, k).mean((2, 4))
    counted += rng.normal(0, 0.6, counted.shape) * (counted > 0.25) * e(rng.random(n) < 0.5)
    return np.clip(np.round(counted), 0, 16).astype(np.float32)


def pool(images, labels, copies, rng, strength=1.0):
    """The images themselves and `copies` distorted ones of each."""
    out = [images.astype(np.float32)] + [distort(images, rng, strength) for _ in range(copies)]
    return np.concatenate(out).astype(np.uint8), np.tile(labels, copies + 1)
