"""Following a route: asks, judges, stops early or escalates, retries, falls back; never more calls than the route allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace

import structlog

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
from farthing_router.routing.judges import Judge, Judges, Ruling, Untrained, heavy
from farthing_router.routing.ports import Observer
from farthing_router.routing.routes import Candidate, Role
from farthing_router.upstreams import UpstreamPiece

_log = structlog.get_logger()


@dataclass(slots=True)
class _Watch:
    finished: Finished | None = None


class Cascade:
    """Follows routes. `before` is told of each errand, and may raise what its caller gets instead."""

    def __init__(
        self,
        caller: Caller,
        *,
        judges: Judges,
        observers: Sequence[Observer] = (),
        before: Callable[[Errand], None] = lambda errand: None,
    ) -> None:
        self._caller = caller
        self._judges = judges
        self._before = before
        self._observers = observers

    async def run(self, errand: Errand) -> Finished:
        """A whole answer. Raises AllAttemptsFailed, UpstreamRejected, ShadowNeedless."""
        self._before(errand)
        with self._watched(errand) as watch:
            ruling = await self._judged_part(errand)
            served = ruling.served
            for candidate in self._unjudged_part(errand, ruling):
                served = await self._buy(errand, candidate)
                if served is not None:
                    break
            watch.finished = self._finish(errand, served, ruling)
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
        ruling, told = Ruling(), list[Attempt]()
        async with aclosing(self._rulings(errand)) as rulings:
            async for ruling in rulings:
                for attempt in _untold(errand, told, but=ruling.served):
                    yield attempt
        for candidate in self._unjudged_part(errand, ruling):
            live = Live()
            errand.tried.add(candidate.model)
            async with aclosing(self._caller.speak(errand, candidate, live)) as pieces:
                async for piece in pieces:
                    if len(told) < len(errand.bought) + len(errand.failures):
                        for attempt in _untold(errand, told):
                            yield attempt
                    yield piece
            if live.bought is not None or live.broken is not None:
                yield self._finish(errand, live.bought or live.partial, ruling)
                if live.broken is not None:
                    raise StreamBroken(model=candidate.model, what=live.broken)
                return
        finished = self._finish(errand, ruling.served, ruling)
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

    async def _judged_part(self, errand: Errand) -> Ruling:
        """The last ruling."""
        return [ruling async for ruling in self._rulings(errand)][-1]

    async def _rulings(self, errand: Errand) -> AsyncGenerator[Ruling, None]:
        """Asks the models whose answers are judged, until one is to be served or the last are to be asked."""
        judge = self._judge(errand)
        await asyncio.gather(*(self._buy(errand, candidate) for candidate in judge.opening()))
        while True:
            try:
                ruling = await asyncio.to_thread(judge.rule) if heavy(errand) else judge.rule()
            except Exception as error:  # whatever it is, there is a judge that needs no policy
                if isinstance(judge, Untrained):
                    raise
                _failed(errand, error)
                judge = Untrained(errand)
                continue
            yield ruling
            if ruling.served is not None or ruling.ask is None:
                return
            await self._buy(errand, ruling.ask)

    def _judge(self, errand: Errand) -> Judge:
        try:
            return self._judges.judge(errand)
        except Exception as error:  # as above
            _failed(errand, error)
            return Untrained(errand)

    async def _buy(self, errand: Errand, candidate: Candidate) -> Bought | None:
        errand.tried.add(candidate.model)
        return await self._caller.buy(errand, candidate)

    def _unjudged_part(self, errand: Errand, ruling: Ruling) -> list[Candidate]:
        """Who is asked after that, until one answers: the last of the ruling, and then the fallbacks."""
        if ruling.served is not None:
            return []
        return [*ruling.last, *(each for each in errand.route.candidates if each.role is Role.FALLBACK)]

    def _finish(self, errand: Errand, served: Bought | None, ruling: Ruling) -> Finished:
        """The account: who was asked, whose answer is delivered. Where the last model failed, the best answer bought so far is."""
        reason = ruling.reason
        if served is None and errand.bought:
            served = max(errand.bought, key=lambda bought: bought.opinion.confidence if bought.opinion else 0.0)
            reason = f"no better answer came ({errand.unasked[0]})" if errand.unasked else "no better answer came"
        attempts = list(errand.failures)
        for bought in errand.bought:
            outcome = AttemptOutcome.ACCEPTED if bought is served else AttemptOutcome.REJECTED
            attempts.append(_with_opinion(bought, outcome))
        if served is None and errand.rejected is not None:
            errand.rejected.facts["may_be_billed"] = str(errand.may_be_billed)
            raise errand.rejected
        if served is None:
            raise AllAttemptsFailed(attempts=attempts, may_be_billed=errand.may_be_billed, unasked=errand.unasked)
        failed_us = sum(each.latency_us for each in attempts if each.outcome is AttemptOutcome.FAILED)
        return Finished(
            served.answer,
            served.candidate.model,
            tuple(attempts),
            escalated=any(each.candidate.role is Role.ESCALATION for each in errand.bought),
            upstream_us=failed_us + waited_us(errand),
            confidence=served.opinion.confidence if served.opinion is not None else None,
            reason=reason,
        )


def _untold(errand: Errand, told: list[Attempt], *, but: Bought | None = None) -> list[Attempt]:
    """The attempts that ended since, and were not told yet: whoever leaves early owes them."""
    ended = (*(each.attempt for each in errand.bought if each is not but), *errand.failures)
    found = [attempt for attempt in ended if not any(attempt is each for each in told)]
    told += found
    return found


def _with_opinion(bought: Bought, outcome: AttemptOutcome) -> Attempt:
    opinion = bought.opinion
    if opinion is None:
        return replace(bought.attempt, outcome=outcome)
    return replace(
        bought.attempt, outcome=outcome, reason=opinion.reason, confidence=opinion.confidence, expected_gain=opinion.gain
    )


def _failed(errand: Errand, error: Exception) -> None:
    facts = {"calibration_id": errand.route.calibration_id, "request_id": errand.request_id, "error": type(error).__name__}
    _log.error("a policy failed; the untrained judge decides", **facts)
