"""What the embedding model promises: int8 agrees with the float graph, and meaning is near."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from farthing_cache.embedding.embedder import Embedder
from farthing_cache.embedding.minilm import DIMENSIONS, MiniLM, built
from farthing_cache.embedding.reading import Reading, ReadingUnknown, reading_of, without_tokens

TEXTS = [
    "How do I reset my password?",
    "What is the way to reset a forgotten password?",
    "How long do I boil an egg?",
    "Please cancel our subscription at the end of the month.",
]


@pytest.fixture(scope="module")
def model(session_dir: Path) -> MiniLM:
    return MiniLM.load(session_dir / "models", threads=1)


def test_the_quantised_model_agrees_with_the_exact_one(model: MiniLM, session_dir: Path) -> None:
    import onnxruntime

    exact = MiniLM(onnxruntime.InferenceSession(built(session_dir / "models", quantised=False)), model._tokenizer)
    one, other = model.encode(TEXTS), exact.encode(TEXTS)
    assert one.shape == (len(TEXTS), DIMENSIONS)
    assert np.allclose(np.linalg.norm(one, axis=1), 1.0, atol=1e-3)
    assert (one * other).sum(axis=1).min() >= 0.98


def test_what_means_the_same_is_nearer_than_what_does_not(model: MiniLM) -> None:
    vectors = model.encode(TEXTS)
    assert vectors[0] @ vectors[1] > 0.8 > 0.4 > vectors[0] @ vectors[2]


def test_a_text_has_the_same_vector_alone_and_in_company(model: MiniLM) -> None:
    alone, together = model.encode(TEXTS[:1])[0], model.encode(TEXTS)[0]
    assert alone @ together > 0.98


class Counting:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def read(self, texts: list[str]) -> list[Reading]:
        self.batches.append(texts)
        if "bad" in texts:
            raise RuntimeError("cannot")
        return [without_tokens(np.array([float(len(text))], dtype=np.float32)) for text in texts]


async def test_who_waits_shares_a_batch_and_nothing_is_embedded_twice() -> None:
    encoder = Counting()
    async with Embedder(lambda: encoder, batch_max=4, remembered_max=100).running() as embedder:
        readings = await asyncio.gather(*(embedder.reading("x" * (number % 5 + 1)) for number in range(20)))
        assert [float(each.vector[0]) for each in readings] == [number % 5 + 1 for number in range(20)]
        await embedder.reading("x")
    assert sum(len(batch) for batch in encoder.batches) == 5
    assert max(len(batch) for batch in encoder.batches) <= 4


async def test_a_model_that_fails_is_an_error_for_those_who_asked_and_goes_on() -> None:
    async with Embedder(Counting, batch_max=4, remembered_max=100).running() as embedder:
        with pytest.raises(RuntimeError):
            await embedder.reading("bad")
        assert float((await embedder.reading("good")).vector[0]) == 4


def test_a_reading_comes_back_from_its_bytes_with_every_token(model: MiniLM) -> None:
    for reading in model.read(TEXTS):
        back = reading_of(reading.to_bytes(), reading.vector)
        assert np.array_equal(back.token_ids, reading.token_ids)
        assert np.array_equal(back.token_states, reading.token_states)
        assert back.token_states.shape == (len(reading.token_ids), DIMENSIONS)


@pytest.mark.parametrize("damaged", [b"", b"\x01", b"\x02\x00\x00\x00\x00", b"\x01\x01\x00\x80\x01"])
def test_bytes_that_are_no_reading_are_refused_by_name(damaged: bytes) -> None:
    with pytest.raises(ReadingUnknown):
        reading_of(damaged, np.zeros(DIMENSIONS, np.float32))
