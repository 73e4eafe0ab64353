# SPDX-License-Identifier: Apache-2.0
"""One of many processes that use the same containers at random, for some seconds.

It says what it did, a JSON list for each thing: word, ID, what is true of it.  An error
that no race with the others explains ends it with a traceback.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from libpod import (
    Container,
    ContainerExists,
    ContainerRemoved,
    ContainerStateInvalid,
    ContainerStopped,
    NoSuchContainer,
    Runtime,
    Spec,
    WaitTimeout,
    guard,
)

NAMES = [f"web{number}" for number in range(12)]
COMMANDS = (["sleep", "1000"], ["sleep", "1000"], ["true"], ["sh", "-c", "sleep 0.2; exit 3"])
ENOUGH = 24
"""Containers, after which no more are made."""

STATE = (ContainerRemoved, ContainerStateInvalid, ContainerStopped)
"""What another process may have done to a container meanwhile."""


class Worker:
    def __init__(self, runtime: Runtime, box: Spec, seed: int) -> None:
        self.runtime = runtime
        self.box = box
        self.draw = random.Random(seed)
        self.verbs: list[Callable[[Container], None]] = [
            self.start, self.start, self.stop, self.stop, self.kill, self.pause, self.unpause,
            self.unpause, self.remove, self.remove, self.wait, self.inspect, self.rename,
        ]  # fmt: skip

    def step(self) -> None:
        """Something is done."""
        containers = self.runtime.get_containers()
        if self.draw.random() < 0.25 and len(containers) < ENOUGH:
            self.create()
        elif self.draw.random() < 0.1:
            self.look(containers)
        elif self.draw.random() < 0.1:
            with suppress(NoSuchContainer):
                self.runtime.lookup_container(self.draw.choice(NAMES))
        elif containers:
            self.draw.choice(self.verbs)(self.draw.choice(containers))

    def create(self) -> None:
        remove = self.draw.random() < 0.3
        name = self.draw.choice([None, *NAMES])
        command = self.draw.choice(COMMANDS)
        with suppress(ContainerExists):
            c = self.runtime.create(self.box, command, name=name, remove=remove)
            say("created", c.id, remove)

    def look(self, containers: list[Container]) -> None:
        for container in containers:
            with suppress(ContainerRemoved):
                _ = container.state

    def start(self, c: Container) -> None:
        detach = self.draw.random() < 0.5
        say("started", c.id, detach)  # before, since it may end and go at once
        with suppress(*STATE):
            c.start(detach=detach)

    def stop(self, c: Container) -> None:
        with suppress(*STATE):
            c.stop(self.draw.choice([0, 0.2]))

    def kill(self, c: Container) -> None:
        with suppress(*STATE):
            c.kill()

    def pause(self, c: Container) -> None:
        with suppress(*STATE):
            c.pause()

    def unpause(self, c: Container) -> None:
        with suppress(*STATE):
            c.unpause()

    def remove(self, c: Container) -> None:
        with suppress(ContainerStateInvalid):
            c.remove(force=self.draw.random() < 0.7)
            say("removed", c.id, True)

    def wait(self, c: Container) -> None:
        with suppress(*STATE, WaitTimeout):
            code = c.wait(0.2)
            assert code in (0, 3, 137, 143), code

    def inspect(self, c: Container) -> None:
        with suppress(ContainerRemoved):
            assert c.inspect()["Id"] == c.id

    def rename(self, c: Container) -> None:
        with suppress(ContainerExists, ContainerRemoved):
            c.rename(self.draw.choice(NAMES))


def say(*words: Any) -> None:
    print(json.dumps(words), flush=True)


def main() -> None:
    seed, seconds, options, rootfs = json.loads(sys.argv[1])
    faulthandler.dump_traceback_later(seconds + 90, exit=True)
    guard.LOCK_TIMEOUT = 60.0  # a deadlock is an error
    print(json.dumps(["ready", "", True]), flush=True)
    sys.stdin.readline()
    box = Spec(rootfs=rootfs, stop_signal="KILL")
    done = 0
    with Runtime(**options) as runtime:
        worker = Worker(runtime, box, seed)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            worker.step()
            done += 1
    say("done", "", done)


if __name__ == "__main__":
    main()
