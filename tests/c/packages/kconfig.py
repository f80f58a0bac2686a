"""Zephyr's language of options reads those of the module, whose path is the argument: that they parse, name
nothing unknown, and turn on what they say."""

import os
import sys
import tempfile

import kconfiglib

TREE = """
config CPU_HAS_FPU
	bool "of the processor"

config FPU
	bool "in use"
	depends on CPU_HAS_FPU

source "{module}"
"""

with tempfile.TemporaryDirectory() as folder:
    tree = os.path.join(folder, "Kconfig")
    with open(tree, "w", encoding="utf-8") as file:
        file.write(TREE.format(module=os.path.abspath(sys.argv[1])))
    # Whatever it would complain of.
    os.environ["KCONFIG_WARN_UNDEF"] = "y"
    options = kconfiglib.Kconfig(tree, warn_to_stderr=False)


def value(name):
    return options.syms[name].str_value


assert not options.warnings, options.warnings
for has_fpu in "n", "y":
    options.unset_values()
    options.syms["CPU_HAS_FPU"].set_value(has_fpu)
    assert value("MHA") == value("MHA_SIZE") == value("FPU") == "n"
    options.syms["MHA_SIZE"].set_value("y")
    assert value("MHA_SIZE") == "n", "the least code of nothing"
    options.syms["MHA"].set_value("y")
    assert value("MHA") == value("MHA_SIZE") == "y"
    assert value("FPU") == has_fpu, "archives for an FPU need it on"
print("ok")
