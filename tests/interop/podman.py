# SPDX-License-Identifier: Apache-2.0
"""The real podman, with directories of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from libpod import Runtime, Spec, StorageConfig
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


class SharedPodman(Podman):
    """podman, and a runtime of ours on the same state; the containers have a busybox.

    It needs CONTAINERS_CONF in this process's environment, too.
    """

    def __init__(self, directory: Path, lock_type: str = "file") -> None:
        locks = 'lock_type = "{}"'
        super().__init__(directory, CONF.replace(locks.format("file"), locks.format(lock_type)))
        self.rootfs = str(directory / "rootfs")
        for name in ("dev", "etc", "proc", "sys", "tmp"):
            (directory / "rootfs" / name).mkdir()
        busybox = shutil.copy(shutil.which("busybox") or "busybox", f"{self.rootfs}/bin/busybox")
        subprocess.run([busybox, "--install", f"{self.rootfs}/bin"], check=True)
        self.box = Spec(
            rootfs=self.rootfs,
            stop_signal="KILL",
            ulimits={"nofile": "20000:20000", "nproc": "4096:4096"},
        )

    def runtime(self, **options: Any) -> Runtime:
        return Runtime(
            share="podman",
            storage_config=StorageConfig(
                graph_root=f"{self.directory}/root", run_root=f"{self.directory}/run"
            ),
            tmp_dir=f"{self.directory}/tmp",
            oci_runtime="runc",
            **options,
        )

    def make(
        self,
        verb: str,
        name: str,
        *command: str,
        options: Sequence[str] = (),
        fails: bool = False,
    ) -> str:
        """`podman create` or `podman run -d` of what is like a job of `box`; its ID."""
        wanted = [*verb.split(), "--name", name, "--network=none", "--stop-signal=KILL", *options]
        return self(*wanted, "--rootfs", self.rootfs, *command, fails=fails)

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self("container", "inspect", *names))
        return found
