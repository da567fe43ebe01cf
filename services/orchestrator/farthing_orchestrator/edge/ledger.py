"""The ledger's port over gRPC."""

from __future__ import annotations

from typing import Any

from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_core.auto_models import AUTO_MODELS
from farthing_runtime.registration import Mesh

from farthing_orchestrator import messages
from farthing_orchestrator.edge.translation import translated
from farthing_orchestrator.holds import Held, Wish
from farthing_orchestrator.ports import Admitted, Checked, Refused, RequestIdReused, Usage
from farthing_orchestrator.request import Ask
from farthing_orchestrator.settings import Settings

_PEER = "budget"
_VERDICTS = {
    budget_pb2.VERDICT_ALLOW: "allow",
    budget_pb2.VERDICT_DEGRADE: "degrade",
    budget_pb2.VERDICT_DENY: "deny",
}


class GrpcLedger:
    """Money and rate limits from the budget service."""

    def __init__(self, mesh: Mesh, settings: Settings) -> None:
        self._stub = budget_pb2_grpc.BudgetServiceStub(mesh.channel("budget"))
        self._timeout_s = settings.ledger_timeout_s

    async def admit(self, ask: Ask, *, ttl_s: int) -> Admitted:
        """Lets a request in within its rate limits."""
        request = budget_pb2.AdmitRequestRequest(
            request_id=ask.request_id,
            scope=ask.scope,
            model="" if ask.model in AUTO_MODELS else ask.model,
            tokens=ask.tokens_likely,
            ttl_s=ttl_s,
        )
        with translated(_PEER):
            answer = await self._stub.AdmitRequest(request, timeout=self._timeout_s)
        if not answer.limited:
            return _UNLIMITED
        return Admitted(
            True,
            answer.requests_left if answer.HasField("requests_left") else None,
            answer.tokens_left if answer.HasField("tokens_left") else None,
        )

    async def finish(self, ask: Ask, tokens: int | None) -> None:
        """Ends an admitted request."""
        request = budget_pb2.FinishRequestRequest(request_id=ask.request_id, scope=ask.scope, tokens=tokens)
        with translated(_PEER):
            await self._stub.FinishRequest(request, timeout=self._timeout_s)

    async def reserve(self, wish: Wish, *, ttl_s: int) -> Held:
        """Sets money aside. The provider is called right after, so the hold is made as dispatched."""
        request = budget_pb2.ReserveBudgetRequest(request_id=wish.ask.request_id, ttl_s=ttl_s, dispatch=True, **_wished(wish))
        with translated(_PEER):
            answer = await self._stub.ReserveBudget(request, timeout=self._timeout_s)
        if answer.repeated:
            raise RequestIdReused(request_id=wish.ask.request_id)
        return Held(messages.budget_left(answer.left), answer.reservation.output_tokens_held)

    async def top_up(self, request_id: str, scope: str, output_tokens: int) -> int:
        """Has so many output tokens paid for."""
        request = budget_pb2.TopUpReservationRequest(request_id=request_id, scope=scope, output_tokens=output_tokens)
        with translated(_PEER):
            answer = await self._stub.TopUpReservation(request, timeout=self._timeout_s)
        return int(answer.reservation.output_tokens_held)

    async def check(self, wish: Wish) -> Checked:
        """The verdict without setting anything aside."""
        with translated(_PEER):
            answer = await self._stub.CheckBudget(budget_pb2.CheckBudgetRequest(**_wished(wish)), timeout=self._timeout_s)
        return Checked(_VERDICTS.get(answer.verdict, "deny"), messages.budget_left(answer.left), answer.decision)

    async def settle(self, request_id: str, scope: str, usage: Usage) -> None:
        """Ends a reservation with what was used."""
        request = budget_pb2.SettleReservationRequest(request_id=request_id, scope=scope, usage=messages.usage_record(usage))
        with translated(_PEER):
            await self._stub.SettleReservation(request, timeout=self._timeout_s)

    async def release(self, request_id: str, scope: str) -> None:
        """Ends a reservation unused; one that was never made has ended."""
        try:
            with translated(_PEER):
                await self._stub.ReleaseReservation(
                    budget_pb2.ReleaseReservationRequest(request_id=request_id, scope=scope), timeout=self._timeout_s
                )
        except Refused as refused:
            if refused.reason != "RESERVATION_NOT_FOUND":
                raise

    async def record(self, request_id: str, scope: str, usage: Usage) -> None:
        """Writes down what has no reservation."""
        request = budget_pb2.RecordUsageRequest(request_id=request_id, scope=scope, usage=messages.usage_record(usage))
        with translated(_PEER):
            await self._stub.RecordUsage(request, timeout=self._timeout_s)


_UNLIMITED = Admitted(False)


def _wished(wish: Wish) -> dict[str, Any]:
    """What a reservation and a check have in common."""
    ask, planned, sizing = wish.ask, wish.planned, wish.sizing
    fields: dict[str, Any] = {
        "scope": ask.scope,
        "amount_usd_nanos": planned.worst_case_usd_nanos,
        "tokens": planned.worst_case_tokens,
        "models": planned.models,
        "providers": list({offer.provider: None for offer in planned.offers}),
        "tags": ask.tags,
        "critical": wish.critical,
        "model_class": budget_pb2.MODEL_CLASS_OPEN if wish.open_models else budget_pb2.MODEL_CLASS_HOSTED,
    }
    if sizing is not None:
        fields["sizing"] = budget_pb2.Sizing(
            input_usd_nanos=sizing.input_usd_nanos,
            input_tokens=sizing.input_tokens,
            output_usd_nanos_per_million_tokens=sizing.rate,
            output_tokens_max=sizing.output_tokens_max,
            model=sizing.model,
            task=ask.task,
        )
    return fields
