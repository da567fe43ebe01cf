"""Following a route: asks, judges, stops early or escalates, retries, falls back; never more calls than the route allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace

from farthing_router.judging.opinions import Judged, judge
from farthing_router.routing.calling import Caller
from farthing_router.routing.errands import (
    AllAttemptsFailed,
    Attempt,
    AttemptOutcome,
    Bought,
    Errand,
    Finished,
    Live,
    StreamBroken,
    waited_us,
)
from farthing_router.routing.ports import Observer
from farthing_router.routing.routes import Candidate, Role
from farthing_router.upstreams import UpstreamAnswer, UpstreamPiece


@dataclass(slots=True)
class _Watch:
    finished: Finished | None = None


class Cascade:
    """Follows routes."""

    def __init__(self, caller: Caller, *, observers: Sequence[Observer] = ()) -> None:
        self._caller = caller
        self._observers = observers

    async def run(self, errand: Errand) -> Finished:
        """A whole answer. Raises AllAttemptsFailed, UpstreamRejected."""
        with self._watched(errand) as watch:
            served = await self._judged_part(errand)
            for candidate in self._unjudged_part(errand, served):
                bought = await self._caller.buy(errand, candidate)
                if bought is not None:
                    served = bought
                    break
            watch.finished = self._finish(errand, served)
            return watch.finished

    async def stream(self, errand: Errand) -> AsyncGenerator[UpstreamPiece | Attempt | Finished, None]:
        """Attempts that ended before anybody spoke, pieces, and at last what it came to; then StreamBroken if the stream broke."""
        with self._watched(errand) as watch:
            async with aclosing(self._streamed(errand)) as items:
                async for item in items:
                    if isinstance(item, Finished):
                        watch.finished = item
                    yield item

    async def _streamed(self, errand: Errand) -> AsyncGenerator[UpstreamPiece | Attempt | Finished, None]:
        served = await self._judged_part(errand)
        for attempt in (*(bought.attempt for bought in errand.bought if bought is not served), *errand.failures):
            yield attempt
        if served is not None:
            yield UpstreamPiece(served.answer.content, served.answer.extra_json, served.candidate.model)
        for candidate in self._unjudged_part(errand, served):
            live = Live()
            async with aclosing(self._caller.speak(errand, candidate, live)) as pieces:
                async for piece in pieces:
                    yield piece
            if live.bought is not None:
                served = live.bought
            if live.bought is not None or live.broken is not None:
                yield self._finish(errand, live.bought or live.partial)
                if live.broken is not None:
                    raise StreamBroken(model=candidate.model, what=live.broken)
                return
        finished = self._finish(errand, served)
        if not any(bought is served for bought in errand.bought if bought.opinion):
            yield UpstreamPiece(finished.answer.content, finished.answer.extra_json, finished.model)
        yield finished

    @contextmanager
    def _watched(self, errand: Errand) -> Iterator[_Watch]:
        """Tells the observers once how it ended, whatever happens."""
        watch, error = _Watch(), None
        try:
            yield watch
        except BaseException as raised:
            error = raised
            raise
        finally:
            for observer in self._observers:
                observer.ended(errand, watch.finished, error)

    async def _judged_part(self, errand: Errand) -> Bought | None:
        """Asks the cheap models of a cascade, all but the last; the first answer that is good enough, or None."""
        route = errand.route
        asked = [each for each in route.candidates if each.role is not Role.FALLBACK]
        if route.accept_confidence <= 0:
            return None
        opening = [each for each in asked if each.role in (Role.FIRST, Role.PEER)]
        if len(opening) == len(asked) and len(opening) == 1:
            return None
        await asyncio.gather(*(self._caller.buy(errand, candidate) for candidate in opening))
        served = self._acceptable(errand)
        for candidate in [each for each in asked if each.role is Role.ESCALATION][:-1]:
            if served is not None:
                break
            await self._caller.buy(errand, candidate)
            served = self._acceptable(errand)
        return served

    def _unjudged_part(self, errand: Errand, served: Bought | None) -> list[Candidate]:
        """Who is asked after that: the last of the cascade, or the only one, and then the fallbacks."""
        if served is not None:
            return []
        asked = [each for each in errand.route.candidates if each.role is not Role.FALLBACK]
        done = {bought.candidate.model for bought in errand.bought} | {attempt.model for attempt in errand.failures}
        last = [asked[-1]] if asked[-1].model not in done else []
        return last + [each for each in errand.route.candidates if each.role is Role.FALLBACK]

    def _acceptable(self, errand: Errand) -> Bought | None:
        """Judges what was bought so far; the cheapest answer that is good enough."""
        best: Bought | None = None
        for bought in errand.bought:
            others = [other.answer.content for other in errand.bought if other is not bought]
            bought.opinion = judge(_judged(bought.answer, errand), others)
            enough = bought.opinion.confidence >= errand.route.accept_confidence
            if enough and (best is None or _cost(bought) < _cost(best)):
                best = bought
        return best

    def _finish(self, errand: Errand, served: Bought | None) -> Finished:
        """The account: who was asked, whose answer is delivered. Where the last model failed, the best answer bought so far is."""
        if served is None and errand.bought:
            served = max(errand.bought, key=lambda bought: bought.opinion.confidence if bought.opinion else 0.0)
        attempts = list(errand.failures)
        for bought in errand.bought:
            outcome = AttemptOutcome.ACCEPTED if bought is served else AttemptOutcome.REJECTED
            opinion = bought.opinion
            attempts.append(
                replace(
                    bought.attempt,
                    outcome=outcome,
                    reason=opinion.reason if opinion else "",
                    confidence=opinion.confidence if opinion else None,
                )
            )
        if served is None and errand.rejected is not None:
            errand.rejected.facts["may_be_billed"] = str(errand.may_be_billed)
            raise errand.rejected
        if served is None:
            raise AllAttemptsFailed(attempts=attempts, may_be_billed=errand.may_be_billed)
        escalated = served.candidate.role is Role.ESCALATION
        failed_us = sum(each.latency_us for each in attempts if each.outcome is AttemptOutcome.FAILED)
        return Finished(served.answer, served.candidate.model, tuple(attempts), escalated, failed_us + waited_us(errand))


def _judged(answer: UpstreamAnswer, errand: Errand) -> Judged:
    calls_tools = '"tool_calls"' in answer.extra_json
    return Judged(answer.content, answer.finish_reason, wants_json=errand.wants_json, calls_tools=calls_tools)


def _cost(bought: Bought) -> int:
    return bought.attempt.cost_usd_nanos
