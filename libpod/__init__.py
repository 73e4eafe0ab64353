# SPDX-License-Identifier: Apache-2.0
"""A container runtime core: real OCI containers from Python, without a daemon.

    with libpod.Runtime() as rt:
        result = rt.run(libpod.Spec(rootfs="rootfs/"), ["echo", "hello"])

Every error class of `libpod.errors` is a name of this package, too.  A name is
loaded when it is first used, so that importing the package costs next to
nothing.
"""

TYPE_CHECKING = False

if TYPE_CHECKING:
    from libpod import aio as aio
    from libpod import errors as errors
    from libpod.cgroup import Usage as Usage
    from libpod.config import save_default_config as save_default_config
    from libpod.container import Container as Container
    from libpod.container import ContainerState as ContainerState
    from libpod.container import Status as Status
    from libpod.errors import *  # noqa: F403
    from libpod.job import Limits as Limits
    from libpod.job import Mount as Mount
    from libpod.job import Spec as Spec
    from libpod.result import ContainerFailed as ContainerFailed
    from libpod.result import Reason as Reason
    from libpod.result import Result as Result
    from libpod.runtime import Runtime as Runtime
    from libpod.settings import RuntimeConfig as RuntimeConfig
    from libpod.settings import StateType as StateType
    from libpod.settings import StorageConfig as StorageConfig

__version__ = "0.1.0"

_HOMES = {
    "Container": "container",
    "ContainerFailed": "result",
    "ContainerState": "container",
    "Limits": "job",
    "Mount": "job",
    "Reason": "result",
    "Result": "result",
    "Runtime": "runtime",
    "RuntimeConfig": "settings",
    "Spec": "job",
    "StateType": "settings",
    "Status": "container",
    "StorageConfig": "settings",
    "Usage": "cgroup",
    "aio": "",
    "errors": "",
    "save_default_config": "config",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    home = _HOMES.get(name)
    value: object
    if home is None:
        errors = import_module("libpod.errors")
        if name == "__all__":
            value = sorted({*_HOMES, *errors.__all__})
        elif name in errors.__all__:
            value = getattr(errors, name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    elif home:
        value = getattr(import_module(f"libpod.{home}"), name)
    else:
        value = import_module(f"libpod.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from libpod import errors

    return sorted({*globals(), *_HOMES, *errors.__all__})
