# SPDX-License-Identifier: Apache-2.0
"""Results and errors: what they carry, and that they travel."""

from __future__ import annotations

import base64
import json
import pickle

import pytest

import libpod
from libpod import ContainerFailed, CreateFailed, LibpodError, Reason, Result, Usage, errors


def failed() -> Result:
    return Result(
        reason=Reason.SIGNALED,
        exit_code=137,
        stdout=b"\xff\x00",
        stderr=b"no\n",
        usage=Usage(cpu_seconds=0.5),
        phases={"run": 1.0},
        error=CreateFailed("no", phase="create", remedy="do", detail="said"),
        id="a" * 64,
        name="web",
        key=("k", 1),
    )


def test_check_passes_only_a_clean_end() -> None:
    good = Result(reason=Reason.EXITED, exit_code=0)
    assert good.check() is good
    for bad in (Result(reason=Reason.EXITED, exit_code=1), Result(reason=Reason.OOM, exit_code=0)):
        with pytest.raises(ContainerFailed) as caught:
            bad.check()
        assert caught.value.result is bad
    with pytest.raises(
        ContainerFailed, match=r"web ended \(signaled\) with exit code 137"
    ) as caught:
        failed().check()
    assert caught.value.detail == "no\n"
    assert isinstance(caught.value.__cause__, CreateFailed)


def test_the_json_form() -> None:
    form = json.loads(json.dumps(failed().to_json()))
    assert (form["schema"], form["reason"], form["exit_code"]) == (1, "signaled", 137)
    assert base64.b64decode(form["stdout"]) == b"\xff\x00"
    assert form["usage"]["cpu_seconds"] == 0.5
    assert form["error"]["type"] == "CreateFailed"
    assert form["error"]["remedy"] == "do"
    assert (
        json.loads(json.dumps(Result(reason=Reason.LOST, exit_code=None).to_json()))["error"]
        is None
    )


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_travels(name: str) -> None:
    kind: type[LibpodError] = getattr(libpod, name)
    error = kind("what", fault="image", phase="run", retryable=True, container_id="c", remedy="do",
                 detail="x" * 100_000)  # fmt: skip
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "what: do"
    assert (copy.fault, copy.phase, copy.retryable) == ("image", "run", True)
    assert (copy.container_id, len(copy.detail)) == ("c", errors.DETAIL_LIMIT)
    assert len(kind.__mro__) > len(LibpodError.__mro__) or kind is LibpodError


def test_an_errno_travels_too() -> None:
    copy = pickle.loads(pickle.dumps(libpod.SpawnFailed("what", 13)))
    assert (copy.errno, isinstance(copy, OSError)) == (13, True)


def test_a_failed_job_travels_with_its_result() -> None:
    with pytest.raises(ContainerFailed) as caught:
        failed().check()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.result.exit_code == 137
    assert copy.result.key == ("k", 1)
