"""An operation that is refused leaves nothing behind, whatever of it came first."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from farthing_budget.book import Book
from farthing_budget.budgets import Balance, Limits, Terms
from farthing_budget.ledger import apply
from farthing_budget.operations import Reserve, Sizing, TopUp
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.sizing.sizer import Sizer
from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX
from farthing_core.scopes import parse_scope

ORGANIZATION = parse_scope("organizations/acme")
NOW = datetime(2026, 3, 15, tzinfo=UTC)
TERMS = Terms("acme", "b", ORGANIZATION.path, "", PeriodTerms(Period.YEAR, "UTC"), Limits(None, None, 10))
KEY = TERMS.balance_key(NOW)


def book() -> Book:
    balances = {KEY: Balance(TERMS.bounds(NOW)[1])}
    return Book(now=NOW, holds={}, terms={("acme", ORGANIZATION.path): [TERMS]}, balances=balances, sizer=Sizer())


def sized(request_id: str) -> Reserve:
    sizing = Sizing(100, 10, 1_000_000, 10_000, "m", "chat")
    return Reserve(ORGANIZATION, request_id, 10_100, 10_010, 600, b"", sizing=sizing)


@pytest.mark.parametrize("figure", ["held_usd_nanos", "held_tokens"])
@pytest.mark.parametrize("grows", [False, True])
def test_a_sized_hold_that_counts_too_far_leaves_no_risk_behind(figure: str, grows: bool) -> None:
    kept = book()
    operation: Any = sized("one")
    if grows:
        apply(kept, operation)
        operation = TopUp(ORGANIZATION, "one", 0, 0, 5_000)
    setattr(kept.balances[KEY], figure, NANOS_MAX)
    before = deepcopy((kept.balances, kept.holds, kept.entries, kept.lessons))
    with pytest.raises(FieldInvalid):
        apply(kept, operation)
    assert (kept.balances, kept.holds, kept.entries, kept.lessons) == before
