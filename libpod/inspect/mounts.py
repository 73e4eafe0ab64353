# SPDX-License-Identifier: Apache-2.0
"""`Mounts`, `HostConfig.Binds` and `HostConfig.Tmpfs`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from libpod.inspect.seen import Seen
from libpod.job import PROPAGATION
from libpod.state.paths import RuntimePaths


class Mount(NamedTuple):
    """A mount that the user asked for; `name` is a volume's."""

    kind: str
    name: str
    source: str
    destination: str
    options: list[str]
    writable: bool


def user_mounts(seen: Seen) -> list[Mount]:
    """Named volumes, images, then binds, each kind in the order in which podman noted
    the destinations.  tmpfs is shown elsewhere."""
    config = seen.config
    volumes = {v["dest"]: v for v in config.named_volumes}
    images = {v["dest"]: v for v in config.image_volumes}
    wanted = config.user_volumes
    found = [
        Mount("volume", volumes[at]["volumeName"], "", at, *_options(volumes[at]))
        for at in wanted
        if at in volumes
    ]
    found += [
        Mount("image", "", images[at]["source"], at, [], images[at].get("rw", False))
        for at in wanted
        if at in images and at not in volumes
    ]
    # In the spec of a container that was started, volumes are binds, too.
    rest = [at for at in wanted if at not in volumes and at not in images]
    binds = {m["destination"]: m for m in seen.spec.get("mounts") or ()} if rest else {}
    found += [
        Mount("bind", "", binds[at].get("source", ""), at, *_options(binds[at]))
        for at in rest
        if at in binds and binds[at].get("type") != "tmpfs"
    ]
    return found


def _options(mount: Mapping[str, Any]) -> tuple[list[str], bool]:
    """And whether it can be written to."""
    options = mount.get("options") or []
    return options, "ro" not in options


def show(mount: Mount, paths: RuntimePaths) -> dict[str, Any]:
    data: dict[str, Any] = {"Type": mount.kind}
    source, driver = mount.source, ""
    if mount.name:
        data["Name"] = mount.name
        source, driver = f"{paths.volume_path}/{mount.name}/_data", "local"
    mode = propagation = ""
    rest: list[str] = []
    for option in mount.options:
        if option in PROPAGATION:
            propagation = option
        elif option in ("z", "Z"):
            mode = option
        elif option not in ("ro", "rw"):
            rest.append(option)
    return data | {
        "Source": source,
        "Destination": mount.destination,
        "Driver": driver,
        "Mode": mode,
        "Options": None if mount.kind == "image" else rest,
        "RW": mount.writable,
        "Propagation": propagation,
    }


def binds(mounts: Iterable[Mount]) -> list[str]:
    """As `--volume` would take them."""
    return [
        ":".join(filter(None, (m.name or m.source, m.destination, ",".join(m.options))))
        for m in mounts
        if m.kind != "image"
    ]


def tmpfs(seen: Seen) -> dict[str, str]:
    wanted = frozenset(seen.config.user_volumes)
    found = {
        m["destination"]: ",".join(m.get("options") or ())
        for m in seen.spec.get("mounts") or ()
        if m.get("type") == "tmpfs" and m["destination"] in wanted
    }
    return dict(sorted(found.items()))
