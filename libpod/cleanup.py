# SPDX-License-Identifier: Apache-2.0
"""`libpod container cleanup`: what conmon runs after a container that outlives its creator.

It is started once for each such container, so it opens what it needs and no more.
Doing it again, or after somebody else has, is no error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libpod import config as configuration
from libpod.errors import ContainerRemoved, NoSuchContainer
from libpod.life import Life
from libpod.opening import open_engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from libpod.settings import RuntimeConfig


def cleanup(
    config: RuntimeConfig, options: Mapping[str, Any], id_or_name: str, remove: bool = False
) -> None:
    """Records a container's end and gives back what it held; `remove` removes it, too.

    Raises what opening a runtime does, and `ContainerStateInvalid` while it runs.
    """
    configuration.apply_options(config, options)
    engine = open_engine(config, options)
    try:
        life = Life(engine, engine.state.lookup_container(id_or_name))
        life.finish(remove)
    except (NoSuchContainer, ContainerRemoved):
        return  # somebody else was faster
    finally:
        engine.close()
