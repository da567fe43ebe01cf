"""What a plan holds, against what following it comes to be charged when providers do their worst: nothing is charged that is not held."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2
from farthing_core.clock import ManualClock
from farthing_core.errors import FarthingError, FieldInvalid
from farthing_router.catalog import Catalog, parse_catalog
from farthing_router.deployments.balancing import Balancer
from farthing_router.deployments.cooldowns import Cooldowns
from farthing_router.edge import messages
from farthing_router.edge.routes import RouteRpcs
from farthing_router.routing.calling import Caller
from farthing_router.routing.cascade import Cascade
from farthing_router.routing.errands import Errand
from farthing_router.routing.judges import Judges
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.planning import Planner
from farthing_router.routing.routes import Wish
from farthing_router.store.cooldowns_memory import MemoryCooldowns
from farthing_router.upstreams import Call, FailureKind, UpstreamAnswer, UpstreamFailed
from farthing_router.upstreams.payloads import Reported

ASKED = Wish("", "chat", "", frozenset(), 0, {"o200k": 1_000}, 4_000, 1_000, frozenset(), False, "", {})


def price(sent: int, said: int) -> dict[str, str]:
    return {"input_usd_per_million_tokens": str(sent), "output_usd_per_million_tokens": str(said)}


def catalog() -> Catalog:
    """Each model runs at two providers: one is dear to ask, the other dear to hear."""
    providers = {name: {"base_url": f"http://{name}", "api_key_optional": True, "retries": 1} for name in "pq"}
    models = {
        name: {
            "deployments": [
                {"provider": "p", "name": f"{name}-p", "price": price(10 * dear, 10 * dear)},
                {"provider": "q", "name": f"{name}-q", "price": price(dear, 18 * dear)},
            ],
            **({"hedge": {"quantile": 0.5, "calls_share_max": 0.5}} if name == "strong" else {}),
        }
        for name, dear in (("tiny", 1), ("small", 2), ("strong", 30), ("spare", 31))
    }
    routing = {
        "cascades": [{"steps": ["tiny", "strong"], "agreement": ["tiny", "small"], "calls_max": 12}],
        "fallbacks": {"strong": ["spare"]},
    }
    config = {"providers": providers, "models": models, "routing": routing}
    return parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)


class Worst:
    """An upstream that loses calls, breaks them off, or answers as long as it may and with doubt."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    async def complete(self, call: Call) -> UpstreamAnswer:
        fate = self._rng.random()
        for _ in range(self._rng.randrange(12)):
            await asyncio.sleep(0)
        if fate < 0.4:
            lost = fate < 0.35
            raise UpstreamFailed(what="gone", retryable=True, may_be_billed=lost, kind=FailureKind.SERVER_ERROR)
        return UpstreamAnswer("I'm not sure.", "", "stop", "", Reported(1_000, call.output_tokens_max))


def followed(seed: int, book: Any, found: Catalog) -> tuple[Cascade, Any]:
    clock, lengths = ManualClock(), OutputLengths()

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    balancer = Balancer(found, cooldowns=Cooldowns(clock=clock, store=MemoryCooldowns(clock)), rng=Random(seed))
    for place in balancer.places.values():
        for _ in range(20):
            place.latencies.add(0.0)  # whoever takes any time takes long
    caller = Caller(Worst(Random(seed)), balancer=balancer, lengths=lengths, clock=clock, rng=Random(seed), sleep=sleep)  # type: ignore[arg-type]
    cascade = Cascade(caller, judges=Judges(None, prompt_of=lambda conversation: ""))
    return cascade, (clock, Planner(found, lengths))


@pytest.mark.parametrize("model", ["", "strong"])
async def test_whatever_providers_do_no_more_is_charged_than_is_held_and_the_hold_stops_no_planned_call(
    book_of: Any, model: str
) -> None:
    found = catalog()
    book = await book_of(found)
    for seed in range(150):
        cascade, (clock, planner) = followed(seed, book, found)
        prices = book.prices("acme")
        route = planner.plan(Wish(model, *(getattr(ASKED, name) for name in Wish.__slots__[1:])), prices)
        errand = Errand(route, prices, [], None, "chat", "r", False, "", clock.monotonic_s() + 600, route.calls_max)
        with suppress(FarthingError):
            await cascade.run(errand)
        charged = sum(each.cost_usd_nanos for each in errand.failures)
        charged += sum(each.attempt.cost_usd_nanos for each in errand.bought)
        assert charged <= route.worst_case_usd_nanos
        assert len(errand.failures) + len(errand.bought) <= route.calls_max
        assert not any("is held" in why for why in errand.unasked)


@pytest.mark.parametrize("where", ["message", "parameters", "tools", "part", "nowhere"])
def test_wherever_a_request_asks_for_caching_its_dearest_rates_are_held(where: str) -> None:
    said = '{"cache_control": {"type": "ephemeral", "ttl": "1h"}}'
    asked = router_pb2.PlanRouteRequest(messages=[chat_pb2.ChatMessage(role="user", content="hi")])
    if where == "message":
        asked.messages[0].extra_json = said
    elif where == "part":
        asked.messages[0].content_parts_json = f"[{said}]"
    elif where == "parameters":
        asked.parameters.extra_json = said
    elif where == "tools":
        asked.parameters.tools_json = f"[{said}]"
    assert messages.wish(asked).cache_writes is (where != "nowhere")


async def test_no_deployment_is_called_whose_price_nobody_knows(book_of: Any) -> None:
    places = [{"provider": "p", "name": "priced", "price": price(1, 1)}, {"provider": "q", "name": "unpriced"}]
    providers = {name: {"base_url": f"http://{name}", "api_key_optional": True} for name in "pq"}
    config = {"providers": providers, "models": {"m": {"deployments": places}}}
    found = parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)
    rpcs: Any = RouteRpcs(
        book=await book_of(found),
        planner=None,
        cascade=None,
        clock=ManualClock(),
        generate_timeout_s=9.0,  # type: ignore[arg-type]
    )
    first = router_pb2.Candidate(model="m", role=router_pb2.CANDIDATE_ROLE_FIRST, output_tokens_max=9)
    asked = router_pb2.GenerateRequest(scope="organizations/acme", route=router_pb2.Route(candidates=[first], calls_max=1))
    with pytest.raises(FieldInvalid, match="have no price"):
        await rpcs.Generate(asked, SimpleNamespace(time_remaining=lambda: None))
