# SPDX-License-Identifier: Apache-2.0
"""Modules of the command line that hold several verbs: a table with a row for each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import NamedTuple

from libpod.cli.flags import Parser


class Verb(NamedTuple):
    usage: str
    add_flags: Callable[[Parser, argparse._ArgumentGroup], None]
    execute: Callable[[argparse.Namespace], int]


class Verbs:
    """What `libpod.cli` asks of a verb's module, for all verbs of a table."""

    def __init__(self, rows: Mapping[str, Verb]) -> None:
        self._rows = rows

    def parser(self, verb: str, about: str) -> Parser:
        name = verb.split()[-1]
        row = self._rows[name]
        parser = Parser(f"libpod {verb}", row.usage, about)
        parser.set_defaults(verb=name)
        row.add_flags(parser, parser.add_argument_group("Options"))
        return parser

    def execute(self, args: argparse.Namespace) -> int:
        return self._rows[args.verb].execute(args)
