"""Translates: messages in, the domain's call, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from farthing.chat.v1 import chat_pb2
from farthing.optimizer.v1 import optimizer_pb2, optimizer_pb2_grpc

from farthing_optimizer.conversation import Message
from farthing_optimizer.fitting import Fitter
from farthing_optimizer.tokens import ENCODINGS, TokenCounter, known_encoding
from farthing_optimizer.transforms import Optimizer

_Result = TypeVar("_Result")


class OptimizerServicer(optimizer_pb2_grpc.OptimizerServiceServicer):
    """`farthing.optimizer.v1.OptimizerService`."""

    def __init__(self, counter: TokenCounter, *, executor: Executor, inline_characters_max: int) -> None:
        self._counter = counter
        self._optimizer = Optimizer(counter)
        self._fitter = Fitter(counter)
        self._executor = executor
        self._inline_characters_max = inline_characters_max

    async def CountTokens(self, request: Any, context: Any) -> Any:
        """Counts texts and a conversation."""
        encoding = known_encoding(request.encoding)
        messages, texts = _conversation(request.messages), list(request.texts)

        def count() -> Any:
            conversation = self._counter.conversation(messages, encoding=encoding) if messages else 0
            return optimizer_pb2.CountTokensResponse(
                text_tokens=[self._counter.text(text, encoding=encoding) for text in texts],
                conversation_tokens=conversation + self._overhead(request.parameters, encoding),
            )

        return await self._run(count, _characters(messages) + sum(map(len, texts)) + len(request.parameters.tools_json))

    async def OptimizePrompt(self, request: Any, context: Any) -> Any:
        """Shortens a conversation without loss."""
        encodings = tuple(dict.fromkeys(map(known_encoding, request.encodings))) or ENCODINGS
        messages = _conversation(request.messages)

        def optimize() -> Any:
            overhead = {encoding: self._overhead(request.parameters, encoding) for encoding in encodings}
            lossless = request.level != optimizer_pb2.LEVEL_OFF
            found = self._optimizer.optimize(messages, encodings=encodings, overhead=overhead, lossless=lossless)
            response = optimizer_pb2.OptimizePromptResponse(changed=found.changed)
            response.tokens_before.update(found.tokens_before)
            response.tokens_after.update(found.tokens_after)
            if found.changed:
                response.messages.extend(_messages(request.messages, messages, found.messages))
            for name, saved in found.characters_saved.items():
                response.transforms.add(transform=name, characters_saved=saved)
            return response

        return await self._run(optimize, _characters(messages) + len(request.parameters.tools_json))

    async def FitContext(self, request: Any, context: Any) -> Any:
        """Drops the oldest turns."""
        encoding = known_encoding(request.encoding)
        messages = _conversation(request.messages)

        def fit() -> Any:
            overhead = self._overhead(request.parameters, encoding)
            found = self._fitter.fit(messages, input_tokens_max=request.input_tokens_max, overhead=overhead, encoding=encoding)
            return optimizer_pb2.FitContextResponse(
                messages=[_chat_message(message) for message in found.messages],
                messages_dropped=found.messages_dropped,
                tokens_after=found.tokens_after,
                tokens_before=found.tokens_before,
            )

        return await self._run(fit, _characters(messages) + len(request.parameters.tools_json))

    def _overhead(self, parameters: Any, encoding: str) -> int:
        if not parameters.tools_json and not parameters.response_format_json:
            return 0
        return self._counter.overhead(
            tools_json=parameters.tools_json, response_format_json=parameters.response_format_json, encoding=encoding
        )

    async def _run(self, work: Callable[[], _Result], characters: int) -> _Result:
        """Small conversations at once, large ones in a worker thread, so that they do not hold up the rest."""
        if characters <= self._inline_characters_max:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _conversation(messages: Any) -> list[Message]:
    return [Message(message.role, message.content, message.content_parts_json, message.extra_json) for message in messages]


def _messages(originals: Any, before: Sequence[Message], after: Sequence[Message]) -> list[Any]:
    return [original if new is old else _chat_message(new) for original, old, new in zip(originals, before, after, strict=True)]


def _chat_message(message: Message) -> Any:
    return chat_pb2.ChatMessage(
        role=message.role, content=message.content, content_parts_json=message.parts_json, extra_json=message.extra_json
    )


def _characters(messages: Sequence[Message]) -> int:
    return sum(message.characters for message in messages)
