"""Which rule is for a request: the first that matches, longer scopes before shorter, then by priority, then the older.

What a rule says of tasks, tiers and wishes is looked up once for each combination of them and remembered; what is left to compare on the
way of a request is numbers, tags and needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from farthing_core.scopes import parse_scope

from farthing_router.routing.routes import Wish
from farthing_router.routing.rules import Match, Rule

_REMEMBERED_MAX = 1_000
_Kind = tuple[str, str, str, str]


class RuleIndex:
    """The rules of one organisation, together with those that are everybody's."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._by_scope: dict[str, list[Rule]] = {}
        for rule in sorted(rules, key=lambda each: (-each.priority, each.created_number, each.rule_id)):
            self._by_scope.setdefault(rule.scope, []).append(rule)
        self._remembered: dict[_Kind, tuple[_Conditions, ...]] = {}

    def of(self, scope: str) -> list[Rule]:
        """The rules that apply on a scope, in the order in which they are tried; also those that are not in use."""
        scopes = (*reversed(parse_scope(scope).ancestors), "") if scope else ("",)
        return [rule for each in scopes for rule in self._by_scope.get(each, ())]

    def find(self, wish: Wish, *, tier: str, complexity: Callable[[], float]) -> Rule | None:
        """The rule for a request of somebody of this tier; None without any. `complexity` is only asked when it decides."""
        if not self._by_scope:
            return None
        kind = (wish.scope, wish.task, tier, wish.optimize_for)
        possible = self._remembered.get(kind)
        if possible is None:
            possible = self._possible(*kind)
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[kind] = possible
        for conditions in possible:
            if conditions.hold(wish, complexity):
                return conditions.rule
        return None

    def _possible(self, scope: str, task: str, tier: str, optimize_for: str) -> tuple[_Conditions, ...]:
        return tuple(
            _Conditions(rule)
            for rule in self.of(scope)
            if not rule.disabled
            and _names_task(rule.match, task)
            and (not rule.match.tiers or tier in rule.match.tiers)
            and (not rule.match.optimize_for or optimize_for in rule.match.optimize_for)
        )


class _Conditions:
    """What is left to compare of a rule."""

    __slots__ = ("complexity", "needs", "rule", "tags", "tokens")

    def __init__(self, rule: Rule) -> None:
        match = rule.match
        self.rule = rule
        self.needs = frozenset(match.needs)
        self.tags = frozenset(match.tags)
        self.tokens = _between(match.input_tokens_min, match.input_tokens_max)
        self.complexity = _between(match.complexity_min, match.complexity_max)

    def hold(self, wish: Wish, complexity: Callable[[], float]) -> bool:
        """Whether all of them hold; the dearest to find out comes last."""
        if self.needs and not self.needs <= wish.needs:
            return False
        if self.tags and not self.tags.issubset(wish.tags):
            return False
        if self.tokens is not None and not self.tokens[0] <= prompt_tokens(wish) <= self.tokens[1]:
            return False
        if self.complexity is None:
            return True
        least, most = self.complexity
        looks = complexity()
        return least <= looks < most or looks == most == 1.0


def prompt_tokens(wish: Wish) -> int:
    """The prompt's tokens in the encoding that takes the most of them; a bound where nobody counted."""
    return max(wish.input_tokens.values(), default=wish.bytes_bound)


def _between(least: float | None, most: float | None) -> tuple[float, float] | None:
    if least is None and most is None:
        return None
    return (0.0 if least is None else least), (float("inf") if most is None else most)


def _names_task(match: Match, task: str) -> bool:
    if not match.tasks:
        return True
    return any(task.startswith(each[:-1]) if each.endswith("*") else task == each for each in match.tasks)
