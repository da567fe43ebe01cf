"""How a provider is spoken to, as farthing.yaml may and may not write it."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_core.errors import FieldInvalid
from farthing_router.catalog import Catalog, parse_catalog


def catalog_of(provider: dict[str, Any], **model: Any) -> Catalog:
    config = {
        "providers": {"p": {"base_url": "http://h/v1", "hosted": False, **provider}},
        "models": {"m": {"provider": "p", **model}},
    }
    return parse_catalog(config, key_of={"TOKEN": "secret"}.get, list_price=lambda *_: None)


def test_a_wire_is_openais_unless_another_is_named() -> None:
    (place,) = catalog_of({}).model("m").deployments
    assert (place.wire.name, place.wire.batch, place.batch) == ("openai", None, False)


def test_headers_may_come_from_the_environment() -> None:
    given = {"headers": {"x-team": "search"}, "header_envs": {"x-token": "TOKEN"}, "query": {"version": "2"}}
    (place,) = catalog_of(given).model("m").deployments
    assert (place.wire.headers, place.wire.query) == ({"x-team": "search", "x-token": "secret"}, {"version": "2"})


def test_keys_and_headers_do_not_show_where_a_deployment_is_printed() -> None:
    given = {"api_key_env": "TOKEN", "headers": {"x-team": "hush"}, "query": {"sig": "quiet"}}
    (place,) = catalog_of(given).model("m").deployments
    assert place.api_key == "secret"
    assert not any(word in f"{place!r}" for word in ("secret", "hush", "quiet"))


@pytest.mark.parametrize("model", ["o1", "o3-mini", "gpt-5-nano", "openai/gpt-5"])
def test_reasoning_models_are_known_by_their_names(model: str) -> None:
    (place,) = catalog_of({}, upstream_model=model).model("m").deployments
    assert place.wire.rename == {"max_tokens": "max_completion_tokens"}


@pytest.mark.parametrize("model", ["gpt-4o", "olmo", "mistral-small", "omni-o1"])
def test_other_models_are_not_taken_for_them(model: str) -> None:
    (place,) = catalog_of({}, upstream_model=model).model("m").deployments
    assert place.wire.rename == {}


def test_a_batch_has_all_the_time_that_is_promised() -> None:
    (place,) = catalog_of({"batch": {"turnaround_s": 3600}, "timeout_s": 30}).model("m").deployments
    assert (place.batch, place.timeout_s) == (True, 3600)


@pytest.mark.parametrize(
    ("provider", "field"),
    [
        ({"wire": "smoke signals"}, "providers.p.wire"),
        ({"header_envs": {"x": "MISSING"}}, "providers.p.header_envs.x"),
        ({"headers": {"x y": "1"}}, "providers.p.headers"),
        ({"headers": {"x": "a\nb"}}, "providers.p.headers"),
        ({"wire": "any_llm"}, "providers.p.any_llm_provider"),
        ({"wire": "cohere", "batch": {}}, "providers.p.batch"),
        ({"batch": {"poll_s": 0}}, "providers.p.batch.poll_s"),
    ],
)
def test_what_cannot_be_is_named(provider: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldInvalid) as caught:
        catalog_of(provider)
    assert caught.value.field.startswith(field)
