"""What providers say of limits and waiting, in the headers that each documents."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from farthing_router.upstreams.limits import RateLimits, read_limits, retry_after_s, wait_s

NOW = datetime(2026, 11, 27, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        (
            {
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            RateLimits(59, 1.0, 149_984, 360.0),
        ),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "2m59.56s",
                "x-ratelimit-remaining-tokens": "-3",
            },
            RateLimits(0, pytest.approx(179.56), 0, None),
        ),
        (
            {
                "anthropic-ratelimit-requests-remaining": "5",
                "anthropic-ratelimit-requests-reset": "2026-11-27T10:00:12Z",
                "anthropic-ratelimit-input-tokens-remaining": "9000",
                "anthropic-ratelimit-input-tokens-reset": "2026-11-27T10:01:00Z",
                "anthropic-ratelimit-output-tokens-remaining": "100",
                "anthropic-ratelimit-output-tokens-reset": "2026-11-27T10:00:30Z",
            },
            RateLimits(5, 12.0, 100, 30.0),
        ),
        (
            {"x-ratelimit-remaining-req-minute": "7", "x-ratelimit-remaining-tokens-minute": "450000"},
            RateLimits(7, None, 450_000, None),
        ),
        ({"x-ratelimitbysize-remaining-minute": "1999", "ratelimitbysize-reset": "34"}, RateLimits(None, None, 1999, 34.0)),
        (
            {"x-ratelimit-remaining": "9", "x-ratelimit-reset": "1764237630", "x-tokenlimit-remaining": "5"},
            RateLimits(9, pytest.approx(0.0), 5, None),
        ),
        ({"x-trial-endpoint-call-remaining": "19"}, RateLimits(19)),
        ({"ratelimit-remaining": "3", "ratelimit-reset": "50"}, RateLimits(3, 50.0)),
        ({"x-ratelimit-remaining-requests": "plenty"}, RateLimits()),
        ({"content-type": "application/json"}, None),
    ],
    ids=["openai", "groq", "anthropic", "mistral", "mistral-older", "together", "cohere", "ietf", "nonsense", "none"],
)
def test_limits_are_read_in_every_familys_words(headers: dict[str, str], limits: RateLimits | None) -> None:
    assert read_limits(headers, now=NOW) == limits


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("20", 20.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("12ms", 0.012),
        ("6m0s", 360.0),
        ("1h2m3s", 3723.0),
        ("1d", 86_400.0),
        ("2026-11-27T10:00:30Z", 30.0),
        ("2026-11-27T09:00:00Z", 0.0),
        ("Fri, 27 Nov 2026 10:02:00 GMT", 120.0),
        ("1795773660000", 60.0),
        ("99999999", 30 * 86_400.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("5 apples", None),
    ],
)
def test_a_wait_is_read_however_it_is_said(said: str, seconds: float | None) -> None:
    found = wait_s(said, now=NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_milliseconds_come_first() -> None:
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "1"}) == 0.25
    assert retry_after_s({"retry-after-ms": "x", "retry-after": "1"}) == 1.0
    assert retry_after_s({}) is None
