"""What `farthing prices rerate` does: reads the ledger, asks the router, books in the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import typer
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_runtime.cli.printing import show
from farthing_runtime.mesh import network_channel
from farthing_runtime.rerating import Attempt, Rating, Report, Row, corrections_of, read_rows, rerate
from farthing_runtime.status import peer_failure

_EXPORT_TIMEOUT_S = 3600.0
_TIMEOUT_S = 30.0
_NOT_IN_THE_LEDGER = frozenset({"image_input", "cached_image_input", "image_output", "image"})


async def run(
    ledger_address: str, router_address: str, *, asked: dict[str, Any], between: tuple[Any, Any], apply: bool
) -> Report:
    """Rates the asked-for usage between two moments again. Raises PeerFailure for a peer that does not answer."""
    async with network_channel(ledger_address) as ledger_channel, network_channel(router_address) as router_channel:
        ledger = _Ledger(budget_pb2_grpc.BudgetServiceStub(ledger_channel), ledger_address, asked)
        router = router_pb2_grpc.RouterServiceStub(router_channel)
        start, end = between
        # Corrections are booked after what they correct, so those since the beginning are all there can be.
        corrections = await corrections_of(ledger.rows(start, None))

        async def rate(attempt: Attempt) -> Rating:
            return await _rate(router, router_address, attempt)

        return await rerate(ledger.rows(start, end), corrections, rate=rate, book=ledger.book if apply else None)


class _Ledger:
    """The budget service, as far as it is needed here."""

    def __init__(self, stub: Any, address: str, asked: dict[str, Any]) -> None:
        self._stub = stub
        self._address = address
        self._asked = asked

    def rows(self, start: Timestamp | None, end: Timestamp | None) -> AsyncIterator[Row]:
        """The usage between two moments."""
        request = budget_pb2.ExportUsageRequest(
            **self._asked, format=budget_pb2.EXPORT_FORMAT_CSV, start_time=start, end_time=end
        )

        async def chunks() -> AsyncIterator[bytes]:
            try:
                async for answer in self._stub.ExportUsage(request, timeout=_EXPORT_TIMEOUT_S):
                    yield answer.chunk
            except grpc.aio.AioRpcError as error:
                raise peer_failure(error, peer=self._address) from error

        return read_rows(chunks())

    async def book(self, attempt: Attempt, request_id: str, difference_usd_nanos: int, reason: str) -> str:
        """Books a difference; the reason where the ledger will not."""
        request = budget_pb2.AdjustBudgetRequest(
            request_id=request_id,
            scope=attempt.scope,
            reservation_id=attempt.request_id,
            amount_usd_nanos=difference_usd_nanos,
            reason=reason[:500],
        )
        try:
            await self._stub.AdjustBudget(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            failure = peer_failure(error, peer=self._address)
            if failure.code in (
                grpc.StatusCode.NOT_FOUND,
                grpc.StatusCode.FAILED_PRECONDITION,
                grpc.StatusCode.INVALID_ARGUMENT,
            ):
                return failure.reason
            raise failure from error
        return ""


async def _rate(router: Any, address: str, attempt: Attempt) -> Rating:
    moment = Timestamp()
    moment.FromJsonString(attempt.recorded_at)
    usage = chat_pb2.TokenUsage()
    for name, count in attempt.counts.items():
        setattr(usage, name, count)
    request = router_pb2.RateUsageRequest(
        model=attempt.model,
        usage=usage,
        scope=attempt.scope,
        service_tier=attempt.service_tier,
        at=moment,
        provider=attempt.provider,
    )
    try:
        rated = await router.RateUsage(request, timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        failure = peer_failure(error, peer=address)
        if failure.reason in ("PRICE_UNKNOWN", "MODEL_UNKNOWN"):
            return Rating(problem=f"{failure.reason} ({attempt.model})")
        raise failure from error
    counts, kinds = attempt.counts, set(rated.distinct_kinds)
    hidden = _NOT_IN_THE_LEDGER & kinds
    if "cached_audio_input" in kinds and counts["audio_input_tokens"] and counts["cached_input_tokens"]:
        hidden |= {"cached_audio_input"}
    if hidden:
        return Rating(problem=f"the ledger does not say how much of it was {', '.join(sorted(hidden))} ({attempt.model})")
    return Rating(rated.cost_usd_nanos, rated.price_source)


def print_report(report: Report, *, apply: bool) -> None:
    """A line for every day and model that differs, and the sum of all."""
    from farthing_core.money import usd_text
    from rich.table import Table

    table = Table("day", "model", "attempts", "differ", "booked", "rated", "difference")
    for (day, model), found in sorted(report.sums.items()):
        if found.changed:
            money = (found.booked_usd_nanos, found.rated_usd_nanos, found.difference_usd_nanos)
            table.add_row(day, model, str(found.attempts), str(found.changed), *(usd_text(each, digits=9) for each in money))
    if table.row_count:
        show(table)
    attempts = sum(found.attempts for found in report.sums.values())
    difference = sum(found.difference_usd_nanos for found in report.sums.values())
    typer.echo(f"{attempts} attempts rated, difference {usd_text(difference, digits=9)}")
    if apply:
        typer.echo(f"{report.booked} corrections booked")
    for problem, count in sorted(report.left_out.items()):
        typer.secho(f"left out: {count} attempts: {problem}", err=True, fg="yellow")
    for reason, count in sorted(report.failed.items()):
        typer.secho(f"not booked: {count} corrections: {reason}", err=True, fg="red")
