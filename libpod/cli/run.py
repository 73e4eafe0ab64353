# SPDX-License-Identifier: Apache-2.0
"""`libpod run`: podman's flags, made into a `Spec` and a container in the foreground."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from libpod import attach, terminal
from libpod.cli.flags import Parser, integer, number, open_runtime
from libpod.container import Container, Status
from libpod.errors import InternalError, InvalidArgument, NotBuilt
from libpod.exits import LOST
from libpod.job import Limits, Mount, Spec, parse_size

if TYPE_CHECKING:
    from libpod.runtime import Runtime

log = logging.getLogger("libpod.cli")

TIMED_OUT = 255
"""The exit code of a container that --timeout ended, as podman's."""

READ_ONLY_TMPFS = ("/run", "/tmp", "/var/tmp")
"""What can be written with --read-only, as podman's --read-only-tmpfs has it."""

_NOT_BUILT = frozenset(
    """
    -d --detach -p --publish -P --publish-all -a --attach -c --cpu-shares --add-host --annotation
    --arch --authfile --blkio-weight --cgroup-conf --cgroup-parent --cgroupns --cgroups --chrootdirs
    --cidfile --conmon-pidfile --cpu-period --cpu-quota --cpuset-cpus --cpuset-mems --device
    --device-cgroup-rule --device-read-bps --device-write-bps --disable-content-trust --dns
    --dns-opt --dns-search --env-file --env-host --env-merge --expose --gidmap --group-add
    --health-cmd --health-interval --health-retries --health-start-period --health-timeout
    --hostuser --http-proxy --image-volume --init --init-ctr --init-path --ip --ip6 --ipc
    --label-file --log-driver --log-opt --mac-address --memory-reservation --memory-swappiness
    --mount --network-alias --no-healthcheck --no-hosts --oom-kill-disable --oom-score-adj --os
    --passwd --passwd-entry --personality --pid --pidfile --platform --pod --pod-id-file
    --preserve-fds --pull -q --quiet --read-only-tmpfs --replace --requires --restart --rmi
    --sdnotify --seccomp-policy --secret --security-opt --shm-size --stop-timeout --subgidname
    --subuidname --sysctl --systemd --tls-verify --tz --uidmap --umask --unsetenv --unsetenv-all
    --userns --uts --variant --volumes-from
    """.split()
)
"""podman's other flags."""


def parser(verb: str, about: str) -> Parser:
    parser = Parser(
        f"libpod {verb}", "[options] --rootfs DIRECTORY COMMAND [ARG...]", about, _NOT_BUILT
    )
    _add_process_flags(parser)
    _add_container_flags(parser)
    return parser


def _add_process_flags(parser: Parser) -> None:
    group = parser.add_argument_group("The command")
    several: dict[str, Any] = {"action": "append", "default": []}
    group.add_argument(
        *("-e", "--env"),
        **several,
        metavar="NAME[=VALUE]",
        help="environment; without VALUE the caller's, NAME* is all of its that begin so",
    )
    group.add_argument("-w", "--workdir", metavar="PATH", help="working directory (default /)")
    group.add_argument(
        "-u", "--user", metavar="USER[:GROUP]", help="names or numbers (default root)"
    )
    group.add_argument(
        "--entrypoint", metavar="WORD", help="what COMMAND is given to; a word or a JSON array"
    )
    parser.switch(group, "-i", "--interactive", help="pass standard input on")
    parser.switch(group, "-t", "--tty", help="give the command a terminal")
    group.add_argument(
        "--detach-keys",
        metavar="KEYS",
        default=attach.DEFAULT_DETACH_KEYS,
        help="keys that leave the container running (default %(default)s)",
    )
    parser.switch(group, "--sig-proxy", default=True, help="pass signals on (default true)")
    group.add_argument(
        "--stop-signal", metavar="SIGNAL", help="what asks the command to end (default TERM)"
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=number,
        help=f"kill it after this time; the exit code is {TIMED_OUT} then",
    )


def _add_container_flags(parser: Parser) -> None:
    group = parser.add_argument_group("The container")
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.switch(group, "--rootfs", help="the first argument is its root file system")
    parser.switch(group, "--rm", help="remove it when it has ended")
    group.add_argument("--name", metavar="NAME", help="its name (default: a random one)")
    group.add_argument("-l", "--label", **several, metavar="NAME[=VALUE]", help="a label")
    group.add_argument("-h", "--hostname", metavar="NAME", help="its host name")
    group.add_argument(
        *("--network", "--net"), metavar="NAME", default="none", help="none (default) or host"
    )
    parser.switch(
        group,
        "--read-only",
        help=f"its root file system cannot be written, but for {', '.join(READ_ONLY_TMPFS)}",
    )
    group.add_argument(
        *("-v", "--volume"), **several, metavar="SOURCE:TARGET[:OPTION,...]", help="bind mount"
    )
    group.add_argument(
        "--tmpfs", **several, metavar="TARGET[:OPTION,...]", help="file system in memory"
    )
    group.add_argument("--cap-add", **several, metavar="NAME,...", help="add capabilities")
    group.add_argument("--cap-drop", **several, metavar="NAME,...", help="drop capabilities")
    parser.switch(group, "--privileged", help="all capabilities and devices, no confinement")
    group.add_argument("-m", "--memory", metavar="SIZE", help="limit of memory, 512m")
    group.add_argument(
        "--memory-swap", metavar="SIZE", help="limit of memory and swap (default: no swap)"
    )
    group.add_argument("--cpus", type=number, metavar="NUMBER", help="limit of processors, 1.5")
    group.add_argument(
        "--pids-limit", type=integer, metavar="NUMBER", help="limit of processes; -1 is none"
    )
    group.add_argument(
        "--ulimit", **several, metavar="NAME=SOFT[:HARD],...", help="resource limits"
    )


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
    spec = Spec(
        rootfs=root,
        command=command,
        entrypoint=_entrypoint(args.entrypoint),
        name=args.name,
        env=_environment(args.env),
        workdir=args.workdir,
        user=args.user,
        hostname=args.hostname,
        read_only=args.read_only,
        tmpfs=dict(_named("--tmpfs", args.tmpfs, ":")),
        mounts=[Mount.parse(text) for text in args.volume],
        network=args.network,
        cap_add=_separated(args.cap_add),
        cap_drop=_separated(args.cap_drop),
        privileged=args.privileged,
        limits=_limits(args),
        ulimits=dict(_named("--ulimit", _separated(args.ulimit), "=")),
        labels={name: value for name, _, value in (text.partition("=") for text in args.label)},
        stop_signal=args.stop_signal,
        terminal=args.tty,
        stdin=args.interactive,
    )
    return _with_writable_places(spec) if args.read_only else spec


def _entrypoint(text: str | None) -> list[str] | None:
    if not text:
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return words if isinstance(words, list) else [text]


def _environment(texts: Iterable[str]) -> dict[str, str]:
    environment = {}
    for text in texts:
        name, given, value = text.partition("=")
        if given:
            environment[name] = value
        elif name.endswith("*"):
            environment |= {k: v for k, v in os.environ.items() if k.startswith(name[:-1])}
        elif name in os.environ:
            environment[name] = os.environ[name]
    return environment


def _named(flag: str, texts: Iterable[str], separator: str) -> Iterator[tuple[str, str]]:
    """(name, value) of each text, which must not repeat a name."""
    seen = set()
    for text in texts:
        name, _, value = text.partition(separator)
        if name in seen:
            raise InvalidArgument(f"{flag}: {name} is given twice")
        seen.add(name)
        yield name, value


def _separated(texts: Iterable[str]) -> list[str]:
    """What commas separate, too."""
    return [part for text in texts for part in text.split(",")]


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


# --- from a Spec to an exit code ----------------------------------------------------


def execute(args: argparse.Namespace) -> int:
    job = make_spec(args)
    keys = attach.parse_detach_keys(args.detach_keys)
    if not args.rm:
        log.warning("the container is removed even without --rm: nothing can keep it yet")
    if args.interactive and args.tty and not os.isatty(terminal.STDIN_FD):
        log.warning(
            "The input device is not a TTY. "
            "The --tty and --interactive flags might not work properly"
        )
    with terminal.Signals() as signals:
        try:
            with open_runtime(args) as runtime:
                return _run(runtime, signals, job, keys, args)
        except terminal.Interrupted as interrupt:
            return 128 + interrupt.number


def _run(
    runtime: Runtime,
    signals: terminal.Signals,
    job: Spec,
    detach_keys: bytes,
    args: argparse.Namespace,
) -> int:
    """Whatever is left of the container then is ended and removed with the runtime."""
    container = runtime.create(job)
    try:
        outcome = terminal.run(
            container,
            signals,
            interactive=args.interactive,
            terminal=args.tty,
            detach_keys=detach_keys,
            signal_proxy=args.sig_proxy,
            timeout=args.timeout,
        )
    except terminal.Interrupted:
        # As with podman, whose containers outlive a podman that passes no signals on.
        if not args.sig_proxy:
            _leave(runtime, container, args)
        raise
    finally:
        signals.ignore()
    if outcome.exit_code is None:
        _leave(runtime, container, args)
        return 0
    if outcome.timed_out:
        log.warning("container %s ran for %g s and was killed", container.name, args.timeout)
        return TIMED_OUT
    if outcome.exit_code == LOST:
        raise InternalError(
            f"container {container.name} is lost: its monitor died before it",
            remedy="see who killed conmon: the kernel's log tells if it was for want of memory",
        )
    return outcome.exit_code


def _leave(runtime: Runtime, container: Container, args: argparse.Namespace) -> None:
    """Ends the runtime without its container, where that runs."""
    state = container.state
    if state.status is not Status.RUNNING:
        return
    runtime.shutdown(force=False)
    print(
        f"Container {container.name} ({container.id[:12]}) goes on under conmon as process "
        f"{state.pid}. Nothing can attach to it again or remove it yet.",
        file=sys.stderr,
    )
    if args.timeout:
        log.warning("its --timeout has no effect any more")
