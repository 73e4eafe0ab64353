# SPDX-License-Identifier: Apache-2.0
"""`HostConfig`: what the container was allowed on its host."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from libpod.inspect import mounts as mounted
from libpod.inspect.mounts import Mount
from libpod.inspect.network import ports
from libpod.inspect.seen import Seen
from libpod.job import CAPABILITIES

log = logging.getLogger("libpod.inspect")

_DEFAULT_PARENTS = ("/libpod_parent", "machine.slice")
"""podman's, of cgroupfs and systemd; they are not shown."""


def host_config(
    seen: Seen, mounts: Iterable[Mount], default_capabilities: Collection[str]
) -> dict[str, Any]:
    config = seen.config
    added, dropped = _capability_changes(seen, default_capabilities)
    parent = config.cgroup_parent
    resources = _resources(seen, "" if parent in _DEFAULT_PARENTS else parent)
    volumes_from = seen.annotation("volumes-from")
    return {
        "Binds": mounted.binds(mounts),
        "CgroupManager": config.cgroup_manager,
        "CgroupMode": _namespace_mode(seen, "cgroup", config.cgroup_ns_from),
        "ContainerIDFile": seen.annotation("cid-file"),
        "LogConfig": {
            "Type": config.log_driver,
            "Config": None,
            "Path": config.log_path,
            "Tag": config.log_tag,
            "Size": human_size(config.log_size),
        },
        "NetworkMode": _network_mode(seen),
        "PortBindings": ports(config),
        "RestartPolicy": {
            "Name": config.restart_policy,
            "MaximumRetryCount": config.restart_retries,
        },
        "AutoRemove": seen.noted("autoremove"),
        "VolumeDriver": "",
        "VolumesFrom": volumes_from.split(",") if volumes_from else None,
        "CapAdd": added,
        "CapDrop": dropped,
        "Dns": list(config.dns_servers),
        "DnsOptions": list(config.dns_options),
        "DnsSearch": list(config.dns_search),
        "ExtraHosts": list(config.hosts),
        "GroupAdd": list(config.groups),
        "IpcMode": _ipc_mode(seen),
        "Cgroup": "",
        "Cgroups": "disabled" if config.no_cgroups else "default",
        "Links": None,
        "OomScoreAdj": seen.process.get("oomScoreAdj", 0),
        "PidMode": _namespace_mode(seen, "pid", config.pid_ns_from),
        "Privileged": seen.noted("privileged"),
        "PublishAllPorts": seen.noted("publish-all"),
        "ReadonlyRootfs": (seen.spec.get("root") or {}).get("readonly", False),
        "SecurityOpt": _security_options(seen),
        "Tmpfs": mounted.tmpfs(seen),
        "UTSMode": _namespace_mode(seen, "uts", config.uts_ns_from),
        "UsernsMode": _namespace_mode(seen, "user", config.user_ns_from, absent=""),
        "ShmSize": config.shm_size,
        "Runtime": "oci",
        "ConsoleSize": [0, 0],
        "Isolation": "",
        **resources,
    }


def _namespace_mode(seen: Seen, kind: str, owner: str, absent: str = "host") -> str:
    if owner:
        return f"container:{owner}"
    path = seen.namespaces.get(kind)
    if path is None:
        return absent
    return f"ns:{path}" if path else "private"


def _ipc_mode(seen: Seen) -> str:
    """podman says "shareable" also of the host's and of one that is not shared."""
    mode = _namespace_mode(seen, "ipc", seen.config.ipc_ns_from)
    return "shareable" if mode in ("host", "private") else mode


def _network_mode(seen: Seen) -> str:
    config = seen.config
    if config.create_net_ns:
        slirp = config.network_mode == "slirp4netns"
        return "slirp4netns" if slirp else "bridge"
    mode = _namespace_mode(seen, "network", config.net_ns_from)
    return "none" if mode == "private" else mode


def _security_options(seen: Seen) -> list[str]:
    found = ["no-new-privileges"] if seen.process.get("noNewPrivileges") else []
    for name in ("label", "seccomp", "apparmor"):
        value = seen.annotation(name)
        if value:
            found.append(f"{name}={value}")
    return found


def _capability_changes(seen: Seen, default: Collection[str]) -> tuple[list[str], list[str]]:
    """What was added to and dropped from the default; of a privileged container, what
    it lacks."""
    bounding = frozenset((seen.process.get("capabilities") or {}).get("bounding") or ())
    if seen.noted("privileged"):
        return [], sorted(set(CAPABILITIES) - bounding)
    usual = frozenset(default)
    return sorted(bounding - usual), sorted(usual - bounding)


def _resources(seen: Seen, cgroup_parent: str) -> dict[str, Any]:
    found = seen.linux.get("resources") or {}
    cpu, memory = found.get("cpu") or {}, found.get("memory") or {}
    block = found.get("blockIO")
    quota, period = cpu.get("quota", 0), cpu.get("period", 0)
    return {
        "CpuShares": cpu.get("shares", 0),
        "Memory": memory.get("limit", 0),
        "NanoCpus": quota * 1_000_000_000 // period if quota > 0 and period > 0 else 0,
        "CgroupParent": cgroup_parent,
        "BlkioWeight": (block or {}).get("weight", 0),
        "BlkioWeightDevice": _block_devices(block, "weightDevice", "weight"),
        "BlkioDeviceReadBps": _block_devices(block, "throttleReadBpsDevice", "rate"),
        "BlkioDeviceWriteBps": _block_devices(block, "throttleWriteBpsDevice", "rate"),
        "BlkioDeviceReadIOps": _block_devices(block, "throttleReadIOPSDevice", "rate"),
        "BlkioDeviceWriteIOps": _block_devices(block, "throttleWriteIOPSDevice", "rate"),
        "CpuPeriod": period,
        "CpuQuota": quota,
        "CpuRealtimePeriod": cpu.get("realtimePeriod", 0),
        "CpuRealtimeRuntime": cpu.get("realtimeRuntime", 0),
        "CpusetCpus": cpu.get("cpus", ""),
        "CpusetMems": cpu.get("mems", ""),
        "Devices": _devices(seen),
        "DiskQuota": 0,
        "KernelMemory": memory.get("kernel", 0),
        "MemoryReservation": memory.get("reservation", 0),
        "MemorySwap": memory.get("swap", 0),
        # -1 says "the host's": what a limit without a swappiness of its own means.
        "MemorySwappiness": memory.get("swappiness", -1) if memory else 0,
        "OomKillDisable": memory.get("disableOOMKiller", False),
        "PidsLimit": (found.get("pids") or {}).get("limit", 0),
        "Ulimits": [
            {"Name": limit["type"], "Soft": limit["soft"], "Hard": limit["hard"]}
            for limit in seen.process.get("rlimits") or ()
        ],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "CgroupConf": found.get("unified") or None,
    }


def _block_devices(
    block: Mapping[str, Any] | None, key: str, value: str
) -> list[dict[str, Any]] | None:
    """Limits of single devices; None where there are no limits of block devices at all."""
    if block is None:
        return None
    return [
        {"Path": _block_device(d["major"], d["minor"]), value.capitalize(): d.get(value, 0)}
        for d in block.get(key) or ()
    ]


def _block_device(major: int, minor: int) -> str:
    """The path of a device, as the kernel names it; "" for one that is gone."""
    try:
        with open(f"/sys/dev/block/{major}:{minor}/uevent", encoding="utf-8") as file:
            names = [line[8:].rstrip("\n") for line in file if line.startswith("DEVNAME=")]
    except OSError as error:
        log.warning("there is no name for block device %d:%d: %s", major, minor, error)
        return ""
    return f"/dev/{names[0]}" if names else ""


def _devices(seen: Seen) -> list[dict[str, str]]:
    """Devices that were asked for; a privileged container has all and shows none."""
    if seen.config.privileged:
        return []
    # What was asked for as HOST[:CONTAINER[:PERMISSIONS]] may be a directory of devices.
    asked = {}
    for device in seen.config.host_devices:
        host, _, inside = device.get("path", "").partition(":")
        inside = inside.partition(":")[0]
        asked[inside if inside.startswith("/") else host] = host
    found = []
    for device in seen.linux.get("devices") or ():
        path = device["path"]
        known = path if path in asked else os.path.dirname(path)
        host = asked.get(known, known) + path[len(known) :]
        found.append({"PathOnHost": host, "PathInContainer": path, "CgroupPermissions": ""})
    return found


def human_size(size: float) -> str:
    """Bytes in units of 1000 with four digits: "10kB", "1.235MB"."""
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
    power = 0
    while size >= 1000 and power < len(units) - 1:
        size /= 1000
        power += 1
    return f"{size:.4g}{units[power]}"
