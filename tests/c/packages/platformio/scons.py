"""SCons out of PyPI where PlatformIO looks for a package of its own."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "modules"))

import SCons.Script  # noqa: E402

SCons.Script.main()
