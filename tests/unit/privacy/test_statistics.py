from __future__ import annotations

import math
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from farthing_core.clock import ManualClock
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope
from farthing_privacy.noise import noise_half_width_95, noised_sum
from farthing_privacy.statistics import LedgerUnavailable, Measure, PrivateStatistics, Question
from farthing_privacy.store import Account, Charge, PrivacyBudgetExhausted, Release

NOW = datetime(2026, 5, 17, 12, 30, tzinfo=UTC)
QUESTION = Question(
    request_id="7f9c24e8-3b12-4fef-91e0-0a5b6d3e8c11",
    scope=parse_scope("organizations/acme"),
    measure=Measure.COST_SUM,
    start_time=None,
    end_time=None,
    epsilon_micros=1_000_000,
    contribution_max=100,
)


class Accounts:
    """Accounts in memory that write down in which order things happened."""

    def __init__(self, left_micros: int = 10_000_000) -> None:
        self.left_micros = left_micros
        self.stored: dict[str, Release] = {}
        self.events: list[str] = []

    async def look_up(self, charge: Charge) -> Release | None:
        self.events.append("look up")
        known = self.stored.get(charge.request_id)
        if known is None and charge.epsilon_micros > self.left_micros:
            raise PrivacyBudgetExhausted(
                organization=charge.organization,
                asked_micros=charge.epsilon_micros,
                left_micros=self.left_micros,
                total_micros=0,
            )
        return known

    async def charge(self, charge: Charge, *, value: int, noise_half_width_95: int) -> Release:
        self.events.append("charge")
        self.left_micros -= charge.epsilon_micros
        self.stored[charge.request_id] = Release(value, noise_half_width_95, self.left_micros)
        return self.stored[charge.request_id]

    async def account(self, organization: str) -> Account:
        return Account(10_000_000, 10_000_000 - self.left_micros)


class Users:
    def __init__(self, totals: dict[str, int] | None) -> None:
        self.totals = totals
        self.asked = 0
        self.range: tuple[datetime | None, datetime | None] = (None, None)

    async def by_user(self, question: Question) -> dict[str, int]:
        self.asked += 1
        self.range = (question.start_time, question.end_time)
        if self.totals is None:
            raise LedgerUnavailable(problem="gone")
        return self.totals


def ask(accounts: Accounts, users: Users) -> PrivateStatistics:
    return PrivateStatistics(accounts=accounts, usage=users, executor=ThreadPoolExecutor(1), clock=ManualClock(NOW))


async def test_an_answer_is_charged_before_it_leaves_and_repeated_without_a_second_charge() -> None:
    accounts, users = Accounts(), Users({"a": 50, "b": 70})
    service = ask(accounts, users)
    first = await service.answer(QUESTION)
    users.totals = {"a": 10**9}
    assert await service.answer(QUESTION) == first
    assert accounts.events == ["look up", "charge", "look up"]
    assert (accounts.left_micros, users.asked) == (9_000_000, 1)


async def test_nothing_is_charged_when_the_ledger_is_out_of_reach() -> None:
    accounts = Accounts()
    with pytest.raises(LedgerUnavailable):
        await ask(accounts, Users(None)).answer(QUESTION)
    assert accounts.left_micros == 10_000_000


async def test_an_exhausted_account_is_refused_before_any_data_is_looked_at() -> None:
    users = Users({"a": 1})
    with pytest.raises(PrivacyBudgetExhausted):
        await ask(Accounts(left_micros=999_999), users).answer(QUESTION)
    assert users.asked == 0


@pytest.mark.parametrize("measure", [Measure.REQUEST_COUNT, Measure.COST_SUM, Measure.TOKEN_SUM])
async def test_a_question_without_a_bound_on_contributions_is_refused(measure: Measure) -> None:
    with pytest.raises(FieldInvalid) as refused:
        await ask(Accounts(), Users({})).answer(replace(QUESTION, measure=measure, contribution_max=0))
    assert refused.value.field == "contribution_max"


async def test_times_that_a_question_leaves_open_are_the_last_thirty_days() -> None:
    users = Users({})
    service = ask(Accounts(), users)
    await service.answer(QUESTION)
    assert users.range == (NOW - timedelta(days=30), NOW)
    with pytest.raises(FieldInvalid) as refused:
        await service.answer(replace(QUESTION, request_id="another", end_time=NOW - timedelta(days=31)))
    assert refused.value.field == "end_time"


async def test_users_are_counted_once_each_whatever_they_did() -> None:
    service = ask(Accounts(), Users({f"user{number}": 1_000_000 * (number % 2) for number in range(2_000)}))
    question = replace(QUESTION, measure=Measure.USER_COUNT, contribution_max=0, epsilon_micros=10_000_000)
    assert abs((await service.answer(question)).value - 1_000) <= 10


def test_contributions_are_cut_to_the_bound_at_both_ends() -> None:
    assert abs(noised_sum([10**12, -(10**12), 3], contribution_max=5, epsilon_micros=10_000_000) - 8) <= 20


def test_the_noise_is_centred_and_as_wide_as_it_says() -> None:
    sample = [noised_sum([], contribution_max=50, epsilon_micros=500_000) for _ in range(4_000)]
    width = noise_half_width_95(sensitivity=50, epsilon_micros=500_000)
    inside = sum(abs(value) <= width for value in sample) / len(sample)
    assert 0.93 < inside < 0.97
    assert abs(statistics.fmean(sample)) < 6 * 100 * math.sqrt(2) / math.sqrt(len(sample))
    assert len(set(sample)) > 200


@pytest.mark.parametrize(("sensitivity", "epsilon_micros"), [(1, 1_000_000), (1, 10_000_000), (7, 333_333), (10**6, 1_000)])
def test_the_half_width_is_the_least_that_holds_95_percent(sensitivity: int, epsilon_micros: int) -> None:
    rate = epsilon_micros / 1_000_000 / sensitivity

    def beyond(k: int) -> float:
        return 2 * math.exp(-rate * (k + 1)) / (1 + math.exp(-rate))

    width = noise_half_width_95(sensitivity=sensitivity, epsilon_micros=epsilon_micros)
    assert beyond(width) <= 0.05 + 1e-9
    assert width == 0 or beyond(width - 1) > 0.05


def test_the_largest_bound_with_the_smallest_epsilon_still_gives_an_answer_of_64_bits() -> None:
    value = noised_sum([2**53 - 1] * 5_000, contribution_max=2**53 - 1, epsilon_micros=1_000)
    assert -(2**63) <= value < 2**63
    assert noise_half_width_95(sensitivity=2**53 - 1, epsilon_micros=1_000) == 2**63 - 1
