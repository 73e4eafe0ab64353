# SPDX-License-Identifier: Apache-2.0
"""What keeps a host from running containers, and what to do about it.

Everything is looked at and nothing is changed.  It works for any user, and where
a `Runtime` cannot be opened.
"""

from __future__ import annotations

import logging
import os
import re
import resource
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from libpod import config as configuration
from libpod import oci, rundir, seccomp
from libpod.cgroup import Cgroups
from libpod.errors import InternalError, LibpodError
from libpod.job import CAPABILITIES
from libpod.settings import FIELDS, SYSTEMD, RuntimeConfig, changed

Severity = Literal["error", "warning", "info"]

LEAST_CONMON = (2, 0, 23)
"""The first conmon with --full-attach, which we ask for."""

LEAST_SPACE = 64 << 20
"""Bytes that should be free where the containers' files and logs go."""

LEAST_INODES = 1000
"""The same for files: a container takes about ten."""

LEAST_FILES = 1024
"""Descriptors that this process should be allowed: a running container takes a few."""

TOOL_TIMEOUT = 10.0
"""Seconds for a program to tell its version."""


class Problem(NamedTuple):
    """One thing that is wrong, or good to know."""

    what: str
    severity: Severity
    """"error": containers cannot run; "warning": something will not work or not be
    safe; "info": good to know."""
    remedy: str


def diagnose(options: Mapping[str, Any], config_path: str | None = None) -> list[Problem]:
    """As `Runtime.doctor`, for the runtime that these options would make, with this file
    instead of the host's own; also where it cannot be opened."""
    problems: list[Problem] = []
    try:
        with _warnings_of("libpod.config") as said:
            config = (
                configuration.load()
                if config_path is None
                else configuration.from_config(config_path)
            )
        problems += (Problem(text, "warning", "correct the file") for text in said)
        configuration.apply_options(config, options)
        with _warnings_of("libpod.config"):  # `examine` says them
            places = configuration.resolve_defaults(config, os.environ, os.getuid(), options)
    except LibpodError as error:
        problems.append(_of(error))
        config = RuntimeConfig()
        places = configuration.resolve_defaults(config, {}, 0)
    return problems + examine(config, places.tmp_dir, places.static_dir, places.graph_root)


def examine(
    config: RuntimeConfig, tmp_dir: str, static_dir: str, graph_root: str = ""
) -> list[Problem]:
    """What is wrong with the host and this configuration, the worst first."""
    checks: list[Callable[[], Iterable[Problem]]] = [
        _privilege,
        lambda: _configuration(config),
        lambda: _sharing(config, static_dir, graph_root),
        lambda: _runtime(config.runtime_path),
        lambda: _conmon(config.conmon_path),
        _kernel,
        lambda: _cgroups(Cgroups()),
        lambda: _directory("static_dir", static_dir),
        lambda: _directory("tmp_dir", tmp_dir),
        lambda: _cleared_by_reboot(tmp_dir),
        lambda: _executable(static_dir),
        _seccomp,
        _limits,
        _user_namespaces,
    ]
    problems: list[Problem] = []
    for check in checks:
        try:
            problems += check()
        except LibpodError as error:
            problems.append(_of(error))
        except OSError as error:
            problems.append(
                Problem(f"cannot look at this host: {error}", "warning", "see who forbids it")
            )
    order = ("error", "warning", "info")
    return sorted(problems, key=lambda problem: order.index(problem.severity))


def _of(error: LibpodError) -> Problem:
    return Problem(error.message, "error", error.remedy or "mend what it names")


@contextmanager
def _warnings_of(name: str) -> Iterator[list[str]]:
    """The warnings of a logger, which then are nowhere else."""
    messages: list[str] = []

    def take(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        messages.append(record.getMessage())
        return False

    logger = logging.getLogger(name)
    logger.addFilter(take)
    try:
        yield messages
    finally:
        logger.removeFilter(take)


# --- this process and its configuration ---------------------------------------------


def _privilege() -> Iterator[Problem]:
    if os.geteuid() != 0:
        yield Problem(
            "this is not root, who alone can run containers",
            "error",
            "run it as root; rootless containers are not built yet",
        )
    elif not _has_capability("CAP_SYS_ADMIN"):
        yield Problem(
            "this process lacks CAP_SYS_ADMIN, without which there are no namespaces and mounts",
            "error",
            "run it as the host's root, or in a container with --privileged",
        )
    elif not _has_capability("CAP_SYS_RESOURCE"):
        yield Problem(
            "this process lacks CAP_SYS_RESOURCE: containers cannot have higher limits (ulimit) "
            "than it has itself",
            "info",
            "raise its own hard limits before it starts, if containers need more",
        )


def _has_capability(name: str) -> bool:
    effective = int(_status_field("CapEff") or "0", 16)
    return bool(effective >> CAPABILITIES.index(name) & 1)


def _status_field(name: str) -> str | None:
    """A field of this process's status, None on a kernel without it."""
    for line in _read("/proc/self/status").splitlines():
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    return None


def _sharing(config: RuntimeConfig, static_dir: str, graph_root: str) -> Iterator[Problem]:
    if config.share is None:
        return
    from libpod import podman
    from libpod.host import Host

    shared = podman.check_sharing(
        static_dir,
        graph_root,
        os.environ,
        os.getuid(),
        Host().run_tool,
        run_root=config.storage_config.run_root,
        lock_type=config.lock_type,
    )
    yield Problem(
        f"containers are shared with podman: {shared.why}; locks are podman's ({shared.lock_type})",
        "info",
        "leave share out to keep them apart",
    )


def _configuration(config: RuntimeConfig) -> Iterator[Problem]:
    # podman's packages ship the host's own file; nobody asked us for what it has.
    severity: Severity = "info" if config.of_host else "warning"
    if config.cgroup_manager == SYSTEMD:
        yield Problem(
            "cgroup_manager: systemd is not built yet, cgroups are made by cgroupfs",
            severity,
            'set cgroup_manager = "cgroupfs" if that is no matter',
        )
    for field in FIELDS:
        value = getattr(config, field.name)
        if not field.built and changed(config, field) and value != field.zero():
            yield Problem(
                f"{field.name} = {value!r} is kept but has no effect in this version",
                severity,
                "it can stay for others who read it",
            )


def _limits() -> Iterator[Problem]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < LEAST_FILES:
        yield Problem(
            f"this process may open {soft} files only (hard limit {hard}): few containers at once",
            "warning",
            f"ulimit -n {LEAST_FILES} or more",
        )


# --- programs -------------------------------------------------------------------------


def _runtime(paths: Iterable[str]) -> Iterator[Problem]:
    chosen = yield from _first_usable(
        "OCI runtime", "crun or runc", paths, lambda path: oci.find_runtime(Cgroups(), [path])
    )
    if chosen is not None:
        ask_version(chosen)  # raises where it does not work


def _conmon(paths: Iterable[str]) -> Iterator[Problem]:
    chosen = yield from _first_usable(
        "conmon", "conmon", paths, lambda path: oci.find_binary("conmon", [path])
    )
    if chosen is None:
        return
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", ask_version(chosen))
    least = ".".join(map(str, LEAST_CONMON))
    if found is None:
        yield Problem(
            f"{chosen} does not tell its version", "warning", f"see that it is {least} or newer"
        )
    elif tuple(map(int, found.groups())) < LEAST_CONMON:
        yield Problem(
            f"{chosen} is conmon {found[0]}, which is too old",
            "error",
            f"install conmon {least} or newer",
        )


def _first_usable(
    what: str, packages: str, paths: Iterable[str], check: Callable[[str], object]
) -> Generator[Problem, None, str | None]:
    """The first of the paths that passes `check`, told with those that did not."""
    refusals: list[LibpodError] = []
    for path in paths:
        if not os.path.lexists(path):
            continue
        try:
            check(path)
        except LibpodError as error:
            refusals.append(error)
            continue
        for refusal in map(_of, refusals):
            yield refusal._replace(what=f"{refusal.what}; {path} is used", severity="info")
        return path
    yield from map(_of, refusals)
    if not refusals:
        yield Problem(
            f"there is no {what} in {', '.join(paths)}",
            "error",
            f"install {packages}, or configure the path of one",
        )
    return None


def ask_version(path: str) -> str:
    """What a program says to --version.  Raises `InternalError` where it does not work."""
    import subprocess

    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TOOL_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InternalError(f"{path} does not work: {error}", remedy="install it anew") from error
    return done.stdout.decode("utf-8", "replace").strip()


# --- the kernel ------------------------------------------------------------------------


def _kernel() -> Iterator[Problem]:
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        yield Problem(
            f"process descriptors (pidfds) cannot be had: {error.strerror}",
            "warning",
            "use Linux 5.3 or newer; until then exits are found by their files",
        )
    if version < (5, 14):
        yield Problem(
            f"Linux {release} lacks calls that would make launches faster (close_range: 5.9, "
            "cgroup.kill: 5.14)",
            "info",
            "use a newer kernel if speed matters",
        )


def _cgroups(cgroups: Cgroups) -> Iterator[Problem]:
    points = {*cgroups.mounts.values(), *filter(None, [cgroups.unified])}
    if not points:
        yield Problem(
            "no cgroup hierarchy is mounted",
            "error",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup, or install cgroupfs-mount",
        )
        return
    for point in sorted(points):
        if os.statvfs(point).f_flag & os.ST_RDONLY:
            yield Problem(
                f"{point} is mounted read-only: containers cannot have cgroups",
                "error",
                f"mount -o remount,rw {point}",
            )
    facts = cgroups.facts()
    remedy = "boot with cgroup_enable=NAME, or mount it: mount -t cgroup -o NAME ..."
    if facts.version == 2:
        remedy = f"write +NAME to {cgroups.unified}/cgroup.subtree_control"
    for name, use in (
        ("memory", "limits of memory are refused"),
        ("cpu", "limits of processors are refused"),
        ("pids", "limits of processes are refused, and the default one is not set"),
    ):
        if name not in facts.controllers:
            yield Problem(f"the cgroup controller {name!r} is missing: {use}", "warning", remedy)
    if facts.version == 1:
        yield from _cgroups_v1(cgroups, remedy)
    if "memory" in facts.controllers and facts.host_swap and not facts.swap_limit:
        yield Problem(
            "this kernel cannot limit swap: limits of memory are refused",
            "warning",
            "boot with swapaccount=1, or turn swap off (swapoff -a)",
        )


def _cgroups_v1(cgroups: Cgroups, remedy: str) -> Iterator[Problem]:
    if "devices" not in cgroups.mounts:
        yield Problem(
            "the cgroup controller 'devices' is missing: OCI runtimes refuse to work",
            "error",
            remedy,
        )
    if "freezer" not in cgroups.mounts:
        yield Problem(
            "the cgroup controller 'freezer' is missing: containers cannot be paused",
            "warning",
            remedy,
        )


def _seccomp() -> Iterator[Problem]:
    if _status_field("Seccomp") is None:
        yield Problem(
            "this kernel has no seccomp: containers can make any system call",
            "warning",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        )
    paths = (seccomp.OVERRIDE_PATH, seccomp.DEFAULT_PATH)
    if not any(map(os.path.exists, paths)):
        yield Problem(
            f"there is no seccomp profile ({' or '.join(paths)}): containers can make any "
            "system call",
            "warning",
            "install golang-github-containers-common (Debian) or containers-common",
        )
    else:
        seccomp.profile(frozenset(), paths)  # raises where it is malformed


def _user_namespaces() -> Iterator[Problem]:
    """What rootless containers will need."""
    if _read("/proc/sys/user/max_user_namespaces").strip() in ("", "0"):
        yield Problem(
            "there are no user namespaces, which rootless containers will need",
            "info",
            "sysctl user.max_user_namespaces=15000",
        )
    if os.getuid() == 0:
        return
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    for path in ("/etc/subuid", "/etc/subgid"):
        if not re.search(rf"^({re.escape(name)}|{os.getuid()}):", _read(path), re.MULTILINE):
            yield Problem(
                f"{path} gives {name} no IDs, which rootless containers will need",
                "info",
                f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}",
            )


# --- directories ------------------------------------------------------------------------


def _directory(name: str, path: str) -> Iterator[Problem]:
    """Whether a directory of the runtime is safe to use, or can be made; and has room."""
    base = _existing(path)
    if not os.path.isdir(base):
        yield Problem(f"{name} {path}: {base} is not a directory", "error", "name another one")
        return
    if base == path:
        rundir.make_dir(path, 0o751)  # it is there, so this only looks at it
    status = os.statvfs(base)
    if status.f_flag & os.ST_RDONLY or not os.access(base, os.W_OK):
        yield Problem(f"{name} {path}: {base} cannot be written", "error", "name another one")
        return
    space = status.f_bavail * status.f_frsize
    if space < LEAST_SPACE:
        yield Problem(
            f"{name} {path}: {space >> 20} MiB are free",
            "warning" if space else "error",
            f"free some space on the file system of {base}",
        )
    if status.f_files and status.f_favail < LEAST_INODES:
        yield Problem(
            f"{name} {path}: {status.f_favail} more files can be made (inodes)",
            "warning" if status.f_favail else "error",
            f"remove files from the file system of {base}",
        )


def _existing(path: str) -> str:
    """The directory, or the nearest one above it that is there."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _executable(static_dir: str) -> Iterator[Problem]:
    if os.statvfs(_existing(static_dir)).f_flag & os.ST_NOEXEC:
        yield Problem(
            f"static_dir {static_dir} is mounted noexec: no root file system below it can work",
            "info",
            "keep root file systems elsewhere",
        )


def _cleared_by_reboot(tmp_dir: str) -> Iterator[Problem]:
    kind = _file_system(os.stat(_existing(tmp_dir)).st_dev)
    if kind is not None and kind not in ("tmpfs", "ramfs"):
        yield Problem(
            f"tmp_dir {tmp_dir} is on {kind}: what a reboot should clear stays",
            "warning",
            "name a directory on a tmpfs, below /run",
        )


def _file_system(device: int) -> str | None:
    """The type of the file system with this device number, None where it is not listed."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _read("/proc/self/mountinfo").splitlines():
        fields, _, tail = line.partition(" - ")
        if fields.split(" ")[2] == wanted:
            return tail.split(" ")[0]
    return None


def _read(path: str) -> str:
    """A file's text, "" where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
