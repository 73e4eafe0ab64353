# SPDX-License-Identifier: Apache-2.0
"""What `make run` shows: one real container, its output, its exit code, and
how long each phase of it took."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

import libpod

SCRIPT = """
echo "Hello from $(hostname), process $$ of its own process namespace."
echo "This line went to standard error." >&2
exit 7
"""


def make_rootfs(directory: str) -> None:
    """A root file system that holds busybox and a link for each of its commands."""
    static = shutil.which("busybox")
    if static is None:
        sys.exit("demo: no busybox in PATH; `make run` installs it")
    programs = os.path.join(directory, "bin")
    os.mkdir(programs)
    busybox = shutil.copy(static, programs)
    subprocess.run([busybox, "--install", programs], check=True)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="libpod-demo-") as rootfs, libpod.Runtime() as runtime:
        make_rootfs(rootfs)
        result = runtime.run(libpod.Spec(rootfs=rootfs), ["sh", "-c", SCRIPT])
    print("== A container ran from a busybox root file system")
    for stream, data in (("stdout", result.stdout), ("stderr", result.stderr)):
        for line in data.decode(errors="replace").splitlines():
            print(f"{stream:>10}  {line}")
    print(f"{'reason':>10}  {result.reason.value}")
    print(f"{'exit code':>10}  {result.exit_code}")
    print("== It took")
    for phase, seconds in result.phases.items():
        print(f"{phase:>10}  {seconds * 1000:8.1f} ms")
    return 0 if result.exit_code == 7 else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except libpod.LibpodError as error:
        sys.exit(f"libpod: {error}\n{error.detail or ''}".rstrip())
