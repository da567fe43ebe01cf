"""What the judge makes of answers."""

from __future__ import annotations

import time

import pytest
from farthing_router.judging.answers import agree, final_answer
from farthing_router.judging.opinions import Judged, judge
from farthing_router.judging.structures import asked


def opinion(text: str, *others: str, finish: str = "stop", wants_json: bool = False) -> float:
    return judge(Judged(text, finish, asked('{"type":"json_object"}' if wants_json else "", "")), others).confidence


def test_a_well_formed_answer_is_taken_and_a_bad_one_is_not() -> None:
    good = opinion("Open Settings, choose Billing, and press Download invoice.")
    assert good >= 0.7
    for bad in ("", "I'm not sure, please contact support.", "As an AI I cannot help with that.", "```python\nprint(1)"):
        assert opinion(bad) < 0.5
    assert opinion("It is 42", finish="length") < 0.5
    assert opinion("it is 42", wants_json=True) < 0.5
    assert opinion('{"it": 42}', wants_json=True) >= 0.7


def test_agreement_of_two_models_counts_more_than_form() -> None:
    assert opinion("12 + 30 = 42. The answer is 42", "So the answer is 42.") > opinion("The answer is 42")
    assert opinion("The answer is 42", "The answer is 41") < 0.5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The answer is 2,400.", "= 2400.00 dollars, so the answer is $2400"),
        ('{"reasoning": "a b", "answer": "18"}', "\\boxed{18}"),
        ("(B) because of gravity", "B"),
        ("The final answer is: Paris", "paris."),
    ],
)
def test_answers_that_say_the_same_agree(one: str, other: str) -> None:
    assert agree(one, other) is True


def test_answers_that_differ_do_not_agree() -> None:
    assert agree("The answer is 18", "The answer is 81") is False
    assert agree("A", "C") is False


def test_a_final_answer_is_found_in_prose_only_where_there_is_one() -> None:
    assert final_answer("word " * 100) is None
    assert final_answer("She has 3 + 4 = 7 apples, gives away 2, and so keeps 7 - 2 = 5 apples. " * 2) == "5"


def test_degenerate_answers_are_judged_in_no_time() -> None:
    for text in ("=" * 5_000_000, "1," * 2_000_000, "\\boxed{" * 300_000, '{"answer":' * 300_000, "answer is " * 400_000):
        began = time.process_time()
        judge(Judged(text, "stop"), [text[::-1]])
        assert time.process_time() - began < 1.0
