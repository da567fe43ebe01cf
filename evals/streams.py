"""A trace of requests replayed against the ledger's own domain: arrivals, answers that stream at a stated rate, top-ups, ends.

Everything that decides is the product's: batches of operations are applied to a Book, or committed to the real ledger. Here are only
the callers, who reserve, top up before the first token that is not paid for, stop where that is refused, and settle.
"""

from __future__ import annotations

import csv
import gzip
import heapq
import re
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

from farthing_budget.lane import Verdict
from farthing_budget.operations import Operation, Outcome, Reserve, Settle, Sizing, TopUp
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.money import price_of_tokens
from farthing_core.scopes import Scope, parse_scope

TOKENS_PER_S = 50.0
INPUT_PRICE, OUTPUT_PRICE = 2_500_000_000, 10_000_000_000
"""Nanodollars per million tokens: 2.50 and 10 dollars."""
BATCH_S = 0.01
"""Operations of a hundredth of a second share a transaction, as on a busy ledger."""
MODEL = "large"
_CHUNK = 64
_WINDOW = 1_000


class Request(NamedTuple):
    """One request of a trace; `at_s` is from its first."""

    at_s: float
    input_tokens: int
    output_tokens: int
    service: str


def read_trace(path: Path) -> list[Request]:
    """The requests of a trace, in the order of their arrival."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        rows = [(datetime.fromisoformat(row["timestamp"]), row) for row in csv.DictReader(lines)]
    rows.sort(key=lambda each: each[0])
    return [
        Request(
            (at - rows[0][0]).total_seconds(), int(row["input_tokens"]), int(row["output_tokens"]), row.get("service") or ""
        )
        for at, row in rows
        if int(row["output_tokens"]) > 0
    ]


def scope_of(service: str) -> str:
    """The project that a service of the trace stands for."""
    return f"organizations/trace/workspaces/main/projects/{re.sub('[^A-Za-z0-9._-]', '-', service)[:60] or 'all'}"


def cost_of(request: Request) -> int:
    """What a request costs that is answered in full."""
    return price_of_tokens((request.input_tokens, INPUT_PRICE), (request.output_tokens, OUTPUT_PRICE))


def clairvoyant(requests: Iterable[Request], limit: int) -> int:
    """What is spent by who knows every cost beforehand and admits, in order of arrival, all that still fits."""
    spent = 0
    for request in requests:
        cost = cost_of(request)
        if spent + cost <= limit:
            spent += cost
    return spent


@dataclass(slots=True)
class Tally:
    """What became of a trace."""

    admitted: int = 0
    denied: int = 0
    cut: int = 0
    completed_usd_nanos: int = 0
    spent_usd_nanos: int = 0
    decisions: list[bool] = field(default_factory=list)


@dataclass(slots=True)
class Stream:
    """A request under way."""

    request: Request
    name: str
    scope: Scope
    began_s: float
    owned: int = 0
    tokens: int = 0
    stopped: bool = False


class Caller:
    """How callers size their holds: `learned` leaves it to the ledger, a number is held, `q97` is a rolling quantile with top-ups."""

    def __init__(self, policy: str | int, tokens_max: int) -> None:
        self._policy = policy
        self._tokens_max = tokens_max if not isinstance(policy, int) else policy
        self._recent: deque[int] = deque()
        self._sorted: list[int] = []

    def wanted(self, stream: Stream) -> int:
        """How many tokens the answer will have that is asked for."""
        return min(stream.request.output_tokens, self._tokens_max)

    def reserve(self, stream: Stream) -> Operation:
        """Asks for the hold to start with."""
        inputs = stream.request.input_tokens
        sizing, held = None, self._tokens_max
        if self._policy == "learned":
            sizing = Sizing(price_of_tokens((inputs, INPUT_PRICE)), inputs, OUTPUT_PRICE, self._tokens_max, MODEL, "chat")
        elif self._policy == "q97" and self._sorted:
            held = min(held, self._sorted[int(0.97 * (len(self._sorted) - 1))])
        return Reserve(stream.scope, stream.name, _cost(inputs, held), inputs + held, 600, b"", dispatch=True, sizing=sizing)

    def owned(self, stream: Stream, outcome: Outcome) -> int:
        """How many output tokens a hold pays for."""
        hold = outcome.hold
        return hold.sized.output_tokens_held if hold.sized else hold.tokens - stream.request.input_tokens

    def top_up(self, stream: Stream) -> Operation:
        """Asks for what the next token takes."""
        inputs, held = stream.request.input_tokens, min(stream.owned + _CHUNK, self._tokens_max)
        return TopUp(stream.scope, stream.name, _cost(inputs, held), inputs + held, stream.owned + 1)

    def ended(self, tokens: int) -> None:
        """Remembers a length."""
        if self._policy == "q97":
            self._recent.append(tokens)
            insort(self._sorted, tokens)
            if len(self._recent) > _WINDOW:
                del self._sorted[bisect_left(self._sorted, self._recent.popleft())]


def _cost(inputs: int, outputs: int) -> int:
    return price_of_tokens((inputs, INPUT_PRICE), (outputs, OUTPUT_PRICE))


Batches = Generator[tuple[float, list[Operation]], list[Verdict], Tally]


def replay(requests: Sequence[Request], *, speed: float, caller: Caller) -> Batches:
    """Yields (seconds since the start, operations) and is sent their verdicts; returns what became of the requests."""
    tally, numbers = Tally(), count()
    events: list[tuple[float, int, Stream]] = []
    for number, request in enumerate(requests):
        scope = parse_scope(scope_of(request.service))
        name = f"00000000-0000-4000-8000-{number:012x}"
        events.append((request.at_s / speed, next(numbers), Stream(request, name, scope, request.at_s / speed)))
    heapq.heapify(events)
    while events:
        batch = int(events[0][0] / BATCH_S)
        due: list[tuple[float, Stream, Operation]] = []
        while events and int(events[0][0] / BATCH_S) <= batch:
            at_s, _, stream = heapq.heappop(events)
            due.append((at_s, stream, _operation(stream, caller)))
        verdicts = yield (batch + 1) * BATCH_S, [operation for _, _, operation in due]
        for (at_s, stream, operation), verdict in zip(due, verdicts, strict=True):
            next_s = _follow(stream, operation, verdict, caller, tally)
            if next_s is not None:
                heapq.heappush(events, (max(next_s, at_s), next(numbers), stream))
    return tally


def _operation(stream: Stream, caller: Caller) -> Operation:
    if not stream.owned:
        return caller.reserve(stream)
    if stream.tokens < caller.wanted(stream) and not stream.stopped:
        return caller.top_up(stream)
    return _settle(stream)


def _settle(stream: Stream) -> Operation:
    request, whole = stream.request, stream.tokens == stream.request.output_tokens
    cost = _cost(request.input_tokens, stream.tokens)
    line = UsageLine(MODEL, "p", "d", request.input_tokens, 0, stream.tokens, cost, "accepted" if whole else "failed", False)
    return Settle(stream.scope, stream.name, UsageRecord("chat", (line,), cost, Saving()), b"")


def _follow(stream: Stream, operation: Operation, verdict: Verdict, caller: Caller, tally: Tally) -> float | None:
    """What a verdict leads to; when the stream next wants something, or None when it is over."""
    wanted = caller.wanted(stream)
    if isinstance(operation, Settle):
        assert isinstance(verdict, Outcome), verdict
        tally.spent_usd_nanos += operation.usage.cost_usd_nanos
        if stream.tokens == wanted:
            tally.completed_usd_nanos += operation.usage.cost_usd_nanos
            caller.ended(stream.tokens)
        else:
            tally.cut += 1
        return None
    if isinstance(verdict, Outcome):
        if isinstance(operation, Reserve):
            tally.admitted += 1
            tally.decisions.append(True)
        stream.owned = caller.owned(stream, verdict)
        stream.tokens = min(wanted, stream.owned)
        return stream.began_s + stream.tokens / TOKENS_PER_S
    if isinstance(operation, Reserve):
        tally.denied += 1
        tally.decisions.append(False)
        return None
    stream.stopped = True
    return 0.0  # stopped within what it owns, and settled at once
