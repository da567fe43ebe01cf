"""The root of all named failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FarthingError(Exception):
    """A failure with a name and facts. Each service's status table says which gRPC status and reason it becomes.

    `facts` are short strings for machines (which budget, how much was asked); the message is for people and never holds
    prompt text or secrets.
    """

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts: dict[str, str] = {name: str(value) for name, value in facts.items()}


class FieldInvalid(FarthingError):
    """A field that a caller sent is wrong: which, and what it may be."""

    def __init__(self, *, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)
        self.field = field
        self.problem = problem


_MISREADINGS = {
    "extra_forbidden": "is not a known field",
    "missing": "is missing",
    "string_type": 'must be text; a number goes in quotation marks: "0.15"',
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "tuple_type": "must be a list",
}


def misread(found: Mapping[str, Any], *above: str) -> FieldInvalid:
    """The failure for what pydantic says of one value (`type`, `loc`, `msg`), in words of people who write farthing.yaml; `above` is
    where the value's section stands.
    """
    path = ".".join((*above, *(str(part) for part in found["loc"])))
    problem = _MISREADINGS.get(found["type"]) or str(found["msg"]).replace("Input should ", "must ").replace(
        "String should ", "must "
    )
    return FieldInvalid(field=path, problem=problem)
