# SPDX-License-Identifier: Apache-2.0
"""The files that a container is given: /etc/hosts, resolv.conf, hostname, .containerenv.

What is in them is podman 4.3.1's, which where it differs from the original is
what programs expect today: entries of the user come first, the host's own
resolver settings are added to those that were asked for, not replaced.

The files are written anew for each launch into the container's run directory,
which is ours alone and whose lock the caller holds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import Generic, NamedTuple, TypeVar

from libpod import __version__
from libpod._sys import ffi, lib
from libpod.errors import InvalidArgument, SystemCallError

HOSTS = "/etc/hosts"
RESOLV_CONF = "/etc/resolv.conf"
HOSTNAME = "/etc/hostname"
CONTAINERENV = "/run/.containerenv"

HOST_NAME = b"host.containers.internal"
"""The name by which a container finds its host."""

_RESOLVED = "/run/systemd/resolve/resolv.conf"
"""The servers behind systemd's local one, which answers in the host's network only."""

_PUBLIC_SERVERS = (b"8.8.8.8", b"8.8.4.4")
"""podman's, for a network of its own where the host names no other than a local one."""

_SETTLED_NS = 1_000_000_000
"""Age from which a file's times tell whether it has changed."""

_MODE = 0o644
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_T = TypeVar("_T")


def containerenv(
    *, name: str, container_id: str, image: str = "", image_id: str = "", rootless: bool = False
) -> str:
    """What a privileged container finds in /run/.containerenv; that of others is empty."""
    return (
        f'engine="libpod-{__version__}"\nname="{name}"\nid="{container_id}"\n'
        f'image="{image}"\nimageid="{image_id}"\nrootless={int(rootless)}\n'
    )


def check(
    *,
    hostname: str,
    network: str,
    hosts: Sequence[str] = (),
    dns_servers: Sequence[str] = (),
    dns_search: Sequence[str] = (),
    dns_options: Sequence[str] = (),
) -> None:
    """Raises the `InvalidArgument` that `write` would raise for these options."""
    _word(hostname, "hostname")
    for entry in hosts:
        _host_entry(entry)
    if network == "none":
        _refuse_dns(dns_servers, dns_search, dns_options)
    _wanted(dns_servers, dns_search, dns_options)


def write(
    run_dir: str,
    *,
    hostname: str,
    name: str,
    network: str,
    hosts: Sequence[str] = (),
    own_addresses: Sequence[str] = (),
    host_address: str | None = None,
    dns_servers: Sequence[str] = (),
    dns_search: Sequence[str] = (),
    dns_options: Sequence[str] = (),
    containerenv: str = "",
    uid: int = 0,
    gid: int = 0,
    label: str = "",
    without: Collection[str] = (),
) -> dict[str, str]:
    """Writes a container's files and returns what to bind: destination -> path on the host.

    Args:
        run_dir: the container's run directory, an existing one of ours.
        hostname, name: of the container; both are names of its own addresses.
        network: "host" (the host's files hold there unchanged), "none" (no
            resolver; the own address is 127.0.0.1), or another for a network
            of the container's own.
        hosts: further entries, "name:address".
        own_addresses: the container's, on a network of its own.
        host_address: where the container reaches its host; None takes the
            host's first address, "" leaves the entry out.
        dns_servers: replace the host's; dns_search, dns_options: come before
            them ("." as search domain: none at all).
        containerenv: the text of /run/.containerenv, see `containerenv()`.
        uid, gid: the host's IDs of the container's root, who owns the files.
        label: their SELinux label; "" leaves it.
        without: destinations that are not written, since the user mounts
            something there, or wants those of the image.

    Raises:
        InvalidArgument: a host entry, address, search domain or name that cannot be.
        SystemCallError: a file cannot be read or written; `errno` says why.
    """
    texts: dict[str, bytes] = {}
    if HOSTS not in without:
        addresses = ("127.0.0.1",) if network == "none" else own_addresses
        texts[HOSTS] = _hosts_text(hosts, host_address, addresses, (hostname, name))
    if network == "none":
        _refuse_dns(dns_servers, dns_search, dns_options)
    elif RESOLV_CONF not in without:
        wanted = _wanted(dns_servers, dns_search, dns_options)
        texts[RESOLV_CONF] = _resolv_text(network, wanted)
    if HOSTNAME not in without:
        texts[HOSTNAME] = _word(hostname, "hostname")
    if CONTAINERENV not in without:
        texts[CONTAINERENV] = containerenv.encode()
    try:
        return _write_all(run_dir, texts, uid, gid, label)
    except OSError as error:
        raise SystemCallError(
            f"cannot write the files of a container in {run_dir}: {error.strerror}",
            error.errno or 0,
            phase="prepare",
            remedy="check the space on that file system",
        ) from error


def _write_all(
    run_dir: str, texts: dict[str, bytes], uid: int, gid: int, label: str
) -> dict[str, str]:
    directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if (uid, gid) != (0, 0):
            os.fchown(directory, uid, gid)
        for destination, text in texts.items():
            descriptor = _create(os.path.basename(destination), directory)
            try:
                _write_one(descriptor, text, uid, gid, label)
            finally:
                os.close(descriptor)
    finally:
        os.close(directory)
    return {path: os.path.join(run_dir, os.path.basename(path)) for path in texts}


def _create(name: str, directory: int) -> int:
    """Opens a new file: a container that still runs keeps the one that it has."""
    try:
        return os.open(name, _NEW, _MODE, dir_fd=directory)
    except FileExistsError:
        os.unlink(name, dir_fd=directory)
        return os.open(name, _NEW, _MODE, dir_fd=directory)


def _write_one(descriptor: int, text: bytes, uid: int, gid: int, label: str) -> None:
    while text:
        text = text[os.write(descriptor, text) :]
    os.fchmod(descriptor, _MODE)  # whatever the umask
    if (uid, gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, uid, gid)
    if label:
        os.setxattr(descriptor, "security.selinux", os.fsencode(label) + b"\0")


# --- /etc/hosts -----------------------------------------------------------------


class _HostsFile(NamedTuple):
    text: bytes
    """Its entries, one a line, without comments."""
    names: frozenset[bytes]


def _hosts_text(
    extra: Sequence[str],
    host_address: str | None,
    own_addresses: Sequence[str],
    own_names: Sequence[str],
) -> bytes:
    """The user's entries, the host's, the host's name, the container's: no later one
    takes a name that an earlier one has."""
    entries = [_host_entry(entry) for entry in extra]
    base = _hosts_file.read()
    taken = {name for _, name in entries}
    lines = [b"%s\t%s\n" % entry for entry in entries]
    lines.append(base.text)
    if HOST_NAME not in taken and HOST_NAME not in base.names:
        address = _host_address() if host_address is None else host_address
        if address:
            lines.append(b"%s\t%s\n" % (_address(address, "host address"), HOST_NAME))
            taken.add(HOST_NAME)
    words = [_word(name, "name") for name in own_names if name]
    own = [name for name in words if name not in taken and name not in base.names]
    if own:
        lines += (
            b"%s\t%s\n" % (_address(address, "own address"), b" ".join(own))
            for address in own_addresses
        )
    return b"".join(lines)


def _host_entry(entry: str) -> tuple[bytes, bytes]:
    name, colon, address = entry.partition(":")
    if not colon or not name:
        raise InvalidArgument(
            f"bad host entry {entry!r}", fault="job", remedy='write it as "name:address"'
        )
    return _address(address, f"host entry {entry!r}"), _word(name, "host name")


def _parse_hosts(data: bytes) -> _HostsFile:
    lines: list[bytes] = []
    names: set[bytes] = set()
    for line in data.split(b"\n"):
        words = line.partition(b"#")[0].split()
        if len(words) > 1:
            lines.append(b"%s\t%s\n" % (words[0], b" ".join(words[1:])))
            names.update(words[1:])
    return _HostsFile(b"".join(lines), frozenset(names))


def _host_address() -> str:
    """The host's first address that is no loopback one, or ""."""
    text = ffi.new("char[]", 48)
    err = ffi.new("struct lp_error *")
    if lib.lp_hostaddr_first(text, len(text), err):
        raise SystemCallError(ffi.string(err.message).decode(errors="replace"), err.sys_errno)
    return str(ffi.string(text).decode("ascii"))


# --- /etc/resolv.conf -----------------------------------------------------------


class _ResolvConf(NamedTuple):
    servers: tuple[bytes, ...]
    search: tuple[bytes, ...]
    options: tuple[bytes, ...]


def _wanted(servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> _ResolvConf:
    """What the user asks for."""
    return _ResolvConf(
        tuple(_address(server, "DNS server") for server in servers),
        tuple(_word(domain, "search domain") for domain in search),
        tuple(_word(option, "DNS option") for option in options if option),
    )


def _resolv_text(network: str, wanted: _ResolvConf) -> bytes:
    host = _resolv_conf.read()
    if network != "host":
        host = _beyond_loopback(host)
    domains = () if b"." in wanted.search else wanted.search + host.search
    options = wanted.options + host.options
    lines = [b"search %s\n" % b" ".join(domains)] if domains else []
    lines += (b"nameserver %s\n" % address for address in wanted.servers or host.servers)
    if options:
        lines.append(b"options %s\n" % b" ".join(options))
    return b"".join(lines)


def _beyond_loopback(host: _ResolvConf) -> _ResolvConf:
    """The host's settings as they are of use in another network namespace."""
    if host.servers == (b"127.0.0.53",):
        host = _resolved_conf.read()
    servers = tuple(
        server for server in host.servers if not server.startswith(b"127.") and server != b"::1"
    )
    return host._replace(servers=servers or _PUBLIC_SERVERS)


def _refuse_dns(*wanted: Sequence[str]) -> None:
    if any(wanted):
        raise InvalidArgument(
            "conflicting options: dns and the network mode: none",
            fault="job",
            remedy="leave the DNS options out, or choose another network",
        )


def _parse_resolv(data: bytes) -> _ResolvConf:
    """The last line of each kind counts, as for the resolver; servers are collected."""
    servers: list[bytes] = []
    found: dict[bytes, tuple[bytes, ...]] = {}
    for line in data.split(b"\n"):
        words = line.partition(b"#")[0].partition(b";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == b"nameserver" and _is_address(words[1].decode("ascii", "replace")):
            servers.append(words[1])
        found[words[0]] = tuple(words[1:])
    return _ResolvConf(tuple(servers), found.get(b"search", ()), found.get(b"options", ()))


# --- the host's files -------------------------------------------------------------


class _Parsed(Generic[_T]):
    """A file of the host's, read again only when it has changed."""

    __slots__ = ("_known", "_parse", "_path")

    def __init__(self, path: str, parse: Callable[[bytes], _T]) -> None:
        self._path = path
        self._parse = parse
        self._known: tuple[tuple[int, ...], _T] | None = None

    def read(self) -> _T:
        """What is in the file now; a missing one is empty."""
        try:
            key = _key_of(os.stat(self._path))
            known = self._known
            if known is not None and known[0] == key:
                return known[1]
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                value = self._parse(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return self._parse(b"")
        except OSError as error:
            raise SystemCallError(
                f"cannot read {self._path}: {error.strerror}", error.errno or 0
            ) from error
        # Two changes within one tick of the kernel's clock leave the same times.
        if abs(time.time_ns() - status.st_ctime_ns) > _SETTLED_NS:
            self._known = (_key_of(status), value)
        return value


def _key_of(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


_hosts_file = _Parsed("/etc/hosts", _parse_hosts)
_resolv_conf = _Parsed("/etc/resolv.conf", _parse_resolv)
_resolved_conf = _Parsed(_RESOLVED, _parse_resolv)


# --- what may be written ------------------------------------------------------------


def _word(text: str, what: str) -> bytes:
    """The text as one word of a line."""
    word = os.fsencode(text)
    if not word or word.split() != [word] or b"#" in word or not text.isprintable():
        raise InvalidArgument(f"{what} {text!r} is not one word", fault="job")
    return word


def _address(text: str, what: str) -> bytes:
    if not _is_address(text):
        raise InvalidArgument(
            f"{text!r} is not an IP address ({what})",
            fault="job",
            remedy="give an IPv4 or IPv6 address, without port, prefix or brackets",
        )
    return text.encode("ascii")


def _is_address(text: str) -> bool:
    """Whether it is one; an IPv6 address may name its interface."""
    address, percent, zone = text.partition("%")
    if not text.isascii() or "\0" in text:
        return False
    family = lib.lp_hostaddr_family(address.encode("ascii"))
    if percent:
        return bool(family == 6 and zone.isalnum())
    return bool(family)
