"""Keys that stay what they are for ever, and rules that keep near-misses apart."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_cache.canonical import NESTING_MAX, VALUES_MAX, Question, Turn, address, further_that_matter, parsed
from farthing_cache.verifying.vetoes import verify
from farthing_core.errors import FieldInvalid
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


def test_an_address_says_who_shares_and_what_is_compared() -> None:
    found = address(question())
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
    text = '{"stream": true, "user": "u", "prompt_cache_key": "k", "logit_bias": {}}'
    assert further_that_matter(text) == {"logit_bias": {}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[1, 1.0, 1e0, 10e-1]", "[1, 1, 1, 1]"),
        ("[0.7, -0.0]", "[0.70, 0]"),
        ("[1e22]", "[10000000000000000000000]"),
        ('{"a": [1, 2], "b": {"d": 1, "c": "x"}}', '{"b":{"c":"\\u0078","d":1},"a":[1,2]}'),
    ],
)
def test_what_json_calls_the_same_has_the_same_key(one: str, other: str) -> None:
    assert address(question(further={"p": parsed(one, where="p")})) == address(
        question(further={"p": parsed(other, where="p")})
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[12345678901234567890]", "[12345678901234567891]"),
        ("[123456789012345678901234567890]", "[123456789012345678901234567891]"),
        ("[9007199254740993]", "[9007199254740992.0]"),
        ("[0.1]", "[0.10000000000000002]"),
        ("[1]", "[true]"),
        ("[1]", '["1"]'),
        ("[null]", "[]"),
        ("[[1], 2]", "[1, [2]]"),
    ],
)
def test_what_json_tells_apart_has_another_key(one: str, other: str) -> None:
    assert address(question(further={"p": parsed(one, where="p")})) != address(
        question(further={"p": parsed(other, where="p")})
    )


def test_a_further_parameter_does_not_take_the_place_of_a_named_one() -> None:
    named = question(parameters={"temperature": 0.9})
    assert len({address(each).key for each in (named, question(parameters={}, further={"temperature": 0.9}))}) == 2
    both = question(parameters={"temperature": 0.2}, further={"temperature": 0.9})
    assert address(both).key not in {address(named).key, address(question(parameters={"temperature": 0.2})).key}


def test_composed_and_decomposed_text_is_the_same_and_compatible_text_is_not() -> None:
    def of(text: str) -> bytes:
        return address(question(turns=(Turn("user", text, "", ""),))).key

    def in_json(text: str) -> bytes:
        return address(question(turns=(Turn("user", "", f'[{{"text":"{text}"}}]', ""),))).key

    assert of("caf\u00e9 \ud55c") == of("cafe\u0301 \u1112\u1161\u11ab")
    assert in_json("caf\u00e9") == in_json("cafe\u0301") == in_json("cafe\\u0301")
    assert of("x\u00b2") != of("x2")
    assert of("\uff21") != of("A")
    assert of("Case") != of("case")


@pytest.mark.parametrize("where", ["system", "earlier", "last", "name", "parts", "escaped"])
@pytest.mark.parametrize("sharing", ["organization", "workspace", "user"])
def test_a_mask_token_in_any_turn_leaves_the_answer_to_its_user(where: str, sharing: str) -> None:
    token = "[CREDIT_CARD_12]"
    turns = {
        "system": (Turn("system", f"You serve {token}.", "", ""), Turn("user", "Hi", "", "")),
        "earlier": (Turn("user", token, "", ""), Turn("assistant", "Yes?", "", ""), Turn("user", "Hi", "", "")),
        "last": (Turn("user", f"I am {token}", "", ""),),
        "name": (Turn("user", "Hi", "", f'{{"name": "{token}"}}'),),
        "parts": (Turn("user", "", f'[{{"type": "text", "text": "{token}"}}]', ""),),
        "escaped": (Turn("user", "", '[{"type": "text", "text": "\\u005bCREDIT_CARD\\u005f12\\u005d"}]', ""),),
    }[where]
    found = address(question(turns=turns, sharing=sharing))
    assert found == address(question(turns=turns, sharing="user"))
    assert found.scope == SCOPE


def test_what_only_looks_like_a_mask_token_is_shared() -> None:
    for text in ("[email_1]", "[EMAIL]", "[EMAIL_]", "EMAIL_1", "[1]", "[_]", "[A1_1]"):
        assert address(question(turns=(Turn("user", text, "", ""),))).scope == "organizations/acme"


def test_what_is_personal_without_a_user_is_shared_by_exactly_its_scope() -> None:
    for path in (
        "organizations/acme",
        "organizations/acme/workspaces/search",
        "organizations/acme/workspaces/search/projects/p",
    ):
        found = address(question(scope=parse_scope(path), personal=True))
        assert found.scope == path
        assert found.key != address(question(scope=parse_scope(path))).key


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * (NESTING_MAX + 1) + "]" * (NESTING_MAX + 1), f"nested deeper than {NESTING_MAX} levels"),
        ("[" * 500_000 + "]" * 500_000, "nested too deeply"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
        ("[" + "1," * VALUES_MAX + "1]", f"more than {VALUES_MAX:,} values"),
        ("[1e999]", "not JSON"),
        ("[" + "9" * 10_000 + "]", "not JSON"),
        ('["\\ud800"]', "not JSON"),
        ("{", "not JSON"),
        ("[NaN]", "not JSON"),
    ],
)
def test_hostile_json_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(FieldInvalid, match=problem) as refused:
        address(question(turns=(Turn("user", "", text, ""),)))
    assert refused.value.field == "messages.content_parts_json"


def test_as_much_nesting_as_is_allowed_is_read() -> None:
    text = "[" * NESTING_MAX + "]" * NESTING_MAX
    assert address(question(turns=(Turn("user", "", text, ""),))).key != address(question()).key


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
