# SPDX-License-Identifier: Apache-2.0
"""One set of locks for the real podman and for this library.

podman runs in mount namespaces of its own in which /dev/shm is a directory of
the test's: the host's locks, which every podman shares, are not touched.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from libpod.errors import LocksExhausted, LockTimeout
from libpod.locks import LockManager, open_manager
from tests.interop.podman import CONF, Podman

PRIVATE_SHM = 'mount --make-rprivate / && mount --bind "$0" /dev/shm && exec podman "$@"'
NUM_LOCKS = 96


class LockedPodman(Podman):
    """podman with locks of its own, and ours on them."""

    def __init__(self, directory: Path, lock_type: str) -> None:
        ours = f'lock_type = "{lock_type}"\nnum_locks = {NUM_LOCKS}'
        conf = CONF.replace('lock_type = "file"', ours)
        super().__init__(directory, conf)
        self.lock_type = lock_type
        self.segment = directory / "shm/libpod_lock"
        self.segment.parent.mkdir()
        self.program = ["unshare", "-m", "sh", "-c", PRIVATE_SHM, str(self.segment.parent)]

    def manager(self) -> LockManager:
        return open_manager(
            self.lock_type,
            str(self.directory / "tmp"),
            num_locks=NUM_LOCKS,
            shm_path=str(self.segment),
        )

    def lock_ids(self) -> dict[str, int]:
        """By container name."""
        state = self.state()
        found = {record.name: record.config.lock_id for record in state.all_containers()}
        state.close()
        return found

    def hold(self, name: str) -> subprocess.Popen[str]:
        """A podman that holds the container's lock until its output is read.

        It exports the container's layer, which has more in it than a pipe holds.
        """
        for layer in (self.directory / "root/overlay").glob("*/diff"):
            (layer / "big").write_bytes(bytes(1 << 20))
        process = self.start("export", name)
        assert process.stdout is not None
        assert process.stdout.read(1) != ""
        return process


@pytest.fixture(params=["shm", "file"])
def podman(request: pytest.FixtureRequest) -> Iterator[LockedPodman]:
    with tempfile.TemporaryDirectory(prefix="libpod-") as name:
        made = LockedPodman(Path(name), request.param)
        yield made
        made("rm", "--all", "--force", "--time", "0", fails=True)


def test_our_lock_holds_podman_up(podman: LockedPodman) -> None:
    one, two = podman.create("one"), podman.create("two")
    locks = podman.manager()
    assert locks.in_use() == set(podman.lock_ids().values()) == {0, 1}
    lock = locks.open(one, podman.lock_ids()["one"])
    lock.lock(60)
    waiting = podman.start("inspect", "--format", "{{.ID}}", "one")
    assert podman("inspect", "--format", "{{.ID}}", "two") == two
    time.sleep(0.5)
    assert waiting.poll() is None
    lock.unlock()
    assert waiting.communicate(timeout=60) == (f"{one}\n", "")
    locks.close()


def test_podmans_lock_holds_us_up(podman: LockedPodman) -> None:
    one = podman.create("one")
    locks = podman.manager()
    lock = locks.open(one, podman.lock_ids()["one"])
    with podman.hold("one") as process:
        with pytest.raises(LockTimeout, match=rf"pid {process.pid} \(podman\)") as caught:
            lock.lock(0.5)
        assert caught.value.holder == process.pid
        process.communicate(timeout=60)
    lock.lock(60)
    lock.unlock()
    locks.close()


def test_a_killed_podman_leaves_its_lock_free(podman: LockedPodman) -> None:
    one = podman.create("one")
    locks = podman.manager()
    lock = locks.open(one, podman.lock_ids()["one"])
    with podman.hold("one") as process:
        process.kill()
        lock.lock(20)
        lock.unlock()
    assert podman("inspect", "--format", "{{.ID}}", "one") == one
    locks.close()


HOLDER = """
import sys, time
from libpod.locks import open_manager
kind, tmp_dir, segment, object_id, lock_id = sys.argv[1:]
manager = open_manager(kind, tmp_dir, num_locks=96, shm_path=segment)
manager.open(object_id, int(lock_id)).lock()
print("held", flush=True)
time.sleep(60)
"""


def test_a_killed_process_of_ours_leaves_its_lock_free(podman: LockedPodman) -> None:
    one = podman.create("one")
    lock_id = str(podman.lock_ids()["one"])
    places = [str(podman.directory / "tmp"), str(podman.segment)]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, podman.lock_type, *places, one, lock_id],
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waiting = podman.start("inspect", "--format", "{{.ID}}", "one")
        time.sleep(0.5)
        assert waiting.poll() is None
        holder.kill()
        assert waiting.communicate(timeout=60) == (f"{one}\n", "")


def test_numbers_given_out_at_once_are_all_different(podman: LockedPodman) -> None:
    podman("ps")
    locks = podman.manager()
    creating = [
        podman.start("create", "--name", f"podman{number}", "--network", "none",
                     "--rootfs", str(podman.directory / "rootfs"), "/bin/sh")
        for number in range(8)
    ]  # fmt: skip
    ours: list[int] = []
    while any(process.poll() is None for process in creating) and len(ours) < 60:
        ours.append(locks.allocate(f"{len(ours):064}")[0])
        if len(ours) % 3 == 0:
            locks.free_given("", ours.pop())
        time.sleep(0.02)
    for process in creating:
        assert process.communicate(timeout=60)[1] == ""
    theirs = list(podman.lock_ids().values())
    assert len(theirs) == 8
    assert len({*ours, *theirs}) == len(ours) + len(theirs)
    assert locks.in_use() == {*ours, *theirs}
    locks.close()


def test_the_lowest_number_is_next_on_both_sides(podman: LockedPodman) -> None:
    locks = podman.manager()
    assert [locks.allocate(f"{number:064}")[0] for number in range(4)] == [0, 1, 2, 3]
    locks.free_given("", 1)
    podman.create("one")
    assert podman.lock_ids() == {"one": 1}
    podman.create("two")
    assert podman.lock_ids()["two"] == 4
    podman("rm", "one")
    assert locks.in_use() == {0, 2, 3, 4}
    assert locks.allocate("a" * 64)[0] == 1
    locks.close()


def test_a_lock_freed_here_can_be_podmans(podman: LockedPodman) -> None:
    locks = podman.manager()
    number, lock = locks.allocate("a" * 64)
    with lock.held(5):
        lock.free()
        one = podman.start("create", "--name", "one", "--network", "none",
                           "--rootfs", str(podman.directory / "rootfs"), "/bin/sh")  # fmt: skip
        if podman.lock_type == "file":  # the new file is another lock
            assert one.communicate(timeout=60)[1] == ""
    assert one.communicate(timeout=60)[1] == ""
    assert podman.lock_ids() == {"one": number}
    locks.close()


# --- shared memory only ------------------------------------------------------------------


@pytest.mark.parametrize("podman", ["shm"], indirect=True)
def test_a_new_segment_is_podmans_byte_by_byte(podman: LockedPodman) -> None:
    podman("ps")
    theirs = podman.segment.read_bytes()
    podman.segment.unlink()
    podman.manager().close()
    assert podman.segment.read_bytes() == theirs
    assert podman.segment.stat().st_mode & 0o7777 == 0o600
    podman.create("one")
    locks = podman.manager()
    assert locks.in_use() == {0}
    locks.close()


@pytest.mark.parametrize("podman", ["shm"], indirect=True)
def test_when_all_are_taken_both_say_so(podman: LockedPodman) -> None:
    locks = podman.manager()
    for number in range(NUM_LOCKS):
        locks.allocate(f"{number:064}")
    with pytest.raises(LocksExhausted, match=f"num_locks = {NUM_LOCKS}"):
        locks.allocate("a" * 64)
    with pytest.raises(AssertionError, match=r"num_locks \(96\)"):
        podman.create("one")
    locks.free_given("", 50)
    podman.create("one")
    assert podman.lock_ids() == {"one": 50}
    locks.close()
