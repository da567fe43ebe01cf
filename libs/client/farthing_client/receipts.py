"""The itemised account of a request, as values."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from farthing.cache.v1 import cache_pb2
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing.router.v1 import router_pb2

_NANOS_PER_USD = 1_000_000_000


def usd(nanos: int) -> Decimal:
    """Nanodollars as exact dollars."""
    return Decimal(nanos) / _NANOS_PER_USD


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the pipeline did: `name` such as `look_up`, `outcome` `done`, `skipped`, `unavailable` or `deferred`."""

    name: str
    outcome: str
    note: str
    duration_us: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One model that was asked: how it ended, how sure the judge was (None when nobody judged), and what it cost."""

    model: str
    provider: str
    outcome: str
    reason: str
    confidence: float | None
    cost_usd_nanos: int
    latency_ms: int


@dataclass(frozen=True, slots=True)
class Caching:
    """What the cache did, and why: `reason` such as `similar` or `numbers differ`.

    `hit_id` names a hit by meaning, to report it when it was wrong; `probability` is how likely it is that its answer serves the
    question, None where nothing was judged, `probability_min` what that had to reach, `error_budget_ppm` what the threshold keeps and
    `wrong_upper_ppm` its upper bound (95 %), both in wrong answers per million look-ups. `checked` says that a fresh answer was bought
    beside.
    """

    reason: str
    hit_id: str
    probability: float | None
    probability_min: float | None
    error_budget_ppm: int
    wrong_upper_ppm: int
    evidence: str
    category: str
    slots: tuple[tuple[str, str], ...]
    stale: bool
    joined: bool
    checked: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a request cost and saved, and why. `cost + saved = baseline`, to the nano.

    `cache` is `miss`, `exact`, `semantic` or `adapted`; `caching` says more, and is None where the cache was not asked.
    `budget_left_usd_nanos` is free on the tightest budget, None where no money is limited. `saved_by` splits the saving by cause:
    `cache`, `prompt`, `route`.
    """

    request_id: str
    scope: str
    task: str
    cost_usd_nanos: int
    baseline_usd_nanos: int
    baseline_model: str
    saved_by: dict[str, int]
    cache: str
    cache_similarity: float | None
    input_tokens_before: int
    input_tokens_after: int
    steps: tuple[Step, ...]
    attempts: tuple[Attempt, ...]
    escalated: bool
    masked_spans: int
    budget_left_usd_nanos: int | None
    added_latency_us: int
    policy: str
    caching: Caching | None = None

    @property
    def saved_usd_nanos(self) -> int:
        """What Farthing saved; negative when it cost more than it saved."""
        return self.baseline_usd_nanos - self.cost_usd_nanos


_CACHE: dict[int, str] = {
    cache_pb2.LOOKUP_OUTCOME_HIT_EXACT: "exact",
    cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC: "semantic",
    cache_pb2.LOOKUP_OUTCOME_HIT_ADAPTED: "adapted",
}


def cache_word(outcome: int) -> str:
    """`miss`, `exact`, `semantic` or `adapted`; an outcome of a newer suite is a miss to this client."""
    return _CACHE.get(outcome, "miss")


def receipt_of(message: Any) -> Receipt:
    """The receipt of a `farthing.orchestrator.v1.Receipt`."""
    left = message.budget_left
    return Receipt(
        request_id=message.request_id,
        scope=message.scope,
        task=message.task,
        cost_usd_nanos=message.cost_usd_nanos,
        baseline_usd_nanos=message.baseline_usd_nanos,
        baseline_model=message.baseline_model,
        saved_by={
            "cache": message.saving.cache_usd_nanos,
            "prompt": message.saving.prompt_usd_nanos,
            "route": message.saving.route_usd_nanos,
        },
        cache=cache_word(message.cache_outcome),
        cache_similarity=message.cache_similarity if message.HasField("cache_similarity") else None,
        input_tokens_before=message.input_tokens_before,
        input_tokens_after=message.input_tokens_after,
        steps=tuple(step_of(step) for step in message.steps),
        attempts=tuple(_attempt(attempt) for attempt in message.attempts),
        escalated=message.escalated,
        masked_spans=message.masked_spans,
        budget_left_usd_nanos=left.free_usd_nanos if left.HasField("free_usd_nanos") else None,
        added_latency_us=message.added_latency_us,
        policy=message.policy,
        caching=_caching(message.caching) if message.HasField("caching") else None,
    )


def _caching(message: Any) -> Caching:
    certificate, judged = message.certificate, message.HasField("certificate")
    return Caching(
        reason=message.reason,
        hit_id=message.hit_id,
        probability=certificate.probability if judged else None,
        probability_min=certificate.probability_min if judged else None,
        error_budget_ppm=certificate.error_budget_ppm,
        wrong_upper_ppm=certificate.wrong_upper_ppm,
        evidence=certificate.evidence,
        category=certificate.category,
        slots=tuple((slot.cached, slot.asked) for slot in message.slots),
        stale=message.stale,
        joined=message.joined,
        checked=message.checked,
    )


def step_of(message: Any) -> Step:
    """A step in words."""
    name = _word(orchestrator_pb2.StepName, message.name, "STEP_NAME_")
    outcome = _word(orchestrator_pb2.StepOutcome, message.outcome, "STEP_OUTCOME_")
    return Step(name, outcome, message.note, message.duration_us)


def _attempt(message: Any) -> Attempt:
    return Attempt(
        model=message.model,
        provider=message.provider,
        outcome=_word(router_pb2.AttemptOutcome, message.outcome, "ATTEMPT_OUTCOME_"),
        reason=message.reason,
        confidence=message.confidence if message.HasField("confidence") else None,
        cost_usd_nanos=message.cost_usd_nanos,
        latency_ms=message.latency_ms,
    )


def _word(kind: Any, number: int, prefix: str) -> str:
    """An enum's name as a word; the number itself when a newer suite knows more names than this client."""
    found = kind.DESCRIPTOR.values_by_number.get(number)
    return str(number) if found is None else str(found.name).removeprefix(prefix).lower()
