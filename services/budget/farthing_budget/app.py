"""Wiring: settings → pool → stores → lane → alerts → servicer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import asyncpg
from farthing.budget.v1.budget_pb2_grpc import add_BudgetServiceServicer_to_server
from farthing_core.clock import Clock, SystemClock
from farthing_core.ids import random_uuid
from farthing_runtime.postgres import open_pool
from farthing_runtime.registration import AppIterator, Mesh, Registration, ServiceBinding

from farthing_budget.admissions import Admissions
from farthing_budget.alerting import Alerter, alerting
from farthing_budget.channels.http import SlackSender, WebhookSender, open_session
from farthing_budget.channels.smtp import EmailSender, Mailbox
from farthing_budget.delivering import Deliverer, delivering
from farthing_budget.edge.alerts import AlertRpcs
from farthing_budget.edge.budgets import BudgetRpcs
from farthing_budget.edge.holds import HoldRpcs
from farthing_budget.edge.invoices import InvoiceRpcs
from farthing_budget.edge.journal import JournalRpcs
from farthing_budget.edge.rate_limits import RateLimitRpcs
from farthing_budget.edge.reports import ReportRpcs
from farthing_budget.edge.usage import UsageRpcs
from farthing_budget.known_limits import KnownLimits
from farthing_budget.lane import Lane
from farthing_budget.servicer import BudgetServicer
from farthing_budget.settings import Settings
from farthing_budget.sharing import sharing
from farthing_budget.sizing.sizer import Sizer
from farthing_budget.status import STATUS_TABLE
from farthing_budget.store import RateBuckets
from farthing_budget.store.alerts import PostgresAlerts
from farthing_budget.store.budgets import PostgresBudgets
from farthing_budget.store.deliveries import PostgresDeliveries
from farthing_budget.store.exports import PostgresExports
from farthing_budget.store.fallback import FallbackBuckets, NoBuckets
from farthing_budget.store.invoices import PostgresInvoices
from farthing_budget.store.journal import PostgresJournal
from farthing_budget.store.lengths import PostgresLengths
from farthing_budget.store.memory import MemoryBuckets
from farthing_budget.store.postgres import open_ledger
from farthing_budget.store.rate_limits import PostgresRateLimits
from farthing_budget.store.usage import PostgresUsage
from farthing_budget.sweep import sweeping
from farthing_budget.watch import Watch


@asynccontextmanager
async def app(settings: Settings, mesh: Mesh) -> AppIterator:
    """The budget service, until the block ends and its queue is empty."""
    clock, sizer, watch = SystemClock(), Sizer(), Watch()
    async with (
        open_pool(settings.database_url, schema="budget", size_max=settings.pool_size_max) as pool,
        open_ledger(pool, clock, sizer=sizer, watch=watch) as ledger,
        sharing(sizer.learner, PostgresLengths(pool), interval_s=settings.sharing_interval_s),
    ):
        lane = Lane(
            ledger.commit,
            batch_size_max=settings.batch_size_max,
            queue_size_max=settings.queue_size_max,
            linger_s=settings.linger_s,
        )
        async with (
            lane.running(),
            sweeping(ledger.lapsed, lane, interval_s=settings.sweep_interval_s),
            _rate_limiting(settings, pool, clock) as rate_limit_rpcs,
            _alerting(pool, clock, watch, settings) as alerts,
        ):
            budgets, usage = PostgresBudgets(pool, clock), PostgresUsage(pool)
            servicer = BudgetServicer(  # type: ignore[abstract]
                AlertRpcs(alerts=alerts, clock=clock, new_id=random_uuid, changed=watch.rules_changed),
                BudgetRpcs(budgets=budgets, lane=lane, clock=clock, new_id=random_uuid, changed=watch.look_at),
                HoldRpcs(lane=lane, ledger=ledger, hold_ttl_s=settings.hold_ttl_s_default),
                JournalRpcs(journal=PostgresJournal(pool)),
                UsageRpcs(usage=usage, clock=clock),
                ReportRpcs(usage=usage, exports=PostgresExports(pool), budgets=budgets, clock=clock),
                InvoiceRpcs(invoices=PostgresInvoices(pool), usage=usage, clock=clock),
                rate_limit_rpcs,
            )
            binding = ServiceBinding(
                name="farthing.budget.v1.BudgetService",
                add_to_server=add_BudgetServiceServicer_to_server,
                servicer=servicer,
                status_table=STATUS_TABLE,
            )
            yield Registration((binding,))


@asynccontextmanager
async def _rate_limiting(settings: Settings, pool: asyncpg.Pool, clock: Clock) -> AsyncIterator[RateLimitRpcs]:
    """Rate limits that are known here, on buckets in Redis where there is one."""
    limits = PostgresRateLimits(pool, clock)
    known = KnownLimits(limits, places_max=settings.rate_limits_known_max)
    async with AsyncExitStack() as stack:
        buckets = await _rate_buckets(settings, clock, stack)
        await stack.enter_async_context(known.watching(interval_s=settings.rate_limits_refresh_s))
        yield RateLimitRpcs(Admissions(known, buckets), limits=limits, known=known, clock=clock, new_id=random_uuid)


async def _rate_buckets(settings: Settings, clock: Clock, stack: AsyncExitStack) -> RateBuckets:
    own = MemoryBuckets(clock, buckets_max=settings.rate_buckets_max, admissions_max=settings.rate_admissions_max)
    if not settings.redis_url:
        return own
    from farthing_budget.store.redis import open_buckets

    shared = await stack.enter_async_context(open_buckets(settings.redis_url, clock, timeout_s=settings.redis_timeout_s))
    fallback = FallbackBuckets(shared, own if settings.redis_away == "memory" else NoBuckets())
    return await stack.enter_async_context(fallback.recovering(retry_interval_s=settings.redis_retry_s))


@asynccontextmanager
async def _alerting(pool: asyncpg.Pool, clock: Clock, watch: Watch, settings: Settings) -> AsyncIterator[PostgresAlerts]:
    """Raises and delivers alerts until the block ends."""
    store = PostgresAlerts(pool, clock, random_uuid)
    mailbox = Mailbox(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=settings.smtp_security,
        username=settings.smtp_username,
        password=settings.smtp_password.get_secret_value(),
        sender=settings.smtp_sender,
        ca_file=str(settings.smtp_ca_file or ""),
        timeout_s=settings.alert_timeout_s,
    )
    async with open_session(timeout_s=settings.alert_timeout_s, private_allowed=settings.alert_private_addresses) as session:
        deliverer = Deliverer(
            store=PostgresDeliveries(pool, clock),
            senders={"webhook": WebhookSender(session, clock), "slack": SlackSender(session), "email": EmailSender(mailbox)},
            clock=clock,
            rng=Random(),
            attempts_max=settings.alert_attempts_max,
        )
        budgets, usage = PostgresBudgets(pool, clock), PostgresUsage(pool)
        alerter = Alerter(store=store, budgets=budgets, usage=usage, watch=watch, clock=clock, raised=deliverer.call)
        intervals = {"poll_s": settings.alert_poll_s, "sweep_interval_s": settings.alert_sweep_interval_s}
        async with delivering(deliverer, poll_s=settings.alert_poll_s), alerting(alerter, watch, **intervals):
            yield store
