# SPDX-License-Identifier: Apache-2.0
"""`libpod start`: containers that go on by themselves, or one in the foreground."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from libpod.cli import targets
from libpod.cli.flags import Parser, open_runtime
from libpod.cli.view import RUNS
from libpod.errors import InvalidArgument, NotBuilt

if TYPE_CHECKING:
    from libpod.container import Container


def parser(verb: str, about: str) -> Parser:
    from libpod.attach import DEFAULT_DETACH_KEYS

    parser = Parser(f"libpod {verb}", "[options] CONTAINER [CONTAINER...]", about)
    group = parser.add_argument_group("Options")
    targets.add_flags(parser, group, every="all containers", filters=True)
    parser.switch(group, "-a", "--attach", help="show what it writes, and wait for its end")
    parser.switch(group, "-i", "--interactive", help="pass standard input on, with --attach")
    parser.switch(
        group, "--sig-proxy", default=None, help="pass signals on (default true with --attach)"
    )
    group.add_argument(
        "--detach-keys",
        metavar="KEYS",
        default=DEFAULT_DETACH_KEYS,
        help="keys that leave the container running (default %(default)s)",
    )
    return parser


def execute(args: argparse.Namespace) -> int:
    if args.all and args.args:
        raise InvalidArgument(
            "either start all containers or the container(s) provided in the arguments"
        )
    if args.all and args.attach:
        raise InvalidArgument("you cannot start and attach all containers at once")
    targets.check(args, none="start requires at least one argument")
    if args.attach and len(args.args) > 1:
        raise InvalidArgument("you cannot start and attach multiple containers at once")
    if args.sig_proxy and not args.attach:
        raise InvalidArgument("you cannot use sig-proxy without --attach")
    if args.attach:
        return _attached(args)
    with open_runtime(args) as runtime:
        chosen = [
            # As with podman, nothing is said of what runs already.
            target
            for target in targets.find(runtime, args)
            if args.all or target.container.glance().status not in RUNS
        ]
        return targets.exit_code(targets.apply(chosen, _start))


def _start(container: Container) -> None:
    if container.state.status not in RUNS:
        container.start(detach=True)


def _attached(args: argparse.Namespace) -> int:
    """The exit code is the container's."""
    from libpod import attach, terminal
    from libpod.cli import foreground

    keys = attach.parse_detach_keys(args.detach_keys)
    try:
        with terminal.Signals() as signals, open_runtime(args) as runtime:
            for target in targets.find(runtime, args):
                container = target.container
                _check_ready(container)
                tty = bool(container.spec.get("process", {}).get("terminal"))
                foreground.warn_without_terminal(args.interactive, tty)
                code = foreground.attend(container, signals, args, tty=tty, detach_keys=keys)
                if code:
                    return code
    except terminal.Interrupted as interrupt:
        return 128 + interrupt.number
    return 0


def _check_ready(container: Container) -> None:
    if container.state.status in RUNS:
        raise NotBuilt(
            f"container {container.id} runs: attaching to it is not built yet",
            container_id=container.id,
            remedy="start it with --attach when it has ended",
        )
