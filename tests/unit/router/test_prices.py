"""Rates, tiers, rounding, fall-backs, and list prices."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from farthing_core.errors import FieldInvalid
from farthing_router.pricing.list_prices import ListedModel, ListPrices
from farthing_router.pricing.price_entries import PriceEntry
from farthing_router.pricing.prices import Price, upper_bound
from farthing_router.pricing.rates import KINDS, RateCard, RateMissing, Schedule, check_schedule, plain_card
from farthing_router.pricing.tokens import Tokens, service_tier
from hypothesis import given
from hypothesis import strategies as st

PLAIN = Price(plain_card(3_000_000_000, 15_000_000_000), "test")
COUNTS = st.integers(0, 2_000_000)
RATES = st.integers(0, 10**12)


def entry(**more: Any) -> PriceEntry:
    rates = {"input_usd_per_million_tokens": "3", "output_usd_per_million_tokens": "15"}
    return PriceEntry.model_validate({**rates, **more})


@pytest.mark.parametrize(
    ("tokens", "nanos", "unknown"),
    [
        (Tokens(1000, 1000), 1000 * 3000, False),
        (Tokens(1000, cache_write_5m_tokens=1000), 1000 * 3750, False),
        (Tokens(1000, cache_write_1h_tokens=1000), 1000 * 6000, False),
        (Tokens(0, 0, 1000, 1000), 1000 * 15000, False),
        (Tokens(1000, image_input_tokens=1000), 1000 * 3000, False),
        (Tokens(1000, 1000, image_input_tokens=1000, cached_image_input_tokens=1000), 1000 * 3000, False),
        (Tokens(1000, audio_input_tokens=1000), 60 * 1000 * 3000, True),
        (Tokens(1000, 1000, audio_input_tokens=1000, cached_audio_input_tokens=1000), 60 * 1000 * 3000, True),
        (Tokens(0, 0, 1000, audio_output_tokens=1000), 60 * 1000 * 15000, True),
        (Tokens(0, 0, 1000, image_output_tokens=1000), 20 * 1000 * 15000, True),
    ],
)
def test_case_4_a_kind_without_a_rate_is_charged_at_an_upper_bound(tokens: Tokens, nanos: int, unknown: bool) -> None:
    rated = PLAIN.rate(tokens)
    assert (rated.cost_usd_nanos, rated.unknown) == (nanos, unknown)


def test_images_by_the_piece_without_a_rate_are_an_error_unless_their_tokens_are_billed() -> None:
    with pytest.raises(RateMissing, match="image"):
        PLAIN.rate(Tokens(10, images=1))
    assert PLAIN.rate(Tokens(10, 0, 100, image_output_tokens=100, images=1)).unknown


@pytest.mark.parametrize(
    ("tier", "times", "unknown"), [("batch", 1, False), ("flex", 1, False), ("priority", 3, True), ("scale", 3, True)]
)
def test_case_4_a_tier_of_service_without_rates_is_bounded(tier: str, times: int, unknown: bool) -> None:
    rated = PLAIN.rate(Tokens(7, 0, 3), tier)
    assert (rated.cost_usd_nanos, rated.unknown, rated.service_tier) == (times * (7 * 3000 + 3 * 15000), unknown, "")


def test_counts_that_contradict_one_another_never_make_a_call_cheaper() -> None:
    assert PLAIN.of(Tokens(10, 50)) == 50 * 3000
    assert PLAIN.of(Tokens(0, 0, 10, 50)) == 50 * 15000


def test_money_is_rounded_up_once_a_call_and_the_discount_with_it() -> None:
    third = Price(plain_card(1, 1), "test")
    assert third.of(Tokens(1, 0, 1)) == 1
    assert third.of(Tokens(500_000, 0, 500_001)) == 2
    assert Price(plain_card(1_000_000, 1_000_000), "test", discount_bps=3333).of(Tokens(2, 0, 1)) == 3  # 3 × 0.6667 = 2.0001
    assert Price(plain_card(1_000_000, 1_000_000), "test", discount_bps=10_000).of(Tokens(5, 0, 5)) == 0
    assert Price(plain_card(1_000_000, 0, request=7), "test", discount_bps=5000).of(Tokens(1)) == 4


@given(
    counts=st.lists(COUNTS, min_size=12, max_size=12),
    rates=st.lists(RATES, min_size=14, max_size=14),
    bps=st.integers(0, 10_000),
    tier=st.sampled_from(["", "batch", "priority"]),
)
def test_parts_add_up_to_the_cost_and_more_tokens_never_cost_less(
    counts: list[int], rates: list[int], bps: int, tier: str
) -> None:
    price = Price(RateCard(Schedule(dict(zip(KINDS, rates, strict=True)))), "test", discount_bps=bps)
    names = [name for name in Tokens.__slots__ if name not in ("source", "images")]
    tokens = Tokens(**dict(zip(names, counts, strict=True)), images=counts[0] % 5)
    cost = price.rate(tokens, tier).cost_usd_nanos
    assert sum(part.cost_usd_nanos for part in price.parts(tokens, tier)) == cost
    grown = Tokens(**{**{name: getattr(tokens, name) for name in [*names, "images"]}, "output_tokens": counts[2] + 1})
    assert price.rate(grown, tier).cost_usd_nanos >= cost


@given(sent=COUNTS, said=COUNTS, rates=st.lists(RATES, min_size=14, max_size=14), bps=st.integers(0, 10_000))
def test_no_way_of_splitting_text_passes_the_worst_case(sent: int, said: int, rates: list[int], bps: int) -> None:
    stated = dict(zip(KINDS, rates, strict=True))
    stated["cached_input"] = min(stated["cached_input"], stated["input"])  # no provider charges more for what it remembers
    price = Price(RateCard(Schedule(stated)), "test", discount_bps=bps)
    worst = price.worst(sent, said, may=(True, True, True))
    parts = (
        "cached_input_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "audio_input_tokens",
        "image_input_tokens",
    )
    for part in parts:
        tokens = Tokens(input_tokens=sent, output_tokens=said, **{part: sent // 2})
        assert price.rate(tokens).cost_usd_nanos <= worst.cost_usd_nanos
    for part in ("reasoning_tokens", "audio_output_tokens", "image_output_tokens"):
        assert price.rate(Tokens(input_tokens=sent, output_tokens=said, **{part: said})).cost_usd_nanos <= worst.cost_usd_nanos
    assert price.text(sent, said) <= worst.cost_usd_nanos
    assert price.text(sent, said) == price.of(Tokens(sent, 0, said))


def test_the_worst_case_counts_the_cache_writes_that_a_price_names() -> None:
    price = entry(cache_write_5m_usd_per_million_tokens="3.75", cache_write_1h_usd_per_million_tokens="6").price(field="price")
    worst = {writes: price.worst(100, 10, may=(writes, False, False)) for writes in (False, True)}
    assert {writes: each.cost_usd_nanos for writes, each in worst.items()} == {
        False: 100 * 3750 + 10 * 15000,
        True: 100 * 6000 + 10 * 15000,
    }
    assert worst[True].output_usd_nanos_per_million_tokens == 15_000_000_000
    assert PLAIN.worst(1, 1, service_tier="priority").unknown
    assert PLAIN.worst(1, 1, may=(False, True, False)).unknown


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("p.long_context[0].rates", {"cached_input_usd_per_million_tokens": "1", "long_context": [{"input_tokens_over": 9}]}),
        ("p.long_context[1].input_tokens_over", {"long_context": [{"input_tokens_over": 9}, {"input_tokens_over": 9}]}),
        ("p.service_tiers.batch.rates", {"cached_input_usd_per_million_tokens": "1", "service_tiers": {"batch": {}}}),
    ],
)
def test_a_price_that_would_charge_long_prompts_like_short_ones_is_refused(field: str, more: dict[str, Any]) -> None:
    rates = {"input_usd_per_million_tokens": "3", "output_usd_per_million_tokens": "15"}
    if "long_context" in more:
        more["long_context"] = [{**rates, **step} for step in more["long_context"]]
    if "service_tiers" in more:
        more["service_tiers"] = {name: {**rates, **step} for name, step in more["service_tiers"].items()}
    with pytest.raises(FieldInvalid) as caught:
        entry(**more).price(field="p")
    assert caught.value.field == field


def test_the_highest_threshold_that_a_prompt_passes_counts() -> None:
    steps = [(10, {"input": 2_000_000, "output": 0}), (100, {"input": 3_000_000, "output": 0})]
    price = Price(RateCard(Schedule({"input": 1_000_000, "output": 0}, steps)), "test")
    assert [price.of(Tokens(count)) for count in (10, 11, 100, 101)] == [10, 22, 200, 303]
    assert [price.rate(Tokens(count)).input_tokens_over for count in (10, 100, 101)] == [0, 10, 100]


def test_a_price_says_which_kinds_it_bills_apart() -> None:
    card = plain_card(
        5, 7, cached_input=1, reasoning=7, image_input=5, image_output=9, cached_image_input=4, request=3, image=0
    )
    assert card.distinct_kinds == ["cached_input", "image_output", "cached_image_input", "request"]
    assert plain_card(5, 7).distinct_kinds == []


def test_rates_without_input_or_output_are_refused() -> None:
    with pytest.raises(FieldInvalid, match="names no output"):
        check_schedule({"input": 1}, (), field="price")


def test_an_upper_bound_takes_the_dearest_of_each_kind_and_length() -> None:
    cheap = Price(plain_card(1_000, 9_000, audio_input=50), "a")
    long = Price(RateCard(Schedule({"input": 2, "output": 3}, [(10, {"input": 4_000, "output": 8_000})])), "b")
    bound = upper_bound([cheap, long], factor=2)
    assert bound is not None
    assert bound.unknown
    assert bound.card.usual.rates == {"input": 8_000, "output": 18_000, "audio_input": 100}
    assert upper_bound([], factor=2) is None
    assert upper_bound([Price(plain_card(0, 0), "own machines")], factor=2) is None
    assert upper_bound([Price(plain_card(0, 5), "answers alone")], factor=2) is None


def test_tiers_of_service_have_one_name_each() -> None:
    assert [service_tier(name) for name in ("default", "STANDARD", " auto ", "Flex", "priority")] == [
        "",
        "",
        "",
        "flex",
        "priority",
    ]


@pytest.fixture(scope="module")
def listed() -> ListPrices:
    return ListPrices()


def at(year: int, month: int = 11, day: int = 1, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def test_list_prices_know_long_prompts_cache_writes_and_batches(listed: ListPrices) -> None:
    found = listed.find("anthropic", "claude-sonnet-4-5")
    assert found is not None
    price = found.at(at(2026))
    assert price is not None
    usual = price.card.usual
    assert usual.rates == {
        "input": 3_000_000_000,
        "cached_input": 300_000_000,
        "cache_write_5m": 3_750_000_000,
        "cache_write_1h": 6_000_000_000,
        "output": 15_000_000_000,
    }
    assert [over for over, _ in usual.long_context] == [200_000]
    assert usual.long_context[0][1]["output"] == 22_500_000_000
    assert price.of(Tokens(200_001, 0, 10)) == 200_001 * 6000 + 10 * 22500
    assert price.rate(Tokens(100, 0, 10), "batch").cost_usd_nanos == 100 * 1500 + 10 * 7500
    assert price.source == "genai-prices"


def test_list_prices_know_tiers_of_service_audio_and_requests(listed: ListPrices) -> None:
    def price(provider: str, model: str) -> Price:
        found = listed.find(provider, model)
        assert found is not None
        known = found.at(at(2026))
        assert known is not None
        return known

    gpt = price("openai", "gpt-5.4")
    assert {"flex", "priority", "batch"} <= gpt.card.tiers.keys()
    assert gpt.rate(Tokens(100, 0, 10), "priority").cost_usd_nanos == 100 * 5000 + 10 * 30000
    flash = price("google", "gemini-2.5-flash")
    assert flash.of(Tokens(100, audio_input_tokens=60)) == 40 * 300 + 60 * 1000
    assert not price("google", "gemini-2.5-pro").rate(Tokens(100, audio_input_tokens=60)).unknown
    assert price("openai", "gpt-4o-audio-preview").rate(Tokens(100, audio_input_tokens=60)).unknown
    assert price("perplexity", "sonar").card.usual.rates["request"] == 12_000_000


def test_list_prices_follow_the_day_on_which_they_change(listed: ListPrices) -> None:
    found = listed.find("openai", "gpt-4o")
    assert isinstance(found, ListedModel)
    before, after = found.at(at(2026, 10, 1)), found.at(at(2026, 11, 1))
    assert before is not None
    assert after is not None
    assert before.card.usual == after.card.usual
    assert "batch" not in before.card.tiers
    assert "batch" in after.card.tiers
    assert listed.find("openai", "no-such-model") is None
    assert listed.find("no-such-provider", "gpt-4o") is None


def test_every_list_price_can_be_read_and_none_is_free_by_mistake(listed: ListPrices) -> None:
    read = 0
    for provider in listed._snapshot.providers:
        for model in provider.models:
            price = ListedModel(model, whole=False).at(at(2026))
            if price is None:
                continue
            read += 1
            for rates in price.card.all_rates():
                assert {"input", "output"} <= rates.keys()
            stated = model.get_prices(at(2026))
            if stated.input_mtok:
                assert price.of(Tokens(1000)) > 0
    assert read > 1000
