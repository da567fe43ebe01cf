"""What an experiment is, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Literal

from farthing_core.errors import FarthingError

from farthing_router.routing.rules import Action

Sticky = Literal["user", "session", "request"]


class ExperimentUnknown(FarthingError):
    """An experiment that the scope does not have."""

    def __init__(self, *, experiment_id: str) -> None:
        super().__init__(f"there is no experiment {experiment_id!r} in this scope", experiment_id=experiment_id)


class ExperimentOverlaps(FarthingError):
    """Another experiment runs on requests that would belong to this one, too."""

    def __init__(self, *, experiment_id: str, scope: str, task: str) -> None:
        where = f"{scope}, {f'task {task}' if task else 'every task'}"
        super().__init__(
            f"experiment {experiment_id} runs on some of the same requests ({where}): stop it first",
            experiment_id=experiment_id,
        )


class ExperimentsFull(FarthingError):
    """As many experiments run as may at once."""

    def __init__(self, *, where: str, running_max: int) -> None:
        super().__init__(f"{running_max} experiments run {where}, which is all that may at once", running_max=running_max)


class Kind(IntEnum):
    """What kind of experiment; the numbers are the contract's."""

    AB = 1
    SHADOW = 2
    CANARY = 3


class Metric(IntEnum):
    """What is compared; the numbers are the contract's."""

    QUALITY = 1
    COST = 2
    LATENCY = 3
    ERROR_RATE = 4


class State(IntEnum):
    """What becomes of an experiment; the numbers are the contract's."""

    RUNNING = 1
    STOPPED_FOR_HARM = 2
    CONCLUDED = 3
    STOPPED = 4


@dataclass(frozen=True, slots=True)
class Arm:
    """One side: a model, a calibration or an action; with none of them, whatever would be done without the experiment."""

    name: str
    model: str = ""
    calibration_id: str = ""
    action: Action | None = None
    share: float = 0.0

    @property
    def as_usual(self) -> bool:
        """Whether nothing is changed for its requests."""
        return not self.model and not self.calibration_id and self.action is None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an experiment stands. `step` counts a canary's shares from 0; `version` counts changes from 1."""

    state: State = State.RUNNING
    reason: str = ""
    step: int = 0
    winner: str = ""
    stopped_at: datetime | None = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A comparison between arms, the first of which is what the others are compared with. `number` grows with every change of any
    experiment, `serial` is the number at the beginning.
    """

    experiment_id: str
    scope: str
    task: str
    display_name: str
    kind: Kind
    arms: tuple[Arm, ...]
    metric: Metric
    harm_max: float
    confidence: float
    requests_max: int
    end_at: datetime | None
    sticky: Sticky
    canary_shares: tuple[float, ...]
    created_at: datetime
    standing: Standing = Standing()
    number: int = 0
    serial: int = 0

    @property
    def organization(self) -> str:
        """The organisation's name."""
        return self.scope.split("/", 2)[1]

    @property
    def key(self) -> tuple[str, str]:
        """Its name among all."""
        return self.organization, self.experiment_id

    @property
    def running(self) -> bool:
        """Whether it is under way."""
        return self.standing.state is State.RUNNING

    @property
    def canary_share(self) -> float:
        """A canary's share now."""
        return self.canary_shares[min(self.standing.step, len(self.canary_shares) - 1)]

    @property
    def at_last_step(self) -> bool:
        """Whether a canary has reached its last share."""
        return self.standing.step >= len(self.canary_shares) - 1

    def shares(self) -> tuple[float, ...]:
        """The share of requests that each arm has now. Of a shadow, the first serves all and the others are asked beside on theirs."""
        if not self.running:
            return (0.0,) * len(self.arms)
        if self.kind is Kind.CANARY:
            return 1.0 - self.canary_share, self.canary_share
        if self.kind is Kind.SHADOW:
            return 1.0, *(arm.share for arm in self.arms[1:])
        return tuple(arm.share for arm in self.arms)

    def covers(self, scope: str, task: str) -> bool:
        """Whether requests of a scope and task are its own."""
        return (not self.task or self.task == task) and (scope == self.scope or scope.startswith(f"{self.scope}/"))
