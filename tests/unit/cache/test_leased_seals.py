"""Keys on loan: asked for once, renewed beside, dropped at the end, and what happens without them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from farthing_cache.sealing.leased import LeasedSeals, Lent
from farthing_cache.sealing.seals import KeysGone, SealUnavailable, Unsealed
from farthing_cache.sealing.sweeping import UnreadableSweep
from farthing_core.clock import ManualClock
from farthing_runtime.envelopes import DataKeys, header_of


class Lender:
    """Lends keys of a table for 60 s; raises what it is told to."""

    def __init__(self) -> None:
        self.numbers = [1]
        self.failure: Exception | None = None
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None

    async def lend(self, organization: str) -> Lent:
        self.asked.append(organization)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Lent(DataKeys(organization, "cache", {number: bytes([number]) * 32 for number in self.numbers}), 60.0)


class Case:
    def __init__(self, *, organizations_max: int = 100) -> None:
        self.clock, self.lender = ManualClock(), Lender()
        self.seals = LeasedSeals(self.lender, clock=self.clock, organizations_max=organizations_max)


async def settled(seals: Any) -> None:
    """Waits for what was asked for beside."""
    while seals._asking:
        await asyncio.gather(*seals._asking.values())
        await asyncio.sleep(0)


async def test_callers_at_once_share_one_question_and_a_lease_serves_many() -> None:
    case = Case()
    case.lender.gate = asyncio.Event()
    calls = [asyncio.create_task(case.seals.seal("acme", b"row", b"payload")) for _ in range(50)]
    while not case.lender.asked:
        await asyncio.sleep(0)
    case.lender.gate.set()
    for sealed in await asyncio.gather(*calls):
        assert await case.seals.open("acme", b"row", sealed) == b"payload"
    assert case.lender.asked == ["acme"]


async def test_a_lease_in_use_is_renewed_beside_before_it_ends() -> None:
    case = Case()
    sealed = await case.seals.seal("acme", b"row", b"payload")
    for turn in range(5):
        case.clock.advance(40)
        assert await case.seals.open("acme", b"row", sealed) == b"payload"
        await settled(case.seals)
        assert len(case.lender.asked) == turn + 2


async def test_without_the_lender_the_lease_is_used_to_its_end_and_not_longer() -> None:
    case = Case()
    sealed = await case.seals.seal("acme", b"row", b"payload")
    case.lender.failure = SealUnavailable()
    case.clock.advance(59)
    assert await case.seals.open("acme", b"row", sealed) == b"payload"
    await settled(case.seals)
    case.clock.advance(1)
    assert await case.seals.open("acme", b"row", sealed) is None
    assert not case.seals.gone("acme", sealed)
    with pytest.raises(SealUnavailable):
        await case.seals.seal("acme", b"row", b"payload")
    case.lender.failure = None
    case.clock.advance(1)
    assert await case.seals.open("acme", b"row", sealed) == b"payload"


async def test_a_lender_that_is_away_is_asked_once_a_second_however_many_call() -> None:
    case = Case()
    case.lender.failure = SealUnavailable()
    for _ in range(20):
        assert await case.seals.open("acme", b"row", header_of(1) + b"x" * 40) is None
    assert len(case.lender.asked) == 1
    case.clock.advance(1)
    await case.seals.open("acme", b"row", header_of(1) + b"x" * 40)
    assert len(case.lender.asked) == 2


async def test_erased_keys_make_everything_unreadable_within_the_lease_and_for_good() -> None:
    case = Case()
    sealed = await case.seals.seal("acme", b"row", b"payload")
    case.lender.failure = KeysGone()
    case.clock.advance(60)
    assert await case.seals.open("acme", b"row", sealed) is None
    assert case.seals.gone("acme", sealed)
    assert await case.seals.headers("acme") == []
    with pytest.raises(KeysGone):
        await case.seals.seal("acme", b"row", b"payload")


async def test_rotated_keys_still_open_what_is_old_and_another_replicas_new_key_is_fetched() -> None:
    case, other = Case(), Case()
    old = await case.seals.seal("acme", b"row", b"old")
    other.lender.numbers = case.lender.numbers = [1, 2]
    new = await other.seals.seal("acme", b"row", b"new")
    assert await case.seals.open("acme", b"row", new) is None  # asked less than a second ago
    assert not case.seals.gone("acme", new)
    case.clock.advance(1)
    assert await case.seals.open("acme", b"row", new) == b"new"
    assert await case.seals.open("acme", b"row", old) == b"old"
    assert await case.seals.headers("acme") == [header_of(1), header_of(2)]


async def test_changed_bytes_are_gone_for_good() -> None:
    case = Case()
    sealed = await case.seals.seal("acme", b"row", b"payload")
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    assert await case.seals.open("acme", b"row", changed) is None
    assert case.seals.gone("acme", changed)
    assert await case.seals.open("acme", b"row", b"\0plain") is None
    assert case.seals.unreadable == 2


async def test_leases_are_bounded_and_dropped_when_they_end() -> None:
    case = Case(organizations_max=3)
    for number in range(10):
        await case.seals.seal(f"o{number}", b"row", b"payload")
    assert list(case.seals._held) == ["o7", "o8", "o9"]
    case.clock.advance(60)
    await case.seals.forget_ended()
    assert not case.seals._held


async def test_large_payloads_go_through_a_thread_and_come_back_whole() -> None:
    case, payload = Case(), b"p" * 300_000
    sealed = await case.seals.seal("acme", b"row", payload)
    assert await case.seals.open("acme", b"row", sealed) == payload


async def test_unsealed_keeps_its_own_and_reads_nothing_sealed() -> None:
    plain, sealed = Unsealed(), await Case().seals.seal("acme", b"row", b"payload")
    assert await plain.open("acme", b"row", await plain.seal("acme", b"row", b"payload")) == b"payload"
    assert await plain.open("acme", b"row", sealed) is None
    assert not plain.gone("acme", sealed)


class Rows:
    """Counts unreadable rows by organisation."""

    def __init__(self, **rows: int) -> None:
        self.rows = rows
        self.turns: list[str] = []

    async def organizations(self, *, after: str, count_max: int) -> list[str]:
        return [name for name in sorted(self.rows) if name > after][:count_max]

    async def drop_unreadable(self, organization: str, headers: Any, *, count_max: int) -> int:
        self.turns.append(organization)
        dropped = min(count_max, self.rows[organization])
        self.rows[organization] -= dropped
        return dropped


async def test_the_sweep_goes_round_and_looks_again_only_where_keys_have_changed() -> None:
    case, rows = Case(), Rows(a=3, b=0, c=5)
    sweep = UnreadableSweep(rows, case.seals, organizations_max=2, rows_max=4)
    assert [await sweep.turn() for _ in range(6)] == [3, 4, 0, 1, 0, 0]
    assert rows.turns == ["a", "b", "c", "c"]
    case.lender.numbers = [2]
    case.clock.advance(60)
    await sweep.turn()
    assert rows.turns[4:] == ["a", "b"]


async def test_the_sweep_leaves_what_may_be_readable_again() -> None:
    case, rows = Case(), Rows(a=3)
    case.lender.failure = SealUnavailable()
    assert await UnreadableSweep(rows, case.seals, organizations_max=2, rows_max=4).turn() == 0
    assert rows.rows == {"a": 3}
