"""Experiments through the router's stub: begun, read, listed, ended."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.status import error_info, rich_status
from google.protobuf.timestamp_pb2 import Timestamp

CATALOG = """\
version: 1
providers: {p: {base_url: "http://127.0.0.1:9/v1", api_key_optional: true}}
models:
  small: {provider: p, price: {input_usd_per_million_tokens: "1", output_usd_per_million_tokens: "2"}}
  large: {provider: p, price: {input_usd_per_million_tokens: "10", output_usd_per_million_tokens: "20"}}
"""
ORG, SPACE, OTHER = "organizations/acme", "organizations/acme/workspaces/w", "organizations/other"
AB, SHADOW, CANARY = (router_pb2.ExperimentKind.Value(f"EXPERIMENT_KIND_{name}") for name in ("AB", "SHADOW", "CANARY"))
RUNNING, STOPPED = router_pb2.EXPERIMENT_STATE_RUNNING, router_pb2.EXPERIMENT_STATE_STOPPED
Arm = router_pb2.ExperimentArm


@pytest.fixture
async def router(api: Any, tmp_path: Path) -> AsyncIterator[Any]:
    path = tmp_path / "farthing.yaml"
    path.write_text(CATALOG)
    async with api("router", config_file=path) as channel_of:
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


def experiment(scope: str = ORG, **fields: Any) -> Any:
    usual = {
        "scope": scope,
        "kind": AB,
        "arms": [Arm(name="usual", as_usual=True, share=0.5), Arm(name="small", model="small", share=0.5)],
        "metric": router_pb2.EXPERIMENT_METRIC_COST,
    }
    return router_pb2.Experiment(**{**usual, **fields})


def canary(**fields: Any) -> Any:
    arms = [Arm(name="usual", as_usual=True), Arm(name="small", model="small")]
    return experiment(**{"kind": CANARY, "arms": arms, **fields})


async def created(router: Any, given: Any = None, request_id: str = "") -> Any:
    request = router_pb2.CreateExperimentRequest(request_id=request_id or str(uuid.uuid4()), experiment=given or experiment())
    return (await router.CreateExperiment(request)).experiment


async def refused(call: Any) -> tuple[str, dict[str, str]]:
    """The reason of a refusal, and its facts."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rich_status(caught.value)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return info.reason, dict(info.metadata)


async def test_an_experiment_begins_with_its_defaults_and_says_how_its_arms_do(router: Any) -> None:
    made = await created(router, canary())
    assert (made.state, made.harm_max, made.confidence, made.requests_max, made.sticky) == (
        RUNNING,
        0.02,
        0.95,
        100_000,
        "user",
    )
    assert list(made.canary_shares) == [0.01, 0.05, 0.2, 0.5, 1.0]
    assert [(each.name, each.requests, each.p_value, each.share) for each in made.results] == [
        ("usual", 0, 1.0, 0.99),
        ("small", 0, 1.0, 0.01),
    ]
    assert made.create_time.seconds > 0
    read = await router.GetExperiment(router_pb2.GetExperimentRequest(scope=ORG, experiment_id=made.experiment_id))
    assert read.experiment == made


async def test_every_kind_of_arm_is_kept_as_it_was_given(router: Any) -> None:
    action = router_pb2.RuleAction(strategy=router_pb2.RULE_STRATEGY_QUALITY, models=["small", "large"], quality_min=0.5)
    arms = [
        Arm(name="usual", as_usual=True, share=0.2),
        Arm(name="rule", action=action, share=0.3),
        Arm(name="m", model="large", share=0.1),
    ]
    made = await created(router, experiment(arms=arms, task="chat", display_name="three ways", sticky="session"))
    assert (list(made.arms), made.task, made.display_name, made.sticky) == (arms, "chat", "three ways", "session")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"arms": [Arm(name="a", model="small", share=0.5), Arm(name="b", model="gone", share=0.5)]}, "arms[1].model"),
        ({"arms": [Arm(name="a", model="small", share=0.5), Arm(name="a", model="large", share=0.5)]}, "arms[1].name"),
        ({"arms": [Arm(name="a", model="small", share=0.5), Arm(name="b", model="small", share=0.2)]}, "arms[1]"),
        ({"arms": [Arm(name="a", as_usual=True, share=0.7), Arm(name="b", model="small", share=0.5)]}, "arms"),
        ({"arms": [Arm(name="a", as_usual=True, share=0.7), Arm(name="b", model="small")]}, "arms[1].share"),
        (
            {"arms": [Arm(name="a", as_usual=True, share=0.5), Arm(name="b", calibration_id="c", share=0.5)]},
            "arms[1].calibration_id",
        ),
        (
            {
                "arms": [
                    Arm(name="a", as_usual=True, share=0.5),
                    Arm(
                        name="b",
                        action=router_pb2.RuleAction(strategy=router_pb2.RULE_STRATEGY_CHEAPEST, models=["x"]),
                        share=0.5,
                    ),
                ]
            },
            "arms[1].action.models[0]",
        ),
        ({"confidence": 0.3}, "confidence"),
        ({"canary_shares": [0.5]}, "canary_shares"),
        ({"end_time": Timestamp(seconds=1)}, "end_time"),
        ({"kind": CANARY}, "arms[0].share"),
        ({"kind": SHADOW, "arms": [Arm(name="a", as_usual=True), Arm(name="b", model="small")]}, "arms[1].share"),
    ],
)
async def test_what_cannot_work_is_refused_naming_its_field(router: Any, fields: dict[str, Any], field: str) -> None:
    request = router_pb2.CreateExperimentRequest(request_id=str(uuid.uuid4()), experiment=experiment(**fields))
    reason, facts = await refused(router.CreateExperiment(request))
    assert (reason, facts["field"]) == ("FIELD_INVALID", f"experiment.{field}")


async def test_a_canary_grows_and_has_two_arms(router: Any) -> None:
    for fields, field in (
        ({"canary_shares": [0.2, 0.1]}, "canary_shares[1]"),
        ({"arms": [*canary().arms, Arm(name="c", model="large")]}, "arms"),
    ):
        request = router_pb2.CreateExperimentRequest(request_id=str(uuid.uuid4()), experiment=canary(**fields))
        assert (await refused(router.CreateExperiment(request)))[1]["field"] == f"experiment.{field}"


async def test_one_runs_on_the_same_requests_and_another_once_it_was_stopped(router: Any) -> None:
    first = await created(router)
    request = router_pb2.CreateExperimentRequest(request_id=str(uuid.uuid4()), experiment=experiment(SPACE, task="chat"))
    reason, facts = await refused(router.CreateExperiment(request))
    assert (reason, facts["experiment_id"]) == ("EXPERIMENT_OVERLAPS", first.experiment_id)
    await created(router, experiment(OTHER))
    stop = router_pb2.StopExperimentRequest(scope=ORG, experiment_id=first.experiment_id, reason="the launch")
    ended = (await router.StopExperiment(stop)).experiment
    assert (ended.state, ended.state_reason) == (STOPPED, "stopped by hand: the launch")
    assert {each.share for each in ended.results} == {0.0}
    assert (await router.StopExperiment(stop)).experiment == ended
    await router.CreateExperiment(request)


async def test_the_same_request_again_changes_nothing_and_another_body_is_refused(router: Any) -> None:
    request_id = str(uuid.uuid4())
    made = await asyncio.gather(*(created(router, request_id=request_id) for _ in range(4)))
    assert len({each.experiment_id for each in made}) == 1
    other = router_pb2.CreateExperimentRequest(request_id=request_id, experiment=experiment(SPACE))
    assert (await refused(router.CreateExperiment(other)))[0] == "REQUEST_ID_REUSED"


async def test_lists_are_of_a_scope_and_all_below_page_by_page(router: Any) -> None:
    made = [(await created(router, experiment(f"{ORG}/workspaces/w{number}"))).experiment_id for number in range(5)]
    await created(router, experiment(OTHER))
    names, token = [], ""
    while True:
        page = await router.ListExperiments(router_pb2.ListExperimentsRequest(scope=ORG, page_size=2, page_token=token))
        names += [each.experiment_id for each in page.experiments]
        token = page.next_page_token
        if not token:
            break
    assert names == made[::-1]
    await router.StopExperiment(router_pb2.StopExperimentRequest(scope=ORG, experiment_id=made[1]))
    stopped = await router.ListExperiments(router_pb2.ListExperimentsRequest(scope=ORG, state=STOPPED))
    assert [each.experiment_id for each in stopped.experiments] == [made[1]]
    bad = router_pb2.ListExperimentsRequest(scope=ORG, page_token="½")
    assert (await refused(router.ListExperiments(bad)))[1]["field"] == "page_token"


@pytest.mark.parametrize("scope", [OTHER, f"{ORG}/workspaces/elsewhere", f"{SPACE}/projects/p"])
async def test_nobody_reads_or_stops_what_is_not_in_their_scope(router: Any, scope: str) -> None:
    made = await created(router, experiment(SPACE, end_time=_in_a_day()))
    for call in (
        router.GetExperiment(router_pb2.GetExperimentRequest(scope=scope, experiment_id=made.experiment_id)),
        router.StopExperiment(router_pb2.StopExperimentRequest(scope=scope, experiment_id=made.experiment_id)),
        router.GetExperiment(router_pb2.GetExperimentRequest(scope=scope, experiment_id=str(uuid.uuid4()))),
    ):
        assert (await refused(call))[0] == "EXPERIMENT_UNKNOWN"
    listed = await router.ListExperiments(router_pb2.ListExperimentsRequest(scope=scope))
    assert not listed.experiments
    assert (
        await router.GetExperiment(router_pb2.GetExperimentRequest(scope=ORG, experiment_id=made.experiment_id))
    ).experiment == made


def _in_a_day() -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    return stamp
