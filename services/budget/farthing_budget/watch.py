"""The watch: looks at every batch for what somebody may want to hear of, by what is known of the rules, without I/O.

What a batch passed is written down with it (`Book.notices`), so that no crash comes between. What takes a look at the database (a day's
cost, a rate) is put on an agenda, which `alerting.py` works off; should the process end before, the sweep finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta

from farthing_budget.alerts import AlertKind, Rule
from farthing_budget.book import Book
from farthing_budget.budgets import Measure, Terms
from farthing_budget.thresholds import crossings, gathered, too_fast

_ORGANIZATIONS_MAX = 10_000
_BUDGETS_MAX = 20_000
_LOOK_S = 10
_LOOK_AGAIN_S = 600
_ADD_UP_S = 60
_ANY_PERCENT = range(1, 1_001)
Day = tuple[str, str, datetime]
"""(organisation, rule, UTC day)."""


@dataclass(slots=True)
class Agenda:
    """What takes a look at the database: organisations whose rules changed, are not known, or that have notices; budgets; days."""

    changed: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    notices: set[str] = field(default_factory=set)
    budgets: set[tuple[str, str]] = field(default_factory=set)
    days: set[Day] = field(default_factory=set)


class Known:
    """The rules of one organisation as they were at an epoch, ready to be asked of any scope."""

    def __init__(self, rules: Sequence[Rule], epoch: int) -> None:
        self.epoch = epoch
        self.daily = [rule for rule in rules if rule.kind is AlertKind.DAILY_COST]
        self._percents = [rule for rule in rules if rule.kind is AlertKind.BUDGET_PERCENT]
        self._velocity = [rule for rule in rules if rule.kind is AlertKind.VELOCITY]
        self.has_percents = bool(self._percents)
        self.has_velocity = bool(self._velocity)

    def percents(self, scope: str) -> set[int]:
        """The percentages at which somebody wants to hear of budgets on a scope."""
        return {percent for rule in self._percents if rule.covers(scope) for percent in rule.percents}

    def asks_for_velocity(self, terms: Terms) -> bool:
        """Whether somebody wants to hear that a budget is used up too fast."""
        if terms.limits.usd_nanos is None:
            return False
        measured = terms.limit_terms.measure is not Measure.NONE
        return measured or any(rule.covers(terms.scope) for rule in self._velocity)


_NO_RULES = Known((), 0)


@dataclass(slots=True)
class _Tally:
    """A day's cost as far as this process knows it: what the database had, and what was added here since it was asked."""

    had_usd_nanos: int = 0
    added_usd_nanos: int = 0
    counted_at: datetime | None = None
    raised: bool = False

    def asks(self, amount_usd_nanos: int, now: datetime) -> bool:
        """Whether it is time to ask the database."""
        if self.counted_at is None or now >= self.counted_at + timedelta(seconds=_ADD_UP_S):
            return True  # others have spent too
        return self.had_usd_nanos + self.added_usd_nanos >= amount_usd_nanos


class Watch:
    """Knows the rules of the organisations that are at work; the least recently learned are forgotten first."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self._known: dict[str, Known] = {}
        self._tallies: dict[Day, _Tally] = {}
        self._next_look: dict[tuple[str, str], datetime] = {}
        self._agenda = Agenda()

    def epochs(self) -> dict[str, int]:
        """The epochs of what is known, by organisation."""
        return {organization: known.epoch for organization, known in self._known.items()}

    def learn(self, organization: str, rules: Sequence[Rule], epoch: int) -> None:
        """These are the rules of an organisation now."""
        if organization not in self._known and len(self._known) >= _ORGANIZATIONS_MAX:
            del self._known[next(iter(self._known))]
        self._known[organization] = Known(rules, epoch)
        for day in [day for day in self._tallies if day[0] == organization]:
            del self._tallies[day]

    def decided(self, book: Book) -> None:
        """Puts into a decided book what is to be written down with it."""
        organizations = {organization for organization, _ in book.terms}
        watched = {each for each in organizations if each not in self._known or self._known[each].has_percents}
        if watched:
            book.notices += crossings(book, watched, self._percents)
        if book.incidents:
            book.notices += gathered(book.incidents)

    def committed(self, book: Book) -> None:
        """Puts on the agenda what a committed batch may have brought about."""
        agenda = self._agenda
        agenda.notices |= {notice.organization for notice in book.notices}
        agenda.unknown |= {organization for organization, _ in book.terms if organization not in self._known}
        self._look_at_days(book)
        self._look_at_rates(book)
        if agenda.notices or agenda.unknown or agenda.budgets or agenda.days:
            self.called.set()

    def rules_changed(self, organization: str) -> None:
        """A rule was made, changed or deleted."""
        self._agenda.changed.add(organization)
        self.called.set()

    def look_at(self, organization: str, budget_id: str) -> None:
        """A budget was made or changed."""
        self._agenda.budgets.add((organization, budget_id))
        self.called.set()

    def put_back(self, agenda: Agenda) -> None:
        """This could not be worked off."""
        for each in fields(Agenda):
            getattr(self._agenda, each.name).update(getattr(agenda, each.name))

    def take(self) -> Agenda:
        """What is on the agenda; it is empty afterwards."""
        self.called.clear()
        agenda, self._agenda = self._agenda, Agenda()
        return agenda

    def counted(self, day: Day, cost_usd_nanos: int, at: datetime, *, raised: bool) -> None:
        """This is what a day cost at a moment; nothing more is to be looked at once it is raised."""
        tally = self._tally(day)
        tally.had_usd_nanos, tally.counted_at, tally.raised = cost_usd_nanos, at, raised

    def _percents(self, terms: Terms) -> Iterable[int]:
        known = self._known.get(terms.organization)
        # Of an organisation that nothing is known of yet, everything is written down; the rules are read before anything is raised.
        return _ANY_PERCENT if known is None else known.percents(terms.scope)

    def _look_at_days(self, book: Book) -> None:
        for scope, _, record in book.usage:
            known = self._known.get(scope.organization, _NO_RULES)
            cost = record.cost_usd_nanos if known.daily else 0
            for rule in known.daily if cost > 0 else ():
                if not rule.covers(scope.path):
                    continue
                day = scope.organization, rule.rule_id, _day(book.now)
                tally = self._tally(day)
                tally.added_usd_nanos += cost
                if not tally.raised and tally.asks(rule.amount_usd_nanos, book.now):
                    tally.added_usd_nanos = 0
                    self._agenda.days.add(day)

    def _tally(self, day: Day) -> _Tally:
        if day not in self._tallies and len(self._tallies) >= _BUDGETS_MAX:
            self._tallies.clear()
        return self._tallies.setdefault(day, _Tally())

    def _look_at_rates(self, book: Book) -> None:
        for (organization, _), on_scope in book.terms.items():
            known = self._known.get(organization, _NO_RULES)
            for terms in on_scope:
                if known.has_velocity or terms.limit_terms.measure is not Measure.NONE:
                    self._look_at_rate(book, terms, known)

    def _look_at_rate(self, book: Book, terms: Terms, known: Known) -> None:
        place = terms.organization, terms.budget_id
        next_look = self._next_look.get(place)
        if (next_look is not None and book.now < next_look) or not known.asks_for_velocity(terms):
            return
        keys = terms.counted_keys(book.now)
        counted = [book.balances[key] for key in keys if key in book.balances]
        if not counted or keys[-1] not in book.changed_balances:
            return
        fast = too_fast(terms, keys[0][2], counted, book.now)
        if len(self._next_look) >= _BUDGETS_MAX:
            self._next_look.clear()
        self._next_look[place] = book.now + timedelta(seconds=_LOOK_AGAIN_S if fast else _LOOK_S)
        if fast:
            self._agenda.budgets.add(place)


def _day(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)
