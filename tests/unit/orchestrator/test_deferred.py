"""Work beside the answer's path: money until it is settled, what may be lost only so often."""

from __future__ import annotations

import asyncio

import pytest
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.ports import PeerUnavailable, RequestIdReused


class Peer:
    """A peer that comes back after some calls."""

    def __init__(self, away: int, error: Exception | None = None) -> None:
        self.calls, self._away = 0, away
        self._error = error or PeerUnavailable(peer="budget", message="gone")

    async def call(self) -> None:
        self.calls += 1
        if self.calls <= self._away:
            raise self._error


async def calls(peer: Peer, *, may_fail: bool) -> int:
    """How often a peer was called until the work had ended."""
    deferred = Deferred(outstanding_max=10, attempts_max=3, backoff_s=0.0, backoff_s_max=0.0)
    async with deferred.running(grace_s=10.0):
        await deferred.run("settle", peer.call, request_id="r", may_fail=may_fail)
    assert deferred.outstanding == 0
    return peer.calls


@pytest.mark.parametrize(("away", "may_fail", "expected"), [(0, False, 1), (50, False, 51), (2, True, 3), (50, True, 3)])
async def test_a_settlement_is_tried_until_it_is_done_and_what_may_be_lost_a_few_times(
    away: int, may_fail: bool, expected: int
) -> None:
    assert await calls(Peer(away), may_fail=may_fail) == expected


async def test_a_refusal_is_final() -> None:
    assert await calls(Peer(50, RequestIdReused(request_id="r")), may_fail=False) == 1


async def test_what_is_begun_by_work_that_is_waited_for_at_the_end_is_waited_for_too() -> None:
    deferred, ending, peer = (
        Deferred(outstanding_max=10, attempts_max=3, backoff_s=0.0, backoff_s_max=0.0),
        asyncio.Event(),
        Peer(3),
    )

    async def buy() -> None:
        await ending.wait()
        assert deferred.ending
        await deferred.run("settle", peer.call, request_id="r")

    async with deferred.running(grace_s=10.0):
        deferred.adopt(buy())
        asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(ending.set))
    assert (peer.calls, deferred.outstanding) == (4, 0)


async def test_whoever_comes_when_too_much_is_outstanding_waits_for_its_own() -> None:
    deferred = Deferred(outstanding_max=0, attempts_max=3, backoff_s=0.0, backoff_s_max=0.0)
    peer = Peer(5)
    async with deferred.running(grace_s=10.0):
        await deferred.run("settle", peer.call, request_id="r")
        assert (peer.calls, deferred.outstanding) == (6, 0)
