"""The ports over gRPC: domain words into messages, statuses into the domain's failures."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from farthing.cache.v1 import cache_pb2, cache_pb2_grpc
from farthing.optimizer.v1 import optimizer_pb2, optimizer_pb2_grpc
from farthing.privacy.v1 import privacy_pb2, privacy_pb2_grpc
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_core.clock import Clock
from farthing_runtime.registration import Mesh

from farthing_orchestrator import messages
from farthing_orchestrator.accounting import ModelPrice
from farthing_orchestrator.edge.ledger import GrpcLedger
from farthing_orchestrator.edge.translation import translated
from farthing_orchestrator.lookups import Flight, Keeping, Lookup, LookupTerms
from farthing_orchestrator.ports import PeerUnavailable
from farthing_orchestrator.request import Ask, Conversation, Generated, Line, Masked, Piece, Planned, RouteWish, Shaped
from farthing_orchestrator.settings import Settings
from farthing_orchestrator.wanting import Wanted

_ORGANIZATIONS_MAX = 1_000
_LATE = 1.2
"""Whoever hears of a deadline so many times as late as it was set was busy itself."""
_FLIGHT_SHARE = 0.5
"""Of the time that a look-up may take: so much of it may go into waiting for an identical request."""
_NOTHING_WANTED = Wanted()


class GrpcPeers:
    """All peers over a mesh."""

    def __init__(self, mesh: Mesh, settings: Settings, clock: Clock) -> None:
        self.masking = GrpcMasking(mesh, settings)
        self.answers = GrpcAnswers(mesh, settings, clock)
        self.models = GrpcModels(mesh, settings, clock)
        self.prompts = GrpcPrompts(mesh, settings, self.models.encodings)
        self.ledger = GrpcLedger(mesh, settings)


class GrpcMasking:
    """Masking by the privacy service."""

    def __init__(self, mesh: Mesh, settings: Settings) -> None:
        self._stub = privacy_pb2_grpc.PrivacyServiceStub(mesh.channel("privacy"))
        self._timeout_s = settings.mask_timeout_s

    async def mask(self, conversation: Conversation) -> Masked:
        """The conversation with mask tokens in the place of personal data."""
        texts = messages.maskable_texts(conversation)
        with translated("privacy"):
            answer = await self._stub.MaskText(privacy_pb2.MaskTextRequest(texts=texts), timeout=self._timeout_s)
        if not answer.spans:
            return Masked(conversation, {})
        originals = {span.mask_token: span.original for span in answer.spans}
        return Masked(messages.with_texts(conversation, list(answer.texts) or texts, frozenset(originals)), originals)


class GrpcAnswers:
    """Remembered answers from the cache service."""

    def __init__(self, mesh: Mesh, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._stub = cache_pb2_grpc.CacheServiceStub(mesh.channel("cache"))
        self._timeout_s = settings.lookup_timeout_s

    async def look_up(
        self, ask: Ask, *, model_policy: str, sharing: str, terms: LookupTerms, flight_wait_s: float | None
    ) -> Lookup:
        """What is remembered for a request. A look-up may take as long as ever, and on top of that as long as it may wait for others."""
        wait_s = 0.0 if flight_wait_s is None else max(flight_wait_s, _FLIGHT_SHARE * self._timeout_s)
        request = cache_pb2.LookUpAnswerRequest(
            request=messages.cache_request(ask, model_policy, sharing),
            mode=messages.LOOKUP_MODES[terms.mode],
            error_budget_ppm=terms.error_budget_ppm,
            age_s_max=terms.age_s_max,
            allow_check=terms.allow_check,
            dry_run=terms.dry_run,
            flight_wait_ms=int(1000 * wait_s),
        )
        found = await self._answer_to(request, timeout_s=self._timeout_s + (flight_wait_s or 0.0))
        similarity = found.similarity if found.HasField("similarity") else None
        outcome = messages.LOOKUP_OUTCOMES[found.outcome]
        if outcome == "miss":
            return Lookup(
                outcome,
                found.reason,
                found.key,
                similarity,
                embedding=found.embedding,
                flight_id=found.flight_id,
                lease_s=messages.lease_s(found, self._clock.now()),
                in_flight=found.in_flight,
                said=found,
            )
        entry = found.entry
        return Lookup(
            outcome,
            found.reason,
            found.key,
            similarity,
            answer=entry.answer,
            model=entry.model,
            usage=entry.usage,
            entry_key=entry.key,
            input_tokens=entry.usage.input_tokens,
            output_tokens=entry.usage.output_tokens,
            hit_id=found.hit_id,
            check=found.check,
            said=found,
            flight_id=found.flight_id,
            lease_s=messages.lease_s(found, self._clock.now()),
            joined=found.joined,
        )

    async def _answer_to(self, request: Any, *, timeout_s: float) -> Any:
        """The cache's answer to a look-up. In a rush it may be this process that is late, and not the cache: then it is asked once more."""
        began_s = self._clock.monotonic_s()
        try:
            with translated("cache"):
                return await self._stub.LookUpAnswer(request, timeout=timeout_s)
        except PeerUnavailable:
            if self._clock.monotonic_s() - began_s < _LATE * timeout_s:
                raise
        with translated("cache"):
            return await self._stub.LookUpAnswer(request, timeout=timeout_s)

    async def report_check(self, request_id: str, scope: str, hit_id: str, fresh: Generated) -> None:
        """Has a fresh answer compared with the hit that was served."""
        request = cache_pb2.ReportHitRequest(
            request_id=request_id,
            scope=scope,
            hit_id=hit_id,
            fresh_answer=fresh.answer,
            source=cache_pb2.VERDICT_SOURCE_CHECK,
        )
        with translated("cache"):
            await self._stub.ReportHit(request, timeout=10 * self._timeout_s)

    async def end_flight(self, flight: Flight) -> None:
        """Gives a flight up."""
        asked = messages.cache_request(flight.ask, flight.model_policy, flight.sharing)
        with translated("cache"):
            request = cache_pb2.EndFlightRequest(request=asked, flight_id=flight.flight_id)
            await self._stub.EndFlight(request, timeout=self._timeout_s)

    async def keep_flight(self, flight: Flight) -> None:
        """A sign of life."""
        asked = messages.cache_request(flight.ask, flight.model_policy, flight.sharing)
        with translated("cache"):
            request = cache_pb2.KeepFlightRequest(request=asked, flight_id=flight.flight_id)
            await self._stub.KeepFlight(request, timeout=self._timeout_s)

    async def remember(self, ask: Ask, generated: Generated, *, model_policy: str, sharing: str, keeping: Keeping) -> None:
        """Keeps an answer."""
        request = cache_pb2.StoreAnswerRequest(
            request=messages.cache_request(ask, model_policy, sharing),
            answer=generated.answer,
            model=generated.model,
            usage=generated.usage,
            cost_usd_nanos=generated.cost_usd_nanos,
            ttl_s=keeping.ttl_s,
            ttl_s_max=keeping.ttl_s_max,
            stale_s=keeping.stale_s,
            tags=ask.tags,
            semantic=keeping.semantic,
            flight_id=keeping.flight_id,
        )
        with translated("cache"):
            await self._stub.StoreAnswer(request, timeout=10 * self._timeout_s)


class GrpcPrompts:
    """Shortened prompts from the optimizer service."""

    def __init__(self, mesh: Mesh, settings: Settings, encodings: Callable[[], Sequence[str]]) -> None:
        self._encodings = encodings
        self._stub = optimizer_pb2_grpc.OptimizerServiceStub(mesh.channel("optimizer"))
        self._timeout_s = settings.shape_timeout_s

    async def shape(self, ask: Ask, *, level: str) -> Shaped:
        """The conversation, shorter, and counted."""
        request = optimizer_pb2.OptimizePromptRequest(
            messages=ask.conversation,
            parameters=ask.parameters,
            level=messages.PROMPT_LEVELS[level],
            encodings=self._encodings(),
        )
        with translated("optimizer"):
            answer = await self._stub.OptimizePrompt(request, timeout=self._timeout_s)
        conversation = answer.messages if answer.changed else ask.conversation
        return Shaped(conversation, answer.changed, dict(answer.tokens_before), dict(answer.tokens_after))

    async def fit(self, ask: Ask, *, input_tokens_max: int) -> Conversation:
        """The conversation without its oldest turns."""
        request = optimizer_pb2.FitContextRequest(
            messages=ask.conversation, parameters=ask.parameters, input_tokens_max=input_tokens_max
        )
        with translated("optimizer"):
            return (await self._stub.FitContext(request, timeout=self._timeout_s)).messages


@dataclass(frozen=True, slots=True)
class _Prices:
    """What models cost an organisation, and until when that is believed."""

    known: dict[str, ModelPrice]
    baseline_model: str
    until_s: float


class GrpcModels:
    """Routes and answers from the router service."""

    def __init__(self, mesh: Mesh, settings: Settings, clock: Clock) -> None:
        self._stub = router_pb2_grpc.RouterServiceStub(mesh.channel("router"))
        self._plan_timeout_s = settings.plan_timeout_s
        self._price_ttl_s = settings.price_ttl_s
        self._clock = clock
        self._prices: dict[str, _Prices] = {}
        self._encodings: tuple[str, ...] = ()

    async def plan(self, wish: RouteWish) -> Planned:
        """Whom to ask, and what that may cost."""
        ask, shaped, pace = wish.ask, wish.shaped, wish.budget_pace
        request = router_pb2.PlanRouteRequest(
            scope=ask.scope,
            model=ask.model,
            task=ask.task,
            tier=ask.tier,
            messages=ask.conversation,
            parameters=ask.parameters,
            allowed_providers=ask.overrides.allowed_providers,
            open_models_only=ask.open_models_only,
            baseline_model=wish.baseline_model,
            input_tokens=shaped.tokens_after if shaped else None,
            baseline_input_tokens=shaped.tokens_before if shaped else None,
            request_id=ask.request_id,
            timeout_ms=wish.timeout_ms,
            tags=ask.tags,
            embedding=wish.embedding,
            **_wanted(wish.wanted),
            budget_pace=router_pb2.BudgetPace(used_share=pace.used_share, elapsed_share=pace.elapsed_share) if pace else None,
        )
        with translated("router"):
            answer = await self._stub.PlanRoute(request, timeout=self._plan_timeout_s)
        return replace(messages.planned(answer), embedding=wish.embedding)

    async def generate(self, ask: Ask, planned: Planned, *, timeout_s: float) -> Generated:
        """Follows a route."""
        request = router_pb2.GenerateRequest(
            request_id=ask.request_id,
            scope=ask.scope,
            route=planned.route,
            messages=ask.conversation,
            parameters=ask.parameters,
            task=ask.task,
            embedding=planned.embedding,
            shadow_of=ask.shadow_of if ask.served is not None else "",
            served=messages.served(ask.served) if ask.served is not None else None,
        )
        with translated("router"):
            return messages.generated(await self._stub.Generate(request, timeout=timeout_s))

    async def stream(self, ask: Ask, planned: Planned, *, timeout_s: float) -> AsyncGenerator[Piece | Line | Generated, None]:
        """Follows a route, streaming."""
        request = router_pb2.StreamGenerateRequest(
            request_id=ask.request_id,
            scope=ask.scope,
            route=planned.route,
            messages=ask.conversation,
            parameters=ask.parameters,
            task=ask.task,
            embedding=planned.embedding,
        )
        call = self._stub.StreamGenerate(request, timeout=timeout_s)
        try:
            with translated("router"):
                async for event in call:
                    kind = event.WhichOneof("event")
                    if kind == "delta":
                        yield messages.piece(event.delta)
                    elif kind == "attempt":
                        yield messages.line(event.attempt)
                    elif kind == "finished":
                        yield messages.generated(event.finished)
        finally:
            call.cancel()

    def encodings(self) -> Sequence[str]:
        """The encodings in which the catalog's models count, as far as is known yet; empty asks for all."""
        return self._encodings

    async def price(self, model: str, scope: str) -> tuple[str, ModelPrice | None]:
        """A model's name ("" asks for the catalog's baseline) and its price for the scope's organisation, at most price_ttl_s old."""
        organization = "/".join(scope.split("/", 2)[:2])
        found = self._prices.get(organization)
        if found is None or self._clock.monotonic_s() >= found.until_s:
            with translated("router"):
                answer = await self._stub.ListModels(
                    router_pb2.ListModelsRequest(scope=organization), timeout=self._plan_timeout_s
                )
            known = {listed.model: messages.model_price(listed) for listed in answer.models if listed.price_source}
            found = _Prices(known, answer.baseline_model, self._clock.monotonic_s() + self._price_ttl_s)
            if len(self._prices) >= _ORGANIZATIONS_MAX:
                self._prices.clear()
            self._prices[organization] = found
            self._encodings = tuple(sorted({listed.encoding for listed in answer.models}))
        name = model or found.baseline_model
        return name, found.known.get(name)


def _wanted(given: Wanted | None) -> dict[str, Any]:
    """What is wanted of the choice, as fields of a plan's request."""
    if given is None or given == _NOTHING_WANTED:
        return {}
    fields: dict[str, Any] = asdict(given)
    return {**fields, "optimize_for": messages.OPTIMIZE_FOR[given.optimize_for]}
