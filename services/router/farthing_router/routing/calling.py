"""Calling the models of a route: again where that helps, within the route's calls and its deadline; and what came of each call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from random import Random

from farthing_core.clock import Clock
from farthing_core.money import NANOS_MAX

from farthing_router.catalog import Catalog
from farthing_router.deployments.declared import Deployment
from farthing_router.deployments.eligible import permitted
from farthing_router.pricing.tokens import Tokens, TokensSource
from farthing_router.routing.errands import Attempt, AttemptOutcome, Bought, Errand, Heard, Live
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.routes import Candidate
from farthing_router.upstreams import Call, Upstream, UpstreamAnswer, UpstreamFailed, UpstreamPiece, UpstreamRejected
from farthing_router.upstreams.payloads import Reported

_BACKOFF_S = 0.2
_BACKOFF_S_MAX = 8.0
_TIME_KEPT_S = 0.05
_CHARACTERS_PER_TOKEN = 4

Sleep = Callable[[float], Awaitable[None]]


class Caller:
    """Buys answers."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        upstream: Upstream,
        lengths: OutputLengths,
        clock: Clock,
        rng: Random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._catalog = catalog
        self._upstream = upstream
        self._lengths = lengths
        self._clock = clock
        self._rng = rng
        self._sleep = sleep

    async def buy(self, errand: Errand, candidate: Candidate) -> Bought | None:
        """Asks one model, again where that may help; None when it gave no answer."""
        model = self._catalog.model(candidate.model)
        place = permitted(model, candidate.deployments, batch=candidate.service_tier == "batch")[0]
        for number in range(place.retries + 1):
            call = self._call(errand, candidate, place)
            if call is None:
                return None
            began_s = self._clock.monotonic_s()
            try:
                answer = await self._upstream.complete(call)
            except UpstreamRejected as error:
                self._rejected(errand, candidate, place, error, began_s)
                return None
            except UpstreamFailed as error:
                self._failed(errand, candidate, place, error, began_s)
                if not error.retryable or not await self._pause(errand, number, error.retry_after_s, place):
                    return None
                continue
            return self._bought(errand, candidate, place, answer, began_s)
        return None

    async def speak(self, errand: Errand, candidate: Candidate, live: Live) -> AsyncGenerator[UpstreamPiece, None]:
        """Streams one model; before its first piece a failure is tried again, after it the stream is broken."""
        model = self._catalog.model(candidate.model)
        place = permitted(model, candidate.deployments, batch=candidate.service_tier == "batch")[0]
        for number in range(place.retries + 1):
            call = self._call(errand, candidate, place)
            if call is None:
                return
            began_s, first_us, heard = self._clock.monotonic_s(), 0, Heard()
            try:
                async with aclosing(self._upstream.stream(call)) as items:
                    async for item in items:
                        if isinstance(item, UpstreamAnswer):
                            bought = self._bought(errand, candidate, place, item, began_s, first_us)
                            live.bought = bought
                        else:
                            first_us = first_us or self._since_us(began_s)
                            heard.take(item)
                            yield replace(item, model=candidate.model)
                return
            except UpstreamRejected as error:
                self._rejected(errand, candidate, place, error, began_s)
                return
            except UpstreamFailed as error:
                if heard.any:
                    live.broken = error.message
                    live.partial = self._bought(errand, candidate, place, heard.answer(), began_s, first_us)
                    return
                self._failed(errand, candidate, place, error, began_s)
                if not error.retryable or not await self._pause(errand, number, error.retry_after_s, place):
                    return

    def _call(self, errand: Errand, candidate: Candidate, place: Deployment) -> Call | None:
        left_s = errand.ends_at_s - self._clock.monotonic_s() - _TIME_KEPT_S
        if errand.calls_left <= 0 or left_s <= 0:
            return None
        errand.calls_left -= 1
        return Call(
            deployment=place,
            conversation=errand.conversation,
            parameters=errand.parameters,
            output_tokens_max=candidate.output_tokens_max,
            timeout_s=min(left_s, place.timeout_s),
            request_id=errand.request_id,
            organization=errand.prices.organization,
            model=candidate.model,
        )

    async def _pause(self, errand: Errand, number: int, retry_after_s: float | None, place: Deployment) -> bool:
        """Waits before another try; False when there is no time or no call left for one."""
        wait_s = min(_BACKOFF_S_MAX, _BACKOFF_S * 2**number) * self._rng.uniform(0.5, 1.0)
        wait_s = max(wait_s, retry_after_s or 0.0)
        left_s = errand.ends_at_s - self._clock.monotonic_s()
        if number >= place.retries or errand.calls_left <= 0 or wait_s >= left_s:
            return False
        await self._sleep(wait_s)
        return True

    def _bought(
        self, errand: Errand, candidate: Candidate, place: Deployment, answer: UpstreamAnswer, began_s: float, first_us: int = 0
    ) -> Bought:
        said = answer.usage or Reported()
        tokens = said.tokens(input_estimate=candidate.input_tokens, output_estimate=_length(answer))
        model = self._catalog.model(candidate.model)
        price, tier = errand.prices.of(model, place), said.charged_tier(candidate.service_tier or errand.service_tier)
        rated = price.rate(tokens, tier)
        attempt = Attempt(
            model=candidate.model,
            provider=place.provider,
            deployment=place.name,
            outcome=AttemptOutcome.REJECTED,
            reason="",
            confidence=None,
            tokens=tokens,
            cost_usd_nanos=min(NANOS_MAX, rated.cost_usd_nanos),
            latency_us=self._since_us(began_s),
            first_token_us=first_us,
            service_tier=tier,
            price_source=price.source,
            price_unknown=rated.unknown,
        )
        self._lengths.learn(candidate.model, errand.task, tokens.output_tokens)
        bought = Bought(candidate, answer, attempt)
        errand.bought.append(bought)
        return bought

    def _rejected(
        self, errand: Errand, candidate: Candidate, place: Deployment, error: UpstreamRejected, began_s: float
    ) -> None:
        """Nobody else is asked: who refuses a request as malformed speaks for all. What was bought before is delivered and charged."""
        errand.rejected, errand.calls_left = error, 0
        self._failed(errand, candidate, place, error, began_s)

    def _failed(
        self,
        errand: Errand,
        candidate: Candidate,
        place: Deployment,
        error: UpstreamFailed | UpstreamRejected,
        began_s: float,
    ) -> None:
        errand.may_be_billed |= isinstance(error, UpstreamFailed) and error.may_be_billed
        why, none = error.message, Tokens(source=TokensSource.MISSING)
        latency_us = self._since_us(began_s)
        errand.failures.append(
            Attempt(candidate.model, place.provider, place.name, AttemptOutcome.FAILED, why, None, none, 0, latency_us)
        )

    def _since_us(self, began_s: float) -> int:
        return round((self._clock.monotonic_s() - began_s) * 1e6)


def _length(answer: UpstreamAnswer) -> int:
    """How many tokens an answer likely has."""
    return -(-(len(answer.content) + len(answer.extra_json)) // _CHARACTERS_PER_TOKEN)
