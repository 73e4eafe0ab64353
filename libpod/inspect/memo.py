# SPDX-License-Identifier: Apache-2.0
"""The last answer about a container, for whoever asks again and again."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

from libpod.state.handles import ContainerRecord


class Memo:
    """It holds for as long as what the answer was made from stays the same: the record, and
    the config.json that the OCI runtime was given.  Not asked about are health checks, which
    have a file of their own that changes all the time.
    """

    def __init__(self) -> None:
        self._kept: tuple[object, bytes] = None, b""
        """What the answer was made from, and the answer: replaced at once, for threads."""

    def ask(self, record: ContainerRecord, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `make` says of `record`, or has said; the caller's own."""
        source = _source(record)
        known, answer = self._kept
        if source is not None and source == known:
            kept: dict[str, Any] = pickle.loads(answer)
            return kept
        made = make()
        self._kept = source, pickle.dumps(made)
        return made


def _source(record: ContainerRecord) -> object:
    """What an answer is made from; None where that cannot be compared."""
    state = record.state
    if record.config.health_check:
        return None
    try:
        made = os.stat(state.config_path) if state.config_path else None
    except OSError:
        return None
    spec = made and (made.st_dev, made.st_ino, made.st_size, made.st_mtime_ns, made.st_ctime_ns)
    # A copy: whoever reads a member that is missing adds it.
    return record.stored.config, state.values.copy(), record.netns, spec
