"""Which answers are fit to be given again: never a broken one, and a refusal to nobody but who asked for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WHOLE = frozenset({"stop", "tool_calls", "function_call", "end_turn", "stop_sequence", "tool_use"})
_TOOL_CALLS = re.compile(r'"(?:tool_calls|function_call)"\s*:\s*[\[{]\s*[{"]')
_REFUSAL_FIELD = re.compile(r'"refusal"\s*:\s*"')
_OPENING_CHARACTERS = 240
_SHORT_CHARACTERS = 800
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:so |very |really )?sorry,? (?:but )?(?:i |as )|i(?:(?: cannot| can't| can not| won't)|(?: am"
    r"|'m) (?:not able|unable)) (?:to )?"
    r"(?:help|assist|answer|provide|comply|do that|fulfil|create|write|generate|share|discuss|access|browse|give)"
    r"|as an ai\b|as a language model\b|i must (?:decline|refuse)|i (?:do not|don't) have (?:access|enough|the ability"
    r"|real-?time|information)"
    r"|(?:against|violates?) (?:my|our|the) (?:guidelines|polic\w+|content)|i(?:'d| would) rather not|not comfortable (?:with|help))",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What matters of an answer here. `output_tokens` is 0 where nobody counted them; `extra_json` holds tool calls and refusals."""

    content: str
    finish_reason: str
    extra_json: str = ""
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Soundness:
    """Whether an answer may be kept at all, whether it may also be found by meaning, and why not."""

    keep: bool
    by_meaning: bool
    reason: str = ""


_SOUND = Soundness(True, True)


def soundness(answer: Answer, *, output_tokens_max: int | None) -> Soundness:
    """How fit an answer is. `output_tokens_max` is the request's own limit: an answer that it cut off is what was asked for."""
    if not answer.content.strip() and not _TOOL_CALLS.search(answer.extra_json):
        return _broken("it is empty")
    if answer.finish_reason == "length":
        if output_tokens_max is None or answer.output_tokens < output_tokens_max:
            return _broken("it was cut off, and not by the request's own limit")
        return Soundness(True, False, "cut off by the request's own limit: kept for the same request only")
    if answer.finish_reason not in _WHOLE:
        return _broken(f"it ended with {answer.finish_reason or 'nothing said'}")
    if is_refusal(answer):
        return Soundness(True, False, "a refusal: kept for the same request only")
    return _SOUND


def is_refusal(answer: Answer) -> bool:
    """Whether an answer declines: by its own field, or by how a short text begins."""
    if _REFUSAL_FIELD.search(answer.extra_json):
        return True
    content = answer.content.replace("’", "'")
    return len(content) <= _SHORT_CHARACTERS and _REFUSAL.search(content[:_OPENING_CHARACTERS]) is not None


def _broken(why: str) -> Soundness:
    return Soundness(False, False, f"broken answer: {why}")
