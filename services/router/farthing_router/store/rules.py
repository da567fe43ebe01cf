"""Versions of rules in Postgres: a table that only grows."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from farthing_router.routing.rule_book import RuleLimits, RuleRow, RulesFull, VersionConflict, Writing, reused
from farthing_router.routing.rules import Action, Match, Rule, Weights
from farthing_router.store.connections import connected, writing

_WRITTEN = "SELECT * FROM rules WHERE organization = $1 AND request_id = $2::text::uuid"
_NEWEST = "SELECT * FROM rules WHERE organization = $1 AND rule_id = $2::text::uuid ORDER BY version DESC LIMIT 1"
_IS_NEWEST = """
    NOT EXISTS (
        SELECT FROM rules AS newer
        WHERE newer.organization = rules.organization AND newer.rule_id = rules.rule_id AND newer.version > rules.version
    )
"""
_COUNTS = f"""
    SELECT count(*) FILTER (WHERE organization = $1) AS versions,
           count(*) FILTER (WHERE organization = $1 AND NOT deleted AND {_IS_NEWEST}) AS rules,
           count(*) AS everybodys
    FROM rules
"""
_INSERT = """
    INSERT INTO rules
        (organization, rule_id, version, created_number, request_id, fingerprint, scope, body, deleted, recorded_at)
    VALUES ($1, $2::text::uuid, $3, $4, $5::text::uuid, $6, $7, $8::text::jsonb, $9, $10) RETURNING *
"""
_AFTER = f"SELECT * FROM rules WHERE number > $1 AND {_IS_NEWEST} ORDER BY number LIMIT $2"
_VERSIONS = """
    SELECT * FROM rules WHERE organization = $1 AND rule_id = $2 AND version < $3 ORDER BY version DESC LIMIT $4
"""
_VERSION_MAX = 2**62


class PostgresRules:
    """The RuleStore."""

    def __init__(self, pool: asyncpg.Pool, *, limits: RuleLimits) -> None:
        self._pool = pool
        self._limits = limits

    async def keep(self, organization: str, rule: Rule, by: Writing) -> RuleRow:
        """Writes the next version of a rule, or gives the stored one."""
        async with writing(self._pool, "rules") as connection:
            stored = await connection.fetchrow(_WRITTEN, organization, by.request_id)
            if stored is not None:
                reused(by, stored["fingerprint"])
                return _row(stored)
            newest = await connection.fetchrow(_NEWEST, organization, rule.rule_id)
            version = 0 if newest is None else newest["version"]
            if rule.version != version + 1 or (newest is not None and newest["deleted"]):
                raise VersionConflict(rule_id=rule.rule_id, version=rule.version - 1, newest=version)
            await self._make_sure_of_room(connection, organization, rule)
            row = await connection.fetchrow(
                _INSERT,
                organization,
                rule.rule_id,
                rule.version,
                None if newest is None else newest["created_number"] or newest["number"],
                by.request_id,
                by.fingerprint,
                rule.scope,
                _body(rule),
                rule.deleted,
                rule.updated_at,
            )
        return _row(row)

    async def written(self, organization: str, by: Writing) -> RuleRow | None:
        """What was written under a request_id."""
        async with connected(self._pool) as connection:
            stored = await connection.fetchrow(_WRITTEN, organization, by.request_id)
        if stored is None:
            return None
        reused(by, stored["fingerprint"])
        return _row(stored)

    async def after(self, number: int, *, rows_max: int) -> list[RuleRow]:
        """The newest versions of the rules changed after a number."""
        async with connected(self._pool) as connection:
            return [_row(row) for row in await connection.fetch(_AFTER, number, rows_max)]

    async def versions(self, organization: str, rule_id: str, *, below: int | None, rows_max: int) -> list[RuleRow]:
        """The versions of a rule."""
        try:
            name = UUID(rule_id)
        except ValueError:
            return []
        async with connected(self._pool) as connection:
            rows = await connection.fetch(_VERSIONS, organization, name, below or _VERSION_MAX, rows_max)
        return [_row(row) for row in rows]

    async def _make_sure_of_room(self, connection: Any, organization: str, rule: Rule) -> None:
        """Taking a rule out of use is always possible."""
        if rule.deleted:
            return
        limits, counts = self._limits, await connection.fetchrow(_COUNTS, organization)
        if rule.version == 1 and counts["rules"] >= limits.rules:
            raise RulesFull(what="rules in this organisation", limit=limits.rules)
        if counts["versions"] >= limits.versions:
            raise RulesFull(what="versions of rules in this organisation", limit=limits.versions)
        if counts["everybodys"] >= limits.everybodys_versions:
            raise RulesFull(what="versions of rules in all organisations", limit=limits.everybodys_versions)


def _body(rule: Rule) -> str:
    said = {"display_name": rule.display_name, "priority": rule.priority, "disabled": rule.disabled}
    return orjson.dumps({**said, "match": asdict(rule.match), "action": asdict(rule.action)}).decode()


def _row(row: asyncpg.Record) -> RuleRow:
    body = orjson.loads(row["body"])
    rule = Rule(
        rule_id=str(row["rule_id"]),
        scope=row["scope"],
        match=_read(Match, body["match"]),
        action=action_of(body["action"]),
        display_name=body["display_name"],
        priority=body["priority"],
        disabled=body["disabled"],
        version=row["version"],
        updated_at=row["recorded_at"],
        deleted=row["deleted"],
        created_number=row["created_number"] or row["number"],
    )
    return RuleRow(row["number"], row["organization"], rule)


def action_of(given: dict[str, Any]) -> Action:
    """An action as it was written down."""
    weights = None if given.get("weights") is None else _read(Weights, given["weights"])
    action: Action = _read(Action, {**given, "weights": weights})
    return action


def _read(kind: type[Any], given: dict[str, Any]) -> Any:
    """What this version knows of it: a newer replica may have written more."""
    known = {each.name for each in fields(kind)}
    return kind(**{name: tuple(each) if isinstance(each, list) else each for name, each in given.items() if name in known})
