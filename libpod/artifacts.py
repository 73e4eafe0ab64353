# SPDX-License-Identifier: Apache-2.0
"""Small files that are kept with a container until it is removed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from libpod.errors import InvalidArgument, SystemCallError

MODE = 0o740
"""The original's."""


def write(directory: str, name: str, data: bytes) -> None:
    """Keeps `data` under this name, whole or not at all."""
    path = _path(directory, name)
    scratch = f"{directory}/.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _told("write", path):
        os.makedirs(directory, mode=0o755, exist_ok=True)
        try:
            with open(os.open(scratch, flags, MODE), "wb") as file:
                file.write(data)
                os.fchmod(file.fileno(), MODE)  # whatever the umask
            os.rename(scratch, path)
        except BaseException:
            os.unlink(scratch)
            raise


def read(directory: str, name: str) -> bytes:
    path = _path(directory, name)
    with _told("read", path), open(path, "rb") as file:
        return file.read()


def remove(directory: str, name: str) -> None:
    path = _path(directory, name)
    with _told("remove", path):
        os.unlink(path)


def _path(directory: str, name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise InvalidArgument(f"the artifact name {name!r} is no file name")
    return f"{directory}/{name}"


@contextmanager
def _told(verb: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SystemCallError(
            f"cannot {verb} the artifact {path}: {error.strerror}", error.errno or 0
        ) from error
