# SPDX-License-Identifier: Apache-2.0
"""From a configuration to open rooms, in the order in which one depends on another.

OCI runtime and conmon; the database, whose recorded directories then hold; only
after that tmpdir, storage and locks; last the refresh after a reboot, before
which nobody may use what is recorded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import cache
from typing import Any, NamedTuple

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

log = logging.getLogger("libpod.opening")

DATABASE = "bolt_state.db"
"""Its name in the static directory."""

DRIVER = "overlay"

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
    with ExitStack() as undo:
        paths, explicit = _directories(config, options)
        rundir.make_dir(paths.static_dir, 0o755)
        opened = open_state(
            config.state_type, f"{paths.static_dir}/{DATABASE}", paths, explicit, paths
        )
        undo.callback(opened.state.close)
        paths = opened.paths
        opened.state.set_namespace(config.namespace)
        rundir.make_tree(paths.tmp_dir, paths.static_dir)
        store = Store(paths.graph_root, paths.run_root, paths.graph_driver)
        manager = locks.open_manager(
            getattr(config, "lock_type", None) or locks.FLOCK, paths.tmp_dir
        )
        undo.callback(manager.close)
        refresh.refresh_once(paths.tmp_dir, opened.state, store, manager)
        oci = _oci_runtime(config, host, programs, paths)
        undo.pop_all()
    return Engine(config, paths, host, oci, opened.state, store, manager)


def _directories(
    config: RuntimeConfig, options: Mapping[str, Any]
) -> tuple[RuntimePaths, Collection[str]]:
    """Where things are unless the database knows better, and which of it was said by
    somebody, so that the database must agree."""
    said = _said(config)
    chosen = configuration.resolve_defaults(config, os.environ, os.getuid(), options)
    paths = RuntimePaths(
        chosen.static_dir,
        chosen.tmp_dir,
        chosen.run_root,
        chosen.graph_root,
        config.storage_config.graph_driver_name or DRIVER,
        f"{chosen.graph_root}/volumes",
    )
    return paths, {name for name, value in said.items() if value == getattr(paths, name)}


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
    name = os.path.basename(programs.oci)
    return OCIRuntime(
        host,
        path=programs.oci,
        conmon_path=programs.conmon,
        conmon_env=config.conmon_env_vars,
        tmp_dir=paths.tmp_dir,
        no_pivot_root=config.no_pivot_root,
        root=f"{_PODMAN_OCI_ROOTS}/{name}" if config.share else None,
    )


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
    if config.share is not None:
        raise NotBuilt("sharing with podman is not built yet", remedy="leave share alone")
