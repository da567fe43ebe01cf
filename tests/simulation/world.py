"""One world: random operations with faults against the ledger, beside a model small enough to be believed."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any, Protocol

from farthing_budget.budgets import Draft, Limits, Terms
from farthing_budget.operations import Lapse, Operation, Release, Reserve, Settle
from farthing_budget.periods import Period, PeriodTerms
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope

STEPS = 25


class Ledger(Protocol):
    """What a world drives: a replica's way to commit a batch."""

    async def commit(self, operations: Sequence[Operation]) -> list[Any]: ...


class Model:
    """The oracle: what a ledger is, in a few lines. Amounts are money and tokens alike."""

    def __init__(self, limits: dict[str, int]) -> None:
        self.limits, self.holds = limits, {}  # type: ignore[var-annotated]

    def used(self, scope: str, *states: str) -> int:
        return sum(hold[1] for hold in self.holds.values() if hold[0] in states and scope in parse_scope(hold[2]).ancestors)

    def apply(self, operation: Operation, now: Any) -> str:
        state, amount, scope, until = self.holds.get(operation.request_id, ("none", 0, operation.scope.path, None))
        match operation:
            case Reserve() if state == "none":
                path = [each for each in operation.scope.ancestors if each in self.limits]
                if any(self.used(each, "held", "spent") + operation.amount_usd_nanos > self.limits[each] for each in path):
                    return "BudgetExhausted"
                until = now + timedelta(seconds=operation.ttl_s)
                self.holds[operation.request_id] = ("held", operation.amount_usd_nanos, operation.scope.path, until)
            case Settle() | Release() | Lapse() if state == "none":
                return "ReservationNotFound"
            case Settle() if state == "released":
                return "ReservationReleased"
            case Settle() if state in ("held", "spent") and until is not None:
                self.holds[operation.request_id] = ("spent", operation.usage.cost_usd_nanos, scope, None)
            case Release() if until is None and state == "spent":
                return "ReservationSettled"
            case Release() if state in ("held", "spent"):
                self.holds[operation.request_id] = ("released", 0, scope, None)
            case Lapse() if state == "held" and until is not None and until <= now:
                self.holds[operation.request_id] = ("spent", amount, scope, until)
        return "ok"


async def run_world(seed: int, replicas: Sequence[Ledger], budgets: PostgresBudgets, clock: ManualClock) -> list[str]:
    """The violations of one world; none in a good one."""
    rng, violations = Random(seed), []
    organization = f"sim-{seed}-{uuid.uuid4().hex[:8]}"
    paths = [f"organizations/{organization}", f"organizations/{organization}/workspaces/w"]
    paths += [f"{paths[1]}/projects/p{number}" for number in (1, 2)]
    limits = {path: rng.randrange(2_000, 9_000) for path in paths if rng.random() < 0.8}
    made = [await _create(budgets, organization, path, limit, clock) for path, limit in limits.items()]
    model, ids = Model(limits), [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(40)]
    sent: dict[str, Reserve] = {}
    for _ in range(STEPS):
        clock.advance(rng.choice((0, 0, 1, 30, 400)))
        batch = [_operation(rng, rng.choice(ids), paths, sent) for _ in range(rng.randrange(1, 7))]
        fault = rng.choices(("none", "dropped", "answer lost", "duplicated"), (6, 1, 1, 1))[0]
        if fault == "dropped":
            continue
        for _ in range(2 if fault == "duplicated" else 1):
            expected = [model.apply(operation, clock.now()) for operation in batch]
            verdicts = await rng.choice(replicas).commit(batch)
            got = [type(verdict).__name__ if isinstance(verdict, BaseException) else "ok" for verdict in verdicts]
            if fault != "answer lost" and got != expected:
                violations.append(f"seed {seed}: {[type(each).__name__ for each in batch]}: {got} instead of {expected}")
    violations += await _books(budgets, organization, made, limits, model, f"seed {seed}")
    clock.advance(10_000)
    lapses: list[Operation] = [Lapse(parse_scope(hold[2]), name) for name, hold in model.holds.items()]
    if lapses:
        await replicas[0].commit(lapses)
    for budget_id in made:
        held = (await budgets.get(organization, budget_id)).balance.held_usd_nanos
        if held:
            violations.append(f"seed {seed}: {held} are held with nobody working on them")
    return violations


def _operation(rng: Random, request_id: str, paths: list[str], sent: dict[str, Reserve]) -> Operation:
    scope = parse_scope(paths[int(request_id[-4:], 16) % len(paths)])  # always the same for one request
    kind = rng.choice(("reserve", "reserve", "settle", "settle", "release", "lapse"))
    if kind == "reserve":
        if request_id not in sent:
            amount = rng.randrange(1, 1_500)
            sent[request_id] = Reserve(scope, request_id, amount, amount, rng.choice((60, 600)), b"r" * 32)
        return sent[request_id]
    if kind == "settle":
        return Settle(scope, request_id, _usage(request_id), b"s" * 32)
    return Release(scope, request_id) if kind == "release" else Lapse(scope, request_id)


def _usage(request_id: str) -> UsageRecord:
    cost = int(request_id[:4], 16) % 1_400  # always the same for one request, so that repeats are repeats
    line = UsageLine("m", "p", "d", cost, 0, 0, cost, "accepted", False)
    return UsageRecord("chat", (line,), cost, Saving())


async def _create(budgets: PostgresBudgets, organization: str, path: str, limit: int, clock: ManualClock) -> str:
    budget_id = str(uuid.uuid4())
    terms = Terms(organization, budget_id, path, "", PeriodTerms(Period.YEAR, "UTC"), Limits(limit))
    await budgets.create(Draft(terms, str(uuid.uuid4()), b"d" * 32, clock.now()))
    return budget_id


async def _books(
    budgets: PostgresBudgets, organization: str, made: list[str], limits: dict[str, int], model: Model, where: str
) -> list[str]:
    """Whether what is written down is what the model says."""
    wrong = []
    for budget_id, path in zip(made, limits, strict=True):
        balance = (await budgets.get(organization, budget_id)).balance
        want = model.used(path, "spent"), model.used(path, "held")
        if (balance.spent_usd_nanos, balance.held_usd_nanos) != want:
            wrong.append(f"{where}: {path} has {balance.spent_usd_nanos}, {balance.held_usd_nanos} instead of {want}")
    return wrong
