"""Savings that add up, originals that come back, policies that say what is wrong."""

from __future__ import annotations

import pytest
from farthing_core.errors import FieldInvalid
from farthing_orchestrator.accounting import ModelPrice, TokensOfPrompt, account_of_answer, account_of_hit
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.policy import Policy
from farthing_orchestrator.ports import PeerUnavailable
from farthing_orchestrator.unmasking import Unmasker
from hypothesis import given
from hypothesis import strategies as st

PRICE = ModelPrice(2_500_000_000, 10_000_000_000, "o200k")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**12), st.integers(0, 10**5), st.integers(0, 10**6))
def test_the_causes_add_up_to_the_nano(before: int, cut: int, cost: int, output: int, billed: int) -> None:
    tokens = TokensOfPrompt({"o200k": before}, {"o200k": max(0, before - cut)}, billed)
    account = account_of_answer(PRICE, baseline_model="large", cost_usd_nanos=cost, tokens=tokens, output_tokens=output)
    saved = account.cache_usd_nanos + account.prompt_usd_nanos + account.route_usd_nanos
    assert account.cost_usd_nanos + saved == account.baseline_usd_nanos
    assert account.prompt_usd_nanos >= 0


def test_without_a_price_nothing_is_claimed() -> None:
    tokens = TokensOfPrompt({}, {}, 100)
    account = account_of_answer(None, baseline_model="ghost", cost_usd_nanos=5, tokens=tokens, output_tokens=1)
    assert (account.baseline_usd_nanos, account.baseline_model) == (5, "")
    assert account_of_hit(None, baseline_model="ghost", input_tokens=1, output_tokens=1).baseline_usd_nanos == 0


def test_originals_come_back_however_a_stream_is_cut() -> None:
    originals = {"[EMAIL_1]": "ann@example.com", "[EMAIL_10]": "bob@example.com", "[CARD_1]": "4111"}
    text = "Write to [EMAIL_1], [EMAIL_10] or [EMAIL_11]; card [CARD_1] [ok] [A_B [EMAIL_1"
    whole = "Write to ann@example.com, bob@example.com or [EMAIL_11]; card 4111 [ok] [A_B [EMAIL_1"
    assert Unmasker(originals).text(text) == whole
    for size in range(1, len(text) + 1):
        unmasker = Unmasker(originals)
        pieces = [unmasker.piece(text[start : start + size]) for start in range(0, len(text), size)]
        assert "".join(pieces) + unmasker.rest() == whole


def test_originals_in_json_are_escaped() -> None:
    assert Unmasker({"[KEY_1]": 'a"b\n'}).json('{"x":"[KEY_1]"}') == '{"x":"a\\"b\\n"}'


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ({"cach": {}}, "policy.cach"),
        ({"cache": {"mode": "always"}}, "policy.cache.mode"),
        ({"cache": {"ttl_s": -1}}, "policy.cache.ttl_s"),
        ({"privacy": {"unreachable": "shrug"}}, "policy.privacy.unreachable"),
        ({"tasks": {"chat": {"timeout_s": -1}}}, "policy.tasks.chat.timeout_s"),
    ],
)
def test_a_policy_that_cannot_be_names_the_field(section: object, field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        Policy.parse(section)
    assert caught.value.field == field


async def test_deferred_work_is_tried_again_while_its_peer_is_away_and_waited_for_at_the_end() -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise PeerUnavailable(peer="budget", message="away")

    deferred = Deferred(outstanding_max=10, attempts_max=5, backoff_s=0.001, backoff_s_max=0.002)
    async with deferred.running(grace_s=5):
        await deferred.run("settle", work, request_id="r")
    assert tries == 3
    assert deferred.outstanding == 0
