"""Runs the generators, each in a process of its own since some libraries do not like each other, and then
the verifier. `python make_all.py --no-libraries` leaves out those that need more than numpy."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NUMPY = ["make_flux", "make_options", "make_edges", "make_dropout", "make_invalid"]
LIBRARIES = ["make_pytorch", "make_keras", "make_flax", "make_onnx"]


def main():
    names = NUMPY if "--no-libraries" in sys.argv else NUMPY + LIBRARIES
    for name in names:
        print(name, flush=True)
        subprocess.run([sys.executable, "-W", "ignore", HERE / f"{name}.py"], check=True)
    sys.exit(subprocess.run([sys.executable, HERE / "verify.py", "--f32"]).returncode)


if __name__ == "__main__":
    main()
