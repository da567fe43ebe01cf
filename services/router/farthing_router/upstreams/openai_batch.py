"""OpenAI's Batch API, and Azure's: a file of requests goes up, a batch is made of it, and files with what came of them come down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams import Call, FailureKind, UpstreamFailed
from farthing_router.upstreams.batch_calls import BatchState, Result
from farthing_router.upstreams.exchange import HttpApi, Request
from farthing_router.upstreams.failures import error_in_stream, garbage, refusal, short
from farthing_router.upstreams.openai_answers import answer_of
from farthing_router.upstreams.openai_wire import azure_url, openai_headers, request_fields, with_query

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_UPLOAD_S, _DOWNLOAD_S = 600.0, 600.0
_BOUNDARY = "farthing-batch-f6b1c0d2e4"
_KINDS = {"batch_expired": FailureKind.EXPIRED, "batch_cancelled": FailureKind.CANCELLED}
_NONSENSE = (orjson.JSONDecodeError, AttributeError, TypeError, KeyError, IndexError, ValueError)


class OpenAIBatches:
    """The BatchApi of OpenAI and of everybody who has the same; with `azure`, Azure's."""

    def __init__(self, api: HttpApi, *, azure: bool = False) -> None:
        self._api = api
        self._azure = azure
        self._endpoint = "/chat/completions" if azure else "/v1/chat/completions"

    def line(self, call: Call, *, custom_id: str) -> bytes:
        """A call as it stands in the file."""
        body = request_fields(call, stream=False)
        return orjson.dumps({"custom_id": custom_id, "method": "POST", "url": self._endpoint, "body": body})

    async def submit(self, deployment: Deployment, lines: Sequence[bytes], *, batch_id: str) -> str:
        """Sends the file up and makes a batch of it."""
        form = _form(b"\n".join(lines) + b"\n", f"{batch_id}.jsonl")
        kind = {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
        file = await self._api.json(self._request(deployment, "POST", "files", body=form, timeout_s=_UPLOAD_S, headers=kind))
        asked = {
            "input_file_id": file.get("id"),
            "endpoint": self._endpoint,
            "completion_window": "24h",
            "metadata": {"farthing_batch": batch_id},
        }
        batch = await self._api.json(self._request(deployment, "POST", "batches", body=orjson.dumps(asked)))
        return _name(batch)

    async def find(self, deployment: Deployment, batch_id: str) -> str:
        """Looks among the latest batches for the one that bears our name."""
        listed = (await self._api.json(self._request(deployment, "GET", "batches"))).get("data")
        for each in listed if isinstance(listed, list) else ():
            marks = each.get("metadata") if isinstance(each, dict) else None
            if isinstance(marks, dict) and marks.get("farthing_batch") == batch_id:
                return _name(each)
        return ""

    async def state(self, deployment: Deployment, provider_batch_id: str) -> BatchState:
        """How far it is."""
        batch = await self._api.json(self._request(deployment, "GET", f"batches/{provider_batch_id}"))
        status = batch.get("status")
        if status not in _ENDED:
            return BatchState(ended=False)
        files = tuple(str(batch[name]) for name in ("output_file_id", "error_file_id") if batch.get(name))
        return BatchState(ended=True, failed=_failure(batch) if status == "failed" else None, files=files)

    async def results(
        self, deployment: Deployment, provider_batch_id: str, state: BatchState
    ) -> AsyncIterator[tuple[str, Result]]:
        """What stands in the file of answers, and in the file of errors."""
        for file in state.files:
            async for line in self._api.lines(self._request(deployment, "GET", f"files/{file}/content", timeout_s=_DOWNLOAD_S)):
                yield _result(line, deployment)

    async def cancel(self, deployment: Deployment, provider_batch_id: str) -> None:
        """Asks for no more."""
        await self._api.json(self._request(deployment, "POST", f"batches/{provider_batch_id}/cancel"))

    def _request(
        self,
        deployment: Deployment,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        timeout_s: float = 60.0,
        headers: dict[str, str] | None = None,
    ) -> Request:
        url = azure_url(deployment, path) if self._azure else with_query(f"{deployment.base_url}/{path}", deployment)
        return Request(method, url, openai_headers(deployment) | (headers or {}), deployment.name, body, timeout_s)


def _form(content: bytes, name: str) -> bytes:
    """A form with the file in it."""
    edge = f"--{_BOUNDARY}\r\n".encode()
    purpose = b'content-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    head = f'content-disposition: form-data; name="file"; filename="{name}"\r\ncontent-type: application/jsonl\r\n\r\n'.encode()
    return b"".join((edge, purpose, edge, head, content, f"\r\n--{_BOUNDARY}--\r\n".encode()))


def _name(batch: dict[str, Any]) -> str:
    name = batch.get("id")
    if not isinstance(name, str) or not name:
        raise garbage("the answer is no batch")
    return name


def _failure(batch: dict[str, Any]) -> UpstreamFailed:
    """Why a batch was not taken at all: nothing was made, so nothing is billed."""
    errors = batch.get("errors")
    data = errors.get("data") if isinstance(errors, dict) else None
    error = error_in_stream(data[0] if data else "the batch failed", may_be_billed=False)
    return UpstreamFailed(what=f"the batch failed: {error.message}", retryable=False, kind=error.kind)


def _result(line: bytes, deployment: Deployment) -> tuple[str, Result]:
    """A line of a file; without a custom id where it cannot be read."""
    try:
        said = orjson.loads(line)
        custom_id = said["custom_id"]
    except _NONSENSE:
        return "", garbage("a line of the answers cannot be read")
    try:
        response, error = said.get("response"), said.get("error")
        if error or not response:
            code = error.get("code") if isinstance(error, dict) else None
            kind = _KINDS.get(str(code), FailureKind.SERVER_ERROR)
            return custom_id, UpstreamFailed(what=short(error), retryable=False, kind=kind)
        if response["status_code"] != 200:
            body = orjson.dumps(response.get("body"))
            return custom_id, refusal(status=response["status_code"], headers={}, body=body, provider=deployment.name)
        return custom_id, answer_of(response["body"])
    except UpstreamFailed as failed:
        return custom_id, failed
    except _NONSENSE:
        return custom_id, garbage("the answer is no OpenAI answer")
