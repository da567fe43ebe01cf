"""What routing asks of the rest of the router. Everything answers from memory, at once, and never raises: who knows nothing says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from farthing_router.routing.errands import Errand, Finished
from farthing_router.routing.planning import Wish


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a quantity: its expectation, a 95 % interval, on how many answers, and from where."""

    value: float
    lower: float
    upper: float
    answers: int
    source: str


class Speeds(Protocol):
    """How fast and how reliable models are."""

    def latency_ms(self, model: str, task: str, *, output_tokens: int) -> int | None:
        """How long an answer of that length will likely take; None where nothing is known."""
        ...

    def error_rate(self, model: str) -> float:
        """The share of recent calls that failed, 0 to 1; 0 where nothing is known."""
        ...


class Qualities(Protocol):
    """How good models are."""

    def quality(self, model: str, wish: Wish) -> Known | None:
        """How likely the model answers this request well, 0 to 1; None where nothing is known."""
        ...


class Observer(Protocol):
    """Learns from what happens. Called on the hot path: it must return at once and never raise."""

    def ended(self, errand: Errand, finished: Finished | None, error: BaseException | None) -> None:
        """A route came to its end, once for every errand: with an answer, with the error that its caller gets, or because the caller left.

        What was bought and what failed stands in the errand, with the judge's opinions; after an answer, `finished.attempts` has it all.
        """
        ...
