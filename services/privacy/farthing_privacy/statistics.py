"""Private statistics: a question, the usage it is about, noise, and ε paid before the answer leaves.

The unit of privacy is a user: everything that one full scope path (organisation to user) did in the time range. Users whose path ends
at a workspace or project count as one user there. Neighbouring data sets differ in one such user. Whether a question is answered
depends on the question and the account alone, never on the data.
"""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Protocol

from farthing_core.clock import Clock
from farthing_core.errors import FarthingError, FieldInvalid
from farthing_core.scopes import Scope

from farthing_privacy.noise import noise_half_width_95, noised_sum
from farthing_privacy.store import Account, AccountStore, Charge, Release

_DEFAULT_RANGE = timedelta(days=30)


class Measure(IntEnum):
    """What is asked of the data."""

    REQUEST_COUNT = 1
    USER_COUNT = 2
    COST_SUM = 3
    TOKEN_SUM = 4


class LedgerUnavailable(FarthingError):
    """The ledger is out of reach; nothing was charged."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(f"the ledger is out of reach: {problem}", peer="budget")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `within` gives it the times that it leaves open."""

    request_id: str
    scope: Scope
    measure: Measure
    start_time: datetime | None
    end_time: datetime | None
    epsilon_micros: int
    contribution_max: int

    def within(self, now: datetime) -> Question:
        """This question with both its times: 30 days back and `now` where none is given.

        Raises FieldInvalid for what cannot be answered, whatever the data.
        """
        if self.measure is not Measure.USER_COUNT and self.contribution_max <= 0:
            raise FieldInvalid(field="contribution_max", problem="must be above 0 for sums and request counts")
        start, end = self.start_time or now - _DEFAULT_RANGE, self.end_time or now
        if start >= end:
            raise FieldInvalid(
                field="end_time" if self.end_time else "start_time", problem="must leave a time range that is not empty"
            )
        return replace(self, start_time=start, end_time=end)

    @property
    def sensitivity(self) -> int:
        """The most that one user moves the exact answer."""
        return 1 if self.measure is Measure.USER_COUNT else self.contribution_max

    @property
    def fingerprint(self) -> bytes:
        """What tells this question from another with the same request_id."""
        body = (self.scope.path, int(self.measure), self.start_time, self.end_time, self.epsilon_micros, self.sensitivity)
        return hashlib.sha256(repr(body).encode()).digest()


class Usage(Protocol):
    """The usage of users, as the ledger keeps it."""

    async def by_user(self, question: Question) -> dict[str, int]:
        """What each user contributes to the measure, uncut, by scope path.

        Where there are more users than can be fetched, those that come last in the order of their paths are left out: one user more
        then changes one contribution into another, which moves the answer no further. Raises LedgerUnavailable.
        """
        ...


class PrivateStatistics:
    """Answers questions with noise, from an account of ε."""

    def __init__(self, *, accounts: AccountStore, usage: Usage, executor: Executor, clock: Clock) -> None:
        self._accounts = accounts
        self._usage = usage
        self._executor = executor
        self._clock = clock

    async def answer(self, question: Question) -> Release:
        """The noised answer; the same one, uncharged, when this question was answered before.

        The noise is drawn first; then charge and answer are stored in one transaction; then the answer leaves. Who is killed in
        between has either charged nothing and answered nothing, or finds the stored answer when asked again.
        Raises FieldInvalid, PrivacyBudgetExhausted, RequestIdReused, LedgerUnavailable or StoreUnavailable; nothing is charged then.
        """
        organization = question.scope.organization
        charge = Charge(organization, question.request_id, question.fingerprint, question.epsilon_micros)
        known = await self._accounts.look_up(charge)
        if known is not None:
            return known
        contributions = await self._usage.by_user(question.within(self._clock.now()))
        value = await asyncio.get_running_loop().run_in_executor(self._executor, _noised, question, contributions)
        width = noise_half_width_95(sensitivity=question.sensitivity, epsilon_micros=question.epsilon_micros)
        return await self._accounts.charge(charge, value=value, noise_half_width_95=width)

    async def account(self, scope: Scope) -> Account:
        """The account of a scope's organisation. Raises StoreUnavailable."""
        return await self._accounts.account(scope.organization)


def _noised(question: Question, contributions: dict[str, int]) -> int:
    return noised_sum(contributions.values(), contribution_max=question.sensitivity, epsilon_micros=question.epsilon_micros)
