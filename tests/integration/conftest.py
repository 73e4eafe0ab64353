# SPDX-License-Identifier: Apache-2.0
"""Integration tests: real containers under conmon, as root.

`--oci-runtime NAME` chooses crun or runc; without it the library does.  All
tests run in a mount namespace of their own, so that what they mount goes with
them, and so that crun, which refuses hybrid cgroups, can have a host without.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

import mountns
from census import Census, record_ids
from libpod import Container, ContainerRemoved, Runtime, Spec, Status

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # runc's, which a plain PATH may lack
UNIFIED = "/sys/fs/cgroup/unified"

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
worker:x:1000:1000:worker:/home/worker:/bin/sh
"""
GROUP = """\
root:x:0:
worker:x:1000:
extra:x:2000:worker
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oci-runtime",
        choices=("crun", "runc"),
        help="the OCI runtime of the integration tests (default: what the library picks)",
    )


def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() != 0:
        return  # every test says so
    record_ids()
    mountns.enter()
    if config.getoption("--oci-runtime") == "crun" and os.path.ismount(UNIFIED):
        mountns.unmount(UNIFIED)


def heard(process: subprocess.Popen[str]) -> str:
    """The next line that the process says; nothing after it is read, which a `communicate`
    would then miss."""
    assert process.stdout is not None
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(process.stdout.fileno(), 1)
        assert byte, f"the process said {line!r} and ended: {process.communicate()[1]}"
        line += byte
    return line.decode().strip()


def needed(program: str) -> str:
    """The path of a program that the tests cannot do without."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")
    if path is None:
        pytest.fail(f"{program} is not installed: see the list in .ci/bootstrap", pytrace=False)
    return path


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.fail("containers need root: run the integration tests as root", pytrace=False)


class Dirs(NamedTuple):
    """A test's own directories; `base` holds both, and "work" for what a test makes."""

    base: str
    static: str
    tmp: str

    @property
    def work(self) -> str:
        path = os.path.join(self.base, "work")
        os.makedirs(path, exist_ok=True)
        return path


@pytest.fixture(scope="session")
def rootfs() -> Iterator[str]:
    """A root file system of busybox; a test that changes it takes `own_rootfs`."""
    with tempfile.TemporaryDirectory(prefix="lp-root-", dir="/tmp") as directory:
        make_rootfs(directory)
        yield directory


def make_rootfs(directory: str) -> None:
    os.chmod(directory, 0o755)  # other users live in it too
    for name in ("bin", "dev", "etc", "home/worker", "proc", "root", "sys", "tmp"):
        os.makedirs(f"{directory}/{name}", exist_ok=True)
    os.chmod(f"{directory}/tmp", 0o1777)
    busybox = shutil.copy(needed("busybox"), f"{directory}/bin/busybox")
    subprocess.run([busybox, "--install", f"{directory}/bin"], check=True)
    for name, text in (("passwd", PASSWD), ("group", GROUP)):
        with open(f"{directory}/etc/{name}", "w", encoding="ascii") as file:
            file.write(text)


@pytest.fixture
def own_rootfs(dirs: Dirs) -> str:
    """A root file system that the test may change."""
    directory = f"{dirs.work}/rootfs"
    os.mkdir(directory)
    make_rootfs(directory)
    return directory


@pytest.fixture
def dirs() -> Iterator[Dirs]:
    with tempfile.TemporaryDirectory(prefix="lp-", dir="/tmp", ignore_cleanup_errors=True) as base:
        yield Dirs(base, f"{base}/static", f"{base}/tmp")


@pytest.fixture
def options(request: pytest.FixtureRequest, dirs: Dirs) -> dict[str, str]:
    """What a `Runtime` of this test is opened with."""
    chosen = {"static_dir": dirs.static, "tmp_dir": dirs.tmp}
    name = request.config.getoption("--oci-runtime")
    if name is not None:
        chosen["oci_runtime"] = needed(name)
    return chosen


@pytest.fixture
def oci_path(options: dict[str, str]) -> str:
    """The OCI runtime that the tests use."""
    with Runtime(**options) as runtime:
        return runtime._engine.oci.path


@pytest.fixture
def rt(options: dict[str, str]) -> Iterator[Runtime]:
    with Runtime(**options) as runtime:
        yield runtime
        remove_all(runtime)


def remove_all(runtime: Runtime) -> None:
    """What a test has no reason to remove itself; nothing where it has closed the runtime."""
    if runtime.get_config() is None:
        return
    # Whoever depends on another one goes first.
    for container in sorted(runtime.get_containers(), key=lambda c: -len(c.dependencies)):
        with suppress(ContainerRemoved):
            if container.state.status is Status.PAUSED:
                container.unpause()
            container.kill_and_remove()


@pytest.fixture
def box(rootfs: str) -> Spec:
    """A job; its stop signal is one that a first process cannot ignore, which saves the grace."""
    return Spec(rootfs=rootfs, stop_signal="KILL")


def containers_of(dirs: Dirs) -> list[str]:
    """IDs of the containers that have a directory."""
    return [
        name for name in os.listdir(f"{dirs.static}/storage/overlay-containers") if len(name) == 64
    ]


def await_output(container: Container, text: bytes, timeout: float = 20.0) -> None:
    """Waits until the container has written `text`."""
    deadline = time.monotonic() + timeout
    while text not in read_log(container):
        assert time.monotonic() < deadline, f"{container} did not write {text!r}"
        time.sleep(0.01)


def read_log(container: Container) -> bytes:
    with open(container.log_path, "rb") as log:
        return log.read()


# --- nothing left, nothing said ---------------------------------------------------


class Said(logging.Handler):
    """The library's warnings and errors; a test that provokes one expects it."""

    # What the host's own configuration files cause.
    _OF_THE_HOST = re.compile(r"is kept but has no effect|cgroup_manager: systemd is not built")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{record.name} {record.levelname}: {record.getMessage()}"
        if record.exc_info:
            line += f" ({record.exc_info[1]!r})"
        if not self._OF_THE_HOST.search(line):
            self.lines.append(line)

    def expect(self, pattern: str) -> None:
        """At least one line matched; those that did are accounted for."""
        matching = [line for line in self.lines if re.search(pattern, line)]
        assert matching, f"nothing logged matches {pattern!r}: {self.lines}"
        self.lines = [line for line in self.lines if line not in matching]

    def allow(self, pattern: str) -> None:
        """As `expect`, for what may be said or not."""
        self.lines = [line for line in self.lines if not re.search(pattern, line)]


@pytest.fixture
def said() -> Iterator[Said]:
    handler = Said()
    logger = logging.getLogger("libpod")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def census(dirs: Dirs, said: Said) -> Iterator[Census]:
    """Fails a test that left something behind, or made the library complain unexpectedly."""
    before = Census(dirs.base)
    yield before
    left = before.differences() + [f"logged: {line}" for line in said.lines]
    if left:
        before.clear()
        pytest.fail("\n".join(["the test left behind:", *left]), pytrace=False)


# --- programs that are not what they should be ---------------------------------------


@pytest.fixture
def script(dirs: Dirs) -> Callable[[str, str], str]:
    """Makes an executable shell script: `script(name, text)` is its path."""

    def make(name: str, text: str) -> str:
        path = f"{dirs.work}/{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, stat.S_IRWXU)
        return path

    return make


@pytest.fixture
def python(options: dict[str, str], rootfs: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts another Python that has `options` and `box` and runs a text; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, before: str = "", **arguments: Any) -> subprocess.Popen[str]:
        """`before` is a shell command for a mount namespace of its own."""
        prelude = (
            "import os, signal, sys, threading, time\n"
            "from libpod import *\n"
            f"options = {options!r}\n"
            f"box = Spec(rootfs={rootfs!r})\n"
            "def say(*words): print(*words, flush=True)\n"
        )
        prefix = ["unshare", "-m", "sh", "-c", f'{before} && exec "$@"', "sh"] if before else []
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", prelude + text],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **arguments,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
