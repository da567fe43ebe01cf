"""Passages that stand in a conversation more than once, word for word.

The first occurrence stays and later ones become a short reference to it. The first, because providers discount a prompt whose
beginning they have seen: replacing an early passage when a later turn repeats it would change that beginning every time. The model
still sees every passage once. A passage is a paragraph or a closed fenced block of at least 200 characters.

Instructions, the last user turn, assistant messages (a model imitates what it seems to have said) and messages with parts or tool
calls are never changed, but what stands in their text counts as seen. A conversation that already holds something like a reference is
left alone. `fitting` puts a passage back where its first occurrence is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from farthing_optimizer.blocks import blocks
from farthing_optimizer.conversation import ANSWER_ROLES, Message, last_user_index

PASSAGE_CHARACTERS_MIN = 200
_OPENING_CHARACTERS = 48
_ENDING_CHARACTERS = 24
_CHANGEABLE_ROLES = frozenset({"user"}) | ANSWER_ROLES
_MARK = '[Same passage as above: "'


def deduplicated(messages: list[Message]) -> list[Message]:
    """The conversation with repeated passages replaced by references; the very list when nothing repeats. Linear time."""
    last_user = last_user_index(messages)
    changeable = [index != last_user and _may_change(message) for index, message in enumerate(messages)]
    if not any(changeable) or any(may_hold_references(message.content) for message in messages):
        return messages
    ambiguous = _ambiguous(messages)
    seen: set[str] = set()
    result, changed = [], False
    for message, may_change in zip(messages, changeable, strict=True):
        content = _with_references(message.content, seen, ambiguous) if may_change else message.content
        if not may_change:
            seen.update(passages(message.content))
        changed |= content != message.content
        result.append(message if content == message.content else replace(message, content=content))
    return result if changed else messages


def passages(text: str) -> Iterator[str]:
    """The passages of a text, in order."""
    if len(text) < PASSAGE_CHARACTERS_MIN:
        return
    for block in blocks(text):
        if not block.blank and block.closed and len(block.text) >= PASSAGE_CHARACTERS_MIN:
            yield block.text


def reference_to(passage: str) -> str:
    """What stands in the place of a repeated passage: enough of its words to find it."""
    opening = " ".join(passage[:_OPENING_CHARACTERS].split())
    ending = " ".join(passage[-_ENDING_CHARACTERS:].split())
    return f'{_MARK}{opening} … {ending}"]'


def may_hold_references(text: str) -> bool:
    """Whether a text may hold a reference: a cheap test before a thorough one."""
    return _MARK in text


def _may_change(message: Message) -> bool:
    return len(message.content) >= PASSAGE_CHARACTERS_MIN and message.role in _CHANGEABLE_ROLES and not message.structured


def _with_references(text: str, seen: set[str], ambiguous: set[str]) -> str:
    """The text with what was seen before replaced; adds to `seen` what was not."""
    kept = []
    for block in blocks(text):
        passage = block.text
        if not block.blank and block.closed and len(passage) >= PASSAGE_CHARACTERS_MIN:
            if passage in seen and passage not in ambiguous:
                passage = reference_to(passage)
            else:
                seen.add(passage)
        kept.append(passage)
    return "\n".join(kept)


def _ambiguous(messages: list[Message]) -> set[str]:
    """Passages whose reference would also fit another passage."""
    by_reference: dict[str, str] = {}
    ambiguous: set[str] = set()
    for message in messages:
        for passage in passages(message.content):
            other = by_reference.setdefault(reference_to(passage), passage)
            if other != passage:
                ambiguous.update((other, passage))
    return ambiguous
