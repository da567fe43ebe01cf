"""Wiring: settings → catalog, price book → planner, cascade → servicer."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache
from random import Random

from farthing.router.v1.router_pb2_grpc import add_RouterServiceServicer_to_server
from farthing_core.clock import SystemClock
from farthing_core.errors import FieldInvalid
from farthing_core.ids import random_uuid
from farthing_core.money import AmountInvalid
from farthing_runtime.config_file import load_config
from farthing_runtime.postgres import open_pool
from farthing_runtime.refreshing import watching
from farthing_runtime.registration import AppIterator, Mesh, Registration, ServiceBinding
from farthing_runtime.settings import SettingsInvalid

from farthing_router.catalog import Catalog, parse_catalog
from farthing_router.deployments.balancing import Balancer
from farthing_router.deployments.declared import ListPrice
from farthing_router.deployments.overrides import Overrides
from farthing_router.edge import messages
from farthing_router.edge.calibrating import Calibrating
from farthing_router.edge.experimenting import Experimenting
from farthing_router.edge.learning import learning_rpcs
from farthing_router.edge.models import ModelRpcs
from farthing_router.edge.prices import PriceRpcs
from farthing_router.edge.recording import Recording
from farthing_router.edge.routes import RouteRpcs
from farthing_router.edge.rules import RuleRpcs
from farthing_router.experiments.trials import Trials
from farthing_router.learning.choosing import LearnedChoice
from farthing_router.learning.learner import Learner, Pace
from farthing_router.learning.pacing import Pacer
from farthing_router.pricing.list_prices import ListPrices
from farthing_router.pricing.price_book import ROWS_MAX, PriceBook
from farthing_router.routing.advisers import Advisers
from farthing_router.routing.calling import Caller
from farthing_router.routing.cascade import Cascade
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.planning import Planner
from farthing_router.routing.rule_book import RULE_LIMITS, RuleBook
from farthing_router.routing.rule_checks import check_declared
from farthing_router.servicer import RouterServicer
from farthing_router.settings import Settings, key_in_environment
from farthing_router.status import STATUS_TABLE
from farthing_router.store.batches import PostgresBatches
from farthing_router.store.cooldowns import open_cooldowns
from farthing_router.store.outcomes import PostgresOutcomes
from farthing_router.store.overrides import PostgresOverrides
from farthing_router.store.postgres import PostgresPrices
from farthing_router.store.rules import PostgresRules
from farthing_router.upstreams.exchange import open_session
from farthing_router.upstreams.opening import open_upstreams


@asynccontextmanager
async def app(settings: Settings, mesh: Mesh) -> AppIterator:
    """The router, until the block ends."""
    clock = SystemClock()
    list_price, lengths = lazy_list_prices(), OutputLengths()
    catalog = read_catalog(settings, list_price)
    async with (
        open_pool(settings.database_url, schema="router", size_max=settings.pool_size_max) as pool,
        open_session(connections_max=settings.connections_max) as session,
        AsyncExitStack() as stack,
        open_cooldowns(settings, clock) as cooldowns,
    ):
        book = PriceBook(catalog=catalog, store=PostgresPrices(pool, rows_max=ROWS_MAX), clock=clock, list_price=list_price)
        upstream = await stack.enter_async_context(
            open_upstreams(session, book=book, store=PostgresBatches(pool), clock=clock, new_id=random_uuid)
        )
        rules = RuleBook(catalog=catalog, store=PostgresRules(pool, limits=RULE_LIMITS), clock=clock, new_id=random_uuid)
        balancer = Balancer(catalog, cooldowns=cooldowns, rng=Random())
        overrides = Overrides(balancer, store=PostgresOverrides(pool))
        caller = Caller(upstream, balancer=balancer, lengths=lengths, clock=clock, rng=Random())
        calibrating = Calibrating(pool, settings, book=book, clock=clock, new_id=random_uuid)
        experimenting = Experimenting(pool, catalog=catalog, calibrations=calibrating.store, clock=clock, new_id=random_uuid)
        recording = Recording(pool, settings, clock=clock, new_id=random_uuid)
        outcomes = PostgresOutcomes(pool)
        learner = Learner(
            store=outcomes,
            clock=clock,
            pace=_learning_pace(settings),
            prompt_of=messages.prompt_text,
            listeners=(*recording.listeners, *experimenting.listeners),
            opinion_listeners=(calibrating.checks.heard,),
        )
        observers = (*recording.observers, learner.recorder, *experimenting.observers, calibrating.checks)
        cascade = Cascade(caller, judges=calibrating.judges, observers=observers, before=calibrating.checks.before)
        advisers = _advisers(rules, recording=recording, learner=learner, calibrating=calibrating, trials=experimenting.trials)
        pacer = Pacer(
            baseline_usd_nanos=lambda wish: planner.costs.baseline(wish, book.prices(messages.organization(wish.scope)))[1]
        )
        planner, timeout_s = Planner(catalog, lengths, advisers=replace(advisers, pacing=pacer)), settings.generate_timeout_s
        servicer = RouterServicer(  # type: ignore[abstract]
            RouteRpcs(book=book, planner=planner, cascade=cascade, clock=clock, generate_timeout_s=timeout_s),
            ModelRpcs(book=book, balancer=balancer, overrides=overrides, clock=clock),
            PriceRpcs(book=book, clock=clock, new_id=random_uuid),
            *recording.rpcs(),
            recording.analyses(days=outcomes.days, curves=calibrating.active, book=book),
            RuleRpcs(rules),
            experimenting.rpcs(),
            learning_rpcs(learner, book=book, clock=clock),
            calibrating.rpcs,
        )
        async with (
            watching(book.watched, interval_s=settings.prices_refresh_s),
            watching(rules.watched, overrides.watched, interval_s=settings.refresh_s),
            recording.running(),
            calibrating.running(),
            learner.running(),
            experimenting.running(fitted=learner.fitted, interval_s=settings.refresh_s),
        ):
            learner.suppose(book.prices().cheap_to_dear())
            yield Registration((_binding(servicer, timeout_s),))


def _binding(servicer: RouterServicer, timeout_s: float) -> ServiceBinding:
    return ServiceBinding(
        name="farthing.router.v1.RouterService",
        add_to_server=add_RouterServiceServicer_to_server,
        servicer=servicer,
        status_table=STATUS_TABLE,
        deadline_s=timeout_s,
    )


def _advisers(rules: RuleBook, *, recording: Recording, learner: Learner, calibrating: Calibrating, trials: Trials) -> Advisers:
    return Advisers(
        rules=rules,
        speeds=recording.speeds,
        qualities=learner.qualities,
        learned=LearnedChoice(arms=learner.arms, qualities=learner.qualities, rng=Random()),
        assignments=trials,
        calibrations=calibrating.active,
        shadowing=(trials, calibrating.checks),
    )


def _learning_pace(settings: Settings) -> Pace:
    return Pace(settings.outcomes_write_s, settings.refresh_s, settings.scored_per_s, settings.outcomes_keep_days)


def lazy_list_prices() -> ListPrice:
    """Looks models up on the price list, which is loaded when the first is asked for."""
    prices = cache(ListPrices)
    return lambda provider, upstream_model: prices().find(provider, upstream_model)


def read_catalog(settings: Settings, list_price: ListPrice) -> Catalog:
    """The catalog of farthing.yaml. Raises SettingsInvalid, naming the field."""
    try:
        catalog = parse_catalog(load_config(settings.config_file), key_of=key_in_environment, list_price=list_price)
        check_declared(catalog)
        return catalog
    except FieldInvalid as error:
        raise SettingsInvalid(field=f"farthing.yaml: {error.field}", problem=error.problem) from error
    except AmountInvalid as error:
        raise SettingsInvalid(field="farthing.yaml: models.…price", problem=error.message) from error
