"""Anthropic's Message Batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, FailureKind, UpstreamFailed, UpstreamRejected
from farthing_router.upstreams.anthropic_requests import request_fields
from farthing_router.upstreams.anthropic_wire import answer_of, anthropic_headers, anthropic_url
from farthing_router.upstreams.batch_calls import BatchState, Result
from farthing_router.upstreams.exchange import HttpApi, Request
from farthing_router.upstreams.failures import error_in_stream, garbage, short
from farthing_router.upstreams.openai_wire import with_query

_LONG_S = 600.0
_KINDS = {"canceled": FailureKind.CANCELLED, "expired": FailureKind.EXPIRED}
_NONSENSE = (orjson.JSONDecodeError, AttributeError, TypeError, KeyError, IndexError, ValueError)


class AnthropicBatches:
    """The BatchApi of Anthropic."""

    def __init__(self, api: HttpApi) -> None:
        self._api = api

    def line(self, call: Call, *, custom_id: str) -> bytes:
        """A call as it stands in the batch."""
        return orjson.dumps({"custom_id": custom_id, "params": request_fields(call, stream=False)})

    async def submit(self, deployment: Deployment, lines: Sequence[bytes], *, batch_id: str) -> str:
        """Sends the batch."""
        body = b'{"requests":[' + b",".join(lines) + b"]}"
        batch = await self._api.json(self._request(deployment, "POST", "", body=body, timeout_s=_LONG_S))
        name = batch.get("id")
        if not isinstance(name, str) or not name:
            raise garbage("the answer is no batch")
        return name

    async def find(self, deployment: Deployment, batch_id: str) -> str:
        """Nothing: its batches bear no marks."""
        return ""

    async def state(self, deployment: Deployment, provider_batch_id: str) -> BatchState:
        """How far it is."""
        batch = await self._api.json(self._request(deployment, "GET", f"/{provider_batch_id}"))
        return BatchState(ended=batch.get("processing_status") == "ended")

    async def results(
        self, deployment: Deployment, provider_batch_id: str, state: BatchState
    ) -> AsyncIterator[tuple[str, Result]]:
        """What came of each; asked for at the address that we know, not at the one that the answer names: the key goes along."""
        request = self._request(deployment, "GET", f"/{provider_batch_id}/results", timeout_s=_LONG_S)
        async for line in self._api.lines(request):
            yield _result(line, deployment)

    async def cancel(self, deployment: Deployment, provider_batch_id: str) -> None:
        """Asks for no more."""
        await self._api.json(self._request(deployment, "POST", f"/{provider_batch_id}/cancel"))

    def _request(
        self, deployment: Deployment, method: str, path: str, *, body: bytes = b"", timeout_s: float = 60.0
    ) -> Request:
        url = with_query(anthropic_url(deployment.base_url, f"messages/batches{path}"), deployment)
        return Request(method, url, anthropic_headers(deployment), deployment.name, body, timeout_s)


def _result(line: bytes, deployment: Deployment) -> tuple[str, Result]:
    """A line of the results; without a custom id where it cannot be read."""
    try:
        said = orjson.loads(line)
        custom_id, result = said["custom_id"], said["result"]
        kind = result["type"]
    except _NONSENSE:
        return "", garbage("a line of the results cannot be read")
    try:
        if kind == "succeeded":
            return custom_id, answer_of(result["message"])
        if kind == "errored":
            return custom_id, _failure(result["error"], deployment)
        what = f"the batch ended before this call was made ({kind})"
        return custom_id, UpstreamFailed(what=what, retryable=False, kind=_KINDS.get(kind, FailureKind.SERVER_ERROR))
    except UpstreamFailed as failed:
        return custom_id, failed
    except _NONSENSE:
        return custom_id, garbage("the answer is no Anthropic message")


def _failure(error: dict[str, Any], deployment: Deployment) -> UpstreamFailed | UpstreamRejected:
    inner = error.get("error") or error
    failed = error_in_stream(inner, may_be_billed=False)
    if inner.get("type") == "invalid_request_error" and failed.kind is FailureKind.SERVER_ERROR:
        return UpstreamRejected(provider=deployment.name, status=400, what=short(inner))
    return failed
