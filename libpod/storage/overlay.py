# SPDX-License-Identifier: Apache-2.0
"""The directories of layers, as the overlay driver of containers/storage lays them out.

    overlay/ID/diff    what the layer adds to those below it
    overlay/ID/link    the layer's short name, 26 characters
    overlay/ID/lower   the short names of the layers below it, nearest first
    overlay/ID/empty   instead of `lower` in a layer that stands on nothing
    overlay/ID/work, merged
    overlay/l/LINK     -> ../ID/diff

All calls want the exclusive lock of layers.json: podman makes and removes these
directories and the layer's record under one hold of it, so a directory without a
record is what a crash left.
"""

from __future__ import annotations

import base64
import errno
import os
import re
from collections.abc import Iterator

from libpod.failpoint import reach
from libpod.trees import remove_tree

LINKS = "l"
_LINK_BYTES = 16  # 26 characters of base32, as many as the original draws
_DIFF_MODE = 0o555  # of the root directory that stands on nothing, as in the original
_ID = re.compile("[0-9a-f]{64}")


class Overlay:
    __slots__ = ("home",)

    def __init__(self, home: str) -> None:
        self.home = home

    def make(self, layer_id: str, parent_id: str) -> None:
        """Makes a layer's directories on top of `parent_id` ("" for none).  Raises OSError."""
        place = f"{self.home}/{layer_id}"
        mode, lower = _DIFF_MODE, ""
        if parent_id:
            below = f"{self.home}/{parent_id}"
            mode = os.stat(f"{below}/diff").st_mode & 0o7777
            lower = ":".join(
                filter(None, (f"{LINKS}/{_read(f'{below}/link')}", self._lower(below)))
            )
        link = base64.b32encode(os.urandom(_LINK_BYTES)).decode().rstrip("=")
        os.mkdir(place, 0o700)
        reach("storage.create.layer")
        os.mkdir(f"{place}/diff")
        os.chmod(f"{place}/diff", mode)  # whatever the umask
        _write(f"{place}/link", link)
        reach("storage.create.diff")
        os.symlink(f"../{layer_id}/diff", f"{self.home}/{LINKS}/{link}")
        reach("storage.create.link")
        if lower:
            _write(f"{place}/lower", lower)
        else:
            os.mkdir(f"{place}/empty", 0o700)
        os.mkdir(f"{place}/work", 0o700)
        os.mkdir(f"{place}/merged", 0o700)

    def _lower(self, place: str) -> str:
        try:
            return _read(f"{place}/lower")
        except FileNotFoundError:
            return ""

    def release(self, layer_id: str) -> bool:
        """Takes the empty mount point away: whether the layer was not mounted.

        The original removes it at each unmount, and makes it at the next mount.
        """
        try:
            os.rmdir(f"{self.home}/{layer_id}/merged")
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
        return True

    def remove_empty_diff(self, layer_id: str) -> bool:
        """Removes the directory that a layer's files are in if there is none: whether
        it is gone.  That is the one look at it which nothing can come after."""
        try:
            os.rmdir(f"{self.home}/{layer_id}/diff")
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def remove(self, layer_id: str) -> None:
        """Removes what there is of a layer, if anything.  Raises OSError."""
        place = f"{self.home}/{layer_id}"
        try:
            link = _read(f"{place}/link")
        except FileNotFoundError:
            link = ""
        if link and "/" not in link:
            self.remove_link(link)
        reach("storage.delete.link")
        remove_tree(place)

    def remove_if_empty(self, layer_id: str) -> None:
        """Removes a layer in which there is no file."""
        if self.remove_empty_diff(layer_id):
            self.remove(layer_id)

    def remove_link(self, link: str) -> None:
        try:
            os.unlink(f"{self.home}/{LINKS}/{link}")
        except FileNotFoundError:
            pass

    def layers(self) -> Iterator[str]:
        """The IDs that have a directory."""
        return filter(_ID.fullmatch, os.listdir(self.home))

    def links(self) -> Iterator[tuple[str, str]]:
        """The short names, and the ID that each stands for."""
        with os.scandir(f"{self.home}/{LINKS}") as entries:
            for entry in entries:
                if entry.is_symlink():
                    target = os.readlink(entry.path).split("/")
                    if len(target) == 3 and target[0] == ".." and target[2] == "diff":
                        yield entry.name, target[1]


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read().decode("ascii", errors="surrogateescape")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
