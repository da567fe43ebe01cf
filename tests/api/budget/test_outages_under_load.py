"""Postgres stopped, slow, full and held up while callers are at work: declared answers, nothing lost, and no restart."""

from __future__ import annotations

import asyncio
import resource
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing_runtime.postgres import Cluster
from farthing_runtime.status import error_info, rich_status

ORGANIZATION = "organizations/acme"
USER = f"{ORGANIZATION}/workspaces/search/projects/ranker/users/ann"
_AWAY = ("UNAVAILABLE", "STORE_UNAVAILABLE", "RetryInfo")
_BUSY = ("UNAVAILABLE", "LEDGER_BUSY", "RetryInfo")
_FILE_BYTES_MAX = 16 * 2**20
"""As much as a segment of the log takes: it must be able to go on, or the server ends."""


def reason(error: grpc.aio.AioRpcError) -> tuple[str, ...]:
    """The code, the reason and the other details of a refusal."""
    status = rich_status(error)
    info = error_info(status) if status is not None else None
    if status is None or info is None:
        return (error.code().name,)
    return error.code().name, info.reason, *(detail.type_url.rsplit(".", 1)[-1] for detail in status.details[1:])


class Crowd:
    """Callers who reserve and settle, one request after the other, and ask again with the same id until they are told."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self.refused: Counter[tuple[str, ...]] = Counter()
        self.settled_usd_nanos = self.settled = 0
        self.progress = asyncio.Event()

    @asynccontextmanager
    async def at_work(self, count: int) -> AsyncIterator[None]:
        """They work until the block ends; then everybody finishes the request in hand."""
        leaving = asyncio.Event()
        tasks = [asyncio.create_task(self._work(leaving)) for _ in range(count)]
        try:
            yield
        finally:
            leaving.set()
            await asyncio.gather(*tasks)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until something is so."""
        async with asyncio.timeout(60):
            while not holds():
                self.progress.clear()
                await self.progress.wait()

    async def settles_more(self, count: int) -> None:
        """Waits until so many more were settled."""
        before = self.settled
        await self.until(lambda: self.settled >= before + count)

    async def _work(self, leaving: asyncio.Event) -> None:
        while not leaving.is_set():
            request_id, cost = str(uuid.uuid4()), 7 + self.settled % 5
            reserve = budget_pb2.ReserveBudgetRequest(request_id=request_id, scope=USER, amount_usd_nanos=10, dispatch=True)
            usage = budget_pb2.UsageRecord(lines=[budget_pb2.UsageLine(model="m", provider="p", cost_usd_nanos=cost)])
            settle = budget_pb2.SettleReservationRequest(request_id=request_id, scope=USER, usage=usage)
            await self._told(lambda reserve=reserve: self._stub.ReserveBudget(reserve, timeout=50.0))
            await self._told(lambda settle=settle: self._stub.SettleReservation(settle, timeout=50.0))
            self.settled_usd_nanos += cost
            self.settled += 1
            self.progress.set()

    async def _told(self, call: Callable[[], Any]) -> None:
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                self.refused[reason(error)] += 1
                self.progress.set()
            await asyncio.sleep(0.02)


async def create(stub: Any) -> str:
    request = budget_pb2.CreateBudgetRequest(
        request_id=str(uuid.uuid4()), scope=ORGANIZATION, period=budget_pb2.PERIOD_YEAR, limit_usd_nanos=10**12
    )
    return str((await stub.CreateBudget(request)).budget.budget_id)


async def prove(stub: Any, crowd: Crowd, budget_id: str) -> None:
    """What callers were told is what the books say, to the nanodollar, and the books are right."""
    budget = (await stub.GetBudget(budget_pb2.GetBudgetRequest(scope=ORGANIZATION, budget_id=budget_id))).budget
    assert (budget.held_usd_nanos, budget.spent_usd_nanos) == (0, crowd.settled_usd_nanos)
    assert budget.spent_requests == crowd.settled
    usage = await stub.QueryUsage(budget_pb2.QueryUsageRequest(scope=ORGANIZATION))
    assert sum(row.cost_usd_nanos for row in usage.rows) == crowd.settled_usd_nanos
    assert not (await stub.VerifyLedger(budget_pb2.VerifyLedgerRequest(scope=ORGANIZATION))).differences


async def read(stub: Any, budget_id: str) -> list[Any]:
    """Everything that only reads, answers or refusals."""
    calls = [
        stub.GetBudget(budget_pb2.GetBudgetRequest(scope=ORGANIZATION, budget_id=budget_id), timeout=50.0),
        stub.CheckBudget(budget_pb2.CheckBudgetRequest(scope=USER, amount_usd_nanos=1), timeout=50.0),
        stub.QueryUsage(budget_pb2.QueryUsageRequest(scope=ORGANIZATION), timeout=50.0),
        stub.ListEntries(budget_pb2.ListEntriesRequest(scope=ORGANIZATION, page_size=1), timeout=50.0),
        stub.VerifyLedger(budget_pb2.VerifyLedgerRequest(scope=ORGANIZATION), timeout=50.0),
    ]
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.fixture
async def server(session_dir: Path) -> AsyncIterator[Cluster]:
    """A Postgres of this test's own."""
    cluster = Cluster(session_dir / f"out-{uuid.uuid4().hex[:8]}")
    with cluster.in_use():
        await asyncio.to_thread(cluster.start)
        yield cluster
        await asyncio.to_thread(cluster.stop_if_last)


async def test_case_9_postgres_stopped_under_load_costs_nobody_anything(suite: Any, server: Cluster) -> None:
    async with suite("budget", database_url=server.url("farthing")) as running:
        stub = budget_pb2_grpc.BudgetServiceStub(running.mesh.channel("budget"))
        budget_id, crowd = await create(stub), Crowd(stub)
        async with crowd.at_work(8):
            await crowd.settles_more(20)
            await asyncio.to_thread(server.stop_if_last)
            await crowd.until(lambda: crowd.refused.total() >= 16)
            assert set(crowd.refused) == {_AWAY}
            for answer in await read(stub, budget_id):
                assert isinstance(answer, grpc.aio.AioRpcError)
                assert reason(answer) == _AWAY
            await asyncio.to_thread(server.start)
            await crowd.settles_more(20)
        await prove(stub, crowd, budget_id)


class SlowWire:
    """Between a service and its Postgres: passes everything on, both ways, after a while."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.delay_s = 0.0

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on one connection until one side ends it."""
        far_reader, far_writer = await asyncio.open_unix_connection(self._path)
        await asyncio.gather(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


async def test_case_9_half_a_second_a_round_trip_makes_larger_batches_and_loses_nothing(
    suite: Any, server: Cluster, session_dir: Path
) -> None:
    wire, folder = SlowWire(str(server.socket_dir / ".s.PGSQL.5432")), session_dir / uuid.uuid4().hex[:8]
    folder.mkdir()
    relay = await asyncio.start_unix_server(wire.meet, str(folder / ".s.PGSQL.5432"))
    environment = {"FARTHING_BUDGET_QUEUE_SIZE_MAX": "30"}
    url = f"postgresql://farthing@/farthing?host={folder}"
    async with relay, suite("budget", database_url=url, environment=environment) as running:
        stub = budget_pb2_grpc.BudgetServiceStub(running.mesh.channel("budget"))
        budget_id, crowd = await create(stub), Crowd(stub)
        impatient = budget_pb2.ReserveBudgetRequest(request_id=str(uuid.uuid4()), scope=USER, amount_usd_nanos=1)
        async with crowd.at_work(12):
            await crowd.settles_more(12)
            wire.delay_s = 0.25
            await crowd.settles_more(12)
            for answer in await read(stub, budget_id):
                assert not isinstance(answer, BaseException)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ReserveBudget(impatient, timeout=0.2)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            # More than may wait are told at once when to come back, instead of waiting for ever.
            others = [str(uuid.uuid4()) for _ in range(60)]
            asked = [budget_pb2.ReserveBudgetRequest(request_id=each, scope=f"{ORGANIZATION}/workspaces/w") for each in others]
            answers = await asyncio.gather(*(stub.ReserveBudget(each, timeout=50.0) for each in asked), return_exceptions=True)
            refusals = {reason(each) for each in answers if isinstance(each, grpc.aio.AioRpcError)}
            assert refusals == {_BUSY}
            wire.delay_s = 0.0
            await crowd.settles_more(12)
        assert set(crowd.refused) <= {_BUSY}
        assert (await stub.ReserveBudget(impatient)).repeated
        taken = [*others, impatient.request_id]
        for request_id in taken:
            scope = USER if request_id == impatient.request_id else f"{ORGANIZATION}/workspaces/w"
            release = budget_pb2.ReleaseReservationRequest(request_id=request_id, scope=scope)
            await asyncio.gather(stub.ReleaseReservation(release), return_exceptions=True)
        await prove(stub, crowd, budget_id)


async def limit_files(url: str, server: Cluster, size_max: int) -> None:
    """What every process of the database may write from now on into a file: beyond it, files do not grow any more."""
    connection = await asyncpg.connect(url)
    found = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
    await connection.close()
    postmaster = int((server.socket_dir.parent / "data" / "postmaster.pid").read_text().split(maxsplit=1)[0])
    for pid in (postmaster, *(row["pid"] for row in found)):
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_max, resource.RLIM_INFINITY))


_FILL = """
    INSERT INTO budget.journal (organization, at, kind, request_id, scope, charges_number, held_usd_nanos, spent_usd_nanos,
        suspense_usd_nanos, held_tokens, spent_tokens, suspense_tokens, held_requests, spent_requests, note)
    SELECT 'filler', now() - number * interval '1 second', 8, gen_random_uuid(), 'organizations/filler', 1, 0, 0, 0, 0, 0, 0, 0, 0,
        repeat('x', 7850)
    FROM generate_series(1, 2200) AS number
"""


async def test_case_9_a_full_disk_refuses_what_writes_answers_what_reads_and_recovers_by_itself(
    suite: Any, server: Cluster
) -> None:
    url = server.url("farthing")
    async with suite("budget", database_url=url) as running:
        stub = budget_pb2_grpc.BudgetServiceStub(running.mesh.channel("budget"))
        budget_id, crowd = await create(stub), Crowd(stub)
        filler = await asyncpg.connect(url)
        await filler.execute("ALTER TABLE budget.journal ALTER note SET STORAGE PLAIN")
        await filler.execute(_FILL)
        assert await filler.fetchval("SELECT pg_relation_size('budget.journal')") > _FILE_BYTES_MAX
        await filler.close()
        async with crowd.at_work(8):
            await crowd.settles_more(20)
            await limit_files(url, server, _FILE_BYTES_MAX)
            await crowd.until(lambda: crowd.refused.total() >= 30)
            assert set(crowd.refused) == {_AWAY}
            for answer in await read(stub, budget_id):
                assert not isinstance(answer, BaseException), answer
            await limit_files(url, server, resource.RLIM_INFINITY)
            await crowd.settles_more(20)
        await prove(stub, crowd, budget_id)


async def test_case_9_rows_that_somebody_will_not_let_go_make_the_ledger_busy_and_not_dead(
    suite: Any, database_url: str
) -> None:
    async with suite("budget") as running:
        stub = budget_pb2_grpc.BudgetServiceStub(running.mesh.channel("budget"))
        budget_id, crowd = await create(stub), Crowd(stub)
        blocker = await asyncpg.connect(database_url)
        async with crowd.at_work(4):
            await crowd.settles_more(4)
            async with blocker.transaction():
                await blocker.execute("SELECT FROM budget.balances FOR UPDATE")
                change = budget_pb2.UpdateBudgetRequest(scope=ORGANIZATION, budget_id=budget_id, limit_usd_nanos=10**11)
                change.update_mask.paths.append("limit_usd_nanos")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.UpdateBudget(change, timeout=50.0)
                assert reason(caught.value) == _BUSY
                await crowd.until(lambda: crowd.refused.total() >= 4)
            await crowd.settles_more(4)
        await blocker.close()
        assert set(crowd.refused) == {_BUSY}
        await prove(stub, crowd, budget_id)
