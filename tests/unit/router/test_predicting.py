"""What is expected of a prompt before anything is asked."""

from __future__ import annotations

import random

import pytest
from farthing_router.calibration.complexity import complexity
from farthing_router.calibration.examples import ExampleAnswer, example
from farthing_router.calibration.labelled import DataTooSmall
from farthing_router.calibration.policy import PolicyUnreadable
from farthing_router.calibration.predicting import Predictor, fit_predictor

EASY = (
    "Hi!",
    "Write a caption for a photo of my dog.",
    "Translate to French: good morning, everybody.",
    "Give me three hashtags for a coffee shop.",
    "What is the capital of Italy?",
    "Fix the grammar: he go to school yesterday and buyed a book for his sister who like stories about the sea and old ships.",
)
HARD = (
    "Prove that √2 is irrational.",
    "Is every continuous bijection a homeomorphism?",
    "Show that there are infinitely many primes.",
    "58-year-old man, crushing chest pain, BP 80/50. Differential diagnosis?",
    "Safe dose of warfarin with amiodarone?",
    "Can a landlord be held liable for a tenant's dog under negligence?",
    "Why does this deadlock? `mutex a; lock(a); lock(a);`",
)


@pytest.mark.parametrize("prompt", HARD)
def test_case_25_a_short_but_hard_prompt_is_not_simple(prompt: str) -> None:
    assert complexity(prompt).score >= 0.5
    assert complexity(prompt).score > max(complexity(easy).score for easy in EASY)


@pytest.mark.parametrize("prompt", EASY)
def test_a_plain_prompt_is_simple_however_long(prompt: str) -> None:
    assert complexity(prompt).score < 0.4


def test_complexity_says_why_and_stays_bounded() -> None:
    assert "proof" in complexity(HARD[0]).reasons
    assert "clinical" in complexity(HARD[3]).reasons
    for text in ("", "prove " * 100_000, "\x00\ud800", "SELECT " * 50_000):
        assert 0 <= complexity(text).score <= 1


def grown() -> Predictor:
    chance = random.Random(4)
    examples = []
    for number in range(300):
        hard = number % 2 == 0
        prompt = f"Prove lemma {number}: {chance.random()}" if hard else f"Say hello to guest {number}, please"
        answers = {
            "small": ExampleAnswer(
                text="", score=float(chance.random() < (0.1 if hard else 0.95)), output_tokens=400 if hard else 20
            ),
            "big": ExampleAnswer(text="", score=float(chance.random() < 0.9), output_tokens=100),
        }
        examples.append(example(prompt, answers if number % 5 else {"big": answers["big"]}))
    return fit_predictor(examples, seed=1)


def test_a_predictor_learns_which_prompts_a_model_answers_well_and_how_long() -> None:
    predictor = grown()
    hard, easy = predictor.predict("Prove lemma 999: 0.123"), predictor.predict("Say hello to guest 999, please")
    assert hard["small"].quality < 0.4
    assert easy["small"].quality > 0.75
    assert hard["big"].quality > 0.75
    assert hard["small"].output_tokens > 5 * easy["small"].output_tokens


def test_a_predictor_is_the_same_after_it_was_kept() -> None:
    predictor = grown()
    again = Predictor.from_json(predictor.to_json())
    assert again.predict(HARD[0]) == predictor.predict(HARD[0])
    with pytest.raises(PolicyUnreadable):
        Predictor.from_json(b"{}")
    with pytest.raises(DataTooSmall):
        fit_predictor([], seed=1)
