"""What every keeper of ε accounts promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import asyncpg
import pytest
from farthing_privacy.store import Charge, PrivacyBudgetExhausted, Release, RequestIdReused, StoreUnavailable
from farthing_privacy.store.postgres import PostgresAccounts
from farthing_runtime.postgres import open_pool

TOTAL_MICROS = 1_000_000


def charge(epsilon_micros: int = 100_000, *, organization: str = "acme") -> Charge:
    return Charge(organization, str(uuid.uuid4()), b"a question", epsilon_micros)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="privacy", size_max=8) as opened:
        yield opened


@pytest.fixture
def accounts(pool: asyncpg.Pool) -> PostgresAccounts:
    return PostgresAccounts(pool, epsilon_total_micros=TOTAL_MICROS)


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits for what another process or connection does."""
    for _ in range(3_000):
        if await holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited for 30 s in vain")


async def spent(accounts: PostgresAccounts, organization: str = "acme") -> int:
    return (await accounts.account(organization)).spent_micros


async def test_a_charge_is_counted_and_its_answer_kept(accounts: PostgresAccounts) -> None:
    asked = charge()
    assert await accounts.look_up(asked) is None
    release = await accounts.charge(asked, value=-7, noise_half_width_95=3)
    assert release == Release(-7, 3, 900_000)
    assert await accounts.look_up(asked) == release
    assert (await accounts.account("acme")).total_micros == TOTAL_MICROS
    assert await spent(accounts) == 100_000
    assert await spent(accounts, "other") == 0


async def test_a_repeat_gets_the_stored_answer_and_is_charged_once(accounts: PostgresAccounts) -> None:
    asked = charge()
    first = await accounts.charge(asked, value=1, noise_half_width_95=3)
    assert await accounts.charge(asked, value=2, noise_half_width_95=3) == first
    assert await spent(accounts) == 100_000


async def test_a_stored_answer_is_given_also_when_nothing_is_left(accounts: PostgresAccounts) -> None:
    asked = charge(TOTAL_MICROS)
    first = await accounts.charge(asked, value=1, noise_half_width_95=3)
    assert await accounts.look_up(asked) == first
    assert await accounts.charge(asked, value=2, noise_half_width_95=3) == first


async def test_another_question_under_a_used_request_id_is_refused(accounts: PostgresAccounts) -> None:
    asked = charge()
    await accounts.charge(asked, value=1, noise_half_width_95=3)
    other = replace(asked, fingerprint=b"another question")
    with pytest.raises(RequestIdReused):
        await accounts.look_up(other)
    with pytest.raises(RequestIdReused):
        await accounts.charge(other, value=1, noise_half_width_95=3)
    assert await spent(accounts) == 100_000


async def test_the_last_of_the_account_can_be_spent_and_not_a_millionth_more(accounts: PostgresAccounts) -> None:
    await accounts.charge(charge(TOTAL_MICROS - 1), value=1, noise_half_width_95=3)
    for attempt in (accounts.look_up(charge(2)), accounts.charge(charge(2), value=1, noise_half_width_95=3)):
        with pytest.raises(PrivacyBudgetExhausted) as refused:
            await attempt
        assert refused.value.facts["left_micros"] == "1"
    assert (await accounts.charge(charge(1), value=1, noise_half_width_95=3)).epsilon_left_micros == 0


async def test_racing_charges_never_overspend(accounts: PostgresAccounts) -> None:
    results = await asyncio.gather(
        *(accounts.charge(charge(), value=1, noise_half_width_95=3) for _ in range(64)), return_exceptions=True
    )
    assert sum(isinstance(result, Release) for result in results) == 10
    assert sum(isinstance(result, PrivacyBudgetExhausted) for result in results) == 54
    assert await spent(accounts) == TOTAL_MICROS


async def test_racing_repeats_of_one_question_get_one_answer_and_one_charge(accounts: PostgresAccounts) -> None:
    asked = charge()
    results = await asyncio.gather(*(accounts.charge(asked, value=number, noise_half_width_95=3) for number in range(32)))
    assert len(set(results)) == 1
    assert await spent(accounts) == 100_000


def _charge_until_exhausted(database_url: str) -> None:
    async def run() -> None:
        async with open_pool(database_url, schema="privacy", size_max=2) as pool:
            accounts = PostgresAccounts(pool, epsilon_total_micros=TOTAL_MICROS)
            while True:
                try:
                    await accounts.charge(charge(1_000), value=1, noise_half_width_95=3)
                except PrivacyBudgetExhausted:
                    return

    asyncio.run(run())


async def test_processes_that_race_and_are_killed_never_overspend_nor_answer_uncharged(
    database_url: str, pool: asyncpg.Pool, accounts: PostgresAccounts
) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_charge_until_exhausted, args=(database_url,)) for _ in range(4)]
    for process in processes:
        process.start()

    async def quarter_spent() -> bool:
        return await spent(accounts) >= TOTAL_MICROS // 4

    await eventually(quarter_spent)
    assert processes[0].pid is not None
    os.kill(processes[0].pid, signal.SIGKILL)
    for process in processes:
        await asyncio.to_thread(process.join, 60)
    assert await spent(accounts) == TOTAL_MICROS
    assert await pool.fetchval("SELECT sum(epsilon_micros) FROM releases") == TOTAL_MICROS


async def test_a_charge_that_is_broken_off_leaves_neither_charge_nor_answer(
    pool: asyncpg.Pool, accounts: PostgresAccounts
) -> None:
    asked = charge()

    async def waits_for_a_lock() -> bool:
        return await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'releases'::regclass") > 0

    async with pool.acquire() as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE privacy.releases IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(accounts.charge(asked, value=1, noise_half_width_95=3))
        await eventually(waits_for_a_lock)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await spent(accounts) == 0
    assert await accounts.look_up(asked) is None


async def test_a_database_out_of_reach_is_named_so(database_url: str) -> None:
    async with open_pool(database_url, schema="privacy", size_max=1) as pool:
        accounts = PostgresAccounts(pool, epsilon_total_micros=TOTAL_MICROS)
        await pool.close()
        with pytest.raises(StoreUnavailable):
            await accounts.charge(charge(), value=1, noise_half_width_95=3)
        with pytest.raises(StoreUnavailable):
            await accounts.account("acme")
