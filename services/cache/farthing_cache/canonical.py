"""What makes two requests the same: a canonical form, hashed. The same key in every process, for ever."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import Scope

VERSION = b"farthing/1"
"""Changes when the canonical form does: then every key is new."""
IGNORED_PARAMETERS = frozenset({"stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier"})
"""Parameters that do not change what is answered."""
_SORTED = orjson.OPT_SORT_KEYS


@dataclass(frozen=True, slots=True)
class Turn:
    """A message: its text, and the JSON of what else it holds."""

    role: str
    content: str
    parts_json: str
    extra_json: str


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that decides which answers fit. `parameters` are those that matter, by name, as JSON values."""

    scope: Scope
    sharing: str
    model_policy: str
    turns: tuple[Turn, ...]
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request belongs. `text` is what is compared by meaning: the last user turn; None where that is no plain text."""

    organization: str
    key: bytes
    partition: bytes
    scope: str
    text: str | None


def address(question: Question) -> Address:
    """The address of a request.

    The partition is organisation × who shares × model policy × parameters (tools among them) × every turn but the last; the key adds
    the last turn.
    """
    shared_by = {
        "organization": question.scope.ancestors[0],
        "workspace": question.scope.workspace,
        "user": question.scope.path,
    }[question.sharing]
    turns = [_turn(turn) for turn in question.turns]
    body = orjson.dumps([question.sharing, shared_by, question.model_policy, question.parameters, turns[:-1]], option=_SORTED)
    partition = hashlib.sha256(VERSION + b"\0partition\0" + body).digest()
    key = hashlib.sha256(VERSION + b"\0key\0" + partition + orjson.dumps(turns[-1], option=_SORTED)).digest()
    last = question.turns[-1]
    plain = last.role == "user" and bool(last.content) and not last.parts_json and not last.extra_json
    return Address(question.scope.organization, key, partition, shared_by, last.content if plain else None)


def parsed(text: str, *, field: str) -> Any:
    """The value of a JSON field. Raises FieldInvalid."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise FieldInvalid(field=field, problem="is not JSON") from error


def parameters_that_matter(named: dict[str, Any], extra_json: str) -> dict[str, Any]:
    """Named parameters with the further ones, without those that do not change what is answered."""
    if extra_json:
        further = parsed(extra_json, field="parameters.extra_json")
        if not isinstance(further, dict):
            raise FieldInvalid(field="parameters.extra_json", problem="must be a JSON object")
        named.update({name: value for name, value in further.items() if name not in IGNORED_PARAMETERS})
    return named


def _turn(turn: Turn) -> list[Any]:
    canonical: list[Any] = [turn.role, turn.content]
    if turn.parts_json or turn.extra_json:
        for name, text in (("content_parts_json", turn.parts_json), ("extra_json", turn.extra_json)):
            canonical.append(parsed(text, field=f"messages.{name}") if text else None)
    return canonical
