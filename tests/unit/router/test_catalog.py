"""What farthing.yaml may say of providers, models and routing."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_core.errors import FieldInvalid
from farthing_router.catalog import ModelUnknown, parse_catalog
from farthing_router.pricing.price_entries import price_from_usd
from farthing_router.pricing.prices import Price, PriceUnknown
from farthing_router.pricing.rates import plain_card
from farthing_router.pricing.tokens import Tokens
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.planning import Planner
from farthing_router.routing.routes import ContextTooLong, NoCandidate, Role, Wish


def config(**changes: Any) -> dict[str, Any]:
    price = {"input_usd_per_million_tokens": "2.50", "output_usd_per_million_tokens": "10"}
    cheap = {"input_usd_per_million_tokens": "0.15", "output_usd_per_million_tokens": "0.6"}
    base: dict[str, Any] = {
        "providers": {
            "p": {"base_url": "http://127.0.0.1:1/v1", "api_key_optional": True},
            "own": {"base_url": "http://127.0.0.1:2/v1", "hosted": False},
        },
        "models": {
            "large": {"provider": "p", "price": price, "tier": "premium", "capabilities": ["tools", "json"]},
            "small": {"provider": "p", "price": cheap, "context_window_tokens": 8_000},
            "open": {"provider": "own", "price": {"input_usd_per_million_tokens": "0", "output_usd_per_million_tokens": "0"}},
            "unpriced": {"provider": "p"},
        },
        "routing": {"baseline_model": "large", "cascades": [{"steps": ["small", "large"]}], "fallbacks": {"large": ["small"]}},
    }
    return {**base, **changes}


def catalog(given: dict[str, Any] | None = None) -> Any:
    return parse_catalog(config() if given is None else given, key_of=lambda _: None, list_price=lambda *_: None)


def wish(**changes: Any) -> Wish:
    values: dict[str, Any] = {
        "model": "",
        "task": "chat",
        "tier": "",
        "needs": frozenset(),
        "images": 0,
        "input_tokens": {"o200k": 1_000},
        "bytes_bound": 5_000,
        "output_tokens_max": 100,
        "allowed_providers": frozenset(),
        "open_models_only": False,
        "baseline_model": "",
        "baseline_input_tokens": {},
    }
    return Wish(**{**values, **changes})


@pytest.fixture
def plan(book_of: Any) -> Any:
    async def make(asked: Wish, given: dict[str, Any] | None = None) -> Any:
        found = catalog(given)
        return Planner(found, OutputLengths()).plan(asked, (await book_of(found)).prices("acme"))

    return make


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("providers.p.base_url", {"providers": {"p": {"base_url": "ftp://x"}}}),
        ("providers.p.colour", {"providers": {"p": {"base_url": "http://x", "colour": "red"}}}),
        ("models.m.provider", {"models": {"m": {"provider": "nobody"}}, "routing": {}}),
        ("models.m.context_window", {"models": {"m": {"provider": "p", "context_window": 5}}, "routing": {}}),
        (
            "models.m.price.input_usd_per_million_tokens",
            {
                "models": {
                    "m": {"provider": "p", "price": {"input_usd_per_million_tokens": 2.5, "output_usd_per_million_tokens": "1"}}
                },
                "routing": {},
            },
        ),
        ("models.m.tier", {"models": {"m": {"provider": "p", "tier": "gold"}}, "routing": {}}),
        ("routing.baseline_model", {"routing": {"baseline_model": "ghost"}}),
        ("routing.cascades.0.steps", {"routing": {"cascades": [{"steps": ["ghost"]}]}}),
        ("routing.fallbacks.large", {"routing": {"fallbacks": {"large": ["ghost"]}}}),
        ("routing.speed", {"routing": {"speed": "high"}}),
    ],
)
def test_what_cannot_be_is_a_start_up_error_that_names_the_field(path: str, change: dict[str, Any]) -> None:
    with pytest.raises(FieldInvalid) as caught:
        catalog(config(**change))
    assert caught.value.field == path


def test_a_hosted_provider_without_its_key_is_a_start_up_error() -> None:
    with pytest.raises(FieldInvalid, match="KEY_OF_P"):
        catalog(
            config(providers={"p": {"base_url": "http://x", "api_key_env": "KEY_OF_P"}, "own": config()["providers"]["own"]})
        )


def test_prices_are_exact_and_rounded_up_once() -> None:
    price = price_from_usd("2.50", "10", "1.25")
    assert price.of(Tokens(1_000_000, 0, 1_000_000)) == 12_500_000_000
    assert price.of(Tokens(1, 0, 0)) == 2_500
    assert price.of(Tokens(10, 4, 3)) == 6 * 2_500 + 4 * 1_250 + 3 * 10_000
    assert Price(plain_card(1, 1), "x").of(Tokens(1, 0, 1)) == 1


async def test_a_model_without_a_price_cannot_be_planned(plan: Any) -> None:
    with pytest.raises(PriceUnknown):
        await plan(wish(model="unpriced"))


async def test_an_unknown_model_is_refused_by_name(plan: Any) -> None:
    with pytest.raises(ModelUnknown, match="ghost"):
        await plan(wish(model="ghost"))


async def test_a_cascade_asks_from_cheap_to_dear_and_holds_for_all_of_it(plan: Any) -> None:
    route = await plan(wish())
    assert [(each.model, each.role) for each in route.candidates] == [("small", Role.FIRST), ("large", Role.ESCALATION)]
    small = (1_100 * 150_000_000 + 100 * 600_000_000 + 999_999) // 1_000_000
    large = (1_100 * 2_500_000_000 + 100 * 10_000_000_000 + 999_999) // 1_000_000
    assert route.worst_case_usd_nanos == small + large
    assert route.worst_case_tokens == 2 * 1_100


async def test_a_named_model_is_honoured_with_its_fallbacks(plan: Any) -> None:
    route = await plan(wish(model="large"))
    assert [(each.model, each.role) for each in route.candidates] == [("large", Role.FIRST), ("small", Role.FALLBACK)]
    assert route.worst_case_usd_nanos == route.candidates[0].worst_case_usd_nanos
    assert route.accept_confidence == 0


async def test_a_model_that_cannot_serve_is_never_chosen(plan: Any) -> None:
    assert [each.model for each in (await plan(wish(needs=frozenset({"tools"})))).candidates] == ["large"]
    assert [each.model for each in (await plan(wish(input_tokens={"o200k": 7_950}))).candidates] == ["large"]
    assert [each.model for each in (await plan(wish(tier="free"))).candidates] == ["small"]
    assert [each.model for each in (await plan(wish(open_models_only=True))).candidates] == ["open"]
    with pytest.raises(NoCandidate, match="vision"):
        await plan(wish(needs=frozenset({"vision"})))
    with pytest.raises(FieldInvalid, match="tier"):
        await plan(wish(tier="gold"))


async def test_a_prompt_too_long_for_every_window_says_how_long_it_may_be(plan: Any) -> None:
    with pytest.raises(ContextTooLong) as caught:
        await plan(wish(input_tokens={"o200k": 200_000}))
    assert caught.value.facts == {"input_tokens": "200000", "input_tokens_max": "127900"}


async def test_without_counts_the_bytes_bound_the_tokens(plan: Any) -> None:
    assert (await plan(wish(model="large", input_tokens={}))).candidates[0].input_tokens == 5_000


def test_answer_lengths_are_learned() -> None:
    lengths = OutputLengths()
    for _ in range(50):
        lengths.learn("small", "chat", 20)
    assert lengths.likely("small", "chat") < 40
    assert lengths.likely("small", "other") == 200
