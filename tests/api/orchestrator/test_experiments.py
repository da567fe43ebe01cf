"""Experiments on real requests: harm stops one by itself, a good canary comes to serve everybody, and users stay where they are."""

from __future__ import annotations

import asyncio
import importlib.util
import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from farthing.budget.v1 import budget_pb2
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing.router.v1 import router_pb2, router_pb2_grpc

_spec = importlib.util.spec_from_file_location("orchestrator_suite", Path(__file__).parent / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_suite = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_suite)
TOKEN, refusal = _suite.TOKEN_USD_NANOS, _suite.refusal
ORG = "organizations/acme"
QUICK = {"FARTHING_ROUTER_REFRESH_S": "0.02"}
"""How soon what is seen is kept, looked at, and known to all."""
RUNNING, HARMFUL = router_pb2.EXPERIMENT_STATE_RUNNING, router_pb2.EXPERIMENT_STATE_STOPPED_FOR_HARM
CANARY, AB, SHADOW = (router_pb2.ExperimentKind.Value(f"EXPERIMENT_KIND_{name}") for name in ("CANARY", "AB", "SHADOW"))
ERROR_RATE, COST = router_pb2.EXPERIMENT_METRIC_ERROR_RATE, router_pb2.EXPERIMENT_METRIC_COST
Arm = router_pb2.ExperimentArm


class Lab:
    """A desk with experiments."""

    def __init__(self, at: Any, channel_of: Callable[[str], Any]) -> None:
        self.at = at
        self.router = router_pb2_grpc.RouterServiceStub(channel_of("router"))

    async def begin(self, kind: Any, **fields: Any) -> str:
        """Begins an experiment between the dear model and the cheap one; its name."""
        share = 0.0 if kind == CANARY else 0.5
        arms = [
            Arm(name="usual", model="dear", share=0.0 if kind == SHADOW else share),
            Arm(name="new", model="cheap", share=share),
        ]
        given = {"scope": ORG, "kind": kind, "arms": arms, "metric": ERROR_RATE, **fields}
        request = router_pb2.CreateExperimentRequest(request_id=str(uuid.uuid4()), experiment=router_pb2.Experiment(**given))
        return str((await self.router.CreateExperiment(request)).experiment.experiment_id)

    async def standing(self, name: str) -> Any:
        """An experiment with its results."""
        return (await self.router.GetExperiment(router_pb2.GetExperimentRequest(scope=ORG, experiment_id=name))).experiment

    async def until(self, name: str, holds: Callable[[Any], bool]) -> Any:
        """An experiment, once something holds of it."""
        async with asyncio.timeout(20):
            while not holds(found := await self.standing(name)):
                await asyncio.sleep(0.02)
        return found

    async def complete(self, user: int, organization: str = ORG) -> Any:
        """The answer to a user who leaves the model open."""
        scope = f"{organization}/workspaces/w/projects/p/users/u{user}"
        return await self.at.orchestrator.Complete(self.at.ask(model="", scope=scope))

    async def model_of(self, user: int, organization: str = ORG) -> str:
        """Who answers a user; empty where nobody does."""
        try:
            return str((await self.complete(user, organization)).model)
        except Exception:
            return ""


@pytest.fixture
def lab(api: Any, tmp_path: Path) -> Callable[..., Any]:
    """Hosts the suite on an Upstream: `async with lab() as at:`."""

    @asynccontextmanager
    async def host(**environment: str) -> Any:
        async with (
            _suite.serving_upstream(tmp_path) as (upstream, path),
            api(*_suite.EVERYTHING, config_file=path, environment={**QUICK, **environment}) as channel_of,
        ):
            yield Lab(_suite.Desk(channel_of, upstream), channel_of)

    return host


async def test_an_arm_that_fails_is_stopped_by_itself_and_all_requests_go_back(lab: Any) -> None:
    async with lab() as at:
        at.at.upstream.script["cheap"] = "drop"
        name = await at.begin(CANARY, canary_shares=[0.5, 1.0])
        asked = 0
        while (await at.standing(name)).state == RUNNING:
            await asyncio.gather(*(at.model_of(asked + number) for number in range(20)))
            asked += 20
            assert asked <= 400
        ended = await at.standing(name)
        assert ended.state == HARMFUL
        assert "new does harm: its error rate" in ended.state_reason
        assert {each.share for each in ended.results} == {0.0}
        scopes = [f"{ORG}/workspaces/w/projects/p/users/u{user}" for user in range(20)]
        assert not any([(await at.router.PlanRoute(plan_of(scope))).route.experiment_id for scope in scopes])
        assert "" not in await asyncio.gather(*(at.model_of(user) for user in range(20)))


async def test_a_good_canary_comes_to_serve_everybody_and_no_user_ever_goes_back(lab: Any) -> None:
    async with lab() as at:
        name = await at.begin(CANARY, canary_shares=[0.2, 0.5, 1.0], requests_max=1_000)
        had: dict[int, list[str]] = {user: [] for user in range(60)}
        found = await at.standing(name)
        while found.winner != "new":
            assert found.state == RUNNING, found.state_reason
            for user, model in enumerate(await asyncio.gather(*(at.model_of(user) for user in had))):
                had[user].append(model)
            asked = sum(map(len, had.values()))
            found = await at.until(name, lambda each, asked=asked: sum(arm.requests for arm in each.results) >= asked)
        assert (found.state, [each.share for each in found.results]) == (RUNNING, [0.0, 1.0])
        for models in had.values():
            assert models == sorted(models, key=("dear", "cheap").index)
        # It serves everybody until somebody ends it, whatever it was given as requests_max.
        for start in range(100, 1_100, 50):
            assert set(await asyncio.gather(*(at.model_of(user) for user in range(start, start + 50)))) == {"cheap"}
        await at.until(name, lambda each: sum(arm.requests for arm in each.results) > 1_000)
        assert (await at.standing(name)).state == RUNNING


async def test_users_of_an_a_b_experiment_stay_with_their_arm_and_other_organisations_take_no_part(lab: Any) -> None:
    async with lab() as at:
        name = await at.begin(AB)
        rounds = [await asyncio.gather(*(at.model_of(user) for user in range(30))) for _ in range(3)]
        assert rounds[0] == rounds[1] == rounds[2]
        assert set(rounds[0]) == {"cheap", "dear"}
        found = await at.until(name, lambda each: sum(arm.requests for arm in each.results) == 90)
        assert {each.name: each.requests for each in found.results} == {
            "usual": 3 * rounds[0].count("dear"),
            "new": 3 * rounds[0].count("cheap"),
        }
        usual = await at.complete(1, "organizations/other")
        planned = await at.router.PlanRoute(plan_of("organizations/other/workspaces/w/projects/p/users/u1"))
        assert usual.receipt.attempts[0].model == "cheap"
        assert not planned.route.experiment_id
        await at.router.StopExperiment(router_pb2.StopExperimentRequest(scope=ORG, experiment_id=name))
        assert not (await at.router.PlanRoute(plan_of(f"{ORG}/workspaces/w"))).route.experiment_id


async def test_what_an_arm_on_trial_answers_is_kept_for_nobody(lab: Any) -> None:
    async with lab() as at:
        await at.begin(AB)
        exact = orchestrator_pb2.PolicyOverrides(cache_mode=orchestrator_pb2.CACHE_MODE_EXACT)
        notes: dict[str, str] = {}
        for user, model in enumerate(await asyncio.gather(*(at.model_of(user) for user in range(20)))):
            if model not in notes:
                # Each asks for something else, so that nobody is served what the other bought.
                scope = f"{ORG}/workspaces/w/projects/p/users/u{user}"
                asked = at.at.ask(model="", scope=scope, overrides=exact, tokens_max=100 + user)
                receipt = (await at.at.orchestrator.Complete(asked)).receipt
                notes[model] = next(each.note for each in receipt.steps if each.name == orchestrator_pb2.STEP_NAME_REMEMBER)
        assert "on trial" in notes["cheap"]
        assert "on trial" not in notes["dear"]


def plan_of(scope: str) -> Any:
    """What is asked of the planner for a scope."""
    request = router_pb2.PlanRouteRequest(scope=scope, request_id=str(uuid.uuid4()), task="chat")
    request.messages.add(role="user", content="speak")
    return request


async def test_a_shadow_never_changes_what_is_heard_and_is_charged_and_compared(lab: Any) -> None:
    async with lab() as at:
        at.at.upstream.script |= {"dear": 30, "cheap": 60}
        name = await at.begin(
            SHADOW, arms=[Arm(name="usual", model="dear"), Arm(name="new", model="cheap", share=1.0)], metric=COST
        )
        for user in range(30):
            answers = await asyncio.gather(*(at.complete(user) for _ in range(2)))
            for answered in answers:
                assert (answered.model, answered.answer.content) == ("dear", at.at.upstream.text * 30)
                assert answered.receipt.cost_usd_nanos == 30 * TOKEN
                notes = [step.note for step in answered.receipt.steps if step.name == orchestrator_pb2.STEP_NAME_SHADOW]
                assert notes == ["experiment: cheap"]
        found = await at.until(name, lambda each: each.results[1].requests == 60)
        rows: Any = ()
        async with asyncio.timeout(10):
            while sum(row.attempts for row in rows) < 120:
                rows = await at.at.usage(group_by=[budget_pb2.USAGE_GROUP_MODEL])
        charged = {row.model: (row.requests, row.cost_usd_nanos) for row in rows}
        assert charged == {"cheap": (0, 60 * 6 * TOKEN), "dear": (60, 60 * 30 * TOKEN)}
        assert found.results[1].difference.value == pytest.approx(6 / 30 - 1)
        # It is surely cheaper, but nobody is sure yet that it is no worse.
        assert found.results[1].difference.upper < 0
        assert (found.state, found.winner) == (RUNNING, "")


async def test_what_people_think_of_answers_counts_for_their_arm(lab: Any) -> None:
    async with lab() as at:
        name = await at.begin(AB, metric=router_pb2.EXPERIMENT_METRIC_QUALITY)
        requests = [at.at.ask(model="", scope=f"{ORG}/workspaces/w/projects/p/users/u{user}") for user in range(20)]
        answers = await asyncio.gather(*(at.at.orchestrator.Complete(each) for each in requests))
        for request, answered in zip(requests, answers, strict=True):
            await at.router.RecordFeedback(
                router_pb2.RecordFeedbackRequest(
                    request_id=str(uuid.uuid4()),
                    scope=request.scope,
                    answered_request_id=request.request_id,
                    score=1.0 if answered.model == "dear" else 0.25,
                )
            )
        found = await at.until(name, lambda each: sum(arm.quality_answers for arm in each.results) == 20)
        found = await at.until(name, lambda each: each.results[1].quality.value == pytest.approx(0.25))
        assert found.results[0].quality.value == pytest.approx(1.0)
        assert found.results[1].difference.value == pytest.approx(-0.75)


async def test_what_one_replica_begins_and_ends_the_others_follow(lab: Any, suite: Any, tmp_path: Path) -> None:
    async with lab() as at, suite("router", config_file=tmp_path / "farthing.yaml", environment=QUICK) as other:
        second = router_pb2_grpc.RouterServiceStub(other.mesh.channel("router"))
        name = await at.begin(AB, arms=[Arm(name="usual", model="dear", share=0.5), Arm(name="new", model="cheap", share=0.5)])
        scopes = [f"{ORG}/workspaces/w/projects/p/users/u{number}" for number in range(20)]

        async def arms(router: Any) -> list[str]:
            return [(await router.PlanRoute(plan_of(scope))).route.arm for scope in scopes]

        async with asyncio.timeout(10):
            while await arms(second) != await arms(at.router):
                await asyncio.sleep(0.02)
        assert set(await arms(second)) == {"usual", "new"}
        await at.router.StopExperiment(router_pb2.StopExperimentRequest(scope=ORG, experiment_id=name))
        assert set(await arms(at.router)) == {""}
        async with asyncio.timeout(10):
            while set(await arms(second)) != {""}:
                await asyncio.sleep(0.02)
