"""The meter: nothing passes that is not paid for, and more is asked for before it is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from farthing.router.v1 import router_pb2
from farthing_core.errors import FarthingError
from farthing_orchestrator import messages
from farthing_orchestrator.holds import Held, Sizing, paid_tokens, sizing_of
from farthing_orchestrator.metering import AHEAD_TOKENS, BudgetCut, Meter
from farthing_orchestrator.outlet import Outlet
from farthing_orchestrator.ports import PeerUnavailable, Refused
from farthing_orchestrator.request import BudgetLeft, Offer, Piece, Planned
from hypothesis import given
from hypothesis import strategies as st

BIN = 64


class Purse:
    """Pays for whole bins up to what it has; remembers what it was asked."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.asked: list[int] = []
        self.fails: Exception | None = None

    async def top_up(self, wanted: int) -> int:
        self.asked.append(wanted)
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        if wanted > self.tokens:
            raise Refused(reason="BUDGET_EXHAUSTED", passed_on=FarthingError("no room", budget_id="b"), retry_after_s=9.0)
        return min(self.tokens, -(-wanted // BIN) * BIN)


def meter_on(purse: Purse, *, paid: int | None = BIN, tokens_max: int = 10_000, unpaid: bool = False) -> Meter:
    return Meter(
        top_up=purse.top_up,
        paid_tokens=paid,
        tokens_max=tokens_max,
        models=frozenset({"m"}),
        unpaid_if_unreachable=unpaid,
    )


def piece(tokens: int = 1, model: str = "m") -> Piece:
    return Piece("x" * 4 * tokens, "", model, 4 * tokens, 4 * tokens)


async def delivered(meter: Meter, pieces: int, each: Callable[[], Piece] = piece) -> int:
    """How many pieces pass before the meter says no."""
    for number in range(pieces):
        try:
            await meter.admit(each())
        except (BudgetCut, PeerUnavailable):
            return number
    return pieces


async def test_more_is_asked_for_once_before_the_last_tokens_are_used() -> None:
    purse = Purse(1_000)
    async with meter_on(purse) as meter:
        assert await delivered(meter, BIN - AHEAD_TOKENS - 1) == BIN - AHEAD_TOKENS - 1
        assert purse.asked == []
        assert await delivered(meter, 200) == 200
        assert purse.asked[:2] == [BIN + 1, 2 * BIN + 1]


async def test_a_piece_that_is_not_paid_for_waits_until_it_is() -> None:
    purse = Purse(1_000)
    async with meter_on(purse) as meter:
        await meter.admit(piece(100))
        assert (purse.asked, meter.tokens) == ([100], 100)


@pytest.mark.parametrize("money", [64, 65, 90, 128, 500])
async def test_what_passes_is_never_more_than_what_is_paid_for(money: int) -> None:
    purse = Purse(money)
    async with meter_on(purse) as meter:
        passed = await delivered(meter, 1_000)
        assert money - 2 * AHEAD_TOKENS <= passed <= money


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(64, 3_000))
def test_however_a_provider_bundles_no_more_passes_than_is_paid_for(sizes: list[int], money: int) -> None:
    async def run() -> None:
        async with meter_on(Purse(money)) as meter:
            given = iter(sizes)
            await delivered(meter, len(sizes), lambda: piece(next(given)))
            assert meter.tokens <= money

    asyncio.run(run())


async def test_a_cut_says_how_much_was_delivered_and_when_there_is_room_again() -> None:
    async with meter_on(Purse(BIN)) as meter:
        await meter.admit(piece(40))
        with pytest.raises(BudgetCut) as cut:
            await meter.admit(piece(40))
        assert (cut.value.facts["output_tokens_delivered"], cut.value.facts["budget_id"]) == ("40", "b")
        assert cut.value.retry_after_s == 9.0


async def test_after_a_refusal_every_byte_counts_as_a_token() -> None:
    purse = Purse(BIN)
    async with meter_on(purse) as meter:
        assert await delivered(meter, BIN - AHEAD_TOKENS) == BIN - AHEAD_TOKENS
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await delivered(meter, 100) <= AHEAD_TOKENS // 4 + 1
        assert meter.tokens <= BIN


async def test_up_to_the_most_that_a_provider_gives_nothing_more_is_asked_for() -> None:
    purse = Purse(10)
    async with meter_on(purse, paid=BIN, tokens_max=BIN) as meter:
        assert await delivered(meter, 500) == 500
        assert purse.asked == []


async def test_answers_that_were_paid_for_whole_run_past_unmetered() -> None:
    purse = Purse(0)
    async with meter_on(purse) as meter:
        await meter.admit(piece(500, model="judged"))
        assert (purse.asked, meter.tokens) == ([], 500)
    async with meter_on(purse, paid=None) as meter:
        await meter.admit(piece(500))
        assert purse.asked == []


@pytest.mark.parametrize(("unpaid", "passed"), [(False, BIN), (True, 300)])
async def test_a_ledger_out_of_reach_stops_a_stream_or_not_as_the_policy_says(unpaid: bool, passed: int) -> None:
    purse = Purse(1_000)
    purse.fails = PeerUnavailable(peer="budget", message="gone")
    async with meter_on(purse, unpaid=unpaid) as meter:
        assert await delivered(meter, 300) == passed


async def test_a_ledger_that_comes_back_in_time_is_asked_again() -> None:
    purse = Purse(1_000)
    purse.fails = PeerUnavailable(peer="budget", message="gone")
    async with meter_on(purse) as meter:
        assert await delivered(meter, BIN - 4) == BIN - 4
        purse.fails = None
        assert await delivered(meter, 300) == 300


@pytest.mark.parametrize(
    ("content", "extra", "text_bytes", "tokens"),
    [
        ("the quick brown fox jumps", "", 25, 6),
        ("1234567890", "", 10, 5),
        ("你好世界", "", 12, 6),
        ("", '{"tool_calls": [{"index": 0, "function": {"arguments": "abcdefgh"}}]}', 8, 2),
    ],
)
def test_text_is_weighed_by_what_it_likely_comes_to(content: str, extra: str, text_bytes: int, tokens: int) -> None:
    delta = router_pb2.StreamGenerateResponse.Delta(content=content, extra_json=extra, model="m")
    weighed = messages.piece(delta)
    assert (weighed.text_bytes, weighed.token_quarters // 4) == (text_bytes, tokens)


def offer(model: str, *, streams: bool, worst: int = 1_000, rate: int = 10**6) -> Offer:
    return Offer(model, "p", True, streams, 10, 500, 100, worst, rate)


def planned(*offers: Offer) -> Planned:
    return Planned(None, offers, sum(each.worst_case_usd_nanos for each in offers), 0, 0, "", 0)


def test_a_hold_is_sized_by_the_dearest_that_may_speak_and_by_all_that_cannot_be_stopped() -> None:
    first, last, spare = (
        offer("a", streams=False, worst=700),
        offer("b", streams=True),
        offer("c", streams=True, rate=2 * 10**6),
    )
    sizing = sizing_of(planned(first, last, spare))
    assert sizing == Sizing("b", input_usd_nanos=500 + 700, input_tokens=10 + 510, rate=2 * 10**6, output_tokens_max=500)
    assert sizing_of(planned(first)) is None


@pytest.mark.parametrize(
    ("left", "held", "rate", "paid"),
    [
        (BudgetLeft("b", "s", free_usd_nanos=9), 64, 5, 64),
        (BudgetLeft("b", "s", free_usd_nanos=9), 64, 0, None),
        (BudgetLeft("b", "s", free_tokens=9), 64, 0, 64),
        (BudgetLeft(), 64, 5, None),
        (BudgetLeft("b", "s", free_usd_nanos=9), 500, 5, None),
    ],
)
def test_only_what_is_limited_is_metered(left: BudgetLeft, held: int, rate: int, paid: int | None) -> None:
    assert paid_tokens(Held(left, held), Sizing("m", 0, 0, rate, 500)) == paid


async def test_an_outlet_holds_an_answer_back_for_a_slow_caller_and_lets_it_go_when_he_leaves() -> None:
    outlet = Outlet()
    writing = asyncio.ensure_future(delivered_to(outlet, 1_000))
    await asyncio.sleep(0)
    assert not writing.done()
    outlet.leave()
    assert await asyncio.wait_for(writing, 5) == 1_000


async def delivered_to(outlet: Outlet, pieces: int) -> int:
    for _ in range(pieces):
        await outlet.put(piece())
    return pieces


async def test_a_block_that_is_attended_ends_when_the_caller_leaves() -> None:
    outlet = Outlet()

    async def wait() -> None:
        async with outlet.attended():
            await asyncio.Event().wait()

    waiting: Any = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    outlet.leave()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    outlet.leave()
