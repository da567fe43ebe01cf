"""Answers, pieces of them, and estimates, as values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from farthing.budget.v1 import budget_pb2

from farthing_client.receipts import Receipt, Step, cache_word, receipt_of, step_of


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of an answer. `cached_input_tokens` of the input came from the provider's prefix cache; `estimated` figures are a count of
    the suite's own."""

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated: bool


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. `message_extra` holds the other fields of the model's message (`tool_calls` …), `extra` those of its response."""

    text: str
    model: str
    finish_reason: str
    usage: Usage
    receipt: Receipt
    message_extra: dict[str, Any]
    extra: dict[str, Any]

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tools the model wants called, in OpenAI's shape."""
        return list(self.message_extra.get("tool_calls") or ())


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a streamed answer. `extra` holds the other fields of the provider's delta (`tool_calls` …)."""

    text: str
    model: str
    extra: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request would do and cost. `verdict` is `allow`, `degrade` or `deny`; `models` are asked in this order."""

    cache: str
    models: tuple[str, ...]
    likely_usd_nanos: int
    worst_case_usd_nanos: int
    baseline_likely_usd_nanos: int
    verdict: str
    budget_left_usd_nanos: int | None
    steps: tuple[Step, ...]


def completion_of(message: Any) -> Completion:
    """The answer of a `CompleteResponse`."""
    answer, usage = message.answer, message.usage
    return Completion(
        text=answer.content,
        model=message.model,
        finish_reason=answer.finish_reason,
        usage=Usage(
            usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.reasoning_tokens, usage.estimated
        ),
        receipt=receipt_of(message.receipt),
        message_extra=_object(answer.extra_json),
        extra=_object(message.extra_json),
    )


def piece_of(message: Any) -> Piece:
    """The piece of a `StreamCompleteResponse.Delta`."""
    return Piece(message.content, message.model, _object(message.extra_json))


def estimate_of(message: Any) -> Estimate:
    """The estimate of an `EstimateCostResponse`."""
    left, verdict = message.budget_left, budget_pb2.Verdict.DESCRIPTOR.values_by_number.get(message.verdict)
    return Estimate(
        cache=cache_word(message.cache_outcome),
        models=tuple(candidate.model for candidate in message.route.candidates),
        likely_usd_nanos=message.likely_usd_nanos,
        worst_case_usd_nanos=message.worst_case_usd_nanos,
        baseline_likely_usd_nanos=message.baseline_likely_usd_nanos,
        verdict=str(message.verdict) if verdict is None else str(verdict.name).removeprefix("VERDICT_").lower(),
        budget_left_usd_nanos=left.free_usd_nanos if left.HasField("free_usd_nanos") else None,
        steps=tuple(step_of(step) for step in message.steps),
    )


def _object(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text) if text else {}
    return found
