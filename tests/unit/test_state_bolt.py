# SPDX-License-Identifier: Apache-2.0
"""The state on disk: its tables, its directories, bad files, other processes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from state_samples import ctr, identifier, ids, joins, paths_of, pod

from libpod import kv
from libpod.errors import (
    ContainerExists,
    DBBadConfig,
    InternalError,
    LibpodError,
    LockTimeout,
    NoSuchContainer,
    UsedAfterFork,
)
from libpod.state import bolt
from libpod.state.bolt import BoltState
from libpod.state.errors import BadRecord
from libpod.state.paths import RuntimePaths
from libpod.state.records import ContainerConfig, ContainerState, PodConfig, PodState

TOP = """all-ctrs allPods allVolumes ctr exec exit-code exit-code-time-stamp id-registry
    name-registry ns-registry pod runtime-config vol volume-ctrs""".split()

Tree = dict[str, Any]


def file_of(tmp_path: Path) -> str:
    return str(tmp_path / "bolt_state.db")


def opened(tmp_path: Path, **options: Any) -> BoltState:
    return BoltState(file_of(tmp_path), paths_of(tmp_path), **options)


def tree_of(bucket: Any) -> Tree:
    """A bucket and all below it."""
    return {
        key.decode(): tree_of(bucket.bucket(key)) if value is None else value.decode()
        for key, value in bucket.items()
    }


@contextmanager
def database(tmp_path: Path) -> Iterator[kv.Database]:
    """The file, also while a state of this process has it open."""
    shared = bolt._acquire(file_of(tmp_path), 10)
    try:
        yield shared.database
    finally:
        bolt._release(shared)


def dump(tmp_path: Path) -> Tree:
    with database(tmp_path) as db:
        assert db.check() == []
        with db.begin() as tx:
            return {name.decode(): tree_of(tx.bucket(name)) for name in tx.buckets()}


def edit(tmp_path: Path, change: Callable[[kv.Transaction], object]) -> None:
    with database(tmp_path) as db, db.begin(write=True) as tx:
        change(tx)


def txid(tmp_path: Path) -> int:
    with database(tmp_path) as db, db.begin() as tx:
        return tx.id


@contextmanager
def opened_block(tmp_path: Path) -> Iterator[BoltState]:
    state = opened(tmp_path)
    try:
        yield state
    finally:
        state.close()


# --- tables --------------------------------------------------------------------------


def test_a_new_database_has_podmans_buckets(tmp_path: Path) -> None:
    opened(tmp_path).close()
    found = dump(tmp_path)
    assert sorted(found) == TOP
    assert found.pop("runtime-config") == {
        "os": "linux",
        "static-dir": str(tmp_path / "static"),
        "tmp-dir": str(tmp_path / "tmp"),
        "run-root": str(tmp_path / "run"),
        "graph-root": str(tmp_path / "graph"),
        "graph-driver-name": "overlay",
        "volume-path": str(tmp_path / "volumes"),
    }
    assert not any(found.values())
    assert os.stat(file_of(tmp_path)).st_mode & 0o777 == 0o600


def test_rows_of_a_container_and_of_a_pod(tmp_path: Path) -> None:
    one, two, three, four = map(identifier, "1234")
    with opened_block(tmp_path) as state:
        state.add_container(ctr(1, namespace="a"))
        user = ctr(2, namespace="a", needs=(1,))
        user.netns = "/run/netns/n"
        state.add_container(user)
        holder = pod(3, namespace="b")
        state.add_pod(holder)
        state.add_container_to_pod(holder, ctr(4, pod=3, namespace="b"))
    found = dump(tmp_path)
    names = {one: "test1", two: "test2", three: "test3", four: "test4"}
    assert found["id-registry"] == names
    assert found["name-registry"] == {name: key for key, name in names.items()}
    assert found["ns-registry"] == {one: "a", two: "a", three: "b", four: "b"}
    assert found["all-ctrs"] == {key: names[key] for key in (one, two, four)}
    assert found["allPods"] == {three: "test3"}
    assert list(found["ctr"]) == [one, two, four]
    assert _but_records(found["ctr"][one]) == {"namespace": "a", "dependencies": {two: "test2"}}
    assert _but_records(found["ctr"][two]) == {
        "namespace": "a",
        "dependencies": {},
        "netns": "/run/netns/n",
    }
    assert _but_records(found["ctr"][four]) == {
        "namespace": "b",
        "dependencies": {},
        "pod-id": three,
    }
    assert _but_records(found["pod"][three]) == {"namespace": "b", "containers": {four: "test4"}}


def _but_records(bucket: Tree) -> Tree:
    for key in ("config", "state"):
        assert type(json.loads(bucket.pop(key))) is dict
    return bucket


def test_nothing_is_left_of_what_was_removed(tmp_path: Path) -> None:
    with opened_block(tmp_path) as state:
        before = dump(tmp_path)
        state.add_container(ctr(1, namespace="a"))
        state.add_container(ctr(2, namespace="a", **joins(1, "net")))
        state.rename_container(state.lookup_container("test2"), "other")
        holder = pod(3)
        state.add_pod(holder)
        state.add_container_to_pod(holder, ctr(4, pod=3))
        state.add_container_to_pod(holder, ctr(5, pod=3))
        state.remove_container(state.lookup_container("other"))
        state.remove_container(state.lookup_container("test1"))
        state.remove_container_from_pod(holder, state.lookup_container("test4"))
        state.remove_pod_containers(holder)
        state.remove_pod(holder)
        assert dump(tmp_path) == before


def test_a_refused_change_leaves_every_row_as_it_was(tmp_path: Path) -> None:
    with opened_block(tmp_path) as state:
        state.add_container(ctr(1))
        before = dump(tmp_path)
        with pytest.raises(NoSuchContainer):
            state.add_container(ctr(2, needs=(1, 9)))
        assert dump(tmp_path) == before


def test_each_change_is_one_transaction_and_reading_is_none(tmp_path: Path) -> None:
    with opened_block(tmp_path) as state:
        holder, record = pod(1), ctr(2)
        changes: list[Callable[[], object]] = [
            lambda: state.add_pod(holder),
            lambda: state.add_container(record),
            lambda: state.add_container_to_pod(holder, ctr(3, pod=1)),
            lambda: state.save_container(record, exit_code=1),
            lambda: state.rename_container(record, "x"),
            lambda: state.save_pod(holder),
            lambda: state.remove_container(record),
            lambda: state.remove_pod_containers(holder),
            lambda: state.remove_pod(holder),
            lambda: state.refresh(),
        ]
        for change in changes:
            before = txid(tmp_path)
            change()
            assert txid(tmp_path) == before + 1
        before = txid(tmp_path)
        opened(tmp_path).close()
        state.all_containers()
        assert txid(tmp_path) == before


def test_removing_takes_exec_sessions_and_volumes_along(tmp_path: Path) -> None:
    key = identifier(1).encode()

    def as_podman(tx: kv.Transaction) -> None:
        tx.bucket(b"ctr").bucket(key).create_bucket(b"exec")[b"session"] = key
        tx.bucket(b"exec")[b"session"] = key
        volume = tx.bucket(b"vol").create_bucket(b"data")
        volume.create_bucket(b"vol-dependencies")[key] = key

    with opened_block(tmp_path) as state:
        state.add_container(ctr(1, named_volumes=[{"volumeName": "data", "dest": "/data"}]))
    edit(tmp_path, as_podman)
    with opened_block(tmp_path) as state:
        state.remove_container(state.container(identifier(1)))
    found = dump(tmp_path)
    assert found["exec"] == {}
    assert found["vol"] == {"data": {"vol-dependencies": {}}}


def test_refresh_ends_what_podman_recorded(tmp_path: Path) -> None:
    key = identifier(1).encode()
    volume_state = {"mountCount": 2, "mountPoint": "/x", "notYetMounted": True}

    def as_podman(tx: kv.Transaction) -> None:
        tx.bucket(b"ctr").bucket(key).create_bucket(b"exec")[b"session"] = key
        tx.bucket(b"exec")[b"session"] = key
        volume = tx.bucket(b"vol").create_bucket(b"data")
        volume[b"state"] = json.dumps(volume_state).encode()

    with opened_block(tmp_path) as state:
        state.add_container(ctr(1))
    edit(tmp_path, as_podman)
    with opened_block(tmp_path) as state:
        state.refresh()
    found = dump(tmp_path)
    assert found["exec"] == {}
    assert "exec" not in found["ctr"][identifier(1)]
    assert json.loads(found["vol"]["data"]["state"]) == {"mountCount": 0, "notYetMounted": True}


def test_unknown_members_stay(tmp_path: Path) -> None:
    def extend(tx: kv.Transaction) -> None:
        bucket = tx.bucket(b"ctr").bucket(identifier(1).encode())
        for key in (b"config", b"state"):
            values = json.loads(bucket[key])
            values["fromTheFuture"] = {"é": [1.5, None, 1 << 70]}
            bucket[key] = json.dumps(values).encode()

    with opened_block(tmp_path) as state:
        state.add_container(ctr(1))
        early = state.container(identifier(1))
    edit(tmp_path, extend)
    with opened_block(tmp_path) as state:
        early.state.exit_code = 3  # read before the member was there
        state.save_container(early)
        state.rename_container(state.container(identifier(1)), "renamed")
    bucket = dump(tmp_path)["ctr"][identifier(1)]
    for key in ("config", "state"):
        assert json.loads(bucket[key])["fromTheFuture"] == {"é": [1.5, None, 1 << 70]}
    assert json.loads(bucket["state"])["exitCode"] == 3
    assert json.loads(bucket["config"])["name"] == "renamed"


def test_a_dependent_outside_the_pod_holds_all_of_it(tmp_path: Path) -> None:
    member, outside = identifier(2).encode(), identifier(9).encode()

    def depend(tx: kv.Transaction) -> None:
        tx.bucket(b"ctr").bucket(member).bucket(b"dependencies")[outside] = b"test9"

    with opened_block(tmp_path) as state:
        holder = pod(1)
        state.add_pod(holder)
        for number in (2, 3):
            state.add_container_to_pod(holder, ctr(number, pod=1))
        state.add_container(ctr(9))
        edit(tmp_path, depend)  # no rule of ours allows it
        with pytest.raises(ContainerExists, match=identifier(9)):
            state.remove_pod_containers(holder)
        assert ids(state.pod_containers(holder)) == ["2", "3"]


def test_listing_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(raw: bytes) -> Any:
        raise AssertionError("decoded")

    with opened_block(tmp_path) as state:
        state.add_pod(pod(1))
        state.add_container_to_pod(state.pod(identifier(1)), ctr(2, pod=1))
        state.add_container(ctr(3))
        for kind in (ContainerConfig, ContainerState, PodConfig, PodState):
            monkeypatch.setattr(kind, "decode", refuse)
        assert [c.name for c in state.all_containers()] == ["test2", "test3"]
        assert [c.pod_id[:1] for c in state.all_containers()] == ["1", ""]
        assert [p.name for p in state.all_pods()] == ["test1"]
        assert state.lookup_container("test3").netns == ""
        with pytest.raises(AssertionError):
            _ = state.all_containers()[0].state


# --- whose database it is -----------------------------------------------------------------


@pytest.mark.parametrize("member", RuntimePaths._fields)
class TestDirectories:
    def test_the_databases_win_where_nobody_said(self, tmp_path: Path, member: str) -> None:
        opened(tmp_path).close()
        ours = paths_of(tmp_path)._replace(**{member: "/elsewhere"})
        state = BoltState(file_of(tmp_path), ours)
        assert state.paths == paths_of(tmp_path)
        state.close()

    def test_an_explicit_other_one_is_refused(self, tmp_path: Path, member: str) -> None:
        opened(tmp_path).close()
        before = Path(file_of(tmp_path)).read_bytes()
        ours = paths_of(tmp_path)._replace(**{member: "/elsewhere"})
        with pytest.raises(DBBadConfig) as caught:
            BoltState(file_of(tmp_path), ours, {member})
        assert "/elsewhere" in str(caught.value)
        assert getattr(paths_of(tmp_path), member) in str(caught.value)
        assert file_of(tmp_path) in str(caught.value)
        assert Path(file_of(tmp_path)).read_bytes() == before

    def test_an_explicit_same_one_is_right(self, tmp_path: Path, member: str) -> None:
        for _ in range(2):
            state = opened(tmp_path, explicit={member})
            assert state.paths == paths_of(tmp_path)
            state.close()

    def test_empty_means_the_default(self, tmp_path: Path, member: str) -> None:
        paths = paths_of(tmp_path)
        default, nothing = getattr(paths, member), paths._replace(**{member: ""})
        opened(tmp_path).close()
        state = BoltState(file_of(tmp_path), nothing, {member}, defaults=paths)
        assert getattr(state.paths, member) == default
        state.close()
        with pytest.raises(DBBadConfig):
            other = paths._replace(**{member: "/other"})
            BoltState(file_of(tmp_path), nothing, {member}, defaults=other)

    def test_empty_in_the_database_means_the_default(self, tmp_path: Path, member: str) -> None:
        paths = paths_of(tmp_path)
        nothing = paths._replace(**{member: ""})
        BoltState(file_of(tmp_path), nothing).close()
        state = BoltState(file_of(tmp_path), paths, {member}, defaults=paths)
        assert getattr(state.paths, member) == getattr(paths, member)
        state.close()
        with pytest.raises(DBBadConfig):
            BoltState(file_of(tmp_path), paths, {member}, defaults=nothing)

    def test_a_missing_one_is_filled_in(self, tmp_path: Path, member: str) -> None:
        paths = paths_of(tmp_path)
        opened(tmp_path).close()
        complete = dump(tmp_path)["runtime-config"]
        key = next(k for k, v in complete.items() if v == getattr(paths, member))
        edit(tmp_path, lambda tx: tx.bucket(b"runtime-config").delete(key.encode()))
        BoltState(
            file_of(tmp_path), paths._replace(**{member: ""}), {member}, defaults=paths
        ).close()
        assert dump(tmp_path)["runtime-config"] == complete


def test_paths_are_compared_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    real = paths_of(tmp_path / "real")
    BoltState(file_of(tmp_path), real).close()
    state = BoltState(file_of(tmp_path), paths_of(tmp_path / "link"), {"tmp_dir", "graph_root"})
    assert state.paths.tmp_dir == str(tmp_path / "real/tmp")
    state.close()


def test_another_operating_system(tmp_path: Path) -> None:
    opened(tmp_path).close()
    edit(tmp_path, lambda tx: tx.bucket(b"runtime-config").put(b"os", b"plan9"))
    with pytest.raises(DBBadConfig, match="plan9"):
        opened(tmp_path)


def test_missing_buckets_are_made_at_the_opening_only(tmp_path: Path) -> None:
    with opened_block(tmp_path) as state:
        state.add_container(ctr(1))
        for name in (b"vol", b"name-registry"):
            edit(tmp_path, lambda tx, name=name: tx.delete_bucket(name))  # type: ignore[misc]
        with pytest.raises(DBBadConfig, match="name-registry bucket not found"):
            state.lookup_container("test1")
        with opened_block(tmp_path) as another:
            assert ids(another.all_containers()) == ["1"]
            assert another.lookup_container("1").name == "test1"
    assert sorted(dump(tmp_path)) == TOP


# --- bad files and bad records ---------------------------------------------------------------


def _damage(raw: bytes) -> list[tuple[str, bytes]]:
    size = 4096
    return [
        ("text", b"This is no database.\n" * 500),
        ("truncated", raw[: size * 2 + 100]),
        ("half a page", raw[:2000]),
        ("both metas", bytes(size * 2) + raw[size * 2 :]),
        ("pages overwritten", raw[: size * 2] + b"\xff" * (len(raw) - size * 2)),
    ]


@pytest.mark.parametrize("what", [name for name, _ in _damage(b"")])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, what: str) -> None:
    with opened_block(tmp_path) as state:
        for number in range(1, 6):
            state.add_container(ctr(number))
    path = Path(file_of(tmp_path))
    damaged = dict(_damage(path.read_bytes()))[what]
    path.write_bytes(damaged)
    with pytest.raises(LibpodError) as caught, opened_block(tmp_path) as state:
        state.all_containers()
    assert isinstance(caught.value, kv.StoreError)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == damaged


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with kv.Database(file_of(tmp_path)) as db, db.begin(write=True) as tx:
        tx.create_bucket(b"snapshots")[b"a"] = b"b"
    before = Path(file_of(tmp_path)).read_bytes()
    with pytest.raises(DBBadConfig, match="snapshots"):
        opened(tmp_path)
    assert Path(file_of(tmp_path)).read_bytes() == before


@pytest.mark.parametrize("place", ["file/bolt_state.db", "missing/bolt_state.db", "directory"])
def test_a_place_where_no_database_can_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match=place) as caught:
        BoltState(str(tmp_path / place), paths_of(tmp_path))
    assert isinstance(caught.value, LibpodError)


BAD_VALUES = {
    "no JSON": b"{",
    "not an object": b"[]",
    "empty": b"",
    "not UTF-8": b'{"id":"\xff"}',
    "NaN": b'{"a":NaN}',
    "nested too deeply": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "number with too many digits": b'{"a":' + b"9" * 10_000 + b"}",
    "wrong type in a config": b'{"id":1}',
    "wrong type in a state": b'{"state":"running"}',
    "unknown state": b'{"state":77}',
    "time that is none": b'{"createdTime":"yesterday","startedTime":"yesterday"}',
    "there is none": None,
}


HARMLESS = [("state", BAD_VALUES["wrong type in a config"])]
"""A state knows no "id", and may have members that nobody knows."""


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
@pytest.mark.parametrize("key", ["config", "state"])
def test_one_bad_record_is_named_and_harms_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, value: bytes | None
) -> None:
    with opened_block(tmp_path) as state:
        state.add_container(ctr(1))
        state.add_container(ctr(2, needs=(1,)))
        state.add_container(ctr(3))

    def spoil(tx: kv.Transaction) -> None:
        bucket = tx.bucket(b"ctr").bucket(identifier(2).encode())
        if value is None:
            bucket.delete(key.encode())
        else:
            bucket[key.encode()] = value

    edit(tmp_path, spoil)
    with opened_block(tmp_path) as state:
        bad = state.all_containers()[1]
        assert (bad.id, bad.name) == (identifier(2), "test2")
        if (key, value) not in HARMLESS:
            with pytest.raises(BadRecord) as caught:
                getattr(bad, key)
            error = caught.value
            assert (error.path, error.bucket, error.key) == (state.path, f"ctr/{bad.id}", key)
            for word in (state.path, bad.id, key):
                assert word in str(error)
        assert [c.state.pid for c in state.all_containers() if c.id != bad.id] == [1234, 1234]
        state.refresh()
        unread = key == "state" and (key, value) not in HARMLESS
        assert (bad.id in caplog.text) is unread
        assert state.container(identifier(3)).state.pid == 0
        state.remove_container(bad)
        state.remove_container(state.container(identifier(1)))
        assert ids(state.all_containers()) == ["3"]


def test_a_container_that_is_listed_without_a_record(tmp_path: Path) -> None:
    opened(tmp_path).close()
    edit(tmp_path, lambda tx: tx.bucket(b"all-ctrs").put(b"1" * 64, b"ghost"))
    with opened_block(tmp_path) as state, pytest.raises(InternalError, match="1" * 64):
        state.all_containers()


CHILD = """
import sys
from pathlib import Path
from state_samples import ctr, identifier, paths_of
from libpod.state.bolt import BoltState
directory = Path(sys.argv[1])
def opened(directory):
    return BoltState(str(directory / "bolt_state.db"), paths_of(directory))
"""


def child(tmp_path: Path, code: str, **options: Any) -> subprocess.Popen[str]:
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{here}:{here.parents[1]}"},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    code = """
import os, resource
state = opened(directory)
state.add_container(ctr(1))
size = os.stat(state.path).st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
labels = {str(n): "x" * 1000 for n in range(size // 1000)}
try:
    state.add_container(ctr(2, labels=labels))
except OSError as error:
    print(error)
print([c.name for c in state.all_containers()])
"""
    process = child(tmp_path, code)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    failed, after = out.splitlines()
    assert file_of(tmp_path) in failed
    assert after == "['test1']"
    with opened_block(tmp_path) as state:
        assert ids(state.all_containers()) == ["1"]
        state.add_container(ctr(2))


def test_a_file_that_may_not_be_written() -> None:
    code = """
import os
if os.getuid() == 0:
    os.setuid(65534)
try:
    opened(directory)
except OSError as error:
    print(error.errno, error)
"""
    with tempfile.TemporaryDirectory() as name:  # pytest's own are for their owner only
        directory = Path(name)
        directory.chmod(0o755)
        opened(directory).close()
        path = Path(file_of(directory))
        path.chmod(0o444)
        before = path.read_bytes()
        out, _ = child(directory, code).communicate(timeout=60)
        assert out.startswith(f"{errno.EACCES} {path}")
        assert path.read_bytes() == before


# --- other threads, other processes ----------------------------------------------------------


def test_a_lock_that_is_held_names_its_holder(tmp_path: Path) -> None:
    opened(tmp_path).close()
    code = """
state = opened(directory)
with state._begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = child(tmp_path, code, stdin=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LockTimeout) as caught:
        opened(tmp_path, timeout=0.1)
    assert caught.value.holder == holder.pid
    holder.communicate("")
    opened(tmp_path, timeout=0.1).close()


def test_another_process_sees_and_changes(tmp_path: Path) -> None:
    with opened_block(tmp_path) as state:
        state.add_container(ctr(1))
        code = """
state = opened(directory)
record = state.lookup_container("test1")
record.state.exit_code = 9
state.save_container(record)
state.add_container(ctr(2, needs=(1,)))
"""
        process = child(tmp_path, code)
        process.communicate(timeout=60)
        assert process.returncode == 0
        assert [c.state.exit_code for c in state.all_containers()] == [9, 0]
        assert state.container_in_use(state.container(identifier(1))) == [identifier(2)]


def test_a_name_goes_to_one_of_many_processes(tmp_path: Path) -> None:
    opened(tmp_path).close()
    code = """
from libpod.errors import ContainerExists
state, won = opened(directory), 0
for number in range(20):
    try:
        name = f"{number:02d}a"
        state.add_container(ctr(name, id=(sys.argv[2] + name).ljust(64, "a")))
        won += 1
    except ContainerExists:
        pass
print(won)
"""
    processes = []
    for letter in "bcde":
        process = child(tmp_path, code.replace("sys.argv[2]", repr(letter)))
        processes.append(process)
    won = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(won) == 20
    with opened_block(tmp_path) as state:
        assert sorted(c.name for c in state.all_containers()) == [
            f"test{n:02d}a" for n in range(20)
        ]
    assert len(dump(tmp_path)["name-registry"]) == 20


def test_threads_share_a_state(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(state: BoltState, letter: str) -> None:
        try:
            for number in range(8):
                record = ctr(f"{letter}{number}")
                state.add_container(record)
                record.state.exit_code = number
                state.save_container(record)
                assert state.lookup_container(record.name).state.exit_code == number
                if number % 2:
                    state.remove_container(record)
        except BaseException as error:
            failures.append(error)

    with opened_block(tmp_path) as state:
        threads = [threading.Thread(target=work, args=(state, letter)) for letter in "abcdef"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(state.all_containers()) == 24
    dump(tmp_path)


def test_states_of_one_process_share_the_database(tmp_path: Path) -> None:
    one, two = opened(tmp_path), opened(tmp_path)
    one.add_container(ctr(1))
    one.close()
    assert ids(two.all_containers()) == ["1"]
    two.close()
    with opened_block(tmp_path) as three:
        assert ids(three.all_containers()) == ["1"]


def test_closing_waits_for_nobody_and_breaks_no_call(tmp_path: Path) -> None:
    state = opened(tmp_path)
    with state._begin() as tx:
        state.close()
        assert tx.bucket(b"ctr") is not None
    with opened_block(tmp_path) as again:
        again.add_container(ctr(1))


def test_a_file_that_was_replaced(tmp_path: Path) -> None:
    with opened_block(tmp_path) as old:
        old.add_container(ctr(1))
        os.unlink(old.path)
        with opened_block(tmp_path) as new:
            assert new.all_containers() == []
            with pytest.raises(kv.DatabaseReplaced):
                old.add_container(ctr(2))
            assert new.all_containers() == []


def test_a_forked_child_opens_its_own(tmp_path: Path) -> None:
    with opened_block(tmp_path) as state:
        state.add_container(ctr(1))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with pytest.raises(UsedAfterFork):
                    state.all_containers()
                with opened_block(tmp_path) as own:
                    own.add_container(ctr(2))
                state.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert ids(state.all_containers()) == ["1", "2"]


def test_kill_at_any_moment_leaves_whole_changes(tmp_path: Path) -> None:
    opened(tmp_path).close()
    code = """
state, number = opened(directory), 0
print("go", flush=True)
while True:
    number += 1
    one, two = ctr("1"), ctr("2", needs=("1",))
    state.add_container(one)
    state.add_container(two)
    state.save_container(one, exit_code=1)
    state.rename_container(two, "other")
    state.remove_container(two)
    state.remove_container(one)
"""
    empty = {"id-registry", "name-registry", "all-ctrs", "ctr"}
    for attempt in range(12):
        process = child(tmp_path, code)
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = dump(tmp_path)
        numbers = [set(found[name]) for name in sorted(empty - {"name-registry"})]
        assert all(number == numbers[0] for number in numbers)
        assert sorted(found["name-registry"].values()) == sorted(numbers[0])
        with opened_block(tmp_path) as state:
            for record in reversed(state.all_containers()):
                assert state.container_in_use(record) == []
                state.remove_container(record)
            with pytest.raises(NoSuchContainer):
                state.lookup_container("test1")


def test_a_taken_name_says_by_whom(tmp_path: Path) -> None:
    with opened_block(tmp_path) as state:
        state.add_container(ctr(1))
        with pytest.raises(ContainerExists, match=identifier(1)):
            state.add_container(ctr(2, name="test1"))
