# SPDX-License-Identifier: Apache-2.0
"""The `libpod` command: which verbs there are, and what every one of them has in
common: global flags, messages, exit codes.

A verb's module is imported when the verb is used.  It has `parser(verb, about)`
and `execute(args)`, which returns the exit code.  Exit codes are podman's: 125
for a failure of ours, 126 for a command that cannot be executed, 127 for one that
is not there, 128+n after signal n, else the container's own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import argparse
    import logging

    from libpod.cli.flags import Parser
    from libpod.errors import LibpodError

FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127


class _Verb(NamedTuple):
    module: str
    about: str


_VERBS = {
    "doctor": _Verb("system", "Say what keeps this host from running containers."),
    "info": _Verb("system", "Show what this host is and what runs containers on it."),
    "run": _Verb("run", "Run a command in a new container."),
    "version": _Verb("system", "Show the versions of libpod, conmon and the OCI runtime."),
}

_LATER = frozenset(
    """
    attach build commit container cp create diff events exec export healthcheck history image
    images import init inspect kill load login logout logs mount network pause pod port ps pull push
    rename restart rm rmi save search secret start stats stop system tag top umount unmount unpause
    unshare untag update volume wait
    """.split()
)
"""podman's other verbs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line (None: this process's) and returns its exit code."""
    from libpod.errors import LibpodError

    _open_standard_streams()
    try:
        code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except LibpodError as error:
        return _report(error)
    except BrokenPipeError:
        # Whoever read our standard output has gone; Python must not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as done:  # argparse has shown its help
        return done.code if isinstance(done.code, int) else FAILED
    except Exception as error:
        _say(f"Error: {type(error).__name__}: {error}")
        return FAILED


def _open_standard_streams() -> None:
    """Puts /dev/null where 0, 1 or 2 is closed: else the next file that we open would be
    the container's standard stream."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def _dispatch(words: Sequence[str]) -> int:
    from libpod.cli import flags

    top = _top_parser()
    before = top.parse(words)
    if before.version:
        from libpod import __version__

        print(f"libpod version {__version__}")
        return 0
    if not before.args:
        raise top.wrong("missing command 'libpod COMMAND'")
    name, *rest = before.args
    if name not in _VERBS:
        raise _no_such_verb(name, top)
    from importlib import import_module

    module = import_module(f"libpod.cli.{_VERBS[name].module}")
    parser: Parser = module.parser(name, _VERBS[name].about)
    flags.add_global(parser)
    args = parser.parse(rest)
    for flag, value in vars(before).items():
        if flag not in args:
            setattr(args, flag, value)
    handler = _log_to_stderr(args)
    try:
        code: int = module.execute(args)
        return code
    except Exception:
        _logger().debug("the command failed", exc_info=True)
        raise
    finally:
        _logger().removeHandler(handler)


def _top_parser() -> Parser:
    from libpod.cli import flags

    width = max(map(len, _VERBS))
    verbs = "\n".join(f"  {name:{width}}  {verb.about}" for name, verb in _VERBS.items())
    about = "Run containers through conmon and an OCI runtime, without a daemon."
    top = flags.Parser("libpod", "[options] COMMAND", f"{about}\n\nCommands:\n{verbs}")
    group = top.add_argument_group("Options")
    group.add_argument("-v", "--version", action="store_true", help="show the version and exit")
    flags.add_global(top, "-h")
    return top


def _no_such_verb(name: str, top: Parser) -> LibpodError:
    if name in _LATER:
        from libpod.errors import NotBuilt

        return NotBuilt(f"`libpod {name}` is not built yet", remedy="see 'libpod --help'")
    from libpod.cli.flags import perhaps

    return top.wrong(f"unrecognized command `libpod {name}`{perhaps(name, _VERBS)}")


# --- messages -------------------------------------------------------------------


def _report(error: LibpodError) -> int:
    from libpod.errors import CommandNotExecutable, CommandNotFound

    _say(f"Error: {error}")
    if isinstance(error, CommandNotFound):
        return NOT_FOUND
    return NOT_EXECUTABLE if isinstance(error, CommandNotExecutable) else FAILED


def _say(text: str) -> None:
    """One line on standard error, if that is still there."""
    try:
        print(" ".join(text.split()), file=sys.stderr, flush=True)
    except OSError:
        return


def _logger() -> logging.Logger:
    import logging

    return logging.getLogger("libpod")


def _log_to_stderr(args: argparse.Namespace) -> logging.Handler:
    """Shows the library's messages from --log-level on, as "Warning: ..."."""
    import logging

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{record.levelname.capitalize()}: {super().format(record)}"

    level = getattr(args, "log_level", "warning")
    # logrus has names that Python has not.
    names = {"trace": "debug", "warn": "warning", "fatal": "critical", "panic": "critical"}
    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    if sys.stderr.isatty():
        handler.terminator = "\r\n"  # the terminal may be in raw mode
    _logger().setLevel(names.get(level, level).upper())
    _logger().addHandler(handler)
    return handler
