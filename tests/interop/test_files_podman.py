# SPDX-License-Identifier: Apache-2.0
"""The files that the real podman gives to a container and the archive that it makes of
one, and ours for the same."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import census
from libpod import etcfiles
from libpod.export import export
from tests.interop.podman import Podman

CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "none": (["--network=none"], {"network": "none"}),
    "host": (["--network=host"], {"network": "host", "hostname": os.uname().nodename}),
    "hosts": (
        ["--network=none", "--add-host=a:1.2.3.4", "--add-host=b:fe80::1", "--hostname=web"],
        {"network": "none", "hosts": ["a:1.2.3.4", "b:fe80::1"], "hostname": "web"},
    ),
    "dns": (
        "--network=host --dns=1.1.1.1 --dns-search=x.org --dns-search=y.org "
        "--dns-option=ndots:2 --hostname=other".split(),
        {
            "network": "host",
            "hostname": "other",
            "dns_servers": ["1.1.1.1"],
            "dns_search": ["x.org", "y.org"],
            "dns_options": ["ndots:2"],
        },
    ),
    "no-hosts": (["--network=none", "--no-hosts"], {"network": "none", "without": ["/etc/hosts"]}),
    "dns-none": (
        ["--network=host", "--dns=none"],
        {
            "network": "host",
            "hostname": os.uname().nodename,
            "without": ["/etc/resolv.conf"],
        },
    ),
    "privileged": (["--network=none", "--privileged"], {"network": "none"}),
}


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with tempfile.TemporaryDirectory(prefix="libpod-") as name:
        made = Podman(Path(name))
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, made.directory / "rootfs/bin/sh")  # runc looks for the command
        try:
            yield made
            made("rm", "--all", "--force", "--time", "0")
        finally:
            # conmon's exit commands are podmans that still write here.
            census.settled(
                lambda: [
                    str(process)
                    for process in census.processes().values()
                    if any(name in word for word in process.argv)
                ],
                census.PATIENCE,
            )
            # podman binds this directory on itself, and leaves it so.
            unmount = ["umount", "--lazy", f"{name}/root/overlay"]
            subprocess.run(unmount, check=False, capture_output=True)


@pytest.mark.parametrize("case", CASES)
def test_same_files(podman: Podman, tmp_path: Path, case: str) -> None:
    words, options = CASES[case]
    rootfs = str(podman.directory / "rootfs")
    made = podman("create", f"--name={case}", *words, "--rootfs", rootfs, "/bin/sh")
    podman("init", case)  # writes them, and runs nothing
    theirs = podman.directory / "run/overlay-containers" / made / "userdata"
    options = {"hostname": made[:12], **options}
    if case == "privileged":
        options["containerenv"] = etcfiles.containerenv(name=case, container_id=made)
    ours = etcfiles.write(str(tmp_path), name=case, **options)
    names = {"hosts", "resolv.conf", "hostname", ".containerenv"}
    assert {os.path.basename(path) for path in ours} == {
        path.name for path in theirs.iterdir() if path.name in names
    }
    for path in ours.values():
        peer = theirs / os.path.basename(path)
        text = peer.read_text()
        if case == "privileged" and peer.name == ".containerenv":
            engine, _, rest = text.partition("\n")
            assert engine.startswith('engine="podman-')
            assert Path(path).read_text().partition("\n")[2] == rest
        else:
            assert Path(path).read_text() == text
        assert os.stat(path).st_mode == os.stat(peer).st_mode


def entries(archive: Path) -> list[tuple[object, ...]]:
    with tarfile.open(archive, "r:", errors="surrogateescape") as tar:
        return [
            (
                member.name,
                member.type,
                member.mode & 0o7777,  # podman's have the type's bits too
                (member.uid, member.gid, member.uname, member.gname),
                (member.devmajor, member.devminor),
                member.size,
                member.mtime,
                member.linkname,
                member.pax_headers,
                file.read() if member.isreg() and (file := tar.extractfile(member)) else b"",
            )
            for member in tar
        ]


def test_same_archive(podman: Podman, tmp_path: Path) -> None:
    root = podman.directory / "other"
    shutil.copytree(podman.directory / "rootfs", root)
    (root / "bin/link").symlink_to("sh")
    os.link(root / "bin/sh", root / "bin/hard")
    os.link(root / "bin/link", root / "link", follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (root / "ü" / ("x" * 120)).mkdir(parents=True)
    (root / ("y" * 100)).mkdir()
    (root / "far").symlink_to("z" * 150)
    (root / "owned").write_text("x")
    os.chown(root / "owned", 3_000_000, 4_000_000)
    (root / "owned").chmod(0o6755)
    os.utime(root / "owned", (-5.5, -5.5))
    os.setxattr(root / "owned", "user.a", b"\0\xff\n=")
    os.setxattr(
        root / "bin/sh",
        "security.capability",
        bytes.fromhex("0100000200200000000000000000000000000000"),
    )
    podman("create", "--name=tree", "--network=none", "--rootfs", str(root), "/bin/sh")
    podman("init", "tree")  # it archives nothing of one that is not mounted
    podman("export", "--output", str(tmp_path / "theirs.tar"), "tree")
    export(str(root), str(tmp_path / "ours.tar"))
    assert entries(tmp_path / "ours.tar") == entries(tmp_path / "theirs.tar")
