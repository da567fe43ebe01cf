"""What every store of outcomes promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import numpy as np
import pytest
from farthing_router.learning.evidence import CONTEXT_SIZE, Evidence
from farthing_router.learning.outcomes import DecisionUnknown, Judged, Opinion, Outcome, OutcomeStore, Part, Source, Sums
from farthing_router.store import RequestIdReused, StoreUnavailable
from farthing_router.store.outcomes import PostgresOutcomes
from farthing_runtime.postgres import open_pool

NOW = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)
SCOPE = "organizations/acme/workspaces/search"
CONTEXT = np.linspace(1.0, -1.0, CONTEXT_SIZE)


def outcome(**changes: object) -> Outcome:
    made = Outcome(
        request_id=str(uuid.uuid4()),
        scope=SCOPE,
        task="chat",
        model="small",
        created_at=NOW,
        part=Part.SERVED,
        automatic=0.75,
        features=np.array([0.5, np.nan, 3.0]),
        context=CONTEXT,
        fingerprint=b"print",
        cost_usd_nanos=1_000,
        input_tokens=100,
        output_tokens=20,
        needs=frozenset({"json"}),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def opinion(on: Outcome, value: float, *, source: Source = Source.USER, request_id: str = "", stamp: bytes = b"x") -> Opinion:
    return Opinion(request_id or str(uuid.uuid4()), on.organization, on.request_id, source, value, stamp, NOW)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="router", size_max=8) as opened:
        yield opened


@pytest.fixture
def store(pool: asyncpg.Pool) -> OutcomeStore:
    return PostgresOutcomes(pool)


async def sums(store: OutcomeStore, scope: str = "organizations/acme") -> Sums:
    total = Sums()
    for day in await store.days(scope, model="", task="", start=NOW - timedelta(days=5), end=NOW + timedelta(days=5)):
        total.add(day.sums)
    return total


async def test_an_answer_is_read_back_and_counts_once_in_its_scope_and_in_those_above(store: OutcomeStore) -> None:
    one = outcome()
    await store.add([one, one])
    await store.add([one])
    found = await store.find("acme", one.request_id)
    assert found is not None
    assert (found.model, found.automatic, found.fingerprint) == ("small", 0.75, b"print")
    assert np.allclose(found.features, one.features, equal_nan=True)
    assert np.allclose(found.context, one.context, atol=1e-6)
    for scope, answers in ((SCOPE, 1), ("organizations/acme", 1), ("organizations/acme/workspaces/other", 0)):
        counted = await sums(store, scope)
        assert (counted.answers, counted.requests, counted.cost_usd_nanos) == (answers, answers, 1_000 * answers)
    assert (await sums(store)).needs == {"json"}


async def test_what_was_passed_over_counts_as_an_answer_but_not_as_a_request_and_takes_no_opinion(store: OutcomeStore) -> None:
    served, passed = outcome(model="large"), outcome(part=Part.PASSED_OVER, automatic=0.25)
    await store.add([served, replace(passed, request_id=served.request_id)])
    counted = await sums(store)
    assert (counted.answers, counted.requests, counted.quality) == (2, 1, 1.0)
    found = await store.find("acme", served.request_id)
    assert found is not None
    assert found.model == "large"


async def test_an_opinion_takes_the_place_of_the_automatic_score_and_truth_that_of_opinions(store: OutcomeStore) -> None:
    one = outcome()
    await store.add([one])
    values = []
    for source, value in ((Source.MODEL, 0.2), (Source.USER, 0.5), (Source.USER, 1.0), (Source.TRUTH, 0.0), (Source.USER, 1.0)):
        values.append((await store.judge(opinion(one, value, source=source))).quality)
    assert values == [0.2, 0.5, 0.75, 0.0, 0.0]
    counted = await sums(store)
    assert (counted.answers, counted.opinions) == (1, 1)
    assert counted.quality == pytest.approx(0.0)
    arm = (await store.arms(0, rows_max=10))[0]
    assert (arm.evidence.answers, arm.evidence.opinions) == (1, 1)
    assert arm.evidence.people(now=NOW) == pytest.approx((1.0, 0.0))


async def test_the_same_opinion_counts_once_and_another_under_its_id_is_refused(store: OutcomeStore) -> None:
    one = outcome()
    await store.add([one])
    request_id = str(uuid.uuid4())
    first = await store.judge(opinion(one, 1.0, request_id=request_id))
    again = await store.judge(opinion(one, 1.0, request_id=request_id))
    assert (first.repeated, again.repeated, again.quality) == (False, True, 1.0)
    with pytest.raises(RequestIdReused):
        await store.judge(opinion(one, 0.0, request_id=request_id, stamp=b"y"))
    assert (await sums(store)).opinions == 1


async def test_racing_opinions_and_answers_of_two_replicas_add_up(store: OutcomeStore, pool: asyncpg.Pool) -> None:
    other = PostgresOutcomes(pool)
    answers = [
        outcome(model="small" if number % 2 else "large", created_at=NOW + timedelta(hours=number)) for number in range(20)
    ]
    await asyncio.gather(*((other if number % 2 else store).add(answers[number::4]) for number in range(4)))
    given = [opinion(each, number % 3 / 2) for number, each in enumerate(answers)]
    judged: list[Judged] = list(
        await asyncio.gather(*((other if number % 2 else store).judge(each) for number, each in enumerate(given)))
    )
    assert len(judged) == 20
    counted = await sums(store)
    assert (counted.answers, counted.opinions) == (20, 20)
    assert counted.opinion == pytest.approx(sum(each.value for each in given))
    alone = Evidence.none()
    for answer, each in zip(answers, given, strict=True):
        if answer.model == "small":
            alone = alone + Evidence.automatic(0.75, moment=answer.created_at)
            alone = alone + Evidence.opinion(each.value, np.float32(CONTEXT).astype(float), moment=answer.created_at)
    (small,) = [arm for arm in await store.arms(0, rows_max=10) if arm.model == "small"]
    assert np.allclose(small.evidence.sums, alone.sums, rtol=1e-9)


async def test_evidence_is_read_on_in_the_order_of_its_changes(store: OutcomeStore) -> None:
    one, other = outcome(model="a"), outcome(model="b")
    await store.add([one, other])
    first = await store.arms(0, rows_max=10)
    assert [arm.model for arm in first] == ["a", "b"]
    await store.judge(opinion(one, 1.0))
    (changed,) = await store.arms(first[-1].number, rows_max=10)
    assert (changed.model, changed.evidence.opinions) == ("a", 1)


async def test_nothing_is_seen_by_the_name_of_another_organisation(store: OutcomeStore) -> None:
    one = outcome()
    await store.add([one])
    assert await store.find("other", one.request_id) is None
    with pytest.raises(DecisionUnknown):
        await store.judge(replace(opinion(one, 1.0), organization="other"))
    assert (await sums(store, "organizations/other")).answers == 0
    twin = replace(one, scope="organizations/other", model="large")
    await store.add([twin])
    await store.judge(opinion(twin, 0.0))
    assert (await sums(store)).opinions == 0


async def test_judged_answers_are_read_of_a_scope_and_below_the_newest_first(store: OutcomeStore) -> None:
    answers = [outcome(created_at=NOW + timedelta(minutes=number)) for number in range(3)]
    beside = outcome(scope="organizations/acme/workspaces/search_2")
    await store.add([*answers, beside])
    for each in (*answers, beside):
        await store.judge(opinion(each, 1.0))
    end = NOW + timedelta(days=1)
    read = await store.labelled(SCOPE, task="chat", start=NOW, end=end, rows_max=2)
    assert [each.created_at for each in read] == [answers[2].created_at, answers[1].created_at]
    assert len(await store.labelled(SCOPE, task="", start=NOW, end=end, rows_max=9)) == 3
    assert len(await store.labelled("organizations/acme", task="", start=NOW, end=end, rows_max=9)) == 4
    assert await store.labelled(SCOPE, task="other", start=NOW, end=end, rows_max=9) == []


async def test_old_answers_are_forgotten_and_their_sums_stay(store: OutcomeStore) -> None:
    old, new = outcome(created_at=NOW - timedelta(days=3)), outcome()
    await store.add([old, new])
    assert await store.forget(before=NOW - timedelta(days=1), rows_max=10) == 1
    assert await store.find("acme", old.request_id) is None
    assert await store.find("acme", new.request_id) is not None
    assert (await sums(store)).answers == 2


async def test_a_database_out_of_reach_has_a_name(database_url: str) -> None:
    async with open_pool(database_url, schema="router", size_max=1) as opened:
        await opened.close()
        away = PostgresOutcomes(opened)
        one = outcome()
        for question in (
            away.add([one]),
            away.find("acme", one.request_id),
            away.judge(opinion(one, 1.0)),
            away.arms(0, rows_max=1),
            away.days(SCOPE, model="", task="", start=NOW, end=NOW),
            away.labelled(SCOPE, task="", start=NOW, end=NOW, rows_max=1),
            away.forget(before=NOW, rows_max=1),
        ):
            with pytest.raises(StoreUnavailable):
                await question
