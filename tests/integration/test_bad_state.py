# SPDX-License-Identifier: Apache-2.0
"""State that is damaged, foreign, full or held: a typed error, one line and exit code 125
from the command, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import mountns
from conftest import Dirs, Said, remove_all
from libpod import (
    ContainerExists,
    ContainerRemoved,
    DBBadConfig,
    LibpodError,
    LockTimeout,
    NamespaceMismatch,
    NoSuchContainer,
    OCIRuntimeFailed,
    Runtime,
    RuntimeDirError,
    Spec,
    Status,
    StorageConfig,
    SystemCallError,
    guard,
    kv,
    names,
)
from libpod.state import bolt
from libpod.state.errors import BadRecord
from libpod.storage.errors import StorageFull

pytestmark = pytest.mark.any_runtime

SLEEP = ["sleep", "1000"]
NOBODY = 65534


@pytest.fixture
def database(dirs: Dirs) -> str:
    return f"{dirs.static}/bolt_state.db"


class Command:
    """`libpod` with the test's directories."""

    def __init__(self, options: dict[str, str]) -> None:
        self.words = [sys.executable, "-m", "libpod", "--config=/dev/null"]
        self.words += [f"--static-dir={options['static_dir']}", f"--tmpdir={options['tmp_dir']}"]
        if "oci_runtime" in options:
            self.words.append(f"--runtime={options['oci_runtime']}")

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def fails(self, *words: str) -> str:
        """The one line that it says with exit code 125."""
        ended = self(*words)
        assert ended.returncode == 125, ended
        lines = ended.stderr.splitlines()
        assert len(lines) == 1, ended.stderr
        assert lines[0].startswith("Error: ")
        return lines[0]


@pytest.fixture
def command(options: dict[str, str]) -> Command:
    return Command(options)


@pytest.fixture
def kept(options: dict[str, str], box: Spec) -> Iterator[str]:
    """The ID of a container that is there before, and must be after."""
    with Runtime(**options) as rt:
        identifier = rt.create(box, SLEEP, name="kept").id
    yield identifier
    with Runtime(**options) as rt:
        assert rt.get_container(identifier).name == "kept"
        remove_all(rt)


# --- the database as a whole ------------------------------------------------------------------


def truncated(path: str) -> None:
    os.truncate(path, 5000)


def emptied_head(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(bytes(8192))


def text(path: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write("this is no database\n" * 1000)


def torn(path: str) -> None:
    """Both metas stand, and what they lead to is garbage."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))


def another_program(path: str) -> None:
    os.unlink(path)
    with kv.Database(path) as other, other.begin(write=True) as tx:
        tx.create_bucket(b"etcd")


@pytest.mark.parametrize(
    "spoil, error",
    [
        (truncated, kv.StoreError),
        (emptied_head, kv.InvalidDatabase),
        (text, kv.InvalidDatabase),
        (torn, kv.StoreError),
        (another_program, DBBadConfig),
    ],
)
def test_a_spoiled_database(
    kept: str,
    options: dict[str, str],
    database: str,
    command: Command,
    spoil: Callable[[str], None],
    error: type[LibpodError],
) -> None:
    shutil.copy2(database, f"{database}.good")
    spoil(database)
    with open(database, "rb") as file:
        spoiled = file.read()
    with pytest.raises(error) as caught, Runtime(**options) as rt:
        rt.get_containers()
    assert isinstance(caught.value, LibpodError)
    assert database in str(caught.value)
    assert database in command.fails("ps", "-a")
    with open(database, "rb") as file:
        assert file.read() == spoiled, "somebody wrote to it"
    os.rename(f"{database}.good", database)


def test_the_database_of_another_root(
    kept: str, options: dict[str, str], dirs: Dirs, command: Command
) -> None:
    with pytest.raises(DBBadConfig, match=f"{dirs.tmp}.*{dirs.work}/other"):
        Runtime(**{**options, "tmp_dir": f"{dirs.work}/other"})
    place = StorageConfig(graph_root=f"{dirs.work}/graph")
    with pytest.raises(DBBadConfig, match=f"{dirs.work}/graph"):
        Runtime(storage_config=place, **options)
    assert "graph" in command.fails(f"--root={dirs.work}/graph", "ps")
    assert os.listdir(dirs.work) == []  # nothing was made there


@pytest.fixture
def small(dirs: Dirs) -> Iterator[str]:
    """A file system of 2 MiB for the static directory."""
    os.mkdir(dirs.static)
    mountns.mount_tmpfs(dirs.static, "size=2m,mode=755")
    yield dirs.static
    mountns.unmount(dirs.static)
    os.rmdir(dirs.static)


def test_a_full_disk(small: str, options: dict[str, str], box: Spec, command: Command) -> None:
    ballast = f"{small}/ballast"
    with open(ballast, "wb") as file:
        file.write(bytes(256 << 10))
    with Runtime(**options) as rt:
        c = rt.create(box, SLEEP, name="kept")
        with pytest.raises((SystemCallError, StorageFull, kv.StoreError), match="(?i)space"):
            for _ in range(2000):
                rt.create(box, SLEEP)
        known = {one.id for one in rt.get_containers()}
        assert c.id in known
        assert {one.id for one in rt.store.containers()} == known
        assert rt.locks.in_use() == known
        assert "space" in command.fails("create", "--rootfs", box.rootfs or "", "true").lower()
        os.unlink(ballast)
        for container in rt.get_containers():
            container.remove()
        assert rt.store.containers() == []
        assert list(rt.store.unowned()) == []
        rt.create(box, SLEEP).remove()


def test_a_disk_that_is_read_only(
    small: str, options: dict[str, str], box: Spec, command: Command
) -> None:
    with Runtime(**options) as rt:
        kept = rt.create(box, SLEEP, name="kept").id
    mountns.remount(small, read_only=True)
    with pytest.raises(LibpodError, match="(?i)read-only"):
        Runtime(**options)
    assert "read-only" in command.fails("rm", "kept").lower()
    mountns.remount(small, read_only=False)
    with Runtime(**options) as rt:
        assert [one.id for one in rt.get_containers()] == [kept]
        c = rt.lookup_container("kept")
        c.start()
        c.remove(force=True)


# --- locks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lock_type", ["flock", "shm", "file"])
def test_a_lock_that_is_held_for_ever(
    lock_type: str,
    options: dict[str, str],
    box: Spec,
    python: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mountns.mount_tmpfs("/dev/shm")  # podman's shared memory is the host's
    try:
        with Runtime(**options, lock_type=lock_type) as rt:
            c = rt.create(box, SLEEP, name="held")
            other = rt.create(box, SLEEP)
            holder = python(
                "from libpod.locks import open_manager\n"
                f"manager = open_manager({lock_type!r}, options['tmp_dir'])\n"
                f"manager.open({c.id!r}, {c.record.config.lock_id}).lock()\n"
                "say('held')\ntime.sleep(100)"
            )
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            for verb in (c.start, c.remove, c.init, c.cleanup):
                with monkeypatch.context() as patched:
                    patched.setattr(guard, "LOCK_TIMEOUT", 0.3)
                    with pytest.raises(LockTimeout, match=f"pid {holder.pid}") as caught:
                        verb()
                assert caught.value.holder == holder.pid
            assert c.state.status is Status.CONFIGURED  # looking needs no lock
            assert len(rt.get_containers()) == 2
            other.start()
            other.remove(force=True)
            holder.kill()
            holder.wait()
            c.start()
            c.remove(force=True)
    finally:
        mountns.unmount("/dev/shm")


def test_a_database_that_is_held_for_ever(
    kept: str,
    options: dict[str, str],
    database: str,
    python: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    holder = python(
        "import fcntl\n"
        f"file = open({database!r}, 'rb')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\nsay('held')\ntime.sleep(100)"
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    monkeypatch.setattr(
        bolt.BoltState.__init__, "__kwdefaults__", {"defaults": None, "timeout": 0.3}
    )
    with pytest.raises(LockTimeout, match=f"{database}.*process {holder.pid}") as caught:
        Runtime(**options)
    assert caught.value.holder == holder.pid
    holder.kill()
    holder.wait()


# --- records ------------------------------------------------------------------------------------


def replace(database: str, identifier: str, key: bytes, value: bytes | None) -> None:
    """Changes one record behind everybody's back."""
    with kv.Database(database) as db, db.begin(write=True) as tx:
        bucket = tx.bucket(b"ctr").bucket(identifier.encode())
        if value is None:
            bucket.delete(key)
        else:
            bucket[key] = value


def without(member: str) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        record = json.loads(raw)
        del record[member]
        return json.dumps(record).encode()

    return change


BAD: dict[str, tuple[bytes, Callable[[bytes], bytes | None]]] = {
    "no config": (b"config", lambda raw: None),
    "no JSON": (b"config", lambda raw: raw[:-1]),
    "an empty config": (b"config", lambda raw: b"{}"),
    "without a spec": (b"config", without("spec")),
    "another's ID": (b"config", lambda raw: raw.replace(b'"id":"', b'"id":"0', 1)),
    "no state": (b"state", lambda raw: None),
    "a state of another kind": (b"state", lambda raw: b"[]"),
    "garbage": (b"state", lambda raw: b"\xff\0"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_record_that_cannot_be_read(
    kept: str, options: dict[str, str], box: Spec, database: str, command: Command, case: str
) -> None:
    with Runtime(**options) as rt:
        bad = rt.create(box, SLEEP, name="bad").id
    key, change = BAD[case]
    with kv.Database(database) as db, db.begin() as tx:
        before = tx.bucket(b"ctr").bucket(bad.encode())[key]
    replace(database, bad, key, change(before))
    with Runtime(**options) as rt:
        assert {one.id for one in rt.get_containers()} >= {kept}
        assert rt.lookup_container("kept").state.status is Status.CONFIGURED
        with pytest.raises((BadRecord, NoSuchContainer)):
            rt.lookup_container("bad").start()
    listed = command("ps", "-a", "--no-trunc", "--format", "{{.ID}}")
    assert kept in listed.stdout
    command.fails("start", "bad")
    replace(database, bad, key, before)
    with Runtime(**options) as rt:
        assert rt.get_container(bad).state.status is Status.CONFIGURED


def test_a_name_that_is_the_beginning_of_an_id(
    rt: Runtime, box: Spec, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rt.create(box, SLEEP)
    name = first.id[:12]
    second = rt.create(box, SLEEP, name=name)
    for _ in range(2):
        with pytest.raises(ContainerExists, match="more than one"):
            rt.lookup_container(name)
    assert "more than one" in command.fails("inspect", name)
    assert rt.lookup_container(first.id) is first
    assert rt.lookup_container(second.id) is second
    third = rt.create(box, SLEEP, name=names.new_id())
    assert rt.lookup_container(third.name) is third
    # The whole ID of another one wins over the name.
    fourth = rt.create(box, SLEEP, name=second.id)
    assert rt.lookup_container(fourth.name) is second


def test_a_name_taken_in_another_namespace(rt: Runtime, box: Spec, options: dict[str, str]) -> None:
    theirs = rt.create(box, SLEEP, name="web")
    with Runtime(**options, namespace="mine") as other:
        with pytest.raises(ContainerExists, match="web"):
            other.create(box, SLEEP, name="web")
        assert other.get_containers() == []
        with pytest.raises(NoSuchContainer):
            other.lookup_container("web")
        with pytest.raises(NamespaceMismatch):
            other.get_container(theirs.id)
        mine = other.create(box, SLEEP, name="mine")
        assert [one.id for one in other.get_containers()] == [mine.id]
        mine.remove()
    assert [one.id for one in rt.store.containers()] == [theirs.id]


# --- directories and files -----------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/exits", "/lock"])
def test_a_tmpdir_of_another_owner(
    kept: str, options: dict[str, str], dirs: Dirs, command: Command, below: str
) -> None:
    path = f"{dirs.tmp}{below}"
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises((RuntimeDirError, LibpodError), match=path), Runtime(**options) as rt:
        rt.lookup_container("kept").start()
    assert path in command.fails("start", "kept")
    os.chown(path, 0, 0)


def test_a_config_that_was_removed_under_us(rt: Runtime, box: Spec, said: Said) -> None:
    c = rt.create(box, SLEEP)
    c.init()
    os.unlink(f"{c.record.config.static_dir}/config.json")
    with suppress(OCIRuntimeFailed):  # crun needs it to start, runc does not
        c.start()
    assert c.state.status in (Status.RUNNING, Status.EXITED)
    if c.state.status is Status.RUNNING:
        c.stop()
    assert c.state.status is Status.EXITED
    c.start()  # it is made for each launch
    assert c.state.status is Status.RUNNING
    c.remove(force=True)
    said.allow("clearing up without it")


@pytest.mark.parametrize("garbage", [b"", b"x", b"99999999999999999999", b"-", b"7\n\0"])
def test_an_exit_file_with_garbage(
    options: dict[str, str], box: Spec, dirs: Dirs, said: Said, garbage: bytes
) -> None:
    """conmon was killed while it wrote, or somebody else writes there."""
    with Runtime(**options) as rt:
        c = rt.start(box, SLEEP, detach=True)
        pid, monitor = c.state.pid, c.record.state.conmon_pid
        assert pid > 1 and monitor > 1
        os.kill(monitor, 9)
        os.kill(pid, 9)
        with open(f"{dirs.tmp}/exits/{c.id}", "wb") as file:
            file.write(garbage)
        deadline = time.monotonic() + 60
        while c.state.status is not Status.EXITED:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert c.state.exit_code in (-1, 7)
        assert not os.path.exists(f"{dirs.tmp}/exits/{c.id}")
        c.start()
        assert c.state.status is Status.RUNNING
        c.remove(force=True)
    said.allow("exit file|exit code|monitor|clearing up without it")


def test_storage_that_was_removed_under_us(rt: Runtime, box: Spec, command: Command) -> None:
    c = rt.create(box, SLEEP, name="web")
    rt.store.delete_container(c.id)
    assert c.state.status is Status.CONFIGURED
    assert c.inspect()["Id"] == c.id
    assert command("ps", "-a", "--format", "{{.Names}}").stdout == "web\n"
    with pytest.raises(LibpodError) as caught:
        c.start()
    assert not isinstance(caught.value, ContainerRemoved)
    assert "web" in command("rm", "web").stdout
    assert rt.get_containers() == []


# --- nothing is left ------------------------------------------------------------------------------


def test_a_short_one_that_is_detached_and_to_go(
    command: Command, box: Spec, options: dict[str, str], dirs: Dirs
) -> None:
    """No other command runs: whether it is gone is seen in the files alone."""
    words = ["run", "-d", "--rm", "--name=web", "--rootfs", box.rootfs]
    started = command(*words, "sh", "-c", "exit 3")
    assert started.returncode == 0, started
    identifier = started.stdout.strip()
    assert len(identifier) == 64
    deadline = time.monotonic() + 60
    while any(map(os.path.exists, places(dirs, identifier))):
        assert time.monotonic() < deadline, [
            p for p in places(dirs, identifier) if os.path.exists(p)
        ]
        time.sleep(0.02)
    with Runtime(**options) as rt:
        assert rt.get_containers() == []
        assert rt.store.containers() == []
        assert rt.locks.in_use() == set()
    assert command("run", "--rm", "--name=web", "--rootfs", box.rootfs, "true").returncode == 0


def places(dirs: Dirs, identifier: str) -> list[str]:
    return [
        f"{dirs.static}/storage/overlay-containers/{identifier}",
        f"{dirs.tmp}/storage/overlay-containers/{identifier}",
        f"{dirs.tmp}/exits/{identifier}",
        f"{dirs.tmp}/lock/{identifier}",
        f"{dirs.tmp}/crun/{identifier}",
        f"{dirs.tmp}/runc/{identifier}",
    ]
