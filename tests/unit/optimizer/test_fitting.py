from __future__ import annotations

import pytest
from farthing_optimizer.conversation import Message
from farthing_optimizer.duplicates import deduplicated
from farthing_optimizer.fitting import CannotFit, Fitted, Fitter
from farthing_optimizer.tokens import TokenCounter

CALL = '{"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}'
DOCUMENT = "The farthing was a quarter of a penny and was struck from the thirteenth century on. " * 4


def fit(messages: list[Message], *, limit: int) -> Fitted:
    return Fitter(TokenCounter()).fit(messages, input_tokens_max=limit, overhead=0, encoding="o200k")


def tokens(messages: list[Message]) -> int:
    return TokenCounter().conversation(messages, encoding="o200k")


def chat() -> list[Message]:
    return [
        Message("system", "Be brief."),
        Message("user", "one " * 50),
        Message("assistant", "", extra_json=CALL),
        Message("tool", "result " * 50, extra_json='{"tool_call_id": "1"}'),
        Message("assistant", "first answer"),
        Message("user", "two " * 50),
        Message("assistant", "second answer"),
        Message("user", "three"),
    ]


def test_a_conversation_that_fits_is_returned_whole() -> None:
    messages = chat()
    found = fit(messages, limit=tokens(messages))
    assert found.messages == messages
    assert (found.messages_dropped, found.tokens_before) == (0, found.tokens_after)


def test_the_oldest_turn_goes_whole_with_its_calls_and_their_answers() -> None:
    messages = chat()
    found = fit(messages, limit=tokens(messages) - 1)
    assert found.messages == [messages[0], *messages[5:]]
    assert found.messages_dropped == 4
    assert found.tokens_after == tokens(found.messages)


def test_instructions_and_the_last_user_turn_stay_to_the_end() -> None:
    messages = chat()
    kept = [messages[0], messages[-1]]
    assert fit(messages, limit=tokens(kept)).messages == kept


def test_what_must_stay_and_does_not_fit_is_refused_with_the_figures() -> None:
    messages = chat()
    least = tokens([messages[0], messages[-1]])
    with pytest.raises(CannotFit) as refused:
        fit(messages, limit=least - 1)
    assert refused.value.facts == {
        "remaining_tokens": str(least),
        "input_tokens_max": str(least - 1),
        "remaining_messages": "2",
    }


def test_steps_after_the_last_user_turn_go_call_by_call_but_never_the_newest() -> None:
    steps = [Message("user", "Do it.")]
    for _ in range(3):
        steps += [Message("assistant", "", extra_json=CALL), Message("tool", "x " * 40), Message("tool", "y " * 40)]
    found = fit(steps, limit=tokens([steps[0], *steps[7:]]))
    assert found.messages == [steps[0], *steps[7:]]
    with pytest.raises(CannotFit):
        fit(steps, limit=tokens([steps[0]]))


def test_no_tool_answer_is_ever_left_without_its_call() -> None:
    messages = chat()
    for limit in range(tokens([messages[0], messages[-1]]), tokens(messages)):
        kept = fit(messages, limit=limit).messages
        assert (messages[2] in kept) == (messages[3] in kept)
        assert tokens(kept) <= limit


def test_a_passage_comes_back_when_its_first_occurrence_is_dropped() -> None:
    original = [
        Message("user", f"Read:\n\n{DOCUMENT.strip()}"),
        Message("assistant", "ok " * 300),
        Message("user", f"Once more:\n\n{DOCUMENT.strip()}\n\nAnd?"),
        Message("assistant", "fine"),
        Message("user", "Sum it up."),
    ]
    shorter = deduplicated(original)
    assert shorter[2] != original[2]
    found = fit(shorter, limit=300)
    assert found.messages == original[2:]
    assert found.tokens_after == tokens(original[2:])


def test_ten_thousand_messages_are_fitted_quickly() -> None:
    messages = [Message("user" if index % 2 == 0 else "assistant", f"message {index}") for index in range(9_999)]
    found = fit(messages, limit=200)
    assert found.messages[-1] == messages[-1]
    assert found.tokens_after <= 200
