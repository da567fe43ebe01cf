"""Alert rules and alerts through the generated stub, over both transports, with real receivers on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import grpc
import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP
from farthing.budget.v1 import budget_pb2, budget_pb2_grpc

ORGANIZATION = "organizations/acme"
WORKSPACE = f"{ORGANIZATION}/workspaces/search"
PROJECT = f"{WORKSPACE}/projects/ranker"
SECRET = "a secret of many characters"
QUICK = {"FARTHING_BUDGET_ALERT_PRIVATE_ADDRESSES": "true", "FARTHING_BUDGET_ALERT_POLL_S": "0.05"}
PERCENT, DAILY, OVERRUN = (
    budget_pb2.ALERT_KIND_BUDGET_PERCENT,
    budget_pb2.ALERT_KIND_DAILY_COST,
    budget_pb2.ALERT_KIND_OVERRUN,
)


class Receiver:
    """An HTTP server that keeps what it is sent and answers with the statuses it is given, then with 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.received.append((request.path_qs, dict(request.headers), await request.read()))
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, text="x" * 1_000_000, headers={"Location": f"{self.url}/elsewhere"})


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{anywhere:.*}", receiver.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


class Postbox:
    """What a real SMTP server hands to."""

    def __init__(self) -> None:
        self.letters: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.letters.append(envelope)
        return "250 taken"


def stub_of(channel_of: Any) -> Any:
    return budget_pb2_grpc.BudgetServiceStub(channel_of("budget"))


def webhook(url: str, secret: str = SECRET) -> Any:
    return budget_pb2.AlertChannel(webhook=budget_pb2.WebhookChannel(url=url, secret=secret))


def slack(url: str) -> Any:
    return budget_pb2.AlertChannel(slack=budget_pb2.SlackChannel(url=url))


def email(address: str) -> Any:
    return budget_pb2.AlertChannel(email=budget_pb2.EmailChannel(address=address))


async def make_rule(stub: Any, kind: int = PERCENT, *, scope: str = ORGANIZATION, **values: Any) -> Any:
    values.setdefault("request_id", str(uuid.uuid4()))
    made = await stub.CreateAlertRule(budget_pb2.CreateAlertRuleRequest(scope=scope, kind=kind, **values))
    return made.alert_rule


async def make_budget(stub: Any, scope: str, limit: int, **values: Any) -> Any:
    asked = {"request_id": str(uuid.uuid4()), "scope": scope, "period": budget_pb2.PERIOD_MONTH, "limit_usd_nanos": limit}
    return (await stub.CreateBudget(budget_pb2.CreateBudgetRequest(**asked, **values))).budget


async def spend(stub: Any, cost: int, *, scope: str = PROJECT) -> None:
    lines = [budget_pb2.UsageLine(model="m", provider="p", input_tokens=1, cost_usd_nanos=cost, outcome="accepted")]
    usage = budget_pb2.UsageRecord(task="chat", lines=lines, baseline_usd_nanos=cost)
    await stub.RecordUsage(budget_pb2.RecordUsageRequest(request_id=str(uuid.uuid4()), scope=scope, usage=usage))


async def alerts(stub: Any, scope: str = ORGANIZATION, **values: Any) -> list[Any]:
    return list((await stub.ListAlerts(budget_pb2.ListAlertsRequest(scope=scope, **values))).alerts)


async def until(holds: Callable[[], Awaitable[Any]]) -> Any:
    """Waits for what the service does beside answering; returns what came of it."""
    deadline = time.monotonic() + 20
    while not (found := await holds()):
        assert time.monotonic() < deadline, "waited for 20 s in vain"
        await asyncio.sleep(0.02)
    return found


async def raised(stub: Any, count: int, *, state: str = "") -> list[Any]:
    """The alerts, once there are so many whose deliveries are all in a state."""

    async def enough() -> list[Any]:
        found = await alerts(stub)
        done = all(each.state == state for alert in found for each in alert.deliveries) if state else True
        return found if len(found) >= count and done else []

    found: list[Any] = await until(enough)
    assert len(found) == count
    return found


async def refused(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return refusal.value.code(), refusal.value.details() or ""


async def test_a_webhook_gets_each_threshold_once_signed_after_it_failed_twice(api: Any) -> None:
    async with receiving() as receiver, api("budget", environment=QUICK) as channel_of:
        stub = stub_of(channel_of)
        receiver.statuses = [500]
        budget = await make_budget(stub, WORKSPACE, 1_000, display_name="Search")
        rule = await make_rule(stub, channels=[webhook(f"{receiver.url}/hook?token=abc")], percents=[50])
        await spend(stub, 499)
        assert await alerts(stub) == []
        await spend(stub, 1)
        (alert,) = await raised(stub, 1)
        assert (alert.kind, alert.scope, alert.budget_id, alert.threshold, alert.observed, alert.unit, alert.alert_rule_id) == (
            PERCENT,
            WORKSPACE,
            budget.budget_id,
            50,
            50,
            "nanodollars",
            rule.alert_rule_id,
        )
        assert alert.period_start_time == budget.period_start_time
        assert "Search" in alert.message
        (alert,) = await raised(stub, 1, state="DELIVERED")
        (delivery,) = alert.deliveries
        assert (delivery.channel, delivery.attempts, delivery.error) == ("webhook", 2, "")
        assert delivery.addressee == f"{receiver.url}/hook?…"
        assert [path for path, _, _ in receiver.received] == ["/hook?token=abc"] * 2
        for _, headers, body in receiver.received:
            signed_at, digest = headers["X-Farthing-Signature"].split(",")
            seconds = signed_at.removeprefix("t=")
            expected = hmac.new(SECRET.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
            assert digest == f"v1={expected}"
            assert abs(int(seconds) - time.time()) < 60
        assert len({headers["Idempotency-Key"] for _, headers, _ in receiver.received}) == 1
        told = json.loads(receiver.received[0][2])
        assert (told["alert_id"], told["kind"], told["threshold"]) == (alert.alert_id, "ALERT_KIND_BUDGET_PERCENT", 50)
        assert SECRET not in receiver.received[0][2].decode()


async def test_slack_and_e_mail_get_it_in_their_own_format(api: Any) -> None:
    postbox = Postbox()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(postbox), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    smtp = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(port), "SMTP_SECURITY": "none", "SMTP_SENDER": "farthing@acme.test"}
    environment = QUICK | {f"FARTHING_BUDGET_{name}": value for name, value in smtp.items()}
    async with server, receiving() as receiver, api("budget", environment=environment) as channel_of:
        stub = stub_of(channel_of)
        await make_budget(stub, PROJECT, 1_000, display_name="<!channel> & co\u2028Bcc: eve@evil.test")
        channels = [slack(f"{receiver.url}/services/T0/B0/hush"), email("ann@acme.test")]
        await make_rule(stub, channels=channels, percents=[80])
        await spend(stub, 900)
        (alert,) = await raised(stub, 1, state="DELIVERED")
        assert [each.addressee for each in alert.deliveries] == [f"{receiver.url}/…", "ann@acme.test"]
    message = json.loads(receiver.received[0][2])
    assert "reached 80 %" in message["text"]
    assert "<!channel>" not in json.dumps(message)
    assert message["blocks"][0]["text"]["type"] == "mrkdwn"
    (letter,) = postbox.letters
    assert (letter.mail_from, letter.rcpt_tos) == ("farthing@acme.test", ["ann@acme.test"])
    head = letter.content.decode().split("\r\n\r\n", 1)[0]
    assert "\nBcc:" not in head
    assert f"Message-ID: <{alert.alert_id}." in head.replace("\r\n ", " ")


async def test_a_delivery_that_is_given_up_names_no_secret_in_answers_and_logs(api: Any, capfd: Any) -> None:
    environment = QUICK | {"FARTHING_BUDGET_ALERT_ATTEMPTS_MAX": "1"}
    async with api("budget", environment=environment) as channel_of:
        stub = stub_of(channel_of)
        await make_budget(stub, PROJECT, 100)
        channels = [webhook("http://127.0.0.1:1/hush?token=hush", "hush hush hush hush"), slack("http://127.0.0.1:1/hush")]
        await make_rule(stub, channels=channels, percents=[50])
        await spend(stub, 60)
        (alert,) = await raised(stub, 1, state="GIVEN_UP")
        assert {each.error for each in alert.deliveries} == {"no connection"}
    told = capfd.readouterr()
    assert "could not be delivered" in told.out + told.err
    assert "hush" not in str(alert.deliveries).replace("http://127.0.0.1:1/hush?…", "") + told.out + told.err


async def test_alerting_goes_on_after_every_connection_broke(api: Any, database_url: str) -> None:
    async with receiving() as receiver, api("budget", environment=QUICK) as channel_of:
        stub = stub_of(channel_of)
        await make_budget(stub, PROJECT, 100)
        await make_rule(stub, channels=[webhook(f"{receiver.url}/hook")], percents=[50, 80])
        await spend(stub, 60)
        await raised(stub, 1, state="DELIVERED")
        connection = await asyncpg.connect(database_url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()

        async def spent() -> bool:
            try:
                await spend(stub, 30)
            except grpc.aio.AioRpcError:  # one call may find a connection broken
                return False
            return True

        await until(spent)
        await raised(stub, 2, state="DELIVERED")
        assert [json.loads(body)["threshold"] for _, _, body in receiver.received] == [50, 80]


async def test_a_redirect_is_a_failure_and_is_not_followed(api: Any) -> None:
    async with receiving() as receiver, api("budget", environment=QUICK) as channel_of:
        stub = stub_of(channel_of)
        receiver.statuses = [302, 302]
        await make_budget(stub, PROJECT, 100)
        await make_rule(stub, channels=[webhook(f"{receiver.url}/hook")], percents=[50])
        await spend(stub, 60)

        async def tried() -> Any:
            (alert,) = await raised(stub, 1)
            return alert.deliveries[0].error

        assert await until(tried) == "HTTP 302"
        assert {path for path, _, _ in receiver.received} == {"/hook"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "169.254.169.254", "10.0.0.1"])
async def test_addresses_of_our_own_network_are_not_called_unless_that_is_allowed(api: Any, host: str) -> None:
    async with receiving() as receiver, api("budget") as channel_of:
        stub = stub_of(channel_of)
        await make_budget(stub, PROJECT, 100)
        await make_rule(stub, channels=[webhook(f"http://{host}:{receiver.url.rpartition(':')[2]}/hook")], percents=[50])
        await spend(stub, 60)
        (alert,) = await raised(stub, 1, state="GIVEN_UP")
        (delivery,) = alert.deliveries
        assert delivery.attempts == 1
        assert "may not be called" in delivery.error or "cannot be called" in delivery.error
        assert receiver.received == []


async def test_secrets_never_come_back(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        channels = [
            webhook("https://hooks.example.test/a?token=hush", "hush hush hush hush"),
            slack("https://hooks.slack.example.test/services/hush"),
        ]
        request_id = str(uuid.uuid4())
        made = await make_rule(stub, OVERRUN, channels=channels, request_id=request_id)
        again = await make_rule(stub, OVERRUN, channels=channels, request_id=request_id)
        assert made == again
        (listed,) = (await stub.ListAlertRules(budget_pb2.ListAlertRulesRequest(scope=ORGANIZATION))).alert_rules
        changing = budget_pb2.UpdateAlertRuleRequest(
            scope=ORGANIZATION, alert_rule_id=made.alert_rule_id, channels=listed.channels
        )
        changed = (await stub.UpdateAlertRule(changing)).alert_rule
        for rule in (made, listed, changed):
            assert "hush" not in str(rule)
            assert [each.WhichOneof("channel") for each in rule.channels] == ["webhook", "slack"]
        short = webhook("https://hooks.example.test/a", "hush")
        _, text = await refused(make_rule(stub, OVERRUN, channels=[short]))
        assert ("channels[0].webhook.secret" in text, "hush" in text) == (True, False)


async def test_rules_are_listed_changed_and_deleted_within_their_organisation(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        mine = [await make_rule(stub, scope=scope) for scope in (ORGANIZATION, WORKSPACE, PROJECT)]
        await make_rule(stub, scope="organizations/other")
        assert list(mine[0].percents) == [50, 80, 100]

        async def listed(scope: str, size: int) -> list[str]:
            found, token = [], ""
            while True:
                asked = budget_pb2.ListAlertRulesRequest(scope=scope, page_size=size, page_token=token)
                page = await stub.ListAlertRules(asked)
                found += [rule.alert_rule_id for rule in page.alert_rules]
                token = page.next_page_token
                if not token:
                    return found

        for size in (1, 2, 100):
            assert await listed(ORGANIZATION, size) == [rule.alert_rule_id for rule in mine]
        assert await listed(WORKSPACE, 0) == [rule.alert_rule_id for rule in mine[1:]]
        place = {"scope": PROJECT, "alert_rule_id": mine[0].alert_rule_id}
        changed = await stub.UpdateAlertRule(budget_pb2.UpdateAlertRuleRequest(**place, percents=[90, 10]))
        assert list(changed.alert_rule.percents) == [10, 90]
        foreign = budget_pb2.DeleteAlertRuleRequest(scope="organizations/other", alert_rule_id=mine[0].alert_rule_id)
        assert (await refused(stub.DeleteAlertRule(foreign)))[0] is grpc.StatusCode.NOT_FOUND
        await stub.DeleteAlertRule(budget_pb2.DeleteAlertRuleRequest(**place))
        assert await listed(ORGANIZATION, 0) == [rule.alert_rule_id for rule in mine[1:]]
        for gone in (stub.DeleteAlertRule(budget_pb2.DeleteAlertRuleRequest(**place)),):
            assert (await refused(gone))[0] is grpc.StatusCode.NOT_FOUND
        gone = stub.UpdateAlertRule(budget_pb2.UpdateAlertRuleRequest(**place))
        assert (await refused(gone))[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kind": DAILY}, "amount_usd_nanos"),
        ({"kind": OVERRUN, "percents": [50]}, "percents"),
        ({"kind": PERCENT, "amount_usd_nanos": 5}, "amount_usd_nanos"),
        ({"percents": [0]}, "percents"),
        ({"percents": [1_001]}, "percents"),
        ({"percents": [5, 5]}, "percents"),
        ({"kind": 0}, "kind"),
        ({"kind": 99}, "kind"),
        ({"channels": [budget_pb2.AlertChannel()]}, "channel"),
        ({"channels": [webhook("ftp://example.test/")]}, "url"),
        ({"channels": [webhook("https://")]}, "url"),
        ({"channels": [webhook("https://user:word@example.test/")]}, "channels[0].webhook.url"),
        ({"channels": [webhook("https://example.test/\r\nX: y")]}, "channels[0].webhook.url"),
        ({"channels": [webhook("https://example.test:99999/")]}, "channels[0].webhook.url"),
        ({"channels": [webhook("https://[::1/")]}, "channels[0].webhook.url"),
        ({"channels": [webhook("https://example.test/\x00")]}, "channels[0]"),
        ({"channels": [slack("https:///services")]}, "channels[0].slack.url"),
        ({"channels": [email("ann@example.test\r\nBcc: eve@evil.test")]}, "address"),
        ({"channels": [email("ann")]}, "address"),
        ({"channels": [email("ann..bell@example.test")]}, "channels[0].email.address"),
    ],
)
async def test_what_no_rule_can_be_is_refused_by_its_field(suite: Any, values: dict[str, Any], named: str) -> None:
    async with suite("budget") as running:
        stub = stub_of(running.mesh.channel)
        code, text = await refused(make_rule(stub, **values))
        assert (code, named in text) == (grpc.StatusCode.INVALID_ARGUMENT, True), text


async def test_pages_of_alerts_give_each_once_newest_first_and_forged_tokens_are_refused(api: Any) -> None:
    async with api("budget") as channel_of:
        stub = stub_of(channel_of)
        await make_rule(stub, percents=[10, 20, 30, 40, 50])
        await make_budget(stub, PROJECT, 100)
        for count in range(1, 6):
            await spend(stub, 10)
            await raised(stub, count)
        found, token = [], ""
        while True:
            page = await stub.ListAlerts(budget_pb2.ListAlertsRequest(scope=WORKSPACE, page_size=2, page_token=token))
            found += [alert.threshold for alert in page.alerts]
            token = page.next_page_token
            if not token:
                break
        assert found == [50, 40, 30, 20, 10]
        assert await alerts(stub, "organizations/other") == []
        for forged in ("x", "WyJhIl0=", "WyJhIiwgImIiXQ==", "WyIyMDI2LTAxLTAxIiwgImIiXQ=="):
            call = stub.ListAlerts(budget_pb2.ListAlertsRequest(scope=ORGANIZATION, page_token=forged))
            assert (await refused(call))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_days_cost_and_a_changed_limit_are_noticed_by_the_running_service(api: Any) -> None:
    async with api("budget", environment=QUICK) as channel_of:
        stub = stub_of(channel_of)
        await make_rule(stub, DAILY, scope=WORKSPACE, amount_usd_nanos=100)
        await make_rule(stub, percents=[100])
        budget = await make_budget(stub, PROJECT, 1_000)
        await spend(stub, 99)
        await spend(stub, 1)
        (daily,) = await raised(stub, 1)
        assert (daily.kind, daily.scope, daily.threshold, daily.observed) == (DAILY, WORKSPACE, 100, 100)
        change = {"update_mask": {"paths": ["limit_usd_nanos"]}, "limit_usd_nanos": 50}
        await stub.UpdateBudget(budget_pb2.UpdateBudgetRequest(scope=PROJECT, budget_id=budget.budget_id, **change))
        lowered = (await raised(stub, 2))[0]
        assert (lowered.kind, lowered.threshold, lowered.observed) == (PERCENT, 100, 200)


async def test_case_8_two_running_services_on_one_database_alert_once_also_after_they_are_started_anew(suite: Any) -> None:
    async with receiving() as receiver:
        async with suite("budget", environment=QUICK) as one, suite("budget", environment=QUICK) as other:
            stubs = [stub_of(each.mesh.channel) for each in (one, other)]
            await make_budget(stubs[0], PROJECT, 40)
            await make_rule(stubs[0], channels=[webhook(f"{receiver.url}/hook")])
            await asyncio.gather(*(spend(stubs[number % 2], 1) for number in range(40)))
            assert sorted(each.threshold for each in await raised(stubs[1], 3, state="DELIVERED")) == [50, 80, 100]
        async with suite("budget", environment=QUICK) as again:
            stub = stub_of(again.mesh.channel)
            await spend(stub, 1)
            await raised(stub, 3, state="DELIVERED")
        assert sorted(json.loads(body)["threshold"] for _, _, body in receiver.received) == [50, 80, 100]
