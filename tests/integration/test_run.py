# SPDX-License-Identifier: Apache-2.0
"""`Runtime.run`: what a `Result` says of each way to end, streams, input and usage."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import libpod
from census import processes, settled
from conftest import Dirs, Said, containers_of
from libpod import (
    ContainerExists,
    ContainerFailed,
    InvalidArgument,
    Limits,
    Reason,
    Result,
    Runtime,
    Spec,
)

SLEEP = ["sleep", "1000"]


def sh(text: str) -> list[str]:
    return ["sh", "-c", text]


# --- how it ended ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, 127, 255])
def test_exited(rt: Runtime, box: Spec, code: int) -> None:
    r = rt.run(box, sh(f"echo out; echo err >&2; exit {code}"))
    expected = Reason.EXITED if code <= 128 or code > 192 else Reason.SIGNALED
    assert (r.reason, r.exit_code, r.stdout, r.stderr) == (expected, code, b"out\n", b"err\n")
    assert not r.truncated
    assert r.error is None
    assert r.ok == (code == 0)


def test_check_raises_with_the_whole_result(rt: Runtime, box: Spec) -> None:
    assert rt.run(box, ["true"]).check().exit_code == 0
    r = rt.run(box, sh("echo why >&2; exit 3"))
    with pytest.raises(ContainerFailed, match="exit code 3") as caught:
        r.check()
    assert caught.value.result is r
    assert caught.value.detail == "why\n"
    assert (caught.value.fault, caught.value.container_id) == ("job", r.id)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.result.exit_code == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
def test_signaled(rt: Runtime, box: Spec, number: int) -> None:
    # The first process of a pid namespace is safe from its own signals: a child
    # dies of it, and the shell ends with its code.
    r = rt.run(box, sh(f"sh -c 'kill -{int(number)} $$'; exit $?"))
    assert (r.reason, r.exit_code) == (Reason.SIGNALED, 128 + number)


def test_killed_from_outside(rt: Runtime, box: Spec) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(rt.run, box, SLEEP, name="victim")
        deadline = time.monotonic() + 60
        while not any(c.state.pid for c in rt.get_containers()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        rt.lookup_container("victim").stop(grace=0)
        r = future.result(60)
    assert (r.reason, r.exit_code, r.name) == (Reason.SIGNALED, 137, "victim")


# --- time-outs -------------------------------------------------------------------------


def test_timeout_handled_within_the_grace(rt: Runtime, box: Spec) -> None:
    polite = 'trap "echo last words; exit 5" TERM; echo first; while :; do sleep 0.05; done'
    r = rt.run(box.but(stop_signal="TERM"), sh(polite), timeout=3, grace=1000)
    assert (r.reason, r.exit_code) == (Reason.TIMEOUT, 5)
    assert r.stdout == b"first\nlast words\n"


def test_timeout_kills_after_the_grace(rt: Runtime, box: Spec) -> None:
    began = time.monotonic()
    r = rt.run(
        box.but(stop_signal="TERM"), sh("trap '' TERM; echo up; sleep 1000"), timeout=3, grace=0.5
    )
    assert 3.5 <= time.monotonic() - began < 60
    assert (r.reason, r.exit_code, r.stdout) == (Reason.TIMEOUT, 137, b"up\n")


def test_timeout_without_grace(rt: Runtime, box: Spec) -> None:
    r = rt.run(box.but(stop_signal="TERM"), SLEEP, timeout=0.5, grace=0)
    assert (r.reason, r.exit_code) == (Reason.TIMEOUT, 137)


def test_timeout_ends_grandchildren_and_daemons(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    """All that the container started dies, whatever it ignores and wherever it hides."""
    family = """
    trap '' TERM
    sh -c "trap '' TERM HUP; sh -c 'while :; do sleep 0.1; done' & wait" &
    setsid sh -c "trap '' TERM HUP INT; while :; do sleep 0.1; done" </dev/null >/dev/null 2>&1 &
    echo up
    wait
    while :; do sleep 1; done
    """
    r = rt.run(box.but(stop_signal="TERM"), sh(family), timeout=3, grace=0.3)
    assert (r.reason, r.stdout) == (Reason.TIMEOUT, b"up\n")
    # That none of them is left is the census's to say.


def test_a_daemon_ends_with_its_container(rt: Runtime, box: Spec) -> None:
    r = rt.run(box, sh("setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo up"))
    assert (r.reason, r.exit_code, r.stdout) == (Reason.EXITED, 0, b"up\n")


def test_timeout_of_a_job_that_closed_its_streams(rt: Runtime, box: Spec) -> None:
    r = rt.run(box, sh("exec >&- 2>&-; exec sleep 1000"), timeout=0.7, grace=0)
    assert (r.reason, r.exit_code) == (Reason.TIMEOUT, 137)


def test_a_job_that_ends_before_its_timeout(rt: Runtime, box: Spec) -> None:
    r = rt.run(box, sh("exit 4"), timeout=1000)
    assert (r.reason, r.exit_code) == (Reason.EXITED, 4)


def test_timeout_in_the_middle_of_output(rt: Runtime, box: Spec) -> None:
    r = rt.run(box, ["yes"], timeout=1, grace=0)
    assert r.reason is Reason.TIMEOUT
    assert r.stdout.startswith(b"y\ny\n") and set(r.stdout) == {ord("y"), ord("\n")}


# --- memory, output, a lost monitor ---------------------------------------------------------


def test_oom(rt: Runtime, box: Spec) -> None:
    r = rt.run(box.but(limits=Limits(memory="16M")), ["tail", "/dev/zero"])
    assert (r.reason, r.exit_code) == (Reason.OOM, 137)
    assert r.usage.oom_kills is not None and r.usage.oom_kills >= 1
    assert r.usage.memory_peak is not None and 8 << 20 < r.usage.memory_peak <= 16 << 20


def test_an_oom_that_the_job_survives(rt: Runtime, box: Spec) -> None:
    r = rt.run(box.but(limits=Limits(memory="16M")), sh("tail /dev/zero; echo $?; exit 0"))
    assert (r.reason, r.exit_code, r.stdout) == (Reason.EXITED, 0, b"137\n")
    assert r.usage.oom_kills is not None and r.usage.oom_kills >= 1


def test_output_limit(rt: Runtime, box: Spec) -> None:
    limited = box.but(limits=Limits(output=10000))
    r = rt.run(limited, ["yes"])
    assert (r.reason, r.truncated) == (Reason.OUTPUT_LIMIT, True)
    assert r.stdout == b"y\n" * 5000
    r = rt.run(limited, sh("yes out & yes err >&2"))
    assert (r.reason, r.truncated) == (Reason.OUTPUT_LIMIT, True)
    assert len(r.stdout) + len(r.stderr) == 10000


def test_output_limit_that_is_just_enough(rt: Runtime, box: Spec) -> None:
    exact = rt.run(box.but(limits=Limits(output=10000)), sh("yes | head -c 10000"))
    assert (exact.reason, exact.truncated, len(exact.stdout)) == (Reason.EXITED, False, 10000)
    none = rt.run(box.but(limits=Limits(output=0)), ["true"])
    assert (none.reason, none.truncated) == (Reason.EXITED, False)
    over = rt.run(box.but(limits=Limits(output=0)), sh("echo x; sleep 1000"))
    assert (over.reason, over.truncated, over.stdout) == (Reason.OUTPUT_LIMIT, True, b"")


def monitor_of(container_id: str) -> int:
    """The pid of the conmon of a container."""
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"conmon") and container_id.encode() in words:
            return int(name)
    raise AssertionError(f"no monitor of {container_id}")


def test_lost(rt: Runtime, box: Spec, said: Said) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(rt.run, box, sh("echo before; exec sleep 1000"), name="orphan")
        deadline = time.monotonic() + 60
        while not any(c.state.started for c in rt.get_containers()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        c = rt.lookup_container("orphan")
        pid = c.state.pid
        while b"before" not in open(c.log_path, "rb").read():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(monitor_of(c.id), signal.SIGKILL)
        r = future.result(60)
    assert (r.reason, r.exit_code, r.stdout) == (Reason.LOST, None, b"before\n")

    def left() -> list[str]:
        """Nobody else would end it."""
        return [str(p) for p in processes().values() if p.pid == pid and p.state not in "ZX"]

    assert settled(left) == []
    assert not r.ok
    said.expect("the monitor of container .* died without an exit code")


def test_a_lost_container_of_the_lower_layer(rt: Runtime, box: Spec, said: Said) -> None:
    c = rt.start(box, SLEEP)
    os.kill(monitor_of(c.id), signal.SIGKILL)
    assert c.wait() == -1
    assert (c.state.status, c.state.exit_code) == (libpod.Status.EXITED, -1)
    c.start()  # and it can be started again
    c.stop()
    assert c.wait() == 137
    said.expect("died without an exit code")


# --- output --------------------------------------------------------------------------------


def test_no_early_byte_is_lost(rt: Runtime, box: Spec) -> None:
    """A hundred jobs that say one word and are gone."""

    def one(number: int) -> tuple[bytes, bytes, int | None]:
        r = rt.run(box, ["echo", str(number)])
        return r.stdout, r.stderr, r.exit_code

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(100)))
    assert results == [(f"{number}\n".encode(), b"", 0) for number in range(100)]


def test_much_output_on_both_streams(rt: Runtime, box: Spec) -> None:
    r = rt.run(
        box,
        sh(
            "(yes 0123456789abcde | head -c 4000000) &"
            "(yes fedcba987654321 | head -c 4000000) >&2 & wait"
        ),
    )
    assert r.exit_code == 0
    assert r.stdout == b"0123456789abcde\n" * 250000
    assert r.stderr == b"fedcba987654321\n" * 250000


def test_output_is_bytes(rt: Runtime, box: Spec) -> None:
    every_byte = "".join(f"\\{i:03o}" for i in range(256))
    r = rt.run(box, ["printf", every_byte.replace("\\045", "%%")])
    assert r.stdout == bytes(range(256))


def test_last_output_without_a_newline(rt: Runtime, box: Spec) -> None:
    r = rt.run(box, sh("printf no-newline; printf neither >&2"))
    assert (r.stdout, r.stderr) == (b"no-newline", b"neither")


def test_a_slow_reader_loses_nothing(rt: Runtime, box: Spec) -> None:
    """Eight at once on a small machine: their outputs wait in pipes and sockets."""
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: rt.run(box, sh("yes | head -c 1000000")), range(8)))
    assert [len(r.stdout) for r in results] == [1000000] * 8


# --- input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [None, b""])
def test_no_input_is_an_empty_one(rt: Runtime, box: Spec, data: bytes | None) -> None:
    r = rt.run(box, sh("cat; echo done"), input=data, timeout=60)
    assert (r.reason, r.stdout) == (Reason.EXITED, b"done\n")


@pytest.mark.parametrize("size", [1, 8192, 8193, 100_000])
def test_input_comes_through(rt: Runtime, box: Spec, size: int) -> None:
    data = bytes(i * 7 % 251 for i in range(size))
    assert rt.run(box, ["cat"], input=data, timeout=60).stdout == data


def test_five_megabytes_through_cat(rt: Runtime, box: Spec) -> None:
    data = os.urandom(5_000_000)
    r = rt.run(box, ["cat"], input=data, timeout=60)
    assert r.stdout == data


def test_input_to_a_job_that_never_reads(rt: Runtime, box: Spec) -> None:
    r = rt.run(box, sh("sleep 0.5; echo done"), input=b"x" * 5_000_000, timeout=60)
    assert (r.reason, r.exit_code, r.stdout) == (Reason.EXITED, 0, b"done\n")


def test_input_to_a_job_that_stops_reading(rt: Runtime, box: Spec) -> None:
    r = rt.run(box, sh("head -c 3; exec <&-; sleep 0.3; echo done"), input=b"x" * 5_000_000)
    assert (r.reason, r.stdout) == (Reason.EXITED, b"xxxdone\n")


def test_last_words_of_a_job_with_input_left(rt: Runtime, box: Spec) -> None:
    """conmon ends with input unread, which the kernel tells before the output that is there."""
    for _ in range(10):
        r = rt.run(box, sh("head -c 1000000 /dev/zero; echo last >&2"), input=b"x" * 5_000_000)
        assert (r.reason, len(r.stdout), r.stderr) == (Reason.EXITED, 1000000, b"last\n")


def test_timeout_of_a_job_that_never_reads(rt: Runtime, box: Spec) -> None:
    r = rt.run(box, SLEEP, input=b"x" * 5_000_000, timeout=0.5, grace=0)
    assert (r.reason, r.exit_code) == (Reason.TIMEOUT, 137)


def test_output_while_input_waits(rt: Runtime, box: Spec) -> None:
    """Both directions full at once must not block each other."""
    r = rt.run(box, sh("yes | head -c 1000000; wc -c"), input=b"x" * 1_000_000, timeout=60)
    assert r.stdout[-8:] == b"1000000\n"
    assert len(r.stdout) == 1_000_008


# --- what else a result says ------------------------------------------------------------------


def test_usage(rt: Runtime, box: Spec) -> None:
    began = time.monotonic()
    r = rt.run(box, sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"))
    spent = time.monotonic() - began
    assert r.usage.cpu_seconds is not None and 0.01 < r.usage.cpu_seconds < 2 * spent
    assert r.usage.memory_peak is not None and 4096 <= r.usage.memory_peak < 1 << 30
    assert r.usage.oom_kills == 0
    if r.usage.pids_peak is not None:  # Linux 6.1
        assert 1 <= r.usage.pids_peak < 100


def test_phases(rt: Runtime, box: Spec) -> None:
    began = time.monotonic()
    r = rt.run(box, ["sleep", "0.3"])
    spent = time.monotonic() - began
    assert list(r.phases) == ["prepare", "create", "start", "run", "release"]
    assert all(seconds > 0 for seconds in r.phases.values())
    assert r.phases["start"] + r.phases["run"] >= 0.3
    assert sum(r.phases.values()) <= spent + 0.01


def test_identity(rt: Runtime, box: Spec) -> None:
    r = rt.run(box.but(key=("mark", 1), labels={"a": "b"}), ["true"], name="named")
    assert (r.name, r.key) == ("named", ("mark", 1))
    assert r.id is not None and re.fullmatch("[0-9a-f]{64}", r.id)
    assert rt.get_containers() == []
    other = rt.run(box, ["true"])
    assert other.id != r.id and other.key is None and other.name


def test_json_form(rt: Runtime, box: Spec) -> None:
    r = rt.run(box.but(key="k"), sh("printf '\\377'; exit 3"))
    form = json.loads(json.dumps(r.to_json()))
    assert form["schema"] == 1
    assert (form["reason"], form["exit_code"], form["key"]) == ("exited", 3, "k")
    assert (form["stdout"], form["stderr"]) == ("/w==", "")
    assert form["usage"]["oom_kills"] == 0
    assert set(form["phases"]) == {"prepare", "create", "start", "run", "release"}


def test_a_result_pickles(rt: Runtime, box: Spec) -> None:
    r = rt.run(box, sh("echo x; exit 3"))
    copy = pickle.loads(pickle.dumps(r))
    assert copy.to_json() == r.to_json()


def test_names_are_checked_first(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    with pytest.raises(InvalidArgument, match="name 'a b' is not valid"):
        rt.run(box, ["true"], name="a b")
    with rt.create(box, SLEEP, name="taken"), pytest.raises(ContainerExists, match="taken"):
        rt.run(box, ["true"], name="taken")
    assert containers_of(dirs) == []


def test_the_command_comes_from_the_spec_or_the_call(rt: Runtime, box: Spec) -> None:
    job = box.but(command=["echo", "spec"])
    assert rt.run(job).stdout == b"spec\n"
    assert rt.run(job, ["echo", "call"]).stdout == b"call\n"
    entry = box.but(entrypoint=["echo", "entry"], command=["spec"])
    assert rt.run(entry).stdout == b"entry spec\n"
    assert rt.run(entry, ["call"]).stdout == b"entry call\n"
    with pytest.raises(InvalidArgument, match="nothing to run"):
        rt.run(box)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": "soon"},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"grace": -1},
        {"grace": None},
        {"input": "text"},
    ],
)
def test_arguments_that_have_no_meaning(
    rt: Runtime, box: Spec, wrong: dict[str, Any], dirs: Dirs
) -> None:
    """Refused before anything was made, by a class that a Python program expects."""
    with pytest.raises((InvalidArgument, TypeError)):
        rt.run(box, ["true"], **wrong)
    assert containers_of(dirs) == []


# --- many threads -------------------------------------------------------------------------------


def test_eight_threads_ten_runs_each(rt: Runtime, box: Spec) -> None:
    """Each gets its own output, code and name."""

    def ten(thread: int) -> list[Result]:
        return [
            rt.run(box, sh(f"echo {thread}-{n}; echo {n} >&2; exit {n}"), name=f"t{thread}.{n}")
            for n in range(10)
        ]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(ten, range(8)))
    for thread, of_thread in enumerate(results):
        for n, r in enumerate(of_thread):
            assert (r.exit_code, r.stdout, r.stderr, r.name) == (
                n,
                f"{thread}-{n}\n".encode(),
                f"{n}\n".encode(),
                f"t{thread}.{n}",
            )


def test_one_container_from_many_threads(rt: Runtime, box: Spec) -> None:
    """Whatever order the verbs come in, each works or says that the state is wrong."""
    c = rt.create(box, SLEEP)
    wrong: list[BaseException] = []
    end = time.monotonic() + 3

    def churn(verb: Callable[[], object]) -> None:
        while time.monotonic() < end:
            try:
                verb()
            except (libpod.ContainerStateInvalid, libpod.ContainerStopped, ContainerExists):
                time.sleep(0.001)
            except BaseException as error:
                wrong.append(error)
                return

    verbs: list[Callable[[], object]] = [
        *(c.start, c.start, c.kill, c.pause, c.unpause),
        *(lambda: c.stop(grace=0), lambda: c.state, lambda: c.usage),
    ]
    threads = [threading.Thread(target=churn, args=[verb]) for verb in verbs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if c.state.status is libpod.Status.PAUSED:
        c.unpause()
    c.remove(force=True)
    assert wrong == []
