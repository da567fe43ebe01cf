"""Work beside a block."""

from __future__ import annotations

import asyncio

import pytest
from farthing_runtime.beside import beside


async def test_work_that_loses_a_cancellation_ends_all_the_same() -> None:
    lost = 0

    async def work() -> None:
        nonlocal lost
        while lost < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1

    async with asyncio.timeout(10), beside(work()):
        await asyncio.sleep(0)
    assert lost == 2


async def test_all_of_several_ends_and_what_failed_is_told() -> None:
    ended = asyncio.Event()

    async def lasting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def failing() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        async with beside(lasting(), failing()):
            await asyncio.sleep(0)
    assert ended.is_set()
