"""Every way in which the ledger says no, with the facts that go with it."""

from __future__ import annotations

from farthing_core.errors import FarthingError


class BudgetExhausted(FarthingError):
    """What was asked does not fit a budget on the path.

    The budget named is the one with the least left of those that it does not fit; `retry_after_s` runs until all of those have
    started afresh.
    """

    def __init__(
        self, *, budget_id: str, scope: str, display_name: str, unit: str, asked: int, free: int, retry_after_s: float
    ) -> None:
        super().__init__(
            f"budget {display_name or budget_id} of {scope} has {free} {unit} left; asked for {asked}",
            budget_id=budget_id,
            scope=scope,
            subject=scope,
            unit=unit,
            asked=asked,
            free=free,
        )
        self.retry_after_s = retry_after_s


class RequestIdReused(FarthingError):
    """A request_id that came before with another body."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"request_id {request_id} was used before with another body", request_id=request_id)


class ReservationNotFound(FarthingError):
    """No reservation of this id in this organisation."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"no reservation {request_id}", request_id=request_id)


class ReservationReleased(FarthingError):
    """The hold was given back: there is nothing to settle."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"reservation {request_id} was released", request_id=request_id)


class ReservationSettled(FarthingError):
    """The hold was settled: there is nothing to give back."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"reservation {request_id} was settled", request_id=request_id)


class BudgetExists(FarthingError):
    """The scope has a budget of this period already."""

    def __init__(self, *, scope: str, period: str) -> None:
        super().__init__(f"{scope} has a budget per {period} already", scope=scope, period=period)


class BudgetNotFound(FarthingError):
    """No such budget in this organisation."""

    def __init__(self, *, budget_id: str) -> None:
        super().__init__(f"no budget {budget_id}", budget_id=budget_id)


class VersionMismatch(FarthingError):
    """The budget was changed since the caller saw it."""

    def __init__(self, *, budget_id: str, version: int, asked: int) -> None:
        super().__init__(f"budget {budget_id} is at version {version}, not {asked}", budget_id=budget_id, version=version)


class StoreUnavailable(FarthingError):
    """The database is out of reach, read-only or full; nothing was granted."""

    unreachable = True

    def __init__(self) -> None:
        super().__init__("the ledger's database is out of reach")
        self.retry_after_s = 1.0


class LedgerBusy(FarthingError):
    """Others kept changing the same rows for as long as we tried."""

    unreachable = True

    def __init__(self) -> None:
        super().__init__("the ledger is busy; nothing was done")
        self.retry_after_s = 0.5
