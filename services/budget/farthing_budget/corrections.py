"""Corrections: refunds, credits, debits and resets. Nothing that was written is changed; each is an entry of its own."""

from __future__ import annotations

from collections.abc import Sequence

from farthing_core.scopes import parse_scope

from farthing_budget.book import NOTHING_LEFT_SAID, Book, again
from farthing_budget.budgets import BalanceKey, Terms
from farthing_budget.operations import Adjust, Charge, Entry, Hold, Kind, Outcome, Reset, State
from farthing_budget.refusals import BudgetNotFound, ReservationNotFound, ReservationOpen
from farthing_budget.settling import is_for
from farthing_budget.usage import PaidLine, Saving, UsageLine, UsageOrigin, UsageRecord

_UNKNOWN = UsageOrigin("", "", "", "", (), "(correction)", "", "")
"""Of a reservation whose usage has been erased since."""


def adjust(book: Book, operation: Adjust) -> Outcome:
    """Corrects what was spent: of a settled reservation in its own periods and in usage, or of one budget in its present period.

    Raises ReservationNotFound, ReservationOpen, BudgetNotFound, RequestIdReused.
    """
    scope = operation.scope
    known = book.holds.get((scope.organization, operation.request_id))
    if known is not None:
        return again(known, operation.body_hash, known.body_hash)
    deltas = {"spent_usd_nanos": operation.amount_usd_nanos, "spent_tokens": operation.tokens}
    if not operation.reservation_id:
        terms = _terms(book, scope.organization, operation.budget_id)
        charges = (Charge(terms.balance_key(book.now)),)
        hold = book.ended_hold(parse_scope(terms.scope), operation.request_id, operation.body_hash, charges)
        entry = book.post(Kind.ADJUST, hold, (hold.keys, deltas), note=operation.reason)
    else:
        corrected = book.holds.get((scope.organization, operation.reservation_id))
        if corrected is None or corrected.scope != scope.path:
            raise ReservationNotFound(request_id=operation.reservation_id)
        if corrected.state is not State.SETTLED:
            raise ReservationOpen(request_id=operation.reservation_id)
        hold = book.ended_hold(scope, operation.request_id, operation.body_hash, corrected.charges)
        written = len(book.entries)
        book.post(Kind.ADJUST, hold, *_shares(book, corrected, deltas), note=operation.reason)
        book.entries[written:] = [each._replace(corrects=operation.reservation_id) for each in book.entries[written:]]
        entry = book.entries[written]
    hold.settled_usd_nanos, hold.settled_tokens = operation.amount_usd_nanos, operation.tokens
    book.add(hold)
    if operation.reservation_id:
        was = book.origin(scope, operation.reservation_id) or _UNKNOWN
        book.use(scope, operation.request_id, _correction(operation, was))
    return Outcome(hold, NOTHING_LEFT_SAID, entry=entry)


def reset(book: Book, operation: Reset) -> Outcome:
    """Stops counting what was spent of a budget. What is held, what is in suspense and what is settled later count on.

    Raises BudgetNotFound, RequestIdReused.
    """
    scope = operation.scope
    known = book.holds.get((scope.organization, operation.request_id))
    if known is not None:
        return again(known, operation.body_hash, known.body_hash)
    terms = _terms(book, scope.organization, operation.budget_id)
    keys = [key for key in terms.counted_keys(book.now) if key in book.balances]
    charges = tuple(Charge(key) for key in keys)
    hold = book.ended_hold(parse_scope(terms.scope), operation.request_id, operation.body_hash, charges)
    changes = []
    for key in keys:
        balance = book.balances[key]
        gone = {
            "spent_usd_nanos": balance.suspense_usd_nanos - balance.spent_usd_nanos,
            "spent_tokens": balance.suspense_tokens - balance.spent_tokens,
            "spent_requests": -balance.spent_requests,
        }
        changes.append(((key,), gone))
        # What was spent before does not foretell what will be spent after.
        balance.burn_usd_nanos, balance.burn_at = 0.0, book.now
    entry: Entry = book.post(Kind.RESET, hold, *changes, note=operation.reason)
    book.add(hold)
    return Outcome(hold, NOTHING_LEFT_SAID, entry=entry)


def _shares(book: Book, hold: Hold, deltas: dict[str, int]) -> list[tuple[tuple[BalanceKey, ...], dict[str, int]]]:
    """What of a correction lands where: budgets on a model or a provider take their part of it, as they paid their part of the whole."""
    shares = [(tuple(charge.key for charge in hold.charges if charge.selector is None), deltas)]
    for charge in hold.charges:
        if charge.selector is not None:
            lines = [line for line in _paid(book, hold) if is_for(line, charge.selector)]
            usd_nanos, tokens = sum(line.cost_usd_nanos for line in lines), sum(line.tokens for line in lines)
            part = {
                "spent_usd_nanos": _part(deltas["spent_usd_nanos"], usd_nanos, hold.settled_usd_nanos),
                "spent_tokens": _part(deltas["spent_tokens"], tokens, hold.settled_tokens),
            }
            shares.append(((charge.key,), part))
    return shares


def _part(amount: int, paid: int, total: int) -> int:
    """The part of an amount, rounded up; all of it where nothing was paid at all."""
    return -(-amount * paid // total) if total else amount


def _paid(book: Book, hold: Hold) -> Sequence[PaidLine]:
    """What the attempts of a settled request cost; it may have been settled in this very batch."""
    known = book.paid.get((hold.organization, hold.request_id))
    if known is not None:
        return known
    return [
        PaidLine(line.model, line.provider, line.cost_usd_nanos, line.input_tokens + line.output_tokens)
        for scope, request_id, usage in book.usage
        if (scope.organization, request_id) == (hold.organization, hold.request_id)
        for line in usage.lines
    ]


def _terms(book: Book, organization: str, budget_id: str) -> Terms:
    terms = book.named.get((organization, budget_id))
    if terms is None:
        raise BudgetNotFound(budget_id=budget_id)
    return terms


def _correction(operation: Adjust, was: UsageOrigin) -> UsageRecord:
    """The correction as usage, in the places of what it corrects, so that reports add up to the balances."""
    amount, tokens = operation.amount_usd_nanos, operation.tokens
    line = UsageLine(
        model=was.model,
        provider=was.provider,
        deployment=was.deployment,
        input_tokens=tokens,
        cached_input_tokens=0,
        output_tokens=0,
        cost_usd_nanos=amount,
        outcome="refund" if amount < 0 else "correction",
        estimated=False,
    )
    return UsageRecord(
        task=was.task,
        lines=(line,),
        baseline_usd_nanos=amount,
        saving=Saving(),
        service=was.service,
        domain=was.domain,
        key_id=was.key_id,
        tags=was.tags,
    )
