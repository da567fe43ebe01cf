"""What was said of deployments after farthing.yaml: another weight, or to take no calls. Kept, and known to every replica."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from farthing_core.errors import FarthingError
from farthing_runtime.refreshing import Watched

from farthing_router.deployments.balancing import Balancer
from farthing_router.deployments.places import Place


class DeploymentUnknown(FarthingError):
    """No deployment of the catalog has this name."""

    def __init__(self, *, deployment: str) -> None:
        super().__init__(f"deployment: {deployment!r} is not in the catalog (farthing.yaml)", deployment=deployment)


class LastDeployment(FarthingError):
    """A model would be left without a deployment that takes calls."""

    def __init__(self, *, deployment: str, model: str) -> None:
        super().__init__(
            f"{deployment} is the last deployment of {model} that takes calls: enable another one first",
            deployment=deployment,
            model=model,
        )


@dataclass(frozen=True, slots=True)
class Override:
    """What was said of a deployment; `weight` is None where farthing.yaml's stands."""

    deployment: str
    weight: float | None
    enabled: bool


@dataclass(frozen=True, slots=True)
class OverrideRow:
    """An override as it was written down; of several for one deployment the one with the largest number holds."""

    number: int
    override: Override


@dataclass(frozen=True, slots=True)
class Said:
    """Who says it: a request_id that is good for one body."""

    request_id: str
    fingerprint: bytes


class OverrideStore(Protocol):
    """Durable overrides. Writers take turns: what `decide` sees is what holds when its answer is written."""

    async def change(self, said: Said, decide: Callable[[Mapping[str, Override]], Override]) -> OverrideRow:
        """Writes what `decide` makes of all overrides that hold; the same request_id gives the row that it wrote.

        Raises what `decide` raises, RequestIdReused, StoreUnavailable.
        """
        ...

    async def after(self, number: int, *, rows_max: int) -> list[OverrideRow]:
        """The rows that hold with larger numbers, in order, at most so many. Raises StoreUnavailable."""
        ...


class Overrides:
    """Keeps overrides, and lets the deployments of this replica go by them."""

    def __init__(self, balancer: Balancer, *, store: OverrideStore) -> None:
        self._balancer = balancer
        self._store = store
        self._models = {each.name: model for model in balancer.catalog.models.values() for each in model.deployments}
        self.watched = Watched("deployment_overrides", after=store.after, take=self._take)

    async def change(self, deployment: str, said: Said, *, weight: float | None, enabled: bool | None) -> Place:
        """Says something of a deployment; None leaves as it is.

        Raises DeploymentUnknown, LastDeployment, RequestIdReused, StoreUnavailable.
        """
        place = self._balancer.places.get(deployment)
        if place is None:
            raise DeploymentUnknown(deployment=deployment)

        def decide(known: Mapping[str, Override]) -> Override:
            now = known.get(deployment, Override(deployment, None, enabled=True))
            said_now = replace(
                now, weight=now.weight if weight is None else weight, enabled=now.enabled if enabled is None else enabled
            )
            if not said_now.enabled:
                self._check_another(place, known)
            return said_now

        await self._store.change(said, decide)
        await self.watched.refresh()
        return place

    def _check_another(self, place: Place, known: Mapping[str, Override]) -> None:
        model, own = self._models[place.deployment.name], place.deployment
        others = (each.name for each in model.deployments if each.name != own.name and each.batch == own.batch)
        if not any(name not in known or known[name].enabled for name in others):
            raise LastDeployment(deployment=own.name, model=model.name)

    def _take(self, row: OverrideRow) -> None:
        place = self._balancer.places.get(row.override.deployment)
        if place is not None:  # one that farthing.yaml no longer has is kept for when it comes back
            place.enabled = row.override.enabled
            place.weight = place.deployment.weight if row.override.weight is None else row.override.weight
