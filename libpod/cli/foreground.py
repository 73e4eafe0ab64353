# SPDX-License-Identifier: Apache-2.0
"""A container in the foreground of a command: what `run` and `start --attach` do with
it, and what becomes of it when that is cut short."""

from __future__ import annotations

import argparse
import logging
import os
from typing import TYPE_CHECKING

from libpod import terminal
from libpod.attach import DEFAULT_DETACH_KEYS
from libpod.cli.view import RUNS
from libpod.errors import InternalError
from libpod.exits import LOST

if TYPE_CHECKING:
    from libpod.container import Container

log = logging.getLogger("libpod.cli")

TIMED_OUT = 255
"""The exit code of a container that --timeout ended, as podman's."""


def add_detach_keys(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--detach-keys",
        metavar="KEYS",
        default=DEFAULT_DETACH_KEYS,
        help="keys that leave the container running (default %(default)s)",
    )


def warn_without_terminal(interactive: bool, tty: bool) -> None:
    if interactive and tty and not os.isatty(terminal.STDIN_FD):
        log.warning(
            "The input device is not a TTY. "
            "The --tty and --interactive flags might not work properly"
        )


def attend(
    container: Container,
    signals: terminal.Signals,
    args: argparse.Namespace,
    *,
    tty: bool,
    detach_keys: bytes,
    timeout: float | None = None,
) -> int:
    """Runs it on our streams until it ends or is detached from: the exit code.

    Raises `terminal.Interrupted`, `InternalError` where it is lost, and what starting
    it raises.
    """
    signal_proxy = args.sig_proxy is not False
    may_be_left = not signal_proxy or bool(detach_keys and args.interactive and tty)
    outcome = terminal.run(
        container,
        signals,
        interactive=args.interactive,
        terminal=tty,
        detach_keys=detach_keys,
        signal_proxy=signal_proxy,
        timeout=timeout,
        detach=may_be_left,
    )
    if outcome.exit_code is None:
        if timeout:
            log.warning("--timeout has no effect on container %s any more", container.name)
        return 0
    if outcome.timed_out:
        log.warning("container %s ran for %g s and was killed", container.name, timeout)
        return TIMED_OUT
    if outcome.exit_code == LOST:
        raise InternalError(
            f"container {container.name} is lost: its monitor died before it",
            remedy="see who killed conmon: the kernel's log tells if it was for want of memory",
        )
    return outcome.exit_code


def runs(container: Container) -> bool:
    return container.state.status in RUNS
