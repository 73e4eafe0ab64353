# SPDX-License-Identifier: Apache-2.0
"""The records of containers and pods: the one place that knows their JSON.

Names, forms and defaults are podman 4.3.1's.  A member that is absent has Go's
zero value; a new record gets podman's defaults from its constructor.  `check`
finds, before a record is written, what podman could not live with.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Mapping
from typing import Any

from libpod.names import valid_name
from libpod.state.errors import BadRecord
from libpod.state.fields import (
    INT32,
    UINT32,
    UINT64,
    Converted,
    Record,
    decode_object,
    encode_json,
    flag,
    moment,
    never_null,
    number,
    objects,
    table,
    text,
    tree,
    words,
)

__all__ = [
    "ContainerConfig",
    "ContainerState",
    "ContainerStatus",
    "PodConfig",
    "PodState",
    "check",
    "reset_volume",
]

AUTOREMOVE = "io.podman.annotations.autoremove"
"""By this annotation podman, too, knows a container that is to go at its end."""

DEFAULT_SHM_SIZE = 65_536_000
"""Bytes of a container's /dev/shm (podman's "65536k")."""

DEFAULT_STOP_SIGNAL = 15
DEFAULT_STOP_TIMEOUT = 10

_ID = re.compile("[0-9a-f]{64}")


class ContainerStatus(enum.IntEnum):
    """A container's state by podman's numbers; 0 to 5 are also those of 2018."""

    UNKNOWN = 0
    CONFIGURED = 1
    CREATED = 2
    RUNNING = 3
    STOPPED = 4
    """Ended, not yet cleaned up."""
    PAUSED = 5
    EXITED = 6
    """Ended and cleaned up."""
    REMOVING = 7
    STOPPING = 8

    def __str__(self) -> str:
        """podman's word for it."""
        return _STATUS_WORDS[self]


_STATUS_WORDS = (
    "unknown",
    "created",
    "initialized",
    "running",
    "stopped",
    "paused",
    "exited",
    "removing",
    "stopping",
)


def _is_status(value: Any) -> bool:
    return 0 <= int(value) <= ContainerStatus.STOPPING


class _StatusField(Converted[ContainerStatus]):
    __slots__ = ()

    def load(self, value: Any) -> ContainerStatus:
        return ContainerStatus(value)

    def dump(self, value: ContainerStatus) -> int:
        return int(value)


def _no_id_maps() -> dict[str, Any]:
    return {
        "HostUIDMapping": True,
        "HostGIDMapping": True,
        "UIDMap": None,
        "GIDMap": None,
        "AutoUserNs": False,
        "AutoUserNsOpts": {
            "Size": 0,
            "InitialSize": 0,
            "PasswdFile": "",
            "GroupFile": "",
            "AdditionalUIDMappings": None,
            "AdditionalGIDMappings": None,
        },
    }


class ContainerConfig(Record):
    """What a container is.  It does not change; `but` derives another one."""

    __slots__ = ("_annotations", "_spec_flaw", "_spec_json")

    frozen = True

    id = text("id", always=True)
    name = text("name", always=True)
    pod = text("pod")
    namespace = text("namespace")
    lock_id = number("lockID", UINT32, always=True)
    create_command = words("CreateCommand")
    raw_image_name = text("RawImageName")
    id_mappings = tree("idMappingsOptions", always=True)
    dependencies = words("Dependencies", always=True)
    """IDs given explicitly; `depends_on` has all."""
    rootfs_image_id = text("rootfsImageID")
    rootfs_image_name = text("rootfsImageName")
    rootfs = text("rootfs")
    rootfs_overlay = flag("rootfs_overlay")
    shm_dir = text("ShmDir")
    no_shm_share = flag("NOShmShare")
    no_shm = flag("NoShm")
    shm_size = number("shmSize", always=True)
    static_dir = text("staticDir", always=True)
    mounts = words("mounts")
    named_volumes = objects("namedVolumes")
    overlay_volumes = objects("overlayVolumes")
    image_volumes = objects("ctrImageVolumes")
    secrets = objects("secrets")
    create_working_dir = flag("createWorkingDir")
    secrets_path = text("secretsPath", always=True)
    storage_options = tree("storageOpts", always=True)
    volatile = flag("volatile")
    chroot_directories = words("chroot_directories")
    passwd = flag("passwd")
    privileged = flag("privileged", always=True)
    process_label = text("ProcessLabel")
    mount_label = text("MountLabel")
    label_options = words("labelopts")
    user = text("user")
    groups = words("groups")
    host_users = words("HostUsers")
    add_current_user = flag("addCurrentUserPasswdEntry")
    ipc_ns_from = text("ipcNsCtr")
    mount_ns_from = text("mountNsCtr")
    net_ns_from = text("netNsCtr")
    pid_ns_from = text("pidNsCtr")
    user_ns_from = text("userNsCtr")
    uts_ns_from = text("utsNsCtr")
    cgroup_ns_from = text("cgroupNsCtr")
    create_net_ns = flag("createNetNS", always=True)
    static_ip = text("staticIP")
    static_mac = text("staticMAC")
    port_mappings = objects("newPortMappings")
    exposed_ports = tree("exposedPorts")
    use_image_resolv_conf = flag("UseImageResolvConf", always=True)
    dns_servers = words("dnsServer")
    dns_search = words("dnsSearch")
    dns_options = words("dnsOption")
    use_image_hosts = flag("UseImageHosts", always=True)
    hosts = words("hostsAdd")
    network_mode = text("networkMode")
    network_options = tree("network_options")
    user_volumes = words("userVolumes")
    entrypoint = words("entrypoint")
    command = words("command")
    stdin = flag("stdin")
    labels = table("labels")
    stop_signal = number("stopSignal", UINT64)
    stop_timeout = number("stopTimeout", UINT64)
    """Seconds."""
    timeout = number("timeout", UINT64)
    created = moment("createdTime")
    cgroup_manager = text("cgroupManager")
    no_cgroups = flag("noCgroups")
    cgroups_mode = text("cgroupsMode")
    cgroup_parent = text("cgroupParent", always=True)
    log_path = text("logPath", always=True)
    log_tag = text("logTag", always=True)
    log_size = number("logSize", always=True)
    log_driver = text("logDriver", always=True)
    conmon_pid_file = text("conmonPidFile")
    restart_policy = text("restart_policy")
    restart_retries = number("restart_retries", UINT64)
    post_configure_net_ns = flag("postConfigureNetNS", always=True)
    oci_runtime = text("runtime")
    is_infra = flag("pause", always=True)
    is_service = flag("isService", always=True)
    sdnotify_mode = text("sdnotifyMode")
    sdnotify_socket = text("sdnotifySocket")
    systemd = flag("systemd")
    health_check = tree("healthcheck", always=True)
    health_check_on_failure = number("healthcheck_on_failure_action", always=True)
    preserve_fds = number("preserveFds", UINT64)
    timezone = text("timezone")
    umask = text("umask")
    pid_file = text("pid_file")
    cdi_devices = words("cdiDevices")
    host_devices = objects("device_host_src")
    secret_env = tree("secret_env")
    init_container_type = text("init_container_type")
    passwd_entry = text("passwd_entry")
    mount_all_devices = flag("mountAllDevices", always=True)

    def __init__(self, spec: Mapping[str, Any], **members: Any) -> None:
        """A new container's config, with podman's defaults.  Raises ValueError where
        `spec`, an OCI runtime spec, has no JSON form."""
        defaults: dict[str, Any] = {
            "id_mappings": _no_id_maps(),
            "shm_size": DEFAULT_SHM_SIZE,
            "stop_signal": DEFAULT_STOP_SIGNAL,
            "stop_timeout": DEFAULT_STOP_TIMEOUT,
            "created": time.time_ns(),
            "log_driver": "k8s-file",
            "cgroups_mode": "enabled",
            "sdnotify_mode": "container",
            "umask": "0022",
        }
        super().__init__(**{**defaults, **members})
        # By the spec's own form: what is sound in that is sound in JSON, too.
        self._keep_spec(encode_json(dict(spec)), _flaw_of(spec))
        self._keep_annotations(spec)

    def _keep_spec(self, encoded: bytes, flaw: str | None = None) -> None:
        self._spec_json = encoded
        # What is known of it once it was decoded, which takes as long as all the rest.
        self._annotations: dict[str, Any] | None = None
        self._spec_flaw = flaw

    @property
    def spec(self) -> dict[str, Any]:
        """The OCI runtime spec, decoded at each call: the caller's own.

        Raises `BadRecord`.
        """
        wrapped = b'{"spec":' + self._spec_json + b"}"
        found = decode_object(wrapped)["spec"]
        if type(found) is not dict:
            raise BadRecord(
                f"container {self.id}: its spec is not a JSON object",
                bucket=f"ctr/{self.id}",
                key="config",
                remedy="remove the container, or restore the database from a copy",
            )
        self._keep_annotations(found)
        return found

    def _keep_annotations(self, spec: Mapping[str, Any]) -> None:
        annotations = spec.get("annotations")
        self._annotations = dict(annotations) if type(annotations) is dict else {}

    @property
    def annotations(self) -> Mapping[str, Any]:
        """The spec's.  Raises `BadRecord`."""
        if self._annotations is None:
            self._keep_annotations(self.spec)
        return self._annotations or {}

    @property
    def remove_at_end(self) -> bool:
        """Whether the container is to go when it has ended.  Raises `BadRecord`."""
        return bool(self.annotations.get(AUTOREMOVE) == "TRUE")

    @property
    def spec_flaw(self) -> str:
        """What the spec lacks that podman could not live without; "" where it is sound.

        Raises `BadRecord`.
        """
        if self._spec_flaw is None:
            self._spec_flaw = _flaw_of(self.spec)
        return self._spec_flaw

    @property
    def spec_json(self) -> bytes:
        """The spec as it is written, for those who want a part of it only."""
        return self._spec_json

    @property
    def depends_on(self) -> list[str]:
        """IDs of all containers that it needs: whose namespaces it joins, and those
        named explicitly; each once."""
        joined = [self.values.get(name) for name in _NAMESPACES_FROM]
        return list(dict.fromkeys([i for i in joined if i] + self.dependencies))

    @property
    def volume_names(self) -> list[str]:
        """The named volumes that it mounts."""
        return [str(volume.get("volumeName")) for volume in self.named_volumes]

    @classmethod
    def decode(cls, raw: bytes) -> ContainerConfig:
        """Raises ValueError.

        The spec is four fifths of a config and seldom asked for, so it is cut out
        and kept as it is.  Go writes it first, and `id` and `name` behind it.  The
        mark cannot be inside a string, where its quotes would be escaped; and if
        it were in a nested object, what follows would not be an object.
        """
        config = object.__new__(cls)
        config.origin = None  # the part that is decoded is not all of it
        end = raw.find(b',"id":"')
        if raw.startswith(_SPEC_FIRST) and _ID_AND_NAME.match(raw, end):
            try:
                config.values = decode_object(b"{" + raw[end + 1 :])
            except ValueError:
                config.values = {}  # the mark was not what it seemed
            config._keep_spec(raw[len(_SPEC_FIRST) : end])
        else:
            config.values = {}
        if not config.values:
            config.values = decode_object(raw)
            config._keep_spec(encode_json(config.values.pop("spec", None)))
        config.check()
        return config

    def encode(self, stored: bytes | None = None) -> bytes:
        return _SPEC_FIRST + self._spec_json + b"," + super().encode(stored)[1:]

    def but(self, **members: Any) -> ContainerConfig:
        copy = super().but(**members)
        copy._spec_json = self._spec_json
        copy._annotations = self._annotations
        copy._spec_flaw = self._spec_flaw
        return copy


_SPEC_FIRST = b'{"spec":'
_ID_AND_NAME = re.compile(rb',"id":"[^"\\]*","name":"')
_NAMESPACES_FROM = (
    "ipcNsCtr",
    "mountNsCtr",
    "netNsCtr",
    "pidNsCtr",
    "userNsCtr",
    "utsNsCtr",
    "cgroupNsCtr",
)


class ContainerState(Record):
    """How a container stands, as its last save left it."""

    __slots__ = ()

    status = _StatusField("state", int, lambda: ContainerStatus.UNKNOWN, True, _is_status)
    config_path = text("configPath")
    run_dir = text("runDir")
    mounted = flag("mounted")
    mount_point = text("mountPoint")
    started = moment("startedTime")
    finished = moment("finishedTime")
    exit_code = number("exitCode", INT32)
    exited = flag("exited")
    oom_killed = flag("oomKilled")
    checkpointed = flag("checkpointed")
    pid = number("pid")
    conmon_pid = number("conmonPid")
    exec_sessions = tree("newExecSessions")
    """Session ID to the session's object."""
    legacy_exec_sessions = tree("execSessions")
    network_results = objects("networkResults")
    network_status = tree("networkStatus")
    bind_mounts = table("bindMounts")
    """Destination in the container to source on the host."""
    stopped_by_user = flag("stoppedByUser")
    restart_policy_match = flag("restartPolicyMatch")
    restart_count = number("restartCount", UINT64)
    extension_stage_hooks = tree("extensionStageHooks")
    network_descriptions = tree("networkDescriptions")
    service = tree("Service", always=True)
    checkpointed_time = moment("checkpointedTime")
    restored_time = moment("restoredTime")
    checkpoint_log = text("checkpointLog")
    checkpoint_path = text("checkpointPath")
    restore_log = text("restoreLog")
    restored = flag("restored")

    def __init__(self, **members: Any) -> None:
        """A new container's state."""
        super().__init__(
            **{"status": ContainerStatus.CONFIGURED, "service": {"servicePods": None}, **members}
        )

    def reset(self) -> None:
        """As after a reboot: nothing runs and nothing is mounted.

        How it ended stays.  A container that had been cleaned up stays exited, as
        with podman; in 2018 there was no such state.
        """
        if self.status is not ContainerStatus.EXITED:
            self.status = ContainerStatus.CONFIGURED
        for name in _GONE_AFTER_REBOOT:
            self.values.pop(name, None)


_GONE_AFTER_REBOOT = (
    "pid",
    "conmonPid",
    "mounted",
    "mountPoint",
    "newExecSessions",
    "execSessions",
    "networkStatus",
    "networkResults",
    "bindMounts",
    "stoppedByUser",
    "restartPolicyMatch",
    "restartCount",
    "checkpointed",
    "checkpointedTime",
    "restored",
    "restoredTime",
)


class PodConfig(Record):
    """What a pod is.  It does not change; `but` derives another one."""

    __slots__ = ()

    frozen = True

    id = text("id", always=True)
    name = text("name", always=True)
    namespace = text("namespace")
    hostname = text("hostname")
    labels = never_null(table("labels", always=True))
    cgroup_parent = text("cgroupParent", always=True)
    shares_cgroup = flag("sharesCgroup")
    """Its containers' cgroups are below its own (2018: UsePodCgroup)."""
    shares_pid = flag("sharesPid")
    shares_ipc = flag("sharesIpc")
    shares_net = flag("sharesNet")
    shares_mount = flag("sharesMnt")
    shares_user = flag("sharesUser")
    shares_uts = flag("sharesUts")
    shares_cgroup_ns = flag("sharesCgroupNS")
    has_infra = flag("hasInfra")
    service_container_id = text("serviceContainerID")
    created = moment("created")
    create_command = words("CreateCommand")
    exit_policy = text("ExitPolicy")
    lock_id = number("lockID", UINT32, always=True)
    resource_limits = never_null(tree("ResourceLimits", always=True))

    def __init__(self, **members: Any) -> None:
        """A new pod's config, with podman's defaults."""
        super().__init__(**{"created": time.time_ns(), "exit_policy": "continue", **members})


class PodState(Record):
    """How a pod stands, as its last save left it."""

    __slots__ = ()

    cgroup_path = text("cgroupPath", always=True)
    infra_container_id = text("InfraContainerID", always=True)


def reset_volume(raw: bytes) -> bytes:
    """A volume's state as after a reboot: nothing is mounted.  Raises ValueError."""
    values = decode_object(raw)
    values.pop("mountPoint", None)
    values["mountCount"] = 0
    return encode_json(values)


# --- what must be there before a record is written ------------------------------


def check(record: Record) -> None:
    """Raises ValueError for a record with which podman could not list, inspect, start
    or remove the object."""
    if isinstance(record, ContainerConfig):
        _check_identity(record.id, record.name)
        _check_container(record)
    elif isinstance(record, PodConfig):
        _check_identity(record.id, record.name)
    elif isinstance(record, ContainerState):
        _demand(record.run_dir, "runDir is missing")


def _check_container(config: ContainerConfig) -> None:
    for name in ("staticDir", "logPath"):
        _demand(config.values.get(name), f"{name} is missing")
    _demand(config.shm_dir or config.no_shm, "ShmDir is missing")
    _demand(not config.spec_flaw, config.spec_flaw)


def _flaw_of(spec: Mapping[str, Any]) -> str:
    for path, kind in _SPEC_SHAPE:
        value: Any = spec
        for name in path.split("."):
            value = value.get(name)
        if type(value) is not kind:
            return f"spec.{path} is not {_KINDS[kind]}"
    return "" if spec["process"]["args"] else "spec.process.args is empty"


# A parent stands before what is in it.
_SPEC_SHAPE: tuple[tuple[str, type], ...] = (
    ("process", dict),
    ("process.args", list),
    ("process.env", list),
    ("process.cwd", str),
    ("process.capabilities", dict),
    ("root", dict),
    ("linux", dict),
    ("linux.namespaces", list),
    ("mounts", list),
)
_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}


def _demand(what: object, complaint: str) -> None:
    if not what:
        raise ValueError(complaint)


def _check_identity(identifier: str, name: str) -> None:
    _demand(_ID.fullmatch(identifier), f"the ID {identifier!r} is not 64 hexadecimal digits")
    _demand(valid_name(name), f"the name {name!r} is not valid")
