"""When a fresh answer says the same as the one that was served."""

from __future__ import annotations

import pytest
from farthing_cache.certifying.agreement import Said, compare
from farthing_cache.certifying.categories import category_of

LONG = "Open Settings, choose Security, and press Reset password; a link arrives by mail."


def call(arguments: str, *, name: str = "f", number: int = 1) -> Said:
    arguments = arguments.replace('"', '\\"')
    return Said("", f'{{"tool_calls":[{{"id":"c{number}","function":{{"name":"{name}","arguments":"{arguments}"}}}}]}}')


@pytest.mark.parametrize(
    ("served", "fresh", "verdict"),
    [
        (LONG, LONG.upper(), "right"),
        (LONG, "Open Settings, then Security, press Reset password, and wait for the link in your mail.", "right"),
        (LONG, "Bears sleep in dens from late autumn until spring, mostly in caves or under roots.", "wrong"),
        ("Yes, it is covered by the warranty for two years.", "No, it is not covered by the warranty for two years.", "wrong"),
        ("It weighs 5 kg with the battery.", "It weighs 50 kg with the battery.", "wrong"),
        ("The price is 2,400 dollars.", "The price is 2400 dollars.", "right"),
        ("Paris", "Parma", "wrong"),
        ("Paris", "It is Paris.", "right"),
        (
            "Restart the router and wait a minute, then check the lamp.",
            "Wait until the lamp is green; call support otherwise.",
            "unsure",
        ),
    ],
)
def test_texts_are_compared(served: str, fresh: str, verdict: str) -> None:
    assert compare(Said(served), Said(fresh)).verdict == verdict


def test_tool_calls_are_compared_as_values_whatever_they_are_called_by_chance() -> None:
    one = call('{"a": 1, "b": 2}')
    assert compare(one, call('{"b": 2, "a": 1}', number=2)).agreement == 1.0
    assert compare(one, call('{"a": 1, "b": 3}')).verdict == "wrong"
    assert compare(one, call('{"a": 1, "b": 2}', name="g")).verdict == "wrong"
    assert compare(one, Said("I cannot do that.")).verdict == "wrong"


def test_code_that_differs_is_not_taken_for_the_same() -> None:
    served = "Use this to read the whole file at once:\n```python\nopen(path).read()\n```"
    fresh = "Use this to read the whole file at once:\n```python\nsubprocess.check_output(command)\n```"
    assert compare(Said(served), Said(fresh)).verdict != "right"


def test_vectors_decide_what_words_cannot() -> None:
    served, fresh = (
        Said("Restart the router and wait a minute, then check the lamp."),
        Said("Wait until the lamp is green; call support."),
    )
    assert compare(served, fresh, similarity=0.95).verdict == "right"
    assert compare(served, fresh, similarity=0.05).verdict == "wrong"


def test_categories_are_few() -> None:
    assert category_of("How do I reset it?", b"\x09").startswith("how-")
    questions = ("What is it", "is it on", "Tell me", "wo ist es", "", "why", "who", "when", "where", "¿cómo?")
    assert len({category_of(text, bytes([number])) for text in questions for number in range(256)}) <= 64
