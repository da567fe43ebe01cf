"""RPCs that read the journal and prove the balances by it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.journal import EntriesQuestion
from farthing_budget.store import JournalStore

_PAGE_SIZE = 100


class JournalRpcs:
    """The journal."""

    def __init__(self, *, journal: JournalStore) -> None:
        self._journal = journal

    async def ListEntries(self, request: Any, context: Any) -> Any:
        """Lists entries."""
        scope, size = parse_scope(request.scope), request.page_size or _PAGE_SIZE
        question = EntriesQuestion(
            organization=scope.organization,
            scope=scope.path,
            request_id=messages.text(request.request_id.lower(), field="request_id"),
            budget_id=messages.text(request.budget_id, field="budget_id"),
            page_size=size + 1,
            before=_before(request.page_token),
        )
        found = await self._journal.entries(question)
        last = found[size - 1] if len(found) > size else None
        token = messages.page_token((last.at.isoformat(), str(last.entry_id))) if last else ""
        return budget_pb2.ListEntriesResponse(entries=[messages.entry(each) for each in found[:size]], next_page_token=token)

    async def VerifyLedger(self, request: Any, context: Any) -> Any:
        """Proves the balances."""
        proof = await self._journal.verify(parse_scope(request.scope).organization)
        return budget_pb2.VerifyLedgerResponse(entries=proof.entries, balances=proof.balances, differences=proof.differences)

    async def ListOrganizations(self, request: Any, context: Any) -> Any:
        """Lists organisations."""
        size = request.page_size or _PAGE_SIZE
        found = await self._journal.organizations(after=_after(request.page_token), count_max=size + 1)
        token = messages.page_token((found[size - 1],)) if len(found) > size else ""
        scopes = [f"organizations/{name}" for name in found[:size]]
        return budget_pb2.ListOrganizationsResponse(scopes=scopes, next_page_token=token)


def _after(token: str) -> str:
    keys = messages.page_keys(token)
    if keys is not None and len(keys) != 1:
        raise FieldInvalid(field="page_token", problem="is not one of ours")
    return keys[0] if keys else ""


def _before(token: str) -> tuple[datetime, int] | None:
    keys = messages.page_keys(token)
    if keys is None:
        return None
    try:
        at, number = keys
        return datetime.fromisoformat(at), int(number)
    except ValueError as error:
        raise FieldInvalid(field="page_token", problem="is not one of ours") from error
