"""The model that the settings name, ready to be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random

from farthing_core.clock import Clock

from farthing_cache.embedding import minilm
from farthing_cache.embedding.embedder import Bounds, Embedder
from farthing_cache.embedding.encoding import Encoder
from farthing_cache.embedding.threaded import Threaded
from farthing_cache.settings import Settings

_LOCAL_BATCH_MAX, _REMOTE_BATCH_MAX = 32, 64
_REMOTE_BATCHES_MAX = 4


@asynccontextmanager
async def opened(settings: Settings, *, clock: Clock, chance: Random) -> AsyncIterator[Embedder]:
    """An embedder over the model of `settings.embedder`, until the block ends."""
    async with AsyncExitStack() as stack:
        remote = settings.embedder_kind == "openai"
        encoder = await stack.enter_async_context(_remote(settings, clock, chance) if remote else _local(settings))
        bounds = Bounds(
            batch_max=_REMOTE_BATCH_MAX if remote else _LOCAL_BATCH_MAX,
            batches_max=_REMOTE_BATCHES_MAX if remote else 1,
            waiting_max=settings.embedding_queue_size_max,
            remembered_bytes_max=settings.readings_bytes_max,
        )
        yield await stack.enter_async_context(Embedder(encoder, bounds).running())


@asynccontextmanager
async def _local(settings: Settings) -> AsyncIterator[Encoder]:
    threads = settings.embedding_threads
    if settings.embedder_kind == "minilm":
        models_dir = settings.data_dir / "models"
        # Once on a machine, for a second: answers that wait for it to be stored would be missed meanwhile. It is loaded when needed.
        await asyncio.to_thread(minilm.built, models_dir)
        load = partial(minilm.MiniLM.load, models_dir, threads=threads)
        encoder = Threaded(load, fingerprint=minilm.fingerprint())
    else:
        from farthing_cache.embedding.sentences import SentenceTransformerModel

        # Loaded at once: only then is it known whether it is there and what to call its vectors.
        name, device = settings.embedder_model, settings.embedder_device
        model = await asyncio.to_thread(SentenceTransformerModel.load, name, device=device, threads=threads)
        encoder = Threaded(lambda: model, fingerprint=model.fingerprint)
    async with encoder.running():
        yield encoder


@asynccontextmanager
async def _remote(settings: Settings, clock: Clock, chance: Random) -> AsyncIterator[Encoder]:
    from farthing_cache.embedding.http import Api, RemoteEncoder, key_reader

    api = Api(
        base_url=settings.embedder_base_url,
        model=settings.embedder_model,
        key=key_reader(settings.embedder_key_file, settings.embedder_key.get_secret_value()),
        dimensions=settings.embedder_dimensions,
        timeout_s=settings.embedder_timeout_s,
    )
    async with RemoteEncoder(api, clock=clock, chance=chance).running() as encoder:
        yield encoder
