"""What every model of texts promises: the built-in one on its runtime, and one behind an API. The extra's is in evals/embedders.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from farthing_cache.embedding import minilm
from farthing_cache.embedding.encoding import EmbeddingUnavailable
from farthing_cache.embedding.graph import DIMENSIONS
from farthing_cache.embedding.http import Api, RemoteEncoder
from farthing_cache.embedding.minilm import MiniLM
from farthing_cache.embedding.reading import Reading, ReadingUnknown, reading_of
from farthing_cache.embedding.threaded import Threaded
from farthing_core.clock import ManualClock

from tests.fake_providers.embeddings_server import EmbeddingsServer, vector_of

TEXTS = [
    "How do I reset my password?",
    "What is the way to reset a forgotten password?",
    "How long do I boil an egg?",
    "hello",
    "Please cancel our subscription at the end of the month, send us the last invoice, and confirm both in writing to the address below.",
]
HOSTILE = [
    "x" * 10_000_000,
    " " * 1_000_000,
    "",
    "\0\0",
    "\ud800 half a character",
    "😀" * 4_000,
    "日本" * 3_000,
    "a\u0301" * 500,
]


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[EmbeddingsServer]:
    async with EmbeddingsServer().running() as running:
        yield running


@pytest.fixture(scope="module")
def model(session_dir: Path) -> MiniLM:
    return MiniLM.load(session_dir / "models")


def remote(server: EmbeddingsServer, clock: ManualClock | None = None, **fields: Any) -> RemoteEncoder:
    api = Api(**{"base_url": server.base_url, "model": "m", "key": lambda: "secret", "timeout_s": 5.0, **fields})
    return RemoteEncoder(api, clock=clock or ManualClock(), chance=Random(1))


@pytest.fixture(params=["built in", "remote"])
async def encoder(request: pytest.FixtureRequest, model: MiniLM, server: EmbeddingsServer) -> AsyncIterator[Any]:
    made = Threaded(lambda: model, fingerprint=model.fingerprint) if request.param == "built in" else remote(server)
    async with made.running() as running:
        yield running


async def test_a_text_has_the_same_unit_vector_alone_and_in_any_company(encoder: Any) -> None:
    together = await encoder.read(TEXTS + TEXTS[::-1])
    for text, one, other in zip(TEXTS, together, together[::-1], strict=False):
        (alone,) = await encoder.read([text])
        assert np.linalg.norm(alone.vector) == pytest.approx(1.0, abs=1e-5)
        assert min(alone.vector @ one.vector, alone.vector @ other.vector) > 0.9995, text


async def test_whatever_a_text_holds_it_is_read_as_far_as_it_can_be(encoder: Any) -> None:
    readings = await encoder.read(HOSTILE)
    assert all(np.isfinite(each.vector).all() and np.linalg.norm(each.vector) > 0.99 for each in readings)
    assert readings[0].truncated
    assert not readings[3].truncated


def vectors(readings: list[Reading]) -> Any:
    return np.vstack([each.vector for each in readings])


def test_the_quantised_model_agrees_with_the_exact_one(model: MiniLM, session_dir: Path) -> None:
    exact = MiniLM.load(session_dir / "models", quantised=False)
    assert (vectors(model.read(TEXTS)) * vectors(exact.read(TEXTS))).sum(axis=1).min() >= 0.985
    assert exact.fingerprint != model.fingerprint


def test_what_means_the_same_is_nearer_than_what_does_not(model: MiniLM) -> None:
    one, same, other, *_ = vectors(model.read(TEXTS))
    assert one @ same > 0.8 > 0.4 > one @ other


def test_a_text_that_is_longer_than_the_model_reads_says_so(model: MiniLM) -> None:
    fits, longer, spaced = model.read(["word " * 126, "word " * 127, "word" + " " * 5_000 + "word"])
    assert (fits.truncated, longer.truncated, spaced.truncated) == (False, True, True)
    assert len(fits.token_ids) == len(longer.token_ids) == 126
    assert fits.vector @ longer.vector == pytest.approx(1.0, abs=1e-5)


def test_a_reading_comes_back_from_its_bytes_with_every_token(model: MiniLM) -> None:
    for reading in model.read(TEXTS):
        back = reading_of(reading.to_bytes(), reading.vector)
        assert np.array_equal(back.token_ids, reading.token_ids)
        assert np.array_equal(back.token_states, reading.token_states)
        assert back.token_states.shape == (len(reading.token_ids), DIMENSIONS)
    assert len(model.read(["hello"])[0].token_ids) == 1


@pytest.mark.parametrize("damaged", [b"", b"\x01", b"\x02\x00\x00\x00\x00", b"\x01\x01\x00\x80\x01"])
def test_bytes_that_are_no_reading_are_refused_by_name(damaged: bytes) -> None:
    with pytest.raises(ReadingUnknown):
        reading_of(damaged, np.zeros(DIMENSIONS, np.float32))


def test_the_graph_is_written_once_and_kept(session_dir: Path, model: MiniLM) -> None:
    path = Path(minilm.built(session_dir / "models"))
    before = path.stat().st_mtime_ns
    assert minilm.built(session_dir / "models") == str(path)
    assert path.stat().st_mtime_ns == before
    assert path.stem == model.fingerprint


async def test_an_api_is_sent_its_key_and_its_vectors_are_put_in_order(server: EmbeddingsServer) -> None:
    async with remote(server, dimensions=16).running() as encoder:
        one, two = await encoder.read(["one", "two"])
    assert server.keys[-1] == "Bearer secret"
    assert server.bodies[-1] == {"model": "m", "input": ["one", "two"], "encoding_format": "float", "dimensions": 16}
    for reading, text in ((one, "one"), (two, "two")):
        said = np.array(vector_of(text, 16))
        assert np.allclose(reading.vector, said / np.linalg.norm(said), atol=1e-6)
        assert len(reading.token_ids) == 0


async def test_what_may_pass_is_asked_again_and_what_will_not_is_not(server: EmbeddingsServer) -> None:
    async with remote(server).running() as encoder:
        server.refusals = [(429, {"retry-after": "0"}), (503, {"retry-after": "0"})]
        assert len(await encoder.read(["again"])) == 1
        before = len(server.bodies)
        server.refusals = [(401, {})]
        with pytest.raises(EmbeddingUnavailable, match="refused"):
            await encoder.read(["no"])
        server.refusals = [(429, {"retry-after": "60"})]
        with pytest.raises(EmbeddingUnavailable, match="away"):
            await encoder.read(["not so long"])
        assert len(server.bodies) == before + 2


async def test_one_text_that_is_refused_spoils_nobody_elses(server: EmbeddingsServer) -> None:
    async with remote(server).running() as encoder:
        readings = await encoder.read(["a", "b", "bad", "c", "d"])
    assert [isinstance(each, Reading) for each in readings] == [True, True, False, True, True]
    assert readings[2].reason == "embedding model refused"


async def test_an_api_that_is_away_is_left_alone_for_a_while(server: EmbeddingsServer) -> None:
    clock = ManualClock()
    async with remote(server, clock).running() as encoder:
        server.refusals = [(500, {"retry-after": "0"})] * 9
        before = len(server.bodies)
        for _ in range(6):
            with pytest.raises(EmbeddingUnavailable, match="away"):
                await encoder.read(["text"])
        assert len(server.bodies) == before + 9
        clock.advance(11)
        assert len(await encoder.read(["text"])) == 1


async def test_a_model_that_refuses_everything_is_not_asked_text_by_text(server: EmbeddingsServer) -> None:
    async with remote(server, model="picky").running() as encoder:
        before = len(server.bodies)
        with pytest.raises(EmbeddingUnavailable, match="refused"):
            await encoder.read([str(number) for number in range(64)])
        assert len(server.bodies) - before < 10


@pytest.mark.parametrize("model", ["short", "ragged", "words", "zeros"])
async def test_nonsense_is_no_vector(server: EmbeddingsServer, model: str) -> None:
    async with remote(server, model=model).running() as encoder:
        with pytest.raises(EmbeddingUnavailable, match="nonsense"):
            await encoder.read(["one", "two"])


async def test_an_api_that_hangs_is_away(server: EmbeddingsServer) -> None:
    async with remote(server, model="hangs", timeout_s=0.05).running() as encoder:
        with pytest.raises(EmbeddingUnavailable, match="away"):
            await encoder.read(["text"])


def test_a_model_has_another_name_at_another_address() -> None:
    names = {
        Api(url, model, str, dimensions).fingerprint
        for url in ("http://a/v1", "http://b/v1")
        for model in ("m", "n")
        for dimensions in (0, 8)
    }
    assert len(names) == 8
