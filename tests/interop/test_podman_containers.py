# SPDX-License-Identifier: Apache-2.0
"""One set of containers for the real podman and for this library: each sees, runs, stops
and removes what the other has made."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import census
import mountns
from libpod import (
    Container,
    ContainerExists,
    ContainerRemoved,
    ContainerStateInvalid,
    Runtime,
    SharingRefused,
    Status,
    audit,
    kv,
)
from tests.interop.oracle import Oracle
from tests.interop.podman import SharedPodman

OPERATIONS = int(os.environ.get("STATE_INTEROP_OPERATIONS", "60"))
"""Of the mixed runs, one for each kind of locks; `make stress` has 200 of each."""

CGROUPS = "/libpod_parent"
SLEEP = ("sleep", "1000")
EXITED = ("sh", "-c", "echo done; exit 7")


@pytest.fixture(scope="session")
def own_shm() -> None:
    """podman's locks are in /dev/shm, for all its roots: here is one of the tests' own."""
    mountns.enter()
    mountns.mount_tmpfs("/dev/shm")


@pytest.fixture
def podman(
    request: pytest.FixtureRequest, own_shm: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SharedPodman]:
    lock_type = getattr(request, "param", "file")
    cgroups = census.cgroups(CGROUPS)
    with tempfile.TemporaryDirectory(prefix="lp-", dir="/var/tmp") as name:
        made = SharedPodman(Path(name), lock_type)
        monkeypatch.setenv("CONTAINERS_CONF", f"{name}/containers.conf")
        try:
            yield made
            left = census.settled(lambda: leftovers(made, cgroups), census.PATIENCE)
        finally:
            made("rm", "--all", "--force", "--time", "0", fails=True)
            settle(made)
            _unmount(f"{name}/root/overlay")
    assert left == []


both_locks = pytest.mark.parametrize("podman", ["file", "shm"], indirect=True)


@pytest.fixture
def rt(podman: SharedPodman) -> Iterator[Runtime]:
    with podman.runtime() as runtime:
        yield runtime
        for container in runtime.get_containers():
            if container.state.status is Status.PAUSED:
                container.unpause()
            container.remove(force=True)
        podman("rm", "--all", "--force", "--time", "0")


def _unmount(path: str) -> None:
    """podman binds this directory on itself, and may leave it so."""
    if os.path.ismount(path):
        mountns.unmount(path)


def mentioning(podman: SharedPodman) -> list[str]:
    """Processes of anybody's that work in these directories."""
    return [
        str(process)
        for process in census.processes().values()
        if process.pid != os.getpid()
        and any(str(podman.directory) in word for word in process.argv)
        and process.state not in "ZX"
    ]


def settle(podman: SharedPodman) -> None:
    """Waits until nobody works in these directories: monitors' exit commands do."""
    assert census.settled(lambda: mentioning(podman), census.PATIENCE) == []


def leftovers(podman: SharedPodman, cgroups: set[str]) -> list[str]:
    """What is there when no container is."""
    base = podman.directory
    found = mentioning(podman)
    found += [
        m for m in census.mounts().values() if str(base) in m and f"{base}/root/overlay " not in m
    ]
    found += sorted(path for path in census.cgroups(CGROUPS) - cgroups if not _is_owned(path))
    for room in ("root/overlay", "root/overlay/l", "tmp/exits", "tmp/owners"):
        known = {"l", ".has-mount-program"} if room == "root/overlay" else set()
        found += [str(path) for path in (base / room).glob("*") if path.name not in known]
    for room in ("root", "run"):
        rooms = (base / room / "overlay-containers").glob("*")
        found += [str(path) for path in rooms if len(path.name) == 64]
    return found


def _is_owned(cgroup: str) -> bool:
    """Whether a living container of somebody else's has it."""
    identifier = cgroup.rpartition("libpod-")[2][:64]
    return any(identifier in process.argv for process in census.processes().values())


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# --- what podman shows of ours --------------------------------------------------------------

OWN = {  # of each container alone
    "Id", "Names", "Status", "Name", "Created", "CreatedAt", "Pid", "StartedAt", "ExitedAt",
    "FinishedAt", "ConmonPid",
}  # fmt: skip

DIFFERENCES = {
    "BoundingCaps": "our default has three capabilities fewer",
    "EffectiveCaps": "the same",
    "HostConfig.CapDrop": "the same",
    "Config.Env": "a library has no terminal whose TERM it could hand on; we set HOME",
    "Config.CreateCommand": "there was none",
    "Config.Passwd": "nobody is added to the container's passwd",
    "Config.Annotations.io.container.manager": "from the creation on; podman: from the start on",
    "Config.Annotations.io.container.name": "ours alone",
    "Config.Annotations.io.kubernetes.cri-o.Created": "from the creation on",
    "Config.Annotations.io.podman.annotations.init": "podman notes what was not asked for, too",
    "Config.Annotations.io.podman.annotations.privileged": "the same",
    "Config.Annotations.io.podman.annotations.publish-all": "the same",
    "Config.Annotations.org.opencontainers.image.stopSignal": "from the creation on",
    "State.OciVersion": "ours is a released one",
}


def differing(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Members with other values, but for those which no two containers share."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*ours, *theirs} - OWN):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differing(a, b, f"{path}{key}.")
        elif a != b:
            found[f"{path}{key}"] = a, b
    return found


def anonymous(podman: SharedPodman, shown: dict[str, Any]) -> dict[str, Any]:
    """As text without what is the container's own: ID, layer, name."""
    layer = shown["GraphDriver"]["Data"]["UpperDir"].split("/")[-2]
    text = json.dumps(shown).replace(shown["Id"], "ID").replace(layer, "LAYER")
    result: dict[str, Any] = json.loads(text.replace(shown["Id"][:12], "SHORT"))
    return result


@both_locks
def test_podman_shows_ours_like_its_own(podman: SharedPodman, rt: Runtime) -> None:
    ours = rt.create(podman.box.but(labels={"a": "é"}), SLEEP, name="ours")
    podman.make("create", "theirs", *SLEEP, options=["--label=a=é"])

    def compare(status: str) -> None:
        rows = podman.ps()
        assert differing(rows["ours"], rows["theirs"]) == {}
        assert (rows["ours"]["Id"], rows["ours"]["State"]) == (ours.id, status)
        assert rows["ours"]["Labels"] == {"a": "é"}
        assert rows["ours"]["Created"] == int(ours.created)
        shown = [anonymous(podman, one) for one in podman.inspect("ours", "theirs")]
        assert set(differing(*shown)) <= set(DIFFERENCES)

    compare("created")
    ours.start()
    podman("start", "theirs")
    assert podman.ps()["ours"]["Pid"] == ours.state.pid > 0
    compare("running")
    ours.pause()
    podman("pause", "theirs")
    compare("paused")
    ours.unpause()
    podman("unpause", "theirs")
    ours.stop()
    podman("stop", "theirs")
    settle_exit(rt, "theirs")
    compare("exited")


def settle_exit(rt: Runtime, name: str) -> None:
    """Waits until the end of a detached container was cleared up."""
    until(lambda: rt.lookup_container(name).state.status is Status.EXITED, f"{name} goes on")


@both_locks
def test_podman_works_on_ours(podman: SharedPodman, rt: Runtime) -> None:
    words = ("sh", "-c", "echo started; exec sleep 1000")
    c = rt.start(podman.box, words, name="ours")
    until(lambda: podman("logs", "ours") == "started", "nothing is logged")
    assert podman("exec", "ours", "cat", "/etc/hostname") == c.id[:12]
    assert "sleep 1000" in podman("top", "ours", "args")
    assert podman("container", "exists", "ours") == ""
    podman("pause", "ours")
    assert c.state.status is Status.PAUSED
    podman("unpause", "ours")
    assert c.state.status is Status.RUNNING
    podman("stop", "ours")
    until(lambda: c.state.status is Status.EXITED, "not cleared up")
    assert (c.state.exit_code, c.state.pid, c.wait()) == (137, 0, 137)
    assert podman("wait", "ours") == "137"
    podman("start", "ours")
    first = c.state
    assert (first.status, first.exit_code) == (Status.RUNNING, 0)
    assert os.path.exists(f"/proc/{first.pid}")
    podman("restart", "ours")
    assert c.state.status is Status.RUNNING
    assert c.state.pid != first.pid
    podman("rename", "ours", "other")
    assert rt.lookup_container("other").id == c.id
    assert c.inspect()["Name"] == "other"
    podman("kill", "other")
    assert c.wait(60) == 137
    settle_exit(rt, "other")
    podman("rm", "other")
    assert not rt.has_container(c.id)
    with pytest.raises(ContainerRemoved):
        _ = c.state
    assert podman("ps", "--all", "--external", "--quiet") == ""


def test_podman_waits_for_one_that_we_stop(podman: SharedPodman, rt: Runtime) -> None:
    c = rt.start(podman.box, SLEEP, name="ours")
    with podman.start("wait", "ours") as waiting:
        time.sleep(0.3)
        c.stop()
        assert waiting.communicate(timeout=60) == ("137\n", "")


@both_locks
def test_what_podman_did_reads_right_and_goes_on_here(podman: SharedPodman, rt: Runtime) -> None:
    made = podman.make("create", "theirs", "sh", "-c", "echo hello; sleep 1000")
    c = rt.lookup_container("theirs")
    assert (c.id, c.state.status) == (made, Status.CONFIGURED)
    podman("start", "theirs")
    state = c.state
    assert state.status is Status.RUNNING
    assert (state.pid, int(state.started or 0)) == (
        podman.ps()["theirs"]["Pid"],
        podman.ps()["theirs"]["StartedAt"],
    )
    podman("pause", "theirs")
    assert c.state.status is Status.PAUSED
    c.unpause()
    assert podman.ps()["theirs"]["State"] == "running"
    c.pause()
    assert podman.ps()["theirs"]["State"] == "paused"
    podman("unpause", "theirs")
    assert c.state.status is Status.RUNNING
    podman("rename", "theirs", "renamed")
    assert rt.lookup_container("renamed").id == made
    c.stop()
    settle_exit(rt, "renamed")
    assert podman.ps()["renamed"]["ExitCode"] == c.state.exit_code == 137
    c.start()
    assert podman.ps()["renamed"]["State"] == "running"
    until(lambda: podman("logs", "renamed") == "hello\nhello", "nothing is logged")
    assert podman("exec", "renamed", "cat", "/etc/hostname") == made[:12]
    podman("stop", "renamed")
    assert c.wait() == 137
    c.restart()
    assert podman.ps()["renamed"]["State"] == "running"
    c.rename("again")
    assert podman.inspect("again")[0]["Id"] == made
    c.remove(force=True)
    assert podman("ps", "--all", "--external", "--quiet") == ""


def test_one_that_podman_has_only_initialised(podman: SharedPodman, rt: Runtime) -> None:
    podman.make("create", "theirs", *EXITED)
    podman("init", "theirs")
    c = rt.lookup_container("theirs")
    assert c.state.status is Status.CREATED
    c.start()
    assert c.wait(60) == 7
    ours = rt.create(podman.box, EXITED, name="ours")
    ours.init()
    assert podman.ps()["ours"]["State"] == "initialized"
    podman("start", "ours")
    assert ours.wait(60) == 7
    assert podman("logs", "ours") == podman("logs", "theirs") == "done"


# --- what nobody owns -------------------------------------------------------------------------


@both_locks
def test_podmans_things_are_nobody_elses(
    podman: SharedPodman, rt: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However old they are: containers of both in every state, a volume with its lock."""
    monkeypatch.setattr(audit, "SHARED_AGE", 0.0)
    podman("volume", "create", "vol")
    podman.make("create", "created", *EXITED, options=["--volume", "vol:/tmp"])
    podman.make("run --detach", "running", *SLEEP)
    podman.make("run --detach", "paused", *SLEEP)
    podman("pause", "paused")
    podman.make("run", "exited", *EXITED, fails=True)
    podman.make("create", "initialized", *EXITED)
    podman("init", "initialized")
    rt.start(podman.box, SLEEP, name="ours")
    rt.start(podman.box, SLEEP, name="detached", detach=True)
    settle_exit(rt, "exited")
    before = {name: row["State"] for name, row in podman.ps().items()}
    assert len(before) == 7
    assert rt.audit() == []
    assert rt.sweep() == []
    assert {name: row["State"] for name, row in podman.ps().items()} == before
    assert podman("volume", "ls", "--quiet") == "vol"
    podman("unpause", "paused")
    for name in ("created", "initialized"):  # the latter, removed as it is, leaves an exit file
        podman("start", "--attach", name, fails=True)
        assert podman.ps()[name]["ExitCode"] == 7
    podman("rm", "--all", "--force", "--time", "0")
    podman("volume", "rm", "vol")
    settle(podman)
    assert rt.audit() == []


@both_locks
def test_what_is_left_beside_podman_is_told_of_when_it_is_old(
    podman: SharedPodman, rt: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A creation by podman that was cut short looks so: storage without a record."""
    lost = podman.make("create", "lost", *EXITED)
    podman.make("create", "kept", *EXITED)
    rt.state.remove_container(rt.state.container(lost))
    assert "lost" in podman("ps", "--all", "--external", "--format", "{{.Names}}")
    assert rt.audit() == [] == rt.sweep()
    monkeypatch.setattr(audit, "SHARED_AGE", 0.0)
    found = rt.audit()
    assert {leak.container_id for leak in found} == {lost}
    assert "storage" in {leak.kind for leak in found}
    assert [leak.what for leak in rt.sweep()] == [leak.what for leak in found]
    assert rt.audit() == []
    assert podman("ps", "--all", "--external", "--format", "{{.Names}}") == "kept"
    podman("start", "--attach", "kept", fails=True)
    assert podman.ps()["kept"]["ExitCode"] == 7


# --- their ends -------------------------------------------------------------------------------


@both_locks
def test_detached_ones_of_both_end_side_by_side(podman: SharedPodman, rt: Runtime) -> None:
    """Nobody but the exit commands does anything: the files say when they have."""
    ids = {}
    for number in range(2):
        name = f"ours{number}"
        ids[name] = rt.start(podman.box, EXITED, name=name, detach=True).id
        ids[f"theirs{number}"] = podman.make("run -d", f"theirs{number}", *EXITED)
    settle(podman)
    assert os.listdir(podman.directory / "tmp/exits") == []
    rows = podman.ps()
    assert {name: rows[name]["Id"] for name in rows} == ids
    for name, row in rows.items():
        assert (row["State"], row["ExitCode"]) == ("exited", 7)
        assert podman("logs", name) == "done"
        assert rt.lookup_container(name).state.status is Status.EXITED
    for number in range(2):
        rt.lookup_container(f"theirs{number}").remove()
        podman("rm", f"ours{number}")


@both_locks
def test_those_that_are_to_go_at_their_end(podman: SharedPodman, rt: Runtime) -> None:
    rt.start(podman.box, EXITED, name="ours", detach=True, remove=True)
    podman.make("run -d", "theirs", *EXITED, options=["--rm"])
    settle(podman)
    assert podman("ps", "--all", "--external", "--quiet") == ""
    # Started by the other one, and ended by hand.
    rt.create(podman.box, SLEEP, name="ours", remove=True)
    podman.make("create", "theirs", *SLEEP, options=["--rm"])
    podman("start", "ours")
    theirs = rt.lookup_container("theirs")
    theirs.start(detach=True)
    podman("stop", "theirs")
    rt.lookup_container("ours").stop()
    settle(podman)
    assert podman("ps", "--all", "--external", "--quiet") == ""
    with pytest.raises(ContainerRemoved):
        _ = theirs.state


@both_locks
def test_podman_removes_what_we_hold(podman: SharedPodman, rt: Runtime) -> None:
    c = rt.start(podman.box, SLEEP, name="ours")
    podman("rm", "--force", "--time", "0", "ours")
    verbs: list[Callable[[], object]] = [
        lambda: c.state, c.start, c.stop, c.kill, c.pause, c.unpause, c.restart, c.init,
        c.inspect, c.mount, c.cleanup,
        lambda: c.rename("x"), lambda: c.usage,
    ]  # fmt: skip
    for verb in verbs:
        with pytest.raises(ContainerRemoved):
            verb()
    c.remove()  # as it is already
    again = rt.create(podman.box, SLEEP, name="ours")  # its lock's number may be the old one's
    assert again.id != c.id
    assert rt.get_containers() == [again]


def test_a_name_that_is_taken(podman: SharedPodman, rt: Runtime) -> None:
    ours = rt.create(podman.box, SLEEP, name="ours")
    theirs = podman.make("create", "theirs", *SLEEP)
    with pytest.raises(ContainerExists, match=theirs):
        rt.create(podman.box, SLEEP, name="theirs")
    with pytest.raises(ContainerExists, match="theirs"):
        ours.rename("theirs")
    for refused in (("create", "ours"), ("rename", "theirs")):
        with pytest.raises(AssertionError, match='"?ours"? (is )?already in use'):
            if refused[0] == "create":
                podman.make("create", "ours", *SLEEP)
            else:
                podman("rename", "theirs", "ours")
    assert {name: row["Id"] for name, row in podman.ps().items()} == {
        "ours": ours.id,
        "theirs": theirs,
    }
    names = sorted(name for one in rt.store.containers() for name in one.names)
    assert names == ["ours", "theirs"]
    assert {c.layer_id for c in rt.store.containers()} == {layer.id for layer in rt.store.layers()}


def test_what_depends_on_the_others(podman: SharedPodman, rt: Runtime) -> None:
    podman.make("create", "theirs", *SLEEP)
    theirs = rt.lookup_container("theirs")
    ours = rt.create(podman.box, SLEEP, name="ours", ipc_ns_from=theirs)
    assert ours.dependencies == [theirs.id]
    with pytest.raises(AssertionError, match="dependent containers"):
        podman("rm", "theirs")
    with pytest.raises(ContainerExists, match="dependent containers"):
        theirs.remove()
    with pytest.raises(ContainerStateInvalid, match="dependencies"):
        ours.start()
    podman("start", "theirs")
    ours.start()
    spaces = [os.readlink(f"/proc/{c.state.pid}/ns/ipc") for c in (ours, theirs)]
    assert spaces[0] == spaces[1]
    ours.remove(force=True)
    theirs.remove(force=True)


# --- a reboot ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "podman, first", [("file", "podman"), ("shm", "ours")], indirect=["podman"]
)
def test_a_reboot(podman: SharedPodman, first: str) -> None:
    """The tmpdir and the run root are gone, and what ran does not run any more."""
    with podman.runtime() as rt:
        rt.create(podman.box, SLEEP, name="created")
        ran = rt.start(podman.box, SLEEP, name="ran", detach=True)
        ended = rt.start(podman.box, EXITED, name="ended")
        assert ended.wait() == 7
        podman.make("run -d", "theirs", *SLEEP)
        end_abruptly(podman, [ran, rt.lookup_container("theirs")])
        kind = rt.locks.kind
    clear_as_a_boot_does(podman, kind)
    if first == "podman":
        podman("ps")
    with podman.runtime() as rt:
        statuses = {c.name: c.state.status for c in rt.get_containers()}
        expected = dict.fromkeys(("created", "ran", "theirs"), Status.CONFIGURED)
        assert statuses == {**expected, "ended": Status.EXITED}
        lock_ids = {c.record.config.lock_id for c in rt.get_containers()}
        assert rt.locks.in_use() == lock_ids
        assert len(lock_ids) == 4
        assert {n: row["State"] for n, row in podman.ps().items()} == {
            "created": "created", "ran": "created", "theirs": "created", "ended": "exited"
        }  # fmt: skip
        rt.lookup_container("theirs").start()
        podman("start", "ran")
        assert {n for n, row in podman.ps().items() if row["State"] == "running"} == {
            "ran",
            "theirs",
        }
        for container in rt.get_containers():
            container.remove(force=True)


def end_abruptly(podman: SharedPodman, containers: list[Container]) -> None:
    """Monitors and processes end at once, and nobody notes it."""
    pids = [(c.record.state.conmon_pid, c.state.pid) for c in containers]
    for monitor, init in pids:
        os.kill(monitor, 9)
        os.kill(init, 9)
    until(lambda: not any(os.path.exists(f"/proc/{p[1]}") for p in pids), "it lives")
    for container in containers:
        oci_root = f"/run/runc/{container.id}"
        for name in os.listdir(oci_root):
            os.unlink(f"{oci_root}/{name}")
        os.rmdir(oci_root)
        census.settled(lambda c=container: _removed(f"libpod-{c.id}"))  # type: ignore[misc]


def _removed(name: str) -> list[str]:
    """Removes the cgroups of this name: those that are still there."""
    left = [path for path in census.cgroups(CGROUPS) if os.path.basename(path) == name]
    for path in left:
        try:
            os.rmdir(path)
        except OSError:
            continue
    return [path for path in left if os.path.exists(path)]


def clear_as_a_boot_does(podman: SharedPodman, kind: str) -> None:
    for line in sorted(census.mounts().values(), reverse=True):
        target = line.split()[5]
        if str(podman.directory) in target:
            mountns.unmount(target)
    for room in ("tmp", "run"):
        for directory, names, files in os.walk(podman.directory / room, topdown=False):
            for name in files:
                os.unlink(f"{directory}/{name}")
            for name in names:
                os.rmdir(f"{directory}/{name}")
    if kind == "shm":
        os.unlink("/dev/shm/libpod_lock")


# --- all at once ------------------------------------------------------------------------------


def texts(bucket: kv.Bucket) -> dict[str, str]:
    return {key.decode(): (value or b"").decode() for key, value in bucket.items()}


def check_consistent(podman: SharedPodman, rt: Runtime, oracle: Oracle) -> None:
    """Database, container store, locks and podman tell the same."""
    assert oracle.ask("check", podman.database) == "OK"
    rows = podman.ps()
    copied = shutil.copy(podman.database, podman.directory / "copy.db")
    with kv.Database(copied, read_only=True) as database, database.begin() as tx:
        names = texts(tx.bucket(b"all-ctrs"))
        by_name = texts(tx.bucket(b"name-registry"))
        ids = texts(tx.bucket(b"id-registry"))
        assert {key.decode() for key in tx.bucket(b"ctr")} == set(names)
    stored = json.loads((podman.directory / "root/overlay-containers/containers.json").read_text())
    layers = json.loads((podman.directory / "root/overlay-layers/layers.json").read_text())
    assert names == ids == {name_id: name for name, name_id in by_name.items()}
    assert names == {row["Id"]: name for name, row in rows.items()}
    assert names == {one["id"]: one["names"][0] for one in stored or ()}
    assert {one["layer"] for one in stored or ()} == {one["id"] for one in layers or ()}
    lock_ids = [c.record.config.lock_id for c in rt.get_containers()]
    assert len(set(lock_ids)) == len(lock_ids) == len(names)
    assert set(lock_ids) <= set(rt.locks.in_use())


class Mixed:
    """Operations at random, by podman or by us, on containers of both; what must hold."""

    def __init__(self, podman: SharedPodman, rt: Runtime, seed: int) -> None:
        self.podman = podman
        self.rt = rt
        self.draw = random.Random(seed)
        self.expected: dict[str, str] = {}
        """Name to podman's word for its state."""
        self.made = 0

    def step(self) -> str:
        verb = self.draw.choice(self._possible())
        by_podman = self.draw.random() < 0.5
        names = [n for n, state in self.expected.items() if verb in self._verbs(state)]
        name = self.draw.choice(names) if names else ""
        getattr(self, verb)(name, by_podman)
        return f"{verb} {name} {'by podman' if by_podman else 'by us'}"

    def _possible(self) -> list[str]:
        verbs = ["create"] if len(self.expected) < 8 else []
        return verbs + [v for state in self.expected.values() for v in self._verbs(state)]

    @staticmethod
    def _verbs(state: str) -> list[str]:
        always = ["rename"] if state != "paused" else []
        return (
            always
            + {
                "created": ["start", "remove"],
                "running": ["stop", "pause", "kill", "restart", "force_remove"],
                "paused": ["unpause"],
                "exited": ["start", "remove"],
            }[state]
        )

    def container(self, name: str) -> Container:
        return self.rt.lookup_container(name)

    def create(self, name: str, by_podman: bool) -> None:
        self.made += 1
        name = f"k{self.made}"
        if by_podman:
            self.podman.make("create", name, *SLEEP)
        else:
            self.rt.create(self.podman.box, SLEEP, name=name)
        self.expected[name] = "created"

    def start(self, name: str, by_podman: bool) -> None:
        if by_podman:
            self.podman("start", name)
        else:
            self.container(name).start(detach=self.draw.random() < 0.5)
        self.expected[name] = "running"

    def stop(self, name: str, by_podman: bool) -> None:
        if by_podman:
            self.podman("stop", name)
        else:
            self.container(name).stop()
        self.expected[name] = "exited"

    def kill(self, name: str, by_podman: bool) -> None:
        if by_podman:
            self.podman("kill", name)
            self.podman("wait", name)
        else:
            self.container(name).kill()
            self.container(name).wait(60)
        self.expected[name] = "exited"

    def restart(self, name: str, by_podman: bool) -> None:
        if by_podman:
            self.podman("restart", name)
        else:
            self.container(name).restart()

    def pause(self, name: str, by_podman: bool) -> None:
        if by_podman:
            self.podman("pause", name)
        else:
            self.container(name).pause()
        self.expected[name] = "paused"

    def unpause(self, name: str, by_podman: bool) -> None:
        if by_podman:
            self.podman("unpause", name)
        else:
            self.container(name).unpause()
        self.expected[name] = "running"

    def rename(self, name: str, by_podman: bool) -> None:
        self.made += 1
        new = f"r{self.made}"
        if by_podman:
            self.podman("rename", name, new)
        else:
            self.container(name).rename(new)
        self.expected[new] = self.expected.pop(name)

    def remove(self, name: str, by_podman: bool) -> None:
        if by_podman:
            self.podman("rm", name)
        else:
            self.container(name).remove()
        del self.expected[name]

    def force_remove(self, name: str, by_podman: bool) -> None:
        if by_podman:
            self.podman("rm", "--force", "--time", "0", name)
        else:
            self.container(name).remove(force=True)
        del self.expected[name]


@both_locks
@pytest.mark.timeout(60 + 2 * OPERATIONS)
def test_a_mixed_run(podman: SharedPodman, rt: Runtime, oracle: Oracle) -> None:
    mixed = Mixed(podman, rt, seed=5)
    done: list[str] = []
    for number in range(OPERATIONS // 2):
        done.append(mixed.step())
        seen = {c.name: _WORDS[c.state.status] for c in rt.get_containers()}
        assert seen == mixed.expected, done
        if number % 5 == 0:
            assert {n: row["State"] for n, row in podman.ps().items()} == mixed.expected, done
    check_consistent(podman, rt, oracle)


_WORDS = {
    Status.CONFIGURED: "created",
    Status.RUNNING: "running",
    Status.PAUSED: "paused",
    Status.STOPPED: "exited",
    Status.EXITED: "exited",
}


@both_locks
def test_both_create_and_remove_at_once(podman: SharedPodman, rt: Runtime, oracle: Oracle) -> None:
    each = 12
    failures: list[BaseException] = []

    def ours(number: int) -> None:
        c = rt.create(podman.box, SLEEP, name=f"ours{number}")
        if number % 3 == 0:
            c.remove()

    def theirs(number: int) -> None:
        podman.make("create", f"theirs{number}", *SLEEP)
        if number % 3 == 0:
            podman("rm", f"theirs{number}")

    def work(task: Callable[[int], None], first: int) -> None:
        try:
            for number in range(first, each, 4):
                task(number)
        except BaseException as error:
            failures.append(error)

    rt.get_containers()
    threads = [
        threading.Thread(target=work, args=(task, first))
        for task in (ours, theirs)
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    kept = {f"{who}{n}" for who in ("ours", "theirs") for n in range(each) if n % 3}
    assert set(podman.ps()) == kept == {c.name for c in rt.get_containers()}
    check_consistent(podman, rt, oracle)
    podman("rm", *sorted(name for name in kept if name.startswith("ours")))
    for container in rt.get_containers():
        container.remove()
    assert podman("ps", "--all", "--external", "--quiet") == ""
    check_consistent(podman, rt, oracle)


# --- where state is not shared -------------------------------------------------------------------


@pytest.mark.parametrize(
    "version, reason",
    [("5.0.0", "in SQLite"), ("5.8.0", "at the next boot"), ("6.0.0", "no BoltDB any more")],
)
def test_another_podman(
    podman: SharedPodman, monkeypatch: pytest.MonkeyPatch, version: str, reason: str
) -> None:
    program = podman.directory / "bin/podman"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho podman version {version}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    refused(podman, reason)


def test_beside_sqlite(podman: SharedPodman) -> None:
    (podman.directory / "root").mkdir()
    (podman.directory / "root/db.sql").write_bytes(b"SQLite format 3\0")
    refused(podman, "SQLite")


def test_other_locks_than_podmans(podman: SharedPodman) -> None:
    for kind in ("flock", "shm"):
        refused(podman, "locks by 'file'", lock_type=kind)


def refused(podman: SharedPodman, reason: str, **options: Any) -> None:
    """Says why, and makes nothing."""
    before = sorted(podman.directory.glob("**"))
    with pytest.raises(SharingRefused, match=reason):
        podman.runtime(**options)
    assert sorted(podman.directory.glob("**")) == before
