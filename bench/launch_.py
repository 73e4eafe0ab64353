# SPDX-License-Identifier: Apache-2.0
"""Launching `/bin/true` to its recorded exit: wall time, and the CPU of all it causes.

CPU is read from a cgroup that holds the contestant and, below it, every conmon
and container that it starts; podman, which moves its own out of the caller's
group, is given the same parent.  The whole is checked against /proc/stat: on an
idle machine both must agree to within 10 %.

The driver is bench/c/driver.c: the least that starts conmon and the same
runtime with the same config.json, the seccomp profile included.  It is measured
twice: asking the runtime to start and to delete, and doing both by itself.

What lies below /run on a host lies on a tmpfs here, too, for every contestant.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.rows import Row, compile_c, median, row

ROUNDS = 5
LAUNCHES = 10
WARM_UP = 2
GROUP = "/libpod-bench"

OURS = "ours"
ASKING = "driver in C, runtime asked to start and delete"
DIRECT = "driver in C, start and delete direct"
PODMAN = "podman run --rm"

PODMAN_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Sample:
    """What one contestant needed for a block of launches."""

    def __init__(self) -> None:
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []


def busy_ticks() -> int:
    """Clock ticks in which any processor was not idle."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(word) for word in file.readline().split()[1:]]
    return sum(fields[:8]) - fields[3] - fields[4]


class CpuGroup:
    """The cgroup whose CPU time is counted, in whichever version this host has."""

    def __init__(self) -> None:
        from libpod.cgroup import Cgroups

        cgroups = Cgroups()
        if cgroups.mode == "v2":
            self.directory = f"{cgroups.unified}{GROUP}"
            self._file, self._unit = f"{self.directory}/cpu.stat", 1e-3
        else:
            self.directory = f"{cgroups.mounts['cpuacct']}{GROUP}"
            self._file, self._unit = f"{self.directory}/cpuacct.usage", 1e-6
        self._cgroups = cgroups

    def milliseconds(self) -> float:
        with open(self._file, encoding="ascii") as file:
            words = file.read().split()
        value = words[words.index("usage_usec") + 1] if "usage_usec" in words else words[0]
        return int(value) * self._unit

    @contextmanager
    def joined(self) -> Iterator[None]:
        """This process inside the group."""
        os.makedirs(self.directory, exist_ok=True)
        self._move(self.directory)
        try:
            yield
        finally:
            self._move(os.path.dirname(self.directory))

    def _move(self, directory: str) -> None:
        with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))

    def remove(self) -> None:
        self._cgroups.remove(GROUP)


def make_rootfs(directory: str) -> str:
    """A root file system of busybox alone."""
    root = os.path.join(directory, "rootfs")
    os.makedirs(f"{root}/bin")
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("busybox is missing: install busybox-static")
    shutil.copy(busybox, f"{root}/bin/busybox")
    os.symlink("busybox", f"{root}/bin/true")
    return root


Contestant = Callable[[int], list[float]]
"""Launches so many containers, one after the other: the wall times in ms."""


def ours(root: str, directory: str, runtime: str) -> tuple[Contestant, Callable[[], None]]:
    from libpod import Runtime, Spec

    opened = Runtime(
        oci_runtime=runtime, static_dir=f"{directory}/static", tmp_dir=f"{directory}/run/ours"
    )
    job = Spec(rootfs=root, command=["/bin/true"], cgroup_parent=GROUP)

    def launch(count: int) -> list[float]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            opened.run(job).check()
            times.append((time.perf_counter() - began) * 1e3)
        return times

    return launch, opened.close


def same_config(root: str, directory: str, runtime: str) -> str:
    """The config.json of our own launch, with a mark in the place of its cgroup; what it
    mounts from the container's run directory is kept beside it."""
    from libpod import Runtime, Spec

    kept = os.path.join(directory, "etc")
    os.mkdir(kept)
    with (
        Runtime(
            oci_runtime=runtime, static_dir=f"{directory}/static", tmp_dir=f"{directory}/run/ours"
        ) as rt,
        rt.create(Spec(rootfs=root, command=["/bin/true"])) as container,
    ):
        container.init()
        with open(f"{container.record.config.static_dir}/config.json", "rb") as file:
            config = json.load(file)
        for mount in config["mounts"]:
            if mount["source"].startswith(directory):
                mount["source"] = shutil.copy(mount["source"], kept)
    config["linux"]["cgroupsPath"] = "@CGROUP@"
    path = os.path.join(directory, "config.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return path


def driver(how: str, config: str, directory: str, runtime: str) -> Contestant:
    from libpod.oci import find_binary
    from libpod.settings import CONMON_PATH

    program = compile_c("driver")
    conmon = find_binary("conmon", CONMON_PATH)
    work, run = os.path.join(directory, "driver"), os.path.join(directory, "run/driver")

    def launch(count: int) -> list[float]:
        os.mkdir(work)
        os.mkdir(run)
        argv = [program, how, conmon, runtime, config, work, run, GROUP, str(count)]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
        time.sleep(0.05)  # the last conmon ends after its exit file
        shutil.rmtree(work)
        shutil.rmtree(run)
        return [int(line) / 1e6 for line in done.stdout.split()]

    return launch


def podman(root: str, directory: str, runtime: str) -> Contestant:
    conf = os.path.join(directory, "containers.conf")
    with open(conf, "w", encoding="utf-8") as file:
        file.write(PODMAN_CONF)
    base, run = os.path.join(directory, "podman"), os.path.join(directory, "run/podman")
    argv = ["podman", "--root", f"{base}/root", "--runroot", f"{run}/run"]
    argv += ["--tmpdir", f"{run}/tmp", "--network-config-dir", f"{base}/net"]
    argv += ["--runtime", runtime, "--cgroup-manager", "cgroupfs"]
    argv += ["run", "--rm", "--network", "none", "--cgroup-parent", GROUP]
    argv += ["--rootfs", root, "/bin/true"]
    env = os.environ | {"CONTAINERS_CONF": conf}

    def launch(count: int) -> list[float]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            subprocess.run(argv, check=True, env=env)
            times.append((time.perf_counter() - began) * 1e3)
        return times

    return launch


def take(contestant: Contestant, group: CpuGroup, sample: Sample) -> tuple[float, float]:
    """One block; returns the group's and the machine's CPU of it, in ms."""
    ticks, used = busy_ticks(), group.milliseconds()
    sample.wall_ms += contestant(LAUNCHES)
    used = group.milliseconds() - used
    sample.cpu_ms.append(used / LAUNCHES)
    return used, (busy_ticks() - ticks) * 1e3 / os.sysconf("SC_CLK_TCK")


def measure(runtime: str) -> list[Row]:
    group = CpuGroup()
    counted = machine = 0.0
    with (
        tempfile.TemporaryDirectory(prefix="libpod-bench-", dir="/var/tmp") as directory,
        tmpfs(f"{directory}/run"),
    ):
        root = make_rootfs(directory)
        own, close = ours(root, directory, runtime)
        config = same_config(root, directory, runtime)
        ways = {
            OURS: own,
            ASKING: driver("asking", config, directory, runtime),
            DIRECT: driver("direct", config, directory, runtime),
            PODMAN: podman(root, directory, runtime),
        }
        samples = {name: Sample() for name in ways}
        try:
            with group.joined():
                for way in ways.values():
                    way(WARM_UP)
                for _ in range(ROUNDS):
                    for name, way in ways.items():
                        used, busy = take(way, group, samples[name])
                        counted += used
                        machine += busy
        finally:
            close()
            unmount_below(f"{directory}/podman")
            group.remove()
    return table(os.path.basename(runtime), samples, counted, machine)


@contextmanager
def tmpfs(directory: str) -> Iterator[None]:
    os.mkdir(directory)
    subprocess.run(["mount", "-t", "tmpfs", "libpod-bench", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def unmount_below(directory: str) -> None:
    """podman leaves its storage mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    for point in reversed(points):
        if point.startswith(directory):
            subprocess.run(["umount", "-l", point], check=True)


def table(runtime: str, samples: dict[str, Sample], counted: float, machine: float) -> list[Row]:
    def compare(what: str, values: dict[str, float], bounds: dict[str, float | None]) -> list[Row]:
        name = f"launch of /bin/true to its recorded exit, {runtime}, {what}"
        return [
            row("launch", name, "ms", values[OURS], peer, values[peer], bound)
            for peer, bound in bounds.items()
        ]

    cpu = {name: median(sample.cpu_ms) for name, sample in samples.items()}
    wall = {name: median(sample.wall_ms) for name, sample in samples.items()}
    return [
        *compare("CPU of all processes", cpu, {ASKING: 1.25, DIRECT: 1.25, PODMAN: 0.5}),
        *compare("wall", wall, {ASKING: 1.25, DIRECT: 1.25, PODMAN: None}),
        row("launch", f"CPU counted by cgroup, {runtime}, all contestants", "ms", counted,
            "/proc/stat, whole machine", machine),
    ]  # fmt: skip


def rows() -> list[Row]:
    """Every runtime that works on this host.

    crun refuses hybrid cgroups; there it is measured in a mount namespace of its
    own without the version 2 tree, with all its peers.
    """
    from libpod.cgroup import Cgroups

    found: list[Row] = []
    for name in ("crun", "runc"):
        path = shutil.which(name)
        if path is None:
            raise SystemExit(f"{name} is missing: install it")
        argv = [sys.executable, "-m", "bench.launch_", path]
        cgroups = Cgroups()
        if name == "crun" and cgroups.mode == "hybrid":
            script = f'umount {cgroups.unified} && exec "$@"'
            argv = ["unshare", "-m", "sh", "-c", script, "sh", *argv]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
        found += json.loads(done.stdout)
    return found


if __name__ == "__main__":
    json.dump(measure(sys.argv[1]), sys.stdout)
