"""Alert rules on Postgres. Targets and secrets are in a table of their own, which only changes and deliveries read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from farthing_core.clock import Clock
from farthing_core.scopes import Scope

from farthing_budget.alerts import RULES_MAX, Addressee, AlertKind, Channel, KeptChannel, Rule, RuleChange, RuleDraft
from farthing_budget.refusals import AlertRuleNotFound, AlertRulesFull, RequestIdReused
from farthing_budget.store.connection import reaching

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('farthing alerts ' || $1, 0))"
"""One at a time makes rules of an organisation, or raises its alerts."""
RULES = """
    SELECT organization, rule_id, scope, kind, percents, amount_usd_nanos, created_at FROM alert_rules
    WHERE organization = $1 AND deleted_at IS NULL ORDER BY scope, rule_id
"""
_INSERT = """
    INSERT INTO alert_rules (organization, rule_id, scope, kind, percents, amount_usd_nanos, request_id, body_hash, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
_SHOWN = """
    SELECT r.*, coalesce((SELECT array_agg(c.kind || ' ' || c.addressee ORDER BY c.number) FROM alert_channels c
        WHERE c.organization = r.organization AND c.rule_id = r.rule_id), '{}') AS addressees
    FROM alert_rules r WHERE r.organization = $1
"""
_BY_REQUEST = _SHOWN + " AND r.request_id = $2"
_BY_ID = _SHOWN + " AND r.rule_id = $2 AND r.deleted_at IS NULL"
_LIST = (
    _SHOWN
    + """
    AND r.deleted_at IS NULL AND (r.scope = $2 OR starts_with(r.scope, $2 || '/'))
    AND ($3::text IS NULL OR (r.scope, r.rule_id) > ($3, $4)) ORDER BY r.scope, r.rule_id LIMIT $5
"""
)
_CHANNELS = (
    "SELECT channel_id, kind, target, secret FROM alert_channels WHERE organization = $1 AND rule_id = $2 ORDER BY number"
)
_FORGET_CHANNELS = "DELETE FROM alert_channels WHERE organization = $1 AND rule_id = $2"
_WRITE_CHANNELS = """
    INSERT INTO alert_channels (organization, rule_id, channel_id, number, kind, addressee, target, secret)
    SELECT $1, $2, * FROM unnest($3::text[], $4::smallint[], $5::text[], $6::text[], $7::text[], $8::text[])
"""
_UPDATE = "UPDATE alert_rules SET percents = $3, amount_usd_nanos = $4 WHERE organization = $1 AND rule_id = $2"
_DELETE = """
    UPDATE alert_rules SET deleted_at = $3 WHERE organization = $1 AND rule_id = $2 AND deleted_at IS NULL RETURNING rule_id
"""
_EPOCHS = "SELECT organization, epoch FROM alert_epochs WHERE organization = ANY($1::text[])"
_ORGANIZATIONS = """
    SELECT organization FROM (
        SELECT organization FROM alert_rules WHERE deleted_at IS NULL AND organization > $1
        UNION SELECT organization FROM budgets WHERE deleted_at IS NULL AND measure > 1 AND organization > $1
    ) AS found ORDER BY organization LIMIT $2
"""


class PostgresAlertRules:
    """The part of the AlertStore that keeps rules."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def create(self, draft: RuleDraft) -> Rule:
        """Makes a rule, or finds the one that this request made before."""
        rule = draft.rule
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection, connection.transaction():
                await connection.execute(LOCK, rule.organization)
                row = await connection.fetchrow(_BY_REQUEST, rule.organization, draft.request_id)
                if row is None:
                    if len(await connection.fetch(RULES, rule.organization)) >= RULES_MAX:
                        raise AlertRulesFull(organization=rule.organization, rules_max=RULES_MAX)
                    values = rule.organization, rule.rule_id, rule.scope, int(rule.kind), rule.percents, rule.amount_usd_nanos
                    await connection.execute(_INSERT, *values, draft.request_id, draft.body_hash, rule.created_at)
                    await _write_channels(connection, rule, draft.channels)
                    row = await connection.fetchrow(_BY_ID, rule.organization, rule.rule_id)
        if row["body_hash"] != draft.body_hash:
            raise RequestIdReused(request_id=draft.request_id)
        if row["deleted_at"] is not None:
            raise AlertRuleNotFound(alert_rule_id=row["rule_id"])
        return rule_of(row)

    async def list_from(self, scope: Scope, *, after: tuple[str, str] | None, count_max: int) -> list[Rule]:
        """A page of rules."""
        with reaching():
            rows = await self._pool.fetch(_LIST, scope.organization, scope.path, *(after or (None, None)), count_max)
        return [rule_of(row) for row in rows]

    async def update(self, organization: str, rule_id: str, change: RuleChange) -> Rule:
        """Changes a rule and its channels."""
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection, connection.transaction():
                await connection.execute(LOCK, organization)
                row = await connection.fetchrow(_BY_ID, organization, rule_id)
                if row is None:
                    raise AlertRuleNotFound(alert_rule_id=rule_id)
                known = [
                    KeptChannel(each["channel_id"], Channel(each["kind"], each["target"], each["secret"]))
                    for each in await connection.fetch(_CHANNELS, organization, rule_id)
                ]
                percents, amount, channels = change.of(rule_of(row), known)
                await connection.execute(_UPDATE, organization, rule_id, percents, amount)
                await connection.execute(_FORGET_CHANNELS, organization, rule_id)
                await _write_channels(connection, rule_of(row), channels)
                return rule_of(await connection.fetchrow(_BY_ID, organization, rule_id))

    async def delete(self, organization: str, rule_id: str) -> None:
        """Ends a rule. Its row stays, so that a repeated request does not make it again; its channels do not."""
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection, connection.transaction():
                if await connection.fetchval(_DELETE, organization, rule_id, self._clock.now()) is None:
                    raise AlertRuleNotFound(alert_rule_id=rule_id)
                await connection.execute(_FORGET_CHANNELS, organization, rule_id)

    async def rules(self, organization: str) -> tuple[list[Rule], int]:
        """All rules of an organisation, at least as new as the epoch that comes with them."""
        with reaching():
            epochs = await self.epochs([organization])
            rows = await self._pool.fetch(RULES, organization)
        return [rule_of(row) for row in rows], epochs.get(organization, 0)

    async def epochs(self, organizations: Sequence[str]) -> dict[str, int]:
        """The present epochs."""
        if not organizations:
            return {}
        with reaching():
            return {row["organization"]: row["epoch"] for row in await self._pool.fetch(_EPOCHS, organizations)}

    async def organizations(self, *, after: str, count_max: int) -> list[str]:
        """Organisations for which something may have to be raised."""
        with reaching():
            return [row["organization"] for row in await self._pool.fetch(_ORGANIZATIONS, after, count_max)]


async def _write_channels(connection: Any, rule: Rule, channels: Any) -> None:
    if channels:
        rows = [
            (each.channel_id, number, each.channel.kind, each.channel.addressee, each.channel.target, each.channel.secret)
            for number, each in enumerate(channels)
        ]
        await connection.execute(_WRITE_CHANNELS, rule.organization, rule.rule_id, *map(list, zip(*rows, strict=True)))


def rule_of(row: asyncpg.Record) -> Rule:
    """A rule as its row has it."""
    shown = (text.split(" ", 1) for text in row.get("addressees") or ())
    return Rule(
        organization=row["organization"],
        rule_id=row["rule_id"],
        scope=row["scope"],
        kind=AlertKind(row["kind"]),
        percents=tuple(row["percents"]),
        amount_usd_nanos=row["amount_usd_nanos"],
        created_at=row["created_at"],
        addressees=tuple(Addressee(kind, text) for kind, text in shown),
    )
