# SPDX-License-Identifier: Apache-2.0
"""What containers have on this host beside their records, found by looking.

Other runtimes and podman may work on the same host.  What lies in our directories
is ours; a process or a cgroup is ours where its container's ID is one that our
directories, our locks or our monitors know.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from libpod.storage.errors import NoSuchStorageContainer

if TYPE_CHECKING:
    from libpod.engine import Engine
    from libpod.storage import Unowned

Kind = Literal[
    "monitor", "process", "oci-state", "cgroup", "mount", "exit-file", "storage",
    "directory", "run-directory", "lock",
]  # fmt: skip

LAUNCH: frozenset[Kind] = frozenset(
    ("monitor", "process", "oci-state", "cgroup", "mount", "exit-file")
)
"""What a container has from its creation in the OCI runtime to its end only."""

_ID = "[0-9a-f]{64}"
_CGROUP = re.compile(f":(/[^\n]*?)/libpod-({_ID})")
_EXIT_FILE = re.compile(rf"({_ID})(\..*)?")  # conmon renames ID.XXXXXX to ID
_IN_DIRECTORY = re.compile(f"({_ID})(/.*)?")
_DIRECTORIES: dict[str, Kind] = {
    "container-directory": "directory",
    "container-run-directory": "run-directory",
}


class Trace(NamedTuple):
    """Something of a container.

    Attributes:
        place: a path; of a process its pid, of a cgroup its path in the hierarchies.
        what: the same for people.
        born: seconds since the epoch; None where that is not known.
    """

    kind: Kind
    container_id: str
    place: str
    what: str
    born: float | None


def find(
    engine: Engine, known: Iterable[str], cgroup_parents: Iterable[str], unowned: Iterable[Unowned]
) -> list[Trace]:
    """Everything; the runtime state of both OCI runtimes, whichever is used now.

    Args:
        known: IDs that are ours beside those that are found in our directories.
        cgroup_parents: where cgroups of our containers may be.
        unowned: what the store says of itself.
    """
    found = [*_files(engine), *_stored(engine, unowned), *_mounts(engine)]
    if not engine.config.share:  # else they are those of the host
        found += _oci_states(engine)
    running = list(_running(engine))
    found += (trace for trace in running if trace.kind == "monitor")
    ours = {*known, *(trace.container_id for trace in found)}
    if engine.config.share:
        found += (trace for trace in _oci_states(engine) if trace.container_id in ours)
    found += (t for t in running if t.kind == "process" and t.container_id in ours)
    inside = {parent for t in found if t.kind == "process" for parent in _parents(t)}
    parents = {*cgroup_parents, *inside, engine.cgroup_parent}
    return found + [t for t in _cgroups(engine, parents) if t.container_id in ours]


def is_there(engine: Engine, trace: Trace) -> bool:
    """Whether it still is, and still is the same."""
    if trace.kind in ("monitor", "process"):
        found = _of_process(engine, int(trace.place))
        return found is not None and found[:2] == trace[:2]
    if trace.kind == "cgroup":
        return any(map(os.path.isdir, engine.host.cgroups.directories(trace.place)))
    if trace.kind == "mount":
        return engine.host.is_mountpoint(trace.place)
    if trace.kind == "lock":
        return trace.container_id in engine.locks.in_use()
    if trace.kind == "storage":
        try:
            engine.store.container(trace.container_id)
        except NoSuchStorageContainer:
            return False
        return True
    return os.path.lexists(trace.place)


# --- in our directories ---------------------------------------------------------------


def _files(engine: Engine) -> Iterator[Trace]:
    for path, name in _entries(engine.oci.exit_dir):
        match = _EXIT_FILE.fullmatch(name)
        if match:
            yield Trace("exit-file", match[1], path, f"exit file {path}", modified(path))
    if engine.locks.kind == "flock":
        for path, name in _entries(f"{engine.paths.tmp_dir}/lock"):
            if re.fullmatch(_ID, name):
                yield Trace("lock", name, path, f"lock file {path}", modified(path))


def _oci_states(engine: Engine) -> Iterator[Trace]:
    for path in engine.oci.state_dirs():
        name = os.path.basename(path)
        if re.fullmatch(_ID, name):
            what = f"OCI runtime state {path}"
            yield Trace("oci-state", name, path, what, modified(path))


def _stored(engine: Engine, unowned: Iterable[Unowned]) -> Iterator[Trace]:
    """Storage containers of the form that podman's libpod and we give them: what others
    keep in the same store, such as buildah, is theirs."""
    for stored in engine.store.containers():
        if '"created-at":' in stored.metadata and '"name":' in stored.metadata:
            born = None if stored.created is None else stored.created / 1e9
            what = f'storage container {stored.id} "{stored.name}"'
            yield Trace("storage", stored.id, "", what, born)
    for found in unowned:
        kind = _DIRECTORIES.get(found.kind)
        if kind:
            of = (
                engine.store.container_dir
                if kind == "directory"
                else (engine.store.container_run_dir)
            )
            path = os.path.dirname(of(found.name))
            yield Trace(kind, found.name, path, f"{kind} {path}", found.modified / 1e9)


def _mounts(engine: Engine) -> Iterator[Trace]:
    """Below containers' directories, the last one first."""
    driver = engine.store.driver
    roots = [
        f"{root}/{driver}-containers/"
        for root in (
            os.path.realpath(engine.paths.graph_root),
            os.path.realpath(engine.paths.run_root),
        )
    ]
    for line in reversed(_read("/proc/self/mountinfo").splitlines()):
        path = line.split(" ")[4].encode().decode("unicode_escape")
        for root in roots:
            match = _IN_DIRECTORY.fullmatch(path[len(root) :]) if path.startswith(root) else None
            if match:
                yield Trace("mount", match[1], path, f"mount {path}", None)


# --- on the host ------------------------------------------------------------------------


def _running(engine: Engine) -> Iterator[Trace]:
    for name in os.listdir("/proc"):
        trace = _of_process(engine, int(name)) if name.isdigit() else None
        if trace is not None:
            yield trace


def _of_process(engine: Engine, pid: int) -> Trace | None:
    argv = _read(f"/proc/{pid}/cmdline").rstrip("\0").split("\0")
    container_id = _monitored(argv, engine.oci.exit_dir)
    kind: Kind = "monitor"
    if container_id is None:
        kind = "process"
        match = _CGROUP.search(_read(f"/proc/{pid}/cgroup"))
        if match is None:
            return None
        container_id = match[2]
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields or fields[0] in "ZX":
        return None
    words = " ".join(argv)[:60] or "(no command line)"
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return Trace(kind, container_id, str(pid), f"process {pid} ({words})", time.time() - age)


def is_ending(monitor: Trace) -> bool:
    """Whether it has no container any more, but at most an exit command to wait for."""
    children = _read(f"/proc/{monitor.place}/task/{monitor.place}/children").split()
    return all("cleanup" in _read(f"/proc/{pid}/cmdline").split("\0") for pid in children)


def _monitored(argv: list[str], exit_dir: str) -> str | None:
    """The container whose monitor has these arguments and writes its exit file to us."""
    following = dict(pairwise(argv))
    if following.get("--exit-dir") != exit_dir:
        return None
    container_id = following.get("-c", "")
    return container_id if re.fullmatch(_ID, container_id) else None


def _parents(process: Trace) -> Iterator[str]:
    match = _CGROUP.search(_read(f"/proc/{process.place}/cgroup"))
    if match:
        yield match[1]


def _cgroups(engine: Engine, parents: Iterable[str]) -> Iterator[Trace]:
    """Each once, in however many hierarchies it is."""
    cgroups = engine.host.cgroups
    for parent in sorted(parents):
        found = {}
        for directory in cgroups.directories(parent):
            for path, name in _entries(directory):
                if re.fullmatch(f"libpod-{_ID}", name):
                    found[name] = modified(path)
        for name, born in found.items():
            what = f"cgroup {parent}/{name}"
            yield Trace("cgroup", name.removeprefix("libpod-"), f"{parent}/{name}", what, born)


def modified(path: str) -> float | None:
    """Seconds since the epoch; None where it is gone."""
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None


def _entries(directory: str) -> list[tuple[str, str]]:
    """Paths and names."""
    try:
        return [(f"{directory}/{name}", name) for name in os.listdir(directory)]
    except FileNotFoundError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:  # it has ended
        return ""
