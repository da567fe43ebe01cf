"""Whose price counts, from when until when, and what happens where nobody knows one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from farthing_core.errors import FieldInvalid
from farthing_router.catalog import Catalog, ModelUnknown, parse_catalog
from farthing_router.pricing.price_book import check_named
from farthing_router.pricing.price_lists import Wanted, in_force, written
from farthing_router.pricing.prices import Price, PriceUnknown
from farthing_router.pricing.rates import plain_card
from farthing_router.pricing.tokens import Tokens
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.planning import Planner
from farthing_router.routing.routes import Wish
from farthing_router.store import NewPrice

JULY = datetime(2026, 7, 1, tzinfo=UTC)


def day(month: int, number: int = 1) -> datetime:
    return datetime(2026, month, number, tzinfo=UTC)


def written_price(rate: int | None, *, discount_bps: int | None = None, **changes: Any) -> NewPrice:
    """Everybody's price of model m of provider p from New Year on: `rate` nanodollars a token, twice that for answers."""
    price = NewPrice(
        price_id=changes.get("price_id", f"row-{rate}-{discount_bps}"),
        organization="",
        provider="p",
        model="m",
        effective_at=day(1),
        expires_at=None,
        card=None if rate is None else plain_card(rate * 1_000_000, 2 * rate * 1_000_000),
        discount_bps=discount_bps,
        source="a price list",
        recorded_at=day(1),
    )
    return replace(price, **changes)


def catalog(*, unknown_price: str = "error", stated: str | None = "5") -> Catalog:
    price = {"input_usd_per_million_tokens": stated, "output_usd_per_million_tokens": stated}
    config: dict[str, Any] = {
        "providers": {
            "p": {"base_url": "http://x", "api_key_optional": True, "retries": 0},
            "own": {"base_url": "http://y", "hosted": False},
        },
        "models": {
            "m": {"provider": "p", **({"price": price} if stated else {})},
            "other": {"provider": "p", "price": {"input_usd_per_million_tokens": "7", "output_usd_per_million_tokens": "9"}},
            "free": {"provider": "own", "price": {"input_usd_per_million_tokens": "0", "output_usd_per_million_tokens": "0"}},
            "unpriced": {"provider": "p"},
            "unpriced-own": {"provider": "own"},
        },
        "routing": {"unknown_price": unknown_price},
    }
    return parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)


class OnTheList:
    """A model on a list, at 100 nanodollars a token."""

    def at(self, moment: datetime) -> Price:
        return Price(plain_card(100_000_000, 100_000_000), "genai-prices")


async def test_the_contract_comes_before_the_book_and_the_book_before_farthing_yaml(book_of: Any) -> None:
    known = catalog()
    model = known.models["m"]
    contract = written_price(2, organization="acme")
    assert (await book_of(known)).prices("acme").of(model).source == "farthing.yaml"
    book = await book_of(known, written_price(3), contract)
    mine, others = book.prices("acme").of(model), book.prices("other").of(model)
    assert (mine.source, mine.of(Tokens(10))) == ("contract/row-2-None", 20)
    assert (others.source, others.of(Tokens(10))) == ("price book/row-3-None", 30)
    assert book.prices().of(model) == others
    listed = await book_of(catalog(stated=None), list_price=lambda *_: OnTheList())
    assert listed.prices().of_named("gone", "p") == ("p", Price(plain_card(100_000_000, 100_000_000), "genai-prices"))


async def test_a_discount_is_taken_off_whatever_the_price_would_be(book_of: Any) -> None:
    known = catalog()
    row = written_price(None, organization="acme", model="", discount_bps=1500)
    book = await book_of(known, row)
    for name, nanos in (("m", 5000), ("other", 7000)):
        price = book.prices("acme").of(known.models[name])
        assert price.of(Tokens(1)) == -(-nanos * 85 // 100)
        assert price.source == "contract/row-None-1500 on farthing.yaml"
    assert book.prices("acme").of(known.models["m"]).shown("input") == 4_250_000_000
    own = await book_of(known, row, written_price(1, organization="acme"))
    assert own.prices("acme").of(known.models["m"]).of(Tokens(1)) == 1
    with pytest.raises(PriceUnknown):
        book.prices("acme").of(known.models["unpriced"])


async def test_prices_hold_from_their_first_moment_until_before_their_last(book_of: Any) -> None:
    known = catalog()
    model = known.models["m"]
    book = await book_of(known, written_price(3, effective_at=day(2), expires_at=day(3)))
    found = [book.prices(at=moment).of(model).of(Tokens(1)) for moment in (day(1, 31), day(2), day(2, 28), day(3))]
    assert found == [5000, 3, 3, 5000]


async def test_of_two_prices_that_hold_the_one_written_later_counts(book_of: Any) -> None:
    known = catalog()
    model = known.models["m"]
    book = await book_of(
        known, written_price(3), written_price(4, effective_at=day(6)), written_price(8, effective_at=day(2), expires_at=day(4))
    )
    found = [book.prices(at=day(month)).of(model).of(Tokens(1)) for month in (1, 2, 3, 4, 5, 6, 7)]
    assert found == [3, 8, 8, 3, 3, 4, 4]


async def test_a_withdrawn_price_passes_on_to_the_next_in_order(book_of: Any) -> None:
    known = catalog()
    model = known.models["m"]
    book = await book_of(
        known,
        written_price(3),
        written_price(2, organization="acme"),
        written_price(None, organization="acme", effective_at=day(3)),
        written_price(None, effective_at=day(5)),
    )
    found = [book.prices("acme", at=day(month)).of(model).of(Tokens(1)) for month in (2, 3, 5)]
    assert found == [2, 3, 5000]


async def test_writing_names_what_it_takes_precedence_over(book_of: Any) -> None:
    book = await book_of(
        catalog(),
        written_price(1, expires_at=day(2)),
        written_price(2, effective_at=day(5)),
        written_price(3, organization="acme"),
    )
    row, superseded, repeated = await book.write(
        written_price(9, effective_at=day(2), expires_at=day(8)), request_id="", fingerprint=b""
    )
    assert (row.number, superseded, repeated) == (4, ["row-2-None"], False)


async def test_case_4_an_unpriced_model_is_an_error_and_never_free(book_of: Any) -> None:
    known = catalog()
    prices = (await book_of(known)).prices("acme")
    with pytest.raises(PriceUnknown, match="unpriced"):
        prices.of(known.models["unpriced"])
    assert not prices.knows(known.models["unpriced"])
    with pytest.raises(PriceUnknown):
        Planner(known, OutputLengths()).plan(wish("unpriced"), prices)


async def test_case_4_or_an_upper_bound_that_says_so_by_policy(book_of: Any) -> None:
    known = catalog(unknown_price="upper_bound")
    prices = (await book_of(known, written_price(20_000, model="new"))).prices("acme")
    price = prices.of(known.models["unpriced"])
    assert (price.source, price.unknown) == ("upper bound", True)
    assert price.of(Tokens(1, 0, 1)) == 2 * (7000 + 9000)
    # Its own provider's prices are all nothing: those of the whole catalog bound it.
    assert prices.of(known.models["unpriced-own"]).of(Tokens(1, 0, 1)) == 2 * (7000 + 9000)
    candidate = Planner(known, OutputLengths()).plan(wish("unpriced"), prices).candidates[0]
    assert (candidate.price_unknown, candidate.price_source) == (True, "upper bound")
    assert candidate.worst_case_usd_nanos > 0
    route = Planner(known, OutputLengths()).plan(wish("m"), prices)
    assert not route.candidates[0].price_unknown


async def test_case_4_a_missing_key_is_an_error_before_money_is_spent(book_of: Any) -> None:
    asked = {"audio": replace(wish("m"), audio=True), "tier": replace(wish("m"), service_tier="priority")}
    for what, each in asked.items():
        known = catalog()
        with pytest.raises(PriceUnknown, match=what):
            Planner(known, OutputLengths()).plan(each, (await book_of(known)).prices("acme"))
        known = catalog(unknown_price="upper_bound")
        assert Planner(known, OutputLengths()).plan(each, (await book_of(known)).prices("acme")).candidates[0].price_unknown


async def test_nothing_known_at_all_is_an_error_under_either_policy(book_of: Any) -> None:
    config: dict[str, Any] = {
        "providers": {"p": {"base_url": "http://x", "api_key_optional": True}},
        "models": {"m": {"provider": "p"}},
        "routing": {"unknown_price": "upper_bound"},
    }
    known = parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)
    with pytest.raises(PriceUnknown):
        (await book_of(known)).prices().of(known.models["m"])


async def test_plans_are_priced_by_the_contract_of_whoever_asks(book_of: Any) -> None:
    known = catalog()
    book = await book_of(known, written_price(1, organization="acme"))
    planner = Planner(known, OutputLengths())
    mine, others = planner.plan(wish("m"), book.prices("acme")), planner.plan(wish("m"), book.prices("other"))
    assert mine.worst_case_usd_nanos == 1_100 * 1 + 100 * 2
    assert others.worst_case_usd_nanos == (1_100 + 100) * 5000
    named = replace(wish("m"), baseline_model="m")
    assert planner.costs.baseline(named, book.prices("acme")) == ("m", 1_000 * 1 + 100 * 2)


async def test_without_a_cascade_models_go_from_cheap_to_dear_at_the_prices_of_the_moment(book_of: Any) -> None:
    known = catalog()
    book = await book_of(known, written_price(9_000, effective_at=day(7)))
    now, later = book.prices(), book.prices(at=JULY)
    assert (now.cheap_to_dear(), now.baseline_model()) == (["free", "m", "other"], "other")
    assert (later.cheap_to_dear(), later.baseline_model()) == (["free", "other", "m"], "m")


async def test_a_model_that_left_the_catalog_keeps_its_price(book_of: Any) -> None:
    prices = (await book_of(catalog(), written_price(3, model="gone"))).prices()
    assert prices.of_named("gone", "")[0] == "p"
    assert prices.of_named("gone", "p")[1].of(Tokens(1)) == 3
    with pytest.raises(ModelUnknown):
        prices.of_named("never there", "")
    with pytest.raises(ModelUnknown):
        prices.of_named("never there", "p")


async def test_what_is_in_force_is_listed_by_name_page_by_page(book_of: Any) -> None:
    book = await book_of(catalog(), written_price(3, model="gone"), written_price(2, organization="acme"))
    wanted, found, token = Wanted("", "", "", 2), [], ""
    while True:
        page, token = in_force(book, "acme", replace(wanted, page_token=token), at=None)
        found += [(each.model, each.price.source) for each in page]
        if not token:
            break
    assert found == [
        ("free", "farthing.yaml"),
        ("gone", "price book/row-3-None"),
        ("m", "contract/row-2-None"),
        ("other", "farthing.yaml"),
    ]
    only, _ = in_force(book, "", Wanted("own", "", "", 10), at=None)
    assert [each.model for each in only] == ["free"]


async def test_what_was_written_is_listed_newest_first_page_by_page(book_of: Any) -> None:
    rows = [written_price(number, effective_at=day(number)) for number in (1, 2, 3)]
    book = await book_of(catalog(), *rows, written_price(7, organization="acme"))
    first, token = written(book, "", Wanted("", "", "", 2), at=None)
    rest, end = written(book, "", Wanted("", "", token, 2), at=None)
    assert ([row.number for row in (*first, *rest)], end) == ([3, 2, 1], "")
    assert [row.number for row in written(book, "", Wanted("p", "m", "", 9), at=day(2))[0]] == [2, 1]
    assert [row.number for row in written(book, "acme", Wanted("", "", "", 9), at=None)[0]] == [4]
    with pytest.raises(FieldInvalid, match="page_token"):
        written(book, "", Wanted("", "", "x", 9), at=None)


def test_a_price_without_a_provider_takes_the_catalogs() -> None:
    assert check_named(catalog(), written_price(1, provider="")).provider == "p"
    with pytest.raises(FieldInvalid, match=r"price\.provider"):
        check_named(catalog(), written_price(1, provider="", model="gone"))


def wish(model: str) -> Wish:
    return Wish(
        model=model,
        task="chat",
        tier="",
        needs=frozenset(),
        images=0,
        input_tokens={"o200k": 1_000},
        bytes_bound=5_000,
        output_tokens_max=100,
        allowed_providers=frozenset(),
        open_models_only=False,
        baseline_model="",
        baseline_input_tokens={},
    )
