# SPDX-License-Identifier: Apache-2.0
"""`libpod doctor`, `libpod info` and `libpod version`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from libpod.cli import output
from libpod.cli.flags import Parser, load_config, open_runtime, runtime_options
from libpod.errors import InvalidArgument, LibpodError

log = logging.getLogger("libpod.cli")


def parser(verb: str, about: str) -> Parser:
    parser = Parser(f"libpod {verb}", "[options]", about)
    parser.set_defaults(verb=verb)
    group = parser.add_argument_group("Options")
    group.add_argument(
        "-f", "--format", metavar="FORMAT", help='"json", or a template such as {{.Field}}'
    )
    return parser


def execute(args: argparse.Namespace) -> int:
    if args.args:
        raise InvalidArgument(f"`libpod {args.verb}` takes no arguments")
    return _VERBS[args.verb](args)


def _doctor(args: argparse.Namespace) -> int:
    from libpod import doctor

    problems = doctor.diagnose(runtime_options(args), getattr(args, "config", None))
    rows = [problem._asdict() for problem in problems]
    if args.format == "json":
        print(output.to_json(rows))
    elif args.format is not None:
        text = output.render(args.format, rows)
        print(text, end="\n" if text else "")
    elif rows:
        lines = [(problem.severity, problem.what, problem.remedy) for problem in problems]
        print(output.table([("SEVERITY", "WHAT", "REMEDY"), *lines]))
    else:
        print("Nothing keeps this host from running containers.")
    return int(any(problem.severity == "error" for problem in problems))


def _info(args: argparse.Namespace) -> int:
    with open_runtime(args) as runtime:
        data = {entry.type: entry.data for entry in runtime.info()}
    _show(data, args.format, output.to_yaml)
    return 0


def _version(args: argparse.Namespace) -> int:
    from libpod import __version__, doctor, oci
    from libpod.info import architecture

    config = load_config(args)
    data: dict[str, Any] = {
        "Client": {
            "Version": __version__,
            "PythonVersion": sys.version.split()[0],
            "OsArch": f"linux/{architecture()}",
        },
        "Conmon": _program(lambda: oci.find_binary("conmon", config.conmon_path)),
        "OCIRuntime": _program(lambda: doctor.find_runtime(config.runtime_path)),
    }
    _show(data, args.format, _version_lines)
    return 0


def _program(find: Callable[[], str]) -> dict[str, str | None]:
    """The path and the version of a program, as far as they can be had."""
    from libpod import doctor

    path = version = None
    try:
        path = find()
        version = doctor.ask_version(path).partition("\n")[0]
    except LibpodError as error:
        log.warning("%s", error)
    return {"Path": path, "Version": version}


def _version_lines(data: Mapping[str, Any]) -> str:
    client = data["Client"]
    lines = [
        ("Client:", "libpod"),
        ("Version:", client["Version"]),
        ("Python Version:", client["PythonVersion"]),
        ("OS/Arch:", client["OsArch"]),
    ]
    for name, title in (("Conmon", "Conmon:"), ("OCIRuntime", "OCI Runtime:")):
        program = data[name]
        lines.append((title, f"{program['Version'] or 'unknown'} ({program['Path'] or 'none'})"))
    return output.table(lines)


def _show(
    data: Mapping[str, Any], form: str | None, default: Callable[[Mapping[str, Any]], str]
) -> None:
    if form == "json":
        print(output.to_json(data))
    else:
        print(default(data) if form is None else output.render(form, [data]))


_VERBS = {"doctor": _doctor, "info": _info, "version": _version}
