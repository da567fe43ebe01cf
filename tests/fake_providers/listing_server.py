"""Lists of models as each provider documents them; what stands in `pages` is served at its path, anything else is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class FakeListing:
    """Serves JSON by path; `asked` has what was asked for, with its query."""

    def __init__(self, pages: dict[str, Any]) -> None:
        self.pages = pages
        self.asked: list[str] = []
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeListing]:
        """Listens until the block ends."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._page)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _page(self, request: web.Request) -> web.Response:
        asked = str(request.rel_url)
        self.asked.append(asked)
        found = self.pages.get(asked, self.pages.get(request.path))
        if found is None:
            return web.json_response({"error": {"message": "nothing here"}}, status=404)
        return web.Response(text=found) if isinstance(found, str) else web.json_response(found)
