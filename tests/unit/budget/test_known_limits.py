"""The rate limits that a process knows: read once, heard of again when they change, bounded."""

from __future__ import annotations

import asyncio
import gc
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from farthing_budget.admissions import Admissions, Ask
from farthing_budget.buckets import UNLIMITED, Kind
from farthing_budget.known_limits import KnownLimits
from farthing_budget.rate_limits import BurstExceeded, RateLimit
from farthing_budget.refusals import StoreUnavailable
from farthing_budget.store.memory import MemoryBuckets
from farthing_core.clock import ManualClock
from farthing_core.scopes import parse_scope

ACME = "organizations/acme"
USER = parse_scope(f"{ACME}/workspaces/search/projects/ranker/users/ann")


class Notebook:
    """Limits kept in a dictionary, with epochs as the database has them. While `gate` is closed, reading takes its answer and waits."""

    def __init__(self) -> None:
        self.limits: dict[str, list[RateLimit]] = defaultdict(list)
        self.epochs: dict[str, int] = {}
        self.reads: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.away = False

    def write(self, limit: RateLimit) -> RateLimit:
        self.limits[limit.organization].append(limit)
        self.epochs[limit.organization] = max(self.epochs.values(), default=0) + 1
        return limit

    async def limits_of(self, organization: str) -> tuple[int, Sequence[RateLimit]]:
        self._reach()
        self.reads[organization] += 1
        answer = self.epochs.get(organization, 0), tuple(self.limits.get(organization, ()))
        await self.gate.wait()
        return answer

    async def last_epoch(self) -> int:
        self._reach()
        return max(self.epochs.values(), default=0)

    async def changed_since(self, epoch: int, *, count_max: int) -> Sequence[tuple[str, int]]:
        self._reach()
        changed = sorted((at, name) for name, at in self.epochs.items() if at > epoch)
        return [(name, at) for at, name in changed[:count_max]]

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable


def limit(scope: str = ACME, *, model: str = "", rpm: int = 10, tpm: int = 0, concurrent: int = 0) -> RateLimit:
    return RateLimit(parse_scope(scope).organization, str(uuid.uuid4()), scope, model, rpm, tpm, concurrent, 60)


@pytest.fixture
async def notebook() -> Notebook:
    return Notebook()


async def test_limits_are_read_once_however_many_ask(notebook: Notebook) -> None:
    notebook.write(limit())
    known = KnownLimits(notebook, places_max=100)
    notebook.gate.clear()
    asking = [asyncio.create_task(known.of("acme")) for _ in range(50)]
    await asyncio.sleep(0)
    notebook.gate.set()
    assert len({id(found) for found in await asyncio.gather(*asking)}) == 1
    await known.of("acme")
    assert notebook.reads == {"acme": 1}


async def test_a_caller_who_gives_up_does_not_leave_the_others_waiting(notebook: Notebook) -> None:
    known = KnownLimits(notebook, places_max=100)
    notebook.gate.clear()
    first, second = (asyncio.create_task(known.of("acme")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    notebook.gate.set()
    assert not (await second).buckets


async def test_a_change_is_heard_of_at_the_next_look(notebook: Notebook) -> None:
    known = KnownLimits(notebook, places_max=100)
    assert not (await known.of("acme")).buckets
    notebook.write(limit())
    notebook.write(limit("organizations/globex"))
    await known.look()
    assert (ACME, "") in (await known.of("acme")).buckets
    await known.look()
    assert notebook.reads == {"acme": 2}


async def test_a_change_while_reading_is_not_missed(notebook: Notebook) -> None:
    known = KnownLimits(notebook, places_max=100)
    notebook.gate.clear()
    reading = asyncio.create_task(known.of("acme"))
    await asyncio.sleep(0)
    notebook.write(limit())
    await known.look()
    notebook.gate.set()
    assert (ACME, "") in (await reading).buckets


async def test_what_was_read_earlier_and_came_later_is_not_believed(notebook: Notebook) -> None:
    known = KnownLimits(notebook, places_max=100)
    await known.of("acme")
    notebook.gate.clear()
    late = asyncio.create_task(known.reread("acme"))
    await asyncio.sleep(0)
    notebook.write(limit())
    notebook.gate.set()
    await asyncio.gather(known.reread("acme"), late)
    assert (ACME, "") in (await known.of("acme")).buckets


async def test_while_the_database_is_away_what_is_known_stays(notebook: Notebook) -> None:
    notebook.write(limit())
    known = KnownLimits(notebook, places_max=100)
    await known.of("acme")
    notebook.away = True
    async with known.watching(interval_s=0.001):
        with pytest.raises(StoreUnavailable):
            await known.of("globex")
        assert (await known.of("acme")).buckets
        notebook.write(limit("organizations/acme/workspaces/w"))
        notebook.away = False
        for _ in range(1_000):
            if len((await known.of("acme")).buckets) == 2:
                return
            await asyncio.sleep(0.002)
    raise AssertionError("the change was never heard of")


async def test_organisations_unused_for_longest_are_forgotten(notebook: Notebook) -> None:
    for number in range(4):
        notebook.write(limit(f"{ACME}/workspaces/w{number}"))
    known = KnownLimits(notebook, places_max=8)
    for number in range(20):
        await known.of(f"other{number}")
        await known.of("acme")
    await known.of("other19")
    assert notebook.reads["acme"] == notebook.reads["other19"] == 1
    await known.of("other0")
    assert notebook.reads["other0"] == 2


async def test_limits_of_the_scope_its_ancestors_and_its_model_apply(notebook: Notebook) -> None:
    for scope in (*USER.ancestors, f"{ACME}/workspaces/other"):
        for model in ("", "large", "small"):
            notebook.write(limit(scope, model=model, concurrent=1))
    limits = await KnownLimits(notebook, places_max=100).of("acme")
    found = [(bucket.limit.scope, bucket.limit.model, bucket.kind) for bucket in limits.applying(USER, "large")]
    assert found == [
        (scope, model, kind)
        for scope in USER.ancestors
        for model in ("", "large")
        for kind in (Kind.REQUESTS, Kind.CONCURRENCY)
    ]
    assert {bucket.limit.model for bucket in limits.applying(USER, "")} == {""}


async def test_what_can_never_fit_is_said_before_anything_is_taken(notebook: Notebook) -> None:
    notebook.write(limit(tpm=600))
    admissions = Admissions(
        KnownLimits(notebook, places_max=100), MemoryBuckets(ManualClock(), buckets_max=100, admissions_max=100)
    )
    with pytest.raises(BurstExceeded) as caught:
        await admissions.admit(Ask(USER, str(uuid.uuid4()), "", 601, 600))
    assert (caught.value.facts["asked"], caught.value.facts["burst"]) == ("601", "600")
    assert (await admissions.admit(Ask(USER, str(uuid.uuid4()), "", 600, 600))).requests_left == 9


async def test_memory_is_flat_with_a_hundred_thousand_scopes(notebook: Notebook) -> None:
    """Ten users of each of ten thousand organisations, every second one with limits of its own."""
    for number in range(0, 10_000, 2):
        notebook.write(limit(f"organizations/o{number}", tpm=10_000, concurrent=100))
    known = KnownLimits(notebook, places_max=1_000)
    admissions = Admissions(known, MemoryBuckets(ManualClock(), buckets_max=1_000, admissions_max=1_000))

    async def users_of(organizations: range) -> None:
        for number in organizations:
            for user in range(10):
                scope = parse_scope(f"organizations/o{number}/workspaces/w/projects/p/users/u{user}")
                answer = await admissions.admit(Ask(scope, str(uuid.uuid4()), "large", 10, 600))
                assert (answer is UNLIMITED) == bool(number % 2)

    await users_of(range(2_000))
    gc.collect()
    before = sys.getallocatedblocks()
    await users_of(range(2_000, 10_000))
    gc.collect()
    assert sys.getallocatedblocks() - before < 8_000  # a tenth of a block a scope
