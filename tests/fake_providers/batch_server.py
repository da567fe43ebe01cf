"""Batch APIs as OpenAI, Azure and Anthropic document them. A batch ends when the test lets it; a call ends as its prompt says."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.fake_providers.dialects import Anthropic, OpenAI


class FakeBatchProvider:
    """Batches in memory. `released`: batches that are asked after have ended. `broken`: so many more answers of a path break."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.released.set()
        self.requests: dict[str, list[dict[str, Any]]] = {}
        self.cancelled: list[str] = []
        self.broken: Counter[str] = Counter()
        self.rejects_all = False
        self.leaves_out: set[int] = set()
        self.seen: Counter[str] = Counter()
        self.garbles = False
        self._files: dict[str, bytes] = {}
        self._marks: dict[str, dict[str, str]] = {}
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeBatchProvider]:
        """Listens until the block ends."""
        app = web.Application(client_max_size=2**28, middlewares=[self._counted])
        for base in ("/v1", "/openai"):
            app.router.add_post(f"{base}/files", self._upload)
            app.router.add_get(f"{base}/files/{{file}}/content", self._download)
            app.router.add_post(f"{base}/batches", self._create)
            app.router.add_get(f"{base}/batches", self._list)
            app.router.add_get(f"{base}/batches/{{batch}}", self._state)
            app.router.add_post(f"{base}/batches/{{batch}}/cancel", self._cancel)
        app.router.add_post("/v1/messages/batches", self._create_messages)
        app.router.add_get("/v1/messages/batches/{batch}", self._state_of_messages)
        app.router.add_get("/v1/messages/batches/{batch}/results", self._results_of_messages)
        app.router.add_post("/v1/messages/batches/{batch}/cancel", self._cancel)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    @web.middleware
    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        kind = _kind(request)
        self.seen[kind] += 1
        if self.broken[kind] > 0:
            self.broken[kind] -= 1
            return web.json_response({"error": {"message": "broke down"}}, status=500)
        response: web.StreamResponse = await handler(request)
        return response

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        name = f"file-{len(self._files)}"
        self._files[name] = form["file"].file.read()  # type: ignore[union-attr]
        return web.json_response({"id": name, "object": "file", "purpose": "batch"})

    async def _download(self, request: web.Request) -> web.Response:
        return self._lines(self._files[request.match_info["file"]])

    def _lines(self, body: bytes) -> web.Response:
        """Lines of JSON; with `garbles`, cut off in the middle of the last one."""
        return web.Response(body=body[: -len(body) // 4] if self.garbles else body, content_type="application/x-jsonl")

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert (body["completion_window"], body["endpoint"]) in (("24h", "/v1/chat/completions"), ("24h", "/chat/completions"))
        lines = [json.loads(line) for line in self._files[body["input_file_id"]].splitlines()]
        assert all(line["url"] == body["endpoint"] and line["method"] == "POST" for line in lines)
        name = self._take(lines, lambda line: line["body"])
        self._marks[name] = body["metadata"]
        return web.json_response({"id": name, "status": "validating"})

    async def _list(self, request: web.Request) -> web.Response:
        data = [{"id": name, "object": "batch", "metadata": marks} for name, marks in self._marks.items()]
        return web.json_response({"object": "list", "data": data})

    async def _state(self, request: web.Request) -> web.Response:
        name = request.match_info["batch"]
        if self.rejects_all:
            errors = {"object": "list", "data": [{"code": "invalid_json_line", "message": "this line is no JSON", "line": 1}]}
            return web.json_response({"id": name, "status": "failed", "errors": errors})
        if name not in self.cancelled and not self.released.is_set():
            return web.json_response({"id": name, "status": "in_progress"})
        answers, errors_file = self._openai_files(name)
        status = "cancelled" if name in self.cancelled else "completed"
        return web.json_response({"id": name, "status": status, "output_file_id": answers, "error_file_id": errors_file})

    def _openai_files(self, name: str) -> tuple[str, str]:
        answers, errors = [], []
        for number, line in enumerate(self.requests[name]):
            said = _prompt(line["body"])
            if number in self.leaves_out:
                continue
            if said == "expires":
                error = {
                    "code": "batch_expired",
                    "message": "This request could not be executed before the completion window expired.",
                }
                errors.append({"custom_id": line["custom_id"], "response": None, "error": error})
            elif said == "is bad":
                refused = {"status_code": 400, "request_id": "r", "body": OpenAI().refusal(400, "temperature is too hot")}
                errors.append({"custom_id": line["custom_id"], "response": refused, "error": None})
            else:
                body = {**OpenAI().whole(), "service_tier": "default"}
                body["choices"][0]["message"]["content"] = said
                answers.append({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": None})
        for file, rows in (("answers", reversed(answers)), ("errors", iter(errors))):
            self._files[f"{name}-{file}"] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        return f"{name}-answers", f"{name}-errors"

    async def _cancel(self, request: web.Request) -> web.Response:
        self.cancelled.append(request.match_info["batch"])
        return web.json_response({"id": request.match_info["batch"], "status": "cancelling"})

    async def _create_messages(self, request: web.Request) -> web.Response:
        assert request.headers["anthropic-version"]
        lines = (await request.json())["requests"]
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", line["custom_id"]) for line in lines)
        return web.json_response({"id": self._take(lines, lambda line: line["params"]), "processing_status": "in_progress"})

    async def _state_of_messages(self, request: web.Request) -> web.Response:
        name = request.match_info["batch"]
        ended = name in self.cancelled or self.released.is_set() or self.rejects_all
        return web.json_response({"id": name, "processing_status": "ended" if ended else "in_progress"})

    async def _results_of_messages(self, request: web.Request) -> web.Response:
        rows = []
        for number, line in enumerate(self.requests[request.match_info["batch"]]):
            said = _prompt(line["params"])
            if number in self.leaves_out:
                continue
            if said == "expires":
                result: dict[str, Any] = {"type": "expired"}
            elif said == "is bad" or self.rejects_all:
                result = {
                    "type": "errored",
                    "error": Anthropic().refusal(400, "temperature is too hot", "invalid_request_error"),
                }
            else:
                message = {**Anthropic().whole(), "content": [{"type": "text", "text": said}]}
                result = {"type": "succeeded", "message": message}
            rows.append({"custom_id": line["custom_id"], "result": result})
        body = b"\n".join(json.dumps(row).encode() for row in reversed(rows))
        return self._lines(body)

    def _take(self, lines: list[dict[str, Any]], body_of: Any) -> str:
        name = f"batch-{len(self.requests)}"
        assert len({line["custom_id"] for line in lines}) == len(lines)
        assert len({body_of(line)["model"] for line in lines}) == 1
        self.requests[name] = lines
        return name


def _prompt(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def _kind(request: web.Request) -> str:
    path = request.path
    if path.endswith(("/content", "/results")):
        return "results"
    if path.endswith("/cancel"):
        return "cancel"
    if request.method == "POST":
        return "submit"
    return "state"
