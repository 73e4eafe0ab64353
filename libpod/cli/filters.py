# SPDX-License-Identifier: Apache-2.0
"""podman's filters of containers: `--filter KEY=VALUE`.

Values of one key are alternatives, but labels must all be there; different keys
must all hold.  What a filter looks at is read when it is asked, so one by name
decodes nothing.  The keys are podman 4.3.1's, with `label!` and `command` of later
ones.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from libpod.cli.flags import separated
from libpod.cli.view import ENDED, View
from libpod.errors import InvalidArgument, NoSuchPod, NotBuilt
from libpod.state.records import ContainerStatus

if TYPE_CHECKING:
    from libpod.runtime import Runtime

Predicate = Callable[[View], bool]
Maker = Callable[["Runtime", Sequence[str]], Predicate]


class Filters:
    """What `--filter` asked for.

    `texts` are the flag's values; commas separate more of them.  `keys` says which
    keys there are.  Raises `InvalidArgument`, `NoSuchContainer` (before, since),
    `NotBuilt`.
    """

    def __init__(self, runtime: Runtime, texts: Iterable[str]) -> None:
        values: dict[str, list[str]] = {}
        for text in separated(texts):
            key, given, value = text.partition("=")
            if not given:
                raise InvalidArgument(f"invalid filter {text!r}", remedy="write KEY=VALUE")
            values.setdefault(key, []).append(value)
        for key in values:
            if key not in _MAKERS:
                raise InvalidArgument(
                    f"{key} is an invalid filter", remedy=f"there are {', '.join(_MAKERS)}"
                )
        self.keys = frozenset(values)
        # The cheap ones first: they spare the others' work.
        self._predicates = [make(runtime, values[k]) for k, make in _MAKERS.items() if k in values]

    def __call__(self, view: View) -> bool:
        return all(holds(view) for holds in self._predicates)


def running(view: View) -> bool:
    """What a listing shows that was not asked for more."""
    return view.state.status is ContainerStatus.RUNNING


# --- one maker for each key -------------------------------------------------------


def _patterns(values: Iterable[str]) -> list[re.Pattern[str]]:
    """Regular expressions; one that is none matches nothing, as with podman."""
    found = []
    for value in values:
        try:
            found.append(re.compile(value))
        except re.error:
            continue
    return found


def _id(runtime: Runtime, values: Sequence[str]) -> Predicate:
    patterns = _patterns(values)
    return lambda view: any(pattern.search(view.record.id) for pattern in patterns)


def _name(runtime: Runtime, values: Sequence[str]) -> Predicate:
    patterns = _patterns(values)
    return lambda view: any(pattern.search(view.record.name) for pattern in patterns)


def _pod(runtime: Runtime, values: Sequence[str]) -> Predicate:
    wanted = set()
    for value in values:
        try:
            wanted.add(runtime.state.lookup_pod(value).id)
        except NoSuchPod:
            continue  # nothing is in it
    return lambda view: view.record.pod_id in wanted


def _status(runtime: Runtime, values: Sequence[str]) -> Predicate:
    known = {str(status): status for status in ContainerStatus}
    for value in values:
        if value not in known:
            raise InvalidArgument(
                f"unknown container state: {value}", remedy=f"there are {', '.join(known)}"
            )
    wanted = {known[value] for value in values}
    if wanted & ENDED:
        wanted |= ENDED
    return lambda view: view.state.status in wanted


def _exited(runtime: Runtime, values: Sequence[str]) -> Predicate:
    codes = set()
    for value in values:
        if not re.fullmatch(r"-?\d{1,9}", value, re.ASCII):
            raise InvalidArgument(f"exited: not an exit code: {value!r}")
        codes.add(int(value))
    return lambda view: view.state.status in ENDED and view.state.exit_code in codes


def _label(runtime: Runtime, values: Sequence[str]) -> Predicate:
    return lambda view: all(_has_label(view, value) for value in values)


def _no_label(runtime: Runtime, values: Sequence[str]) -> Predicate:
    return lambda view: not all(_has_label(view, value) for value in values)


def _has_label(view: View, wanted: str) -> bool:
    name, _, value = wanted.partition("=")
    labels = view.config.labels
    if "*" in name:
        return any(
            fnmatch.fnmatchcase(label, f"*{name}*") and value in ("", labels[label])
            for label in labels
        )
    return name in labels and value in ("", labels[name])


def _ancestor(runtime: Runtime, values: Sequence[str]) -> Predicate:
    def holds(view: View) -> bool:
        image = view.config.rootfs_image_name
        names = {view.config.rootfs_image_id, image, image.removesuffix(":latest")} - {""}
        return not names.isdisjoint(values)

    return holds


def _before(runtime: Runtime, values: Sequence[str]) -> Predicate:
    moment = _first_created(runtime, values)
    return lambda view: (view.config.created or 0) < moment


def _since(runtime: Runtime, values: Sequence[str]) -> Predicate:
    moment = _first_created(runtime, values)
    return lambda view: (view.config.created or 0) > moment


def _first_created(runtime: Runtime, values: Sequence[str]) -> int:
    """When the oldest of these containers was created (podman takes it for both filters)."""
    views = (View(runtime.lookup_container(value)) for value in values)
    return min(view.config.created or 0 for view in views)


def _until(runtime: Runtime, values: Sequence[str]) -> Predicate:
    from libpod.cli.times import parse_moment

    if len(values) > 1:
        raise InvalidArgument("specify exactly one timestamp for until")
    moment = parse_moment(values[0])
    return lambda view: (view.config.created or 0) < moment


def _volume(runtime: Runtime, values: Sequence[str]) -> Predicate:
    wanted = [value.partition(":")[::2] for value in values]

    def holds(view: View) -> bool:
        mounts = {(m.get("source"), m.get("destination")) for m in view.config.spec["mounts"]}
        mounts |= {(v.get("volumeName"), v.get("dest")) for v in view.config.named_volumes}
        return any(
            source == s and target in ("", t) for source, target in wanted for s, t in mounts
        )

    return holds


def _restart_policy(runtime: Runtime, values: Sequence[str]) -> Predicate:
    for value in values:
        if value not in ("none", "", "no", "always", "on-failure", "unless-stopped"):
            raise InvalidArgument(f"{value} invalid restart policy")
    wanted = {"" if value == "none" else value for value in values}
    return lambda view: view.config.restart_policy in wanted


def _command(runtime: Runtime, values: Sequence[str]) -> Predicate:
    patterns = _patterns(values)
    return lambda view: any(p.search(word) for word in view.config.command[:1] for p in patterns)


def _network(runtime: Runtime, values: Sequence[str]) -> Predicate:
    wanted = set()
    for value in values:
        kind, _, other = value.partition(":")
        if kind != "container":
            raise NotBuilt(
                f"the filter network={value} is not built yet",
                remedy="what works is network=container:NAME",
            )
        wanted.add(runtime.lookup_container(other).id)
    return lambda view: view.config.net_ns_from in wanted


def _health(runtime: Runtime, values: Sequence[str]) -> Predicate:
    raise NotBuilt("the filter health is not built yet", remedy="nothing runs health checks yet")


_MAKERS: dict[str, Maker] = {
    "id": _id,
    "name": _name,
    "pod": _pod,
    "status": _status,
    "exited": _exited,
    "label": _label,
    "label!": _no_label,
    "ancestor": _ancestor,
    "before": _before,
    "since": _since,
    "until": _until,
    "restart-policy": _restart_policy,
    "command": _command,
    "network": _network,
    "volume": _volume,
    "health": _health,
}
