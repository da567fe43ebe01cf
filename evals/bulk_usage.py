"""Usage of a whole company in bulk: rows made inside Postgres, and every roll-up summed from the rows by SQL."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
from farthing_budget.rollups import DIMENSIONS, ROLLUPS, Grain, Rollup
from farthing_budget.usage import FIGURES

WORKSPACES, PROJECTS, USERS, DAYS = 40, 5, 10, 90
_MODELS = {  # nanodollars per million tokens of input, cached input, output
    "gpt-4o": ("openai", 2_500_000_000, 1_250_000_000, 10_000_000_000),
    "gpt-4o-mini": ("openai", 150_000_000, 75_000_000, 600_000_000),
    "gpt-4.1": ("openai", 2_000_000_000, 500_000_000, 8_000_000_000),
    "o4-mini": ("openai", 1_100_000_000, 275_000_000, 4_400_000_000),
    "claude-sonnet": ("anthropic", 3_000_000_000, 300_000_000, 15_000_000_000),
    "claude-haiku": ("anthropic", 800_000_000, 80_000_000, 4_000_000_000),
    "gemini-pro": ("google", 1_250_000_000, 310_000_000, 10_000_000_000),
    "gemini-flash": ("google", 300_000_000, 75_000_000, 2_500_000_000),
    "deepseek-chat": ("deepseek", 270_000_000, 70_000_000, 1_100_000_000),
    "command-r": ("cohere", 150_000_000, 150_000_000, 600_000_000),
    "llama-70b": ("own", 0, 0, 0),
    "qwen-32b": ("own", 0, 0, 0),
}
_TASKS = ("chat", "extraction", "caption", "ads_copy", "summary", "search", "code", "support")


@dataclass(frozen=True, slots=True)
class Seat:
    """Work of one kind that one user does with one model."""

    scope: str
    task: str
    service: str
    domain: str
    key_id: str
    tags: tuple[str, ...]
    model: str


def seats(seed: int = 1) -> list[Seat]:
    """Who works on what, in the order of how much they do."""
    rng = random.Random(seed)
    found = [seat for number in range(WORKSPACES * PROJECTS) for seat in _seats_of_project(rng, number)]
    rng.shuffle(found)
    return found


def _seats_of_project(rng: random.Random, number: int) -> Iterator[Seat]:
    workspace, project = f"ws-{number // PROJECTS:02}", f"project-{number:03}"
    service, domain = f"svc-{rng.randrange(30):02}", rng.choice(("retail", "finance", "health", "legal", "internal"))
    tasks, models = rng.sample(_TASKS, 3), rng.sample(sorted(_MODELS), 4)
    for user in range(USERS):
        scope = f"organizations/acme/workspaces/{workspace}/projects/{project}/users/user-{number * USERS + user:04}"
        key_id = f"key-{number:03}-{user % 3}"
        for task in rng.sample(tasks, 2):
            tags = (f"team:{number % 60:02}", *(("env:prod",) if rng.random() < 0.6 else ()))
            for model in rng.sample(models, 3):
                yield Seat(scope, task, service, domain, key_id, tags, model)


_SEATS = """
    CREATE TEMP TABLE seats (
        seat integer PRIMARY KEY, scope text, task text, service text, domain text, key_id text, tags text[], model text, provider text,
        input_nanos bigint, cached_nanos bigint, output_nanos bigint
    )
"""
# Time runs evenly, but slower by night; a few seats do most of the work; one call in twelve is a cheap answer that was rejected, and
# one in twenty comes from the cache.
_ROWS = """
    INSERT INTO usage (organization, recorded_at, request_id, line, scope, task, service, domain, key_id, tags, model, provider, deployment,
        outcome, carries, estimated, price_unknown, tokens_source, price_source, service_tier, input_tokens, cached_input_tokens,
        cache_write_5m_tokens, cache_write_1h_tokens, audio_input_tokens, output_tokens, reasoning_tokens, audio_output_tokens,
        cost_usd_nanos, baseline_usd_nanos, saved_cache_usd_nanos, saved_prompt_usd_nanos, saved_route_usd_nanos)
    SELECT 'acme', recorded_at, request_id, 0, scope, task, service, domain, key_id, tags, model,
        CASE WHEN hit THEN 'cache' ELSE provider END, CASE WHEN hit THEN '' ELSE model || '-eu' END,
        CASE WHEN hit THEN 'cache_exact' WHEN chance < 0.08 THEN 'rejected' ELSE 'accepted' END, chance >= 0.08,
        chance > 0.99, false, CASE WHEN chance > 0.99 THEN 3 ELSE 1 END, 'farthing.yaml', '', input, cached, 0, 0, 0, output, 0, 0, cost,
        CASE WHEN chance < 0.08 THEN 0 ELSE full_cost END, CASE WHEN hit THEN full_cost ELSE 0 END, 0,
        CASE WHEN hit OR chance < 0.08 THEN 0 ELSE full_cost - cost END
    FROM (
        SELECT s.*, d.*, d.chance BETWEEN 0.08 AND 0.13 AS hit,
            (input * 3000 + output * 15000)::bigint AS full_cost,
            CASE WHEN d.chance BETWEEN 0.08 AND 0.13 THEN 0
                ELSE ((input - cached) * input_nanos + cached * cached_nanos + output * output_nanos + 999999) / 1000000 END AS cost
        FROM (
            SELECT $1::timestamptz + (x + 0.11 * sin(2 * pi() * x)) * interval '1 day' AS recorded_at, gen_random_uuid() AS request_id,
                floor($2 * power(random(), 2.2))::int AS seat, random() AS chance,
                (100 + floor(3000 * power(random(), 2)))::bigint AS input, (floor(80 * power(random(), 3)))::bigint AS cached,
                (20 + floor(900 * power(random(), 2)))::bigint AS output
            FROM (SELECT n * $5::float8 / $6 AS x FROM generate_series($3::bigint, $4::bigint) AS n) AS moments OFFSET 0
        ) AS d JOIN seats s USING (seat)
    ) AS made
"""


async def make_rows(pool: asyncpg.Pool, *, count: int, start: datetime, chunk: int = 500_000) -> None:
    """Adds `count` attempts over DAYS days from `start`."""
    made = seats()
    records: list[tuple[Any, ...]] = [
        (number, each.scope, each.task, each.service, each.domain, each.key_id, each.tags, each.model, *_MODELS[each.model])
        for number, each in enumerate(made)
    ]
    async with pool.acquire() as connection:
        await connection.execute(_SEATS)
        await connection.copy_records_to_table("seats", records=records)
        await connection.execute("ANALYZE seats")
        await connection.execute("SET synchronous_commit = off")
        await connection.execute("ALTER TABLE usage DROP CONSTRAINT usage_pkey")
        for first in range(0, count, chunk):
            last = min(first + chunk, count) - 1
            await connection.execute(_ROWS, start, len(made), first, last, float(DAYS), float(count), timeout=3_600)
        await connection.execute(
            "ALTER TABLE usage ADD PRIMARY KEY (organization, recorded_at, request_id, line)", timeout=3_600
        )


_NAMES = {
    "workspace": "split_part(scope, '/', 4)",
    "project": "split_part(scope, '/', 6)",
    "user_name": "split_part(scope, '/', 8)",
}
_GUESSED = "(estimated OR tokens_source IN (3, 4))"
_COUNTS = "(outcome NOT IN ('refund', 'correction'))"
_MEASURES = {
    "requests": f"({_COUNTS} AND carries)::int",
    "attempts": f"{_COUNTS}::int",
    "estimated_attempts": f"({_COUNTS} AND {_GUESSED})::int",
    "estimated_usd_nanos": f"CASE WHEN {_GUESSED} OR price_unknown THEN cost_usd_nanos ELSE 0 END",
    "unpriced_usd_nanos": "CASE WHEN price_unknown THEN cost_usd_nanos ELSE 0 END",
}
_SESSION = {"synchronous_commit": "off", "work_mem": "1GB", "maintenance_work_mem": "1GB", "hash_mem_multiplier": "2"}
_DIMENSIONS = ", ".join(DIMENSIONS)
_FINEST_PLACES = f"""
    CREATE TEMP TABLE finest_places AS SELECT row_number() OVER () AS finest, * FROM (
        SELECT DISTINCT {", ".join(f"{_NAMES.get(name, name)} AS {name}" for name in DIMENSIONS[:-1])},
            ARRAY(SELECT unnest(tags) ORDER BY 1) AS tags, scope, usage.tags AS given FROM usage
    ) AS found
"""
_FINEST = f"""
    CREATE TEMP TABLE finest_sums AS SELECT date_trunc('hour', recorded_at, 'UTC') AS hour, finest,
        {", ".join(f"sum({_MEASURES.get(name, name)})::bigint AS {name}" for name in FIGURES)}
    FROM usage u JOIN finest_places p USING (scope, model, provider, task, service, domain, key_id)
    WHERE p.given = u.tags GROUP BY 1, 2
"""
_TAG_TEXT = "(SELECT coalesce(string_agg(octet_length(t) || ':' || t, '' ORDER BY n), '') FROM unnest(tags) WITH ORDINALITY AS u (t, n))"


async def sum_rows(pool: asyncpg.Pool) -> None:
    """Writes every roll-up from the rows of usage, which are all of one organisation."""
    async with pool.acquire() as connection:
        for name, value in _SESSION.items():
            await connection.execute(f"SET {name} = '{value}'")
        statements = [
            _FINEST_PLACES,
            "ANALYZE finest_places",
            _FINEST,
            "ALTER TABLE usage_sums DROP CONSTRAINT usage_sums_pkey",
        ]
        statements += [statement for rollup in ROLLUPS for statement in _of_finest(rollup)]
        statements += ["ALTER TABLE usage_sums ADD PRIMARY KEY (organization, rollup, at, place_number)"]
        for statement in (*statements, "DROP TABLE finest_sums", "DROP TABLE finest_places"):
            await connection.execute(statement, timeout=3_600)


def _of_finest(rollup: Rollup) -> list[str]:
    """A roll-up from the finest sums: its places, each with those that go into it, and then its sums."""
    values = [name if name in rollup.dimensions else "''" for name in DIMENSIONS[:-1]]
    tags = "ARRAY[tag]" if rollup.by_tag else "tags" if "tags" in rollup.dimensions else "'{}'::text[]"
    alone = ", unnest(tags) AS tag" if rollup.by_tag else ""
    tagged = " WHERE tags <> '{}'" if rollup.of_tagged else ""
    text = " || ".join(f"octet_length({value}) || ':' || {value}" for value in (*DIMENSIONS[:-1], "tag_text"))
    number = f"('x' || encode(substring(sha256(convert_to({text}, 'UTF8')) FROM 1 FOR 8), 'hex'))::bit(64)::bigint"
    named = ", ".join(f"{value} AS {name}" for value, name in zip(values, DIMENSIONS, strict=False))
    at = f"date_trunc('{'hour' if rollup.grain is Grain.HOUR else 'day'}', hour, 'UTC')"
    return [
        f"""
        CREATE TEMP TABLE into_places AS SELECT finest, {number} AS place_number, {_DIMENSIONS}
        FROM (SELECT *, {_TAG_TEXT} AS tag_text FROM (
            SELECT finest, {named}, {tags} AS tags FROM finest_places{alone}{tagged}
        ) AS named) AS measured
        """,
        "ANALYZE into_places",
        f"INSERT INTO usage_places SELECT DISTINCT 'acme', {rollup.number}, place_number, {_DIMENSIONS} FROM into_places",
        f"""
        INSERT INTO usage_sums (organization, rollup, at, place_number, {", ".join(FIGURES)})
        SELECT 'acme', {rollup.number}, {at}, place_number, {", ".join(f"sum({name})" for name in FIGURES)}
        FROM finest_sums JOIN into_places USING (finest) GROUP BY 3, 4 ORDER BY 3
        """,
        "DROP TABLE into_places",
    ]
