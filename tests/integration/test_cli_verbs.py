# SPDX-License-Identifier: Apache-2.0
"""The `libpod` command's verbs: containers that one process creates and others list,
stop, wait for and remove."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from conftest import Dirs, Runtime

pytestmark = pytest.mark.any_runtime

PATIENCE = 60.0
"""Seconds that anything here may take."""

FULL_ID = re.compile(r"[0-9a-f]{64}")


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def words(self) -> list[str]:
        return self.out.split()


Cli = Callable[..., Done]


@pytest.fixture
def command(options: dict[str, str], dirs: Dirs) -> list[str]:
    """`libpod` with the test's own directories and none of the host's configuration."""
    config = f"{dirs.work}/libpod.conf"
    with open(config, "w", encoding="utf-8") as file:
        for name in ("static_dir", "tmp_dir"):
            file.write(f"{name} = {json.dumps(options[name])}\n")
    runtime = ["--runtime", options["oci_runtime"]] if "oci_runtime" in options else []
    return [sys.executable, "-m", "libpod", "--config", config, *runtime]


@pytest.fixture
def cli(command: list[str]) -> Iterator[Cli]:
    """`cli("ps", "-a")`: the command to its end; what is left of containers goes at the end."""

    def call(*words: str) -> Done:
        done = subprocess.run(
            [*command, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    yield call
    assert call("rm", "--all", "--force", "--time", "0").err == ""


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


# --- one shell and another ------------------------------------------------------------------


def test_what_one_shell_starts_another_ends(cli: Cli, rootfs: str) -> None:
    begun = cli("run", "-d", "--name", "web", "--rootfs", rootfs, "sleep", "1000")
    assert (begun.code, begun.err) == (0, "")
    container_id = begun.out.strip()
    assert FULL_ID.fullmatch(container_id)
    listed = cli("ps")
    heads, line = listed.out.splitlines()
    assert heads.split() == "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES".split()
    assert re.fullmatch(rf"{container_id[:12]} +sleep 1000 +.* ago +Up .* ago +web", line)
    (shown,) = json.loads(cli("inspect", "web").out)
    assert (shown["Id"], shown["Name"], shown["State"]["Status"]) == (
        container_id,
        "web",
        "running",
    )
    os.kill(shown["State"]["Pid"], 0)
    assert cli("stop", "--time", "1", "web") == (0, "web\n", "")
    assert cli("wait", "web") == (0, "137\n", "")
    assert re.search(r"Exited \(137\) .* ago", cli("ps", "-a").out)
    assert cli("rm", "web") == (0, "web\n", "")
    assert cli("ps", "-aq") == (0, "", "")
    assert cli("system", "audit") == (0, "", "")


def test_a_short_one_in_the_background_leaves_nothing(cli: Cli, rootfs: str, dirs: Dirs) -> None:
    done = cli("run", "-d", "--rm", "--rootfs", rootfs, "true")
    container_id = done.out.strip()
    until(lambda: container_id not in os.listdir(f"{dirs.static}/storage/overlay-containers"))
    assert cli("ps", "-aq") == (0, "", "")


def test_start_again_in_the_foreground(cli: Cli, rootfs: str) -> None:
    words = ["--name", "job", "--rootfs", rootfs, "sh", "-c", "echo out; echo err >&2; exit 7"]
    assert FULL_ID.fullmatch(cli("create", *words).out.strip())
    assert cli("start", "--attach", "job") == (7, "out\n", "err\n")
    assert cli("start", "job") == (0, "job\n", "")
    assert cli("wait", "job") == (0, "7\n", "")
    assert cli("start", "-a", "job").code == 7
    assert cli("ps", "-a", "--filter", "exited=7", "--format", "{{.Names}}").out == "job\n"
    assert cli("rm", "job").code == 0


def test_run_without_rm_leaves_its_container(cli: Cli, rootfs: str) -> None:
    done = cli("run", "--name", "kept", "--rootfs", rootfs, "sh", "-c", "exit 3")
    assert done == (3, "", "")
    (row,) = json.loads(cli("ps", "-a", "--format", "json").out)
    assert (row["Names"], row["State"], row["ExitCode"]) == (["kept"], "exited", 3)
    assert cli("rm", "kept").code == 0
    assert cli("run", "--rm", "--rootfs", rootfs, "nosuchcommand").code == 127
    assert cli("run", "--rm", "--rootfs", rootfs, "/etc").code == 126
    assert cli("ps", "-aq").out == ""


# --- the state machine -----------------------------------------------------------------------


def test_pause_kill_and_restart(cli: Cli, rootfs: str) -> None:
    cli("run", "-d", "--name", "web", "--rootfs", rootfs, "sleep", "1000")
    assert cli("pause", "web") == (0, "web\n", "")
    assert cli("ps", "-aq", "--filter", "status=paused").words != []
    assert cli("ps", "-q").out == ""
    assert cli("pause", "web").code == 125
    assert cli("rm", "web").code == 2
    assert cli("restart", "web").code == 125
    assert cli("unpause", "--all").code == 0
    assert cli("rm", "web").code == 2
    before = cli("inspect", "-f", "{{.State.Pid}}", "web").out
    assert cli("restart", "-t", "0", "web") == (0, "web\n", "")
    assert cli("inspect", "-f", "{{.State.Pid}}", "web").out != before
    assert cli("kill", "--signal", "KILL", "web") == (0, "web\n", "")
    assert cli("wait", "web") == (0, "137\n", "")
    assert cli("kill", "web").code == 125
    assert cli("stop", "web") == (0, "web\n", "")
    assert cli("pause", "web").code == 125
    cli("start", "web")
    assert cli("pause", "web").code == 0
    assert cli("rm", "-f", "-t", "0", "web") == (0, "web\n", "")


def test_stop_keeps_to_its_time(cli: Cli, rootfs: str) -> None:
    deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
    names = ["c2", "c0", "c3", "c1"]
    for name in sorted(names):
        cli("run", "-d", "--name", name, "--stop-timeout", "4", "--rootfs", rootfs, *deaf)
    began = time.monotonic()
    done = cli("stop", *names)
    took = time.monotonic() - began
    assert (done.code, done.words) == (0, names)
    assert 4 <= took < 4 * len(names)  # at once, not one after the other
    assert cli("wait", "c0", "c1").words == ["137", "137"]


def test_stop_without_an_end(cli: Cli, rootfs: str, dirs: Dirs) -> None:
    heard = ["sh", "-c", "trap 'exit 5' TERM; : >/mark/up; while :; do sleep 0.1; done"]
    cli("run", "-d", "--name", "ok", "-v", f"{dirs.work}:/mark", "--rootfs", rootfs, *heard)
    until(lambda: os.path.exists(f"{dirs.work}/up"))
    assert cli("stop", "--time", "-1", "ok").code == 0
    assert cli("wait", "ok").out == "5\n"


def test_a_container_that_others_need(cli: Cli, rootfs: str) -> None:
    cli("create", "--name", "one", "--rootfs", rootfs, "sleep", "100")
    cli("create", "--name", "two", "--requires", "one", "--rootfs", rootfs, "sleep", "100")
    refused = cli("start", "two")
    assert (refused.code, refused.out) == (125, "")
    assert cli("start", "one", "two").words == ["one", "two"]
    assert cli("rm", "-f", "-t", "0", "one").code == 125
    assert cli("rm", "-f", "-t", "0", "--depend", "one").code == 0
    assert cli("ps", "-aq").out == ""


def test_namespaces_of_another(cli: Cli, rootfs: str) -> None:
    cli("run", "-d", "--name", "main", "--hostname", "box", "--rootfs", rootfs, "sleep", "100")
    inside = ["sh", "-c", "cd /proc/self/ns; readlink net; readlink ipc; ps; hostname"]
    flags = [f"--{kind}=container:main" for kind in ("network", "ipc", "pid", "uts")]
    done = cli("run", "--rm", *flags, "--rootfs", rootfs, *inside)
    pid = cli("inspect", "-f", "{{.State.Pid}}", "main").out.strip()
    expected = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "ipc")]
    assert done.out.splitlines()[:2] == expected
    assert "sleep 100" in done.out
    assert done.words[-1] == "box"


# --- files -------------------------------------------------------------------------------------


def test_files_of_a_container(cli: Cli, rootfs: str, dirs: Dirs) -> None:
    cli("create", "--name", "web", "--rootfs", rootfs, "true")
    assert cli("mount", "web") == (0, f"{rootfs}\n", "")
    assert cli("umount", "web").code == 0
    assert cli("export", "-o", f"{dirs.work}/web.tar", "web") == (0, "", "")
    with tarfile.open(f"{dirs.work}/web.tar") as archive:
        assert "bin/busybox" in {name.removeprefix("./") for name in archive.getnames()}
    assert cli("export", "web", "-o", "/nonexistent/x.tar").code == 125


def test_an_export_to_a_pipe_that_closes(command: list[str], cli: Cli, rootfs: str) -> None:
    cli("create", "--name", "web", "--rootfs", rootfs, "true")
    read, write = os.pipe()
    process = subprocess.Popen([*command, "export", "web"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert os.read(read, 512)[257:262] == b"ustar"
    os.close(read)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGPIPE
    assert err == b""


def test_what_is_written_for_others(cli: Cli, rootfs: str, dirs: Dirs) -> None:
    files = {name: f"{dirs.work}/{name}" for name in ("cidfile", "pidfile", "conmon-pidfile")}
    flags = [f"--{name}={path}" for name, path in files.items()]
    done = cli("run", "-d", "--name", "web", *flags, "--rootfs", rootfs, "sleep", "100")
    text = {name: open(path, encoding="ascii").read() for name, path in files.items()}
    assert text["cidfile"] == done.out.strip()
    pid = cli("inspect", "-f", "{{.State.Pid}}", "web").out.strip()
    assert text["pidfile"].strip() == pid
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        assert file.read().rpartition(")")[2].split()[1] == text["conmon-pidfile"].strip()
    assert cli("stop", "-t", "0", "--cidfile", files["cidfile"]).out == done.out
    again = cli("create", "--cidfile", files["cidfile"], "--rootfs", rootfs, "true")
    assert (again.code, again.out) == (125, "")


# --- names ----------------------------------------------------------------------------------------


def test_names_prefixes_and_replacing(cli: Cli, rootfs: str) -> None:
    first = cli("create", "--name", "one", "--rootfs", rootfs, "true").out.strip()
    taken = cli("create", "--name", "one", "--rootfs", rootfs, "true")
    assert (taken.code, taken.out) == (125, "")
    assert first in taken.err
    replaced = cli("create", "--replace", "--name", "one", "--rootfs", rootfs, "true")
    name, second = replaced.words
    assert (name, second != first) == ("one", True)
    assert cli("container", "exists", first).code == 1
    assert cli("exists", second[:13]).code == 0
    assert cli("rename", "one", "two") == (0, "", "")
    assert cli("inspect", "-f", "{{.Name}}", second).out == "two\n"
    assert cli("rm", second[:13]) == (0, f"{second[:13]}\n", "")


def test_the_store_of_others_is_shown(cli: Cli, rootfs: str, options: dict[str, str]) -> None:
    cli("create", "--name", "ours", "--rootfs", rootfs, "true")
    with Runtime(**options) as runtime:
        runtime.store.create_container("f" * 64, "theirs")
        try:
            form = ["--format", "{{.Names}} {{.Status}}"]
            assert cli("ps", "-a", *form).out == "ours Created\n"
            assert set(cli("ps", "-a", "--external", *form).out.splitlines()) == {
                "ours Created",
                "theirs Storage",
            }
            assert cli("exists", "--external", "theirs").code == 0
        finally:
            runtime.store.delete_container("f" * 64)


def test_clean_up_by_hand_finds_nothing_to_do(cli: Cli, rootfs: str) -> None:
    cli("run", "-d", "--name", "web", "--rootfs", rootfs, "true")
    cli("wait", "web")
    assert cli("container", "cleanup", "web") == (0, "web\n", "")
    assert cli("container", "cleanup", "--rm", "web").code == 0
    assert cli("container", "cleanup", "web").code == 0  # whoever comes first does it
    assert cli("exists", "web").code == 1
