"""What providers list of their models, each in its own words: which there are, how much they take, and what they can do.

OpenAI and Ollama list names alone; vLLM (`max_model_len`), Mistral (`max_context_length`, `capabilities`), Groq (`context_window`,
`max_completion_tokens`), Together and OpenRouter (`context_length`) more; TGI tells of its one model in `/info`. Azure lists models and
not deployments, so that nothing follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import UpstreamFailed, UpstreamRejected
from farthing_router.upstreams.anthropic_wire import anthropic_headers, anthropic_url
from farthing_router.upstreams.cohere_wire import cohere_url
from farthing_router.upstreams.exchange import HttpApi, Request
from farthing_router.upstreams.openai_wire import azure_url, openai_headers, with_query
from farthing_router.upstreams.payloads import count

_TIMEOUT_S = 10.0
_BYTES_MAX = 8 * 2**20
_PAGES_MAX = 20
_MODELS_MAX = 20_000
_WINDOWS = ("max_model_len", "max_context_length", "context_window", "context_length", "max_input_tokens", "max_total_tokens")
_OUTPUTS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
# How providers call what a model can do, in our words.
_ABILITIES = {
    "function_calling": "tools",
    "tools": "tools",
    "tool_use": "tools",
    "vision": "vision",
    "image_input": "vision",
    "image": "vision",
    "structured_outputs": "json",
    "json_mode": "json",
    "json_schema": "json",
    "response_format": "json",
    "audio": "audio",
    "audio_input": "audio",
    "batch": "batch",
}


@dataclass(frozen=True, slots=True)
class ListedModel:
    """What a listing says of a model; None, and abilities that are not there, where it says nothing. `retired`: it answers no more."""

    context_window_tokens: int | None = None
    output_tokens_max: int | None = None
    abilities: Mapping[str, bool] = field(default_factory=dict)
    retired: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """A provider's models by name, and whether it takes batches (None where it does not say)."""

    models: Mapping[str, ListedModel]
    batches: bool | None = None

    def find(self, name: str) -> ListedModel | None:
        """A model, also where the provider adds a folder or a tag to its name. A server of one model answers to any name."""
        for each in (name, f"models/{name}", f"{name}:latest", "*"):
            if each in self.models:
                return self.models[each]
        return None


class Listings:
    """Asks providers. A provider that cannot be asked, or lists nothing, gives None."""

    def __init__(self, api: HttpApi) -> None:
        self._api = api

    async def of(self, deployment: Deployment) -> Listing | None:
        """What the provider of a deployment lists."""
        try:
            models = await self._models(deployment)
            return Listing(models, await self._batches(deployment)) if models is not None else None
        except (UpstreamFailed, UpstreamRejected):
            return None

    async def _models(self, deployment: Deployment) -> dict[str, ListedModel] | None:
        match deployment.wire.name:
            case "openai":
                return await self._openai(deployment)
            case "anthropic":
                return await self._anthropic(deployment)
            case "cohere":
                return await self._cohere(deployment)
            case "azure":
                return {}
        return None

    async def _openai(self, deployment: Deployment) -> dict[str, ListedModel] | None:
        headers = openai_headers(deployment)
        try:
            said = await self._get(deployment, with_query(f"{deployment.base_url}/models", deployment), headers)
            models = _named(said.get("data"), "id")
        except (UpstreamFailed, UpstreamRejected):
            models = {}
        if len(models) <= 1 and (tgi := await self._tgi(deployment, headers)) is not None:
            return {"*": tgi}
        return models or None

    async def _tgi(self, deployment: Deployment, headers: Mapping[str, str]) -> ListedModel | None:
        if deployment.hosted:
            return None
        try:
            said = await self._get(deployment, f"{re.sub(r'/v1$', '', deployment.base_url)}/info", headers)
        except (UpstreamFailed, UpstreamRejected):
            return None
        return _read(said) if isinstance(said.get("model_id"), str) and "max_total_tokens" in said else None

    async def _anthropic(self, deployment: Deployment) -> dict[str, ListedModel] | None:
        found: dict[str, ListedModel] = {}
        after = ""
        for _ in range(_PAGES_MAX):
            url = anthropic_url(deployment.base_url, f"models?limit=1000{after}")
            said = await self._get(deployment, url, anthropic_headers(deployment))
            found |= _named(said.get("data"), "id")
            last = said.get("last_id")
            if not said.get("has_more") or not isinstance(last, str) or not re.fullmatch(r"[\w.:@-]{1,200}", last):
                break
            after = f"&after_id={last}"
        return found or None

    async def _cohere(self, deployment: Deployment) -> dict[str, ListedModel] | None:
        url = cohere_url(deployment.base_url, "v1/models?page_size=1000&endpoint=chat")
        return _named((await self._get(deployment, url, openai_headers(deployment))).get("models"), "name") or None

    async def _batches(self, deployment: Deployment) -> bool | None:
        """Whether a list of batches is to be had."""
        match deployment.wire.name:
            case "openai":
                url, headers = with_query(f"{deployment.base_url}/batches", deployment), openai_headers(deployment)
            case "azure":
                url, headers = azure_url(deployment, "batches"), openai_headers(deployment)
            case "anthropic":
                url, headers = anthropic_url(deployment.base_url, "messages/batches?limit=1"), anthropic_headers(deployment)
            case _:
                return False
        try:
            return isinstance((await self._get(deployment, url, headers)).get("data"), list)
        except UpstreamRejected:
            return False
        except UpstreamFailed as error:
            return False if error.kind == "not_found" else None

    async def _get(self, deployment: Deployment, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
        request = Request("GET", url, headers, deployment.name, timeout_s=_TIMEOUT_S)
        return await self._api.json(request, bytes_max=_BYTES_MAX)


def _named(entries: Any, key: str) -> dict[str, ListedModel]:
    if not isinstance(entries, list):
        return {}
    return {
        each[key]: _read(each) for each in entries[:_MODELS_MAX] if isinstance(each, dict) and isinstance(each.get(key), str)
    }


def _read(entry: Mapping[str, Any]) -> ListedModel:
    offered = entry.get("top_provider")
    places = (entry, offered if isinstance(offered, dict) else {})
    window = _first(places, _WINDOWS)
    output = _first(places, _OUTPUTS)
    retired = entry.get("lifecycle") == "retired" or entry.get("active") is False or entry.get("archived") is True
    return ListedModel(window, output, dict(_abilities(entry)), retired)


def _first(places: Iterable[Mapping[str, Any]], names: tuple[str, ...]) -> int | None:
    return next((found for place in places for name in names if (found := count(place.get(name)))), None)


def _abilities(entry: Mapping[str, Any]) -> Iterable[tuple[str, bool]]:
    told = entry.get("capabilities")
    if isinstance(told, dict):  # Mistral says yes or no, Anthropic `{"supported": …}`
        for name, said in told.items():
            able = said.get("supported") if isinstance(said, dict) else said
            if name in _ABILITIES and isinstance(able, bool):
                yield _ABILITIES[name], able
    shape = entry.get("architecture")
    for lists in (
        told,
        entry.get("features"),
        entry.get("supported_parameters"),
        (shape or {}).get("input_modalities") if isinstance(shape, dict) else None,
    ):
        for name in lists if isinstance(lists, list) else ():
            if name in _ABILITIES:
                yield _ABILITIES[name], True
