from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from farthing.optimizer.v1 import optimizer_pb2 as pb
from farthing.optimizer.v1.optimizer_pb2_grpc import OptimizerServiceStub
from farthing_runtime.status import error_info, rich_status


def failure(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    status = rich_status(error)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return error.code(), info.reason, dict(info.metadata)


async def test_texts_and_conversations_are_counted(api: Any) -> None:
    async with api("optimizer") as channel_of:
        stub = OptimizerServiceStub(channel_of("optimizer"))
        request = pb.CountTokensRequest(texts=["hello world", ""], messages=[{"role": "user", "content": "hello world"}])
        answer = await stub.CountTokens(request)
        assert list(answer.text_tokens) == [2, 0]
        assert answer.conversation_tokens == 3 + 1 + 2 + 3


async def test_a_clean_prompt_comes_back_empty_and_counted_in_every_encoding(api: Any) -> None:
    async with api("optimizer") as channel_of:
        stub = OptimizerServiceStub(channel_of("optimizer"))
        answer = await stub.OptimizePrompt(pb.OptimizePromptRequest(messages=[{"role": "user", "content": "hello world"}]))
        assert not answer.changed
        assert not answer.messages
        assert dict(answer.tokens_before) == dict(answer.tokens_after) == {"o200k": 9, "cl100k": 9}


async def test_a_wasteful_prompt_gets_shorter_unless_the_level_is_off(api: Any) -> None:
    wasteful = json.dumps({"rows": [{"name": "ann", "age": 41}] * 50}, indent=4)
    messages = [
        {"role": "system", "content": "Be  kind."},
        {"role": "user", "content": wasteful, "extra_json": '{"name": "ann"}'},
    ]
    async with api("optimizer") as channel_of:
        stub = OptimizerServiceStub(channel_of("optimizer"))
        answer = await stub.OptimizePrompt(pb.OptimizePromptRequest(messages=messages, level=pb.LEVEL_LOSSLESS))
        assert answer.changed
        assert answer.messages[0].content == "Be  kind."
        assert answer.messages[1].extra_json == '{"name": "ann"}'
        assert json.loads(answer.messages[1].content) == json.loads(wasteful)
        assert answer.tokens_after["o200k"] < 0.7 * answer.tokens_before["o200k"]
        assert [done.transform for done in answer.transforms] == ["json"]
        off = await stub.OptimizePrompt(pb.OptimizePromptRequest(messages=messages, level=pb.LEVEL_OFF, encodings=["o200k"]))
        assert not off.changed
        assert dict(off.tokens_after) == {"o200k": answer.tokens_before["o200k"]}


async def test_a_conversation_is_fitted_or_refused_with_figures(api: Any) -> None:
    messages = [
        {"role": "user", "content": "old " * 100},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "new"},
    ]
    async with api("optimizer") as channel_of:
        stub = OptimizerServiceStub(channel_of("optimizer"))
        answer = await stub.FitContext(pb.FitContextRequest(messages=messages, input_tokens_max=50))
        assert [message.content for message in answer.messages] == ["new"]
        assert (answer.messages_dropped, answer.tokens_after) == (2, 8)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.FitContext(pb.FitContextRequest(messages=messages, input_tokens_max=7))
        facts = {"remaining_tokens": "8", "input_tokens_max": "7", "remaining_messages": "1"}
        assert failure(refused.value) == (grpc.StatusCode.FAILED_PRECONDITION, "CANNOT_FIT", facts)


async def test_an_unknown_encoding_is_refused_on_every_rpc(api: Any) -> None:
    messages = [{"role": "user", "content": "hi"}]
    async with api("optimizer") as channel_of:
        stub = OptimizerServiceStub(channel_of("optimizer"))
        calls = (
            stub.CountTokens(pb.CountTokensRequest(texts=["hi"], encoding="p50k")),
            stub.OptimizePrompt(pb.OptimizePromptRequest(messages=messages, encodings=["o200k", "p50k"])),
            stub.FitContext(pb.FitContextRequest(messages=messages, input_tokens_max=9, encoding="p50k")),
        )
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert failure(refused.value)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "ENCODING_UNKNOWN")


async def test_a_large_hostile_prompt_is_answered(api: Any) -> None:
    async with api("optimizer") as channel_of:
        stub = OptimizerServiceStub(channel_of("optimizer"))
        content = "[" * 20_000 + "]" * 20_000
        answer = await stub.OptimizePrompt(
            pb.OptimizePromptRequest(messages=[{"role": "user", "content": content}]), timeout=20
        )
        assert not answer.changed
        assert answer.tokens_before["o200k"] > 1_000
