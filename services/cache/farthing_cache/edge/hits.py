"""RPCs on hits by meaning: reports, lists, and the error budget."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from typing import Any

from farthing.cache.v1 import cache_pb2
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope
from farthing_runtime import pages

from farthing_cache.answers.asking import Certificate
from farthing_cache.certifying.agreement import Said
from farthing_cache.certifying.budgets import PPM, BudgetRow, ErrorBudgets
from farthing_cache.certifying.hits import EvidenceStore, Hit, HitsWanted, Source, Verdict
from farthing_cache.certifying.reporting import Reported, Reports
from farthing_cache.edge.messages import certificate_of, timestamp
from farthing_cache.sealing.seals import Seals

_PAGE_SIZE = 100


class HitRpcs:
    """What became of hits."""

    def __init__(
        self, reports: Reports, budgets: ErrorBudgets, store: EvidenceStore, seals: Seals, *, verifier_id: str
    ) -> None:
        self._reports = reports
        self._budgets = budgets
        self._store = store
        self._seals = seals
        self._verifier_id = verifier_id

    async def ReportHit(self, request: Any, context: Any) -> Any:
        """Takes a report in."""
        scope = parse_scope(request.scope)
        fresh = said_of(request.fresh_answer) if request.HasField("fresh_answer") else None
        given = Reported(
            request_id=request.request_id,
            organization=scope.organization,
            scope=scope.path,
            fingerprint=blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest(),
            hit_id=request.hit_id,
            entry_key=bytes.fromhex(request.entry_key),
            verdict=Verdict(request.verdict),
            fresh=fresh,
            source=Source(request.source or Source.USER),
            reason=request.reason,
        )
        outcome = await self._reports.take(given)
        answer = cache_pb2.ReportHitResponse(
            verdict=int(outcome.verdict),  # type: ignore[arg-type]
            evicted=outcome.evicted,
            agreement=outcome.agreement,
        )
        if outcome.hit is not None:
            answer.certificate.CopyFrom(certificate_of(self._now(outcome.hit)))
        return answer

    def _now(self, hit: Hit) -> Certificate:
        """The hit's certificate as it would read now."""
        was, place = hit.certificate, hit.place
        force = self._budgets.in_force(
            hit.organization, place.category, verifier_id=place.verifier_id, budget_ppm=was.error_budget_ppm
        )
        return replace(
            was,
            probability_min=force.probability_min,
            wrong_upper_ppm=round(force.wrong_upper * PPM),
            evidence=force.evidence,
        )

    async def ListHits(self, request: Any, context: Any) -> Any:
        """Lists hits."""
        scope, size = parse_scope(request.scope), request.page_size or _PAGE_SIZE
        verdict = Verdict(request.verdict) if request.HasField("verdict") else None
        wanted = HitsWanted(scope.organization, scope.path, verdict, _before(request))
        found = await self._store.hits(wanted, rows_max=size + 1)
        answer = cache_pb2.ListHitsResponse(hits=[await self._listed(hit) for hit in found[:size]])
        if len(found) > size:
            last = found[size - 1]
            answer.next_page_token = pages.token(request, (last.hit_at.isoformat(), last.hit_id))
        return answer

    async def _listed(self, hit: Hit) -> Any:
        name = hit.hit_id.encode()
        asked = await self._seals.open(hit.organization, name + b"asked", hit.asked)
        cached = await self._seals.open(hit.organization, name + b"cached", hit.cached)
        return cache_pb2.Hit(
            hit_id=hit.hit_id,
            hit_time=timestamp(hit.hit_at),
            scope=hit.scope,
            asked=(asked or b"").decode(),
            cached=(cached or b"").decode(),
            entry_key=hit.entry_key.hex(),
            similarity=hit.similarity,
            certificate=certificate_of(hit.certificate),
            verdict=int(hit.verdict),  # type: ignore[arg-type]
            source=int(hit.source or 0),  # type: ignore[arg-type]
            agreement=hit.agreement,
            adapted=hit.adapted,
        )

    async def GetErrorBudget(self, request: Any, context: Any) -> Any:
        """The error budget."""
        organization = parse_scope(request.scope).organization
        await self._budgets.watched.refresh()
        rows = self._budgets.rows(organization, verifier_id=self._verifier_id)
        chance = self._budgets.check_chance(organization, verifier_id=self._verifier_id)
        return cache_pb2.GetErrorBudgetResponse(
            error_budget_ppm=self._budgets.terms.error_budget_ppm,
            rows=[_row(row) for row in rows],
            verifier_id=self._verifier_id,
            check_ppm=round(chance * PPM),
        )


def said_of(answer: Any) -> Said:
    """What an answer says."""
    return Said(answer.content, answer.extra_json)


def said_of_payload(payload: bytes) -> Said:
    """What an entry's opened payload says."""
    return said_of(cache_pb2.Entry.FromString(payload).answer)


def _row(row: BudgetRow) -> Any:
    sums, force = row.sums, row.threshold
    return cache_pb2.ErrorBudgetRow(
        category=row.category,
        probability_min=force.probability_min,
        evidence=force.evidence,
        lookups=sums.lookups,
        hits=sums.hits,
        judged=sums.judged,
        wrong=round(sums.wrong_hits + sums.wrong_reports),
        wrong_ppm=round(min(1.0, row.wrong) * PPM),
        wrong_lower_ppm=round(row.wrong_lower * PPM),
        wrong_upper_ppm=round(force.wrong_upper * PPM),
        suspended=force.suspended,
    )


def _before(request: Any) -> tuple[datetime, str] | None:
    keys = pages.keys(request, count=2)
    if keys is None:
        return None
    try:
        return datetime.fromisoformat(keys[0]), keys[1]
    except ValueError as error:
        raise FieldInvalid(field="page_token", problem="is not one of ours") from error
