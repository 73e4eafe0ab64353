# SPDX-License-Identifier: Apache-2.0
"""Checks what `make wheel` made: python .ci/check_wheel.py DIST

One sdist and one wheel; the wheel ships the typing files and no sources, and
works in a fresh environment, seen from a directory other than the project's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from zipfile import ZipFile

SOURCES = (".pyx", ".pxd", ".pxi", ".c", ".h", ".o")
USE = "import libpod._spawn, libpod._sys; print(libpod.__version__, libpod.__file__)"


def check_contents(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    if sources := [name for name in names if name.endswith(SOURCES)]:
        sys.exit(f"{wheel.name} ships sources: {sources}")
    if foreign := [name for name in names if not name.startswith(("libpod/", "libpod-"))]:
        sys.exit(f"{wheel.name} ships what is not the package: {foreign}")
    for needed in ("libpod/py.typed", "libpod/_spawn.pyi"):
        if needed not in names:
            sys.exit(f"{wheel.name} lacks {needed}")


def check_use(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)
        python = f"{directory}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel.resolve()], check=True)
        subprocess.run([python, "-c", USE], cwd=directory, check=True)
        subprocess.run([f"{directory}/bin/libpod", "version"], cwd=directory, check=True)


def main() -> None:
    dist = Path(sys.argv[1])
    (_sdist,) = dist.glob("*.tar.gz")
    (wheel,) = dist.glob("*.whl")
    check_contents(wheel)
    check_use(wheel)
    print(f"{wheel.name}: good")


main()
