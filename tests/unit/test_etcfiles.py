# SPDX-License-Identifier: Apache-2.0
"""The files that a container is given.  The texts are what podman 4.3.1 wrote for the
same host files and options."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libpod import etcfiles
from libpod.errors import InvalidArgument, SystemCallError

HOSTS = b"""\
# a comment
127.0.0.1\tlocalhost   localhost.localdomain # trailing
::1 localhost ip6-localhost

  10.0.0.1  spaced\tnames  more
10.0.0.2 dup1
10.0.0.3 dup1 dup2
lonely
10.0.0.9
10.0.0.7 web
fe80::1%eth0 zoned
10.0.0.5 crlf\r
10.0.0.8 last"""

HOSTS_WRITTEN = """\
127.0.0.1\tlocalhost localhost.localdomain
::1\tlocalhost ip6-localhost
10.0.0.1\tspaced names more
10.0.0.2\tdup1
10.0.0.3\tdup1 dup2
10.0.0.7\tweb
fe80::1%eth0\tzoned
10.0.0.5\tcrlf
10.0.0.8\tlast
"""

RESOLV = b"""\
# comment
; another
nameserver 127.0.0.53
nameserver 10.1.1.1 # x
nameserver   fe80::1%eth0
 nameserver 10.1.1.2
domain dom.example
search a.example b.example
search c.example
options ndots:3 edns0
options rotate
sortlist 1.2.3.4
nameserver foo
nameserver

"""

SERVERS = """\
nameserver 127.0.0.53
nameserver 10.1.1.1
nameserver fe80::1%eth0
nameserver 10.1.1.2
"""


class Files:
    """A host with files of its own, and the run directory of a container."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run_dir = directory / "run"
        self.run_dir.mkdir(mode=0o700)
        self.places = {}
        for name, parsed in {
            "hosts": etcfiles._hosts_file,
            "resolv": etcfiles._resolv_conf,
            "resolved": etcfiles._resolved_conf,
        }.items():
            self.places[name] = directory / name
            fresh = etcfiles._Parsed(str(directory / name), parsed._parse)
            monkeypatch.setattr(etcfiles, etcfiles_name(parsed), fresh)
        self.host("hosts", b"127.0.0.1 localhost\n")
        self.host("resolv", b"nameserver 10.1.1.1\n")

    def host(self, name: str, data: bytes) -> None:
        self.places[name].write_bytes(data)

    def write(self, **options: Any) -> dict[str, str]:
        wanted = {"hostname": "c0ffee", "name": "jolly", "network": "none", "host_address": ""}
        return etcfiles.write(str(self.run_dir), **{**wanted, **options})

    def text(self, destination: str, **options: Any) -> str:
        return Path(self.write(**options)[destination]).read_text()


def etcfiles_name(parsed: object) -> str:
    return next(name for name, value in vars(etcfiles).items() if value is parsed)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    return Files(tmp_path, monkeypatch)


def test_no_network(files: Files) -> None:
    found = files.write(host_address="192.0.2.2")
    assert found == {
        destination: str(files.run_dir / os.path.basename(destination))
        for destination in ("/etc/hosts", "/etc/hostname", "/run/.containerenv")
    }
    assert {path.name: path.read_text() for path in files.run_dir.iterdir()} == {
        "hosts": "127.0.0.1\tlocalhost\n192.0.2.2\thost.containers.internal\n"
        "127.0.0.1\tc0ffee jolly\n",
        "hostname": "c0ffee",
        ".containerenv": "",
    }


def test_the_hosts_network(files: Files) -> None:
    files.host("hosts", HOSTS)
    files.host("resolv", RESOLV)
    found = files.write(network="host", hostname="vm", host_address="192.0.2.2")
    texts = {destination: Path(path).read_text() for destination, path in found.items()}
    assert texts == {
        "/etc/hosts": f"{HOSTS_WRITTEN}192.0.2.2\thost.containers.internal\n",
        "/etc/resolv.conf": f"search c.example\n{SERVERS}options rotate\n",
        "/etc/hostname": "vm",
        "/run/.containerenv": "",
    }


OVERLAP = b"""\
127.0.0.1 localhost
10.0.0.4 host.containers.internal
10.0.0.7 web  myname
10.1.0.1 dup1 other
"""
OVERLAP_WRITTEN = """\
127.0.0.1\tlocalhost
10.0.0.4\thost.containers.internal
10.0.0.7\tweb myname
10.1.0.1\tdup1 other
"""


@pytest.mark.parametrize(
    "hostname, name, hosts, first, last",
    [
        (  # the host's file has both names of the container
            "web",
            "myname",
            ["dup1:4.4.4.4", "localhost:5.5.5.5", "b:fe80::1"],
            "4.4.4.4\tdup1\n5.5.5.5\tlocalhost\nfe80::1\tb\n",
            "",
        ),
        (  # one name is the user's
            "foo",
            "bar",
            ["foo:4.4.4.4", "host.containers.internal:1.1.1.1", "foo:4.4.4.5"],
            "4.4.4.4\tfoo\n1.1.1.1\thost.containers.internal\n4.4.4.5\tfoo\n",
            "127.0.0.1\tbar\n",
        ),
        ("same", "same", ["sp;ace:4.4.4.4"], "4.4.4.4\tsp;ace\n", "127.0.0.1\tsame same\n"),
    ],
)
def test_names_that_are_taken(
    files: Files, hostname: str, name: str, hosts: list[str], first: str, last: str
) -> None:
    files.host("hosts", OVERLAP)
    text = files.text(
        "/etc/hosts", hostname=hostname, name=name, hosts=hosts, host_address="192.0.2.2"
    )
    assert text == first + OVERLAP_WRITTEN + last


def test_the_users_name_of_the_host_wins(files: Files) -> None:
    text = files.text(
        "/etc/hosts", hosts=["host.containers.internal:1.1.1.1"], host_address="192.0.2.2"
    )
    assert "192.0.2.2" not in text


def test_own_addresses(files: Files) -> None:
    text = files.text("/etc/hosts", network="bridge", own_addresses=["10.88.0.4", "fd00::4"])
    assert text == "127.0.0.1\tlocalhost\n10.88.0.4\tc0ffee jolly\nfd00::4\tc0ffee jolly\n"


def test_the_hosts_own_address(files: Files) -> None:
    found = files.text("/etc/hosts", host_address=None).splitlines()[1:-1]
    assert [line.split("\t")[1] for line in found] in ([], ["host.containers.internal"])
    assert not any(line.startswith("127.") for line in found)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"dns_search": ["x.org"]}, f"search x.org c.example\n{SERVERS}options rotate\n"),
        ({"dns_search": ["."]}, f"{SERVERS}options rotate\n"),
        (
            {"dns_servers": ["9.9.9.9", "8.8.4.4"], "dns_options": ["a", "b"]},
            "search c.example\nnameserver 9.9.9.9\nnameserver 8.8.4.4\noptions a b rotate\n",
        ),
        ({"dns_options": [""]}, f"search c.example\n{SERVERS}options rotate\n"),
    ],
)
def test_resolver_options(files: Files, options: dict[str, Any], expected: str) -> None:
    files.host("resolv", RESOLV)
    assert files.text("/etc/resolv.conf", network="host", **options) == expected


@pytest.mark.parametrize(
    "host, resolved, expected",
    [
        (b"nameserver 10.1.1.1\nnameserver ::1\nnameserver 127.0.0.1\n", b"", ["10.1.1.1"]),
        (b"nameserver 127.0.0.1\n", b"nameserver 10.2.2.2\n", ["8.8.8.8", "8.8.4.4"]),
        (b"nameserver 127.0.0.53\n", b"nameserver 10.2.2.2\n", ["10.2.2.2"]),
        (b"nameserver 127.0.0.53\n", None, ["8.8.8.8", "8.8.4.4"]),
        (b"", b"", ["8.8.8.8", "8.8.4.4"]),
    ],
)
def test_servers_from_another_network(
    files: Files, host: bytes, resolved: bytes | None, expected: list[str]
) -> None:
    files.host("resolv", host)
    if resolved is not None:
        files.host("resolved", resolved)
    text = files.text("/etc/resolv.conf", network="bridge")
    assert text == "".join(f"nameserver {address}\n" for address in expected)


def test_no_resolver_without_network(files: Files) -> None:
    for option in ("dns_servers", "dns_search", "dns_options"):
        with pytest.raises(InvalidArgument, match="conflicting options: dns and the network"):
            files.write(**{option: ["1.1.1.1"]})
        with pytest.raises(InvalidArgument, match="conflicting options"):
            etcfiles.check(hostname="x", network="none", **{option: ["1.1.1.1"]})
        etcfiles.check(hostname="x", network="host", hosts=["a:::1"], **{option: ["1.1.1.1"]})
    assert list(files.run_dir.iterdir()) == []


def test_without_the_hosts_files(files: Files) -> None:
    for path in files.places.values():
        path.unlink(missing_ok=True)
    assert files.text("/etc/resolv.conf", network="host") == ""
    assert files.text("/etc/hosts") == "127.0.0.1\tc0ffee jolly\n"


def test_what_the_user_mounts_is_not_written(files: Files) -> None:
    wanted = {"/etc/hosts", "/etc/hostname", "/run/.containerenv", "/etc/resolv.conf"}
    for without in wanted:
        found = files.write(network="host", without={without})
        assert set(found) == wanted - {without}
    assert files.write(without=wanted) == {}


def test_containerenv(files: Files) -> None:
    text = etcfiles.containerenv(name="privy", container_id="67ab", image="i", image_id="cd")
    engine, *rest = text.splitlines()
    assert engine.startswith('engine="libpod-')
    assert rest == ['name="privy"', 'id="67ab"', 'image="i"', 'imageid="cd"', "rootless=0"]
    assert files.text("/run/.containerenv", containerenv=text) == text


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hosts": ["a"]}, "bad host entry 'a'"),
        ({"hosts": [":1.2.3.4"]}, "bad host entry ':1.2.3.4'"),
        ({"hosts": ["a:"]}, "'' is not an IP address"),
        ({"hosts": ["a:b"]}, "'b' is not an IP address"),
        ({"hosts": ["a:1.2.3.4:5"]}, "'1.2.3.4:5' is not an IP address"),
        ({"hosts": ["a:[fe80::1]"]}, "is not an IP address"),
        ({"hosts": ["a:1.2.3.4\n6.6.6.6 evil"]}, "is not an IP address"),
        ({"hosts": ["a:1.2.3.4%eth0"]}, "is not an IP address"),
        ({"hosts": ["a:fe80::1%e\n0"]}, "is not an IP address"),
        ({"hosts": ["a:1.2.3.4\0"]}, "is not an IP address"),
        ({"hosts": ["a\n6.6.6.6 evil:1.2.3.4"]}, "host name .* is not one word"),
        ({"hosts": ["a#b:1.2.3.4"]}, "host name 'a#b' is not one word"),
        ({"hostname": "a b"}, "is not one word"),
        ({"hostname": ""}, "hostname '' is not one word"),
        ({"network": "host", "dns_servers": ["foo"]}, "'foo' is not an IP address"),
        ({"network": "host", "dns_search": ["a b"]}, "search domain 'a b' is not one word"),
        ({"network": "host", "dns_options": ["a\nnameserver"]}, "DNS option .* is not one word"),
        ({"network": "bridge", "own_addresses": ["x"]}, "'x' is not an IP address"),
        ({"host_address": "x"}, "'x' is not an IP address"),
    ],
)
def test_bad_arguments_write_nothing(files: Files, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        files.write(**options)
    assert list(files.run_dir.iterdir()) == []
    if options.keys() & {"own_addresses", "host_address"}:
        return  # known at the launch only
    with pytest.raises(InvalidArgument, match=message):
        etcfiles.check(**{"hostname": "c0ffee", "network": "none", **options})


# --- the files themselves -------------------------------------------------------------


@pytest.fixture
def odd_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_modes(files: Files, odd_umask: None) -> None:
    for path in files.write(network="host").values():
        status = os.lstat(path)
        assert stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o644
        assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())


def test_written_new_each_time(files: Files, tmp_path: Path) -> None:
    """Neither a link nor a second name of an old file is written through."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (files.run_dir / "hosts").symlink_to(victim)
    (files.run_dir / "resolv.conf").symlink_to(tmp_path / "nowhere")
    os.link(victim, files.run_dir / "hostname")
    os.mkfifo(files.run_dir / ".containerenv")
    for _ in range(2):
        for path in files.write(network="host").values():
            assert stat.S_ISREG(os.lstat(path).st_mode)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_run_directory_that_is_a_link(files: Files, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(files.run_dir)
    files.run_dir = tmp_path / "link"
    with pytest.raises(SystemCallError, match="cannot write the files") as raised:
        files.write()
    assert raised.value.errno in (errno.ELOOP, errno.ENOTDIR)


def test_a_missing_run_directory(files: Files) -> None:
    files.run_dir.rmdir()
    with pytest.raises(SystemCallError) as raised:
        files.write()
    assert raised.value.errno == errno.ENOENT


def test_a_host_file_that_cannot_be_read(files: Files) -> None:
    files.places["hosts"].unlink()
    files.places["hosts"].mkdir()
    with pytest.raises(SystemCallError, match="cannot read .*hosts: Is a directory"):
        files.write()


def test_changes_of_the_hosts_files_are_seen(files: Files) -> None:
    """Also two within one tick of the clock, and one of an old file."""
    for number in range(20):
        files.host("hosts", b"10.0.0.1 n%02d\n" % number)
        assert f"n{number:02d}" in files.text("/etc/hosts")


def test_an_unchanged_file_is_not_read_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcfiles, "_SETTLED_NS", -1)
    first = etcfiles._hosts_file.read()
    assert etcfiles._hosts_file.read() is first
    files.host("hosts", b"10.0.0.1 changed\n")
    assert etcfiles._hosts_file.read() is not first


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
def test_owner_and_label(files: Files) -> None:
    for path in files.write(uid=1000, gid=1001, label="system_u:object_r:x_t:s0").values():
        status = os.lstat(path)
        assert (status.st_uid, status.st_gid) == (1000, 1001)
        assert os.getxattr(path, "security.selinux") == b"system_u:object_r:x_t:s0\0"
    status = os.stat(files.run_dir)
    assert (status.st_uid, status.st_gid) == (1000, 1001)
