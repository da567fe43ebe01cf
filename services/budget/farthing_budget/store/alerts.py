"""Alerts on Postgres: raised once, whoever finds them how often. A unique key decides; deliveries are written in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg
from farthing_core.clock import Clock
from farthing_core.ids import NewId

from farthing_budget.alerts import INCIDENTS, Addressee, Alert, AlertKind, AlertsQuestion, Delivery, Finding
from farthing_budget.store.alert_rules import LOCK, RULES, PostgresAlertRules, rule_of
from farthing_budget.store.charges import charges_of
from farthing_budget.store.connection import reaching
from farthing_budget.store.notices import notice_of
from farthing_budget.thresholds import findings_of

PENDING, DELIVERED, GIVEN_UP = 1, 2, 3
_STATES = {PENDING: "PENDING", DELIVERED: "DELIVERED", GIVEN_UP: "GIVEN_UP"}
_NOTICES_MAX = 500
_COLUMNS = """organization, alert_id, rule_id, subject, period_start, resets, limit_amount, kind, scope, budget_id, unit, threshold,
    observed, amount, incidents, detail, ends_at, created_at"""
_FOUND = """
    unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[], $7::bigint[], $8::smallint[], $9::text[], $10::text[],
        $11::smallint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::text[], $17::timestamptz[], $18::bigint[])
    AS f (alert_id, rule_id, subject, period_start, resets, limit_amount, kind, scope, budget_id, unit, threshold, observed, amount,
        incidents, detail, ends_at, window_s)
"""
_RAISE = f"""
    INSERT INTO alerts AS a ({_COLUMNS})
    SELECT $1, f.alert_id, f.rule_id, f.subject, f.period_start, f.resets, f.limit_amount, f.kind, f.scope, f.budget_id, f.unit,
        f.threshold, f.observed, f.amount, f.incidents, f.detail, f.ends_at, $19
    FROM {_FOUND}
    WHERE (f.rule_id = '' OR EXISTS (SELECT FROM alert_rules r
            WHERE r.organization = $1 AND r.rule_id = f.rule_id AND r.deleted_at IS NULL))
        AND (f.incidents > 0 OR NOT EXISTS (SELECT FROM alerts k
            WHERE k.organization = $1 AND k.rule_id = f.rule_id AND k.subject = f.subject AND k.resets = f.resets
                AND k.limit_amount >= f.limit_amount
                AND CASE WHEN f.window_s > 0 THEN k.created_at > $19::timestamptz - make_interval(secs => f.window_s)
                    ELSE k.period_start = f.period_start END))
    ON CONFLICT (organization, rule_id, subject, period_start, resets, limit_amount) DO
"""
_RAISE_NEW = _RAISE + " NOTHING RETURNING alert_id, rule_id, true AS new"
_RAISE_OR_ADD = (
    _RAISE
    + """
    UPDATE SET incidents = a.incidents + excluded.incidents, observed = a.observed + excluded.observed, amount = a.amount + excluded.amount
    RETURNING alert_id, rule_id, alert_id = ANY($2::text[]) AS new
"""
)
_DELIVER = """
    INSERT INTO alert_deliveries (organization, alert_id, channel_id, number, kind, addressee, state, attempts, error, next_at)
    SELECT $1, raised.alert_id, c.channel_id, c.number, c.kind, c.addressee, 1, 0, '', $4
    FROM unnest($2::text[], $3::text[]) AS raised (alert_id, rule_id)
    JOIN alert_channels c ON c.organization = $1 AND c.rule_id = raised.rule_id
"""
_NOTICED = "SELECT DISTINCT organization FROM alert_notices ORDER BY organization LIMIT 1000"
_NOTICES = "SELECT * FROM alert_notices WHERE organization = $1 ORDER BY notice_id LIMIT $2"
_TAKE_NOTICES = "DELETE FROM alert_notices WHERE organization = $1 AND notice_id = ANY($2::bigint[])"
_TOLD = """
    SELECT rule_id, period_start, subject FROM alerts
    WHERE organization = $1 AND kind = ANY($2::smallint[]) AND period_start = ANY($3::timestamptz[]) AND created_at >= $4
"""
_RESETS = """
    SELECT charges, count(*) AS entries FROM journal JOIN charge_sets USING (organization, charges_number)
    WHERE organization = $1 AND kind = 10 GROUP BY charges
"""
_ALERTS = """
    SELECT * FROM alerts WHERE organization = $1 AND (scope = $2 OR starts_with(scope, $2 || '/'))
        AND ($3::timestamptz IS NULL OR (created_at, alert_id) < ($3, $4)) ORDER BY created_at DESC, alert_id DESC LIMIT $5
"""
_DELIVERIES = """
    SELECT alert_id, kind, addressee, state, attempts, error FROM alert_deliveries
    WHERE organization = $1 AND alert_id = ANY($2::text[]) ORDER BY alert_id, number, channel_id
"""
_FORGET = """
    WITH gone AS (DELETE FROM alerts WHERE created_at < $1 RETURNING organization, alert_id)
    DELETE FROM alert_deliveries d USING gone WHERE d.organization = gone.organization AND d.alert_id = gone.alert_id
"""


class PostgresAlerts(PostgresAlertRules):
    """The AlertStore."""

    def __init__(self, pool: asyncpg.Pool, clock: Clock, new_id: NewId) -> None:
        super().__init__(pool, clock)
        self._new_id = new_id

    async def noticed(self) -> list[str]:
        """Organisations with notices."""
        with reaching():
            return [row["organization"] for row in await self._pool.fetch(_NOTICED)]

    async def drain(self, organization: str) -> int:
        """Takes up all notices that there are now."""
        raised, more = 0, True
        while more:
            with reaching():
                async with self._pool.acquire(timeout=10.0) as connection, connection.transaction():
                    await connection.execute(LOCK, organization)
                    found = await connection.fetch(_NOTICES, organization, _NOTICES_MAX)
                    notices = [notice_of(row) for row in found]
                    rules = [rule_of(row) for row in await connection.fetch(RULES, organization)] if notices else []
                    findings = findings_of(notices, rules, await self._told(connection, organization, notices))
                    raised += await self._raise(connection, organization, findings)
                    await connection.execute(_TAKE_NOTICES, organization, [row["notice_id"] for row in found])
            more = len(found) == _NOTICES_MAX
        return raised

    async def _told(self, connection: Any, organization: str, notices: Sequence[Any]) -> dict[tuple[str, datetime], set[str]]:
        hours = {notice.at.replace(minute=0, second=0, microsecond=0) for notice in notices if notice.kind in INCIDENTS}
        told: dict[tuple[str, datetime], set[str]] = {}
        if hours:
            kinds = [int(kind) for kind in INCIDENTS]
            for row in await connection.fetch(_TOLD, organization, kinds, list(hours), min(hours)):
                told.setdefault((row["rule_id"], row["period_start"]), set()).add(row["subject"])
        return told

    async def resets(self, organization: str) -> dict[str, int]:
        """How often budgets were reset: as many entries of the journal as resets wrote."""
        with reaching():
            rows = await self._pool.fetch(_RESETS, organization)
        resets: dict[str, int] = {}
        for row in rows:
            for charge in charges_of(organization, row["charges"]):
                resets[charge.key[1]] = resets.get(charge.key[1], 0) + row["entries"]
        return resets

    async def raise_all(self, organization: str, findings: Sequence[Finding]) -> int:
        """Raises what is new."""
        with reaching():
            async with self._pool.acquire(timeout=10.0) as connection, connection.transaction():
                await connection.execute(LOCK, organization)
                return await self._raise(connection, organization, findings)

    async def _raise(self, connection: Any, organization: str, findings: Sequence[Finding]) -> int:
        """Raises what is new, under the organisation's lock, and gathers incidents that one hour already has an alert about."""
        now, raised = self._clock.now(), []
        happened: dict[tuple[str, str, datetime], Finding] = {}
        for each in findings:
            if each.incidents:
                key = each.rule_id, each.subject, each.period_start
                happened[key] = _together(happened.get(key), each)
        for statement, group in (
            (_RAISE_NEW, [each for each in findings if not each.incidents]),
            (_RAISE_OR_ADD, list(happened.values())),
        ):
            if group:
                columns = map(list, zip(*(self._columns(each) for each in group), strict=True))
                raised += [row for row in await connection.fetch(statement, organization, *columns, now) if row["new"]]
        if raised:
            ids, rules = [row["alert_id"] for row in raised], [row["rule_id"] for row in raised]
            await connection.execute(_DELIVER, organization, ids, rules, now)
        return len(raised)

    def _columns(self, finding: Finding) -> tuple[Any, ...]:
        return (
            self._new_id(),
            finding.rule_id,
            finding.subject,
            finding.period_start,
            finding.resets,
            finding.limit,
            int(finding.kind),
            finding.scope,
            finding.budget_id,
            finding.unit,
            finding.threshold,
            finding.observed,
            finding.amount,
            finding.incidents,
            finding.detail,
            finding.ends_at,
            finding.window_s,
        )

    async def alerts(self, question: AlertsQuestion) -> list[Alert]:
        """A page of alerts."""
        asked = question.organization, question.scope, *(question.before or (None, None)), question.page_size
        with reaching():
            rows = await self._pool.fetch(_ALERTS, *asked)
            found = await self._pool.fetch(_DELIVERIES, question.organization, [row["alert_id"] for row in rows])
        deliveries: dict[str, list[Delivery]] = {}
        for row in found:
            addressee = Addressee(row["kind"], row["addressee"])
            delivery = Delivery(addressee, _STATES[row["state"]], row["attempts"], row["error"])
            deliveries.setdefault(row["alert_id"], []).append(delivery)
        return [alert_of(row, tuple(deliveries.get(row["alert_id"], ()))) for row in rows]

    async def forget(self, before: datetime) -> None:
        """Deletes old alerts and their deliveries."""
        with reaching():
            await self._pool.execute(_FORGET, before)


def _together(one: Finding | None, other: Finding) -> Finding:
    """Incidents of two batches as one finding: one statement can touch a row only once."""
    if one is None:
        return other
    return replace(
        other,
        incidents=one.incidents + other.incidents,
        amount=one.amount + other.amount,
        observed=one.observed + other.observed,
    )


def alert_of(row: asyncpg.Record, deliveries: tuple[Delivery, ...] = ()) -> Alert:
    """An alert as its row has it."""
    finding = Finding(
        rule_id=row["rule_id"],
        kind=AlertKind(row["kind"]),
        scope=row["scope"],
        subject=row["subject"],
        period_start=row["period_start"],
        threshold=row["threshold"],
        observed=row["observed"],
        amount=row["amount"],
        limit=row["limit_amount"],
        unit=row["unit"],
        budget_id=row["budget_id"],
        resets=row["resets"],
        incidents=row["incidents"],
        detail=row["detail"],
        ends_at=row["ends_at"],
    )
    return Alert(row["organization"], row["alert_id"], row["created_at"], finding, deliveries)
