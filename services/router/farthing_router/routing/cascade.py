"""Following a route: asks, judges, stops early or escalates, retries, falls back; never more calls than the route allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from random import Random

from farthing_core.clock import Clock
from farthing_core.money import NANOS_MAX

from farthing_router.catalog import Catalog, Model
from farthing_router.judging.opinions import Judged, judge
from farthing_router.pricing.tokens import Tokens, TokensSource
from farthing_router.routing.errands import (
    AllAttemptsFailed,
    Attempt,
    AttemptOutcome,
    Bought,
    Errand,
    Finished,
    Heard,
    Live,
    StreamBroken,
    waited_us,
)
from farthing_router.routing.planning import Candidate, OutputLengths, Role
from farthing_router.upstreams import Call, Upstream, UpstreamAnswer, UpstreamFailed, UpstreamPiece, UpstreamRejected
from farthing_router.upstreams.payloads import Reported

_BACKOFF_S = 0.2
_BACKOFF_S_MAX = 8.0
_TIME_KEPT_S = 0.05
_CHARACTERS_PER_TOKEN = 4


Sleep = Callable[[float], Awaitable[None]]


class Cascade:
    """Follows routes."""

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

    async def run(self, errand: Errand) -> Finished:
        """A whole answer. Raises AllAttemptsFailed, UpstreamRejected."""
        served = await self._judged_part(errand)
        for candidate in self._unjudged_part(errand, served):
            bought = await self._buy(errand, candidate)
            if bought is not None:
                served = bought
                break
        return self._finish(errand, served)

    async def stream(self, errand: Errand) -> AsyncGenerator[UpstreamPiece | Attempt | Finished, None]:
        """Attempts that ended before anybody spoke, pieces, and at last what it came to; then StreamBroken if the stream broke."""
        served = await self._judged_part(errand)
        for attempt in (*(bought.attempt for bought in errand.bought if bought is not served), *errand.failures):
            yield attempt
        if served is not None:
            yield UpstreamPiece(served.answer.content, served.answer.extra_json, served.candidate.model)
        for candidate in self._unjudged_part(errand, served):
            live = Live()
            async with aclosing(self._speak(errand, candidate, live)) as pieces:
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

    async def _judged_part(self, errand: Errand) -> Bought | None:
        """Asks the cheap models of a cascade, all but the last; the first answer that is good enough, or None."""
        route = errand.route
        asked = [each for each in route.candidates if each.role is not Role.FALLBACK]
        if route.accept_confidence <= 0:
            return None
        opening = [each for each in asked if each.role in (Role.FIRST, Role.PEER)]
        if len(opening) == len(asked) and len(opening) == 1:
            return None
        await asyncio.gather(*(self._buy(errand, candidate) for candidate in opening))
        served = self._acceptable(errand)
        for candidate in [each for each in asked if each.role is Role.ESCALATION][:-1]:
            if served is not None:
                break
            await self._buy(errand, candidate)
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

    async def _buy(self, errand: Errand, candidate: Candidate) -> Bought | None:
        """Asks one model, again where that may help; None when it gave no answer."""
        model = self._catalog.model(candidate.model)
        for number in range(model.deployment.retries + 1):
            call = self._call(errand, candidate, model)
            if call is None:
                return None
            began_s = self._clock.monotonic_s()
            try:
                answer = await self._upstream.complete(call)
            except UpstreamRejected as error:
                self._rejected(errand, candidate, error, began_s)
                return None
            except UpstreamFailed as error:
                self._failed(errand, candidate, error, began_s)
                if not error.retryable or not await self._pause(errand, number, error.retry_after_s, model):
                    return None
                continue
            return self._bought(errand, candidate, model, answer, began_s)
        return None

    async def _speak(self, errand: Errand, candidate: Candidate, live: Live) -> AsyncGenerator[UpstreamPiece, None]:
        """Streams one model; before its first piece a failure is tried again, after it the stream is broken."""
        model = self._catalog.model(candidate.model)
        for number in range(model.deployment.retries + 1):
            call = self._call(errand, candidate, model)
            if call is None:
                return
            began_s, first_us, heard = self._clock.monotonic_s(), 0, Heard()
            try:
                async with aclosing(self._upstream.stream(call)) as items:
                    async for item in items:
                        if isinstance(item, UpstreamAnswer):
                            bought = self._bought(errand, candidate, model, item, began_s, first_us)
                            live.bought = bought
                        else:
                            first_us = first_us or self._since_us(began_s)
                            heard.take(item)
                            yield replace(item, model=candidate.model)
                return
            except UpstreamRejected as error:
                self._rejected(errand, candidate, error, began_s)
                return
            except UpstreamFailed as error:
                if heard.any:
                    live.broken = error.message
                    live.partial = self._bought(errand, candidate, model, heard.answer(), began_s, first_us)
                    return
                self._failed(errand, candidate, error, began_s)
                if not error.retryable or not await self._pause(errand, number, error.retry_after_s, model):
                    return

    def _call(self, errand: Errand, candidate: Candidate, model: Model) -> Call | None:
        left_s = errand.ends_at_s - self._clock.monotonic_s() - _TIME_KEPT_S
        if errand.calls_left <= 0 or left_s <= 0:
            return None
        errand.calls_left -= 1
        return Call(
            deployment=model.deployment,
            conversation=errand.conversation,
            parameters=errand.parameters,
            output_tokens_max=candidate.output_tokens_max,
            timeout_s=min(left_s, model.deployment.timeout_s),
            request_id=errand.request_id,
        )

    async def _pause(self, errand: Errand, number: int, retry_after_s: float | None, model: Model) -> bool:
        """Waits before another try; False when there is no time or no call left for one."""
        wait_s = min(_BACKOFF_S_MAX, _BACKOFF_S * 2**number) * self._rng.uniform(0.5, 1.0)
        wait_s = max(wait_s, retry_after_s or 0.0)
        left_s = errand.ends_at_s - self._clock.monotonic_s()
        if number >= model.deployment.retries or errand.calls_left <= 0 or wait_s >= left_s:
            return False
        await self._sleep(wait_s)
        return True

    def _bought(
        self, errand: Errand, candidate: Candidate, model: Model, answer: UpstreamAnswer, began_s: float, first_us: int = 0
    ) -> Bought:
        said = answer.usage or Reported()
        tokens = said.tokens(input_estimate=candidate.input_tokens, output_estimate=_length(answer))
        price, tier = errand.prices.of(model), said.charged_tier(errand.service_tier)
        rated = price.rate(tokens, tier)
        attempt = Attempt(
            model=candidate.model,
            provider=candidate.provider,
            deployment=candidate.deployment,
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

    def _rejected(self, errand: Errand, candidate: Candidate, error: UpstreamRejected, began_s: float) -> None:
        """Nobody else is asked: who refuses a request as malformed speaks for all. What was bought before is delivered and charged."""
        errand.rejected, errand.calls_left = error, 0
        self._failed(errand, candidate, error, began_s)

    def _failed(self, errand: Errand, candidate: Candidate, error: UpstreamFailed | UpstreamRejected, began_s: float) -> None:
        errand.may_be_billed |= isinstance(error, UpstreamFailed) and error.may_be_billed
        why, none = error.message, Tokens(source=TokensSource.MISSING)
        latency_us = self._since_us(began_s)
        errand.failures.append(
            Attempt(
                candidate.model, candidate.provider, candidate.deployment, AttemptOutcome.FAILED, why, None, none, 0, latency_us
            )
        )

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

    def _since_us(self, began_s: float) -> int:
        return round((self._clock.monotonic_s() - began_s) * 1e6)


def _judged(answer: UpstreamAnswer, errand: Errand) -> Judged:
    calls_tools = '"tool_calls"' in answer.extra_json
    return Judged(answer.content, answer.finish_reason, wants_json=errand.wants_json, calls_tools=calls_tools)


def _cost(bought: Bought) -> int:
    return bought.attempt.cost_usd_nanos


def _length(answer: UpstreamAnswer) -> int:
    """How many tokens an answer likely has."""
    return -(-(len(answer.content) + len(answer.extra_json)) // _CHARACTERS_PER_TOKEN)
