"""Cases of routing from the field, through PlanRoute and at the start of the service: 25, 27 and 28. The others of routing are shown where
their subject is, under names that begin with `test_case_` and their number.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.settings import SettingsInvalid
from farthing_runtime.status import error_info, rich_status

SCOPE = "organizations/acme/workspaces/w"
CATALOG = """\
version: 1
providers:
  p: {base_url: "http://127.0.0.1:9/v1", api_key_optional: true}
  q: {base_url: "http://127.0.0.1:9/v2", api_key_optional: true}
models:
  plain:
    {provider: p, capabilities: [streaming], context_window_tokens: 4000,
     price: {input_usd_per_million_tokens: "0.1", output_usd_per_million_tokens: "0.2"}}
  caller:
    {provider: p, capabilities: [streaming, tools, json], tasks: {caption: {output_tokens_max: 50}},
     price: {input_usd_per_million_tokens: "0.5", output_usd_per_million_tokens: "1"}}
  reader:
    price: {input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}
    deployments:
      - {provider: p, name: short, context_window_tokens: 8000, capabilities: [streaming, vision]}
      - {provider: q, name: long, context_window_tokens: 400000, capabilities: [streaming]}
  listener:
    {provider: q, capabilities: [streaming, audio],
     price: {input_usd_per_million_tokens: "4", output_usd_per_million_tokens: "8", audio_input_usd_per_million_tokens: "40",
             audio_output_usd_per_million_tokens: "80"}}
  best:
    {provider: q, capabilities: [streaming, tools, json, vision], tier: premium,
     price: {input_usd_per_million_tokens: "10", output_usd_per_million_tokens: "30"}}
"""
EVERY_STRATEGY = (
    router_pb2.RULE_STRATEGY_CASCADE,
    router_pb2.RULE_STRATEGY_CHEAPEST,
    router_pb2.RULE_STRATEGY_FASTEST,
    router_pb2.RULE_STRATEGY_BALANCED,
    router_pb2.RULE_STRATEGY_QUALITY,
    router_pb2.RULE_STRATEGY_LEARNED,
)
HARD = (
    "Prove that the square root of 2 is irrational.",
    "Is there a bijection between the primes and the rationals?",
    "62-year-old man, chest pain, ECG normal. Differential?",
    "Can amiodarone be given with warfarin? What dose?",
    "Is a landlord liable in tort for a tenant's dog?",
)
EASY = (
    "Translate 'good morning' to French.",
    "Write a caption for a photo of a cat.",
    "Rewrite this sentence in a friendlier tone: we are closed on Sunday, come back on Monday morning and bring your ticket please.",
)


@pytest.fixture
def hosted(api: Any, tmp_path: Path) -> Callable[..., Any]:
    """Hosts a router: `async with hosted(rules="…") as stub:`."""

    @asynccontextmanager
    async def host(rules: str = "") -> AsyncIterator[Any]:
        path = tmp_path / f"{uuid.uuid4()}.yaml"
        path.write_text(CATALOG + rules)
        async with api("router", config_file=path) as channel_of:
            yield router_pb2_grpc.RouterServiceStub(channel_of("router"))

    return host


@pytest.fixture
async def router(hosted: Any) -> AsyncIterator[Any]:
    async with hosted() as stub:
        yield stub


def request(prompt: str = "hello", **fields: Any) -> Any:
    message = chat_pb2.ChatMessage(role="user", content=prompt, content_parts_json=fields.pop("parts", ""))
    given = {"scope": SCOPE, "messages": [message], "input_tokens": {"o200k": 10}, **fields}
    return router_pb2.PlanRouteRequest(**given)


async def planned(stub: Any, prompt: str = "hello", **fields: Any) -> Any:
    return (await stub.PlanRoute(request(prompt, **fields))).route


async def ruled(stub: Any, action: Any, **fields: Any) -> Any:
    rule = router_pb2.Rule(scope="organizations/acme", action=action, **fields)
    return (await stub.CreateRule(router_pb2.CreateRuleRequest(request_id=str(uuid.uuid4()), rule=rule))).rule


async def test_case_25_a_short_hard_prompt_is_not_simple(router: Any) -> None:
    hard = router_pb2.RuleMatch(complexity_min=0.5)
    rule = await ruled(router, router_pb2.RuleAction(strategy=router_pb2.RULE_STRATEGY_QUALITY), match=hard, priority=1)
    await ruled(router, router_pb2.RuleAction(strategy=router_pb2.RULE_STRATEGY_CHEAPEST))
    for prompt in HARD:
        route = await planned(router, prompt)
        assert (route.candidates[0].model, route.rule_id, route.complexity >= 0.5) == ("best", rule.rule_id, True), prompt
    for easy in EASY:
        route = await planned(router, easy)
        assert (route.candidates[0].model, route.complexity < 0.3) == ("plain", True), easy


async def test_case_25_who_looks_for_the_least_cost_buys_a_second_opinion_on_a_hard_prompt(router: Any) -> None:
    for wish in ({"model": "farthing/auto:cheap"}, {"optimize_for": router_pb2.OPTIMIZE_FOR_COST}):
        for prompt in HARD:
            route = await planned(router, prompt, **wish)
            assert (route.strategy, [each.model for each in route.candidates]) == ("cascade", ["plain", "best"]), prompt
        easy = await planned(router, EASY[0], **wish)
        assert (easy.strategy, easy.candidates[0].model) == ("cheapest", "plain")


@pytest.mark.parametrize(
    ("fields", "able"),
    [
        ({"parameters": chat_pb2.Parameters(tools_json='[{"type": "function"}]')}, {"caller", "best"}),
        ({"parameters": chat_pb2.Parameters(response_format_json='{"type": "json_object"}')}, {"caller", "best"}),
        ({"parts": '[{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]'}, {"reader", "best"}),
        ({"parts": '[{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]'}, {"listener"}),
        ({"input_tokens": {"o200k": 3_990}}, {"caller", "reader", "listener", "best"}),
        ({"input_tokens": {"o200k": 200_000}}, {"reader"}),
        ({"tier": "free"}, {"plain", "caller", "reader", "listener"}),
        ({"allowed_providers": ["q"]}, {"reader", "listener", "best"}),
    ],
)
async def test_case_27_a_model_that_cannot_serve_a_request_is_never_chosen(
    router: Any, fields: dict[str, Any], able: set[str]
) -> None:
    for number, strategy in enumerate(EVERY_STRATEGY):
        await ruled(router, router_pb2.RuleAction(strategy=strategy), priority=number)
        route = await planned(router, **fields)
        assert {each.model for each in route.candidates} <= able
    for model in {"plain", "caller", "reader", "listener", "best"} - able:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await planned(router, model=model, **fields)
        status = rich_status(caught.value)
        info = None if status is None else error_info(status)
        assert info is not None
        assert info.reason in ("NO_CANDIDATE", "CONTEXT_TOO_LONG")


async def test_case_27_each_deployment_counts_with_its_own_window_and_its_own_abilities(router: Any) -> None:
    image = '[{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]'
    both = (await planned(router, model="reader")).candidates[0]
    seeing = (await planned(router, model="reader", parts=image)).candidates[0]
    long = (await planned(router, model="reader", input_tokens={"o200k": 20_000})).candidates[0]
    assert (list(both.deployments), list(seeing.deployments), list(long.deployments)) == ([], ["short"], ["long"])
    with pytest.raises(grpc.aio.AioRpcError):
        await planned(router, model="reader", parts=image, input_tokens={"o200k": 20_000})


async def test_case_27_a_models_limit_for_a_task_holds(router: Any) -> None:
    asked = chat_pb2.Parameters(output_tokens_max=500)
    assert (await planned(router, model="caller", task="caption", parameters=asked)).candidates[0].output_tokens_max == 50
    assert (await planned(router, model="caller", task="chat", parameters=asked)).candidates[0].output_tokens_max == 500


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ("routing: {rules: [{action: {strategy: cheepest}}]}", "routing.rules.0.action.strategy"),
        ("routing: {rules: [{action: {strategy: cheapest}, mach: {}}]}", "routing.rules.0.mach"),
        ("routing: {rules: [{action: {strategy: cheapest, models: [bets]}}]}", "routing.rules.0.action.models[0]"),
        ("routing: {rules: [{action: {strategy: cheapest}, match: {tiers: [gold]}}]}", "routing.rules.0.match.tiers[0]"),
        ("routing: {rules: [{action: {strategy: balanced, weights: {cost: 0}}}]}", "routing.rules.0.action.weights"),
        ("routing: {rules: [{action: {strategy: cascade, models: [best]}}]}", "routing.rules.0.action.models"),
        (
            "routing: {rules: [{action: {strategy: quality}, match: {complexity_min: 0.9, complexity_max: 0.1}}]}",
            "complexity_max",
        ),
        (
            "routing: {rules: [{action: {strategy: quality, models_denied: [best]}, match: {needs: [audio, json]}}]}",
            "match.needs",
        ),
    ],
)
async def test_case_28_a_wrong_rule_in_farthing_yaml_stops_the_start(hosted: Any, rules: str, field: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        async with hosted(rules):
            pytest.fail("must not start")
    assert field in str(caught.value)
