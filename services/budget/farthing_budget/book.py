"""The book: what one batch sees and changes. No I/O: a store loads it and writes it back. `ledger.py` decides what operations do to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX
from farthing_core.scopes import Scope, parse_scope

from farthing_budget.budgets import Balance, BalanceKey, Terms
from farthing_budget.decisions import Decision, Need, decide, left_on
from farthing_budget.events import Incident, Notice
from farthing_budget.operations import (
    ANY_WORK,
    OPEN,
    Charge,
    Entry,
    Hold,
    Kind,
    Left,
    Outcome,
    Sized,
    State,
    Work,
)
from farthing_budget.places import Place, place_of
from farthing_budget.refusals import RequestIdReused, ReservationNotFound, ReservationReleased, ReservationSettled
from farthing_budget.sizing.pool import NO_RISK, Risk, add, change, worst
from farthing_budget.sizing.sizer import Lesson, Sizer
from farthing_budget.usage import PaidLine, UsageOrigin, UsageRecord

NOTHING_LEFT_SAID = Left()
_FULL = {
    "spent_usd_nanos": ("usage", f"would bring a balance above {NANOS_MAX} nanodollars"),
    "spent_tokens": ("usage", f"would bring a balance above {NANOS_MAX} tokens"),
    "held_usd_nanos": ("amount_usd_nanos", f"would bring what is held above {NANOS_MAX}"),
    "held_tokens": ("tokens", f"would bring what is held above {NANOS_MAX}"),
}
"""No balance counts further, in money or in tokens: the sums stay exact in JSON and far from the end of an int64."""


@dataclass(frozen=True, slots=True)
class Path:
    """The budgets that a scope's work is charged to now, outermost first.

    `worst_case` is whether one of them wants full holds, `all_tokens` whether one limits tokens: only the risk of money is pooled.
    """

    places: tuple[Place, ...]
    charges: tuple[Charge, ...]
    keys: tuple[BalanceKey, ...]
    worst_case: bool
    all_tokens: bool


@dataclass(slots=True)
class Book:
    """The holds that a batch names, the terms on their paths, the balances of both, and what the batch makes of them.

    `terms` is by (organisation, scope); `named` holds budgets that operations name, by (organisation, budget). Of reservations that are
    corrected, `origins` is what they were and `paid` what each of their attempts cost, by (organisation, request). Every balance that
    counts on a path, or that a known hold is charged to, must be in `balances`.
    """

    now: datetime
    holds: dict[tuple[str, str], Hold]
    terms: Mapping[tuple[str, str], Sequence[Terms]]
    balances: dict[BalanceKey, Balance]
    sizer: Sizer
    named: Mapping[tuple[str, str], Terms] = field(default_factory=dict)
    origins: Mapping[tuple[str, str], UsageOrigin] = field(default_factory=dict)
    paid: Mapping[tuple[str, str], Sequence[PaidLine]] = field(default_factory=dict)
    new_holds: dict[tuple[str, str], Hold] = field(default_factory=dict)
    changed_holds: dict[tuple[str, str], Hold] = field(default_factory=dict)
    changed_balances: set[BalanceKey] = field(default_factory=set)
    entries: list[Entry] = field(default_factory=list)
    usage: list[tuple[Scope, str, UsageRecord]] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    lessons: list[Lesson] = field(default_factory=list)
    _paths: dict[Any, Path] = field(default_factory=dict)
    _moments: dict[int, datetime] = field(default_factory=dict)
    _by_id: dict[tuple[str, str], Terms] | None = None
    _selective: bool | None = None
    _places: dict[int, Place] = field(default_factory=dict)

    def decide(self, scope: Scope, need: Need, work: Work) -> Decision:
        """What a reservation would be answered."""
        path = self.path(scope, work)
        return decide(path.places, self.sized(path, scope, need)[1], work, self.now)

    def sized(self, path: Path, scope: Scope, need: Need) -> tuple[Sized | None, Need]:
        """What is held to start with for a wish that may be sized, and what that needs; the wish itself where it is not sized."""
        sizing = need.sizing
        if sizing is None or path.worst_case:
            return None, need
        sized = self.sizer.first(sizing, scope.path)
        # The worst case bounds the estimate: a caller who knows better is believed.
        amount = min(need.usd_nanos, self.sizer.usd_nanos(sized))
        tokens = need.tokens if path.all_tokens else min(need.tokens, self.sizer.tokens(sized))
        return sized, Need(amount, tokens, need.requests, sized.risk, sizing)

    def left(self, scope: Scope, work: Work = ANY_WORK) -> Left:
        """What is left on the tightest budgets of a path."""
        return left_on(self.path(scope, work).places)

    def path_of(self, scope: str, work: Work) -> Path:
        """The same for a scope that is known by its path."""
        return self.path(parse_scope(scope), work)

    def path(self, scope: Scope, work: Work) -> Path:
        """The budgets that apply to some work now."""
        if self._selective is None:
            self._selective = any(each.selector for on_scope in self.terms.values() for each in on_scope)
        at = (scope.path, work.models, work.providers, work.tags) if self._selective else scope.path
        path = self._paths.get(at)
        if path is None:
            terms = [
                each
                for ancestor in scope.ancestors
                for each in self.terms.get((scope.organization, ancestor), ())
                if work.matches(each.selector)
            ]
            places = tuple(self._place(each) for each in terms)
            charges = tuple(
                # A tag belongs to the whole request; a model or a provider only to some of its lines.
                Charge(place.key, each.selector if each.selector and each.selector.kind != "tag" else None)
                for place, each in zip(places, terms, strict=True)
            )
            worst_case = any(each.limit_terms.hold_worst_case for each in terms)
            all_tokens = any(each.limits.tokens is not None for each in terms)
            path = self._paths[at] = Path(places, charges, tuple(place.key for place in places), worst_case, all_tokens)
        return path

    def after(self, ttl_s: int) -> datetime:
        """So many seconds from now; one and the same value for all who ask, since writing down many different ones takes longer."""
        moment = self._moments.get(ttl_s)
        if moment is None:
            moment = self._moments[ttl_s] = self.now + timedelta(seconds=ttl_s)
        return moment

    def places_of(self, hold: Hold) -> list[Place]:
        """The budgets that a hold was charged to, in its own periods; those deleted since do not limit it any more.

        A window has moved on meanwhile: what counts is all of it as it is now, and the slot of the hold.
        """
        found = []
        for key in hold.keys:
            terms = self.by_id.get(key[:2])
            if terms is not None:
                place = self._place(terms)
                if place.key != key:
                    counted = terms.counted_keys(self.now) if terms.rolling else ()
                    keys = [*(each for each in counted if each in self.balances and each != key), key]
                    place = place_of(terms, keys, [self.balances[each] for each in keys])
                found.append(place)
        return found

    @property
    def by_id(self) -> Mapping[tuple[str, str], Terms]:
        """The terms by (organisation, budget)."""
        if self._by_id is None:
            self._by_id = {(each.organization, each.budget_id): each for on_scope in self.terms.values() for each in on_scope}
        return self._by_id

    def take(self, path: Path, hold: Hold) -> None:
        """Posts a new hold. What `post` does, for the commonest operation in a fraction of its time."""
        amount, tokens = hold.amount_usd_nanos, hold.tokens
        balances = [place.balance for place in path.places]
        for balance in balances:
            if balance.held_usd_nanos + amount > NANOS_MAX or balance.held_tokens + tokens > NANOS_MAX:
                self.must_hold(hold.keys, amount, tokens)
        for balance in balances:
            balance.held_usd_nanos += amount
            balance.held_tokens += tokens
            balance.held_requests += 1
        self.changed_balances.update(hold.keys)
        at = hold.organization, hold.request_id, hold.scope, hold.keys
        self.entries.append(Entry(Kind.RESERVE, self.now, *at, amount, 0, 0, tokens, 0, 0, 1, 0))

    def post(self, kind: Kind, hold: Hold, *changes: tuple[tuple[BalanceKey, ...], dict[str, int]], note: str = "") -> Entry:
        """Writes an entry for each change, and changes every balance it names. Returns the last entry.

        Raises FieldInvalid, having changed nothing, where a balance would count too far.
        """
        # What was held may always become spent: nothing more is promised by it, and a hold that could not end would be held for ever.
        for keys, deltas in changes if kind is not Kind.SUSPEND else ():
            for name, value in deltas.items():
                if value > 0 and name in _FULL:
                    self._must_count_to(keys, name, value)
        for keys, deltas in changes:
            entry = Entry(kind, self.now, hold.organization, hold.request_id, hold.scope, keys, note=note, **deltas)  # type: ignore[arg-type]
            self.entries.append(entry)
            for key in keys:
                balance = self.balances[key]
                for name, value in deltas.items():
                    setattr(balance, name, getattr(balance, name) + value)
            if deltas:
                self.changed_balances.update(keys)
        return entry

    def must_hold(self, keys: tuple[BalanceKey, ...], usd_nanos: int, tokens: int) -> None:
        """Raises FieldInvalid where a balance would count too far if it held so much more. For what has more than one thing to change."""
        self._must_count_to(keys, "held_usd_nanos", usd_nanos)
        self._must_count_to(keys, "held_tokens", tokens)

    def _must_count_to(self, keys: tuple[BalanceKey, ...], name: str, value: int) -> None:
        for key in keys:
            if getattr(self.balances[key], name) + value > NANOS_MAX:
                field_name, problem = _FULL[name]
                raise FieldInvalid(field=field_name, problem=problem)

    def ends(self, hold: Hold) -> dict[str, int]:
        """What ends with a hold: what it holds, or what it has in suspense."""
        amount, tokens = hold.amount_usd_nanos, hold.tokens
        if hold.state in OPEN:
            return {"held_usd_nanos": -amount, "held_tokens": -tokens, "held_requests": -1}
        if hold.state is State.SUSPENDED:
            gone = {"spent_usd_nanos": -amount, "suspense_usd_nanos": -amount, "spent_requests": -1}
            return {**gone, "spent_tokens": -tokens, "suspense_tokens": -tokens}
        return {}

    def pool(self, hold: Hold, risk: Risk) -> None:
        """Puts a hold's new share into the pooled risk of its balances, in the place of the old one.

        Raises FieldInvalid, having changed nothing, where a pool would count too far.
        """
        gone = hold.sized.risk if hold.sized is not None else NO_RISK
        if gone is risk or not (gone or risk):
            return
        moved = change(gone, risk)
        pools = [add(self.balances[key].risk, moved) for key in hold.keys]
        if risk and any(worst(pool) > NANOS_MAX for pool in pools):
            raise FieldInvalid(field="sizing", problem=f"would bring what open holds may yet cost above {NANOS_MAX}")
        for key, pool in zip(hold.keys, pools, strict=True):
            self.balances[key].risk = pool
        self.changed_balances.update(hold.keys)

    def hold(self, scope: Scope, request_id: str) -> Hold:
        """A known hold. Raises ReservationNotFound, and FieldInvalid for a scope that is not its own."""
        hold = self.holds.get((scope.organization, request_id))
        if hold is None:
            raise ReservationNotFound(request_id=request_id)
        if hold.scope != scope.path:
            raise FieldInvalid(field="scope", problem="is not the scope of this reservation")
        return hold

    def open_hold(self, scope: Scope, request_id: str) -> Hold:
        """A known hold that has not ended. Raises as `hold` does, ReservationReleased and ReservationSettled."""
        hold = self.hold(scope, request_id)
        if hold.state in (State.RELEASED, State.LAPSED):
            raise ReservationReleased(request_id=hold.request_id)
        if hold.state not in OPEN:
            raise ReservationSettled(request_id=hold.request_id)
        return hold

    def ended_hold(self, scope: Scope, request_id: str, body_hash: bytes, charges: tuple[Charge, ...]) -> Hold:
        """What remembers an operation that never held anything."""
        return Hold(
            organization=scope.organization,
            request_id=request_id,
            scope=scope.path,
            body_hash=body_hash,
            state=State.SETTLED,
            amount_usd_nanos=0,
            tokens=0,
            authorized_usd_nanos=0,
            charges=charges,
            keys=tuple(charge.key for charge in charges),
            created_at=self.now,
            changed_at=self.now,
            expires_at=self.now,
            settle_hash=body_hash,
        )

    def add(self, hold: Hold) -> None:
        """Remembers a new hold."""
        key = hold.organization, hold.request_id
        self.holds[key] = self.new_holds[key] = hold

    def change(self, hold: Hold, **changes: Any) -> Hold:
        """The hold after a change, as a copy: an earlier operation of the batch may have been told of it as it was."""
        key = hold.organization, hold.request_id
        changed = self.holds[key] = replace(hold, changed_at=self.now, **changes)
        (self.new_holds if key in self.new_holds else self.changed_holds)[key] = changed
        return changed

    def origin(self, scope: Scope, request_id: str) -> UsageOrigin | None:
        """What a settled reservation was, settled in this batch or before; None where nobody knows any more."""
        made = (usage.origin for place, used_by, usage in self.usage if used_by == request_id and place == scope)
        return self.origins.get((scope.organization, request_id)) or next(made, None)

    def use(self, scope: Scope, request_id: str, usage: UsageRecord) -> None:
        """Writes down what a request used."""
        self.usage.append((scope, request_id, usage))
        for line in usage.lines:
            if line.price_unknown:
                self.tell("price_unknown", self.holds[scope.organization, request_id], line.cost_usd_nanos, model=line.model)

    def tell(self, kind: str, hold: Hold, amount_usd_nanos: int, *, model: str = "") -> None:
        """Notes something that somebody should hear of."""
        model = model or (hold.sized.sizing.model if hold.sized else "")
        self.incidents.append(Incident(kind, hold.organization, hold.scope, hold.request_id, model, amount_usd_nanos, self.now))

    def _place(self, terms: Terms) -> Place:
        place = self._places.get(id(terms))
        if place is None:
            # A slot of a window in which nothing ever happened has no balance.
            keys = [key for key in terms.counted_keys(self.now) if key in self.balances]
            place = self._places[id(terms)] = place_of(terms, keys, [self.balances[key] for key in keys])
        return place


def again(known: Hold, body_hash: bytes, before: bytes | None) -> Outcome:
    """The answer to an id that came before. Raises RequestIdReused for another body."""
    if before != body_hash:
        raise RequestIdReused(request_id=known.request_id)
    return Outcome(known, NOTHING_LEFT_SAID, repeated=True)
