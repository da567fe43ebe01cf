"""Rate limits as people make them, and every way in which an admission is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farthing_core.errors import FarthingError, FieldInvalid

BURST_S = 60
LIMITS_MAX = 10_000
"""As many rate limits an organisation may have."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How fast a scope, with everything below it, may work; for one model, or for all together when `model` is empty. 0 does not limit.

    `burst_s` is how many seconds' worth may come at once.
    """

    organization: str
    rate_limit_id: str
    scope: str
    model: str
    requests_per_minute: int
    tokens_per_minute: int
    concurrent_requests: int
    burst_s: int

    def checked(self) -> RateLimit:
        """This limit; raises FieldInvalid when it limits nothing."""
        if not (self.requests_per_minute or self.tokens_per_minute or self.concurrent_requests):
            raise FieldInvalid(
                field="requests_per_minute",
                problem="give it, tokens_per_minute or concurrent_requests: a rate limit limits something",
            )
        return self


@dataclass(frozen=True, slots=True)
class RateLimitDraft:
    """A rate limit to be made."""

    limit: RateLimit
    request_id: str
    body_hash: bytes
    created_at: datetime


class RateLimited(FarthingError):
    """A request does not fit a rate limit now. The facts name the limit that has to be waited for longest.

    `retry_after_s` is when it would fit if nobody else came; concurrency comes free when somebody ends, so for that it is a moment.
    """

    def __init__(self, limit: RateLimit, kind: str, *, most: int, left: int, retry_after_s: float) -> None:
        model = f" for {limit.model}" if limit.model else ""
        unit = "requests at a time" if kind == "CONCURRENCY" else f"{kind.lower()} per minute"
        super().__init__(
            f"{limit.scope} is limited to {most} {unit}{model}; {left} left now",
            rate_limit_id=limit.rate_limit_id,
            scope=limit.scope,
            subject=limit.scope,
            model=limit.model,
            kind=kind,
            limit=most,
            left=left,
        )
        self.retry_after_s = retry_after_s


class BurstExceeded(FarthingError):
    """A request asks for more tokens than a rate limit ever lets through at once: waiting does not help, a smaller one does."""

    def __init__(self, limit: RateLimit, *, asked: int, burst: int) -> None:
        super().__init__(
            f"tokens: {asked} can never fit the {limit.tokens_per_minute} tokens per minute of {limit.scope}, "
            f"which let {burst} through at once ({limit.burst_s} s worth)",
            rate_limit_id=limit.rate_limit_id,
            scope=limit.scope,
            subject=limit.scope,
            model=limit.model,
            kind="TOKENS",
            limit=limit.tokens_per_minute,
            asked=asked,
            burst=burst,
        )


class RateLimitExists(FarthingError):
    """The scope has a rate limit for this model (or for all) already."""

    def __init__(self, *, scope: str, model: str) -> None:
        super().__init__(f"{scope} has a rate limit for {model or 'all models'} already", scope=scope, model=model)


class RateLimitNotFound(FarthingError):
    """No such rate limit in this organisation."""

    def __init__(self, *, rate_limit_id: str) -> None:
        super().__init__(f"no rate limit {rate_limit_id}", rate_limit_id=rate_limit_id)


class RateLimitsTooMany(FarthingError):
    """The organisation has as many rate limits as it may have."""

    def __init__(self, *, organization: str) -> None:
        super().__init__(
            f"{organization} has {LIMITS_MAX} rate limits already", organization=organization, limits_max=LIMITS_MAX
        )


class BucketsAway(FarthingError):
    """What replicas share of their rate limits is out of reach, and nothing is let through without it."""

    unreachable = True

    def __init__(self) -> None:
        super().__init__("the rate limits' Redis is out of reach")
        self.retry_after_s = 1.0
