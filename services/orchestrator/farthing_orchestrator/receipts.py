"""Between the orchestrator's own messages and the pipeline's words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing.cache.v1 import cache_pb2
from farthing.chat.v1 import chat_pb2
from farthing.optimizer.v1 import optimizer_pb2
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

from farthing_orchestrator import messages
from farthing_orchestrator.journey import Completed, Journey, Receipt
from farthing_orchestrator.policy import Policy
from farthing_orchestrator.ports import Checked, Refused
from farthing_orchestrator.replaying import replayed
from farthing_orchestrator.request import Ask, BudgetLeft, Overrides, Piece, Step, StepName, StepOutcome

PROMPT_BYTES_MAX = 4 * 1024 * 1024
"""The most text a request may have in all."""
_CACHE_MODES = {
    orchestrator_pb2.CACHE_MODE_OFF: "off",
    orchestrator_pb2.CACHE_MODE_EXACT: "exact",
    orchestrator_pb2.CACHE_MODE_SEMANTIC: "semantic",
}
_SHARING = {number: name for name, number in messages.SHARING.items()}
_WISHES = {number: name for name, number in messages.OPTIMIZE_FOR.items()}
_ROUTING = tuple(each.name for each in orchestrator_pb2.Receipt.Routing.DESCRIPTOR.fields)
"""What of a route stands on the receipt, under the same names."""
_LEVELS = {optimizer_pb2.LEVEL_OFF: "off", optimizer_pb2.LEVEL_LOSSLESS: "lossless"}
_OUTCOMES = {
    "miss": cache_pb2.LOOKUP_OUTCOME_MISS,
    "exact": cache_pb2.LOOKUP_OUTCOME_HIT_EXACT,
    "semantic": cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC,
    "adapted": cache_pb2.LOOKUP_OUTCOME_HIT_ADAPTED,
}
_VERDICTS = {
    "allow": budget_pb2.VERDICT_ALLOW,
    "degrade": budget_pb2.VERDICT_DEGRADE,
    "deny": budget_pb2.VERDICT_DENY,
}
_STEP_NAMES = {name: orchestrator_pb2.StepName.Value(f"STEP_NAME_{name.upper()}") for name in StepName.ALL}
_STEP_OUTCOMES = {each: orchestrator_pb2.StepOutcome.Value(f"STEP_OUTCOME_{each.upper()}") for each in StepOutcome.ALL}
_DEFAULT_TASK = "chat"
_NUL = "must not contain the NUL character"
_CHARACTERS_PER_TOKEN = 4
_OUTPUT_TOKENS_LIKELY = 1024
"""What an answer without a limit is admitted with; what it really used is told at its end."""


class Requests:
    """Reads requests by a policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def ask(self, request: Any, *, prefix: str) -> Ask:
        """The request in the pipeline's words; an answer without a limit gets its task's.

        Raises FieldInvalid, naming the field behind `prefix`, for what the proto's rules cannot say.
        """
        parse_scope(request.scope, field=f"{prefix}scope")
        size = 0
        for message in request.messages:
            size += len(message.content) + len(message.extra_json)
        if size > PROMPT_BYTES_MAX:
            raise FieldInvalid(field=f"{prefix}messages", problem=f"{size} characters of text; at most {PROMPT_BYTES_MAX}")
        _check_labels(request, prefix)
        task = request.task or _DEFAULT_TASK
        parameters = self._parameters(request.parameters, task)
        return Ask(
            request_id=request.request_id,
            scope=request.scope,
            model=request.model,
            task=task,
            tier=request.tier,
            conversation=request.messages,
            parameters=parameters,
            tags=tuple(dict.fromkeys(request.tags)),
            overrides=_overrides(request.overrides) if request.HasField("overrides") else _NO_OVERRIDES,
            service=request.service,
            domain=request.domain,
            key_id=request.key_id,
            tokens_likely=size // _CHARACTERS_PER_TOKEN + (parameters.output_tokens_max or _OUTPUT_TOKENS_LIKELY),
        )

    def _parameters(self, given: Any, task: str) -> Any:
        limit = self._policy.task(task).output_tokens_max
        if limit is None or (given.HasField("output_tokens_max") and given.output_tokens_max <= limit):
            return given
        limited = chat_pb2.Parameters()
        limited.CopyFrom(given)
        limited.output_tokens_max = limit
        return limited


_NO_OVERRIDES = Overrides()


def _check_labels(request: Any, prefix: str) -> None:
    """What is written into the ledger as it is: its database keeps no NUL."""
    for name in ("task", "service", "domain", "key_id"):
        if "\x00" in getattr(request, name):
            raise FieldInvalid(field=f"{prefix}{name}", problem=_NUL)
    for number, tag in enumerate(request.tags):
        if "\x00" in tag:
            raise FieldInvalid(field=f"{prefix}tags[{number}]", problem=_NUL)


def _overrides(given: Any) -> Overrides:
    return Overrides(
        cache_mode=_CACHE_MODES.get(given.cache_mode),  # type: ignore[arg-type]
        cache_ttl_s=given.cache_ttl_s or None,
        cache_sharing=_SHARING.get(given.cache_sharing),  # type: ignore[arg-type]
        prompt_level=_LEVELS.get(given.prompt_level),
        allowed_providers=tuple(given.allowed_providers),
        fit_context=given.fit_context,
        skip_masking=given.skip_masking,
        open_models_only=given.open_models_only,
        critical=given.critical,
        optimize_for=_WISHES[given.optimize_for],
        quality_min=given.quality_min if given.HasField("quality_min") else None,
        quality_reference_model=given.quality_reference_model,
        latency_ms_max=given.latency_ms_max if given.HasField("latency_ms_max") else None,
        calls_max=given.calls_max,
        cost_usd_nanos_max=given.cost_usd_nanos_max,
        cache_error_budget_ppm=given.cache_error_budget_ppm,
        cache_personal=given.cache_personal,
        cache_age_s_max=given.cache_age_s_max,
    )


def response(completed: Completed) -> Any:
    """The whole answer with its receipt."""
    answer, unmasker = completed.answer, completed.unmasker
    if unmasker is not None:
        answer = chat_pb2.Answer(
            content=unmasker.text(answer.content),
            extra_json=unmasker.json(answer.extra_json),
            finish_reason=answer.finish_reason,
        )
    return orchestrator_pb2.CompleteResponse(
        answer=answer,
        model=completed.model,
        usage=completed.usage,
        receipt=receipt(completed.receipt),
        extra_json=completed.extra_json,
    )


def delta(piece: Piece) -> Any:
    """A piece of a streamed answer."""
    return orchestrator_pb2.StreamCompleteResponse(
        delta=orchestrator_pb2.StreamCompleteResponse.Delta(
            content=piece.content, extra_json=piece.extra_json, model=piece.model
        )
    )


def ending(completed: Completed) -> Iterator[Any]:
    """The end of a stream; an answer from the cache comes in pieces before it."""
    whole = response(completed)
    if completed.receipt.lookup is not None and completed.receipt.lookup.hit:
        for piece in replayed(whole.answer.content, whole.answer.extra_json, completed.model):
            yield delta(piece)
    yield orchestrator_pb2.StreamCompleteResponse(finished=whole)


def receipt(given: Receipt) -> Any:
    """The itemised account."""
    account, lookup = given.account, given.lookup
    message = orchestrator_pb2.Receipt(
        request_id=given.ask.request_id,
        scope=given.ask.scope,
        task=given.ask.task,
        steps=[_step(step) for step in given.steps],
        cost_usd_nanos=account.cost_usd_nanos,
        baseline_usd_nanos=account.baseline_usd_nanos,
        baseline_model=account.baseline_model,
        saving=budget_pb2.Saving(
            cache_usd_nanos=account.cache_usd_nanos,
            prompt_usd_nanos=account.prompt_usd_nanos,
            route_usd_nanos=account.route_usd_nanos,
        ),
        input_tokens_before=account.input_tokens_before,
        input_tokens_after=account.input_tokens_after,
        attempts=given.attempts,
        escalated=given.escalated,
        masked_spans=given.masked_spans,
        added_latency_us=given.added_latency_us,
        policy=given.policy,
    )
    if given.route is not None:
        message.routing.CopyFrom(orchestrator_pb2.Receipt.Routing(**{name: getattr(given.route, name) for name in _ROUTING}))
    if lookup is not None:
        message.cache_outcome = _OUTCOMES[lookup.outcome]
        message.cache_key = lookup.key
        message.cache_entry_key = lookup.entry_key
        if lookup.similarity is not None:
            message.cache_similarity = lookup.similarity
        if lookup.said is not None:
            _fill_caching(message.caching, lookup.said, checked=given.checked)
    if given.left is not None:
        message.budget_left.CopyFrom(_left(given.left))
    if given.objection is not None:
        message.decision.CopyFrom(_decision(given.objection, given.left))
    return message


def _fill_caching(caching: Any, said: Any, *, checked: bool) -> None:
    caching.reason, caching.hit_id = said.reason, said.hit_id
    caching.stale, caching.joined, caching.checked = said.stale, said.joined, checked
    caching.slots.extend(said.slots)
    if said.HasField("certificate"):
        caching.certificate.CopyFrom(said.certificate)
    if said.entry.HasField("create_time"):
        caching.create_time.CopyFrom(said.entry.create_time)


def estimate(journey: Journey, checked: Checked | None) -> Any:
    """What would happen and cost."""
    message = orchestrator_pb2.EstimateCostResponse(
        verdict=_VERDICTS[checked.verdict] if checked else budget_pb2.VERDICT_ALLOW,
        steps=[_step(step) for step in journey.steps],
        decision=checked.decision if checked else None,
    )
    if journey.lookup is not None:
        message.cache_outcome = _OUTCOMES[journey.lookup.outcome]
    if journey.planned is not None:
        message.route.CopyFrom(journey.planned.route)
        message.likely_usd_nanos = journey.planned.likely_usd_nanos
        message.worst_case_usd_nanos = journey.planned.worst_case_usd_nanos
        message.baseline_likely_usd_nanos = journey.planned.baseline_likely_usd_nanos
    if journey.left is not None:
        message.budget_left.CopyFrom(_left(journey.left))
    return message


def _decision(said: Refused, left: BudgetLeft | None) -> Any:
    """What the ledger said of dearer models, from the facts of its refusal."""
    facts = said.facts
    fewer = int(facts.get("output_tokens_max", "0"))
    kinds = [kind for kind in facts.get("alternatives", "").split(",") if kind]
    return budget_pb2.Decision(
        verdict=_VERDICTS.get(facts.get("verdict", "").lower(), budget_pb2.VERDICT_DENY),
        reason=facts.get("cause", said.reason),
        message=said.message,
        left=_left(left) if left else None,
        retry_after_s=int(said.retry_after_s or 0),
        allowed_class=budget_pb2.MODEL_CLASS_OPEN,
        alternatives=[
            budget_pb2.Alternative(kind=kind, output_tokens_max=fewer if kind == "FEWER_OUTPUT_TOKENS" else 0) for kind in kinds
        ],
    )


def _step(step: Step) -> Any:
    return orchestrator_pb2.Step(
        name=_STEP_NAMES[step.name], outcome=_STEP_OUTCOMES[step.outcome], note=step.note, duration_us=step.duration_us
    )


def _left(left: BudgetLeft) -> Any:
    return budget_pb2.BudgetLeft(
        budget_id=left.budget_id, scope=left.scope, free_usd_nanos=left.free_usd_nanos, free_tokens=left.free_tokens
    )
