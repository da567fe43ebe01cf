"""Server-sent events, as far as providers use them: the data of each event, whatever else the stream says."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from farthing_router.upstreams.failures import FailureKind, UpstreamFailed

EVENT_BYTES_MAX = 8 * 2**20
STREAM_BYTES_MAX = 64 * 2**20


async def sse_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of server-sent events, however the bytes are cut; several data lines of one event are joined.

    Raises UpstreamFailed for an event, or a stream, that is too large. Linear in the bytes, also where no line ever ends.
    """
    pending: list[bytes] = []
    data: list[bytes] = []
    held = total = 0
    async for chunk in chunks:
        total += len(chunk)
        cut = chunk.rfind(b"\n")
        if cut < 0:
            pending.append(chunk)
            held += len(chunk)
        else:
            pending.append(chunk[:cut])
            lines = b"".join(pending).split(b"\n")
            pending = [chunk[cut + 1 :]]
            for line in lines:
                if line[-1:] == b"\r":
                    line = line[:-1]
                if line[:5] == b"data:":
                    data.append(line[5:].lstrip())
                elif not line and data:
                    yield data[0] if len(data) == 1 else b"\n".join(data)
                    data.clear()
            held = len(pending[0]) + (sum(map(len, data)) if data else 0)
        if held > EVENT_BYTES_MAX or total > STREAM_BYTES_MAX:
            raise UpstreamFailed(
                what="an event of the stream is too large" if held > EVENT_BYTES_MAX else "the stream does not end",
                retryable=False,
                may_be_billed=True,
                kind=FailureKind.TOO_LARGE,
            )
    last = b"".join(pending).rstrip()
    if last[:5] == b"data:" and last[-1:] in (b"}", b"]"):
        data.append(last[5:].lstrip())
    if data:
        yield b"\n".join(data)
