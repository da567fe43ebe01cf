"""Alerting: works off the watch's agenda, keeps its rules fresh, and sweeps every hour over everything that could have been missed.

Raising is idempotent (a unique key in the database decides), so any number of processes may do all of this at once, and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import structlog
from farthing_core.clock import Clock
from farthing_core.scopes import parse_scope
from farthing_runtime.beside import beside

from farthing_budget.alerts import AlertKind, Rule
from farthing_budget.budgets import Budget
from farthing_budget.questions import Group, UsageQuestion
from farthing_budget.refusals import BudgetNotFound
from farthing_budget.store import AlertStore, BudgetStore, UsageStore
from farthing_budget.thresholds import finding_of_day, findings_of_budget
from farthing_budget.watch import Agenda, Day, Watch

_DAYS_BACK = 7
_PAGE_SIZE = 200
_KEPT_DAYS = 400
_PAUSE_S = 1.0
_log = structlog.get_logger()


class Alerter:
    """Raises alerts. `raised` is called when some were."""

    def __init__(
        self,
        *,
        store: AlertStore,
        budgets: BudgetStore,
        usage: UsageStore,
        watch: Watch,
        clock: Clock,
        raised: Callable[[], None],
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._usage = usage
        self._watch = watch
        self._clock = clock
        self._raised = raised

    async def turn(self) -> None:
        """Works off the agenda. Raises what the store raises; what is left then is on the agenda again."""
        agenda = self._watch.take()
        try:
            await self._work_off(agenda)
        except BaseException:
            self._watch.put_back(agenda)
            raise

    async def refresh(self) -> None:
        """Learns the rules that changed since, and takes up the notices of processes that ended before they did."""
        known = self._watch.epochs()
        epochs = await self._store.epochs(list(known))
        for organization in [name for name, epoch in known.items() if epochs.get(name, 0) != epoch]:
            await self._learn_anew(organization)
        for organization in await self._store.noticed():
            await self._drain(organization)

    async def sweep(self) -> None:
        """Looks at every budget and every day that a rule holds for."""
        after = ""
        while organizations := await self._store.organizations(after=after, count_max=_PAGE_SIZE):
            for organization in organizations:
                await self._sweep(organization)
            after = organizations[-1]
        await self._store.forget(self._clock.now() - timedelta(days=_KEPT_DAYS))

    async def _work_off(self, agenda: Agenda) -> None:
        while agenda.changed:
            await self._learn_anew(next(iter(agenda.changed)))
            agenda.changed.pop()
        while agenda.unknown:
            await self._learn(next(iter(agenda.unknown)))
            agenda.unknown.pop()
        while agenda.notices:
            await self._drain(next(iter(agenda.notices)))
            agenda.notices.pop()
        while agenda.budgets:
            await self._look_at(*next(iter(agenda.budgets)))
            agenda.budgets.pop()
        while agenda.days:
            await self._add_up(next(iter(agenda.days)))
            agenda.days.pop()

    async def _learn(self, organization: str) -> None:
        rules, epoch = await self._store.rules(organization)
        self._watch.learn(organization, rules, epoch)

    async def _learn_anew(self, organization: str) -> None:
        """Learns rules that changed, and looks at everything that may have happened before they were known."""
        await self._learn(organization)
        await self._sweep(organization)

    async def _drain(self, organization: str) -> None:
        if await self._store.drain(organization):
            self._raised()

    async def _look_at(self, organization: str, budget_id: str) -> None:
        # How often it was reset is read first: a reset in between leaves nothing to find instead of an alert of its own.
        resets = await self._store.resets(organization)
        rules, _ = await self._store.rules(organization)
        with suppress(BudgetNotFound):
            await self._judge(organization, [await self._budgets.get(organization, budget_id)], rules, resets)

    async def _judge(self, organization: str, budgets: list[Budget], rules: list[Rule], resets: dict[str, int]) -> None:
        now = self._clock.now()
        found = [
            finding
            for budget in budgets
            for finding in findings_of_budget(budget, rules, resets=resets.get(budget.terms.budget_id, 0), now=now)
        ]
        if found and await self._store.raise_all(organization, found):
            self._raised()

    async def _add_up(self, day: Day) -> None:
        organization, rule_id, start = day
        rules, _ = await self._store.rules(organization)
        rule = next((each for each in rules if each.rule_id == rule_id), None)
        if rule is not None:
            at = self._clock.now()
            cost, raised = (await self._judge_days(rule, start, start + timedelta(days=1))).get(start, (0, False))
            self._watch.counted(day, cost, at, raised=raised)

    async def _judge_days(self, rule: Rule, start: datetime, end: datetime) -> dict[datetime, tuple[int, bool]]:
        """Raises what a rule wants to hear of some days; each day's cost, and whether it reached the amount."""
        sums = await self._usage.sums(UsageQuestion(rule.scope, start, end, (Group.DAY,), _DAYS_BACK + 1))
        costs = {datetime.strptime(each.keys[0], "%Y-%m-%d").replace(tzinfo=UTC): each.cost_usd_nanos for each in sums}
        found = {day: finding_of_day(rule, day, cost) for day, cost in costs.items()}
        reached = [each for each in found.values() if each is not None]
        if reached and await self._store.raise_all(rule.organization, reached):
            self._raised()
        return {day: (cost, found[day] is not None) for day, cost in costs.items()}

    async def _sweep(self, organization: str) -> None:
        await self._drain(organization)
        resets = await self._store.resets(organization)
        rules, _ = await self._store.rules(organization)
        scope, after = parse_scope(f"organizations/{organization}"), None
        while page := await self._budgets.list_from(scope, after=after, count_max=_PAGE_SIZE):
            await self._judge(organization, page, rules, resets)
            last = page[-1].terms
            after = last.scope, int(last.period_terms.period), last.budget_id
        tomorrow = self._clock.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        for rule in rules:
            if rule.kind is AlertKind.DAILY_COST:
                made = rule.created_at.replace(hour=0, minute=0, second=0, microsecond=0)
                await self._judge_days(rule, max(made, tomorrow - timedelta(days=_DAYS_BACK)), tomorrow)


@asynccontextmanager
async def alerting(alerter: Alerter, watch: Watch, *, poll_s: float, sweep_interval_s: float) -> AsyncIterator[None]:
    """Alerts until the block ends: at once when the watch calls, and by itself every so often; the first sweep comes at the start.

    Sweeps go on beside: one over very many budgets keeps nobody waiting for what was settled just now.
    """
    loop = asyncio.get_running_loop()

    async def turns() -> None:
        next_refresh = loop.time()
        while True:
            if loop.time() >= next_refresh and await _done(alerter.refresh):
                next_refresh = loop.time() + poll_s
            if await _done(alerter.turn):
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, next_refresh - loop.time())):
                        await watch.called.wait()

    async def sweeps() -> None:
        while True:
            if await _done(alerter.sweep):
                await asyncio.sleep(sweep_interval_s)

    async with beside(turns(), sweeps()):
        yield


async def _done(step: Callable[[], Awaitable[None]]) -> bool:
    """Whether a step succeeded. Whatever it fails of, alerting must go on: after a pause it is all done again."""
    try:
        await step()
    except Exception as error:
        _log.warning("alerting failed; it is tried again", error=type(error).__name__)
        await asyncio.sleep(_PAUSE_S)
        return False
    return True
