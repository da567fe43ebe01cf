"""What the store of evidence on hits promises, on a real Postgres."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from farthing_cache.answers.asking import Certificate
from farthing_cache.certifying.hits import (
    Block,
    Hit,
    HitsWanted,
    HitUnknown,
    Place,
    Report,
    RequestIdReused,
    Source,
    Sums,
    Verdict,
)
from farthing_cache.store.evidence import PostgresEvidence
from farthing_runtime.postgres import open_pool

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
PLACE = Place("acme", "", "how-1", 7, 12, 20_000)
SCOPE = "organizations/acme/workspaces/w"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresEvidence]:
    async with open_pool(database_url, schema="cache", size_max=2) as pool:
        yield PostgresEvidence(pool)


def hit(number: int, **fields: Any) -> Hit:
    made = Hit(
        hit_id=f"hit-{number}",
        organization="acme",
        hit_at=NOW + timedelta(seconds=number),
        scope=SCOPE,
        asked=b"asked",
        cached=b"cached",
        entry_key=b"k" * 32,
        similarity=0.97,
        certificate=Certificate(0.98, 0.95, 10_000, 4_000, "global", "how-1"),
        place=PLACE,
        chosen=False,
    )
    return replace(made, **fields)


def report(**fields: Any) -> Report:
    made = Report(
        request_id=str(uuid.uuid4()),
        organization="acme",
        fingerprint=b"f",
        hit_id="hit-1",
        verdict=Verdict.WRONG,
        source=Source.CHECK,
        agreement=0.1,
        evicted=True,
        reason="",
        at=NOW,
    )
    return replace(made, **fields)


async def test_hits_come_back_whole_newest_first_and_only_to_their_own(store: PostgresEvidence) -> None:
    await store.add([hit(1), hit(2), hit(3, organization="other")], {})
    assert await store.hit("acme", "hit-1") == hit(1)
    with pytest.raises(HitUnknown):
        await store.hit("other", "hit-1")
    wanted = HitsWanted("acme", "organizations/acme")
    assert [each.hit_id for each in await store.hits(wanted, rows_max=9)] == ["hit-2", "hit-1"]
    further = replace(wanted, before=(hit(2).hit_at, "hit-2"))
    assert [each.hit_id for each in await store.hits(further, rows_max=9)] == ["hit-1"]
    assert await store.hits(replace(wanted, scope="organizations/acme/workspaces/v"), rows_max=9) == []


async def test_sums_add_up_and_whoever_reads_on_sees_every_change(store: PostgresEvidence) -> None:
    await store.add([], {PLACE: Sums(lookups=3, hits=1)})
    [first] = await store.sums_after(0, rows_max=9)
    await store.add([], {PLACE: Sums(lookups=2, wrong_misses=1.0)})
    [second] = await store.sums_after(first.number, rows_max=9)
    assert second.sums == Sums(lookups=5, hits=1, wrong_misses=1.0)
    assert second.place == PLACE


async def test_a_report_counts_once_and_another_under_its_name_is_refused(store: PostgresEvidence) -> None:
    await store.add([hit(1)], {PLACE: Sums(lookups=1, hits=1)})
    made = report()
    for _ in range(2):
        await store.report(made, change=Sums(judged=1, wrong_hits=1.0), place=PLACE)
    [row] = await store.sums_after(0, rows_max=9)
    assert row.sums == Sums(lookups=1, hits=1, judged=1, wrong_hits=1.0)
    judged = await store.hit("acme", "hit-1")
    assert (judged.verdict, judged.source, judged.agreement) == (Verdict.WRONG, Source.CHECK, 0.1)
    assert await store.reported("acme", made.request_id) == made
    assert [each.hit_id for each in await store.hits(HitsWanted("acme", SCOPE, Verdict.WRONG), rows_max=9)] == ["hit-1"]
    with pytest.raises(RequestIdReused):
        await store.report(replace(made, fingerprint=b"g"), change=Sums(), place=PLACE)


async def test_blocks_are_kept_once_and_read_on(store: PostgresEvidence) -> None:
    block = Block(0, "acme", b"a" * 16, b"c" * 16, b"k" * 32, b"\x00" * 768)
    await store.block(block, at=NOW)
    await store.block(block, at=NOW)
    [kept] = await store.blocks_after(0, rows_max=9)
    assert replace(kept, number=0) == block
    assert await store.blocks_after(kept.number, rows_max=9) == []


async def test_what_is_old_or_too_much_is_swept(store: PostgresEvidence) -> None:
    await store.add([hit(number) for number in range(5)], {PLACE: Sums(lookups=1), replace(PLACE, period=2): Sums(lookups=1)})
    await store.report(report(), change=Sums(), place=None)
    await store.sweep(before=NOW + timedelta(seconds=1), period_min=5, hits_max=3, count_max=100)
    kept = await store.hits(HitsWanted("acme", SCOPE), rows_max=9)
    assert [each.hit_id for each in kept] == ["hit-4", "hit-3", "hit-2"]
    assert [row.place.period for row in await store.sums_after(0, rows_max=9)] == [7]
