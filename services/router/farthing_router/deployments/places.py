"""A deployment as this replica knows it: what it may be asked, how it is doing, and what each call teaches about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from farthing_router.deployments.allowances import Allowance, Rest
from farthing_router.deployments.circuits import Circuit, CircuitState
from farthing_router.deployments.cooldowns import Cooldowns
from farthing_router.deployments.declared import Deployment
from farthing_router.deployments.hedging import Latencies, ShareBudget
from farthing_router.deployments.loads import Load
from farthing_router.upstreams import FailureKind, RateLimits, UpstreamFailed

_RETRIES_SHARE = 0.2
_RETRIES_SPARE = 10
_RETRIES_WINDOW_S = 30.0
_REFUSED_S = 1.0
_REFUSED_S_MAX = 60.0
_SLOW_FACTOR = 4.0
"""A call that was cut off after this many times the usual latency speaks about the deployment, though its caller had little time."""
_AT_ONCE = frozenset({FailureKind.AUTH, FailureKind.NOT_FOUND, FailureKind.OUT_OF_CREDIT})


class Health(StrEnum):
    """How a deployment is doing."""

    HEALTHY = "healthy"
    COOLING_DOWN = "cooling_down"
    OPEN = "open"
    HALF_OPEN = "half_open"
    DISABLED = "disabled"


@dataclass(slots=True)
class Ticket:
    """One call to a deployment, from its beginning to its end. `begun`: the calls, and their tokens, that had begun there by then."""

    tokens: int
    began_s: float
    given_s: float
    probe: bool
    begun: tuple[int, int] = (0, 0)


class Place:
    """The state of one deployment. Every `begin` is followed by one of `answered`, `failed` and `left`."""

    __slots__ = (
        "_allowance",
        "_begun",
        "_cooldowns",
        "_refused",
        "_tokens_in_flight",
        "circuit",
        "deployment",
        "enabled",
        "first_tokens",
        "latencies",
        "load",
        "retries",
        "weight",
    )

    def __init__(self, deployment: Deployment, cooldowns: Cooldowns) -> None:
        self.deployment = deployment
        self.weight = deployment.weight
        self.enabled = True
        self.load = Load()
        self.circuit = Circuit()
        self.latencies = Latencies()
        self.first_tokens = Latencies()
        self.retries = ShareBudget(share=_RETRIES_SHARE, spare=_RETRIES_SPARE, window_s=_RETRIES_WINDOW_S)
        self._allowance = Allowance(deployment)
        self._cooldowns = cooldowns
        self._refused = 0
        self._begun = (0, 0)
        self._tokens_in_flight = 0

    def rest(self, now_s: float, tokens: int) -> Rest | None:
        """Why it takes no call of so many tokens now; None where it does."""
        if not self.enabled:
            return Rest("was taken out of use", float("inf"))
        if (cooling := self._cooldowns.rest(self.deployment.name, now_s)) is not None:
            return Rest(f"cools down ({cooling[1]})", cooling[0])
        if not self.circuit.lets_through(now_s):
            return Rest(f"its circuit is open ({self.circuit.reason})", self.circuit.again_at_s(now_s), broken=True)
        return self._allowance.rest(now_s, tokens=tokens, in_flight=self.load.in_flight)

    def begin(self, now_s: float, *, tokens: int, given_s: float) -> Ticket:
        """A call of so many tokens begins, that may take so long."""
        self.load.in_flight += 1
        self._tokens_in_flight += tokens
        self._allowance.begin(tokens)
        self.retries.called(now_s)
        self._begun = (self._begun[0] + 1, self._begun[1] + tokens)
        return Ticket(tokens, now_s, given_s, self.circuit.begin(now_s), self._begun)

    def answered(self, ticket: Ticket, now_s: float, *, output_tokens: int, used: int, limits: RateLimits | None) -> None:
        """It answered with so many tokens; prompt and answer used so many."""
        self._end(ticket, used)
        self._refused = 0
        seconds = now_s - ticket.began_s
        self.load.answered(seconds, output_tokens=output_tokens, now_s=now_s)
        self.latencies.add(seconds)
        self.circuit.succeeded(now_s, probe=ticket.probe)
        self._hear(limits, ticket, now_s)

    def failed(self, ticket: Ticket, now_s: float, error: UpstreamFailed) -> None:
        """It did not answer."""
        self._end(ticket, ticket.tokens if error.may_be_billed else 0)
        kind, seconds, reason = error.kind, now_s - ticket.began_s, f"{error.kind}: {error.message}"
        self._hear(error.limits, ticket, now_s)
        if kind is FailureKind.RATE_LIMITED:
            # It works and says when it will work for us again.
            self._refused = min(self._refused + 1, 16)
            wait_s = min(_REFUSED_S_MAX, _REFUSED_S * 2.0 ** (self._refused - 1))
            self._cooldowns.extend(self.deployment.name, max(wait_s, error.retry_after_s or 0.0), reason)
            self.circuit.undecided(probe=ticket.probe)
        elif kind in (FailureKind.CONTENT_FILTER, FailureKind.CONTEXT_TOO_LONG):
            self.circuit.succeeded(now_s, probe=ticket.probe)
        elif not kind.speaks_for_the_deployment or (kind is FailureKind.TIMEOUT and self._had_little_time(ticket)):
            self.circuit.undecided(probe=ticket.probe)
        else:
            if error.retry_after_s:
                self._cooldowns.extend(self.deployment.name, error.retry_after_s, reason)
            self.load.failed(seconds, now_s=now_s)
            self.circuit.failed(now_s, probe=ticket.probe, reason=reason, at_once=kind in _AT_ONCE)

    def left(self, ticket: Ticket) -> None:
        """The call was given up, or refused for what the request says: that tells nothing of the deployment."""
        self._end(ticket, ticket.tokens)
        self.circuit.undecided(probe=ticket.probe)

    def health(self, now_s: float) -> tuple[Health, Rest | None]:
        """How it is doing, and why it takes no calls if it takes none."""
        rest = self.rest(now_s, 1)
        state = self.circuit.state(now_s)
        if not self.enabled:
            return Health.DISABLED, rest
        if self._cooldowns.rest(self.deployment.name, now_s) is None and state is not CircuitState.CLOSED:
            return Health.OPEN if state is CircuitState.OPEN else Health.HALF_OPEN, rest
        return (Health.HEALTHY if rest is None else Health.COOLING_DOWN), rest

    def said(self, now_s: float) -> tuple[int | None, int | None, float | None]:
        """The requests and tokens that its provider says are left, and in how many seconds the tighter window begins anew."""
        said = (self._allowance.requests, self._allowance.tokens)
        for each in said:
            each.lacks(0, now_s)  # forgets what no longer counts
        resets = [each.reset_at_s - now_s for each in said if each.left is not None]
        requests, tokens = (None if each.left is None else max(0, each.left) for each in said)
        return requests, tokens, min(resets, default=None)

    def _end(self, ticket: Ticket, used: int) -> None:
        self.load.in_flight -= 1
        self._tokens_in_flight -= ticket.tokens
        self._allowance.end(ticket.tokens, used=used)

    def _hear(self, limits: RateLimits | None, ticket: Ticket, now_s: float) -> None:
        if limits is not None:
            # What began before this call its provider has counted already.
            uncounted = min(self.load.in_flight, self._begun[0] - ticket.begun[0])
            tokens = min(self._tokens_in_flight, self._begun[1] - ticket.begun[1])
            self._allowance.hear(limits, uncounted=uncounted, uncounted_tokens=tokens, now_s=now_s)

    def _had_little_time(self, ticket: Ticket) -> bool:
        usual_s = self.load.whole_s
        enough_s = self.deployment.timeout_s if usual_s is None else min(self.deployment.timeout_s, usual_s * _SLOW_FACTOR)
        return ticket.given_s < enough_s
