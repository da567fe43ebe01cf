"""What requests used, and the sums people ask for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

_SERVED = ("accepted", "cache_")


class Group(IntEnum):
    """By what usage is grouped; the numbers are the contract's."""

    MODEL = 1
    SCOPE = 2
    DAY = 3
    TASK = 4
    PROVIDER = 5


@dataclass(frozen=True, slots=True)
class Saving:
    """What was saved, by cause, in nanodollars."""

    cache_usd_nanos: int = 0
    prompt_usd_nanos: int = 0
    route_usd_nanos: int = 0


@dataclass(frozen=True, slots=True)
class UsageLine:
    """One attempt."""

    model: str
    provider: str
    deployment: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_usd_nanos: int
    outcome: str
    estimated: bool


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One finished request."""

    task: str
    lines: tuple[UsageLine, ...]
    baseline_usd_nanos: int
    saving: Saving

    @property
    def cost_usd_nanos(self) -> int:
        """What all attempts cost."""
        return sum(line.cost_usd_nanos for line in self.lines)

    @property
    def tokens(self) -> int:
        """The tokens of all attempts."""
        return sum(line.input_tokens + line.output_tokens for line in self.lines)

    @property
    def served(self) -> int:
        """The index of the line whose answer was delivered: it carries the request, its baseline and its saving. The last when none was."""
        for index, line in enumerate(self.lines):
            if line.outcome.startswith(_SERVED):
                return index
        return len(self.lines) - 1


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """What sums are asked for: `after` is where the previous page ended."""

    scope: str
    start: datetime
    end: datetime
    groups: tuple[Group, ...]
    page_size: int
    after: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """One row of sums; `keys` are the values of the groups asked for, in their order."""

    keys: tuple[str, ...]
    requests: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cost_usd_nanos: int
    baseline_usd_nanos: int
    saving: Saving
