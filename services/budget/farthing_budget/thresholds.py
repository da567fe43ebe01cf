"""Thresholds: when they are reached, exactly, and what alert that calls for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from farthing_budget.alerts import INCIDENTS, PERCENT_MAX, AlertKind, Finding, Rule
from farthing_budget.book import Book
from farthing_budget.budgets import Balance, BalanceKey, Budget, Measure, Terms
from farthing_budget.events import Incident, Notice
from farthing_budget.velocity import Velocity, velocity_of

ALERTS_PER_HOUR_MAX = 20
"""So many scopes a rule tells apart in an hour; incidents of further ones are gathered under the rule's own."""
_SPENT = ("spent_usd_nanos", "spent_tokens", "spent_requests")
_KINDS = {"suspense": AlertKind.SUSPENSE, "price_unknown": AlertKind.PRICE_UNKNOWN, "overrun": AlertKind.OVERRUN}
Told = Mapping[tuple[str, datetime], set[str]]
"""What incidents of an hour a rule has alerts about already: subjects by (rule, hour)."""
Percents = Callable[[Terms], Iterable[int]]
"""The percentages at which somebody wants to hear of a budget."""


def percent_of(spent: int, limit: int) -> int:
    """How many whole percent of a limit are spent: p or more exactly when spent ≥ limit · p / 100. At most PERCENT_MAX.

    Of a limit of nothing, whatever is spent is more than any percentage.
    """
    if spent <= 0:
        return 0
    return min(spent * 100 // limit, PERCENT_MAX) if limit else PERCENT_MAX


def crossings(book: Book, watched: set[str], percents: Percents) -> list[Notice]:
    """The percentages that balances of some organisations passed upwards in a batch."""
    found = []
    for key, deltas in _moved(book, watched).items():
        terms = book.by_id.get(key[:2])
        if terms is None:
            continue  # deleted: it limits nothing any more
        limits = terms.limits
        for unit, limit in enumerate((limits.usd_nanos, limits.tokens, limits.requests)):
            if limit is None or deltas[unit] <= 0:
                continue
            spent = _spent(book, terms, key, _SPENT[unit])
            before, after = percent_of(spent - deltas[unit], limit), percent_of(spent, limit)
            if before < after and any(before < percent <= after for percent in percents(terms)):
                start = terms.counted_keys(book.now)[0][2] if terms.rolling else key[2]
                found.append(_passed(terms, start, book.now, unit=unit, figures=(spent, limit, before, after)))
    return found


def _spent(book: Book, terms: Terms, key: BalanceKey, figure: str) -> int:
    """What counts as spent where one balance of a budget changed: nothing when that has left the window."""
    if not terms.rolling:
        return int(getattr(book.balances[key], figure))
    keys = terms.counted_keys(book.now)
    return sum(getattr(book.balances[each], figure) for each in keys if each in book.balances) if key in keys else 0


def _moved(book: Book, watched: set[str]) -> dict[BalanceKey, list[int]]:
    """What a batch added to what is spent, by balance: the journal has every change."""
    moved: dict[BalanceKey, list[int]] = {}
    for entry in book.entries:
        usd, tokens, requests = entry.spent_usd_nanos, entry.spent_tokens, entry.spent_requests
        if (usd or tokens or requests) and entry.organization in watched:
            for key in entry.keys:
                sums = moved.get(key)
                if sums is None:
                    moved[key] = [usd, tokens, requests]
                else:
                    sums[0] += usd
                    sums[1] += tokens
                    sums[2] += requests
    return moved


def _passed(terms: Terms, start: datetime, now: datetime, *, unit: int, figures: tuple[int, int, int, int]) -> Notice:
    spent, limit, before, after = figures
    return Notice(
        kind=AlertKind.BUDGET_PERCENT,
        organization=terms.organization,
        scope=terms.scope,
        at=now,
        detail=terms.display_name,
        amount=spent,
        budget_id=terms.budget_id,
        period_start=start,
        window_s=terms.period_terms.window_s,
        unit=unit,
        limit=limit,
        percent_before=before,
        percent=after,
    )


def gathered(incidents: Iterable[Incident]) -> list[Notice]:
    """The incidents of a batch, those of one kind, scope and model together."""
    sums: dict[tuple[AlertKind, str, str, str], list[int]] = {}
    at = None
    for each in incidents:
        kind = _KINDS[each.kind]
        model = each.model if kind is AlertKind.PRICE_UNKNOWN else ""
        total = sums.setdefault((kind, each.organization, each.scope, model), [0, 0])
        total[0] += 1
        total[1] += each.amount_usd_nanos
        at = each.at
    if at is None:
        return []
    return [
        Notice(kind=kind, organization=organization, scope=scope, at=at, detail=model, incidents=count, amount=amount)
        for (kind, organization, scope, model), (count, amount) in sums.items()
    ]


def findings_of(notices: Sequence[Notice], rules: Sequence[Rule], told: Told) -> list[Finding]:
    """What notices call for under some rules. `told` decides when a rule hears no longer of every scope by itself."""
    subjects = {place: set(known) for place, known in told.items()}
    found: list[Finding] = []
    for notice in notices:
        for rule in rules:
            if rule.kind is not notice.kind or not rule.covers(notice.scope):
                continue
            if notice.kind in INCIDENTS:
                found.append(_of_incidents(notice, rule, subjects))
            else:
                wanted = [percent for percent in rule.percents if notice.percent_before < percent <= notice.percent]
                found += [_of_percent(notice, rule.rule_id, percent) for percent in wanted]
    return found


def _of_percent(notice: Notice, rule_id: str, percent: int) -> Finding:
    assert notice.period_start is not None
    return Finding(
        rule_id=rule_id,
        kind=notice.kind,
        scope=notice.scope,
        subject=f"{notice.budget_id}/{notice.unit}/{percent}",
        period_start=notice.period_start,
        threshold=percent,
        observed=notice.percent,
        amount=notice.amount,
        limit=notice.limit,
        unit=notice.unit,
        budget_id=notice.budget_id,
        window_s=notice.window_s,
        resets=notice.resets,
        detail=notice.detail,
    )


def _of_incidents(notice: Notice, rule: Rule, subjects: dict[tuple[str, datetime], set[str]]) -> Finding:
    hour = notice.at.replace(minute=0, second=0, microsecond=0)
    known = subjects.setdefault((rule.rule_id, hour), set())
    scope, detail = notice.scope, notice.detail
    if f"{scope}/{detail}" not in known and len(known) >= ALERTS_PER_HOUR_MAX:
        scope, detail = rule.scope, ""
    subject = f"{scope}/{detail}"
    known.add(subject)
    return Finding(
        rule_id=rule.rule_id,
        kind=notice.kind,
        scope=scope,
        subject=subject,
        period_start=hour,
        observed=notice.amount,
        amount=notice.amount,
        incidents=notice.incidents,
        detail=detail,
    )


def findings_of_budget(budget: Budget, rules: Sequence[Rule], *, resets: int, now: datetime) -> list[Finding]:
    """Everything that some rules, and the budget's own velocity measure, want to hear of a budget as it is now."""
    terms = budget.terms
    found: list[Finding] = []
    covering = [rule for rule in rules if rule.covers(terms.scope)]
    for unit, limit in enumerate((terms.limits.usd_nanos, terms.limits.tokens, terms.limits.requests)):
        spent = getattr(budget.balance, _SPENT[unit])
        percent = 0 if limit is None else percent_of(spent, limit)
        if percent and limit is not None:
            notice = _passed(terms, budget.period_start, now, unit=unit, figures=(spent, limit, 0, percent))
            found += findings_of([replace(notice, resets=resets)], covering, {})
    listeners = [rule.rule_id for rule in covering if rule.kind is AlertKind.VELOCITY]
    if not listeners and terms.limit_terms.measure is not Measure.NONE:
        listeners = [""]
    if listeners and too_fast(terms, budget.period_start, budget.counted, now):
        velocity = velocity_of(terms, budget.period_start, budget.counted, now)
        found += [_of_velocity(velocity, budget, rule_id, resets) for rule_id in listeners]
    return found


def too_fast(terms: Terms, start: datetime, counted: Sequence[Balance], now: datetime) -> bool:
    """Whether a budget ends before its period does, at its present rate."""
    return terms.limits.usd_nanos is not None and velocity_of(terms, start, counted, now).exhausted_at is not None


def _of_velocity(velocity: Velocity, budget: Budget, rule_id: str, resets: int) -> Finding:
    terms = budget.terms
    limit = terms.limits.usd_nanos or 0
    return Finding(
        rule_id=rule_id,
        kind=AlertKind.VELOCITY,
        scope=terms.scope,
        subject=f"{terms.budget_id}/velocity",
        period_start=budget.period_start,
        threshold=limit,
        observed=velocity.projected_usd_nanos,
        amount=velocity.rate_usd_nanos_per_hour,
        limit=limit,
        budget_id=terms.budget_id,
        window_s=terms.period_terms.window_s,
        resets=resets,
        detail=terms.display_name,
        ends_at=velocity.exhausted_at,
    )


def finding_of_day(rule: Rule, day: datetime, cost_usd_nanos: int) -> Finding | None:
    """What a DAILY_COST rule wants to hear of a day's cost, if anything."""
    if cost_usd_nanos < rule.amount_usd_nanos:
        return None
    return Finding(
        rule_id=rule.rule_id,
        kind=rule.kind,
        scope=rule.scope,
        subject="day",
        period_start=day,
        threshold=rule.amount_usd_nanos,
        observed=cost_usd_nanos,
        amount=cost_usd_nanos,
        limit=rule.amount_usd_nanos,
    )
