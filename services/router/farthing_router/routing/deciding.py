"""What is to be done with a request: by the caller, an experiment, a rule, or, where all of them leave it open, by what matters most and
how hard the prompt looks.

| what matters most | an easy prompt | others | a hard prompt |
|---|---|---|---|
| nothing was said | cascade | cascade | cascade |
| cost | cheapest | cascade | cascade |
| latency | fastest | fastest | balanced: latency and quality alike |
| quality | quality | quality | quality |
| balanced | balanced; quality counts the more, the harder it looks | | |

A cascade goes by the calibration in force for scope and task, where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from farthing_core.auto_models import AUTO_MODELS

from farthing_router.calibration.complexity import Complexity, complexity
from farthing_router.catalog import Catalog
from farthing_router.routing.advisers import Advisers
from farthing_router.routing.ports import Assignment
from farthing_router.routing.routes import Wish
from farthing_router.routing.rules import Action, OptimizeFor, Rule, Weights
from farthing_router.routing.thresholds import Limits, limits_of, with_providers

EASY_BELOW, HARD_FROM = 0.3, 0.5
"""Complexities: a plain question has 0.15, a proof or a clinical question more than 0.5."""
_CASCADE = Action("cascade")


class Looks:
    """How hard a prompt looks; found out when somebody asks."""

    __slots__ = ("_found", "_prompt")

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._found: Complexity | None = None

    @property
    def known(self) -> bool:
        """Whether somebody has asked."""
        return self._found is not None

    def found(self) -> Complexity:
        """Its complexity, and why."""
        if self._found is None:
            self._found = complexity(self._prompt)
        return self._found

    def score(self) -> float:
        """Its complexity, 0 to 1."""
        return self.found().score


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be done. `model` is named by the caller or by an experiment's arm; `wish` is for the providers that may be asked, None
    where caller and rule allow none in common. `by` says who decided, in a few words. `calibration_id` is that of an arm, or the one that
    a model is asked to check.
    """

    action: Action
    limits: Limits
    wish: Wish | None
    by: str
    rule: Rule | None = None
    assignment: Assignment | None = None
    model: str = ""
    calibration_id: str = ""


def as_asked(wish: Wish) -> Wish:
    """The wish with what its model's name says matters most: "farthing/auto:cheap" and its like."""
    matters = AUTO_MODELS.get(wish.model)
    return replace(wish, optimize_for=matters) if matters else wish


def decide(wish: Wish, looks: Looks, catalog: Catalog, advisers: Advisers, *, assignment: Assignment | None) -> Intent:
    """What is to be done with a request of an experiment's arm, or of none."""
    if wish.model not in AUTO_MODELS:
        return Intent(_CASCADE, limits_of(wish, None), wish, "the caller named the model", model=wish.model)
    if assignment is not None and assignment.model:
        by = f"arm {assignment.arm} of an experiment" if assignment.experiment_id else "for comparison"
        named, compared = assignment.model, assignment.calibration_id
        return Intent(_CASCADE, limits_of(wish, None), wish, by, assignment=assignment, model=named, calibration_id=compared)
    rule = None
    if assignment is not None and assignment.action is not None:
        action, by = assignment.action, f"arm {assignment.arm} of an experiment"
    elif (rule := _rule(wish, looks, catalog, advisers)) is not None:
        action, by = rule.action, f"rule {rule.display_name or rule.rule_id}"
    else:
        action, by = usual(wish.optimize_for, looks)
    calibration_id = assignment.calibration_id if assignment is not None else ""
    if calibration_id:
        action, by = replace(action, strategy="cascade"), f"arm {assignment.arm} of an experiment" if assignment else by
    limits = limits_of(wish, action)
    return Intent(action, limits, with_providers(wish, action), by, rule, assignment, calibration_id=calibration_id)


def usual(optimize_for: OptimizeFor | str, looks: Looks) -> tuple[Action, str]:
    """What is done where nobody has said, and why."""
    if optimize_for == "quality":
        return Action("quality"), "quality matters most"
    if optimize_for == "cost" and looks.score() < EASY_BELOW:
        return Action("cheapest"), f"cost matters most and the prompt looks easy ({looks.score():.2f})"
    if optimize_for == "latency" and looks.score() < HARD_FROM:
        return Action("fastest"), "latency matters most"
    if optimize_for == "latency":
        return Action("balanced", Weights(0, 1, 1)), f"latency matters most, but the prompt looks hard ({looks.score():.2f})"
    if optimize_for == "balanced":
        weights = Weights(1, 1, 1 + 2 * looks.score())
        return Action("balanced", weights), f"cost, latency and quality matter; the prompt's complexity is {looks.score():.2f}"
    return _CASCADE, "cost matters most" if optimize_for == "cost" else ""


def _rule(wish: Wish, looks: Looks, catalog: Catalog, advisers: Advisers) -> Rule | None:
    if advisers.rules is None:
        return None
    return advisers.rules.find(wish, tier=wish.tier or catalog.tiers[-1], complexity=looks.score)
