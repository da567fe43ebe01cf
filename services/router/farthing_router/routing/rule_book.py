"""The rules that are kept: written whole or not at all, every version readable, all that is in use in memory.

What one replica writes the others know after one interval of their watch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from farthing_core.clock import Clock
from farthing_core.errors import FarthingError, FieldInvalid
from farthing_core.ids import NewId
from farthing_runtime.refreshing import Watched

from farthing_router.catalog import Catalog
from farthing_router.routing.matching import RuleIndex
from farthing_router.routing.routes import Wish
from farthing_router.routing.rule_checks import check_rule
from farthing_router.routing.rule_entries import RULES_MAX
from farthing_router.routing.rules import Rule
from farthing_router.store import RequestIdReused

_log = structlog.get_logger()
_TRIES = 5
_IN_FILE = "farthing.yaml/"
_INDEXES_MAX = 10_000
"""Organisations whose rules are kept sorted; the sorting of more is done again when they ask."""


class RuleUnknown(FarthingError):
    """A rule that the scope does not have."""

    def __init__(self, *, rule_id: str) -> None:
        super().__init__(f"there is no rule {rule_id!r} in this scope", rule_id=rule_id)


class RulesFull(FarthingError):
    """An organisation, or all of them together, have as many rules or versions as may be."""

    def __init__(self, *, what: str, limit: int) -> None:
        super().__init__(f"there are {limit} {what}, which is all that may be", limit=limit)


class VersionConflict(FarthingError):
    """Somebody else changed the rule."""

    def __init__(self, *, rule_id: str, version: int, newest: int) -> None:
        super().__init__(
            f"the newest version of rule {rule_id} is {newest}, not {version}: read it again", rule_id=rule_id, newest=newest
        )


@dataclass(frozen=True, slots=True)
class RuleRow:
    """A version of a rule as it was written down."""

    number: int
    organization: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class RuleName:
    """A rule where it applies; with a version above 0 only while that is the newest."""

    scope: str
    rule_id: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class Writing:
    """Who writes: a request_id that is good for one body."""

    request_id: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class RuleLimits:
    """How many rules in use and versions an organisation may have, and versions all together."""

    rules: int
    versions: int
    everybodys_versions: int


RULE_LIMITS = RuleLimits(rules=RULES_MAX, versions=20_000, everybodys_versions=200_000)


class RuleStore(Protocol):
    """Durable versions of rules.

    - A version is durable before `keep` returns, and is never changed after.
    - Of several who write the next version of a rule at once exactly one does; the others get VersionConflict.
    - The same request_id gives the stored version, however many ask at once; with another body it is refused.
    - Versions become visible in the order of their numbers: whoever has seen number n has seen what came before, or what took its place.
    """

    async def keep(self, organization: str, rule: Rule, writing: Writing) -> RuleRow:
        """Writes `rule.version` of a rule, 1 for a new one, else one more than the newest.

        Raises VersionConflict, RulesFull, RequestIdReused, StoreUnavailable.
        """
        ...

    async def written(self, organization: str, writing: Writing) -> RuleRow | None:
        """What was written under a request_id; None where nothing was. Raises RequestIdReused, StoreUnavailable."""
        ...

    async def after(self, number: int, *, rows_max: int) -> list[RuleRow]:
        """The newest versions of the rules changed after a number, in order, at most so many. Raises StoreUnavailable."""
        ...

    async def versions(self, organization: str, rule_id: str, *, below: int | None, rows_max: int) -> list[RuleRow]:
        """The versions of a rule below a version (all when None), newest first, at most so many. Raises StoreUnavailable."""
        ...


class RuleBook:
    """Rules of farthing.yaml and of every organisation."""

    def __init__(self, *, catalog: Catalog, store: RuleStore, clock: Clock, new_id: NewId) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._kept: dict[str, dict[str, Rule]] = {}
        self._indexes: dict[str, RuleIndex] = {}
        self.watched = Watched("rules", after=store.after, take=self._take)

    def find(self, wish: Wish, *, tier: str, complexity: Callable[[], float]) -> Rule | None:
        """The rule for a request of somebody of this tier; None without any. From memory."""
        return self._index(_organization(wish.scope)).find(wish, tier=tier, complexity=complexity)

    def applying(self, scope: str) -> list[Rule]:
        """The rules that apply on a scope, in the order in which they are tried; also those that are not in use."""
        return self._index(_organization(scope)).of(scope)

    async def create(self, rule: Rule, writing: Writing) -> Rule:
        """Keeps a new rule. Raises FieldInvalid, RulesFull, RequestIdReused, StoreUnavailable."""
        organization = _organization(rule.scope)
        stored = await self._store.written(organization, writing)
        if stored is not None:
            return stored.rule
        made = replace(rule, rule_id=self._new_id(), version=1, deleted=False, updated_at=self._clock.now(), created_number=0)
        check_rule(made, self._catalog, field="rule")
        return await self._keep(organization, made, writing)

    async def change(self, named: RuleName, writing: Writing, *, changed: Callable[[Rule], Rule]) -> Rule:
        """Keeps what `changed` makes of the newest version of a rule.

        Raises RuleUnknown, FieldInvalid, VersionConflict, RulesFull, RequestIdReused, StoreUnavailable.
        """
        if named.rule_id.startswith(_IN_FILE):
            raise FieldInvalid(field="rule_id", problem="this rule stands in farthing.yaml: change it there")
        organization = _organization(named.scope)
        stored = await self._store.written(organization, writing)
        if stored is not None:
            return stored.rule
        for tries_left in reversed(range(_TRIES)):
            await self.watched.refresh()
            newest = self._kept.get(organization, {}).get(named.rule_id)
            if newest is None or newest.scope != named.scope:
                raise RuleUnknown(rule_id=named.rule_id)
            if named.version and named.version != newest.version:
                raise VersionConflict(rule_id=named.rule_id, version=named.version, newest=newest.version)
            made = replace(changed(newest), version=newest.version + 1, updated_at=self._clock.now())
            if not made.deleted:
                check_rule(made, self._catalog, field="rule")
            try:
                return await self._keep(organization, made, writing)
            except VersionConflict:
                if named.version or not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def get(self, scope: str, rule_id: str, *, version: int = 0) -> Rule:
        """A rule that applies on a scope, its newest version when 0. Raises RuleUnknown, StoreUnavailable."""
        found = next((rule for rule in self.applying(scope) if rule.rule_id == rule_id), None)
        if found is not None and version in (0, found.version):
            return found
        if rule_id.startswith(_IN_FILE):
            raise RuleUnknown(rule_id=rule_id)
        rows = await self._store.versions(_organization(scope), rule_id, below=version + 1 if version else None, rows_max=1)
        if not rows or rows[0].rule.version != (version or rows[0].rule.version) or not _applies(rows[0].rule, scope):
            raise RuleUnknown(rule_id=rule_id)
        return rows[0].rule

    async def history(self, scope: str, rule_id: str, *, below: int | None, rows_max: int) -> list[Rule]:
        """Every version of a rule that applies, or applied, on a scope, newest first; of one in farthing.yaml the one there is."""
        if rule_id.startswith(_IN_FILE):
            return [rule for rule in self.applying(scope) if rule.rule_id == rule_id and below is None]
        rows = await self._store.versions(_organization(scope), rule_id, below=below, rows_max=rows_max)
        return [row.rule for row in rows if _applies(row.rule, scope)]

    async def _keep(self, organization: str, rule: Rule, writing: Writing) -> Rule:
        row = await self._store.keep(organization, rule, writing)
        await self.watched.refresh()
        return row.rule

    def _take(self, row: RuleRow) -> None:
        rules = self._kept.setdefault(row.organization, {})
        rules.pop(row.rule.rule_id, None)
        if not row.rule.deleted:
            rules[row.rule.rule_id] = row.rule
            self._check(row)
        self._indexes.pop(row.organization, None)

    def _check(self, row: RuleRow) -> None:
        """A rule that was right when it was kept may name what the catalog no longer has: it stays in use, and nobody is left silent."""
        try:
            check_rule(row.rule, self._catalog, field="rule")
        except FieldInvalid as error:
            problem = f"{error.field}: {error.problem}"
            _log.warning("a routing rule does not fit the catalog any more", rule_id=row.rule.rule_id, problem=problem)

    def _index(self, organization: str) -> RuleIndex:
        found = self._indexes.get(organization)
        if found is None:
            if len(self._indexes) >= _INDEXES_MAX:
                self._indexes.clear()
            found = RuleIndex((*self._catalog.rules, *self._kept.get(organization, {}).values()))
            self._indexes[organization] = found
        return found


def _organization(scope: str) -> str:
    return scope.split("/", 2)[1] if scope else ""


def _applies(rule: Rule, scope: str) -> bool:
    return scope == rule.scope or scope.startswith(f"{rule.scope}/")


def reused(writing: Writing, fingerprint: bytes) -> None:
    """Raises RequestIdReused where a request_id was used for another body."""
    if fingerprint != writing.fingerprint:
        raise RequestIdReused(request_id=writing.request_id)
