"""What is known of quality, brought together with what is known of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from farthing_router.performance.decisions import DecisionStore, SummaryAsked
from farthing_router.performance.sums import Range, Sums


@dataclass(frozen=True, slots=True)
class QualitySum:
    """What is known of the quality of a model's answers to a task: how many, the sum of their qualities, and that of the squares."""

    step: int
    model: str
    task: str
    answers: int
    total: float
    squares: float


class QualitySums(Protocol):
    """What is known of quality, added up."""

    async def quality_sums(self, organization: str, within: Range) -> Sequence[QualitySum]:
        """By step, model and task; "" is everybody. Raises StoreUnavailable."""
        ...


class RatedAnswers:
    """The port `QualitySums` over the ratings of served answers that stand with their decisions."""

    def __init__(self, decisions: DecisionStore) -> None:
        self._decisions = decisions

    async def quality_sums(self, organization: str, within: Range) -> Sequence[QualitySum]:
        """By step, model and task."""
        asked = SummaryAsked(organization, within.start, within.end, ("served_model", "task"), step=within.step)
        return [
            QualitySum(
                each.step,
                each.labels["served_model"],
                each.labels["task"],
                each.quality_answers,
                each.quality_sum,
                each.quality_squares,
            )
            for each in await self._decisions.summarize(asked)
            if each.quality_answers
        ]


class Mix:
    """Quality of whatever calls are told apart by: that of their models and tasks, by how many answers each of these gave."""

    def __init__(self, group_by: tuple[str, ...], parts: Sequence[Sums], qualities: Sequence[QualitySum]) -> None:
        by_task = all("task" in part.labels for part in parts)
        known = _by_model(qualities, by_task=by_task)
        self._group_by = group_by
        self._found: dict[tuple[object, ...], tuple[float, int, int]] = {}
        for part in parts:
            total, answers = known.get((part.step, part.labels["model"], part.labels["task"] if by_task else ""), (0.0, 0))
            if not answers or not part.answers:
                continue
            key = self._key(part.step, part.labels)
            before, calls, rated = self._found.get(key, (0.0, 0, 0))
            self._found[key] = (before + part.answers * total / answers, calls + part.answers, rated + answers)

    def quality(self, step: int, labels: Mapping[str, str]) -> tuple[float | None, int]:
        """Mean quality, and on how many rated answers; None and 0 where nothing is known."""
        total, answers, rated = self._found.get(self._key(step, labels), (0.0, 0, 0))
        return (total / answers, rated) if answers else (None, 0)

    def _key(self, step: int, labels: Mapping[str, str]) -> tuple[object, ...]:
        return (step, *(labels[name] for name in self._group_by))


def _by_model(qualities: Sequence[QualitySum], *, by_task: bool) -> dict[tuple[int, str, str], tuple[float, int]]:
    known: dict[tuple[int, str, str], tuple[float, int]] = {}
    for each in qualities:
        key = (each.step, each.model, each.task if by_task else "")
        total, answers = known.get(key, (0.0, 0))
        known[key] = (total + each.total, answers + each.answers)
    return known
