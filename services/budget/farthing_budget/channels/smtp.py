"""E-mail by SMTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

import aiosmtplib

from farthing_budget.alerts import Alert, Channel, text_of
from farthing_budget.delivering import DeliveryFailed, Due

_SUBJECT_CHARACTERS_MAX = 150


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The SMTP server that sends for us. `security` is starttls, tls or none; an empty host is no server."""

    host: str
    port: int
    security: str
    username: str
    password: str = field(repr=False)
    sender: str
    ca_file: str
    timeout_s: float


class EmailSender:
    """Sends the alert as an e-mail."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def send(self, due: Due, channel: Channel) -> None:
        """Sends one. What a server says is not passed on: it may quote addresses and credentials."""
        box = self._mailbox
        if not box.host:
            raise DeliveryFailed("no SMTP server is set: see FARTHING_BUDGET_SMTP_HOST")
        try:
            await aiosmtplib.send(
                message_of(due, sender=box.sender, to=channel.target),
                hostname=box.host,
                port=box.port,
                username=box.username or None,
                password=box.password or None,
                use_tls=box.security == "tls",
                start_tls=box.security == "starttls",
                cert_bundle=box.ca_file or None,
                timeout=box.timeout_s,
                local_hostname="farthing",
            )
        except aiosmtplib.SMTPAuthenticationError as error:
            raise DeliveryFailed(f"the SMTP server does not take our credentials ({error.code})") from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise DeliveryFailed(f"the SMTP server refuses the address ({error.recipients[0].code})") from error
        except aiosmtplib.SMTPResponseException as error:
            raise DeliveryFailed(f"the SMTP server refuses ({error.code})") from error
        except (TimeoutError, aiosmtplib.SMTPTimeoutError) as error:
            raise DeliveryFailed("no answer of the SMTP server in time") from error
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise DeliveryFailed(f"no connection to the SMTP server: {type(error).__name__}") from error


def message_of(due: Due, *, sender: str, to: str) -> EmailMessage:
    """An alert as an e-mail. Names that people gave come in one line: no header can be smuggled in by them."""
    alert = due.alert
    text = text_of(alert.finding)
    message = EmailMessage()
    message["From"] = Address(addr_spec=sender)
    message["To"] = Address(addr_spec=to)
    message["Subject"] = f"[Farthing] {text}"[:_SUBJECT_CHARACTERS_MAX]
    message["Date"] = format_datetime(alert.created_at)
    message["Message-ID"] = f"<{due.delivery_id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_body(alert, text))
    return message


def _body(alert: Alert, text: str) -> str:
    finding = alert.finding
    lines = [
        f"{text}.",
        "",
        f"kind    {finding.kind.name}",
        f"scope   {finding.scope}",
        *([f"budget  {finding.budget_id}"] if finding.budget_id else []),
        f"since   {finding.period_start:%Y-%m-%d %H:%M} UTC",
        f"raised  {alert.created_at:%Y-%m-%d %H:%M:%S} UTC",
        f"alert   {alert.alert_id}",
    ]
    return "\n".join(lines) + "\n"
