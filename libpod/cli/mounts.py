# SPDX-License-Identifier: Apache-2.0
"""podman's flags for what is mounted in a container: --volume, --tmpfs, --mount."""

from __future__ import annotations

import argparse

from libpod.cli.flags import named
from libpod.errors import InvalidArgument, NotBuilt
from libpod.job import Mount


def parse(args: argparse.Namespace) -> tuple[list[Mount], dict[str, str]]:
    """Bind mounts, and file systems in memory by their place."""
    mounts = [Mount.parse(text) for text in args.volume]
    tmpfs = [tuple(text.partition(":")[::2]) for text in args.tmpfs]
    for text in args.mount:
        kind, fields = _mount_fields(text)
        if kind == "bind":
            mounts.append(_bind(fields))
        else:
            tmpfs.append((_destination(fields), _tmpfs_options(fields)))
    return mounts, dict(named("--tmpfs", (":".join(pair) for pair in tmpfs), ":"))


_MOUNT_NAMES = {"src": "source", "dst": "target", "destination": "target", "readonly": "ro"}
_TMPFS_FIELDS = {"tmpfs-size": "size", "tmpfs-mode": "mode"}


def _mount_fields(text: str) -> tuple[str, dict[str, str]]:
    """The kind and the other fields of a --mount, by their first names."""
    kind, fields = "volume", {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        name = _MOUNT_NAMES.get(name, name)
        if name == "type":
            kind = value
        elif name in fields:
            raise InvalidArgument(f"--mount {text!r}: {name} is given twice")
        else:
            fields[name] = value
    if kind in ("volume", "image", "devpts", "glob", "ramfs"):
        raise NotBuilt(f"--mount type={kind} is not built yet", remedy="give type=bind or tmpfs")
    if kind not in ("bind", "tmpfs"):
        raise InvalidArgument(f'invalid filesystem type "{kind}"')
    return kind, fields


def _destination(fields: dict[str, str]) -> str:
    target = fields.pop("target", "")
    if not target:
        raise InvalidArgument("must set volume destination")
    return target


def _bind(fields: dict[str, str]) -> Mount:
    target = _destination(fields)
    source = fields.pop("source", "")
    if not source:
        raise InvalidArgument("must set source volume")
    options = []
    if "bind-propagation" in fields:
        options.append(fields.pop("bind-propagation"))
    relabel = fields.pop("relabel", None)
    if relabel is not None:
        options.append({"shared": "z", "private": "Z"}.get(relabel, relabel))
    if _truth(fields.pop("bind-nonrecursive", "false")):
        options.append("bind")
    read_only = _read_only(fields)
    return Mount(source, target, read_only, [*options, *_plain_options(fields)])


def _tmpfs_options(fields: dict[str, str]) -> str:
    options = [f"{option}={fields.pop(f)}" for f, option in _TMPFS_FIELDS.items() if f in fields]
    read_only = ["ro"] if _read_only(fields) else []
    return ",".join([*options, *read_only, *_plain_options(fields)])


def _read_only(fields: dict[str, str]) -> bool:
    writable = fields.pop("rw", None)
    if writable is not None:
        return not _truth(writable)
    return "ro" in fields and _truth(fields.pop("ro"))


def _truth(value: str) -> bool:
    if value.lower() in ("", "true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise InvalidArgument(f"--mount: must be true or false, found {value!r}")


def _plain_options(fields: dict[str, str]) -> list[str]:
    for name, value in fields.items():
        if value:
            raise InvalidArgument(f"{name}: invalid mount option")
    return list(fields)
