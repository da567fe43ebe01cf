"""What providers list of their models, read from a server that lists as each of them documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams.exchange import HttpApi, open_session
from farthing_router.upstreams.listings import ListedModel, Listing, Listings
from farthing_router.wires import Wire

from tests.fake_providers.listing_server import FakeListing

Lists = Callable[..., Awaitable[tuple[Listing | None, FakeListing]]]
BATCHES = {"object": "list", "data": []}


@pytest.fixture
async def lists() -> AsyncIterator[Lists]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session(connections_max=4))

        async def listed(pages: dict[str, Any], *, wire: str = "openai", base: str = "/v1", hosted: bool = True) -> Any:
            server = await stack.enter_async_context(FakeListing(pages).running())
            url = f"http://127.0.0.1:{server.port}{base}"
            deployment = Deployment("p/m", url, "m", "sk", 5.0, 0, Wire(name=wire), hosted=hosted)
            return await Listings(HttpApi(session)).of(deployment), server

        yield listed


@pytest.mark.parametrize(
    ("entry", "model"),
    [
        ({"id": "m", "object": "model", "owned_by": "openai"}, ListedModel()),
        ({"id": "m", "max_model_len": 32_768, "owned_by": "vllm"}, ListedModel(32_768)),
        (
            {"id": "m", "max_context_length": 131_072, "capabilities": {"function_calling": True, "vision": False}},
            ListedModel(131_072, None, {"tools": True, "vision": False}),
        ),
        (
            {"id": "m", "context_window": 8192, "max_completion_tokens": 2048, "active": False},
            ListedModel(8192, 2048, {}, True),
        ),
        (
            {
                "id": "m",
                "context_length": 200_000,
                "top_provider": {"context_length": 200_000, "max_completion_tokens": 64_000},
                "architecture": {"input_modalities": ["text", "image"]},
                "supported_parameters": ["tools", "structured_outputs", "seed"],
            },
            ListedModel(200_000, 64_000, {"tools": True, "json": True, "vision": True}),
        ),
    ],
    ids=["openai", "vllm", "mistral", "groq", "openrouter"],
)
async def test_the_dialects_of_openais_list_are_read(lists: Lists, entry: dict[str, Any], model: ListedModel) -> None:
    found, _ = await lists({"/v1/models": {"object": "list", "data": [entry, {"id": "other"}]}, "/v1/batches": BATCHES})
    assert found == Listing({"m": model, "other": ListedModel()}, batches=True)


async def test_a_list_without_a_wrapper_is_read_and_no_batches_are_none(lists: Lists) -> None:
    found, _ = await lists({"/v1/models": [{"id": "m", "context_length": 4096}, {"id": "n"}, "nonsense"]})
    assert found == Listing({"m": ListedModel(4096), "n": ListedModel()}, batches=False)


async def test_tgi_tells_of_its_one_model_under_any_name(lists: Lists) -> None:
    pages = {
        "/info": {"model_id": "meta/llama", "max_input_tokens": 4095, "max_total_tokens": 4096, "max_concurrent_requests": 128}
    }
    found, _ = await lists(pages, hosted=False)
    assert found is not None
    listed = found.find("tgi")
    assert listed is not None
    assert listed.context_window_tokens in (4095, 4096)


async def test_anthropics_pages_are_read_to_their_end(lists: Lists) -> None:
    able = {"batch": {"supported": True}, "image_input": {"supported": True}, "structured_outputs": {"supported": False}}
    first = {"id": "m", "max_input_tokens": 200_000, "max_tokens": 64_000, "capabilities": able, "lifecycle": "active"}
    pages = {
        "/v1/models?limit=1000": {"data": [first], "has_more": True, "last_id": "m"},
        "/v1/models?limit=1000&after_id=m": {"data": [{"id": "n", "lifecycle": "retired"}], "has_more": False, "last_id": "n"},
        "/v1/messages/batches": {"data": [], "has_more": False},
    }
    found, _ = await lists(pages, wire="anthropic", base="")
    abilities = {"batch": True, "vision": True, "json": False}
    listed = {"m": ListedModel(200_000, 64_000, abilities), "n": ListedModel(retired=True)}
    assert found == Listing(listed, batches=True)


async def test_coheres_list_is_read(lists: Lists) -> None:
    entry = {"name": "m", "endpoints": ["chat"], "context_length": 128_000.0, "features": ["tools", "vision", "json_schema"]}
    found, _ = await lists({"/v1/models": {"models": [entry]}}, wire="cohere", base="")
    assert found == Listing({"m": ListedModel(128_000, None, {"tools": True, "vision": True, "json": True})}, batches=False)


async def test_azure_lists_models_and_not_deployments_so_only_its_batches_are_asked_for(lists: Lists) -> None:
    found, server = await lists({"/openai/batches": BATCHES}, wire="azure", base="")
    assert found == Listing({}, batches=True)
    assert server.asked == ["/openai/batches?api-version=2024-10-21"]


@pytest.mark.parametrize("page", [None, "not json", {"data": 5}, {"hello": "world"}, []], ids=str)
async def test_who_lists_nothing_that_can_be_read_says_nothing(lists: Lists, page: Any) -> None:
    found, _ = await lists({} if page is None else {"/v1/models": page})
    assert found is None


def test_a_model_is_found_with_a_folder_or_a_tag_before_or_behind_its_name() -> None:
    listing = Listing({"models/gemini": ListedModel(1), "llama:latest": ListedModel(2)})
    assert (listing.find("gemini"), listing.find("llama"), listing.find("qwen")) == (ListedModel(1), ListedModel(2), None)
