# SPDX-License-Identifier: Apache-2.0
"""What can be configured: one table of settings, and the objects made of it.

A row of `FIELDS` says all about a setting: its type and default, whether the
file may have it, what values it takes, which option sets it, and whether it
has an effect yet.  `config` reads, applies, resolves and saves by it.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from libpod.errors import InvalidArgument

if TYPE_CHECKING:
    from typing_extensions import Self

CGROUPFS = "cgroupfs"
SYSTEMD = "systemd"
SHARE_PODMAN = "podman"
LOCK_TYPES = ("flock", "shm", "file")
NUM_LOCKS = 2048

RUNTIME_PATH = (
    "/usr/bin/crun",
    "/usr/sbin/crun",
    "/usr/local/bin/crun",
    "/usr/local/sbin/crun",
    "/usr/bin/runc",
    "/usr/sbin/runc",
    "/sbin/runc",
    "/bin/runc",
    "/usr/lib/cri-o-runc/sbin/runc",
    "/usr/local/bin/runc",
    "/usr/local/sbin/runc",
)
CONMON_PATH = (
    "/usr/libexec/podman/conmon",
    "/usr/libexec/crio/conmon",
    "/usr/local/libexec/crio/conmon",
    "/usr/bin/conmon",
    "/usr/sbin/conmon",
    "/usr/lib/crio/bin/conmon",
    "/usr/lib/podman/bin/conmon",
    "/usr/local/bin/conmon",
)

CONMON_ENV = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
CNI_PLUGIN_DIR = ("/usr/libexec/cni", "/usr/lib/cni", "/opt/cni/bin")

_INT64 = 1 << 63


class StateType(enum.IntEnum):
    """Where containers and pods are recorded; the numbers are podman's."""

    INVALID = 0
    IN_MEMORY = 1
    SQLITE = 2
    BOLTDB = 3


class IDMap(NamedTuple):
    """One range of a user namespace's map, as in containers/storage."""

    container_id: int
    host_id: int
    size: int


# --- checks: why a value cannot be taken, in words, or None ------------------

_WORDS = {
    str: "a string",
    int: "an integer",
    bool: "a boolean",
    float: "a float",
    list: "a list",
    dict: "a table",
    type(None): "nothing",
}


def _kind_of(value: object) -> str:
    return _WORDS.get(type(value), type(value).__name__)


def _anything(_value: object) -> str | None:
    return None


def _strings(values: Sequence[object]) -> str | None:
    for value in values:
        if not isinstance(value, str):
            return f"expected a list of strings, found {_kind_of(value)} in it"
        if "\0" in value:
            return "contains a NUL character"
    return None


def _absolute(path: str) -> str | None:
    return None if path.startswith("/") else f"must be an absolute path, found {path!r}"


def _absolute_or_empty(path: str) -> str | None:
    return _absolute(path) if path else None


def _absolute_paths(paths: Sequence[str]) -> str | None:
    return _strings(paths) or next(filter(None, map(_absolute, paths)), None)


def _search_list(paths: Sequence[str]) -> str | None:
    return _absolute_paths(paths) if paths else "must provide a valid path"


def _environment(values: Sequence[str]) -> str | None:
    wrong = (f"must be NAME=VALUE, found {value!r}" for value in values if value.find("=") < 1)
    return _strings(values) or next(wrong, None)


def _cgroup_manager(value: str) -> str | None:
    if value in (CGROUPFS, SYSTEMD):
        return None
    return "CGroup manager must be one of cgroupfs and systemd"


def _share(value: str) -> str | None:
    return None if value == SHARE_PODMAN else f"must be {SHARE_PODMAN!r} or absent, found {value!r}"


def _lock_type(value: str) -> str | None:
    known = LOCK_TYPES
    return None if value in known else f"must be one of {', '.join(known)}, found {value!r}"


def _num_locks(value: int) -> str | None:
    return None if 0 < value < 1 << 32 else f"must be from 1 to 2**32 - 1, found {value}"


def _int64(value: int) -> str | None:
    return None if -_INT64 <= value < _INT64 else "does not fit into 64 bits"


def _valid_state(value: StateType) -> str | None:
    return "must provide a valid state store type" if value is StateType.INVALID else None


def _id_maps(values: Sequence[object]) -> str | None:
    for value in values:
        if not isinstance(value, IDMap):
            return f"expected a list of IDMap, found {_kind_of(value)} in it"
        if min(value) < 0 or value.size == 0:
            return f"not a range of IDs: {value}"
    return None


def _valid_storage(value: StorageConfig) -> str | None:
    for field in STORAGE_FIELDS:
        complaint = field.complaint(getattr(value, field.name))
        if complaint:
            return f"{field.name}: {complaint}"
    return None


# --- adopters: from what an option is given to what its field keeps ----------


def _as_given(_config: RuntimeConfig, value: Any) -> Any:
    return value


def _path_text(value: Any) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise InvalidArgument(f"expected a path, found {_kind_of(text)}")
    if not text:
        raise InvalidArgument("must provide a valid path")
    return text


def _path(_config: RuntimeConfig, value: Any) -> str:
    """Absolute at once: the process may change its current directory later."""
    text = _path_text(value)
    if text.startswith("/"):
        return text
    try:
        return os.path.join(os.getcwd(), text)
    except OSError as error:
        raise InvalidArgument(
            f"{text!r} is relative to the current directory, which is gone"
        ) from error


def _path_or_empty(config: RuntimeConfig, value: Any) -> str:
    return "" if value == "" else _path(config, value)


def _hooks_dir(config: RuntimeConfig, value: Any) -> str:
    if value == "":
        raise InvalidArgument("empty-string hook directories are not supported")
    return _path(config, value)


def _one_path(config: RuntimeConfig, value: Any) -> list[str]:
    return [_path(config, value)]


def _runtime_paths(config: RuntimeConfig, value: Any) -> list[str]:
    """A path stands for itself; a bare name for every place where it may be.

    The places are the configured paths that end in this name, then each
    directory of the built-in list.
    """
    name = _path_text(value)
    if "/" in name:
        return [_path(config, name)]
    configured = [path for path in config.runtime_path if os.path.basename(path) == name]
    known = [os.path.join(os.path.dirname(path), name) for path in RUNTIME_PATH]
    return list(dict.fromkeys(configured + known))


def _state_type(_config: RuntimeConfig, value: Any) -> StateType:
    try:
        return StateType(value)
    except ValueError:
        raise InvalidArgument("unrecognized state type passed") from None


def _storage(config: RuntimeConfig, value: Any) -> Any:
    if not isinstance(value, StorageConfig):
        return value  # refused by its field
    storage = value.copy()
    storage.run_root = _path(config, value.run_root) if value.run_root else None
    storage.graph_root = _path(config, value.graph_root) if value.graph_root else None
    return storage


# --- the table ---------------------------------------------------------------


def own(value: Any) -> Any:
    """A copy that shares nothing that can change."""
    if isinstance(value, Settings):
        return value.copy()
    return list(value) if isinstance(value, (list, tuple)) else value


class Field(NamedTuple):
    """All that is known about one setting.

    Attributes:
        name: the attribute of its configuration, and its key in the file.
        kind: the type of its value.
        default: the built-in value; None where "nobody set it" must be known,
            and then None is a legal value; a tuple where `kind` is list.
        in_file: whether `libpod.conf` may have it.
        check: why a value of this kind cannot be taken, or None.
        option: its keyword as an option, or None.
        adopt: makes the field's value of the option's.
        built: whether it has an effect in this version.
        required: whether the zero value of its kind cannot work.
    """

    name: str
    kind: type[Any]
    default: Any
    in_file: bool = True
    check: Callable[[Any], str | None] = _anything
    option: str | None = None
    adopt: Callable[[RuntimeConfig, Any], Any] = _as_given
    built: bool = True
    required: bool = False

    def zero(self) -> Any:
        """The value of a configuration that starts empty, see `from_config`."""
        if self.required or self.default is None:
            return own(self.default)
        return self.kind()

    def complaint(self, value: object) -> str | None:
        """Why this value cannot be taken, in words, or None."""
        if value is None and self.default is None:
            return None
        # A bool is an int to isinstance().
        if not isinstance(value, self.kind) or (isinstance(value, bool) and self.kind is not bool):
            expected = _WORDS.get(self.kind, self.kind.__name__)
            return f"expected {expected}, found {_kind_of(value)}"
        if isinstance(value, str) and "\0" in value:
            return "contains a NUL character"
        return self.check(value)


STORAGE_FIELDS = (
    Field("run_root", str, None, check=_absolute),
    Field("graph_root", str, None, check=_absolute),
    Field("graph_driver_name", str, ""),
    Field("graph_driver_options", list, (), check=_strings, built=False),
    Field("uid_map", list, (), check=_id_maps, built=False),
    Field("gid_map", list, (), check=_id_maps, built=False),
)


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"unknown {what} {word!r}" + (f"; did you mean {near[0]!r}?" if near else "")


class Settings:
    """Attributes with defaults, made from rows of fields."""

    __slots__ = ()
    fields: ClassVar[tuple[Field, ...]] = ()

    def __init__(self, **values: Any) -> None:
        for field in self.fields:
            setattr(self, field.name, own(values.pop(field.name, field.default)))
        if values:
            known = [field.name for field in self.fields]
            raise TypeError(unknown("attribute", next(iter(values)), known))

    def copy(self) -> Self:
        """An equal one that shares nothing with this one."""
        return type(self)(**{field.name: getattr(self, field.name) for field in self.fields})

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, f.name) == getattr(other, f.name) for f in self.fields)

    def __repr__(self) -> str:
        """What differs from the defaults."""
        differing = (f"{f.name}={getattr(self, f.name)!r}" for f in self.fields if changed(self, f))
        return f"{type(self).__name__}({', '.join(differing)})"


def changed(settings: Settings, field: Field) -> bool:
    return bool(getattr(settings, field.name) != own(field.default))


class StorageConfig(Settings):
    """Where layers and images are kept (containers/storage's StoreOptions).

    Attributes:
        run_root: directory of what a reboot clears; None: nobody set it.
        graph_root: directory of what stays; None: nobody set it.
        graph_driver_name: "overlay", "vfs"; empty: chosen by the store.
        graph_driver_options: "driver.option=value" each.
        uid_map, gid_map: the user namespace's maps.
    """

    fields = STORAGE_FIELDS
    __slots__ = tuple(field.name for field in STORAGE_FIELDS)

    run_root: str | None
    graph_root: str | None
    graph_driver_name: str
    graph_driver_options: list[str]
    uid_map: list[IDMap]
    gid_map: list[IDMap]


# fmt: off
FIELDS = (
    Field("storage_config", StorageConfig, StorageConfig(), in_file=False,
          check=_valid_storage, option="storage_config", adopt=_storage),
    Field("image_default_transport", str, "docker://", option="default_transport", built=False),
    Field("signature_policy_path", str, "", built=False,
          check=_absolute_or_empty, option="signature_policy", adopt=_path_or_empty),
    Field("state_type", StateType, StateType.BOLTDB, in_file=False, required=True,
          check=_valid_state, option="state_type", adopt=_state_type),
    Field("runtime_path", list, RUNTIME_PATH, required=True,
          check=_search_list, option="oci_runtime", adopt=_runtime_paths),
    Field("conmon_path", list, CONMON_PATH, required=True,
          check=_search_list, option="conmon_path", adopt=_one_path),
    Field("conmon_env_vars", list, CONMON_ENV, check=_environment, option="conmon_env"),
    Field("cgroup_manager", str, CGROUPFS, required=True,
          check=_cgroup_manager, option="cgroup_manager"),
    Field("static_dir", str, None, check=_absolute, option="static_dir", adopt=_path),
    Field("tmp_dir", str, None, check=_absolute, option="tmp_dir", adopt=_path),
    Field("max_log_size", int, -1, check=_int64, option="max_log_size"),
    Field("no_pivot_root", bool, False, option="no_pivot_root"),
    Field("cni_config_dir", str, "/etc/cni/net.d/", built=False,
          check=_absolute_or_empty, option="cni_config_dir", adopt=_path_or_empty),
    Field("cni_plugin_dir", list, CNI_PLUGIN_DIR, built=False,
          check=_absolute_paths, option="cni_plugin_dir", adopt=_one_path),
    Field("cni_default_network", str, "", built=False),
    Field("hooks_dir", str, "/usr/share/containers/oci/hooks.d", built=False,
          check=_absolute_or_empty, option="hooks_dir", adopt=_hooks_dir),
    Field("hooks_dir_not_exist_fatal", bool, False, option="hooks_dir_not_exist_fatal",
          built=False),
    Field("default_mounts_file", str, "", in_file=False, built=False,
          check=_absolute_or_empty, option="default_mounts_file", adopt=_path),
    Field("namespace", str, "", option="namespace"),
    Field("share", str, None, check=_share, option="share"),
    Field("lock_type", str, None, check=_lock_type, option="lock_type"),
    Field("num_locks", int, NUM_LOCKS, required=True, check=_num_locks),
)
# fmt: on


class RuntimeConfig(Settings):
    """The settings of a runtime; a new one holds the built-in defaults.

    Attributes:
        storage_config: where layers and images are kept; not in the file.
        image_default_transport: put before an image name that has none.
        signature_policy_path: the policy that images are checked by; empty:
            the one of containers/image.
        state_type: where containers are recorded; not in the file.
        runtime_path: OCI runtimes, absolute paths; the first that works is used.
        conmon_path: the same for conmon.
        conmon_env_vars: conmon's whole environment, NAME=VALUE each.
        cgroup_manager: "cgroupfs" or "systemd".
        static_dir: directory of what stays; None: nobody set it.
        tmp_dir: directory of what a reboot clears, on a tmpfs; None: nobody
            set it.
        max_log_size: bytes of a container's log file; 0 or less: no limit.
        no_pivot_root: have the OCI runtime enter the root file system by
            MS_MOVE and chroot (for a root on a ramdisk).
        cni_config_dir, cni_plugin_dir, cni_default_network: CNI networks.
        hooks_dir: directory of OCI hooks; empty: none.
        hooks_dir_not_exist_fatal: whether a missing hooks_dir is an error.
        default_mounts_file: mounts for every container; not in the file.
        namespace: only containers of this namespace are seen; empty: all are.
        share: "podman" for podman's own directories, or None for ours.
        lock_type: "flock", "shm" or "file", see `libpod.locks`; None: nobody set
            it, which is "flock", or what podman uses where it shares with us.
        num_locks: how many locks "shm" is made with; podman's own number counts
            where it shares with us.
        of_host: no setting, but whether the host's own file was read into it.
    """

    fields = FIELDS
    __slots__ = (*(field.name for field in FIELDS), "of_host")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.of_host = False

    storage_config: StorageConfig
    image_default_transport: str
    signature_policy_path: str
    state_type: StateType
    runtime_path: list[str]
    conmon_path: list[str]
    conmon_env_vars: list[str]
    cgroup_manager: str
    static_dir: str | None
    tmp_dir: str | None
    max_log_size: int
    no_pivot_root: bool
    cni_config_dir: str
    cni_plugin_dir: list[str]
    cni_default_network: str
    hooks_dir: str
    hooks_dir_not_exist_fatal: bool
    default_mounts_file: str
    namespace: str
    share: str | None
    lock_type: str | None
    num_locks: int
