"""Routing rules through the router's stub: kept, changed, listed, taken out of use."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.chat.v1 import chat_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.status import error_info, rich_status
from google.protobuf.field_mask_pb2 import FieldMask
from structlog.testing import capture_logs

CATALOG = """\
version: 1
providers: {p: {base_url: "http://127.0.0.1:9/v1", api_key_optional: true}}
models:
  small: {provider: p, price: {input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}
  large: {provider: p, price: {input_usd_per_million_tokens: "10", output_usd_per_million_tokens: "20"}}
routing:
  rules:
    - {display_name: from the file, match: {tasks: [filed]}, action: {strategy: cheapest, models: [large]}}
"""
ORG, SPACE, OTHER = "organizations/acme", "organizations/acme/workspaces/w", "organizations/other"
CHEAPEST = router_pb2.RULE_STRATEGY_CHEAPEST


@pytest.fixture
def hosted(api: Any, tmp_path: Path) -> Callable[..., Any]:
    """Hosts a router: `async with hosted() as stub:`."""

    @asynccontextmanager
    async def host(*, catalog: str = CATALOG, **options: Any) -> AsyncIterator[Any]:
        path = tmp_path / f"{uuid.uuid4()}.yaml"
        path.write_text(catalog)
        async with api("router", config_file=path, **options) as channel_of:
            yield router_pb2_grpc.RouterServiceStub(channel_of("router"))

    return host


@pytest.fixture
async def router(hosted: Any) -> AsyncIterator[Any]:
    async with hosted() as stub:
        yield stub


def rule(scope: str = ORG, **fields: Any) -> Any:
    return router_pb2.Rule(**{"scope": scope, "action": router_pb2.RuleAction(strategy=CHEAPEST), **fields})


async def created(stub: Any, given: Any = None, request_id: str = "") -> Any:
    request = router_pb2.CreateRuleRequest(request_id=request_id or str(uuid.uuid4()), rule=given or rule())
    return (await stub.CreateRule(request)).rule


async def updated(stub: Any, given: Any, *paths: str, request_id: str = "") -> Any:
    mask = FieldMask(paths=paths) if paths else None
    request = router_pb2.UpdateRuleRequest(request_id=request_id or str(uuid.uuid4()), rule=given, update_mask=mask)
    return (await stub.UpdateRule(request)).rule


async def deleted(stub: Any, given: Any, *, version: int = 0, request_id: str = "") -> Any:
    request = router_pb2.DeleteRuleRequest(
        request_id=request_id or str(uuid.uuid4()), scope=given.scope, rule_id=given.rule_id, version=version
    )
    return (await stub.DeleteRule(request)).rule


async def got(stub: Any, given: Any, *, scope: str = "", version: int = 0) -> Any:
    request = router_pb2.GetRuleRequest(scope=scope or given.scope, rule_id=given.rule_id, version=version)
    return (await stub.GetRule(request)).rule


async def listed(stub: Any, scope: str = ORG, **fields: Any) -> list[Any]:
    found: list[Any] = []
    token = ""
    while True:
        page = await stub.ListRules(router_pb2.ListRulesRequest(scope=scope, page_token=token, **fields))
        found += page.rules
        token = page.next_page_token
        if not token:
            return found


async def refused(call: Any) -> tuple[str, str]:
    """The reason of a refusal, and its text."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rich_status(caught.value)
    info = None if status is None else error_info(status)
    return ("" if info is None else info.reason), caught.value.details() or ""


async def test_a_rule_is_kept_changed_and_taken_out_of_use_and_what_it_was_stays_readable(router: Any) -> None:
    first = await created(router, rule(SPACE, display_name="first", priority=3))
    assert (first.version, first.deleted, first.update_time.seconds > 0) == (1, False, True)
    assert await got(router, first) == first
    changes = router_pb2.Rule(scope=SPACE, rule_id=first.rule_id, display_name="second", priority=9)
    second = await updated(router, changes, "display_name")
    assert (second.version, second.display_name, second.priority, second.action) == (2, "second", 3, first.action)
    third = await deleted(router, second)
    assert (third.version, third.deleted) == (3, True)
    assert await listed(router, SPACE, rule_id=first.rule_id) == [third, second, first]
    assert await listed(router, SPACE, rule_id=first.rule_id, page_size=1) == [third, second, first]
    assert [await got(router, first, version=version) for version in (1, 2, 3, 0)] == [first, second, third, third]
    assert [each.display_name for each in await listed(router, SPACE)] == ["from the file"]
    assert (await refused(got(router, first, version=4)))[0] == "RULE_UNKNOWN"
    assert (await refused(updated(router, changes, "priority")))[0] == "RULE_UNKNOWN"
    assert (await refused(deleted(router, first)))[0] == "RULE_UNKNOWN"


async def test_a_mask_may_name_what_is_inside_and_clears_what_is_not_given(router: Any) -> None:
    action = router_pb2.RuleAction(strategy=CHEAPEST, models=["small", "large"], calls_max=5, latency_ms_max=900)
    made = await created(router, rule(action=action, match=router_pb2.RuleMatch(tasks=["a"], complexity_min=0.5)))
    name = {"scope": ORG, "rule_id": made.rule_id}
    changed = await updated(
        router, router_pb2.Rule(**name, match=router_pb2.RuleMatch(tasks=["b"])), "match.tasks", "action.latency_ms_max"
    )
    assert (list(changed.match.tasks), changed.match.complexity_min) == (["b"], 0.5)
    assert not changed.action.HasField("latency_ms_max")
    assert (list(changed.action.models), changed.action.calls_max) == (["small", "large"], 5)
    cleared = await updated(router, router_pb2.Rule(**name), "match")
    assert cleared.match == router_pb2.RuleMatch()
    whole = await updated(router, rule(rule_id=made.rule_id, priority=2))
    assert (whole.priority, whole.action) == (2, rule().action)
    for paths, field in (
        (["version"], "update_mask"),
        (["action.colour"], "update_mask"),
        (["action"], "rule.action.strategy"),
    ):
        assert field in (await refused(updated(router, router_pb2.Rule(**name), *paths)))[1]


async def test_of_editors_who_read_the_same_version_one_writes_the_next_and_without_a_version_all_do(router: Any) -> None:
    made = await created(router)
    edits = [updated(router, rule(rule_id=made.rule_id, version=1, priority=number), "priority") for number in range(5)]
    results = await asyncio.gather(*edits, return_exceptions=True)
    assert sum(not isinstance(each, BaseException) for each in results) == 1
    stale = rule(rule_id=made.rule_id, version=1)
    reason, text = await refused(updated(router, stale, "priority"))
    assert (reason, "newest version" in text) == ("VERSION_CONFLICT", True)
    assert (await refused(deleted(router, made, version=1)))[0] == "VERSION_CONFLICT"
    tags = [router_pb2.Rule(scope=ORG, rule_id=made.rule_id, priority=number) for number in (1, 2, 3)]
    await asyncio.gather(*(updated(router, each, "priority") for each in tags))
    assert [each.version for each in await listed(router, rule_id=made.rule_id)] == [5, 4, 3, 2, 1]
    assert (await deleted(router, made, version=5)).version == 6


async def test_every_write_is_safe_to_repeat_and_an_id_is_good_for_one_body(router: Any) -> None:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    made = await created(router, request_id=ids[0])
    change = rule(rule_id=made.rule_id, priority=1)
    changed = await updated(router, change, "priority", request_id=ids[1])
    gone = await deleted(router, made, request_id=ids[2])
    assert await created(router, request_id=ids[0]) == made
    assert await updated(router, change, "priority", request_id=ids[1]) == changed
    assert await deleted(router, made, request_id=ids[2]) == gone
    assert await created(router, request_id=ids[0].upper()) == made
    for call in (
        created(router, rule(priority=7), request_id=ids[0]),
        updated(router, change, "display_name", request_id=ids[1]),
        updated(router, change, "priority", request_id=ids[0]),
        deleted(router, made, version=2, request_id=ids[2]),
    ):
        assert (await refused(call))[0] == "REQUEST_ID_REUSED"


async def test_case_28_a_rule_that_cannot_work_is_refused_and_not_kept(router: Any) -> None:
    action = router_pb2.RuleAction(strategy=CHEAPEST, models=["small", "lagre"])
    reason, text = await refused(created(router, rule(action=action)))
    assert "rule.action.models[1]: 'lagre' is not among the catalog's models" in text
    assert "rule.action.strategy" in (await refused(created(router, rule(action=router_pb2.RuleAction()))))[1]
    made = await created(router)
    wrong = rule(rule_id=made.rule_id, action=router_pb2.RuleAction(strategy=CHEAPEST, models=["x"]))
    assert "rule.action.models[0]" in (await refused(updated(router, wrong)))[1]
    assert await got(router, made) == made
    assert reason == "FIELD_INVALID"


async def test_rules_are_listed_in_the_order_in_which_they_are_tried(router: Any) -> None:
    low = await created(router, rule(priority=-1))
    high = await created(router, rule(priority=2, disabled=True))
    second = await created(router, rule(priority=2))
    below = await created(router, rule(SPACE, priority=-9))
    names = [each.rule_id for each in await listed(router, SPACE, page_size=2)]
    assert names == [below.rule_id, high.rule_id, second.rule_id, low.rule_id, "farthing.yaml/0"]
    assert [each.rule_id for each in await listed(router)] == names[1:]
    assert "page_token" in (await refused(router.ListRules(router_pb2.ListRulesRequest(scope=ORG, page_token="x"))))[1]


async def test_a_rule_of_the_file_is_read_and_changed_there_alone(router: Any) -> None:
    filed = (await listed(router))[0]
    assert (filed.rule_id, filed.scope, filed.version) == ("farthing.yaml/0", "", 1)
    assert await got(router, filed, scope=OTHER) == filed
    assert await listed(router, rule_id=filed.rule_id) == [filed]
    filed.scope = ORG
    for call in (updated(router, filed), deleted(router, filed)):
        assert "farthing.yaml: change it there" in (await refused(call))[1]


async def test_organisations_and_sister_scopes_do_not_see_one_anothers_rules(router: Any) -> None:
    mine, above = await created(router, rule(SPACE)), await created(router)
    assert await got(router, above, scope=SPACE) == above
    for scope in (OTHER, ORG, "organizations/acme/workspaces/x", f"{OTHER}/workspaces/w"):
        assert (await refused(got(router, mine, scope=scope)))[0] == "RULE_UNKNOWN"
        assert (await refused(got(router, mine, scope=scope, version=1)))[0] == "RULE_UNKNOWN"
        assert await listed(router, scope, rule_id=mine.rule_id) == []
        assert mine.rule_id not in [each.rule_id for each in await listed(router, scope)]
        stray = rule(scope, rule_id=mine.rule_id)
        assert (await refused(updated(router, stray)))[0] == "RULE_UNKNOWN"
        assert (await refused(deleted(router, stray)))[0] == "RULE_UNKNOWN"
    # Whoever may write below must not write above.
    assert (await refused(updated(router, rule(SPACE, rule_id=above.rule_id))))[0] == "RULE_UNKNOWN"
    assert (await refused(deleted(router, rule(SPACE, rule_id=above.rule_id))))[0] == "RULE_UNKNOWN"


def plan(prompt: str = "hello", scope: str = SPACE, **fields: Any) -> Any:
    messages = [chat_pb2.ChatMessage(role="user", content=prompt)]
    return router_pb2.PlanRouteRequest(scope=scope, messages=messages, input_tokens={"o200k": 10}, **fields)


async def test_a_rule_decides_at_once_where_it_applies_and_nowhere_else(router: Any) -> None:
    made = await created(router, rule(SPACE, display_name="here", match=router_pb2.RuleMatch(tags=["team:a"])))
    for scope, tags, strategy in ((SPACE, ["team:a"], "cheapest"), (SPACE, [], "cascade"), (OTHER, ["team:a"], "cascade")):
        route = (await router.PlanRoute(plan(scope=scope, tags=tags))).route
        assert (route.strategy, route.rule_id) == (strategy, made.rule_id if strategy == "cheapest" else "")
    filed = (await router.PlanRoute(plan(scope=OTHER, task="filed"))).route
    assert (filed.rule_id, [each.model for each in filed.candidates]) == ("farthing.yaml/0", ["large"])
    await updated(router, router_pb2.Rule(scope=SPACE, rule_id=made.rule_id, disabled=True), "disabled")
    assert (await router.PlanRoute(plan(tags=["team:a"]))).route.strategy == "cascade"
    # Nothing is kept of a request without a name, so nobody looks how hard its prompt is.
    assert (await router.PlanRoute(plan("Prove that 2 is irrational"))).route.complexity == 0
    named = plan("Prove that the square root of 2 is irrational", request_id=str(uuid.uuid4()))
    assert (await router.PlanRoute(named)).route.complexity > 0.5


async def test_an_explanation_has_the_route_the_rule_and_every_model(router: Any) -> None:
    made = await created(
        router, rule(SPACE, display_name="here", action=router_pb2.RuleAction(strategy=CHEAPEST, models=["small"]))
    )
    asked = plan("Prove that the square root of 2 is irrational")
    said = await router.ExplainRoute(router_pb2.ExplainRouteRequest(plan=asked))
    assert (said.rule, said.route.strategy, said.baseline_model) == (made, "cheapest", "large")
    assert (said.complexity > 0.5, said.complexity_reasons[0]) == (True, "proof")
    assert [(each.model, each.chosen) for each in said.considerations] == [("small", True), ("large", False)]
    assert said.considerations[1].reason == "is not among the rule's models"
    assert said.reason.startswith("small: cheapest; rule here")
    nobody = await router.ExplainRoute(router_pb2.ExplainRouteRequest(plan=plan(allowed_providers=["x"])))
    assert (nobody.HasField("route"), "provider p is not allowed" in nobody.reason) == (False, True)
    wrong = router.ExplainRoute(router_pb2.ExplainRouteRequest(plan=plan(model="ghost")))
    assert (await refused(wrong))[0] == "MODEL_UNKNOWN"


async def test_what_one_replica_writes_the_other_knows_after_an_interval_and_after_a_restart(
    hosted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARTHING_ROUTER_REFRESH_S", "0.05")
    async with hosted() as one, hosted() as two:
        made = await created(one)
        for _ in range(300):
            if len(found := await listed(two)) == 2:
                break
            await asyncio.sleep(0.01)
        assert found[0] == made
        assert (await updated(two, rule(rule_id=made.rule_id, version=1, priority=4), "priority")).version == 2
        assert (await deleted(one, made)).version == 3
    async with hosted() as stub:
        assert [each.rule_id for each in await listed(stub)] == ["farthing.yaml/0"]
        assert (await got(stub, made)).deleted


async def test_a_rule_whose_models_the_catalog_has_lost_stays_in_force_and_is_said_at_the_start(hosted: Any) -> None:
    async with hosted() as stub:
        made = await created(stub, rule(action=router_pb2.RuleAction(strategy=CHEAPEST, models=["small"])))
    with capture_logs() as lines:
        async with hosted(catalog=CATALOG.replace("  small:", "  renamed:")) as stub:
            reason, text = await refused(stub.PlanRoute(plan()))
            assert (reason, "is not among the rule's models" in text) == ("NO_CANDIDATE", True)
    problems = [line["problem"] for line in lines if line.get("rule_id") == made.rule_id]
    assert problems == ["rule.action.models[0]: 'small' is not among the catalog's models"]
