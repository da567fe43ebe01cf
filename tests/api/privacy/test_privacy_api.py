from __future__ import annotations

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc
from farthing.privacy.v1 import privacy_pb2 as pb
from farthing.privacy.v1.privacy_pb2_grpc import PrivacyServiceStub
from farthing_core.clock import SystemClock
from farthing_core.errors import FarthingError
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.status import StatusRow, error_info, rich_status

SCOPE = "organizations/acme"


class Gone(FarthingError):
    """The ledger's database is out of reach."""


class Ledger(budget_pb2_grpc.BudgetServiceServicer):
    """Answers QueryUsage from a table of users, two rows a page."""

    def __init__(self, users: int = 0) -> None:
        self.rows = [
            budget_pb2.UsageRow(
                scope=f"{SCOPE}/workspaces/w/projects/p/users/u{number:05}",
                requests=3,
                input_tokens=10,
                output_tokens=5,
                cost_usd_nanos=100,
            )
            for number in range(users)
        ]
        self.requests: list[Any] = []
        self.gone = False

    async def QueryUsage(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if self.gone:
            raise Gone("gone")
        start = int(request.page_token or 0)
        end = start + 2
        return budget_pb2.QueryUsageResponse(
            rows=self.rows[start:end], next_page_token=str(end) if end < len(self.rows) else ""
        )

    def peer(self) -> dict[str, ServiceBinding]:
        add = budget_pb2_grpc.add_BudgetServiceServicer_to_server
        table = {Gone: StatusRow(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")}
        return {"budget": ServiceBinding("farthing.budget.v1.BudgetService", add, self, table)}


def question(**changes: Any) -> pb.QueryPrivatelyRequest:
    fields: dict[str, Any] = {
        "request_id": str(uuid.uuid4()),
        "scope": SCOPE,
        "measure": pb.PRIVATE_MEASURE_COST_SUM,
        "epsilon_micros": 1_000_000,
        "contribution_max": 100,
    }
    return pb.QueryPrivatelyRequest(**{**fields, **changes})


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    status = rich_status(refused.value)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return refused.value.code(), info.reason, dict(info.metadata)


async def test_texts_are_masked_and_restored(api: Any) -> None:
    texts = ["Mail bob@example.com or call +1 (415) 555-2671.", "Nothing here.", "bob@example.com"]
    async with api("privacy", peers=Ledger().peer()) as channel_of:
        stub = PrivacyServiceStub(channel_of("privacy"))
        masked = await stub.MaskText(pb.MaskTextRequest(texts=texts))
        assert list(masked.texts) == ["Mail [EMAIL_1] or call [PHONE_1].", "Nothing here.", "[EMAIL_1]"]
        assert [span.kind for span in masked.spans] == [pb.MASK_KIND_EMAIL, pb.MASK_KIND_PHONE]
        restored = await stub.UnmaskText(pb.UnmaskTextRequest(texts=masked.texts, spans=masked.spans))
        assert list(restored.texts) == texts
        clean = await stub.MaskText(pb.MaskTextRequest(texts=["Nothing here."]))
        assert not clean.texts
        assert not clean.spans
        only = await stub.MaskText(pb.MaskTextRequest(texts=texts, kinds=[pb.MASK_KIND_PHONE]))
        assert [span.original for span in only.spans] == ["+1 (415) 555-2671"]


async def test_large_texts_are_masked_too(api: Any) -> None:
    text = "The farthing was a quarter of a penny. " * 5_000 + "bob@example.com"
    async with api("privacy", peers=Ledger().peer()) as channel_of:
        masked = await PrivacyServiceStub(channel_of("privacy")).MaskText(pb.MaskTextRequest(texts=[text]))
        assert masked.texts[0].endswith("penny. [EMAIL_1]")


@pytest.mark.parametrize(
    ("measure", "contribution_max", "exact"),
    [
        (pb.PRIVATE_MEASURE_COST_SUM, 100, 100 * 101),
        (pb.PRIVATE_MEASURE_COST_SUM, 40, 40 * 101),
        (pb.PRIVATE_MEASURE_TOKEN_SUM, 15, 15 * 101),
        (pb.PRIVATE_MEASURE_REQUEST_COUNT, 3, 3 * 101),
        (pb.PRIVATE_MEASURE_USER_COUNT, 0, 101),
    ],
)
async def test_an_answer_is_near_the_exact_one_over_all_pages(
    api: Any, measure: Any, contribution_max: int, exact: int
) -> None:
    async with api("privacy", peers=Ledger(users=101).peer()) as channel_of:
        stub = PrivacyServiceStub(channel_of("privacy"))
        answer = await stub.QueryPrivately(
            question(measure=measure, contribution_max=contribution_max, epsilon_micros=8_000_000)
        )
        assert abs(answer.value - exact) <= 10 * max(1, contribution_max)
        assert answer.epsilon_left_micros == 2_000_000
        assert answer.noise_half_width_95 < max(1, contribution_max)


async def test_the_ledger_is_asked_for_what_the_question_is_about(api: Any) -> None:
    ledger = Ledger(users=1)
    asked = question(scope=f"{SCOPE}/workspaces/w")
    asked.start_time.FromSeconds(1_700_000_000)
    asked.end_time.FromSeconds(1_700_086_400)
    async with api("privacy", peers=ledger.peer()) as channel_of:
        await PrivacyServiceStub(channel_of("privacy")).QueryPrivately(asked)
    (request,) = ledger.requests
    assert (request.scope, list(request.group_by)) == (asked.scope, [budget_pb2.USAGE_GROUP_SCOPE])
    assert (request.start_time, request.end_time) == (asked.start_time, asked.end_time)


async def test_a_repeat_gives_the_same_answer_and_is_charged_once(api: Any) -> None:
    asked = question(epsilon_micros=5_000)
    async with api("privacy", peers=Ledger(users=5).peer()) as channel_of:
        stub = PrivacyServiceStub(channel_of("privacy"))
        answers = await asyncio.gather(*(stub.QueryPrivately(asked) for _ in range(8)))
        assert all(answer == answers[0] for answer in answers)
        account = await stub.GetPrivacyBudget(pb.GetPrivacyBudgetRequest(scope=f"{SCOPE}/workspaces/w"))
        assert (account.epsilon_total_micros, account.epsilon_spent_micros) == (10_000_000, 5_000)
        asked.contribution_max = 101
        code, reason, _ = await refusal(stub.QueryPrivately(asked))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_what_is_left_is_never_passed(api: Any) -> None:
    environment = {"FARTHING_PRIVACY_EPSILON_TOTAL_MICROS": "2500000"}
    async with api("privacy", peers=Ledger(users=5).peer(), environment=environment) as channel_of:
        stub = PrivacyServiceStub(channel_of("privacy"))
        results = await asyncio.gather(*(stub.QueryPrivately(question()) for _ in range(12)), return_exceptions=True)
        assert sum(isinstance(result, pb.QueryPrivatelyResponse) for result in results) == 2
        facts = {"subject": SCOPE, "asked_micros": "1000000", "left_micros": "500000", "total_micros": "2500000"}
        expected = (grpc.StatusCode.RESOURCE_EXHAUSTED, "PRIVACY_BUDGET_EXHAUSTED", facts)
        assert await refusal(stub.QueryPrivately(question())) == expected
        assert (await stub.QueryPrivately(question(scope="organizations/other"))).epsilon_left_micros == 1_500_000


async def test_nothing_is_charged_when_the_ledger_is_out_of_reach(api: Any) -> None:
    ledger = Ledger(users=5)
    ledger.gone = True
    asked = question()
    async with api("privacy", peers=ledger.peer()) as channel_of:
        stub = PrivacyServiceStub(channel_of("privacy"))
        code, reason, _ = await refusal(stub.QueryPrivately(asked))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "LEDGER_UNAVAILABLE")
        assert (await stub.GetPrivacyBudget(pb.GetPrivacyBudgetRequest(scope=SCOPE))).epsilon_spent_micros == 0
        ledger.gone = False
        assert (await stub.QueryPrivately(asked)).epsilon_left_micros == 9_000_000


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"contribution_max": 0}, "contribution_max"),
        ({"contribution_max": -1}, "contribution_max"),
        ({"epsilon_micros": 999}, "epsilon_micros"),
        ({"measure": 0}, "measure"),
        ({"scope": "acme"}, "scope"),
        ({"request_id": "1"}, "request_id"),
    ],
)
async def test_bad_questions_are_refused_by_field(api: Any, changes: dict[str, Any], field: str) -> None:
    async with api("privacy", peers=Ledger().peer()) as channel_of:
        code, _, facts = await refusal(PrivacyServiceStub(channel_of("privacy")).QueryPrivately(question(**changes)))
        assert (code, facts["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, field)


async def test_a_time_range_that_ends_before_it_starts_is_refused(api: Any) -> None:
    asked = question()
    asked.start_time.FromSeconds(2_000)
    asked.end_time.FromSeconds(1_000)
    async with api("privacy", peers=Ledger().peer()) as channel_of:
        code, _, facts = await refusal(PrivacyServiceStub(channel_of("privacy")).QueryPrivately(asked))
        assert (code, facts["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, "end_time")


async def test_usage_that_the_real_ledger_wrote_down_is_counted(api: Any) -> None:
    async with api("privacy", "budget") as channel_of:
        ledger = budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))
        line = budget_pb2.UsageLine(
            model="m", provider="p", input_tokens=10, output_tokens=5, cost_usd_nanos=1_000, outcome="accepted"
        )
        usage = budget_pb2.UsageRecord(task="chat", lines=[line], baseline_usd_nanos=1_000)
        for user in range(6):
            scope = f"{SCOPE}/workspaces/w/projects/p/users/u{user}"
            await ledger.RecordUsage(budget_pb2.RecordUsageRequest(request_id=str(uuid.uuid4()), scope=scope, usage=usage))
        stub = PrivacyServiceStub(channel_of("privacy"))
        asked = question(measure=pb.PRIVATE_MEASURE_TOKEN_SUM, contribution_max=15, epsilon_micros=10_000_000)
        asked.end_time.FromDatetime(SystemClock().now())
        asked.start_time.FromSeconds(asked.end_time.seconds - 86_400)
        answer = await stub.QueryPrivately(asked)
        assert abs(answer.value - 90) <= 45
