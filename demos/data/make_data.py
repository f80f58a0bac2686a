"""Make digits.safetensors and vowels.safetensors from two published packages.

    pip install -r ../golden/requirements.txt
    pip download --no-deps aeon==1.6.0        # only its data files are read
    python make_data.py aeon-1.6.0-py3-none-any.whl

Where the data comes from and under which licence: ORIGIN.md beside this file.

The files hold the data as published, in the published order; nothing is
normalised, filtered or reordered, so that whoever has the originals can
compare. What is added is `split`: 0 is training, 1 is held out.
"""

import json
import pathlib
import sys
import zipfile

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

HERE = pathlib.Path(__file__).parent
LONGEST = 29  # frames of the longest utterance of the vowels
FEATURES = 12
SPLIT_SEED = 0


def stratified_quarter(labels, seed):
    """Hold out a quarter of every class, chosen by a fixed seed.

    Class after class in ascending order, one shuffle each, so that the split
    depends on nothing but the labels and numpy's PCG64 stream.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    split = np.zeros(len(labels), np.uint8)
    for c in range(labels.max() + 1):
        members = np.flatnonzero(labels == c)
        held_out = rng.permutation(members)[: round(len(members) / 4)]
        split[held_out] = 1
    return split


def digits():
    bunch = load_digits()
    labels = bunch.target.astype(np.uint8)
    tensors = {
        "images": bunch.images.astype(np.uint8),  # [1797, 8, 8], 0..16
        "labels": labels,
        "split": stratified_quarter(labels, SPLIT_SEED),
    }
    assert tensors["images"].shape == (1797, 8, 8) and tensors["images"].max() == 16
    about = {
        "name": "Optical Recognition of Handwritten Digits (its 1797 test images)",
        "authors": "E. Alpaydin, C. Kaynak",
        "doi": "10.24432/C50P49",
        "licence": "CC-BY-4.0",
        "split": f"stratified quarter, PCG64 seed {SPLIT_SEED}",
    }
    return tensors, about


def read_ts(text):
    """The utterances of a .ts file: features separated by ':', frames by ','."""
    data = text.split("@data", 1)[1].strip().splitlines()
    for line in data:
        *features, label = line.strip().split(":")
        frames = np.array([[float(x) for x in f.split(",")] for f in features]).T
        assert frames.shape[1] == FEATURES
        yield frames, int(label) - 1  # speakers are numbered from 1 there


def vowels(wheel):
    folder = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_"
    frames, lengths, labels, split = [], [], [], []
    with zipfile.ZipFile(wheel) as z:
        for which, name in enumerate(["TRAIN.ts", "TEST.ts"]):
            for f, label in read_ts(z.read(folder + name).decode()):
                padded = np.zeros((LONGEST, FEATURES), np.float32)
                padded[: len(f)] = f
                frames.append(padded)
                lengths.append(len(f))
                labels.append(label)
                split.append(which)
    tensors = {
        "frames": np.stack(frames),  # [640, 29, 12], zeros after the last frame
        "lengths": np.array(lengths, np.uint8),
        "labels": np.array(labels, np.uint8),
        "split": np.array(split, np.uint8),
    }
    assert tensors["frames"].shape == (640, LONGEST, FEATURES)
    assert (tensors["split"] == 0).sum() == 270
    assert tensors["lengths"].min() == 7 and tensors["lengths"].max() == LONGEST
    about = {
        "name": "Japanese Vowels",
        "authors": "M. Kudo, J. Toyama, M. Shimbo",
        "doi": "10.24432/C5NS47",
        "licence": "CC-BY-4.0",
        "split": "as published: 270 training, 370 test",
    }
    return tensors, about


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, (tensors, about) in {"digits": digits(), "vowels": vowels(sys.argv[1])}.items():
        save_file(tensors, HERE / f"{name}.safetensors", {"data": json.dumps(about)})
        print(name, {k: v.shape for k, v in tensors.items()}, "held out:", int(tensors["split"].sum()))


main()
