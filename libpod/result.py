# SPDX-License-Identifier: Apache-2.0
"""What a job left: its reason to end, exit code, streams, usage and times."""

from __future__ import annotations

import enum
from typing import Any

from libpod.cgroup import Usage
from libpod.errors import Fault, LibpodError

SCHEMA = 1
"""The version of `Result.to_json`'s form."""


class Reason(enum.Enum):
    """Why a job ended."""

    EXITED = "exited"
    SIGNALED = "signaled"
    """By a signal, or with an exit code above 128 that looks like one: conmon
    writes 128+n for both."""
    TIMEOUT = "timeout"
    OOM = "oom"
    OUTPUT_LIMIT = "output_limit"
    CANCELLED = "cancelled"
    START_FAILED = "start_failed"
    LOST = "lost"
    """The monitor died; nobody knows the exit code."""


class ContainerFailed(LibpodError, RuntimeError):
    """`Result.check()`: the job did not end with exit code 0; `result` has all of it."""

    fault: Fault = "job"

    def __init__(self, message: str, result: Result, **context: Any) -> None:
        super().__init__(message, **context)
        self.result = result


class Result:
    """How one container went.

    Attributes:
        reason: why it ended.
        exit_code: 0 to 255, 128+n after signal n; None where it is lost or the
            container never ran.
        stdout, stderr: what it wrote, each by itself; with a terminal all is
            in `stdout`.
        truncated: whether `Limits.output` cut the streams.
        usage: what it consumed, from its cgroup.
        phases: seconds in each step: "prepare", "create", "start", "run", "release".
        error: the error of a start that failed, or None.
        id, name: of the container.
        key: the job's own key, given back unchanged.
    """

    __slots__ = (
        "error",
        "exit_code",
        "id",
        "key",
        "name",
        "phases",
        "reason",
        "stderr",
        "stdout",
        "truncated",
        "usage",
    )

    def __init__(
        self,
        *,
        reason: Reason,
        exit_code: int | None,
        stdout: bytes = b"",
        stderr: bytes = b"",
        truncated: bool = False,
        usage: Usage | None = None,
        phases: dict[str, float] | None = None,
        error: LibpodError | None = None,
        id: str | None = None,
        name: str | None = None,
        key: Any = None,
    ) -> None:
        self.reason = reason
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
        self.truncated = truncated
        self.usage = usage or Usage()
        self.phases = phases or {}
        self.error = error
        self.id = id
        self.name = name
        self.key = key

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.reason is Reason.EXITED and self.exit_code == 0

    def check(self) -> Result:
        """Itself where the job is `ok`; else raises `ContainerFailed` with itself inside."""
        if self.ok:
            return self
        code = "" if self.exit_code is None else f" with exit code {self.exit_code}"
        raise ContainerFailed(
            f"container {self.name or self.id} ended ({self.reason.value}){code}",
            self,
            phase="run" if self.error is None else self.error.phase,
            container_id=self.id,
            detail=self.stderr.decode("utf-8", "replace") or None,
        ) from self.error

    def to_json(self) -> dict[str, Any]:
        """A form for `json.dumps`; the streams are base64, since they may be any bytes."""
        import base64

        error = self.error
        return {
            "schema": SCHEMA,
            "id": self.id,
            "name": self.name,
            "key": self.key,
            "reason": self.reason.value,
            "exit_code": self.exit_code,
            "stdout": base64.b64encode(self.stdout).decode("ascii"),
            "stderr": base64.b64encode(self.stderr).decode("ascii"),
            "truncated": self.truncated,
            "usage": self.usage._asdict(),
            "phases": self.phases,
            "error": None
            if error is None
            else {
                "type": type(error).__name__,
                "message": str(error),
                "fault": error.fault,
                "phase": error.phase,
                "retryable": error.retryable,
                "remedy": error.remedy,
                "detail": error.detail,
            },
        }

    def __repr__(self) -> str:
        return (
            f"Result(reason={self.reason.value!r}, exit_code={self.exit_code}, "
            f"stdout={len(self.stdout)} bytes, stderr={len(self.stderr)} bytes, id={self.id!r})"
        )
