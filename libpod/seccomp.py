# SPDX-License-Identifier: Apache-2.0
"""The seccomp profile of the host, as the `linux.seccomp` object of an OCI spec.

The profile on disk is in the format that docker and podman share: rules with
conditions (capabilities, architectures, kernel version).  An OCI spec has no
conditions, so they are decided here, once for each profile and each set of
capabilities; a launch gets the result from a cache and pays for one stat().
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
from functools import lru_cache
from typing import Any, TypeVar

from libpod.errors import ConfigError

DEFAULT_PATH = "/usr/share/containers/seccomp.json"
"""The seed's SeccompDefaultPath."""

OVERRIDE_PATH = "/etc/crio/seccomp.json"
"""The seed's SeccompOverridePath: wins where it exists."""

_log = logging.getLogger("libpod.seccomp")

_BIG_ENDIAN = sys.byteorder == "big"

# uname's machine -> the name in a profile's conditions, the name in its archMap.
_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "i386": ("x86", "SCMP_ARCH_X86"),
    "i486": ("x86", "SCMP_ARCH_X86"),
    "i586": ("x86", "SCMP_ARCH_X86"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv6l": ("arm", "SCMP_ARCH_ARM"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "armv8l": ("arm", "SCMP_ARCH_ARM"),
    "loongarch64": ("loongarch64", "SCMP_ARCH_LOONGARCH64"),
    "mips": ("mips", "SCMP_ARCH_MIPS") if _BIG_ENDIAN else ("mipsel", "SCMP_ARCH_MIPSEL"),
    "mips64": ("mips64", "SCMP_ARCH_MIPS64") if _BIG_ENDIAN else ("mipsel64", "SCMP_ARCH_MIPSEL64"),
    "ppc64": ("ppc64", "SCMP_ARCH_PPC64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390": ("s390", "SCMP_ARCH_S390"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}

_T = TypeVar("_T")


def profile(
    capabilities: frozenset[str], paths: tuple[str, ...] = (OVERRIDE_PATH, DEFAULT_PATH)
) -> dict[str, Any] | None:
    """The `linux.seccomp` object for a container with these capabilities.

    `capabilities` is the container's bounding set, as podman has it.  The
    first of `paths` that exists counts; where none does, the answer is None
    and containers run without a profile, as podman's do.  The object is
    shared between callers: it must not be changed.

    Raises `ConfigError`, naming the file, for a profile that cannot be read
    or is malformed.
    """
    for path in paths:
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise _malformed(path, f"cannot be read: {error.strerror}") from error
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return _compiled(path, stamp, capabilities)
    _report_missing(paths)
    return None


@lru_cache(maxsize=1)
def _report_missing(paths: tuple[str, ...]) -> None:
    """Log it once for a process, not once for a launch."""
    _log.warning("no seccomp profile (%s): containers run without one", ", ".join(paths))


@lru_cache(maxsize=64)
def _compiled(path: str, stamp: tuple[int, ...], capabilities: frozenset[str]) -> dict[str, Any]:
    # `stamp` is part of the key only: a changed file is read again.
    try:
        with open(path, "rb") as file:
            document = json.load(file)
    except OSError as error:
        raise _malformed(path, f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"is not JSON: {error}") from error
    try:
        return _Translation(os.uname(), capabilities).document(document)
    except _Malformed as error:
        raise _malformed(path, str(error)) from error


def _malformed(path: str, text: str) -> ConfigError:
    return ConfigError(
        f"seccomp profile {path} {text}",
        remedy="repair it, or reinstall the package that it came with",
    )


class _Malformed(Exception):
    """What is wrong with a profile, without the name of its file."""


class _Translation:
    """From one profile to the object for one machine and one set of capabilities."""

    def __init__(self, uname: os.uname_result, capabilities: frozenset[str]) -> None:
        self.kernel = _version(uname.release) or (0, 0)
        # An unknown machine has no rules of its own; the runtime knows its native one.
        self.arch, self.scmp_arch = _MACHINES.get(uname.machine, (uname.machine, ""))
        self.capabilities = capabilities

    def document(self, source: Any) -> dict[str, Any]:
        if not isinstance(source, dict):
            raise _Malformed("is not a JSON object")
        result: dict[str, Any] = {"defaultAction": _need(source, "defaultAction", str)}
        default_errno = _errno(source, "defaultErrno", "defaultErrnoRet")
        if default_errno is not None:
            result["defaultErrnoRet"] = default_errno
        architectures = self.architectures(source)
        if architectures:
            result["architectures"] = architectures
        for key, kind in ("flags", list), ("listenerPath", str), ("listenerMetadata", str):
            if value := _get(source, key, kind):
                result[key] = value
        result["syscalls"] = [
            _rule(rule) for rule in _objects(source, "syscalls") if self.applies(rule)
        ]
        return result

    def architectures(self, source: dict[str, Any]) -> list[str]:
        listed = _strings(source, "architectures")
        mapped = _objects(source, "archMap")
        if listed and mapped:
            raise _Malformed('has both "architectures" and "archMap": use one of them')
        for entry in mapped:
            if _need(entry, "architecture", str) == self.scmp_arch:
                return [self.scmp_arch, *_strings(entry, "subArchitectures")]
        return listed

    def applies(self, rule: dict[str, Any]) -> bool:
        """Whether a rule's conditions hold: all that include it, none that exclude it."""
        includes = _get(rule, "includes", dict) or {}
        excludes = _get(rule, "excludes", dict) or {}
        arches = _strings(includes, "arches")
        since, until = _min_kernel(includes), _min_kernel(excludes)
        return (
            (not arches or self.arch in arches)
            and self.arch not in _strings(excludes, "arches")
            and self.capabilities.issuperset(_strings(includes, "caps"))
            and self.capabilities.isdisjoint(_strings(excludes, "caps"))
            and (since is None or self.kernel >= since)
            and (until is None or self.kernel < until)
        )


def _rule(source: dict[str, Any]) -> dict[str, Any]:
    name, names = _get(source, "name", str), _strings(source, "names")
    if bool(name) == bool(names):
        raise _Malformed('has a rule that needs either "name" or "names"')
    rule: dict[str, Any] = {"names": names or [name], "action": _need(source, "action", str)}
    arguments = [_argument(argument) for argument in _objects(source, "args")]
    if arguments:
        rule["args"] = arguments
    errno_ret = _errno(source, "errno", "errnoRet")
    if errno_ret is not None:
        rule["errnoRet"] = errno_ret
    return rule


def _argument(source: dict[str, Any]) -> dict[str, Any]:
    argument: dict[str, Any] = {
        "index": _need(source, "index", int),
        "value": _need(source, "value", int),
        "op": _need(source, "op", str),
    }
    if value_two := _get(source, "valueTwo", int):
        argument["valueTwo"] = value_two
    return argument


def _errno(source: dict[str, Any], name_key: str, number_key: str) -> int | None:
    """The error number of an action: its name, where there is one, goes before the number."""
    name = _get(source, name_key, str)
    if not name:
        return _get(source, number_key, int)
    number = getattr(errno, name, None)
    if not isinstance(number, int):
        raise _Malformed(f"has an unknown {name_key}: {name!r}")
    return number


def _min_kernel(condition: dict[str, Any]) -> tuple[int, int] | None:
    text = _get(condition, "minKernel", str)
    if not text:
        return None
    version = _version(text)
    if version is None:
        raise _Malformed(f"has a minKernel that is not like 4.8: {text!r}")
    return version


def _version(release: str) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", release, re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


def _get(source: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
    value = source.get(key)
    if value is None or (isinstance(value, kind) and not (kind is int and value is True)):
        return value
    raise _Malformed(f"has a {key} that is not {_NAMES[kind]}")


def _need(source: dict[str, Any], key: str, kind: type[_T]) -> _T:
    value = _get(source, key, kind)
    if value is None:
        raise _Malformed(f"lacks {key}")
    return value


def _objects(source: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values: list[Any] = _get(source, key, list) or []
    if not all(isinstance(value, dict) for value in values):
        raise _Malformed(f"has a {key} that is not a list of objects")
    return values


def _strings(source: dict[str, Any], key: str) -> list[str]:
    values: list[Any] = _get(source, key, list) or []
    if not all(isinstance(value, str) for value in values):
        raise _Malformed(f"has a {key} that is not a list of strings")
    return values


_NAMES: dict[type, str] = {str: "a string", int: "a number", list: "a list", dict: "an object"}
