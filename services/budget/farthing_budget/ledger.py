"""The ledger: what operations do to a book. Each is applied in full or, raising its named failure, not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from farthing_budget.book import NOTHING_LEFT_SAID, Book, again
from farthing_budget.corrections import adjust, reset
from farthing_budget.decisions import Decision, Need, Objection, Verdict, decide, left_if_it_fits, left_on, objections
from farthing_budget.operations import (
    OPEN,
    Adjust,
    Dispatch,
    Hold,
    Kind,
    Lapse,
    Operation,
    Outcome,
    Record,
    Release,
    Reserve,
    Reset,
    Settle,
    Sized,
    State,
    TopUp,
    Work,
)
from farthing_budget.refusals import BudgetDegraded, BudgetExhausted, ReservationReleased, ReservationSettled
from farthing_budget.settling import settle_lines, settled_work
from farthing_budget.sizing.pool import NO_RISK
from farthing_budget.sizing.sizer import Lesson, lesson_of_end


def apply(book: Book, operation: Operation) -> Outcome:
    """Applies one operation to a book."""
    return _APPLY[type(operation)](book, operation)


def refused(decision: Decision) -> BudgetExhausted:
    """A decision that is not ALLOW, as a failure."""
    return (BudgetDegraded if decision.verdict is Verdict.DEGRADE else BudgetExhausted)(decision)


def _reserve(book: Book, operation: Reserve) -> Outcome:
    """Sets aside what fits every budget of the path; the same request gives the same hold again."""
    scope, work = operation.scope, operation.work
    known = book.holds.get((scope.organization, operation.request_id))
    if known is not None:
        return again(known, operation.body_hash, known.body_hash)._replace(left=book.left(scope, work))
    path = book.path(scope, work)
    sized, amount, tokens, need = None, operation.amount_usd_nanos, operation.tokens, None
    if operation.sizing is not None:
        sized, need = book.sized(path, scope, Need(amount, tokens, 1, NO_RISK, operation.sizing))
        amount, tokens = need.usd_nanos, need.tokens
    left = left_if_it_fits(path.places, amount, tokens) if sized is None else None
    if left is None:
        need = need or Need(amount, tokens)
        if objections(path.places, need, work, book.now):
            raise refused(decide(path.places, need, work, book.now))
    hold = Hold(
        organization=scope.organization,
        request_id=operation.request_id,
        scope=scope.path,
        body_hash=operation.body_hash,
        state=State.DISPATCHED if operation.dispatch else State.RESERVED,
        amount_usd_nanos=amount,
        tokens=tokens,
        authorized_usd_nanos=operation.amount_usd_nanos,
        charges=path.charges,
        keys=path.keys,
        created_at=book.now,
        changed_at=book.now,
        expires_at=book.after(operation.ttl_s),
        critical=work.critical,
    )
    if sized is not None:
        book.must_hold(hold.keys, amount, tokens)
        book.pool(hold, sized.risk)
    book.take(path, hold)
    if sized is not None:
        hold.sized = sized
        book.lessons.append(Lesson(hold.scope, None, sized))
    book.add(hold)
    return Outcome(hold, left or left_on(path.places))


def _dispatch(book: Book, operation: Dispatch) -> Outcome:
    """Notes that the provider is being called."""
    hold = book.hold(operation.scope, operation.request_id)
    if hold.state in (State.DISPATCHED, State.SUSPENDED):
        return Outcome(hold, NOTHING_LEFT_SAID, repeated=True)
    hold = book.open_hold(operation.scope, operation.request_id)
    book.post(Kind.DISPATCH, hold, (hold.keys, {}))
    return Outcome(book.change(hold, state=State.DISPATCHED), NOTHING_LEFT_SAID)


def _top_up(book: Book, operation: TopUp) -> Outcome:
    """Raises a hold on every budget of its path, or on none. A stream under way takes from anything free, ahead of newcomers."""
    hold = book.open_hold(operation.scope, operation.request_id)
    places, sized = book.places_of(hold), hold.sized
    if sized is not None:
        sized = book.sizer.more(sized, hold.scope, operation.output_tokens)
    need = _more(book, hold, sized, operation)
    if not need.usd_nanos and not need.tokens and sized is hold.sized:
        return Outcome(hold, left_on(places), repeated=True)
    work = _CRITICAL_UNDER_WAY if hold.critical else _UNDER_WAY
    found = objections(places, need, work, book.now)
    shorter = _as_far_as_it_goes(book, hold, found, operation.output_tokens) if found else None
    if shorter is not None:
        sized, need = shorter, _more(book, hold, shorter, operation)
        found = objections(places, need, work, book.now)
    if found:
        raise refused(decide(places, need, work, book.now))
    if sized is not None:
        book.must_hold(hold.keys, need.usd_nanos, need.tokens)
        book.pool(hold, sized.risk)
        book.lessons.append(Lesson(hold.scope, hold.sized, sized))
    amount, tokens = hold.amount_usd_nanos + need.usd_nanos, hold.tokens + need.tokens
    book.post(Kind.TOP_UP, hold, (hold.keys, {"held_usd_nanos": need.usd_nanos, "held_tokens": need.tokens}))
    return Outcome(book.change(hold, amount_usd_nanos=amount, tokens=tokens, sized=sized), left_on(places))


def _more(book: Book, hold: Hold, sized: Sized | None, operation: TopUp) -> Need:
    """What a hold under way needs. The pooled risk holds newcomers back so that it can go on: it does not count against itself."""
    amount, tokens = operation.amount_usd_nanos, operation.tokens
    if sized is not None:
        amount, tokens = book.sizer.usd_nanos(sized), book.sizer.tokens(sized)
    return Need(max(0, amount - hold.amount_usd_nanos), max(0, tokens - hold.tokens), 0, pooled=False)


def _as_far_as_it_goes(book: Book, hold: Hold, found: Sequence[Objection], output_tokens: int) -> Sized | None:
    """Where the rest of a bin is not free, the hold that takes what is; None where that does not pay for what was asked."""
    sized = hold.sized
    if sized is None:
        return None
    usd_nanos, tokens = (min((each.free for each in found if each.unit == unit), default=None) for unit in (0, 1))
    shorter = book.sizer.within(sized, usd_nanos=usd_nanos, tokens=tokens)
    return shorter if shorter.output_tokens_held >= min(output_tokens, sized.sizing.output_tokens_max) else None


def _settle(book: Book, operation: Settle) -> Outcome:
    """Puts what was really used in the place of the hold, in the periods the hold was charged to.

    What comes after the hold lapsed is taken all the same: it was spent.
    """
    scope, usage = operation.scope, operation.usage
    hold = book.hold(scope, operation.request_id)
    if hold.state is State.SETTLED:
        left = book.left(scope, settled_work(usage))
        return again(hold, operation.body_hash, hold.settle_hash)._replace(left=left)
    if hold.state is State.RELEASED:
        raise ReservationReleased(request_id=operation.request_id)
    above = usage.cost_usd_nanos - hold.authorized_usd_nanos
    notes = [note for note, so in (("late", hold.state not in OPEN), ("overrun", above > 0)) if so]
    charges = settle_lines(book, hold, usage, note=" ".join(notes))
    if hold.sized is not None:
        book.pool(hold, NO_RISK)
        book.lessons.append(lesson_of_end(hold.scope, hold.sized, usage))
    if above > 0:
        book.tell("overrun", hold, above)
    settled = book.change(
        hold,
        state=State.SETTLED,
        settled_usd_nanos=usage.cost_usd_nanos,
        settled_tokens=usage.tokens,
        settle_hash=operation.body_hash,
        charges=charges,
        keys=hold.keys if charges is hold.charges else tuple(charge.key for charge in charges),
        sized=None,
    )
    book.use(scope, operation.request_id, usage)
    return Outcome(settled, book.left(scope, settled_work(usage)))


def _release(book: Book, operation: Release) -> Outcome:
    """Gives a hold back, out of suspense too."""
    hold = book.hold(operation.scope, operation.request_id)
    if hold.state is State.SETTLED:
        raise ReservationSettled(request_id=operation.request_id)
    if hold.state is State.RELEASED:
        return Outcome(hold, book.left(operation.scope), repeated=True)
    book.post(Kind.RELEASE, hold, (hold.keys, book.ends(hold)))
    _forget(book, hold)
    return Outcome(book.change(hold, state=State.RELEASED, sized=None), book.left(operation.scope))


def _record(book: Book, operation: Record) -> Outcome:
    """Charges what is spent already, whether it fits or not. What cost nothing (a cache hit) uses up nothing.

    A caller who never heard of its hold, because the answer was lost, records what it spent without one: that ends the hold.
    """
    scope, usage = operation.scope, operation.usage
    known = book.holds.get((scope.organization, operation.request_id))
    if known is not None and known.settle_hash is None and known.state is not State.RELEASED:
        return _settle(book, Settle(scope, operation.request_id, usage, operation.body_hash))
    if known is not None:
        return again(known, operation.body_hash, known.settle_hash)
    path = book.path(scope, settled_work(usage))
    hold = book.ended_hold(scope, operation.request_id, operation.body_hash, path.charges)
    if usage.cost_usd_nanos:
        hold.settled_usd_nanos, hold.settled_tokens = usage.cost_usd_nanos, usage.tokens
        hold.charges = settle_lines(book, hold, usage, kind=Kind.RECORD)
        hold.keys = tuple(charge.key for charge in hold.charges)
    else:
        book.post(Kind.RECORD, hold, (hold.keys, {}))
    book.add(hold)
    book.use(scope, operation.request_id, usage)
    return Outcome(hold, left_on(path.places))


def _lapse(book: Book, operation: Lapse) -> Outcome:
    """Ends an open hold whose time is up; leaves every other as it is."""
    hold = book.hold(operation.scope, operation.request_id)
    if hold.state not in OPEN or hold.expires_at > book.now:
        return Outcome(hold, NOTHING_LEFT_SAID)
    ends = book.ends(hold)
    if hold.state is State.RESERVED:
        book.post(Kind.LAPSE, hold, (hold.keys, ends))
        _forget(book, hold)
        return Outcome(book.change(hold, state=State.LAPSED, sized=None), NOTHING_LEFT_SAID)
    spent = {"spent_usd_nanos": hold.amount_usd_nanos, "spent_tokens": hold.tokens, "spent_requests": 1}
    suspense = {"suspense_usd_nanos": hold.amount_usd_nanos, "suspense_tokens": hold.tokens}
    model = hold.sized.sizing.model if hold.sized else ""
    book.post(Kind.SUSPEND, hold, (hold.keys, {**ends, **spent, **suspense}), note=model)
    _forget(book, hold)
    book.tell("suspense", hold, hold.amount_usd_nanos)
    return Outcome(book.change(hold, state=State.SUSPENDED, sized=None), NOTHING_LEFT_SAID)


def _forget(book: Book, hold: Hold) -> None:
    """A sized hold ended without teaching how long its answer was."""
    if hold.sized is not None:
        book.pool(hold, NO_RISK)
        book.lessons.append(lesson_of_end(hold.scope, hold.sized, None))


# Nobody is degraded in mid-stream.
_UNDER_WAY = Work(open_models=True)
_CRITICAL_UNDER_WAY = Work(open_models=True, critical=True)
_APPLY: dict[type, Callable[[Book, Any], Outcome]] = {
    Reserve: _reserve,
    Dispatch: _dispatch,
    TopUp: _top_up,
    Settle: _settle,
    Release: _release,
    Record: _record,
    Lapse: _lapse,
    Adjust: adjust,
    Reset: reset,
}
