"""Whether the whole suite serves what a calibration decides: receipts against the policy offline, to the nano, on recorded answers.

python -m evals.routing_served --data DIR [--requests 150]: calibrates through the RPC on one part of ZEROEVAL's answers, puts the
calibration in force, and sends prompts of the other part through the orchestrator to a replay server. Prompts are left as they are, so that
both sides read the same. `served_as_fitted` runs it for other evals.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import uuid
import zlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import yaml
from farthing.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_router.calibration.examples import Example
from farthing_router.calibration.policy import FittedPolicy
from farthing_runtime.catalog import targets_named
from farthing_runtime.hosting import running_suite
from farthing_runtime.replay.answers import Recorded, Recordings
from farthing_runtime.replay.server import running_replay
from farthing_runtime.settings import HostSettings

from evals.report import print_figures, print_table
from evals.routing_data import read_zeroeval
from evals.routing_tracks import ZEROEVAL

_SCOPE = "organizations/served"
_TARGETS = ("budget", "cache", "optimizer", "router", "privacy", "orchestrator")
_PART = 100
_LABELS = 600
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Served:
    """What came of it: requests, those whose receipt differs from the policy, the bill by receipts and by the policy, and how many of the
    served answers are right, out of a hundred, against the strong model's."""

    requests: int
    differing: int
    receipts_usd_nanos: int
    policy_usd_nanos: int
    bill_pct: float
    accuracy: float
    strong_accuracy: float


async def served_as_fitted(examples: Sequence[Example], *, requests: int) -> Served:
    """Calibrates on the first examples that have every answer, and serves the next."""
    models = ZEROEVAL.opening + ZEROEVAL.strong
    whole = [each for each in examples if all(model in each.answers for model in models) and _plain(each.prompt)]
    labelled, asked = whole[:_LABELS], whole[_LABELS : _LABELS + requests]
    recorded = Recordings(_recorded(each, model) for each in asked for model in models)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="farthing-served-")))
        url = await stack.enter_async_context(running_replay(recorded))
        (folder / "farthing.yaml").write_text(yaml.safe_dump(_config(url, models)))
        settings = HostSettings(
            data_dir=folder / "data",
            config_file=folder / "farthing.yaml",
            grpc_port=0,
            log_level="warning",
            shutdown_grace_s=1.0,
        )
        suite = await stack.enter_async_context(running_suite(settings, targets_named(_TARGETS)))
        router = router_pb2_grpc.RouterServiceStub(suite.mesh.channel("router"))
        made = await _calibrate(router, labelled)
        policy = await _policy(suite.database_url, made.calibration_id)
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(suite.mesh.channel("orchestrator"))
        return _compared(asked, await _ask_all(stub, asked), policy)


def _plain(prompt: str) -> bool:
    return bool(prompt.strip()) and len(prompt) < 6_000


def _recorded(each: Example, model: str) -> Recorded:
    answer = each.answers[model]
    return Recorded(model, each.prompt, answer.text, max(1, answer.input_tokens or 0), max(1, answer.output_tokens or 0))


def _config(url: str, models: Sequence[str]) -> dict[str, Any]:
    return {
        "version": 1,
        "providers": {"replay": {"base_url": url, "api_key_optional": True, "retries": 0}},
        "models": {
            model: {
                "provider": "replay",
                "output_tokens_max": 1_000_000,
                "context_window_tokens": 10_000_000,
                "price": dict(
                    zip(("input_usd_per_million_tokens", "output_usd_per_million_tokens"), _PRICES[model], strict=True)
                ),
            }
            for model in models
        },
        "routing": {"baseline_model": ZEROEVAL.strong[0], "output_tokens_default": 1_000_000, "drift_checks": {"share": 0}},
        "policy": {"cache": {"mode": "off"}, "prompt": {"level": "off"}, "privacy": {"mask": False}},
    }


_PRICES = {
    "gemini-1.5-flash": ("0.075", "0.30"),
    "gpt-4o-mini-2024-07-18": ("0.15", "0.60"),
    "gpt-4o-2024-08-06": ("2.50", "10"),
    "claude-3-5-sonnet-20241022": ("3", "15"),
}


async def _calibrate(router: Any, labelled: Sequence[Example]) -> Any:
    spec = router_pb2.CalibrationSpec(
        request_id=str(uuid.uuid4()),
        scope=_SCOPE,
        opening_models=ZEROEVAL.opening,
        strong_model=ZEROEVAL.strong[0],
        alternative_models=ZEROEVAL.strong[1:],
        saving_min=0.6,
        activate=True,
    )
    messages = [router_pb2.CalibrateCascadeRequest(spec=spec)]
    for start in range(0, len(labelled), _PART):
        part = router_pb2.CalibrateCascadeRequest.Examples(
            examples=[_example(each) for each in labelled[start : start + _PART]]
        )
        messages.append(router_pb2.CalibrateCascadeRequest(examples=part))
    return (await router.CalibrateCascade(messages, timeout=3600)).calibration


def _example(each: Example) -> Any:
    answers = [
        router_pb2.ExampleAnswer(
            model=model,
            text=answer.text,
            score=answer.score,
            input_tokens=answer.input_tokens or 0,
            output_tokens=answer.output_tokens or 0,
        )
        for model, answer in each.answers.items()
        if model in ZEROEVAL.opening + ZEROEVAL.strong
    ]
    return router_pb2.CalibrationExample(prompt=each.prompt, answers=answers)


async def _policy(database_url: str, calibration_id: str) -> FittedPolicy:
    connection = await asyncpg.connect(database_url)
    try:
        query = "SELECT policy FROM router.calibrations WHERE calibration_id::text = $1"
        return FittedPolicy.from_json(zlib.decompress(await connection.fetchval(query, calibration_id)))
    finally:
        await connection.close()


async def _ask_all(stub: Any, asked: Sequence[Example]) -> list[Any]:
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(each: Example) -> Any:
        async with turns:
            request = orchestrator_pb2.CompleteRequest(request_id=str(uuid.uuid4()), scope=f"{_SCOPE}/workspaces/w")
            request.messages.add(role="user", content=each.prompt)
            return await stub.Complete(request)

    return await asyncio.gather(*(ask(each) for each in asked))


def _compared(asked: Sequence[Example], answered: Sequence[Any], policy: FittedPolicy) -> Served:
    differing = receipts = expected = bill = 0
    right = strong = 0.0
    for each, answer in zip(asked, answered, strict=True):
        answers = {model: each.answers[model] for model in policy.opening}
        decision = policy.decide(each.prompt, answers)
        if decision.buy:
            answers |= {model: each.answers[model] for model in decision.buy}
            decision = policy.decide(each.prompt, answers)
        cost = sum(_cost(each, model) for model in answers)
        differing += (answer.model, answer.receipt.cost_usd_nanos) != (decision.chosen, cost)
        receipts += answer.receipt.cost_usd_nanos
        expected += cost
        bill += _cost(each, policy.strong[0])
        right += each.answers[answer.model].score
        strong += each.answers[policy.strong[0]].score
    count = len(asked)
    return Served(count, differing, receipts, expected, 100 * receipts / bill, 100 * right / count, 100 * strong / count)


def _cost(each: Example, model: str) -> int:
    """What a call costs, rounded up once, as the router charges it."""
    recorded, rates = _recorded(each, model), [round(float(rate) * 1_000) for rate in _PRICES[model]]
    return recorded.input_tokens * rates[0] + recorded.output_tokens * rates[1]


def main() -> None:
    """Prints how far receipts and the policy differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=150)
    arguments = parser.parse_args()
    examples = read_zeroeval(arguments.data)
    if examples is None:
        raise SystemExit(f"{arguments.data} has no ZeroEval answers")
    found = asyncio.run(served_as_fitted(examples, requests=arguments.requests))
    rows = [
        ("requests", str(found.requests)),
        ("receipts that differ from the policy", str(found.differing)),
        ("bill by receipts / by the policy, nanodollars", f"{found.receipts_usd_nanos} / {found.policy_usd_nanos}"),
        ("share of the strong model's bill", f"{found.bill_pct:.1f} %"),
        ("right, against the strong model's", f"{found.accuracy:.1f} % / {found.strong_accuracy:.1f} %"),
    ]
    print_table(("served", ""), rows)
    print_figures(
        "routing_served",
        {"requests": found.requests, "differing": found.differing, "bill_pct": found.bill_pct, "accuracy": found.accuracy},
    )


if __name__ == "__main__":
    main()
