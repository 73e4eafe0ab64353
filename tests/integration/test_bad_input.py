# SPDX-License-Identifier: Apache-2.0
"""What a user, a host or a broken program may throw at us: one clear error each, and
nothing left (the census of every test says so).

Shell scripts play conmon and the OCI runtime where the real ones cannot be made
to fail on demand.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import libpod.conmon
import libpod.life
from conftest import Dirs, Said, await_output, containers_of, needed, remove_all
from libpod import (
    CommandNotExecutable,
    CommandNotFound,
    ConfigError,
    ConmonFailed,
    ConmonGarbage,
    ContainerStateInvalid,
    CreateFailed,
    CreateTimeout,
    InvalidArgument,
    LibpodError,
    Mount,
    OCIRuntimeFailed,
    OCIRuntimeTimeout,
    Reason,
    Runtime,
    RuntimeDirError,
    Spec,
    Status,
    SystemCallError,
)

Script = Callable[[str, str], str]

SLEEP = ["sleep", "1000"]

# What a fake conmon does before it says anything, as the real one.
AWAIT_START = "dd bs=1 count=1 of=/dev/null <&4 2>/dev/null\n"


def check(
    error: LibpodError, *said: str, fault: str | None = None, phase: str | None = None
) -> None:
    """One clear error: it names the thing, and what to do about it."""
    assert error.remedy, f"no remedy: {error}"
    for word in said:
        assert word in str(error), f"{word!r} not in: {error}"
    if fault is not None:
        assert error.fault == fault
    if phase is not None:
        assert error.phase == phase
    assert "\n" not in str(error)


# --- no such program ------------------------------------------------------------


@pytest.mark.parametrize("option", ["conmon_path", "oci_runtime"])
def test_a_program_that_is_not_there(options: dict[str, str], dirs: Dirs, option: str) -> None:
    what = "conmon" if option == "conmon_path" else "OCI runtime"
    directory = f"{dirs.work}/directory"
    plain = f"{dirs.work}/plain"
    os.mkdir(directory)
    with open(plain, "w", encoding="ascii") as file:
        file.write("#!/bin/sh\n")
    for path, why in (
        (f"{dirs.work}/nothing", ""),
        (directory, f"{directory} is a directory"),
        (plain, f"{plain} is not executable"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            Runtime(**{**options, option: path})
        check(caught.value, f"could not find a working {what} binary", path, why, fault="host")
    assert not os.path.exists(dirs.tmp) and not os.path.exists(dirs.static)


def test_a_program_that_went_after_the_opening(
    options: dict[str, str], script: Script, box: Spec, oci_path: str
) -> None:
    conmon = script("conmon", "exit 1")
    with Runtime(**{**options, "conmon_path": conmon}) as rt:
        os.unlink(conmon)
        with pytest.raises(SystemCallError, match="cannot execute") as caught:
            rt.run(box, SLEEP)
        assert conmon in str(caught.value)
        assert caught.value.errno == errno.ENOENT
    oci = script(os.path.basename(oci_path), f'exec {oci_path} "$@"')
    with Runtime(**{**options, "oci_runtime": oci}) as rt:
        os.unlink(oci)
        with pytest.raises(LibpodError) as failure:
            rt.run(box, SLEEP)
        assert oci in str(failure.value)


# --- root file system and command ------------------------------------------------------------


def test_a_root_that_is_none(rt: Runtime, dirs: Dirs) -> None:
    plain = f"{dirs.work}/plain"
    with open(plain, "w", encoding="ascii"):
        pass
    for path, why in ((f"{dirs.work}/nothing", "does not exist"), (plain, "is not a directory")):
        with pytest.raises(InvalidArgument) as caught:
            rt.run(Spec(rootfs=path), ["true"])
        check(caught.value, path, why, fault="job")


@pytest.mark.parametrize("command", ["nosuch", "/bin/nosuch", "./nosuch", "/nosuch/x"])
def test_a_command_that_is_not_there(rt: Runtime, box: Spec, command: str) -> None:
    with pytest.raises(CommandNotFound) as caught:
        rt.run(box, [command])
    check(caught.value, command, fault="job", phase="create")
    assert isinstance(caught.value, FileNotFoundError)
    assert caught.value.detail and caught.value.container_id


def test_a_command_without_the_x_bit(rt: Runtime, own_rootfs: str) -> None:
    with open(f"{own_rootfs}/bin/plain", "w", encoding="ascii") as file:
        file.write("#!/bin/sh\n")
    for command in ("/bin/plain", "/etc"):
        with pytest.raises(CommandNotExecutable) as caught:
            rt.run(Spec(rootfs=own_rootfs), [command])
        check(caught.value, command, fault="job", phase="create")
        assert isinstance(caught.value, PermissionError)


def test_an_empty_root(rt: Runtime, dirs: Dirs) -> None:
    os.mkdir(f"{dirs.work}/empty")
    with pytest.raises(CommandNotFound) as caught:
        rt.run(Spec(rootfs=f"{dirs.work}/empty"), ["/bin/true"])
    check(caught.value, "/bin/true", fault="job")


def test_a_command_that_only_the_kernel_refuses(rt: Runtime, own_rootfs: str) -> None:
    """Found and executable, but no program: known when the runtime is gone already."""
    for name, text in (("format", "no program"), ("interpreter", "#!/no/such/shell\n")):
        path = f"{own_rootfs}/bin/{name}"
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(path, 0o755)
        try:
            r = rt.run(Spec(rootfs=own_rootfs), [f"/bin/{name}"], timeout=60)
        except CreateFailed as error:
            check(error, fault="job")
        else:
            assert r.reason is Reason.EXITED and r.exit_code not in (0, None)


def test_a_working_directory_that_is_a_file(rt: Runtime, box: Spec) -> None:
    with pytest.raises(CreateFailed) as caught:
        rt.run(box.but(workdir="/bin/busybox"), ["true"])
    check(caught.value, phase="create")


# --- configuration ------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("this is = = not TOML", "error decoding configuration file"),
        ('max_log_size = "much"', "max_log_size"),
        ("runtime_path = [1, 2]", "runtime_path"),
        ('cgroup_manager = "other"', "cgroup_manager"),
        ('tmp_dir = "relative"', "tmp_dir"),
    ],
)
def test_a_bad_configuration_file(dirs: Dirs, text: str, expected: str) -> None:
    path = f"{dirs.work}/libpod.conf"
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    with pytest.raises(ConfigError) as caught:
        Runtime.from_config(path, static_dir=dirs.static, tmp_dir=dirs.tmp)
    assert path in str(caught.value) and expected in str(caught.value)
    assert caught.value.fault == "config"
    assert not os.path.exists(dirs.tmp)


def test_a_configuration_file_that_cannot_be_read(dirs: Dirs) -> None:
    for path in (f"{dirs.work}/nothing", dirs.work):
        with pytest.raises(ConfigError) as caught:
            Runtime.from_config(path)
        assert path in str(caught.value)


def test_an_unknown_option(options: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="did you mean 'static_dir'"):
        Runtime(**options, statik_dir="/x")


# --- an OCI runtime that misbehaves ------------------------------------------------------------


@pytest.fixture
def fake_oci(
    options: dict[str, str], oci_path: str, script: Script
) -> Iterator[Callable[[str], Runtime]]:
    """A runtime whose OCI runtime does what the text says for some verbs, and the rest well."""
    opened: list[Runtime] = []

    def make(text: str) -> Runtime:
        name = os.path.basename(oci_path)
        path = script(name, f'case " $* " in\n{text}\nesac\nexec {oci_path} "$@"')
        opened.append(Runtime(**{**options, "oci_runtime": path}))
        return opened[-1]

    yield make
    for runtime in opened:
        remove_all(runtime)
        runtime.close()


def test_a_runtime_that_prints_garbage(fake_oci: Callable[[str], Runtime], box: Spec) -> None:
    rt = fake_oci(
        '*" create "*) head -c 3000 /dev/urandom; head -c 3000 /dev/urandom >&2; exit 0;;'
    )
    with pytest.raises(LibpodError) as caught:
        rt.run(box, SLEEP)
    check(caught.value, phase="create")


def test_a_runtime_that_fails_with_a_message(fake_oci: Callable[[str], Runtime], box: Spec) -> None:
    rt = fake_oci('*" create "*) echo "the moon is in the wrong house" >&2; exit 1;;')
    with pytest.raises(CreateFailed, match="the moon is in the wrong house") as caught:
        rt.run(box, SLEEP)
    check(caught.value, phase="create")
    assert "the moon" in (caught.value.detail or "")


def test_a_runtime_that_fails_without_a_word(fake_oci: Callable[[str], Runtime], box: Spec) -> None:
    rt = fake_oci('*" create "*) exit 42;;')
    with pytest.raises((CreateFailed, ConmonFailed)) as caught:  # conmon has nothing to pass on
        rt.run(box, SLEEP)
    check(caught.value, phase="create")


def test_a_runtime_with_very_much_to_say(fake_oci: Callable[[str], Runtime], box: Spec) -> None:
    """Not more than a pipe holds: of a runtime that is still writing conmon reads nothing."""
    rt = fake_oci('*" create "*) head -c 60000 /dev/zero | tr "\\0" x >&2; exit 1;;')
    with pytest.raises(CreateFailed, match="xxxx") as caught:
        rt.run(box, SLEEP)
    assert len(str(caught.value)) < 100_000
    assert len(caught.value.detail or "") <= 16 * 1024


def test_a_runtime_that_never_stops_talking(
    fake_oci: Callable[[str], Runtime], box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libpod.conmon, "CREATE_TIMEOUT", 1.0)
    rt = fake_oci('*" create "*) exec cat /dev/zero >&2;;')
    with pytest.raises(CreateTimeout):
        rt.run(box, SLEEP)


def test_a_runtime_that_is_killed_in_the_middle(
    fake_oci: Callable[[str], Runtime],
    box: Spec,
    oci_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After it has made the container, cgroups and all, but before it said so.  conmon
    reads its words to their end, which the container's first process holds open."""
    monkeypatch.setattr(libpod.conmon, "CREATE_TIMEOUT", 2.0)
    rt = fake_oci(f'*" create "*) {oci_path} "$@"; kill -9 $$;;')
    with pytest.raises((CreateFailed, CreateTimeout)) as caught:
        rt.run(box, SLEEP)
    check(caught.value, phase="create")


def test_a_runtime_that_is_killed_at_once(fake_oci: Callable[[str], Runtime], box: Spec) -> None:
    rt = fake_oci('*" create "*) kill -9 $$;;')
    with pytest.raises((CreateFailed, ConmonFailed)) as caught:
        rt.run(box, SLEEP)
    check(caught.value, phase="create")


def test_a_runtime_that_hangs(
    fake_oci: Callable[[str], Runtime],
    box: Spec,
    oci_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libpod.conmon, "CREATE_TIMEOUT", 1.0)
    for text in (
        '*" create "*) trap "" TERM HUP INT; sleep 1000;;',
        f'*" create "*) {oci_path} "$@"; sleep 1000;;',  # having made the container
    ):
        rt = fake_oci(text)
        began = time.monotonic()
        with pytest.raises(CreateTimeout) as caught:
            rt.run(box, SLEEP)
        assert 1 <= time.monotonic() - began < 60
        check(caught.value, "within 1 s", phase="create")
        assert caught.value.retryable and isinstance(caught.value, TimeoutError)
        rt.close()


def test_a_start_that_fails(fake_oci: Callable[[str], Runtime], box: Spec) -> None:
    rt = fake_oci('*" start "*) echo "no start today" >&2; exit 1;;')
    with pytest.raises(OCIRuntimeFailed, match="no start today") as caught:
        rt.run(box, SLEEP)
    assert (caught.value.phase, caught.value.detail) == ("start", "no start today\n")
    with pytest.raises(OCIRuntimeFailed):
        rt.start(box, SLEEP)


def test_a_start_with_very_much_to_say(fake_oci: Callable[[str], Runtime], box: Spec) -> None:
    rt = fake_oci('*" start "*) yes | head -c 3000000; yes | head -c 3000000 >&2;;')
    assert rt.run(box, ["echo", "x"]).stdout == b"x\n"
    rt = fake_oci('*" start "*) yes no | head -c 3000000 >&2; exit 1;;')
    with pytest.raises(OCIRuntimeFailed) as caught:
        rt.run(box, SLEEP)
    assert len(caught.value.detail or "") <= 16 * 1024 and len(str(caught.value)) < 1000


def test_a_start_that_is_killed(fake_oci: Callable[[str], Runtime], box: Spec) -> None:
    rt = fake_oci('*" start "*) kill -9 $$;;')
    with pytest.raises(OCIRuntimeFailed, match="was killed by SIGKILL") as caught:
        rt.run(box, SLEEP)
    assert caught.value.phase == "start"


def test_a_start_that_hangs(
    fake_oci: Callable[[str], Runtime], box: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libpod.oci.OCIRuntime._run, "__kwdefaults__", {"timeout": 1.0})
    rt = fake_oci('*" start "*) trap "" TERM; (sleep 1000) & sleep 1000;;')
    with pytest.raises(OCIRuntimeTimeout, match="did not end within 1 s") as caught:
        rt.run(box, SLEEP)
    check(caught.value)
    assert caught.value.retryable


def test_a_delete_that_fails_is_made_good(
    fake_oci: Callable[[str], Runtime], box: Spec, said: Said
) -> None:
    rt = fake_oci('*" delete "*) echo "never" >&2; exit 1;;')
    assert rt.run(box, ["sh", "-c", "exit 3"]).exit_code == 3
    said.expect("could not delete container .*: never; clearing up without it")


def test_a_delete_that_hangs_is_made_good(
    fake_oci: Callable[[str], Runtime],
    box: Spec,
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libpod.oci.OCIRuntime._run, "__kwdefaults__", {"timeout": 1.0})
    rt = fake_oci('*" delete "*) sleep 1000;;')
    r = rt.run(box, ["echo", "x"])
    assert (r.reason, r.stdout) == (Reason.EXITED, b"x\n")
    said.expect("did not end within 1 s and was killed")


def test_a_pause_that_fails(fake_oci: Callable[[str], Runtime], box: Spec) -> None:
    rt = fake_oci('*" pause "*) echo "too warm to freeze" >&2; exit 1;;')
    c = rt.start(box, SLEEP)
    with pytest.raises(OCIRuntimeFailed, match="too warm to freeze"):
        c.pause()
    assert c.state.status is Status.RUNNING


def test_a_runtime_that_is_no_runtime(options: dict[str, str], box: Spec) -> None:
    with Runtime(**{**options, "oci_runtime": "/bin/true"}) as rt:
        with pytest.raises(LibpodError) as caught:
            rt.run(box, SLEEP)
        check(caught.value, phase="create")


# --- a conmon that misbehaves ------------------------------------------------------------


@pytest.fixture
def fake_conmon(options: dict[str, str], script: Script) -> Iterator[Callable[[str], Runtime]]:
    """A runtime whose conmon does what the text says."""
    opened: list[Runtime] = []

    def make(text: str) -> Runtime:
        opened.append(Runtime(**{**options, "conmon_path": script("conmon", text)}))
        return opened[-1]

    yield make
    for runtime in opened:
        remove_all(runtime)
        runtime.close()


@pytest.mark.parametrize(
    "answer",
    [
        "garbage",
        "",
        "{",
        "[]",
        "null",
        "42",
        '"pid"',
        "{}",
        '{"pid": "12"}',
        '{"pid": null}',
        '{"pid": 1.5}',
        '{"pid": true}',
        '{"pid": -1, "message": 7}',
        "[" * 20000,
    ],
)
def test_a_conmon_that_answers_garbage(
    fake_conmon: Callable[[str], Runtime], box: Spec, answer: str
) -> None:
    rt = fake_conmon(f"{AWAIT_START}cat >&3 <<'END'\n{answer}\nEND\n")
    with pytest.raises(ConmonGarbage) as caught:
        rt.run(box, SLEEP)
    check(caught.value, phase="create")
    assert (caught.value.detail or "").startswith(answer[:100])


def test_a_conmon_that_answers_bytes_without_end(
    fake_conmon: Callable[[str], Runtime], box: Spec
) -> None:
    rt = fake_conmon(f"{AWAIT_START}exec cat /dev/urandom >&3 2>/dev/null")
    with pytest.raises(ConmonGarbage) as caught:
        rt.run(box, SLEEP)
    assert len(caught.value.detail or "") <= 16 * 1024


@pytest.mark.parametrize("key", ["pid", "data"])
def test_a_conmon_that_passes_on_a_refusal(
    fake_conmon: Callable[[str], Runtime], box: Spec, key: str
) -> None:
    message = r"time=\"now\" level=error msg=\"the \\\"moon\\\" is down\""
    rt = fake_conmon(
        f'{AWAIT_START}cat >&3 <<\'END\'\n{{"{key}": -1, "message": "{message}"}}\nEND\n'
    )
    with pytest.raises(CreateFailed, match='container create failed: the "moon" is down') as caught:
        rt.run(box, SLEEP)
    assert 'msg="the' in (caught.value.detail or "")
    check(caught.value, phase="create")


def test_a_conmon_that_says_no_without_a_reason(
    fake_conmon: Callable[[str], Runtime], box: Spec
) -> None:
    rt = fake_conmon(AWAIT_START + """echo '{"pid": -1}' >&3""")
    with pytest.raises(CreateFailed, match="container create failed") as caught:
        rt.run(box, SLEEP)
    check(caught.value, phase="create")


@pytest.mark.parametrize(
    "text",
    [
        "echo 'my libraries are missing' >&2; exit 127",
        AWAIT_START + "echo 'my libraries are missing' >&2; kill -9 $$",
        AWAIT_START + "echo 'my libraries are missing' >&2; printf '{\"pid\"' >&3; exit 0",
    ],
)
def test_a_conmon_that_dies(fake_conmon: Callable[[str], Runtime], box: Spec, text: str) -> None:
    rt = fake_conmon(text)
    with pytest.raises(ConmonFailed) as caught:
        rt.run(box, SLEEP)
    check(caught.value, "conmon ended before it answered", "my libraries", phase="create")
    assert caught.value.detail == "my libraries are missing\n"


@pytest.mark.parametrize(
    "text",
    ["sleep 1000", AWAIT_START + "trap '' TERM; sleep 1000", AWAIT_START + "(sleep 1000) & wait"],
)
def test_a_conmon_that_hangs(
    fake_conmon: Callable[[str], Runtime],
    box: Spec,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libpod.conmon, "CREATE_TIMEOUT", 0.5)
    rt = fake_conmon(text)
    with pytest.raises(CreateTimeout, match="within 0.5 s") as caught:
        rt.run(box, SLEEP)
    check(caught.value, phase="create")


def test_a_conmon_that_names_a_process_but_leaves_no_monitor(
    fake_conmon: Callable[[str], Runtime], box: Spec
) -> None:
    rt = fake_conmon(AWAIT_START + "echo '{\"pid\": 999999}' >&3")
    with pytest.raises(LibpodError) as caught:
        rt.run(box, SLEEP)
    check(caught.value, phase="create")


def test_a_conmon_that_writes_its_pid_file_after_its_answer(
    options: dict[str, str], script: Script, box: Spec
) -> None:
    """The real one's two processes do these at the same time."""
    options["conmon_path"] = script(
        "conmon",
        f"""for word; do
            shift
            [ "$last" = --conmon-pidfile ] && path=$word && word=$word.late
            last=$word
            set -- "$@" "$word"
        done
        {needed("conmon")} "$@"
        sleep 1
        mv "$path.late" "$path"
        """,
    )
    with Runtime(**options) as rt:
        assert rt.run(box, ["true"]).exit_code == 0


def test_a_conmon_that_names_somebody_else_as_its_container(
    fake_conmon: Callable[[str], Runtime],
    box: Spec,
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pid that is not the container's is never signalled."""
    monkeypatch.setattr(libpod.life, "KILL_TIMEOUT", 3.0)
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        rt = fake_conmon(
            f"""{AWAIT_START}
            answer='{{"pid": {victim.pid}}}'
            setsid sh -c 'sleep 1000; :' "$0" "$@" 3>&- 4<&- &
            until [ "$(cat /proc/$!/comm)" = sh ] && grep -qa 1000 /proc/$!/cmdline; do :; done
            while [ $# -gt 0 ]; do [ $1 = --conmon-pidfile ] && echo $! >$2; shift; done
            echo "$answer" >&3"""
        )
        with pytest.raises(ContainerStateInvalid, match="has ended just now") as caught:
            rt.start(box, SLEEP)
        assert "could not start" in str(caught.value.__cause__)
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    said.expect("monitor .* hangs: killed")
    said.expect("died without an exit code")


def test_a_monitor_that_hangs(
    rt: Runtime, box: Spec, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container has died, but its monitor does not see it: ended as lost."""
    monkeypatch.setattr(libpod.life, "KILL_TIMEOUT", 3.0)
    c = rt.start(box, SLEEP)
    with open(
        f"{rt.paths.run_root}/overlay-containers/{c.id}/userdata/conmon.pid", encoding="ascii"
    ) as file:
        os.kill(int(file.read()), signal.SIGSTOP)
    c.stop(grace=0)
    assert c.wait(0) == -1
    c.remove()
    said.expect("monitor .* hangs: killed")
    said.expect("died without an exit code")


def test_a_conmon_that_is_no_conmon(options: dict[str, str], box: Spec) -> None:
    with Runtime(**{**options, "conmon_path": "/bin/cat"}) as rt:
        with pytest.raises(ConmonFailed, match="/bin/cat ended before it answered") as caught:
            rt.run(box, SLEEP)
        check(caught.value, phase="create")
        assert caught.value.detail  # cat's own complaint


# --- directories and disks ------------------------------------------------------------


@pytest.fixture
def mounted(dirs: Dirs) -> Iterator[Callable[[str, str], str]]:
    """Mounts a tmpfs with options on a directory of that name; unmounted at the end."""
    points: list[str] = []

    def mount(name: str, options: str) -> str:
        path = f"{dirs.base}/{name}"
        os.makedirs(path, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
        points.append(path)
        return path

    yield mount
    for path in points:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("name", ["tmp", "static"])
def test_a_read_only_directory(
    options: dict[str, str], mounted: Callable[[str, str], str], name: str
) -> None:
    path = mounted(name, "mode=0755")
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)
    with pytest.raises(SystemCallError) as caught:
        Runtime(**options)
    assert path in str(caught.value)
    assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("name", ["tmp", "static"])
def test_a_directory_that_others_can_write(options: dict[str, str], dirs: Dirs, name: str) -> None:
    path = f"{dirs.base}/{name}"
    os.mkdir(path)
    os.chmod(path, 0o777)
    with pytest.raises(RuntimeDirError) as caught:
        Runtime(**options)
    check(caught.value, path, fault="config")


def test_a_directory_that_is_a_file(options: dict[str, str], dirs: Dirs) -> None:
    with open(dirs.tmp, "w", encoding="ascii"):
        pass
    try:
        with pytest.raises(LibpodError) as caught:
            Runtime(**options)
        assert dirs.tmp in str(caught.value)
    finally:
        os.unlink(dirs.tmp)


def fill(directory: str, leave: int) -> None:
    """Fills a file system but for about `leave` bytes."""
    facts = os.statvfs(directory)
    size = facts.f_bavail * facts.f_frsize - leave
    with open(f"{directory}/filler", "wb") as file:
        file.write(bytes(max(0, size)))


def test_no_space_for_the_bundle(
    options: dict[str, str], mounted: Callable[[str, str], str], box: Spec, dirs: Dirs
) -> None:
    mounted("static", "size=256k,mode=0755")
    with Runtime(**options) as rt:
        fill(dirs.static, 4096)
        with pytest.raises(SystemCallError) as caught:
            rt.run(box, SLEEP)
        check(caught.value, dirs.static, "No space left", fault="host", phase="prepare")
        assert caught.value.errno == errno.ENOSPC
        assert containers_of(dirs) == []
        os.unlink(f"{dirs.static}/filler")
        assert rt.run(box, ["echo", "again"]).stdout == b"again\n"


def test_no_inode_for_the_container(
    options: dict[str, str], mounted: Callable[[str, str], str], box: Spec, dirs: Dirs
) -> None:
    """However far a creation gets, all of it goes."""
    mounted("static", "nr_inodes=60,mode=0755")
    with Runtime(**options) as rt:
        rt.run(box, ["true"])  # makes what stays
        free = os.statvfs(dirs.static).f_ffree
        for left in range(7):
            for number in range(free - left):
                write("")(f"{dirs.static}/filler{number}")
            with pytest.raises((SystemCallError, ConmonFailed)) as caught:
                rt.run(box, SLEEP)
            if isinstance(caught.value, SystemCallError):
                check(caught.value, dirs.static, "No space left", fault="host", phase="prepare")
                assert caught.value.errno == errno.ENOSPC
            else:  # it was for conmon, which begins when the directories are there
                assert left >= 2
            assert rt.get_containers() == []
            assert os.listdir(f"{dirs.tmp}/lock") == []
            for number in range(free - left):
                os.unlink(f"{dirs.static}/filler{number}")
            assert os.statvfs(dirs.static).f_ffree == free
        assert rt.run(box, ["echo", "again"]).stdout == b"again\n"


def test_no_space_for_the_oci_runtime(
    options: dict[str, str],
    mounted: Callable[[str, str], str],
    box: Spec,
    dirs: Dirs,
    said: Said,
) -> None:
    """However much there is: for the files of /etc, the pid files, the runtime's own."""
    mounted("tmp", "size=128k,mode=0751")
    phases = set()
    with Runtime(**options) as rt:
        for pages in range(12):
            fill(dirs.tmp, pages * 4096)
            try:
                rt.start(box, SLEEP).kill_and_remove()
            except LibpodError as error:
                check(error)
                phases.add(error.phase)
            assert rt.get_containers() == []
            os.unlink(f"{dirs.tmp}/filler")
        assert rt.run(box, ["echo", "again"]).stdout == b"again\n"
    assert phases == {"prepare", "create"}
    said.allow("died without an exit code")  # for which there was no space


def test_no_space_for_the_log(
    options: dict[str, str], mounted: Callable[[str, str], str], box: Spec, dirs: Dirs
) -> None:
    """The log is cut; the job and its result do not suffer."""
    mounted("static", "size=256k,mode=0755")
    with Runtime(**options) as rt:
        r = rt.run(box, ["sh", "-c", "yes | head -c 1000000; exit 3"], timeout=60)
        assert (r.reason, r.exit_code, len(r.stdout)) == (Reason.EXITED, 3, 1000000)


def test_no_space_for_the_exit_file(
    options: dict[str, str],
    mounted: Callable[[str, str], str],
    box: Spec,
    dirs: Dirs,
    said: Said,
) -> None:
    """conmon cannot say how it ended: lost, and said so, but not waited for for ever."""
    mounted("tmp", "size=1M,nr_inodes=100,mode=0751")
    with Runtime(**options) as rt:
        c = rt.start(box, ["sh", "-c", "echo up; exec sleep 1000"])
        await_output(c, b"up")
        number = 0
        while True:
            try:
                with open(f"{dirs.tmp}/filler{number}", "wb"):
                    number += 1
            except OSError:
                break
        c.kill(signal.SIGKILL)
        assert c.wait(60) == -1
        for i in range(number):
            os.unlink(f"{dirs.tmp}/filler{i}")
        said.expect("died without an exit code")
        c.remove()


def test_no_descriptor_left_to_open(rt: Runtime, box: Spec, said: Said) -> None:
    """Whatever cannot be opened: an error, and as it was before as soon as there is room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    fillers = [os.dup(0)]
    while fillers[-1] < highest:  # a limit is on the number: no gaps below it
        fillers.append(os.dup(0))
    failures = []
    for room in range(1, 40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + room, hard))
        try:
            r = rt.run(box, ["echo", "x"], input=b"y", timeout=60)
            assert (r.reason, r.stdout) == (Reason.EXITED, b"x\n")
            break
        except OSError as error:
            assert error.errno == errno.EMFILE
            failures.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert rt.get_containers() == []
    for fd in fillers:
        os.close(fd)
    said.allow("Too many open files; clearing up without it")
    assert r.ok and len(failures) > 3
    assert all(isinstance(error, LibpodError) for error in failures), failures


# --- exit files ------------------------------------------------------------


def put_exit_file(dirs: Dirs, container_id: str, make: Callable[[str], Any]) -> None:
    """Puts something where conmon puts the exit file, in the way that conmon does."""
    beside = f"{dirs.work}/planted"
    make(beside)
    os.rename(beside, f"{dirs.tmp}/exits/{container_id}")


def write(text: str) -> Callable[[str], Any]:
    def make(path: str) -> None:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    return make


@pytest.mark.parametrize("text", ["", "garbage", "12345", "1 2"])
def test_garbage_in_the_exit_file(
    rt: Runtime, box: Spec, dirs: Dirs, said: Said, text: str
) -> None:
    c = rt.start(box, SLEEP)
    pid = c.state.pid
    put_exit_file(dirs, c.id, write(text))
    assert c.wait(60) == -1
    assert c.state.status is Status.EXITED
    assert not os.path.exists(f"/proc/{pid}/ns/pid")  # ended, if not reaped yet
    said.expect("the exit file of container .* holds no exit code")
    c.remove()


def test_a_planted_link_is_not_followed(rt: Runtime, box: Spec, dirs: Dirs, said: Said) -> None:
    secret = f"{dirs.work}/secret"
    write("7")(secret)
    c = rt.start(box, SLEEP)
    put_exit_file(dirs, c.id, lambda path: os.symlink(secret, path))
    assert c.wait(60) == -1
    said.expect("the exit file of container .* is not a file")
    c.remove()
    with open(secret, encoding="ascii") as file:
        assert file.read() == "7"


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_an_exit_file_that_is_no_file(
    rt: Runtime, box: Spec, dirs: Dirs, said: Said, kind: str
) -> None:
    c = rt.start(box, SLEEP)
    put_exit_file(dirs, c.id, os.mkfifo if kind == "fifo" else os.mkdir)
    assert c.wait(60) == -1
    said.expect("is not a file")
    said.allow("cannot remove the exit file")
    c.remove()
    if kind == "directory":
        os.rmdir(f"{dirs.tmp}/exits/{c.id}")


def test_a_link_planted_before_the_exit_is_replaced(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    secret = f"{dirs.work}/secret"
    write("7")(secret)
    c = rt.start(box, ["sh", "-c", "sleep 0.3; exit 5"])
    os.symlink(secret, f"{dirs.tmp}/exits/{c.id}")
    assert c.wait(60) == 5
    c.remove()
    with open(secret, encoding="ascii") as file:
        assert file.read() == "7"


def test_an_exit_directory_that_went(
    rt: Runtime, options: dict[str, str], box: Spec, dirs: Dirs, said: Said
) -> None:
    c = rt.start(box, SLEEP)
    other = rt.start(box, SLEEP)
    shutil.rmtree(f"{dirs.tmp}/exits")
    c.kill(signal.SIGKILL)
    assert c.wait(60) == -1
    said.expect("died without an exit code")
    other.stop()
    assert other.wait(60) == -1
    said.expect("died without an exit code")
    c.remove()
    other.remove()
    Runtime(**options).close()  # the next opener makes it again
    assert stat.S_IMODE(os.stat(f"{dirs.tmp}/exits").st_mode) == 0o750


def test_a_log_that_went(rt: Runtime, box: Spec) -> None:
    c = rt.start(box, ["sh", "-c", "echo up; sleep 0.3; echo on; exit 4"])
    await_output(c, b"up")
    os.unlink(c.log_path)
    assert c.wait(60) == 4


def test_a_bundle_that_went(rt: Runtime, box: Spec, said: Said) -> None:
    c = rt.start(box, SLEEP)
    shutil.rmtree(os.path.dirname(c.log_path))
    c.stop()
    assert c.wait(60) == 137
    c.remove()
    said.allow("clearing up without it")


def test_a_mount_target_that_cannot_be_made(rt: Runtime, box: Spec, dirs: Dirs) -> None:
    with pytest.raises(CreateFailed) as caught:
        rt.run(box.but(mounts=[Mount(dirs.work, "/bin/busybox/x")]), ["true"])
    check(caught.value, phase="create")
