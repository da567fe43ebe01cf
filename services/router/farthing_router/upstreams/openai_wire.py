"""The OpenAI wire: OpenAI itself, Azure, Gemini, Mistral, DeepSeek, Groq, Together, vLLM, TGI, Ollama, and whoever else is compatible."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import orjson

from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, UpstreamAnswer
from farthing_router.upstreams.exchange import Outgoing
from farthing_router.upstreams.openai_answers import OpenAIAssembly, read_answer

AZURE_API_VERSION = "2024-10-21"
"""What is asked of Azure where farthing.yaml names no `api-version`."""


class OpenAIFormat:
    """The WireFormat of everybody who speaks the OpenAI wire."""

    bills_refusals = False

    def outgoing(self, call: Call, *, stream: bool) -> Outgoing:
        """The request."""
        headers = openai_headers(call.deployment)
        headers["x-request-id"] = call.request_id
        return Outgoing(self._url(call), headers, request_body(call, stream=stream))

    def answer(self, raw: bytes) -> UpstreamAnswer:
        """The answer in a body."""
        return read_answer(raw)

    def assembly(self) -> OpenAIAssembly:
        """For a streamed answer."""
        return OpenAIAssembly()

    def _url(self, call: Call) -> str:
        return with_query(f"{call.deployment.base_url}/chat/completions", call.deployment)


class AzureFormat(OpenAIFormat):
    """The same of Azure: the deployment stands in the path, and refused prompts are charged."""

    bills_refusals = True

    def _url(self, call: Call) -> str:
        return azure_url(call.deployment, f"deployments/{quote(call.deployment.upstream_model, safe='')}/chat/completions")


def azure_url(deployment: Deployment, path: str) -> str:
    """An address below an Azure resource, with the version of its interface."""
    query = {"api-version": AZURE_API_VERSION, **deployment.wire.query}
    return f"{deployment.base_url}/openai/{path}?{urlencode(query)}"


def with_query(url: str, deployment: Deployment) -> str:
    """The address with what farthing.yaml adds to every one."""
    query = deployment.wire.query
    return f"{url}?{urlencode(query)}" if query else url


def openai_headers(deployment: Deployment) -> dict[str, str]:
    """The headers: the key where the wire, or farthing.yaml, wants it."""
    wire = deployment.wire
    headers = {"content-type": "application/json"}
    if deployment.api_key:
        name = wire.api_key_header or ("api-key" if wire.name == "azure" else "")
        if name:
            headers[name] = deployment.api_key
        else:
            headers["authorization"] = f"Bearer {deployment.api_key}"
    if wire.headers:
        headers |= wire.headers
    return headers


def request_body(call: Call, *, stream: bool) -> bytes:
    """The JSON of a request: what is known by name, what is not spliced in untouched."""
    return orjson.dumps(request_fields(call, stream=stream))


def request_fields(call: Call, *, stream: bool) -> dict[str, Any]:
    """The fields of a request, named as the provider names them."""
    given, wire = call.parameters, call.deployment.wire
    body: dict[str, Any] = orjson.loads(given.extra_json) if given.extra_json else {}
    role = wire.developer_role
    body |= {"model": call.deployment.upstream_model, "messages": [_message(each, role) for each in call.conversation]}
    body["max_tokens"] = call.output_tokens_max
    for name in ("temperature", "top_p", "seed"):
        if given.HasField(name):
            body[name] = getattr(given, name)
    if given.stop:
        body["stop"] = list(given.stop)
    if given.tools_json:
        body["tools"] = orjson.Fragment(given.tools_json)
    if given.response_format_json:
        body["response_format"] = orjson.Fragment(given.response_format_json)
    if "max_completion_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    for name in ("stream", "models"):  # OpenRouter would ask others of a list "models", at prices that nobody planned
        body.pop(name, None)
    if stream:
        body["stream"] = True
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    else:
        body.pop("stream_options", None)
    return wire.adapt(body)


def _message(given: Any, developer_role: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": developer_role if given.role == "developer" else given.role}
    if given.content_parts_json:
        message["content"] = orjson.Fragment(given.content_parts_json)
    elif given.content or not given.extra_json:
        message["content"] = given.content
    else:
        message["content"] = None
    if given.extra_json:
        message.update(orjson.loads(given.extra_json))
    return message
