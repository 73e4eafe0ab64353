# SPDX-License-Identifier: Apache-2.0
"""From what a user asks for to the OCI runtime spec that crun and runc take.

Where nothing else is said, the spec is the one that podman 4.3.1 makes with
the configuration that its packages install: its capabilities, seccomp
profile, masked and read-only paths, mounts and limits.  What a host or a
caller cannot grant is an error, never a weaker container.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from libpod import seccomp, users
from libpod.errors import InvalidArgument, NotBuilt, Unsupported
from libpod.job import (
    CAPABILITIES,
    CPU_PERIOD,
    PROPAGATION,
    Limits,
    Mount,
    Spec,
    parse_signal,
    parse_size,
    texts,
    tmpfs_options,
)

__all__ = [
    "CgroupFacts",
    "Limits",
    "Mount",
    "Spec",
    "generate",
    "parse_signal",
    "parse_size",
]

OCI_VERSION = "1.0.2"
UNLIMITED = 2**64 - 1
"""A resource limit that is none, as the OCI spec spells it."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_PIDS = 2048
DEFAULT_RLIMIT = 1048576
"""Soft and hard RLIMIT_NOFILE and RLIMIT_NPROC, where the caller's own are not lower."""
SHM_SIZE = 65536000
"""Bytes of /dev/shm."""
UMASK = 0o022

DEFAULT_CAPABILITIES = frozenset(
    "CAP_" + name
    for name in """
    CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT
    """.split()
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/dev/block",
)

READONLY_PATHS = (
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)

_SELINUX = "/sys/fs/selinux/enforce"

# What a privileged container does not take from the host's /dev: the runtime
# mounts or makes its own of each.
_OWN_DEVICES = frozenset(("console", "fd", "mqueue", "ptmx", "pts", "shm"))


class CgroupFacts(NamedTuple):
    """What the cgroups of this host can enforce."""

    version: int
    """1 (hybrid too) or 2."""
    controllers: frozenset[str]
    """The controllers of a container's cgroup: "memory", "cpu", "pids", ..."""
    swap_limit: bool
    """Whether memory and swap together can be limited."""
    host_swap: bool
    """Whether the host has any swap."""


def generate(
    spec: Spec,
    command: Sequence[str] | None = None,
    *,
    container_id: str,
    name: str,
    cgroup_path: str,
    cgroups: CgroupFacts,
    rlimits: Mapping[str, int],
    bounding: Collection[int],
    created_ns: int | None = None,
) -> dict[str, Any]:
    """The OCI runtime spec of a container, to be written as its config.json.

    Args:
        spec: what is asked for; its root file system is read for the user.
        command: what runs instead of `spec.command`.
        container_id: 64 hexadecimal digits.
        name: the container's name.
        cgroup_path: absolute path of its cgroup; "" leaves it to the runtime.
        cgroups: what the host's cgroups can do.
        rlimits: "RLIMIT_NOFILE", ... -> the highest hard limit that the caller
            may give; a missing one is not bounded.
        bounding: numbers of the capabilities that the caller may give (its CapBnd).
        created_ns: when the container was made, nanoseconds since 1970; now
            where None.

    The seccomp part of the result is shared with other results: whoever wants
    to change the spec replaces it as a whole.

    Raises `InvalidArgument` (nothing to run, no such root file system, source
    of a mount or user), `NotBuilt` (images), `Unsupported` (a limit, rlimit or
    capability that this host or caller cannot give) and `ConfigError` (a
    malformed seccomp profile).
    """
    if spec.rootfs is None:
        raise NotBuilt(f"images are not built yet: {spec.image!r}", remedy="use rootfs=DIRECTORY")
    root = _root_directory(spec.rootfs)
    user = users.lookup(root, spec.user)
    hostname = _hostname(spec, container_id)
    capabilities = _capabilities(spec, user.uid, bounding)
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": spec.terminal,
            "user": {
                "uid": user.uid,
                "gid": user.gid,
                "umask": UMASK,
                "additionalGids": list(user.groups),
            },
            "args": _arguments(spec, command),
            "env": _environment(spec, user.home, hostname),
            "cwd": spec.workdir or "/",
            "capabilities": capabilities,
            "rlimits": _rlimits(spec, rlimits),
            "noNewPrivileges": False,
        },
        "root": {"path": root, "readonly": spec.read_only},
        "hostname": hostname,
        "mounts": _mounts(spec),
        "annotations": _annotations(spec, name, created_ns),
        "linux": _linux(spec, capabilities["bounding"], cgroup_path, cgroups),
    }


def _root_directory(path: str) -> str:
    # runc refuses a root that is, or lies behind, a symbolic link.
    root = os.path.realpath(path)
    if not os.path.isdir(root):
        problem = "is not a directory" if os.path.exists(root) else "does not exist"
        raise InvalidArgument(
            f"the root file system {path!r} {problem}",
            remedy=f"unpack one there ({root}), or give another rootfs",
        )
    return root


def _hostname(spec: Spec, container_id: str) -> str:
    if spec.hostname is not None:
        return spec.hostname
    return os.uname().nodename if spec.network == "host" else container_id[:12]


def _arguments(spec: Spec, command: Sequence[str] | None) -> list[str]:
    words = spec.command if command is None else texts("command", command)
    arguments = [*(spec.entrypoint or ()), *(words or ())]
    if not arguments or not arguments[0]:
        raise InvalidArgument("nothing to run: the command is empty", remedy='give one: ["sh"]')
    return arguments


def _environment(spec: Spec, home: str, hostname: str) -> list[str]:
    environment = {"PATH": DEFAULT_PATH}
    if spec.terminal:
        environment["TERM"] = "xterm"
    environment |= {"container": "libpod", "HOME": home, "HOSTNAME": hostname, **spec.env}
    return [f"{name}={value}" for name, value in environment.items()]


def _capabilities(spec: Spec, uid: int, bounding: Collection[int]) -> dict[str, list[str]]:
    """The five sets, as podman fills them.

    Root holds what it is granted.  Another user holds only what was added by
    name (or by "all"), as ambient capabilities, which survive the exec.
    Other than podman's, a privileged container obeys `cap_drop`.
    """
    caller = frozenset(name for number, name in enumerate(CAPABILITIES) if number in bounding)
    asked = frozenset(spec.cap_add) - {"ALL"}
    if beyond := sorted(asked - caller):
        raise Unsupported(
            f"cap_add: this process does not have {', '.join(beyond)} to give",
            remedy="run it with more capabilities, or ask for less",
        )
    everything = "ALL" in spec.cap_add
    base = caller if everything or spec.privileged else DEFAULT_CAPABILITIES & caller
    if "ALL" in spec.cap_drop:
        base = frozenset()
    granted = (base | asked).difference(spec.cap_drop)
    held = granted if uid == 0 or everything else granted & asked
    inherited = frozenset[str]() if uid == 0 else held
    return {
        "bounding": sorted(granted),
        "effective": sorted(held),
        "inheritable": sorted(inherited),
        "permitted": sorted(held),
        "ambient": sorted(inherited),
    }


def _rlimits(spec: Spec, highest: Mapping[str, int]) -> list[dict[str, Any]]:
    limits = {}
    for resource in "RLIMIT_NOFILE", "RLIMIT_NPROC":
        value = min(DEFAULT_RLIMIT, highest.get(resource, UNLIMITED))
        limits[resource] = (value, value)
    for name, (soft, hard) in spec.ulimits.items():
        resource = f"RLIMIT_{name.upper()}"
        wanted = UNLIMITED if hard < 0 else hard
        bound = highest.get(resource, UNLIMITED)
        if wanted > bound:
            raise Unsupported(
                f"ulimit {name}={soft}:{hard} is above this process's own hard limit of {bound}",
                remedy="ask for less, or raise the limit of this process (ulimit -H)",
            )
        limits[resource] = (UNLIMITED if soft < 0 else soft, wanted)
    return [
        {"type": resource, "hard": hard, "soft": soft} for resource, (soft, hard) in limits.items()
    ]


def _annotations(spec: Spec, name: str, created_ns: int | None) -> dict[str, str]:
    seconds, nanoseconds = divmod(time.time_ns() if created_ns is None else created_ns, 10**9)
    created = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return {
        "io.container.manager": "libpod",
        "io.container.name": name,
        "io.kubernetes.cri-o.Created": f"{created}.{nanoseconds:09d}Z",
        "io.kubernetes.cri-o.TTY": "true" if spec.terminal else "false",
        "org.opencontainers.image.stopSignal": str(spec.stop_signal or signal.SIGTERM.value),
    }


# --- mounts ---------------------------------------------------------------------


def _mounts(spec: Spec) -> list[dict[str, Any]]:
    """Podman's mounts, those that the user gave instead, and the user's; outer ones first."""
    wanted = [
        *(_tmpfs_mount(path, value) for path, value in spec.tmpfs.items()),
        *(_bind_mount(mount) for mount in spec.mounts),
    ]
    taken = {mount["destination"] for mount in wanted}
    for mount in _system_mounts(spec.privileged):
        target = mount["destination"]
        own_dev = "/dev" in taken and target.startswith("/dev/")
        if target not in taken and not own_dev:
            wanted.append(mount)
    # A mount hides what was mounted below its target before.
    return sorted(wanted, key=lambda mount: str(mount["destination"]).count("/"))


def _system_mounts(privileged: bool) -> Iterator[dict[str, Any]]:
    access = "rw" if privileged else "ro"
    yield _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev")
    yield _mount(
        "/dev", "tmpfs", "tmpfs", "nosuid", "noexec", "strictatime", "mode=755", "size=65536k"
    )
    yield _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", access)
    yield _mount(
        "/dev/pts",
        "devpts",
        "devpts",
        *("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    )
    yield _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")
    yield _mount(
        "/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={SHM_SIZE}"
    )
    yield _mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        *("rprivate", "nosuid", "noexec", "nodev", "relatime", access),
    )


def _mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _tmpfs_mount(path: str, value: int | str) -> dict[str, Any]:
    return _mount(path, "tmpfs", "tmpfs", *tmpfs_options(path, value))


def _bind_mount(mount: Mount) -> dict[str, Any]:
    source = os.path.abspath(mount.source)
    if not os.path.exists(source):
        raise InvalidArgument(
            f"the source of a mount does not exist: {source}",
            remedy="make it first: it is not made for you",
        )
    labels = {"z", "Z"}.intersection(mount.options)
    if labels and os.path.exists(_SELINUX):
        raise NotBuilt(
            f"the mount option {labels.pop()!r} of {mount.target} is not built yet for SELinux",
            remedy=f"label it yourself (chcon -Rt container_file_t {source}) without the option",
        )
    options = [option for option in mount.options if option not in ("z", "Z")]
    if "bind" not in options and "rbind" not in options:
        options.append("rbind")
    if _propagation(mount) is None:
        options.append("rprivate")
    return _mount(mount.target, "bind", source, *options, "ro" if mount.read_only else "rw")


def _propagation(mount: Mount) -> str | None:
    return next((option for option in mount.options if option in PROPAGATION), None)


# --- the Linux part -------------------------------------------------------------


def _linux(
    spec: Spec, capabilities: list[str], cgroup_path: str, cgroups: CgroupFacts
) -> dict[str, Any]:
    resources = _resources(spec.limits, cgroups)
    resources["devices"] = [{"allow": spec.privileged, "access": "rwm"}]
    linux: dict[str, Any] = {
        "resources": resources,
        "namespaces": [{"type": kind} for kind in _namespaces(spec, cgroups)],
    }
    if cgroup_path:
        linux["cgroupsPath"] = cgroup_path
    if spec.network != "host":
        linux["sysctl"] = {"net.ipv4.ping_group_range": "0 0"}
    if propagation := _root_propagation(spec):
        linux["rootfsPropagation"] = propagation
    if spec.privileged:
        linux["devices"] = list(_host_devices("/dev"))
        return linux
    linux["maskedPaths"] = list(MASKED_PATHS)
    linux["readonlyPaths"] = list(READONLY_PATHS)
    profile = seccomp.profile(frozenset(capabilities))
    if profile is not None:
        linux["seccomp"] = profile
    return linux


def _namespaces(spec: Spec, cgroups: CgroupFacts) -> Iterator[str]:
    yield from ("pid", "ipc", "uts", "mount")
    if spec.network != "host":
        yield "network"
    if cgroups.version == 2:
        yield "cgroup"


def _root_propagation(spec: Spec) -> str | None:
    """What the root must be for a mount to be shared with, or to follow, the host's."""
    kinds = {(_propagation(mount) or "").removeprefix("r") for mount in spec.mounts}
    if "shared" in kinds:
        return "shared"
    return "rslave" if "slave" in kinds else None


def _resources(limits: Limits, cgroups: CgroupFacts) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    if limits.memory is not None:
        _require("memory", "memory", cgroups)
        resources["memory"] = {"limit": limits.memory}
        if cgroups.swap_limit:
            resources["memory"]["swap"] = limits.memory + (limits.swap or 0)
        elif cgroups.host_swap:
            raise Unsupported(
                "limit memory: this kernel cannot limit swap, so memory would not be bounded",
                remedy="boot with swapaccount=1, or turn swap off (swapoff -a)",
            )
    if limits.cpus is not None:
        _require("cpus", "cpu", cgroups)
        resources["cpu"] = {"quota": round(limits.cpus * CPU_PERIOD), "period": CPU_PERIOD}
    if limits.pids is None:
        if "pids" in cgroups.controllers:
            resources["pids"] = {"limit": DEFAULT_PIDS}
    elif limits.pids > 0:
        _require("pids", "pids", cgroups)
        resources["pids"] = {"limit": limits.pids}
    return resources


def _require(limit: str, controller: str, cgroups: CgroupFacts) -> None:
    if controller in cgroups.controllers:
        return
    remedy = (
        f"boot with cgroup_enable={controller}, or mount it: mount -t cgroup -o {controller} ..."
    )
    if cgroups.version == 2:
        remedy = f"write +{controller} to cgroup.subtree_control of the groups above the container"
    raise Unsupported(
        f"limit {limit}: the cgroup controller {controller!r} is missing on this host",
        remedy=remedy,
    )


def _host_devices(directory: str) -> Iterator[dict[str, Any]]:
    """Every device node below `directory`, which podman gives to a privileged container."""
    for name in sorted(set(os.listdir(directory)) - _OWN_DEVICES):
        path = f"{directory}/{name}"
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                yield from _host_devices(path)
        except FileNotFoundError:
            continue  # unplugged since it was listed
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            yield {
                "path": path,
                "type": "c" if stat.S_ISCHR(status.st_mode) else "b",
                "major": os.major(status.st_rdev),
                "minor": os.minor(status.st_rdev),
                "fileMode": stat.S_IMODE(status.st_mode),
                "uid": status.st_uid,
                "gid": status.st_gid,
            }
