# SPDX-License-Identifier: Apache-2.0
"""What the state costs: opening, looking up, listing, creating, saving.

With 10 and with 1,000 created containers, to show what grows with their number.
Lists are made of a root that is shared with podman, by both over the same records;
the rest is done in private directories, and by podman in those of its own.
"""

from __future__ import annotations

import compileall
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import libpod
from bench.launch_ import make_rootfs, unmount_below
from bench.rows import Row, median, row

if TYPE_CHECKING:
    from libpod import Runtime

FEW, MANY = 10, 1000
OPENINGS = 60
INSPECTIONS = 400
LISTINGS = 5
CREATIONS = 20
SAVES = 100

CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"""


class Root:
    """One root: ours, or also podman's."""

    def __init__(self, directory: str, rootfs: str, share: str | None = None) -> None:
        os.mkdir(directory)
        self.directory = directory
        self.rootfs = rootfs
        self.share = share
        self.places = {"root": "root", "runroot": "run", "tmpdir": "tmp"}

    def open(self) -> Runtime:
        from libpod import Runtime, StorageConfig

        storage = StorageConfig(
            graph_root=f"{self.directory}/root", run_root=f"{self.directory}/run"
        )
        return Runtime(
            share=self.share,
            storage_config=storage,
            tmp_dir=f"{self.directory}/tmp",
            oci_runtime="runc",
        )

    def command(self, *program: str) -> list[str]:
        return [*program, *(f"--{name}={self.directory}/{at}" for name, at in self.places.items())]

    def podman(self, *words: str) -> list[str]:
        return [*self.command("podman"), f"--network-config-dir={self.directory}/net", *words]

    def libpod(self, *words: str) -> list[str]:
        return [*self.command(sys.executable, "-m", "libpod"), "--share=podman", *words]

    def fill(self, count: int) -> None:
        from libpod import Spec

        job = Spec(rootfs=self.rootfs, command=["/bin/true"])
        with self.open() as rt:
            for number in range(len(rt.get_containers()), count):
                rt.create(job, name=f"n{number}")


def milliseconds(work: Callable[[], Any], count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1e3)
    return times


def cpu_of(argv: list[str]) -> float:
    """CPU of a command and all that it waits for, in ms."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def in_turn(turns: int, *works: Callable[[], Any], each: int = 1) -> list[float]:
    """The median of each work, which is done `each` times in its turn."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(turns):
        for work, found in zip(works, times, strict=True):
            found += milliseconds(work, each)
    return [median(found) for found in times]


def open_and_look(*roots: Root) -> list[float]:
    def once(root: Root) -> None:
        with root.open() as rt:
            rt.lookup_container("n5")

    return in_turn(OPENINGS, *(partial(once, root) for root in roots))


def inspect(*roots: Root) -> list[float]:
    with ExitStack() as stack:
        runtimes = [stack.enter_context(root.open()) for root in roots]
        containers = [rt.lookup_container("n5") for rt in runtimes]
        return in_turn(20, *(container.inspect for container in containers), each=INSPECTIONS // 20)


def list_all(root: Root) -> tuple[float, float]:
    """Ours and podman's, in turn."""
    ours, podmans = [], []
    for _ in range(LISTINGS):
        ours.append(cpu_of(root.libpod("ps", "-a")))
        podmans.append(cpu_of(root.podman("ps", "-a")))
    return median(ours), median(podmans)


def create(root: Root, other: Root) -> tuple[float, float, float]:
    """Ours and podman's wall time in turn, and the commits of one of ours."""
    from libpod import Spec

    job = Spec(rootfs=root.rootfs, command=["/bin/true"])
    argv = other.podman("create", "--network", "none", "--rootfs", root.rootfs, "/bin/true")
    ours, podmans = [], []

    def podman() -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    with root.open() as rt:
        before = last_commit(rt)
        rt.create(job)
        counted = last_commit(rt) - before
        for _ in range(CREATIONS):
            ours += milliseconds(lambda: rt.create(job), 1)
            podmans += milliseconds(podman, 1)
    return median(ours), median(podmans), counted


def last_commit(rt: Runtime) -> int:
    state: Any = rt.state
    with state._begin() as tx:
        return int(tx.id)


def save(root: Root) -> tuple[float, float]:
    """A change of state under the container's lock, and a durable put of the same bytes into
    a copy of the same database, in turn."""
    from libpod import kv

    ours, puts = [], []
    with root.open() as rt:
        life = rt.lookup_container("n5")._life
        copy = f"{root.directory}/copy.db"
        shutil.copy(f"{rt.paths.static_dir}/bolt_state.db", copy)
        value = life.record.state.encode()

        def change() -> None:
            with life.locked():
                life.save()

        with kv.Database(copy, lock="transaction") as db:

            def put() -> None:
                with db.begin(write=True) as tx:
                    tx.bucket(b"ctr").bucket(life.id.encode()).put(b"state", value)

            for _ in range(SAVES):
                ours += milliseconds(change, 1)
                puts += milliseconds(put, 1)
        os.unlink(copy)
    return median(ours), median(puts)


def measure(directory: str) -> list[Row]:
    conf = f"{directory}/containers.conf"
    with open(conf, "w", encoding="utf-8") as file:
        file.write(CONF)
    os.environ["CONTAINERS_CONF"] = conf
    rootfs = make_rootfs(directory)
    small = Root(f"{directory}/small", rootfs)
    own = Root(f"{directory}/own", rootfs)
    shared = Root(f"{directory}/shared", rootfs, share="podman")
    small.fill(FEW)
    own.fill(MANY)
    shared.fill(MANY)
    opened, opened_small = open_and_look(own, small)
    inspected, inspected_small = inspect(own, small)
    saved, put = save(own)
    listed, podman_listed = list_all(shared)
    created, podman_created, commits = create(own, shared)
    name = f"open a runtime, look up one of {MANY:,}, close"
    shown = f"inspect a created container, {MANY:,} in the state"
    return [
        row("state", f"ps -a with {MANY:,} created containers, CPU", "ms", listed,
            "podman ps -a", podman_listed, 0.2),
        row("state", name, "ms", opened, "3 ms", 3.0, 1.0),
        row("state", name, "ms", opened, f"the same with {FEW}", opened_small, 1.2),
        row("state", shown, "ms", inspected, "0.1 ms", 0.1, 1.0),
        row("state", shown, "ms", inspected, f"the same with {FEW}", inspected_small, 1.1),
        row("state", "create a root file system container, durable", "ms", created,
            "podman create --rootfs", podman_created, 0.1),
        row("state", "database commits of a creation", "commits", commits, "one", 1, 1.0),
        row("state", "save a change of state under the lock, durable", "ms", saved,
            "a durable put of the same bytes", put, 1.3),
    ]  # fmt: skip


def rows() -> list[Row]:
    """In a mount namespace of its own: podman mounts its storage.  The library is compiled
    first, as it is where it was installed."""
    compileall.compile_dir(os.path.dirname(libpod.__file__), quiet=1)
    argv = [sys.executable, "-m", "bench.state"]
    done = subprocess.run(["unshare", "-m", *argv], check=True, stdout=subprocess.PIPE)
    found: list[Row] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(
        prefix="libpod-bench-", dir="/var/tmp", ignore_cleanup_errors=True
    ) as place:
        try:
            json.dump(measure(place), sys.stdout)
        finally:
            with suppress(subprocess.CalledProcessError):
                unmount_below(place)
