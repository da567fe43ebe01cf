"""What every store of experiments promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import pytest
from farthing_core.clock import ManualClock
from farthing_router.experiments.ports import ExperimentStore, KeptTally, Page
from farthing_router.experiments.tallies import Outcome, Tally, added
from farthing_router.experiments.terms import (
    Arm,
    Experiment,
    ExperimentOverlaps,
    ExperimentsFull,
    Kind,
    Metric,
    Standing,
    State,
)
from farthing_router.experiments.trials import Trials
from farthing_router.routing.errands import AllAttemptsFailed, Errand, Finished
from farthing_router.routing.routes import Route
from farthing_router.routing.rules import Action, Weights
from farthing_router.store import RequestIdReused, StoreUnavailable
from farthing_router.store.experiments import PostgresExperiments
from farthing_runtime.postgres import open_pool

NOW = datetime(2026, 7, 1, 12, 30, 15, 250_000, tzinfo=UTC)
ORG = "organizations/acme"


def experiment(scope: str = ORG, **changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "experiment_id": str(uuid.uuid4()),
        "scope": scope,
        "task": "",
        "display_name": "",
        "kind": Kind.AB,
        "arms": (Arm("a", share=0.5), Arm("b", model="small", share=0.5)),
        "metric": Metric.COST,
        "harm_max": 0.02,
        "confidence": 0.95,
        "requests_max": 1_000,
        "end_at": None,
        "sticky": "user",
        "canary_shares": (),
        "created_at": NOW,
    }
    return Experiment(**{**fields, **changes})


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="router", size_max=8) as opened:
        yield opened


@pytest.fixture
def store(pool: asyncpg.Pool) -> ExperimentStore:
    return PostgresExperiments(pool, running_max=20)


async def create(store: ExperimentStore, given: Experiment, *, request_id: str = "", fingerprint: bytes = b"x") -> Experiment:
    return await store.create(given, request_id=request_id or str(uuid.uuid4()), fingerprint=fingerprint)


def tally(seed: int, count: int = 40) -> Tally:
    """Large figures, to the nano."""
    rng, total = Random(seed), Tally()
    for _ in range(count):
        failed = rng.random() < 0.2
        total.take(Outcome(failed, rng.randrange(2**50), None if failed else rng.randrange(10**7)))
        total.take_score(rng.random())
        total.take_pair(Outcome(False, rng.randrange(2**50), 5), Outcome(False, rng.randrange(2**50), 7))
        total.take_pair_score(rng.random(), rng.random())
    return total


def kept(of: Experiment, arm: str, seen: Tally, *, step: int = 0) -> KeptTally:
    return KeptTally(of.organization, of.experiment_id, step, arm, seen)


async def test_what_was_written_is_read_back_as_it_was(store: ExperimentStore) -> None:
    action = Action("balanced", weights=Weights(1, 0, 2), models=("small", "large"), quality_min=0.5, latency_ms_max=900)
    given = experiment(
        task="chat",
        display_name="for people",
        kind=Kind.CANARY,
        arms=(Arm("a", calibration_id="c1"), Arm("b", action=action)),
        metric=Metric.QUALITY,
        end_at=NOW + timedelta(days=3),
        sticky="session",
        canary_shares=(0.01, 1.0),
    )
    made = await create(store, given)
    assert made == replace(given, number=made.number, serial=made.serial)
    assert await store.find("acme", given.experiment_id) == made
    assert await store.find("other", given.experiment_id) is None
    assert await store.find("acme", "no uuid") is None


@pytest.mark.parametrize(
    ("scope", "task", "overlaps"),
    [
        (f"{ORG}/workspaces/w", "chat", True),
        (f"{ORG}/workspaces/w", "", True),
        (ORG, "chat", True),
        (f"{ORG}/workspaces/w/projects/p/users/u", "chat", True),
        (f"{ORG}/workspaces/w", "caption", False),
        (f"{ORG}/workspaces/w2", "chat", False),
        ("organizations/other/workspaces/w", "chat", False),
    ],
)
async def test_no_two_experiments_with_requests_in_common_run(
    store: ExperimentStore, scope: str, task: str, overlaps: bool
) -> None:
    first = await create(store, experiment(f"{ORG}/workspaces/w", task="chat"))
    if not overlaps:
        await create(store, experiment(scope, task=task))
        return
    with pytest.raises(ExperimentOverlaps) as caught:
        await create(store, experiment(scope, task=task))
    assert caught.value.facts["experiment_id"] == first.experiment_id
    await store.change(first.key, replace(first.standing, state=State.STOPPED, stopped_at=NOW), version=1)
    await create(store, experiment(scope, task=task))


async def test_of_many_who_begin_one_on_the_same_requests_at_once_one_does(store: ExperimentStore) -> None:
    scopes = [ORG, f"{ORG}/workspaces/w", f"{ORG}/workspaces/w/projects/p", ORG] * 4
    ended = await asyncio.gather(*(create(store, experiment(scope)) for scope in scopes), return_exceptions=True)
    made = [each for each in ended if isinstance(each, Experiment)]
    # Projects and workspaces contain one another, so that exactly one is left.
    assert len(made) == 1
    assert {type(each) for each in ended if each not in made} == {ExperimentOverlaps}


async def test_a_request_id_gives_what_was_written_and_is_refused_with_another_body(store: ExperimentStore) -> None:
    request_id, given = str(uuid.uuid4()), experiment()
    made = await asyncio.gather(*(create(store, given, request_id=request_id) for _ in range(6)))
    assert all(each == made[0] for each in made)
    with pytest.raises(RequestIdReused):
        await create(store, given, request_id=request_id, fingerprint=b"other")
    await create(store, experiment("organizations/other"), request_id=request_id, fingerprint=b"other")


async def test_no_more_run_than_may_and_ended_ones_make_room(store: ExperimentStore) -> None:
    made = [await create(store, experiment(f"{ORG}/workspaces/w{number}")) for number in range(20)]
    with pytest.raises(ExperimentsFull):
        await create(store, experiment(f"{ORG}/workspaces/more"))
    await create(store, experiment("organizations/other"))
    await store.change(made[3].key, replace(made[3].standing, state=State.CONCLUDED, stopped_at=NOW), version=1)
    await create(store, experiment(f"{ORG}/workspaces/more"))


async def test_of_many_who_change_a_version_one_does_and_what_has_ended_stays(store: ExperimentStore) -> None:
    made = await create(store, experiment(kind=Kind.CANARY, canary_shares=(0.1, 1.0)))
    stepped = Standing(step=1, reason="grows")
    stopped = Standing(State.STOPPED_FOR_HARM, "harm", stopped_at=NOW)
    changes = await asyncio.gather(*(store.change(made.key, each, version=1) for each in (stepped, stopped) * 6))
    (changed,) = [each for each in changes if each is not None]
    assert changed.standing.version == 2
    assert changed.number > made.number
    assert changed.serial == made.serial
    ended = changed if not changed.running else await store.change(made.key, stopped, version=2)
    assert ended is not None
    assert await store.change(made.key, stepped, version=ended.standing.version) is None
    assert await store.find(*made.key) == ended


async def test_whoever_reads_on_learns_of_every_change_and_starts_with_what_runs(store: ExperimentStore) -> None:
    made = [await create(store, experiment(f"{ORG}/workspaces/w{number}")) for number in range(4)]
    ended = await store.change(made[1].key, replace(made[1].standing, state=State.STOPPED, stopped_at=NOW), version=1)
    assert ended is not None
    assert await store.after(0, rows_max=10) == [made[0], made[2], made[3]]
    assert await store.after(made[2].number, rows_max=10) == [made[3], ended]
    assert await store.after(0, rows_max=2) == [made[0], made[2]]


async def test_lists_are_of_a_scope_and_all_below_newest_first(store: ExperimentStore) -> None:
    made = [await create(store, experiment(f"{ORG}/workspaces/w{number}")) for number in range(4)]
    await create(store, experiment(f"{ORG}/workspaces/w0x"))
    await create(store, experiment("organizations/acme2"))
    await store.change(made[3].key, replace(made[3].standing, state=State.STOPPED, stopped_at=NOW), version=1)
    assert [each.scope[-2:] for each in await store.listed(Page(ORG, None, None, 10))] == ["0x", "w3", "w2", "w1", "w0"]
    assert [each.scope for each in await store.listed(Page(made[0].scope, None, None, 10))] == [made[0].scope]
    assert [each.key for each in await store.listed(Page(ORG, State.STOPPED, None, 10))] == [made[3].key]
    assert [each.key for each in await store.listed(Page(ORG, None, made[2].serial, 2))] == [made[1].key, made[0].key]


async def test_what_a_replica_has_seen_counts_once_however_often_it_is_kept_and_that_of_several_adds_up(
    store: ExperimentStore,
) -> None:
    made, replicas = await create(store, experiment()), [str(uuid.uuid4()) for _ in range(3)]
    seen = {replica: tally(number) for number, replica in enumerate(replicas)}
    await asyncio.gather(
        *(store.keep(replica, [kept(made, "a", each)]) for replica, each in seen.items() for _ in range(3)),
        store.keep(replicas[0], [kept(made, "b", tally(9)), kept(made, "b", tally(8), step=1)]),
    )
    found = (await store.tallies((made.key,)))[made.key]
    assert found[0, "a"] == added(seen.values())
    assert (found[0, "b"], found[1, "b"]) == (tally(9), tally(8))
    grown = added((seen[replicas[0]], tally(20)))
    await store.keep(replicas[0], [kept(made, "a", grown)])
    found = (await store.tallies((made.key,)))[made.key]
    assert found[0, "a"] == added((grown, seen[replicas[1]], seen[replicas[2]]))
    assert await store.tallies((("other", made.experiment_id),)) == {}


class NobodyDecided:
    """Decisions of a router that has made none."""

    async def arms_of(self, organization: str, request_ids: Any) -> dict[str, tuple[str, str]]:
        return {}


def ended_as(replica: Trials, given: Experiment, arm: str, *, failed: bool) -> None:
    """A request of an arm comes to its end on a replica."""
    route = Route((), "fixed", "", 0, 0, 0, 1, 0.0, experiment_id=given.experiment_id, arm=arm)
    errand = Errand(
        route=route,
        prices=None,  # type: ignore[arg-type]
        conversation=(),
        parameters=None,
        task="chat",
        request_id=str(uuid.uuid4()),
        wants_json=False,
        service_tier="",
        ends_at_s=60.0,
        calls_left=1,
        scope=ORG,
    )
    finished = None if failed else Finished(None, "m", (), False, 1_000)  # type: ignore[arg-type]
    replica.counts.ended(errand, finished, AllAttemptsFailed(attempts=[]) if failed else None)


async def test_racing_replicas_stop_a_harmful_experiment_once(store: ExperimentStore) -> None:
    made = await create(store, experiment(metric=Metric.ERROR_RATE, arms=(Arm("a", share=0.5), Arm("b", model="s", share=0.5))))
    replicas = [Trials(store, clock=ManualClock(NOW), replica_id=str(uuid.uuid4()), decided=NobodyDecided()) for _ in range(4)]
    for replica in replicas:
        await replica.watched.refresh()
        for number in range(60):
            for arm, failed in (("a", False), ("b", number % 2 == 0)):
                ended_as(replica, made, arm, failed=failed)
    await asyncio.gather(*(replica.look() for replica in replicas))
    ended = await store.find(*made.key)
    assert ended is not None
    assert (ended.standing.state, ended.standing.version) == (State.STOPPED_FOR_HARM, 2)
    for replica in replicas:
        await replica.watched.refresh()
        assert replica.find(*made.key) is None


async def test_old_experiments_are_forgotten_with_their_sums_and_running_ones_never(store: ExperimentStore) -> None:
    made = [await create(store, experiment(f"{ORG}/workspaces/w{number}")) for number in range(3)]
    for number, days in ((0, 500), (1, 3)):
        ended = replace(made[number].standing, state=State.STOPPED, stopped_at=NOW - timedelta(days=days))
        await store.change(made[number].key, ended, version=1)
        await store.keep(str(uuid.uuid4()), [kept(made[number], "a", tally(number))])
    assert await store.forget(before=NOW - timedelta(days=400), rows_max=10) == 1
    assert [await store.find(*each.key) is None for each in made] == [True, False, False]
    assert set(await store.tallies([each.key for each in made])) == {made[1].key}


async def test_a_database_that_is_away_is_said_to_be(store: ExperimentStore, pool: asyncpg.Pool) -> None:
    await pool.close()
    with pytest.raises(StoreUnavailable):
        await store.after(0, rows_max=1)
