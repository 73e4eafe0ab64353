# SPDX-License-Identifier: Apache-2.0
"""The verbs that do one thing to containers: `stop`, `kill`, `restart`, `pause`,
`unpause`, `wait`, `rm`, `rename`, `exists`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libpod.cli import FAILED, say_error, targets
from libpod.cli.flags import Parser, integer, open_runtime, separated
from libpod.cli.targets import Failure, Target
from libpod.cli.verbs import Verb, Verbs
from libpod.cli.view import ENDED, View
from libpod.errors import (
    ContainerRemoved,
    ContainerStateInvalid,
    ContainerStopped,
    InvalidArgument,
    LibpodError,
    NoSuchContainer,
    NotBuilt,
)
from libpod.job import parse_signal
from libpod.state.records import ContainerStatus

if TYPE_CHECKING:
    from libpod.container import Container
    from libpod.runtime import Runtime

log = logging.getLogger("libpod.cli")

NOT_THERE = 1
"""Exit code of `exists`, and of `rm` where a container is not there."""
IN_THE_WAY = 2
"""Exit code of `rm` where a container runs or is paused."""

FOR_EVER = 1e9
"""Seconds."""


def _among(*statuses: ContainerStatus) -> Callable[[View], bool]:
    return lambda view: view.state.status in statuses


_running = _among(ContainerStatus.RUNNING)
_paused = _among(ContainerStatus.PAUSED)


def _add_time(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        *("-t", "--time"),
        type=integer,
        metavar="SECONDS",
        help="how long it may take to end before it is killed; -1 is for ever "
        "(default: what it was created with)",
    )


def _grace(args: argparse.Namespace) -> float | None:
    """Seconds before SIGKILL; None is the container's own."""
    if args.time is None:
        return None
    return float(args.time) if args.time >= 0 else FOR_EVER


# --- stop, kill, restart, pause, unpause ------------------------------------------


def _stop_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    targets.add_flags(
        parser, group, every="all containers", cidfile=True, filters=True, ignore=True
    )
    _add_time(group)


def _stop(args: argparse.Namespace) -> int:
    targets.check(args)
    grace = _grace(args)
    with open_runtime(args) as runtime:
        chosen = targets.find(runtime, args)

        def stop(container: Container) -> None:
            try:
                container.stop(grace)
            except (NoSuchContainer, ContainerRemoved):
                if not (args.ignore or args.all):
                    raise
            except ContainerStopped:
                return
            except ContainerStateInvalid:
                # As with podman, what was never started is as good as stopped.
                if container.state.status is not ContainerStatus.CONFIGURED:
                    raise

        return targets.exit_code(targets.apply(chosen, stop, at_once=True))


def _kill_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    targets.add_flags(parser, group, every="all that run", cidfile=True)
    group.add_argument(
        *("-s", "--signal"), metavar="SIGNAL", default="KILL", help="name or number (default KILL)"
    )


def _kill(args: argparse.Namespace) -> int:
    targets.check(args)
    number = parse_signal(args.signal)
    with open_runtime(args) as runtime:
        chosen = targets.find(runtime, args, _running)
        return targets.exit_code(targets.apply(chosen, lambda container: container.kill(number)))


def _restart_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    targets.add_flags(parser, group, every="all containers", cidfile=True, filters=True)
    parser.switch(group, "--running", help="all that run")
    _add_time(group)


def _restart(args: argparse.Namespace) -> int:
    if args.running and not args.args:
        args.all = True
    targets.check(args)
    grace = _grace(args)
    with open_runtime(args) as runtime:
        chosen = targets.find(runtime, args, _running if args.running else None)
        return targets.exit_code(
            targets.apply(chosen, lambda c: c.restart(grace, detach=True), at_once=True)
        )


def _pause_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    what = "all that are paused" if parser.prog.endswith("unpause") else "all that run"
    targets.add_flags(parser, group, every=what, cidfile=True, filters=True)


def _pause(args: argparse.Namespace) -> int:
    targets.check(args)
    with open_runtime(args) as runtime:
        chosen = targets.find(runtime, args, _running)
        return targets.exit_code(targets.apply(chosen, lambda container: container.pause()))


def _unpause(args: argparse.Namespace) -> int:
    targets.check(args)
    with open_runtime(args) as runtime:
        chosen = targets.find(runtime, args, _paused)
        return targets.exit_code(targets.apply(chosen, lambda container: container.unpause()))


# --- wait -------------------------------------------------------------------------


def _wait_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    targets.add_flags(parser, group)
    parser.switch(group, "--ignore", help="one that is not there ended with -1")
    group.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="STATUS",
        help="wait for this status (default: until it has ended)",
    )
    group.add_argument(
        *("-i", "--interval"),
        default="250ms",
        metavar="TIME",
        help="how often to look for --condition (default 250ms)",
    )


def _wait(args: argparse.Namespace) -> int:
    """Prints the exit code of each; -1 where it was waited for something else."""
    targets.check(args, none='"libpod wait" requires a name, id, or the "--latest" flag')
    wanted = _conditions(args.condition)
    interval = _interval(args.interval)
    with open_runtime(args) as runtime:
        for container in _awaited(runtime, args):
            if container is None:
                code = -1
            elif wanted is None:
                code = _end_of(container)
            else:
                code = _wait_for(container, wanted, interval)
            print(code, flush=True)
    return 0


def _awaited(runtime: Runtime, args: argparse.Namespace) -> list[Container | None]:
    """The containers; None for one that is not there, with --ignore."""
    if args.latest:
        return [runtime.get_latest_container()]
    found: list[Container | None] = []
    for word in args.args:
        try:
            found.append(runtime.lookup_container(word))
        except NoSuchContainer:
            if not args.ignore:
                raise
            found.append(None)
    return found


def _end_of(container: Container) -> int:
    """Its exit code; 0 at once, as podman has it, where it was never started."""
    state = container.state
    return state.exit_code if state.status is ContainerStatus.CONFIGURED else container.wait()


def _conditions(words: list[str]) -> frozenset[ContainerStatus] | None:
    """The statuses to wait for; None is the end of the container."""
    known = {str(status): status for status in ContainerStatus}
    wanted = set()
    for word in separated(words):
        if word in ("healthy", "unhealthy"):
            raise NotBuilt(f"--condition {word} is not built yet")
        if word not in known:
            raise InvalidArgument(
                f"unknown container state: {word}", remedy=f"there are {', '.join(known)}"
            )
        wanted.add(known[word])
    return None if wanted <= ENDED else frozenset(wanted)


def _interval(text: str) -> float:
    from libpod.cli.times import parse_duration

    seconds = int(text) / 1000 if text.isascii() and text.isdigit() else parse_duration(text)
    if seconds <= 0:
        raise InvalidArgument(f"--interval: must be more than nothing, found {text!r}")
    return seconds


def _wait_for(container: Container, wanted: frozenset[ContainerStatus], interval: float) -> int:
    import time

    while True:
        state = container.state
        if state.status in wanted or (wanted & ENDED and state.status in ENDED):
            return state.exit_code if state.status in ENDED else -1
        time.sleep(interval)


# --- rm ---------------------------------------------------------------------------


def _rm_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    targets.add_flags(
        parser, group, every="all containers", cidfile=True, filters=True, ignore=True
    )
    parser.switch(group, "-f", "--force", help="stop it first; one that is not there is no error")
    parser.switch(group, "--depend", help="those that depend on it, too")
    parser.switch(group, "-v", "--volumes", help="its anonymous volumes, too")
    _add_time(group)


def _rm(args: argparse.Namespace) -> int:
    targets.check(args)
    if args.time is not None and not args.force:
        raise InvalidArgument("--force option must be specified to use the --time option")
    args.ignore = args.ignore or args.force
    grace = _grace(args)
    try:
        with open_runtime(args) as runtime:
            chosen = _dependents_first(runtime, targets.find(runtime, args), args.depend)

            def remove(container: Container) -> None:
                try:
                    _remove(runtime, container, args, grace)
                except (NoSuchContainer, ContainerRemoved):
                    if not (args.ignore or args.all):
                        raise

            return _rm_code(targets.apply(chosen, remove))
    except NoSuchContainer as error:
        say_error(error)
        return NOT_THERE


def _remove(
    runtime: Runtime, container: Container, args: argparse.Namespace, grace: float | None
) -> None:
    if args.volumes and container.record.config.named_volumes:
        raise NotBuilt(
            f"container {container.id} has volumes, and removing them is not built yet",
            remedy="leave out --volumes",
        )
    if args.force:
        _end(container, grace)
    runtime.remove_container(container, force=args.force)


def _end(container: Container, grace: float | None) -> None:
    """Has it end where it runs or is paused, however that goes: its removal says what is
    in the way."""
    try:
        if container.state.status is ContainerStatus.PAUSED:
            container.unpause()
        if grace is not None and container.state.status is ContainerStatus.RUNNING:
            container.stop(grace)
    except (ContainerStateInvalid, ContainerStopped) as error:
        log.debug("container %s changed meanwhile: %s", container.id, error)


def _dependents_first(runtime: Runtime, chosen: list[Target], more: bool) -> list[Target]:
    """Each behind those of them that depend on it; with `more`, all that do, and each
    named by its ID, as podman has it."""
    if more:
        chosen = [Target(target.container, target.container.id) for target in chosen]
    given = {target.container.id: target for target in chosen}
    ordered: dict[str, Target] = {}

    def visit(target: Target) -> None:
        if target.container.id in ordered:
            return
        for container_id in runtime.state.container_in_use(target.container.record):
            if container_id in given:
                visit(given[container_id])
            elif more:
                visit(Target(runtime.get_container(container_id), container_id))
        ordered[target.container.id] = target

    for target in chosen:
        visit(target)
    return list(ordered.values())


def _rm_code(failures: list[Failure]) -> int:
    """podman's: 1 if any was not there, else 2 if any ran or was paused."""
    causes: dict[type[LibpodError], int] = {
        NoSuchContainer: NOT_THERE,
        ContainerStateInvalid: IN_THE_WAY,
    }
    for cause, code in causes.items():
        if any(isinstance(failure.error, cause) for failure in failures):
            return code
    return FAILED if failures else 0


# --- rename, exists ---------------------------------------------------------------


def _no_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    return


def _exactly(args: argparse.Namespace, count: int) -> list[str]:
    words: list[str] = args.args
    if len(words) != count:
        raise InvalidArgument(f"accepts {count} arg(s), received {len(words)}")
    return words


def _rename(args: argparse.Namespace) -> int:
    word, name = _exactly(args, 2)
    with open_runtime(args) as runtime:
        runtime.lookup_container(word).rename(name)
    return 0


def _exists_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    parser.switch(group, "--external", help="look among the store's containers, too")


def _exists(args: argparse.Namespace) -> int:
    (word,) = _exactly(args, 1)
    with open_runtime(args) as runtime:
        try:
            runtime.lookup_container(word)
        except NoSuchContainer:
            return 0 if args.external and _in_store(runtime, word) else NOT_THERE
    return 0


def _in_store(runtime: Runtime, word: str) -> bool:
    stored: Any = runtime.store.containers()
    return any(word == c.id or word in c.names for c in stored)


_SEVERAL = "[options] CONTAINER [CONTAINER...]"

_VERBS = Verbs(
    {
        "exists": Verb("[options] CONTAINER", _exists_flags, _exists),
        "kill": Verb(_SEVERAL, _kill_flags, _kill),
        "pause": Verb(_SEVERAL, _pause_flags, _pause),
        "rename": Verb("CONTAINER NAME", _no_flags, _rename),
        "restart": Verb(_SEVERAL, _restart_flags, _restart),
        "rm": Verb(_SEVERAL, _rm_flags, _rm),
        "stop": Verb(_SEVERAL, _stop_flags, _stop),
        "unpause": Verb(_SEVERAL, _pause_flags, _unpause),
        "wait": Verb(_SEVERAL, _wait_flags, _wait),
    }
)
parser = _VERBS.parser
execute = _VERBS.execute
