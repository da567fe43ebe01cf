"""The ledger's domain on balances in memory: what decides is the product's, what is missing is the database."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from farthing_budget.book import Book
from farthing_budget.budgets import Balance, BalanceKey, Limits, Terms
from farthing_budget.lane import Verdict
from farthing_budget.ledger import apply
from farthing_budget.operations import Hold, Operation
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.sizing.counts import Counts
from farthing_budget.sizing.learner import StreamKey
from farthing_budget.sizing.sizer import Sizer
from farthing_core.errors import FarthingError

START = datetime(2026, 3, 15, 12, tzinfo=UTC)
ORGANIZATION = "trace"
SHARING_S = 2.0
"""How often replicas share what they learned: the service's default."""


def budgets_of(paths: Sequence[str], limit: int) -> list[Terms]:
    """A monthly budget of so much on each of these scopes."""
    return [Terms(ORGANIZATION, path, path, "", PeriodTerms(Period.MONTH, "UTC"), Limits(limit)) for path in paths]


class MemoryLedger:
    """Commits batches as `replicas` processes would that share their balances, each with what it learned itself and what they shared.

    Every operation goes to a replica by chance, those of one request to different ones.
    """

    def __init__(self, budgets: Sequence[Terms], limit: int, *, replicas: int = 1) -> None:
        self.over_usd_nanos = 0
        self._limit = limit
        self._sizers = [Sizer() for _ in range(replicas)]
        self._terms = {(ORGANIZATION, each.scope): [each] for each in budgets}
        self.balances: dict[BalanceKey, Balance] = {each.balance_key(START): Balance(each.bounds(START)[1]) for each in budgets}
        self._holds: dict[tuple[str, str], Hold] = {}
        self._chance = random.Random(1)
        self._shared: dict[StreamKey, Counts] = {}
        self._share_s = SHARING_S

    def commit(self, at_s: float, operations: Sequence[Operation]) -> list[Verdict]:
        """Applies a batch at a moment."""
        if len(self._sizers) == 1:
            return self._apply(at_s, operations, self._sizers[0])
        if at_s >= self._share_s:
            self._share_s = at_s + SHARING_S
            self._share()
        turns = [self._chance.randrange(len(self._sizers)) for _ in operations]
        verdicts: dict[int, Verdict] = {}
        for turn in sorted(set(turns)):
            mine = [number for number, each in enumerate(turns) if each == turn]
            applied = self._apply(at_s, [operations[number] for number in mine], self._sizers[turn])
            verdicts.update(zip(mine, applied, strict=True))
        return [verdicts[number] for number in range(len(operations))]

    def _apply(self, at_s: float, operations: Sequence[Operation], sizer: Sizer) -> list[Verdict]:
        now = START + timedelta(seconds=at_s)
        book = Book(now=now, holds=self._holds, terms=self._terms, balances=self.balances, sizer=sizer)
        verdicts: list[Verdict] = []
        for operation in operations:
            try:
                verdicts.append(apply(book, operation))
            except FarthingError as error:
                verdicts.append(error)
            for balance in self.balances.values():
                over = balance.spent_usd_nanos + balance.held_usd_nanos - self._limit
                self.over_usd_nanos = max(self.over_usd_nanos, over)
        sizer.learn(book.lessons)
        return verdicts

    def _share(self) -> None:
        for sizer in self._sizers:
            for key, counts in sizer.learner.take_fresh().items():
                self._shared.setdefault(key, Counts()).add(counts)
            sizer.learner.adopt(self._shared)
