"""Webhooks, signed, and Slack's incoming webhooks."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from farthing_core.clock import Clock

from farthing_budget.alerts import UNITS, Alert, AlertKind, Channel, text_of
from farthing_budget.channels.addresses import may_be_called
from farthing_budget.delivering import DeliveryFailed, Due

_CONNECTIONS_MAX = 32


class AddressRefused(OSError):
    """An address that may not be called."""


@asynccontextmanager
async def open_session(*, timeout_s: float, private_allowed: bool) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that connects only where it may. It asks at the last moment: what a name resolves to may change."""

    def checked_socket(info: tuple[Any, Any, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not may_be_called(str(address[0]), private_allowed=private_allowed):
            raise AddressRefused("the address may not be called")
        return socket.socket(family=family, type=kind, proto=protocol)

    connector = aiohttp.TCPConnector(limit=_CONNECTIONS_MAX, socket_factory=checked_socket, force_close=True)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar, trust_env=False) as session:
        yield session


class WebhookSender:
    """Sends the alert as JSON, signed with the channel's secret."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    async def send(self, due: Due, channel: Channel) -> None:
        """Sends one."""
        body = json.dumps(document(due.alert), ensure_ascii=False, separators=(",", ":")).encode()
        signed_at = int(self._clock.now().timestamp())
        await _post(self._session, due, channel, body, {"X-Farthing-Signature": signature(channel.secret, signed_at, body)})


class SlackSender:
    """Sends the alert as a message in Slack's format."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(self, due: Due, channel: Channel) -> None:
        """Sends one."""
        body = json.dumps(slack_message(due.alert), ensure_ascii=False, separators=(",", ":")).encode()
        await _post(self._session, due, channel, body, {})


def signature(secret: str, at_s: int, body: bytes) -> str:
    """What X-Farthing-Signature says of a body: t=seconds,v1=HMAC-SHA256 of "t.body"."""
    digest = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def document(alert: Alert) -> dict[str, Any]:
    """An alert as webhooks get it: the fields of the contract's Alert."""
    finding = alert.finding
    return {
        "alert_id": alert.alert_id,
        "alert_rule_id": finding.rule_id,
        "kind": f"ALERT_KIND_{finding.kind.name}",
        "scope": finding.scope,
        "budget_id": finding.budget_id,
        "unit": UNITS[finding.unit] if finding.kind is AlertKind.BUDGET_PERCENT else "",
        "threshold": finding.threshold,
        "observed": finding.observed,
        "incidents": finding.incidents,
        "message": text_of(finding),
        "create_time": alert.created_at.isoformat(),
        "period_start_time": finding.period_start.isoformat(),
    }


def slack_message(alert: Alert) -> dict[str, Any]:
    """An alert as Slack shows it. What people named cannot mention anybody or become a link."""
    text = _escaped(text_of(alert.finding))
    about = _escaped(f"{alert.finding.kind.name} · {alert.finding.scope}")
    return {
        "text": text,
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f":rotating_light: {text}"[:3000]}},
            {"type": "context", "elements": [{"type": "plain_text", "text": about[:3000], "emoji": False}]},
        ],
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


async def _post(session: aiohttp.ClientSession, due: Due, channel: Channel, body: bytes, headers: dict[str, str]) -> None:
    """Posts a body. The answer is its status: its body is not read, and no redirect followed. Raises DeliveryFailed without the URL."""
    headers = {"Content-Type": "application/json", "User-Agent": "farthing", "Idempotency-Key": due.delivery_id, **headers}
    try:
        async with session.post(channel.target, data=body, headers=headers, allow_redirects=False) as response:
            if not 200 <= response.status < 300:
                raise DeliveryFailed(f"HTTP {response.status}")
    except TimeoutError as error:
        raise DeliveryFailed("no answer in time") from error
    except aiohttp.ClientConnectorDNSError as error:
        raise DeliveryFailed("the host has no address") from error
    except aiohttp.ClientSSLError as error:
        raise DeliveryFailed("no TLS connection") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, AddressRefused) or "may not be called" in str(error.os_error):
            raise DeliveryFailed(
                "the address may not be called: see FARTHING_BUDGET_ALERT_PRIVATE_ADDRESSES", final=True
            ) from None
        raise DeliveryFailed("no connection") from error
    except aiohttp.InvalidURL as error:
        raise DeliveryFailed("the URL cannot be called", final=True) from error
    except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
        raise DeliveryFailed(f"the connection broke: {type(error).__name__}") from error
