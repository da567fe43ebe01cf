"""What every store of routing rules promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from farthing_router.routing.rule_book import RuleLimits, RulesFull, RuleStore, VersionConflict, Writing
from farthing_router.routing.rules import Action, Match, Rule, Weights
from farthing_router.store import RequestIdReused, StoreUnavailable
from farthing_router.store.rules import PostgresRules
from farthing_runtime.postgres import open_pool

NOW = datetime(2026, 7, 1, 12, 30, 15, 250_000, tzinfo=UTC)
FULL = Rule(
    rule_id="",
    scope="organizations/acme/workspaces/w",
    match=Match(("caption*", "chat"), ("free",), 0.25, 1.0, ("cost", "balanced"), ("team:a",), 0, 2**40, ("tools",)),
    action=Action("balanced", Weights(1, 0.5, 2), ("a", "b"), ("c",), ("p",), 0.9, "a", 1500, 4, 2**53 - 1, 0.75, 12),
    display_name="ünusual «name»",
    priority=-7,
    disabled=True,
    updated_at=NOW,
)
PLAIN = Rule(rule_id="", scope="organizations/acme", match=Match(), action=Action("cheapest"), updated_at=NOW)


def new(rule: Rule = PLAIN, **changes: object) -> Rule:
    return replace(rule, rule_id=str(uuid.uuid4()), **changes)  # type: ignore[arg-type]


def by(body: bytes = b"body") -> Writing:
    return Writing(str(uuid.uuid4()), body)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="router", size_max=8) as opened:
        yield opened


@pytest.fixture
def store(pool: asyncpg.Pool) -> RuleStore:
    return PostgresRules(pool, limits=RuleLimits(rules=3, versions=20, everybodys_versions=30))


async def test_what_was_kept_is_read_back_as_it_was(store: RuleStore) -> None:
    rules = [new(FULL), new()]
    rows = [await store.keep("acme", rule, by()) for rule in rules]
    assert [replace(row.rule, created_number=0) for row in rows] == rules
    assert [row.rule.created_number for row in rows] == [row.number for row in rows]
    assert await store.after(0, rows_max=10) == rows
    assert await store.versions("acme", rules[0].rule_id, below=None, rows_max=10) == rows[:1]


async def test_a_rule_keeps_its_age_and_all_its_versions(store: RuleStore) -> None:
    first = await store.keep("acme", new(), by())
    other = await store.keep("acme", new(), by())
    kept = [first]
    for version, changes in ((2, {"priority": 5}), (3, {"disabled": True}), (4, {"deleted": True})):
        kept.append(await store.keep("acme", replace(kept[-1].rule, version=version, **changes), by()))
    assert {row.rule.created_number for row in kept} == {first.number}
    rule_id = first.rule.rule_id
    assert await store.versions("acme", rule_id, below=None, rows_max=10) == kept[::-1]
    assert await store.versions("acme", rule_id, below=4, rows_max=2) == kept[2:0:-1]
    assert await store.versions("other", rule_id, below=None, rows_max=10) == []
    assert await store.versions("acme", "no uuid", below=None, rows_max=10) == []
    # Whoever reads on from nothing needs the newest versions alone, the last of a deleted rule among them.
    assert await store.after(0, rows_max=10) == [other, kept[-1]]
    assert await store.after(other.number, rows_max=10) == [kept[-1]]
    assert await store.after(0, rows_max=1) == [other]


async def test_of_twenty_racing_editors_exactly_one_wins_each_version(store: RuleStore) -> None:
    kept = await store.keep("acme", new(), by())
    rule = kept.rule
    for version in (2, 3, 4):
        tries = [store.keep("acme", replace(rule, version=version, priority=number), by()) for number in range(20)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        won = [each for each in results if not isinstance(each, BaseException)]
        lost = [each for each in results if isinstance(each, VersionConflict)]
        assert (len(won), len(lost)) == (1, 19)
        assert lost[0].facts["newest"] == str(version)
    history = await store.versions("acme", rule.rule_id, below=None, rows_max=10)
    assert [row.rule.version for row in history] == [4, 3, 2, 1]


async def test_the_same_request_gives_the_stored_version_and_another_body_is_refused(store: RuleStore) -> None:
    writing, rule = by(), new()
    rows = await asyncio.gather(*(store.keep("acme", rule, writing) for _ in range(10)))
    assert len({row.number for row in rows}) == 1
    assert await store.written("acme", writing) == rows[0]
    assert await store.written("acme", by()) is None
    assert await store.written("other", writing) is None
    other = Writing(writing.request_id, b"another body")
    for refused in (store.keep("acme", new(), other), store.written("acme", other)):
        with pytest.raises(RequestIdReused):
            await refused


async def test_a_deleted_rule_and_one_that_was_never_there_have_no_next_version(store: RuleStore) -> None:
    kept = await store.keep("acme", new(), by())
    await store.keep("acme", replace(kept.rule, version=2, deleted=True), by())
    for rule in (replace(kept.rule, version=3), new(version=2), replace(kept.rule, version=1)):
        with pytest.raises(VersionConflict):
            await store.keep("acme", rule, by())


async def test_rules_and_their_versions_are_bounded_and_deleting_always_works(store: RuleStore) -> None:
    rows = [await store.keep("acme", new(), by()) for _ in range(3)]
    with pytest.raises(RulesFull, match="3 rules in this organisation"):
        await store.keep("acme", new(), by())
    elsewhere = await store.keep("other", new(), by())
    rule = rows[0].rule
    for version in range(2, 19):
        rule = (await store.keep("acme", replace(rule, version=version), by())).rule
    with pytest.raises(RulesFull, match="20 versions of rules in this organisation"):
        await store.keep("acme", replace(rule, version=19), by())
    assert (await store.keep("acme", replace(rule, version=19, deleted=True), by())).rule.deleted
    rule = elsewhere.rule
    for version in range(2, 10):
        rule = (await store.keep("other", replace(rule, version=version), by())).rule
    with pytest.raises(RulesFull, match="in all organisations"):
        await store.keep("third", new(), by())


async def test_a_newer_replicas_fields_are_passed_over(store: RuleStore, pool: asyncpg.Pool) -> None:
    kept = await store.keep("acme", new(FULL), by())
    await pool.execute("UPDATE rules SET body = jsonb_set(body, '{action,novelty}', '1')")
    assert await store.after(0, rows_max=10) == [kept]


async def test_a_database_out_of_reach_is_named(store: RuleStore, pool: asyncpg.Pool) -> None:
    await pool.close()
    with pytest.raises(StoreUnavailable):
        await store.keep("acme", new(), by())
    with pytest.raises(StoreUnavailable):
        await store.after(0, rows_max=1)
