"""The ledger's decisions: what a batch of operations does to balances and holds. No I/O: a store loads a Book and writes it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

from farthing_core.errors import FarthingError, FieldInvalid
from farthing_core.money import NANOS_MAX
from farthing_core.scopes import Scope

from farthing_budget.periods import Period, period_bounds
from farthing_budget.usage import UsageRecord


class State(IntEnum):
    """The life of a hold; the numbers are the contract's."""

    RESERVED = 1
    SETTLED = 2
    RELEASED = 3
    SUSPENDED = 4


class BudgetExhausted(FarthingError):
    """What was asked does not fit a budget on the path."""

    def __init__(self, *, budget: Terms, unit: str, asked: int, free: int, retry_after_s: float) -> None:
        super().__init__(
            f"budget {budget.display_name or budget.budget_id} of {budget.scope} has {free} {unit} left; asked for {asked}",
            budget_id=budget.budget_id,
            scope=budget.scope,
            subject=budget.scope,
            unit=unit,
            asked=asked,
            free=free,
        )
        self.retry_after_s = retry_after_s


class RequestIdReused(FarthingError):
    """A request_id that came before with another body."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"request_id {request_id} was used before with another body", request_id=request_id)


class ReservationNotFound(FarthingError):
    """No reservation of this id in this organisation."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"no reservation {request_id}", request_id=request_id)


class ReservationReleased(FarthingError):
    """The hold was given back: there is nothing to settle."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"reservation {request_id} was released", request_id=request_id)


class ReservationSettled(FarthingError):
    """The hold was settled: there is nothing to give back."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"reservation {request_id} was settled", request_id=request_id)


@dataclass(frozen=True, slots=True)
class Terms:
    """A budget's terms."""

    organization: str
    budget_id: str
    scope: str
    display_name: str
    period: Period
    time_zone: str
    limit_usd_nanos: int | None
    limit_tokens: int | None


BalanceKey = tuple[str, str, datetime]
"""(organisation, budget, start of the period)."""


@dataclass(slots=True)
class Balance:
    """What is spent and held of one budget in one period."""

    period_end: datetime
    spent_usd_nanos: int = 0
    held_usd_nanos: int = 0
    spent_tokens: int = 0
    held_tokens: int = 0


@dataclass(slots=True)
class Hold:
    """Money and tokens set aside for one request, and the balances they were charged to."""

    organization: str
    request_id: str
    scope: str
    body_hash: bytes
    state: State
    amount_usd_nanos: int
    tokens: int
    charges: tuple[BalanceKey, ...]
    created_at: datetime
    expires_at: datetime
    settled_usd_nanos: int = 0
    settled_tokens: int = 0
    settle_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """What is left on the tightest budget; None where nothing limits."""

    budget_id: str = ""
    scope: str = ""
    free_usd_nanos: int | None = None
    free_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Reserve:
    """Set money aside."""

    scope: Scope
    request_id: str
    amount_usd_nanos: int
    tokens: int
    ttl_s: int
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Settle:
    """End a hold with what was used."""

    scope: Scope
    request_id: str
    usage: UsageRecord
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Release:
    """End a hold unused."""

    scope: Scope
    request_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """Write down what has no hold."""

    scope: Scope
    request_id: str
    usage: UsageRecord
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Lapse:
    """Move a hold whose time is up into suspense."""

    scope: Scope
    request_id: str


Operation = Reserve | Settle | Release | Record | Lapse


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation came to."""

    hold: Hold | None
    left: Left
    repeated: bool = False


@dataclass(slots=True)
class Book:
    """What one batch sees and changes: the holds its operations name, the terms on their paths, and the balances of both."""

    now: datetime
    holds: dict[tuple[str, str], Hold]
    terms: dict[tuple[str, str], list[Terms]]
    balances: dict[BalanceKey, Balance]
    new_holds: list[Hold] = field(default_factory=list)
    changed_holds: dict[tuple[str, str], Hold] = field(default_factory=dict)
    changed_balances: set[BalanceKey] = field(default_factory=set)
    usage: list[tuple[Scope, str, UsageRecord]] = field(default_factory=list)
    _paths: dict[str, list[tuple[Terms, BalanceKey]]] = field(default_factory=dict)
    _new: set[tuple[str, str]] = field(default_factory=set)

    def apply(self, operation: Operation) -> Outcome:
        """Applies one operation in full or, raising its named failure, not at all."""
        match operation:
            case Reserve():
                return self._reserve(operation)
            case Settle():
                return self._settle(operation)
            case Release():
                return self._release(operation)
            case Record():
                return self._record(operation)
            case Lapse():
                return self._lapse(operation)

    def check(self, scope: Scope, amount_usd_nanos: int, tokens: int) -> Left:
        """What would be left; raises BudgetExhausted where the amount does not fit."""
        applying = self._applying(scope)
        for terms, key in applying:
            self._must_fit(terms, key, amount_usd_nanos, tokens)
        return self.left(scope)

    def left(self, scope: Scope) -> Left:
        """What is left on the tightest budgets of a path, by money and by tokens."""
        tightest, usd, tokens = None, None, None
        for terms, key in self._applying(scope):
            balance = self.balances[key]
            if terms.limit_usd_nanos is not None:
                free = terms.limit_usd_nanos - balance.spent_usd_nanos - balance.held_usd_nanos
                if usd is None or free < usd:
                    usd, tightest = free, terms
            if terms.limit_tokens is not None:
                free = terms.limit_tokens - balance.spent_tokens - balance.held_tokens
                if tokens is None or free < tokens:
                    tokens = free
                    tightest = tightest or terms
        return Left() if tightest is None else Left(tightest.budget_id, tightest.scope, usd, tokens)

    def _applying(self, scope: Scope) -> list[tuple[Terms, BalanceKey]]:
        path = self._paths.get(scope.path)
        if path is None:
            on_path = [terms for ancestor in scope.ancestors for terms in self.terms.get((scope.organization, ancestor), ())]
            path = self._paths[scope.path] = [(terms, balance_key(terms, self.now)) for terms in on_path]
        return path

    def _must_fit(self, terms: Terms, key: BalanceKey, amount_usd_nanos: int, tokens: int) -> None:
        balance = self.balances[key]
        for unit, limit, used, asked in (
            ("nanodollars", terms.limit_usd_nanos, balance.spent_usd_nanos + balance.held_usd_nanos, amount_usd_nanos),
            ("tokens", terms.limit_tokens, balance.spent_tokens + balance.held_tokens, tokens),
        ):
            if limit is not None and used + asked > limit:
                wait_s = max(0.0, (balance.period_end - self.now).total_seconds())
                raise BudgetExhausted(budget=terms, unit=unit, asked=asked, free=max(0, limit - used), retry_after_s=wait_s)

    def _reserve(self, operation: Reserve) -> Outcome:
        scope = operation.scope
        known = self.holds.get((scope.organization, operation.request_id))
        if known is not None:
            if known.body_hash != operation.body_hash:
                raise RequestIdReused(request_id=operation.request_id)
            return Outcome(known, self.left(scope), repeated=True)
        applying = self._applying(scope)
        for terms, key in applying:
            self._must_fit(terms, key, operation.amount_usd_nanos, operation.tokens)
        hold = Hold(
            organization=scope.organization,
            request_id=operation.request_id,
            scope=scope.path,
            body_hash=operation.body_hash,
            state=State.RESERVED,
            amount_usd_nanos=operation.amount_usd_nanos,
            tokens=operation.tokens,
            charges=tuple(key for _, key in applying),
            created_at=self.now,
            expires_at=self.now + timedelta(seconds=operation.ttl_s),
        )
        self._move(hold, held_usd_nanos=hold.amount_usd_nanos, held_tokens=hold.tokens)
        self._add(hold)
        return Outcome(hold, self.left(scope))

    def _settle(self, operation: Settle) -> Outcome:
        hold = self._hold(operation.scope, operation.request_id)
        if hold.state is State.SETTLED:
            if hold.settle_hash != operation.body_hash:
                raise RequestIdReused(request_id=operation.request_id)
            return Outcome(hold, self.left(operation.scope), repeated=True)
        if hold.state is State.RELEASED:
            raise ReservationReleased(request_id=operation.request_id)
        cost, tokens = operation.usage.cost_usd_nanos, operation.usage.tokens
        if hold.state is State.RESERVED:
            self._move(
                hold, held_usd_nanos=-hold.amount_usd_nanos, held_tokens=-hold.tokens, spent_usd_nanos=cost, spent_tokens=tokens
            )
        else:  # suspense counted the hold as spent; what was really used takes its place
            self._move(hold, spent_usd_nanos=cost - hold.amount_usd_nanos, spent_tokens=tokens - hold.tokens)
        hold.state, hold.settle_hash = State.SETTLED, operation.body_hash
        hold.settled_usd_nanos, hold.settled_tokens = cost, tokens
        self._change(hold)
        self.usage.append((operation.scope, operation.request_id, operation.usage))
        return Outcome(hold, self.left(operation.scope))

    def _release(self, operation: Release) -> Outcome:
        hold = self._hold(operation.scope, operation.request_id)
        if hold.state is State.SETTLED:
            raise ReservationSettled(request_id=operation.request_id)
        if hold.state is State.RESERVED:
            self._move(hold, held_usd_nanos=-hold.amount_usd_nanos, held_tokens=-hold.tokens)
        elif hold.state is State.SUSPENDED:
            self._move(hold, spent_usd_nanos=-hold.amount_usd_nanos, spent_tokens=-hold.tokens)
        repeated = hold.state is State.RELEASED
        hold.state = State.RELEASED
        self._change(hold)
        return Outcome(hold, self.left(operation.scope), repeated=repeated)

    def _record(self, operation: Record) -> Outcome:
        scope = operation.scope
        known = self.holds.get((scope.organization, operation.request_id))
        if known is not None:
            if known.settle_hash != operation.body_hash:
                raise RequestIdReused(request_id=operation.request_id)
            return Outcome(known, self.left(scope), repeated=True)
        cost, tokens = operation.usage.cost_usd_nanos, operation.usage.tokens if operation.usage.cost_usd_nanos else 0
        hold = Hold(
            organization=scope.organization,
            request_id=operation.request_id,
            scope=scope.path,
            body_hash=operation.body_hash,
            state=State.SETTLED,
            amount_usd_nanos=0,
            tokens=0,
            charges=tuple(key for _, key in self._applying(scope)),
            created_at=self.now,
            expires_at=self.now,
            settled_usd_nanos=cost,
            settled_tokens=tokens,
            settle_hash=operation.body_hash,
        )
        self._move(hold, spent_usd_nanos=cost, spent_tokens=tokens)
        self._add(hold)
        self.usage.append((scope, operation.request_id, operation.usage))
        return Outcome(hold, self.left(scope))

    def _lapse(self, operation: Lapse) -> Outcome:
        hold = self._hold(operation.scope, operation.request_id)
        if hold.state is State.RESERVED and hold.expires_at <= self.now:
            self._move(
                hold,
                held_usd_nanos=-hold.amount_usd_nanos,
                held_tokens=-hold.tokens,
                spent_usd_nanos=hold.amount_usd_nanos,
                spent_tokens=hold.tokens,
            )
            hold.state = State.SUSPENDED
            self._change(hold)
        return Outcome(hold, Left())

    def _hold(self, scope: Scope, request_id: str) -> Hold:
        hold = self.holds.get((scope.organization, request_id))
        if hold is None:
            raise ReservationNotFound(request_id=request_id)
        if hold.scope != scope.path:
            raise FieldInvalid(field="scope", problem="is not the scope of this reservation")
        return hold

    def _move(
        self, hold: Hold, *, held_usd_nanos: int = 0, held_tokens: int = 0, spent_usd_nanos: int = 0, spent_tokens: int = 0
    ) -> None:
        """Changes every balance of a hold by the same amounts. Amounts stay below NANOS_MAX, or nothing moves."""
        touched = [self.balances[key] for key in hold.charges]
        if any(balance.spent_usd_nanos + spent_usd_nanos > NANOS_MAX for balance in touched):
            raise FieldInvalid(field="usage", problem=f"would bring a balance above {NANOS_MAX} nanodollars")
        if not (held_usd_nanos or held_tokens or spent_usd_nanos or spent_tokens):
            return
        for balance in touched:
            balance.held_usd_nanos += held_usd_nanos
            balance.held_tokens += held_tokens
            balance.spent_usd_nanos += spent_usd_nanos
            balance.spent_tokens += spent_tokens
        self.changed_balances.update(hold.charges)

    def _add(self, hold: Hold) -> None:
        self.holds[hold.organization, hold.request_id] = hold
        self.new_holds.append(hold)
        self._new.add((hold.organization, hold.request_id))

    def _change(self, hold: Hold) -> None:
        key = hold.organization, hold.request_id
        if key not in self._new:
            self.changed_holds[key] = hold


def balance_key(terms: Terms, now: datetime) -> BalanceKey:
    """Where a budget is charged at a moment."""
    return terms.organization, terms.budget_id, period_bounds(terms.period, terms.time_zone, now)[0]
