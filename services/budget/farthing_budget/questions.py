"""Questions about usage, and the sums that answer them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from enum import IntEnum

from farthing_core.errors import FieldInvalid

from farthing_budget.rollups import DIMENSIONS, scope_names
from farthing_budget.usage import NOTHING_SAVED, Saving


class Group(IntEnum):
    """By what usage is grouped; the numbers are the contract's."""

    MODEL = 1
    SCOPE = 2
    DAY = 3
    TASK = 4
    PROVIDER = 5
    HOUR = 6
    SERVICE = 7
    DOMAIN = 8
    KEY = 9
    WORKSPACE = 10
    PROJECT = 11
    USER = 12
    TAG = 13


DIMENSIONS_OF: dict[Group, tuple[str, ...]] = {
    Group.MODEL: ("model",),
    Group.SCOPE: ("workspace", "project", "user_name"),
    Group.DAY: (),
    Group.TASK: ("task",),
    Group.PROVIDER: ("provider",),
    Group.HOUR: (),
    Group.SERVICE: ("service",),
    Group.DOMAIN: ("domain",),
    Group.KEY: ("key_id",),
    Group.WORKSPACE: ("workspace",),
    Group.PROJECT: ("project",),
    Group.USER: ("user_name",),
    Group.TAG: ("tags",),
}
_BESIDE_TAG = frozenset((Group.TAG, Group.HOUR, Group.DAY, Group.MODEL, Group.PROVIDER))


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which usage counts; what is empty does not filter."""

    model: str = ""
    provider: str = ""
    task: str = ""
    service: str = ""
    domain: str = ""
    key_id: str = ""

    def given(self) -> Iterator[tuple[str, str]]:
        """The dimensions that are filtered, each with the value it must have."""
        for each in fields(self):
            value = getattr(self, each.name)
            if value:
                yield each.name, value


EVERYTHING = UsageFilter()


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """What sums are asked for, over whole hours. `after` is where the previous page ended; `by_cost` asks for the dearest rows instead."""

    scope: str
    start: datetime
    end: datetime
    groups: tuple[Group, ...]
    page_size: int
    after: tuple[str, ...] | None = None
    only: UsageFilter = EVERYTHING
    by_cost: bool = False

    def checked(self) -> UsageQuestion:
        """This question; raises FieldInvalid for groups that do not go together and for pages of what has none."""
        beside = [group.name for group in self.groups if group not in _BESIDE_TAG]
        if Group.TAG in self.groups and beside:
            problem = f"TAG goes with HOUR, DAY, MODEL and PROVIDER, not with {', '.join(beside)}"
            raise FieldInvalid(field="group_by", problem=problem)
        if self.after is not None and self.by_cost:
            raise FieldInvalid(field="page_token", problem="must be empty with by_cost, which has one page")
        if self.after is not None and len(self.after) != len(self.groups):
            raise FieldInvalid(field="page_token", problem="belongs to another question")
        return self

    @property
    def places(self) -> dict[str, str]:
        """The values that the dimensions of a place must have to count."""
        of_scope = zip(DIMENSIONS, scope_names(self.scope), strict=False)
        return {name: value for name, value in of_scope if value} | dict(self.only.given())

    @property
    def dimensions(self) -> set[str]:
        """The dimensions that it takes to answer."""
        return {*self.places, *(name for group in self.groups for name in DIMENSIONS_OF[group])}


@dataclass(frozen=True, slots=True)
class UsageSum:
    """One row of sums; `keys` are the values of the groups asked for, in their order."""

    keys: tuple[str, ...]
    requests: int = 0
    attempts: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_usd_nanos: int = 0
    baseline_usd_nanos: int = 0
    saving: Saving = NOTHING_SAVED
    estimated_attempts: int = 0
    estimated_usd_nanos: int = 0
    unpriced_usd_nanos: int = 0
