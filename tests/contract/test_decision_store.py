"""What every store of decisions promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from farthing_router.performance.decisions import Decision, DecisionsAsked, DecisionStore, DecisionSums, Rating, SummaryAsked
from farthing_router.performance.labels import LABELS, Labelled, Places
from farthing_router.store import StoreUnavailable
from farthing_router.store.decisions import PostgresDecisions
from farthing_runtime.postgres import open_pool

NOW = datetime(2026, 7, 1, 12, 30, 15, 250_123, tzinfo=UTC)
SCOPE = "organizations/acme/workspaces/w/projects/p/users/ann"


def decision(**changes: object) -> Decision:
    made = Decision(
        organization="acme",
        decided_at=NOW,
        decision_id=str(uuid.uuid4()),
        request_id=str(uuid.uuid4()),
        shadow_of="",
        scope=SCOPE,
        task="chat",
        requested_model="farthing/auto",
        strategy="cascade",
        reason="cascade of 2",
        rule_id="r1",
        rule_version=3,
        calibration_id="c1",
        experiment_id="e1",
        arm="b",
        complexity=0.25,
        candidates=("small", "large"),
        served_model="large",
        outcome="escalated",
        escalated=True,
        confidence=0.75,
        cost_usd_nanos=2**53 - 1,
        latency_ms=1500,
        attempts=2,
    )
    return made._replace(**changes)  # type: ignore[arg-type]


def placed(*decisions: Decision) -> list[tuple[Decision, Labelled]]:
    places = Places()
    made = []
    for each in decisions:
        values = tuple("\n".join(each.candidates) if name == "candidates" else getattr(each, name) for name in LABELS)
        hour = each.decided_at.replace(minute=0, second=0, microsecond=0)
        made.append((each, places.place(each.organization, hour, values, shadow=bool(each.shadow_of))))
    return made


def asked(**changes: object) -> DecisionsAsked:
    return replace(DecisionsAsked("acme", "organizations/acme", 100), **changes)  # type: ignore[arg-type]


def summary(*group_by: str, **changes: object) -> SummaryAsked:
    start = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    return replace(SummaryAsked("acme", start, start + timedelta(days=1), group_by), **changes)  # type: ignore[arg-type]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="router", size_max=8) as opened:
        yield opened


@pytest.fixture
def store(pool: asyncpg.Pool) -> DecisionStore:
    return PostgresDecisions(pool)


async def test_what_was_written_is_read_back_as_it_was(store: DecisionStore) -> None:
    given = [
        decision(),
        decision(confidence=None, served_model="", outcome="the caller left", candidates=()),
        decision(scope="organizations/acme", shadow_of="another", reason="ünusual «reason», with 'quotes'"),
    ]
    await store.write(placed(*given))
    found = await store.find(asked())
    assert sorted(found, key=lambda each: each.decision_id) == sorted(given, key=lambda each: each.decision_id)


async def test_what_is_sent_again_is_written_and_counted_once_also_by_racing_senders(store: DecisionStore) -> None:
    given = placed(*(decision(task=f"t{number % 3}", cost_usd_nanos=number) for number in range(60)))
    await asyncio.gather(*(store.write(given[start:] + given[:start]) for start in range(0, 60, 10)))
    assert len(await store.find(asked())) == 60
    (total,) = await store.summarize(summary())
    assert (total.decisions, total.cost_usd_nanos, total.escalated, total.attempts) == (60, sum(range(60)), 60, 120)


async def test_racing_replicas_add_up(store: DecisionStore) -> None:
    async def replica(number: int) -> None:
        for turn in range(10):
            await store.write(placed(*(decision(task=f"t{(turn * number + each) % 4}") for each in range(5))))

    await asyncio.gather(*(replica(number) for number in range(6)))
    sums = await store.summarize(summary("task"))
    found = await store.find(asked(count_max=1000))
    assert {each.labels["task"]: each.decisions for each in sums} == {
        task: sum(each.task == task for each in found) for task in ("t0", "t1", "t2", "t3")
    }
    assert sum(each.decisions for each in sums) == 300


async def test_pages_go_on_where_the_last_one_ended_also_within_one_moment(store: DecisionStore) -> None:
    await store.write(placed(*(decision(decided_at=NOW + timedelta(seconds=number // 4)) for number in range(20))))
    seen: list[Decision] = []
    before = None
    while page := await store.find(asked(count_max=3, before=before)):
        seen += page
        before = (page[-1].decided_at, page[-1].decision_id)
    assert len({each.decision_id for each in seen}) == len(seen) == 20
    assert [each.decided_at for each in seen] == sorted((each.decided_at for each in seen), reverse=True)


async def test_every_filter_finds_what_it_is_for_and_nothing_else(store: DecisionStore) -> None:
    mine, other = (
        decision(),
        decision(
            task="ads",
            strategy="fixed",
            experiment_id="",
            served_model="tiny",
            requested_model="tiny",
            decided_at=NOW - timedelta(hours=3),
            scope="organizations/acme/workspaces/w2",
        ),
    )
    shadow = decision(
        shadow_of=other.request_id, experiment_id="e2", decided_at=NOW - timedelta(hours=5), task="x", strategy="y"
    )
    await store.write(placed(mine, other, shadow))

    async def ids(**filters: object) -> set[str]:
        return {each.decision_id for each in await store.find(asked(**filters))}

    a, b, c = mine.decision_id, other.decision_id, shadow.decision_id
    assert await ids(task="ads") == {b}
    assert await ids(strategy="cascade") == {a}
    assert await ids(experiment_id="e1") == {a}
    assert await ids(model="tiny") == {b}
    assert await ids(model="large") == {a, c}
    assert await ids(model="farthing/auto") == {a, c}
    assert await ids(request_id=other.request_id) == {b, c}
    assert await ids(request_id="no uuid") == set()
    assert await ids(request_id=other.request_id, model="large") == {c}
    assert await ids(start=NOW - timedelta(hours=3), end=NOW) == {b}
    assert await ids(task="ads", strategy="cascade") == set()


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("organizations/acme", {"ann", "ben", "q", "w", "w2", "top"}),
        ("organizations/acme/workspaces/w", {"ann", "ben", "q", "w"}),
        ("organizations/acme/workspaces/w/projects/p", {"ann", "ben"}),
        ("organizations/acme/workspaces/w/projects/p/users/ann", {"ann"}),
        ("organizations/acme/workspaces/w/projects/pp", set()),
    ],
)
async def test_a_scope_has_its_decisions_and_those_below(store: DecisionStore, scope: str, found: set[str]) -> None:
    scopes = {
        "top": "organizations/acme",
        "w": "organizations/acme/workspaces/w",
        "w2": "organizations/acme/workspaces/w2",
        "q": "organizations/acme/workspaces/w/projects/p-q",
        "ann": SCOPE,
        "ben": "organizations/acme/workspaces/w/projects/p/users/ben",
    }
    await store.write(placed(*(decision(scope=path, task=name) for name, path in scopes.items())))
    assert {each.task for each in await store.find(asked(scope=scope))} == found


async def test_nobody_sees_another_organisations_decisions(store: DecisionStore) -> None:
    twin = decision()
    await store.write(placed(twin, twin._replace(organization="acme2", scope="organizations/acme2")))
    for filters in ({}, {"request_id": twin.request_id}, {"model": "large"}, {"task": "chat"}, {"experiment_id": "e1"}):
        assert [each.organization for each in await store.find(asked(**filters))] == ["acme"]
    assert [each.decisions for each in await store.summarize(summary("task"))] == [1]
    assert await store.rate([stranger := Rating("globex", twin.request_id, 0.5)]) == [stranger]
    assert not await store.rate([Rating("acme", twin.request_id, 0.5)])
    (other,) = await store.summarize(summary(organization="acme2"))
    assert other.quality_answers == 0


async def test_sums_are_told_apart_by_labels_steps_and_shadows(store: DecisionStore) -> None:
    failed = decision(decided_at=NOW - timedelta(hours=2), served_model="", outcome="failed", escalated=False, confidence=None)
    shadow = decision(shadow_of="another")
    await store.write(placed(decision(), decision(task="ads", confidence=0.25), failed, shadow))
    sums = await store.summarize(summary("served_model", step=timedelta(hours=2)))
    assert [(each.step, each.labels, each.decisions, each.failed) for each in sums] == [
        (5, {"served_model": ""}, 1, 1),
        (6, {"served_model": "large"}, 2, 0),
    ]
    assert (sums[1].confidence_sum, sums[1].confidence_answers, sums[0].confidence_answers) == (1.0, 2, 0)
    assert [each.decisions for each in await store.summarize(summary(shadows=True))] == [1]
    assert [each.labels["task"] for each in await store.summarize(summary("task"))] == ["chat", "ads"]
    assert [each.decisions for each in await store.summarize(summary(task="ads"))] == [1]


async def test_case_33_sums_never_read_decisions_one_by_one(store: DecisionStore, pool: asyncpg.Pool) -> None:
    await store.write(placed(decision(), decision(task="ads")))
    await pool.execute("DROP TABLE decisions")
    assert {each.labels["task"]: each.decisions for each in await store.summarize(summary("task"))} == {"chat": 1, "ads": 1}


async def quality_of(store: DecisionStore) -> DecisionSums:
    (total,) = await store.summarize(summary())
    return total


async def test_a_rating_replaces_the_one_before_in_the_row_and_in_the_sums(store: DecisionStore) -> None:
    one, two = decision(), decision(quality=0.75)
    await store.write(placed(one, two))
    assert (await quality_of(store)).quality_sum == 0.75
    assert not await store.rate([])
    unknown = Rating("acme", str(uuid.uuid4()), 1.0)
    assert await store.rate([Rating("acme", one.request_id, 0.25), unknown]) == [unknown]
    assert not await store.rate([Rating("acme", one.request_id, 0.1), Rating("acme", one.request_id, 0.5)])
    assert not await store.rate([Rating("acme", two.request_id, 1.0)])
    found = {each.decision_id: each.quality for each in await store.find(asked())}
    assert found == {one.decision_id: 0.5, two.decision_id: 1.0}
    total = await quality_of(store)
    assert (total.quality_sum, total.quality_squares, total.quality_answers) == (1.5, 1.25, 2)


async def test_racing_ratings_leave_sums_that_say_what_the_rows_say(store: DecisionStore) -> None:
    given = [decision(task=f"t{number % 3}") for number in range(12)]
    await store.write(placed(*given))

    async def rate(turn: int) -> None:
        chosen = given[turn % 5 :: 2]
        await store.rate([Rating("acme", each.request_id, ((turn * 7) % 8) / 8) for each in chosen])

    await asyncio.gather(*(rate(turn) for turn in range(40)))
    rated = [each.quality for each in await store.find(asked()) if each.quality is not None]
    total = await quality_of(store)
    assert (total.quality_sum, total.quality_answers) == (sum(rated), len(rated))
    assert total.quality_squares == sum(each * each for each in rated)


async def test_only_served_answers_are_rated(store: DecisionStore) -> None:
    request_id = str(uuid.uuid4())
    await store.write(placed(decision(request_id=request_id, served_model=""), decision(request_id=request_id, shadow_of="x")))
    assert len(await store.rate([Rating("acme", request_id, 1.0)])) == 1


async def test_old_decisions_and_sums_go_a_bounded_number_at_a_time(store: DecisionStore) -> None:
    old = [decision(decided_at=NOW - timedelta(days=2), task=f"t{number}") for number in range(7)]
    await store.write(placed(*old, decision()))
    before = NOW - timedelta(days=1)
    assert [await store.forget(before=before, count_max=3) for _ in range(4)] == [3, 3, 1, 0]
    assert [each.task for each in await store.find(asked())] == ["chat"]
    assert [each.decisions for each in await store.summarize(summary(start=NOW - timedelta(days=9)))] == [1]


async def test_an_unreachable_database_is_a_named_failure(database_url: str) -> None:
    async with open_pool(database_url, schema="router", size_max=1) as pool:
        store = PostgresDecisions(pool)
        pool.terminate()
        with pytest.raises(StoreUnavailable):
            await store.find(asked())
        with pytest.raises(StoreUnavailable):
            await store.write(placed(decision()))
