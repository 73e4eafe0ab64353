# SPDX-License-Identifier: Apache-2.0
"""The extension modules; everything else about the project is in pyproject.toml.

LIBPOD_SANITIZE=address,undefined  builds with these sanitizers
LIBPOD_DEBUG=1                     builds with asserts, symbols and -Werror
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

# Without -Wshadow, which is not for generated code: the C tests build ours with it.
WARNINGS = ["-Wall", "-Wextra", "-Wstrict-prototypes", "-Wvla"]
SANITIZE = os.environ.get("LIBPOD_SANITIZE", "")
DEBUG = bool(SANITIZE or os.environ.get("LIBPOD_DEBUG"))

COMPILE = ["-std=gnu11", "-fvisibility=hidden", "-D_GNU_SOURCE", *WARNINGS]
COMPILE += ["-iquote", "csrc"]  # not -I: <sys/...> must remain the system's
LINK: list[str] = []
# The interpreter's own flags carry -g and -DNDEBUG.
COMPILE += ["-g", "-O1", "-UNDEBUG"] if DEBUG else ["-g0", "-O2"]
if SANITIZE:
    COMPILE += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer"]
    LINK += [f"-fsanitize={SANITIZE}"]


def room(*names: str) -> list[str]:
    """The C sources of rooms below csrc/."""
    return sorted(source for name in names for source in glob(f"csrc/{name}/*.c"))


def extension(module: str, *rooms: str) -> Extension:
    return Extension(
        f"libpod.{module}",
        [f"libpod/{module}.pyx", *room(*rooms)],
        depends=glob("csrc/*/*.h") + glob("libpod/*.px[di]"),
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
    )


setup(
    ext_modules=cythonize(
        [
            extension("_kv", "base", "kv"),
            extension("_lock", "base", "sys"),
            extension("_spawn", "base", "proc"),
        ],
        language_level=3,
        build_dir="build/cython",
        annotate=False,
    ),
    cffi_modules=["csrc/sys/build_sys.py:ffi"],
)
