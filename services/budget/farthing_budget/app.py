"""Wiring: settings → pool → stores → lane → servicer."""

from __future__ import annotations

from contextlib import asynccontextmanager

from farthing.budget.v1.budget_pb2_grpc import add_BudgetServiceServicer_to_server
from farthing_core.clock import SystemClock
from farthing_core.ids import random_uuid
from farthing_runtime.postgres import open_pool
from farthing_runtime.registration import AppIterator, Mesh, Registration, ServiceBinding

from farthing_budget.edge.budgets import BudgetRpcs
from farthing_budget.edge.holds import HoldRpcs
from farthing_budget.edge.journal import JournalRpcs
from farthing_budget.edge.usage import UsageRpcs
from farthing_budget.lane import Lane
from farthing_budget.servicer import BudgetServicer
from farthing_budget.settings import Settings
from farthing_budget.status import STATUS_TABLE
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.journal import PostgresJournal
from farthing_budget.store.postgres import open_ledger
from farthing_budget.store.usage import PostgresUsage
from farthing_budget.sweep import sweeping


@asynccontextmanager
async def app(settings: Settings, mesh: Mesh) -> AppIterator:
    """The budget service, until the block ends and its queue is empty."""
    clock = SystemClock()
    async with (
        open_pool(settings.database_url, schema="budget", size_max=settings.pool_size_max) as pool,
        open_ledger(pool, clock) as ledger,
    ):
        lane = Lane(
            ledger.commit,
            batch_size_max=settings.batch_size_max,
            queue_size_max=settings.queue_size_max,
            linger_s=settings.linger_s,
        )
        async with lane.running(), sweeping(ledger.lapsed, lane, interval_s=settings.sweep_interval_s):
            servicer = BudgetServicer(  # type: ignore[abstract]
                BudgetRpcs(budgets=PostgresBudgets(pool, clock), lane=lane, clock=clock, new_id=random_uuid),
                HoldRpcs(lane=lane, ledger=ledger, hold_ttl_s=settings.hold_ttl_s_default),
                JournalRpcs(journal=PostgresJournal(pool)),
                UsageRpcs(usage=PostgresUsage(pool), clock=clock),
            )
            binding = ServiceBinding(
                name="farthing.budget.v1.BudgetService",
                add_to_server=add_BudgetServiceServicer_to_server,
                servicer=servicer,
                status_table=STATUS_TABLE,
            )
            yield Registration((binding,))
