"""What came of a call: an attempt, with its tokens and what they cost at the deployment that was called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from farthing_core.money import NANOS_MAX, Nanos

from farthing_router.catalog import Catalog
from farthing_router.deployments.places import Place, Ticket
from farthing_router.pricing.prices import Price, Rated
from farthing_router.pricing.rates import RateMissing
from farthing_router.pricing.tokens import Tokens, TokensSource
from farthing_router.routing.errands import Attempt, AttemptOutcome, Bought, Errand
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.routes import Candidate
from farthing_router.upstreams import Call, UpstreamAnswer, UpstreamFailed, UpstreamRejected
from farthing_router.upstreams.payloads import Reported

_CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True)
class Try:
    """One call under way. `hedge`: it was made because another one took too long; `overtaken`: that one was faster all the same."""

    errand: Errand
    candidate: Candidate
    place: Place
    ticket: Ticket
    call: Call
    hedge: bool = False
    overtaken: bool = False
    first_token_us: int = 0


class Attempts:
    """Ends tries, and writes down what came of them: to the errand, and to the state of their deployments.

    What may be billed though nobody knows how much is charged as an answer of likely length.
    """

    def __init__(self, catalog: Catalog, lengths: OutputLengths) -> None:
        self._catalog = catalog
        self._lengths = lengths

    def answered(self, tried: Try, answer: UpstreamAnswer, now_s: float) -> Bought:
        """An answer came."""
        attempt = self._answered(tried, answer, now_s)
        tokens = attempt.tokens
        tried.place.answered(
            tried.ticket,
            now_s,
            output_tokens=tokens.output_tokens,
            used=tokens.input_tokens + tokens.output_tokens,
            limits=answer.limits,
        )
        bought = Bought(tried.candidate, answer, attempt)
        if tried.overtaken:
            overtaken = replace(attempt, outcome=AttemptOutcome.CANCELLED, reason="another deployment was faster")
            tried.errand.failures.append(overtaken)
        else:
            tried.errand.bought.append(bought)
        return bought

    def torso(self, tried: Try, answer: UpstreamAnswer, error: UpstreamFailed, now_s: float) -> Bought:
        """A part of an answer came before the call failed."""
        bought = Bought(tried.candidate, answer, replace(self._answered(tried, answer, now_s), failure_kind=str(error.kind)))
        tried.place.failed(tried.ticket, now_s, error)
        tried.errand.bought.append(bought)
        return bought

    def failed(self, tried: Try, error: UpstreamFailed | UpstreamRejected, now_s: float) -> None:
        """No answer came."""
        errand, latency_us = tried.errand, _us(tried, now_s)
        if isinstance(error, UpstreamRejected):
            tried.place.left(tried.ticket)
            lost, kind = False, "rejected"
        else:
            tried.place.failed(tried.ticket, now_s, error)
            lost, kind = error.may_be_billed, str(error.kind)
        errand.may_be_billed |= lost
        if not lost:
            errand.committed_usd_nanos -= tried.candidate.worst_case_usd_nanos
        tokens = _likely(tried) if lost else Tokens(source=TokensSource.MISSING)
        facts = {"outcome": AttemptOutcome.FAILED, "reason": error.message, "failure_kind": kind, "latency_us": latency_us}
        attempt = self._priced(tried, tokens, self._tier(tried), **facts)
        errand.failures.append(attempt)
        if lost:
            errand.spared_usd_nanos += tried.candidate.worst_case_usd_nanos - attempt.cost_usd_nanos

    def given_up(self, tried: Try, now_s: float) -> None:
        """It was not waited for any longer: its caller has gone, or another deployment was faster, and its provider may bill it."""
        tried.place.left(tried.ticket)
        if tried.overtaken:
            facts = {
                "outcome": AttemptOutcome.CANCELLED,
                "reason": "another deployment was faster",
                "failure_kind": "cancelled",
            }
            attempt = self._priced(tried, _likely(tried), self._tier(tried), latency_us=_us(tried, now_s), **facts)
            tried.errand.failures.append(attempt)
            tried.errand.spared_usd_nanos += tried.candidate.worst_case_usd_nanos - attempt.cost_usd_nanos

    def _answered(self, tried: Try, answer: UpstreamAnswer, now_s: float) -> Attempt:
        said, candidate = answer.usage or Reported(), tried.candidate
        tokens = said.tokens(input_estimate=candidate.input_tokens, output_estimate=_length(answer))
        self._lengths.learn(candidate.model, tried.errand.task, tokens.output_tokens)
        tier = said.charged_tier(self._tier(tried))
        attempt = self._priced(tried, tokens, tier, outcome=AttemptOutcome.REJECTED, reason="", latency_us=_us(tried, now_s))
        tried.errand.committed_usd_nanos += attempt.cost_usd_nanos - candidate.worst_case_usd_nanos
        return attempt

    def _tier(self, tried: Try) -> str:
        return tried.candidate.service_tier or tried.errand.service_tier

    def _priced(self, tried: Try, tokens: Tokens, tier: str, **facts: Any) -> Attempt:
        deployment = tried.place.deployment
        price = tried.errand.prices.of(self._catalog.model(tried.candidate.model), deployment)
        rated = None if tokens.source is TokensSource.MISSING else _rated(price, tokens, tier, otherwise=tried.candidate)
        return Attempt(
            model=tried.candidate.model,
            provider=deployment.provider,
            deployment=deployment.name,
            confidence=None,
            tokens=tokens,
            cost_usd_nanos=min(NANOS_MAX, rated.cost_usd_nanos) if rated else 0,
            first_token_us=tried.first_token_us,
            service_tier=tier if rated else "",
            price_source=price.source if rated else "",
            price_unknown=rated.unknown if rated else False,
            hedge=tried.hedge,
            **facts,
        )


def _rated(price: Price, tokens: Tokens, tier: str, *, otherwise: Candidate) -> Rated:
    """What a call costs; as much as was held for it where it used what the price names no rate for: it is billed all the same."""
    try:
        return price.rate(tokens, tier)
    except RateMissing:
        return Rated(Nanos(otherwise.worst_case_usd_nanos), True, tier, 0)


def _likely(tried: Try) -> Tokens:
    """What a lost call is taken to have used: as much as its plan reckoned with."""
    candidate = tried.candidate
    likely = min(candidate.likely_output_tokens, candidate.output_tokens_max)
    return Tokens(candidate.input_tokens, output_tokens=likely, source=TokensSource.ESTIMATED)


def _us(tried: Try, now_s: float) -> int:
    return round((now_s - tried.ticket.began_s) * 1e6)


def _length(answer: UpstreamAnswer) -> int:
    """How many tokens an answer likely has."""
    return -(-(len(answer.content) + len(answer.extra_json)) // _CHARACTERS_PER_TOKEN)
