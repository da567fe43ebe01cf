"""A conversation, as the optimizer sees it."""

from __future__ import annotations

from dataclasses import dataclass

INSTRUCTION_ROLES = frozenset({"system", "developer"})
ANSWER_ROLES = frozenset({"tool", "function"})
_CALL_KEYS = ('"tool_calls"', '"function_call"')


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `parts_json` and `extra_json` are JSON texts that travel untouched."""

    role: str
    content: str
    parts_json: str = ""
    extra_json: str = ""

    @property
    def instructs(self) -> bool:
        """Whether these are instructions of the application, which nobody may change or drop."""
        return self.role in INSTRUCTION_ROLES

    @property
    def answers_call(self) -> bool:
        """Whether this is a tool's answer."""
        return self.role in ANSWER_ROLES

    @property
    def structured(self) -> bool:
        """Whether the message is more than its text: content parts, or calls of tools."""
        return bool(self.parts_json) or (bool(self.extra_json) and any(key in self.extra_json for key in _CALL_KEYS))

    @property
    def characters(self) -> int:
        """Size of everything that the message carries."""
        return len(self.content) + len(self.parts_json) + len(self.extra_json)


def last_user_index(messages: list[Message]) -> int:
    """Where the last user turn begins; -1 when no user speaks."""
    return next((index for index in range(len(messages) - 1, -1, -1) if messages[index].role == "user"), -1)
