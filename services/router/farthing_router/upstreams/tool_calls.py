"""Tool calls that come in pieces."""

from __future__ import annotations

from typing import Any

import orjson

_CALLS_MAX = 1000


class ToolCalls:
    """Puts tool calls together in the order in which they began.

    A piece belongs to the call of its `index`. Where that is missing, it belongs to the call of its `id`, or to the last one; where a
    piece brings another `id` for the same `index`, it begins another call (some count no parallel calls).
    """

    __slots__ = ("_arguments", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []
        self._arguments: list[list[str]] = []
        self._by_index: dict[int, int] = {}

    def take(self, pieces: list[dict[str, Any]]) -> None:
        """More pieces. Raises TypeError or ValueError for what are none."""
        for piece in pieces:
            self._take(piece)

    def whole(self) -> list[dict[str, Any]]:
        """The calls so far."""
        for call, parts in zip(self._calls, self._arguments, strict=True):
            if "function" in call:
                call["function"]["arguments"] = "".join(parts)
        return self._calls

    def _take(self, piece: dict[str, Any]) -> None:
        position = self._position(piece)
        call, parts = self._calls[position], self._arguments[position]
        for name, value in piece.items():
            if name == "index":
                continue
            if name == "function" and isinstance(value, dict):
                function = call.setdefault("function", {"name": "", "arguments": ""})
                said = value.get("name") or ""
                if said != function["name"]:  # some repeat it with every piece
                    function["name"] += said
                arguments = value.get("arguments")
                if arguments:
                    parts.append(arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode())
                for other, given in value.items():
                    if other not in ("name", "arguments") and given is not None:
                        function[other] = given
            elif value is not None:
                call[name] = value

    def _position(self, piece: dict[str, Any]) -> int:
        name, given = piece.get("id"), piece.get("index")
        if given is None:
            known = next((at for at, call in enumerate(self._calls) if name and call.get("id") == name), None)
            if known is not None:
                return known
            return self._begun() if name or not self._calls else len(self._calls) - 1
        index = int(given)
        position = self._by_index.get(index)
        if position is None or (name and self._calls[position].get("id") not in (None, "", name)):
            position = self._by_index[index] = self._begun()
        return position

    def _begun(self) -> int:
        if len(self._calls) >= _CALLS_MAX:
            raise ValueError(_CALLS_MAX)
        self._calls.append({})
        self._arguments.append([])
        return len(self._calls) - 1
