"""RPCs about models and the deployments where they run."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from farthing.router.v1 import router_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid

from farthing_router.catalog import Model, ModelNotFound
from farthing_router.deployments.balancing import Balancer
from farthing_router.deployments.overrides import Overrides, Said
from farthing_router.deployments.places import Health, Place
from farthing_router.edge import messages
from farthing_router.pricing.price_book import PriceBook, Prices

_PAGE_SIZE = 1000
_CHANGEABLE = ("weight", "enabled")
_HEALTH = {
    Health.HEALTHY: router_pb2.DEPLOYMENT_HEALTH_HEALTHY,
    Health.COOLING_DOWN: router_pb2.DEPLOYMENT_HEALTH_COOLING_DOWN,
    Health.OPEN: router_pb2.DEPLOYMENT_HEALTH_OPEN,
    Health.HALF_OPEN: router_pb2.DEPLOYMENT_HEALTH_HALF_OPEN,
    Health.DISABLED: router_pb2.DEPLOYMENT_HEALTH_DISABLED,
}


class ModelRpcs:
    """Models and deployments."""

    def __init__(self, *, book: PriceBook, balancer: Balancer, overrides: Overrides, clock: Clock) -> None:
        self._catalog = book.catalog
        self._book = book
        self._balancer = balancer
        self._overrides = overrides
        self._clock = clock

    async def ListModels(self, request: Any, context: Any) -> Any:
        """Lists the models, by name."""
        names = [name for name in sorted(self._catalog.models) if name > request.page_token]
        size = request.page_size or _PAGE_SIZE
        prices = self._book.prices(messages.organization(request.scope))
        return router_pb2.ListModelsResponse(
            models=[messages.model(self._catalog.models[name], prices) for name in names[:size]],
            next_page_token=names[size - 1] if len(names) > size else "",
            baseline_model=prices.baseline_model(),
        )

    async def GetModel(self, request: Any, context: Any) -> Any:
        """Reads a model, and how its deployments are doing."""
        model = self._catalog.models.get(request.model)
        if model is None:
            raise ModelNotFound(model=request.model)
        prices = self._book.prices(messages.organization(request.scope))
        return router_pb2.GetModelResponse(
            model=messages.model(model, prices),
            deployments=[self._deployment(model, place, prices) for place in self._balancer.all_of(model)],
            fallbacks=self._catalog.fallbacks.get(model.name, ()),
        )

    async def UpdateDeployment(self, request: Any, context: Any) -> Any:
        """Changes how a deployment is used."""
        paths = set(request.update_mask.paths) or set(_CHANGEABLE)
        if unknown := sorted(paths - set(_CHANGEABLE)):
            raise FieldInvalid(
                field="update_mask", problem=f"{unknown[0]!r} cannot be changed; {' and '.join(_CHANGEABLE)} can"
            )
        given = request.deployment
        place = await self._overrides.change(
            given.deployment,
            _said(request),
            weight=given.weight if "weight" in paths else None,
            enabled=given.enabled if "enabled" in paths else None,
        )
        model = next(each for each in self._catalog.models.values() if place in self._balancer.all_of(each))
        return router_pb2.UpdateDeploymentResponse(deployment=self._deployment(model, place, self._book.prices()))

    def _deployment(self, model: Model, place: Place, prices: Prices) -> Any:
        given, now_s = place.deployment, self._clock.monotonic_s()
        health, rest = place.health(now_s)
        requests, tokens, reset_s = place.said(now_s)
        price = prices.find(model, given)
        message = router_pb2.Deployment(
            deployment=given.name,
            model=model.name,
            provider=given.provider,
            wire=given.wire.name,
            host=urlsplit(given.base_url).netloc.rpartition("@")[2],
            region=given.region,
            weight=place.weight,
            enabled=place.enabled,
            health=_HEALTH[health],
            cooldown_reason=rest.reason if rest else "",
            calls_in_flight=place.load.in_flight,
            latency_ms=None if place.load.whole_s is None else round(place.load.whole_s * 1000),
            error_rate=place.load.error_rate,
            requests_remaining=requests,
            tokens_remaining=tokens,
            batch=given.batch,
            listing=given.listing,
            capabilities=sorted(given.capabilities),
            price_source=price.source if price is not None else "",
        )
        if rest is not None and now_s < rest.until_s < float("inf"):
            message.cooldown_end_time.FromDatetime(self._clock.now() + timedelta(seconds=rest.until_s - now_s))
        if reset_s is not None:
            message.limits_reset_time.FromDatetime(self._clock.now() + timedelta(seconds=reset_s))
        return message


def _said(request: Any) -> Said:
    body = router_pb2.UpdateDeploymentRequest(deployment=request.deployment, update_mask=request.update_mask)
    return Said(request.request_id.lower(), sha256(body.SerializeToString(deterministic=True)).digest())
