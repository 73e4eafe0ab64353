# SPDX-License-Identifier: Apache-2.0
"""The options of `Runtime.new_container`: the original's, as keywords.

A row of `OPTIONS` says which member of the recorded config an option fills and
what values it takes.  Options that name another container take a `Container`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from libpod.errors import ContainerRemoved, InvalidArgument, NotBuilt
from libpod.job import parse_cgroup_parent, parse_signal
from libpod.settings import unknown

if TYPE_CHECKING:
    from libpod.container import Container


class Option(NamedTuple):
    """One option.

    Attributes:
        member: of `records.ContainerConfig`.
        adopt: makes the member's value of the option's; raises `InvalidArgument`
            without the option's name.
    """

    member: str
    adopt: Callable[[Any], Any]


def _wrong(value: object, expected: str) -> InvalidArgument:
    return InvalidArgument(f"{value!r}: must be {expected}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(value, "a string")
    return value


def _filled(value: Any) -> str:
    if not _text(value):
        raise InvalidArgument("must not be empty")
    return str(value)


def _path(value: Any) -> str:
    return os.path.abspath(_filled(os.fspath(value) if isinstance(value, os.PathLike) else value))


def _log_path(value: Any) -> str:
    path = _path(value)
    if ":" in path:
        raise InvalidArgument(f"{path!r}: conmon cuts a log path at its first colon")
    return path


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "True or False")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise _wrong(value, "a whole number that is not negative")
    return value


def _seconds(value: Any) -> int:
    """Whole ones, which the record keeps; a part of a second counts as one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1 << 32:
        raise _wrong(value, "a number of seconds")
    return -int(-value // 1)


def _texts(value: Any) -> list[str]:
    if isinstance(value, (str, bytes)):
        raise _wrong(value, "a list of strings")
    try:
        return [_text(word) for word in value]
    except TypeError:
        raise _wrong(value, "a list of strings") from None


def _addresses(value: Any) -> list[str]:
    import ipaddress  # costs an import of this package a millisecond; few name an address

    for word in _texts(value):
        try:
            ipaddress.ip_address(word)
        except ValueError:
            raise InvalidArgument(f"invalid IP address {word}") from None
    return list(value)


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _wrong(value, "a mapping")
    return {_text(name): _text(text) for name, text in value.items()}


def _other(value: Any) -> str:
    """The ID of another container."""
    container: Container = value
    if not hasattr(value, "id") or not hasattr(value, "record"):
        raise _wrong(value, "a Container")
    if not container.record.valid:
        raise ContainerRemoved(
            f"container {container.id} has already been removed", container_id=container.id
        )
    if container.pod_id:
        raise InvalidArgument(
            f"container {container.id} is in pod {container.pod_id}, this one in none"
        )
    return container.id


def _others(value: Any) -> list[str]:
    return list(dict.fromkeys(_other(container) for container in value))


# fmt: off
OPTIONS = {
    "labels": Option("labels", _labels),
    "stdin": Option("stdin", _flag),
    "stop_signal": Option("stop_signal", parse_signal),
    "stop_timeout": Option("stop_timeout", _seconds),
    "log_path": Option("log_path", _log_path),
    "log_size_max": Option("log_size", int),
    "cgroup_parent": Option("cgroup_parent", parse_cgroup_parent),
    "shm_dir": Option("shm_dir", _path),
    "shm_size": Option("shm_size", _count),
    "shm_private": Option("no_shm_share", _flag),
    "privileged": Option("privileged", _flag),
    "user": Option("user", _text),
    "groups": Option("groups", _texts),
    "hosts": Option("hosts", _texts),
    "dns_servers": Option("dns_servers", _addresses),
    "dns_search": Option("dns_search", _texts),
    "dns_options": Option("dns_options", _texts),
    "conmon_pid_file": Option("conmon_pid_file", _path),
    "pid_file": Option("pid_file", _path),
    "namespace": Option("namespace", _text),
    "process_label": Option("process_label", _text),
    "mount_label": Option("mount_label", _text),
    "network_mode": Option("network_mode", _text),
    "user_volumes": Option("user_volumes", _texts),
    "entrypoint": Option("entrypoint", _texts),
    "command": Option("command", _texts),
    "create_command": Option("create_command", _texts),
    "dependencies": Option("dependencies", _others),
    "ipc_ns_from": Option("ipc_ns_from", _other),
    "mount_ns_from": Option("mount_ns_from", _other),
    "net_ns_from": Option("net_ns_from", _other),
    "pid_ns_from": Option("pid_ns_from", _other),
    "user_ns_from": Option("user_ns_from", _other),
    "uts_ns_from": Option("uts_ns_from", _other),
    "cgroup_ns_from": Option("cgroup_ns_from", _other),
}
# fmt: on

_LATER = {
    "image": "images are not built yet",
    "id_mappings": "user namespaces are not built yet",
    "net_ns": "networks are not built yet",
    "pod": "pods are not built yet",
    "local_volumes": "volumes are not built yet",
    "exit_command": "an exit command of one's own is not built yet; see init(detach=True)",
}


def members(options: Mapping[str, Any]) -> dict[str, Any]:
    """The members of the config that these options fill; one that is None is not given.

    Raises `InvalidArgument`, `ContainerRemoved`, `NotBuilt`, and TypeError for an
    option that there is not.
    """
    found = {}
    for name, value in options.items():
        option = OPTIONS.get(name)
        if value is None:
            if option is None and name not in _LATER:
                _no_such_option(name)
            continue
        if name in _LATER:
            raise NotBuilt(f"{name}: {_LATER[name]}")
        if option is None:
            _no_such_option(name)
        try:
            found[option.member] = option.adopt(value)
        except InvalidArgument as error:
            raise InvalidArgument(
                f"error running container create option {name}: {error.message}",
                remedy=error.remedy,
            ) from error
    return found


def _no_such_option(name: str) -> NoReturn:
    raise TypeError(unknown("option", name, OPTIONS))
