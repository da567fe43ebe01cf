"""The ledger's decisions: what a batch of operations does to balances and holds. No I/O: a store loads a Book and writes it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX
from farthing_core.scopes import Scope

from farthing_budget.budgets import Balance, BalanceKey, Terms
from farthing_budget.operations import Hold, Lapse, Left, Operation, Outcome, Record, Release, Reserve, Settle, State
from farthing_budget.refusals import (
    BudgetExhausted,
    RequestIdReused,
    ReservationNotFound,
    ReservationReleased,
    ReservationSettled,
)
from farthing_budget.usage import UsageRecord

TOKENS_MAX = NANOS_MAX
"""No balance counts further, in money or in tokens: the sums stay exact in JSON and far from the end of an int64."""


@dataclass(frozen=True, slots=True)
class Path:
    """The budgets that a scope is charged to now, outermost first, with their balances."""

    charges: tuple[BalanceKey, ...]
    budgets: tuple[tuple[Terms, Balance], ...]


@dataclass(slots=True)
class Book:
    """What one batch sees and changes: the holds its operations name, the terms on their paths, and the balances of both.

    `terms` is by (organisation, scope). Every balance that a path or a known hold is charged to must be in `balances`.
    """

    now: datetime
    holds: dict[tuple[str, str], Hold]
    terms: dict[tuple[str, str], list[Terms]]
    balances: dict[BalanceKey, Balance]
    new_holds: dict[tuple[str, str], Hold] = field(default_factory=dict)
    changed_holds: dict[tuple[str, str], Hold] = field(default_factory=dict)
    changed_balances: set[BalanceKey] = field(default_factory=set)
    usage: list[tuple[Scope, str, UsageRecord]] = field(default_factory=list)
    _paths: dict[str, Path] = field(default_factory=dict)

    def apply(self, operation: Operation) -> Outcome:
        """Applies one operation in full or, raising its named failure, not at all."""
        return _APPLY[type(operation)](self, operation)

    def check(self, scope: Scope, amount_usd_nanos: int, tokens: int) -> BudgetExhausted | None:
        """Why a reservation would be refused; None when it would be granted."""
        return self._refusal(self._path(scope), amount_usd_nanos, tokens)

    def left(self, scope: Scope) -> Left:
        """What is left on the tightest budgets of a path, by money and by tokens; the budget named is the one tightest by money."""
        tightest, usd, tokens = None, None, None
        for terms, balance in self._path(scope).budgets:
            if terms.limit_usd_nanos is not None:
                free = terms.limit_usd_nanos - balance.spent_usd_nanos - balance.held_usd_nanos
                if usd is None or free < usd:
                    usd, tightest = free, terms
            if terms.limit_tokens is not None:
                free = terms.limit_tokens - balance.spent_tokens - balance.held_tokens
                if tokens is None or free < tokens:
                    tokens = free
                    if usd is None:
                        tightest = terms
        return _NOTHING_LIMITS if tightest is None else Left(tightest.budget_id, tightest.scope, usd, tokens)

    def reserve(self, operation: Reserve) -> Outcome:
        """Sets aside what fits every budget of the path; the same request gives the same hold again."""
        scope = operation.scope
        known = self.holds.get((scope.organization, operation.request_id))
        if known is not None:
            if known.body_hash != operation.body_hash:
                raise RequestIdReused(request_id=operation.request_id)
            return Outcome(known, self.left(scope), repeated=True)
        path = self._path(scope)
        refusal = self._refusal(path, operation.amount_usd_nanos, operation.tokens)
        if refusal is not None:
            raise refusal
        hold = Hold(
            organization=scope.organization,
            request_id=operation.request_id,
            scope=scope.path,
            body_hash=operation.body_hash,
            state=State.RESERVED,
            amount_usd_nanos=operation.amount_usd_nanos,
            tokens=operation.tokens,
            charges=path.charges,
            created_at=self.now,
            expires_at=self.now + timedelta(seconds=operation.ttl_s),
        )
        self._move(hold, held_usd_nanos=hold.amount_usd_nanos, held_tokens=hold.tokens)
        self._add(hold)
        return Outcome(hold, self.left(scope))

    def settle(self, operation: Settle) -> Outcome:
        """Puts what was really used in the place of the hold, in the periods the hold was charged to."""
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
        hold = self._end(
            hold, state=State.SETTLED, settled_usd_nanos=cost, settled_tokens=tokens, settle_hash=operation.body_hash
        )
        self.usage.append((operation.scope, operation.request_id, operation.usage))
        return Outcome(hold, self.left(operation.scope))

    def release(self, operation: Release) -> Outcome:
        """Gives a hold back, out of suspense too."""
        hold = self._hold(operation.scope, operation.request_id)
        if hold.state is State.SETTLED:
            raise ReservationSettled(request_id=operation.request_id)
        if hold.state is State.RELEASED:
            return Outcome(hold, self.left(operation.scope), repeated=True)
        if hold.state is State.RESERVED:
            self._move(hold, held_usd_nanos=-hold.amount_usd_nanos, held_tokens=-hold.tokens)
        else:
            self._move(hold, spent_usd_nanos=-hold.amount_usd_nanos, spent_tokens=-hold.tokens)
        return Outcome(self._end(hold, state=State.RELEASED), self.left(operation.scope))

    def record(self, operation: Record) -> Outcome:
        """Charges what is spent already, whether it fits or not. What cost nothing (a cache hit) uses up no tokens either."""
        scope = operation.scope
        known = self.holds.get((scope.organization, operation.request_id))
        if known is not None:
            if known.settle_hash != operation.body_hash:
                raise RequestIdReused(request_id=operation.request_id)
            return Outcome(known, self.left(scope), repeated=True)
        cost = operation.usage.cost_usd_nanos
        tokens = operation.usage.tokens if cost else 0
        hold = Hold(
            organization=scope.organization,
            request_id=operation.request_id,
            scope=scope.path,
            body_hash=operation.body_hash,
            state=State.SETTLED,
            amount_usd_nanos=0,
            tokens=0,
            charges=self._path(scope).charges,
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

    def lapse(self, operation: Lapse) -> Outcome:
        """Counts an open hold whose time is up as spent; leaves every other as it is."""
        hold = self._hold(operation.scope, operation.request_id)
        if hold.state is State.RESERVED and hold.expires_at <= self.now:
            self._shift(
                hold,
                held_usd_nanos=-hold.amount_usd_nanos,
                held_tokens=-hold.tokens,
                spent_usd_nanos=hold.amount_usd_nanos,
                spent_tokens=hold.tokens,
            )
            hold = self._end(hold, state=State.SUSPENDED)
        return Outcome(hold, _NOTHING_LIMITS)

    def _path(self, scope: Scope) -> Path:
        path = self._paths.get(scope.path)
        if path is None:
            on_path = [terms for ancestor in scope.ancestors for terms in self.terms.get((scope.organization, ancestor), ())]
            keys = tuple(terms.balance_key(self.now) for terms in on_path)
            budgets = tuple((terms, self.balances[key]) for terms, key in zip(on_path, keys, strict=True))
            path = self._paths[scope.path] = Path(keys, budgets)
        return path

    def _refusal(self, path: Path, amount_usd_nanos: int, tokens: int) -> BudgetExhausted | None:
        full = []
        for terms, balance in path.budgets:
            limit = terms.limit_usd_nanos
            if limit is not None:
                free = limit - balance.spent_usd_nanos - balance.held_usd_nanos
                if amount_usd_nanos > free:
                    full.append((terms, balance, "nanodollars", amount_usd_nanos, free))
            limit = terms.limit_tokens
            if limit is not None:
                free = limit - balance.spent_tokens - balance.held_tokens
                if tokens > free:
                    full.append((terms, balance, "tokens", tokens, free))
        if not full:
            return None
        wait_s = max((balance.period_end - self.now).total_seconds() for _, balance, _, _, _ in full)
        terms, _, unit, asked, free = min(full, key=lambda each: each[4])
        return BudgetExhausted(
            budget_id=terms.budget_id,
            scope=terms.scope,
            display_name=terms.display_name,
            unit=unit,
            asked=asked,
            free=max(0, free),
            retry_after_s=max(0.0, wait_s),
        )

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
        """Changes every balance of a hold by the same amounts; raises FieldInvalid where one would count too far."""
        for key in hold.charges:
            balance = self.balances[key]
            if spent_usd_nanos > 0 and balance.spent_usd_nanos + spent_usd_nanos > NANOS_MAX:
                raise FieldInvalid(field="usage", problem=f"would bring a balance above {NANOS_MAX} nanodollars")
            if spent_tokens > 0 and balance.spent_tokens + spent_tokens > TOKENS_MAX:
                raise FieldInvalid(field="usage", problem=f"would bring a balance above {TOKENS_MAX} tokens")
            if held_usd_nanos > 0 and balance.held_usd_nanos + held_usd_nanos > NANOS_MAX:
                raise FieldInvalid(field="amount_usd_nanos", problem=f"would bring what is held above {NANOS_MAX}")
            if held_tokens > 0 and balance.held_tokens + held_tokens > TOKENS_MAX:
                raise FieldInvalid(field="tokens", problem=f"would bring what is held above {TOKENS_MAX}")
        self._shift(
            hold,
            held_usd_nanos=held_usd_nanos,
            held_tokens=held_tokens,
            spent_usd_nanos=spent_usd_nanos,
            spent_tokens=spent_tokens,
        )

    def _shift(self, hold: Hold, *, held_usd_nanos: int, held_tokens: int, spent_usd_nanos: int, spent_tokens: int) -> None:
        if not (held_usd_nanos or held_tokens or spent_usd_nanos or spent_tokens):
            return
        for key in hold.charges:
            balance = self.balances[key]
            balance.held_usd_nanos += held_usd_nanos
            balance.held_tokens += held_tokens
            balance.spent_usd_nanos += spent_usd_nanos
            balance.spent_tokens += spent_tokens
        self.changed_balances.update(hold.charges)

    def _add(self, hold: Hold) -> None:
        key = hold.organization, hold.request_id
        self.holds[key] = self.new_holds[key] = hold

    def _end(self, hold: Hold, **changes: Any) -> Hold:
        """The hold after a change, as a copy: an earlier operation of the batch may have been told of it as it was."""
        key = hold.organization, hold.request_id
        changed = self.holds[key] = replace(hold, **changes)
        (self.new_holds if key in self.new_holds else self.changed_holds)[key] = changed
        return changed


_NOTHING_LIMITS = Left()
_APPLY: dict[type, Callable[[Book, Any], Outcome]] = {
    Reserve: Book.reserve,
    Settle: Book.settle,
    Release: Book.release,
    Record: Book.record,
    Lapse: Book.lapse,
}
