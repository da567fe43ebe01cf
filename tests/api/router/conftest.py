"""Sums that small models get wrong where a number is large, and then disagree; the big one nearly never does."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from farthing.router.v1 import router_pb2


@dataclass(frozen=True)
class Sum:
    """A sum, and what each model answers: the text, and whether it is right."""

    prompt: str
    hard: bool
    said: Mapping[str, tuple[str, bool]]


def _sums(count: int, *, seed: int = 1) -> list[Sum]:
    chance = random.Random(seed)
    made = []
    for number in range(count):
        one = chance.randrange(1, 100)
        hard = chance.random() < 0.4
        other = chance.randrange(1000, 9999) if hard else chance.randrange(1, 10)

        def answer(skill: float, right: int = one + other) -> tuple[str, bool]:
            good = chance.random() < skill
            said = right if good else right + chance.randrange(1, 50)
            return f"Adding both gives {said}. The answer is {said}", good

        said = {
            "small": answer(0.3 if hard else 0.98),
            "other": answer(0.3 if hard else 0.97),
            "big": answer(0.99),
        }
        made.append(Sum(f"Question {seed}-{number}: what is {one} + {other}?", hard, said))
    return made


@pytest.fixture
def sums() -> Callable[..., list[Sum]]:
    """Makes sums: `sums(300, seed=2)`."""
    return _sums


@pytest.fixture
def examples_of() -> Callable[..., list[Any]]:
    """Makes labelled examples of sums, at a cost a model where that is given."""

    def make(made: list[Sum], *, costs: Mapping[str, int] | None = None) -> list[Any]:
        return [
            router_pb2.CalibrationExample(
                prompt=each.prompt,
                answers=[
                    router_pb2.ExampleAnswer(
                        model=model, text=text, score=float(good), cost_usd_nanos=(costs or {}).get(model, 0)
                    )
                    for model, (text, good) in each.said.items()
                ],
            )
            for each in made
        ]

    return make
