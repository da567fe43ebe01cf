"""A model provider that costs almost nothing: one fixed OpenAI answer, plain or streamed, from a bare protocol.

`python -m evals.upstream PORT`. It parses no more of a request than where it ends.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

_TEXT = (
    "A hash ring places every node at several points of a circle. A key is hashed onto the same circle and belongs to the first node met "
    "clockwise. When a node joins or leaves, only the keys between it and its neighbour move. Virtual points even out the load, since each "
    "node then owns many short arcs. A common refinement is bounded load: a node that holds more than its share passes the key on."
)
_USAGE = {
    "prompt_tokens": 142,
    "completion_tokens": 118,
    "total_tokens": 260,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def _plain() -> bytes:
    answer = {
        "id": "chatcmpl-0000000000000000000000000000",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": "mock",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": _USAGE,
    }
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _streamed() -> bytes:
    def event(delta: dict[str, str], finish: str | None = None, **more: object) -> bytes:
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1_750_000_000, "model": "mock", **more}
        chunk.setdefault("choices", [{"index": 0, "delta": delta, "finish_reason": finish}])
        return b"data: %s\n\n" % json.dumps(chunk).encode()

    events = [event({"role": "assistant", "content": ""}), *(event({"content": f"{word} "}) for word in _TEXT.split())]
    events += [event({}, "stop"), event({}, choices=[], usage=_USAGE), b"data: [DONE]\n\n"]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(data), data) for data in events)
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


class _Upstream(asyncio.Protocol):
    """Answers each request as soon as its body is whole."""

    plain, streamed = _plain(), _streamed()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head_end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:head_end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            end = head_end + 4 + length
            if len(self._buffer) < end:
                return
            body, self._buffer = self._buffer[head_end + 4 : end], self._buffer[end:]
            wants_stream = b'"stream":true' in body or b'"stream": true' in body
            self._transport.write(self.streamed if wants_stream else self.plain)  # type: ignore[attr-defined]


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
