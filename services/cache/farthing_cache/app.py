"""Wiring: settings → stores → embedder → cache → servicer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from random import Random
from typing import cast

import asyncpg
from farthing.cache.v1.cache_pb2_grpc import add_CacheServiceServicer_to_server
from farthing_core.clock import Clock, SystemClock
from farthing_core.errors import FarthingError
from farthing_core.ids import random_uuid
from farthing_runtime.batching import Batcher
from farthing_runtime.beside import beside
from farthing_runtime.postgres import open_pool, unreachable_errors
from farthing_runtime.registration import AppIterator, Mesh, Registration, ServiceBinding
from farthing_runtime.settings import SettingsInvalid

from farthing_cache.answers.boarding import FlightLimits
from farthing_cache.answers.counting import Tallies
from farthing_cache.answers.flights import Flights
from farthing_cache.answers.flying import FlyingAnswers
from farthing_cache.answers.forgetting import Invalidations
from farthing_cache.answers.leases import Leases
from farthing_cache.answers.looking_up import Comparing, LookUps
from farthing_cache.answers.remembering import Memory
from farthing_cache.answers.rooms import Rooms
from farthing_cache.answers.valuing import Valuation
from farthing_cache.certifying.budgets import PPM, BudgetTerms
from farthing_cache.certifying.certifying import Certification, Parts
from farthing_cache.certifying.thresholds import Prior
from farthing_cache.edge.answers import AnswerRpcs
from farthing_cache.edge.entries import EntryRpcs
from farthing_cache.edge.hits import HitRpcs, said_of_payload
from farthing_cache.embedding.opening import opened
from farthing_cache.peers import GrpcKeys
from farthing_cache.sealing.leased import LeasedSeals
from farthing_cache.sealing.seals import Seals, Unsealed
from farthing_cache.sealing.sweeping import UnreadableSweep
from farthing_cache.servicer import CacheServicer
from farthing_cache.settings import Settings
from farthing_cache.status import STATUS_TABLE
from farthing_cache.store import EntryStore, HotEntries, Seen, Stored, Wanted
from farthing_cache.store.evidence import PostgresEvidence
from farthing_cache.store.flights_memory import MemoryLeases
from farthing_cache.store.memory import MemoryHotEntries
from farthing_cache.store.postgres import CHANNEL, PostgresEntries
from farthing_cache.store.values_postgres import PostgresValues

_SWEPT_MAX = 2_000
_SWEPT_ORGANIZATIONS_MAX = 50
_FORGET_S = 5.0
_PROBABILITY_MIN = 0.95
"""The threshold that ships: what is in force before anything is known."""
_EVIDENCE_INTERVAL_S = 0.5
"""A report may follow its hit closely, on another replica."""
_RECONNECT_S = 2.0
_PUT_LINGER_S = 0.005
"""Nobody waits for a store."""


@asynccontextmanager
async def app(settings: Settings, mesh: Mesh) -> AppIterator:
    """The cache, until the block ends."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(settings.database_url, schema="cache", size_max=settings.pool_size_max)
        )
        entries = PostgresEntries(pool, clock)
        embedder = await stack.enter_async_context(opened(settings, clock=clock, chance=Random()))
        finds, puts = await _batchers(settings, entries, stack)
        hot, seals = await _hot_entries(settings, clock, stack), await _seals(settings, mesh, entries, clock, stack)
        comparing = Comparing(settings.semantic_characters_max, settings.candidates_max)
        invalidations, tallies = Invalidations(hot=hot, entries=entries), Tallies(entries)
        certification = await _certification(
            settings, Parts(PostgresEvidence(pool), entries, invalidations, embedder, seals, said_of_payload), clock, stack
        )
        look_ups = LookUps(
            hot=hot,
            entries=entries,
            finds=finds,
            embedder=embedder,
            chooser=certification.chooser,
            evidence=certification.evidence,
            seals=seals,
            comparing=comparing,
        )
        rooms = Rooms(entries_max=settings.organization_entries_max, payload_bytes_max=settings.organization_bytes_max)
        valuation = Valuation(PostgresValues(pool), rooms=rooms, clock=clock)
        memory = Memory(
            hot=hot,
            puts=puts,
            embedder=embedder,
            seals=seals,
            comparing=comparing,
            valuation=valuation,
            clock=clock,
            ttl_s_default=settings.ttl_s_default,
        )
        for written_behind in (tallies, valuation):
            stack.push_async_callback(_flush, written_behind)
            await stack.enter_async_context(_repeating(written_behind.flush, interval_s=settings.flush_interval_s))
        await stack.enter_async_context(_repeating(valuation.make_room, interval_s=settings.flush_interval_s))
        flights = await _flights(settings, pool, seals, clock, stack)
        await stack.enter_async_context(
            _repeating(lambda: entries.sweep(count_max=_SWEPT_MAX), interval_s=settings.sweep_interval_s)
        )
        await stack.enter_async_context(_listening(settings.database_url, invalidations))
        servicer = CacheServicer(  # type: ignore[abstract]
            AnswerRpcs(FlyingAnswers(look_ups, flights, clock=clock), memory, tallies, certification.evidence, valuation),
            EntryRpcs(invalidations, tallies, valuation),
            HitRpcs(
                certification.reports,
                certification.budgets,
                certification.store,
                seals,
                verifier_id=certification.verifier.verifier_id,
            ),
        )
        binding = ServiceBinding("farthing.cache.v1.CacheService", add_CacheServiceServicer_to_server, servicer, STATUS_TABLE)
        yield Registration((binding,))


async def _batchers(
    settings: Settings, entries: EntryStore, stack: AsyncExitStack
) -> tuple[Batcher[Wanted, Seen], Batcher[Stored, None]]:
    async def put(batch: Sequence[Stored]) -> Sequence[None]:
        await entries.put(batch)
        return [None] * len(batch)

    finds: Batcher[Wanted, Seen] = Batcher(
        entries.find, batch_size_max=settings.batch_size_max, queue_size_max=settings.queue_size_max
    )
    puts: Batcher[Stored, None] = Batcher(
        put, batch_size_max=settings.batch_size_max, queue_size_max=settings.queue_size_max, linger_s=_PUT_LINGER_S
    )
    await stack.enter_async_context(finds.running())
    await stack.enter_async_context(puts.running())
    return finds, puts


async def _seals(settings: Settings, mesh: Mesh, entries: EntryStore, clock: Clock, stack: AsyncExitStack) -> Seals:
    if settings.seal == "off":
        return Unsealed()
    seals = LeasedSeals(GrpcKeys(mesh), clock=clock, organizations_max=settings.seal_organizations_max)
    await stack.enter_async_context(seals.running())
    await stack.enter_async_context(_repeating(seals.forget_ended, interval_s=_FORGET_S))
    sweep = UnreadableSweep(entries, seals, organizations_max=_SWEPT_ORGANIZATIONS_MAX, rows_max=_SWEPT_MAX)
    await stack.enter_async_context(_repeating(sweep.turn, interval_s=settings.sweep_interval_s))
    return seals


async def _certification(settings: Settings, parts: Parts, clock: Clock, stack: AsyncExitStack) -> Certification:
    prior = Prior(_PROBABILITY_MIN, settings.error_budget_ppm / PPM)
    terms = BudgetTerms(settings.error_budget_ppm, settings.check_ppm, prior)
    certification = Certification(
        parts, terms=terms, similarity_min=settings.similarity_min, clock=clock, new_id=random_uuid, chance=Random()
    )
    await stack.enter_async_context(certification.running(refresh_s=settings.refresh_s))
    await stack.enter_async_context(_repeating(certification.evidence.flush, interval_s=_EVIDENCE_INTERVAL_S))
    await stack.enter_async_context(
        _repeating(
            lambda: certification.sweep(hits_max=settings.hits_kept_max),
            interval_s=settings.sweep_interval_s,
        )
    )
    return certification


async def _hot_entries(settings: Settings, clock: Clock, stack: AsyncExitStack) -> HotEntries:
    if not settings.redis_url:
        return MemoryHotEntries(clock, bytes_max=settings.hot_bytes_max)
    from farthing_runtime.redis_client import open_redis

    from farthing_cache.store.redis import RedisHotEntries

    client = open_redis(settings.redis_url, timeout_s=0.5)
    stack.push_async_callback(client.aclose)
    return RedisHotEntries(client, clock)


async def _flights(settings: Settings, pool: asyncpg.Pool, seals: Seals, clock: Clock, stack: AsyncExitStack) -> Flights:
    kind, leases = settings.flights, cast(Leases, MemoryLeases(clock))
    if kind == "redis" and not settings.redis_url:
        raise SettingsInvalid(field="FARTHING_CACHE_FLIGHTS", problem="redis needs FARTHING_REDIS_URL")
    if kind == "postgres":
        from farthing_cache.store.flights_postgres import PostgresLeases

        leases = postgres = await stack.enter_async_context(PostgresLeases(pool).running())
        await stack.enter_async_context(_repeating(postgres.sweep, interval_s=settings.sweep_interval_s))
    elif settings.redis_url and kind != "memory":
        from farthing_runtime.redis_client import open_redis

        from farthing_cache.store.flights_redis import RedisLeases

        client = open_redis(settings.redis_url, timeout_s=0.5)
        stack.push_async_callback(client.aclose)
        leases = RedisLeases(client, clock)
    limits = FlightLimits(settings.flight_lease_s, settings.flight_failures_max, settings.flight_waiters_max)
    flights = Flights(leases, seals, clock=clock, new_id=random_uuid, limits=limits)
    return await stack.enter_async_context(flights.running())


async def _flush(written_behind: Tallies | Valuation) -> None:
    with suppress(FarthingError):
        await written_behind.flush()


@asynccontextmanager
async def _repeating(work: Callable[[], Awaitable[object]], *, interval_s: float) -> AsyncIterator[None]:
    """Does something every so often until the block ends; a store that is away is tried again at the next turn."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(interval_s)
            with suppress(FarthingError):
                await work()

    async with beside(repeat()):
        yield


@asynccontextmanager
async def _listening(database_url: str, invalidations: Invalidations) -> AsyncIterator[None]:
    """Hears of other replicas' invalidations. While it cannot listen it may miss one, so everything hot is forgotten first."""

    async def listen() -> None:
        while True:
            lost = asyncio.Event()
            with suppress(*unreachable_errors(), asyncpg.PostgresError):
                connection = await asyncpg.connect(database_url, timeout=10.0)
                try:
                    connection.add_termination_listener(lambda _, lost=lost: lost.set())
                    await connection.add_listener(CHANNEL, _hear)
                    await lost.wait()
                finally:
                    connection.terminate()
            await invalidations.forget_hot(None)
            await asyncio.sleep(_RECONNECT_S)

    async def _hear(connection: asyncpg.Connection, pid: int, channel: str, payload: str) -> None:
        await invalidations.forget_hot(payload)

    async with beside(listen()):
        yield
