# SPDX-License-Identifier: Apache-2.0
"""The files that the real podman gives to a container, and ours for the same options."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import census
from libpod import etcfiles
from tests.interop.test_state_podman import Podman

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
