"""Page tokens: where the next page starts, good only for the question that they were given for."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import orjson
from farthing_core.errors import FieldInvalid

_NOT_OURS = "belongs to another list, or is not one of ours"


def token(request: Any, keys: Sequence[str]) -> str:
    """Where the page after this request's starts."""
    return base64.urlsafe_b64encode(orjson.dumps([_question(request), *keys])).decode()


def keys(request: Any, *, count: int) -> tuple[str, ...] | None:
    """What the token of a request says, so many texts; None for the first page. Raises FieldInvalid for a token of another question."""
    if not request.page_token:
        return None
    try:
        found = orjson.loads(base64.urlsafe_b64decode(request.page_token.encode()))
    except ValueError as error:
        raise FieldInvalid(field="page_token", problem=_NOT_OURS) from error
    ours = isinstance(found, list) and len(found) == count + 1 and all(isinstance(each, str) for each in found)
    if not ours or found[0] != _question(request) or any("\x00" in each for each in found):
        raise FieldInvalid(field="page_token", problem=_NOT_OURS)
    return tuple(found[1:])


def _question(request: Any) -> str:
    """What is asked, whatever the page and its size."""
    asked = type(request)()
    asked.CopyFrom(request)
    asked.ClearField("page_token")
    asked.ClearField("page_size")
    kind = request.DESCRIPTOR.full_name.encode()
    return blake2b(kind + b"\0" + asked.SerializeToString(deterministic=True), digest_size=9).hexdigest()
