"""Writes the antibody models of the anarcii package as one safetensors file, with what they must decode.

    python export.py OUT.safetensors [PACKAGE]

PACKAGE is a wheel of anarcii, or the folder that it was unpacked or installed into; by default the installed
package. Nothing of it is imported and nothing but Python's own library is needed: a checkpoint of PyTorch is a
zip of raw numbers and a small pickle that says where each tensor lies, and of that pickle only the few names
below are understood.

Tensors are named `speed.` or `accuracy.` and then as in the checkpoint, all f32. The metadata has one entry,
`anarcii`: expected.json beside this file, as it is. A checkpoint other than the one that expected.json was
recorded from is refused. Exit status 3: the package is not there.
"""

import hashlib
import importlib.util
import io
import json
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from math import prod
from pathlib import Path

EXPECTED = Path(__file__).resolve().parent / "expected.json"
MISSING = 3


class Checkpoint(pickle.Unpickler):
    """Reads tensors as (shape, bytes)."""

    def __init__(self, raw):
        self.zip = zipfile.ZipFile(io.BytesIO(raw))
        self.root = next(n for n in self.zip.namelist() if n.endswith("/data.pkl")).removesuffix("data.pkl")
        order = self.root + "byteorder"
        if order in self.zip.namelist() and self.zip.read(order) != b"little":
            raise ValueError("the checkpoint is not little-endian")
        super().__init__(io.BytesIO(self.zip.read(self.root + "data.pkl")))

    def find_class(self, module, name):
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch", "FloatStorage"): "f32",
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint of weights")
        return known[module, name]

    def persistent_load(self, saved):
        kind, dtype, key, _device, count = saved
        data = self.zip.read(f"{self.root}data/{key}")
        if (kind, dtype, len(data)) != ("storage", "f32", 4 * count):
            raise ValueError(f"storage {key} is not {count} floats")
        return data

    @staticmethod
    def tensor(data, offset, shape, strides, *_):
        row_major = [prod(shape[axis + 1:]) for axis in range(len(shape))]
        if list(strides) != row_major:
            raise ValueError(f"strides {strides} of {shape} are not row-major")
        return shape, data[4 * offset:4 * (offset + prod(shape))]


def reader(package):
    """A function from a path inside the package to its bytes."""
    if package is None:
        found = importlib.util.find_spec("anarcii")
        if found is None or not found.submodule_search_locations:
            print("the package anarcii is not installed (pip install --no-deps anarcii) and no wheel was given", file=sys.stderr)
            sys.exit(MISSING)
        package = Path(found.submodule_search_locations[0]).parent
    package = Path(package)
    if package.is_dir():
        return lambda path: (package / path).read_bytes()
    if not package.exists():
        print(f"{package} is not there", file=sys.stderr)
        sys.exit(MISSING)
    return zipfile.ZipFile(package).read


def tensors(read, models):
    """Every tensor of every model by name."""
    found = {}
    for model, about in models.items():
        raw = read(about["file"])
        if hashlib.sha256(raw).hexdigest() != about["sha256"]:
            raise SystemExit(f"{about['file']}: not the weights that expected.json was recorded from")
        for name, tensor in Checkpoint(raw).load().items():
            found[f"{model}.{name}"] = tensor
    return found


def write(path, found, text):
    """A safetensors file: eight bytes of header length, JSON, raw data."""
    header, data = {"__metadata__": {"anarcii": text}}, []
    end = 0
    for name, (shape, raw) in found.items():
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + len(raw)]}
        data.append(raw)
        end += len(raw)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(head)) + head + b"".join(data))


def main(arguments):
    if not 1 <= len(arguments) <= 2:
        raise SystemExit("usage: python export.py OUT.safetensors [WHEEL or FOLDER]")
    text = EXPECTED.read_text()
    found = tensors(reader(*(arguments[1:] or [None])), json.loads(text)["models"])
    write(arguments[0], found, text)
    print(f"{arguments[0]}: {len(found)} tensors, {sum(len(raw) for _, raw in found.values()) // 4} numbers")


if __name__ == "__main__":
    main(sys.argv[1:])
