"""The oracle: what a ledger is, small enough to be believed. It knows no batches, no database, no journal and no caches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from farthing_budget.operations import Adjust, Dispatch, Lapse, Operation, Record, Release, Reserve, Reset, Settle, TopUp
from farthing_budget.periods import Period

Spot = tuple[str, Any]
"""A budget, and the day, month, year or slot of a window that is meant."""
Charged = tuple[str, Any, tuple[str, str] | None]
"""A spot, and the model or provider whose lines alone are charged there."""
NOTHING = (0,) * 8
"""Of a spot: money, tokens and requests that are held; the same that are spent; money and tokens in suspense."""


@dataclass(frozen=True)
class Budget:
    """A budget's terms. `limits` are money, tokens and requests; `only` is a kind and a name."""

    scope: str
    period: Period
    zone: str
    start_month: int
    window_s: int
    limits: tuple[int | None, ...]
    soft: int
    critical: int
    degrades: bool
    only: tuple[str, str] | None
    live: bool = True

    def slot(self, now: datetime) -> Any:
        """The period around a moment, by its name."""
        local = now.astimezone(ZoneInfo(self.zone))
        match self.period:
            case Period.DAY:
                return local.date()
            case Period.MONTH:
                return local.year, local.month
            case Period.ROLLING:
                return int(now.timestamp()) // -(-self.window_s // 24)
        return local.year - (local.month < self.start_month)

    def counts(self, slot: Any, now: datetime) -> bool:
        """Whether what is in a slot counts now. A window counts every slot of which any part is still in it, or is yet to come."""
        present = self.slot(now)
        return bool(slot >= present - 24 if self.period is Period.ROLLING else slot == present)

    def pays_for(self, models: Any, providers: Any, tags: Any) -> bool:
        """Whether it is a budget of such work."""
        return self.only is None or self.only[1] in {"model": models, "provider": providers, "tag": tags}[self.only[0]]


class Request(NamedTuple):
    """Where a request stands. `paid` is what each of its charges paid in the end: money and tokens."""

    state: str
    body: bytes
    usd: int = 0
    tokens: int = 0
    charged: tuple[Charged, ...] = ()
    expires: datetime | None = None
    critical: bool = False
    sized: bool = False
    settled: bytes | None = None
    cost: tuple[int, int] = (0, 0)
    paid: tuple[tuple[int, int], ...] = ()


class Model:
    """Budgets, what is at every spot, and every request that was ever granted."""

    def __init__(self) -> None:
        self.budgets: dict[str, Budget] = {}
        self.spots: dict[Spot, tuple[int, ...]] = {}
        self.requests: dict[str, Request] = {}
        self.used_usd_nanos = 0

    def copy(self) -> Model:
        """One like this."""
        other = Model()
        other.budgets, other.spots, other.requests = dict(self.budgets), dict(self.spots), dict(self.requests)
        other.used_usd_nanos = self.used_usd_nanos
        return other

    def path(self, scope: Any, work: Any, now: datetime) -> tuple[Charged, ...]:
        """Where some work is charged. A tag is the whole request's, a model or a provider only a line's."""
        return tuple(
            (name, each.slot(now), each.only if each.only and each.only[0] != "tag" else None)
            for name, each in self.budgets.items()
            if each.live and each.scope in scope.ancestors and each.pays_for(*work)
        )

    def move(self, charged: Any, *deltas: int) -> None:
        """Changes what is at some spots."""
        for name, slot, *_ in charged:
            self.spots[name, slot] = tuple(map(sum, zip(self.spots.get((name, slot), NOTHING), deltas, strict=True)))

    def counted(self, name: str, slot: Any, now: datetime) -> tuple[int, ...]:
        """The sum of what counts beside a spot."""
        budget = self.budgets[name]
        rolls = budget.period is Period.ROLLING
        mine = [
            at
            for (other, each), at in self.spots.items()
            if other == name and (each == slot or (rolls and budget.counts(each, now)))
        ]
        return tuple(map(sum, zip(NOTHING, *mine, strict=True)))

    def verdict(self, charged: Any, asked: tuple[int, int, int], now: datetime, *, critical: bool, open_models: bool) -> str:
        """What is said to a wish: the sternest of all its budgets."""
        found = {"ok"}
        for name, slot, _ in charged:
            budget, at = self.budgets[name], self.counted(name, slot, now)
            for unit, limit in enumerate(budget.limits if budget.live else ()):
                after = at[unit] + max(0, at[3 + unit]) + asked[unit]
                if limit is None or not asked[unit]:
                    continue
                spared = critical or open_models
                if after > (limit * budget.critical // 100 if critical else limit):
                    found.add("BudgetDegraded" if budget.degrades and not spared else "BudgetExhausted")
                elif budget.soft and not spared and after > limit * budget.soft // 100:
                    found.add("BudgetDegraded")
        return next(each for each in ("BudgetExhausted", "BudgetDegraded", "ok") if each in found)

    def apply(self, operation: Operation, now: datetime, got: Any = None) -> str:
        """The name of the verdict. Of a hold that the ledger sized the size is taken from what it answered, and measured by the limits."""
        known = self.requests.get(operation.request_id)
        match operation:
            case Record() if known is not None and known.settled is None and known.state != "released":
                return self._settle(known, operation, now)
            case Reserve() | Record() | Adjust() | Reset() if known is not None:
                body = known.settled if isinstance(operation, Record) else known.body
                return "again" if operation.body_hash == body else "RequestIdReused"
            case Reserve():
                return self._reserve(operation, now, got)
            case Record():
                return self._record(operation, now)
            case Adjust():
                return self._adjust(operation)
            case Reset():
                return self._reset(operation, now)
        return "ReservationNotFound" if known is None else self._next(known, operation, now, got)

    def _next(self, known: Request, operation: Any, now: datetime, got: Any) -> str:
        state, put = known.state, lambda **changes: self.requests.__setitem__(operation.request_id, known._replace(**changes))
        match operation:
            case Settle() if state == "settled":
                return "ok" if operation.body_hash == known.settled else "RequestIdReused"
            case Settle() if state == "released":
                return "ReservationReleased"
            case Settle():
                return self._settle(known, operation, now)
            case Release() if state == "settled":
                return "ReservationSettled"
            case Release():
                self.move(known.charged, *_ends(known))
                put(state="released")
            case Lapse() if state in _OPEN and known.expires is not None and known.expires <= now:
                called = state == "dispatched"
                self.move(known.charged, *_ends(known))
                put(state="suspended" if called else "lapsed")
                if called:
                    self.move(known.charged, 0, 0, 0, known.usd, known.tokens, 1, known.usd, known.tokens)
            case Dispatch() | TopUp() if state in ("released", "lapsed"):
                return "ReservationReleased"
            case Dispatch() if state == "settled":
                return "ReservationSettled"
            case Dispatch() if state == "reserved":
                put(state="dispatched")
            case TopUp() if state not in _OPEN:
                return "ReservationSettled"
            case TopUp():
                return self._top_up(known, operation, now, got)
        return "ok"

    def _top_up(self, known: Request, operation: TopUp, now: datetime, got: Any) -> str:
        usd, tokens = max(known.usd, operation.amount_usd_nanos), max(known.tokens, operation.tokens)
        if known.sized:
            usd, tokens = (got.hold.amount_usd_nanos, got.hold.tokens) if _granted(got) else (known.usd, known.tokens)
        asked = usd - known.usd, tokens - known.tokens, 0
        verdict = self.verdict(known.charged, asked, now, critical=known.critical, open_models=True)
        if verdict == "ok":
            self.move(known.charged, *asked, *NOTHING[3:])
            self.requests[operation.request_id] = known._replace(usd=usd, tokens=tokens)
        return "BudgetExhausted" if known.sized and _refused(got) else verdict

    def _reserve(self, operation: Reserve, now: datetime, got: Any) -> str:
        work = operation.work
        charged = self.path(operation.scope, (work.models, work.providers, work.tags), now)
        usd, tokens, sized = operation.amount_usd_nanos, operation.tokens, operation.sizing is not None
        if sized and not _granted(got):
            return type(got).__name__
        if sized:
            usd, tokens = got.hold.amount_usd_nanos, got.hold.tokens
        verdict = self.verdict(charged, (usd, tokens, 1), now, critical=work.critical, open_models=work.open_models)
        if verdict != "ok" or (_refused(got) and self._pooled(charged)):
            return type(got).__name__ if _refused(got) and self._pooled(charged) else verdict
        self.move(charged, usd, tokens, 1, *NOTHING[3:])
        state, expires = "dispatched" if operation.dispatch else "reserved", now + timedelta(seconds=operation.ttl_s)
        request = Request(state, operation.body_hash, usd, tokens, charged, expires, work.critical, sized)
        self.requests[operation.request_id] = request
        return "ok"

    def _pooled(self, charged: Any) -> bool:
        """Whether open holds that were sized may hold newcomers back beyond what they hold."""
        names = {name for name, *_ in charged}
        sized = (each for each in self.requests.values() if each.sized and each.state in _OPEN)
        return any(names & {name for name, *_ in each.charged} for each in sized)

    def _settle(self, known: Request, operation: Any, now: datetime) -> str:
        self.move(known.charged, *_ends(known))
        self._charge(known, operation, now)
        return "ok"

    def _record(self, operation: Record, now: datetime) -> str:
        usage = operation.usage
        known = Request("new", operation.body_hash, charged=self.path(operation.scope, _work(usage), now))
        if usage.cost_usd_nanos:
            self._charge(known, operation, now)
        else:
            self._end(known, operation, known.charged, ((0, 0),) * len(known.charged))
            request_id = operation.request_id
            self.requests[request_id] = self.requests[request_id]._replace(cost=(0, 0))  # it uses up nothing, no tokens either
        return "ok"

    def _charge(self, known: Request, operation: Any, now: datetime) -> None:
        """Charges what was used: to every spot of the hold its own lines, and to budgets that nobody foresaw theirs."""
        foreseen = {name for name, *_ in known.charged}
        present = self.path(operation.scope, _work(operation.usage), now)
        surprising = tuple(each for each in present if each[2] and each[0] not in foreseen)
        charged, paid = [], []
        for each in (*known.charged, *surprising):
            kind, name = each[2] or ("", "")
            lines = [line for line in operation.usage.lines if not kind or getattr(line, kind) == name]
            if lines:
                cost = sum(line.cost_usd_nanos for line in lines), sum(line.input_tokens + line.output_tokens for line in lines)
                self.move((each,), 0, 0, 0, *cost, 1, 0, 0)
                charged.append(each)
                paid.append(cost)
        self._end(known, operation, tuple(charged), tuple(paid))

    def _end(self, known: Request, operation: Any, charged: Any, paid: Any) -> None:
        usage = operation.usage
        self.used_usd_nanos += usage.cost_usd_nanos
        self.requests[operation.request_id] = known._replace(
            state="settled", charged=charged, paid=paid, settled=operation.body_hash, cost=(usage.cost_usd_nanos, usage.tokens)
        )

    def _adjust(self, operation: Adjust) -> str:
        corrected = self.requests.get(operation.reservation_id)
        if corrected is None:
            return "ReservationNotFound"
        if corrected.state != "settled":
            return "ReservationOpen"
        for each, paid in zip(corrected.charged, corrected.paid, strict=True):
            whole = operation.amount_usd_nanos, operation.tokens
            parts = (
                [-(-a * p // c) if c else a for a, p, c in zip(whole, paid, corrected.cost, strict=True)] if each[2] else whole
            )
            self.move((each,), 0, 0, 0, *parts, 0, 0, 0)
        self.used_usd_nanos += operation.amount_usd_nanos
        self.requests[operation.request_id] = Request("settled", operation.body_hash, settled=operation.body_hash)
        return "ok"

    def _reset(self, operation: Reset, now: datetime) -> str:
        budget = self.budgets[operation.budget_id]
        if not budget.live:
            return "BudgetNotFound"
        for (name, slot), at in list(self.spots.items()):
            if name == operation.budget_id and budget.counts(slot, now):
                self.spots[name, slot] = (*at[:3], at[6], at[7], 0, *at[6:])
        self.requests[operation.request_id] = Request("settled", operation.body_hash, settled=operation.body_hash)
        return "ok"

    def change(self, budget_id: str, **changes: Any) -> None:
        """Changes or ends a budget."""
        self.budgets[budget_id] = replace(self.budgets[budget_id], **changes)


_OPEN = ("reserved", "dispatched")


def _ends(known: Request) -> tuple[int, ...]:
    """What ends with a request: what it holds, or what it has in suspense."""
    if known.state in _OPEN:
        return -known.usd, -known.tokens, -1, 0, 0, 0, 0, 0
    waits = known.state == "suspended"
    return 0, 0, 0, -known.usd * waits, -known.tokens * waits, -waits, -known.usd * waits, -known.tokens * waits


def _work(usage: Any) -> tuple[Any, Any, Any]:
    return [line.model for line in usage.lines], [line.provider for line in usage.lines], usage.tags


def _granted(got: Any) -> bool:
    return hasattr(got, "hold")


def _refused(got: Any) -> bool:
    return type(got).__name__ in ("BudgetExhausted", "BudgetDegraded")
