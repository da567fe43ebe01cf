"""What providers list fills in what farthing.yaml leaves out, and is warned of where it says otherwise. What farthing.yaml says stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog
from farthing_runtime.beside import beside

from farthing_router.catalog import Catalog, Model
from farthing_router.deployments.declared import Deployment
from farthing_router.upstreams.listings import ListedModel, Listing

LISTED, NOT_LISTED = "listed", "not listed"
_AT_ONCE = 4
_log = structlog.get_logger()

ListingOf = Callable[[Deployment], Awaitable[Listing | None]]
"""Asks the provider of a deployment for its models; None where it cannot be asked or lists nothing."""


class Detection:
    """Asks each provider once for all of its deployments, and corrects the catalog."""

    def __init__(self, catalog: Catalog, *, listing_of: ListingOf) -> None:
        self._catalog = catalog
        self._listing_of = listing_of
        self._warned: set[tuple[str, str]] = set()

    @asynccontextmanager
    async def running(self, *, interval_s: float) -> AsyncIterator[None]:
        """Asks at the start and then every so often, until the block ends; nobody waits for it."""

        async def again() -> None:
            while True:
                await self.detect()
                await asyncio.sleep(interval_s)

        async with beside(again()):
            yield

    async def detect(self) -> None:
        """Asks every provider, and takes over what they say."""
        deployments = [each for model in self._catalog.models.values() for each in model.deployments]
        askable = {_key(each): each for each in deployments}
        turn = asyncio.Semaphore(_AT_ONCE)

        async def ask(deployment: Deployment) -> Listing | None:
            async with turn:
                try:
                    return await self._listing_of(deployment)
                except Exception as error:  # a listing that nobody could read must not end what goes on beside requests
                    _log.warning("a provider's models could not be read", provider=deployment.provider, error=repr(error))
                    return None

        found = await asyncio.gather(*(ask(each) for each in askable.values()))
        listings = dict(zip(askable, found, strict=True))
        for model in list(self._catalog.models.values()):
            self._correct(model, listings)

    def _correct(self, model: Model, listings: dict[tuple[str, ...], Listing | None]) -> None:
        limits: list[int] = []
        places: list[Deployment] = []
        for deployment in model.deployments:
            listing = listings.get(_key(deployment))
            listed = listing.find(deployment.upstream_model) if listing is not None else None
            if listed is not None and listed.output_tokens_max is not None:
                limits.append(listed.output_tokens_max)
            places.append(self._corrected(deployment, listing, listed))
        changes: dict[str, object] = {}
        if tuple(places) != model.deployments:
            changes["deployments"] = tuple(places)
            changes["context_window_tokens"] = max(each.context_window_tokens for each in places)
            changes["capabilities"] = frozenset().union(*(each.capabilities for each in places))
        if limits and "output_tokens_max" in model.left_out and model.output_tokens_max != min(limits):
            changes["output_tokens_max"] = min(limits)
        elif limits and "output_tokens_max" not in model.left_out and model.output_tokens_max > min(limits):
            self._warn(model.name, "output_tokens_max", declared=model.output_tokens_max, listed=min(limits))
        if changes:
            self._catalog.correct(replace(model, **changes))  # type: ignore[arg-type]

    def _corrected(self, deployment: Deployment, listing: Listing | None, listed: ListedModel | None) -> Deployment:
        if listing is None:
            return deployment  # what was known before still holds
        able = {*deployment.capabilities}
        if listing.batches and (listed is None or listed.abilities.get("batch", True)):
            able.add("batch")
        if listed is None or listed.retired:
            said = NOT_LISTED if listing.models else ""
            if said:
                self._warn(deployment.name, "listing", declared=deployment.upstream_model, listed="nothing")
            return replace(deployment, listing=said, capabilities=frozenset(able))
        window = deployment.context_window_tokens
        if listed.context_window_tokens is not None:
            if "context_window_tokens" in deployment.left_out:
                window = listed.context_window_tokens
            elif window > listed.context_window_tokens:
                self._warn(deployment.name, "context_window_tokens", declared=window, listed=listed.context_window_tokens)
        for ability, has in listed.abilities.items():
            if has and "capabilities" in deployment.left_out:
                able.add(ability)
            elif not has and ability in able and "capabilities" not in deployment.left_out:
                self._warn(deployment.name, f"capabilities: {ability}", declared=True, listed=False)
        return replace(deployment, listing=LISTED, capabilities=frozenset(able), context_window_tokens=window)

    def _warn(self, name: str, field: str, *, declared: object, listed: object) -> None:
        """Once for each: the same would come every hour."""
        if (name, field) not in self._warned:
            self._warned.add((name, field))
            _log.warning(
                "a provider lists otherwise than farthing.yaml says", of=name, field=field, declared=declared, listed=listed
            )


def _key(deployment: Deployment) -> tuple[str, ...]:
    return deployment.wire.name, deployment.base_url, deployment.api_key
