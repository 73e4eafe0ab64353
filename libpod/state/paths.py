# SPDX-License-Identifier: Apache-2.0
"""The directories that a database belongs to, and what happens if ours differ."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from libpod.errors import DBBadConfig

log = logging.getLogger("libpod.state")

OS_KEY = "os"
OS = "linux"


class RuntimePaths(NamedTuple):
    """Where a runtime keeps its things; "" where nobody said and there is no default."""

    static_dir: str
    tmp_dir: str
    run_root: str
    graph_root: str
    graph_driver: str = ""
    volume_path: str = ""


KEYS = {
    "static_dir": "static-dir",
    "tmp_dir": "tmp-dir",
    "run_root": "run-root",
    "graph_root": "graph-root",
    "graph_driver": "graph-driver-name",
    "volume_path": "volume-path",
}
"""Member of `RuntimePaths` to key of the database."""


class Reconciled(NamedTuple):
    """What holds from now on, and what the database has yet to be told."""

    paths: RuntimePaths
    missing: dict[str, str]


def reconcile(
    recorded: Mapping[str, str],
    ours: RuntimePaths,
    explicit: Collection[str],
    defaults: RuntimePaths,
    path: str,
) -> Reconciled:
    """Compares the database's `recorded` values with ours, of which the user has set
    those named in `explicit`.

    A value that nobody set gives way to the database's.  One that was set must be
    the same: paths are compared resolved, and "" means the default on either
    side.  Raises `DBBadConfig`.
    """
    missing = {}
    if OS_KEY not in recorded:
        missing[OS_KEY] = OS
    elif recorded[OS_KEY] != OS:
        raise _mismatch(path, OS_KEY, recorded[OS_KEY], OS)
    chosen = {}
    for member, key in KEYS.items():
        mine, default = getattr(ours, member), getattr(defaults, member)
        theirs = recorded.get(key)
        if theirs is None:
            theirs = missing[key] = mine or default
        elif member in explicit:
            if not _same(member, mine or default, theirs or default):
                raise _mismatch(path, key, theirs, mine)
        elif theirs and not _same(member, mine or default, theirs):
            log.info("%s: the database's %s %s overrides %s", path, key, theirs, mine or default)
        chosen[member] = theirs or mine or default
    return Reconciled(RuntimePaths(**chosen), missing)


def _same(member: str, one: str, other: str) -> bool:
    if one == other or member == "graph_driver":
        return one == other
    return bool(one and other) and os.path.realpath(one) == os.path.realpath(other)


def _mismatch(path: str, key: str, theirs: str, ours: str) -> DBBadConfig:
    return DBBadConfig(
        f'{path}: database {key} "{theirs}" does not match our {key} "{ours}"',
        remedy=f"use {theirs}, or another root directory",
    )
