"""What may be done to a prompt without loss, and what it saves.

White space and JSON are cleaned message by message; a change stays only if the message has fewer tokens in some encoding and more in
none. Instructions (system, developer), messages with content parts or tool calls, and a final assistant message that the model
shall continue are never touched. Of a tool's answer only JSON is touched: it may be a file, where every space counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from farthing_optimizer.blocks import blocks
from farthing_optimizer.conversation import Message
from farthing_optimizer.duplicates import deduplicated
from farthing_optimizer.minification import minified
from farthing_optimizer.tokens import REPLY_TOKENS, TokenCounter
from farthing_optimizer.whitespace import tidied

TRANSFORMS = ("whitespace", "json", "duplicates")
_JSON_FENCE = re.compile(r"(?:```|~~~)[ \t]*json", re.IGNORECASE)
_JSON_BEGINNINGS = ("{", "[", " ", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class Optimized:
    """A shorter conversation: the tokens before and after by encoding, and the characters that each transform took away, where it
    took any."""

    messages: list[Message]
    changed: bool
    tokens_before: dict[str, int]
    tokens_after: dict[str, int]
    characters_saved: dict[str, int]


class Optimizer:
    """Applies the lossless transforms and counts what they save."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter

    def optimize(
        self, messages: list[Message], *, encodings: Sequence[str], overhead: dict[str, int], lossless: bool
    ) -> Optimized:
        """The conversation, shorter where `lossless` is asked for, else only counted.

        `overhead` is what parameters add, by encoding. Linear in the size of the conversation.
        """
        before = [self._counts(message, encodings) for message in messages]
        totals = {
            name: sum(counts[at] for counts in before) + REPLY_TOKENS + overhead[name] for at, name in enumerate(encodings)
        }
        if not lossless:
            return Optimized(messages, False, totals, totals, {})
        saved = dict.fromkeys(TRANSFORMS, 0)
        shorter = self._deduplicated(self._cleaned(messages, before, encodings, saved), encodings, saved)
        if shorter is messages:
            return Optimized(messages, False, totals, totals, {})
        changed = [index for index, message in enumerate(messages) if shorter[index] is not message]
        after = dict(totals)
        for index in changed:
            counts = self._counts(shorter[index], encodings)
            for at, name in enumerate(encodings):
                after[name] += counts[at] - before[index][at]
        return Optimized(shorter, bool(changed), totals, after, {name: count for name, count in saved.items() if count})

    def _cleaned(
        self, messages: list[Message], before: list[tuple[int, ...]], encodings: Sequence[str], saved: dict[str, int]
    ) -> list[Message]:
        """The very list when nothing changed."""
        result = messages
        for index, message in enumerate(messages):
            if message.instructs or message.structured or (message.role == "assistant" and index == len(messages) - 1):
                continue
            counts = before[index]
            for transform, clean in _steps(message):
                content = clean(result[index].content)
                if content == result[index].content:
                    continue
                shorter = replace(message, content=content)
                shorter_counts = self._counts(shorter, encodings)
                if _fewer(shorter_counts, counts):
                    saved[transform] += len(result[index].content) - len(content)
                    result = list(messages) if result is messages else result
                    result[index], counts = shorter, shorter_counts
        return result

    def _deduplicated(self, messages: list[Message], encodings: Sequence[str], saved: dict[str, int]) -> list[Message]:
        result = deduplicated(messages)
        if result is messages:
            return messages
        for index, (message, shorter) in enumerate(zip(messages, result, strict=True)):
            if shorter is message:
                continue
            if _fewer(self._counts(shorter, encodings), self._counts(message, encodings)):
                saved["duplicates"] += len(message.content) - len(shorter.content)
            else:
                result[index] = message
        return result

    def _counts(self, message: Message, encodings: Sequence[str]) -> tuple[int, ...]:
        return tuple(self._counter.message(message, encoding=encoding) for encoding in encodings)


def _fewer(after: tuple[int, ...], before: tuple[int, ...]) -> bool:
    return all(new <= old for new, old in zip(after, before, strict=True)) and after != before


def _steps(message: Message) -> tuple[tuple[str, Callable[[str], str]], ...]:
    """The transforms that fit a message, in order."""
    if message.content[:1] in _JSON_BEGINNINGS and message.content.strip()[:1] in ("{", "["):
        whole = minified(message.content)
        if whole is not None:
            return (("json", lambda _: whole),)
    return () if message.answers_call else _PROSE_STEPS


def _with_fences_minified(text: str) -> str:
    """Closed ```json blocks minified, each within its fence and at its indentation; everything else as it is."""
    if ("```" not in text and "~~~" not in text) or not _JSON_FENCE.search(text):
        return text
    kept = []
    for block in blocks(text):
        short = (
            minified("\n".join(block.lines[1:-1]))
            if block.language == "json" and block.closed and len(block.lines) > 2
            else None
        )
        if short is None:
            kept.append(block.text)
        else:
            indent = block.lines[-1][: len(block.lines[-1]) - len(block.lines[-1].lstrip())]
            kept.extend((block.lines[0], indent + short, block.lines[-1]))
    return "\n".join(kept)


_PROSE_STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (("json", _with_fences_minified), ("whitespace", tidied))
