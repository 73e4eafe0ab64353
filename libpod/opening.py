# SPDX-License-Identifier: Apache-2.0
"""From a configuration to open rooms, in the order in which one depends on another.

OCI runtime and conmon; the database, whose recorded directories then hold; only
after that tmpdir, storage and locks; last the refresh after a reboot, before
which nobody may use what is recorded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from libpod import config as configuration
from libpod import locks, refresh, rundir
from libpod.engine import Engine
from libpod.errors import NotBuilt
from libpod.host import Host
from libpod.oci import OCIRuntime, find_binary, find_runtime
from libpod.settings import SYSTEMD, RuntimeConfig
from libpod.state import open_state
from libpod.state.paths import RuntimePaths
from libpod.storage import Store

if TYPE_CHECKING:
    from libpod.locks import LockManager
    from libpod.podman import Sharing

log = logging.getLogger("libpod.opening")

DATABASE = "bolt_state.db"
"""Its name in the static directory."""

DRIVER = "overlay"

_OWN_RUN_DIR = "/run/libpod-core"
_PODMAN_OCI_ROOTS = "/run"
"""Where crun and runc keep what they know when podman calls them: /run/crun, /run/runc."""


class _Programs(NamedTuple):
    oci: str
    conmon: str


def open_engine(config: RuntimeConfig, options: Mapping[str, Any]) -> Engine:
    """Opens what a configuration, with the program's `options` already in it, asks for."""
    _check_built(config, options)
    configuration.export_runtime_dir(os.environ, os.getuid())
    host = Host()
    programs = _Programs(
        find_runtime(host.cgroups, config.runtime_path), find_binary("conmon", config.conmon_path)
    )
    paths, said = _directories(config, options)
    sharing = _check_sharing(config, host, paths) if config.share else None
    with ExitStack() as undo:
        rundir.make_dir(paths.static_dir, 0o755)
        database = f"{paths.static_dir}/{DATABASE}"
        opened = open_state(config.state_type, database, paths, said, paths)
        undo.callback(opened.state.close)
        paths = opened.paths
        opened.state.set_namespace(config.namespace)
        rundir.make_tree(paths.tmp_dir, paths.static_dir)
        store = Store(paths.graph_root, paths.run_root, paths.graph_driver)
        undo.callback(store.close)
        manager = _open_locks(config, paths.tmp_dir, sharing)
        undo.callback(manager.close)
        refresh.refresh_once(paths.tmp_dir, opened.state, store, manager)
        oci = _oci_runtime(config, host, programs, paths)
        undo.pop_all()
    why = None if sharing is None else sharing.why
    return Engine(config, paths, host, oci, opened.state, store, manager, why)


def _check_sharing(config: RuntimeConfig, host: Host, paths: RuntimePaths) -> Sharing:
    """Raises `SharingRefused` where podman does not use the same state."""
    from libpod import podman

    rundir.make_dir(_OWN_RUN_DIR, 0o751)
    return podman.check_sharing(
        paths.static_dir,
        paths.graph_root,
        os.environ,
        os.getuid(),
        host.run_tool,
        run_root=paths.run_root,
        lock_type=config.lock_type,
        cache=f"{_OWN_RUN_DIR}/podman-version",
    )


def _open_locks(config: RuntimeConfig, tmp_dir: str, sharing: Sharing | None) -> LockManager:
    """By what somebody asked for, else by what is used in these directories."""
    if sharing is not None:
        return locks.open_manager(sharing.lock_type, tmp_dir, num_locks=sharing.num_locks)
    kind = config.lock_type or locks.recorded_kind(tmp_dir) or locks.FLOCK
    return locks.open_manager(kind, tmp_dir, num_locks=config.num_locks)


def _directories(
    config: RuntimeConfig, options: Mapping[str, Any]
) -> tuple[RuntimePaths, Collection[str]]:
    """Where things are unless the database knows better, and which of it was said by
    somebody, so that the database must agree."""
    said = {} if config.share else _said(config)
    chosen = configuration.resolve_defaults(config, os.environ, os.getuid(), options)
    paths = RuntimePaths(
        chosen.static_dir,
        chosen.tmp_dir,
        chosen.run_root,
        chosen.graph_root,
        config.storage_config.graph_driver_name or DRIVER,
        f"{chosen.graph_root}/volumes",
    )
    if config.share:  # as in podman: what an option says, but for the tmpdir
        return paths, {name for name in _OPTIONS if _OPTIONS[name](options)}
    return paths, {name for name, value in said.items() if value == getattr(paths, name)}


_OPTIONS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "static_dir": lambda options: options.get("static_dir"),
    "run_root": lambda options: getattr(options.get("storage_config"), "run_root", None),
    "graph_root": lambda options: getattr(options.get("storage_config"), "graph_root", None),
}
"""Which option says where a directory is, shared with podman."""


def _said(config: RuntimeConfig) -> dict[str, str | None]:
    return {
        "static_dir": config.static_dir,
        "tmp_dir": config.tmp_dir,
        "run_root": config.storage_config.run_root,
        "graph_root": config.storage_config.graph_root,
    }


def _oci_runtime(
    config: RuntimeConfig, host: Host, programs: _Programs, paths: RuntimePaths
) -> OCIRuntime:
    return OCIRuntime(
        host,
        path=programs.oci,
        conmon_path=programs.conmon,
        conmon_env=_conmon_env(config),
        tmp_dir=paths.tmp_dir,
        no_pivot_root=config.no_pivot_root,
        roots=_PODMAN_OCI_ROOTS if config.share else None,
    )


def _conmon_env(config: RuntimeConfig) -> list[str]:
    """With what leads an exit command to the same settings of podman's."""
    if not config.share:
        return config.conmon_env_vars
    from libpod import podman

    ours = [f"{key}={os.environ[key]}" for key in podman.VARIABLES if key in os.environ]
    return [*ours, *config.conmon_env_vars]


@cache
def _tell_systemd(level: int) -> None:
    """Once a process: Debian's podman ships a file that says so, and it must not keep us
    from working."""
    log.log(level, "cgroup_manager: systemd is not built yet, cgroups are made by cgroupfs")


def _check_built(config: RuntimeConfig, options: Mapping[str, Any]) -> None:
    """Refuses what is asked for but is not there yet."""
    if config.cgroup_manager == SYSTEMD:
        if "cgroup_manager" in options:
            raise NotBuilt(
                "the systemd cgroup manager is not built yet",
                remedy='use cgroup_manager="cgroupfs"',
            )
        _tell_systemd(logging.INFO if config.of_host else logging.WARNING)
        config.cgroup_manager = "cgroupfs"
