# SPDX-License-Identifier: Apache-2.0
"""`libpod doctor`, `libpod info` and `libpod version`."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from libpod.cli import output
from libpod.cli.flags import Parser, load_config, open_runtime, runtime_options
from libpod.errors import InvalidArgument, LibpodError

if TYPE_CHECKING:
    from libpod.runtime import Runtime

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
        data = report(runtime)
    _show(data, args.format, output.to_yaml)
    return 0


def report(runtime: Runtime) -> dict[str, Any]:
    """What `info` shows: `Runtime.info()` in podman's layout, with what is known of
    podman's other entries."""
    entries = {entry.type: entry.data for entry in runtime.info()}
    data: dict[str, Any] = {"host": _host_view(entries["host"])}
    data["registries"] = _registries_view(entries)
    if "store" in entries:
        data["store"] = _store_view(entries["store"], runtime)
    data["version"] = _version_view()
    return data


def _host_view(host: Mapping[str, Any]) -> dict[str, Any]:
    from libpod import seccomp
    from libpod.cgroup import Cgroups
    from libpod.config import is_rootless
    from libpod.settings import CGROUPFS
    from libpod.spec import DEFAULT_CAPABILITIES

    cgroups = Cgroups().facts()
    programs = {name: dict(sorted(host[name].items())) for name in ("Conmon", "OCIRuntime")}
    profile = seccomp.OVERRIDE_PATH if os.path.exists(seccomp.OVERRIDE_PATH) else None
    return {
        "arch": host["arch"],
        "cgroupControllers": sorted(c for c in cgroups.controllers if "=" not in c),
        "cgroupManager": CGROUPFS,  # also where systemd is configured: it is not built yet
        "cgroupVersion": f"v{cgroups.version}",
        "conmon": programs["Conmon"],
        "cpus": host["cpus"],
        "distribution": _distribution(),
        "hostname": host["hostname"],
        "kernel": host["kernel"],
        "logDriver": "k8s-file",
        "memFree": host["MemFree"],
        "memTotal": host["MemTotal"],
        "ociRuntime": {
            "name": os.path.basename(programs["OCIRuntime"]["path"]),
            **programs["OCIRuntime"],
        },
        "os": host["os"],
        "security": {
            "apparmorEnabled": _first_line("/sys/module/apparmor/parameters/enabled") == "Y",
            "capabilities": ",".join(sorted(DEFAULT_CAPABILITIES)),
            "rootless": is_rootless(),
            "seccompEnabled": os.path.exists("/proc/sys/kernel/seccomp"),
            "seccompProfilePath": profile or seccomp.DEFAULT_PATH,
            "selinuxEnabled": os.path.exists("/sys/fs/selinux/enforce"),
        },
        "swapFree": host["SwapFree"],
        "swapTotal": host["SwapTotal"],
        "uptime": host["uptime"],
    }


def _registries_view(entries: Mapping[str, Any]) -> dict[str, Any]:
    search = entries.get("registries", {}).get("registries", [])
    insecure = entries.get("insecure registries", {}).get("registries", [])
    view = {
        name: {"Prefix": name, "Location": name, "Insecure": True, "Blocked": False}
        for name in insecure
    }
    return {**view, "search": search} if search else view


def _store_view(store: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    counts = {"paused": 0, "running": 0, "stopped": 0}
    for container in runtime.get_containers():
        status = container.state.status.name.lower()
        counts[status if status in counts else "stopped"] += 1
    view = {
        "containerStore": {**store["ContainerStore"], **counts},
        "graphDriverName": store["GraphDriverName"],
        "graphOptions": store["GraphOptions"],
        "graphRoot": store["GraphRoot"],
        "graphStatus": dict(sorted(store["GraphStatus"].items())),
        "imageStore": store["ImageStore"],
        "runRoot": store["RunRoot"],
    }
    if "Sharing" in store:
        view["sharing"] = store["Sharing"]
    return view


def _distribution() -> dict[str, str]:
    """What /etc/os-release calls this system."""
    import platform

    try:
        release = platform.freedesktop_os_release()
    except OSError as error:
        log.debug("the distribution is unknown: %s", error)
        return {"distribution": "unknown", "version": "unknown"}
    view = {"codename": release.get("VERSION_CODENAME", ""), "distribution": release["ID"]}
    view["version"] = release.get("VERSION_ID", "")
    return {key: value for key, value in view.items() if value}


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().rstrip("\n")
    except OSError as error:
        log.debug("%s: %s", path, error)
        return ""


def _version_view() -> dict[str, Any]:
    from libpod.version import get_version

    found = get_version()
    return {
        "Built": found.built,
        "BuiltTime": time.ctime(found.built),
        "GitCommit": found.git_commit,
        "Os": "linux",
        "OsArch": found.os_arch,
        "PythonVersion": found.python_version,
        "Version": found.version,
    }


def _version(args: argparse.Namespace) -> int:
    from libpod import oci
    from libpod.cgroup import Cgroups

    config = load_config(args)
    data: dict[str, Any] = {
        "Client": _version_view(),
        "Conmon": _program(lambda: oci.find_binary("conmon", config.conmon_path)),
        "OCIRuntime": _program(lambda: oci.find_runtime(Cgroups(), config.runtime_path)),
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
        ("Built:", client["BuiltTime"]),
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
