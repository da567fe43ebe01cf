"""How providers, models, deployments and tasks do, now and over a range: from sums alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid

from farthing_router.performance.cells import KINDS
from farthing_router.performance.histograms import BUCKETS, LATENCY_MS, TOKENS_PER_S, Scale
from farthing_router.performance.quality import Mix, QualitySums
from farthing_router.performance.sums import HOURS, PerformanceStore, Range, Sums, SumsAsked, pieces

GROUPS_MAX = 1_000
ROWS_MAX = 5_000
"""Over all steps of a report."""
_MIX_ROWS_MAX = 50_000
_EMPTY = np.zeros(BUCKETS, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Performance:
    """How something does; figures as the contract explains them."""

    step: int
    labels: Mapping[str, str]
    attempts: int
    failures: int
    cancelled: int
    latency_ms: tuple[int, int, int]
    first_token_ms: tuple[int, int] | None
    output_tokens_per_s: float | None
    cost_usd_nanos: int
    input_tokens: int
    output_tokens: int
    failures_by_kind: Mapping[str, int]
    quality: float | None
    quality_answers: int
    cost_usd_nanos_per_quality_point: int | None

    @property
    def error_rate(self) -> float:
        """Failures of a call."""
        return self.failures / self.attempts if self.attempts else 0.0

    @property
    def cost_usd_nanos_per_thousand_tokens(self) -> int:
        """Cost of a thousand tokens, rounded up."""
        tokens = self.input_tokens + self.output_tokens
        return -(-self.cost_usd_nanos * 1000 // tokens) if tokens else 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose calls ("" for everybody's), told apart by what, and only those with these values."""

    organization: str
    group_by: tuple[str, ...]
    only: Mapping[str, str]


class Reports:
    """Answers questions about performance. `hours_kept_days`: before that, only whole days are known."""

    def __init__(self, store: PerformanceStore, qualities: QualitySums, *, clock: Clock, hours_kept_days: int) -> None:
        self._store = store
        self._qualities = qualities
        self._clock = clock
        self._hours_kept_days = hours_kept_days

    async def now(self, wanted: Wanted, *, window_h: int) -> list[Performance]:
        """The last so many hours, this one included; the dearest first. Raises StoreUnavailable."""
        end = self._clock.now().replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return await self._within(wanted, Range(end - timedelta(hours=window_h), end))

    async def over(self, wanted: Wanted, within: Range) -> tuple[list[Performance], list[Performance]]:
        """Every step, and the whole range. Raises FieldInvalid where hours are asked for that are kept no more, StoreUnavailable."""
        self._check(within)
        whole = Range(within.start, within.end)
        total = await self._within(wanted, whole)
        if within.step is None:
            return total, total
        steps = -(-(within.end - within.start) // within.step)
        told_apart = max(1, ROWS_MAX // steps)
        among = None
        if len(total) > told_apart:
            among = tuple(tuple(each.labels.values()) for each in total[:told_apart])
        return await self._within(wanted, within, among=among), total

    async def _within(
        self, wanted: Wanted, within: Range, *, among: tuple[tuple[str, ...], ...] | None = None
    ) -> list[Performance]:
        count_max = GROUPS_MAX if within.step is None else ROWS_MAX
        asked = SumsAsked(wanted.organization, within, wanted.group_by, wanted.only, count_max=count_max, among=among)
        sums = await self._store.sums(asked)
        # Quality is known by model and task; step by step by model alone, which is as much as anybody can draw.
        by = ("model", "task") if within.step is None else ("model",)
        finer = tuple(dict.fromkeys((*wanted.group_by, *by)))
        parts = sums
        if finer != wanted.group_by:
            parts = await self._store.sums(
                replace(asked, group_by=finer, histograms=False, count_max=_MIX_ROWS_MAX, among=None)
            )
        mix = Mix(wanted.group_by, parts, await self._qualities.quality_sums(wanted.organization, within))
        return reported(sums, mix)

    def _check(self, within: Range) -> None:
        known_from = self._clock.now() - timedelta(days=self._hours_kept_days)
        for unit, start, _ in pieces(within):
            if unit == HOURS and start < known_from - timedelta(hours=1):
                days = self._hours_kept_days
                problem = f"hours are kept for {days} days; before that, start and end at midnight UTC, in steps of whole days"
                raise FieldInvalid(field="start_time" if start == within.start else "end_time", problem=problem)


def reported(sums: Sequence[Sums], mix: Mix) -> list[Performance]:
    """Sums as they are shown."""
    latencies = _quantiles(LATENCY_MS, [each.latency for each in sums], (0.5, 0.9, 0.99))
    first_tokens = _quantiles(LATENCY_MS, [each.first_token for each in sums], (0.5, 0.9))
    paces = _quantiles(TOKENS_PER_S, [each.pace for each in sums], (0.5,))
    made = []
    for number, each in enumerate(sums):
        quality, answers = mix.quality(each.step, each.labels)
        first = first_tokens[number]
        made.append(
            Performance(
                step=each.step,
                labels=each.labels,
                attempts=each.attempts,
                failures=each.failures,
                cancelled=each.cancelled,
                latency_ms=(_ms(latencies[number][0]), _ms(latencies[number][1]), _ms(latencies[number][2])),
                first_token_ms=None if math.isnan(first[0]) else (_ms(first[0]), _ms(first[1])),
                output_tokens_per_s=None if math.isnan(paces[number][0]) else float(paces[number][0]),
                cost_usd_nanos=each.cost_usd_nanos,
                input_tokens=each.input_tokens,
                output_tokens=each.output_tokens,
                failures_by_kind=_kinds(each.kinds),
                quality=quality,
                quality_answers=answers,
                cost_usd_nanos_per_quality_point=per_quality_point(each.cost_usd_nanos, each.answers, quality),
            )
        )
    return made


def per_quality_point(cost_usd_nanos: int, answers: int, quality: float | None) -> int | None:
    """Mean cost of an answer for each hundredth of its quality, rounded up; None where quality is unknown or nothing."""
    points = answers * (quality or 0.0) * 100
    return math.ceil(cost_usd_nanos / points) if points > 0 else None


def _quantiles(scale: Scale, stored: Sequence[bytes], shares: tuple[float, ...]) -> Any:
    counts = [np.frombuffer(each, dtype=">f4", offset=4) if each else _EMPTY for each in stored]
    return scale.quantiles(np.array(counts) if counts else np.zeros((0, BUCKETS)), shares)


def _ms(value: float) -> int:
    return 0 if math.isnan(value) else round(value)


def _kinds(stored: bytes) -> dict[str, int]:
    counts = np.frombuffer(stored, dtype=">f4", offset=4) if stored else ()
    return {kind: int(count) for kind, count in zip(KINDS, counts, strict=False) if count}


def steps_of(performances: Sequence[Performance], within: Range) -> list[tuple[datetime, list[Performance]]]:
    """Performances by step, with the beginning of each step that has any."""
    steps: dict[int, list[Performance]] = {}
    for each in performances:
        steps.setdefault(each.step, []).append(each)
    return [(within.start + number * (within.step or timedelta()), steps[number]) for number in sorted(steps)]
