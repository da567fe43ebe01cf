"""What was summed before there were several roll-ups is in all of them afterwards, and goes back unchanged."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from farthing_budget.questions import Group, UsageQuestion
from farthing_budget.store.usage import PostgresUsage
from farthing_runtime.catalog import CATALOG
from farthing_runtime.migrations import migrations_dir
from farthing_runtime.postgres import Cluster, open_pool

HOUR = datetime(2026, 3, 15, 23, tzinfo=UTC)
BEFORE = [
    (
        "acme",
        HOUR,
        "organizations/acme/workspaces/search/projects/ranker/users/ann",
        "large",
        "p",
        "chat",
        2,
        3,
        10,
        5,
        70,
        90,
        1,
        2,
        17,
    ),
    ("acme", HOUR, "organizations/acme/workspaces/search", "großes", "p", "", 1, 1, 10, 5, 30, 30, 0, 0, 0),
    ("acme", HOUR + timedelta(hours=1), "organizations/acme", "large", "q", "chat", 1, 1, 1, 1, 5, 5, 0, 0, 0),
]

_LINE = """
    INSERT INTO usage (organization, request_id, line, recorded_at, scope, task, model, provider, deployment, outcome, estimated,
        input_tokens, cached_input_tokens, output_tokens, cost_usd_nanos, baseline_usd_nanos)
    VALUES ('acme', $1, $2, $3, 'organizations/acme', 'chat', 'm', 'p', 'd', $4, false, 1, 0, 1, 1, 1)
"""


@pytest.fixture
async def empty_database(postgres: Cluster) -> AsyncIterator[str]:
    """A database in which nothing is."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    administrator = await asyncpg.connect(postgres.url("postgres"))
    await administrator.execute(f'CREATE DATABASE "{name}"')
    yield postgres.url(name)
    await administrator.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await administrator.close()


async def to(database_url: str, step: Any, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_dir(CATALOG["budget"])))
    config.attributes["database_url"] = database_url
    await asyncio.to_thread(step, config, revision)


async def test_sums_of_before_are_in_every_rollup_and_go_back_unchanged(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database, server_settings={"search_path": "budget,public"})
    await connection.execute("CREATE SCHEMA budget")
    await to(empty_database, command.upgrade, "0003")
    await connection.copy_records_to_table("usage_hourly", records=BEFORE)
    lines = [("1", 0, "rejected"), ("1", 1, "accepted"), ("2", 0, "failed"), ("2", 1, "failed"), ("3", 0, "cache_exact")]
    await connection.executemany(
        _LINE, [(uuid.UUID(int=int(request)), line, HOUR, outcome) for request, line, outcome in lines]
    )
    await to(empty_database, command.upgrade, "0004")
    carrying = await connection.fetch("SELECT line, outcome FROM usage WHERE carries ORDER BY request_id")
    assert [tuple(row) for row in carrying] == [(1, "accepted"), (1, "failed"), (0, "cache_exact")]
    async with open_pool(empty_database, schema="budget", size_max=2) as pool:
        usage = PostgresUsage(pool)

        async def costs(*groups: Group, scope: str = "organizations/acme") -> dict[tuple[str, ...], int]:
            asked = UsageQuestion(scope, HOUR - timedelta(days=2), HOUR + timedelta(days=2), groups, 100)
            return {each.keys: each.cost_usd_nanos for each in await usage.sums(asked)}

        assert await costs(Group.MODEL) == {("large",): 75, ("großes",): 30}
        assert await costs(Group.WORKSPACE) == {("search",): 100, ("",): 5}
        assert await costs(Group.TASK, Group.DAY) == {
            ("chat", "2026-03-15"): 70,
            ("", "2026-03-15"): 30,
            ("chat", "2026-03-16"): 5,
        }
        assert await costs(Group.HOUR, scope=BEFORE[0][2]) == {("2026-03-15T23:00Z",): 70}
    await to(empty_database, command.downgrade, "0003")
    assert sorted(tuple(row) for row in await connection.fetch("SELECT * FROM usage_hourly")) == sorted(BEFORE)
    await connection.close()
