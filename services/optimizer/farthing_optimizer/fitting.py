"""Making a conversation fit: the oldest turns go, whole.

Before the last user turn, a turn is what a user said with everything up to what a user said next. After it, a turn is one step of the
model: a call of tools with their answers, or a plain message. Instructions, the last user turn and the very last step (what the model
is about to answer) stay.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from farthing_core.errors import FarthingError

from farthing_optimizer.conversation import Message, last_user_index
from farthing_optimizer.duplicates import may_hold_references, passages, reference_to
from farthing_optimizer.tokens import REPLY_TOKENS, TokenCounter

_NOBODY: deque[int] = deque()


class CannotFit(FarthingError):
    """What may not be dropped is larger than the limit already."""

    def __init__(self, *, remaining_tokens: int, input_tokens_max: int, remaining_messages: int) -> None:
        super().__init__(
            f"{remaining_tokens} tokens in {remaining_messages} messages must stay, and the limit is {input_tokens_max}",
            remaining_tokens=remaining_tokens,
            input_tokens_max=input_tokens_max,
            remaining_messages=remaining_messages,
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """What remains, in order, with the tokens before and after."""

    messages: list[Message]
    messages_dropped: int
    tokens_before: int
    tokens_after: int


class Fitter:
    """Drops the oldest turns of conversations."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter

    def fit(self, messages: list[Message], *, input_tokens_max: int, overhead: int, encoding: str) -> Fitted:
        """The conversation in at most `input_tokens_max` tokens, `overhead` (what parameters add) included.

        A passage that later messages only refer to is put back where its first occurrence goes. Linear time. Raises CannotFit.
        """
        tokens = [self._counter.message(message, encoding=encoding) for message in messages]
        before = total = sum(tokens) + REPLY_TOKENS + overhead
        restorer = _Restorer(messages)
        gone: set[int] = set()
        for turn in turns(messages):
            if total <= input_tokens_max:
                break
            gone.update(turn)
            for index in turn:
                total -= tokens[index]
                for holder, passage in restorer.drop(index, gone):
                    # More than what the passage adds: its reference is not subtracted until the exact count below.
                    added = self._counter.text(passage, encoding=encoding)
                    tokens[holder] += added
                    total += added
        whole = dict(restorer.restored(gone))
        total += sum(self._counter.message(message, encoding=encoding) - tokens[index] for index, message in whole.items())
        remaining = [whole.get(index, message) for index, message in enumerate(messages) if index not in gone]
        if total > input_tokens_max:
            raise CannotFit(remaining_tokens=total, input_tokens_max=input_tokens_max, remaining_messages=len(remaining))
        return Fitted(remaining, len(gone), before, total)


class _Restorer:
    """Gives passages whose first occurrence is dropped to the next message that refers to them.

    A message's references are looked at once when it is dropped, so all the work is linear in the conversation.
    """

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self._holders: dict[str, deque[int]] = {}
        self._owed: dict[int, dict[str, str]] = {}
        for index, message in enumerate(messages):
            if may_hold_references(message.content):
                for line in dict.fromkeys(message.content.split("\n")):
                    if may_hold_references(line):
                        self._holders.setdefault(line, deque()).append(index)

    def drop(self, index: int, gone: set[int]) -> list[tuple[int, str]]:
        """Hands on what goes with a message: the messages that get a passage back, each with the passage."""
        owed = self._owed.pop(index, {})
        if not self._holders:
            return []
        given = []
        for passage in (*passages(self._messages[index].content), *owed.values()):
            reference = reference_to(passage)
            holders = self._holders.get(reference, _NOBODY)
            while holders and holders[0] in gone:
                holders.popleft()
            if holders and reference not in self._owed.setdefault(holders[0], {}):
                self._owed[holders[0]][reference] = passage
                given.append((holders[0], passage))
        return given

    def restored(self, gone: set[int]) -> list[tuple[int, Message]]:
        """The messages that got something back, whole again."""
        return [(index, self._whole(index, owed)) for index, owed in self._owed.items() if owed and index not in gone]

    def _whole(self, index: int, owed: dict[str, str]) -> Message:
        message, missing = self._messages[index], dict(owed)
        lines = (missing.pop(line, line) for line in message.content.split("\n"))
        return replace(message, content="\n".join(lines))


def turns(messages: list[Message]) -> list[list[int]]:
    """What may be dropped, oldest first: the indexes of the messages that go together."""
    last_user = last_user_index(messages)
    groups: list[list[int]] = []
    for index, message in enumerate(messages):
        if message.instructs or index == last_user:
            continue
        if groups and _goes_with(
            message, messages[groups[-1][-1]], before_last=index < last_user, crossed=groups[-1][-1] < last_user
        ):
            groups[-1].append(index)
        else:
            groups.append([index])
    if groups and groups[-1][-1] > last_user:
        groups.pop()
    return groups


def _goes_with(message: Message, previous: Message, *, before_last: bool, crossed: bool) -> bool:
    if message.answers_call:
        return previous.answers_call or previous.structured or before_last
    return before_last and crossed and message.role != "user"
