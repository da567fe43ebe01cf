"""A fitted policy: which answers to buy for a prompt, one decision at a time, and which of the bought ones to serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
from farthing_core.errors import FarthingError

from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.calibration.forest import Floats
from farthing_router.calibration.frontier import RATIO_MAX, RATIO_MIN
from farthing_router.calibration.scorer import Chooser, Scorer

FORMAT = 3
"""The version of the artefact; another one is refused."""
_TOLD_FACTOR = 3.0


class PolicyUnreadable(FarthingError):
    """An artefact that is no fitted policy of this version."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(f"not a fitted policy that can be read: {problem}")


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next. `buy`: the models to ask now, side by side; none where the answer of `chosen` is to be served. `escalate`
    says that a dearer model than the opening ones is among them. `gain`: the expected gain in quality (0 to 1) of the best thing
    to buy; `value`: the same in proportion to its price, which is compared with the policy's threshold. `confidence`: how good the
    chosen answer is, 0 to 1."""

    buy: tuple[str, ...]
    escalate: bool
    gain: float
    value: float
    confidence: float
    chosen: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Guarantee:
    """A promise that the data supported: at least `quality_ratio_min` of the strong model's quality, with `confidence`. `bound` is
    the lower bound of the ratio that the test found."""

    quality_ratio_min: float
    confidence: float
    bound: float


@dataclass(frozen=True, slots=True)
class Drift:
    """What was usual when the policy was fitted (out-of-fold): the mean and deviation of each feature, of the predicted gain of
    the strong model and of the confidence, and how often it was bought."""

    feature_means: Mapping[str, float] = field(default_factory=dict)
    feature_deviations: Mapping[str, float] = field(default_factory=dict)
    gain_mean: float = 0.0
    gain_deviation: float = 0.0
    confidence_mean: float = 0.0
    confidence_deviation: float = 0.0
    escalated_share: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class FittedPolicy:
    """Buys the answers of `opening`, then at most one of `strong` (the first of them is what quality is measured against). A
    strong answer is bought where expected gain / (price / the usual price)^price_weight is above `threshold`.

    `typical_cost_usd_nanos` stands in for a price that the caller does not know. `stages` has a scorer for each set of opening
    answers that may be at hand, by their models joined with "+". `choosers` say for a strong answer that was bought whether it is
    to be served. A `query_only` policy decides before anything is bought, by the prompt alone: either the strong model is asked or
    the (one) opening model, whose answer is served unread.
    """

    opening: tuple[str, ...]
    strong: tuple[str, ...]
    stages: Mapping[str, Scorer]
    choosers: Mapping[str, Chooser]
    threshold: float
    price_weight: float
    typical_cost_usd_nanos: Mapping[str, int]
    examples: int
    drift: Drift
    guarantee: Guarantee | None = None
    query_only: bool = False

    def before(self, prompt: str, *, costs: Mapping[str, int] | None = None, embedding: Floats | None = None) -> Decision:
        """What to buy first: the opening answers or, where asking them is not worth it, the strong one."""
        if not self.query_only:
            return Decision(self.opening, False, 0.0, 0.0, 0.0, None, "opening")
        decision = self._read(self.stages[""], prompt, {}, costs=costs, embedding=embedding)
        return decision if decision.escalate else replace(decision, buy=self.opening, chosen=None)

    def decide(
        self,
        prompt: str,
        answers: Mapping[str, BoughtAnswer],
        *,
        costs: Mapping[str, int] | None = None,
        embedding: Floats | None = None,
    ) -> Decision:
        """What to do with the answers at hand, by model. An opening model whose answer is not there is taken to have failed.

        `costs` has the likely price in nanodollars of asking each model, `embedding` the prompt's unit vector where it is known.
        """
        bought = [model for model in self.strong if model in answers]
        if bought:
            return self._choose(bought[-1], prompt, answers)
        reads = tuple(model for model in self.opening if model in answers)
        if not reads:
            return Decision(self.strong[:1], True, 0.0, 0.0, 0.0, None, "no cheap answer")
        if self.query_only:
            return Decision((), False, 0.0, 0.0, 1.0, reads[0], "decided by the prompt")
        return self._read(self.stages["+".join(reads)], prompt, answers, costs=costs, embedding=embedding)

    def _read(
        self,
        stage: Scorer,
        prompt: str,
        answers: Mapping[str, BoughtAnswer],
        *,
        costs: Mapping[str, int] | None,
        embedding: Floats | None,
    ) -> Decision:
        said = stage.scores(prompt, answers, embedding=embedding)
        prices = {model: self._price(model, said.price[model], costs) for model in said.gain}
        best = max(prices, key=lambda model: said.gain[model] - max(self.threshold, 0.0) * prices[model])
        value = max(gain / prices[model] for model, gain in said.gain.items())
        escalate = value > self.threshold
        gain = said.gain[best]
        reason = (
            "the gain is worth its price" if escalate else "good enough" if gain < 0.1 else "the gain is not worth its price"
        )
        return Decision(
            buy=(best,) if escalate else (),
            escalate=escalate,
            gain=gain,
            value=value,
            confidence=said.quality.get(stage.serves, 0.0),
            chosen=stage.serves,
            reason=reason,
        )

    def _choose(self, strong: str, prompt: str, answers: Mapping[str, BoughtAnswer]) -> Decision:
        """Which answer to serve after a strong one was bought."""
        chooser = self.choosers.get(strong)
        if chooser is not None and all(model in answers for model in chooser.reads):
            gain = chooser.gain(prompt, answers)
            if gain <= 0:
                served = self.stages["+".join(self.opening)].serves
                return Decision((), True, gain, 0.0, 1.0, served, "the strong answer is no better")
        return Decision((), True, 0.0, 0.0, 1.0, strong, "the strong model answered")

    def _price(self, model: str, factor: float, costs: Mapping[str, int] | None) -> float:
        """The likely price of a model in proportion to the usual one of the first strong model: as learned from prompts and answers like
        these, kept within a factor of three of what the caller says."""
        own = self.typical_cost_usd_nanos[model] * factor
        told = (costs or {}).get(model)
        if told is not None:
            own = min(max(own, told / _TOLD_FACTOR), told * _TOLD_FACTOR)
        ratio = own / max(1, self.typical_cost_usd_nanos[self.strong[0]])
        return float(min(max(ratio, RATIO_MIN), RATIO_MAX) ** self.price_weight)

    def to_json(self) -> bytes:
        """The artefact: one JSON object of plain lists, numbers and texts."""
        return orjson.dumps(
            {
                "format": FORMAT,
                "opening": list(self.opening),
                "strong": list(self.strong),
                "stages": {name: stage.to_json() for name, stage in self.stages.items()},
                "choosers": {name: chooser.to_json() for name, chooser in self.choosers.items()},
                "threshold": self.threshold,
                "price_weight": self.price_weight,
                "typical_cost_usd_nanos": dict(self.typical_cost_usd_nanos),
                "examples": self.examples,
                "drift": asdict(self.drift),
                "query_only": self.query_only,
                "guarantee": None if self.guarantee is None else asdict(self.guarantee),
            }
        )

    @classmethod
    def from_json(cls, artefact: bytes | str) -> FittedPolicy:
        """The policy of an artefact. Raises PolicyUnreadable."""
        try:
            data: dict[str, Any] = orjson.loads(artefact)
            if data["format"] != FORMAT:
                raise PolicyUnreadable(
                    problem=f"format {data['format']!r} instead of {FORMAT}: fit it again with farthing calibrate"
                )
            return cls(
                opening=tuple(data["opening"]),
                strong=tuple(data["strong"]),
                stages={name: Scorer.from_json(stage) for name, stage in data["stages"].items()},
                choosers={name: Chooser.from_json(chooser) for name, chooser in data["choosers"].items()},
                threshold=float(data["threshold"]),
                price_weight=float(data["price_weight"]),
                typical_cost_usd_nanos={model: int(nanos) for model, nanos in data["typical_cost_usd_nanos"].items()},
                examples=int(data["examples"]),
                drift=Drift(**data["drift"]),
                query_only=bool(data["query_only"]),
                guarantee=None if data["guarantee"] is None else Guarantee(**data["guarantee"]),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise PolicyUnreadable(problem=f"{type(error).__name__}: {error}"[:200]) from error
