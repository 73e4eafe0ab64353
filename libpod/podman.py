# SPDX-License-Identifier: Apache-2.0
"""The podman of this host: its settings, its version, and whether state can be shared.

Sharing means one `bolt_state.db` for podman and for us.  podman has one up to
4.7; from 4.8 on it makes SQLite databases and keeps a BoltDB that is there, from
5.8 on it moves such a one to SQLite at the next boot, and from 6 on it cannot
open it at all.  So state is shared only where podman is sure to use the same
database tomorrow; elsewhere `check_sharing()` says why not.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from libpod.config import is_rootless, read_toml
from libpod.errors import ConfigError, LibpodError, SharingRefused
from libpod.settings import NUM_LOCKS

log = logging.getLogger("libpod.podman")

SYSTEM_CONF = "/usr/share/containers/containers.conf"
ADMIN_CONF = "/etc/containers/containers.conf"

VARIABLES = ("CONTAINERS_CONF", "HOME", "XDG_CONFIG_HOME")
"""Of the environment: what leads to its settings."""

BOLT = "bolt_state.db"
SQLITE = "db.sql"

_SQLITE_BY_DEFAULT = (4, 8)
_MIGRATES = (5, 8)
_WITHOUT_BOLT = (6,)
_VERSION_TIMEOUT = 30.0
"""Seconds for `podman --version`, which does no work."""

_PRIVATE = "leave share out: private directories need no podman"


class EngineConf(NamedTuple):
    """What the [engine] tables of containers.conf say; None where they do not."""

    lock_type: str | None = None
    num_locks: int | None = None
    cgroup_manager: str | None = None
    runtime: str | None = None
    static_dir: str | None = None
    tmp_dir: str | None = None
    volume_path: str | None = None
    database_backend: str | None = None


_KINDS: dict[str, type] = dict.fromkeys(EngineConf._fields, str) | {"num_locks": int}


class Version(NamedTuple):
    """A version of podman; a release candidate counts as its release."""

    major: int
    minor: int
    patch: int
    text: str


class Sharing(NamedTuple):
    """How state is shared with podman."""

    lock_type: str
    """"shm" or "file": how podman locks."""
    num_locks: int
    """How many locks "shm" has, or is made with."""
    why: str
    """What makes it possible, in words."""
    engine: EngineConf


class RunTool(Protocol):
    """`Host.run_tool`, or the like."""

    def __call__(
        self, argv: Sequence[str], env: Mapping[str, str], *, timeout: float
    ) -> tuple[int, str, str]: ...


# --- containers.conf -------------------------------------------------------------------


def conf_files(environ: Mapping[str, str], uid: int) -> list[str]:
    """The files that podman reads, in its order: a later one wins.

    CONTAINERS_CONF replaces them all.  Source: podman 4.3.1, containers.conf(5).
    """
    only = environ.get("CONTAINERS_CONF", "")
    if only:
        return [only]
    files = [SYSTEM_CONF, ADMIN_CONF, *_drop_ins(f"{ADMIN_CONF}.d")]
    if is_rootless(environ, uid):
        base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", ""), ".config")
        mine = os.path.join(base, "containers/containers.conf")
        files += [mine, *_drop_ins(f"{mine}.d")]
    return [path for path in files if os.path.exists(path)]


def _drop_ins(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ConfigError(f"cannot read {directory}: {error.strerror}") from error
    return [os.path.join(directory, name) for name in names if name.endswith(".conf")]


def engine_conf(environ: Mapping[str, str], uid: int) -> EngineConf:
    """The settings of podman that we need.

    Raises:
        ConfigError: a file cannot be read, or a key has a value of another type.
    """
    found: dict[str, Any] = {}
    for path in conf_files(environ, uid):
        for key, value in _engine_table(path):
            if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
                raise ConfigError(
                    f"configuration file {path}: engine.{key}: "
                    f"expected {'an integer' if _KINDS[key] is int else 'a string'}"
                )
            if value:  # an empty one counts as not set
                found[key] = value
    return EngineConf(**found)


def _engine_table(path: str) -> Iterator[tuple[str, Any]]:
    table = read_toml(path).get("engine", {})
    if not isinstance(table, dict):
        raise ConfigError(f"configuration file {path}: engine: expected a table")
    return ((key, value) for key, value in table.items() if key in _KINDS)


# --- the program -----------------------------------------------------------------------


def find(environ: Mapping[str, str]) -> str | None:
    """The podman of this host, or None."""
    places = environ.get("PATH", "").split(":") + ["/usr/local/bin", "/usr/bin"]
    for directory in filter(None, places):
        path = os.path.join(directory, "podman")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def version(path: str, environ: Mapping[str, str], run_tool: RunTool, cache: str = "") -> Version:
    """The version of the podman at `path`.

    Args:
        cache: a file in which the answer is kept for as long as the program stays
            the same, since asking costs more than all the rest; "" for none.

    Raises:
        SharingRefused: it does not tell.
    """
    identity = _identity(path)
    text = _remembered(cache, identity)
    found = _parsed(text)
    if found is None:
        text = _asked(path, environ, run_tool)
        found = _parsed(text)
        if found is None:
            raise SharingRefused(
                f"{path} --version answered {text[:200]!r}, which is no version", remedy=_PRIVATE
            )
        _remember(cache, identity, text)
    return found


def _parsed(text: str) -> Version | None:
    match = re.match(r"(?:podman version )?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        return None
    major, minor, patch = (int(number or 0) for number in match.groups())
    return Version(major, minor, patch, text.removeprefix("podman version ").strip())


def _asked(path: str, environ: Mapping[str, str], run_tool: RunTool) -> str:
    try:
        code, out, err = run_tool([path, "--version"], environ, timeout=_VERSION_TIMEOUT)
    except LibpodError as error:
        raise SharingRefused(
            f"the version of {path} cannot be told: {error}", remedy=_PRIVATE
        ) from error
    if code != 0:
        raise SharingRefused(
            f"{path} --version failed with exit code {code}",
            remedy=_PRIVATE,
            detail=err or out,
        )
    return out


def _identity(path: str) -> list[Any]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise SharingRefused(f"cannot look at {path}: {error.strerror}") from error
    return [path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


def _remembered(cache: str, identity: list[Any]) -> str:
    if not cache:
        return ""
    try:
        fd = os.open(cache, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="utf-8") as file:
            known = json.loads(file.read(4096))
            if os.fstat(fd).st_uid != os.geteuid() or known["program"] != identity:
                return ""
            return str(known["version"])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.info("the version kept in %s is of no use: %s", cache, error)
        return ""


def _remember(cache: str, identity: list[Any], text: str) -> None:
    if not cache:
        return
    scratch = f"{cache}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(scratch, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump({"program": identity, "version": text}, file)
        os.rename(scratch, cache)
    except OSError as error:
        log.info("podman's version cannot be kept in %s: %s", cache, error)


# --- whether state can be shared ---------------------------------------------------------


def check_sharing(
    static_dir: str,
    graph_root: str,
    environ: Mapping[str, str],
    uid: int,
    run_tool: RunTool,
    *,
    run_root: str | None = None,
    lock_type: str | None = None,
    cache: str = "",
) -> Sharing:
    """How state in these directories is shared with podman; makes and opens nothing.

    Args:
        static_dir, graph_root, run_root: where podman's databases can be.
        environ, uid: whose podman it is.
        lock_type: what the user asked for, if anything: it must be podman's.
        cache: see `version()`.

    Raises:
        SharingRefused: podman does not, or will not, use the same database, or
            locks by other means; says what to do instead.
        ConfigError: podman's configuration cannot be read.
    """
    sqlite = [os.path.join(place, SQLITE) for place in (graph_root, static_dir, run_root) if place]
    for path in filter(_there, sqlite):
        raise SharingRefused(f"podman's state is SQLite here ({path})", remedy=_PRIVATE)
    engine = engine_conf(environ, uid)
    program = find(environ)
    known = version(program, environ, run_tool, cache) if program else None
    bolt = os.path.join(static_dir, BOLT)
    why = _why(bolt if _there(bolt) else None, known, engine, static_dir)
    podmans = engine.lock_type or "shm"
    if podmans not in ("shm", "file"):
        raise ConfigError(f"containers.conf: engine.lock_type must be shm or file, not {podmans!r}")
    if lock_type not in (None, podmans):
        raise SharingRefused(
            f"podman locks by {podmans!r} here, and {lock_type!r} does not exclude it",
            remedy=f"leave lock_type out, or set it to {podmans!r}",
        )
    return Sharing(podmans, engine.num_locks or NUM_LOCKS, why, engine)


def _why(bolt: str | None, known: Version | None, engine: EngineConf, static_dir: str) -> str:
    """Why state can be shared; raises SharingRefused where it cannot."""
    if known is not None and known >= _WITHOUT_BOLT:
        raise SharingRefused(f"podman {known.text} has no BoltDB any more", remedy=_PRIVATE)
    if known is not None and known >= _MIGRATES:
        raise SharingRefused(
            f"podman {known.text} moves a BoltDB to SQLite at the next boot, "
            "and would no longer see what is done here",
            remedy=_PRIVATE,
        )
    if bolt is not None:
        who = "no podman is installed" if known is None else f"podman {known.text} uses it"
        return f"{bolt} is there, and {who}"
    if known is None:
        raise SharingRefused(
            f"there is no podman on this host and no state of one in {static_dir}", remedy=_PRIVATE
        )
    if known >= _SQLITE_BY_DEFAULT or engine.database_backend == "sqlite":
        raise SharingRefused(
            f"podman {known.text} makes its state in SQLite where there is none, "
            f"as in {static_dir}",
            remedy=_PRIVATE,
        )
    return f"podman {known.text} uses BoltDB, and there is no state in {static_dir} yet"


def _there(path: str) -> bool:
    """Whether a file is there; an empty one is a database that was never made."""
    try:
        return os.stat(path).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise SharingRefused(
            f"cannot tell whether {path} is there: {error.strerror}", remedy=_PRIVATE
        ) from error
