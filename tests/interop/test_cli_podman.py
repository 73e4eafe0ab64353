# SPDX-License-Identifier: Apache-2.0
"""The same command lines for the real podman and for ours, each with its own root: the
same standard output, but for what differs by nature, and the same exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.interop.podman import Podman

PATIENCE = 60


class Done(NamedTuple):
    code: int
    out: str
    errors: int
    """How many lines on standard error begin with "Error: "."""


class Both:
    """podman and ours."""

    def __init__(self, podman: Podman) -> None:
        base = str(podman.directory)
        self.rootfs = f"{base}/rootfs"
        places = {"root": "root", "runroot": "run", "tmpdir": "tmp", "network-config-dir": "net"}
        self._env = {**os.environ, "CONTAINERS_CONF": f"{base}/containers.conf"}
        with open(f"{base}/libpod.conf", "w", encoding="ascii") as file:
            file.write(f'static_dir = "{base}/ours/libpod"\n')
        ours = [f"--{name}={base}/ours/{places[name]}" for name in ("root", "runroot", "tmpdir")]
        self._commands = (
            ["podman", *(f"--{name}={base}/{place}" for name, place in places.items())],
            [sys.executable, "-m", "libpod", f"--config={base}/libpod.conf", "--runtime=runc"]
            + ours,
        )
        self._base = base

    def each(self, *words: str) -> tuple[Done, Done]:
        """podman's and ours, as they are."""
        theirs, ours = (self._call(command, words) for command in self._commands)
        return theirs, ours

    def __call__(self, line: str) -> str:
        """Both do the same; what they print, without what differs by nature.  "ROOT" is
        the root file system."""
        words = [part.replace("ROOT", self.rootfs) for part in line.split()]
        theirs, ours = (self._plain(done) for done in self.each(*words))
        assert ours == theirs, line
        return ours.out

    def _call(self, command: list[str], words: tuple[str, ...]) -> Done:
        done = subprocess.run(
            [*command, *words],
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        errors = sum(line.startswith("Error: ") for line in done.stderr.splitlines())
        return Done(done.returncode, done.stdout, errors)

    def _plain(self, done: Done) -> Done:
        text = re.sub(r"\b[0-9a-f]{64}\b", "<ID>", done.out)
        text = re.sub(r"\b[0-9a-f]{12}\b", "<ID>", text)
        text = re.sub(r"\b(Less than a second|About a minute|\d+ seconds?) ago", "<AGE>", text)
        return done._replace(out=re.sub(r" {2,}", "  ", text))


@pytest.fixture
def both(fresh: Podman) -> Iterator[Both]:
    made = Both(fresh)
    busybox = shutil.copy(shutil.which("busybox") or "/bin/busybox", f"{made.rootfs}/bin/busybox")
    subprocess.run([busybox, "--install", f"{made.rootfs}/bin"], check=True)
    for name in ("dev", "etc", "proc", "sys", "tmp"):
        os.mkdir(f"{made.rootfs}/{name}")
    yield made
    made.each("rm", "--all", "--force", "--time", "0")


def run(name: str, command: str = "sleep 1000", flags: str = "-d") -> str:
    return f"run {flags} --name {name} --network none --rootfs ROOT {command}"


def create(name: str, flags: str = "", command: str = "sleep 1000") -> str:
    return f"create --name {name} --network none {flags} --rootfs ROOT {command}"


def test_the_life_of_a_container(both: Both) -> None:
    assert both(run("web")) == "<ID>\n"
    lines = both("ps").splitlines()
    assert lines[0].split() == "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES".split()
    assert lines[1].split("  ") == ["<ID>", "sleep 1000", "<AGE>", "Up <AGE>", "web"]
    for line in (
        "ps -a", "ps -q", "ps -aq --no-trunc", "ps --noheading", "ps --pod", "ps -l", "ps -n 1",
        "ps -a --no-trunc", "start web", "rm web", "rm nosuch", "rm nosuch web", "pause web",
        "pause web", "ps", "ps -a", "rm web", "restart web", "unpause web", "unpause web",
        "kill -s FOO web", "kill web", "wait web", "kill web", "ps -a", "stop web", "start web",
        "stop -t 0 web", "wait web", "wait web web", "restart -t 0 web", "stop -t 0 nosuch web",
        "stop -i -t 0 nosuch web", "rename web site", "rename web other", "rename site a/b",
        "container exists site", "container exists web", "start site", "rm -f -t 0 site",
        "rm site", "rm -i site", "rm -f site", "ps -a", "ps --format json", "inspect site",
    ):  # fmt: skip
        both(line)


def test_exit_codes_of_run(both: Both) -> None:
    for command in ("true", "false", "nosuch", "/etc"):
        both(run("", command, "--rm").replace("--name ", ""))
    both(run("kept", "sh -c exit", ""))
    both(run("kept", "true", ""))
    both("ps -a")
    both("start -a kept")
    both("wait kept")
    both("rm kept")
    theirs, ours = both.each(
        *("run", "--network", "none", "--name", "seven", "--rootfs", both.rootfs),
        *("sh", "-c", "echo out; echo err >&2; exit 7"),
    )
    assert theirs == ours == Done(7, "out\n", 0)
    both("ps -a --filter exited=7")


def test_several_at_once(both: Both) -> None:
    for name in ("one", "two", "three"):
        both(create(name))
    for line in (
        "kill one two", "start one two", "kill three one", "start one three", "pause one two",
        "pause three nosuch", "pause two three", "unpause one two three", "stop -t 0 one two three",
        "rm one nosuch", "rm one two three", "ps -aq",
    ):  # fmt: skip
        theirs, ours = both.each(*line.split())
        assert (ours.code, ours.errors) == (theirs.code, theirs.errors), line
        # podman does it to several at once, and names them as they come.
        assert sorted(ours.out.split()) == sorted(theirs.out.split()), line


def test_dependents(both: Both) -> None:
    both(create("one"))
    both(create("two", "--requires one"))
    both(create("three", "--requires two"))
    for line in ("rm one", "rm two", "rm --depend two", "ps -a --format {{.Names}}", "rm one"):
        both(line)
    both(create("four", "--requires nosuch"))


FILTERS = """
    name=^o name=[ name=two,name=one label=a label=a=1 label=b id=nosuch status=created
    status=exited status=foo exited=0 exited=foo nosuch=1 nosuch before=two since=two before=nosuch
    until=1h until=0s until=foo restart-policy=none restart-policy=no restart-policy=foo pod=nosuch
    volume=nosuch ancestor=nosuch volume=/tmp
""".split()


def test_filters_and_sorting(both: Both) -> None:
    both(create("one", "--label a=1 --volume /tmp:/data"))
    both(create("two", "--label a=2 --label b", "cat"))
    both(run("three", "true", "-d"))
    both("wait three")
    for text in FILTERS:
        both(f"ps -a --filter {text} --format {{{{.Names}}}}")
        both(f"ps --filter {text} --format {{{{.Names}}}}")
    both("ps -a --filter label=a --filter label=b --format {{.Names}}")
    both("ps -a --filter label=a --filter name=two --format {{.Names}}")
    for key in ("command", "created", "names"):  # podman's sorting is not stable
        both(f"ps -a --sort {key} --format {{{{.Names}}}}")
    both("ps -a --sort foo")
    both("start --filter name=one")
    both("stop -t 0 --filter name=one")
    both("rm --filter name=two")


FORMATS = (
    "{{.Names}}", "{{.ID}}\\t{{.Names}}", "table {{.ID}}\\t{{.Names}}\\t{{.Status}}",
    "table {{.ID}} {{.Names}} {{.RunningFor}}", "{{.Labels}} {{.Mounts}} {{.Networks}}|{{.Ports}}|",
    "{{.Exited}} {{.ExitedAt}} {{.ExitCode}} {{.IsInfra}} {{.AutoRemove}} {{.StartedAt}}",
    "{{json .Names}}", "{{.Command}} {{.Image}} {{.Pod}}{{.PodName}}", "{{.Foo}}", "plain",
    "table {{.ImageID}}", "table {{.CreatedHuman}}\\t{{.State}}\\t{{.Pid}}",
)  # fmt: skip


def test_formats(both: Both) -> None:
    # One mount: podman lists several in the random order of a map.
    both(create("one", "--label a=1 --label b=2 --volume /tmp:/data"))
    for form in FORMATS:
        if "ImageID" in form:
            continue  # podman fails where there is no image
        theirs, ours = both.each("ps", "-a", "--format", form)
        assert both._plain(theirs) == both._plain(ours), form
    for form in ("{{.Name}}", "{{.Id}} {{.State.Status}}", "{{.Config.Labels}}", "{{json .Name}}",
                 "{{.Config.Cmd}} {{.State.Running}}", "{{.Foo}}"):  # fmt: skip
        theirs, ours = both.each("inspect", "--format", form, "one")
        assert both._plain(theirs) == both._plain(ours), form


def test_json_of_ps(both: Both) -> None:
    both(run("web", flags="-d --label a=1 --volume /tmp:/data --rm"))
    both(create("new"))
    theirs, ours = both.each("ps", "-a", "--ns", "--format", "json")
    for mine, podmans in zip(json.loads(ours.out), json.loads(theirs.out), strict=True):
        assert list(mine) == list(podmans)
        assert set(mine["Namespaces"]) == set(podmans["Namespaces"])
        own = {"Id", "Pid", "Namespaces", "Created", "CreatedAt", "Status", "StartedAt"}
        for key in mine.keys() - own:
            assert mine[key] == podmans[key], key
        for key in own - {"Namespaces"}:
            assert type(mine[key]) is type(podmans[key]), key
    both("rm -f -t 0 web")
    both("ps -a --filter name=nosuch --format json")


def test_files(both: Both) -> None:
    both(create("one"))
    for line in ("mount nosuch", "mount --format foo", "umount", "umount nosuch", "export",
                 "export nosuch", "export -o /nonexistent/x one"):  # fmt: skip
        both(line)
    for done in both.each("export", "one", "-o", f"{both._base}/x.tar"):
        assert done == Done(0, "", 0)


WRONG = """
    stop|start|kill|pause|unpause|restart|rm|wait|rename one|container exists|umount|inspect
    stop -a -l|stop -l one|stop -a one|kill -a one|rm -a one|rm -l one|start --all --attach
    start --all one|start -a one two|stop --filter name=one one|ps one|ps -l -n 2|ps -q --size
    ps -q --ns|ps --size --ns|ps -w 1 -l|ps --foo|container foo|container|foo|system foo
    inspect -l one|inspect --type foo one|wait --condition foo one|stop --time x one
    wait --condition running -i x one|stop --cidfile /nonexistent one|kill --signal 9x one|run -x
    create --rootfs /nonexistent true|create --rootfs ROOT|create --cidfile /etc/passwd ENDS
    create --mount type=foo ENDS|create --mount type=bind ENDS|create --ipc foo ENDS
    create --add-host foo ENDS|create --shm-size foo ENDS|create --requires nosuch ENDS
    create --label-file /nonexistent ENDS|create --env-file /nonexistent ENDS|create --replace ENDS
    create --stop-signal FOO ENDS|create --log-driver foo ENDS|create --restart foo ENDS
    create --pull foo ENDS|create --name a/b ENDS|create --pid container:nosuch ENDS
    create --name one ENDS
"""


def test_what_is_refused(both: Both) -> None:
    both(create("one"))
    ends = "--network none --rootfs ROOT true"
    for line in re.split(r"\||\n *", WRONG.strip().replace("ENDS", ends)):
        theirs, ours = both.each(*(p.replace("ROOT", both.rootfs) for p in line.split()))
        assert (ours.code, ours.errors) == (theirs.code, theirs.errors), line
        if line != "container":  # podman shows its help
            assert ours.out == theirs.out, line


def test_a_cidfile(both: Both) -> None:
    path = f"{both._base}/cid"
    for command in both._commands:
        words = ("create", "--network", "none", "--cidfile", path, "--rootfs", both.rootfs, "true")
        made = both._call(command, words)
        with open(path, encoding="ascii") as file:
            assert file.read() == made.out.strip()
        assert both._call(command, words) == Done(125, "", 1)
        assert both._call(command, ("rm", "--cidfile", path)) == Done(0, made.out, 0)
        if os.path.exists(path):
            os.unlink(path)


def test_replacing(both: Both) -> None:
    both(create("one", "--replace"))
    assert both(create("one", "--replace")) == "one\n<ID>\n"
    both(create("one"))
    both("rm one")
