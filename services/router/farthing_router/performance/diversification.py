"""How far requests and money depend on few providers, and what to move so that they depend less.

Concentration is the Herfindahl–Hirschman index of shares in percent: from 10,000 (one provider) down to 10,000 / n (n equal ones).

Risk is the expected share of requests that nobody answers when providers are away independently of one another, each for the share of
time that was seen. A request fails if and only if every provider that it may be sent to is away, so that the sum over all combinations of
outages comes to the product of their shares, request by request.

Advice is found greedily: again and again the move (a part of a task's calls from one provider to a model of another, what was asked before
remaining as its fallback) that takes away most risk among those that lower concentration; each is measured with those before it done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

_ROUNDS_MAX = 8
_PARTS = (0.1, 0.25, 0.5, 0.75, 1.0)
_HHI_STEP_MIN = 10.0
_RISK_STEP_MIN = 1e-9
_QUALITY_LOSS_MAX = 0.05
LOW_HHI, HIGH_HHI = 1_500, 2_500


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls of a task to a model at a provider, what they cost, and the quality of the model at the task where it is known."""

    task: str
    provider: str
    model: str
    attempts: float
    cost_usd_nanos: float
    quality: float | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of a task that `provider` answers now, and all providers that they may be sent to."""

    task: str
    provider: str
    reachable: frozenset[str]
    requests: float


@dataclass(frozen=True, slots=True)
class Target:
    """A model that could take over what a provider does for a task, at this cost a call."""

    provider: str
    model: str
    usd_nanos_per_call: float
    quality: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Who does what, and for which share of time each provider is away."""

    traffic: tuple[Traffic, ...]
    workloads: tuple[Workload, ...]
    unavailability: Mapping[str, float]

    def costs(self) -> dict[str, float]:
        """Cost by provider."""
        return _summed((each.provider, each.cost_usd_nanos) for each in self.traffic)

    def attempts(self) -> dict[str, float]:
        """Calls by provider."""
        return _summed((each.provider, each.attempts) for each in self.traffic)

    def hhi(self) -> float:
        """Concentration of the cost."""
        return hhi(self.costs().values())

    def risk(self) -> float:
        """Expected share of requests that nobody answers."""
        total = sum(each.requests for each in self.workloads)
        lost = sum(each.requests * self._away(each.reachable) for each in self.workloads)
        return lost / total if total else 0.0

    def moved(self, task: str, provider: str, target: Target, *, part: float) -> State:
        """The same with a part of a task's calls at a provider moved to a target."""
        traffic: list[Traffic] = []
        calls = 0.0
        for each in self.traffic:
            if (each.task, each.provider) == (task, provider):
                calls += each.attempts * part
                each = replace(each, attempts=each.attempts * (1 - part), cost_usd_nanos=each.cost_usd_nanos * (1 - part))
            traffic.append(each)
        cost = calls * target.usd_nanos_per_call
        traffic.append(Traffic(task, target.provider, target.model, calls, cost, target.quality))
        workloads: list[Workload] = []
        for load in self.workloads:
            if (load.task, load.provider) == (task, provider):
                reachable = load.reachable | {target.provider}
                workloads.append(Workload(task, target.provider, reachable, load.requests * part))
                load = replace(load, requests=load.requests * (1 - part))
            workloads.append(load)
        return State(tuple(traffic), tuple(workloads), self.unavailability)

    def _away(self, providers: Iterable[str]) -> float:
        return prod(self.unavailability[each] for each in providers)


@dataclass(frozen=True, slots=True)
class Advice:
    """A move. `share` is of all calls of the task; reductions are measured with the moves before it done."""

    task: str
    from_provider: str
    target: Target
    share: float
    hhi_reduction: float
    risk_reduction: float
    cost_usd_nanos_change: int
    quality_change: float | None


Targets = Mapping[tuple[str, str], Sequence[Target]]
"""By task and provider, who could take over what the provider does for the task."""


def hhi(values: Iterable[float]) -> float:
    """The Herfindahl–Hirschman index, 0 to 10,000; 0 for nothing."""
    known = list(values)
    total = sum(known)
    return sum((100 * each / total) ** 2 for each in known) if total else 0.0


def level(index: float) -> str:
    """In a word."""
    return "low" if index < LOW_HHI else "moderate" if index <= HIGH_HHI else "high"


def advise(state: State, targets: Targets) -> tuple[list[Advice], State]:
    """What to move, the largest reduction of risk first, and how things stand with all of it done."""
    advice: list[Advice] = []
    of_task = _summed((each.task, each.attempts) for each in state.traffic)
    for _ in range(_ROUNDS_MAX):
        move = _best(state, targets)
        if move is None:
            break
        task, provider, target, part = move
        after = state.moved(task, provider, target, part=part)
        here = [each for each in state.traffic if (each.task, each.provider) == (task, provider)]
        advice.append(
            Advice(
                task=task,
                from_provider=provider,
                target=target,
                share=min(1.0, part * sum(each.attempts for each in here) / of_task[task]),
                hhi_reduction=state.hhi() - after.hhi(),
                risk_reduction=state.risk() - after.risk(),
                cost_usd_nanos_change=round(sum(after.costs().values()) - sum(state.costs().values())),
                quality_change=_change(here, target),
            )
        )
        state = after
    return sorted(advice, key=lambda each: -each.risk_reduction), state


def _best(state: State, targets: Targets) -> tuple[str, str, Target, float] | None:
    """The move that takes away most risk among those that lower concentration, then the one that lowers it most; None where none helps."""
    places = {(each.task, each.provider) for each in state.traffic if each.attempts > 0}
    costs, known = state.costs(), sum(each.requests for each in state.workloads)
    best: tuple[float, float] = (0.0, 0.0)
    found = None
    for task, provider in sorted(places):
        here = [each for each in state.traffic if (each.task, each.provider) == (task, provider)]
        loads = [each for each in state.workloads if (each.task, each.provider) == (task, provider)]
        for target in targets.get((task, provider), ()):
            change = _change(here, target)
            if change is not None and change < -_QUALITY_LOSS_MAX:
                continue
            saved = sum(
                each.requests
                * prod(state.unavailability[one] for one in each.reachable)
                * (1 - state.unavailability[target.provider])
                for each in loads
                if target.provider not in each.reachable
            )
            for part in _PARTS:
                lower = _hhi_reduction(costs, here, target, part)
                risk = part * saved / known if known else 0.0
                worth = lower > 0 and (risk > _RISK_STEP_MIN or lower >= _HHI_STEP_MIN)
                if worth and (round(risk, 12), lower) > best:
                    best, found = (round(risk, 12), lower), (task, provider, target, part)
    return found


def _hhi_reduction(costs: Mapping[str, float], here: Sequence[Traffic], target: Target, part: float) -> float:
    after = dict(costs)
    after[here[0].provider] -= part * sum(each.cost_usd_nanos for each in here)
    more = part * sum(each.attempts for each in here) * target.usd_nanos_per_call
    after[target.provider] = after.get(target.provider, 0.0) + more
    return hhi(costs.values()) - hhi(after.values())


def _change(here: Sequence[Traffic], target: Target) -> float | None:
    """By how much quality changes for what is moved; None where too little is known."""
    rated = [each for each in here if each.quality is not None and each.attempts]
    calls = sum(each.attempts for each in rated)
    if target.quality is None or not calls:
        return None
    return target.quality - sum(each.attempts * (each.quality or 0.0) for each in rated) / calls


def _summed(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    totals: dict[str, float] = {}
    for name, value in pairs:
        totals[name] = totals.get(name, 0.0) + value
    return totals
