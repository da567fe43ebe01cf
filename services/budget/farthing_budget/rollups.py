"""Roll-ups: sums of usage by fewer dimensions, kept with every settlement, so that no question ever reads the rows themselves.

Each adds up all usage by an hour or a day and by some dimensions. A question is answered from the smallest that has the dimensions it
names: whole days from one by day, the hours at its edges from one by hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from operator import add
from sys import intern
from typing import Any

from farthing_core.scopes import Scope

from farthing_budget.usage import UsageLine, UsageRecord

DIMENSIONS = ("workspace", "project", "user_name", "model", "provider", "task", "service", "domain", "key_id", "tags")
Place = tuple[str | tuple[str, ...], ...]
"""A value for each of DIMENSIONS; empty where it does not matter or is not known. The last are tags, in alphabetical order."""


class Grain(IntEnum):
    """How much time a sum covers, in hours."""

    HOUR = 1
    DAY = 24


@dataclass(frozen=True, slots=True)
class Rollup:
    """Sums of a grain by some dimensions. `number` is how the database knows it; it is never given to another.

    One `by_tag` counts usage once for each of its tags, alone; one `of_tagged` counts only usage that has tags.
    """

    number: int
    grain: Grain
    dimensions: frozenset[str]
    by_tag: bool = False
    of_tagged: bool = False

    def of(self, place: Place) -> list[Place]:
        """Where it counts what belongs to a place."""
        kept = tuple(value if name in self.dimensions else "" for name, value in zip(DIMENSIONS[:-1], place, strict=False))
        tags = place[-1]
        if self.by_tag:
            return [(*kept, (tag,)) for tag in tags]
        if self.of_tagged and not tags:
            return []
        return [(*kept, tags if "tags" in self.dimensions else ())]


def _start(grain: Grain, moment: datetime) -> datetime:
    """The start of the hour or day of a moment."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return hour if grain is Grain.HOUR else hour.replace(hour=0)


def _rollup(number: int, grain: Grain, dimensions: str, *, by_tag: bool = False, of_tagged: bool = False) -> Rollup:
    return Rollup(number, grain, frozenset(dimensions.split()), by_tag, of_tagged)


_SCOPE = "workspace project user_name"
_ALL = f"{_SCOPE} model provider task service domain key_id"
ROLLUPS = (
    # The smallest first: the first that will do is taken.
    _rollup(1, Grain.HOUR, "model provider"),
    _rollup(2, Grain.DAY, _SCOPE),
    _rollup(8, Grain.HOUR, "model provider tags", by_tag=True),
    _rollup(3, Grain.HOUR, "workspace model provider"),
    _rollup(4, Grain.DAY, "workspace project model provider task service domain"),
    _rollup(5, Grain.HOUR, "workspace project model provider"),
    _rollup(6, Grain.DAY, _ALL),
    _rollup(9, Grain.DAY, f"{_ALL} tags", of_tagged=True),
    _rollup(7, Grain.HOUR, f"{_ALL} tags"),
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a time range, and the roll-up that answers for it."""

    rollup: Rollup
    start: datetime
    end: datetime


def pieces(start: datetime, end: datetime, dimensions: Iterable[str], *, hourly: bool) -> list[Piece]:
    """Which roll-ups answer for a range of whole hours: its days from one by day where that is smaller, its edges from one by hour."""
    wanted = frozenset(dimensions)
    fitting = [
        each for each in ROLLUPS if wanted <= each.dimensions and ("tags" in wanted or not (each.by_tag or each.of_tagged))
    ]
    by_hour = next(each for each in fitting if each.grain is Grain.HOUR)
    if hourly or fitting[0] is by_hour:
        return [Piece(by_hour, start, end)]
    first = _start(Grain.DAY, start + timedelta(hours=23))
    last = _start(Grain.DAY, end)
    if first >= last:
        return [Piece(by_hour, start, end)]
    found = [Piece(by_hour, start, first), Piece(fitting[0], first, last), Piece(by_hour, last, end)]
    return [each for each in found if each.start < each.end]


def place_of(scope: Scope, record: UsageRecord, line: UsageLine) -> Place:
    """Where a line belongs, in every dimension."""
    return (
        *scope_names(scope.path),
        # Places are remembered, and few names make up many of them.
        *map(intern, (line.model, line.provider, record.task, record.service, record.domain, record.key_id)),
        tuple(sorted(record.tags)),
    )


@lru_cache(maxsize=4096)
def scope_names(path: str) -> tuple[str, str, str]:
    """The names of workspace, project and user of a scope's path; empty below its own level."""
    names = path.split("/")[3::2]
    workspace, project, user = (*names, "", "", "")[:3]
    return workspace, project, user


def place_number(place: Place) -> int:
    """The number of a place: the first 64 bits of the hash of its values, each behind its length in bytes."""
    *names, tags = place
    text = _measured([*map(str, names), _measured(map(str, tags))])
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big", signed=True)


def _measured(values: Iterable[str]) -> str:
    return "".join(f"{len(value.encode())}:{value}" for value in values)


Target = tuple[Rollup, int]
"""A roll-up, and the number of the place where it counts."""
Sums = dict[tuple[str, int, datetime, int], list[int]]
"""Figures by (organisation, roll-up, start of the hour or day, place)."""


def placed(place: Place) -> list[tuple[Target, Place]]:
    """Where each roll-up counts what belongs to a place."""
    return [((rollup, place_number(its)), its) for rollup in ROLLUPS for its in rollup.of(place)]


def by_place(usage: Iterable[tuple[Scope, str, UsageRecord]]) -> dict[tuple[str, Place], list[int]]:
    """What happened in each place of an organisation, added up: a busy place costs no more than an idle one."""
    totals: dict[tuple[str, Place], list[int]] = {}
    for scope, _, record in usage:
        for line, figures in record.figures():
            _add(totals, (scope.organization, place_of(scope, record, line)), figures)
    return totals


def summed(
    totals: Mapping[tuple[str, Place], Sequence[int]], targets: Mapping[tuple[str, Place], tuple[Target, ...]], now: datetime
) -> Sums:
    """What is added to every roll-up."""
    sums: Sums = {}
    starts = {grain: _start(grain, now) for grain in Grain}
    for (organization, place), total in totals.items():
        for rollup, number in targets[organization, place]:
            _add(sums, (organization, rollup.number, starts[rollup.grain], number), total)
    return sums


def _add(sums: dict[Any, list[int]], key: Any, figures: Sequence[int]) -> None:
    total = sums.get(key)
    sums[key] = list(figures) if total is None else [*map(add, total, figures)]
