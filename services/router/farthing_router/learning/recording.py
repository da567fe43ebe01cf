"""Takes in how routes ended: scores answers, writes them down in batches, and keeps the recent ones at hand for whoever has an opinion.

Nothing here is waited for by a request. When more routes end than can be scored in their share of time, some answers are written down
unscored; when more wait than the queue holds, they are dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import structlog
from farthing_core.clock import Clock
from farthing_runtime.beside import beside

from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.learning.contexts import context_of
from farthing_router.learning.fingerprints import fingerprint
from farthing_router.learning.metrics import Answered
from farthing_router.learning.outcomes import Outcome, OutcomeStore, Part
from farthing_router.learning.scoring import FittedScores, scored
from farthing_router.routing.errands import Bought, Errand, Finished
from farthing_router.store import StoreUnavailable

QualityListener = Callable[[str, str, str, float], None]
"""Hears the organisation, the request, the model and what is now known of the quality of its answer."""
_QUEUE_MAX = 2_000
_RECENT_MAX = 5_000
_BATCH_MAX = 500
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Ended:
    errand: Errand
    finished: Finished
    at: datetime


class Recorder:
    """The Observer that learns from answers. `prompt_of` reads a conversation as one text; `scored_per_s` bounds how many answers are
    scored; `listeners` hear of every score and must return at once."""

    def __init__(
        self,
        *,
        store: OutcomeStore,
        fitted: FittedScores,
        clock: Clock,
        prompt_of: Callable[[Any], str],
        scored_per_s: float,
        listeners: Sequence[QualityListener] = (),
    ) -> None:
        self._store = store
        self._fitted = fitted
        self._clock = clock
        self._prompt_of = prompt_of
        self._scored_per_s = scored_per_s
        self._listeners = listeners
        self._ended: deque[_Ended] = deque()
        self._waiting: list[Outcome] = []
        self._recent: OrderedDict[tuple[str, str], Outcome] = OrderedDict()
        self._writing = asyncio.Lock()
        self._allowance, self._allowed_at_s = scored_per_s, clock.monotonic_s()
        self.dropped = 0

    def ended(self, errand: Errand, finished: Finished | None, error: BaseException | None) -> None:
        """A route came to its end."""
        if finished is None or not errand.scope:
            return
        if len(self._ended) + len(self._waiting) >= _QUEUE_MAX:
            self.dropped += 1
            return
        self._ended.append(_Ended(errand, finished, self._clock.now()))

    def recent(self, organization: str, request_id: str) -> Outcome | None:
        """The answer to a request, where it was given a moment ago."""
        for place, ended in enumerate(self._ended):
            if ended.errand.request_id.lower() == request_id:
                del self._ended[place]
                self._read(ended)
                break
        return self._recent.get((organization, request_id))

    async def flush(self) -> None:
        """Writes down all that waits. Raises StoreUnavailable, and then keeps it for the next time."""
        async with self._writing:
            while self._ended or self._waiting:
                while self._ended:  # all of them, since they hold whole conversations: what waits for the database is small
                    self._read(self._ended.popleft())
                    await asyncio.sleep(0)  # scoring takes its turn with requests
                batch = self._waiting[:_BATCH_MAX]
                try:
                    await self._store.add(batch)
                except StoreUnavailable:
                    raise
                except Exception as error:  # whatever is wrong with it must not keep back what comes after
                    _log.error("outcomes could not be written and are lost", error=type(error).__name__, lost=len(batch))
                    self.dropped += len(batch)
                del self._waiting[: len(batch)]

    @asynccontextmanager
    async def running(self, *, interval_s: float) -> AsyncIterator[None]:
        """Writes down until the block ends; what waits then is written first."""

        async def write() -> None:
            while True:
                await asyncio.sleep(interval_s)
                await self._flush_quietly()

        async with beside(write()):
            yield
        await self._flush_quietly()

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except Exception as error:  # whatever it is, the next turn must come
            _log.warning("outcomes could not be written; they are kept", error=type(error).__name__, waiting=len(self._waiting))

    def _read(self, ended: _Ended) -> None:
        try:
            outcomes = self._outcomes(ended)
        except Exception as error:  # a strange answer must not end the learning from all others
            _log.warning("an answer could not be scored", error=type(error).__name__)
            self.dropped += 1
            return
        for outcome in outcomes:
            self._waiting.append(outcome)
            if outcome.part is not Part.PASSED_OVER:
                self._remember(outcome)
            if outcome.part is Part.SERVED and outcome.automatic is not None:
                for listener in self._listeners:
                    listener(outcome.organization, outcome.request_id, outcome.model, outcome.automatic)

    def _outcomes(self, ended: _Ended) -> list[Outcome]:
        errand, finished = ended.errand, ended.finished
        prompt = self._prompt_of(errand.conversation)
        context = context_of(prompt, errand.embedding)
        scores = self._may_score()
        found = []
        for bought in errand.bought:
            served = bought.answer is finished.answer
            if not served and not scores:
                continue
            part = Part.PASSED_OVER if not served else Part.SHADOW if errand.shadow_of else Part.SERVED
            outcome = self._outcome(errand, bought, at=ended.at, prompt=prompt, scores=scores)
            found.append(replace(outcome, part=part, context=context))
        return found

    def _outcome(self, errand: Errand, bought: Bought, *, at: datetime, prompt: str, scores: bool) -> Outcome:
        answer, organization = bought.answer, errand.scope.split("/", 2)[1]
        automatic, features = None, np.zeros(0)
        if scores:
            given = Answered(
                prompt=prompt,
                answer=BoughtAnswer(
                    text=answer.content,
                    finish_reason=answer.finish_reason,
                    mean_logprob=answer.mean_logprob,
                    likely_margin=answer.mean_margin,
                ),
                wants_json=errand.wants_json,
                calls_tools='"tool_calls"' in answer.extra_json,
                others=[other.answer.content for other in errand.bought if other is not bought],
            )
            score = scored(given, fitted=self._fitted.of(organization), task=errand.task)
            automatic, features = score.value, score.features
        return Outcome(
            request_id=errand.request_id.lower(),
            scope=errand.scope,
            task=errand.task.replace("\0", ""),
            model=bought.candidate.model,
            created_at=at,
            part=Part.SERVED,
            automatic=automatic,
            features=features,
            context=np.zeros(0),
            fingerprint=fingerprint(answer.content, key=errand.request_id.lower()),
            cost_usd_nanos=bought.attempt.cost_usd_nanos,
            input_tokens=bought.attempt.tokens.input_tokens,
            output_tokens=bought.attempt.tokens.output_tokens,
            needs=_needs(errand),
        )

    def _remember(self, outcome: Outcome) -> None:
        self._recent[outcome.organization, outcome.request_id] = outcome
        while len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)

    def _may_score(self) -> bool:
        """Whether there is time to score another answer: a bucket that fills at `scored_per_s`."""
        now_s = self._clock.monotonic_s()
        more = (now_s - self._allowed_at_s) * self._scored_per_s
        self._allowance, self._allowed_at_s = min(max(1.0, self._scored_per_s), self._allowance + more), now_s
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


def _needs(errand: Errand) -> frozenset[str]:
    """The capabilities that a request needs of a model."""
    needs = set()
    if errand.wants_json:
        needs.add("json")
    if getattr(errand.parameters, "tools_json", ""):
        needs.add("tools")
    if any('"image_url"' in getattr(message, "content_parts_json", "") for message in errand.conversation or ()):
        needs.add("vision")
    return frozenset(needs)
