"""The journal and whose books there are, through the stub."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc


async def test_organizations_are_listed_page_by_page_each_once(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        assert list((await stub.ListOrganizations(budget_pb2.ListOrganizationsRequest())).scopes) == []
        for name in ("c", "a", "e", "b", "d", "a"):
            request = budget_pb2.ReserveBudgetRequest(
                request_id=str(uuid.uuid4()), scope=f"organizations/{name}", amount_usd_nanos=1
            )
            await stub.ReserveBudget(request)
        found, token = [], ""
        while True:
            asked = budget_pb2.ListOrganizationsRequest(page_size=2, page_token=token)
            page = await stub.ListOrganizations(asked)
            found.append(list(page.scopes))
            token = page.next_page_token
            if not token:
                break
        assert found == [[f"organizations/{name}" for name in names] for names in ("ab", "cd", "e")]


@pytest.mark.parametrize("token", ["nonsense", "WyJhIiwgImIiXQ=="])
async def test_a_page_token_that_is_not_ours_is_refused(api: Any, token: str) -> None:
    async with api("budget") as channel_of:
        stub = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListOrganizations(budget_pb2.ListOrganizationsRequest(page_token=token))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
