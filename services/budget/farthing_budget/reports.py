"""The allocation report: what falls to whom, with its share, its budget and what it was before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from math import ceil

from farthing_core.errors import FieldInvalid

from farthing_budget.budgets import Terms
from farthing_budget.periods import period_bounds
from farthing_budget.questions import Group, UsageQuestion

WHOLE_PPM = 1_000_000
OTHER = "(other)"
NONE = "(none)"
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_PERIODS_MAX = 400
_LEVELS = (Group.WORKSPACE, Group.PROJECT, Group.USER)
_COLLECTIONS = ("workspaces", "projects", "users")


@dataclass(frozen=True, slots=True)
class AllocationQuestion:
    """Whose spending is allocated to what, over whole hours."""

    scope: str
    start: datetime
    end: datetime
    group: Group
    lines_max: int

    @property
    def previous_start(self) -> datetime:
        """When the range of the same length before began."""
        length = self.end - self.start
        return self.start - length if self.start - _FIRST > length else _FIRST

    @property
    def groups(self) -> tuple[Group, ...]:
        """By what usage is grouped: places of the same name under different parents are told apart."""
        return _LEVELS[: _LEVELS.index(self.group) + 1] if self.group in _LEVELS else (self.group,)

    def present(self) -> UsageQuestion:
        """The question about the range itself."""
        return UsageQuestion(self.scope, self.start, self.end, self.groups, self.lines_max)

    def previous(self) -> UsageQuestion:
        """The question about the range before."""
        return UsageQuestion(self.scope, self.previous_start, self.start, self.groups, self.lines_max)


def allocatable(group: Group | None, scope: str) -> Group:
    """To what a scope's spending is allocated: the level below it when nothing is said, to models where there is none.

    Raises FieldInvalid for tags: what has several would be allocated several times.
    """
    if group is Group.TAG:
        raise FieldInvalid(
            field="group", problem="must not be TAG: a request with several tags would be allocated several times"
        )
    return group or (*_LEVELS, Group.MODEL)[scope.count("/") // 2]


@dataclass(frozen=True, slots=True)
class Allocated:
    """What falls to one group, or to all: nanodollars and requests."""

    keys: tuple[str, ...] = ()
    requests: int = 0
    cost_usd_nanos: int = 0
    previous_cost_usd_nanos: int = 0
    saved_usd_nanos: int = 0
    estimated_usd_nanos: int = 0

    def minus(self, others: Sequence[Allocated]) -> Allocated:
        """What is left of this without others."""
        return Allocated(
            (),
            self.requests - sum(each.requests for each in others),
            self.cost_usd_nanos - sum(each.cost_usd_nanos for each in others),
            self.previous_cost_usd_nanos - sum(each.previous_cost_usd_nanos for each in others),
            self.saved_usd_nanos - sum(each.saved_usd_nanos for each in others),
            self.estimated_usd_nanos - sum(each.estimated_usd_nanos for each in others),
        )


@dataclass(frozen=True, slots=True)
class AllocationLine:
    """One line of the report."""

    name: str
    found: Allocated
    share_ppm: int
    budget_usd_nanos: int | None


def chosen(found: Sequence[Allocated], total: Allocated, *, lines_max: int) -> list[Allocated]:
    """The lines that fit; what does not is summed into the last, which has no keys."""
    if len(found) <= lines_max:
        return list(found)
    kept = list(found[: lines_max - 1])
    return [*kept, total.minus(kept)]


def lines_of(question: AllocationQuestion, lines: Sequence[Allocated], budgets: Mapping[str, int]) -> list[AllocationLine]:
    """The lines of the report; `budgets` is what each scope may spend in the range, in nanodollars."""
    last = [each.keys[-1] for each in lines if each.keys]
    repeated = {name for name, times in Counter(last).items() if times > 1}
    shares = shares_ppm([each.cost_usd_nanos for each in lines])
    return [
        AllocationLine(_name(each.keys, repeated), each, share, budgets.get(scope_of(question, each.keys) or ""))
        for each, share in zip(lines, shares, strict=True)
    ]


def _name(keys: tuple[str, ...], repeated: set[str]) -> str:
    if not keys:
        return OTHER
    return "/".join(key or NONE for key in (keys if keys[-1] in repeated else keys[-1:]))


def scope_of(question: AllocationQuestion, keys: tuple[str, ...]) -> str | None:
    """The path of the scope that a line is about; None where it is about something else."""
    if question.group is Group.SCOPE and keys:
        return keys[0]
    if question.group not in _LEVELS or not keys or not keys[-1]:
        return None
    organization = question.scope.split("/")[1]
    below = "".join(f"/{collection}/{name}" for collection, name in zip(_COLLECTIONS, keys, strict=False) if name)
    return f"organizations/{organization}{below}"


def shares_ppm(costs: Sequence[int]) -> list[int]:
    """Shares in parts per million that add up to a million exactly, by largest remainder (Hamilton's method).

    What got back more than it cost has no share; where nothing was spent nobody has one.
    """
    whole = sum(cost for cost in costs if cost > 0)
    if not whole:
        return [0] * len(costs)
    parts = [divmod(max(cost, 0) * WHOLE_PPM, whole) for cost in costs]
    shares = [share for share, _ in parts]
    missing = WHOLE_PPM - sum(shares)
    for index in sorted(range(len(parts)), key=lambda each: (-parts[each][1], each))[:missing]:
        shares[index] += 1
    return shares


def budget_for(terms: Terms, start: datetime, end: datetime) -> int:
    """What a budget allows in a range: its limit, shared out evenly over each of its periods; rounded up, in nanodollars."""
    limit = terms.limits.usd_nanos
    assert limit is not None
    allowed, moment = Fraction(0), start
    for _ in range(_PERIODS_MAX):
        begin, finish = (moment, end) if terms.rolling else period_bounds(terms.period_terms, moment)
        length_s = terms.period_terms.window_s if terms.rolling else int((finish - begin).total_seconds())
        until = min(finish, end)
        allowed += Fraction(limit * int((until - moment).total_seconds()), length_s)
        moment = until
        if moment >= end:
            return ceil(allowed)
    # So many periods are all of one length, near enough.
    return ceil(allowed * Fraction(int((end - start).total_seconds()), int((moment - start).total_seconds())))


def budgets_for(terms: Sequence[Terms], start: datetime, end: datetime) -> dict[str, int]:
    """What each scope may spend in a range: by the tightest of its budgets of money on all of its work."""
    found: dict[str, int] = {}
    for each in terms:
        if each.limits.usd_nanos is not None and each.selector is None:
            allowed = budget_for(each, start, end)
            found[each.scope] = min(allowed, found.get(each.scope, allowed))
    return found
