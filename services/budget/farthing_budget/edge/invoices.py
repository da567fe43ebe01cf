"""The RPC that compares a provider's invoice with usage."""

from __future__ import annotations

import asyncio
from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.invoices import Invoice, InvoiceLine, day_of, lines_of_csv, rates_of
from farthing_budget.questions import Group, UsageFilter, UsageQuestion
from farthing_budget.reconciling import Comparison, ImportKey, Known, compare
from farthing_budget.store import InvoiceStore, UsageStore

_SUMS_MAX = 200_000


class InvoiceRpcs:
    """Invoices."""

    def __init__(self, *, invoices: InvoiceStore, usage: UsageStore, clock: Clock) -> None:
        self._invoices = invoices
        self._usage = usage
        self._clock = clock

    async def ImportInvoice(self, request: Any, context: Any) -> Any:
        """Compares an invoice with usage, once for a request_id."""
        key = ImportKey(parse_scope(request.scope).organization, request.request_id.lower(), messages.body_hash(request))
        found = await self._invoices.find(key)
        if found is None:
            invoice = _invoice(request)
            known = await self._known(invoice)
            # Ten thousand lines take a while, in which the ledger must go on.
            made = await asyncio.to_thread(compare, invoice, known)
            found = await self._invoices.keep(key, invoice, made, now=self._clock.now())
        return _response(found)

    async def _known(self, invoice: Invoice) -> Known:
        groups, only = (Group.MODEL, Group.HOUR), UsageFilter(provider=invoice.provider)
        sums = await self._usage.sums(UsageQuestion(invoice.scope, *invoice.hours, groups, _SUMS_MAX + 1, only=only))
        if len(sums) > _SUMS_MAX:
            raise FieldInvalid(
                field="lines", problem=f"are of days with more than {_SUMS_MAX} hours of single models: take fewer days"
            )
        moments = await self._invoices.moments(invoice)
        rates = {model: rates_of(each) for model, each in moments.items()}
        return Known(sums, rates=rates, suspended=await self._invoices.suspended(invoice))


def _invoice(request: Any) -> Invoice:
    """The invoice, in our own names of models. Raises FieldInvalid for what cannot be read."""
    if request.lines and request.csv:
        raise FieldInvalid(field="csv", problem="must be empty when lines are given")
    lines = tuple(
        InvoiceLine(
            model=messages.text(line.model, field=f"lines[{number}].model"),
            day=day_of(line.day, field=f"lines[{number}].day"),
            input_tokens=line.input_tokens,
            output_tokens=line.output_tokens,
            cost_usd_nanos=line.cost_usd_nanos,
        )
        for number, line in enumerate(request.lines)
    )
    if request.csv:
        lines = lines_of_csv(messages.text(request.csv, field="csv"))
    names = {
        messages.text(theirs, field="model_names"): messages.text(ours, field="model_names")
        for theirs, ours in request.model_names.items()
    }
    return Invoice(request.scope, messages.text(request.provider, field="provider"), lines).named(names).checked()


def _response(found: Comparison) -> Any:
    return budget_pb2.ImportInvoiceResponse(
        differences=[
            budget_pb2.InvoiceDifference(
                model=each.model,
                day=each.day.isoformat(),
                billed_usd_nanos=each.billed_usd_nanos,
                tracked_usd_nanos=each.tracked_usd_nanos,
                difference_usd_nanos=each.difference_usd_nanos,
                cause=each.cause.value,
                explanation=each.explanation,
                estimated_usd_nanos=each.estimated_usd_nanos,
            )
            for each in found.differences
        ],
        billed_usd_nanos=found.billed_usd_nanos,
        tracked_usd_nanos=found.tracked_usd_nanos,
        explained_usd_nanos=found.explained_usd_nanos,
    )
