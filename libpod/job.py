# SPDX-License-Identifier: Apache-2.0
"""What a user asks for: `Spec`, `Limits` and `Mount`.

They are frozen values, checked when they are made: what is wrong with a job
is said where it is written, not where it is launched.  Words (sizes, signals,
capabilities, options of mounts) are podman's.  What becomes of them is in
`libpod.spec`.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from libpod.errors import InvalidArgument, NotBuilt
from libpod.names import NAME_PATTERN, valid_name

if TYPE_CHECKING:
    from typing_extensions import Self

# In the kernel's order: the position is the bit in a capability mask.
CAPABILITIES = tuple(
    "CAP_" + name
    for name in """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
    """.split()
)

ULIMITS = frozenset(
    """
    core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack
    """.split()
)

CPU_PERIOD = 100_000
"""Microseconds in which a container may use `cpus` times this much processor time."""

_MAX_INT = 2**63 - 1
_SIZE = re.compile(r"(\d{1,19})(\.\d{1,19})? ?([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_HOSTNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

PROPAGATION = frozenset(
    "private rprivate shared rshared slave rslave unbindable runbindable".split()
)
_FLAGS = frozenset("dev nodev exec noexec suid nosuid".split())
_BIND = frozenset(("bind", "rbind"))
_LABELS = frozenset(("z", "Z"))
_MOUNT_NOT_BUILT = frozenset(("O", "U", "idmap"))
_MOUNT_OPTIONS = PROPAGATION | _FLAGS | _BIND | _LABELS
_TMPFS_OPTIONS = _FLAGS | {"rw", "ro", "tmpcopyup", "notmpcopyup"}


# --- checking what people wrote -------------------------------------------------


def _wrong(field: str, value: object, rule: str, remedy: str | None = None) -> InvalidArgument:
    return InvalidArgument(f"{field} {value!r:.80}: {rule}", remedy=remedy)


def _text(field: str, value: object) -> str:
    """A string that a spec can carry: JSON has no other bytes, exec no NUL."""
    if not isinstance(value, str):
        raise _wrong(field, value, "must be a string")
    if "\0" in value:
        raise _wrong(field, value, "must not contain a NUL byte")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(field, value, "must be text that UTF-8 can express") from None
    return value


def texts(field: str, values: Iterable[str]) -> tuple[str, ...]:
    """A list of strings that a spec can carry."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise _wrong(field, values, "must be a list of strings", remedy=f"write {field}=[...]")
    return tuple(_text(field, value) for value in values)


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _mapping(field: str, values: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if values is None:
        return _NOTHING
    if not isinstance(values, Mapping):
        raise _wrong(field, values, "must be a mapping")
    return MappingProxyType({_text(field, key): value for key, value in values.items()})


def _text_mapping(field: str, values: Mapping[str, str] | None) -> Mapping[str, str]:
    checked = _mapping(field, values)
    for key, value in checked.items():
        _text(f"{field}[{key!r}]", value)
        if not key or (field == "env" and "=" in key):
            raise _wrong(field, key, "is not a name")
    return checked


def _flag(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(field, value, "must be True or False")
    return value


def _number(field: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_INT:
        raise _wrong(field, value, f"must be an integer of at least {least}")
    return value


def _target(field: str, path: str) -> str:
    """A path inside the container, without its detours."""
    if not _text(field, path).startswith("/"):
        raise _wrong(field, path, "must be an absolute path in the container")
    clean = "/" + os.path.normpath(path).lstrip("/")
    if clean == "/":
        raise _wrong(field, path, "must not be the root of the container")
    return clean


def parse_size(value: int | str, field: str = "size", least: int = 0) -> int:
    """Bytes from an integer or from text such as "512M" (b, k, m, g, t, p; powers of 1024)."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise _wrong(
                field, value, "is not a size", remedy='write bytes, or "64k", "512M", "2g"'
            )
        whole, fraction, unit = match.groups()
        unit_size = _UNITS[unit.lower()]
        value = int(whole) * unit_size + int(float(fraction or 0) * unit_size)
    return _number(field, value, least)


def parse_signal(value: int | str) -> int:
    """The number, 1 to 64, of a signal: 15, "15", "TERM", "SIGTERM", "RTMIN+3", "RTMAX-1"."""
    number = _signal_number(value) if isinstance(value, str) else value
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 64:
        return number
    raise _wrong(
        "signal", value, "is not a signal", remedy='give a name such as "TERM", or 1 to 64'
    )


def _signal_number(text: str) -> int | None:
    name = text.strip().upper()
    if name.isascii() and name.isdigit():
        return int(name[:4])
    match = re.fullmatch(r"(?:SIG)?([A-Z0-9]+?)(?:([+-])(\d{1,2}))?", name, re.ASCII)
    if match is None:
        return None
    word, sign, offset = match.groups()
    base = signal.Signals.__members__.get("SIG" + word)
    if base is None or (sign is not None and {"RTMIN": "+", "RTMAX": "-"}.get(word) != sign):
        return None
    return base + int((sign or "") + (offset or "0"))


def _capability_names(field: str, names: Iterable[str]) -> tuple[str, ...]:
    """Capabilities as the kernel spells them, each once; "ALL" stays."""
    result = dict.fromkeys(name.upper() for name in texts(field, names))
    full = tuple(name if name == "ALL" or name[:4] == "CAP_" else "CAP_" + name for name in result)
    for name in full:
        if name != "ALL" and name not in CAPABILITIES:
            raise InvalidArgument(f'{field}: "{name}": unknown capability')
    return tuple(dict.fromkeys(full))


def _ulimit(name: str, value: object) -> tuple[int, int]:
    """(soft, hard) of one entry of `ulimits`; -1 is unlimited."""
    field = f"ulimits[{name!r}]"
    if name not in ULIMITS:
        raise _wrong("ulimits", name, "invalid ulimit type", f"one of {', '.join(sorted(ULIMITS))}")
    parts: Sequence[object]
    if isinstance(value, str):
        numbers = value.split(":")
        if not all(re.fullmatch(r"-1|\d{1,19}", number, re.ASCII) for number in numbers):
            raise _wrong(field, value, 'must be "SOFT:HARD" or a number')
        parts = [int(number) for number in numbers]
    else:
        parts = value if isinstance(value, (tuple, list)) else [value]
    if not 1 <= len(parts) <= 2:
        raise _wrong(field, value, "must be a soft and a hard limit")
    soft, hard = (_number(field, part, -1) for part in (parts[0], parts[-1]))
    if hard != -1 and (soft == -1 or soft > hard):
        raise _wrong(field, value, "the soft limit is above the hard one")
    return soft, hard


def tmpfs_options(path: str, value: int | str) -> list[str]:
    """Mount options from what `tmpfs` maps `path` to, with podman's defaults."""
    field = f"tmpfs[{path!r}]"
    # The kernel takes a size of 0 for no limit, which nobody means.
    if isinstance(value, int) or _SIZE.fullmatch(_text(field, value)):
        value = f"size={parse_size(value, field, 1)}"
    options = []
    for option in filter(None, value.split(",")):
        key, _, setting = option.partition("=")
        if key == "size" and not re.fullmatch(r"[1-9]\d{0,2}%", setting, re.ASCII):
            option = f"size={parse_size(setting, field, 1)}"
        elif key == "mode" and not re.fullmatch(r"[0-7]{1,4}", setting, re.ASCII):
            raise _wrong(field, value, f"{setting!r} is not an octal mode")
        elif key not in ("size", "mode") and option not in _TMPFS_OPTIONS:
            raise _wrong(field, value, f"unknown mount option {option!r}")
        options.append(option)
    _one_of_each(field, value, options)
    defaults = {"rw": "ro", "nosuid": "suid", "nodev": "dev", "tmpcopyup": "notmpcopyup"}
    options += [on for on, off in defaults.items() if on not in options and off not in options]
    return ["rprivate", *(option for option in options if option != "notmpcopyup")]


def _one_of_each(field: str, value: object, options: Iterable[str]) -> None:
    """Refuse options that contradict each other."""
    chosen: dict[str, str] = {}
    for option in options:
        kind = _OPTION_KIND.get(option)
        if kind is not None and chosen.setdefault(kind, option) != option:
            raise _wrong(field, value, f"{chosen[kind]!r} and {option!r} contradict each other")


_OPTION_KIND = {
    **dict.fromkeys(PROPAGATION, "propagation"),
    **dict.fromkeys(_BIND, "bind"),
    **dict.fromkeys(_LABELS, "label"),
    **{word: word.removeprefix("no") for word in _FLAGS},
    **dict.fromkeys(("rw", "ro"), "access"),
    **dict.fromkeys(("tmpcopyup", "notmpcopyup"), "copy"),
}


# --- the values that people write -----------------------------------------------


class _Frozen:
    """An immutable value: equal by its fields, hashable, picklable, short in print.

    The fields are `__slots__`; each is a parameter of `__init__`, which checks
    it and accepts what is stored as well as what people write.
    """

    __slots__: tuple[str, ...] = ()
    _defaults: ClassVar[Mapping[str, Any]]

    def __init_subclass__(cls) -> None:
        init: Any = cls.__init__
        positional = init.__code__.co_varnames[: init.__code__.co_argcount]
        values = init.__defaults__ or ()
        given = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
        cls._defaults = {**given, **(init.__kwdefaults__ or {})}

    def _fill(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: derive one with but({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def _items(self) -> Iterator[tuple[str, Any]]:
        """The fields that were set, with their values."""
        for name in self.__slots__:
            value, default = getattr(self, name), self._defaults.get(name)
            if isinstance(value, MappingProxyType):
                value = dict(value) or None
            if value != default:
                yield name, value

    def but(self, **changes: Any) -> Self:
        """The same with some fields changed; checked as a new one is."""
        return type(self)(**{**dict(self._items()), **changes})

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._items())
        return f"{type(self).__name__}({fields})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        values = (getattr(self, name) for name in self.__slots__)
        return hash(
            (type(self), *(frozenset(v.items()) if isinstance(v, Mapping) else v for v in values))
        )

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return _rebuild, (type(self), dict(self._items()))


def _rebuild(cls: type[_Frozen], fields: dict[str, Any]) -> _Frozen:
    return cls(**fields)


class Limits(_Frozen):
    """Bounds on what a container may use; None is "no bound of ours".

    Attributes:
        memory: bytes, or text such as "512M" (powers of 1024).
        swap: bytes beyond memory; None is 0, since memory and swap are always
            limited together.  Needs `memory`.
        cpus: processors, from 0.01; 1.5 is one and a half.
        pids: processes and threads.  None is podman's default of 2048 where the
            host can enforce it; 0 or -1 is none at all.
        output: bytes of stdout and stderr together that a `Result` keeps.
    """

    __slots__ = ("memory", "swap", "cpus", "pids", "output")  # noqa: RUF023 - as people read them

    memory: int | None
    swap: int | None
    cpus: float | None
    pids: int | None
    output: int | None

    def __init__(
        self,
        *,
        memory: int | str | None = None,
        swap: int | str | None = None,
        cpus: float | None = None,
        pids: int | None = None,
        output: int | str | None = None,
    ) -> None:
        if memory is not None:
            memory = parse_size(memory, "memory", 1)
        if swap is not None:
            swap = parse_size(swap, "swap")
            if memory is None:
                raise _wrong("swap", swap, "is what may be used beyond memory", "set memory too")
            _number("memory plus swap", memory + swap, 1)
        if cpus is not None and (
            isinstance(cpus, bool)
            or not isinstance(cpus, (int, float))
            or not 0.01 <= cpus <= _MAX_INT / CPU_PERIOD
        ):
            raise _wrong("cpus", cpus, "must be a number of processors, at least 0.01")
        self._fill(
            memory=memory,
            swap=swap,
            cpus=cpus,
            pids=None if pids is None else _number("pids", pids, -1),
            output=None if output is None else parse_size(output, "output"),
        )


class Mount(_Frozen):
    """A file or directory of the host at a place in the container (a bind mount).

    Attributes:
        source: path on the host; a relative one starts with "." and counts
            from the working directory at launch.
        target: absolute path in the container.
        read_only: whether writing is refused.
        options: podman's other options: a propagation (rprivate by default),
            bind instead of rbind, nodev, noexec, nosuid, z, Z.
    """

    __slots__ = ("source", "target", "read_only", "options")  # noqa: RUF023

    source: str
    target: str
    read_only: bool
    options: tuple[str, ...]

    def __init__(
        self, source: str, target: str, read_only: bool = False, options: Iterable[str] = ()
    ) -> None:
        if not _text("source", source):
            raise _wrong("source", source, "is empty")
        if source[0] not in "/.":
            raise NotBuilt(
                f"named volumes are not built yet: {source!r}",
                remedy=f"mount a directory: './{source}', or an absolute path",
            )
        checked = texts("options", options)
        for option in checked:
            if option in _MOUNT_NOT_BUILT or option.startswith("idmap="):
                raise NotBuilt(f"the mount option {option!r} is not built yet")
            if option in ("ro", "rw"):
                raise _wrong("options", option, "is what read_only says", "set read_only")
            if option not in _MOUNT_OPTIONS:
                raise _wrong("options", option, f"invalid option type {option!r}")
        _one_of_each("options", checked, checked)
        self._fill(
            source=source,
            target=_target("target", target),
            read_only=_flag("read_only", read_only),
            options=tuple(dict.fromkeys(checked)),
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the form of `-v`: SOURCE:TARGET[:OPTION,...]."""
        parts = _text("volume", text).split(":")
        if len(parts) == 1:
            raise NotBuilt(f"anonymous volumes are not built yet: {text!r}")
        if len(parts) > 3 or not parts[0] or not parts[1]:
            raise _wrong("volume", text, "must be SOURCE:TARGET[:OPTION,...]")
        options = list(filter(None, parts[2].split(","))) if len(parts) == 3 else []
        _one_of_each("volume", text, options)
        others = [option for option in options if option not in ("ro", "rw")]
        return cls(parts[0], parts[1], read_only="ro" in options, options=others)


def parse_cgroup_parent(path: str) -> str:
    """A cgroup path for the cgroupfs manager, with the original's refusals."""
    if not _text("cgroup_parent", path).startswith("/") or ".." in path.split("/"):
        raise _wrong("cgroup_parent", path, "must be an absolute path")
    if path.endswith(".slice"):
        raise InvalidArgument("systemd slice received as cgroup parent when using cgroupfs")
    return os.path.normpath(path)


class Spec(_Frozen):
    """A container to be: what runs, in which root file system, with which rights.

    Attributes:
        image, rootfs: where the files come from: an image or a directory.
        command: what runs, after `entrypoint` if there is one.
        name: of the container; drawn at random where None.
        env: variables, beside PATH, HOME, HOSTNAME, container and, with a
            terminal, TERM.
        workdir: absolute path in the container; "/" where None.
        user: "name", "uid", "name:group", "uid:gid"; root where None.
        hostname: the first 12 characters of the ID where None, the host's name
            with `network="host"`.
        read_only: the root file system cannot be written.  Unlike podman's
            option it adds no tmpfs: what may be written is said with `tmpfs`.
        tmpfs: path -> size ("64M") or options ("rw,size=64m,mode=1777").
        mounts: see `Mount`.
        network: "none" or "host".
        cap_add, cap_drop: capabilities, with or without CAP_, or "all".
        privileged: all of the caller's capabilities and devices, no seccomp
            profile, nothing masked.
        limits: see `Limits`.
        ulimits: name ("nofile") -> limit, "soft:hard" or (soft, hard).
        labels: kept with the container.
        cgroup_parent: absolute cgroup path below which the container's and its
            monitor's cgroups are made; the runtime's own where None.
        stop_signal: what `stop` sends first; TERM where None.
        terminal: stdin, stdout and stderr are a terminal.
        stdin: standard input stays open.
        key: the caller's own mark, any hashable; comes back in the `Result`.

    Raises `InvalidArgument`, naming the field, and `NotBuilt`.
    """

    __slots__ = (
        *("image", "rootfs", "command", "entrypoint", "name", "env", "workdir", "user"),
        *("hostname", "read_only", "tmpfs", "mounts", "network", "cap_add", "cap_drop"),
        *("privileged", "limits", "ulimits", "labels", "cgroup_parent", "stop_signal"),
        *("terminal", "stdin", "key"),
    )

    image: str | None
    rootfs: str | None
    command: tuple[str, ...] | None
    entrypoint: tuple[str, ...] | None
    name: str | None
    env: Mapping[str, str]
    workdir: str | None
    user: str | None
    hostname: str | None
    read_only: bool
    tmpfs: Mapping[str, int | str]
    mounts: tuple[Mount, ...]
    network: str
    cap_add: tuple[str, ...]
    cap_drop: tuple[str, ...]
    privileged: bool
    limits: Limits
    ulimits: Mapping[str, tuple[int, int]]
    labels: Mapping[str, str]
    cgroup_parent: str | None
    stop_signal: int | None
    terminal: bool
    stdin: bool
    key: Hashable

    def __init__(
        self,
        image: str | None = None,
        *,
        rootfs: str | os.PathLike[str] | None = None,
        command: Iterable[str] | None = None,
        entrypoint: Iterable[str] | None = None,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | int | None = None,
        hostname: str | None = None,
        read_only: bool = False,
        tmpfs: Mapping[str, int | str] | None = None,
        mounts: Iterable[Mount] = (),
        network: str = "none",
        cap_add: Iterable[str] = (),
        cap_drop: Iterable[str] = (),
        privileged: bool = False,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        ulimits: Mapping[str, str | int | Sequence[int]] | None = None,
        labels: Mapping[str, str] | None = None,
        cgroup_parent: str | None = None,
        stop_signal: str | int | None = None,
        terminal: bool = False,
        stdin: bool = False,
        key: Hashable = None,
    ) -> None:
        self._fill(
            image=_optional("image", image),
            rootfs=_optional("rootfs", _path(rootfs)),
            command=None if command is None else texts("command", command),
            entrypoint=None if entrypoint is None else texts("entrypoint", entrypoint),
            name=_optional("name", name),
            env=_text_mapping("env", env),
            workdir=_optional("workdir", workdir),
            user=_user(user),
            hostname=_optional("hostname", hostname),
            read_only=_flag("read_only", read_only),
            tmpfs=_tmpfs(tmpfs),
            mounts=_mounts(mounts),
            network=_network(network),
            cap_add=_capability_names("cap_add", cap_add),
            cap_drop=_capability_names("cap_drop", cap_drop),
            privileged=_flag("privileged", privileged),
            limits=limits,
            ulimits=MappingProxyType(
                {name: _ulimit(name, value) for name, value in _mapping("ulimits", ulimits).items()}
            ),
            labels=_text_mapping("labels", labels),
            cgroup_parent=None if cgroup_parent is None else parse_cgroup_parent(cgroup_parent),
            stop_signal=None if stop_signal is None else parse_signal(stop_signal),
            terminal=_flag("terminal", terminal),
            stdin=_flag("stdin", stdin),
            key=key,
        )
        self._check()

    def _check(self) -> None:
        """What fields must be in themselves and towards each other."""
        if (self.image is None) == (self.rootfs is None):
            which = "neither" if self.image is None else "both"
            raise InvalidArgument(f"{which} of image and rootfs given", remedy="give one of them")
        if self.name is not None and not valid_name(self.name):
            raise _wrong("name", self.name, f"must match {NAME_PATTERN}")
        if self.workdir is not None and not self.workdir.startswith("/"):
            raise _wrong("workdir", self.workdir, "must be an absolute path in the container")
        if self.hostname is not None and not _HOSTNAME.fullmatch(self.hostname):
            raise _wrong(
                "hostname", self.hostname, "must be 1 to 64 letters, digits, '-', '.', '_'"
            )
        if not isinstance(self.limits, Limits):
            raise _wrong("limits", self.limits, "must be a Limits")
        try:
            hash(self.key)
        except TypeError:
            raise _wrong("key", self.key, "must be hashable") from None
        self._check_capabilities()
        taken = set(self.tmpfs)
        for mount in self.mounts:
            if mount.target in taken:
                raise _duplicate(mount.target)
            taken.add(mount.target)

    def _check_capabilities(self) -> None:
        for name in self.cap_add:
            if name not in self.cap_drop:
                continue
            if name == "ALL":
                raise InvalidArgument("adding all caps and removing all caps not allowed")
            raise InvalidArgument(f'capability "{name}" cannot be dropped and added')


def _optional(field: str, value: object) -> str | None:
    if value is None:
        return None
    if not _text(field, value):
        raise _wrong(field, value, "is empty")
    return str(value)


def _path(value: str | os.PathLike[str] | None) -> str | None:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _user(value: str | int | None) -> str | None:
    is_id = isinstance(value, int) and not isinstance(value, bool)
    return _optional("user", str(value) if is_id else value)


def _tmpfs(values: Mapping[str, int | str] | None) -> Mapping[str, int | str]:
    checked: dict[str, int | str] = {}
    for path, value in _mapping("tmpfs", values).items():
        target = _target("tmpfs", path)
        tmpfs_options(target, value)
        if target in checked:
            raise _duplicate(target)
        checked[target] = value
    return MappingProxyType(checked)


def _duplicate(target: str) -> InvalidArgument:
    return InvalidArgument(f"{target}: duplicate mount destination")


def _mounts(values: Iterable[Mount]) -> tuple[Mount, ...]:
    mounts = tuple(values)
    for mount in mounts:
        if not isinstance(mount, Mount):
            raise _wrong("mounts", mount, "is not a Mount", remedy="use Mount.parse(text)")
    return mounts


def _network(value: str) -> str:
    if _text("network", value) not in ("none", "host"):
        raise NotBuilt(f"the network {value!r} is not built yet", remedy='use "none" or "host"')
    return value
