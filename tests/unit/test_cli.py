# SPDX-License-Identifier: Apache-2.0
"""The command line without a container: its grammar, its formats, what it makes of flags,
and how it fails."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import libpod
from libpod import terminal
from libpod.attach import _DetachFilter
from libpod.cli import create, main, output, run
from libpod.errors import InvalidArgument, LibpodError, NotBuilt
from libpod.job import Limits, Mount, Spec

# --- the grammar ------------------------------------------------------------------


def parsed(*words: str) -> Any:
    return run.parser("run", "about").parse(words)


def spec(*words: str) -> Spec:
    """What the flags make, for a root file system DIR and the command "true"."""
    return create.make_spec(parsed("--rootfs", *words, "DIR", "true"))


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["--rootfs", "DIR", "sh", "-c", "exit 7"], ["DIR", "sh", "-c", "exit 7"]),
        (["--rootfs", "DIR", "ls", "--rm", "-it"], ["DIR", "ls", "--rm", "-it"]),
        (["--rootfs", "DIR", "--", "ls"], ["DIR", "--", "ls"]),
        (["--rootfs", "--", "DIR", "ls", "--", "-l"], ["DIR", "ls", "--", "-l"]),
        (["--rootfs", "--", "--rm", "ls"], ["--rm", "ls"]),
        (["--rootfs", "-", "ls"], ["-", "ls"]),
        (["--rootfs"], []),
    ],
)
def test_flags_end_at_the_first_word_that_is_none(words: list[str], args: list[str]) -> None:
    assert parsed(*words).args == args


@pytest.mark.parametrize(
    ("words", "interactive", "tty", "env", "name"),
    [
        (["-it"], True, True, [], None),
        (["-ti", "-e", "A=B"], True, True, ["A=B"], None),
        (["-ite", "A=B"], True, True, ["A=B"], None),
        (["-iteA=B"], True, True, ["A=B"], None),
        (["-e=A=B"], False, False, ["A=B"], None),
        (["-e", "--name"], False, False, ["--name"], None),
        (["--env", "-x", "--env=A=B C"], False, False, ["-x", "A=B C"], None),
        (["--name", "-i"], False, False, [], "-i"),
        (["--name="], False, False, [], ""),
        (["-i=false", "-t=true"], False, True, [], None),
        (["--interactive=1", "--tty=F"], True, False, [], None),
    ],
)
def test_flags_are_written_as_podmans(
    words: list[str], interactive: bool, tty: bool, env: list[str], name: str | None
) -> None:
    args = parsed(*words, "DIR")
    assert (args.interactive, args.tty, args.env, args.name) == (interactive, tty, env, name)
    assert args.args == ["DIR"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--nmae", "x"], "unknown flag: --nmae (perhaps --name)"),
        (["--env-"], "unknown flag: --env-"),
        (["--nam", "x"], "unknown flag: --nam (perhaps --name)"),
        (["-iZ"], "unknown shorthand flag: 'Z' in -iZ"),
        (["--name"], "flag needs an argument: --name"),
        (["-ie"], "flag needs an argument: -e"),
        (["--rm=perhaps"], "--rm: must be true or false, found 'perhaps'"),
        (["--cpus", "x"], "--cpus: must be a number, found 'x'"),
        (["--cpus", "-1"], "--cpus: must be a number, found '-1'"),
        (["--timeout", "1e3"], "--timeout: must be a number, found '1e3'"),
        (["--timeout", "."], "--timeout: must be a number, found '.'"),
        (["--pids-limit", "1.5"], "--pids-limit: must be an integer, found '1.5'"),
    ],
)
def test_a_wrong_flag_is_named(words: list[str], complaint: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(complaint)) as caught:
        parsed(*words, *[] if "needs" in complaint else ["DIR"])
    assert caught.value.remedy == "see 'libpod run --help'"


@pytest.mark.parametrize(
    "flag", ["-p", "--publish", "--pod", "--userns", "--security-opt", "--events-backend"]
)
def test_a_flag_of_podmans_that_is_not_there_yet_says_so(flag: str) -> None:
    with pytest.raises(NotBuilt, match=f"the flag {flag} is not built yet"):
        parsed(flag, "x", "DIR")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)))
@example(["--"])
@example(["-", "--", "-e", "--rm=false"])
def test_values_and_arguments_come_through_unchanged(words: list[str]) -> None:
    flags = [part for word in words for part in ("-e", word)]
    args = parsed(*flags, "DIR", *words)
    assert args.env == words
    assert args.args == ["DIR", *words]


def test_no_flag_is_both_built_and_not() -> None:
    parser = run.parser("run", "about")
    assert not parser._not_built & set(parser._option_string_actions)


# --- from flags to a Spec -----------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("", {}),
        ("--name web", {"name": "web"}),
        ("-w /src", {"workdir": "/src"}),
        ("-u 1:2", {"user": "1:2"}),
        ("-h box", {"hostname": "box"}),
        ("--hostname box", {"hostname": "box"}),
        ("--network host", {"network": "host"}),
        ("--net=host", {"network": "host"}),
        ("-i -t", {"stdin": True, "terminal": True}),
        ("-v /a:/b -v ./c:/d:ro,nosuid", {
            "mounts": [Mount("/a", "/b"), Mount("./c", "/d", True, ["nosuid"])]}),
        ("--tmpfs /a --tmpfs /b:size=1m,mode=700", {"tmpfs": {"/a": "", "/b": "size=1m,mode=700"}}),
        ("--cap-add net_raw,SYS_TIME --cap-add kill", {"cap_add": ["NET_RAW", "SYS_TIME", "KILL"]}),
        ("--cap-drop all", {"cap_drop": ["ALL"]}),
        ("--privileged", {"privileged": True}),
        ("-m 64m", {"limits": Limits(memory="64m")}),
        ("--memory 64m --memory-swap 80m", {"limits": Limits(memory="64m", swap="16m")}),
        ("--memory 1k --memory-swap 1k", {"limits": Limits(memory="1k", swap=0)}),
        ("--cpus 1.5", {"limits": Limits(cpus=1.5)}),
        ("--cpus 0", {}),
        ("--pids-limit -1", {"limits": Limits(pids=-1)}),
        ("--ulimit nofile=10:20,core=0", {"ulimits": {"nofile": "10:20", "core": 0}}),
        ("--label a -l b=c=d", {"labels": {"a": "", "b": "c=d"}}),
        ("--stop-signal SIGINT", {"stop_signal": "INT"}),
        ("--entrypoint /init", {"entrypoint": ["/init"]}),
        ('--entrypoint ["/init","-v"]', {"entrypoint": ["/init", "-v"]}),
        ("--entrypoint=", {}),
        ("--read-only", {"read_only": True, "tmpfs": {"/run": "", "/tmp": "", "/var/tmp": ""}}),
        ("--read-only --tmpfs /tmp/:size=1m -v /a:/run", {
            "read_only": True,
            "mounts": [Mount("/a", "/run")],
            "tmpfs": {"/tmp": "size=1m", "/var/tmp": ""}}),
    ],
)  # fmt: skip
def test_each_flag_becomes_its_field(flags: str, changes: dict[str, Any]) -> None:
    assert spec(*flags.split()) == Spec(rootfs="DIR", command=["true"]).but(**changes)


def test_the_environment_can_come_from_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "1")
    monkeypatch.setenv("LC_A", "2")
    monkeypatch.setenv("LC_B", "3")
    monkeypatch.delenv("ABSENT", raising=False)
    made = spec(
        "-e", "A=B=C", "-e", "MINE", "-e", "ABSENT", "-e", "LC_*", "-e", "LC_B=4", "-e", "E="
    )
    assert {k: v for k, v in made.env.items() if not k.startswith("LC_")} == {
        "A": "B=C",
        "MINE": "1",
        "E": "",
    }
    assert (made.env["LC_A"], made.env["LC_B"]) == ("2", "4")


@pytest.mark.parametrize(
    ("words", "kind", "complaint"),
    [
        ([], InvalidArgument, "requires at least 1 arg(s)"),
        (["alpine", "true"], NotBuilt, "images are not built yet: 'alpine'"),
        (["--rootfs", "--tmpfs", "/a", "--tmpfs", "/a:ro", "DIR"], InvalidArgument, "given twice"),
        (["--rootfs", "--memory-swap", "1g", "DIR"], InvalidArgument, "set --memory"),
        (["--rootfs", "-m2m", "--memory-swap", "1m", "DIR"], InvalidArgument, "less than"),
        (["--rootfs", "-m2m", "--memory-swap", "-1", "DIR"], NotBuilt, "without a limit"),
        (["--rootfs", "--network", "bridge", "DIR"], NotBuilt, "'bridge' is not built yet"),
        (["--rootfs", "-v", "data:/x", "DIR"], NotBuilt, "named volumes"),
        (["--rootfs", "--ulimit", "nofile", "DIR"], InvalidArgument, "SOFT:HARD"),
        (["--rootfs", "-e", "A=\udc80", "DIR"], InvalidArgument, "UTF-8"),
    ],
)
def test_what_cannot_be_done_is_said(words: list[str], kind: type, complaint: str) -> None:
    with pytest.raises(kind, match=re.escape(complaint)):
        create.make_spec(parsed(*words))


# --- messages and exit codes ---------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "missing command 'libpod COMMAND'"),
        (["rnu"], "unrecognized command `libpod rnu` (perhaps run)"),
        (["logs", "x"], "`libpod logs` is not built yet"),
        (["container"], "missing command 'libpod container COMMAND'"),
        (["system", "audti"], "unrecognized command `libpod system audti` (perhaps audit)"),
        (["container", "logs", "x"], "`libpod container logs` is not built yet"),
        (["container", "doctor"], "unrecognized command `libpod container doctor`"),
        (["--nosuch", "run"], "unknown flag: --nosuch"),
        (["--log-level", "loud", "version"], "--log-level: invalid choice: 'loud'"),
        (["--root", "", "version"], "--root: must not be empty"),
        (["version", "--format", "{{range .}}"], "cannot understand '{{range .}}'"),
        (["version", "more"], "`libpod version` takes no arguments"),
        (["run", "--rootfs", "-p", "1:1", "x"], "the flag -p is not built yet"),
        (["run", "--rootfs", "--detach-keys", "foo", "x"], "invalid detach keys 'foo'"),
        (["--config", "/nonexistent/libpod.conf", "version"], "/nonexistent/libpod.conf"),
    ],
)
def test_a_failure_of_ours_is_one_line_and_125(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 125
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("Warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert complaint in lines[0]


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["run", "--help"], ["doctor", "--help"], ["--help", "nosuch"]]
)
def test_help_is_no_failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("usage: libpod")


def test_the_version_is_told_without_loading_what_is_heavy() -> None:
    # An editable install loads a finder of its own before anything of ours.
    text = (
        "import sys\nbefore = set(sys.modules)\nfrom libpod.cli import main\n"
        "assert main(['--version']) == 0\n"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    first, _, modules = done.stdout.partition("\n")
    assert first == f"libpod version {libpod.__version__}"
    heavy = "asyncio subprocess dataclasses inspect pathlib tempfile shutil socket logging json"
    assert not set(heavy.split()) & set(modules.split())
    assert "libpod.runtime" not in modules.split()


def test_global_flags_stand_before_or_behind_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = set()
    for words in (
        ["--conmon", "/dev/null", "--log-level", "error", "version"],
        ["--conmon", "/dev/zero", "version", "--conmon", "/dev/null", "--log-level", "error"],
    ):
        assert main([*words, "--format", "{{json .Conmon}}"]) == 0
        outputs.add(capsys.readouterr().out)
    assert outputs == {'{"Path":null,"Version":null}\n'}


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", 3), ("trace", 3), ("info", 2), ("warn", 1), ("warning", 1), ("error", 0),
     ("panic", 0), (None, 1)],
)  # fmt: skip
def test_messages_are_shown_from_a_level_on(
    level: str | None,
    said: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def execute(args: Any) -> int:
        for severity in ("debug", "info", "warning"):
            getattr(run.log, severity)("a message")
        return 0

    monkeypatch.setattr(run, "execute", execute)
    assert main([*(["--log-level", level] if level else []), "run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["Debug: a message", "Info: a message", "Warning: a message"][3 - said :]
    assert logging.getLogger("libpod").level == logging.NOTSET


def test_a_failure_that_nobody_foresaw_is_told_in_full_only_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(args: Any) -> int:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(run, "execute", execute)
    assert main(["run"]) == 125
    assert capsys.readouterr().err == "Error: ZeroDivisionError: unforeseen\n"
    assert main(["--log-level", "debug", "run"]) == 125
    assert "Traceback" in capsys.readouterr().err


# --- formats ------------------------------------------------------------------------

DATA = {"host": {"ociRuntime": {"name": "crun", "flags": ["a", 1]}, "cpus": 2, "none": None}}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("plain", "plain"),
        ("{{.host.cpus}}", "2"),
        ("{{ .Host.OCIRuntime.Name }}!", "crun!"),
        (r"{{.host.cpus}}\t{{.host.cpus}}\n\\n", "2\t2\n\\n"),
        ("{{json .host.ociRuntime}}", '{"name":"crun","flags":["a",1]}'),
        ("{{json .host.ociRuntime.name}}", '"crun"'),
        ("{{json .}}", json.dumps(DATA, separators=(",", ":"))),
        ("{{.}}", "map[host:map[cpus:2 none:<no value> ociRuntime:map[flags:[a 1] name:crun]]]"),
        ("{{.host.none}}", "<no value>"),
        (r"table {{.host.cpus}}\t{{.host.ociRuntime.name}}", "CPUS        NAME\n2           crun"),
        (r"table {{.host.cpus}} {{ .host.ociRuntime.name }}", "CPUS        NAME\n2           crun"),
        (r"table x{{.host.cpus}}", "xCPUS\nx2"),
    ],
)
def test_templates(form: str, text: str) -> None:
    assert output.render(form, [DATA]) == text


@pytest.mark.parametrize(
    "form",
    ["{{range .}}", "{{.a}", "{{", "}}", "{{}}", "{{.a | b}}", "{{.a b}}", "{{json}}", "{{.a.}}",
     "{{len .}}", "{{ jsonx .a }}"],
)  # fmt: skip
def test_what_is_no_template_names_what_works(form: str) -> None:
    with pytest.raises(InvalidArgument, match=r"cannot understand") as caught:
        output.render(form, [DATA])
    assert "{{.Field}}" in str(caught.value)


@pytest.mark.parametrize("form", ["{{.nope}}", "{{.host.nope}}", "{{.host.cpus.nope}}"])
def test_a_field_that_is_not_there_is_an_error(form: str) -> None:
    with pytest.raises(InvalidArgument, match="no field 'nope'"):
        output.render(form, [DATA])


def test_each_row_has_its_line() -> None:
    rows = [{"id": "1", "name": "a b"}, {"id": "22", "name": ""}]
    assert output.render("{{.ID}}={{.Name}}", rows) == "1=a b\n22="
    assert output.render(r"table {{.ID}}\t{{.Name}}", rows) == (
        "ID          NAME\n1           a b\n22          "
    )
    assert output.render("{{.ID}}", []) == ""
    assert output.render(r"table {{.ID}}\t{{.Name}}", []) == "ID          NAME"


def test_a_cell_cannot_break_a_table() -> None:
    assert output.table([("A", "B"), ("x\ny", "z")]) == "A           B\nx y         z"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain text, with (marks)", "a: plain text, with (marks)"),
        ("conmon: /usr/bin", 'a: "conmon: /usr/bin"'),
        ("yes", 'a: "yes"'),
        ("12", 'a: "12"'),
        ("1.5", 'a: "1.5"'),
        ("", 'a: ""'),
        (" x", 'a: " x"'),
        ("x ", 'a: "x "'),
        ("- x", 'a: "- x"'),
        ("a #b", 'a: "a #b"'),
        ("é", 'a: "\\u00e9"'),
        ("one\ntwo: 2", "a: |-\n  one\n  two: 2"),
        ("one\n", 'a: "one\\n"'),
        (" one\ntwo", 'a: " one\\ntwo"'),
        ("one\r\ntwo", 'a: "one\\r\\ntwo"'),
        (3, "a: 3"),
        (None, "a: null"),
        (True, "a: true"),
        ([], "a: []"),
        ({}, "a: {}"),
        (["x", "yes"], 'a:\n  - x\n  - "yes"'),
        ({"b": {"c": 1}}, "a:\n  b:\n    c: 1"),
    ],
)
def test_yaml(value: object, text: str) -> None:
    assert output.to_yaml({"a": value}) == text


# --- signals and the terminal -----------------------------------------------------------


def test_a_signal_before_the_container_runs_interrupts_once() -> None:
    with terminal.Signals():
        with pytest.raises(terminal.Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert caught.value.number == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)  # clearing up is not cut short
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def test_a_continued_process_goes_on() -> None:
    with terminal.Signals():
        os.kill(os.getpid(), signal.SIGCONT)
        time.sleep(0.01)


def test_signals_are_passed_on_and_then_given_back() -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    passed: list[int] = []
    numbers = [signal.SIGINT, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGRTMIN + 3]
    with terminal.Signals() as signals:
        signals.pass_to(passed.append)
        for number in numbers:
            os.kill(os.getpid(), number)
        signals.ignore()
        os.kill(os.getpid(), signal.SIGINT)
    assert passed == numbers
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


def test_an_alarm_of_somebody_elses_is_passed_on_and_ours_comes_in_time() -> None:
    happened: list[object] = []
    timer = signal.setitimer(signal.ITIMER_REAL, 0)  # pytest's own
    try:
        with terminal.Signals() as signals:
            signals.pass_to(happened.append)
            deadline = time.monotonic() + 60
            signals.after(0.5, lambda: happened.append("ours"))
            os.kill(os.getpid(), signal.SIGALRM)
            while len(happened) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        assert happened == [signal.SIGALRM, "ours"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)


@pytest.mark.parametrize("name", ["SIGCHLD", "SIGPIPE", "SIGURG", "SIGWINCH", "SIGTSTP", "SIGSEGV"])
def test_a_signal_about_this_process_is_not_passed_on(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with terminal.Signals():
        assert signal.getsignal(number) is before


def test_what_was_ignored_from_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminal.Signals() as signals:
            signals.pass_to(lambda number: pytest.fail("passed on"))
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_is_put_into_raw_mode_and_back_whatever_happens() -> None:
    master, slave = os.openpty()
    try:
        before = termios.tcgetattr(slave)
        with pytest.raises(ZeroDivisionError), terminal.raw_mode(slave):
            assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
            raise ZeroDivisionError
        assert termios.tcgetattr(slave) == before
        assert terminal.window_size(slave) is None  # nobody has set it yet
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 7, 0, 0))
        assert terminal.window_size(slave) == (5, 7)
    finally:
        os.close(master)
        os.close(slave)


def test_what_is_no_terminal_has_no_size() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        assert terminal.window_size(fd) is None
    finally:
        os.close(fd)


@pytest.fixture
def fill() -> Callable[[int], int]:
    """Fills a pipe; how much went in."""

    def act(fd: int) -> int:
        total = 0
        while True:
            try:
                total += os.write(fd, b"x" * 65536)
            except BlockingIOError:
                return total

    return act


def test_output_waits_where_a_pipe_is_full_and_does_not_block(fill: Callable[[int], int]) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    total = fill(write) + 100_000
    got = bytearray()

    def drain() -> None:
        while len(got) < total:
            got.extend(os.read(read, 65536))

    reader = threading.Timer(0.1, drain)
    reader.start()
    try:
        terminal._write_all(write, b"y" * 100_000)
    finally:
        reader.join()
        os.close(read)
        os.close(write)
    assert got.count(b"y") == 100_000


def test_output_that_nobody_reads_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(terminal, "STDOUT_FD", write)
    out = terminal._Output()
    try:
        assert not out(2, b"x")
    finally:
        os.close(write)
    assert isinstance(out.error, LibpodError)
    assert str(out.error) == "cannot write to standard output: Broken pipe"


@given(st.lists(st.binary(max_size=4)), st.sampled_from([b"\x10\x11", b"ab", b"aa", b"aab", b""]))
def test_detach_keys_are_found_however_the_input_is_cut(chunks: list[bytes], keys: bytes) -> None:
    typed = b"".join(chunks)
    look = _DetachFilter(keys)
    passed = b""
    for chunk in chunks:
        data, complete = look.feed(chunk)
        passed += data
        if complete:
            assert passed + keys == typed[: len(passed) + len(keys)]
            assert typed.find(keys) == len(passed)
            return
    assert not keys or keys not in typed
    assert passed + look.rest() == typed
