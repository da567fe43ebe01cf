"""What a question is about, as far as thresholds differ by it: how it asks, and which of a few groups of partitions it belongs to."""

from __future__ import annotations

import re

_GROUPS = 8
"""Together with the kinds of questions below: at most 64 categories an organisation."""
_WORD = re.compile(r"[a-z']+")
_KINDS = {
    "what": "what",
    "which": "what",
    "how": "how",
    "why": "why",
    "who": "who",
    "whom": "who",
    "whose": "who",
    "when": "when",
    "where": "where",
} | dict.fromkeys(
    "is are was were do does did can could will would should shall may might must has have had am isn't aren't don't can't".split(),
    "whether",
)


def category_of(text: str, partition: bytes) -> str:
    """The category of a question. `partition` stands for system prompt, tools and parameters: one task's questions stay together."""
    first = _WORD.match(text.lower().lstrip())
    kind = _KINDS.get(first.group(), "request") if first else "request"
    return f"{kind}-{partition[0] % _GROUPS}"
