"""What every store of evidence on calibrations promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
from farthing_router.calibration.checks import EvidenceStore
from farthing_router.store import StoreUnavailable
from farthing_router.store.calibrations import PostgresCalibrations
from farthing_router.store.drift import PostgresEvidence
from farthing_runtime.postgres import open_pool

NOW = datetime(2026, 7, 1, 12, 30, 15, 250_000, tzinfo=UTC)
ACME = "organizations/acme"


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="router", size_max=8) as opened:
        yield opened


@pytest.fixture
def store(pool: asyncpg.Pool) -> EvidenceStore:
    return PostgresEvidence(pool)


@pytest.fixture
async def calibration_id(pool: asyncpg.Pool) -> str:
    kept = str(uuid.uuid4())
    insert = """
        INSERT INTO calibrations (organization, calibration_id, request_id, fingerprint, scope, task, version, report, policy, created_at)
        VALUES ('acme', $1::text::uuid, $1::text::uuid, '', 'organizations/acme', '', 1, '{}', '', $2)
    """
    await pool.execute(insert, kept, NOW)
    return kept


async def test_everything_that_is_added_at_the_same_time_counts_once(store: EvidenceStore, calibration_id: str) -> None:
    adds = (store.add("acme", calibration_id, lambda kept: kept + b"x", at=NOW) for _ in range(40))
    await asyncio.gather(*adds)
    (row,) = await store.after(0, rows_max=10)
    assert (row.organization, row.calibration_id, row.updated_at) == ("acme", calibration_id, NOW)
    assert row.evidence == b"x" * 40


async def test_changes_are_read_on_in_order(store: EvidenceStore, calibration_id: str) -> None:
    await store.add("acme", calibration_id, lambda kept: kept + b"1", at=NOW)
    (first,) = await store.after(0, rows_max=10)
    assert await store.after(first.number, rows_max=10) == []
    await store.add("acme", calibration_id, lambda kept: kept + b"2", at=NOW)
    (second,) = await store.after(first.number, rows_max=10)
    assert second.evidence == b"12"


async def test_nothing_is_kept_of_what_is_no_calibration_of_the_organisation(store: EvidenceStore, calibration_id: str) -> None:
    await store.add("other", calibration_id, lambda kept: b"x", at=NOW)
    await store.add("acme", "nonsense", lambda kept: b"x", at=NOW)
    assert await store.after(0, rows_max=10) == []


async def test_evidence_begins_afresh_when_a_calibration_is_put_in_force(
    pool: asyncpg.Pool, store: EvidenceStore, calibration_id: str
) -> None:
    await store.add("acme", calibration_id, lambda kept: b"old", at=NOW)
    (before,) = await store.after(0, rows_max=10)
    await pool.execute("UPDATE calibrations SET report = $1::text::jsonb", REPORT)
    await PostgresCalibrations(pool, calibrations_max=9).activate(
        ACME, "", calibration_id, request_id=str(uuid.uuid4()), fingerprint=b"", at=NOW
    )
    (after,) = await store.after(before.number, rows_max=10)
    assert after.evidence == b""


async def test_a_database_that_went_away_is_a_named_failure(database_url: str) -> None:
    async with open_pool(database_url, schema="router", size_max=1) as opened:
        store = PostgresEvidence(opened)
        await opened.close()
        with pytest.raises(StoreUnavailable):
            await store.after(0, rows_max=1)


REPORT = """{
    "opening_models": ["small"], "strong_model": "big", "target": "", "quality_ratio_min": null, "guaranteed": false, "confidence": 0.95,
    "threshold": 0, "saving": [0, 0, 0], "quality_ratio": [1, 1, 1], "risk": 0, "escalated_share": 0, "examples": 1, "curve": [],
    "notes": [], "what_a_newer_version_wrote": 1
}"""
