"""What routing asks of the rest of the router. Everything answers from memory, at once, and never raises: who knows nothing says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from farthing_router.calibration.policy import FittedPolicy
from farthing_router.routing.errands import Errand, Finished
from farthing_router.routing.routes import Route, Wish
from farthing_router.routing.rules import Action

PRIOR = "prior"
"""The source of what is a guess."""


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


@dataclass(frozen=True, slots=True)
class Option:
    """A model that may and can serve a request and meets every threshold.

    `latency_ms` and `quality` are expectations; where nothing is known, a cautious guess whose source is "prior". `quality_answers` is on
    how many answers the quality is known, 0 for a guess. `baseline` is whether it is the model savings are reckoned against.
    """

    model: str
    provider: str
    likely_usd_nanos: int
    latency_ms: int
    latency_known: bool
    quality: float
    quality_source: str
    quality_answers: int = 0
    baseline: bool = False

    @property
    def quality_known(self) -> bool:
        """Whether its quality is more than a guess."""
        return self.quality_source not in ("", PRIOR)


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice among options and why, in a few words."""

    model: str
    reason: str


class Learned(Protocol):
    """What feedback taught about choosing models."""

    def choose(self, wish: Wish, options: Sequence[Option], *, usd_nanos_per_quality_point: int) -> Choice | None:
        """One of the options; None where too little is known to choose. `usd_nanos_per_quality_point` is 0 where quality has no price."""
        ...


class Pacing(Protocol):
    """What quality may cost while a budget drains."""

    def usd_nanos_per_quality_point(self, wish: Wish, *, base_usd_nanos: int) -> int:
        """What a point of quality (a hundredth) may cost this request: `base_usd_nanos`, or less where the budget runs ahead of time."""
        ...


@dataclass(frozen=True, slots=True)
class InForce:
    """A calibration by which answers are judged."""

    calibration_id: str
    policy: FittedPolicy


class Calibrations(Protocol):
    """Fitted policies."""

    def in_force(self, scope: str, task: str) -> InForce | None:
        """The calibration of the longest scope that has one for this task, or for every task; None without any."""
        ...

    def named(self, scope: str, calibration_id: str) -> InForce | None:
        """One by its name, whether in force or not, within the organisation of the scope; None where it is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Assignment:
    """An experiment's arm for one request: a model, a calibration or an action instead of what rules say; none of them is "as usual".

    `cause` is that of a shadow: "experiment" or "drift". `on_trial` is every arm but an experiment's first.
    """

    experiment_id: str
    arm: str
    model: str = ""
    calibration_id: str = ""
    action: Action | None = None
    cause: str = "experiment"
    on_trial: bool = False


class Assignments(Protocol):
    """Experiments under way."""

    def assign(self, wish: Wish) -> Assignment | None:
        """The arm that serves a request for which the router chooses the model; None where it takes no part in any experiment."""
        ...


class Shadowing(Protocol):
    """Who wants answers for comparison."""

    def shadows(self, wish: Wish, route: Route) -> Sequence[Assignment]:
        """What is to be asked beside a route; mostly nothing. A drift check names the model and has no experiment."""
        ...


class Observer(Protocol):
    """Learns from what happens. Called on the hot path: it must return at once and never raise."""

    def ended(self, errand: Errand, finished: Finished | None, error: BaseException | None) -> None:
        """A route came to its end, once for every errand: with an answer, with the error that its caller gets, or because the caller left.

        What was bought and what failed stands in the errand, with the judge's opinions; after an answer, `finished.attempts` has it all.
        """
        ...
