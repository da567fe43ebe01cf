"""What a listing may change of the catalog: only what farthing.yaml leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import structlog
from farthing_router.catalog import Catalog, parse_catalog
from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams.detecting import Detection
from farthing_router.upstreams.listings import ListedModel, Listing


def catalog_of(**model: Any) -> Catalog:
    config = {
        "providers": {"own": {"base_url": "http://h/v1", "hosted": False}},
        "models": {"m": {"provider": "own", **model}},
    }
    return parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)


def says(listing: Listing | None) -> Callable[[Deployment], Any]:
    async def of(deployment: Deployment) -> Listing | None:
        return listing

    return of


async def detected(catalog: Catalog, listing: Listing | None) -> list[dict[str, Any]]:
    with structlog.testing.capture_logs() as logs:
        await Detection(catalog, listing_of=says(listing)).detect()
    return [each for each in logs if each["log_level"] == "warning"]


LISTED = ListedModel(32_768, 2048, {"tools": True, "vision": False, "batch": True})


async def test_what_farthing_yaml_leaves_out_is_filled_in() -> None:
    catalog = catalog_of()
    assert await detected(catalog, Listing({"m": LISTED}, batches=True)) == []
    model = catalog.model("m")
    (place,) = model.deployments
    assert (model.context_window_tokens, model.output_tokens_max, place.context_window_tokens) == (32_768, 2048, 32_768)
    assert place.capabilities == model.capabilities == {"json", "streaming", "tools", "batch"}
    assert place.listing == "listed"


async def test_what_farthing_yaml_says_stands_and_a_contradiction_is_told_once() -> None:
    catalog = catalog_of(context_window_tokens=100_000, output_tokens_max=4096, capabilities=["vision", "streaming"])
    detection = Detection(catalog, listing_of=says(Listing({"m": LISTED})))
    with structlog.testing.capture_logs() as logs:
        await detection.detect()
        await detection.detect()
    model = catalog.model("m")
    assert (model.context_window_tokens, model.output_tokens_max) == (100_000, 4096)
    assert model.capabilities == {"vision", "streaming"}
    assert sorted(each["field"] for each in logs) == ["capabilities: vision", "context_window_tokens", "output_tokens_max"]


async def test_less_than_the_provider_offers_is_no_contradiction() -> None:
    catalog = catalog_of(context_window_tokens=1000, output_tokens_max=100, capabilities=["streaming"])
    assert await detected(catalog, Listing({"m": LISTED})) == []


@pytest.mark.parametrize("listing", [Listing({"other": ListedModel()}), Listing({"m": ListedModel(retired=True)})])
async def test_a_model_that_is_not_listed_any_more_is_marked(listing: Listing) -> None:
    catalog = catalog_of()
    (warning,) = await detected(catalog, listing)
    assert (warning["field"], catalog.model("m").deployments[0].listing) == ("listing", "not listed")


async def test_who_cannot_be_asked_changes_nothing_that_was_known() -> None:
    catalog = catalog_of()
    await detected(catalog, Listing({"m": LISTED}))
    before = catalog.model("m")
    assert await detected(catalog, None) == []
    assert catalog.model("m") == before


async def test_who_lists_no_models_is_not_said_to_lack_one() -> None:
    catalog = catalog_of()
    assert await detected(catalog, Listing({}, batches=True)) == []
    (place,) = catalog.model("m").deployments
    assert (place.listing, "batch" in place.capabilities) == ("", True)


async def test_a_provider_is_asked_once_for_all_its_models_and_a_fault_in_reading_ends_nothing() -> None:
    config = {
        "providers": {"a": {"base_url": "http://a/v1", "hosted": False}, "b": {"base_url": "http://b/v1", "hosted": False}},
        "models": {name: {"provider": name[0]} for name in ("a1", "a2", "b1")},
    }
    catalog = parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)
    asked: list[str] = []

    async def of(deployment: Deployment) -> Listing | None:
        asked.append(deployment.provider)
        if deployment.provider == "b":
            raise KeyError("b")
        return Listing({"a1": ListedModel(5), "a2": ListedModel(6)})

    await Detection(catalog, listing_of=of).detect()
    assert sorted(asked) == ["a", "b"]
    assert [catalog.model(name).context_window_tokens for name in ("a1", "a2", "b1")] == [5, 6, 128_000]
