"""The price book through the router's stub, and what a provider's own words about its usage come to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.status import error_info, rich_status
from google.protobuf.timestamp_pb2 import Timestamp

CATALOG = """\
version: 1
providers: {{p: {{base_url: "{url}", api_key_optional: true, retries: 0}}}}
models:
  m:
    provider: p
    price:
      input_usd_per_million_tokens: "2"
      cached_input_usd_per_million_tokens: "0.50"
      output_usd_per_million_tokens: "8"
      service_tiers:
        flex: {{input_usd_per_million_tokens: "1", cached_input_usd_per_million_tokens: "0.25", output_usd_per_million_tokens: "4"}}
  unpriced: {{provider: p}}
routing: {{baseline_model: m, unknown_price: {policy}}}
"""
ACME, OTHER = "organizations/acme/workspaces/w", "organizations/other"
BODIES: dict[str, dict[str, Any]] = {
    "plain": {"usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}},
    "flex": {
        "service_tier": "flex",
        "usage": {
            "prompt_tokens": 5000,
            "completion_tokens": 800,
            "prompt_tokens_details": {"cached_tokens": 2048},
            "completion_tokens_details": {"reasoning_tokens": 512},
        },
    },
    "audio": {"usage": {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"audio_tokens": 4}}},
    "zero": {"usage": {"prompt_tokens": 0, "completion_tokens": 0}},
    "silent": {},
}


async def _answer(request: web.Request) -> web.Response:
    body = await request.json()
    message = {"role": "assistant", "content": "a good answer"}
    return web.json_response(
        {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **BODIES[body["messages"][0]["content"]]}
    )


@asynccontextmanager
async def provider() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", _answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@pytest.fixture
def hosted(api: Any, tmp_path: Path) -> Callable[..., Any]:
    """Hosts a router: `async with hosted(policy="upper_bound") as stub:`."""

    @asynccontextmanager
    async def host(*, policy: str = "error", **options: Any) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(provider())
            path = tmp_path / f"{uuid.uuid4()}.yaml"
            path.write_text(CATALOG.format(url=url, policy=policy))
            channel_of = await stack.enter_async_context(api("router", config_file=path, **options))
            yield router_pb2_grpc.RouterServiceStub(channel_of("router"))

    return host


@pytest.fixture
async def router(hosted: Any) -> AsyncIterator[Any]:
    async with hosted() as stub:
        yield stub


def stamp(month: int, year: int = 2026) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(datetime(year, month, 1, tzinfo=UTC))
    return made


def rates(sent: int, said: int, **more: int) -> Any:
    """Rates in nanodollars a token."""
    named = {f"{kind}_usd_nanos_per_million_tokens": rate * 1_000_000 for kind, rate in more.items()}
    return router_pb2.Rates(
        input_usd_nanos_per_million_tokens=sent * 1_000_000, output_usd_nanos_per_million_tokens=said * 1_000_000, **named
    )


def price(**fields: Any) -> Any:
    terms = {} if {"discount_bps", "withdrawn"} & fields.keys() else {"rates": router_pb2.RateCard(rates=rates(3, 5))}
    return router_pb2.Price(**{"model": "m", "effective_time": stamp(1), "source": "list of January", **terms, **fields})


async def upsert(stub: Any, given: Any, request_id: str = "") -> Any:
    return await stub.UpsertPrice(router_pb2.UpsertPriceRequest(request_id=request_id or str(uuid.uuid4()), price=given))


async def rate(stub: Any, sent: int = 0, said: int = 0, **fields: Any) -> Any:
    usage = fields.pop("usage", None) or chat_pb2.TokenUsage(input_tokens=sent, output_tokens=said)
    return await stub.RateUsage(router_pb2.RateUsageRequest(**{"model": "m", "usage": usage, **fields}))


async def generated(stub: Any, prompt: str, *, scope: str = ACME, model: str = "m", **parameters: Any) -> Any:
    asked = {
        "scope": scope,
        "messages": [chat_pb2.ChatMessage(role="user", content=prompt)],
        "parameters": chat_pb2.Parameters(**parameters),
    }
    route = (await stub.PlanRoute(router_pb2.PlanRouteRequest(model=model, input_tokens={"o200k": 10}, **asked))).route
    answer = await stub.Generate(router_pb2.GenerateRequest(request_id=str(uuid.uuid4()), route=route, **asked))
    return route.candidates[0], answer.attempts[0]


async def refused(call: Any) -> tuple[str, str]:
    """The reason of a refusal, and its text."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rich_status(caught.value)
    info = None if status is None else error_info(status)
    return ("" if info is None else info.reason), caught.value.details() or ""


async def test_usage_is_rated_kind_by_kind_and_says_at_which_price(router: Any) -> None:
    long = router_pb2.LongContextRates(input_tokens_over=1000, rates=rates(6, 10, cached_input=2))
    card = router_pb2.RateCard(rates=rates(3, 5, cached_input=1), long_context=[long])
    made = await upsert(router, price(rates=card))
    usage = chat_pb2.TokenUsage(input_tokens=900, cached_input_tokens=200, output_tokens=10, reasoning_tokens=4)
    short = await rate(router, usage=usage)
    assert [(part.kind, part.quantity, part.rate_usd_nanos, part.cost_usd_nanos) for part in short.parts] == [
        ("input", 700, 3_000_000, 2100),
        ("cached_input", 200, 1_000_000, 200),
        ("output", 6, 5_000_000, 30),
        ("reasoning", 4, 5_000_000, 20),
    ]
    assert (short.cost_usd_nanos, short.input_tokens_over, short.price_unknown) == (2350, 0, False)
    assert short.price == made.price
    assert short.price_source == f"price book/{made.price.price_id}"
    usage.input_tokens = 1001
    assert ((await rate(router, usage=usage)).cost_usd_nanos, (await rate(router, usage=usage)).input_tokens_over) == (
        801 * 6 + 200 * 2 + 10 * 10,
        1000,
    )


async def test_usage_is_rated_at_the_price_of_its_moment(router: Any) -> None:
    await upsert(router, price())
    await upsert(router, price(effective_time=stamp(6), rates=router_pb2.RateCard(rates=rates(30, 50))))
    costs = [
        (await rate(router, 1, at=stamp(month, year))).cost_usd_nanos for month, year in ((12, 2025), (1, 2026), (6, 2026))
    ]
    assert costs == [2000, 3, 30]


async def test_a_contract_counts_for_its_organisation_in_lists_plans_and_bills(router: Any) -> None:
    made = await upsert(router, price(scope="organizations/acme", model="", provider="p", discount_bps=2500))
    source = f"contract/{made.price.price_id} on farthing.yaml"
    for scope, nanos, where in ((ACME, 7500, source), (OTHER, 10_000, "farthing.yaml"), ("", 10_000, "farthing.yaml")):
        rated = await rate(router, 1, 1, scope=scope)
        assert (rated.cost_usd_nanos, rated.price_source) == (nanos, where)
        models = (await router.ListModels(router_pb2.ListModelsRequest(scope=scope))).models
        listed = next(each for each in models if each.model == "m")
        assert (listed.input_usd_nanos_per_million_tokens, listed.price_source) == (nanos // 5 * 1_000_000, where)
    for scope, share in ((ACME, 75), (OTHER, 100)):
        candidate, attempt = await generated(router, "plain", scope=scope, output_tokens_max=100)
        assert candidate.worst_case_usd_nanos == (11 * 2000 + 100 * 8000) * share // 100
        assert candidate.output_usd_nanos_per_million_tokens == 8_000_000_000 * share // 100
        assert attempt.cost_usd_nanos == (10 * 2000 + 2 * 8000) * share // 100
        assert attempt.price_source == candidate.price_source == (source if scope == ACME else "farthing.yaml")


async def test_prices_in_force_and_prices_written_are_listed(router: Any) -> None:
    first, second = await upsert(router, price()), await upsert(router, price(effective_time=stamp(6), source="list of June"))
    assert list(second.superseded_price_ids) == [first.price.price_id]
    await upsert(router, price(scope="organizations/acme", withdrawn=True, source="contract 7 ended"))
    in_force = (await router.ListPrices(router_pb2.ListPricesRequest(at=stamp(7)))).prices
    assert [(each.model, each.source) for each in in_force] == [("m", "list of June")]
    before = (await router.ListPrices(router_pb2.ListPricesRequest(at=stamp(12, 2025)))).prices
    assert [(each.source, each.rates.service_tiers[0].service_tier) for each in before] == [("farthing.yaml", "flex")]
    page = await router.ListPrices(router_pb2.ListPricesRequest(history=True, page_size=1))
    rest = await router.ListPrices(router_pb2.ListPricesRequest(history=True, page_token=page.next_page_token))
    assert [*page.prices, *rest.prices] == [second.price, first.price]
    assert first.price.record_time.seconds > 0
    mine = (await router.ListPrices(router_pb2.ListPricesRequest(scope=ACME, history=True))).prices
    assert [(each.withdrawn, each.source) for each in mine] == [(True, "contract 7 ended")]
    assert not (await router.ListPrices(router_pb2.ListPricesRequest(provider="q"))).prices
    assert "page_token" in (await refused(router.ListPrices(router_pb2.ListPricesRequest(history=True, page_token="x"))))[1]


async def test_writing_is_safe_to_repeat_and_an_id_is_good_for_one_price(router: Any) -> None:
    request_id = str(uuid.uuid4())
    first, second = await upsert(router, price(), request_id), await upsert(router, price(), request_id)
    assert (first.repeated, second.repeated, second.price) == (False, True, first.price)
    assert (await refused(upsert(router, price(source="another"), request_id)))[0] == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("price.terms", lambda: router_pb2.Price(model="m", effective_time=stamp(1), source="x")),
        ("price.terms", lambda: price(withdrawn=False)),
        ("price.effective_time", lambda: router_pb2.Price(model="m", withdrawn=True, source="x")),
        ("price.expire_time", lambda: price(expire_time=stamp(1))),
        ("price.source", lambda: price(source="")),
        ("price.scope", lambda: price(discount_bps=100)),
        ("price.scope", lambda: price(scope="organizations/acme/workspaces/w")),
        ("price.model", lambda: price(model="")),
        ("price.provider", lambda: price(model="unheard of")),
        ("price.discount_bps", lambda: price(scope="organizations/acme", discount_bps=10_001)),
        ("price.rates.rates", lambda: price(rates=router_pb2.RateCard(rates=router_pb2.Rates(request_usd_nanos=1)))),
        (
            "price.rates.long_context[0].rates",
            lambda: price(
                rates=router_pb2.RateCard(
                    rates=rates(1, 1, cached_input=1),
                    long_context=[router_pb2.LongContextRates(input_tokens_over=5, rates=rates(2, 2))],
                )
            ),
        ),
        (
            "price.rates.service_tiers[1].service_tier",
            lambda: price(
                rates=router_pb2.RateCard(
                    rates=rates(1, 1),
                    service_tiers=[router_pb2.ServiceTierRates(service_tier="flex", rates=rates(1, 1)) for _ in range(2)],
                )
            ),
        ),
    ],
)
async def test_what_cannot_be_a_price_is_refused_by_the_name_of_its_field(router: Any, field: str, given: Any) -> None:
    assert field in (await refused(upsert(router, given())))[1]
    assert not (await router.ListPrices(router_pb2.ListPricesRequest(history=True))).prices


async def test_what_one_replica_writes_the_other_knows_after_an_interval(hosted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARTHING_ROUTER_PRICES_REFRESH_S", "0.05")
    async with hosted() as one, hosted() as two:
        await upsert(one, price())
        for _ in range(300):
            rated = await rate(two, 1)
            if rated.cost_usd_nanos == 3:
                break
            await asyncio.sleep(0.01)
        assert rated.price_source.startswith("price book/")
        await upsert(two, price(withdrawn=True))
        assert (await rate(two, 1)).cost_usd_nanos == 2000


async def test_prices_are_there_after_a_restart(hosted: Any) -> None:
    async with hosted() as stub:
        made = await upsert(stub, price())
    async with hosted() as stub:
        assert (await rate(stub, 1)).price == made.price


async def test_case_4_an_unknown_price_or_rate_is_an_error_by_policy(router: Any) -> None:
    audio = chat_pb2.TokenUsage(input_tokens=10, audio_input_tokens=4)
    assert (await refused(rate(router, 1, model="unpriced")))[0] == "PRICE_UNKNOWN"
    assert await refused(rate(router, usage=audio)) == (
        "PRICE_UNKNOWN",
        "no price of audio_input is known for m: give it one in farthing.yaml (models.m.price) or in the price book",
    )
    assert (await refused(rate(router, 1, service_tier="priority")))[0] == "PRICE_UNKNOWN"
    assert (await refused(generated(router, "plain", model="unpriced")))[0] == "PRICE_UNKNOWN"
    # What has been bought is charged all the same, and marked.
    _, attempt = await generated(router, "audio")
    assert (attempt.cost_usd_nanos, attempt.price_unknown) == (6 * 2000 + 4 * 60 * 2000 + 2 * 8000, True)


async def test_case_4_or_an_upper_bound_that_is_marked_as_one(hosted: Any) -> None:
    async with hosted(policy="upper_bound") as router:
        rated = await rate(router, 1, 1, model="unpriced")
        assert (rated.cost_usd_nanos, rated.price_unknown, rated.price_source) == (2 * (2000 + 8000), True, "upper bound")
        assert rated.price.unknown
        candidate, attempt = await generated(router, "plain", model="unpriced")
        assert (candidate.price_unknown, attempt.price_unknown) == (True, True)
        assert attempt.cost_usd_nanos == 2 * (10 * 2000 + 2 * 8000)
        listed = (await router.ListModels(router_pb2.ListModelsRequest())).models
        assert [each.price_source for each in listed] == ["farthing.yaml", "upper bound"]
        priority = await rate(router, 1, service_tier="priority")
        assert (priority.cost_usd_nanos, priority.price_unknown) == (3 * 2000, True)


async def test_case_11_where_the_counts_are_from_is_said_and_zero_is_not_missing(router: Any) -> None:
    for prompt, source, tokens in (
        ("plain", chat_pb2.TOKENS_SOURCE_REPORTED, (10, 2)),
        ("zero", chat_pb2.TOKENS_SOURCE_REPORTED, (0, 0)),
        ("silent", chat_pb2.TOKENS_SOURCE_ESTIMATED, (10, 4)),
    ):
        _, attempt = await generated(router, prompt)
        assert (attempt.usage.source, attempt.usage.estimated) == (source, source == chat_pb2.TOKENS_SOURCE_ESTIMATED)
        assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == tokens
        assert attempt.cost_usd_nanos == tokens[0] * 2000 + tokens[1] * 8000


async def test_case_12_the_tier_and_the_kinds_that_a_provider_reports_are_charged(router: Any) -> None:
    candidate, attempt = await generated(router, "flex", extra_json='{"service_tier": "flex"}')
    assert candidate.worst_case_usd_nanos == 11 * 1000 + 1024 * 4000
    assert attempt.service_tier == "flex"
    assert (attempt.usage.cached_input_tokens, attempt.usage.reasoning_tokens) == (2048, 512)
    assert attempt.cost_usd_nanos == (5000 - 2048) * 1000 + 2048 * 250 + 800 * 4000
    _, unsaid = await generated(router, "plain", extra_json='{"service_tier": "flex"}')
    assert (unsaid.service_tier, unsaid.cost_usd_nanos) == ("flex", 10 * 1000 + 2 * 4000)
    assert (await refused(generated(router, "plain", extra_json='{"service_tier": "priority"}')))[0] == "PRICE_UNKNOWN"


async def test_more_money_than_there_can_be_is_refused(router: Any) -> None:
    usage = chat_pb2.TokenUsage(input_tokens=2**53 - 1)
    assert (await refused(rate(router, usage=usage)))[0] == "AMOUNT_INVALID"
