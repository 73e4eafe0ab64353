# SPDX-License-Identifier: Apache-2.0
"""`libpod run`: a new container, in the foreground or on its own."""

from __future__ import annotations

import argparse
import logging

from libpod import attach, terminal
from libpod.cli import create, foreground
from libpod.cli.flags import Parser, number, open_runtime
from libpod.errors import (
    ContainerRemoved,
    ContainerStopped,
    InvalidArgument,
    LibpodError,
    NoSuchContainer,
)
from libpod.life import LIVE
from libpod.names import new_id
from libpod.runtime import Runtime

log = logging.getLogger("libpod.cli")


def parser(verb: str, about: str) -> Parser:
    parser = create.parser(verb, about)
    group = parser.add_argument_group("How it is run")
    parser.switch(group, "-d", "--detach", help="print its ID and leave it to itself")
    foreground.add_detach_keys(group)
    parser.switch(group, "--sig-proxy", default=True, help="pass signals on (default true)")
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=number,
        help=f"kill it after this time; the exit code is {foreground.TIMED_OUT} then",
    )
    return parser


def execute(args: argparse.Namespace) -> int:
    request = create.Request.of(args)
    keys = attach.parse_detach_keys(args.detach_keys)
    if args.detach:
        if args.timeout:
            raise InvalidArgument("--timeout needs the foreground: it ends with this command")
        return _detached(args, request)
    foreground.warn_without_terminal(args.interactive, args.tty)
    try:
        with terminal.Signals() as signals, open_runtime(args) as runtime:
            return _attached(runtime, signals, request, keys, args)
    except terminal.Interrupted as interrupt:
        return 128 + interrupt.number


def _detached(args: argparse.Namespace, request: create.Request) -> int:
    container_id = new_id()
    with open_runtime(args) as runtime:
        try:
            request.make(runtime, container_id).start(detach=True)
        except BaseException:
            if args.rm:
                _finish(runtime, container_id, remove=True, left=False)
            raise
        print(container_id)
    return 0


def _attached(
    runtime: Runtime,
    signals: terminal.Signals,
    request: create.Request,
    keys: bytes,
    args: argparse.Namespace,
) -> int:
    """What was left on purpose goes on; else nothing runs any more, and with --rm nothing
    is left: by the ID, since an interrupt may have lost the object."""
    container_id = new_id()
    left = False
    try:
        container = request.make(runtime, container_id)
        code = foreground.attend(
            container, signals, args, tty=args.tty, detach_keys=keys, timeout=args.timeout
        )
        left = True  # or it has ended
        return code
    except terminal.Interrupted:
        left = not args.sig_proxy
        raise
    finally:
        signals.ignore()
        _finish(runtime, container_id, args.rm, left)


def _finish(runtime: Runtime, container_id: str, remove: bool, left: bool) -> None:
    try:
        container = runtime.get_container(container_id)
        if left and foreground.runs(container):
            return
        if remove:
            container.kill_and_remove()
        elif container.state.status in LIVE:
            container.stop(0)
    except (NoSuchContainer, ContainerRemoved, ContainerStopped):
        return
    except LibpodError as error:
        log.error("cannot end container %s: %s", container_id, error)
