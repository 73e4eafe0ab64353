# SPDX-License-Identifier: Apache-2.0
"""registries.conf: where images are searched, and which registries are not to be trusted
or not to be used.

Both forms of the file are read: that of 2018, tables `registries.search`,
`registries.insecure` and `registries.block`; and today's, with
`unqualified-search-registries` and one `[[registry]]` table each, to which the files
in the directory `registries.conf.d` beside it add.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from libpod.config import is_rootless
from libpod.errors import ConfigError

log = logging.getLogger("libpod.registries")

PATH_VARIABLE = "REGISTRIES_CONFIG_PATH"
"""Names the file to read instead of any other."""

SYSTEM_PATH = "/etc/containers/registries.conf"
USER_PATH = ".config/containers/registries.conf"
"""Below HOME; for rootless runtimes, in place of the system's."""

_OLD_TABLES = ("search", "insecure", "block")


class Registries(NamedTuple):
    """What the files say; each list without repetitions, in their order."""

    search: list[str]
    """Where an image is looked for whose name has no registry."""
    insecure: list[str]
    """Those that may speak plain HTTP, or have a certificate that nobody vouches for."""
    blocked: list[str]


def find(environ: Mapping[str, str] | None = None, uid: int | None = None) -> str | None:
    """The file that this user's runtime reads, or None.

    REGISTRIES_CONFIG_PATH, rootless the file below HOME, /etc/containers: the first
    that is there.  (In 2018 insecure registries were those below root's HOME, too.)
    """
    environ = os.environ if environ is None else environ
    named = environ.get(PATH_VARIABLE)
    if named:
        return named
    home = environ.get("HOME")
    if home and is_rootless(environ, uid):
        path = os.path.join(home, USER_PATH)
        if os.path.exists(path):
            return path
    return SYSTEM_PATH if os.path.exists(SYSTEM_PATH) else None


def load(environ: Mapping[str, str] | None = None, uid: int | None = None) -> Registries:
    """What the file and those in the directory beside it say; nothing where there is none,
    as with podman (in 2018 that was an error).

    Raises `ConfigError` for a file that cannot be read, or has no meaning; it names it.
    """
    path = find(environ, uid)
    if path is None:
        return Registries([], [], [])
    first = _read(path)
    if "registries" in first:
        return _old_form(path, first)
    search: list[str] = []
    tables: dict[str, Mapping[str, Any]] = {}
    for name, content in [(path, first), *((p, _read(p)) for p in _additions(f"{path}.d"))]:
        if "registries" in content:
            raise _wrong(name, "it has the old form, which only the main file may have")
        if "unqualified-search-registries" in content:  # the last file's list holds
            search = _names(name, content, "unqualified-search-registries")
        tables.update(_registry_tables(name, content))
    return Registries(
        search,
        [prefix for prefix, table in tables.items() if table.get("insecure")],
        [prefix for prefix, table in tables.items() if table.get("blocked")],
    )


def _additions(directory: str) -> list[str]:
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _wrong(directory, error.strerror or str(error)) from error
    return [f"{directory}/{name}" for name in names if name.endswith(".conf")]


def _old_form(path: str, content: Mapping[str, Any]) -> Registries:
    if "registry" in content or "unqualified-search-registries" in content:
        raise _wrong(path, "it mixes the old form, [registries.search], with today's")
    outer = content["registries"]
    if not isinstance(outer, dict):
        raise _wrong(path, "registries is not a table")
    lists = []
    for name in _OLD_TABLES:
        table = outer.get(name, {})
        if not isinstance(table, dict):
            raise _wrong(path, f"registries.{name} is not a table")
        lists.append(_names(path, table, "registries"))
    return Registries(*lists)


def _registry_tables(path: str, content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By what a name must begin with for a table to hold for it."""
    tables = content.get("registry", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise _wrong(path, "registry is not a list of tables, [[registry]]")
    found = {}
    for table in tables:
        prefix = table.get("prefix") or table.get("location")
        if not isinstance(prefix, str) or not prefix:
            raise _wrong(path, "a [[registry]] has neither a prefix nor a location")
        for switch in ("insecure", "blocked"):
            if not isinstance(table.get(switch, False), bool):
                raise _wrong(path, f"registry {prefix}: {switch} is neither true nor false")
        found[_name(path, prefix)] = table
    return found


def _names(path: str, table: Mapping[str, Any], key: str) -> list[str]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _wrong(path, f"{key} is not a list of texts")
    return list(dict.fromkeys(_name(path, value) for value in values))


def _name(path: str, text: str) -> str:
    if "://" in text:
        raise _wrong(path, f"the registry {text} must be named without {text.partition('://')[0]}:")
    return text.rstrip("/")


def _read(path: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise _wrong(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, nested without end
        raise _wrong(path, str(error)) from error


def _wrong(path: str, complaint: str) -> ConfigError:
    return ConfigError(
        f"unable to parse the registries.conf file {path}: {complaint}",
        remedy=f"correct it, or name another one in {PATH_VARIABLE}",
    )
