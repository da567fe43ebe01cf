"""What a fitted policy reads: a conversation as one text, and the answers that were bought for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PROMPT_CHARACTERS_MAX = 6_000
ANSWER_CHARACTERS_MAX = 6_000
"""Only so much of a text is read, half from its beginning and half from its end: a decision has to stay cheap whatever a model says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoughtAnswer:
    """An answer as its provider gave it. `mean_logprob` is the mean log-probability of its tokens, `likely_margin` the mean distance
    between the likeliest token and the next (both None where the provider says nothing of them)."""

    text: str
    finish_reason: str = "stop"
    output_tokens: int | None = None
    mean_logprob: float | None = None
    likely_margin: float | None = None


def bounded(text: str, characters_max: int) -> str:
    """A text, or its beginning and its end where it is long."""
    half = characters_max // 2
    return text if len(text) <= characters_max else f"{text[:half]}\n{text[-half:]}"


def prompt_text(turns: Sequence[Mapping[str, str]]) -> str:
    """A conversation as the judge sees it: the texts of its turns (`content`), the system prompt first, as they come, bounded."""
    return bounded("\n\n".join(turn["content"] for turn in turns if turn["content"]), PROMPT_CHARACTERS_MAX)
