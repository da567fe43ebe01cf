"""One world: random operations with faults against two replicas of the ledger on one database, beside a model."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import asyncpg
from farthing_budget.budgets import Change, Draft, Limits, LimitTerms, Terms
from farthing_budget.operations import (
    Adjust,
    Dispatch,
    Lapse,
    Operation,
    Record,
    Release,
    Reserve,
    Reset,
    Settle,
    TopUp,
)
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.refusals import LedgerBusy, StoreUnavailable
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.journal import PostgresJournal
from farthing_budget.store.postgres import PostgresLedger
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope

from tests.simulation.model import Model

STEPS = 14
# Few values, so that sums often meet a limit exactly, and often miss it by one.
_AMOUNTS = (0, 1, 1, 249, 250, 250, 500, 750, 1_000, 1_250)
_TURNS = (("calm", 8), ("dropped", 1), ("duplicated", 2), ("answer lost", 1), ("crash", 2), ("together", 4), ("limit", 1))
_KINDS = (
    ("reserve",) * 5
    + ("settle",) * 4
    + ("release", "lapse", "lapse", "dispatch", "dispatch", "top up", "record", "adjust", "adjust")
)


@dataclass
class Stage:
    """Two replicas of the ledger with one clock, and what a person would look into the books with."""

    clock: ManualClock
    replicas: Sequence[PostgresLedger]
    crashes: Sequence[Crash]
    budgets: PostgresBudgets
    journal: PostgresJournal
    pool: asyncpg.Pool


class Crash:
    """Breaks a replica's connection before one of its next statements, or right after its commit."""

    def __init__(self, ledger: PostgresLedger) -> None:
        self.statements_left: int | None = None
        self.after_commit = False
        self._inner = ledger._connection
        ledger._connection = self  # type: ignore[assignment]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A transaction that may break."""
        async with self._inner.transaction() as connection:
            yield _Fragile(connection, self) if self.statements_left is not None else connection
        if self.after_commit:
            raise ConnectionResetError("the answer to COMMIT was lost")

    def tick(self) -> None:
        """Counts a statement; raises when it is the one."""
        if self.statements_left is not None:
            self.statements_left -= 1
            if self.statements_left < 0:
                raise ConnectionResetError("broken by the simulation")


class _Fragile:
    def __init__(self, connection: Any, crash: Crash) -> None:
        self._connection, self._crash = connection, crash

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._connection, name)
        if name not in ("fetch", "execute", "copy_records_to_table", "fetchval", "fetchrow"):
            return found

        async def call(*arguments: Any, **options: Any) -> Any:
            self._crash.tick()
            return await found(*arguments, **options)

        return call


class World:
    """The state of one run; everything that is random comes from its seed."""

    def __init__(self, seed: int, stage: Stage) -> None:
        self.rng, self.stage, self.seed = Random(seed), stage, seed
        self.violations: list[str] = []
        self.organization = f"sim-{seed}-{uuid.uuid4().hex[:8]}"
        root = f"organizations/{self.organization}"
        self.paths = [root, f"{root}/workspaces/w", f"{root}/workspaces/w/projects/p", f"{root}/workspaces/w/projects/q"]
        self.scopes = [parse_scope(path) for path in self.paths]
        self.ids = [str(uuid.UUID(int=self.rng.getrandbits(128), version=4)) for _ in range(36)]
        self.sent: dict[str, Operation] = {}

    async def run(self) -> list[str]:
        """What was violated."""
        clock = self.stage.clock
        clock.advance(self.rng.randrange(86_400))
        # One budget that everything is charged to puts all batches in one order; without it there is none to compare with.
        limits = {
            path: self.rng.randrange(2_000, 9_000) for path in self.paths if path == self.paths[0] or self.rng.random() < 0.8
        }
        daily = {path for path in limits if self.rng.random() < 0.5}
        made = {path: await self._create(path, limit, path in daily) for path, limit in limits.items()}
        self.model, self.made = Model(limits, daily, made), made
        for _ in range(STEPS):
            # Clocks are set back now and then; nothing may come of it but that holds last longer.
            clock.advance(self.rng.choice((0, 0, 1, 30, 400, 400, 40_000)))
            if self.rng.random() < 0.05:
                clock.jump(clock.now() - timedelta(seconds=self.rng.randrange(1, 120)))
            turn = self.rng.choices([name for name, _ in _TURNS], [weight for _, weight in _TURNS])[0]
            await self._turn(turn)
        await self._compare("at the end")
        await self._nothing_held_without_traffic()
        await self._books()
        return self.violations

    async def _turn(self, turn: str) -> None:
        rng, replica = self.rng, self.rng.randrange(2)
        batch = [self._operation() for _ in range(rng.randrange(1, 7))]
        match turn:
            case "dropped":
                return
            case "limit":
                await self._change_a_limit()
            case "together":
                await self._together(batch, [self._operation() for _ in range(rng.randrange(1, 5))])
            case "crash":
                await self._crash(replica, batch)
            case "answer lost":
                self._expect(batch)
                await self.stage.replicas[replica].commit(batch)
            case _:
                for _ in range(2 if turn == "duplicated" else 1):
                    expected = self._expect(batch)
                    self._check(batch, _names(await self.stage.replicas[rng.randrange(2)].commit(batch)), expected)

    def _expect(self, batch: list[Operation]) -> list[str]:
        return [self.model.apply(operation, self.stage.clock.now()) for operation in batch]

    def _check(self, batch: list[Operation], got: list[str], expected: list[str]) -> None:
        if got != expected:
            self._wrong(f"{[type(each).__name__ for each in batch]}: {got} instead of {expected}")

    async def _together(self, one: list[Operation], other: list[Operation]) -> None:
        """Two replicas at once: what comes of it must be what comes of one after the other, in some order."""
        first, second = self.stage.replicas
        got = await asyncio.gather(first.commit(one), second.commit(other))
        before = self.model
        for order in ((0, 1), (1, 0)):
            self.model = before.copy()
            expected: list[list[str]] = [[], []]
            for index in order:
                expected[index] = self._expect((one, other)[index])
            if [_names(each) for each in got] == expected and await self._same():
                return
        self._wrong(
            f"together: {[_names(each) for each in got]} for {[[type(x).__name__ for x in each] for each in (one, other)]} in neither order"
        )

    async def _crash(self, replica: int, batch: list[Operation]) -> None:
        """The database goes away somewhere in a batch, or right after its commit; the caller asks again afterwards."""
        crash = self.stage.crashes[replica]
        crash.statements_left, crash.after_commit = self.rng.choice(
            ((0, False), (3, False), (5, False), (7, False), (99, True))
        )
        try:
            done = 1
            await self.stage.replicas[replica].commit(batch)
        except (StoreUnavailable, LedgerBusy):
            # The ledger itself tries a second time; where only the answers were lost, both tries were done.
            done = 2 if crash.after_commit else 0
        finally:
            crash.statements_left, crash.after_commit = None, False
        for _ in range(done):
            self._expect(batch)
        expected = self._expect(batch)
        self._check(batch, _names(await self.stage.replicas[1 - replica].commit(batch)), expected)
        await self._compare("after a crash")

    async def _change_a_limit(self) -> None:
        if self.made:
            path = self.rng.choice(sorted(self.made))
            limit = 250 * self.rng.randrange(4, 36)
            change = Change(frozenset({"limit_usd_nanos"}), "", Limits(limit), LimitTerms(), 0)
            await self.stage.budgets.update(self.organization, self.made[path], change)
            self.model.limits[path] = limit

    def _operation(self) -> Operation:
        """An operation; the same request always says the same."""
        rng, kind = self.rng, self.rng.choice(_KINDS)
        # What never held anything has ids of its own: settling a correction would be another story.
        request_id = rng.choice(self.ids[:12] if kind in ("record", "adjust") else self.ids[12:])
        scope = self.scopes[int(request_id[-4:], 16) % len(self.scopes)]
        if kind in ("reserve", "record", "adjust"):
            if request_id not in self.sent:
                self.sent[request_id] = self._new(kind, request_id, scope)
            return self.sent[request_id]
        if kind == "settle":
            return Settle(scope, request_id, _usage(_AMOUNTS[int(request_id[:4], 16) % len(_AMOUNTS)]), b"s" * 32)
        if kind == "top up":
            return TopUp(scope, request_id, rng.choice(_AMOUNTS) + rng.choice(_AMOUNTS), 0, 0)
        return {"release": Release, "lapse": Lapse, "dispatch": Dispatch}[kind](scope, request_id)

    def _new(self, kind: str, request_id: str, scope: Any) -> Operation:
        rng = self.rng
        settled = [each for each in self.sent if isinstance(self.sent[each], Reserve)]
        if kind == "record" or (kind == "adjust" and not settled and not self.made):
            return Record(scope, request_id, _usage(rng.choice(_AMOUNTS)), b"c" * 32)
        if kind == "adjust" and self.made and (not settled or rng.random() < 0.4):
            return Reset(scope, request_id, rng.choice(sorted(self.made.values())), "", b"z" * 32)
        if kind == "adjust":
            corrected = self.sent[rng.choice(settled)]
            return Adjust(
                corrected.scope, request_id, corrected.request_id, "", rng.choice((-250, -1, 1, 250)), 0, "", b"a" * 32
            )
        ttl_s, dispatch = rng.choice((60, 600)), rng.random() < 0.3
        amount = rng.choice(_AMOUNTS)
        return Reserve(scope, request_id, amount, amount, ttl_s, b"r" * 32, dispatch=dispatch)

    async def _create(self, path: str, limit: int, daily: bool) -> str:
        budget_id, period = str(uuid.uuid4()), Period.DAY if daily else Period.YEAR
        terms = Terms(self.organization, budget_id, path, "", PeriodTerms(period, "UTC"), Limits(limit))
        await self.stage.budgets.create(Draft(terms, str(uuid.uuid4()), b"d" * 32, self.stage.clock.now()))
        return budget_id

    async def _figures(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for path, budget_id in self.made.items():
            balance = (await self.stage.budgets.get(self.organization, budget_id)).balance
            found[path] = balance.spent_usd_nanos, balance.held_usd_nanos, balance.suspense_usd_nanos
        return found

    def _modelled(self) -> dict[str, tuple[int, int, int]]:
        places = {path: self.model.place(path, self.stage.clock.now()) for path in self.made}
        parts = (self.model.spent, self.model.held, self.model.suspense)
        return {path: tuple(part.get(place, 0) for part in parts) for path, place in places.items()}  # type: ignore[misc]

    async def _same(self) -> bool:
        return await self._figures() == self._modelled()

    async def _compare(self, when: str) -> None:
        figures, modelled = await self._figures(), self._modelled()
        if figures != modelled:
            self._wrong(f"{when}: (spent, held, suspense) are {figures} instead of {modelled}")

    async def _nothing_held_without_traffic(self) -> None:
        self.stage.clock.advance(10_000)
        scopes = {request_id: self.scopes[int(request_id[-4:], 16) % len(self.scopes)] for request_id in self.model.requests}
        for start in range(0, len(scopes), 20):
            lapses: list[Operation] = [Lapse(scopes[each], each) for each in sorted(scopes)[start : start + 20]]
            await self.stage.replicas[0].commit(lapses)
        held = await self.stage.pool.fetchval(
            "SELECT coalesce(sum(held_usd_nanos + held_tokens + held_requests), 0)::bigint FROM balances WHERE organization = $1",
            self.organization,
        )
        if held:
            self._wrong(f"{held} are held with nobody working on them")

    async def _books(self) -> None:
        proof = await self.stage.journal.verify(self.organization)
        for difference in proof.differences:
            self._wrong(f"replay is not the live state: {difference}")
        twice = await self.stage.pool.fetch(
            "SELECT request_id FROM journal WHERE organization = $1 AND kind IN (4, 5, 6, 7, 8) GROUP BY request_id, kind "
            "HAVING count(*) > 1",
            self.organization,
        )
        for row in twice:
            self._wrong(f"{row['request_id']} ended twice")

    def _wrong(self, text: str) -> None:
        self.violations.append(f"seed {self.seed}: {text}")


def _names(verdicts: Sequence[Any]) -> list[str]:
    return [type(verdict).__name__ if isinstance(verdict, BaseException) else "ok" for verdict in verdicts]


def _usage(cost: int) -> UsageRecord:
    return UsageRecord("chat", (UsageLine("m", "p", "d", cost, 0, 0, cost, "accepted", False),), cost, Saving())
