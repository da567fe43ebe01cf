"""What the difference between an invoice and usage is probably due to.

A cause is named where its own figures account for the difference: tokens times the rates that usage was charged at, holds that were never
settled, hours that belong to another day elsewhere. Only what is accounted for so counts as explained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from fractions import Fraction

from farthing_core.money import usd_text

from farthing_budget.invoices import Rates
from farthing_budget.questions import UsageSum


class Cause(StrEnum):
    """Why an invoice says something else than usage."""

    NONE = "NONE"
    ROUNDING = "ROUNDING"
    NOT_TRACKED = "NOT_TRACKED"
    NOT_BILLED = "NOT_BILLED"
    DAY_BOUNDARY = "DAY_BOUNDARY"
    RATE = "RATE"
    TOKENS = "TOKENS"
    CACHED_INPUT = "CACHED_INPUT"
    SUSPENSE = "SUSPENSE"
    UNPRICED = "UNPRICED"


@dataclass(slots=True)
class Pair:
    """One model on one day: billed and tracked, and what the provider's midnight `moved` into it, for the reason that `boundary` says."""

    model: str
    day: date
    billed: int = 0
    billed_input: int = 0
    billed_output: int = 0
    lines: int = 0
    tracked: list[UsageSum] = field(default_factory=list)
    suspended: int = 0
    moved: int = 0
    boundary: str = ""

    def sum(self, name: str) -> int:
        """A figure of usage."""
        return sum(getattr(each, name) for each in self.tracked)

    @property
    def cost(self) -> int:
        """What it cost by usage."""
        return self.sum("cost_usd_nanos")

    @property
    def difference(self) -> int:
        """Billed minus tracked."""
        return self.billed - self.cost

    @property
    def tokens(self) -> tuple[int, int]:
        """Input and output tokens by usage."""
        return self.sum("input_tokens"), self.sum("output_tokens")

    @property
    def billed_tokens(self) -> tuple[int, int]:
        """Input and output tokens by the invoice; those of usage where it does not say."""
        return self.billed_input or self.tokens[0], self.billed_output or self.tokens[1]

    @property
    def same_tokens(self) -> bool:
        """Whether billed tokens are those of usage, to a thousandth: providers count some by themselves."""
        pairs = zip(self.billed_tokens, self.tokens, strict=True)
        return all(abs(said - had) * 1_000 <= had for said, had in pairs)


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause, for people with its figures, and how much of the difference it accounts for, in nanodollars."""

    cause: Cause
    text: str
    explained: int


def finding_of(pair: Pair, rates: Rates | None, tolerance: int, *, steady: bool) -> Finding:
    """What the difference of a pair is probably due to. `steady` says that its model was billed by one factor on several days."""
    if not pair.difference:
        return Finding(Cause.NONE, "as tracked", 0)
    if abs(pair.difference) <= tolerance:
        return Finding(Cause.ROUNDING, f"rounding may make up to {usd_text(tolerance, digits=9)}", pair.difference)
    rest = pair.difference - pair.moved
    boundary = f"{pair.boundary}: {_usd(pair.moved)}"
    if pair.moved and abs(rest) <= tolerance:
        return Finding(Cause.DAY_BOUNDARY, boundary, pair.difference)
    found = next(_causes(pair, rates, rest, tolerance, steady=steady))
    if pair.moved:
        cause = Cause.DAY_BOUNDARY if abs(pair.moved) >= abs(rest) else found.cause
        return Finding(
            cause, f"{boundary}; the rest, {_usd(rest)}, is {found.cause}: {found.text}", pair.moved + found.explained
        )
    return found


def _causes(pair: Pair, rates: Rates | None, rest: int, tolerance: int, *, steady: bool) -> Iterator[Finding]:
    """Causes of what is left of a difference, the most probable first."""
    if pair.suspended and 0 < rest <= pair.suspended + tolerance:
        yield Finding(Cause.SUSPENSE, f"{_usd(pair.suspended)} of calls whose cost was never reported is in suspense", rest)
    if not pair.lines:
        yield Finding(Cause.NOT_BILLED, f"{pair.sum('attempts')} attempts are on no line of the invoice", rest)
    if not pair.tracked:
        yield Finding(Cause.NOT_TRACKED, "no attempt of this model was tracked on this day", rest)
    unpriced, guessed = pair.sum("unpriced_usd_nanos"), pair.sum("estimated_usd_nanos")
    if unpriced and -unpriced - tolerance <= rest < 0:
        yield Finding(Cause.UNPRICED, f"{_usd(unpriced)} was booked at an upper bound, since no price was known", rest)
    tokens = _tokens(pair, rates, rest, tolerance)
    if tokens is not None:
        yield tokens
    cached = _cached_input(pair, rates, rest, tolerance)
    if cached is not None:
        yield cached
    if guessed and abs(rest) <= guessed + tolerance:
        yield Finding(Cause.TOKENS, f"{_usd(guessed)} was reckoned from estimates of tokens", rest)
    if pair.cost > 0:
        factor = f"billed at {float(Fraction(pair.cost + rest, pair.cost)):.4f} times the rates that usage was charged at"
        said = bool(pair.billed_input or pair.billed_output)
        reason = (
            ", of the same tokens"
            if said and pair.same_tokens
            else ""
            if steady or said
            else "; it does not say how many tokens"
        )
        yield Finding(Cause.RATE, factor + reason, rest if steady or (said and pair.same_tokens) else 0)
    yield Finding(Cause.RATE, "billed, though usage was charged at nothing", 0)


def _tokens(pair: Pair, rates: Rates | None, rest: int, tolerance: int) -> Finding | None:
    """Whether other numbers of tokens account for what is left."""
    if pair.same_tokens:
        return None
    had, said = pair.tokens, pair.billed_tokens
    more = said[0] - had[0], said[1] - had[1]
    if rates is not None:
        made = round(more[0] * rates.input_usd_nanos + more[1] * rates.output_usd_nanos)
    else:
        made = pair.cost * sum(more) // max(sum(had), 1)
    if made * rest <= 0 or 2 * min(abs(made), abs(rest)) < max(abs(made), abs(rest)):
        return None
    close = 10 * abs(made - rest) <= abs(rest) + 10 * tolerance
    text = f"billed {said[0]} input and {said[1]} output tokens, tracked {had[0]} and {had[1]}: about {_usd(made)}"
    return Finding(Cause.TOKENS, text, rest if close else made)


def _cached_input(pair: Pair, rates: Rates | None, rest: int, tolerance: int) -> Finding | None:
    """Whether it is what cached input would cost at the full rate."""
    cached = pair.sum("cached_input_tokens")
    if not cached or rest <= 0:
        return None
    if rates is not None:
        more = round(cached * (rates.input_usd_nanos - rates.cached_usd_nanos))
        if 50 * abs(rest - more) > abs(rest) + 50 * tolerance:
            return None
        return Finding(Cause.CACHED_INPUT, f"{cached} cached input tokens at the full rate are {_usd(more)} more", rest)
    # Usage does not tell the rates apart, but cached input cannot have cost less than nothing, nor other input more than all.
    other = pair.sum("input_tokens") - cached
    if other > 0 and rest * other > pair.cost * cached:
        return None
    return Finding(Cause.CACHED_INPUT, f"{cached} input tokens were cached, and at the full rate they may be what is more", 0)


def _usd(nanos: int) -> str:
    return usd_text(nanos, digits=9)
