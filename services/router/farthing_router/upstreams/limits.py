"""What providers say in headers of how much may still be asked, and how long to wait.

Families: OpenAI, Azure, Groq and most who speak that wire (`x-ratelimit-remaining-requests`, resets as durations); Anthropic
(`anthropic-ratelimit-requests-remaining`, resets as times); Mistral (`x-ratelimit-remaining-req-minute`); Together
(`x-ratelimit-remaining` with `x-tokenlimit-remaining`); Cohere (`x-trial-endpoint-call-remaining`); the IETF draft (`ratelimit-remaining`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|s|m|h|d)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
# Larger plain numbers are moments, not spans: seconds of Unix time, or milliseconds of it.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12
_WAIT_S_MAX = 30 * 86_400.0
_TEXT_MAX = 100


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What is left before a provider refuses; None where it does not say. `…_reset_s`: seconds until there is as much as ever again."""

    requests_remaining: int | None = None
    requests_reset_s: float | None = None
    tokens_remaining: int | None = None
    tokens_reset_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Family:
    """The headers of one way to say it; the first of several that is there counts. The tightest of several token limits counts."""

    requests: tuple[str, ...]
    requests_reset: tuple[str, ...] = ()
    tokens: tuple[tuple[str, str], ...] = ()


_FAMILIES = (
    _Family(
        ("x-ratelimit-remaining-requests",),
        ("x-ratelimit-reset-requests",),
        (("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),),
    ),
    _Family(
        ("anthropic-ratelimit-requests-remaining",),
        ("anthropic-ratelimit-requests-reset",),
        (
            ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
            ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
            ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
        ),
    ),
    _Family(
        ("x-ratelimit-remaining-req-minute", "x-ratelimit-remaining-req-second"),
        ("ratelimit-reset", "x-ratelimit-reset"),
        (
            ("x-ratelimit-remaining-tokens-minute", "ratelimit-reset"),
            ("x-ratelimitbysize-remaining-minute", "ratelimitbysize-reset"),
        ),
    ),
    _Family(
        ("x-ratelimit-remaining", "x-trial-endpoint-call-remaining", "ratelimit-remaining"),
        ("x-ratelimit-reset", "x-trial-endpoint-call-reset", "ratelimit-reset"),
        (("x-tokenlimit-remaining", "x-tokenlimit-reset"), ("ratelimitbysize-remaining", "ratelimitbysize-reset")),
    ),
)
_MARKERS = tuple((name, family) for family in _FAMILIES for name in (*family.requests, *(name for name, _ in family.tokens)))


def read_limits(headers: Mapping[str, str], *, now: datetime | None = None) -> RateLimits | None:
    """What headers say of limits; None where they say nothing. Names are looked up in lower case."""
    for name, family in _MARKERS:
        if name in headers:
            return _read(family, headers, now)
    return None


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """How long a provider asks to wait: `retry-after-ms`, or `retry-after` in seconds, as a duration, or as a date."""
    said = headers.get("retry-after-ms")
    if said is not None and (milliseconds := _number(said)) is not None:
        return min(_WAIT_S_MAX, milliseconds / 1000.0)
    said = headers.get("retry-after")
    return None if said is None else wait_s(said, now=now)


def wait_s(said: str, *, now: datetime | None = None) -> float | None:
    """Seconds until what a text says: `20`, `6m0s`, `12ms`, an RFC 3339 time, an HTTP date, Unix time. None for what is none of these."""
    said = said.strip()[:_TEXT_MAX]
    number = _number(said)
    if number is not None:
        if number < _EPOCH_S:
            return min(_WAIT_S_MAX, number)
        moment = number / 1000.0 if number >= _EPOCH_MS else number
        return _until(datetime.fromtimestamp(min(moment, 32e9), UTC), now)
    parts = _DURATION.findall(said)
    if parts and "".join(amount + unit for amount, unit in parts) == said.replace(" ", ""):
        return min(_WAIT_S_MAX, sum(float(amount) * _UNIT_S[unit] for amount, unit in parts))
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment_said = parse(said)
        except (ValueError, TypeError):
            continue
        return _until(moment_said if moment_said.tzinfo else moment_said.replace(tzinfo=UTC), now)
    return None


def _read(family: _Family, headers: Mapping[str, str], now: datetime | None) -> RateLimits:
    requests = next((left for name in family.requests if (left := _count(headers.get(name))) is not None), None)
    reset_s = next((_wait(headers.get(name), now) for name in family.requests_reset if name in headers), None)
    tokens: int | None = None
    tokens_reset_s: float | None = None
    for name, reset in family.tokens:
        left = _count(headers.get(name))
        if left is not None and (tokens is None or left < tokens):
            tokens, tokens_reset_s = left, _wait(headers.get(reset), now)
    return RateLimits(requests, reset_s, tokens, tokens_reset_s)


def _wait(said: str | None, now: datetime | None) -> float | None:
    return None if said is None else wait_s(said, now=now)


def _until(moment: datetime, now: datetime | None) -> float:
    return min(_WAIT_S_MAX, max(0.0, (moment - (now or datetime.now(UTC))).total_seconds()))


def _count(said: str | None) -> int | None:
    """A count; some give a negative one where more was taken than there was."""
    if said is None:
        return None
    try:
        return max(0, int(float(said[:_TEXT_MAX])))
    except (ValueError, OverflowError):
        return None


def _number(said: str) -> float | None:
    try:
        number = float(said[:_TEXT_MAX])
    except ValueError:
        return None
    return number if 0 <= number < 1e18 else 0.0 if number < 0 else None
