# SPDX-License-Identifier: Apache-2.0
"""`libpod ps`: which containers there are.

What a line needs is read when it is asked for: the plain table decodes a record's
config and state and looks at nothing of the host for a container that does not run.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from libpod.cli import FAILED, output, say_error
from libpod.cli.flags import Parser, integer, not_negative, open_runtime
from libpod.cli.view import ENDED, Stranger, View
from libpod.errors import ContainerRemoved, InvalidArgument, LibpodError
from libpod.state.records import AUTOREMOVE, ContainerStatus

if TYPE_CHECKING:
    from libpod.runtime import Runtime

SHORT = 12
"""Characters of an ID that people see."""
SHORT_COMMAND = 17
"""Characters of a command, where it is cut."""
NEVER = -62135596800
"""Go's zero time in seconds since the epoch."""

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def parser(verb: str, about: str) -> Parser:
    parser = Parser(f"libpod {verb}", "[options]", about)
    parser.set_defaults(verb=verb)
    group = parser.add_argument_group("Which")
    parser.switch(group, "-a", "--all", help="all containers, not only those that run")
    parser.switch(group, "-l", "--latest", help="the one that was created last")
    group.add_argument(
        *("-n", "--last"),
        type=integer,
        default=-1,
        metavar="NUMBER",
        help="those that were created last",
    )
    group.add_argument(
        *("-f", "--filter"),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="those for which it holds; values of one key are alternatives",
    )
    parser.switch(group, "--external", help="with --all, the store's containers of others, too")
    _add_form_flags(parser)
    return parser


def _add_form_flags(parser: Parser) -> None:
    group = parser.add_argument_group("How")
    group.add_argument(
        "--format", metavar="FORMAT", help='"json", or a template such as {{.ID}} {{.Names}}'
    )
    parser.switch(group, "-q", "--quiet", help="IDs only")
    parser.switch(group, "--no-trunc", help="whole IDs and commands")
    parser.switch(group, "--noheading", help="no heads above the columns")
    parser.switch(group, "--ns", help="namespaces")
    parser.switch(group, "-p", "--pod", help="ID and name of the pod")
    parser.switch(group, "-s", "--size", help="bytes of its files, which are counted")
    parser.switch(group, "--sync", help="look again at each; it always does")
    group.add_argument(
        "--sort",
        choices=sorted(_ORDERS),
        default="created",
        metavar="FIELD",
        help=f"{', '.join(sorted(_ORDERS))} (default created)",
    )
    group.add_argument(
        *("-w", "--watch"),
        type=not_negative,
        default=0,
        metavar="SECONDS",
        help="show it again and again",
    )


def execute(args: argparse.Namespace) -> int:
    _check(args)
    while True:
        with open_runtime(args) as runtime:
            code = _show(runtime, args)
        if not args.watch:
            return code
        time.sleep(args.watch)
        print("\033[2J\033[H", end="")


def _check(args: argparse.Namespace) -> None:
    if args.args:
        raise InvalidArgument(f"`libpod {args.verb}` takes no arguments")
    if args.last >= 0 and args.latest:
        raise InvalidArgument("last and latest are mutually exclusive")
    if args.quiet and (args.size or args.ns):
        raise InvalidArgument("quiet conflicts with size and namespace")
    if args.size and args.ns:
        raise InvalidArgument("size and namespace options conflict")
    if args.watch and args.latest:
        raise InvalidArgument("the watch and latest flags cannot be used together")


def _show(runtime: Runtime, args: argparse.Namespace) -> int:
    wrong: list[LibpodError] = []
    rows = _rows(runtime, args, wrong)
    if output.is_json(args.format):
        text = output.to_json([row.as_json() for row in rows])
    elif args.format is not None:
        text = output.render(args.format, rows, _HEADS, noheading=args.noheading)
    elif args.quiet:
        text = "\n".join(row.id for row in rows)
    else:
        text = _table(rows, args)
    if text or rows:
        print(text)
    for error in wrong:
        say_error(error)
    return FAILED if wrong else 0


# --- which ------------------------------------------------------------------------


def _rows(runtime: Runtime, args: argparse.Namespace, wrong: list[LibpodError]) -> list[Row]:
    """What is shown, sorted; what could not be read is in `wrong`."""
    last = 1 if args.latest else args.last
    context = Context(runtime, args)
    rows = []
    for view in _matching(runtime, args, last > 0, wrong):
        row = Row(view, context)
        try:
            row.prepare()
        except ContainerRemoved:
            continue  # just now
        except LibpodError as error:
            wrong.append(error)
            continue
        rows.append(row)
    if last > 0:
        rows = sorted(rows, key=_ORDERS["created"], reverse=True)[:last]
    if args.all and args.external:
        known = {container.id for container in runtime.get_all_containers()}
        strangers = (c for c in runtime.store.containers() if c.id not in known)
        rows += [Row(Stranger(container), context) for container in strangers]
    return sorted(rows, key=_ORDERS[args.sort])


def _matching(
    runtime: Runtime, args: argparse.Namespace, last: bool, wrong: list[LibpodError]
) -> Iterator[View]:
    holds: list[Callable[[View], bool]] = []
    everything = args.all or last
    if args.filter:
        from libpod.cli.filters import Filters

        filters = Filters(runtime, args.filter)
        everything = everything or "status" in filters.keys
        holds.append(filters)
    for container in runtime.get_all_containers():
        view = View(container)
        try:
            if (everything or _runs(view)) and all(filter_(view) for filter_ in holds):
                yield view
        except ContainerRemoved:
            continue  # just now
        except LibpodError as error:
            wrong.append(error)


def _runs(view: View) -> bool:
    return view.state.status is ContainerStatus.RUNNING


# --- one line ---------------------------------------------------------------------


class Context:
    """What all lines have in common."""

    def __init__(self, runtime: Runtime, args: argparse.Namespace) -> None:
        self.runtime = runtime
        self.now = time.time()
        self.trunc = not args.no_trunc
        self.size = args.size
        self.namespaces = args.ns
        self._pods: dict[str, str] = {}

    def pod_name(self, pod_id: str) -> str:
        if not pod_id:
            return ""
        if pod_id not in self._pods:
            self._pods[pod_id] = self.runtime.state.pod(pod_id).name
        return self._pods[pod_id]

    def cut(self, identifier: str) -> str:
        return identifier[:SHORT] if self.trunc else identifier


class Row(Mapping[str, Any]):
    """A container as templates see it; each field is made when it is asked for."""

    def __init__(self, view: View, context: Context) -> None:
        self.view = view
        self.context = context
        self._sizes: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Reads what may fail.  Raises `LibpodError`."""
        self.view.config  # noqa: B018
        self.view.state  # noqa: B018
        if self.context.size:
            counted = self.view.container.inspect(size=True)
            self._sizes = counted["SizeRootFs"], counted["SizeRw"]

    def __getitem__(self, name: str) -> Any:
        return _FIELDS[name](self)

    def __iter__(self) -> Iterator[str]:
        return iter(_FIELDS)

    def __len__(self) -> int:
        return len(_FIELDS)

    @property
    def id(self) -> str:
        return self.context.cut(self.view.record.id)

    @property
    def names(self) -> str:
        return self.view.record.name

    @property
    def image(self) -> str:
        return self.view.config.rootfs_image_name

    @property
    def words(self) -> list[str]:
        return self.view.config.command

    @property
    def command(self) -> str:
        text = " ".join(self.words)
        if self.context.trunc and len(text) > SHORT_COMMAND:
            return text[:SHORT_COMMAND] + "..."
        return text

    @property
    def created(self) -> int:
        """Nanoseconds since the epoch."""
        return self.view.config.created or 0

    @property
    def created_ago(self) -> str:
        return output.ago(self.context.now - self.created / 1e9)

    @property
    def state(self) -> str:
        return self.view.word

    @property
    def status(self) -> str:
        state = self.view.state
        if state.status is ContainerStatus.RUNNING:
            return f"Up {output.ago(self.context.now - (state.started or 0))}"
        if state.status in ENDED:
            ago = output.ago(self.context.now - (state.finished or 0))
            return f"Exited ({state.exit_code}) {ago}"
        return self.state.title()

    @property
    def ports(self) -> str:
        return ", ".join(map(_port, self.view.config.port_mappings))

    @property
    def size(self) -> str:
        if self._sizes is None:
            return ""
        whole, written = self._sizes
        return f"{output.size(written)} (virtual {output.size(whole)})"

    @property
    def size_for_sort(self) -> int:
        return sum(self._sizes or ())

    @property
    def pod(self) -> str:
        return self.context.cut(self.view.record.pod_id)

    @property
    def pod_name(self) -> str:
        return self.context.pod_name(self.view.record.pod_id)

    @property
    def started(self) -> int:
        return _seconds(self.view.state.started)

    def namespace(self, kind: str) -> str:
        """The number of one of its namespaces; "" where it has no process."""
        pid = self.view.state.pid
        if not pid:
            return ""
        try:
            return os.readlink(f"/proc/{pid}/ns/{kind}").partition("[")[2].rstrip("]")
        except OSError:
            return ""  # it has just ended

    def as_json(self) -> dict[str, Any]:
        """podman's members, in its order."""
        config, state = self.view.config, self.view.state
        shown = _NAMESPACES if self.context.namespaces and state.pid else ()
        return {
            "AutoRemove": _is_removed_at_end(self.view),
            "Command": self.words,
            "CreatedAt": self.created_ago,
            "Exited": state.status in ENDED,
            "ExitedAt": _seconds(state.finished),
            "ExitCode": state.exit_code,
            "Id": self.view.record.id,
            "Image": config.rootfs_image_name,
            "ImageID": config.rootfs_image_id,
            "IsInfra": config.is_infra,
            "Labels": config.labels or None,
            "Mounts": config.user_volumes,
            "Names": [self.names],
            "Namespaces": {_JSON_NAMESPACES[kind]: self.namespace(kind) for kind in shown},
            "Networks": [],
            "Pid": state.pid,
            "Pod": self.view.record.pod_id,
            "PodName": self.pod_name,
            "Ports": config.port_mappings or None,
            "Size": self._sizes and {"rootFsSize": self._sizes[0], "rwSize": self._sizes[1]},
            "StartedAt": self.started,
            "State": self.state,
            "Status": self.status,
            "Created": self.created // 1_000_000_000,
        }


def _seconds(moment: float | None) -> int:
    return NEVER if moment is None else int(moment)


def _port(port: Mapping[str, Any]) -> str:
    host, inside = port.get("host_port", 0), port.get("container_port", 0)
    more = (port.get("range") or 1) - 1
    shown = [f"{first}-{first + more}" if more else str(first) for first in (host, inside)]
    address = port.get("host_ip") or "0.0.0.0"
    return f"{address}:{shown[0]}->{shown[1]}/{port.get('protocol', 'tcp')}"


def _is_removed_at_end(view: View) -> bool:
    raw = view.record.stored.config
    if raw is not None and AUTOREMOVE.encode() not in raw:
        return False  # spares the decoding of the spec
    return view.config.remove_at_end


# --- all lines --------------------------------------------------------------------

Column = tuple[str, Callable[[Row], str]]

_PLAIN: tuple[Column, ...] = (
    ("CONTAINER ID", lambda row: row.id),
    ("IMAGE", lambda row: row.image),
    ("COMMAND", lambda row: row.command),
    ("CREATED", lambda row: row.created_ago),
    ("STATUS", lambda row: row.status),
    ("PORTS", lambda row: row.ports),
    ("NAMES", lambda row: row.names),
)
_OF_NAMESPACES: tuple[Column, ...] = (
    ("CONTAINER ID", lambda row: row.id),
    ("NAMES", lambda row: row.names),
    ("PID", lambda row: str(row.view.state.pid)),
    ("CGROUPNS", lambda row: row.namespace("cgroup")),
    ("IPC", lambda row: row.namespace("ipc")),
    ("MNT", lambda row: row.namespace("mnt")),
    ("NET", lambda row: row.namespace("net")),
    ("PIDNS", lambda row: row.namespace("pid")),
    ("USERNS", lambda row: row.namespace("user")),
    ("UTS", lambda row: row.namespace("uts")),
)
_OF_PODS: tuple[Column, ...] = (
    ("POD ID", lambda row: row.pod),
    ("PODNAME", lambda row: row.pod_name),
)
_OF_SIZES: tuple[Column, ...] = (("SIZE", lambda row: row.size),)


def _table(rows: Iterable[Row], args: argparse.Namespace) -> str:
    columns = _OF_NAMESPACES if args.ns else _PLAIN
    if not args.ns:
        columns += (_OF_PODS if args.pod else ()) + (_OF_SIZES if args.size else ())
    makers = [make for _, make in columns]
    lines = [[make(row) for make in makers] for row in rows]
    heads = [] if args.noheading else [[head for head, _ in columns]]
    return output.table([*heads, *lines]) if heads or lines else ""


_JSON_NAMESPACES = {
    "mnt": "Mnt",
    "cgroup": "Cgroup",
    "ipc": "Ipc",
    "net": "Net",
    "pid": "Pidns",
    "uts": "Uts",
    "user": "User",
}

_FIELDS: dict[str, Callable[[Row], Any]] = {
    "ID": lambda row: row.id,
    "Names": lambda row: row.names,
    "Image": lambda row: row.image,
    "ImageID": lambda row: row.context.cut(row.view.config.rootfs_image_id),
    "Command": lambda row: row.command,
    "Created": lambda row: output.go_time(row.created),
    "CreatedAt": lambda row: output.go_time(row.created),
    "CreatedHuman": lambda row: row.created_ago,
    "RunningFor": lambda row: row.created_ago,
    "State": lambda row: row.status,
    "Status": lambda row: row.status,
    "Ports": lambda row: row.ports,
    "Size": lambda row: row.size,
    "Labels": lambda row: row.view.config.labels,
    "Mounts": lambda row: row.view.config.user_volumes,
    "Networks": lambda row: "",
    "Pid": lambda row: row.view.state.pid,
    "Pod": lambda row: row.pod,
    "PodName": lambda row: row.pod_name,
    "AutoRemove": lambda row: _is_removed_at_end(row.view),
    "Exited": lambda row: row.view.state.status in ENDED,
    "ExitedAt": lambda row: _seconds(row.view.state.finished),
    "ExitCode": lambda row: row.view.state.exit_code,
    "IsInfra": lambda row: row.view.config.is_infra,
    "StartedAt": lambda row: row.started,
    "CGROUPNS": lambda row: row.namespace("cgroup"),
    "IPC": lambda row: row.namespace("ipc"),
    "MNT": lambda row: row.namespace("mnt"),
    "NET": lambda row: row.namespace("net"),
    "PIDNS": lambda row: row.namespace("pid"),
    "USERNS": lambda row: row.namespace("user"),
    "UTS": lambda row: row.namespace("uts"),
}
"""podman's names of what a template can ask for."""

_HEADS = {
    "id": "CONTAINER ID",
    "imageid": "IMAGE ID",
    "createdat": "CREATED AT",
    "createdhuman": "CREATED",
    "runningfor": "RUNNING FOR",
    "pod": "POD ID",
    "autoremove": "AUTO REMOVE",
    "exitedat": "EXITED AT",
    "exitcode": "EXIT CODE",
    "isinfra": "IS INFRA",
    "startedat": "STARTED AT",
}

_ORDERS: dict[str, Callable[[Row], Any]] = {
    "command": lambda row: " ".join(row.words),
    "created": lambda row: row.created,
    "id": lambda row: row.view.record.id,
    "image": lambda row: row.image,
    "names": lambda row: row.names,
    "runningfor": lambda row: row.started,
    "size": lambda row: row.size_for_sort,
    "status": lambda row: row.state,
}
