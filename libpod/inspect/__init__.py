# SPDX-License-Identifier: Apache-2.0
"""`inspect` of a container: its record in the form that podman 4.3.1 shows.

Names, order, defaults and quirks are podman's, found by comparing with the real
one; they are the 2018 original's where both have a key.  All of it comes from the
record, and for a container that was started, as with podman, from the config.json
that its OCI runtime was given.  No lock is taken and no process asked: whoever
wants the state of this moment syncs the container first.

Most of a spec is not shown: its seccomp profile alone is four fifths of it.  These
members are one and the same text in most specs, so a text that was seen before is
cut out before the spec is decoded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

from libpod.inspect import mounts, network
from libpod.inspect.host import host_config
from libpod.inspect.memo import Memo
from libpod.inspect.seen import Seen, current_spec, take_apart
from libpod.spec import DEFAULT_CAPABILITIES
from libpod.state.errors import BadRecord
from libpod.state.fields import decode_object
from libpod.state.handles import ContainerRecord
from libpod.state.paths import RuntimePaths
from libpod.state.records import ContainerConfig, ContainerState, ContainerStatus

__all__ = ["Memo", "Size", "StorageContainer", "container_data", "current_spec"]

log = logging.getLogger("libpod.inspect")

_HEALTH_ACTIONS = ("none", "invalid", "kill", "restart", "stop")
_NO_HEALTH: dict[str, Any] = {"Status": "", "FailingStreak": 0, "Log": None}


class StorageContainer(Protocol):
    """What is wanted of a container in the container store."""

    @property
    def layer_id(self) -> str: ...


class Size(NamedTuple):
    """Bytes that a container added to its root file system, and of all of that."""

    rw: int
    rootfs: int | None = None
    """None where no image is below it."""


def container_data(
    record: ContainerRecord,
    *,
    paths: RuntimePaths,
    oci_path: str = "",
    storage: StorageContainer | None = None,
    lower: Sequence[str] = (),
    image_digest: str = "",
    networks: Mapping[str, Mapping[str, Any]] | None = None,
    network_owner: ContainerRecord | None = None,
    size: Size | None = None,
    default_capabilities: Collection[str] = DEFAULT_CAPABILITIES,
) -> dict[str, Any]:
    """One entry of what `podman inspect` prints; all of it is the caller's own.

    Args:
        oci_path: the OCI runtime, where the record names none.
        storage: its entry in the container store; None: there is none, and the
            paths of its layer stay out.
        lower: the layers below its own, nearest first.
        image_digest: of its image.
        networks: those that it joins: name to aliases and the like.
        network_owner: the container whose network namespace it shares.
        size: where it was asked for.
        default_capabilities: what CapAdd and CapDrop are the difference to.

    Raises `BadRecord`.
    """
    try:
        return _container_data(
            take_apart(record),
            paths,
            oci_path,
            _graph_driver(record, paths, storage, lower),
            image_digest,
            network.settings(network_owner or record, networks or {}),
            size,
            default_capabilities,
        )
    except BadRecord:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise record.stored.bad("config", f"it cannot be shown: {error!r}") from error


def _container_data(
    seen: Seen,
    paths: RuntimePaths,
    oci_path: str,
    graph_driver: dict[str, Any],
    image_digest: str,
    network_settings: dict[str, Any],
    size: Size | None,
    default_capabilities: Collection[str],
) -> dict[str, Any]:
    record, config, state, process = seen.record, seen.config, seen.state, seen.process
    args: list[str] = process.get("args") or []
    capabilities = process.get("capabilities") or {}
    asked = mounts.user_mounts(seen)
    data: dict[str, Any] = {
        "Id": record.id,
        "Created": ContainerConfig.created.written(config),
        "Path": args[0] if args else "",
        # The original repeats a command that stands alone.
        "Args": args[1:] or args,
        "State": _state(seen),
        "Image": config.rootfs_image_id,
        "ImageDigest": image_digest,
        "ImageName": config.rootfs_image_name,
        "Rootfs": config.rootfs,
        "Pod": config.pod,
    }
    binds = state.bind_mounts
    data["ResolvConfPath"] = binds.get("/etc/resolv.conf", "")
    data["HostnamePath"] = binds.get("/etc/hostname", "")
    data["HostsPath"] = binds.get("/etc/hosts", "")
    data["StaticDir"] = config.static_dir
    if state.config_path:
        data["OCIConfigPath"] = state.config_path
    data |= {
        "OCIRuntime": config.oci_runtime or os.path.basename(oci_path),
        "ConmonPidFile": config.conmon_pid_file,
        "PidFile": config.pid_file,
        "Name": config.name,
        "RestartCount": state.restart_count,
        "Driver": paths.graph_driver,
        "MountLabel": config.mount_label,
        "ProcessLabel": config.process_label,
        "AppArmorProfile": process.get("apparmorProfile", ""),
        "EffectiveCaps": capabilities.get("effective"),
        "BoundingCaps": capabilities.get("bounding"),
        "ExecIDs": list(state.exec_sessions),
        "GraphDriver": graph_driver,
    }
    if size is not None:
        data["SizeRw"] = size.rw
        if size.rootfs is not None:
            data["SizeRootFs"] = size.rootfs
    data |= {
        "Mounts": [mounts.show(mount, paths) for mount in asked],
        "Dependencies": config.depends_on,
        "NetworkSettings": network_settings,
        "Namespace": config.namespace,
        "IsInfra": config.is_infra,
        "IsService": config.is_service,
        "Config": _config(seen),
        "HostConfig": host_config(seen, asked, default_capabilities),
    }
    return data


# --- state ----------------------------------------------------------------------


def _state(seen: Seen) -> dict[str, Any]:
    state, status = seen.state, seen.state.status
    alive = status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED)
    data: dict[str, Any] = {
        "OciVersion": seen.spec.get("ociVersion", ""),
        "Status": str(status),
        "Running": status is ContainerStatus.RUNNING,
        "Paused": status is ContainerStatus.PAUSED,
        "Restarting": False,
        "OOMKilled": state.oom_killed,
        "Dead": False,
        "Pid": state.pid,
    }
    if state.conmon_pid:
        data["ConmonPid"] = state.conmon_pid
    data |= {
        "ExitCode": state.exit_code,
        "Error": "",
        "StartedAt": ContainerState.started.written(state),
        "FinishedAt": ContainerState.finished.written(state),
        "Health": _health(seen),
    }
    if state.checkpointed:
        data["Checkpointed"] = True
    if alive:
        data["CgroupPath"] = _cgroup_path(seen.config)
    data["CheckpointedAt"] = ContainerState.checkpointed_time.written(state)
    data["RestoredAt"] = ContainerState.restored_time.written(state)
    for key, value in (
        ("CheckpointLog", state.checkpoint_log),
        ("CheckpointPath", state.checkpoint_path),
        ("RestoreLog", state.restore_log),
        ("Restored", state.restored),
    ):
        if value:
            data[key] = value
    return data


def _health(seen: Seen) -> dict[str, Any]:
    """What the health checks left in their file, which is there from the start on."""
    if not seen.config.health_check or not seen.state.run_dir:
        return dict(_NO_HEALTH)
    path = os.path.join(os.path.dirname(seen.state.run_dir), "healthcheck.log")
    try:
        with open(path, "rb") as file:
            found = decode_object(file.read())
    except FileNotFoundError:
        return dict(_NO_HEALTH)
    except (OSError, ValueError) as error:
        log.warning("the health of container %s is unknown: %s: %s", seen.record.id, path, error)
        return dict(_NO_HEALTH)
    return {key: found.get(key, nothing) for key, nothing in _NO_HEALTH.items()}


def _cgroup_path(config: ContainerConfig) -> str:
    """Where its processes are, in podman's layout."""
    if config.cgroup_manager == "systemd":
        return f"{config.cgroup_parent}/libpod-{config.id}.scope"
    return f"{config.cgroup_parent}/libpod-{config.id}"


def _graph_driver(
    record: ContainerRecord,
    paths: RuntimePaths,
    storage: StorageContainer | None,
    lower: Sequence[str],
) -> dict[str, Any]:
    if storage is None or not storage.layer_id or paths.graph_driver != "overlay":
        return {"Name": paths.graph_driver, "Data": None}
    home = f"{paths.graph_root}/overlay"
    layer = f"{home}/{storage.layer_id}"
    data = {}
    if lower:
        data["LowerDir"] = ":".join(f"{home}/{below}/diff" for below in lower)
    if record.state.mounted and record.state.mount_point == f"{layer}/merged":
        data["MergedDir"] = record.state.mount_point
    data["UpperDir"] = f"{layer}/diff"
    data["WorkDir"] = f"{layer}/work"
    return {"Name": "overlay", "Data": data}


# --- Config ---------------------------------------------------------------------


def _config(seen: Seen) -> dict[str, Any]:
    config, process, record = seen.config, seen.process, seen.record
    data: dict[str, Any] = {
        "Hostname": seen.spec.get("hostname") or record.id[:12],
        "Domainname": "",
        "User": config.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": process.get("terminal", False),
        "OpenStdin": config.stdin,
        "StdinOnce": False,
        "Env": process.get("env"),
        "Cmd": list(config.command) or None,
        "Image": config.rootfs_image_name,
        "Volumes": None,
        "WorkingDir": process.get("cwd", ""),
        "Entrypoint": " ".join(config.entrypoint),
        "OnBuild": None,
        "Labels": dict(sorted(config.labels.items())) or None,
        "Annotations": dict(sorted(seen.annotations.items())) or None,
        "StopSignal": config.stop_signal,
    }
    if config.health_check:
        data["Healthcheck"] = deepcopy(config.health_check)
    action = config.health_check_on_failure
    known = 0 <= action < len(_HEALTH_ACTIONS)
    data["HealthcheckOnFailureAction"] = _HEALTH_ACTIONS[action] if known else "invalid"
    return data | {
        key: value
        for key, value, always in (
            ("CreateCommand", list(config.create_command), False),
            ("Timezone", config.timezone, False),
            ("SystemdMode", config.systemd, False),
            ("Umask", config.umask, False),
            ("Secrets", _secrets(config), False),
            ("Timeout", config.timeout, True),
            ("StopTimeout", config.stop_timeout, True),
            ("Passwd", config.passwd, False),
            ("ChrootDirs", list(config.chroot_directories), False),
            ("sdNotifyMode", config.sdnotify_mode, False),
            ("sdNotifySocket", config.sdnotify_socket, False),
        )
        if value or always
    }


def _secrets(config: ContainerConfig) -> list[dict[str, Any]]:
    """Those that are files; secrets in the environment are not shown."""
    return [
        {"Name": s["name"], "ID": s["id"], "UID": s["UID"], "GID": s["GID"], "Mode": s["Mode"]}
        for s in config.secrets
    ]
