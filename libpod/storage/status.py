# SPDX-License-Identifier: Apache-2.0
"""What the overlay driver says of itself: `graphStatus` of `podman info`.

podman finds out by mounting; it keeps the answers as names of empty files in
RUN_ROOT/overlay, which are the truth where they are.  Elsewhere the kernel module's
parameters tell the same.
"""

from __future__ import annotations

import os

from libpod.errors import Unsupported

_FAMILIES = {
    "ext2": "extfs",
    "ext3": "extfs",
    "ext4": "extfs",
    "overlay": "overlayfs",
    "nfs4": "nfs",
    "cifs": "smb",
    "smb3": "smb",
}
"""containers/storage's name where it is not the kernel's."""

_PARAMETERS = "/sys/module/overlay/parameters"


def overlay_status(graph_root: str, run_root: str) -> list[tuple[str, str]]:
    """The pairs that podman shows, in its order.

    Raises:
        OSError: the graph root is not there.
        Unsupported: the kernel does not say on which file system it is.
    """
    found = _found_by_podman(f"{run_root}/overlay")
    native = found.get("native-diff()", not _is_on("redirect_dir"))
    metacopy = found.get("metacopy()", _is_on("metacopy"))
    return [
        ("Backing Filesystem", _file_system(graph_root)),
        ("Supports d_type", "true"),  # overlay cannot be mounted without
        ("Native Overlay Diff", _word(native)),
        ("Using metacopy", _word(metacopy)),
    ]


def _found_by_podman(directory: str) -> dict[str, bool]:
    """ "native-diff()-true" is True by the name "native-diff()"."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return {}
    parts = (name.rpartition("-") for name in names)
    return {name: answer == "true" for name, _, answer in parts if answer in ("true", "false")}


def _is_on(parameter: str) -> bool:
    try:
        with open(f"{_PARAMETERS}/{parameter}", encoding="ascii") as file:
            return file.read(1) == "Y"
    except FileNotFoundError:  # not loaded, or too old to have it
        return False


def _word(value: bool) -> str:
    return "true" if value else "false"


def _file_system(path: str) -> str:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            mount = next((line.split()[1] for line in info if line.startswith("mnt_id:")), "")
    finally:
        os.close(fd)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            if line.split(" ", 1)[0] == mount:
                kind = line.partition(" - ")[2].split()[0]
                return _FAMILIES.get(kind, kind)
    raise Unsupported(f"cannot tell on which file system {path} is")
