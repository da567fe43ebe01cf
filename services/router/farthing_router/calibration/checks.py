"""Drift checks: a sample of the requests that a calibration decides buys the strong answer beside, and the two are compared.

What the strong model says counts as right where nobody knows better; where somebody says what the served answer was worth, within a few
minutes, that counts. No text is kept: an answer and its shadow are compared when the shadow is bought, which the served answer comes along
with, on whichever replica.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Protocol

import structlog
from farthing_core.clock import Clock
from farthing_core.errors import FarthingError
from farthing_core.scopes import parse_scope
from farthing_runtime.beside import beside
from farthing_runtime.refreshing import Watched

from farthing_router.calibration.drift import Evidence, Seen, Verdict, merged, verdict
from farthing_router.calibration.features import features_of, names_of
from farthing_router.calibration.in_force import ActiveCalibrations
from farthing_router.calibration.policy import FittedPolicy
from farthing_router.judging.answers import agree
from farthing_router.routing.errands import Errand, Finished
from farthing_router.routing.judges import as_read
from farthing_router.routing.ports import Assignment
from farthing_router.routing.routes import Role, Route, Wish

_FEATURES_EVERY = 20
_HELD_MAX = 10_000
_CALIBRATIONS_MAX = 1_000
_HOUR_S = 3600.0
_log = structlog.get_logger()
_Key = tuple[str, str]


class ShadowNeedless(FarthingError):
    """What a drift check would buy was bought and served anyway: there is nothing to compare, and nothing to pay."""

    def __init__(self, *, model: str) -> None:
        super().__init__(f"{model} answered the request itself", model=model)


@dataclass(frozen=True, slots=True)
class CheckTerms:
    """Which share of decisions is checked, how many an hour at most, whether a promise in doubt makes the router escalate more, how often
    what was seen is written down, and for how long an opinion on a checked answer is waited for."""

    share: float
    per_hour_max: int
    escalates: bool
    write_s: float
    opinion_wait_s: float = 600.0


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """What is kept of a calibration; `number` grows with each change."""

    number: int
    organization: str
    calibration_id: str
    evidence: bytes
    updated_at: datetime


class EvidenceStore(Protocol):
    """Durable evidence. Nothing is lost or counted twice whoever adds at the same time. Every method raises StoreUnavailable."""

    async def add(self, organization: str, calibration_id: str, merge: Callable[[bytes], bytes], *, at: datetime) -> None:
        """Changes what is kept of a calibration, nothing at first."""
        ...

    async def after(self, number: int, *, rows_max: int) -> Sequence[EvidenceRow]:
        """The rows with larger numbers, in order."""
        ...


@dataclass(slots=True)
class _Held:
    """A check whose served answer somebody may still have an opinion on."""

    key: _Key
    agrees: bool
    due_s: float
    quality: float | None = None


@dataclass(slots=True)
class Standing:
    """How a calibration stands."""

    evidence: Evidence
    verdict: Verdict
    updated_at: datetime


class DriftChecks:
    """Wants shadows, watches decisions and shadows, and says how each calibration stands. `prompt_of` is a conversation as one text."""

    def __init__(
        self,
        store: EvidenceStore,
        active: ActiveCalibrations,
        *,
        clock: Clock,
        terms: CheckTerms,
        prompt_of: Callable[[Any], str],
    ) -> None:
        self._store = store
        self._active = active
        self._clock = clock
        self._terms = terms
        self._prompt_of = prompt_of
        self._seen: dict[_Key, Seen] = {}
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._rows: dict[_Key, EvidenceRow] = {}
        self._left, self._left_at_s = float(terms.per_hour_max), clock.monotonic_s()
        self.dropped = 0
        self.watched = Watched("drift", after=store.after, take=self._take)

    def shadows(self, wish: Wish, route: Route) -> Sequence[Assignment]:
        """The strong model, for a sample of what a calibration decides."""
        if not route.calibration_id or route.experiment_id or not wish.request_id or not self._sampled(wish.request_id):
            return ()
        found = self._active.named(wish.scope, route.calibration_id)
        if found is None or not self._allowed():
            return ()
        return (Assignment("", "", model=found.policy.strong[0], calibration_id=found.calibration_id, cause="drift"),)

    def _sampled(self, request_id: str) -> bool:
        digest = blake2b(request_id.lower().encode(), digest_size=8, person=b"drift check").digest()
        return int.from_bytes(digest, "big") < self._terms.share * 2**64

    def _allowed(self) -> bool:
        """Whether this hour has room for one more."""
        now_s, most = self._clock.monotonic_s(), float(self._terms.per_hour_max)
        self._left = min(most, self._left + (now_s - self._left_at_s) / _HOUR_S * most)
        self._left_at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def before(self, errand: Errand) -> None:
        """Raises ShadowNeedless for a check of a request that the strong model answered: that counts as kept, and costs nothing."""
        if not _is_check(errand) or errand.served is None:
            return
        strong = errand.route.candidates[0].model
        if errand.served.model == strong:
            self._of(_key(errand)).checks.append((1.0, 1.0))
            raise ShadowNeedless(model=strong)

    def ended(self, errand: Errand, finished: Finished | None, error: BaseException | None) -> None:
        """Takes in a decision, or a comparison."""
        if not errand.route.calibration_id or finished is None or error is not None:
            return
        try:
            if _is_check(errand):
                self._compare(errand, finished)
            elif not errand.shadow_of:
                self._decided(errand)
        except Exception as failure:  # what is learned of drift must never fail a request
            self.dropped += 1
            _log.warning("a decision could not be taken in", error=type(failure).__name__)

    def heard(self, organization: str, request_id: str, model: str, quality: float) -> None:
        """Somebody says how good a served answer was."""
        held = self._held.get(request_id)
        if held is not None and held.key[0] == organization:
            held.quality = min(1.0, max(0.0, quality))

    def _decided(self, errand: Errand) -> None:
        seen = self._of(_key(errand))
        seen.decisions += 1
        seen.escalated += any(each.candidate.role is Role.ESCALATION for each in errand.bought)
        opinion = next(
            (each.opinion for each in errand.bought if each.opinion is not None and each.opinion.gain is not None), None
        )
        if opinion is not None and opinion.gain is not None:
            seen.judged += 1
            seen.gain += opinion.gain
            seen.confidence += opinion.confidence
        if seen.decisions % _FEATURES_EVERY == 1:
            self._note_features(errand, seen)

    def _note_features(self, errand: Errand, seen: Seen) -> None:
        found = self._active.named(errand.scope, errand.route.calibration_id)
        if found is None:
            return
        policy: FittedPolicy = found.policy
        bought = {each.candidate.model: as_read(each) for each in errand.bought}
        reads = () if policy.query_only else policy.opening
        if all(model in bought for model in reads):
            row = features_of(self._prompt_of(errand.conversation), [bought[model] for model in reads])
            seen.note(names_of(len(reads)), row)

    def _compare(self, errand: Errand, finished: Finished) -> None:
        served = errand.served
        agrees = agree(served.content, finished.answer.content) if served is not None else None
        if agrees is None:
            return  # prose of middling likeness: nobody can tell
        while len(self._held) >= _HELD_MAX:
            self._settle(self._held.popitem(last=False)[1])
        self._held[errand.shadow_of] = _Held(_key(errand), agrees, self._clock.monotonic_s() + self._terms.opinion_wait_s)

    def _settle(self, held: _Held) -> None:
        """Counts a check: without an opinion the strong answer is the right one; an opinion on the served one holds for one that agrees."""
        if held.quality is None:
            check = (1.0, 1.0) if held.agrees else (0.0, 1.0)
        else:
            check = (held.quality, held.quality if held.agrees else 1.0 - held.quality)
        self._of(held.key).checks.append(check)

    def _of(self, key: _Key) -> Seen:
        if key not in self._seen and len(self._seen) >= _CALIBRATIONS_MAX:
            self.dropped += 1
            return Seen()
        return self._seen.setdefault(key, Seen())

    async def flush(self, *, everything: bool = False) -> None:
        """Writes down what was seen. Raises StoreUnavailable; what was not written is kept."""
        now_s = self._clock.monotonic_s()
        while self._held and (everything or next(iter(self._held.values())).due_s <= now_s):
            self._settle(self._held.popitem(last=False)[1])
        for key in list(self._seen):
            seen = self._seen.pop(key)
            try:
                await self._store.add(*key, lambda kept, seen=seen: merged(kept, seen), at=self._clock.now())  # type: ignore[misc]
            except BaseException:
                self._restore(key, seen)
                raise

    def _restore(self, key: _Key, seen: Seen) -> None:
        later = self._seen.pop(key, None)
        self._seen[key] = seen if later is None else _together(seen, later)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes down what is seen, every now and then, until the block ends, and then the rest."""

        async def write() -> None:
            while True:
                await asyncio.sleep(self._terms.write_s)
                try:
                    await self.flush()
                except Exception as error:  # whatever it is, the next turn must come
                    _log.warning("evidence of drift could not be written; it is kept", error=type(error).__name__)

        async with beside(write()):
            yield
        try:
            await self.flush(everything=True)
        except FarthingError as error:
            _log.warning("evidence of drift was lost at the end", error=type(error).__name__)

    def standing(self, organization: str, calibration_id: str) -> Standing | None:
        """How a calibration stands; None where nothing was seen of it, or it is not in force."""
        row = self._rows.get((organization, calibration_id))
        report = self._active.report(organization, calibration_id)
        found = self._active.fitted(organization, calibration_id)
        if row is None or report is None or found is None or not row.evidence:
            return None
        evidence = Evidence.from_bytes(row.evidence)
        return Standing(evidence, verdict(evidence, report, found.drift), row.updated_at)

    def _take(self, row: EvidenceRow) -> None:
        key = (row.organization, row.calibration_id)
        self._rows[key] = row
        standing = self.standing(*key)
        doubtful = standing is not None and standing.verdict.state == "drifting"
        if doubtful != self._active.in_doubt(*key) and standing is not None:
            log = _log.warning if doubtful else _log.info
            log(
                "a calibration drifts" if doubtful else "a calibration holds",
                calibration_id=key[1],
                advice=standing.verdict.advice,
            )
        self._active.doubt(*key, doubtful=doubtful, escalates=self._terms.escalates)


def _is_check(errand: Errand) -> bool:
    """Whether an errand is the shadow of a drift check."""
    route = errand.route
    return bool(errand.shadow_of and route.calibration_id) and not route.experiment_id


def _key(errand: Errand) -> _Key:
    return (parse_scope(errand.scope).organization, errand.route.calibration_id)


def _together(one: Seen, other: Seen) -> Seen:
    features = dict(one.features)
    for name, (count, total) in other.features.items():
        known, before = features.get(name, (0, 0.0))
        features[name] = (known + count, before + total)
    return Seen(
        one.decisions + other.decisions,
        one.escalated + other.escalated,
        one.judged + other.judged,
        one.gain + other.gain,
        one.confidence + other.confidence,
        features,
        [*one.checks, *other.checks],
    )
