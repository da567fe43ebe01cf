"""Case 12: usage as every provider reports it costs what was worked out by hand; case 11: what is missing is told from zero."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from farthing_router.pricing.price_entries import PriceEntry
from farthing_router.pricing.tokens import Tokens, TokensSource
from farthing_router.upstreams.payloads import Reported, read_usage

CORPUS = json.loads((Path(__file__).parent / "golden_usage.json").read_text())
PROVIDERS = {"openai", "anthropic", "gemini", "cohere", "deepseek", "bedrock"}


def named(case: dict[str, Any]) -> str:
    return f"{case['provider']}: {case['name']}"


@pytest.mark.parametrize("case", CORPUS["cases"], ids=named)
def test_case_12_a_payload_costs_what_was_worked_out_by_hand(case: dict[str, Any]) -> None:
    said = read_usage(case["body"])
    assert said is not None
    tokens, tier = said.tokens(input_estimate=10**9, output_estimate=10**9), said.charged_tier(case.get("asked_tier", ""))
    assert tokens == Tokens(**case["tokens"], source=TokensSource[case["source"].upper()])
    assert tier == case["service_tier"]
    price = PriceEntry.model_validate(CORPUS["prices"][case["price"]]).price(field="price")
    rated, parts = price.rate(tokens, tier), price.parts(tokens, tier)
    assert rated.cost_usd_nanos == case["cost_usd_nanos"]
    assert rated.unknown is case.get("price_unknown", False) is any(part.unknown for part in parts)
    assert sum(part.cost_usd_nanos for part in parts) == case["cost_usd_nanos"]


@pytest.mark.parametrize("case", CORPUS["cases"], ids=named)
def test_the_arithmetic_that_a_case_writes_out_gives_its_cost(case: dict[str, Any]) -> None:
    sum_written = case["why"].split(" = ")[0]
    assert re.fullmatch(r"[0-9.×+() -]+", sum_written)
    exact = re.sub(r"[0-9]+(\.[0-9]+)?", lambda found: f"Fraction('{found[0]}')", sum_written.replace("×", "*"))
    assert math.ceil(eval(exact, {"Fraction": Fraction})) == case["cost_usd_nanos"]


def test_the_corpus_covers_every_provider_and_kind() -> None:
    cases = CORPUS["cases"]
    assert len(cases) >= 60
    assert {case["provider"] for case in cases} >= PROVIDERS
    used = {name for case in cases for name, count in case["tokens"].items() if count}
    assert used == {
        "input_tokens",
        "output_tokens",
        "cached_input_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "reasoning_tokens",
        "audio_input_tokens",
        "audio_output_tokens",
        "cached_audio_input_tokens",
        "image_input_tokens",
        "cached_image_input_tokens",
        "image_output_tokens",
        "images",
    }
    assert {case["service_tier"] for case in cases} == {"", "batch", "flex", "priority", "fast"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"usage": None},
        {"usage": {}},
        {"usage": {"prompt_tokens": None, "completion_tokens": None}},
        {"usage": {"prompt_tokens": -3, "completion_tokens": "many"}},
        {"usage": {"prompt_tokens": True}},
        {"usageMetadata": {}},
        {"meta": {"warnings": []}},
        {"choices": [{"message": {"content": "x"}}]},
    ],
)
def test_case_11_what_reports_nothing_is_missing(body: dict[str, Any]) -> None:
    assert read_usage(body) is None
    assert Reported().tokens(input_estimate=7, output_estimate=5) == Tokens(7, 0, 5, source=TokensSource.ESTIMATED)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 0, "completion_tokens": 0}, Tokens(0, 0, 0, source=TokensSource.REPORTED)),
        ({"prompt_tokens": 9}, Tokens(9, 0, 5, source=TokensSource.ESTIMATED)),
        ({"completion_tokens": 0}, Tokens(7, 0, 0, source=TokensSource.ESTIMATED)),
        ({"completion_tokens": 9, "prompt_tokens": None}, Tokens(7, 0, 9, source=TokensSource.ESTIMATED)),
        ({"prompt_tokens": 9, "total_tokens": 10}, Tokens(9, 0, 1, source=TokensSource.DERIVED)),
    ],
)
def test_case_11_zero_is_zero_and_only_what_is_missing_is_estimated(usage: dict[str, Any], tokens: Tokens) -> None:
    said = read_usage({"usage": usage})
    assert said is not None
    assert said.tokens(input_estimate=7, output_estimate=5) == tokens
    cached = {"prompt_tokens_details": {"cached_tokens": 0}}
    told = read_usage({"usage": {**usage, **cached}})
    assert told is not None
    assert (told.cached_input_tokens, said.cached_input_tokens) == (
        (0, None) if "prompt_tokens" in usage or "completion_tokens" in usage else (None, None)
    )


def test_later_events_of_a_stream_complete_the_earlier_ones() -> None:
    first = read_usage(
        {"type": "message_start", "message": {"usage": {"input_tokens": 25, "cache_read_input_tokens": 75, "output_tokens": 1}}}
    )
    last = read_usage({"type": "message_delta", "usage": {"output_tokens": 15}})
    assert first is not None
    assert last is not None
    assert first.then(last).tokens(input_estimate=0, output_estimate=0) == Tokens(100, 75, 15)
