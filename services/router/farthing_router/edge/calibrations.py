"""RPCs that fit calibrations, list them and put them in force."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

from farthing.router.v1 import router_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_core.ids import NewId
from farthing_core.scopes import parse_scope

from farthing_router.calibration.checks import DriftChecks
from farthing_router.calibration.fits import Fits
from farthing_router.calibration.in_force import ActiveCalibrations
from farthing_router.calibration.kept import CalibrationStore, CalibrationUnknown, NewCalibration, Report, Wanted
from farthing_router.calibration.policy import FittedPolicy
from farthing_router.catalog import ModelUnknown
from farthing_router.edge import calibration_messages as messages
from farthing_router.edge.fit_worker import Job
from farthing_router.pricing.price_book import PriceBook
from farthing_router.store import RequestIdReused

_PAGE_SIZE = 100


class ModelGone(ModelUnknown):
    """A calibration needs a model that the catalog no longer has."""


class CalibrationRpcs:
    """Calibrations."""

    def __init__(
        self,
        store: CalibrationStore,
        active: ActiveCalibrations,
        checks: DriftChecks,
        *,
        fits: Fits,
        book: PriceBook,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._store = store
        self._active = active
        self._checks = checks
        self._fits = fits
        self._book = book
        self._clock = clock
        self._new_id = new_id

    async def CalibrateCascade(self, requests: Any, context: Any) -> Any:
        """Fits a calibration."""
        spec = await _first(requests)
        organization = parse_scope(spec.scope).organization
        self._check(spec)
        body = sha256(spec.SerializeToString(deterministic=True))
        known = None if spec.dry_run else await self._store.find_request(organization, spec.request_id.lower())
        if known is not None:
            async for frame, _ in _examples(requests):
                body.update(frame)
            if known[1] != body.digest():
                raise RequestIdReused(request_id=spec.request_id)
            return router_pb2.CalibrateCascadeResponse(calibration=messages.calibration(known[0]), repeated=True)
        async with self._fits.begun(self._job(spec, organization).frame()) as fit:
            async for frame, count in _examples(requests):
                body.update(frame)
                await fit.bring(frame, examples=count)
            report, policy = messages.fitted_of(await fit.result())
        if spec.dry_run:
            found = messages.described(report, scope=spec.scope, task=spec.task)
            return router_pb2.CalibrateCascadeResponse(calibration=found)
        return await self._keep(spec, report, policy, body.digest())

    async def GetCalibration(self, request: Any, context: Any) -> Any:
        """Reads a calibration."""
        scope = parse_scope(request.scope)
        kept = await self._store.get(scope.organization, request.calibration_id)
        made = parse_scope(kept.made.scope)
        if not (made.contains(scope) or scope.contains(made)):
            raise CalibrationUnknown(calibration_id=request.calibration_id)
        found = messages.calibration(kept)
        standing = self._checks.standing(scope.organization, request.calibration_id)
        if standing is not None:
            found.drift.CopyFrom(messages.drift(standing, self._active.fitted(scope.organization, request.calibration_id)))
        return router_pb2.GetCalibrationResponse(calibration=found)

    async def ListCalibrations(self, request: Any, context: Any) -> Any:
        """Lists calibrations, newest first."""
        size = request.page_size or _PAGE_SIZE
        wanted = Wanted(
            parse_scope(request.scope).organization,
            request.scope,
            request.task,
            request.descendants,
            _number(request.page_token),
        )
        rows = await self._store.list_from(wanted, rows_max=size + 1)
        return router_pb2.ListCalibrationsResponse(
            calibrations=[messages.calibration(each, curve=False) for each in rows[:size]],
            next_page_token=str(rows[size - 1].created_number) if len(rows) > size else "",
        )

    async def ActivateCalibration(self, request: Any, context: Any) -> Any:
        """Puts a calibration in force, or none."""
        organization = parse_scope(request.scope).organization
        if request.calibration_id:
            kept = await self._store.get(organization, request.calibration_id)
            if not parse_scope(request.scope).contains(parse_scope(kept.made.scope)):
                raise CalibrationUnknown(calibration_id=request.calibration_id)
            policy = FittedPolicy.from_json(kept.made.policy)
            for model in policy.opening + policy.strong:
                if model not in self._book.catalog.models:
                    raise ModelGone(model=model)
        body = sha256(request.SerializeToString(deterministic=True)).digest()
        changed = await self._store.activate(
            request.scope,
            request.task,
            request.calibration_id,
            request_id=request.request_id.lower(),
            fingerprint=body,
            at=self._clock.now(),
        )
        await self._active.watched.refresh()
        return router_pb2.ActivateCalibrationResponse(
            calibration=messages.calibration(changed.calibration) if changed.calibration is not None else None,
            retired_calibration_id=changed.retired_calibration_id,
        )

    def _check(self, spec: Any) -> None:
        messages.fit_spec(spec)
        for model in (spec.strong_model, *spec.alternative_models, *spec.opening_models):
            self._book.catalog.model(model)

    def _job(self, spec: Any, organization: str) -> Job:
        prices = self._book.prices(organization)
        models = self._book.catalog.models
        known = {name: prices.of(model) for name, model in models.items() if prices.knows(model)}
        return Job(spec.SerializeToString(), known)

    async def _keep(self, spec: Any, report: Report, policy: bytes, fingerprint: bytes) -> Any:
        made = NewCalibration(
            calibration_id=self._new_id(),
            organization=parse_scope(spec.scope).organization,
            scope=spec.scope,
            task=spec.task,
            report=report,
            policy=policy,
            created_at=self._clock.now(),
        )
        kept, repeated = await self._store.add(
            made, request_id=spec.request_id.lower(), fingerprint=fingerprint, activate=spec.activate
        )
        if spec.activate:
            await self._active.watched.refresh()
        return router_pb2.CalibrateCascadeResponse(calibration=messages.calibration(kept), repeated=repeated)


async def _first(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        if request.WhichOneof("part") == "spec":
            return request.spec
        break
    raise FieldInvalid(field="spec", problem="must come first")


async def _examples(requests: AsyncIterator[Any]) -> AsyncIterator[tuple[bytes, int]]:
    """The examples of each message as bytes, which come to the same however they are split into messages, and how many they are."""
    async for request in requests:
        if request.WhichOneof("part") != "examples":
            raise FieldInvalid(field="spec", problem="comes once")
        yield request.examples.SerializeToString(deterministic=True), len(request.examples.examples)


def _number(page_token: str) -> int | None:
    if not page_token:
        return None
    if not page_token.isdecimal() or len(page_token) > 18:
        raise FieldInvalid(field="page_token", problem="is not of this list")
    return int(page_token)
