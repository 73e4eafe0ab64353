# SPDX-License-Identifier: Apache-2.0
"""The store against its model while writes and syncs fail; run by test_kv_failing.py.

The process has fail.c preloaded. Either one call of a commit fails and the handle
goes on, or all from there on, as if the process had died, and the file is opened
anew.
"""

from __future__ import annotations

import ctypes
import errno
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from libpod import kv
from libpod.errors import SystemCallError
from tests.unit.test_kv_model import PROFILE, StoreMachine, dump

EVER = 1 << 30


def arm(skip: int, calls: int, error: int) -> int:
    left = ctypes.CDLL(None).kv_fail(ctypes.c_long(skip), ctypes.c_long(calls), ctypes.c_int(error))
    assert isinstance(left, int)
    return left


class Failing(StoreMachine):
    options: ClassVar[dict[str, object]] = {}

    def open_anew(self) -> None:
        self.end_snapshots()
        self.db.close()
        self.db = kv.Database(self.path, **self.options)

    @rule(
        skip=st.integers(0, 8),
        dies=st.booleans(),
        error=st.sampled_from((errno.EIO, errno.ENOSPC)),
    )
    def commit_fails(self, skip: int, dies: bool, error: int) -> None:
        if self.tx is None:
            return
        before = "".join(line + "\n" for line in self.committed.lines())
        after = "".join(line + "\n" for line in self.working.lines())
        in_doubt = False
        arm(skip, EVER if dies else 1, error)
        try:
            self.tx.commit()
            self.committed = self.working
        except kv.CommitInDoubt:
            in_doubt = True
        except SystemCallError as failure:
            assert failure.errno == error
        finally:
            arm(0, 0, 0)
        self.tx = None
        refused = self.db.stats()["writes_refused"]
        assert refused or not in_doubt
        if refused:
            with pytest.raises(kv.WritesRefused):
                self.db.begin(write=True)
        if dies or refused:
            self.open_anew()
        found = dump(self.db)
        if in_doubt and found == after:
            self.committed = self.working
        else:
            assert found == (after if self.committed is self.working else before)
        assert self.db.check() == []


class FailingSmallPages(Failing):
    options: ClassVar[dict[str, object]] = {"page_size": 1024, "persist_freelist": False}


class FailingWithoutMap(Failing):
    options: ClassVar[dict[str, object]] = {"map": False, "lock": "transaction"}


TestFailing = Failing.TestCase
TestFailing.settings = PROFILE
TestFailingSmallPages = FailingSmallPages.TestCase
TestFailingSmallPages.settings = PROFILE
TestFailingWithoutMap = FailingWithoutMap.TestCase
TestFailingWithoutMap.settings = PROFILE


def test_calls_fail_here(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The shim is in the way of the extension's calls."""
    path = tmp_path_factory.mktemp("failing") / "db"
    with kv.Database(path) as db:
        arm(0, 1, errno.EIO)
        with pytest.raises(SystemCallError), db.begin(write=True) as tx:
            tx.create_bucket(b"b")
        assert arm(0, 0, 0) == 0
        with db.begin(write=True) as tx:
            tx.create_bucket(b"b")
