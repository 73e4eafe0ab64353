# SPDX-License-Identifier: Apache-2.0
"""Runs a job again and again, each time interrupted at another line of the library.

Usage: interrupts.py PART PARTS BASE ROOTFS [OCI-RUNTIME]

A KeyboardInterrupt is raised where a line is reached for the first time, and
where a function is about to return, which loses what it would have returned.  Only
the functions that take and let go of a lock are left out: an interrupt there may keep it.
Prints the places after which a process, a cgroup or a file of the container was
left, then "N places".  What an interrupt can lose between two instructions of
the interpreter (a descriptor, a zombie) goes with this process and is not told.
"""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any, NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import libpod
from census import Census, record_ids

LIBRARY = os.path.dirname(libpod.__file__)
PURE = frozenset(
    """
    errors.py job.py names.py result.py rootdir.py seccomp.py spec.py users.py state/fields.py
    state/records.py storage/records.py
    """.split()
)
"""Modules that only compute or read: an interrupt there is one of the line that calls them."""
CO_GENERATOR = 0x20
"""Of a code object's flags.  What is raised where a generator yields runs none of its
`finally`; a signal never is."""

LEFT_OUT = frozenset(("held", "locked", "_locked"))
"""Functions that let go of a container's lock."""


class Place(NamedTuple):
    module: str
    line: int
    event: str
    function: str


class Interrupter:
    """A trace function that knows where it was, and raises at one place."""

    def __init__(self, at: Place | None = None) -> None:
        self.at = at
        self.places: dict[Place, None] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        in_scope = name.startswith(LIBRARY) and os.path.relpath(name, LIBRARY) not in PURE
        return self.local if in_scope else None

    def local(self, frame: FrameType, event: str, argument: Any) -> Any:
        yields = event == "return" and frame.f_code.co_flags & CO_GENERATOR
        if event in ("line", "return") and not yields:
            name = os.path.relpath(frame.f_code.co_filename, LIBRARY)
            place = Place(name, frame.f_lineno, event, frame.f_code.co_name)
            if place not in self.places and place.function not in LEFT_OUT:
                self.places[place] = None
                if place == self.at:
                    raise KeyboardInterrupt
        return self.local


def run(box: libpod.Spec, options: dict[str, str], at: Place | None = None) -> list[Place]:
    interrupter = Interrupter(at)
    with libpod.Runtime(**options) as runtime:
        sys.settrace(interrupter)
        try:
            runtime.run(box, ["echo", "x"], input=b"y", timeout=20)
        except KeyboardInterrupt:
            assert at is not None
        finally:
            sys.settrace(None)
    return list(interrupter.places)


def main(part: str, parts: str, base: str, rootfs: str, *oci_runtime: str) -> None:
    options = {"static_dir": f"{base}/static", "tmp_dir": f"{base}/tmp"}
    if oci_runtime:
        options["oci_runtime"] = oci_runtime[0]
    box = libpod.Spec(rootfs=rootfs, stop_signal="KILL")
    record_ids()
    chosen = run(box, options)[int(part) :: int(parts)]
    for place in chosen:
        before = Census(base)
        try:
            run(box, options, place)
        except Exception as error:
            print(f"{place}: {error!r}", flush=True)
        left = before.left_outside()
        if left:
            print(f"{place}:", *left, sep="\n  ", flush=True)
            before.clear()
    print(f"{len(chosen)} places")


if __name__ == "__main__":
    main(*sys.argv[1:])
