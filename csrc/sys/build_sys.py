# SPDX-License-Identifier: Apache-2.0
"""libpod._sys: directories, mounts and what the host is, by cffi in API mode.

setup.py runs this file from the top of the tree; the environment variables
that it knows (LIBPOD_SANITIZE, LIBPOD_DEBUG) mean the same here.
"""

import os
from glob import glob

from cffi import FFI

SANITIZE = os.environ.get("LIBPOD_SANITIZE", "")
DEBUG = bool(SANITIZE or os.environ.get("LIBPOD_DEBUG"))

# cffi's own half of the module is not written for -Wextra and -Wconversion;
# ours is checked with them when the C tests are built.
COMPILE = ["-std=gnu11", "-fvisibility=hidden", "-D_GNU_SOURCE", "-Wall", "-pthread"]
COMPILE += ["-iquote", "csrc"]  # not -I: <sys/...> must remain the system's
LINK = ["-pthread"]
COMPILE += ["-g", "-O1", "-UNDEBUG"] if DEBUG else ["-g0", "-O2"]
if SANITIZE:
    COMPILE += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer"]
    LINK += [f"-fsanitize={SANITIZE}"]

INCLUDES = """
#include "base/error.h"
#include "sys/dirtree.h"
#include "sys/hostaddr.h"
#include "sys/inroot.h"
#include "sys/mount.h"
#include "sys/path.h"
#include "sys/rundir.h"
#include "sys/swap.h"
#include "sys/sys.h"
"""

ROOMS = ("dirtree", "hostaddr", "inroot", "mount", "path", "rundir", "swap")

ffi = FFI()
with open("csrc/sys/cffi_sys.h") as declarations:
    ffi.cdef(declarations.read())
ffi.set_source(
    "libpod._sys",
    INCLUDES,
    sources=["csrc/base/error.c", *(f"csrc/sys/{name}.c" for name in ROOMS)],
    depends=glob("csrc/base/*.h") + glob("csrc/sys/*.h"),
    extra_compile_args=COMPILE,
    extra_link_args=LINK,
)
