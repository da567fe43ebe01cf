"""Calling the models of a route: other deployments and again where that helps, within the route's calls, cost and deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

from farthing_core.clock import Clock

from farthing_router.deployments.balancing import Balancer
from farthing_router.deployments.places import Place
from farthing_router.routing.attempts import Attempts, Try
from farthing_router.routing.errands import Bought, Errand, Heard, Live
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.quests import Quest, Seeker, Sleep
from farthing_router.routing.routes import Candidate
from farthing_router.upstreams import (
    Call,
    FailureKind,
    Upstream,
    UpstreamAnswer,
    UpstreamFailed,
    UpstreamPiece,
    UpstreamRejected,
)

_T = TypeVar("_T")
_Ask = Callable[[Try], Awaitable[_T]]
_Items = AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]


@dataclass(slots=True)
class _Opened:
    """A stream that has begun: its first item, and the others."""

    first: UpstreamPiece | UpstreamAnswer
    items: _Items


class Caller:
    """Buys answers."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        balancer: Balancer,
        lengths: OutputLengths,
        clock: Clock,
        rng: Random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._catalog = balancer.catalog
        self._upstream = upstream
        self._balancer = balancer
        self._seeker = Seeker(balancer, clock=clock, rng=rng, sleep=sleep)
        self._attempts = Attempts(balancer.catalog, lengths)
        self._clock = clock

    async def buy(self, errand: Errand, candidate: Candidate) -> Bought | None:
        """Asks one model, wherever it runs, again where that may help; None when it gave no answer."""
        quest = self._quest(errand, candidate)
        while (place := await self._seeker.next(quest)) is not None:
            try:
                tried, answer = await self._ask(quest, place, self._complete)
            except UpstreamRejected:
                return None
            except UpstreamFailed:
                continue
            return self._attempts.answered(tried, answer, self._clock.monotonic_s())
        return None

    async def speak(self, errand: Errand, candidate: Candidate, live: Live) -> AsyncGenerator[UpstreamPiece, None]:
        """Streams one model; before its first piece a failure is followed by another try, after it the stream is broken."""
        quest = self._quest(errand, candidate)
        while (place := await self._seeker.next(quest)) is not None:
            try:
                tried, opened = await self._ask(quest, place, self._open)
            except UpstreamRejected:
                return
            except UpstreamFailed:
                continue
            async with aclosing(self._spoken(tried, opened, live)) as pieces:
                async for piece in pieces:
                    yield piece
            return

    async def _spoken(self, tried: Try, opened: _Opened, live: Live) -> AsyncGenerator[UpstreamPiece, None]:
        """The pieces of a stream that has begun, and what comes of it."""
        heard, ended, item = Heard(), False, opened.first
        idle_s = tried.place.deployment.idle_timeout_s
        try:
            async with aclosing(opened.items):
                while True:
                    if isinstance(item, UpstreamAnswer):
                        ended = True
                        live.bought = self._attempts.answered(tried, item, self._clock.monotonic_s())
                        return
                    heard.take(item)
                    yield replace(item, model=tried.candidate.model)
                    item = await _within(idle_s, opened.items, f"no further piece within {idle_s:.1f} s")
        except (UpstreamFailed, UpstreamRejected) as error:
            ended = True
            failure = error if isinstance(error, UpstreamFailed) else UpstreamFailed(what=error.message, retryable=False)
            live.broken = failure.message
            live.partial = self._attempts.torso(tried, heard.answer(), failure, self._clock.monotonic_s())
        finally:
            if not ended:
                self._attempts.given_up(tried, self._clock.monotonic_s())

    async def _complete(self, tried: Try) -> UpstreamAnswer:
        return await self._upstream.complete(tried.call)

    async def _open(self, tried: Try) -> _Opened:
        """Begins a stream. The first piece is waited for so long as the deployment says."""
        items, first_s = self._upstream.stream(tried.call), tried.place.deployment.first_token_timeout_s
        try:
            first = await _within(first_s, items, f"no first token within {first_s:.1f} s")
        except BaseException:
            await items.aclose()
            raise
        taken_s = self._clock.monotonic_s() - tried.ticket.began_s
        tried.first_token_us = round(taken_s * 1e6)
        tried.place.first_tokens.add(taken_s)
        return _Opened(first, items)

    async def _ask(self, quest: Quest, place: Place, ask: _Ask[_T]) -> tuple[Try, _T]:
        """Asks one place, and a second one beside it where that takes unusually long. Raises UpstreamFailed, UpstreamRejected."""
        hedge = None if place.deployment.batch else quest.model.hedge
        if hedge is None:
            return await self._asked(self._begin(quest, place), quest, ask)
        self._balancer.hedges[quest.model.name].called(self._clock.monotonic_s())
        latencies = place.latencies if ask == self._complete else place.first_tokens
        after_s = latencies.quantile(hedge.quantile)
        first = self._begin(quest, place)
        if after_s is None:
            return await self._asked(first, quest, ask)
        return await self._raced(first, quest, ask, after_s)

    async def _raced(self, first: Try, quest: Quest, ask: _Ask[_T], after_s: float) -> tuple[Try, _T]:
        """Asks a second place when the first has not answered in time; the first good answer wins, the other call is given up."""
        tries = [first]
        tasks = [asyncio.create_task(self._asked(first, quest, ask))]
        winner = None
        try:
            done, waiting = await asyncio.wait(tasks, timeout=after_s)
            if not done and (beside := self._seeker.hedge(quest)) is not None:
                tries.append(self._begin(quest, beside, hedge=True))
                tasks.append(asyncio.create_task(self._asked(tries[-1], quest, ask)))
                waiting = set(tasks)
            while waiting and all(map(_raised, tasks)):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            winner = next((number for number, task in enumerate(tasks) if not _raised(task)), None)
        finally:
            for number, tried in enumerate(tries):
                if number != winner:
                    tried.overtaken = winner is not None
                    tasks[number].cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            except BaseException:
                winner = None
                raise
            finally:
                for number, tried in enumerate(tries):
                    if number != winner and not _raised(tasks[number]):
                        await self._drop(tried, tasks[number].result()[1])
        return tasks[winner or 0].result()

    async def _drop(self, tried: Try, result: Any) -> None:
        """Ends a try that has its answer when nobody wants it any more."""
        now_s = self._clock.monotonic_s()
        if isinstance(result, UpstreamAnswer):
            self._attempts.answered(tried, result, now_s)
        else:
            self._attempts.given_up(tried, now_s)
            await result.items.aclose()

    async def _asked(self, tried: Try, quest: Quest, ask: _Ask[_T]) -> tuple[Try, _T]:
        """One call to its end; a failure is written down before it is raised."""
        try:
            return tried, await ask(tried)
        except UpstreamRejected as error:
            # Nobody else is asked: who refuses a request as malformed speaks for all. What was bought before is delivered and charged.
            quest.errand.rejected, quest.errand.calls_left = error, 0
            self._attempts.failed(tried, error, self._clock.monotonic_s())
            raise
        except UpstreamFailed as error:
            self._attempts.failed(tried, error, self._clock.monotonic_s())
            quest.failed(tried.place, error)
            if error.kind is FailureKind.CONTENT_FILTER and self._catalog.content_filter == "stop":
                quest.errand.calls_left = 0
            raise
        except BaseException:
            self._attempts.given_up(tried, self._clock.monotonic_s())
            raise

    def _quest(self, errand: Errand, candidate: Candidate) -> Quest:
        model = self._catalog.model(candidate.model)
        places = self._balancer.of(model, candidate.deployments, batch=candidate.service_tier == "batch")
        return Quest(errand, candidate, model, places)

    def _begin(self, quest: Quest, place: Place, *, hedge: bool = False) -> Try:
        errand, candidate, deployment = quest.errand, quest.candidate, place.deployment
        errand.calls_left -= 1
        errand.committed_usd_nanos += candidate.worst_case_usd_nanos
        quest.begins(place)
        given_s = min(self._seeker.left_s(errand), deployment.timeout_s)
        call = Call(
            deployment=deployment,
            conversation=errand.conversation,
            parameters=errand.parameters,
            output_tokens_max=candidate.output_tokens_max,
            timeout_s=given_s,
            request_id=errand.request_id,
            organization=errand.prices.organization,
            model=candidate.model,
        )
        ticket = place.begin(self._clock.monotonic_s(), tokens=quest.tokens, given_s=given_s)
        return Try(errand, candidate, place, ticket, call, hedge)


async def _within(seconds: float, items: _Items, what: str) -> UpstreamPiece | UpstreamAnswer:
    """The next item of a stream. Raises UpstreamFailed where it takes longer than that, or where there is none."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(items)
    except TimeoutError as error:
        raise UpstreamFailed(what=what, retryable=False, may_be_billed=True, kind=FailureKind.TIMEOUT) from error
    except StopAsyncIteration:
        raise UpstreamFailed(
            what="the stream ended without an answer", retryable=True, may_be_billed=True, kind=FailureKind.BROKEN_STREAM
        ) from None


def _raised(task: asyncio.Task[tuple[Try, _T]]) -> bool:
    return not task.done() or task.cancelled() or task.exception() is not None
