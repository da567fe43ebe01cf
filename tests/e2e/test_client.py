"""The Python client against a running suite, async and blocking."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_client import Answer, BlockingFarthing, Failure, Farthing

SCOPE = "organizations/acme"
EASY = "How do I reset my password?"
GOOD = "Open Settings, choose Security, and press Reset password; a link arrives by mail."


async def test_the_async_client_completes_streams_and_estimates(serve: Any) -> None:
    async with Farthing(serve().grpc, scope=SCOPE, timeout_s=30) as farthing:
        answer = await farthing.complete([{"role": "user", "content": EASY}])
        assert (answer.text, answer.model) == (GOOD, "small")
        assert answer.saved_usd_nanos > 0
        items = [item async for item in farthing.stream(EASY, model="large", tags=["t"])]
        assert isinstance(items[-1], Answer)
        assert "".join(item for item in items[:-1] if isinstance(item, str)) == items[-1].text == GOOD
        assert (await farthing.estimate("Something new?")).worst_case_usd_nanos > 0
        with pytest.raises(Failure) as caught:
            await farthing.complete(EASY, model="ghost")
        assert (caught.value.reason, caught.value.facts["model"]) == ("MODEL_UNKNOWN", "ghost")


def test_the_blocking_client_does_the_same(serve: Any) -> None:
    with BlockingFarthing(serve().grpc, scope=SCOPE, timeout_s=30) as farthing:
        assert farthing.complete(EASY).text == GOOD
        items = list(farthing.stream(EASY, model="large"))
        assert isinstance(items[-1], Answer)
        assert "".join(item for item in items[:-1] if isinstance(item, str)) == GOOD
        with pytest.raises(Failure, match="FIELD_INVALID"):
            farthing.complete(EASY, scope="acme")


async def test_a_suite_that_is_not_there_is_a_failure() -> None:
    async with Farthing("127.0.0.1:1", scope=SCOPE, timeout_s=2) as farthing:
        with pytest.raises(Failure) as caught:
            await farthing.complete(EASY)
        assert caught.value.code.name in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
