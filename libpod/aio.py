# SPDX-License-Identifier: Apache-2.0
"""The same API for asyncio: not built yet."""

from __future__ import annotations

from typing import Any

from libpod.errors import NotBuilt


class Runtime:
    """An asyncio runtime: not built yet.  Raises `NotBuilt`."""

    def __init__(self, **options: Any) -> None:
        raise NotBuilt(
            "libpod.aio is not built yet",
            remedy="call libpod.Runtime in a worker thread (asyncio.to_thread)",
        )
