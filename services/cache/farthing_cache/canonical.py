"""What makes two requests the same: a canonical form, hashed. The same key in every process, for ever.

The form is JSON without white space, members by name, a number written one way whatever it was written like (1, 1.0 and 1e0 are 1),
whole numbers exact at any length. Text is brought to Unicode's composed form (NFC): what Unicode calls canonically equivalent is the same
text, however a keyboard made it. Nothing else is evened out: case, white space and signs count.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from json import JSONEncoder, loads
from json.encoder import encode_basestring as _quoted
from typing import Any

import orjson
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import Scope

VERSION = b"farthing/2"
"""Changes when the canonical form does: then every key is new."""
IGNORED_PARAMETERS = frozenset(
    {
        "stream",
        "stream_options",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    }
)
"""Parameters that do not change what is answered."""
NESTING_MAX = 100
"""Levels of JSON in one field."""
VALUES_MAX = 2_000_000
"""Values of JSON in one field, as far as its brackets and commas can tell."""
_MASK_TOKEN = re.compile(r"\[[A-Z_]+_[0-9]+\]")
_MAYBE_FRACTION = re.compile(r"\d[.eE]|-0")
_LONG_NUMBER = re.compile(r"\d{19}")
_written = JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Turn:
    """A message: its text, and the JSON of what else it holds."""

    role: str
    content: str
    parts_json: str
    extra_json: str


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that decides which answers fit. `parameters` are those that the contract names, `further` the others that matter, as JSON
    values. What is `personal` is shared by its user alone, whatever `sharing` says.
    """

    scope: Scope
    sharing: str
    model_policy: str
    turns: tuple[Turn, ...]
    parameters: dict[str, Any]
    further: dict[str, Any] = field(default_factory=dict)
    personal: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request belongs. `scope` is who shares its answer. `text` is what is compared by meaning: the last user turn; None where that
    is no plain text.
    """

    organization: str
    key: bytes
    partition: bytes
    scope: str
    text: str | None


def address(question: Question) -> Address:
    """The address of a request. Raises FieldInvalid for JSON that is none, or is too large to be looked at.

    The partition is organisation × who shares × model policy × parameters (tools among them) × every turn but the last; the key adds
    the last turn. Mask tokens in any turn make a request personal: no caller can have it otherwise.
    """
    turns = [_turn(turn) for turn in question.turns]
    personal = question.personal or any(_MASK_TOKEN.search(turn) for turn in turns)
    sharing = "user" if personal else question.sharing
    shared_by = {
        "organization": question.scope.ancestors[0],
        "workspace": question.scope.workspace,
        "user": question.scope.path,
    }[sharing]
    head = _composed(_written([sharing, shared_by, question.model_policy, question.parameters, question.further]))
    partition = _hashed(b"partition", (head, *turns[:-1]))
    key = _hashed(b"key", (partition.hex(), turns[-1]))
    last = question.turns[-1]
    plain = last.role == "user" and bool(last.content) and not last.parts_json and not last.extra_json
    return Address(question.scope.organization, key, partition, shared_by, last.content if plain else None)


def parsed(text: str, *, where: str) -> Any:
    """The value of a JSON field, its numbers in their canonical form. Raises FieldInvalid, naming the field `where` and the limit."""
    if text.count(",") + text.count("[") + text.count("{") > VALUES_MAX:
        raise FieldInvalid(field=where, problem=f"has more than {VALUES_MAX:,} values")
    try:
        value = orjson.loads(text)
        if _LONG_NUMBER.search(text):  # a whole number of that many digits would have been read as a fraction
            value = loads(text)
    except (ValueError, RecursionError) as error:
        raise FieldInvalid(field=where, problem="is not JSON, or is nested too deeply") from error
    if text.count("[") + text.count("{") > NESTING_MAX:
        _check_nesting(value, where=where)
    return _with_whole_numbers(value) if _MAYBE_FRACTION.search(text) else value


def further_that_matter(extra_json: str) -> dict[str, Any]:
    """Further parameters without those that do not change what is answered. One of a named parameter's name stands beside it, not in its
    place: which of them counts is for the provider to say. Raises FieldInvalid.
    """
    if not extra_json:
        return {}
    further = parsed(extra_json, where="parameters.extra_json")
    if not isinstance(further, dict):
        raise FieldInvalid(field="parameters.extra_json", problem="must be a JSON object")
    return {name: value for name, value in further.items() if name not in IGNORED_PARAMETERS}


def _turn(turn: Turn) -> str:
    if not turn.parts_json and not turn.extra_json:
        return _composed(f"[{_quoted(turn.role)},{_quoted(turn.content)}]")
    further = (("content_parts_json", turn.parts_json), ("extra_json", turn.extra_json))
    values = [parsed(text, where=f"messages.{name}") if text else None for name, text in further]
    return _composed(_written([turn.role, turn.content, *values]))


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _hashed(kind: bytes, parts: Iterable[str]) -> bytes:
    """A hash of texts of JSON, which have no line breaks in them."""
    found = hashlib.sha256(VERSION + b"\0" + kind)
    for part in parts:
        found.update(b"\n" + part.encode())
    return found.digest()


def _check_nesting(value: Any, *, where: str) -> None:
    """Goes through a value level by level. Raises FieldInvalid."""
    level = [value]
    for _ in range(NESTING_MAX):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise FieldInvalid(field=where, problem=f"is nested deeper than {NESTING_MAX} levels")


def _with_whole_numbers(value: Any) -> Any:
    """The value with every whole number as one, however it was written."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        return [_with_whole_numbers(inner) for inner in value]
    if isinstance(value, dict):
        return {name: _with_whole_numbers(inner) for name, inner in value.items()}
    return value
