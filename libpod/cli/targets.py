# SPDX-License-Identifier: Apache-2.0
"""Which containers a command is about, and how it reports what became of each.

As with podman all names are looked up first, and one that is not there ends the
command before it did anything.  Then it is done to each, whatever becomes of the
others; what worked is named on standard output by the word that was typed, or by
its ID where none was, and what failed follows on standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from libpod.cli import FAILED, say_error
from libpod.cli.flags import Parser
from libpod.errors import InvalidArgument, LibpodError, NoSuchContainer

if TYPE_CHECKING:
    from libpod.cli.view import View
    from libpod.container import Container
    from libpod.runtime import Runtime

AT_ONCE = 8
"""How many containers are waited for at the same time."""


class Target(NamedTuple):
    container: Container
    typed: str
    """What names it in the output."""


class Failure(NamedTuple):
    target: Target
    error: LibpodError


def add_flags(
    parser: Parser,
    group: argparse._ArgumentGroup,
    *,
    every: str | None = None,
    cidfile: bool = False,
    filters: bool = False,
    ignore: bool = False,
) -> None:
    """The flags that choose containers; `every` is the help of --all, if there is one."""
    parser.set_defaults(all=False, cidfile=[], filter=[], ignore=False)
    if every is not None:
        # `start -a` is --attach.
        short = [] if parser.prog.endswith(" start") else ["-a"]
        parser.switch(group, *short, "--all", help=every)
    parser.switch(group, "-l", "--latest", help="the one that was created last")
    if cidfile:
        group.add_argument(
            "--cidfile",
            action="append",
            default=[],
            metavar="FILE",
            help="the one whose ID is in this file",
        )
    if filters:
        short = [] if parser.prog.endswith(" rm") else ["-f"]
        group.add_argument(
            *short,
            "--filter",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="those for which it holds, see ps",
        )
    if ignore:
        parser.switch(group, "-i", "--ignore", help="one that is not there is no error")


def check(
    args: argparse.Namespace, *, none: str = "you must provide at least one name or id"
) -> None:
    """Raises `InvalidArgument` for flags and names that contradict each other; `none` is
    said where nothing was chosen."""
    if args.cidfile and (args.all or args.latest):
        raise InvalidArgument("--all, --latest, and --cidfile cannot be used together")
    if args.all and args.latest:
        raise InvalidArgument("--all and --latest cannot be used together")
    if args.args and args.all:
        raise InvalidArgument("no arguments are needed with --all")
    if args.args and args.latest:
        raise InvalidArgument("--latest and containers cannot be used together")
    if args.args and args.filter:
        raise InvalidArgument("--filter takes no arguments")
    if not (args.args or args.all or args.latest or args.cidfile or args.filter):
        raise InvalidArgument(none)


def find(
    runtime: Runtime,
    args: argparse.Namespace,
    among: Callable[[View], bool] | None = None,
) -> list[Target]:
    """What the flags and names choose, each once per name; `among` bounds --all.

    Raises `NoSuchContainer` (without --ignore), `ContainerExists` where a name is
    ambiguous, `InvalidArgument`.
    """
    if args.latest:
        return [_by_id(runtime.get_latest_container())]
    if args.all or args.filter:
        return list(_every(runtime, args, among))
    words = [(_read_cidfile(path), True) for path in args.cidfile]
    words += [(word, False) for word in args.args]
    found = []
    for word, from_file in words:
        try:
            container = runtime.lookup_container(word)
        except NoSuchContainer:
            if args.ignore:
                continue
            raise
        found.append(_by_id(container) if from_file else Target(container, word))
    return found


def _every(
    runtime: Runtime, args: argparse.Namespace, among: Callable[[View], bool] | None
) -> Iterable[Target]:
    from libpod.cli.filters import Filters
    from libpod.cli.view import View

    filters = Filters(runtime, args.filter) if args.filter else None
    for container in runtime.get_all_containers():
        view = View(container)
        try:
            wanted = (among is None or among(view)) and (filters is None or filters(view))
        except NoSuchContainer:
            continue  # removed just now
        if wanted:
            yield _by_id(container)


def _by_id(container: Container) -> Target:
    return Target(container, container.id)


def _read_cidfile(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).split("\n")[0].strip()
    except OSError as error:
        raise InvalidArgument(f"reading CIDFile: {path}: {error.strerror}") from error


def apply(
    targets: Sequence[Target],
    act: Callable[[Container], object],
    *,
    at_once: bool = False,
) -> list[Failure]:
    """Does it to each, a few at a time if `at_once`, names those for which it worked and
    says what kept the others."""
    failures = []
    for target, error in zip(targets, _outcomes(targets, act, at_once), strict=True):
        if error is None:
            print(target.typed)
        else:
            failures.append(Failure(target, error))
    for failure in failures:
        say_error(failure.error)
    return failures


def _outcomes(
    targets: Sequence[Target], act: Callable[[Container], object], at_once: bool
) -> Iterable[LibpodError | None]:
    def attempt(target: Target) -> LibpodError | None:
        try:
            act(target.container)
        except LibpodError as error:
            return error
        return None

    if not at_once or len(targets) < 2:
        return list(map(attempt, targets))
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(AT_ONCE, len(targets))) as workers:
        return list(workers.map(attempt, targets))


def exit_code(failures: Sequence[Failure]) -> int:
    return FAILED if failures else 0
