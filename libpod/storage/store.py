# SPDX-License-Identifier: Apache-2.0
"""The container store: who has which layer and which directories.

A change is one pass under the locks of layers.json, images.json (shared, where
images matter) and containers.json, in this order, as podman takes them.  No lock
of storage.lock: it guards the driver's set-up and the mounting of its directory,
and nothing here mounts.  What a crash leaves at each step:

1. Creation makes the directories first, then the container's record, then the
   layer's: until the first record is there nothing refers to the directories, and
   `repair()` removes them; from then on the container is known, and deleting it
   removes whatever there is of it.
2. Deletion flags the layer `incomplete` first: whoever opens the store to write,
   podman too, finishes such a layer.  The container's record goes last, so deleting
   again finishes all the rest, also where a full disk had no room for the flag.
3. Both files of a change are on the disk before the first is in force, and both
   directories are synced at the end: a database record that is committed after a
   creation has its storage record after a power cut, too, and what is deleted does not
   come back.  Other directories than these two are not synced: journalling file
   systems commit them with the same transaction, and where they do not, neither podman
   nor we need an empty layer's directory.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from libpod import rundir
from libpod.errors import InvalidArgument, NoSuchImage, RuntimeDirError, Unsupported
from libpod.failpoint import reach
from libpod.names import new_id, valid_name
from libpod.state.fields import format_time
from libpod.storage.errors import (
    FULL,
    DuplicateID,
    DuplicateName,
    LayerMounted,
    NoSuchStorageContainer,
    translated,
)
from libpod.storage.overlay import LINKS, Overlay
from libpod.storage.records import (
    Layer,
    StorageContainer,
    container_of,
    layer_of,
    new_record,
    without_name,
)
from libpod.storage.snapshot import Members, Snapshot
from libpod.storage.status import overlay_status
from libpod.storage.table import Hold, Table, forget, put_in_force
from libpod.storage.unowned import Unowned, find_unowned
from libpod.trees import remove_tree

log = logging.getLogger("libpod.storage")

LOCK_TIMEOUT_S = 60.0

_ID = re.compile("[0-9a-f]{64}")
_USERDATA = "userdata"

_VOLATILE = 2
"""Which of a table's files is the volatile one in `run_root`."""


class _Held(NamedTuple):
    """The tables for one change; images.json is locked only where it matters."""

    layers: Hold
    images: Hold
    containers: Hold


class Store:
    """The container store in `graph_root` and `run_root`.

    Cheap to make.  Between two calls it holds no lock; it keeps the lock files open
    for the next one, until `close()` or its end.  Any thread may use it, and so may a
    forked child.

    All calls that change something wait up to `lock_timeout` seconds for each lock.
    Errors common to all calls: `LockTimeout` (names the holder), `CorruptStorage`, `StorageFull`,
    `SystemCallError`.
    """

    __slots__ = ("_containers", "_images", "_layers", "_mounts", "_overlay",
                 "_patience", "driver", "graph_root", "run_root")  # fmt: skip

    def __init__(
        self,
        graph_root: str,
        run_root: str,
        driver: str = "overlay",
        *,
        lock_timeout: float = LOCK_TIMEOUT_S,
    ) -> None:
        """Makes the directories that are missing, with podman's modes.

        Raises:
            InvalidArgument: a path is not absolute.
            Unsupported: another driver than overlay.
            RuntimeDirError: somebody else could write to one of the directories.
            SystemCallError: one could not be made.
        """
        if driver != "overlay":
            raise Unsupported(
                f"the storage driver {driver} is not supported",
                fault="config",
                remedy="use the overlay driver",
            )
        for path in (graph_root, run_root):
            if not os.path.isabs(path):
                raise InvalidArgument(f"the storage directory {path!r} is not an absolute path")
        self.graph_root = os.path.normpath(graph_root)
        self.run_root = os.path.normpath(run_root)
        self.driver = driver
        self._patience = lock_timeout
        graph, run = f"{self.graph_root}/{driver}", f"{self.run_root}/{driver}"
        self._overlay = Overlay(graph)
        self._layers = Table(f"{graph}-layers", "layers", (f"{graph}-layers", f"{run}-layers"))
        self._images = Table(f"{graph}-images", "images")
        self._containers = Table(
            f"{graph}-containers", "containers", (f"{graph}-containers", f"{run}-containers")
        )
        self._mounts = Table(f"{run}-layers", "mountpoints")
        for root in (self.graph_root, self.run_root):
            rundir.make_dir(root, 0o700)
        for path, mode in (
            (graph, 0o755),
            (f"{graph}/{LINKS}", 0o755),
            (f"{graph}-layers", 0o700),
            (f"{graph}-images", 0o700),
            (f"{graph}-containers", 0o700),
            (f"{run}-layers", 0o700),
            (f"{run}-containers", 0o700),
        ):
            _provide(path, mode)

    def close(self) -> None:
        """Closes the files that it keeps open; a later change opens them anew."""
        for table in (self._layers, self._images, self._containers, self._mounts):
            table.close()

    # --- reading ---------------------------------------------------------------------

    def container(self, container_id: str) -> StorageContainer:
        """The container with this full ID.  Takes no lock.

        Raises:
            NoSuchStorageContainer: there is none.
        """
        with translated(f"cannot read {self._containers.path}"):
            return container_of(self._known(self._containers.find(container_id), container_id))

    def containers(self) -> list[StorageContainer]:
        """All containers, also those of other programs.  Takes no lock."""
        return [container_of(record) for record in _read(self._containers).records.values()]

    def layers(self) -> list[Layer]:
        """All layers, also those of images.  Takes no lock."""
        return [layer_of(record) for record in _read(self._layers).records.values()]

    def container_count(self) -> int:
        return len(_read(self._containers).records)

    def image_count(self) -> int:
        return len(_read(self._images).records)

    def graph_status(self) -> list[tuple[str, str]]:
        """What the driver says of itself: the pairs of `podman info`, in its order."""
        with translated("cannot look at the container store"):
            return overlay_status(self.graph_root, self.run_root)

    def mount_count(self, layer_id: str) -> int:
        """How often the layer is mounted, by mountpoints.json."""
        count = _read(self._mounts).records.get(layer_id, {}).get("count")
        return count if type(count) is int else 0

    def container_dir(self, container_id: str) -> str:
        """Where a container's files are that outlive a boot: the bundle."""
        return f"{self._containers.directory}/{_plain(container_id)}/{_USERDATA}"

    def container_run_dir(self, container_id: str) -> str:
        """Where a container's files are that do not outlive a boot."""
        return f"{self.run_root}/{self.driver}-containers/{_plain(container_id)}/{_USERDATA}"

    def _known(self, record: Members | None, container_id: str) -> Members:
        if record is None:
            raise NoSuchStorageContainer(
                f"{self.graph_root} has no storage container {container_id}",
                container_id=container_id,
            )
        return record

    # --- creation --------------------------------------------------------------------

    def create_container(
        self,
        container_id: str,
        name: str,
        *,
        image_id: str = "",
        image_name: str = "",
        begin: Callable[[], None] = lambda: None,
    ) -> StorageContainer:
        """Makes a container with a new layer, durably, as podman does.

        Without an image the layer is empty and stands on nothing; with one it stands
        on the image's top layer.  Both directories of the container are made, then
        `begin` is called, for what takes its time and may go on meanwhile: where it
        raises, nothing was made.

        Raises:
            InvalidArgument: the ID is not 64 hexadecimal digits, or the name has a
                form that podman refuses.
            DuplicateName, DuplicateID: another storage container has it.
            NoSuchImage: there is no image with the full ID `image_id`.
        """
        _check(container_id, name)
        with (
            translated("cannot create the storage container", container_id),
            self._changing(images=bool(image_id)) as held,
        ):
            reach("storage.create.begin")
            self._refuse_duplicates(held.containers.snapshot, container_id, name)
            parent_id = self._top_layer(held.images.snapshot, image_id) if image_id else ""
            now = time.time_ns()
            layer = {"id": new_id(), "names": [f"{name}-layer"], "created": format_time(now)}
            if parent_id:
                layer["parent"] = parent_id
            record = new_record(container_id, name, str(layer["id"]), image_id, image_name, now)
            self._add(held, record, layer, begin)
        return container_of(record)

    def create_volatile(
        self, container_id: str, name: str, *, begin: Callable[[], None] = lambda: None
    ) -> StorageContainer:
        """Makes a container that need not outlive a boot, for a root file system of its own:
        it has no layer, and its record is in `run_root`, so that it costs no sync.

        podman before 4.4 does not see it.  Otherwise as `create_container`.
        """
        _check(container_id, name)
        hold = self._containers.hold()
        with (
            translated("cannot create the storage container", container_id),
            hold.locked(self._patience),
        ):
            reach("storage.create.begin")
            self._refuse_duplicates(hold.snapshot, container_id, name)
            record = new_record(container_id, name, "", "", "", time.time_ns())
            with self._directories(hold, container_id):
                begin()
                put_in_force((hold, hold.snapshot.put(record, at=_VOLATILE)))
                reach("storage.create.end")
        return container_of(record)

    def restore_volatile(self, container_id: str, name: str) -> None:
        """Puts the record of a volatile container back that is gone after a boot; one that
        is there stays.  Raises as `create_volatile`."""
        hold = self._containers.hold()
        with (
            translated("cannot restore the storage container", container_id),
            hold.locked(self._patience),
        ):
            containers = hold.snapshot
            if container_id not in containers.records:
                self._refuse_name(containers, name)
                record = new_record(container_id, name, "", "", "", time.time_ns())
                put_in_force((hold, containers.put(record, at=_VOLATILE)))

    def _refuse_duplicates(self, containers: Snapshot, container_id: str, name: str) -> None:
        if container_id in containers.records:
            raise DuplicateID(
                f"there is a storage container {container_id}", container_id=container_id
            )
        self._refuse_name(containers, name)

    def _refuse_name(self, containers: Snapshot, name: str) -> None:
        if name in containers.names:
            raise DuplicateName(
                f"the name {name} is in use by the storage container {containers.names[name]}",
                container_id=containers.names[name],
                remedy="remove that container, or take another name",
            )

    def _top_layer(self, images: Snapshot, image_id: str) -> str:
        image = images.records.get(image_id)
        if image is None:
            raise NoSuchImage(f"{self.graph_root} has no image {image_id}")
        return str(image.get("layer") or "")

    def _add(self, held: _Held, record: Members, layer: Members, begin: Callable[[], None]) -> None:
        layers = held.layers.snapshot
        # As in podman a layer's name goes to whoever has it last: the layer of a
        # container that was renamed still has the old one.
        former = [
            without_name(layers.records[key], name)
            for name in layer["names"]
            if (key := layers.names.get(name)) in layers.records
        ]
        with self._directories(held.containers, record["id"]), ExitStack() as undo:
            begin()
            undo.callback(forget, held.layers, layer["id"])
            undo.callback(self._overlay.remove, layer["id"])
            self._overlay.make(layer["id"], layer.get("parent", ""))
            reach("storage.create.layer-made")
            put_in_force(
                (held.containers, held.containers.snapshot.put(record)),
                (held.layers, layers.put(*former, layer)),
            )
            reach("storage.create.end")
            undo.pop_all()

    @contextmanager
    def _directories(self, hold: Hold, container_id: str) -> Iterator[None]:
        """Makes a new container's; where its record does not come about, they go again."""
        with ExitStack() as undo:  # from the last to the first
            undo.callback(forget, hold, container_id)
            for path in (self.container_dir(container_id), self.container_run_dir(container_id)):
                _make_userdata(path)
                undo.callback(_remove_empty, os.path.dirname(path))
                reach("storage.create.directory")
            yield
            undo.pop_all()

    # --- change and removal ------------------------------------------------------------

    def rename_container(
        self, container_id: str, name: str, record: Callable[[], None] = lambda: None
    ) -> None:
        """Gives the container another name.  As in podman its layer keeps its own.

        `record` writes the name down elsewhere.  It is called under the locks, when the
        name is known to be free here and before it is in force: where it raises, nothing
        was changed, and nobody can have taken the old name meanwhile.  What fails after it
        is finished by calling this again.

        Raises:
            NoSuchStorageContainer: there is no such container.
            InvalidArgument: the name has a form that podman refuses.
            DuplicateName: another storage container has it.
            Whatever `record` raises.
        """
        if not valid_name(name):
            raise InvalidArgument(f"{name!r} is not a container's name")
        with (
            translated("cannot rename the storage container", container_id),
            self._changing() as held,
        ):
            containers = held.containers.snapshot
            known = self._known(containers.records.get(container_id), container_id)
            if containers.names.get(name) == container_id:
                record()
                return
            self._refuse_name(containers, name)
            renamed = containers.put({**known, "names": [name]})
            put_in_force((held.containers, renamed), before=record)

    def delete_container(self, container_id: str) -> None:
        """Removes the container, its layer and its directories, durably.

        What a crash or an error interrupted is finished by calling it again.

        Raises:
            NoSuchStorageContainer: there is no such container; it has no directory either.
            LayerMounted: its layer is mounted; nothing was changed.
        """
        if self._delete_volatile(container_id):
            return
        with (
            translated("cannot delete the storage container", container_id),
            self._changing(images=True) as held,
        ):
            containers = held.containers.snapshot
            if container_id not in containers.records:  # the last attempt may have come so far
                self._remove_directories(container_id)
            record = self._known(containers.records.get(container_id), container_id)
            reach("storage.delete.begin")
            layer_id = container_of(record).layer_id
            own_layer = self._is_own_layer(held, layer_id, container_id)
            if own_layer and self._forget_empty(held, layer_id, container_id):
                return
            if own_layer:
                self._remove_layer(held.layers, layer_id)
            self._remove_directories(container_id)
            # One after the other: on a full disk there may be room for one version only.
            if own_layer:
                put_in_force((held.layers, held.layers.snapshot.without([layer_id])))
            put_in_force((held.containers, containers.without([container_id])))
            reach("storage.delete.end")

    def _delete_volatile(self, container_id: str) -> bool:
        """Deletes a container that has no layer; False where this is none."""
        if container_id not in _read(self._containers).texts[_VOLATILE]:
            return False
        hold = self._containers.hold()
        with (
            translated("cannot delete the storage container", container_id),
            hold.locked(self._patience),
        ):
            record = hold.snapshot.records.get(container_id)
            if record is None or container_of(record).layer_id:
                return False
            reach("storage.delete.begin")
            self._remove_directories(container_id)
            put_in_force((hold, hold.snapshot.without([container_id])))
            reach("storage.delete.end")
        return True

    def _forget_empty(self, held: _Held, layer_id: str, container_id: str) -> bool:
        """Deletes a container whose layer has nothing in it, records first: what a crash
        leaves of it is empty directories, which `repair` removes.  False where this cannot
        be done, for want of space or because there is something in the layer.
        """
        if layer_id in self._mounts.read().records:
            return False
        if not self._overlay.release(layer_id):  # the thorough way says what is wrong
            return False
        if not self._overlay.remove_empty_diff(layer_id):
            return False
        reach("storage.delete.emptied")
        versions = (  # a container without a layer is found, a layer without one is not
            (held.layers, held.layers.snapshot.without([layer_id])),
            (held.containers, held.containers.snapshot.without([container_id])),
        )
        try:
            put_in_force(*versions)
            reach("storage.delete.forgotten")
            self._remove_directories(container_id)
            self._clear_layer(layer_id)
        except BaseException as error:
            if layer_id not in held.layers.snapshot.records:  # interrupted: nobody knows of it
                self._remove_directories(container_id)
                self._clear_layer(layer_id)
            elif isinstance(error, OSError) and error.errno in FULL:
                return False
            raise
        reach("storage.delete.end")
        return True

    def _is_own_layer(self, held: _Held, layer_id: str, container_id: str) -> bool:
        """Whether the layer is there, and nobody but this container needs it."""
        if layer_id not in held.layers.snapshot.records:
            return False
        used = sum(hold.snapshot.used[layer_id] for hold in held)
        if used > 1:
            log.warning("the layer %s of %s is kept: it is in use", layer_id, container_id)
        return used == 1

    def _remove_layer(self, hold: Hold, layer_id: str) -> None:
        """All of a layer but its record, which is flagged."""
        if not self._overlay.release(layer_id):
            raise LayerMounted(
                f"the layer {layer_id} is mounted",
                remedy="stop the container and unmount it first",
            )
        layers = hold.snapshot
        if layer_id not in layers.incomplete:
            record = layers.records[layer_id]
            flags = {**(record.get("flags") or {}), "incomplete": True}
            try:
                hold.replace(layers.put({**record, "flags": flags}))
            except OSError as error:
                if error.errno not in FULL:
                    raise
                # What is removed now makes the room that the rest needs.
                log.info("the layer %s is removed without a flag: %s", layer_id, error)
        reach("storage.delete.flagged")
        self._clear_layer(layer_id)

    def _clear_layer(self, layer_id: str) -> None:
        self._forget_mount(layer_id)
        self._overlay.remove(_plain(layer_id))
        reach("storage.delete.layer")
        data = f"{self._layers.directory}/{layer_id}"
        remove_tree(data)
        try:
            os.unlink(f"{data}.tar-split.gz")
        except FileNotFoundError:
            pass

    def _forget_mount(self, layer_id: str) -> None:
        """Drops the count of a layer that was mounted when its machine or its mounter died.

        The lock of mountpoints.json is only ever taken inside that of layers.json.
        """
        if layer_id not in self._mounts.read().records:
            return
        hold = self._mounts.hold()
        with hold.locked(self._patience):
            hold.replace(hold.snapshot.without([layer_id]))

    def _remove_directories(self, container_id: str) -> None:
        for path in (self.container_dir(container_id), self.container_run_dir(container_id)):
            remove_tree(os.path.dirname(path))
            reach("storage.delete.directory")

    # --- what a crash left ---------------------------------------------------------------

    def repair(self) -> None:
        """Removes what crashes left and nobody can need.

        That is: layers flagged incomplete, which podman removes as well when it opens
        the store to write; layers on the disk without a record and without a file in
        them; links that lead nowhere; the empty directories of containers without a
        record; files that never came into force.  The rest of `unowned()` is left to
        its reader's judgement.
        """
        with translated("cannot repair the container store"), self._changing(images=True) as held:
            for found in self._unowned(held):
                if found.kind in ("layer-link", "temporary"):
                    self._remove(held, found)
                elif found.kind == "layer-directory":
                    self._overlay.remove_if_empty(found.name)
                elif found.kind in ("container-directory", "container-run-directory"):
                    _remove_empty(self._container_place(found))

    def unowned(self) -> Iterator[Unowned]:
        """What nobody owns at the moment of the call, for an audit.

        A layer or a directory that an image is being made of has no owner yet: judge
        by its age.
        """
        with (
            translated("cannot look through the container store"),
            self._changing(images=True, shared=True) as held,
        ):
            return iter(self._unowned(held))

    def discard(self, found: Unowned) -> None:
        """Removes something that `unowned()` told of, if it still has no owner."""
        if found.kind == "container":
            self._discard_container(found.name)
            return
        with translated("cannot remove what nobody owns"), self._changing(images=True) as held:
            now = [(other.kind, other.name) for other in self._unowned(held)]
            if (found.kind, found.name) in now:
                self._remove(held, found)

    def _discard_container(self, container_id: str) -> None:
        record = _read(self._containers).records.get(container_id)
        # A layer that is gone does not come back.
        if record is None or container_of(record).layer_id in _read(self._layers).records:
            return
        try:
            self.delete_container(container_id)
        except NoSuchStorageContainer:  # somebody was faster
            pass

    def _remove(self, held: _Held, found: Unowned) -> None:
        if found.kind == "layer":
            self._remove_layer(held.layers, found.name)
            put_in_force((held.layers, held.layers.snapshot.without([found.name])))
        elif found.kind == "layer-directory":
            self._overlay.remove(found.name)
        elif found.kind == "layer-link":
            self._overlay.remove_link(found.name)
        elif found.kind == "temporary":
            os.unlink(found.name)
        else:
            remove_tree(self._container_place(found))

    def _container_place(self, found: Unowned) -> str:
        graph = found.kind == "container-directory"
        path = self.container_dir(found.name) if graph else self.container_run_dir(found.name)
        return os.path.dirname(path)

    def _unowned(self, held: _Held) -> list[Unowned]:
        run_containers = f"{self.run_root}/{self.driver}-containers"
        return find_unowned(*held, self._overlay, run_containers)

    # --- one pass ----------------------------------------------------------------------------

    @contextmanager
    def _changing(self, *, images: bool = False, shared: bool = False) -> Iterator[_Held]:
        """Holds the locks in their order; finishes incomplete layers unless `shared`."""
        held = _Held(self._layers.hold(), self._images.hold(), self._containers.hold())
        with ExitStack() as taken:
            for hold, alike in (
                (held.layers, shared),
                (held.images if images else None, True),
                (held.containers, shared),
            ):
                if hold is not None:
                    taken.enter_context(hold.locked(self._patience, alike))
            if not shared and held.layers.snapshot.incomplete:
                self._finish_incomplete(held.layers)
            yield held

    def _finish_incomplete(self, hold: Hold) -> None:
        layers = hold.snapshot
        finished = []
        for layer_id in layers.incomplete:
            try:
                self._clear_layer(layer_id)
                finished.append(layer_id)
            except OSError as error:
                log.warning("the incomplete layer %s cannot be removed: %s", layer_id, error)
        if finished:
            hold.replace(layers.without(finished))


def _read(table: Table) -> Snapshot:
    with translated(f"cannot read {table.path}"):
        return table.read()


def _check(container_id: str, name: str) -> None:
    if not _ID.fullmatch(container_id):
        raise InvalidArgument(f"{container_id!r} is not 64 hexadecimal digits")
    if not valid_name(name):
        raise InvalidArgument(f"{name!r} is not a container's name")


# --- directories -----------------------------------------------------------------------------


def _plain(identifier: str) -> str:
    """The ID, as one component of a path.  Raises `InvalidArgument` where it is none."""
    if not identifier or "/" in identifier or "\0" in identifier or identifier in (".", ".."):
        raise InvalidArgument(f"{identifier!r} is not an ID")
    return identifier


def _provide(path: str, mode: int) -> None:
    """A directory below a root that was looked at; made with `mode` where it is missing."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        rundir.make_dir(path, mode)
        return
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid in (0, os.geteuid())
    if not ours or status.st_mode & 0o022:
        raise RuntimeDirError(
            f"cannot use the directory {path}: somebody else could write to it, or it is none",
            remedy="give it to the user that runs this, and nobody else",
        )


def _make_userdata(path: str) -> None:
    """A container's directory; what a container of this ID left is not taken over."""
    parent = os.path.dirname(path)
    try:
        os.mkdir(parent, 0o700)
    except FileExistsError:
        _remove_empty(parent)
        os.mkdir(parent, 0o700)
    os.mkdir(path, 0o700)


def _remove_empty(place: str) -> None:
    """Removes a container's directory if it holds nothing but its empty `userdata`."""
    for path in (f"{place}/{_USERDATA}", place):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                raise
            log.info("%s is kept: it is not empty", path)
            return
