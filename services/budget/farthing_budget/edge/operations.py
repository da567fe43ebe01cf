"""Between messages and operations of the ledger."""

from __future__ import annotations

from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.errors import FarthingError
from farthing_core.scopes import parse_scope
from farthing_runtime.status import error_info, status_of

from farthing_budget import messages
from farthing_budget.decisions import Decision
from farthing_budget.lane import Verdict
from farthing_budget.operations import (
    ANY_WORK,
    Dispatch,
    Operation,
    Record,
    Release,
    Reserve,
    Settle,
    Sizing,
    TopUp,
    Work,
)
from farthing_budget.status import STATUS_TABLE


class Reader:
    """Reads operations. Raises FieldInvalid for what the ledger cannot keep."""

    def __init__(self, hold_ttl_s: int) -> None:
        self._hold_ttl_s = hold_ttl_s

    def operation(self, given: Any) -> Operation:
        """One of many."""
        kind = given.WhichOneof("operation")
        operation: Operation = getattr(self, kind)(getattr(given, kind))
        return operation

    def reserve(self, request: Any) -> Reserve:
        """Set money aside."""
        return Reserve(
            scope=parse_scope(request.scope),
            request_id=request.request_id.lower(),
            amount_usd_nanos=request.amount_usd_nanos,
            tokens=request.tokens,
            ttl_s=request.ttl_s or self._hold_ttl_s,
            body_hash=messages.body_hash(request),
            work=self.work(request),
            dispatch=request.dispatch,
            sizing=self.sizing(request),
        )

    def dispatch(self, request: Any) -> Dispatch:
        """The provider is called."""
        return Dispatch(parse_scope(request.scope), request.request_id.lower())

    def top_up(self, request: Any) -> TopUp:
        """Raise a hold."""
        return TopUp(
            parse_scope(request.scope),
            request.request_id.lower(),
            request.amount_usd_nanos,
            request.tokens,
            request.output_tokens,
        )

    def settle(self, request: Any) -> Settle:
        """End with what was used."""
        usage = messages.usage_record(request.usage)
        return Settle(parse_scope(request.scope), request.request_id.lower(), usage, messages.body_hash(request))

    def release(self, request: Any) -> Release:
        """End unused."""
        return Release(parse_scope(request.scope), request.request_id.lower())

    def record(self, request: Any) -> Record:
        """Write down what has no hold."""
        usage = messages.usage_record(request.usage)
        return Record(parse_scope(request.scope), request.request_id.lower(), usage, messages.body_hash(request))

    def work(self, request: Any) -> Work:
        """What a wish to spend is for."""
        if not (request.models or request.providers or request.tags or request.critical or request.model_class > _HOSTED):
            return ANY_WORK
        return Work(
            models=tuple(messages.text(name, field="models") for name in request.models),
            providers=tuple(messages.text(name, field="providers") for name in request.providers),
            tags=tuple(messages.text(name, field="tags") for name in request.tags),
            critical=request.critical,
            open_models=request.model_class == budget_pb2.MODEL_CLASS_OPEN,
        )

    def sizing(self, request: Any) -> Sizing | None:
        """What a hold is sized by."""
        if not request.HasField("sizing"):
            return None
        given = request.sizing
        return Sizing(
            input_usd_nanos=given.input_usd_nanos,
            input_tokens=given.input_tokens,
            output_usd_nanos_per_million_tokens=given.output_usd_nanos_per_million_tokens,
            output_tokens_max=given.output_tokens_max,
            model=messages.text(given.model, field="sizing.model"),
            task=messages.text(given.task, field="sizing.task"),
        )


_HOSTED = int(budget_pb2.MODEL_CLASS_HOSTED)


def decision(made: Decision) -> Any:
    """A decision, in full."""
    objection = made.objection
    text = "fits"
    if objection is not None:
        text = f"{objection.unit_name}: {max(0, objection.free)} left on {objection.terms.scope}, asked for {objection.asked}"
    return budget_pb2.Decision(
        verdict=int(made.verdict),  # type: ignore[arg-type]
        reason=made.reason,
        message=text,
        left=messages.left(made.left),
        retry_after_s=int(made.retry_after_s),
        allowed_class=_CLASSES[made.verdict.name],
        alternatives=[
            budget_pb2.Alternative(kind=each.kind, text=each.text, output_tokens_max=each.output_tokens_max)
            for each in made.alternatives
        ],
    )


_CLASSES = {
    "ALLOW": budget_pb2.MODEL_CLASS_HOSTED,
    "DEGRADE": budget_pb2.MODEL_CLASS_OPEN,
    "DENY": budget_pb2.MODEL_CLASS_UNSPECIFIED,
}


def result(verdict: Verdict) -> Any:
    """What one operation of many came to, with the status that it would have had alone."""
    if not isinstance(verdict, BaseException):
        done = budget_pb2.OperationResult(repeated=verdict.repeated)
        messages.put_reservation(done.reservation, verdict.hold)
        return done
    if not isinstance(verdict, FarthingError):
        raise verdict
    status = status_of(verdict, STATUS_TABLE)
    info = error_info(status)
    return budget_pb2.OperationResult(
        code=status.code,
        reason=info.reason if info else "",
        message=status.message,
        facts=dict(info.metadata) if info else {},
        retry_after_s=int(getattr(verdict, "retry_after_s", 0) or 0),
    )
