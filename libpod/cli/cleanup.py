# SPDX-License-Identifier: Apache-2.0
"""`libpod container cleanup`: what conmon runs after a container that outlives its
creator.  It opens no runtime, which would look at other containers, too."""

from __future__ import annotations

import argparse

from libpod.cli.flags import Parser, load_base_config, open_runtime, runtime_options
from libpod.errors import InvalidArgument

_NOT_BUILT = frozenset(("--exec", "--rmi"))


def parser(verb: str, about: str) -> Parser:
    parser = Parser(f"libpod {verb}", "[options] CONTAINER [CONTAINER...]", about, _NOT_BUILT)
    group = parser.add_argument_group("Options")
    parser.switch(group, "-a", "--all", help="all containers that have ended")
    parser.switch(group, "-l", "--latest", help="the one that was created last")
    parser.switch(group, "--rm", help="remove it, too")
    return parser


def execute(args: argparse.Namespace) -> int:
    """One that is gone, or was cleaned up, is no error: whoever comes first does it."""
    from libpod.cleanup import cleanup

    if args.args and (args.all or args.latest):
        raise InvalidArgument("no arguments are needed with --all or --latest")
    words = args.args or _chosen(args)
    for word in words:
        cleanup(load_base_config(args), runtime_options(args), word, args.rm)
        print(word)
    return 0


def _chosen(args: argparse.Namespace) -> list[str]:
    from libpod.cli.view import ENDED

    if not (args.all or args.latest):
        raise InvalidArgument("you must provide at least one name or id")
    with open_runtime(args) as runtime:
        if args.latest:
            return [runtime.get_latest_container().id]
        return [c.id for c in runtime.get_all_containers() if c.glance().status in ENDED]
