"""Reading the data and writing a model."""

import json
import pathlib

import numpy as np
from safetensors.numpy import load_file, save_file

import network

DEMOS = pathlib.Path(__file__).parent.parent


def data(name):
    return load_file(DEMOS / "data" / f"{name}.safetensors")


def rounded(x):
    """The nearest numbers of sixteen significant bits, ties to even: what is dropped is far below the noise of
    training, and no compression makes it smaller where weights are downloaded."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7F + (bits >> 8 & 1)) & 0xFFFFFF00).astype(np.uint32).view(np.float32)


def save(name, arch, params, about):
    """Write demos/models/NAME.safetensors: f32 tensors, and `network` in the metadata. Weights are rounded,
    what an input is normalised by is not.

    The JSON says all that a reader needs to rebuild the network: see
    demos/models/README.md.
    """
    path = DEMOS / "models" / f"{name}.safetensors"
    tensors = {n: np.asarray(x, np.float32) if n.startswith("input.") else rounded(x) for n, x in params.items()}
    count = sum(x.size for x in tensors.values())
    described = dict(
        arch,
        parameters=count,
        norm="rms",
        epsilon=network.EPSILON,
        activation="relu",
        pooling="mean",
        weights="in_out",
        **about,
    )
    save_file(tensors, path, {"network": json.dumps(described)})
    path.chmod(0o644)
    print(f"{path.name}: {count} parameters, {path.stat().st_size} bytes")
