"""Settling: whose balances a finished request is charged to. Budgets on a model or a provider pay for their own lines only."""

from __future__ import annotations

from farthing_budget.book import Book
from farthing_budget.budgets import BalanceKey, Selector
from farthing_budget.operations import Charge, Hold, Kind, Work
from farthing_budget.usage import PaidLine, UsageLine, UsageRecord


def settled_work(usage: UsageRecord) -> Work:
    """What a finished request turned out to be."""
    return Work(
        models=tuple(line.model for line in usage.lines),
        providers=tuple(line.provider for line in usage.lines),
        tags=usage.tags,
    )


def settle_lines(book: Book, hold: Hold, usage: UsageRecord, *, kind: Kind = Kind.SETTLE, note: str = "") -> tuple[Charge, ...]:
    """Ends what is held and charges what was used; returns what was charged in the end.

    Budgets on a model or a provider that nobody foresaw are charged too, in their present period.
    """
    foreseen = {charge.key[1] for charge in hold.charges}
    path = book.path_of(hold.scope, settled_work(usage))
    surprising = tuple(charge for charge in path.charges if charge.selector and charge.key[1] not in foreseen)
    ends = book.ends(hold)
    if not surprising and not any(charge.selector for charge in hold.charges):
        book.post(kind, hold, (hold.keys, _sum(ends, _used(usage.cost_usd_nanos, usage.tokens, 1))), note=note)
        return hold.charges
    changes: list[tuple[tuple[BalanceKey, ...], dict[str, int]]] = [(hold.keys, ends)] if ends else []
    charged = []
    for charge in (*hold.charges, *surprising):
        lines = [line for line in usage.lines if is_for(line, charge.selector)]
        if lines:
            cost = sum(line.cost_usd_nanos for line in lines)
            tokens = sum(line.input_tokens + line.output_tokens for line in lines)
            changes.append(((charge.key,), _used(cost, tokens, 1)))
            charged.append(charge)
    book.post(kind, hold, *changes, note=note)
    return tuple(charged)


def is_for(line: UsageLine | PaidLine, selector: Selector | None) -> bool:
    """Whether a budget of this selector pays for an attempt."""
    return selector is None or selector.name == (line.model if selector.kind == "model" else line.provider)


def _used(cost_usd_nanos: int, tokens: int, requests: int) -> dict[str, int]:
    return {"spent_usd_nanos": cost_usd_nanos, "spent_tokens": tokens, "spent_requests": requests}


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in (*one, *(name for name in other if name not in one))}
