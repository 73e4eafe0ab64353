# SPDX-License-Identifier: Apache-2.0
"""What an import loads, which is what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = frozenset(
    "asyncio concurrent dataclasses datetime email http importlib.metadata inspect ipaddress "
    "multiprocessing pathlib shutil socket ssl subprocess tempfile tomli tomllib unittest "
    "urllib uuid".split()
)


def loaded_by(statement: str) -> set[str]:
    text = f"import sys\nbefore = set(sys.modules)\n{statement}\nprint(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import libpod", "from libpod import Runtime, Spec, Result"])
def test_nothing_heavy(statement: str) -> None:
    modules = loaded_by(statement)
    assert "libpod" in modules
    assert modules & HEAVY == set()


def test_the_package_alone_loads_only_itself() -> None:
    assert loaded_by("import libpod") == {"libpod"}


def test_every_public_name_can_be_had() -> None:
    import libpod

    for name in libpod.__all__:
        assert getattr(libpod, name) is not None
        assert name in dir(libpod)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        libpod.nonsense  # type: ignore[attr-defined]  # noqa: B018
