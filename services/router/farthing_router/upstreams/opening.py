"""All adapters together, over one HTTP session, and batches with what they need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import structlog
from farthing_core.clock import Clock
from farthing_core.ids import NewId
from farthing_core.money import NANOS_MAX

from farthing_router.catalog import Catalog
from farthing_router.deployments.declared import Deployment
from farthing_router.pricing.price_book import PriceBook
from farthing_router.upstreams import Upstream, UpstreamAnswer
from farthing_router.upstreams.anthropic_batch import AnthropicBatches
from farthing_router.upstreams.any_llm import AnyLlm
from farthing_router.upstreams.batch_calls import BATCH_TIER, BatchApi, BatchStore, WrittenBatch, WrittenCall
from farthing_router.upstreams.batch_runs import Office
from farthing_router.upstreams.batches import Batches
from farthing_router.upstreams.detecting import Detection
from farthing_router.upstreams.dispatching import FORMATS, Upstreams
from farthing_router.upstreams.exchange import HttpApi, HttpUpstream
from farthing_router.upstreams.listings import Listings
from farthing_router.upstreams.openai_batch import OpenAIBatches
from farthing_router.upstreams.payloads import Reported

_BYTES_PER_TOKEN = 4
_DETECTED_AGAIN_S = 3600.0
_log = structlog.get_logger()


@asynccontextmanager
async def open_upstreams(
    session: Any, *, book: PriceBook, store: BatchStore, clock: Clock, new_id: NewId
) -> AsyncIterator[Upstreams]:
    """The Upstream of all deployments of the catalog, until the block ends."""
    api = HttpApi(session)
    apis: dict[str, BatchApi] = {
        "openai": OpenAIBatches(api),
        "azure": OpenAIBatches(api, azure=True),
        "anthropic": AnthropicBatches(api),
    }
    office = Office(store, batch_rate(book), clock, Random())
    batches = Batches(apis, office=office, new_id=new_id, find=lambda model, name: find_batch(book.catalog, model, name))
    wires: dict[str, Upstream] = {name: HttpUpstream(session, spoken) for name, spoken in FORMATS.items()}
    wires["any_llm"] = AnyLlm()
    async with batches.running(), AsyncExitStack() as stack:
        if book.catalog.detect_capabilities:
            detection = Detection(book.catalog, listing_of=Listings(api).of)
            await stack.enter_async_context(detection.running(interval_s=_DETECTED_AGAIN_S))
        yield Upstreams(wires, batches=batches)


def batch_rate(book: PriceBook) -> Callable[[WrittenBatch, WrittenCall, UpstreamAnswer], tuple[int, int, int]]:
    """What an answer that nobody waits for costs, at the prices of now and the batch tier."""

    def rate(batch: WrittenBatch, call: WrittenCall, answer: UpstreamAnswer) -> tuple[int, int, int]:
        tokens = (answer.usage or Reported()).tokens(
            input_estimate=-(-call.request_bytes // _BYTES_PER_TOKEN),
            output_estimate=-(-(len(answer.content) + len(answer.extra_json)) // _BYTES_PER_TOKEN),
        )
        model, place = book.catalog.models.get(batch.model), find_batch(book.catalog, batch.model, batch.deployment)
        price = book.prices(batch.organization).find(model, place) if model is not None else None
        if price is None:
            _log.error("batch answer without a price", organization=batch.organization, model=batch.model)
            return tokens.input_tokens, tokens.output_tokens, 0
        cost = price.rate(tokens, BATCH_TIER).cost_usd_nanos
        return tokens.input_tokens, tokens.output_tokens, min(NANOS_MAX, cost)

    return rate


def find_batch(catalog: Catalog, model: str, deployment: str) -> Deployment | None:
    """A deployment that is a Batch API; None where the catalog has it no more."""
    known = catalog.models.get(model)
    return next((each for each in known.deployments if each.name == deployment and each.batch), None) if known else None
