# SPDX-License-Identifier: Apache-2.0
"""docs/checklist.md names tests that are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CHECKLIST = TESTS.parent / "docs/checklist.md"
ROWS = [
    *(f"{letter}{number}" for letter, count in zip("ABCDEF", (19, 20, 19, 16, 31, 19), strict=True)
      for number in range(1, count + 1)),
    *("I18", "I25", "I28", "I32", "I33"),
]  # fmt: skip


def rows() -> list[tuple[str, str, str]]:
    """Number, capability, tests."""
    found = re.findall(r"^\| ([A-Z]\d+) \| (.+?) \| (.+?) \|$", CHECKLIST.read_text(), re.MULTILINE)
    return [(number, what, tests) for number, what, tests in found]


@cache
def names_in(path: Path) -> frozenset[str]:
    """Functions, classes and the functions in them, as pytest names them."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            inner = [n.name for n in node.body if isinstance(n, ast.FunctionDef)]
            tests = [f"{node.name}::{name}" for name in inner if name.startswith("test_")]
            found.update([node.name, *tests] if tests else [])
    return frozenset(found)


def test_every_row_is_there_once_and_says_something() -> None:
    assert [number for number, _, _ in rows()] == ROWS
    for number, what, tests in rows():
        assert what.strip() and tests.strip(), number


@pytest.mark.parametrize(("number", "tests"), [(number, tests) for number, _, tests in rows()])
def test_the_tests_exist(number: str, tests: str) -> None:
    if tests.startswith("not built: "):
        return
    for test in tests.split("<br>"):
        match = re.fullmatch(r"`([\w/]+\.py)::((?:Test\w+::)?test_\w+|Test\w+)`", test)
        assert match is not None, f"{number}: {test} does not name a test"
        path = TESTS / match[1]
        assert path.is_file() and path.name.startswith("test_"), f"{number}: there is no {match[1]}"
        assert match[2] in names_in(path), f"{number}: {match[1]} has no {match[2]}"
