# SPDX-License-Identifier: Apache-2.0
"""`libpod system audit`, `sweep` and `refresh`: what nobody owns, and clearing it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from libpod.cli import output
from libpod.cli.flags import Parser, open_runtime
from libpod.errors import ContainerStateInvalid, InvalidArgument
from libpod.life import LIVE

if TYPE_CHECKING:
    from libpod.audit import Leak
    from libpod.runtime import Runtime

LEAKS = 1
"""Exit code of an audit that found something."""


def parser(verb: str, about: str) -> Parser:
    parser = Parser(f"libpod {verb}", "[options]", about)
    parser.set_defaults(verb=verb)
    group = parser.add_argument_group("Options")
    if verb != "system refresh":
        group.add_argument(
            "-f", "--format", metavar="FORMAT", help='"json", or a template such as {{.What}}'
        )
    return parser


def execute(args: argparse.Namespace) -> int:
    if args.args:
        raise InvalidArgument(f"`libpod {args.verb}` takes no arguments")
    with open_runtime(args) as runtime:
        if args.verb == "system refresh":
            _refresh(runtime)
            return 0
        if args.verb == "system sweep":
            _show(runtime.sweep(), args.format)
            return 0
        leaks = runtime.audit()
    _show(leaks, args.format)
    return LEAKS if leaks else 0


def _refresh(runtime: Runtime) -> None:
    """As after a reboot, which opening a runtime notices by itself."""
    for container in runtime.get_all_containers():
        if container.glance().status in LIVE:
            raise ContainerStateInvalid(
                f"container {container.id} runs, and a refresh would take it for gone",
                container_id=container.id,
                remedy="stop all containers first: `libpod stop --all`",
            )
    runtime.refresh()


def _show(leaks: Sequence[Leak], form: str | None) -> None:
    """Nothing where there is nothing, but for the empty list in JSON."""
    rows = [leak._asdict() for leak in leaks]
    if output.is_json(form):
        print(output.to_json(rows))
    elif rows and form is not None:
        print(output.render(form, rows))
    elif rows:
        lines = [
            (leak.kind, leak.what, "" if leak.age is None else output.age(leak.age), leak.remedy)
            for leak in leaks
        ]
        print(output.table([("KIND", "WHAT", "AGE", "REMEDY"), *lines]))
