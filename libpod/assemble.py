# SPDX-License-Identifier: Apache-2.0
"""From a container's record to the config.json of one launch.

The recorded spec says what was asked for; what depends on the moment is added
here, in a copy: the files of /etc that are made for the container, /dev/shm,
the namespaces of other containers, users and groups by the container's own files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from libpod import etcfiles, users
from libpod.errors import ContainerStateInvalid, InvalidArgument, NotBuilt, SystemCallError
from libpod.state.fields import format_time

if TYPE_CHECKING:
    from libpod.engine import Engine
    from libpod.state.handles import ContainerRecord
    from libpod.state.records import ContainerConfig

SHM = "/dev/shm"

_NAMESPACES = (  # of the OCI spec, our member, and the name below /proc/PID/ns
    ("ipc", "ipc_ns_from", "ipc"),
    ("mount", "mount_ns_from", "mnt"),
    ("network", "net_ns_from", "net"),
    ("pid", "pid_ns_from", "pid"),
    ("user", "user_ns_from", "user"),
    ("uts", "uts_ns_from", "uts"),
    ("cgroup", "cgroup_ns_from", "cgroup"),
)


def check(config: ContainerConfig, spec: dict[str, Any]) -> None:
    """Raises the `InvalidArgument` with which `assemble` would refuse these options."""
    etcfiles.check(
        hostname=_hostname(config, spec),
        network=_network(spec),
        hosts=config.hosts,
        dns_servers=config.dns_servers,
        dns_search=config.dns_search,
        dns_options=config.dns_options,
    )


def assemble(
    engine: Engine, record: ContainerRecord, spec: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The finished spec, made of `spec`, which is the caller's own copy of the recorded
    one; and destination to source of what is mounted into the container.

    Mounts /dev/shm on the host, where other containers may share it.  Raises
    `ContainerStateInvalid` where a container whose namespaces it joins does not
    run, `InvalidArgument`, `NotBuilt`, `SystemCallError`.
    """
    config = record.config
    root = _root(config)
    joined = _join_namespaces(engine, config, spec)
    bind_mounts = _etc_files(engine, record, spec)
    shm = _shared_memory(engine, config)
    if shm:
        bind_mounts[SHM] = shm
    _add_mounts(spec, bind_mounts, keep_shm=not shm)
    spec["root"]["path"] = root
    _set_user(config, root, spec["process"])
    _set_names(config, spec, own_uts="uts" not in joined)
    spec["linux"]["cgroupsPath"] = f"{config.cgroup_parent}/libpod-{config.id}"
    return spec, bind_mounts


def _root(config: ContainerConfig) -> str:
    if not config.rootfs:
        raise NotBuilt(
            f"container {config.id} is made from an image, and images are not built yet",
            container_id=config.id,
        )
    # runc refuses a root that is, or lies behind, a symbolic link.
    root = os.path.realpath(config.rootfs)
    if not os.path.isdir(root):
        raise InvalidArgument(
            f"the root file system {root!r} is not a directory any more",
            container_id=config.id,
            remedy="put it back, or remove the container",
        )
    return root


def _join_namespaces(engine: Engine, config: ContainerConfig, spec: dict[str, Any]) -> set[str]:
    """The namespaces that are another container's, with their paths in the spec."""
    paths = {}
    for kind, member, name in _NAMESPACES:
        other_id = getattr(config, member)
        if other_id:
            other = engine.state.container(other_id)
            if other.state.pid <= 0:
                raise ContainerStateInvalid(
                    f"container {other_id}, whose {kind} namespace is to be shared, does not run",
                    container_id=config.id,
                    remedy=f"start {other.name} first",
                )
            paths[kind] = f"/proc/{other.state.pid}/ns/{name}"
    if paths:
        kept = [n for n in spec["linux"].get("namespaces") or () if n.get("type") not in paths]
        added = [{"type": kind, "path": path} for kind, path in paths.items()]
        spec["linux"]["namespaces"] = kept + added
    return set(paths)


# --- mounts ---------------------------------------------------------------------


def _etc_files(engine: Engine, record: ContainerRecord, spec: dict[str, Any]) -> dict[str, str]:
    """/etc/hosts and its kin, but for those that the user mounts himself; in another
    container's network, that container's."""
    config = record.config
    taken = {str(mount["destination"]) for mount in spec["mounts"]}
    lent = {}
    if config.net_ns_from:
        theirs = engine.state.container(config.net_ns_from).state.bind_mounts
        names = (etcfiles.HOSTS, etcfiles.RESOLV_CONF)
        lent = {name: theirs[name] for name in names if name in theirs and name not in taken}
    text = ""
    if config.privileged:
        text = etcfiles.containerenv(name=record.name, container_id=record.id)
    made = etcfiles.write(
        record.state.run_dir,
        hostname=_hostname(config, spec),
        name=record.name,
        network=_network(spec),
        hosts=config.hosts,
        dns_servers=config.dns_servers,
        dns_search=config.dns_search,
        dns_options=config.dns_options,
        containerenv=text,
        label=config.mount_label,
        without=taken | lent.keys(),
    )
    return made | lent


def _network(spec: dict[str, Any]) -> str:
    """ "host" where the spec leaves it in the host's network namespace, else "none": no
    other network is built yet."""
    return "none" if _has_namespace(spec, "network") else "host"


def _shared_memory(engine: Engine, config: ContainerConfig) -> str:
    """The directory on the host that is to be /dev/shm; "" where it is the container's
    own tmpfs, which costs the host no mount."""
    if config.no_shm:
        return ""
    if config.ipc_ns_from:
        theirs = engine.state.container(config.ipc_ns_from).config
        return "" if theirs.no_shm_share else theirs.shm_dir
    if config.no_shm_share:
        return ""
    if not engine.host.is_mountpoint(config.shm_dir):
        make_shm_dir(config)
        engine.host.mount_tmpfs(config.shm_dir, config.shm_size, 0o1777, label=config.mount_label)
    return config.shm_dir


def make_shm_dir(config: ContainerConfig) -> None:
    """Where /dev/shm is mounted on the host, for those who look for it.  Once more is no error;
    raises `SystemCallError`."""
    try:
        os.mkdir(config.shm_dir, 0o700)
    except FileExistsError:
        return
    except OSError as error:
        raise SystemCallError(
            f"cannot make the directory {config.shm_dir}: {error.strerror}",
            error.errno or 0,
            phase="prepare",
            remedy="check the space on that file system",
        ) from error


def _add_mounts(spec: dict[str, Any], bind_mounts: dict[str, str], keep_shm: bool) -> None:
    """What the user has mounted stays, whatever would have been there."""
    mounts = [
        mount
        for mount in spec["mounts"]
        if keep_shm or mount["destination"] != SHM or mount.get("type") == "bind"
    ]
    for mount in mounts:
        bind_mounts.pop(mount["destination"], None)
    for destination, source in bind_mounts.items():
        options = ["bind", "rprivate"]
        mounts.append(
            {"destination": destination, "type": "bind", "source": source, "options": options}
        )
    # A mount hides what was mounted below its target before.
    spec["mounts"] = sorted(mounts, key=lambda mount: str(mount["destination"]).count("/"))


# --- the process -----------------------------------------------------------------


def _set_user(config: ContainerConfig, root: str, process: dict[str, Any]) -> None:
    if not (config.user or config.groups):
        return
    user = users.lookup(root, config.user or None)
    extra = users.groups(root, config.groups)
    process["user"] = {
        **(process.get("user") or {}),
        "uid": user.uid,
        "gid": user.gid,
        "additionalGids": list(dict.fromkeys([*user.groups, *extra])),
    }


def _hostname(config: ContainerConfig, spec: dict[str, Any]) -> str:
    return spec.get("hostname") or config.id[:12]


def _set_names(config: ContainerConfig, spec: dict[str, Any], own_uts: bool) -> None:
    """What the container, and who inspects its bundle, can know it by."""
    process = spec["process"]
    hostname = _hostname(config, spec)
    if own_uts and _has_namespace(spec, "uts"):
        spec["hostname"] = hostname
    else:  # the OCI runtime refuses to name what is not the container's
        spec.pop("hostname", None)
    names = {word.partition("=")[0] for word in process.get("env") or ()}
    added = {"HOSTNAME": hostname, "container": "libpod"}
    process["env"] = [
        *(process.get("env") or ()),
        *(f"{name}={value}" for name, value in added.items() if name not in names),
    ]
    annotations = spec["annotations"] = dict(spec.get("annotations") or {})
    annotations.setdefault("io.container.manager", "libpod")
    annotations.setdefault("org.opencontainers.image.stopSignal", str(config.stop_signal))
    if config.created is not None:
        annotations.setdefault("io.kubernetes.cri-o.Created", format_time(config.created))


def _has_namespace(spec: dict[str, Any], kind: str) -> bool:
    namespaces: Iterable[dict[str, Any]] = spec["linux"].get("namespaces") or ()
    return any(namespace.get("type") == kind for namespace in namespaces)
