"""Sums over answers in Postgres, by scope, day, model and task: each answer counts in its scope and in every one above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

from farthing_core.scopes import parse_scope

from farthing_router.learning.outcomes import Outcome, Part, Sums

_Key = tuple[str, str, date, str, str]
_NAMES = (
    "answers", "quality", "quality_squares", "opinions", "opinion", "opinion_squares", "requests",
    "cost_usd_nanos", "cost_squares", "input_tokens", "output_tokens", "input_tokens_max",
)  # fmt: skip
_ADDED = ", ".join(f"{name} = known.{name} + excluded.{name}" for name in _NAMES[:-1])
_ADD = f"""
    INSERT INTO quality_days AS known (organization, scope, day, model, task, {", ".join(_NAMES)}, needs)
    VALUES ($1, $2, $3, $4, $5, {", ".join(f"${number}" for number in range(6, 6 + len(_NAMES)))}, ${6 + len(_NAMES)})
    ON CONFLICT (organization, scope, day, model, task) DO UPDATE SET {_ADDED},
        input_tokens_max = greatest(known.input_tokens_max, excluded.input_tokens_max),
        needs = ARRAY(SELECT DISTINCT unnest(known.needs || excluded.needs) ORDER BY 1)
"""
_SUMS = f"""
    SELECT day, model, task, {", ".join(_NAMES)}, needs FROM quality_days
    WHERE organization = $1 AND scope = $2 AND day >= $3 AND day < $4 AND ($5 = '' OR model = $5) AND ($6 = '' OR task = $6)
    ORDER BY day, model, task
"""


def merged(outcomes: Sequence[Outcome]) -> dict[_Key, Sums]:
    """The sums of new answers."""
    sums: dict[_Key, Sums] = {}
    for outcome in outcomes:
        served = outcome.part is Part.SERVED
        score = outcome.automatic
        one = Sums(
            answers=score is not None,
            quality=score or 0.0,
            quality_squares=(score or 0.0) ** 2,
            requests=served,
            cost_usd_nanos=outcome.cost_usd_nanos * served,
            cost_squares=float(outcome.cost_usd_nanos * served) ** 2,
            input_tokens=outcome.input_tokens * served,
            output_tokens=outcome.output_tokens * served,
            input_tokens_max=outcome.input_tokens * served,
            needs=outcome.needs if served else frozenset(),
        )
        for key in _keys(outcome):
            sums.setdefault(key, Sums()).add(one)
    return sums


def tally(outcome: Outcome, quality: float, *, before: float | None) -> dict[_Key, Sums]:
    """What an opinion changes: `before` is what was thought until then, None where only a machine had scored the answer, or nobody."""
    was = outcome.automatic if before is None else before
    change = Sums(
        answers=was is None,
        quality=quality - (was or 0.0),
        quality_squares=quality**2 - (was or 0.0) ** 2,
        opinions=before is None,
        opinion=quality - (before or 0.0),
        opinion_squares=quality**2 - (before or 0.0) ** 2,
    )
    return dict.fromkeys(_keys(outcome), change)


async def add_sums(connection: Any, sums: Mapping[_Key, Sums]) -> None:
    """Adds to what is there, in one order, so that writers do not wait for one another in a circle."""
    if sums:
        rows = [
            (
                *key,
                *(int(value) if name in _WHOLE else float(value) for name, value in _values(sums[key])),
                sorted(sums[key].needs),
            )
            for key in sorted(sums)
        ]
        await connection.executemany(_ADD, rows)


async def sums_of(
    connection: Any, scope: str, *, only: tuple[str, str], between: tuple[datetime, datetime]
) -> list[tuple[datetime, str, str, Sums]]:
    """The sums of a scope by day, model and task."""
    start, end = between
    last = end.date() if end.time() == time(0) else date.fromordinal(end.date().toordinal() + 1)
    organization = parse_scope(scope).organization
    rows = await connection.fetch(_SUMS, organization, scope, start.date(), last, *only)
    return [
        (
            datetime.combine(row["day"], time(0), UTC),
            row["model"],
            row["task"],
            Sums(**{name: row[name] for name in _NAMES}, needs=frozenset(row["needs"])),
        )
        for row in rows
    ]


_WHOLE = frozenset(name for name in _NAMES if "quality" not in name and "squares" not in name and name != "opinion")


def _values(sums: Sums) -> list[tuple[str, Any]]:
    return [(name, getattr(sums, name)) for name in _NAMES]


def _keys(outcome: Outcome) -> list[_Key]:
    day = outcome.created_at.astimezone(UTC).date()
    return [(outcome.organization, scope, day, outcome.model, outcome.task) for scope in parse_scope(outcome.scope).ancestors]
