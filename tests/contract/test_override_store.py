"""What the keeper of overrides of deployments promises, shown on the real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.catalog import parse_catalog
from farthing_router.deployments.balancing import Balancer
from farthing_router.deployments.cooldowns import Cooldowns
from farthing_router.deployments.overrides import DeploymentUnknown, LastDeployment, Override, Overrides, Said
from farthing_router.store import RequestIdReused
from farthing_router.store.cooldowns_memory import MemoryCooldowns
from farthing_router.store.overrides import PostgresOverrides
from farthing_runtime.postgres import open_pool

CONFIG: dict[str, Any] = {
    "providers": {"p": {"base_url": "http://127.0.0.1:1/v1", "api_key_optional": True}},
    "models": {
        "m": {
            "deployments": [{"provider": "p", "name": name, "weight": 2} for name in "abcd"]
            + [{"provider": "p", "name": "batch", "batch": {}}]
        },
        "alone": {"provider": "p"},
    },
}


class Replica:
    """A router's deployments, on a pool of its own."""

    def __init__(self, pool: Any) -> None:
        clock = ManualClock()
        catalog = parse_catalog(CONFIG, key_of=lambda _: None, list_price=lambda *_: None)
        self.balancer = Balancer(catalog, cooldowns=Cooldowns(clock=clock, store=MemoryCooldowns(clock)), rng=Random(1))
        self.store = PostgresOverrides(pool)
        self.overrides = Overrides(self.balancer, store=self.store)

    async def change(
        self, name: str, *, weight: float | None = None, enabled: bool | None = None, said: Said | None = None
    ) -> None:
        await self.overrides.change(name, said or newly(), weight=weight, enabled=enabled)

    @property
    def state(self) -> dict[str, tuple[float, bool]]:
        return {name: (place.weight, place.enabled) for name, place in self.balancer.places.items()}


def newly(body: bytes = b"") -> Said:
    return Said(str(uuid.uuid4()), body)


@pytest.fixture
async def replicas(database_url: str) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        yield [Replica(await stack.enter_async_context(open_pool(database_url, schema="router", size_max=4))) for _ in range(2)]


async def test_what_one_replica_is_told_the_other_goes_by_and_a_restart_keeps(replicas: list[Replica]) -> None:
    one, other = replicas
    await one.change("a", weight=7.5)
    await one.change("b", enabled=False)
    await one.change("a", enabled=False)
    assert (one.state["a"], one.state["b"]) == ((7.5, False), (2.0, False))
    assert other.state["a"] == (2.0, True)
    await other.overrides.watched.refresh()
    assert other.state == one.state
    await other.change("a", enabled=True)
    await one.overrides.watched.refresh()
    assert one.state["a"] == (7.5, True)


async def test_a_model_is_never_left_without_a_deployment_whoever_races(replicas: list[Replica]) -> None:
    found = await asyncio.gather(
        *(replicas[number % 2].change(name, enabled=False) for number, name in enumerate("abcd")), return_exceptions=True
    )
    assert sum(isinstance(each, LastDeployment) for each in found) == 1
    for replica in replicas:
        await replica.overrides.watched.refresh()
        assert sum(replica.state[name][1] for name in "abcd") == 1
    alone = replicas[0].balancer.catalog.model("alone")
    listed = replace(alone.deployments[0], listing="listed")  # what a provider's listing says makes it no other deployment
    replicas[0].balancer.catalog.correct(replace(alone, deployments=(listed,)))
    replicas[0].balancer.of(replicas[0].balancer.catalog.model("alone"))
    with pytest.raises(LastDeployment):
        await replicas[0].change("p/alone", enabled=False)
    with pytest.raises(LastDeployment):
        await replicas[0].change("batch", enabled=False)


async def test_a_request_id_is_good_for_one_body_and_one_change(replicas: list[Replica]) -> None:
    said = newly(b"3")
    await asyncio.gather(*(replica.change("a", weight=3.0, said=said) for replica in replicas * 4))
    await replicas[0].change("a", weight=4.0)
    await replicas[1].change("a", weight=3.0, said=said)
    assert replicas[1].state["a"][0] == 4.0
    with pytest.raises(RequestIdReused):
        await replicas[0].change("a", weight=5.0, said=Said(said.request_id, b"5"))
    with pytest.raises(DeploymentUnknown):
        await replicas[0].change("ghost", weight=5.0)


async def test_old_words_are_forgotten(replicas: list[Replica], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing_router.store.overrides._KEPT", 3)

    def decide(known: Mapping[str, Override]) -> Override:
        return Override("b", 1.0, enabled=True)

    await replicas[0].store.change(newly(), decide)
    first, last = newly(), newly()
    for number, said in enumerate([first, *(newly() for _ in range(5)), last]):
        await replicas[0].change("a", weight=float(number), said=said)
    rows = await replicas[0].store.after(0, rows_max=100)
    assert [(row.override.deployment, row.override.weight) for row in rows] == [("b", 1.0), ("a", 6.0)]
    again = await replicas[0].store.change(last, decide)
    assert again.override.weight == 6.0
    assert (await replicas[0].store.change(first, decide)).override.deployment == "b"  # nobody remembers it
