"""What every store of calibrations promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from farthing_router.calibration.kept import (
    CalibrationsFull,
    CalibrationStore,
    CalibrationUnknown,
    NewCalibration,
    Point,
    Report,
    State,
    Wanted,
)
from farthing_router.store import RequestIdReused, StoreUnavailable
from farthing_router.store.calibrations import PostgresCalibrations
from farthing_runtime.postgres import open_pool

NOW = datetime(2026, 7, 1, 12, 30, 15, 250_000, tzinfo=UTC)
ACME = "organizations/acme"
SEARCH = f"{ACME}/workspaces/search"
REPORT = Report(
    opening_models=("small", "smaller"),
    strong_model="big",
    target="at least 98 % of big's quality with 95 % confidence",
    quality_ratio_min=0.98,
    guaranteed=True,
    confidence=0.95,
    threshold=0.25,
    saving=(0.6, 0.5, 0.7),
    quality_ratio=(1.0, 0.985, 1.02),
    risk=0.02,
    escalated_share=0.3,
    examples=500,
    curve=(Point(-1.0, 1.2, 1.0, 1.0), Point(0.25, 0.4, 0.99, 0.3)),
    notes=("3 rows were left out",),
)


def new(**changes: object) -> NewCalibration:
    made = NewCalibration(
        calibration_id=str(uuid.uuid4()),
        organization="acme",
        scope=ACME,
        task="",
        report=REPORT,
        policy=b'{"format":1}' * 50,
        created_at=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="router", size_max=8) as opened:
        yield opened


@pytest.fixture
def store(pool: asyncpg.Pool) -> CalibrationStore:
    return PostgresCalibrations(pool, calibrations_max=20)


async def add(store: CalibrationStore, made: NewCalibration, *, request_id: str = "", activate: bool = False) -> NewCalibration:
    kept, _ = await store.add(made, request_id=request_id or str(uuid.uuid4()), fingerprint=b"x", activate=activate)
    assert kept.made == made
    return made


async def activate(store: CalibrationStore, calibration_id: str, *, task: str = "", request_id: str = "", body: bytes = b"x"):
    request_id = request_id or str(uuid.uuid4())
    return await store.activate(ACME, task, calibration_id, request_id=request_id, fingerprint=body, at=NOW + timedelta(days=1))


async def test_what_was_kept_is_read_back_as_it_was(store: CalibrationStore) -> None:
    made = await add(store, new(scope=SEARCH, task="qa"))
    kept = await store.get("acme", made.calibration_id)
    assert kept.made == made
    assert (kept.version, kept.state, kept.activated_at) == (1, State.DRAFT, None)


async def test_versions_count_within_a_scope_and_task(store: CalibrationStore) -> None:
    versions = []
    for scope, task in ((ACME, ""), (ACME, "qa"), (ACME, ""), (SEARCH, ""), (ACME, "")):
        made = await add(store, new(scope=scope, task=task))
        versions.append((await store.get("acme", made.calibration_id)).version)
    assert versions == [1, 1, 2, 1, 3]


async def test_nothing_is_read_by_the_name_of_another_organisation(store: CalibrationStore) -> None:
    made = await add(store, new())
    for call in (store.get("other", made.calibration_id), store.get("acme", "nonsense")):
        with pytest.raises(CalibrationUnknown):
            await call
    with pytest.raises(CalibrationUnknown):
        await store.activate(
            "organizations/other", "", made.calibration_id, request_id=str(uuid.uuid4()), fingerprint=b"", at=NOW
        )
    assert await store.list_from(Wanted("other", "organizations/other", descendants=True), rows_max=10) == []


async def test_the_same_request_id_gives_the_stored_calibration_and_another_body_is_refused(store: CalibrationStore) -> None:
    request_id = str(uuid.uuid4())
    made = [new() for _ in range(12)]
    kept = await asyncio.gather(*(store.add(each, request_id=request_id, fingerprint=b"x", activate=True) for each in made))
    assert len({each.made.calibration_id for each, _ in kept}) == 1
    assert sorted(repeated for _, repeated in kept) == [False] + [True] * 11
    found = await store.find_request("acme", request_id)
    assert found is not None
    assert (found[0].made, found[1]) == (kept[0][0].made, b"x")
    with pytest.raises(RequestIdReused):
        await store.add(new(), request_id=request_id, fingerprint=b"y", activate=False)
    assert await store.find_request("other", request_id) is None


async def test_one_calibration_of_a_scope_and_task_is_in_force_whoever_activates_at_the_same_time(
    store: CalibrationStore,
) -> None:
    made = [await add(store, new()) for _ in range(6)]
    other = await add(store, new(task="qa"), activate=True)
    changes = await asyncio.gather(*(activate(store, each.calibration_id) for each in made * 3))
    listed = await store.list_from(Wanted("acme", ACME), rows_max=100)
    in_force = {each.made.calibration_id for each in listed if each.state is State.ACTIVE}
    assert other.calibration_id in in_force
    assert len(in_force) == 2
    assert {each.state for each in listed} == {State.ACTIVE, State.RETIRED}
    assert sum(not each.retired_calibration_id for each in changes) >= 1


async def test_an_earlier_calibration_comes_back_in_force_and_none_takes_it_out(store: CalibrationStore) -> None:
    first, second = await add(store, new(), activate=True), await add(store, new(), activate=True)
    back = await activate(store, first.calibration_id)
    assert back.calibration is not None
    assert (back.calibration.made, back.calibration.state) == (first, State.ACTIVE)
    assert back.calibration.activated_at == NOW + timedelta(days=1)
    assert back.retired_calibration_id == second.calibration_id
    out = await activate(store, "")
    assert (out.calibration, out.retired_calibration_id) == (None, first.calibration_id)
    again = await activate(store, "")
    assert (again.calibration, again.retired_calibration_id) == (None, "")


async def test_an_activation_is_answered_again_as_it_was_and_does_nothing_twice(store: CalibrationStore) -> None:
    first, second = await add(store, new(), activate=True), await add(store, new())
    request_id = str(uuid.uuid4())
    once = await activate(store, second.calibration_id, request_id=request_id)
    await activate(store, first.calibration_id)
    again = await activate(store, second.calibration_id, request_id=request_id)
    assert (once.retired_calibration_id, again.retired_calibration_id) == (first.calibration_id, first.calibration_id)
    assert (await store.get("acme", first.calibration_id)).state is State.ACTIVE
    with pytest.raises(RequestIdReused):
        await activate(store, first.calibration_id, request_id=request_id, body=b"y")


async def test_lists_have_what_applies_on_a_scope_and_what_is_below_it(store: CalibrationStore) -> None:
    top, search, ads = [await add(store, new(scope=scope)) for scope in (ACME, SEARCH, f"{ACME}/workspaces/ads")]
    task = await add(store, new(task="qa"))
    names = {each.calibration_id: name for each, name in ((top, "top"), (search, "search"), (ads, "ads"), (task, "task"))}

    async def listed(wanted: Wanted, rows_max: int = 10) -> list[str]:
        rows = await store.list_from(wanted, rows_max=rows_max)
        assert all(not each.made.policy for each in rows)
        return [names[each.made.calibration_id] for each in rows]

    assert await listed(Wanted("acme", SEARCH)) == ["task", "search", "top"]
    assert await listed(Wanted("acme", ACME, descendants=True)) == ["task", "ads", "search", "top"]
    assert await listed(Wanted("acme", ACME, task="qa")) == ["task"]
    first = await store.list_from(Wanted("acme", ACME, descendants=True), rows_max=2)
    assert await listed(Wanted("acme", ACME, descendants=True, before=first[-1].created_number)) == ["search", "top"]


async def test_changes_are_read_on_in_order_and_only_those_in_force_bring_their_policy(store: CalibrationStore) -> None:
    first, second = await add(store, new()), await add(store, new(), activate=True)
    rows = await store.after(0, rows_max=10)
    assert [(each.made.calibration_id, bool(each.made.policy)) for each in rows] == [
        (first.calibration_id, False),
        (second.calibration_id, True),
    ]
    await activate(store, first.calibration_id)
    changed = await store.after(rows[-1].number, rows_max=10)
    assert [(each.made.calibration_id, each.state) for each in changed] == [
        (second.calibration_id, State.RETIRED),
        (first.calibration_id, State.ACTIVE),
    ]
    assert await store.after(changed[-1].number, rows_max=10) == []


async def test_an_organisation_keeps_a_bounded_number(pool: asyncpg.Pool) -> None:
    store = PostgresCalibrations(pool, calibrations_max=1)
    await add(store, new())
    with pytest.raises(CalibrationsFull):
        await add(store, new())
    await add(store, new(organization="other", scope="organizations/other"))


async def test_a_database_that_went_away_is_a_named_failure(database_url: str) -> None:
    async with open_pool(database_url, schema="router", size_max=1) as opened:
        store = PostgresCalibrations(opened, calibrations_max=1)
        await opened.close()
        with pytest.raises(StoreUnavailable):
            await store.after(0, rows_max=1)
