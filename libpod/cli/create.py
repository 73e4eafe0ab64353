# SPDX-License-Identifier: Apache-2.0
"""`libpod create`; and the flags that it has in common with `run`, made into a `Spec`
and the options of a container."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from libpod.cli import mounts
from libpod.cli.flags import Parser, integer, named, not_negative, number, open_runtime, separated
from libpod.errors import InvalidArgument, NoSuchContainer, NotBuilt
from libpod.job import Limits, Spec, parse_size
from libpod.state.records import ContainerStatus

if TYPE_CHECKING:
    from libpod.container import Container
    from libpod.runtime import Runtime

READ_ONLY_TMPFS = ("/run", "/tmp", "/var/tmp")
"""What can be written with --read-only, as podman's --read-only-tmpfs has it."""

NOT_BUILT = frozenset(
    """
    -p --publish -P --publish-all -a --attach -c --cpu-shares --annotation
    --arch --authfile --blkio-weight --cgroup-conf --cgroupns --cgroups --chrootdirs
    --cpu-period --cpu-quota --cpuset-cpus --cpuset-mems --device
    --device-cgroup-rule --device-read-bps --device-write-bps --disable-content-trust
    --env-host --env-merge --expose --gidmap
    --health-cmd --health-interval --health-retries --health-start-period --health-timeout
    --hostuser --http-proxy --image-volume --init --init-ctr --init-path --ip --ip6
    --log-opt --mac-address --memory-reservation --memory-swappiness
    --network-alias --no-healthcheck --no-hosts --oom-kill-disable --oom-score-adj --os
    --passwd --passwd-entry --personality --platform --pod --pod-id-file
    --preserve-fds -q --quiet --read-only-tmpfs --rmi
    --sdnotify --seccomp-policy --secret --security-opt --subgidname
    --subuidname --sysctl --systemd --tls-verify --tz --uidmap --umask --unsetenv --unsetenv-all
    --userns --variant --volumes-from
    """.split()
)
"""podman's other flags."""

_SEVERAL: dict[str, Any] = {"action": "append", "default": []}


def parser(verb: str, about: str) -> Parser:
    parser = Parser(
        f"libpod {verb}",
        "[options] --rootfs DIRECTORY COMMAND [ARG...]",
        about,
        NOT_BUILT,
        mixed=False,
    )
    add_flags(parser)
    return parser


def execute(args: argparse.Namespace) -> int:
    request = Request.of(args)
    with open_runtime(args) as runtime:
        print(request.make(runtime).id)
    return 0


class Request(NamedTuple):
    """What was asked for, checked as far as that can be done without a runtime."""

    job: Spec
    args: argparse.Namespace

    @classmethod
    def of(cls, args: argparse.Namespace) -> Request:
        """Raises `InvalidArgument`, `NotBuilt`."""
        if args.replace and not args.name:
            raise InvalidArgument("cannot replace container without --name being set")
        if args.cidfile is not None and os.path.lexists(args.cidfile):
            raise _cidfile_exists(args.cidfile)
        for name in _JOINED:
            _check_mode(name, getattr(args, name))
        return cls(make_spec(args), args)

    def make(self, runtime: Runtime, container_id: str | None = None) -> Container:
        """The container, configured; its ID, which is drawn where it is None, is in the
        --cidfile.

        Raises `NoSuchContainer` for one that it is to join or require, `ContainerExists`
        where its name is taken, and what `Runtime.create` raises.
        """
        options = _options(runtime, self.job, self.args)
        cidfile = None if self.args.cidfile is None else _open_cidfile(self.args.cidfile)
        try:
            if self.args.replace:
                _remove_namesake(runtime, self.args.name)
            container = runtime.create(self.job, container_id=container_id, **options)
            if cidfile is not None:
                cidfile.write(container.id)
        except BaseException:
            if cidfile is not None:
                os.unlink(self.args.cidfile)
            raise
        finally:
            if cidfile is not None:
                cidfile.close()
        return container


def _open_cidfile(path: str) -> TextIO:
    try:
        return open(path, "x", encoding="ascii")
    except FileExistsError:
        raise _cidfile_exists(path) from None
    except OSError as error:
        raise InvalidArgument(f"opening cidfile {path}: {error.strerror}") from error


def _cidfile_exists(path: str) -> InvalidArgument:
    return InvalidArgument(
        f"container id file exists. Ensure another container is not using it or delete {path}"
    )


def _remove_namesake(runtime: Runtime, name: str) -> None:
    """As podman does it: the one that is removed is named on standard output."""
    try:
        namesake = runtime.lookup_container(name)
    except NoSuchContainer:
        return
    if namesake.name == name:
        if namesake.state.status is ContainerStatus.PAUSED:
            namesake.unpause()
        runtime.remove_container(namesake, force=True)
        print(name)


_JOINED = {
    "network": ("net_ns_from", ("none", "host")),
    "ipc": ("ipc_ns_from", ("private", "shareable")),
    "pid": ("pid_ns_from", ("private",)),
    "uts": ("uts_ns_from", ("private",)),
}
"""By flag: the option for a container's namespace, and the modes that work beside it."""

_MODES_NOT_BUILT = frozenset(
    ("host", "none", "bridge", "private", "slirp4netns", "pasta", "pod", "ns")
)


def _check_mode(flag: str, mode: str | None) -> None:
    if mode is None or mode in _JOINED[flag][1]:
        return
    kind, _, other = mode.partition(":")
    if kind == "container" and other:
        return
    if flag == "network" or kind in _MODES_NOT_BUILT:
        raise NotBuilt(f"--{flag}={mode} is not built yet", remedy=_works(flag))
    raise InvalidArgument(f"unrecognized namespace mode {mode} passed", remedy=_works(flag))


def _works(flag: str) -> str:
    return f"what works is {', '.join(_JOINED[flag][1])}, container:NAME"


def _options(runtime: Runtime, job: Spec, args: argparse.Namespace) -> dict[str, Any]:
    """Those of the container, beside its job."""
    joined = {}
    for flag, (option, _modes) in _JOINED.items():
        kind, _, other = (getattr(args, flag) or "").partition(":")
        if kind == "container":
            joined[option] = runtime.lookup_container(other)
    return {
        **joined,
        "remove": args.rm,
        "shm_private": None if args.ipc is None else args.ipc == "private",
        "user_volumes": [*(m.target for m in job.mounts), *job.tmpfs] or None,
        "dependencies": [runtime.lookup_container(word) for word in separated(args.requires)],
        "groups": separated(args.group_add) or None,
        "hosts": _hosts(args) or None,
        "dns_servers": separated(args.dns) or None,
        "dns_search": separated(args.dns_search) or None,
        "dns_options": separated(args.dns_option) or None,
        "shm_size": None if args.shm_size is None else parse_size(args.shm_size, "--shm-size"),
        "stop_timeout": args.stop_timeout,
        "conmon_pid_file": args.conmon_pidfile,
        "pid_file": args.pidfile,
        "create_command": sys.argv,
    }


def _hosts(args: argparse.Namespace) -> list[str]:
    texts = separated(args.add_host)
    for text in texts:
        if not re.fullmatch(r"[^:\s]+:[0-9A-Fa-f.:]+|[^:\s]+:host-gateway", text):
            raise InvalidArgument(f'bad format for add-host: "{text}"', remedy="write NAME:IP")
    return texts


# --- the flags --------------------------------------------------------------------


def add_flags(parser: Parser) -> None:
    """What `create` and `run` have in common."""
    _add_process_flags(parser)
    _add_container_flags(parser)
    _add_place_flags(parser)
    _add_file_flags(parser)


def _add_process_flags(parser: Parser) -> None:
    group = parser.add_argument_group("The command")
    group.add_argument(
        *("-e", "--env"),
        **_SEVERAL,
        metavar="NAME[=VALUE]",
        help="environment; without VALUE the caller's, NAME* is all of its that begin so",
    )
    group.add_argument(
        "--env-file", **_SEVERAL, metavar="FILE", help="a file of environment, a line each"
    )
    group.add_argument("-w", "--workdir", metavar="PATH", help="working directory (default /)")
    group.add_argument(
        "-u", "--user", metavar="USER[:GROUP]", help="names or numbers (default root)"
    )
    group.add_argument(
        "--group-add", **_SEVERAL, metavar="GROUP,...", help="further groups of the user"
    )
    group.add_argument(
        "--entrypoint", metavar="WORD", help="what COMMAND is given to; a word or a JSON array"
    )
    parser.switch(group, "-i", "--interactive", help="pass standard input on")
    parser.switch(group, "-t", "--tty", help="give the command a terminal")
    group.add_argument(
        "--stop-signal", metavar="SIGNAL", help="what asks the command to end (default TERM)"
    )
    group.add_argument(
        "--stop-timeout",
        type=not_negative,
        metavar="SECONDS",
        help="how long it may take to end before it is killed (default 10)",
    )
    group.add_argument("--cap-add", **_SEVERAL, metavar="NAME,...", help="add capabilities")
    group.add_argument("--cap-drop", **_SEVERAL, metavar="NAME,...", help="drop capabilities")
    parser.switch(group, "--privileged", help="all capabilities and devices, no confinement")
    group.add_argument(
        "--ulimit", **_SEVERAL, metavar="NAME=SOFT[:HARD],...", help="resource limits"
    )


def _add_container_flags(parser: Parser) -> None:
    group = parser.add_argument_group("The container")
    parser.switch(group, "--rootfs", help="the first argument is its root file system")
    parser.switch(group, "--rm", help="remove it when it has ended")
    group.add_argument("--name", metavar="NAME", help="its name (default: a random one)")
    parser.switch(group, "--replace", help="remove the one that has its name")
    group.add_argument("-l", "--label", **_SEVERAL, metavar="NAME[=VALUE]", help="a label")
    group.add_argument(
        "--label-file", **_SEVERAL, metavar="FILE", help="a file of labels, a line each"
    )
    group.add_argument(
        "--requires", **_SEVERAL, metavar="CONTAINER,...", help="what must run before it"
    )
    group.add_argument(
        "--restart", metavar="POLICY", default="", help='"no"; the others are not built yet'
    )
    group.add_argument(
        "--pull", metavar="POLICY", default="missing", help="missing or never: a directory is here"
    )
    group.add_argument(
        "--log-driver", metavar="NAME", default="k8s-file", help="k8s-file, its log file's form"
    )
    group.add_argument("-m", "--memory", metavar="SIZE", help="limit of memory, 512m")
    group.add_argument(
        "--memory-swap", metavar="SIZE", help="limit of memory and swap (default: no swap)"
    )
    group.add_argument("--cpus", type=number, metavar="NUMBER", help="limit of processors, 1.5")
    group.add_argument(
        "--pids-limit", type=integer, metavar="NUMBER", help="limit of processes; -1 is none"
    )
    group.add_argument("--cgroup-parent", metavar="PATH", help="where its cgroup is made")


def _add_place_flags(parser: Parser) -> None:
    group = parser.add_argument_group("What it sees")
    group.add_argument("-h", "--hostname", metavar="NAME", help="its host name")
    group.add_argument(
        *("--network", "--net"),
        metavar="MODE",
        default="none",
        help="none (default), host, container:NAME",
    )
    for name, more in (("ipc", ", shareable"), ("pid", ""), ("uts", "")):
        group.add_argument(
            f"--{name}",
            metavar="MODE",
            help=f"its {name.upper()} namespace: private, host, container:NAME{more}",
        )
    group.add_argument("--add-host", **_SEVERAL, metavar="NAME:IP", help="a line of /etc/hosts")
    group.add_argument("--dns", **_SEVERAL, metavar="IP", help="name servers in /etc/resolv.conf")
    group.add_argument("--dns-search", **_SEVERAL, metavar="DOMAIN", help="search domains there")
    group.add_argument(
        *("--dns-option", "--dns-opt"), **_SEVERAL, metavar="OPTION", help="options there"
    )
    group.add_argument("--shm-size", metavar="SIZE", help="size of /dev/shm (default 65536k)")
    parser.switch(
        group,
        "--read-only",
        help=f"its root file system cannot be written, but for {', '.join(READ_ONLY_TMPFS)}",
    )
    group.add_argument(
        *("-v", "--volume"), **_SEVERAL, metavar="SOURCE:TARGET[:OPTION,...]", help="bind mount"
    )
    group.add_argument(
        "--mount",
        **_SEVERAL,
        metavar="type=TYPE,...",
        help="type=bind,source=PATH,target=PATH or type=tmpfs,target=PATH",
    )
    group.add_argument(
        "--tmpfs", **_SEVERAL, metavar="TARGET[:OPTION,...]", help="file system in memory"
    )


def _add_file_flags(parser: Parser) -> None:
    group = parser.add_argument_group("What is written for others")
    group.add_argument("--cidfile", metavar="FILE", help="its ID; the file must not be there")
    group.add_argument("--pidfile", metavar="FILE", help="its first process's number")
    group.add_argument("--conmon-pidfile", metavar="FILE", help="its monitor's process number")


# --- from flags to a Spec ---------------------------------------------------------


def make_spec(args: argparse.Namespace) -> Spec:
    """What the flags ask for.  Raises `InvalidArgument`, `NotBuilt`."""
    if not args.args:
        raise InvalidArgument(
            "requires at least 1 arg(s), only received 0", remedy="see 'libpod run --help'"
        )
    root, *command = args.args
    if not args.rootfs:
        raise NotBuilt(
            f"images are not built yet: {root!r}",
            remedy="unpack it into a directory and give that: --rootfs DIRECTORY",
        )
    _check_policies(args)
    bound, tmpfs = mounts.parse(args)
    spec = Spec(
        rootfs=root,
        command=command,
        entrypoint=_entrypoint(args.entrypoint),
        name=args.name,
        env=_environment(args),
        workdir=args.workdir,
        user=args.user,
        hostname=args.hostname,
        read_only=args.read_only,
        tmpfs=tmpfs,
        mounts=bound,
        network="none" if args.network.startswith("container:") else args.network,
        cap_add=separated(args.cap_add),
        cap_drop=separated(args.cap_drop),
        privileged=args.privileged,
        limits=_limits(args),
        ulimits=dict(named("--ulimit", separated(args.ulimit), "=")),
        labels=_labels(args),
        cgroup_parent=args.cgroup_parent,
        stop_signal=args.stop_signal,
        terminal=args.tty,
        stdin=args.interactive,
    )
    return _with_writable_places(spec) if args.read_only else spec


# What podman knows for a flag; True for what works here, too.
_POLICIES = {
    "restart": {"": True, "no": True, "always": False, "on-failure": False,
                "unless-stopped": False},
    "pull": {"missing": True, "never": True, "always": False, "newer": False},
    "log_driver": {"k8s-file": True, "json-file": False, "journald": False, "none": False,
                   "passthrough": False},
}  # fmt: skip


def _check_policies(args: argparse.Namespace) -> None:
    for name, known in _POLICIES.items():
        flag, value = "--" + name.replace("_", "-"), getattr(args, name)
        word = value.partition(":")[0] if name == "restart" else value
        if word not in known:
            raise InvalidArgument(
                f"{flag}: {value!r} is not known",
                remedy=f"there are {', '.join(filter(None, known))}",
            )
        if not known[word]:
            raise NotBuilt(f"{flag}={value} is not built yet", remedy="see 'libpod run --help'")


def _entrypoint(text: str | None) -> list[str] | None:
    if not text:
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return words if isinstance(words, list) else [text]


def _environment(args: argparse.Namespace) -> dict[str, str]:
    """From the files, and over that from the flags."""
    texts = [line for path in args.env_file for line in _lines(path)]
    environment = {}
    for text in (*texts, *args.env):
        name, given, value = text.partition("=")
        if given:
            environment[name] = value
        elif name.endswith("*"):
            environment |= {k: v for k, v in os.environ.items() if k.startswith(name[:-1])}
        elif name in os.environ:
            environment[name] = os.environ[name]
    return environment


def _labels(args: argparse.Namespace) -> dict[str, str]:
    texts = [line for path in args.label_file for line in _lines(path)]
    return {name: value for name, _, value in (t.partition("=") for t in (*texts, *args.label))}


def _lines(path: str) -> Iterator[str]:
    """A file's lines but for empty ones and comments."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise InvalidArgument(f"cannot read {path}: {reason}") from error
    for line in lines:
        text = line.lstrip()
        if text and not text.startswith("#"):
            yield text


def _limits(args: argparse.Namespace) -> Limits:
    return Limits(
        memory=args.memory,
        swap=None if args.memory_swap is None else _swap(args.memory, args.memory_swap),
        cpus=args.cpus or None,
        pids=args.pids_limit,
    )


def _swap(memory: str | None, together: str) -> int:
    """Bytes of swap beyond memory."""
    if memory is None:
        raise InvalidArgument("--memory-swap limits memory and swap together: set --memory, too")
    if together == "-1":
        raise NotBuilt("swap without a limit is not built yet", remedy="give a size")
    swap = parse_size(together, "--memory-swap") - parse_size(memory, "--memory")
    if swap < 0:
        raise InvalidArgument("--memory-swap, memory and swap together, is less than --memory")
    return swap


def _with_writable_places(spec: Spec) -> Spec:
    taken = {*spec.tmpfs, *(mount.target for mount in spec.mounts)}
    added = {path: "" for path in READ_ONLY_TMPFS if path not in taken}
    return spec.but(tmpfs={**spec.tmpfs, **added})
