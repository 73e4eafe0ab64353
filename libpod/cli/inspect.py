# SPDX-License-Identifier: Apache-2.0
"""`libpod inspect`: all that is known of containers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from libpod.cli import FAILED, output, say_error
from libpod.cli.flags import Parser, open_runtime
from libpod.errors import EmptyID, InvalidArgument, LibpodError, NoSuchContainer, NotBuilt

if TYPE_CHECKING:
    from libpod.container import Container
    from libpod.runtime import Runtime

_TYPES = ("all", "container", "image", "network", "pod", "volume")
INDENT = 5
"""Spaces, as podman's inspect has it."""


def parser(verb: str, about: str) -> Parser:
    parser = Parser(f"libpod {verb}", "[options] CONTAINER [CONTAINER...]", about)
    parser.set_defaults(type="container" if verb.startswith("container ") else "all")
    group = parser.add_argument_group("Options")
    group.add_argument(
        "-f", "--format", metavar="FORMAT", help='"json", or a template such as {{.State.Status}}'
    )
    parser.switch(group, "-l", "--latest", help="the container that was created last")
    parser.switch(group, "-s", "--size", help="bytes of its files, which are counted")
    if parser.get_default("type") == "all":
        group.add_argument("-t", "--type", metavar="TYPE", help="container; all (default) is that")
    return parser


def execute(args: argparse.Namespace) -> int:
    _check(args)
    wrong: list[LibpodError] = []
    with open_runtime(args) as runtime:
        found = []
        for word in [None] if args.latest else args.args:
            try:
                found.append(_find(runtime, word, args.type).inspect(size=args.size))
            except EmptyID:
                raise
            except LibpodError as failure:
                wrong.append(failure)
    if args.format is None or output.is_json(args.format):
        print(output.to_json(found, INDENT))
    elif found:
        print(output.render(args.format, found, noheading=True))
    for error in wrong:
        say_error(error)
    return FAILED if wrong else 0


def _check(args: argparse.Namespace) -> None:
    if args.type not in _TYPES:
        raise InvalidArgument(
            f'invalid type "{args.type}": must be "image", "container", "pod", "network", '
            '"volume", or "all"'
        )
    if args.type not in ("all", "container"):
        raise NotBuilt(f"--type={args.type} is not built yet", remedy="there are containers only")
    if args.latest and args.args:
        raise InvalidArgument("--latest and arguments cannot be used together")
    if not (args.latest or args.args):
        raise InvalidArgument("no names or ids specified")


def _find(runtime: Runtime, word: str | None, kind: str) -> Container:
    """The container of that name; None is the latest."""
    if word is None:
        return runtime.get_latest_container()
    try:
        return runtime.lookup_container(word)
    except NoSuchContainer:
        what = f'object: "{word}"' if kind == "all" else f"container {word}"
        raise NoSuchContainer(f"inspecting object: no such {what}") from None
