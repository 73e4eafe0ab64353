# SPDX-License-Identifier: Apache-2.0
"""The command line's verbs over a runtime without a host: which containers they are
about, what is done to them, what is printed, and the exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from libpod.cli import main, mounts, output, times
from libpod.cli.filters import Filters
from libpod.cli.run import parser as run_parser
from libpod.cli.view import View
from libpod.errors import InvalidArgument, LibpodError, NotBuilt
from libpod.job import Mount
from libpod.state.handles import ContainerRecord, PodRecord
from libpod.state.records import ContainerStatus as Status
from libpod.state.records import PodConfig
from libpod.storage import StorageContainer
from tests.unit.fakes import SECOND, FakeRuntime

NOW = time.time_ns()
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


class Done(NamedTuple):
    code: int
    out: list[str]
    err: list[str]


@pytest.fixture
def rt(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    made = FakeRuntime()
    clock = SimpleNamespace(time=lambda: NOW / SECOND, sleep=time.sleep)
    monkeypatch.setattr("libpod.cli.ps.time", clock)
    monkeypatch.setattr("libpod.runtime.Runtime", made)
    return made


Cli = Callable[..., Done]


@pytest.fixture
def cli(rt: FakeRuntime, capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*words: str) -> Done:
        code = main(words)
        out, err = capsys.readouterr()
        return Done(code, out.splitlines(), err.splitlines())

    return call


@pytest.fixture
def three(rt: FakeRuntime) -> FakeRuntime:
    """A created, a running and an exited container, in the order of their creation."""
    rt.add("web", Status.RUNNING, id=B, created=NOW - 90 * SECOND, pid=77, labels={"tier": "front"},
           command=["sleep", "1000"], started=NOW - 5 * SECOND)  # fmt: skip
    rt.add("job", Status.EXITED, id=A, created=NOW - 60 * SECOND, exit_code=7, exited=True,
           finished=NOW - 180 * SECOND, labels={"tier": "back", "x": ""})  # fmt: skip
    rt.add("new", id=C, created=NOW - 5 * SECOND, command=["echo", "a command that is too long"])
    return rt


# --- which containers, and the report ----------------------------------------------------


def test_what_was_typed_is_echoed(three: FakeRuntime, cli: Cli) -> None:
    assert cli("stop", "web") == (0, ["web"], [])
    assert cli("start", "b" * 12) == (0, ["b" * 12], [])
    assert cli("kill", "-l").code == 125  # the last one does not run
    assert cli("stop", "--all").out == [A, B, C]


NAMING = "stop kill restart pause unpause start wait rm rename exists mount umount export".split()


@pytest.mark.parametrize("verb", NAMING)
def test_a_name_that_is_not_there_ends_it_before_anything_is_done(
    three: FakeRuntime, cli: Cli, verb: str
) -> None:
    words = {"rename": ["nosuch", "x"], "exists": ["nosuch"], "export": ["-o", "x", "nosuch"]}
    done = cli(verb, *words.get(verb, ["web", "nosuch"]))
    assert done.code == {"rm": 1, "exists": 1}.get(verb, 125)
    assert done.out == []
    assert [line.startswith("Error: ") for line in done.err] == [True] * (verb != "exists")
    assert three.calls() == {}


def test_what_fails_does_not_keep_the_others_and_is_told_after_them(
    three: FakeRuntime, cli: Cli
) -> None:
    done = cli("pause", "job", "web", "new")
    assert (done.code, done.out) == (125, ["web"])
    assert [A in done.err[0], C in done.err[1]] == [True, True]
    assert cli("kill", "job", "web") == (125, [], done.err[:0] + cli("kill", "job", "web").err)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["stop"], "you must provide at least one name or id"),
        (["start"], "start requires at least one argument"),
        (["wait"], '"libpod wait" requires a name, id, or the "--latest" flag'),
        (["stop", "-a", "-l"], "--all and --latest cannot be used together"),
        (["stop", "-a", "web"], "no arguments are needed with --all"),
        (["stop", "-l", "web"], "--latest and containers cannot be used together"),
        (["rm", "--cidfile", "x", "-a"], "--all, --latest, and --cidfile cannot be used together"),
        (["stop", "--cidfile", "/nonexistent/x"], "reading CIDFile: /nonexistent/x: No such file"),
        (["stop", "--filter", "name=x", "web"], "--filter takes no arguments"),
        (["stop", "--time", "x", "web"], "--time: must be an integer, found 'x'"),
        (["kill", "-s", "FOO", "web"], "'FOO': is not a signal"),
        (["kill", "--filter", "name=x"], "unknown flag: --filter"),
        (["start", "--all", "web"], "either start all containers or the container(s) provided"),
        (["start", "--all", "--attach"], "you cannot start and attach all containers at once"),
        (["start", "-a", "web", "job"], "you cannot start and attach multiple containers at once"),
        (["start", "--sig-proxy", "web"], "you cannot use sig-proxy without --attach"),
        (["start", "-a", "web"], "attaching to it is not built yet"),
        (["rm", "-t", "1", "web"], "--force option must be specified to use the --time option"),
        (["rename", "web"], "accepts 2 arg(s), received 1"),
        (["container", "exists"], "accepts 1 arg(s), received 0"),
        (["exists", ""], "name or ID cannot be empty"),
        (["mount", "--format", "foo"], 'unknown --format argument: "foo"'),
        (["export"], "accepts 1 arg(s), received 0"),
        (["inspect"], "no names or ids specified"),
        (["inspect", "-l", "web"], "--latest and arguments cannot be used together"),
        (["inspect", "--type", "foo", "web"], 'invalid type "foo"'),
        (["inspect", "--type", "image", "web"], "--type=image is not built yet"),
        (["wait", "--condition", "foo", "web"], "unknown container state: foo"),
        (["wait", "--condition", "healthy", "web"], "--condition healthy is not built yet"),
        (["wait", "--condition", "running", "-i", "x", "web"], "invalid duration 'x'"),
        (["ps", "x"], "`libpod ps` takes no arguments"),
        (["ps", "-l", "-n", "2"], "last and latest are mutually exclusive"),
        (["ps", "-q", "--ns"], "quiet conflicts with size and namespace"),
        (["ps", "--size", "--ns"], "size and namespace options conflict"),
        (["ps", "-w", "1", "-l"], "the watch and latest flags cannot be used together"),
        (["ps", "--sort", "foo"], "--sort: invalid choice: 'foo'"),
        (["system", "audit", "x"], "`libpod system audit` takes no arguments"),
        (["container", "cleanup"], "you must provide at least one name or id"),
        (["container", "cleanup", "--exec", "x"], "the flag --exec is not built yet"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_one_line_and_125(
    three: FakeRuntime, cli: Cli, words: list[str], complaint: str
) -> None:
    done = cli(*words)
    assert (done.code, done.out, len(done.err)) == (125, [], 1)
    assert done.err[0].startswith("Error: ")
    assert complaint in done.err[0]
    assert three.calls() == {}


def test_a_file_with_an_id_chooses_it(three: FakeRuntime, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "id").write_text(f"{B}\nmore\n")
    assert cli("stop", "--cidfile", str(tmp_path / "id")) == (0, [B], [])


def test_filters_choose_for_verbs_too(three: FakeRuntime, cli: Cli) -> None:
    assert cli("stop", "--filter", "label=tier=front") == (0, [B], [])
    assert cli("start", "-f", "status=exited") == (0, [A, B], [])
    assert cli("rm", "--filter", "name=new") == (0, [C], [])


def test_all_means_those_for_which_it_makes_sense(three: FakeRuntime, cli: Cli) -> None:
    assert cli("pause", "--all").out == [B]
    assert cli("kill", "--all").out == []
    assert cli("unpause", "-a").out == [B]
    assert cli("kill", "-a", "-s", "HUP").out == [B]
    assert three.made[B].calls[-1] == ("kill", 1)
    assert cli("restart", "--running").out == [B]
    assert cli("restart", "--all").out == [A, B, C]


# --- one verb after the other ------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "grace"), [([], None), (["-t", "0"], 0.0), (["--time", "3"], 3.0), (["-t-1"], 1e9)]
)
def test_stop_has_its_time(
    three: FakeRuntime, cli: Cli, flags: list[str], grace: float | None
) -> None:
    assert cli("stop", *flags, "web").code == 0
    assert three.made[B].calls == [("stop", grace)]


def test_stop_of_what_does_not_run_is_no_error(three: FakeRuntime, cli: Cli) -> None:
    assert cli("stop", "job", "new") == (0, ["job", "new"], [])
    assert cli("stop", "-i", "nosuch", "web") == (0, ["web"], [])
    cli("start", "web")
    cli("pause", "web")
    assert cli("stop", "web").code == 125


def test_start_says_nothing_of_what_runs(three: FakeRuntime, cli: Cli) -> None:
    assert cli("start", "web", "job") == (0, ["job"], [])
    assert three.made[A].calls == [("start", True)]
    assert cli("start", "--all").out == [A, B, C]


def test_wait_prints_codes_in_the_order_of_the_names(three: FakeRuntime, cli: Cli) -> None:
    assert cli("wait", "job", "new", "job") == (0, ["7", "0", "7"], [])
    assert cli("wait", "--ignore", "nosuch", "job") == (0, ["-1", "7"], [])
    assert cli("wait", "--condition", "running", "web") == (0, ["-1"], [])
    assert cli("wait", "--condition", "created,exited", "-i", "1ms", "job") == (0, ["7"], [])
    assert cli("wait", "--condition", "stopped", "job") == (0, ["7"], [])
    assert cli("wait", "-l") == (0, ["0"], [])


@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (["job"], 0, ["job"]),
        (["web"], 2, []),
        (["job", "web"], 2, ["job"]),
        (["-f", "web"], 0, ["web"]),
        (["-f", "-t", "0", "web"], 0, ["web"]),
        (["nosuch"], 1, []),
        (["-i", "nosuch", "job"], 0, ["job"]),
        (["-f", "nosuch", "job"], 0, ["job"]),
        (["-f", "--all"], 0, [A, B, C]),
        (["--all"], 2, [A, C]),
        (["-v", "job"], 0, ["job"]),
    ],
)
def test_rm_tells_by_its_exit_code_what_kept_it(
    three: FakeRuntime, cli: Cli, words: list[str], code: int, out: list[str]
) -> None:
    done = cli("rm", *words)
    assert (done.code, done.out) == (code, out)
    assert bool(done.err) == bool(code)


def test_rm_gives_a_container_its_time_and_ends_one_that_is_paused(
    three: FakeRuntime, cli: Cli
) -> None:
    assert cli("pause", "web").code == 0
    assert cli("rm", "web").code == 2
    assert cli("rm", "-f", "-t", "4", "web").code == 0
    verbs = [call[0] for call in three.made[B].calls]
    assert verbs == ["pause", "remove", "unpause", "stop", "remove"]
    assert three.made[B].calls[3] == ("stop", 4.0)


def test_rm_takes_dependents_first(rt: FakeRuntime, cli: Cli) -> None:
    rt.add("one", id=A)
    rt.add("two", id=B, dependencies=[A])
    rt.add("three", id=C, dependencies=[B])
    refused = cli("rm", "two")
    assert (refused.code, refused.out) == (125, [])
    assert cli("rm", "one", "three", "two") == (0, ["three", "two", "one"], [])
    rt.add("one", id=A)
    rt.add("two", id=B, dependencies=[A])
    assert cli("rm", "--depend", "one") == (0, [B, A], [])


def test_rm_of_volumes_is_refused_where_there_are_any(rt: FakeRuntime, cli: Cli) -> None:
    rt.add("one", named_volumes=[{"volumeName": "v", "dest": "/v"}])
    assert "not built" in cli("rm", "-v", "one").err[0]
    assert cli("rm", "one").code == 0


def test_one_that_goes_meanwhile(three: FakeRuntime, cli: Cli) -> None:
    three.made[A].gone = True
    assert cli("stop", "job").code == 125
    assert cli("stop", "--ignore", "job") == (0, ["job"], [])
    assert cli("rm", "--all", "--force").code == 0


def test_rename(three: FakeRuntime, cli: Cli) -> None:
    assert cli("rename", "web", "site") == (0, [], [])
    assert cli("container", "exists", "site").code == 0
    assert cli("exists", "web").code == 1
    assert cli("rename", "site", "job").code == 125


def test_exists_in_the_store(rt: FakeRuntime, cli: Cli) -> None:
    rt.strangers.append(StorageContainer(A, ("other",), "", "", "", None))
    assert cli("exists", "other").code == 1
    assert cli("exists", "--external", "other").code == 0
    assert cli("exists", "--external", A).code == 0
    assert cli("exists", "--external", "nosuch").code == 1


def test_mount_and_unmount(three: FakeRuntime, cli: Cli) -> None:
    assert cli("mount") == (0, [], [])
    assert cli("mount", "web", "job") == (0, ["/mnt/web", "/mnt/job"], [])
    three.made[B]._become(Status.PAUSED, mounted=True, mount_point="/m")
    assert cli("mount") == (0, ["bbbbbbbbbbbb  /m"], [])
    assert cli("mount", "--no-trunc") == (0, [f"{B}  /m"], [])
    listed = json.loads("".join(cli("mount", "--format", "json").out))
    assert listed == [{"id": B, "Names": ["web"], "mountpoint": "/m"}]
    done = cli("mount", "web", "job")
    assert (done.code, done.out, len(done.err)) == (125, ["/mnt/job"], 1)
    assert cli("umount", "-f", "--all") == (0, [B], [])
    assert three.made[B].calls[-1] == ("unmount", True)


def test_export(three: FakeRuntime, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "web", "-o", str(tmp_path / "x.tar")) == (0, [], [])
    assert (tmp_path / "x.tar").read_bytes() == b"tar"


def test_inspect(three: FakeRuntime, cli: Cli) -> None:
    done = cli("inspect", "web", "new")
    assert [entry["Name"] for entry in json.loads("\n".join(done.out))] == ["web", "new"]
    assert done.out[1:3] == ["     {", f'          "Id": "{B}",']
    assert cli("inspect", "nosuch") == (
        125, ["[]"], ['Error: inspecting object: no such object: "nosuch"'])  # fmt: skip
    assert cli("container", "inspect", "nosuch").err == [
        "Error: inspecting object: no such container nosuch"]  # fmt: skip
    done = cli("inspect", "nosuch", "web", "-f", "{{.Name}} {{.State.Status}} {{.Config.Labels}}")
    assert (done.code, done.out) == (125, ["web running map[tier:front]"])
    assert cli("inspect", "-l", "-s", "--format", "{{.SizeRw}}").out == ["1500"]
    assert cli("inspect", "-f", "{{.Nope}}", "web").code == 125


# --- ps ------------------------------------------------------------------------------------


def test_ps(three: FakeRuntime, cli: Cli) -> None:
    head, line = cli("ps").out
    assert head == (
        "CONTAINER ID  IMAGE       COMMAND     CREATED             STATUS            PORTS       "
        "NAMES"
    )
    assert re.fullmatch(
        r"b{12} {14}sleep 1000  About a minute ago  Up \d seconds ago {14}web", line
    )
    done = cli("ps", "--all")
    assert [line.split()[-1] for line in done.out] == ["NAMES", "web", "job", "new"]
    assert "Exited (7) 3 minutes ago" in done.out[2]
    assert re.search(r"echo a command th\.\.\.  \d+ seconds ago +Created", done.out[3])
    assert three.made[A].calls == []


@pytest.mark.parametrize("words", [["ps"], ["container", "ls"], ["container", "list"]])
def test_ps_has_other_names(three: FakeRuntime, cli: Cli, words: list[str]) -> None:
    assert cli(*words, "-q") == (0, ["b" * 12], [])


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("", "web"),
        ("-a", "web job new"),
        ("-l", "new"),
        ("-n 2", "job new"),
        ("-n 0", "web"),
        ("--last 9", "web job new"),
        ("-a --sort names", "job new web"),
        ("-a --sort id", "job web new"),
        ("-a --sort command", "new web job"),
        ("-a --sort status", "new job web"),
        ("-f status=exited", "job"),
        ("-f name=new", ""),
        ("-a -f name=new,name=eb", "web new"),
        ("-a -f name=new -f status=running", ""),
        ("-n 2 -f label=tier", "web job"),
    ],
)
def test_ps_chooses_and_sorts(three: FakeRuntime, cli: Cli, flags: str, names: str) -> None:
    done = cli("ps", "--format", "{{.Names}}", *flags.split())
    assert (done.code, done.out) == (0, names.split())


def test_ps_in_other_forms(three: FakeRuntime, cli: Cli) -> None:
    assert cli("ps", "-aq", "--no-trunc") == (0, [B, A, C], [])
    assert cli("ps", "-q", "-f", "name=nosuch") == (0, [], [])
    assert cli("ps", "--noheading").out[0].startswith("bbbbbbbbbbbb  ")
    assert cli("ps", "--noheading", "-f", "name=nosuch").out == []
    assert cli("ps", "--format", r"table {{.ID}}\t{{.RunningFor}}").out == [
        "CONTAINER ID  RUNNING FOR",
        "bbbbbbbbbbbb  About a minute ago",
    ]
    assert cli("ps", "--format", "{{.Labels}} {{.Command}} {{.Pid}}").out == [
        "map[tier:front] sleep 1000 77"
    ]
    assert cli("ps", "--ns").out[0].split() == (
        "CONTAINER ID NAMES PID CGROUPNS IPC MNT NET PIDNS USERNS UTS".split())  # fmt: skip
    assert cli("ps", "--pod").out[0].endswith("NAMES       POD ID      PODNAME")
    assert cli("ps", "--size").out[1].endswith("1.5kB (virtual 0B)")
    assert "is an unknown" not in "".join(cli("ps", "--format", "{{.Nope}}").err)
    assert cli("ps", "--format", "{{.Nope}}").code == 125


PS_KEYS = """
    AutoRemove Command CreatedAt Exited ExitedAt ExitCode Id Image ImageID IsInfra Labels Mounts
    Names Namespaces Networks Pid Pod PodName Ports Size StartedAt State Status Created
""".split()


@pytest.mark.parametrize("form", ["json", "{{json .}}"])
def test_ps_as_json(three: FakeRuntime, cli: Cli, form: str) -> None:
    rows = json.loads("\n".join(cli("ps", "-a", "--format", form).out))
    assert [list(row) for row in rows] == [PS_KEYS] * 3
    web, job, new = rows
    assert (web["Id"], web["Names"], web["State"], web["Pid"]) == (B, ["web"], "running", 77)
    assert web["Created"] == (NOW - 90 * SECOND) // SECOND
    assert (web["Labels"], new["Labels"]) == ({"tier": "front"}, None)
    assert (job["Exited"], job["ExitCode"], job["State"]) == (True, 7, "exited")
    assert (new["StartedAt"], new["ExitedAt"], new["Status"]) == (-62135596800,) * 2 + ("Created",)


def test_ps_of_nothing_as_json_is_an_empty_list(rt: FakeRuntime, cli: Cli) -> None:
    assert cli("ps", "--format", "json") == (0, ["[]"], [])


def test_ps_shows_ports_and_what_is_removed_at_its_end(rt: FakeRuntime, cli: Cli) -> None:
    port = {"host_ip": "", "container_port": 80, "host_port": 8080, "range": 1, "protocol": "tcp"}
    more = {**port, "host_ip": "1.2.3.4", "range": 3, "protocol": "udp"}
    rt.add("one", port_mappings=[port, more],
           annotations={"io.podman.annotations.autoremove": "TRUE"})  # fmt: skip
    assert cli("ps", "-a", "--format", "{{.Ports}}|{{.AutoRemove}}").out == [
        "0.0.0.0:8080->80/tcp, 1.2.3.4:8080-8082->80-82/udp|true"
    ]


def test_ps_shows_the_store_of_others(rt: FakeRuntime, cli: Cli) -> None:
    metadata = '{"image-name":"docker.io/library/alpine:latest"}'
    rt.add("ours", id=A, created=NOW)
    rt.strangers.append(StorageContainer(A, ("ours",), "", "", "", None))
    rt.strangers.append(StorageContainer(B, ("build",), C, "", metadata, NOW + 1))
    rt.strangers.append(StorageContainer(C, (), "", "", "[", None))
    form = "{{.Names}} {{.Image}} {{.Command}} {{.Status}}"
    assert cli("ps", "-a", "--external", "--format", form).out == [
        "unknown  storage Storage",
        "ours  true Created",
        "build docker.io/library/alpine:latest storage Storage",
    ]
    assert cli("ps", "-aq").out == ["a" * 12]


def test_ps_lists_the_others_where_one_record_is_bad(three: FakeRuntime, cli: Cli) -> None:
    record = three.state.all_containers()[0]
    with three.state._begin(write=True) as tx:
        tx.bucket(b"ctr").bucket(record.id.encode()).put(b"config", b"{")
    done = cli("ps", "-a", "--format", "{{.Names}}")
    assert (done.code, done.out, len(done.err)) == (125, ["web", "new"], 1)
    assert record.id in done.err[0]


def test_ps_decodes_no_more_than_it_shows(three: FakeRuntime, cli: Cli) -> None:
    assert cli("ps", "-aq").code == 0
    before = three.glances
    assert cli("ps", "-aq", "-f", "name=web").out == ["b" * 12]
    assert three.glances - before == 1


def test_only_what_a_verb_needs_is_loaded() -> None:
    text = (
        "import sys\nfrom libpod.cli import main\n"
        "assert main(['ps', '--help']) == 0\n"
        "print(*[name for name in sys.modules if name.startswith('libpod')])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    unneeded = {"create", "run", "containers", "inspect", "files", "audit", "system", "filters"}
    assert not {f"libpod.cli.{name}" for name in unneeded} & loaded
    assert "libpod.runtime" not in loaded


def test_ps_again_and_again(three: FakeRuntime, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []

    def sleep(seconds: float) -> None:
        turns.append(seconds)
        if len(turns) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("libpod.cli.ps.time.sleep", sleep)
    done = cli("ps", "-q", "--watch", "3")
    assert (done.code, turns) == (130, [3, 3])
    assert [line.removeprefix("\033[2J\033[H") for line in done.out] == ["b" * 12] * 2


# --- filters --------------------------------------------------------------------------------


@pytest.fixture
def many(rt: FakeRuntime) -> FakeRuntime:
    rt.add("alpha", Status.RUNNING, created=100 * SECOND, labels={"app": "web", "v": "1"},
           rootfs_image_name="docker.io/library/alpine:latest", rootfs_image_id="1234")  # fmt: skip
    rt.add("beta", Status.EXITED, exit_code=3, created=200 * SECOND, restart_policy="always",
           labels={"app": "db"}, command=["postgres", "-D"])  # fmt: skip
    rt.add("gamma", Status.STOPPED, exit_code=0, created=300 * SECOND, restart_policy="no",
           named_volumes=[{"volumeName": "data", "dest": "/var"}])  # fmt: skip
    alpha = rt.lookup_container("alpha").id
    rt.add("delta", created=400 * SECOND, net_ns_from=alpha, command=[])
    return rt


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        ("name=a$", "alpha beta gamma delta"),
        ("name=^al", "alpha"),
        ("name=[", ""),
        ("name=^al name=^be", "alpha beta"),
        ("name=^al,name=^be", "alpha beta"),
        ("name=^al status=exited", ""),
        ("status=exited", "beta gamma"),
        ("status=stopped", "beta gamma"),
        ("status=created", "delta"),
        ("status=running status=created", "alpha delta"),
        ("exited=3", "beta"),
        ("exited=0", "gamma"),
        ("exited=0 exited=3", "beta gamma"),
        ("label=app", "alpha beta"),
        ("label=app=web", "alpha"),
        ("label=app label=v=1", "alpha"),
        ("label=ap*", "alpha beta"),
        ("label=app=", "alpha beta"),
        ("label!=app", "gamma delta"),
        ("label!=app=web", "beta gamma delta"),
        ("ancestor=1234", "alpha"),
        ("ancestor=docker.io/library/alpine", "alpha"),
        ("ancestor=docker.io/library/alpine:latest", "alpha"),
        ("ancestor=alpine", ""),
        ("before=gamma", "alpha beta"),
        ("since=gamma", "delta"),
        ("since=gamma since=beta", "gamma delta"),
        ("before=gamma before=beta", "alpha"),
        ("until=250", "alpha beta"),
        ("until=1s", "alpha beta gamma delta"),
        ("until=1970-01-01T00:01:40.5Z", "alpha"),
        ("restart-policy=none", "alpha delta"),
        ("restart-policy=always restart-policy=no", "beta gamma"),
        ("command=^post", "beta"),
        ("network=container:alpha", "delta"),
        ("volume=data", "gamma"),
        ("volume=data:/var", "gamma"),
        ("volume=data:/other", ""),
        ("volume=/data", "alpha beta gamma delta"),
        ("volume=/data:/inside", "alpha beta gamma delta"),
        ("volume=/data:/x", ""),
        ("pod=nosuch", ""),
    ],
)
def test_filters(many: FakeRuntime, texts: str, names: str) -> None:
    holds = Filters(many, texts.split())
    found = {c.name for c in many.get_all_containers() if holds(View(c))}
    assert found == set(names.split())


def test_a_filter_by_id(many: FakeRuntime) -> None:
    alpha = many.lookup_container("alpha")
    for text in (f"id={alpha.id}", f"id=^{alpha.id[:20]}", f"id={alpha.id[30:60]}"):
        holds = Filters(many, [text])
        assert [c for c in many.get_all_containers() if holds(View(c))] == [alpha]


def test_a_filter_by_pod(rt: FakeRuntime) -> None:
    pod = PodRecord.new(PodConfig(id=A, name="pod", cgroup_parent="/p"))
    rt.state.add_pod(pod)
    rt.add("out")
    record = rt.made[rt.lookup_container("out").id].record
    inside = ContainerRecord.new(record.config.but(id=B, name="in", pod=A), record.state.but())
    rt.state.add_container_to_pod(pod, inside)
    for text in ("pod=pod", f"pod={A}", "pod=aaaa"):
        holds = Filters(rt, [text])
        assert [c.name for c in rt.get_all_containers() if holds(View(c))] == ["in"]


@pytest.mark.parametrize(
    ("text", "kind", "complaint"),
    [
        ("nosuch=1", InvalidArgument, "nosuch is an invalid filter"),
        ("nosuch", InvalidArgument, "invalid filter 'nosuch'"),
        ("status=foo", InvalidArgument, "unknown container state: foo"),
        ("exited=foo", InvalidArgument, "not an exit code: 'foo'"),
        ("until=foo", InvalidArgument, "failed to parse value as time or duration: 'foo'"),
        ("until=1s,until=2s", InvalidArgument, "specify exactly one timestamp"),
        ("restart-policy=foo", InvalidArgument, "foo invalid restart policy"),
        ("before=nosuch", LibpodError, "nosuch"),
        ("since=nosuch", LibpodError, "nosuch"),
        ("network=podman", NotBuilt, "network=podman is not built yet"),
        ("health=healthy", NotBuilt, "health is not built yet"),
    ],
)
def test_what_is_no_filter(
    many: FakeRuntime, text: str, kind: type[LibpodError], complaint: str
) -> None:
    with pytest.raises(kind, match=re.escape(complaint)):
        Filters(many, [text])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400), ("250ms", 0.25), ("1.5s", 1.5), (".5m", 30), ("0", 0), ("-2s", -2)],
)
def test_durations(text: str, seconds: float) -> None:
    assert times.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "x", "5 s", "1h30", "s", "--1s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid duration"):
        times.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1795383038", 1795383038 * SECOND),
        ("1795383038.25", 1795383038 * SECOND + SECOND // 4),
        ("2026-11-22T21:30:38Z", 1795383038 * SECOND),
        ("2026-11-22T22:30:38+01:00", 1795383038 * SECOND),
        ("2026-11-22T21:30:38.123456789Z", 1795383038 * SECOND + 123_456_000),
    ],
)
def test_moments(text: str, moment: int) -> None:
    assert times.parse_moment(text) == moment


# --- times and sizes for people -----------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (47.4 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13.5 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert output.age(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0B"), (999, "999B"), (1500, "1.5kB"), (533226876, "533MB"), (10**12, "1TB")],
)
def test_sizes(number: int, text: str) -> None:
    assert output.size(number) == text


# --- create and run ------------------------------------------------------------------------


def made(rt: FakeRuntime, cli: Cli, *flags: str) -> tuple[Any, dict[str, Any]]:
    """The job and the options that `create` asks for with these flags."""
    done = cli("create", *flags, "--rootfs", "DIR", "true")
    assert (done.code, done.err) == (0, [])
    return rt.created[-1]


def test_create_prints_the_id(rt: FakeRuntime, cli: Cli) -> None:
    done = cli("create", "--name", "one", "--rootfs", "DIR", "sleep", "-x")
    assert (done.code, done.out) == (0, [rt.lookup_container("one").id])
    job, options = rt.created[0]
    assert (job.command, job.rootfs, options["remove"]) == (("sleep", "-x"), "DIR", False)


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        ("--rm", "remove", True),
        ("--stop-timeout 3", "stop_timeout", 3),
        ("--group-add a,b --group-add 7", "groups", ["a", "b", "7"]),
        ("--add-host h:1.2.3.4 --add-host g:::1", "hosts", ["h:1.2.3.4", "g:::1"]),
        ("--dns 1.1.1.1", "dns_servers", ["1.1.1.1"]),
        ("--dns-search a.b", "dns_search", ["a.b"]),
        ("--dns-option debug", "dns_options", ["debug"]),
        ("--shm-size 1m", "shm_size", 1 << 20),
        ("--conmon-pidfile /p", "conmon_pid_file", "/p"),
        ("--pidfile /p", "pid_file", "/p"),
        ("--ipc private", "shm_private", True),
        ("--ipc shareable", "shm_private", False),
        ("--pid private --uts private", "pid_ns_from", None),
        ("-v /a:/b --tmpfs /c --mount type=bind,src=/d,dst=/e", "user_volumes", ["/b", "/e", "/c"]),
    ],
)  # fmt: skip
def test_flags_become_options(
    rt: FakeRuntime, cli: Cli, flags: str, name: str, value: object
) -> None:
    _job, options = made(rt, cli, *flags.split())
    assert options.get(name) == value


@pytest.mark.parametrize("kind", ["network", "ipc", "pid", "uts"])
def test_namespaces_of_another(rt: FakeRuntime, cli: Cli, kind: str) -> None:
    rt.add("other")
    _job, options = made(rt, cli, f"--{kind}", "container:other", "--requires", "other")
    option = {"network": "net"}.get(kind, kind) + "_ns_from"
    assert options[option].name == "other"
    assert [c.name for c in options["dependencies"]] == ["other"]
    assert cli("create", f"--{kind}", "container:x", "--rootfs", "D", "true").code == 125


def test_environment_and_labels_from_files(rt: FakeRuntime, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\n\nA=1\n  B=2\nC=3 # no comment\n")
    (tmp_path / "labels").write_text("x=1\ny\n")
    job, _ = made(rt, cli, "--env-file", f"{tmp_path}/env", "-e", "A=9",
                  "--label-file", f"{tmp_path}/labels", "-l", "y=2")  # fmt: skip
    assert job.env == {"A": "9", "B": "2", "C": "3 # no comment"}
    assert job.labels == {"x": "1", "y": "2"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("type=bind,source=/a,target=/b", Mount("/a", "/b")),
        ("type=bind,src=/a,destination=/b,ro", Mount("/a", "/b", True)),
        ("type=bind,src=/a,dst=/b,readonly=false", Mount("/a", "/b")),
        ("type=bind,src=/a,dst=/b,rw=false,noexec,relabel=shared",
         Mount("/a", "/b", True, ["z", "noexec"])),
        ("type=bind,src=/a,dst=/b,bind-propagation=rshared,bind-nonrecursive=true",
         Mount("/a", "/b", False, ["rshared", "bind"])),
        ("type=tmpfs,dst=/t", {"/t": ""}),
        ("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700,ro", {"/t": "size=1m,mode=700,ro"}),
    ],
)  # fmt: skip
def test_mounts(text: str, found: object) -> None:
    bound, tmpfs = mounts.parse(run_parser("run", "").parse(["--mount", text]))
    assert (tmpfs if isinstance(found, dict) else bound[0]) == found


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--mount", "type=foo"], 'invalid filesystem type "foo"'),
        (["--mount", "dst=/x"], "--mount type=volume is not built yet"),
        (["--mount", "type=bind"], "must set volume destination"),
        (["--mount", "type=bind,dst=/x"], "must set source volume"),
        (["--mount", "type=bind,src=/a,dst=/x,foo=1"], "foo: invalid mount option"),
        (["--mount", "type=bind,src=/a,dst=/x,foo"], "'foo'"),
        (["--mount", "type=bind,src=/a,dst=/x,target=/y"], "target is given twice"),
        (["--mount", "type=bind,src=/a,dst=/x,ro=maybe"], "must be true or false, found 'maybe'"),
        (["--mount", "type=tmpfs,dst=/x", "--tmpfs", "/x"], "/x is given twice"),
        (["--restart", "foo"], "--restart: 'foo' is not known"),
        (["--restart", "on-failure:3"], "--restart=on-failure:3 is not built yet"),
        (["--pull", "foo"], "--pull: 'foo' is not known"),
        (["--pull", "always"], "--pull=always is not built yet"),
        (["--log-driver", "foo"], "--log-driver: 'foo' is not known"),
        (["--log-driver", "journald"], "--log-driver=journald is not built yet"),
        (["--ipc", "foo"], "unrecognized namespace mode foo passed"),
        (["--pid", "host"], "--pid=host is not built yet"),
        (["--network", "bridge"], "--network=bridge is not built yet"),
        (["--add-host", "foo"], 'bad format for add-host: "foo"'),
        (["--shm-size", "foo"], "is not a size"),
        (["--stop-timeout", "-1"], "must not be negative"),
        (["--stop-signal", "FOO"], "is not a signal"),
        (["--requires", "nosuch"], "nosuch"),
        (["--label-file", "/nonexistent"], "cannot read /nonexistent: No such file"),
        (["--env-file", "/proc/self/mem"], "cannot read /proc/self/mem"),
        (["--replace"], "cannot replace container without --name being set"),
        (["--cidfile", "/nonexistent/x"], "opening cidfile /nonexistent/x: No such file"),
        (["--cidfile", "/etc/passwd"], "container id file exists"),
    ],
)
def test_what_cannot_be_created(
    rt: FakeRuntime, cli: Cli, flags: list[str], complaint: str
) -> None:
    for verb in ("create", "run"):
        done = cli(verb, *flags, "--rootfs", "DIR", "true")
        assert (done.code, done.out, len(done.err)) == (125, [], 1)
        assert complaint in done.err[0]
    assert rt.created == []


def test_a_cidfile_holds_the_id(
    rt: FakeRuntime, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "id"
    made(rt, cli, "--name", "one", "--cidfile", str(path))
    assert path.read_text() == rt.lookup_container("one").id
    path.unlink()
    done = cli("create", "--name", "one", "--cidfile", str(path), "--rootfs", "DIR", "true")
    assert (done.code, path.exists()) == (125, False)


def test_replace_removes_the_namesake(rt: FakeRuntime, cli: Cli) -> None:
    old = rt.add("one", Status.PAUSED)
    done = cli("create", "--replace", "--name", "one", "--rootfs", "DIR", "true")
    assert (done.code, done.out[0]) == (0, "one")
    assert old.gone
    assert done.out[1] == rt.lookup_container("one").id != old.id
    other = rt.lookup_container("one")
    assert cli("create", "--replace", "--name", other.id[:5], "--rootfs", "D", "true").code == 0
    assert not other.gone  # it is no namesake


def test_run_in_the_background(rt: FakeRuntime, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("run", "-d", "--rm", "--name", "one", "--rootfs", "DIR", "sleep", "9")
    assert (done.code, done.out) == (0, [rt.lookup_container("one").id])
    assert rt.lookup_container("one").calls == [("start", True)]
    assert cli("run", "-d", "--timeout", "1", "--rootfs", "DIR", "true").code == 125


# --- the system's own verbs ---------------------------------------------------------------


class Leak(NamedTuple):
    kind: str
    what: str
    age: float | None
    remedy: str


def test_audit_says_nothing_or_fails(rt: FakeRuntime, cli: Cli) -> None:
    assert cli("system", "audit") == (0, [], [])
    assert cli("system", "audit", "-f", "json") == (0, ["[]"], [])
    rt.leaks = [Leak("mount", "/a", 7200, "umount it"), Leak("process", "1", None, "end it")]
    done = cli("system", "audit")
    assert (done.code, done.err) == (1, [])
    assert [line.split() for line in done.out] == [
        ["KIND", "WHAT", "AGE", "REMEDY"],
        ["mount", "/a", "2", "hours", "umount", "it"],
        ["process", "1", "end", "it"],
    ]
    assert cli("system", "audit", "-f", "{{.Kind}} {{.What}}").out == ["mount /a", "process 1"]
    done = cli("system", "sweep", "-f", "json")
    assert (done.code, json.loads("\n".join(done.out))[1]["kind"]) == (0, "process")
    assert cli("system", "sweep") == (0, [], [])
    assert cli("system", "audit").code == 0


def test_refresh(rt: FakeRuntime, cli: Cli) -> None:
    assert cli("system", "refresh") == (0, [], [])
    assert rt.done == ["refreshed", "closed"]
    rt.add("web", Status.RUNNING)
    assert cli("system", "refresh").code == 125
    assert rt.done == ["refreshed", "closed", "closed"]


def test_global_flags_become_options(rt: FakeRuntime, cli: Cli) -> None:
    words = ["--root", "/r", "--runroot=/u", "container", "--tmpdir", "/t", "ps"]
    assert cli(*words, "--namespace", "n", "--share", "podman", "--root", "/s").code == 0
    storage = rt.options.pop("storage_config")
    assert (storage.graph_root, storage.run_root) == ("/s", "/u")
    assert rt.options == {"tmp_dir": "/t", "namespace": "n", "share": "podman"}
    assert cli("--", "ps", "-q").code == 0
