"""The ledger's SQL and the columns it takes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from farthing_budget.ledger import BalanceKey, Book, Hold

LOCK_HOLDS = """
    SELECT r.* FROM reservations r
    JOIN unnest($1::text[], $2::uuid[]) AS asked (organization, request_id) USING (organization, request_id)
    ORDER BY r.organization, r.request_id FOR UPDATE OF r
"""
TERMS = """
    SELECT organization, budget_id, scope, display_name, period, time_zone, limit_usd_nanos, limit_tokens
    FROM budgets WHERE organization = ANY($1::text[]) AND scope = ANY($2::text[]) AND deleted_at IS NULL
    ORDER BY organization, scope, period
"""
READ_BALANCES = """
    SELECT b.* FROM balances b
    JOIN unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (organization, budget_id, period_start)
        USING (organization, budget_id, period_start)
    ORDER BY b.organization, b.budget_id, b.period_start
"""
LOCK_BALANCES = READ_BALANCES + " FOR UPDATE OF b"
CREATE_BALANCES = """
    INSERT INTO balances (organization, budget_id, period_start, period_end)
    SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[]) ON CONFLICT DO NOTHING
"""
WRITE = """
    WITH balances_written AS (
        UPDATE balances b SET spent_usd_nanos = n.spent_usd_nanos, held_usd_nanos = n.held_usd_nanos,
            spent_tokens = n.spent_tokens, held_tokens = n.held_tokens
        FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
            AS n (organization, budget_id, period_start, spent_usd_nanos, held_usd_nanos, spent_tokens, held_tokens)
        WHERE b.organization = n.organization AND b.budget_id = n.budget_id AND b.period_start = n.period_start
    ), holds_made AS (
        INSERT INTO reservations (organization, request_id, scope, body_hash, state, amount_usd_nanos, tokens, settled_usd_nanos,
            settled_tokens, settle_hash, charges, created_at, expires_at)
        SELECT * FROM unnest($8::text[], $9::uuid[], $10::text[], $11::bytea[], $12::smallint[], $13::bigint[], $14::bigint[],
            $15::bigint[], $16::bigint[], $17::bytea[], $18::text[], $19::timestamptz[], $20::timestamptz[])
    ), holds_ended AS (
        UPDATE reservations r SET state = n.state, settled_usd_nanos = n.settled_usd_nanos, settled_tokens = n.settled_tokens,
            settle_hash = n.settle_hash
        FROM unnest($21::text[], $22::uuid[], $23::smallint[], $24::bigint[], $25::bigint[], $26::bytea[])
            AS n (organization, request_id, state, settled_usd_nanos, settled_tokens, settle_hash)
        WHERE r.organization = n.organization AND r.request_id = n.request_id
    ), usage_added AS (
        INSERT INTO usage (organization, request_id, line, recorded_at, scope, task, model, provider, deployment, outcome, estimated,
            input_tokens, cached_input_tokens, output_tokens, cost_usd_nanos, baseline_usd_nanos)
        SELECT * FROM unnest($27::text[], $28::uuid[], $29::smallint[], $30::timestamptz[], $31::text[], $32::text[], $33::text[],
            $34::text[], $35::text[], $36::text[], $37::boolean[], $38::bigint[], $39::bigint[], $40::bigint[], $41::bigint[],
            $42::bigint[])
    )
    INSERT INTO usage_hourly AS u (organization, hour, scope, model, provider, task, requests, attempts, input_tokens, output_tokens,
        cost_usd_nanos, baseline_usd_nanos, saved_cache_usd_nanos, saved_prompt_usd_nanos, saved_route_usd_nanos)
    SELECT * FROM unnest($43::text[], $44::timestamptz[], $45::text[], $46::text[], $47::text[], $48::text[], $49::bigint[], $50::bigint[],
        $51::bigint[], $52::bigint[], $53::bigint[], $54::bigint[], $55::bigint[], $56::bigint[], $57::bigint[])
    ON CONFLICT (organization, hour, scope, model, provider, task) DO UPDATE SET
        requests = u.requests + excluded.requests,
        attempts = u.attempts + excluded.attempts,
        input_tokens = u.input_tokens + excluded.input_tokens,
        output_tokens = u.output_tokens + excluded.output_tokens,
        cost_usd_nanos = u.cost_usd_nanos + excluded.cost_usd_nanos,
        baseline_usd_nanos = u.baseline_usd_nanos + excluded.baseline_usd_nanos,
        saved_cache_usd_nanos = u.saved_cache_usd_nanos + excluded.saved_cache_usd_nanos,
        saved_prompt_usd_nanos = u.saved_prompt_usd_nanos + excluded.saved_prompt_usd_nanos,
        saved_route_usd_nanos = u.saved_route_usd_nanos + excluded.saved_route_usd_nanos
"""
"""Everything a batch changes, in one round trip: no two parts of it touch the same row."""
LAPSED = "SELECT scope, request_id FROM reservations WHERE state = 1 AND expires_at <= $1 ORDER BY expires_at LIMIT $2"


def charges_text(charges: Sequence[BalanceKey]) -> str:
    """Which balances a hold was charged to, as it is kept: `budget@period start` in lines. Budget ids have no line breaks."""
    return "\n".join(f"{budget_id}@{start.isoformat()}" for _, budget_id, start in charges)


def charges_of(organization: str, text: str) -> tuple[BalanceKey, ...]:
    """The balances of a kept hold."""
    pairs = (line.rsplit("@", 1) for line in text.split("\n") if line)
    return tuple((organization, budget_id, datetime.fromisoformat(start)) for budget_id, start in pairs)


def write_columns(book: Book) -> list[list[Any]]:
    """What WRITE takes."""
    return [
        *_balance_columns(book),
        *_hold_columns(book.new_holds),
        *_ended_columns(list(book.changed_holds.values())),
        *_usage_columns(book),
        *_hourly_columns(book),
    ]


def _balance_columns(book: Book) -> list[list[Any]]:
    """The changed balances, by column."""
    rows = []
    for key in sorted(book.changed_balances):
        balance = book.balances[key]
        rows.append((*key, balance.spent_usd_nanos, balance.held_usd_nanos, balance.spent_tokens, balance.held_tokens))
    return _columns(rows, width=7)


def _hold_columns(holds: Sequence[Hold]) -> list[list[Any]]:
    """New holds, by column."""
    return _columns(
        [
            (
                hold.organization,
                hold.request_id,
                hold.scope,
                hold.body_hash,
                int(hold.state),
                hold.amount_usd_nanos,
                hold.tokens,
                hold.settled_usd_nanos,
                hold.settled_tokens,
                hold.settle_hash,
                charges_text(hold.charges),
                hold.created_at,
                hold.expires_at,
            )
            for hold in holds
        ],
        width=13,
    )


def _ended_columns(holds: Sequence[Hold]) -> list[list[Any]]:
    """Changed holds, by column."""
    return _columns(
        [
            (hold.organization, hold.request_id, int(hold.state), hold.settled_usd_nanos, hold.settled_tokens, hold.settle_hash)
            for hold in holds
        ],
        width=6,
    )


def _usage_columns(book: Book) -> list[list[Any]]:
    """Usage lines, by column; the baseline stands on the line that was served."""
    rows = []
    for scope, request_id, record in book.usage:
        for number, line in enumerate(record.lines):
            baseline = record.baseline_usd_nanos if number == record.served else 0
            rows.append(
                (
                    scope.organization,
                    request_id,
                    number,
                    book.now,
                    scope.path,
                    record.task,
                    line.model,
                    line.provider,
                    line.deployment,
                    line.outcome,
                    line.estimated,
                    line.input_tokens,
                    line.cached_input_tokens,
                    line.output_tokens,
                    line.cost_usd_nanos,
                    baseline,
                )
            )
    return _columns(rows, width=16)


def _hourly_columns(book: Book) -> list[list[Any]]:
    """What the batch adds to the hourly sums, by column: each row once, in one order for everybody."""
    hour = book.now.replace(minute=0, second=0, microsecond=0)
    sums: dict[tuple[Any, ...], list[int]] = {}
    for scope, _, record in book.usage:
        for number, line in enumerate(record.lines):
            served = number == record.served
            saving = record.saving
            added = (
                1 if served else 0,
                1,
                line.input_tokens,
                line.output_tokens,
                line.cost_usd_nanos,
                record.baseline_usd_nanos if served else 0,
                saving.cache_usd_nanos if served else 0,
                saving.prompt_usd_nanos if served else 0,
                saving.route_usd_nanos if served else 0,
            )
            total = sums.setdefault(
                (scope.organization, hour, scope.path, line.model, line.provider, record.task), [0] * len(added)
            )
            for index, value in enumerate(added):
                total[index] += value
    return _columns([(*key, *sums[key]) for key in sorted(sums)], width=15)


def _columns(rows: Sequence[tuple[Any, ...]], *, width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
