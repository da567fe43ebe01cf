"""What to do after each answer of a route: serve one, ask somebody else and judge that too, or ask the last one, whose answer is served.

Two judges: one that was never trained and goes by form and agreement, and one that follows a fitted policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.calibration.forest import Floats
from farthing_router.calibration.policy import Decision, FittedPolicy
from farthing_router.judging.opinions import Judged, Opinion, fault_of, judge, structure_of
from farthing_router.routing.errands import Bought, Errand
from farthing_router.routing.ports import Calibrations
from farthing_router.routing.routes import Candidate, Role

_STRONG = 0.9
"""How good a dearer model's answer is taken to be where nothing is known of it."""
_HOPELESS = 0.2
"""The part of its gain that is left where it would likely have the same fault."""
_CHARACTERS_JUDGED_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Ruling:
    """What to do next: serve `served`; else ask `ask` and judge again; else ask `last`, in order, until one answers. `reason` is why."""

    served: Bought | None = None
    ask: Candidate | None = None
    last: Sequence[Candidate] = ()
    reason: str = ""


class Judge(Protocol):
    """Rules on one errand."""

    def opening(self) -> Sequence[Candidate]:
        """Who is asked first, side by side; nobody where the answer of the `last` of the first ruling is served unread."""
        ...

    def rule(self) -> Ruling:
        """What to do with what was bought so far."""
        ...


class Judges:
    """Makes the judge of an errand. `prompt_of` is a conversation as one text."""

    def __init__(self, calibrations: Calibrations | None, *, prompt_of: Callable[[Any], str]) -> None:
        self._calibrations = calibrations
        self._prompt_of = prompt_of

    def judge(self, errand: Errand) -> Judge:
        """By the route's calibration where it has one that is at hand, else untrained."""
        named = errand.route.calibration_id
        if named and self._calibrations is not None:
            found = self._calibrations.named(errand.scope, named)
            if found is not None and _follows(errand.route.candidates, found.policy):
                return ByPolicy(errand, found.policy, prompt=self._prompt_of(errand.conversation))
        return Untrained(errand)


class Untrained:
    """Takes the cheapest answer whose form and agreement with others are good enough. The last of a cascade is not judged.

    A dearer model is asked only where that is worth it: a point of quality has a price if the route says so, and an answer that was cut off
    at a limit that holds for the dearer model too would likely be cut off again.
    """

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        asked = [each for each in errand.route.candidates if each.role is not Role.FALLBACK]
        opening = [each for each in asked if each.role in (Role.FIRST, Role.PEER)]
        self._judges = errand.route.accept_confidence > 0 and not len(opening) == len(asked) == 1
        self._opening = opening if self._judges else []
        self._later = [each for each in asked if each.role is Role.ESCALATION] if self._judges else asked[-1:]

    def opening(self) -> Sequence[Candidate]:
        """The cheap models; nobody where there is only one to ask."""
        return self._opening

    def rule(self) -> Ruling:
        """By the opinions on all answers so far."""
        errand = self._errand
        left = [each for each in self._later if each.model not in errand.tried]
        if not self._judges:
            return Ruling(last=left)
        alone = [structure_of(judged(each, errand)) for each in errand.bought]
        # What is no answer agrees and disagrees with nobody.
        answers = [each for each, form in zip(errand.bought, alone, strict=True) if form.confidence >= 0.5]
        for bought in errand.bought:
            others = [other.answer.content for other in answers if other is not bought]
            bought.opinion = judge(judged(bought, errand), others)
        enough = [each for each in errand.bought if _confidence(each) >= errand.route.accept_confidence]
        if enough:
            return Ruling(served=min(enough, key=_cost), reason="good enough")
        best = max(errand.bought, key=_confidence, default=None)
        if best is not None and left and (against := self._against(best, left)):
            return Ruling(served=best, reason=against)
        why = best.opinion.reason if best is not None and best.opinion is not None else "no cheap answer"
        # Of a calibration's dear models a plan holds one answer.
        more = len(left) > 1 and not errand.route.calibration_id
        return Ruling(ask=left[0], reason=why) if more else Ruling(last=left, reason=why)

    def _against(self, best: Bought, left: Sequence[Candidate]) -> str:
        """Why no dearer model is asked though the best answer is not good enough; empty where one is."""
        opinion, limit = best.opinion, best.candidate.output_tokens_max
        assert opinion is not None
        hopeless = opinion.hopeless and all(each.output_tokens_max <= limit for each in left)
        if hopeless and any(each.output_tokens_max == limit for each in left):
            return "cut off at a limit that holds for a dearer model, too"
        gain = max((each.predicted_quality or _STRONG) for each in left) - opinion.confidence
        best.opinion = replace(opinion, gain=max(0.0, gain))
        point = self._errand.route.usd_nanos_per_quality_point
        if point and 100 * gain * point < min(each.likely_usd_nanos for each in left):
            return "a dearer answer is not worth its price"
        return ""


class ByPolicy:
    """Follows a fitted policy, at the prices at which it was fitted: its threshold, and what it promises, hold at those.

    Where a point of quality has a price on the route (a budget that drains), a dearer answer must also be worth that, unless the policy
    keeps a promise. An answer without the form that was asked for counts as none.
    """

    def __init__(self, errand: Errand, policy: FittedPolicy, *, prompt: str) -> None:
        self._errand = errand
        self._policy = policy
        self._prompt = prompt
        self._embedding = _vector(errand.embedding)
        self._by_model: Mapping[str, Candidate] = {
            each.model: each for each in errand.route.candidates if each.role is not Role.FALLBACK
        }
        self._before = self._affordable(policy.before(prompt, embedding=self._embedding))

    def opening(self) -> Sequence[Candidate]:
        """The models whose answers are read; nobody where the policy decides by the prompt alone, and goes straight to one."""
        return () if self._policy.query_only else self._candidates(self._before.buy)

    def rule(self) -> Ruling:
        """By the policy."""
        errand, policy = self._errand, self._policy
        if policy.query_only:
            chosen = self._before.buy or policy.opening
            return Ruling(last=self._candidates((*chosen, *policy.strong, *policy.opening)), reason=self._before.reason)
        answers = {each.candidate.model: each for each in errand.bought if self._is_answer(each)}
        read = {model: each for model, each in answers.items() if model in policy.opening}
        decision = self._affordable(
            policy.decide(self._prompt, {model: as_read(each) for model, each in answers.items()}, embedding=self._embedding)
        )
        if len(read) == len(answers):
            self._note(read, decision)
        if not decision.buy and decision.chosen is not None:
            return Ruling(served=answers[decision.chosen], reason=decision.reason)
        dearer = [each for each in self._candidates((*decision.buy, *policy.strong)) if each.model not in errand.tried]
        if any(each.candidate.model in policy.strong for each in errand.bought):
            # One dear answer is bought, whatever it is worth: the plan holds no second one.
            return Ruling(served=max(errand.bought, key=_confidence), reason=decision.reason)
        if dearer and self._chooses(dearer[0].model, read):
            return Ruling(ask=dearer[0], reason=decision.reason)
        return Ruling(last=dearer, reason=decision.reason)

    def _note(self, read: Mapping[str, Bought], decision: Decision) -> None:
        """What the policy thinks of the cheap answers, and of buying a dear one."""
        for model, each in read.items():
            if model == decision.chosen:
                each.opinion = Opinion(decision.confidence, decision.reason, decision.gain)
            else:
                each.opinion = Opinion(0.0, "a second opinion", decision.gain)

    def _chooses(self, strong: str, read: Mapping[str, Bought]) -> bool:
        """Whether the policy may prefer a cheap answer even when it has the strong one, so that this is not to be heard unread."""
        chooser = self._policy.choosers.get(strong)
        return chooser is not None and all(model in read or model == strong for model in chooser.reads)

    def _affordable(self, decision: Decision) -> Decision:
        """A decision, unless it escalates at a price that a point of quality is not worth now."""
        point, policy = self._errand.route.usd_nanos_per_quality_point, self._policy
        if not point or not decision.escalate or decision.chosen is None or not decision.buy or policy.guarantee is not None:
            return decision
        if 100 * decision.gain * point >= policy.typical_cost_usd_nanos[decision.buy[0]]:
            return decision
        return replace(decision, buy=(), escalate=False, reason="the gain is not worth its price now")

    def _candidates(self, models: Sequence[str]) -> list[Candidate]:
        return [self._by_model[model] for model in dict.fromkeys(models) if model in self._by_model]

    def _is_answer(self, bought: Bought) -> bool:
        asked = self._errand.asked
        formal = asked.json or (asked.tools and bought.answer.extra_json)
        fault = fault_of(judged(bought, self._errand)) if formal else None
        if fault is not None:
            bought.opinion = Opinion(0.0, fault)
        return fault is None


def judged(bought: Bought, errand: Errand) -> Judged:
    """An answer as the untrained judge reads it."""
    answer = bought.answer
    return Judged(answer.content, answer.finish_reason, errand.asked, answer.extra_json, answer.mean_logprob)


def heavy(errand: Errand) -> bool:
    """Whether reading what was bought may take more than a few milliseconds, so that a thread does it."""
    return sum(len(each.answer.content) + len(each.answer.extra_json) for each in errand.bought) > _CHARACTERS_JUDGED_AT_ONCE


def as_read(bought: Bought) -> BoughtAnswer:
    """An answer as a fitted policy reads it."""
    answer = bought.answer
    return BoughtAnswer(
        text=answer.content or answer.extra_json,
        finish_reason=answer.finish_reason,
        output_tokens=bought.attempt.tokens.output_tokens,
        mean_logprob=answer.mean_logprob,
        likely_margin=answer.mean_margin,
    )


def _follows(candidates: Sequence[Candidate], policy: FittedPolicy) -> bool:
    """Whether a route has the models of a policy."""
    models = {each.model for each in candidates}
    return models.issuperset(policy.opening) and not models.isdisjoint(policy.strong)


def _vector(embedding: bytes) -> Floats | None:
    return np.frombuffer(embedding, dtype="<f2").astype(np.float64) if embedding and not len(embedding) % 2 else None


def _confidence(bought: Bought) -> float:
    return bought.opinion.confidence if bought.opinion is not None else 0.0


def _cost(bought: Bought) -> int:
    return bought.attempt.cost_usd_nanos
