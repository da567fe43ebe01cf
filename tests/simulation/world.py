"""One world: random operations with faults against two replicas of the ledger on one database, beside a model."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from farthing_budget.budgets import Change, Draft, Exhaustion, Limits, LimitTerms, Selector, Terms
from farthing_budget.operations import Adjust, Lapse, Operation, Record, Reserve, Reset
from farthing_budget.periods import PeriodTerms
from farthing_budget.refusals import BudgetExists, LedgerBusy, StoreUnavailable
from farthing_core.scopes import parse_scope

from tests.simulation.callers import Callers, budget_of
from tests.simulation.model import NOTHING, Budget, Model
from tests.simulation.stage import Stage

STEPS = 10
_TURNS = (
    ("calm", 7),
    ("duplicated", 3),
    ("together", 5),
    ("crash", 4),
    ("answer lost", 1),
    ("dropped", 1),
    ("restart", 1),
    ("change", 2),
    ("change together", 2),
)
_STATEMENTS_MAX = 14
"""A batch takes fewer."""
# Moments about which something happens to calendars: clocks go forth and back, leap days, the ends of years, quarters and fiscal years.
_STARTS = (
    "2026-03-08T02",
    "2026-03-29T00",
    "2026-10-25T00",
    "2026-11-01T03",
    "2028-02-28T20",
    "2026-12-31T10",
    "2026-03-31T12",
)
_PASSES_S = (0, 0, 0, 1, 1, 30, 30, 150, 150, 400, 400, 400, 700, 700, 4_000, 4_000, 40_000, 40_000, 3_000_000)
_SET_BACK_S_MAX = 120
_STATES = {1: "reserved", 2: "settled", 3: "released", 4: "suspended", 5: "dispatched", 6: "lapsed"}


class World:
    """The state of one run; everything that is random comes from its seed."""

    def __init__(self, seed: int, stage: Stage) -> None:
        self.rng, self.stage, self.seed = Random(seed), stage, seed
        self.violations: list[str] = []
        self.organization = f"sim-{seed}-{uuid.uuid4().hex[:8]}"
        root = f"organizations/{self.organization}"
        self.paths = [root, f"{root}/workspaces/w", f"{root}/workspaces/w/projects/p", f"{root}/workspaces/w/projects/q"]
        scopes = [parse_scope(path) for path in self.paths]
        self.plain = self.rng.random() < 0.5
        self.model = Model()
        self.unheard: set[str] = set()
        self.callers = Callers(self.rng, scopes, lambda: list(self.model.budgets), sizes=self.rng.random() < 0.25)

    async def run(self) -> list[str]:
        """What was violated."""
        clock, rng = self.stage.clock, self.rng
        clock.jump(datetime.fromisoformat(rng.choice(_STARTS)).replace(tzinfo=UTC) + timedelta(seconds=rng.randrange(14_400)))
        self.latest = clock.now()
        for replica in self.stage.replicas:
            replica.clock.skew_s = rng.choice((0, 0, 0, 3, -3, 60, -60))
        # One budget that everything is charged to puts all batches in one order; without it there is none to compare with.
        await self._perform(self._creation(self.paths[0], only=None))
        for path in self.paths:
            for _ in range(rng.choice((0, 1, 1, 2)) if path != self.paths[0] else rng.choice((0, 0, 1))):
                await self._perform(self._creation(path))
        for _ in range(STEPS):
            self._time_passes()
            turn = rng.choices([name for name, _ in _TURNS], [weight for _, weight in _TURNS])[0]
            await self._turn(turn)
            await self._compare(f"after {turn}")
            if self.violations:
                return self.violations
        await self._nothing_held_without_traffic()
        await self._books()
        return self.violations

    def _time_passes(self) -> None:
        """Clocks are set back now and then; nothing may come of it but that holds last longer."""
        clock = self.stage.clock
        clock.advance(self.rng.choice(_PASSES_S))
        self.latest = max(self.latest, clock.now())
        if self.rng.random() < 0.1:
            clock.jump(self.latest - timedelta(seconds=self.rng.randrange(1, _SET_BACK_S_MAX)))

    async def _turn(self, turn: str) -> None:
        rng, replica = self.rng, self.rng.randrange(2)
        match turn:
            case "dropped":
                self.callers.batch(6)
            case "restart":
                await self.stage.replicas[replica].start()
            case "change":
                await self._perform(self._change())
            case "change together":
                await self._change_together(replica, self.callers.batch(6))
            case "together":
                await self._together(self.callers.batch(6), self.callers.batch(4))
            case "crash":
                await self._crash(replica, self.callers.batch(6, foreseeable=True))
            case "answer lost":
                batch = self.callers.batch(6)
                self._expect(replica, batch, await self._commit(replica, batch))
            case _:
                batch = self.callers.batch(6)
                for _ in range(2 if turn == "duplicated" else 1):
                    other = rng.randrange(2)
                    got = await self._commit(other, batch)
                    self._check(batch, _names(batch, got), self._expect(other, batch, got))

    async def _commit(self, replica: int, batch: Sequence[Operation]) -> list[Any]:
        return list(await self.stage.replicas[replica].ledger.commit(batch)) if batch else []

    def _expect(self, replica: int, batch: Sequence[Operation], got: Sequence[Any] = ()) -> list[str]:
        now = self.stage.replicas[replica].clock.now()
        return [self.model.apply(each, now, got[number] if got else None) for number, each in enumerate(batch)]

    def _check(self, batch: Sequence[Operation], got: list[str], expected: list[str]) -> None:
        if self._told(batch, got) != self._told(batch, expected):
            self._wrong(f"{[type(each).__name__ for each in batch]}: {got} instead of {expected}")

    def _told(self, batch: Sequence[Operation], names: list[str]) -> list[str]:
        """The same names, where it is of no account whether somebody may have been granted it before: nobody who asked was told."""
        return [
            "ok" if name == "again" and each.request_id in self.unheard else name
            for each, name in zip(batch, names, strict=True)
        ]

    async def _together(self, one: list[Operation], other: list[Operation]) -> None:
        """Two replicas at once: what comes of it must be what comes of one after the other, in some order."""
        got = await asyncio.gather(self._commit(0, one), self._commit(1, other))
        batches = (one, other)
        names = [_names(*pair) for pair in zip(batches, got, strict=True)]
        before = self.model
        for order in ((0, 1), (1, 0)):
            self.model = before.copy()
            expected: list[list[str]] = [[], []]
            for index in order:
                expected[index] = self._expect(index, batches[index], got[index])
            if (
                all(self._told(batches[at], names[at]) == self._told(batches[at], expected[at]) for at in order)
                and not await self._differences()
            ):
                return
        kinds = [[type(each).__name__ for each in batch] for batch in batches]
        self._wrong(f"together: {names} for {kinds} in neither order")

    async def _change_together(self, replica: int, batch: list[Operation]) -> None:
        """A budget is made, changed or ended while a batch is under way: it counts for all of the batch, or for none."""
        act, apply = self._change()
        got, done = await asyncio.gather(self._commit(replica, batch), act())
        before = self.model
        for first in (True, False):
            self.model = before.copy()
            if first and done:
                apply()
            expected = self._expect(replica, batch, got)
            if not first and done:
                apply()
            if self._told(batch, _names(batch, got)) == self._told(batch, expected) and not await self._differences():
                return
        self._wrong(f"a change together with {[type(each).__name__ for each in batch]}: {_names(batch, got)} in neither order")

    async def _crash(self, replica: int, batch: list[Operation]) -> None:
        """The database goes away somewhere in a batch, or right after its commit, or the process does; the caller asks again afterwards."""
        crash = self.stage.replicas[replica].crash
        crash.once, crash.after_commit = self.rng.random() < 0.4, self.rng.random() < 0.4
        crash.statements_left = None if crash.after_commit else self.rng.randrange(_STATEMENTS_MAX)
        # Each try, the ledger's own second one too, was done where only its answer was lost.
        unheard = 0 if not crash.after_commit or not batch else 1 if crash.once else 2
        heard: list[Any] | None = None
        with suppress(StoreUnavailable, LedgerBusy):
            heard = await self._commit(replica, batch)
        crash.mend()
        self.unheard |= {each.request_id for each in batch}
        for _ in range(unheard):
            self._expect(replica, batch)
        if heard is not None:
            self._check(batch, _names(batch, heard), self._expect(replica, batch))
        if self.rng.random() < 0.5:
            await self.stage.replicas[replica].start()
        asked = self.rng.randrange(2)
        self._check(batch, _names(batch, await self._commit(asked, batch)), self._expect(asked, batch))

    async def _perform(self, change: _Change) -> None:
        act, apply = change
        if await act():
            apply()

    def _change(self) -> _Change:
        """A change of budgets: what does it, telling whether it was done, and what it means."""
        live = [budget_id for budget_id, each in self.model.budgets.items() if each.live]
        kind = self.rng.choice(("limits", "limits", "limits", "terms", "new", "end"))
        if kind == "new" or len(live) < 2:
            return self._creation(self.rng.choice(self.paths))
        budget_id = self.rng.choice(live)
        if kind == "end":
            # The first one stays: it puts all batches in one order.
            budget_id = self.rng.choice(live[1:])
            return lambda: self._done(self.stage.budgets.delete(self.organization, budget_id)), lambda: self.model.change(
                budget_id, live=False
            )
        usd, soft = 250 * self.rng.randrange(2, 20), 0 if self.plain else self.rng.choice((0, 50))
        if kind == "terms":
            terms = LimitTerms(soft, 150, Exhaustion.DENY)
            change = Change(frozenset({"limit_terms"}), "", Limits(), terms, 0)
            meant: dict[str, Any] = {"soft": soft, "critical": 150, "degrades": False}
        else:
            change = Change(frozenset({"limit_usd_nanos"}), "", Limits(usd), LimitTerms(), 0)
            meant = {"limits": (usd, *self.model.budgets[budget_id].limits[1:])}
        update = self.stage.budgets.update
        return lambda: self._done(update(self.organization, budget_id, change)), lambda: self.model.change(budget_id, **meant)

    async def _done(self, work: Awaitable[Any]) -> bool:
        try:
            await work
        except BudgetExists:
            return False
        return True

    def _creation(self, path: str, **changes: Any) -> _Change:
        given = Budget(**{**budget_of(self.rng, path, plain=self.plain), **changes})
        budget_id = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        limit_terms = LimitTerms(given.soft, given.critical, Exhaustion.DEGRADE if given.degrades else Exhaustion.DENY)
        period = PeriodTerms(given.period, given.zone, given.start_month, window_s=given.window_s)
        selector = Selector(*given.only) if given.only else None
        terms = Terms(self.organization, budget_id, path, "", period, Limits(*given.limits), limit_terms, selector)
        draft = Draft(terms, budget_id, b"d" * 32, self.stage.clock.now())
        return lambda: self._done(self.stage.budgets.create(draft)), lambda: self.model.budgets.update({budget_id: given})

    async def _differences(self) -> list[str]:
        """Where the balances are not what the model says."""
        found: dict[str, list[tuple[int, ...]]] = {}
        for row in await self.stage.watch.fetch(_BALANCES, self.organization):
            found.setdefault(row["budget_id"], []).append(tuple(row)[1:])
        modelled: dict[str, list[tuple[int, ...]]] = {}
        for (name, _), at in sorted(self.model.spots.items()):
            if at != NOTHING:
                modelled.setdefault(name, []).append(at)
        names = sorted(found.keys() | modelled.keys())
        return [
            f"{self.model.budgets[name]}: {found.get(name)} instead of {modelled.get(name)}"
            for name in names
            if found.get(name) != modelled.get(name)
        ]

    async def _compare(self, when: str) -> None:
        for difference in await self._differences():
            self._wrong(f"{when}: {difference}")

    async def _nothing_held_without_traffic(self) -> None:
        self.stage.clock.advance(10_000)
        lapses: list[Operation] = [Lapse(self.callers.scope_of(each), each) for each in sorted(self.model.requests)]
        lapses = [each for each in lapses if self.model.requests[each.request_id].expires is not None]
        self._check(lapses, _names(lapses, await self._commit(0, lapses)), self._expect(0, lapses))
        await self._compare("at the end")
        held = [at for at in self.model.spots.values() if any(at[:3])]
        rows = await self.stage.watch.fetch("SELECT * FROM reservations WHERE organization = $1", self.organization)
        if held or any(row["state"] in (1, 5) for row in rows):
            self._wrong(f"{held} is held with nobody working on it")
        states = {str(row["request_id"]): _STATES[row["state"]] for row in rows}
        if states != {request_id: each.state for request_id, each in self.model.requests.items()}:
            self._wrong(f"requests stand at {states}")

    async def _books(self) -> None:
        """The journal says what the balances say, nothing ended twice, and usage adds up to what was charged."""
        watch = self.stage.watch
        for difference in (await self.stage.journal.verify(self.organization)).differences:
            self._wrong(f"replay is not the live state: {difference}")
        for row in await watch.fetch(_ENDED_TWICE, self.organization):
            self._wrong(f"{row['request_id']} ended twice")
        used = await watch.fetchval(_USED, self.organization)
        if used != self.model.used_usd_nanos:
            self._wrong(f"usage is {used} nanos instead of {self.model.used_usd_nanos}")

    def _wrong(self, text: str) -> None:
        self.violations.append(f"seed {self.seed}: {text}")


_Change = tuple[Callable[[], Awaitable[bool]], Callable[[], None]]
_BALANCES = """
    SELECT budget_id, held_usd_nanos, held_tokens, held_requests, spent_usd_nanos, spent_tokens, spent_requests, suspense_usd_nanos,
        suspense_tokens
    FROM balances WHERE organization = $1 AND (held_usd_nanos, held_tokens, held_requests, spent_usd_nanos, spent_tokens, spent_requests,
        suspense_usd_nanos, suspense_tokens) <> (0, 0, 0, 0, 0, 0, 0, 0)
    ORDER BY budget_id, period_start
"""
_ENDED_TWICE = """
    SELECT request_id FROM journal WHERE organization = $1
    GROUP BY request_id, charges_number HAVING (sum(held_usd_nanos), sum(held_tokens), sum(held_requests)) <> (0, 0, 0)
"""
_USED = "SELECT coalesce(sum(cost_usd_nanos), 0)::bigint FROM usage WHERE organization = $1"


def _names(batch: Sequence[Operation], verdicts: Sequence[Any]) -> list[str]:
    """Verdicts by name: of what makes something new also whether it had been made before."""
    return [_name(*pair) for pair in zip(batch, verdicts, strict=True)]


def _name(operation: Operation, verdict: Any) -> str:
    if isinstance(verdict, BaseException):
        return type(verdict).__name__
    return "again" if verdict.repeated and isinstance(operation, Reserve | Record | Adjust | Reset) else "ok"
