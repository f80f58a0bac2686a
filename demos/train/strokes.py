"""Digits drawn with a pen: strokes written down as curves, bent at random, and
brought to 8x8 the way the data was made.

The data's 43 writers do not write every form of a digit that people draw on a
screen: a 1 with a flag and a foot, a 4 of two strokes with square corners, a 7
with a bar. A small share of these drawings in training teaches those forms.
"""

from math import cos, pi, sin

import numpy as np


def arc(cx, cy, rx, ry, start, end, n=14):
    """Points of an ellipse's arc; angles in units of pi, clockwise from the right (y points down)."""
    angles = [pi * (start + (end - start) * i / n) for i in range(n + 1)]
    return [(cx + rx * cos(a), cy + ry * sin(a)) for a in angles]


# A form is a list of strokes in a box of width and height about 1.
FORMS = {
    0: [
        [arc(0.5, 0.5, 0.36, 0.5, -0.5, 1.5)],
        [arc(0.5, 0.5, 0.45, 0.5, -0.5, 1.5)],
        [arc(0.5, 0.5, 0.36, 0.5, -0.3, 1.55)],
    ],
    1: [
        [[(0.5, 0), (0.5, 1)]],
        [[(0.6, 0), (0.4, 1)]],
        [[(0.25, 0.28), (0.55, 0), (0.55, 1)]],
        [[(0.3, 0.18), (0.55, 0), (0.55, 1)], [(0.25, 1), (0.85, 1)]],
        [[(0.5, 0), (0.5, 1)], [(0.2, 1), (0.8, 1)]],
    ],
    2: [
        [arc(0.5, 0.28, 0.38, 0.28, -1, 0.2) + [(0.1, 1), (0.9, 1)]],
        [arc(0.45, 0.3, 0.4, 0.3, -0.85, 0.3) + [(0.3, 0.8)] + arc(0.25, 0.88, 0.13, 0.1, 0.3, 1.7) + [(0.95, 1)]],
        [[(0.1, 0.08), (0.8, 0.05), (0.8, 0.3), (0.1, 1), (0.9, 0.97)]],
    ],
    3: [
        [arc(0.45, 0.25, 0.37, 0.25, -0.85, 0.5) + arc(0.45, 0.74, 0.42, 0.26, -0.5, 0.85)],
        [[(0.12, 0), (0.85, 0), (0.45, 0.42)] + arc(0.45, 0.7, 0.42, 0.3, -0.45, 0.85)],
        [arc(0.45, 0.26, 0.35, 0.26, -0.7, 0.4) + arc(0.42, 0.74, 0.42, 0.26, -0.4, 0.75)],
    ],
    4: [
        [[(0.6, 0), (0.1, 0.65), (0.95, 0.65)], [(0.65, 0.35), (0.65, 1)]],
        [[(0.15, 0), (0.12, 0.52), (0.85, 0.52)], [(0.8, 0), (0.8, 1)]],
        [[(0.25, 0), (0.1, 0.5), (0.9, 0.5)], [(0.65, 0.2), (0.6, 1)]],
        [[(0.1, 0.65), (0.7, 0), (0.7, 1)], [(0.1, 0.65), (0.95, 0.65)]],
        [[(0.2, 0), (0.2, 0.55), (0.75, 0.5)], [(0.75, 0.05), (0.75, 1)]],
    ],
    5: [
        [[(0.9, 0), (0.2, 0), (0.15, 0.45)] + arc(0.45, 0.69, 0.4, 0.31, -0.65, 0.8)],
        [[(0.2, 0), (0.15, 0.42)] + arc(0.42, 0.69, 0.42, 0.31, -0.5, 0.8), [(0.2, 0), (0.9, 0.02)]],
        [[(0.85, 0.02), (0.25, 0.05), (0.2, 0.45), (0.6, 0.45)] + arc(0.5, 0.72, 0.35, 0.27, -0.3, 0.75)],
    ],
    6: [
        [[(0.7, 0), (0.32, 0.33)] + arc(0.48, 0.71, 0.36, 0.29, -1.05, 0.95)],
        [arc(0.75, 0.55, 0.63, 0.55, -0.55, -1) + arc(0.47, 0.72, 0.35, 0.28, 1, -1)],
        [[(0.35, 0), (0.15, 0.55)] + arc(0.48, 0.74, 0.36, 0.26, -1, 1)],
    ],
    7: [
        [[(0.1, 0), (0.9, 0), (0.4, 1)]],
        [[(0.1, 0.02), (0.9, 0), (0.45, 1)], [(0.35, 0.5), (0.85, 0.48)]],
        [[(0.12, 0.15), (0.12, 0), (0.85, 0), (0.55, 1)]],
        [[(0.1, 0.05), (0.9, 0), (0.6, 0.45), (0.5, 1)], [(0.25, 0.55), (0.9, 0.5)]],
        [[(0.1, 0), (0.9, 0), (0.85, 0.4), (0.8, 1)]],
    ],
    8: [
        [arc(0.5, 0.24, 0.31, 0.24, 0.5, 2.5) + arc(0.5, 0.74, 0.4, 0.26, -0.5, 1.5)],
        [arc(0.5, 0.25, 0.35, 0.25, 0, -1.4, 10) + arc(0.5, 0.75, 0.38, 0.25, -0.4, 1.4, 12) + [(0.82, 0.2)]],
    ],
    9: [
        [arc(0.48, 0.28, 0.36, 0.28, 0, -2) + [(0.84, 0.28), (0.8, 1)]],
        [arc(0.48, 0.28, 0.36, 0.28, 0, 2) + [(0.84, 0.3), (0.75, 0.7), (0.4, 1)]],
        [arc(0.46, 0.28, 0.34, 0.28, -0.2, -2.1) + [(0.82, 0.6)] + arc(0.45, 0.72, 0.37, 0.28, 0, 0.75)],
    ],
}


def bent(form, rng):
    """The form as another hand would draw it."""
    a, shear = rng.normal(0, 0.09), rng.normal(-0.08, 0.15)
    wide = np.exp(rng.normal(-0.15, 0.18))
    # One smooth wave over the plane, in each direction.
    f = rng.normal(0, 2.5, (2, 2))
    phase, size = rng.uniform(0, 2 * pi, 2), rng.normal(0, 0.035, 2)
    out = []
    for stroke in form:
        s = np.array(stroke) - 0.5
        s = s + size * np.sin(s @ f + phase) + rng.normal(0, 0.03, 2)  # strokes do not quite meet
        s = s + rng.normal(0, 0.012, s.shape)
        x = s[:, 0] * wide + shear * s[:, 1]
        out.append(np.stack([x * cos(a) - s[:, 1] * sin(a), x * sin(a) + s[:, 1] * cos(a)], 1))
    return out


def count_blocks(form, pen):
    """Strokes to 8x8 counts 0..16: scaled to the height of 32 pixels, at most
    WIDEST wide, centred, inked with a round pen of radius `pen` pixels."""
    WIDEST = 24
    points = np.concatenate(form)
    low, high = points.min(0), points.max(0)
    size = np.maximum(high - low, 1e-3)
    scale_y = (32 - 2 * pen) / size[1]
    scale_x = min(scale_y, (WIDEST - 2 * pen) / size[0])
    ink = np.zeros((32, 32), bool)
    py, px = np.mgrid[:32, :32] + 0.5
    for stroke in form:
        s = (stroke - (low + high) / 2) * [scale_x, scale_y] + 16
        a, d = s[:-1, :, None, None], (s[1:] - s[:-1])[:, :, None, None]
        t = ((px - a[:, 0]) * d[:, 0] + (py - a[:, 1]) * d[:, 1]) / np.maximum((d**2).sum(1), 1e-9)
        t = np.clip(t, 0, 1)
        away = (px - a[:, 0] - t * d[:, 0]) ** 2 + (py - a[:, 1] - t * d[:, 1]) ** 2
        ink |= (away < pen * pen).any(0)
    return ink.reshape(8, 4, 8, 4).sum((1, 3)).astype(np.uint8)


def drawings(each, rng):
    """`each` drawings of every digit: images [10·each, 8, 8] and labels."""
    images, labels = [], []
    for digit, forms in FORMS.items():
        for _ in range(each):
            form = bent(forms[rng.integers(len(forms))], rng)
            images.append(count_blocks(form, rng.uniform(1.7, 3.2)))
            labels.append(digit)
    return np.stack(images), np.array(labels, np.uint8)
