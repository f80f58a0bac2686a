"""Reading the data and writing a model."""

import json
import pathlib

import numpy as np
from safetensors.numpy import load_file, save_file

import network

DEMOS = pathlib.Path(__file__).parent.parent


def data(name):
    return load_file(DEMOS / "data" / f"{name}.safetensors")


def save(name, arch, params, about):
    """Write demos/models/NAME.safetensors: f32 tensors, and `network` in the metadata.

    The JSON says all that a reader needs to rebuild the network: see
    demos/models/README.md.
    """
    path = DEMOS / "models" / f"{name}.safetensors"
    tensors = {n: np.asarray(x, np.float32) for n, x in params.items()}
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
