"""What the embedder promises to those who ask it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from farthing_cache.embedding.embedder import Bounds, Embedder
from farthing_cache.embedding.encoding import EmbeddingUnavailable
from farthing_cache.embedding.reading import Reading, without_tokens
from farthing_cache.embedding.threaded import Threaded

BOUNDS = Bounds(batch_max=4, batches_max=1, waiting_max=20, remembered_bytes_max=100_000)


class Gated:
    """An encoder that reads a batch when it is let through, and writes down what it was asked."""

    fingerprint = "gated"

    def __init__(self, *, is_open: bool = True) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()

    async def read(self, texts: Sequence[str]) -> list[Reading | EmbeddingUnavailable]:
        self.batches.append(list(texts))
        await self.gate.wait()
        if "broken" in texts:
            raise RuntimeError("cannot")
        return [EmbeddingUnavailable("refused") if text == "bad" else reading(text) for text in texts]


async def turns() -> None:
    """Lets everything go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def opened(encoder: Gated) -> None:
    await turns()
    encoder.gate.set()


def reading(text: str) -> Reading:
    return without_tokens(np.array([float(len(text))], dtype=np.float32))


def lengths(readings: Sequence[Any]) -> list[float]:
    return [float(each.vector[0]) for each in readings]


async def test_who_waits_shares_a_batch_and_nothing_is_read_twice() -> None:
    encoder = Gated()
    async with Embedder(encoder, BOUNDS).running() as embedder:
        asked = [embedder.reading("acme", "x" * (number % 5 + 1)) for number in range(20)]
        assert lengths(await asyncio.gather(*asked)) == [number % 5 + 1 for number in range(20)]
        await embedder.reading("acme", "x")
    assert sum(map(len, encoder.batches)) == 5
    assert max(map(len, encoder.batches)) <= 4


async def test_organisations_do_not_share_what_was_read() -> None:
    encoder = Gated()
    async with Embedder(encoder, BOUNDS).running() as embedder:
        for organization in ("acme", "other", "acme"):
            await embedder.reading(organization, "x")
    assert encoder.batches == [["x"], ["x"]]


async def test_what_is_urgent_goes_first_and_the_rest_is_not_forgotten() -> None:
    encoder = Gated(is_open=False)
    async with Embedder(encoder, BOUNDS).running() as embedder:
        first = asyncio.create_task(embedder.reading("acme", "first"))
        await turns()
        patient = [asyncio.create_task(embedder.reading("acme", f"patient {n}", urgent=False)) for n in range(3)]
        urgent = [asyncio.create_task(embedder.reading("acme", f"urgent {n}")) for n in range(6)]
        sooner = asyncio.create_task(embedder.reading("acme", "patient 2"))
        await turns()
        encoder.gate.set()
        await asyncio.gather(first, sooner, *patient, *urgent)
    assert encoder.batches == [
        ["first"],
        ["urgent 0", "urgent 1", "urgent 2", "patient 0"],
        ["urgent 3", "urgent 4", "urgent 5", "patient 1"],
        ["patient 2"],
    ]


async def test_beyond_the_bound_it_is_busy_for_the_patient_first() -> None:
    encoder = Gated(is_open=False)
    async with Embedder(encoder, BOUNDS).running() as embedder:
        waiting = [asyncio.create_task(embedder.reading("acme", f"text {n}")) for n in range(14)]
        await turns()
        with pytest.raises(EmbeddingUnavailable, match="busy"):
            await embedder.reading("acme", "patient", urgent=False)
        waiting += [asyncio.create_task(embedder.reading("acme", f"more {n}")) for n in range(10)]
        await turns()
        with pytest.raises(EmbeddingUnavailable, match="busy"):
            await embedder.reading("acme", "urgent")
        joined = asyncio.create_task(embedder.reading("acme", "text 3"))
        encoder.gate.set()
        assert lengths([await joined]) == [6]
        await asyncio.gather(*waiting)


async def test_many_texts_are_read_in_their_order_however_many() -> None:
    encoder = Gated()
    async with Embedder(encoder, BOUNDS).running() as embedder:
        texts = ["x" * (number % 40 + 1) for number in range(100)]
        assert lengths(await embedder.readings("acme", texts)) == [len(text) for text in texts]
        with pytest.raises(EmbeddingUnavailable, match="refused"):
            await embedder.readings("acme", ["fine", "bad"])


async def test_a_failure_is_of_those_who_asked_and_the_next_is_read() -> None:
    async with Embedder(Gated(), BOUNDS).running() as embedder:
        bad, fine = await asyncio.gather(
            embedder.reading("acme", "bad"), embedder.reading("acme", "fine"), return_exceptions=True
        )
        assert isinstance(bad, EmbeddingUnavailable)
        assert lengths([fine]) == [4]
        with pytest.raises(EmbeddingUnavailable, match="model failed"):
            await embedder.reading("acme", "broken")
        assert lengths([await embedder.reading("acme", "good")]) == [4]


async def test_what_is_remembered_is_bounded_by_its_bytes() -> None:
    encoder = Gated()
    bounds = Bounds(batch_max=4, batches_max=1, waiting_max=20, remembered_bytes_max=2_000)
    async with Embedder(encoder, bounds).running() as embedder:
        for text in ("one", "two", "six", "ten", "ten", "one"):
            await embedder.reading("acme", text)
    assert encoder.batches == [["one"], ["two"], ["six"], ["ten"], ["one"]]


async def test_who_waits_when_it_closes_is_told_so() -> None:
    encoder = Gated(is_open=False)
    async with Embedder(encoder, BOUNDS).running() as embedder:
        asked = [asyncio.create_task(embedder.reading("acme", f"text {n}")) for n in range(6)]
        await turns()
        opening = asyncio.create_task(opened(encoder))
    await opening
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(each, Reading) for each in results] == [True] * 4 + [False] * 2
    with pytest.raises(EmbeddingUnavailable, match="closing"):
        await embedder.reading("acme", "late")


async def test_a_model_that_cannot_be_loaded_is_tried_again() -> None:
    attempts: list[str] = []

    class Ready:
        fingerprint = "ready"

        def read(self, texts: Sequence[str]) -> list[Reading]:
            return [reading(text) for text in texts]

    def load() -> Ready:
        attempts.append("load")
        if len(attempts) == 1:
            raise OSError("no such file")
        return Ready()

    async with Threaded(load, fingerprint="ready").running() as encoder:
        with pytest.raises(EmbeddingUnavailable, match="model failed"):
            await encoder.read(["text"])
        assert lengths(await encoder.read(["text"])) == [4]
