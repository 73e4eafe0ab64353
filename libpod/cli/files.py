# SPDX-License-Identifier: Apache-2.0
"""The verbs about a container's files: `mount`, `unmount`, `export`."""

from __future__ import annotations

import argparse
import errno
import os

from libpod.cli import FAILED, output, say_error, targets
from libpod.cli.flags import Parser, open_runtime
from libpod.cli.verbs import Verb, Verbs
from libpod.cli.view import View
from libpod.errors import InvalidArgument, LibpodError, SystemCallError

SHORT = 12
STDOUT_FD = 1


# --- mount ------------------------------------------------------------------------


def _mount_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    targets.add_flags(parser, group, every="all containers")
    group.add_argument("--format", metavar="FORMAT", help='"json"')
    parser.switch(group, "--no-trunc", help="whole IDs")


def _mount(args: argparse.Namespace) -> int:
    """Says where the file systems are; without names, of those that are mounted."""
    if args.format not in (None, "json"):
        raise InvalidArgument(f'unknown --format argument: "{args.format}"')
    if not (args.args or args.all or args.latest):
        return _list_mounts(args)
    targets.check(args)
    failures: list[LibpodError] = []
    found = []
    with open_runtime(args) as runtime:
        for target in targets.find(runtime, args):
            try:
                found.append((target.container, target.container.mount()))
            except LibpodError as error:
                failures.append(error)
    if args.format == "json":
        print(_mounts_json([(c.id, c.name, path) for c, path in found]))
    else:
        for _, path in found:
            print(path)
    for failure in failures:
        say_error(failure)
    return FAILED if failures else 0


def _list_mounts(args: argparse.Namespace) -> int:
    rows = []
    with open_runtime(args) as runtime:
        for container in runtime.get_all_containers():
            mounted, path = container.mounted()
            if mounted:
                rows.append((container.id, container.name, path))
    if args.format == "json":
        print(_mounts_json(rows))
    elif rows:
        cut = None if args.no_trunc else SHORT
        print(output.table([(identifier[:cut], path) for identifier, _, path in rows]))
    return 0


def _mounts_json(rows: list[tuple[str, str, str]]) -> str:
    members = [{"id": i, "Names": [name], "mountpoint": path} for i, name, path in rows]
    return output.to_json(members, 1)


# --- unmount ----------------------------------------------------------------------


def _unmount_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    targets.add_flags(parser, group, every="all that are mounted")
    parser.switch(group, "-f", "--force", help="even where it is in use")


def _unmount(args: argparse.Namespace) -> int:
    targets.check(args)
    with open_runtime(args) as runtime:
        chosen = targets.find(runtime, args, _is_mounted)
        return targets.exit_code(targets.apply(chosen, lambda c: c.unmount(args.force)))


def _is_mounted(view: View) -> bool:
    return view.record.state.mounted


# --- export -----------------------------------------------------------------------


def _export_flags(parser: Parser, group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-o", "--output", metavar="FILE", help="where to write it (default: standard output)"
    )


def _export(args: argparse.Namespace) -> int:
    if len(args.args) != 1:
        raise InvalidArgument(f"accepts 1 arg(s), received {len(args.args)}")
    if args.output is None and os.isatty(STDOUT_FD):
        raise InvalidArgument("refusing to export to terminal. Use -o flag or redirect")
    with open_runtime(args) as runtime:
        container = runtime.lookup_container(args.args[0])
        if args.output is not None:
            container.export(args.output)
            return 0
        try:
            with os.fdopen(os.dup(STDOUT_FD), "wb") as stream:
                container.export(stream)
        except SystemCallError as error:
            if error.errno == errno.EPIPE:  # nobody reads it any more
                raise BrokenPipeError(error.errno, error.message) from error
            raise
    return 0


_VERBS = Verbs(
    {
        "export": Verb("[options] CONTAINER", _export_flags, _export),
        "mount": Verb("[options] [CONTAINER...]", _mount_flags, _mount),
        "unmount": Verb("[options] CONTAINER [CONTAINER...]", _unmount_flags, _unmount),
    }
)
parser = _VERBS.parser
execute = _VERBS.execute
