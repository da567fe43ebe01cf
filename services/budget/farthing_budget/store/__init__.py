"""What the ledger needs of a database. The promises are tested in tests/contract/test_ledger_store.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from farthing_core.scopes import Scope

from farthing_budget.alerts import Alert, AlertsQuestion, Finding, Rule, RuleChange, RuleDraft
from farthing_budget.buckets import Admission, Admitted
from farthing_budget.budgets import Budget, Change, Draft, Terms
from farthing_budget.decisions import Decision, Need
from farthing_budget.delivering import Due
from farthing_budget.exports import ExportQuestion, ExportRow
from farthing_budget.invoices import Invoice, Moments, Suspended
from farthing_budget.journal import EntriesQuestion, Verification
from farthing_budget.lane import Verdict
from farthing_budget.operations import Entry, Hold, Operation, Work
from farthing_budget.questions import UsageQuestion, UsageSum
from farthing_budget.rate_limits import RateLimit, RateLimitDraft
from farthing_budget.reconciling import Comparison, ImportKey
from farthing_budget.reports import Allocated, AllocationQuestion
from farthing_budget.sizing.counts import Counts
from farthing_budget.sizing.learner import StreamKey


class LedgerStore(Protocol):
    """Applies operations: exactly, durably, all or none, whatever other processes do at the same time."""

    async def commit(self, operations: Sequence[Operation]) -> list[Verdict]:
        """Applies operations in order in one transaction; a refused one changes nothing and does not disturb the others.

        Operations that the database itself will not take are separated from the others, which then take several transactions. A limit
        that was changed before this call is kept to.

        Raises StoreUnavailable when the database is out of reach, and LedgerBusy when others would not let go of the rows: then nothing
        was done, or (if the connection broke while committing) all of it was; repeating with the same request ids tells.
        """
        ...

    async def check(self, scope: Scope, need: Need, work: Work) -> Decision:
        """What a reservation would be answered. Raises StoreUnavailable."""
        ...

    async def find(self, scope: Scope, request_id: str) -> tuple[Hold, list[Entry]]:
        """A hold with its entries in the journal, oldest first. Raises ReservationNotFound and StoreUnavailable."""
        ...

    async def lapsed(self, count_max: int) -> list[tuple[str, str]]:
        """At most `count_max` (scope, request_id) of open holds whose time is up, the oldest first. Raises StoreUnavailable."""
        ...


class BudgetStore(Protocol):
    """Keeps budgets. Everything here may raise StoreUnavailable."""

    async def create(self, draft: Draft) -> Budget:
        """Makes a budget. The same request_id and body give the same budget, as it is now.

        Raises BudgetExists, RequestIdReused for another body, and BudgetNotFound when that budget was deleted since.
        """
        ...

    async def get(self, organization: str, budget_id: str) -> Budget:
        """A budget. Raises BudgetNotFound, also for one of another organisation."""
        ...

    async def list_from(self, scope: Scope, *, after: tuple[str, int, str] | None, count_max: int) -> list[Budget]:
        """Budgets at and below a scope, by scope, period and id, from behind `after`."""
        ...

    async def on_path(self, scope: Scope) -> list[Budget]:
        """The budgets of a scope and its ancestors, outermost first."""
        ...

    async def terms_of(self, organization: str, scopes: Sequence[str]) -> list[Terms]:
        """The terms of every budget on these very scopes."""
        ...

    async def update(self, organization: str, budget_id: str, change: Change) -> Budget:
        """Changes a budget; what is committed to the ledger afterwards keeps to it.

        Raises BudgetNotFound, VersionMismatch, FieldInvalid, and LedgerBusy where others would not let go of the balances.
        """
        ...

    async def delete(self, organization: str, budget_id: str) -> None:
        """Ends a budget; holds that were charged to it can still settle. Raises BudgetNotFound."""
        ...


class JournalStore(Protocol):
    """Reads the journal. Everything here may raise StoreUnavailable."""

    async def entries(self, question: EntriesQuestion) -> list[Entry]:
        """A page of entries, newest first."""
        ...

    async def organizations(self, *, after: str, count_max: int) -> list[str]:
        """The organisations that have entries, in order, from behind `after`."""
        ...

    async def verify(self, organization: str) -> Verification:
        """Recomputes every balance of an organisation from the journal, and what is held from the open holds, and compares."""
        ...


class UsageStore(Protocol):
    """Answers questions about usage from the roll-ups, never from raw rows. Everything here may raise StoreUnavailable."""

    async def sums(self, question: UsageQuestion) -> list[UsageSum]:
        """A page of sums, ordered by their keys, or the dearest where those are asked for."""
        ...

    async def allocation(self, question: AllocationQuestion) -> tuple[list[Allocated], Allocated]:
        """The dearest groups of a range, at most one more than the lines that are asked for, and the sum of all."""
        ...


class RateLimitStore(Protocol):
    """Keeps rate limits. Everything here may raise StoreUnavailable."""

    async def create(self, draft: RateLimitDraft) -> RateLimit:
        """Makes a rate limit. The same request_id and body give the same one.

        Raises RateLimitExists, RateLimitsTooMany, RequestIdReused for another body, and RateLimitNotFound when it was deleted since.
        """
        ...

    async def list_from(self, scope: Scope, *, after: tuple[str, str] | None, count_max: int) -> list[RateLimit]:
        """Rate limits at and below a scope, by scope and model, from behind `after`."""
        ...

    async def delete(self, organization: str, rate_limit_id: str) -> None:
        """Ends a rate limit. Raises RateLimitNotFound."""
        ...

    async def limits_of(self, organization: str) -> tuple[int, Sequence[RateLimit]]:
        """All rate limits of an organisation, and the epoch of its last change: 0 when there never was one."""
        ...

    async def last_epoch(self) -> int:
        """The epoch of the last change of any organisation. Epochs are seen in their order: none appears below one seen before."""
        ...

    async def changed_since(self, epoch: int, *, count_max: int) -> Sequence[tuple[str, int]]:
        """Organisations whose limits changed after an epoch, each with the epoch of that change, in order."""
        ...


class RateBuckets(Protocol):
    """Keeps the buckets of rate limits and the admissions of the last ten minutes. May forget, and then lets too much through once.

    Tested in tests/contract/test_rate_limit_buckets.py.
    """

    async def take(self, admission: Admission) -> Admitted:
        """Takes what is asked of every bucket, or of none and raises RateLimited; as if callers came one after the other.

        A repeat within ten minutes takes nothing and is answered as the first; with another body it raises RequestIdReused. What was
        refused was never there. Raises BucketsAway.
        """
        ...

    async def finish(self, organization: str, request_id: str, tokens: int | None) -> None:
        """Gives concurrency back and corrects tokens to what was used (None leaves them), once; unknown admissions are let be.

        Without it, concurrency comes back when the admission's `ttl_s` is over. Raises BucketsAway.
        """


class AlertStore(Protocol):
    """Keeps alert rules and what they raised. Everything here may raise StoreUnavailable. No secret ever leaves it but by `claim`."""

    async def create(self, draft: RuleDraft) -> Rule:
        """Makes a rule. The same request_id and body give the same rule, as it is now.

        Raises AlertRulesFull, RequestIdReused for another body, and AlertRuleNotFound when that rule was deleted since.
        """
        ...

    async def list_from(self, scope: Scope, *, after: tuple[str, str] | None, count_max: int) -> list[Rule]:
        """Rules at and below a scope, by scope and id, from behind `after`."""
        ...

    async def update(self, organization: str, rule_id: str, change: RuleChange) -> Rule:
        """Changes a rule. Raises AlertRuleNotFound, and FieldInvalid for what does not fit its kind."""
        ...

    async def delete(self, organization: str, rule_id: str) -> None:
        """Ends a rule and forgets its channels. Raises AlertRuleNotFound."""
        ...

    async def rules(self, organization: str) -> tuple[list[Rule], int]:
        """All rules of an organisation, without addressees, and the epoch at which they were so."""
        ...

    async def epochs(self, organizations: Sequence[str]) -> dict[str, int]:
        """Numbers that grow whenever a rule is made, changed or deleted; none where there never was one."""
        ...

    async def organizations(self, *, after: str, count_max: int) -> list[str]:
        """Organisations, by name, that have rules or budgets with a velocity measure."""
        ...

    async def noticed(self) -> list[str]:
        """Some organisations with notices that nobody took up yet."""
        ...

    async def drain(self, organization: str) -> int:
        """Takes up the notices of an organisation: in one transaction they go, and what they call for is raised. Returns how many were."""
        ...

    async def resets(self, organization: str) -> dict[str, int]:
        """How often budgets were reset, by budget; those that never were are left out."""
        ...

    async def raise_all(self, organization: str, findings: Sequence[Finding]) -> int:
        """Raises what is not raised already, with a delivery for each channel of its rule: all in one transaction.

        Exactly one of any number of callers raises an alert. Returns how many this one raised.
        """
        ...

    async def alerts(self, question: AlertsQuestion) -> list[Alert]:
        """A page of alerts with their deliveries, newest first."""
        ...

    async def forget(self, before: datetime) -> None:
        """Deletes alerts that were raised before a moment."""
        ...


class DeliveryStore(Protocol):
    """Deliveries that are due. Everything here may raise StoreUnavailable."""

    async def claim(self, *, count_max: int, lease_s: float) -> list[Due]:
        """Deliveries that are due, for this caller alone until the lease ends; each claim counts as an attempt."""
        ...

    async def delivered(self, due: Due) -> None:
        """It arrived."""
        ...

    async def failed(self, due: Due, error: str, *, next_at: datetime | None) -> None:
        """It did not arrive: it is due again at a moment, or given up. Says nothing where it arrived meanwhile."""
        ...


class ExportStore(Protocol):
    """Reads usage rows."""

    def pages(self, question: ExportQuestion) -> AsyncIterator[list[ExportRow]]:
        """The rows of a range in the order in which they were written, a page at a time; keeps no connection between pages.

        Raises StoreUnavailable.
        """
        ...


class Shared(NamedTuple):
    """What all replicas know of the keys that changed, and up to when that is."""

    counts: Mapping[StreamKey, Counts]
    latest: datetime


class LengthStore(Protocol):
    """Keeps what is learned of the lengths of answers. Everything here may raise StoreUnavailable."""

    async def exchange(self, fresh: Mapping[StreamKey, Counts], *, after: datetime | None) -> Shared:
        """Adds what is fresh to what is kept, all of it or nothing, and returns every key that anybody changed `after`; None: ever.

        What is kept is bounded: of each organisation the keys changed last. What cannot be read is logged and left out.
        """
        ...


class InvoiceStore(Protocol):
    """Keeps compared invoices, and knows what comparing them takes. Everything here may raise StoreUnavailable."""

    async def find(self, key: ImportKey) -> Comparison | None:
        """What the same request found before. Raises RequestIdReused for another body."""
        ...

    async def keep(self, key: ImportKey, invoice: Invoice, comparison: Comparison, *, now: datetime) -> Comparison:
        """Keeps a comparison; gives the one that the same request made in the meantime, if it did. Raises RequestIdReused."""
        ...

    async def suspended(self, invoice: Invoice) -> list[Suspended]:
        """What is in suspense of calls in the days of an invoice."""
        ...

    async def moments(self, invoice: Invoice) -> dict[str, Moments]:
        """What the rates are worked out from that usage was charged at, by model."""
        ...
