"""Wiring: settings → catalog → planner, cascade → servicer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import cache
from random import Random

from farthing.router.v1.router_pb2_grpc import add_RouterServiceServicer_to_server
from farthing_core.clock import Clock, SystemClock
from farthing_core.errors import FieldInvalid
from farthing_core.money import AmountInvalid
from farthing_runtime.config_file import load_config
from farthing_runtime.registration import AppIterator, Mesh, Registration, ServiceBinding
from farthing_runtime.settings import SettingsInvalid

from farthing_router.cascade import Cascade
from farthing_router.catalog import Catalog, parse_catalog
from farthing_router.openai_wire import OpenAIWire, open_session
from farthing_router.planning import OutputLengths, Planner
from farthing_router.prices import ListPrices, Price
from farthing_router.servicer import RouterServicer
from farthing_router.settings import Settings, key_in_environment
from farthing_router.status import STATUS_TABLE


@asynccontextmanager
async def app(settings: Settings, mesh: Mesh) -> AppIterator:
    """The router, until the block ends."""
    clock = SystemClock()
    catalog, lengths = read_catalog(settings, clock), OutputLengths()
    async with open_session(connections_max=settings.connections_max) as session:
        cascade = Cascade(catalog=catalog, upstream=OpenAIWire(session), lengths=lengths, clock=clock, rng=Random())
        servicer = RouterServicer(
            catalog=catalog,
            planner=Planner(catalog, lengths),
            cascade=cascade,
            clock=clock,
            generate_timeout_s=settings.generate_timeout_s,
        )
        binding = ServiceBinding(
            name="farthing.router.v1.RouterService",
            add_to_server=add_RouterServiceServicer_to_server,
            servicer=servicer,
            status_table=STATUS_TABLE,
            deadline_s=settings.generate_timeout_s,
        )
        yield Registration((binding,))


def read_catalog(settings: Settings, clock: Clock) -> Catalog:
    """The catalog of farthing.yaml. Raises SettingsInvalid, naming the field."""
    prices = cache(ListPrices)

    def list_price(provider: str, upstream_model: str) -> Price | None:
        return prices().price(provider, upstream_model, at=clock.now())

    try:
        return parse_catalog(load_config(settings.config_file), key_of=key_in_environment, list_price=list_price)
    except FieldInvalid as error:
        raise SettingsInvalid(field=f"farthing.yaml: {error.field}", problem=error.problem) from error
    except AmountInvalid as error:
        raise SettingsInvalid(field="farthing.yaml: models.…price", problem=error.message) from error
