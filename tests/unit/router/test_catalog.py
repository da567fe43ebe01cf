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
            "p": {"base_url": "http://127.0.0.1:1/v1", "api_key_optional": True, "retries": 0},
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
        ("models.m.provider", {"models": {"m": {}}, "routing": {}}),
        ("models.m.provider", {"models": {"m": {"provider": "p", "deployments": [{"provider": "p"}]}}, "routing": {}}),
        (
            "models.m.deployments.1.provider",
            {"models": {"m": {"deployments": [{"provider": "p"}, {"provider": "x"}]}}, "routing": {}},
        ),
        (
            "models.m.deployments.1.name",
            {"models": {"m": {"deployments": [{"provider": "p"}, {"provider": "p"}]}}, "routing": {}},
        ),
        ("models.m.deployments.0.weigth", {"models": {"m": {"deployments": [{"provider": "p", "weigth": 2}]}}, "routing": {}}),
        ("models.m.deployments", {"models": {"m": {"deployments": [{"provider": "p", "weight": 0}]}}, "routing": {}}),
        (
            "models.m.deployments.1.price",
            {
                "models": {
                    "m": {
                        "deployments": [
                            {"provider": "p", "name": "a"},
                            {
                                "provider": "p",
                                "name": "b",
                                "price": {"input_usd_per_million_tokens": "1", "output_usd_per_million_tokens": "1"},
                            },
                        ]
                    }
                },
                "routing": {},
            },
        ),
        ("models.m.hedge", {"models": {"m": {"provider": "p", "hedge": {}}}, "routing": {}}),
        (
            "models.m.tasks.caption.output_tokens_max",
            {"models": {"m": {"provider": "p", "tasks": {"caption": {"output_tokens_max": 0}}}}, "routing": {}},
        ),
        ("routing.content_filter", {"routing": {"content_filter": "perhaps"}}),
    ],
)
def test_what_cannot_be_is_a_start_up_error_that_names_the_field(path: str, change: dict[str, Any]) -> None:
    with pytest.raises(FieldInvalid) as caught:
        catalog(config(**change))
    assert caught.value.field == path


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"colour": "red"}, "models.m.colour: is not a known field"),
        (
            {"price": {"input_usd_per_million_tokens": 0.15, "output_usd_per_million_tokens": "1"}},
            'models.m.price.input_usd_per_million_tokens: must be text; a number goes in quotation marks: "0.15"',
        ),
        ({"price": 3}, "models.m.price: must be a mapping"),
        ({"context_window_tokens": 0}, "models.m.context_window_tokens: must be greater than "),
    ],
)
def test_a_start_up_error_says_what_to_write_instead(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        catalog(config(models={"m": {"provider": "p", **entry}}, routing={}))
    assert caught.value.message.startswith(said)


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
    with pytest.raises(ModelUnknown, match=r"known of its kind are farthing/auto, farthing/auto:cheap, "):
        await plan(wish(model="farthing/auto:best"))


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
    # Its answer, or a call that is lost and then another answer.
    assert route.worst_case_usd_nanos == 2 * route.candidates[0].worst_case_usd_nanos
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


TWICE = {
    "m": {
        "deployments": [
            {"provider": "p", "name": "cheap", "weight": 3, "context_window_tokens": 4_000},
            {
                "provider": "q",
                "name": "dear",
                "price": {"input_usd_per_million_tokens": "5", "output_usd_per_million_tokens": "20"},
            },
            {
                "provider": "own",
                "name": "open",
                "price": {"input_usd_per_million_tokens": "0", "output_usd_per_million_tokens": "0"},
            },
            {"provider": "p", "name": "batch", "batch": {}},
        ],
        "price": {"input_usd_per_million_tokens": "2.50", "output_usd_per_million_tokens": "10"},
        "tasks": {"caption": {"output_tokens_max": 20}},
    }
}


def placed(**changes: Any) -> dict[str, Any]:
    providers = {**config()["providers"], "q": {"base_url": "http://127.0.0.1:3/v1", "api_key_optional": True}}
    return config(providers=providers, models={"m": {**TWICE["m"], **changes}}, routing={})


async def test_a_candidate_may_cost_what_its_dearest_deployment_may(plan: Any) -> None:
    (found,) = (await plan(wish(model="m"), placed())).candidates
    assert found.deployments == ("cheap", "dear", "open")
    assert found.worst_case_usd_nanos == 1_100 * 5_000 + 100 * 20_000
    assert (found.deployment, found.likely_usd_nanos) == ("cheap", 1_000 * 2_500 + 100 * 10_000)


@pytest.mark.parametrize(
    ("asked", "deployments"),
    [
        ({"input_tokens": {"o200k": 5_000}}, ("dear", "open")),
        ({"allowed_providers": frozenset({"p", "q"})}, ("cheap", "dear")),
        ({"open_models_only": True}, ("open",)),
    ],
)
async def test_only_deployments_that_may_and_can_serve_a_request_are_called(
    plan: Any, asked: dict[str, Any], deployments: tuple[str, ...]
) -> None:
    (found,) = (await plan(wish(model="m", **asked), placed())).candidates
    assert (found.deployments, found.hosted) == (deployments, deployments != ("open",))


async def test_answers_and_calls_that_are_lost_on_their_way_are_held_for(plan: Any) -> None:
    asked = wish(model="m", output_tokens_max=1_000)
    usual, hedged = await plan(asked, placed()), await plan(asked, placed(hedge={}))
    # An answer costs at most this at the dearest deployment; a call that is lost is charged as an answer of 200 tokens.
    answer, lost = 1_100 * 5_000 + 1_000 * 20_000, 1_100 * 5_000 + 200 * 20_000
    assert usual.calls_max == 1 + 3 + 3
    assert usual.worst_case_usd_nanos == answer + 6 * lost
    assert usual.worst_case_tokens == 2_000 + 6 * 1_200
    # Who is asked twice at once may be paid twice.
    assert hedged.worst_case_usd_nanos == 2 * answer + 5 * lost
    few = await plan(wish(model="m", output_tokens_max=1_000, calls_max=2), placed())
    assert (few.calls_max, few.worst_case_usd_nanos) == (2, answer + lost)


async def test_a_model_may_have_a_limit_of_its_own_for_a_task(plan: Any) -> None:
    assert (await plan(wish(model="m", task="caption"), placed())).candidates[0].output_tokens_max == 20


def test_a_deployment_says_for_itself_what_its_provider_and_model_say_otherwise() -> None:
    model = catalog(placed()).model("m")
    cheap, _, own, batch = model.deployments
    assert (cheap.context_window_tokens, own.context_window_tokens, model.context_window_tokens) == (4_000, 128_000, 128_000)
    assert (cheap.hosted, own.hosted, model.hosted) == (True, False, False)
    assert (batch.batch, cheap.batch) == (True, False)
    assert cheap.stated == batch.stated != own.stated
