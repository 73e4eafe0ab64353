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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import logging

    from libpod.cli.flags import Parser
    from libpod.errors import LibpodError

FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127


class _Verb(NamedTuple):
    module: str
    about: str


_CONTAINER_VERBS = {
    "create": _Verb("create", "Create a new container without starting it."),
    "exists": _Verb("containers", "Say by the exit code whether a container is there."),
    "export": _Verb("files", "Write a container's files as a tar archive."),
    "inspect": _Verb("inspect", "Show all that is known of containers."),
    "kill": _Verb("containers", "Send a signal to containers."),
    "mount": _Verb("files", "Show where containers' files are on the host."),
    "pause": _Verb("containers", "Freeze the processes of containers."),
    "ps": _Verb("ps", "List containers."),
    "rename": _Verb("containers", "Give a container another name."),
    "restart": _Verb("containers", "Stop containers and start them again."),
    "rm": _Verb("containers", "Remove containers."),
    "run": _Verb("run", "Run a command in a new container."),
    "start": _Verb("start", "Start containers."),
    "stop": _Verb("containers", "End containers."),
    "unmount": _Verb("files", "Undo what mount did."),
    "unpause": _Verb("containers", "Let the processes of containers go on."),
    "wait": _Verb("containers", "Wait for the end of containers and show their exit codes."),
}

_VERBS = {
    **_CONTAINER_VERBS,
    "doctor": _Verb("system", "Say what keeps this host from running containers."),
    "info": _Verb("system", "Show what this host is and what runs containers on it."),
    "version": _Verb("system", "Show the versions of libpod, conmon and the OCI runtime."),
}

_GROUPS = {
    "container": {
        **_CONTAINER_VERBS,
        "cleanup": _Verb("cleanup", "Give back what ended containers still hold."),
    },
    "system": {
        "audit": _Verb("audit", "Show what nobody owns: processes, mounts, files."),
        "refresh": _Verb("audit", "Bring containers up to date as after a reboot."),
        "sweep": _Verb("audit", "Clear what audit shows."),
    },
}
"""Verbs of two words."""

_ALIASES = {"umount": "unmount", "container umount": "container unmount",
            "container list": "container ps", "container ls": "container ps"}  # fmt: skip

_LATER = frozenset(
    """
    attach build commit cp diff events exec healthcheck history image images import init load login
    logout logs network pod port pull push rmi save search secret stats tag top unshare untag update
    volume
    """.split()
)
"""podman's other verbs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line (None: this process's) and returns its exit code."""
    from libpod.errors import LibpodError

    _open_standard_streams()
    try:
        try:
            code = _dispatch(sys.argv[1:] if argv is None else argv)
        except SystemExit as done:  # argparse has shown its help
            code = done.code if isinstance(done.code, int) else FAILED
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
    except Exception as error:
        _say(f"Error: {type(error).__name__}: {error}")
        return FAILED


def _open_standard_streams() -> None:
    """Puts /dev/null where 0, 1 or 2 is closed: else the next file that we open would be
    the container's standard stream."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            setattr(sys, name, os.fdopen(fd, "w" if fd else "r", closefd=False))


def _dispatch(words: Sequence[str]) -> int:
    from libpod.cli import flags

    top = _parser("libpod", _ABOUT, {**_VERBS, **_ABOUT_GROUPS})
    before = top.parse(words)
    if before.version:
        from libpod import __version__

        print(f"libpod version {__version__}")
        return 0
    found = _find_verb(words, before.args, top)
    from importlib import import_module

    module = import_module(f"libpod.cli.{found.verb.module}")
    parser: Parser = module.parser(found.phrase, found.verb.about)
    flags.add_global(parser)
    args = parser.parse([*found.flags, *found.rest])
    with _messages(getattr(args, "log_level", "warning")) as log:
        try:
            code: int = module.execute(args)
            return code
        except Exception:
            log.debug("the command failed", exc_info=True)
            raise


_ABOUT = "Run containers through conmon and an OCI runtime, without a daemon."
_ABOUT_GROUPS = {
    "container": _Verb("", "Manage containers: the verbs above, and cleanup."),
    "system": _Verb("", "Audit, sweep and refresh what libpod has on this host."),
}


class _Found(NamedTuple):
    phrase: str
    verb: _Verb
    flags: list[str]
    """The global flags before it."""
    rest: list[str]
    """What is behind it."""


def _find_verb(words: Sequence[str], args: Sequence[str], top: Parser) -> _Found:
    """What one or two words name; `args` are `words` without the flags before them."""
    prefix, verbs, parser = "", _VERBS, top
    before = _flags_before(words, args)
    rest = list(args)
    if rest and rest[0] in _GROUPS:
        prefix, *inner = rest
        verbs = _GROUPS[prefix]
        parser = _parser(f"libpod {prefix}", _ABOUT_GROUPS[prefix].about, verbs)
        rest = list(parser.parse(inner).args)
        before += _flags_before(inner, rest)
    if not rest:
        raise parser.wrong(f"missing command '{parser.prog} COMMAND'")
    name = rest.pop(0)
    phrase = f"{prefix} {name}".strip()
    phrase = _ALIASES.get(phrase, phrase)
    verb = verbs.get(phrase.split()[-1])
    if verb is None:
        raise _no_such_verb(name, parser, verbs)
    return _Found(phrase, verb, before, rest)


def _flags_before(words: Sequence[str], args: Sequence[str]) -> list[str]:
    flags = list(words[: len(words) - len(args)])
    return flags[:-1] if flags[-1:] == ["--"] else flags


def _parser(command: str, about: str, verbs: Mapping[str, _Verb]) -> Parser:
    """Of what stands before a verb."""
    from libpod.cli import flags

    width = max(map(len, verbs))
    lines = "\n".join(f"  {name:{width}}  {verbs[name].about}" for name in sorted(verbs))
    parser = flags.Parser(
        command, "[options] COMMAND", f"{about}\n\nCommands:\n{lines}", mixed=False
    )
    group = parser.add_argument_group("Options")
    if command == "libpod":
        group.add_argument("-v", "--version", action="store_true", help="show the version and exit")
    flags.add_global(parser, "-h")
    return parser


def _no_such_verb(name: str, parser: Parser, verbs: Mapping[str, _Verb]) -> LibpodError:
    if name in _LATER:
        from libpod.errors import NotBuilt

        return NotBuilt(f"`{parser.prog} {name}` is not built yet", remedy="see 'libpod --help'")
    from libpod.cli.flags import perhaps

    return parser.wrong(f"unrecognized command `{parser.prog} {name}`{perhaps(name, verbs)}")


# --- messages -------------------------------------------------------------------


def _report(error: LibpodError) -> int:
    from libpod.errors import CommandNotExecutable, CommandNotFound

    say_error(error)
    if isinstance(error, CommandNotFound):
        return NOT_FOUND
    return NOT_EXECUTABLE if isinstance(error, CommandNotExecutable) else FAILED


def say_error(error: LibpodError) -> None:
    """podman's line for a failure."""
    sys.stdout.flush()  # what worked stands before it, where both go to one place
    _say(f"Error: {error}")


def _say(text: str) -> None:
    """One line on standard error, if that is still there."""
    try:
        print(" ".join(text.split()), file=sys.stderr, flush=True)
    except OSError:
        return


@contextmanager
def _messages(level: str) -> Iterator[logging.Logger]:
    """Shows the library's messages from this level on, as "Warning: ..."."""
    import logging

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{record.levelname.capitalize()}: {super().format(record)}"

    handler = logging.StreamHandler()
    handler.setFormatter(Formatter())
    if sys.stderr.isatty():
        handler.terminator = "\r\n"  # the terminal may be in raw mode
    # logrus has names that Python has not.
    names = {"trace": "debug", "warn": "warning", "fatal": "critical", "panic": "critical"}
    logger = logging.getLogger("libpod")
    before = logger.level
    logger.setLevel(names.get(level, level).upper())
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
