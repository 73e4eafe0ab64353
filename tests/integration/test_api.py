# SPDX-License-Identifier: Apache-2.0
"""The Python API as it is promised: what is built works as written, the rest says so."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

import libpod
from census import processes
from conftest import Dirs, needed
from libpod import (
    CommandNotFound,
    ContainerFailed,
    Limits,
    Mount,
    NotBuilt,
    Reason,
    Runtime,
    Spec,
)

Python = Callable[..., "subprocess.Popen[str]"]

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


# --- as written -----------------------------------------------------------------------


def test_the_upper_layer(
    options: dict[str, str], own_rootfs: str, dirs: Dirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dirs.work)  # own_rootfs is "rootfs/" there
    job = Spec(
        rootfs="rootfs/",
        user="1000:1000",
        read_only=True,
        tmpfs={"/tmp": "64M"},
        network="none",
        env={"CI": "1"},
        limits=Limits(memory="512M", swap=0, cpus=1, pids=128, output="4M"),
    )
    box = Spec(rootfs="rootfs/", stop_signal="KILL")

    with Runtime(**options) as rt:
        for p in rt.doctor():
            assert p.what and p.severity in ("error", "warning", "info") and p.remedy is not None
        r = rt.run(job, ["sh", "-c", "echo $((6*7))"], input=b"", timeout=30, grace=2)
        assert (r.reason, r.exit_code, r.stdout) == (Reason.EXITED, 0, b"42\n")
        assert (r.stderr, r.truncated) == (b"", False)
        assert r.usage.cpu_seconds is not None and r.usage.memory_peak is not None
        assert sum(r.phases.values()) > 0
        r.check()
        with pytest.raises(ContainerFailed):
            rt.run(job, ["false"]).check()

        with rt.start(box, ["sh", "-c", "echo ready; sleep 100"], name="web") as c:
            assert rt.lookup_container("web") is c
            c.stop(grace=5)
            assert c.wait() == 137
        assert rt.get_containers() == []  # removed at the end of the block

        other = box.but(command=["sh", "-c", "exit 3"], key=3)
        assert (box.command, other.key) == (None, 3)
        assert rt.run(other).exit_code == rt.run(other).key == 3


def test_the_lower_layer(rt: Runtime, rootfs: str) -> None:
    with rt.start(Spec(rootfs=rootfs), ["true"]) as model:
        oci_spec = model.spec
    oci_spec["process"]["args"] = ["sleep", "1000"]
    c = rt.new_container(oci_spec, name="lower", stop_signal="KILL")
    for verb in ("init", "start", "pause", "unpause"):
        getattr(c, verb)()
    assert str(c.state.status) == "running"
    c.kill(9)
    assert c.wait() == 137
    c.start()
    c.stop(0)
    c.delete()
    assert not rt.has_container(c.id)


def test_names_of_the_package() -> None:
    for name in libpod.__all__:
        assert getattr(libpod, name) is not None
    assert libpod.Runtime is Runtime and libpod.aio.Runtime is not Runtime


def test_an_error_carries_what_it_takes_to_act(rt: Runtime, box: Spec) -> None:
    with pytest.raises(CommandNotFound) as caught:
        rt.run(box, ["nosuch"])
    error = caught.value
    assert (error.fault, error.phase, error.retryable) == ("job", "create", False)
    assert error.container_id and error.remedy and error.detail
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is CommandNotFound and str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


# --- not built yet -----------------------------------------------------------------------


def test_what_is_not_built_says_so(rt: Runtime, box: Spec) -> None:
    image = Spec("localhost/python:3")
    with rt.start(box, ["sleep", "1000"]) as c:
        calls: dict[str, Callable[[], Any]] = {
            "run_many": lambda: rt.run_many((box for _ in range(3)), in_flight=64, timeout=60),
            "pool": lambda: rt.pool(box, size=16),
            "events": lambda: rt.events(since="10m"),
            "exec": lambda: c.exec(["id", "-u"], timeout=5),
            "logs": lambda: c.logs(follow=True),
            "wait_for_log": lambda: c.wait_for_log(b"ready", timeout=10),
            "image": lambda: rt.run(image, ["true"]),
            "image of start": lambda: rt.start(image, ["true"]),
            "image of create": lambda: rt.create(image, ["true"]),
            "bridge": lambda: Spec(rootfs="/", network="bridge"),
            "container network": lambda: Spec(rootfs="/", network="container:web"),
            "named volume": lambda: Mount("data", "/data"),
            "aio": libpod.aio.Runtime,
        }
        for name, call in calls.items():
            with pytest.raises(NotBuilt, match="not built yet") as caught:
                call()
            assert isinstance(caught.value, NotImplementedError), name
    assert rt.get_containers() == []


def test_an_option_that_is_not_built(options: dict[str, str], dirs: Dirs) -> None:
    with pytest.raises(NotBuilt) as caught:
        Runtime(**options, cgroup_manager="systemd")
    assert caught.value.remedy
    assert not os.path.exists(dirs.tmp)


# --- the README ------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    with open(f"{PROJECT}/README.md", encoding="utf-8") as file:
        return re.findall(rf"^```{language}\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)


def test_the_example_of_the_readme(python: Python, dirs: Dirs) -> None:
    """As printed, with default directories; these are in a mount namespace of its own."""
    shell = next(text for text in blocks("sh") if "busybox --install" in text)
    needed("busybox")
    subprocess.run(["sh", "-e", "-c", shell], cwd=dirs.work, check=True)
    child = python(
        "say(os.readlink('/proc/self/ns/mnt'))\n" + blocks("python")[0],
        before="mount -t tmpfs -o mode=755 none /run && mount -t tmpfs -o mode=755 none /var/lib",
        cwd=dirs.work,
    )
    out, err = child.communicate(timeout=60)
    said = re.sub(r"^.*(kept but has no|is not built yet,).*\n", "", err)
    assert (child.returncode, said) == (0, "")
    namespace, first, *phases, last = out.splitlines()
    assert first == r"b'hello\n' b'oops\n' 7"
    assert last == "137"
    assert [line.split()[0] for line in phases] == ["prepare", "create", "start", "run", "release"]
    assert all(re.fullmatch(r"\w+ took \d+\.\d ms", line) for line in phases)
    left = []
    for process in processes().values():
        try:
            if os.readlink(f"/proc/{process.pid}/ns/mnt") == namespace:
                left.append(process)
        except OSError:
            continue
    assert left == []
