"""Recorded questions as a stream of requests, whose answers' quality becomes known late and in part."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from farthing_cache.embedding.minilm import MiniLM
from farthing_router.learning.contexts import context_of
from farthing_runtime.replay.routing_data import read_mmlupro, read_zeroeval

Floats = np.ndarray[Any, np.dtype[np.float64]]
Whole = np.ndarray[Any, np.dtype[np.int64]]
REFERENCES = {"zeroeval": "gpt-4o-2024-08-06", "mmlupro": "gemini-1.5-pro-002"}
_MODELS_DIR = Path(".farthing/models")
_DELAY_MAX = 100
_LENGTH_START = 200.0


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Questions with every model's answer: right or not, its cost in dollars and its tokens; `points` is what the reference model's mean
    bill for a request is worth, in hundredths of quality."""

    name: str
    models: tuple[str, ...]
    reference: int
    prompts: tuple[str, ...]
    embeddings: tuple[bytes, ...]
    contexts: Floats
    correct: Floats
    cost: Floats
    input_tokens: Floats
    output_tokens: Floats
    rates: Floats
    points: float

    def price(self) -> float:
        """What a wholly good answer is worth, in dollars."""
        return float(self.cost[:, self.reference].mean()) * 100 / self.points

    def reward(self) -> Floats:
        """Quality minus cost at the price of quality, by question and model."""
        return self.correct - self.cost / self.price()


@dataclass(frozen=True, slots=True)
class Trace:
    """The order of the questions and the model that each was sent to."""

    order: Whole
    arms: Whole


class Player(Protocol):
    """A policy."""

    def choose(self, question: int, likely_usd: Floats) -> int:
        """Whom to ask."""
        ...

    def learn(self, question: int, arm: int, quality: float) -> None:
        """What somebody says of an answer."""
        ...


@dataclass(slots=True)
class _Lengths:
    """How long answers of each model have been."""

    totals: Floats
    counts: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.ones(len(self.totals))

    def likely(self) -> Floats:
        return self.totals / self.counts


def follow(stream: Stream, player: Player, *, seed: int, feedback: float) -> Trace:
    """Sends every question where the policy says; feedback comes after up to a hundred further requests."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(stream.prompts))
    arms = np.zeros(len(order), dtype=np.int64)
    told, delays = rng.random(len(order)) < feedback, rng.integers(1, _DELAY_MAX + 1, len(order))
    due: dict[int, deque[int]] = {}
    lengths = _Lengths(np.full(len(stream.models), _LENGTH_START))
    for place, question in enumerate(order.tolist()):
        for earlier in due.pop(place, ()):
            asked = int(order[earlier])
            player.learn(asked, int(arms[earlier]), float(stream.correct[asked, arms[earlier]]))
        likely = (stream.input_tokens[question] * stream.rates[:, 0] + lengths.likely() * stream.rates[:, 1]) / 1e6
        arm = arms[place] = player.choose(question, likely)
        lengths.totals[arm] += stream.output_tokens[question, arm]
        lengths.counts[arm] += 1
        if told[place]:
            due.setdefault(place + int(delays[place]), deque()).append(place)
    return Trace(order, arms)


def read_streams(folder: Path, *, points: float) -> Iterator[Stream]:
    """The collections in a folder, questions that every model answered."""
    rates = json.loads((folder / "prices.json").read_text())["usd_per_million_tokens (input, output)"]
    encoder = MiniLM.load(_MODELS_DIR, threads=1)
    for name, read in (("zeroeval", read_zeroeval), ("mmlupro", read_mmlupro)):
        if not (folder / f"{name}_outputs.parquet").is_file():
            continue
        answers: dict[str, dict[str, Any]] = {}
        for row in read(folder):
            answers.setdefault(row.prompt, {})[row.model] = row
        models = tuple(sorted({model for found in answers.values() for model in found}))
        prompts = tuple(prompt for prompt, found in answers.items() if len(found) == len(models))
        table = [[answers[prompt][model] for model in models] for prompt in prompts]
        per_token = np.array([rates[model] for model in models], dtype=np.float64)
        read_tokens = np.array([[row.input_tokens for row in rows] for rows in table], dtype=np.float64)
        said_tokens = np.array([[row.output_tokens for row in rows] for rows in table], dtype=np.float64)
        embeddings = _embedded(encoder, prompts)
        yield Stream(
            name=name,
            models=models,
            reference=models.index(REFERENCES[name]),
            prompts=prompts,
            embeddings=embeddings,
            contexts=np.array([context_of(*each) for each in zip(prompts, embeddings, strict=True)]),
            correct=np.array([[row.correct for row in rows] for rows in table], dtype=np.float64),
            cost=(read_tokens * per_token[:, 0] + said_tokens * per_token[:, 1]) / 1e6,
            input_tokens=read_tokens,
            output_tokens=said_tokens,
            rates=per_token,
            points=points,
        )


def _embedded(encoder: MiniLM, prompts: tuple[str, ...]) -> tuple[bytes, ...]:
    """Unit vectors as little-endian float16."""
    return tuple(vector.astype("<f2").tobytes() for vector in encoder.encode(prompts))
