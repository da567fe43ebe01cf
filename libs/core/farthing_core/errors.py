"""The root of all named failures."""

from __future__ import annotations


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
