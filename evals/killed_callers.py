"""Callers of a ledger that is being killed: what each asked, what it was told, and what the books must therefore say."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

import grpc
from farthing.budget.v1 import budget_pb2

ORGANIZATION = "organizations/acme"
USER = f"{ORGANIZATION}/workspaces/search/projects/ranker/users/ann"
_BATCH = 6
_TIMEOUT_S = 20.0
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)


class Figures(NamedTuple):
    """What a budget says."""

    held_usd_nanos: int
    spent_usd_nanos: int
    held_requests: int
    spent_requests: int


class Stand(NamedTuple):
    """Where a request stands: its state's name, what is held or was, what it cost."""

    state: str
    amount_usd_nanos: int = 0
    settled_usd_nanos: int = 0

    @property
    def figures(self) -> Figures:
        """What it adds to every budget of its path."""
        is_open = self.state in ("RESERVED", "DISPATCHED")
        held = self.amount_usd_nanos if is_open else 0
        return Figures(held, self.settled_usd_nanos, int(is_open), int(self.state == "SETTLED"))


NOWHERE = Stand("NOWHERE")


class Step(NamedTuple):
    """An operation of a request's life: its name, its message, and where the request stands when it is done."""

    name: str
    message: Any
    after: Stand


@dataclass
class Request:
    """A request's life: `done` of its steps were acknowledged; the next one may have been done too where nobody was told."""

    request_id: str
    steps: list[Step]
    done: int = 0
    doubt: bool = False

    @property
    def stands(self) -> Stand:
        """Where it stands by what its caller was told, or by what was looked up since."""
        return self.steps[self.done - 1].after if self.done else NOWHERE

    async def looked_up(self, answered: Callable[[Any], Awaitable[Any]], stub: Any) -> Stand:
        """Where it stands by the books."""
        asked = budget_pb2.GetReservationRequest(request_id=self.request_id, scope=USER)
        try:
            found = (await answered(lambda: stub.GetReservation(asked, timeout=_TIMEOUT_S))).reservation
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return NOWHERE
            raise
        return stand_of(found)

    def settle_doubt(self, found: Stand) -> Counter[str]:
        """Takes over what the books say; counts what they must not say."""
        allowed = [self.done, self.done + 1] if self.doubt and self.done < len(self.steps) else [self.done]
        stands = [NOWHERE, *(step.after for step in self.steps)]
        self.doubt = False
        for number in allowed:
            if stands[number] == found:
                self.done = number
                return Counter()
        return Counter(lost=1) if found in stands[: self.done] else Counter(halves=1)


def stand_of(reservation: Any) -> Stand:
    """Where a request stands, as a message says."""
    state = budget_pb2.ReservationState.Name(reservation.state).removeprefix("RESERVATION_STATE_")
    return Stand(state, reservation.amount_usd_nanos, reservation.settled_usd_nanos)


def new_id() -> str:
    """A request's id."""
    return str(uuid.uuid4())


class Callers:
    """Some callers at work, each with one request or one batch of requests at a time."""

    def __init__(self, rng: Random, stub: Callable[[], Any]) -> None:
        self._rng, self._stub = rng, stub
        self._go = asyncio.Event()
        self._go.set()
        self._flying = 0
        self._landed = asyncio.Event()
        self._requests: list[Request] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.acknowledged: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.contradictions: Counter[str] = Counter()

    @asynccontextmanager
    async def working(self, count: int) -> AsyncIterator[None]:
        """They work until the block ends."""
        tasks = [asyncio.create_task(self._batches() if number % 4 == 0 else self._lives()) for number in range(count)]
        self._tasks = tasks
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result

    @asynccontextmanager
    async def halted(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Nobody begins anything in the block; what is given waits until everybody has had an answer, or none."""
        self._go.clear()

        async def standing_still() -> None:
            while self._flying:
                self._landed.clear()
                await asyncio.wait_for(self._landed.wait(), 2 * _TIMEOUT_S)

        yield standing_still
        self._go.set()

    async def told(self, count: int) -> None:
        """Waits until so many more operations were acknowledged."""
        until = self.acknowledged.total() + count
        async with asyncio.timeout(4 * _TIMEOUT_S):
            while self.acknowledged.total() < until:
                self._landed.clear()
                await self._landed.wait()
                for task in self._tasks:
                    if task.done():
                        task.result()

    def in_doubt(self) -> Iterator[Request]:
        """Requests of which something may have been done that nobody was told."""
        return (request for request in self._requests if request.doubt)

    def everything(self) -> Iterator[Request]:
        """All requests there ever were."""
        return iter(self._requests)

    def expected(self) -> tuple[Figures, int]:
        """What every budget must say, and what usage must come to."""
        figures = [request.stands.figures for request in self._requests]
        total = Figures(*(sum(column) for column in zip(*figures, strict=True))) if figures else Figures(0, 0, 0, 0)
        return total, total.spent_usd_nanos

    def table(self) -> list[tuple[str, int, int]]:
        """How many operations of each kind were acknowledged, and how many had to be asked for again."""
        return [(name, self.acknowledged[name], self.unanswered[name]) for name in sorted(self.acknowledged)]

    async def _lives(self) -> None:
        while True:
            request = self._begin()
            for at in range(len(request.steps)):
                await self._until_told([request], at)

    async def _batches(self) -> None:
        while True:
            requests = [self._begin(batched=True) for _ in range(_BATCH)]
            for at in range(len(requests[0].steps)):
                await self._until_told(requests, at)

    async def _until_told(self, requests: list[Request], at: int) -> None:
        """Asks for a step until there is an answer; it must be what was asked for, however often that was done."""
        steps = [request.steps[at] for request in requests]
        told: list[Stand] | None = None
        while told is None:
            await self._go.wait()
            for request in requests:
                request.doubt = request.done == at
            told = await self._ask(steps)
        for request, step, stand in zip(requests, steps, told, strict=True):
            request.done, request.doubt = at + 1, False
            self.acknowledged[step.name] += 1
            self.contradictions["contradictions"] += stand != step.after

    async def _ask(self, steps: list[Step]) -> list[Stand] | None:
        """What was answered; None where nothing was."""
        self._flying += 1
        try:
            return await (self._one(steps[0]) if len(steps) == 1 else self._many(steps))
        except grpc.aio.AioRpcError as error:
            if error.code() not in _GONE:
                return [Stand(error.code().name)] * len(steps)
            self.unanswered.update(step.name for step in steps)
        finally:
            self._flying -= 1
            self._landed.set()
        await asyncio.sleep(0.01)
        return None

    async def _one(self, step: Step) -> list[Stand]:
        stub = self._stub()
        answer = await getattr(stub, _METHODS[step.name])(step.message, timeout=_TIMEOUT_S)
        return [stand_of(answer.reservation) if step.name != "record" else step.after]

    async def _many(self, steps: list[Step]) -> list[Stand]:
        operations = [budget_pb2.ReservationOperation(**{step.name: step.message}) for step in steps]
        answer = await self._stub().BatchReserve(budget_pb2.BatchReserveRequest(operations=operations), timeout=_TIMEOUT_S)
        return [stand_of(result.reservation) if not result.code else Stand(result.reason) for result in answer.results]

    def _begin(self, *, batched: bool = False) -> Request:
        request = Request(request_id := new_id(), _life(self._rng, request_id, batched=batched))
        self._requests.append(request)
        return request


_METHODS = {
    "reserve": "ReserveBudget",
    "dispatch": "DispatchReservation",
    "top_up": "TopUpReservation",
    "settle": "SettleReservation",
    "release": "ReleaseReservation",
    "record": "RecordUsage",
}


def _life(rng: Random, request_id: str, *, batched: bool) -> list[Step]:
    """What becomes of a request, at random."""
    names: dict[str, Any] = {"request_id": request_id, "scope": USER}
    amount, more, cost = rng.randrange(1, 10**9), rng.randrange(1, 10**9), rng.randrange(1, 10**9)
    line = budget_pb2.UsageLine(model="large", provider="p", cost_usd_nanos=cost, input_tokens=10, outcome="accepted")
    usage = budget_pb2.UsageRecord(lines=[line], baseline_usd_nanos=cost)
    if not batched and rng.random() < 0.2:
        return [Step("record", budget_pb2.RecordUsageRequest(**names, usage=usage), Stand("SETTLED", 0, cost))]
    reserve = budget_pb2.ReserveBudgetRequest(**names, amount_usd_nanos=amount, ttl_s=3_600)
    steps = [Step("reserve", reserve, Stand("RESERVED", amount))]
    if batched or rng.random() < 0.7:
        dispatch = budget_pb2.DispatchReservationRequest(**names)
        steps.append(Step("dispatch", dispatch, Stand("DISPATCHED", amount)))
    if batched or rng.random() < 0.4:
        total = amount + more
        top_up = budget_pb2.TopUpReservationRequest(**names, amount_usd_nanos=total)
        steps.append(Step("top_up", top_up, steps[-1].after._replace(amount_usd_nanos=total)))
    held = steps[-1].after.amount_usd_nanos
    if batched or rng.random() < 0.7:
        settle = budget_pb2.SettleReservationRequest(**names, usage=usage)
        steps.append(Step("settle", settle, Stand("SETTLED", held, cost)))
    else:
        steps.append(Step("release", budget_pb2.ReleaseReservationRequest(**names), Stand("RELEASED", held)))
    return steps
