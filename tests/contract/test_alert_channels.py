"""What every way of sending an alert promises, on real servers: it arrives whole, or fails by a name that gives no secret away."""

from __future__ import annotations

import asyncio
import email
import email.policy
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult
from farthing_budget.alerts import Alert, AlertKind, Channel, Finding
from farthing_budget.channels.addresses import may_be_called
from farthing_budget.channels.http import SlackSender, WebhookSender, open_session, signature
from farthing_budget.channels.smtp import EmailSender, Mailbox
from farthing_budget.delivering import DeliveryFailed, Due
from farthing_core.clock import ManualClock

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
SECRET = "a secret of many characters"


def due(name: str = "Search", *, attempts: int = 1) -> Due:
    finding = Finding(
        "r1",
        AlertKind.BUDGET_PERCENT,
        "organizations/acme",
        "s",
        NOW,
        threshold=80,
        observed=81,
        amount=81 * 10**9,
        limit=10**11,
        budget_id="b1",
        detail=name,
    )
    return Due(Alert("acme", "a1", NOW, finding), "c1", None, attempts)


@asynccontextmanager
async def served(answer: Any) -> AsyncIterator[str]:
    runner = web.AppRunner(web.Application(), shutdown_timeout=0.1)
    runner.app.router.add_post("/{anywhere:.*}", answer)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def failure(sending: Any) -> DeliveryFailed:
    with pytest.raises(DeliveryFailed) as failed:
        await sending
    return failed.value


async def test_a_webhook_is_signed_over_the_very_bytes_that_arrive() -> None:
    received: list[tuple[bytes, str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        received.append((body, request.headers["X-Farthing-Signature"], request.headers["Idempotency-Key"]))
        return web.Response(status=204)

    async with served(answer) as url, open_session(timeout_s=5, private_allowed=True) as session:
        sender = WebhookSender(session, ManualClock(NOW))
        for attempts in (1, 2):
            await sender.send(due("Größe", attempts=attempts), Channel("webhook", f"{url}/hook", SECRET))
    (body, signed, key), (_, _, other_key) = received
    seconds = int(NOW.timestamp())
    expected = hmac.new(SECRET.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    assert signed == f"t={seconds},v1={expected}" == signature(SECRET, seconds, body)
    assert key == other_key == "a1.c1"
    assert json.loads(body) == {
        "alert_id": "a1",
        "alert_rule_id": "r1",
        "kind": "ALERT_KIND_BUDGET_PERCENT",
        "scope": "organizations/acme",
        "budget_id": "b1",
        "unit": "nanodollars",
        "threshold": 80,
        "observed": 81,
        "incidents": 0,
        "message": "budget Größe of organizations/acme reached 80 %: $81.00 of $100.00 used",
        "create_time": "2026-03-15T12:00:00+00:00",
        "period_start_time": "2026-03-15T12:00:00+00:00",
    }


async def test_slack_is_sent_blocks_in_which_a_name_can_mention_nobody() -> None:
    received: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        received.append(await request.json())
        return web.Response(text="ok")

    async with served(answer) as url, open_session(timeout_s=5, private_allowed=True) as session:
        await SlackSender(session).send(due("<!here> <https://evil.test|x> & y"), Channel("slack", f"{url}/services/x"))
    (message,) = received
    section, context = message["blocks"]
    assert section["text"]["text"].startswith(":rotating_light: budget &lt;!here&gt; &lt;https://evil.test|x&gt; &amp; y of")
    assert context["elements"][0]["text"] == "BUDGET_PERCENT · organizations/acme"
    assert "&lt;!here&gt;" in message["text"]


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
async def test_any_status_but_a_good_one_is_a_failure_that_is_tried_again(status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=SECRET, headers={"Location": "http://127.0.0.1:1/"})

    async with served(answer) as url, open_session(timeout_s=5, private_allowed=True) as session:
        failed = await failure(WebhookSender(session, ManualClock(NOW)).send(due(), Channel("webhook", url, SECRET)))
    assert (failed.why, failed.final) == (f"HTTP {status}", False)


async def test_a_body_without_end_is_not_read() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            try:
                await response.write(b"x" * 2**16)
            except ConnectionError:
                return response

    async with served(answer) as url, open_session(timeout_s=5, private_allowed=True) as session:
        async with asyncio.timeout(4):
            await WebhookSender(session, ManualClock(NOW)).send(due(), Channel("webhook", url, SECRET))


async def test_an_addressee_that_does_not_answer_is_left_in_time() -> None:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with served(answer) as url, open_session(timeout_s=0.1, private_allowed=True) as session:
        failed = await failure(WebhookSender(session, ManualClock(NOW)).send(due(), Channel("webhook", url, SECRET)))
    assert (failed.why, failed.final) == ("no answer in time", False)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:1/?token=hush", "no connection"),
        ("http://no-such-host.invalid/?token=hush", "the host has no address"),
        ("http://[::ffff:169.254.169.254]/?token=hush", "may not be called"),
        ("http://169.254.169.254/?token=hush", "may not be called"),
    ],
)
async def test_what_cannot_be_reached_fails_without_saying_where_it_was_to_go(url: str, why: str) -> None:
    async with open_session(timeout_s=5, private_allowed=True) as session:
        failed = await failure(WebhookSender(session, ManualClock(NOW)).send(due(), Channel("webhook", url, SECRET)))
    assert why in failed.why
    assert "hush" not in str(failed)


async def test_a_name_that_resolves_to_this_machine_is_refused_for_good_where_that_is_not_allowed() -> None:
    async def answer(request: web.Request) -> web.Response:
        raise AssertionError("was called")

    async with served(answer) as url, open_session(timeout_s=5, private_allowed=False) as session:
        for host in ("127.0.0.1", "localhost"):
            target = Channel("webhook", url.replace("127.0.0.1", host), SECRET)
            failed = await failure(WebhookSender(session, ManualClock(NOW)).send(due(), target))
            assert ("may not be called" in failed.why, failed.final) == (True, True)


@pytest.mark.parametrize(
    ("address", "public", "private"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("10.1.2.3", False, True),
        ("172.16.0.1", False, True),
        ("192.168.1.1", False, True),
        ("100.64.0.1", False, True),
        ("fd12::1", False, True),
        ("::ffff:10.0.0.1", False, True),
        ("64:ff9b::a00:1", False, True),
        ("2002:7f00:1::", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("fe80::1%eth0", False, False),
        ("fd00:ec2::254", False, False),
        ("100.100.100.200", False, False),
        ("224.0.0.1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
    ],
)
def test_which_addresses_may_be_called(address: str, public: bool, private: bool) -> None:
    assert may_be_called(address, private_allowed=False) is public
    assert may_be_called(address, private_allowed=True) is private


class Postbox:
    """What a real SMTP server hands to; it refuses one address."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody"):
            return "550 no such mailbox, hush"
        envelope.rcpt_tos.append(address)
        return "250 good"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.letters.append((envelope, server.transport.get_extra_info("sslcontext") is not None))
        return "250 taken"

    def login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"right", handled=False)


@asynccontextmanager
async def posting(postbox: Postbox, **options: Any) -> AsyncIterator[int]:
    implicit = options.pop("implicit", None)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(postbox, **options), "127.0.0.1", 0, ssl=implicit)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's certificate for this machine, and the file of who vouches for it."""
    ca = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return context, path


def mailbox(port: int, **values: Any) -> Mailbox:
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "username": "",
        "password": "",
        "sender": "farthing@acme.test",
        "ca_file": "",
        "timeout_s": 5.0,
    }
    return Mailbox(**settings | values)


ANN = Channel("email", "ann@acme.test")


async def test_an_e_mail_says_it_in_subject_and_text_and_no_name_becomes_a_header() -> None:
    postbox = Postbox()
    async with posting(postbox) as port:
        await EmailSender(mailbox(port)).send(due("Größe\r\nBcc: eve@evil.test\r\n\r\nhello " + "x" * 900), ANN)
    ((envelope, _),) = postbox.letters
    assert (envelope.mail_from, envelope.rcpt_tos) == ("farthing@acme.test", ["ann@acme.test"])
    letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert letter["Bcc"] is None
    assert str(letter["Subject"]).startswith("[Farthing] budget Größe  Bcc: eve@evil.test")
    assert (letter["Message-ID"], letter["Auto-Submitted"]) == ("<a1.c1@acme.test>", "auto-generated")
    assert "reached 80 %: $81.00 of $100.00 used" in letter.get_content()


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_an_e_mail_goes_encrypted_and_with_a_login(authority: tuple[ssl.SSLContext, Path], security: str) -> None:
    context, ca_file = authority
    postbox = Postbox()
    options: dict[str, Any] = {"auth_required": True, "authenticator": postbox.login}
    if security == "starttls":
        options |= {"tls_context": context, "require_starttls": True}
    else:
        options |= {"implicit": context, "auth_require_tls": False}
    async with posting(postbox, **options) as port:
        box = mailbox(port, security=security, username="us", password="right", ca_file=str(ca_file))
        await EmailSender(box).send(due(), ANN)
        wrong = mailbox(port, security=security, username="us", password="wrong", ca_file=str(ca_file))
        failed = await failure(EmailSender(wrong).send(due(), ANN))
        stranger = mailbox(port, security=security, username="us", password="right")
        distrusted = await failure(EmailSender(stranger).send(due(), ANN))
    ((_, encrypted),) = postbox.letters
    assert encrypted
    assert postbox.logins[0] == (b"us", b"right")
    assert set(postbox.logins[1:]) == {(b"us", b"wrong")}
    assert "credentials (535)" in failed.why
    assert "wrong" not in str(failed) + repr(wrong)
    assert "no connection" in distrusted.why


async def test_a_server_that_cannot_encrypt_is_not_given_anything() -> None:
    postbox = Postbox()
    async with posting(postbox) as port:
        failed = await failure(EmailSender(mailbox(port, security="starttls")).send(due(), ANN))
    assert (postbox.letters, failed.final) == ([], False)


async def test_a_refused_address_and_an_absent_server_fail_by_name() -> None:
    async with posting(Postbox()) as port:
        failed = await failure(EmailSender(mailbox(port)).send(due(), Channel("email", "nobody@acme.test")))
    assert failed.why == "the SMTP server refuses the address (550)"
    assert "no connection" in (await failure(EmailSender(mailbox(1)).send(due(), ANN))).why
    assert "FARTHING_BUDGET_SMTP_HOST" in (await failure(EmailSender(mailbox(1, host="")).send(due(), ANN))).why
