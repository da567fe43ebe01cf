"""Admission: a request passes its rate limits before anything else happens, and says at its end what it used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.journey import Journey
from farthing_orchestrator.policy import Policy
from farthing_orchestrator.ports import Admitted, Ledger, PeerUnavailable
from farthing_orchestrator.request import StepName


class Admissions:
    """Lets requests in. Every admission that a limit counts is ended, whatever becomes of the request."""

    def __init__(self, *, ledger: Ledger, policy: Policy, deferred: Deferred) -> None:
        self._ledger = ledger
        self._policy = policy
        self._deferred = deferred

    @asynccontextmanager
    async def admitted(self, journey: Journey, *, ttl_s: int) -> AsyncIterator[None]:
        """A block of an admitted request. It ends with the block, unless it was handed on to a purchase that may outlive it."""
        await self._admit(journey, ttl_s)
        try:
            yield
        finally:
            if not journey.handed_on:
                await self.finish(journey)

    async def finish(self, journey: Journey) -> None:
        """Ends an admission with the tokens that were used."""
        if not journey.limited:
            return
        journey.limited = False
        ask, tokens = journey.ask, journey.tokens_used
        # Where this fails for good the limit ends it by itself, a little later.
        await self._deferred.run("finish", lambda: self._ledger.finish(ask, tokens), request_id=ask.request_id, may_fail=True)

    async def _admit(self, journey: Journey, ttl_s: int) -> None:
        with journey.step(StepName.ADMIT) as note:
            try:
                admitted = await self._ledger.admit(journey.ask, ttl_s=ttl_s)
            except asyncio.CancelledError:
                journey.limited = True  # perhaps; nobody is harmed by the end of what never began
                await self.finish(journey)
                raise
            except PeerUnavailable as error:
                journey.limited = error.may_have_acted
                await self.finish(journey)
                if self._policy.budget.unreachable == "fail_closed":
                    raise
                return note.unavailable(error.message)
            journey.limited = admitted.limited
            note.text = _note_of(admitted)
        return None


def _note_of(admitted: Admitted) -> str:
    if not admitted.limited:
        return "no rate limit applies"
    left = [f"{admitted.requests_left} requests"] if admitted.requests_left is not None else []
    left += [f"{admitted.tokens_left} tokens"] if admitted.tokens_left is not None else []
    return f"{' and '.join(left)} left this minute" if left else "one of so many at a time"
