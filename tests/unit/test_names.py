# SPDX-License-Identifier: Apache-2.0
"""Names and IDs: their form, and that the search for a free name ends."""

from __future__ import annotations

import pytest

from libpod import names


@pytest.mark.parametrize("words, least", [(names.ADJECTIVES, 90), (names.SURNAMES, 120)])
def test_word_lists(words: tuple[str, ...], least: int) -> None:
    assert len(words) >= least
    assert len(set(words)) == len(words)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)


def test_random_name_is_made_of_both_lists() -> None:
    drawn = {names.random_name() for _ in range(200)}
    assert len(drawn) > 150
    for name in drawn:
        adjective, surname = name.split("_")
        assert adjective in names.ADJECTIVES and surname in names.SURNAMES
        assert names.valid_name(name)


def test_every_word_can_be_drawn() -> None:
    assert {names._below(5) for _ in range(500)} == set(range(5))
    assert {names._below(1) for _ in range(10)} == {0}


def test_never_boring_wozniak(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "boring" in names.ADJECTIVES and "wozniak" in names.SURNAMES
    monkeypatch.setattr(names, "ADJECTIVES", ("boring",))
    monkeypatch.setattr(names, "SURNAMES", ("wozniak", "noether"))
    assert {names.random_name() for _ in range(50)} == {"boring_noether"}


@pytest.mark.parametrize("name", ["a", "Z", "0", "a.b_c-d", "web1", "a" * 4096])
def test_valid_names(name: str) -> None:
    assert names.valid_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "-a", ".a", "_a", "a b", "a/b", "../a", "a\n", "\na", "a\0", "é", "aé", "a:b", "\u0661"],
)
def test_invalid_names(name: str) -> None:
    assert not names.valid_name(name)


def test_new_id_form() -> None:
    ids = {names.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(i) == 64 and set(i) <= set("0123456789abcdef") for i in ids)


def test_new_id_is_drawn_again_while_it_begins_with_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numeric = bytes.fromhex("123456789012" + "ab" * 26)
    good = bytes.fromhex("12345678901a" + "00" * 26)
    draws = [numeric, numeric, good]
    monkeypatch.setattr(names.os, "urandom", lambda size: draws.pop(0))
    assert names.new_id() == good.hex()
    assert draws == []


def test_unique_name_takes_the_first_that_is_free() -> None:
    asked: list[str] = []

    def taken(name: str) -> bool:
        asked.append(name)
        return len(asked) < 3

    assert names.unique_name(taken) == asked[-1]
    assert len(asked) == 3
    assert not any(name[-1].isdigit() for name in asked)


def test_unique_name_ends_when_every_plain_name_is_taken() -> None:
    asked: list[str] = []

    def taken(name: str) -> bool:
        asked.append(name)
        return name.isalpha() or not name[-1].isdigit() or len(asked) < names.PLAIN_DRAWS + 3

    name = names.unique_name(taken)
    assert len(asked) == names.PLAIN_DRAWS + 3
    assert all(n[-1].isalpha() for n in asked[: names.PLAIN_DRAWS])
    assert all(n[-1].isdigit() for n in asked[names.PLAIN_DRAWS :])
    assert names.valid_name(name)


def test_unique_name_passes_on_what_taken_raises() -> None:
    def taken(_name: str) -> bool:
        raise LookupError("the state is closed")

    with pytest.raises(LookupError, match="the state is closed"):
        names.unique_name(taken)
