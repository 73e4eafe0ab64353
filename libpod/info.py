# SPDX-License-Identifier: Apache-2.0
"""What this host and this runtime are: the original's `Runtime.Info`, its four entries."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from libpod import registries
from libpod.errors import LibpodError, SystemCallError
from libpod.oci import OCIRuntime

log = logging.getLogger("libpod.info")

PACKAGE_TIMEOUT = 10.0
"""Seconds for a package manager to say whose a file is."""

_PACKAGE_QUERIES = (("/usr/bin/rpm", "-q", "-f"), ("/usr/bin/dpkg", "-S"))

# Go's names for uname's machines, where they differ.
_ARCHITECTURES = {
    "x86_64": "amd64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armv5l": "arm",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "loongarch64": "loong64",
    "mips": "mips" if sys.byteorder == "big" else "mipsle",
    "mips64": "mips64" if sys.byteorder == "big" else "mips64le",
}


class InfoData(NamedTuple):
    """One entry of `Runtime.info()`."""

    type: str
    data: dict[str, Any]


class Store(Protocol):
    """What is wanted of the container store."""

    @property
    def graph_root(self) -> str: ...
    @property
    def run_root(self) -> str: ...
    @property
    def driver(self) -> str: ...
    def graph_status(self) -> list[tuple[str, str]]: ...
    def image_count(self) -> int: ...
    def container_count(self) -> int: ...


def collect(
    oci: OCIRuntime,
    store: Store | None = None,
    *,
    sharing: str | None = None,
    environ: Mapping[str, str] | None = None,
    uid: int | None = None,
) -> list[InfoData]:
    """The entries in the original's order: host, store, registries, insecure registries.

    Sizes are in bytes.  `package` is what rpm or dpkg says of the file, or
    "Unknown"; a version that cannot be had is "".  A runtime whose `store` is None
    has no such entry.  `sharing` says what is shared with whom and why; it becomes
    the store's `Sharing`.  `environ` and `uid` choose the registries.conf.

    Raises `SystemCallError`, `ConfigError` (registries.conf), and what the store raises.
    """
    entries = [InfoData("host", _gather("host", lambda: _host(oci)))]
    if store is not None:
        entries.append(InfoData("store", _gather("store", lambda: _store(store, sharing))))
    known = registries.load(environ, uid)
    entries.append(InfoData("registries", {"registries": known.search}))
    entries.append(InfoData("insecure registries", {"registries": known.insecure}))
    return entries


def _gather(what: str, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return ask()
    except LibpodError:
        raise
    except (OSError, ValueError, IndexError) as error:
        raise SystemCallError(f"error getting {what} info: {error}") from error


def architecture() -> str:
    """This machine's, by Go's name for it."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def _host(oci: OCIRuntime) -> dict[str, Any]:
    memory = _memory()
    return {
        "os": "linux",
        "arch": architecture(),
        "cpus": len(os.sched_getaffinity(0)),
        **{name: memory[name] for name in ("MemTotal", "MemFree", "SwapTotal", "SwapFree")},
        "Conmon": _program(oci, oci.conmon_path, oci.conmon_version),
        "OCIRuntime": _program(oci, oci.path, oci.version),
        "kernel": _read("/proc/version").split()[2],
        "uptime": human_duration(float(_read("/proc/uptime").split()[0])),
        "hostname": os.uname().nodename,
    }


def _store(store: Store, sharing: str | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "GraphRoot": store.graph_root,
        "RunRoot": store.run_root,
        "GraphDriverName": store.driver,
        "GraphOptions": {},
        "GraphStatus": dict(store.graph_status()),
        "ImageStore": {"number": store.image_count()},
        "ContainerStore": {"number": store.container_count()},
    }
    if sharing is not None:
        data["Sharing"] = sharing
    return data


def _memory() -> dict[str, int]:
    """The sizes in /proc/meminfo, in bytes."""
    sizes = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        sizes[name] = int(number) * (1024 if unit == "kB" else 1)
    return sizes


def _program(oci: OCIRuntime, path: str, version: Callable[[], str]) -> dict[str, str]:
    try:
        said = version()
    except LibpodError as error:
        log.warning("%s does not tell its version: %s", path, error)
        said = ""
    return {"path": path, "package": _package(oci, path), "version": said}


def _package(oci: OCIRuntime, path: str) -> str:
    for query in _PACKAGE_QUERIES:
        if not os.access(query[0], os.X_OK):
            continue
        try:
            answer = oci.host.run_tool(
                [*query, path], {"PATH": os.defpath, "LC_ALL": "C"}, timeout=PACKAGE_TIMEOUT
            )
        except LibpodError as error:
            log.debug("%s: %s", query[0], error)
            continue
        if answer.code == 0 and answer.stdout.strip():
            return answer.stdout.strip()
    return "Unknown"


def human_duration(seconds: float) -> str:
    """Go's text for a duration, spaced: "50h 12m 3.4s (Approximately 2.08 days)".

    The parenthesis comes with hours; it counts whole hours only.
    """
    centiseconds = round(seconds * 100)
    minutes, rest = divmod(centiseconds, 6000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 100:.2f}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{minutes}m {text}"
    if hours:
        text = f"{hours}h {text} (Approximately {hours / 24:.2f} days)"
    return text


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
