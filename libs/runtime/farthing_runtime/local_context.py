"""What a handler sees of a call that stays in the process, and how it ends one."""

from __future__ import annotations

import time
from typing import Any, NoReturn

import grpc


class LocalAbort(grpc.aio.AioRpcError):
    """A handler's own wish to end its call, as opposed to an error of a call that it made itself."""


class LocalContext:
    """What a handler sees of a local call: the part of `grpc.aio.ServicerContext` that Farthing uses."""

    __slots__ = ("_code", "_deadline_s", "_details", "_metadata", "_trailing")

    def __init__(self, *, deadline_s: float | None, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self._deadline_s = deadline_s
        self._metadata = metadata
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._code = grpc.StatusCode.OK
        self._details = ""

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What the caller sent along."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None without one."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic())

    def peer(self) -> str:
        """Who calls."""
        return "local"

    def cancelled(self) -> bool:
        """Cancellation reaches the handler as CancelledError; by the time this could say so the handler has ended."""
        return False

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        """What goes back with the status."""
        self._trailing = tuple(metadata)

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """What was set to go back."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """The code, should the handler fail without saying more."""
        self._code = code

    def set_details(self, details: str) -> None:
        """The text, should the handler fail without saying more."""
        self._details = details

    def code(self) -> grpc.StatusCode:
        """What set_code was last told."""
        return self._code

    def details(self) -> str:
        """What set_details was last told."""
        return self._details

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """Ends the call with a status."""
        raise LocalAbort(
            status.code, grpc.aio.Metadata(), grpc.aio.Metadata(*status.trailing_metadata or ()), details=status.details
        )

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Ends the call with a code and a text."""
        raise LocalAbort(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing_metadata), details=details)
