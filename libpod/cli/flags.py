# SPDX-License-Identifier: Apache-2.0
"""The command line's grammar, which is podman's, over argparse; and the flags that
every command takes.

As in podman, a verb with a container's command has its flags before the first word
that is none, so that the command keeps its own; elsewhere flags stand anywhere.  A
flag's value may begin with a dash; short flags can be joined (`-it`, `-eA=B`); a
switch can be set (`--rm=false`).  argparse reads some of these otherwise, so words
are first brought into the one form that it cannot misread, `--name=value`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from libpod.errors import InvalidArgument, NotBuilt

if TYPE_CHECKING:
    from libpod.runtime import Runtime
    from libpod.settings import RuntimeConfig

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")

GLOBAL_NOT_BUILT = frozenset(
    """
    --storage-driver --storage-opt --events-backend --hooks-dir --transient-store
    --network-cmd-path --network-config-dir --runtime-flag --syslog --volumepath
    """.split()
)
"""Global flags of podman that have no effect in this version."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows a value once, behind all names of its flag, and that of a switch not at all."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(action.option_strings)
        return f"{names} {action.metavar}" if action.nargs is None else names


class Parser(argparse.ArgumentParser):
    """A parser of one command's flags.

    Args:
        command: as it is typed, "libpod run".
        usage: what follows it.
        about: one paragraph for `--help`.
        not_built: flags that are known but not there yet.
        mixed: flags may stand behind words that are none.
    """

    def __init__(
        self,
        command: str,
        usage: str,
        about: str,
        not_built: frozenset[str] = frozenset(),
        *,
        mixed: bool = True,
    ) -> None:
        super().__init__(
            prog=command,
            usage=f"{command} {usage}",
            description=about,
            formatter_class=_Help,
            add_help=False,
            allow_abbrev=False,
        )
        self._not_built = not_built | GLOBAL_NOT_BUILT
        self._mixed = mixed

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The flags of `words`; `args` has what is none.

        Raises `InvalidArgument`, and `NotBuilt` for a flag that is not there yet.
        """
        options: list[str] = []
        args: list[str] = []
        rest = list(words)
        while rest and (self._mixed or _is_flag(rest[0])):
            word = rest.pop(0)
            if word == "--":
                break
            if not _is_flag(word):
                args.append(word)
            elif word[1] == "-":
                options += self._long(word, rest)
            else:
                options += self._short(word, rest)
        return self.parse_args(options, argparse.Namespace(args=args + rest))

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """As argparse does, which in older versions takes a value "--" for the end of the
        flags, though it came as "--name=--"."""
        if arg_strings != ["--"] or action.nargs is not None:
            return super()._get_values(action, arg_strings)
        value = self._get_value(action, "--")
        self._check_value(action, value)
        return value

    def error(self, message: str) -> NoReturn:
        raise self.wrong(message)

    def wrong(self, message: str) -> InvalidArgument:
        """The error to raise for a command line that has no meaning."""
        return InvalidArgument(message, remedy=f"see '{self.prog} --help'")

    def switch(
        self, group: argparse._ArgumentGroup, *names: str, help: str, default: bool | None = False
    ) -> None:
        """Adds a flag that is there or not."""
        group.add_argument(
            *names, nargs="?", const=True, default=default, type=_boolean, help=help, metavar="BOOL"
        )

    def _long(self, word: str, rest: list[str]) -> list[str]:
        name, given, value = word.partition("=")
        action = self._find(name, f"unknown flag: {name}")
        return [self._with_value(action, name, value if given else None, rest)]

    def _short(self, word: str, rest: list[str]) -> list[str]:
        """Short flags in one word; the first that takes a value takes what is left of it."""
        options = []
        letters = word[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            action = self._find(name, f"unknown shorthand flag: {name[1]!r} in {word}")
            value = None
            if letters and (action.nargs is None or letters[0] == "="):
                value, letters = letters.removeprefix("="), ""
            options.append(self._with_value(action, name, value, rest))
        return options

    def _find(self, name: str, unknown: str) -> argparse.Action:
        action = self._option_string_actions.get(name)
        if action is not None:
            return action
        if name in self._not_built:
            raise NotBuilt(f"the flag {name} is not built yet", remedy=f"see '{self.prog} --help'")
        raise self.wrong(unknown + perhaps(name, self._option_string_actions))

    def _with_value(
        self, action: argparse.Action, name: str, value: str | None, rest: list[str]
    ) -> str:
        if value is None and action.nargs is None:
            if not rest:
                raise self.wrong(f"flag needs an argument: {name}")
            value = rest.pop(0)
        option = action.option_strings[-1]
        return option if value is None else f"{option}={value}"


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-"


def perhaps(word: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown word, to be put behind it; or nothing."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (perhaps {near[0]})" if near else ""


def _boolean(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"must be true or false, found {text!r}")


def number(text: str) -> float:
    """A decimal number that is not negative; for argparse's `type`."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a number, found {text!r}")
    return float(text)


def integer(text: str) -> int:
    """An integer; for argparse's `type`."""
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20):
        raise argparse.ArgumentTypeError(f"must be an integer, found {text!r}")
    return int(text)


def not_negative(text: str) -> int:
    """An integer from 0 on; for argparse's `type`."""
    value = integer(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, found {text!r}")
    return value


def not_empty(text: str) -> str:
    """Text that is there; for argparse's `type`."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def separated(texts: Iterable[str]) -> list[str]:
    """The values of a flag that takes several: commas separate them, too."""
    return [part for text in texts for part in text.split(",")]


def named(flag: str, texts: Iterable[str], separator: str) -> Iterator[tuple[str, str]]:
    """(name, value) of each text, which must not repeat a name."""
    seen = set()
    for text in texts:
        name, _, value = text.partition(separator)
        if name in seen:
            raise InvalidArgument(f"{flag}: {name} is given twice")
        seen.add(name)
        yield name, value


def add_global(parser: Parser, *short_help: str) -> None:
    """The flags that stand before or behind the name of any command; `short_help` are
    other names of --help."""
    group = parser.add_argument_group("Global options")
    unset: dict[str, Any] = {"default": argparse.SUPPRESS, "type": not_empty}
    text: dict[str, Any] = {**unset, "metavar": "NAME"}
    path: dict[str, Any] = {**unset, "metavar": "PATH"}
    group.add_argument("--config", **path, help="configuration file to use instead of the host's")
    group.add_argument(
        "--root", **path, help="directory of what stays; containers are in PATH/libpod"
    )
    group.add_argument("--runroot", **path, help="directory of the store's that a reboot clears")
    group.add_argument("--tmpdir", **path, help="directory of what a reboot clears")
    # For the monitors' exit command: wherever the state is, whatever --root says.
    group.add_argument("--static-dir", **{**path, "help": argparse.SUPPRESS})
    group.add_argument("--share", **text, help='"podman": its directories and its containers')
    group.add_argument("--namespace", **text, help="see only what is in it")
    group.add_argument("--runtime", **text, help="OCI runtime, a path or a name such as crun")
    group.add_argument("--conmon", **path, help="container monitor")
    group.add_argument("--cgroup-manager", **text, help='"cgroupfs"; "systemd" is not built yet')
    group.add_argument(
        "--log-level",
        **unset,
        choices=LEVELS,
        metavar="LEVEL",
        help=f"least severity of messages on stderr: {', '.join(LEVELS)} (default warning)",
    )
    group.add_argument(*short_help, "--help", action="help", help="show this and exit")


def runtime_options(args: argparse.Namespace) -> dict[str, Any]:
    """The global flags as options of `Runtime`."""
    options: dict[str, Any] = {}
    if "root" in args or "runroot" in args:
        from libpod.settings import StorageConfig

        options["storage_config"] = StorageConfig(
            graph_root=getattr(args, "root", None), run_root=getattr(args, "runroot", None)
        )
    for flag, option in (
        ("static_dir", "static_dir"),
        ("tmpdir", "tmp_dir"),
        ("share", "share"),
        ("namespace", "namespace"),
        ("runtime", "oci_runtime"),
        ("conmon", "conmon_path"),
        ("cgroup_manager", "cgroup_manager"),
    ):
        if flag in args:
            options[option] = getattr(args, flag)
    return options


def load_base_config(args: argparse.Namespace) -> RuntimeConfig:
    """The host's configuration, or that of --config, without the other flags."""
    from libpod import config as configuration

    return configuration.from_config(args.config) if "config" in args else configuration.load()


def load_config(args: argparse.Namespace) -> RuntimeConfig:
    """The configuration that the global flags ask for."""
    from libpod import config as configuration

    config = load_base_config(args)
    configuration.apply_options(config, runtime_options(args))
    return config


def open_runtime(args: argparse.Namespace) -> Runtime:
    """The runtime that the global flags ask for."""
    from libpod.runtime import Runtime

    options = runtime_options(args)
    if "config" in args:
        return Runtime.from_config(args.config, **options)
    return Runtime(**options)
