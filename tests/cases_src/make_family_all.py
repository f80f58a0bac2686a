"""Runs the generators of the attention family, each in a process of its own, and then their verifier.
`python make_family_all.py --no-libraries` leaves out those that need more than numpy and ml_dtypes."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NUMPY = ["make_family", "make_family_invalid"]
LIBRARIES = ["make_family_onnx", "make_family_onnxruntime", "make_family_pytorch", "make_family_transformers", "make_family_jax"]


def main():
    for name in NUMPY if "--no-libraries" in sys.argv else NUMPY + LIBRARIES:
        print(name, flush=True)
        subprocess.run([sys.executable, "-W", "ignore", HERE / f"{name}.py"], check=True)
    sys.exit(subprocess.run([sys.executable, HERE / "verify_family.py", "--f32"]).returncode)


if __name__ == "__main__":
    main()
