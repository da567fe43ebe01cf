"""The way from an answer to its caller, who may go away while it is on its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from farthing_orchestrator.request import Piece

_PIECES_MAX = 32
"""So many pieces wait for a slow caller; then the answer waits, too."""


class Outlet:
    """Hands pieces on while the caller is there, and knows when it has gone."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._when_left: Callable[[], None] | None = None
        self.left = False

    async def put(self, piece: Piece) -> None:
        """Hands a piece on; waits where the caller is slow. After it has gone the piece is dropped."""
        if self.left:
            return
        self._pieces.put_nowait(piece)
        if self._pieces.qsize() >= _PIECES_MAX:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        """Nothing more comes."""
        self._pieces.put_nowait(None)

    def leave(self) -> None:
        """The caller has gone."""
        self.left = True
        self._room.set()
        if self._when_left is not None:
            self._when_left()

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """What is handed on, until its end."""
        while (piece := await self._pieces.get()) is not None:
            if self._pieces.qsize() < _PIECES_MAX:
                self._room.set()
            yield piece

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """A block that is cancelled when the caller goes away."""
        try:
            async with asyncio.timeout(0.0 if self.left else None) as window:
                self._when_left = lambda: window.reschedule(0.0)
                try:
                    yield
                finally:
                    self._when_left = None
        except TimeoutError as error:
            if window.expired():
                raise asyncio.CancelledError from error
            raise
