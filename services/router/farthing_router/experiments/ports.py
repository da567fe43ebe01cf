"""What experiments need of the rest: where they are kept, and who knows qualities of answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from farthing_router.experiments.tallies import Tally
from farthing_router.experiments.terms import Experiment, Standing, State
from farthing_router.routing.errands import Errand, Finished

Key = tuple[str, str]
"""Organisation and experiment_id."""


@dataclass(frozen=True, slots=True)
class KeptTally:
    """All that a replica has seen of an arm in a step since it began."""

    organization: str
    experiment_id: str
    step: int
    arm: str
    tally: Tally


@dataclass(frozen=True, slots=True)
class Page:
    """Which experiments are listed: of a scope and all below, in a state (None: any), created before a serial (None: from the newest)."""

    scope: str
    state: State | None
    before: int | None
    rows_max: int


class ExperimentStore(Protocol):
    """Durable experiments and their sums. Every method raises StoreUnavailable.

    - Of experiments that would have requests in common at most one runs, however many are created at once on however many replicas.
    - A change is made once: of several who change the same version one does.
    - Experiments become visible in the order of their numbers: whoever has seen number n has seen what came before, or what became of it.
    - What a replica has seen counts once, however often it is kept; what several have seen adds up.
    """

    async def create(self, experiment: Experiment, *, request_id: str, fingerprint: bytes) -> Experiment:
        """Writes an experiment down, or gives what was written under the request_id.

        Raises RequestIdReused, ExperimentOverlaps, ExperimentsFull.
        """
        ...

    async def find(self, organization: str, experiment_id: str) -> Experiment | None:
        """One experiment."""
        ...

    async def listed(self, page: Page) -> list[Experiment]:
        """Experiments, newest first."""
        ...

    async def after(self, number: int, *, rows_max: int) -> list[Experiment]:
        """Experiments that changed after a number, in order; from 0 only those that run."""
        ...

    async def change(self, key: Key, standing: Standing, *, version: int) -> Experiment | None:
        """Lets a running experiment stand otherwise. None where somebody changed that version already."""
        ...

    async def keep(self, replica_id: str, tallies: Sequence[KeptTally]) -> None:
        """Keeps what a replica has seen in all, in the place of what it kept before."""
        ...

    async def tallies(self, keys: Collection[Key]) -> dict[Key, dict[tuple[int, str], Tally]]:
        """What all replicas together have seen, by step and arm."""
        ...

    async def forget(self, *, before: datetime, rows_max: int) -> int:
        """Deletes experiments that ended before a moment with their sums, at most so many; how many it were."""
        ...


class Decided(Protocol):
    """Who took part in which experiment, where that was a while ago or on another replica."""

    async def arms_of(self, organization: str, request_ids: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Experiment and arm by request, as far as they are known. Raises StoreUnavailable."""
        ...


class Scorer(Protocol):
    """Judges answers."""

    def scores(self, errand: Errand, finished: Finished) -> tuple[float, float] | None:
        """The quality of the served answer and of the shadow that was bought beside it, by one measure; None where there is none."""
        ...
