# SPDX-License-Identifier: Apache-2.0
"""What nobody owns in a runtime's directories, and clearing it.

Only this runtime's things are looked at: see `traces`.  How it is told whether
somebody is at work with something just now:

 1. What has no record is being made while a living runtime claims it (`owners`,
    invariant 3), and is being removed while its lock is held: the record goes before
    the lock.  Traces are looked for before claims, and claims before records, so that
    a creation which ends meanwhile is known by one or the other.
 2. What has a record is judged, and cleared, under the container's lock, which nobody
    waits for: who holds it is at work.
 3. Each thing is looked at again when nobody can be at work, just before it is told
    of or cleared.
 4. podman, where it shares the directories, makes no claims: what has no record is
    told of only when it is an hour old, and what podman's own tools look after
    (layers, locks) not at all.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from libpod import _spawn, traces
from libpod.errors import ContainerRemoved, InternalError, LibpodError, LockGone, LockTimeout
from libpod.life import LIVE, Life, is_monitor
from libpod.locks import FILE, FLOCK
from libpod.state.errors import BadRecord
from libpod.state.records import ContainerStatus
from libpod.storage.errors import NoSuchStorageContainer
from libpod.storage.unowned import Unowned
from libpod.traces import LAUNCH, Kind, Trace
from libpod.trees import remove_tree

if TYPE_CHECKING:
    from libpod.engine import Engine
    from libpod.locks import ObjectLock
    from libpod.state.handles import ContainerRecord

log = logging.getLogger("libpod.audit")

GRACE = 5.0
"""Seconds that whoever clears up after an end, or is making a file, may take."""

SHARED_AGE = 3600.0
"""Seconds after which what podman may have left without a record is nobody's."""

_PASSES = 4
"""One thing may keep another one: a container without its layer is known after that."""

_KILL_TIMEOUT = 5.0

_SCRATCH = re.compile("lock_type\\.[0-9a-f]{16}")


class Leak(NamedTuple):
    """Something that nobody owns.

    Attributes:
        kind: "monitor", "process", "oci-state", "cgroup", "mount", "exit-file",
            "storage", "directory", "run-directory" and "lock" have no container in
            the state, or none that runs; "ended" is a container that has ended, or
            lost its monitor, and that nobody has cleared up; "record" one whose
            storage is gone; "name" one whose storage has another name; "owner" what a
            runtime that died was in charge of; "layer", "layer-directory",
            "layer-link" and "temporary" are the container store's.
        what: the thing, for people.
        age: seconds, None where that is not known.
        remedy: what to do about it.
        container_id: "" where no container is known.
    """

    kind: str
    what: str
    age: float | None
    remedy: str
    container_id: str


_SWEEP = "`libpod system sweep` removes it"
_REMEDIES = {
    "monitor": "`libpod system sweep` ends it",
    "process": "`libpod system sweep` kills it",
    "mount": "`libpod system sweep` unmounts it",
    "ended": "look at the container, which records its end; `libpod system sweep` does so",
    "record": "remove the container; `libpod system sweep` does so unless it runs",
    "name": "rename the container; `libpod system sweep` gives its storage the container's name",
    "owner": "open a runtime on these directories, which takes it over",
}


def audit(engine: Engine) -> list[Leak]:
    """Everything that nobody owns; changes nothing."""
    return _Examination(engine, clear=False).run() + _dead_owners(engine)


def sweep(engine: Engine, take_over: Callable[[], object]) -> list[Leak]:
    """Clears what nobody owns: what it cleared.  What it could not clear is logged.

    `take_over` has this runtime inherit what dead owners have left.
    """
    cleared: list[Leak] = []
    for _ in range(_PASSES):
        found = _Examination(engine, clear=True).run()
        cleared += found
        if not found:
            break
    dead = _dead_owners(engine)
    take_over()
    left = {leak.what for leak in _dead_owners(engine)}
    return cleared + [leak for leak in dead if leak.what not in left]


def clear(engine: Engine, container_id: str) -> bool:
    """Clears what a container without a record has left: whether there was any, and it is
    nobody's."""
    return bool(_Examination(engine, clear=True).abandoned(container_id))


class _Examination:
    """One look at everything, which tells or clears.

    With `clear` its methods return what they cleared.
    """

    def __init__(self, engine: Engine, *, clear: bool) -> None:
        self._engine = engine
        self._clear = clear
        self._shared = bool(engine.config.share)
        self._patience = time.monotonic() + GRACE
        self._numbers = _lock_numbers(engine)
        self._unowned = [] if self._shared else list(engine.store.unowned())
        self._stored = {stored.id: stored.names for stored in engine.store.containers()}
        known = engine.state.known_ids()
        parents = {record.config.cgroup_parent for record in _records(engine)}
        self._traces: dict[str, list[Trace]] = defaultdict(list)
        for trace in traces.find(engine, known, parents, self._unowned):
            self._traces[trace.container_id].append(trace)
        self._claimed = engine.owners.living_claims()
        self._known = engine.state.known_ids()

    def run(self) -> list[Leak]:
        leaks: list[Leak] = []
        for container_id in sorted(self._traces.keys() - self._known):
            leaks += self.abandoned(container_id)
        for record in _records(self._engine):
            leaks += self._recorded(record)
        return leaks + self._store() + self._free_numbers() + self._scratch()

    # --- without a record ----------------------------------------------------------------

    def abandoned(self, container_id: str) -> list[Leak]:
        """What a container has left that has no record."""
        if container_id in self._claimed:
            return []
        suspects = self._traces.get(container_id, [])
        if self._shared:
            old = time.time() - SHARED_AGE
            suspects = [trace for trace in suspects if trace.born is None or trace.born < old]
        self._await_ending(suspects)
        engine = self._engine
        with self._excluding(container_id) as alone:
            if not alone or engine.owners.lives(container_id):
                return []
            if container_id in engine.state.known_ids():
                return []
            leaks = self._deal_with(suspects)
            if self._clear:
                engine.owners.forget(container_id)
            return leaks

    @contextmanager
    def _excluding(self, container_id: str) -> Iterator[bool]:
        """Whether nobody holds the lock of an object without a record; where its ID leads to
        the lock, nobody can take it meanwhile."""
        if self._engine.locks.kind != FLOCK:
            yield True
            return
        lock = self._engine.locks.open(container_id, 0)
        try:
            yield _try(lock)
        finally:
            lock.close()

    def _deal_with(self, suspects: list[Trace]) -> list[Leak]:
        """Those that are there still, and nobody can be at work with."""
        engine = self._engine
        there = [trace for trace in suspects if traces.is_there(engine, trace)]
        if self._clear:
            for trace in sorted(there, key=lambda trace: _ORDER.index(trace.kind)):
                with _logged(trace.what):
                    _CLEAR[trace.kind](engine, trace)
            there = [trace for trace in there if not traces.is_there(engine, trace)]
        return [_leak(t.kind, t.what, t.born, t.container_id) for t in there]

    def _await_ending(self, suspects: list[Trace]) -> None:
        """A monitor lives on for a moment after its container was cleared up, and longer
        where it has an exit command."""
        for trace in suspects:
            if trace.kind == "monitor" and traces.is_ending(trace):
                with suppress(ProcessLookupError), _spawn.open_process(int(trace.place)) as process:
                    process.ended(max(0.0, self._patience - time.monotonic()))

    # --- with a record ---------------------------------------------------------------------

    def _recorded(self, record: ContainerRecord) -> list[Leak]:
        """What is wrong with a container of the state, or left of an earlier life."""
        layerless = (found for found in self._unowned if found.kind == "container")
        stored = self._stored.get(record.id, ())
        if (
            record.name in stored
            and record.id not in {found.name for found in layerless}
            and not self._left_of(record)
            and _end_of(self._engine, record) is None
        ):
            return []
        self._await_ending(self._left_of(record))
        life = Life(self._engine, record)
        try:
            return self._judge(life)
        except (LockTimeout, InternalError, ContainerRemoved) as error:
            log.debug("container %s is passed over: %s", record.id, error)
            return []
        finally:
            life.close()

    def _judge(self, life: Life) -> list[Leak]:
        """Raises `LockTimeout`, `InternalError` where somebody is at work with it."""
        with life.held(0):
            leaks = self._deal_with(self._left_of(life.record))
            if leaks and self._clear:
                life.clear_unfinished()
                life.unmount()
            wrong = _wrong_with(life)
        if not self._clear:
            return leaks + wrong
        for leak in wrong:
            with _logged(leak.what):
                _mend(life, leak.kind)
                leaks.append(leak)
        return leaks

    def _left_of(self, record: ContainerRecord) -> list[Trace]:
        """What one that does not run should not have."""
        state = record.state
        if state.status in LIVE or state.status is ContainerStatus.STOPPED:
            return []
        kinds = set(LAUNCH)
        if state.mounted:
            kinds.discard("mount")
        if self._shared:  # podman keeps it
            kinds.discard("exit-file")
        return [trace for trace in self._traces.get(record.id, ()) if trace.kind in kinds]

    # --- without a container ---------------------------------------------------------------

    def _store(self) -> list[Leak]:
        """The container store's own; what creations and deletions do is never seen half
        done, as they hold its locks throughout."""
        store = self._engine.store
        kinds = ("layer", "layer-directory", "layer-link", "temporary")
        found = [entry for entry in self._unowned if entry.kind in kinds]
        if self._clear and found:
            for entry in found:
                with _logged(entry.name):
                    store.discard(entry)
            left = {(entry.kind, entry.name) for entry in store.unowned()}
            found = [entry for entry in found if (entry.kind, entry.name) not in left]
        return [
            _leak(entry.kind, f"{entry.kind} {entry.name}", entry.modified / 1e9 or None)
            for entry in found
        ]

    def _free_numbers(self) -> list[Leak]:
        """podman's lock files that no object has.  None is judged while an object is made,
        whose number nobody can know."""
        engine = self._engine
        leaks: list[Leak] = []
        if self._claimed - self._known:
            return []
        for number in sorted(self._numbers - _numbers_of_objects(engine)):
            lock = engine.locks.open("", number)
            try:
                if not _try(lock) or engine.owners.living_claims() - engine.state.known_ids():
                    continue
                if number in _numbers_of_objects(engine) or number not in engine.locks.in_use():
                    continue
                path = f"{engine.paths.tmp_dir}/locks/{number}"
                leaks.append(_leak("lock", f"lock {number}", traces.modified(path)))
                if self._clear:
                    lock.free()
            finally:
                lock.close()
        return leaks

    def _scratch(self) -> list[Leak]:
        """Files that somebody died over in the moment between their making and naming."""
        tmp_dir = self._engine.paths.tmp_dir
        leaks = []
        for name in filter(_SCRATCH.fullmatch, os.listdir(tmp_dir)):
            path = f"{tmp_dir}/{name}"
            born = traces.modified(path)
            if born is None or time.time() - born < GRACE:
                continue
            leaks.append(_leak("temporary", path, born))
            if self._clear:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        return leaks


# --- what is wrong with a container --------------------------------------------------------


def _wrong_with(life: Life) -> list[Leak]:
    """By its record, its lock held."""
    engine, record = life.engine, life.record
    leaks = []
    ended = _end_of(engine, record)
    if ended is not None:
        leaks.append(_leak("ended", f"container {record.name} {ended[0]}", ended[1], record.id))
    try:
        stored = engine.store.container(record.id)
    except NoSuchStorageContainer:
        stored = None
    if stored is None or (
        stored.layer_id and stored.layer_id not in {layer.id for layer in engine.store.layers()}
    ):
        what = f"container {record.name} has lost its storage"
        leaks.append(_leak("record", what, None, record.id))
    elif record.name not in stored.names:
        what = f'the storage of container {record.name} has the name "{stored.name}"'
        leaks.append(_leak("name", what, None, record.id))
    return leaks


def _end_of(engine: Engine, record: ContainerRecord) -> tuple[str, float | None] | None:
    """How and when it has ended, where nobody is there to clear up after it."""
    state = record.state
    finished = None if state.finished is None else state.finished / 1e9
    if state.status in LIVE:
        born = traces.modified(f"{engine.oci.exit_dir}/{record.id}")
        if born is None and is_monitor(state.conmon_pid, record.id):
            return None
        what = "has lost its monitor" if born is None else "has ended, which nobody has recorded"
    elif state.status is ContainerStatus.STOPPED:
        what, born = "has ended and holds what it was given", finished
    elif state.status is ContainerStatus.EXITED and record.config.remove_at_end:
        what, born = "was to be removed at its end", finished
    else:
        return None
    grace = SHARED_AGE if engine.config.share else GRACE
    if born is not None and time.time() - born < grace:
        return None
    return None if engine.owners.lives(record.id) else (what, born)


def _mend(life: Life, kind: str) -> None:
    if kind == "ended":
        life.settle(0)
    elif kind == "record":
        with life.locked(0):
            if life.status in LIVE:
                raise InternalError(
                    f"container {life.id} runs and has lost its storage",
                    container_id=life.id,
                    remedy="stop it, then remove it",
                )
            life.remove()
    else:
        with life.held(0):
            life.engine.store.rename_container(life.id, life.record.name)


# --- how traces are cleared ----------------------------------------------------------------


def _end_monitor(engine: Engine, trace: Trace) -> None:
    engine.host.kill_session(naming=(trace.container_id, engine.oci.exit_dir))


def _kill(engine: Engine, trace: Trace) -> None:
    with suppress(ProcessLookupError), _spawn.open_process(int(trace.place)) as process:
        if traces.is_there(engine, trace):
            process.send_signal(signal.SIGKILL)
            process.ended(_KILL_TIMEOUT)


def _remove_cgroup(engine: Engine, trace: Trace) -> None:
    engine.host.cgroups.kill(trace.place)
    engine.host.cgroups.remove(trace.place)


def _unmount(engine: Engine, trace: Trace) -> None:
    engine.host.unmount(trace.place)


def _delete_stored(engine: Engine, trace: Trace) -> None:
    engine.store.delete_container(trace.container_id)


def _discard_directory(engine: Engine, trace: Trace) -> None:
    engine.store.discard(Unowned("container-directory", trace.container_id, 0))


def _discard_run_directory(engine: Engine, trace: Trace) -> None:
    engine.store.discard(Unowned("container-run-directory", trace.container_id, 0))


_CLEAR: dict[Kind, Callable[[Engine, Trace], None]] = {
    "monitor": _end_monitor,
    "process": _kill,
    "cgroup": _remove_cgroup,
    "oci-state": lambda engine, trace: remove_tree(trace.place),
    "mount": _unmount,
    "exit-file": lambda engine, trace: os.unlink(trace.place),
    "storage": _delete_stored,
    "directory": _discard_directory,
    "run-directory": _discard_run_directory,
    "lock": lambda engine, trace: engine.locks.free_given(trace.container_id, 0),
}
_ORDER = list(_CLEAR)
"""What may bring another thing back goes before it; the lock is last."""


# --- small things ----------------------------------------------------------------------------


def _leak(kind: str, what: str, born: float | None, container_id: str = "") -> Leak:
    age = None if born is None else max(0.0, time.time() - born)
    return Leak(kind, what, age, _REMEDIES.get(kind, _SWEEP), container_id)


def _dead_owners(engine: Engine) -> list[Leak]:
    leaks = []
    for path in engine.owners.dead():
        born = traces.modified(path)
        if born is not None and time.time() - born >= GRACE:
            leaks.append(_leak("owner", f"claims of a runtime that died, {path}", born))
    return leaks


def _records(engine: Engine) -> Iterator[ContainerRecord]:
    """Those that can be read."""
    for record in engine.state.all_containers():
        try:
            _ = record.config, record.state
        except BadRecord as error:
            log.warning("%s", error)
            continue
        yield record


def _lock_numbers(engine: Engine) -> set[int]:
    """The lock IDs that only objects of this state can have: shared memory is the host's,
    podman's volumes have some, and other namespaces cannot be read."""
    if engine.locks.kind != FILE or engine.config.share or engine.state.namespace:
        return set()
    return {number for number in engine.locks.in_use() if isinstance(number, int)}


def _numbers_of_objects(engine: Engine) -> set[int]:
    """Raises `BadRecord`: whose lock IDs cannot be read may have any."""
    containers, pods = engine.state.all_containers(), engine.state.all_pods()
    return {c.config.lock_id for c in containers} | {pod.config.lock_id for pod in pods}


def _try(lock: ObjectLock) -> bool:
    """Takes a lock unless somebody is at work; one that is not there keeps nobody out."""
    try:
        lock.lock(0)
    except (LockTimeout, InternalError):
        return False
    except LockGone:
        return True
    return True


@contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except (LibpodError, OSError) as error:
        log.warning("%s cannot be cleared: %s", what, error)
