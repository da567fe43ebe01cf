"""Every way in which the ledger says no, with the facts that go with it."""

from __future__ import annotations

from farthing_core.errors import FarthingError

from farthing_budget.decisions import Decision


class BudgetExhausted(FarthingError):
    """What was asked does not fit the budgets of its path. The facts name the one that stands in the way most.

    `retry_after_s` runs until there is room again; 0 where waiting does not help.
    """

    def __init__(self, decision: Decision) -> None:
        objection = decision.objection
        assert objection is not None
        terms = objection.terms
        free = max(0, objection.free)
        fewer = max((each.output_tokens_max for each in decision.alternatives), default=0)
        super().__init__(
            f"budget {terms.display_name or terms.budget_id} of {terms.scope} has {free} {objection.unit_name} left"
            f"{_WHY[objection.reason]}; asked for {objection.asked}",
            budget_id=terms.budget_id,
            scope=terms.scope,
            subject=terms.scope,
            unit=objection.unit_name,
            asked=objection.asked,
            free=free,
            verdict=decision.verdict.name,
            cause=decision.reason,
            output_tokens_max=fewer,
            alternatives=",".join(each.kind for each in decision.alternatives),
        )
        self.decision = decision
        self.retry_after_s = decision.retry_after_s


class BudgetDegraded(BudgetExhausted):
    """Only open models may be used now."""


_WHY = {
    "LIMIT": "",
    "SOFT_LIMIT": " below its soft limit, so only open models may be used",
    "VELOCITY": " and would end before its period does, so only open models may be used",
}


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


class ReservationOpen(FarthingError):
    """The hold has not been settled: there is nothing to correct yet."""

    def __init__(self, *, request_id: str) -> None:
        super().__init__(f"reservation {request_id} has not been settled", request_id=request_id)


class BudgetExists(FarthingError):
    """The scope has a budget of this period for the same work already."""

    def __init__(self, *, scope: str, period: str) -> None:
        super().__init__(f"{scope} has a budget per {period} for the same work already", scope=scope, period=period)


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


class AlertRuleNotFound(FarthingError):
    """No such alert rule in this organisation."""

    def __init__(self, *, alert_rule_id: str) -> None:
        super().__init__(f"no alert rule {alert_rule_id}", alert_rule_id=alert_rule_id)


class AlertRulesFull(FarthingError):
    """The organisation has as many alert rules as it may."""

    def __init__(self, *, organization: str, rules_max: int) -> None:
        super().__init__(f"{organization} has {rules_max} alert rules already", organization=organization, rules_max=rules_max)
