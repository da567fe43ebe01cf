"""Keys that stay what they are for ever, and rules that keep near-misses apart."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_cache.canonical import Question, Turn, address, parameters_that_matter
from farthing_cache.verifying.vetoes import verify
from farthing_core.scopes import parse_scope

SCOPE = "organizations/acme/workspaces/search/projects/ranker/users/ann"


def question(**changes: Any) -> Question:
    values: dict[str, Any] = {
        "scope": parse_scope(SCOPE),
        "sharing": "organization",
        "model_policy": "farthing/auto|policy=1|task=chat|tier=",
        "turns": (Turn("system", "Be brief.", "", ""), Turn("user", "What is a quorum?", "", "")),
        "parameters": {"temperature": 0.2, "output_tokens_max": 256},
    }
    return Question(**{**values, **changes})


def test_the_key_is_the_same_for_ever() -> None:
    found = address(question())
    assert found.key.hex() == "ab36b3ec266348e31944767e17d285fac178cfd5a8c6eefded6e14d455e20750"
    assert found.partition.hex() == "8d47f2f6a04a68d8fe4106c21f3c60362e238c8afc4155b2480054c76648a390"
    assert (found.organization, found.scope, found.text) == ("acme", "organizations/acme", "What is a quorum?")


def test_how_json_is_written_does_not_matter() -> None:
    one = question(turns=(Turn("user", "", "", '{"a": 1, "b": [2]}'),))
    other = question(turns=(Turn("user", "", "", '{"b":[2],"a":1}'),))
    assert address(one) == address(other)


@pytest.mark.parametrize(
    "change",
    [
        {"scope": parse_scope("organizations/other")},
        {"sharing": "workspace"},
        {"sharing": "user"},
        {"model_policy": "large"},
        {"parameters": {"temperature": 0.3}},
        {"parameters": {"temperature": 0.2, "output_tokens_max": 256, "tools_json": [{"name": "f"}]}},
        {"turns": (Turn("system", "Be long.", "", ""), Turn("user", "What is a quorum?", "", ""))},
        {"turns": (Turn("user", "What is a quorum?", "", ""),)},
    ],
)
def test_every_part_of_a_partition_counts(change: dict[str, Any]) -> None:
    assert address(question(**change)).partition != address(question()).partition
    assert address(question(**change)).key != address(question()).key


def test_the_last_turn_changes_the_key_and_not_the_partition() -> None:
    other = question(turns=(Turn("system", "Be brief.", "", ""), Turn("user", "What is a majority?", "", "")))
    assert address(other).partition == address(question()).partition
    assert address(other).key != address(question()).key


def test_what_is_no_plain_user_turn_is_not_compared_by_meaning() -> None:
    for last in (Turn("assistant", "x", "", ""), Turn("user", "x", "[]", ""), Turn("user", "x", "", '{"name": "n"}')):
        assert address(question(turns=(last,))).text is None


def test_parameters_that_change_nothing_are_left_out() -> None:
    assert parameters_that_matter({"seed": 1}, '{"stream": true, "user": "u", "logit_bias": {}}') == {
        "seed": 1,
        "logit_bias": {},
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Turn on dark mode", "Turn off dark mode"),
        ("take 5 mg a day", "take 50 mg a day"),
        ("take five tablets", "take six tablets"),
        ("Where is the office in Paris", "Where is the office in Parma"),
        ("remind me before it is due", "remind me after it is due"),
        ("is he at home", "is she at home"),
        ("can I pay by card", "can't I pay by card"),
        ("flights from Paris to London", "flights from London to Paris"),
        ("How do I add a seat?", "How do I remove a seat?"),
        ("Who founded it?", "When was it founded?"),
        ("is a dog bigger than a cat", "is a cat bigger than a dog"),
        ("what does the monthly plan cost", "what does the yearly plan cost"),
        ("How do I export tasks?", "How do I export archived tasks of guests in another workspace?"),
    ],
)
def test_near_misses_are_kept_apart(one: str, other: str) -> None:
    assert not verify(one, other).same
    assert not verify(other, one).same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "how do I reset my password"),
        ("How do I reset my password?", "How can I reset my password?"),
        ("Where can I download my invoice?", "Where can I download my invoices?"),
        ("Is there a mobile app?", "Do you have a mobile app?"),
    ],
)
def test_the_same_in_other_words_passes(one: str, other: str) -> None:
    assert verify(one, other).same
