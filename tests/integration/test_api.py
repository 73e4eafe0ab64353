# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows, run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import libpod
from conftest import Dirs
from libpod import Limits, NotBuilt, Reason, Runtime, Spec

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_example_as_printed(rootfs: str, dirs: Dirs) -> None:
    text = README.read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    os.symlink(rootfs, f"{dirs.work}/rootfs")
    # The directories alone differ: a test keeps away from the host's own runtime.
    program = (
        "import libpod.config\n"
        f"libpod.config._data_directories = lambda *a: ({dirs.static!r}, {dirs.static!r})\n"
        f"libpod.config._run_directories = lambda *a: ({dirs.tmp!r}, {dirs.tmp!r})\n"
        + example.group(1)
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=dirs.work, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == r"b'hello\n' b'oops\n' 7"
    assert lines[-1] == "137"
    assert [line.split()[0] for line in lines[1:-1]] == [
        "prepare", "create", "start", "run", "release",
    ]  # fmt: skip


def test_the_page_that_is_frozen(rt: Runtime, rootfs: str) -> None:
    job = Spec("localhost/python:3", user="1000:1000", read_only=True, tmpfs={"/tmp": "64M"},
               network="none", env={"CI": "1"},
               limits=Limits(memory="512M", swap=0, cpus=1, pids=128, output="4M"))  # fmt: skip
    box = Spec(rootfs=rootfs)
    for p in rt.doctor():
        assert p.what and p.severity in ("error", "warning", "info") and p.remedy
    with pytest.raises(NotBuilt, match="images"):
        rt.run(job, ["python", "-c", "print(6*7)"], input=b"", timeout=30, grace=2)
    here = job.but(image=None, rootfs=rootfs, limits=job.limits.but(memory=None, swap=None))
    r = rt.run(here, ["sh", "-c", "echo $((6*7))"], input=b"", timeout=30, grace=2)
    assert (r.reason, r.exit_code, r.stdout) == (Reason.EXITED, 0, b"42\n")
    assert (r.stderr, r.truncated) == (b"", False)
    assert r.usage.cpu_seconds is None or r.usage.cpu_seconds > 0
    assert r.phases["create"] > 0
    r.check()
    with rt.start(box, ["sh", "-c", "echo ready; sleep 100"], name="web") as c:
        assert rt.lookup_container("web") is c
        c.stop(grace=0)
        assert c.wait() == 137
    assert rt.get_containers() == []


def test_what_is_not_built_says_so(rt: Runtime, box: Spec) -> None:
    specs = (box.but(command=["sh", "-c", f"exit {i % 7}"], key=i) for i in range(1000))
    for call in (
        lambda: rt.run_many(specs, in_flight=64, timeout=60),
        lambda: rt.pool(box, size=16),
        lambda: rt.events(since="10m"),
        rt.audit,
        libpod.aio.Runtime,
        lambda: rt.run(box.but(network="bridge"), ["true"]),
        lambda: Runtime(state_type=libpod.StateType.BOLTDB),
        lambda: Runtime(cgroup_manager="systemd"),
        lambda: Runtime(share="podman"),
    ):
        with pytest.raises(NotBuilt) as caught:
            call()
        assert isinstance(caught.value, NotImplementedError)
    with rt.start(box, ["sleep", "100"]) as c:
        for call in (
            lambda: c.exec(["id", "-u"], timeout=5),
            lambda: c.logs(follow=True),
            lambda: c.wait_for_log(b"ready", timeout=10),
        ):
            with pytest.raises(NotBuilt):
                call()
