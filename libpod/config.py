# SPDX-License-Identifier: Apache-2.0
"""The configuration of a runtime: defaults, `libpod.conf`, options.

A configuration comes about in three steps, later ones win:

1. `load` (or `from_config`) reads the file over the built-in defaults,
2. `apply_options` applies what the program asked for,
3. `resolve_defaults` gives each directory that nobody set its default.

Every setting is one row of the table `settings.FIELDS`; reading, checking,
saving, options and warnings all work from it.  Names, defaults and search order are
those of podman's `libpod/runtime.go` of summer 2018, except where a
docstring says otherwise.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Collection, Mapping, MutableMapping
from copy import deepcopy
from functools import lru_cache
from typing import Any, NamedTuple

from libpod.errors import ConfigError, InvalidArgument, RuntimeDirError, SystemCallError
from libpod.settings import (
    FIELDS,
    SHARE_PODMAN,
    Field,
    RuntimeConfig,
    Settings,
    StorageConfig,
    changed,
    own,
    unknown,
)

_log = logging.getLogger("libpod.config")

CONFIG_PATH = "/usr/share/containers/libpod.conf"
OVERRIDE_CONFIG_PATH = "/etc/containers/libpod.conf"
USER_CONFIG = ".config/containers/libpod.conf"
"""Below HOME; the only file that a rootless runtime reads."""

_COARSE_NS = 1_000_000_000

LATER_KEYS = frozenset(
    "infra_command infra_image label runtime runtimes runtime_supports_json "
    "runtime_supports_nocgroups enable_labeling enable_port_reservation events_logger "
    "network_cmd_path events_logfile_path detach_keys sdnotify".split()
)
"""Keys that later versions of podman put into the same file; nothing to warn about."""

_BY_KEY = {field.name: field for field in FIELDS if field.in_file}
_BY_OPTION = {field.option: field for field in FIELDS if field.option}


# --- step 1: the file --------------------------------------------------------


def find_config(environ: Mapping[str, str], uid: int) -> str | None:
    """The configuration file that a runtime of this user reads, or None.

    root: OVERRIDE_CONFIG_PATH, else CONFIG_PATH.  Rootless: only the file
    below HOME, never the host's.

    Raises:
        ConfigError: whether a file is there cannot be told.  (podman takes
            such a file as absent, and so drops what an administrator set.)
    """
    candidates = [OVERRIDE_CONFIG_PATH, CONFIG_PATH]
    if is_rootless(environ, uid):
        home = environ.get("HOME", "")
        candidates = [os.path.join(home, USER_CONFIG)] if home else []
    for path in candidates:
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _unreadable("checking existence of", path, error) from error
        return path
    return None


def load(
    path: str | None = None, environ: Mapping[str, str] | None = None, uid: int | None = None
) -> RuntimeConfig:
    """The built-in defaults with a file read over them (podman's NewRuntime).

    Args:
        path: the file, which must be there; None: the one that `find_config`
            finds, if any.
        environ, uid: whose configuration it is; None: this process's.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or a key has a
            value of the wrong type or without meaning; names file and key.
    """
    environ = os.environ if environ is None else environ
    uid = os.getuid() if uid is None else uid
    config = RuntimeConfig()
    if path is None:
        path = find_config(environ, uid)
        config.of_host = path in (OVERRIDE_CONFIG_PATH, CONFIG_PATH)
    if path is not None:
        _read_over(config, path)
    return config


def from_config(path: str) -> RuntimeConfig:
    """This file and nothing else (podman's NewRuntimeFromConfig).

    A key that the file does not have is zero: an empty string or list, False,
    0 (so `max_log_size` is 0, which conmon takes as no limit).  Where a zero
    could not work, the built-in default holds: `runtime_path`, `conmon_path`,
    `cgroup_manager`; `state_type` keeps its default as in podman.  Directories
    that the file does not name are unset, and so get the private defaults;
    podman would try to make a directory without a name.

    Raises:
        ConfigError: the file does not exist, or as `load`.
    """
    try:
        os.stat(path)
    except OSError as error:
        raise _unreadable("checking existence of", path, error) from error
    config = RuntimeConfig(**{field.name: field.zero() for field in FIELDS})
    _read_over(config, path)
    return config


def _read_over(config: RuntimeConfig, path: str) -> None:
    for key, value in read_toml(path).items():
        field = _BY_KEY.get(key)
        if field is None:
            if key in LATER_KEYS:
                _log.debug("configuration file %s: %s is a later podman's key", path, key)
            else:
                _log.warning("configuration file %s: %s", path, unknown("key", key, _BY_KEY))
            continue
        complaint = field.complaint(value)
        if complaint:
            raise ConfigError(f"configuration file {path}: {key}: {complaint}")
        setattr(config, field.name, value)


def read_toml(path: str) -> dict[str, Any]:
    """A configuration file; ConfigError where it cannot be read or is not TOML."""
    try:
        with open(path, "rb") as file:
            return deepcopy(_decode(file.read()))
    except OSError as error:
        raise _unreadable("reading", path, error) from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, nested without end
        raise ConfigError(f"error decoding configuration file {path}: {error}") from error


@lru_cache(maxsize=4)
def _decode(text: bytes) -> dict[str, Any]:
    """Kept: it takes a quarter of the opening of a runtime, and a service opens many."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text.decode())


def _unreadable(what: str, path: str, error: OSError) -> ConfigError:
    return ConfigError(f"error {what} configuration file {path}: {error.strerror}")


# --- step 2: the options -----------------------------------------------------


def apply_options(config: RuntimeConfig, options: Mapping[str, object]) -> None:
    """Apply a program's options (podman's RuntimeOption functions) in their order.

    `storage_config` with a graph root also sets `static_dir` to its
    subdirectory `libpod`, as in podman; an empty one leaves it.  `oci_runtime`
    is a path, or the bare name of a program in a known directory.
    `no_pivot_root` is honoured (podman took False for True).  Relative paths
    are taken from the current directory.

    Raises:
        InvalidArgument: a value has no meaning; the configuration is then of
            no use, the options before it are applied.
        TypeError: there is no such option.
    """
    for keyword, value in options.items():
        field = _BY_OPTION.get(keyword)
        if field is None:
            raise TypeError(unknown("option", keyword, _BY_OPTION))
        try:
            _apply(config, field, value)
        except InvalidArgument as error:
            raise InvalidArgument(
                f"error configuring runtime: {error.message} (option {keyword})", fault="config"
            ) from error


def _apply(config: RuntimeConfig, field: Field, value: object) -> None:
    if value is not None or field.default is not None:
        value = own(field.adopt(config, value))
    complaint = field.complaint(value)
    if complaint:
        raise InvalidArgument(complaint)
    setattr(config, field.name, value)
    if isinstance(value, StorageConfig) and value.graph_root:
        config.static_dir = os.path.join(value.graph_root, "libpod")


# --- step 3: what nobody set -------------------------------------------------


class Directories(NamedTuple):
    """Where a runtime keeps its files; absolute paths, none is made here."""

    static_dir: str
    tmp_dir: str
    run_root: str
    graph_root: str


def resolve_defaults(
    config: RuntimeConfig,
    environ: Mapping[str, str],
    uid: int,
    explicit: Collection[str] = (),
) -> Directories:
    """Give each directory that nobody set its default, in `config`; return all four.

    Without `share` they are private to this library: `libpod-core` below
    /var/lib and /run, rootless below XDG_DATA_HOME (HOME/.local/share) and
    the runtime directory; what is stored goes below whichever of them was set.
    With share="podman" they are podman's own.

    podman's packages ship a libpod.conf that names podman's own directories.
    Such a file does not make us share them by accident: without `share` they
    count as not set, and an option (one of `explicit`) that names them is refused.
    Nor does such a file's lock_type count, which podman itself has in
    containers.conf by now.

    It is the last step, so each setting that was changed but has no effect in
    this version is logged here, once a process: as a warning, or, where it comes
    from the host's own file, which podman's packages ship, as information.

    Raises:
        ConfigError: an option names podman's directories without `share`; or
            rootless, and neither XDG_DATA_HOME nor HOME is of use.
        RuntimeDirError: rootless, and no runtime directory is safe to use.
    """
    _tell_unbuilt(config, logging.INFO if config.of_host else logging.WARNING, explicit)
    if config.of_host and config.lock_type and "lock_type" not in explicit:
        _log.info("lock_type %s of the host's own file is not used", config.lock_type)
        config.lock_type = None
    storage = config.storage_config
    if not config.share:
        _leave_podmans(config, environ, uid, explicit)
    elif is_rootless(environ, uid):
        storage.graph_driver_name = storage.graph_driver_name or "vfs"
    if not (config.static_dir and storage.graph_root):
        static_dir, graph_root = _data_directories(config.share, environ, uid)
        if config.share and storage.graph_root:
            static_dir = os.path.join(storage.graph_root, "libpod")
        elif not config.share and config.static_dir:
            graph_root = os.path.join(config.static_dir, "storage")
        config.static_dir = config.static_dir or static_dir
        storage.graph_root = storage.graph_root or graph_root
    if not (config.tmp_dir and storage.run_root):
        tmp_dir, run_root = _run_directories(config.share, environ, uid)
        if not config.share and config.tmp_dir:
            run_root = os.path.join(config.tmp_dir, "storage")
        config.tmp_dir = config.tmp_dir or tmp_dir
        storage.run_root = storage.run_root or run_root
    return Directories(config.static_dir, config.tmp_dir, storage.run_root, storage.graph_root)


def _leave_podmans(
    config: RuntimeConfig, environ: Mapping[str, str], uid: int, explicit: Collection[str]
) -> None:
    for name, defaults in (("static_dir", _data_directories), ("tmp_dir", _run_directories)):
        path = getattr(config, name)
        if path is None:
            continue
        try:
            podmans = {os.path.realpath(found) for found in defaults(SHARE_PODMAN, environ, uid)}
        except (ConfigError, RuntimeDirError) as error:
            _log.debug("podman can have no directories here: %s", error)
            continue
        if os.path.realpath(path) not in podmans:
            continue
        if name in explicit or (name == "static_dir" and "storage_config" in explicit):
            raise ConfigError(
                f"{name} {path} is podman's own directory",
                remedy='choose another one, or share it with share="podman"',
            )
        _log.info("%s %s is podman's own and is not used without share", name, path)
        setattr(config, name, None)


def _data_directories(share: str | None, environ: Mapping[str, str], uid: int) -> tuple[str, str]:
    """The defaults of static_dir and graph_root."""
    data = _data_home(environ) if is_rootless(environ, uid) else "/var/lib"
    if share:
        graph_root = os.path.join(data, "containers/storage")
        return os.path.join(graph_root, "libpod"), graph_root
    own = os.path.join(data, "libpod-core")
    return own, os.path.join(own, "storage")


def _run_directories(share: str | None, environ: Mapping[str, str], uid: int) -> tuple[str, str]:
    """The defaults of tmp_dir and run_root."""
    if not is_rootless(environ, uid):
        if share:
            return "/var/run/libpod", "/var/run/containers/storage"
        return "/run/libpod-core", "/run/libpod-core/storage"
    from libpod.rundir import rootless_runtime_dir

    base = rootless_runtime_dir(environ, rootless_uid(environ, uid))
    if share:
        return os.path.join(base, "libpod/tmp"), os.path.join(base, "run")
    return os.path.join(base, "libpod-core"), os.path.join(base, "libpod-core/storage")


def _data_home(environ: Mapping[str, str]) -> str:
    data = environ.get("XDG_DATA_HOME", "")
    if data:
        if not data.startswith("/"):
            raise ConfigError(f"XDG_DATA_HOME must be an absolute path, found {data!r}")
        return data
    home = environ.get("HOME", "")
    if not home:
        raise ConfigError("neither XDG_DATA_HOME nor HOME was set non-empty")
    try:
        return os.path.join(os.path.realpath(home, strict=True), ".local/share")
    except OSError as error:
        raise ConfigError(f"cannot resolve {home}: {error.strerror}") from error


# One warning a process is enough: a service opens many runtimes.
_warned: set[str] = set()


def _tell_unbuilt(
    settings: Settings, level: int, explicit: Collection[str], prefix: str = ""
) -> None:
    for field in settings.fields:
        value = getattr(settings, field.name)
        asked = logging.WARNING if field.option in explicit else level
        if isinstance(value, Settings):
            _tell_unbuilt(value, asked, explicit, f"{field.name}.")
        elif not field.built and changed(settings, field) and value != field.zero():
            said = f"{prefix}{field.name} = {value!r}"
            if said not in _warned:
                _warned.add(said)
                _log.log(asked, "%s is kept but has no effect in this version", said)


# --- the user ----------------------------------------------------------------


def is_rootless(environ: Mapping[str, str] | None = None, uid: int | None = None) -> bool:
    """Whether this user, by default the process's, is not the host's root (as podman tells it)."""
    environ = os.environ if environ is None else environ
    uid = os.getuid() if uid is None else uid
    return uid != 0 or bool(environ.get("_LIBPOD_USERNS_CONFIGURED"))


def rootless_uid(environ: Mapping[str, str] | None = None, uid: int | None = None) -> int:
    """The user's ID outside of the user namespace that podman made for it.

    Raises:
        ConfigError: _LIBPOD_ROOTLESS_UID is not a number.
    """
    environ = os.environ if environ is None else environ
    text = environ.get("_LIBPOD_ROOTLESS_UID", "")
    if text and not (text.isascii() and text.isdigit()):
        raise ConfigError(f"_LIBPOD_ROOTLESS_UID must be a user ID, found {text!r}")
    if text:
        return int(text)
    return os.getuid() if uid is None else uid


def export_runtime_dir(environ: MutableMapping[str, str], uid: int) -> None:
    """Set XDG_RUNTIME_DIR in `environ` when rootless, else nothing.

    podman does this to its own process: the programs that it starts find
    their files (credentials among them) by this variable.

    Raises:
        RuntimeDirError: no runtime directory is safe to use.
    """
    if is_rootless(environ, uid):
        from libpod.rundir import rootless_runtime_dir

        environ["XDG_RUNTIME_DIR"] = rootless_runtime_dir(environ, rootless_uid(environ, uid))


# --- saving ------------------------------------------------------------------


def save_default_config(path: str) -> None:
    """Write the built-in defaults as TOML, as `save_config` does."""
    save_config(RuntimeConfig(), path)


def save_config(config: RuntimeConfig, path: str) -> None:
    """Write a configuration as TOML, mode 0644; `load(path)` gives the same values.

    What is in place at `path` is replaced at once or not at all, a symbolic
    link itself and not what it points to.  A field that is not in the file's
    format (`storage_config`, `state_type`, `default_mounts_file`) is left out.

    Raises:
        InvalidArgument: a value would not load again.
        SystemCallError: the file cannot be written.
    """
    text = "".join(f"{_toml_line(config, field)}\n" for field in FIELDS if field.in_file)
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"a path that is not UTF-8 has no form in TOML: {error}") from error
    try:
        _replace_file(path, data)
    except OSError as error:
        raise SystemCallError(
            f"cannot write configuration file {path}: {error.strerror}", errno=error.errno or 0
        ) from error


def _toml_line(config: RuntimeConfig, field: Field) -> str:
    value = getattr(config, field.name)
    complaint = field.complaint(value)
    if complaint:
        raise InvalidArgument(f"{field.name}: {complaint}")
    if value is None:
        return f"# {field.name} is not set"
    # Strings, integers, booleans and lists of strings are the same in JSON
    # and in TOML, but for DEL, which TOML wants escaped.
    text = json.dumps(value, ensure_ascii=False, indent=4).replace("\x7f", "\\u007f")
    return f"{field.name} = {text}"


def _replace_file(path: str, data: bytes) -> None:
    """Write a new file beside `path`, make it durable, move it over `path`."""
    directory, name = os.path.split(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    at = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        scratch = f".libpod.conf.{os.urandom(8).hex()}"
        with open(os.open(scratch, flags, 0o644, dir_fd=at), "wb") as file:
            try:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o644)  # whatever the umask
                os.fsync(file.fileno())
                os.rename(scratch, name, src_dir_fd=at, dst_dir_fd=at)
            except BaseException:
                os.unlink(scratch, dir_fd=at)
                raise
        os.fsync(at)
    finally:
        os.close(at)
