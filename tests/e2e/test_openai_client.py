"""The official `openai` client, by base_url alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import grpc
import openai
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc

EASY = "How do I reset my password?"
HARD = "Why does clause 7 of the contract not apply to resellers?"
GOOD = "Open Settings, choose Security, and press Reset password; a link arrives by mail."
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


def client(served: Any, key: str = "unused") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.http}/v1", api_key=key, max_retries=0, timeout=30)


async def test_a_plain_answer_carries_its_receipt_in_headers_and_on_request_in_the_body(serve: Any) -> None:
    async with client(serve()) as ours:
        raw = await ours.chat.completions.with_raw_response.create(
            model="farthing/auto", messages=ask(HARD), extra_body={"farthing": {"receipt": True}}
        )
        answer = raw.parse()
        assert answer.choices[0].message.content == "Because clause 9 names resellers and takes precedence."
        assert answer.usage is not None
        assert answer.usage.total_tokens == 120
        assert raw.headers["x-farthing-escalated"] == "true"
        assert raw.headers["x-farthing-cache"] == "miss"
        assert float(raw.headers["x-farthing-cost-usd"]) > 0
        receipt = answer.model_extra["farthing"]["receipt"]  # type: ignore[index]
        assert [attempt["model"] for attempt in receipt["attempts"]] == ["small", "large"]


async def test_a_stream_is_a_stream_and_ends_with_usage(serve: Any) -> None:
    async with client(serve()) as ours:
        stream = await ours.chat.completions.create(
            model="large", messages=ask(EASY), stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == GOOD
        assert len(chunks) > 4
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 20


async def test_the_second_time_costs_nothing(serve: Any) -> None:
    async with client(serve()) as ours:
        async with asyncio.timeout(20):
            while True:
                raw = await ours.chat.completions.with_raw_response.create(model="large", messages=ask(EASY))
                if raw.headers["x-farthing-cache"] == "exact":
                    break
        assert raw.headers["x-farthing-cost-usd"] == "0.000000000"
        stream = await ours.chat.completions.create(model="large", messages=ask(EASY), stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]) == GOOD


async def test_tools_pass_through(serve: Any) -> None:
    async with client(serve()) as ours:
        question = ask("What is the weather in Lyon?")
        answer = await ours.chat.completions.create(model="large", messages=question, tools=TOOLS, tool_choice="auto")
        calls: Any = answer.choices[0].message.tool_calls
        assert (calls[0].function.name, answer.choices[0].finish_reason) == ("weather", "tool_calls")
        stream = await ours.chat.completions.create(model="large", messages=question, tools=TOOLS, stream=True)
        names = [
            call.function.name
            async for chunk in stream
            if chunk.choices
            for call in chunk.choices[0].delta.tool_calls or ()
            if call.function
        ]
        assert names == ["weather"]


async def test_errors_are_the_clients_own_classes(serve: Any) -> None:
    served = serve()
    async with client(served) as ours:
        with pytest.raises(openai.NotFoundError, match="ghost"):
            await ours.chat.completions.create(model="ghost", messages=ask(EASY))
        with pytest.raises(openai.BadRequestError) as bad:
            await ours.chat.completions.create(model="large", messages=ask(EASY), temperature=7)
        assert bad.value.param == "temperature"
        with pytest.raises(openai.BadRequestError):
            await ours.chat.completions.create(model="large", messages=[])
        async with grpc.aio.insecure_channel(served.grpc) as channel:
            limit = budget_pb2.CreateBudgetRequest(
                request_id=str(uuid.uuid4()), scope="organizations/default", period=budget_pb2.PERIOD_DAY, limit_usd_nanos=5
            )
            await budget_pb2_grpc.BudgetServiceStub(channel).CreateBudget(limit)
        with pytest.raises(openai.RateLimitError) as broke:
            await ours.chat.completions.create(model="large", messages=ask(HARD))
        assert broke.value.code == "budget_exhausted"
        assert int(broke.value.response.headers["retry-after"]) > 0


async def test_models_are_listed(serve: Any) -> None:
    async with client(serve()) as ours:
        assert [model.id async for model in ours.models.list()] == ["farthing/auto", "large", "small"]
        assert (await ours.models.retrieve("large")).owned_by == "replay"


async def test_where_keys_are_required_only_a_good_one_opens(serve: Any) -> None:
    served = serve(FARTHING_GATEWAY_AUTH="required", FARTHING_GATEWAY_KEY_TRUST_S="0")
    farthing = str(Path(sys.executable).parent / "farthing")

    def keys(*arguments: str) -> str:
        command = [farthing, "keys", *arguments, "--scope", "organizations/acme", "--address", served.grpc]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    secret = keys("create").strip()
    async with client(served, secret) as ours:
        answer = await ours.chat.completions.create(model="large", messages=ask(EASY))
        assert answer.choices[0].message.content == GOOD
        with pytest.raises(openai.PermissionDeniedError):
            headers = {"x-farthing-scope": "organizations/other"}
            await ours.chat.completions.create(model="large", messages=ask(EASY), extra_headers=headers)
    for wrong in ("unused", "fk-nonsense"):
        async with client(served, wrong) as other:
            with pytest.raises(openai.AuthenticationError):
                await other.chat.completions.create(model="large", messages=ask(EASY))
    assert "good" in keys("list")
