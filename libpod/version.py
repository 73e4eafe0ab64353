# SPDX-License-Identifier: Apache-2.0
"""Which version of the library this is."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from libpod import __version__
from libpod.info import architecture


class Version(NamedTuple):
    """The original's `GetVersion`, with Python's version for Go's."""

    version: str
    python_version: str
    git_commit: str
    """Empty: a package does not know of which commit it was built."""
    built: int
    """When its compiled parts were built, in seconds since the epoch."""
    os_arch: str
    """By Go's names: "linux/amd64"."""


def get_version() -> Version:
    """This library's."""
    from libpod import _kv

    return Version(
        version=__version__,
        python_version=sys.version.split()[0],
        git_commit="",
        built=int(os.stat(_kv.__file__).st_mtime),
        os_arch=f"linux/{architecture()}",
    )
