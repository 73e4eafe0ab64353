# SPDX-License-Identifier: Apache-2.0
"""The real podman, with directories of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from libpod.state.bolt import BoltState
from libpod.state.paths import RuntimePaths

CONF = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
lock_type = "file"
"""


class Podman:
    """podman with a root of its own."""

    program: Sequence[str] = ("podman",)

    def __init__(self, directory: Path, conf: str = CONF) -> None:
        self.directory = directory
        self.database = directory / "root/libpod/bolt_state.db"
        (directory / "containers.conf").write_text(conf)
        (directory / "rootfs/bin").mkdir(parents=True)

    def start(self, *words: str) -> subprocess.Popen[str]:
        places = {"root": "root", "runroot": "run", "tmpdir": "tmp", "network-config-dir": "net"}
        options = [f"--{name}={self.directory / place}" for name, place in places.items()]
        return subprocess.Popen(
            [*self.program, *options, *words],
            env={**os.environ, "CONTAINERS_CONF": str(self.directory / "containers.conf")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str, fails: bool = False) -> str:
        with self.start(*words) as process:
            try:
                out, complaint = process.communicate(timeout=60)
            finally:
                process.kill()
        if not fails and process.returncode != 0:
            raise AssertionError(f"podman {' '.join(words)}: {complaint}")
        return out.strip()

    def create(self, name: str, *options: str) -> str:
        rootfs = str(self.directory / "rootfs")
        wanted = ["create", "--name", name, "--network", "none", *options, "--rootfs", rootfs]
        return self(*wanted, "/bin/sh", "-c", "exit 7")

    def ps(self) -> dict[str, dict[str, Any]]:
        """By name."""
        found = json.loads(self("ps", "--all", "--format", "json") or "[]")
        return {row["Names"][0]: row for row in found}

    def paths(self) -> RuntimePaths:
        return RuntimePaths(
            static_dir=str(self.directory / "root/libpod"),
            tmp_dir=str(self.directory / "tmp"),
            run_root=str(self.directory / "run"),
            graph_root=str(self.directory / "root"),
            graph_driver="overlay",
            volume_path=str(self.directory / "root/volumes"),
        )

    def state(self) -> BoltState:
        paths = self.paths()
        return BoltState(str(self.database), paths, RuntimePaths._fields, defaults=paths)
