"""The cache with other models than its own: through its stub, on one database."""

from __future__ import annotations

from typing import Any

import asyncpg

from tests.api.cache.test_cache import HIT_EXACT, HIT_SEMANTIC, MISS, look_up, request, store, stub_of
from tests.fake_providers.embeddings_server import EmbeddingsServer

QUESTION, PARAPHRASE, SAME = "How do I reset my password?", "How can I reset my password?", "how do i reset my password"


def remote(server: EmbeddingsServer, **further: str) -> dict[str, str]:
    return {
        "FARTHING_CACHE_EMBEDDER": "openai:m",
        "FARTHING_CACHE_EMBEDDER_BASE_URL": server.base_url,
        "FARTHING_CACHE_EMBEDDER_KEY": "secret",
        **further,
    }


async def test_an_answer_is_found_by_the_vectors_of_an_api(api: Any, database_url: str) -> None:
    async with EmbeddingsServer().running() as server, api("cache", environment=remote(server)) as channel_of:
        stub = stub_of(channel_of)
        stored = await store(stub, request(QUESTION))
        assert (stored.stored, stored.reason) == (True, "as long as most answers")
        # What this server makes of a text is near to nothing else, but what is the same word by word is found.
        missed = await look_up(stub, request(PARAPHRASE))
        assert (missed.outcome, missed.embedding) == (MISS, b"")
        assert missed.HasField("similarity")
        assert {body["model"] for body in server.bodies} == {"m"}
        connection = await asyncpg.connect(database_url)
        indexes = await connection.fetchval("SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'entries\\_near\\_%'")
        await connection.close()
        assert indexes == 1


async def test_a_model_that_is_away_makes_misses_that_say_so_and_answers_that_are_found_exactly(api: Any) -> None:
    async with EmbeddingsServer().running() as server:
        environment = remote(server)
    async with api("cache", environment=environment) as channel_of:
        stub = stub_of(channel_of)
        stored = await store(stub, request(QUESTION))
        assert (stored.stored, stored.reason) == (True, "found exactly only: embedding model away")
        assert (await look_up(stub, request(QUESTION))).outcome == HIT_EXACT
        assert (await look_up(stub, request(PARAPHRASE))).reason == "nothing to compare with"


async def test_vectors_of_two_models_are_never_compared(suite: Any) -> None:
    async with EmbeddingsServer().running() as server:
        async with suite("cache") as running:
            await store(stub_of(running.mesh.channel), request(QUESTION))
            assert (await look_up(stub_of(running.mesh.channel), request(PARAPHRASE))).outcome == HIT_SEMANTIC
        # As long as the built-in model's vectors, so that nothing but their model tells them apart.
        async with suite("cache", environment=remote(server, FARTHING_CACHE_EMBEDDER_DIMENSIONS="384")) as running:
            stub = stub_of(running.mesh.channel)
            missed = await look_up(stub, request(PARAPHRASE))
            assert (missed.outcome, missed.reason) == (MISS, "nothing near")
            assert not missed.HasField("similarity")
            assert (await look_up(stub, request(QUESTION))).outcome == HIT_EXACT


async def test_a_key_comes_from_a_file(suite: Any, tmp_path: Any) -> None:
    path = tmp_path / "key"
    path.write_text("from a file\n")
    async with EmbeddingsServer().running() as server:
        environment = remote(server, FARTHING_CACHE_EMBEDDER_KEY_FILE=str(path))
        async with suite("cache", environment=environment) as running:
            await store(stub_of(running.mesh.channel), request(SAME))
    assert server.keys == ["Bearer from a file"]
