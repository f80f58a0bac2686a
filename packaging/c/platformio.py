"""Links the archive that fits what PlatformIO compiles for, told by the compiler's macros.

`build_flags = -D MHA_SIZE` takes that of the least code.
"""

import os
import re
import subprocess

Import("env")  # noqa: F821

folder = os.getcwd()  # PlatformIO runs this in the library's folder
flags = [str(flag) for flag in env.Flatten([env.get("CCFLAGS", []), env.get("CFLAGS", [])])  # noqa: F821
         if str(flag).startswith("-m")]
command = [env.subst("$CC"), *flags, "-E", "-P", "-x", "c"]  # noqa: F821
said = subprocess.run([*command, os.path.join("cmake", "which.c")], env=env["ENV"],  # noqa: F821
                      capture_output=True, text=True, check=True).stdout
name = re.search(r'mha_archive "([^"]*)"', said)
if not name:
    raise SystemExit("mha: no archive for this processor")
name = name.group(1)
# No macro tells an M7 from an M4.
if "MHA_SIZE" in str(env.get("CPPDEFINES", [])):  # noqa: F821
    name += "-size"
elif name == "thumbv7em-fp" and any("cortex-m7" in flag for flag in flags):
    name = "thumbv7em-fp-m7"
env.Append(LIBS=[env.File(os.path.join(folder, "lib", name, "libmha.a"))])  # noqa: F821
print("mha: " + name)
