# SPDX-License-Identifier: Apache-2.0
"""`Mounts`, `HostConfig.Binds` and `HostConfig.Tmpfs`."""

from __future__ import annotations

from collections.abc import Iterable
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
    """Named volumes, images, then binds: podman's order.  tmpfs is shown elsewhere."""
    config = seen.config
    wanted = set(config.user_volumes)
    if not wanted:
        return []
    found = [
        Mount("volume", v["volumeName"], "", v["dest"], *_options(v.get("options")))
        for v in config.named_volumes
        if v["dest"] in wanted
    ]
    found += [
        Mount("image", "", v["source"], v["dest"], [], v.get("rw", False))
        for v in config.image_volumes
        if v["dest"] in wanted
    ]
    # In the spec of a container that was started, volumes are binds, too.
    wanted -= {mount.destination for mount in found}
    found += [
        Mount("bind", "", m.get("source", ""), m["destination"], *_options(m.get("options")))
        for m in seen.spec.get("mounts") or ()
        if m["destination"] in wanted and m.get("type") != "tmpfs"
    ]
    return found


def _options(options: list[str] | None) -> tuple[list[str], bool]:
    return options or [], "ro" not in (options or ())


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
