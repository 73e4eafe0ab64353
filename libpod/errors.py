# SPDX-License-Identifier: Apache-2.0
"""Every error of the project, one class per cause.

Each class derives from `LibpodError` and from the builtin that a Python
program would catch for the same cause (`KeyError` for a missing container,
`TimeoutError` for a wait that ended, ...).  The first block names one class
per error sentinel of podman's `libpod/errors.go`; the rest are causes that
the original reports as text only.
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = [
    "Closed",
    "CommandNotExecutable",
    "CommandNotFound",
    "ConfigError",
    "ConmonFailed",
    "ConmonGarbage",
    "ContainerExists",
    "ContainerFinalized",
    "ContainerRemoved",
    "ContainerStateInvalid",
    "ContainerStopped",
    "CreateFailed",
    "CreateTimeout",
    "DBBadConfig",
    "DBClosed",
    "EmptyID",
    "ImageExists",
    "InternalError",
    "InvalidArgument",
    "LibpodError",
    "LockBroken",
    "LockGone",
    "LockRefused",
    "LockTaken",
    "LockTimeout",
    "LocksExhausted",
    "NamespaceMismatch",
    "NoSuchContainer",
    "NoSuchImage",
    "NoSuchPod",
    "NotBuilt",
    "OCIRuntimeFailed",
    "OCIRuntimeTimeout",
    "OSNotSupported",
    "PodExists",
    "PodFinalized",
    "PodRemoved",
    "RuntimeDirError",
    "RuntimeFinalized",
    "RuntimeStopped",
    "SharingRefused",
    "SpawnFailed",
    "SystemCallError",
    "Unsupported",
    "UsedAfterFork",
    "WaitTimeout",
]

Fault = Literal["job", "image", "config", "host"]
"""Who has to act: the author of the job, of its image, of the
configuration, or the keeper of the host."""

DETAIL_LIMIT = 16 * 1024
"""Bytes of conmon's or the runtime's own text that an error keeps."""


class LibpodError(Exception):
    """Root of all errors of this library.

    Attributes:
        fault: who has to act ("job", "image", "config" or "host").
        phase: the step of a launch that failed ("config", "create", "start",
            "run", "stop", "remove"), or None outside a launch.
        retryable: whether the same call may succeed later, unchanged.
        container_id: the container at fault, or None.
        remedy: what to do next, or None where the message says it all.
        detail: the text of conmon or of the OCI runtime, bounded, or None.
    """

    fault: Fault = "host"
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        fault: Fault | None = None,
        phase: str | None = None,
        retryable: bool | None = None,
        container_id: str | None = None,
        remedy: str | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if fault is not None:
            self.fault = fault
        if retryable is not None:
            self.retryable = retryable
        self.phase = phase
        self.container_id = container_id
        self.remedy = remedy
        self.detail = detail if detail is None else detail[:DETAIL_LIMIT]

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(
    cls: type[LibpodError], message: str, attributes: dict[str, Any], errno: int | None = None
) -> LibpodError:
    # Past the constructors, which want more than a message: by the builtin whose
    # memory layout the class has, which need not be the first of its bases.
    builtin: Any = cls
    while builtin.__module__ != "builtins":
        builtin = builtin.__base__
    error: LibpodError = builtin.__new__(cls, message)
    Exception.__init__(error, message)
    error.__dict__.update(attributes)
    if isinstance(error, OSError) and errno is not None:
        error.errno = errno
    return error


# --- one class per sentinel of the original ---------------------------------


class NoSuchContainer(LibpodError, KeyError):
    """No container has this ID or name."""

    fault: Fault = "job"


class NoSuchPod(LibpodError, KeyError):
    """No pod has this ID or name."""

    fault: Fault = "job"


class NoSuchImage(LibpodError, KeyError):
    """No image has this ID or name."""

    fault: Fault = "image"


class ContainerExists(LibpodError, FileExistsError):
    """The name or ID is taken, is ambiguous, or the container was made already."""

    fault: Fault = "job"


class PodExists(LibpodError, FileExistsError):
    """The pod's name or ID is taken or ambiguous."""

    fault: Fault = "job"


class ImageExists(LibpodError, FileExistsError):
    """The image is there already."""

    fault: Fault = "image"


class ContainerStateInvalid(LibpodError, RuntimeError):
    """The container is not in a state in which this can be done."""

    fault: Fault = "job"


class RuntimeFinalized(LibpodError, RuntimeError):
    """The runtime is open: its options can no longer be changed."""

    fault: Fault = "job"


class ContainerFinalized(LibpodError, RuntimeError):
    """The container exists: its options can no longer be changed."""

    fault: Fault = "job"


class PodFinalized(LibpodError, RuntimeError):
    """The pod exists: its options can no longer be changed."""

    fault: Fault = "job"


class InvalidArgument(LibpodError, ValueError):
    """An argument has no meaning or contradicts another one."""

    fault: Fault = "job"


class EmptyID(LibpodError, ValueError):
    """The name or ID is empty."""

    fault: Fault = "job"


class InternalError(LibpodError, RuntimeError):
    """A program that we drive, or we ourselves, did what must not happen."""


class RuntimeStopped(LibpodError, RuntimeError):
    """The runtime was shut down."""

    fault: Fault = "job"


class ContainerStopped(LibpodError, RuntimeError):
    """The container is stopped already."""

    fault: Fault = "job"


class ContainerRemoved(LibpodError, KeyError):
    """The container was removed; this object is its name only."""

    fault: Fault = "job"


class PodRemoved(LibpodError, KeyError):
    """The pod was removed; this object is its name only."""

    fault: Fault = "job"


class DBClosed(LibpodError, ValueError):
    """The state was closed."""

    fault: Fault = "job"


class DBBadConfig(LibpodError, ValueError):
    """The database belongs to other directories than the ones configured."""

    fault: Fault = "config"


class NamespaceMismatch(LibpodError, KeyError):
    """The target is in another namespace."""

    fault: Fault = "job"


class NotBuilt(LibpodError, NotImplementedError):
    """A part of the plan that this version does not have yet."""

    fault: Fault = "job"


class OSNotSupported(LibpodError, OSError):
    """The library runs on Linux only."""


# --- causes that the original reports as text --------------------------------


class SystemCallError(LibpodError, OSError):
    """A system call failed; `errno` says how."""

    def __init__(self, message: str, errno: int = 0, **context: Any) -> None:
        super().__init__(message, **context)
        self.errno = errno

    def __reduce__(self) -> tuple[Any, ...]:
        # errno is a member of OSError, not one of the attributes.
        return _rebuild, (type(self), self.message, self.__dict__, self.errno)


class ConfigError(LibpodError, ValueError):
    """A configuration file cannot be read or has a wrong value; names file and key."""

    fault: Fault = "config"


class SharingRefused(ConfigError):
    """State cannot be shared with the podman of this host."""


class RuntimeDirError(LibpodError, OSError):
    """No runtime directory is safe to use."""

    fault: Fault = "config"


class Unsupported(LibpodError, OSError):
    """This host cannot do, or cannot enforce, what was asked."""


class LockTimeout(LibpodError, TimeoutError):
    """A lock was not free before the deadline; `holder` is its holder's pid or None."""

    retryable = True

    def __init__(self, message: str, holder: int | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.holder = holder


class LockGone(LibpodError, FileNotFoundError):
    """The lock file was never made, or went with its object."""

    fault: Fault = "job"


class LockRefused(LibpodError, PermissionError):
    """A lock file or its directory could be held by somebody else."""


class LockTaken(LibpodError, FileExistsError):
    """The lock ID belongs to another object already."""


class LockBroken(LibpodError, OSError):
    """A lock that its holder left beyond repair: nobody can take it again."""


class LocksExhausted(LibpodError, OSError):
    """Every lock of the fixed number that this host has is taken."""


class UsedAfterFork(LibpodError, RuntimeError):
    """The object belongs to the parent process: open a new one in the child."""

    fault: Fault = "job"


class Closed(LibpodError, ValueError):
    """The object was closed."""

    fault: Fault = "job"


class WaitTimeout(LibpodError, TimeoutError):
    """The waiting ended; what was waited for goes on."""

    fault: Fault = "job"
    retryable = True


class SpawnFailed(SystemCallError):
    """A program could not be started."""


class ConmonFailed(InternalError):
    """conmon ended before it answered; `detail` has what it printed."""


class ConmonGarbage(InternalError):
    """conmon answered with something that is not its protocol."""


class CreateTimeout(InternalError, TimeoutError):
    """The OCI runtime did not create the container within the deadline."""

    retryable = True


class CreateFailed(InternalError):
    """The OCI runtime refused to create the container; `detail` has its text."""


class CommandNotFound(CreateFailed, FileNotFoundError):
    """The container's root file system lacks the command (exit code 127)."""

    fault: Fault = "job"


class CommandNotExecutable(CreateFailed, PermissionError):
    """The command is there but cannot be executed (exit code 126)."""

    fault: Fault = "job"


class OCIRuntimeFailed(InternalError):
    """A command of the OCI runtime failed; `detail` has its text."""


class OCIRuntimeTimeout(OCIRuntimeFailed, TimeoutError):
    """A command of the OCI runtime did not end within the deadline and was killed."""

    retryable = True
