"""What a calibration decides offline is what the whole suite serves, to the nano; and what is seen of it while it does."""

from __future__ import annotations

import asyncio
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.calibration.policy import FittedPolicy
from farthing_runtime.replay.answers import Recorded, Recordings
from farthing_runtime.replay.server import running_replay

SCOPE = "organizations/acme/workspaces/maths"
EVERYTHING = ("budget", "cache", "optimizer", "router", "privacy", "orchestrator")
TOKENS = (20, 12)
COSTS = {"small": 20 * 100 + 12 * 200, "other": 20 * 100 + 12 * 300, "big": 20 * 5_000 + 12 * 15_000}
CATALOG = """\
version: 1
providers: {{replay: {{base_url: "{url}", api_key_optional: true, retries: 1}}}}
models:
  small: {{provider: replay, price: {{input_usd_per_million_tokens: "0.1", output_usd_per_million_tokens: "0.2"}}}}
  other: {{provider: replay, price: {{input_usd_per_million_tokens: "0.1", output_usd_per_million_tokens: "0.3"}}}}
  big: {{provider: replay, price: {{input_usd_per_million_tokens: "5", output_usd_per_million_tokens: "15"}}}}
routing:
  baseline_model: big
  cascades: [{{steps: [small, big]}}]
  drift_checks: {{share: {share}, on_drift: {on_drift}}}
policy: {{cache: {{mode: "off"}}}}
"""


@dataclass
class Desk:
    """A whole suite, and what it was calibrated with."""

    orchestrator: Any
    router: Any
    database_url: str

    async def calibrate(self, examples: list[Any], **fields: Any) -> Any:
        """Calibrates and puts it in force; the calibration."""
        given = {
            "request_id": str(uuid.uuid4()),
            "scope": "organizations/acme",
            "opening_models": ["small", "other"],
            "strong_model": "big",
            "saving_min": 0.3,
            "activate": True,
        }
        spec = router_pb2.CalibrateCascadeRequest(spec=router_pb2.CalibrationSpec(**{**given, **fields}))
        part = router_pb2.CalibrateCascadeRequest.Examples(examples=examples)
        return (await self.router.CalibrateCascade([spec, router_pb2.CalibrateCascadeRequest(examples=part)])).calibration

    async def policy(self, calibration_id: str) -> FittedPolicy:
        """The artefact of a calibration, as it is kept."""
        connection = await asyncpg.connect(self.database_url)
        try:
            query = "SELECT policy FROM router.calibrations WHERE calibration_id::text = $1"
            return FittedPolicy.from_json(zlib.decompress(await connection.fetchval(query, calibration_id)))
        finally:
            await connection.close()

    async def ask(self, prompt: str) -> Any:
        """The answer to a prompt, with its receipt."""
        request = orchestrator_pb2.CompleteRequest(request_id=str(uuid.uuid4()), scope=SCOPE)
        request.messages.add(role="user", content=prompt)
        return await self.orchestrator.Complete(request)

    async def stream(self, prompt: str) -> Any:
        """The end of a streamed answer to a prompt."""
        request = orchestrator_pb2.CompleteRequest(request_id=str(uuid.uuid4()), scope=SCOPE)
        request.messages.add(role="user", content=prompt)
        events = self.orchestrator.StreamComplete(orchestrator_pb2.StreamCompleteRequest(request=request))
        text, end = "", None
        async for event in events:
            if event.WhichOneof("event") == "delta":
                text += event.delta.content
            else:
                end = event.finished
        assert end is not None
        assert end.answer.content == text
        return end

    async def calibration(self, calibration_id: str) -> Any:
        """A calibration, with how it stands."""
        request = router_pb2.GetCalibrationRequest(scope="organizations/acme", calibration_id=calibration_id)
        return (await self.router.GetCalibration(request)).calibration

    async def stands(self, calibration_id: str, enough: Callable[[Any], bool]) -> Any:
        """How it stands, once enough was seen."""
        async with asyncio.timeout(60):
            while not enough((await self.calibration(calibration_id)).drift):
                await asyncio.sleep(0.05)
        return (await self.calibration(calibration_id)).drift


@pytest.fixture
def desk(suite: Any, tmp_path: Path) -> Any:
    """Hosts the suite on sums: `async with desk(made, share=0.5) as at:`."""

    @asynccontextmanager
    async def host(made: list[Any], *, share: float = 0.0, on_drift: str = "warn") -> AsyncIterator[Desk]:
        recorded = [Recorded(model, each.prompt, text, *TOKENS) for each in made for model, (text, _) in each.said.items()]
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(running_replay(Recordings(recorded)))
            path = tmp_path / "farthing.yaml"
            path.write_text(CATALOG.format(url=url, share=share, on_drift=on_drift))
            environment = {"FARTHING_ROUTER_REFRESH_S": "0.1"}
            running = await stack.enter_async_context(suite(*EVERYTHING, config_file=path, environment=environment))
            yield Desk(
                orchestrator_pb2_grpc.OrchestratorServiceStub(running.mesh.channel("orchestrator")),
                router_pb2_grpc.RouterServiceStub(running.mesh.channel("router")),
                running.database_url,
            )

    return host


def offline(policy: FittedPolicy, prompt: str, said: Mapping[str, tuple[str, bool]]) -> tuple[str, bool, int]:
    """What a policy serves, whether it escalates, and what that costs, by recorded answers."""

    def bought(models: Sequence[str]) -> dict[str, BoughtAnswer]:
        return {model: BoughtAnswer(text=said[model][0], output_tokens=TOKENS[1]) for model in models}

    first = policy.decide(prompt, bought(policy.opening))
    models = (*policy.opening, *first.buy)
    last = policy.decide(prompt, bought(models)) if first.buy else first
    return str(last.chosen), bool(first.buy), sum(COSTS[model] for model in models)


def online(answered: Any) -> tuple[str, bool, int]:
    return answered.model, answered.receipt.escalated, answered.receipt.cost_usd_nanos


async def test_receipts_say_what_the_policy_says_offline_to_the_nano(desk: Any, sums: Any, examples_of: Any) -> None:
    labelled, asked = sums(120), sums(40, seed=2)
    async with desk(asked) as at:
        before = await at.ask(asked[0].prompt)
        made = await at.calibrate(examples_of(labelled, costs=COSTS))
        policy = await at.policy(made.calibration_id)
        expected = [offline(policy, each.prompt, each.said) for each in asked]
        answered = [await at.ask(each.prompt) for each in asked]
        assert [online(each) for each in answered] == expected
        assert {escalated for _, escalated, _ in expected} == {True, False}
        assert len(before.receipt.attempts) < 3
        for each, (served, _, cost) in zip(answered, expected, strict=True):
            (accepted,) = [
                attempt for attempt in each.receipt.attempts if attempt.outcome == router_pb2.ATTEMPT_OUTCOME_ACCEPTED
            ]
            assert accepted.model == served
            assert sum(attempt.cost_usd_nanos for attempt in each.receipt.attempts) == cost
            assert any(attempt.HasField("expected_gain") for attempt in each.receipt.attempts)
        streamed = [await at.stream(each.prompt) for each in asked[:8]]
        assert [online(each) for each in streamed] == expected[:8]


async def test_a_sample_is_checked_against_the_strong_model_and_what_it_answered_itself_is_not_bought_twice(
    desk: Any, sums: Any, examples_of: Any
) -> None:
    labelled, asked = sums(120), sums(12, seed=3)
    async with desk(asked, share=1.0) as at:
        made = await at.calibrate(examples_of(labelled, costs=COSTS))
        answered = [await at.ask(each.prompt) for each in asked]
        escalated = sum(each.receipt.escalated for each in answered)
        assert 0 < escalated < len(asked)
        drift = await at.stands(made.calibration_id, lambda seen: seen.decisions == len(asked) and seen.checked >= escalated)
        assert drift.state == "watching"
        assert drift.escalated_share.value == pytest.approx(escalated / len(asked))
        decisions = await at.router.ListDecisions(router_pb2.ListDecisionsRequest(scope="organizations/acme"))
        shadows = [each for each in decisions.decisions if each.shadow_of]
        assert all(each.served_model == "big" for each in shadows)
        async with asyncio.timeout(30):
            while len(shadows) < len(asked) - escalated:
                await asyncio.sleep(0.1)
                decisions = await at.router.ListDecisions(router_pb2.ListDecisionsRequest(scope="organizations/acme"))
                shadows = [each for each in decisions.decisions if each.shadow_of]
        assert len(shadows) == len(asked) - escalated
