"""The Python client against a running suite, async and blocking."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_client import Farthing, FarthingFailure, FarthingSync, RequestInvalid

SCOPE = "organizations/acme"
EASY = "How do I reset my password?"
GOOD = "Open Settings, choose Security, and press Reset password; a link arrives by mail."


async def test_the_async_client_completes_streams_and_estimates(serve: Any) -> None:
    async with Farthing(serve().grpc, scope=SCOPE) as farthing:
        answer = await farthing.complete(EASY)
        assert (answer.text, answer.model) == (GOOD, "small")
        async with farthing.stream(EASY, model="large") as stream:
            text = "".join([piece.text async for piece in stream])
        assert text == stream.completion.text == GOOD
        assert (await farthing.estimate("Something new?")).worst_case_usd_nanos > 0
        with pytest.raises(FarthingFailure) as caught:
            await farthing.complete(EASY, model="ghost")
        assert caught.value.reason == "MODEL_UNKNOWN"


def test_the_blocking_client_does_the_same(serve: Any) -> None:
    with FarthingSync(serve().grpc, scope=SCOPE) as farthing:
        assert farthing.complete(EASY).text == GOOD
        with farthing.stream(EASY, model="large") as stream:
            assert "".join(piece.text for piece in stream) == GOOD
        with pytest.raises(RequestInvalid):
            farthing.complete("")
