"""Alerts: the rules that people make, the channels that alerts take, and what an alert says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from enum import IntEnum
from urllib.parse import urlsplit

from farthing_core.errors import FieldInvalid
from farthing_core.money import usd_text

PERCENTS = (50, 80, 100)
PERCENT_MAX = 1_000
RULES_MAX = 1_000
"""So many rules an organisation may have: each is looked at whenever something happens."""
SECRET_CHARACTERS_MIN = 16
UNITS = ("nanodollars", "tokens", "requests")


class AlertKind(IntEnum):
    """What an alert is about; the numbers are the contract's."""

    BUDGET_PERCENT = 1
    DAILY_COST = 2
    VELOCITY = 3
    SUSPENSE = 4
    PRICE_UNKNOWN = 5
    OVERRUN = 6


INCIDENTS = (AlertKind.SUSPENSE, AlertKind.PRICE_UNKNOWN, AlertKind.OVERRUN)
"""What happens once and is over; it is gathered by the hour."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Where alerts go, with what nobody is to see: `kind` is webhook, slack or email, `target` a URL or an address."""

    kind: str
    target: str = field(repr=False)
    secret: str = field(default="", repr=False)

    @property
    def addressee(self) -> str:
        """The target as it may be shown: a webhook without its query, Slack without what follows its host."""
        if self.kind == "email":
            return self.target
        url = urlsplit(self.target)
        if self.kind == "slack":
            return f"{url.scheme}://{url.netloc}/…"
        return f"{url.scheme}://{url.netloc}{url.path}" + ("?…" if url.query else "")

    def checked(self, *, field: str) -> Channel:
        """This channel; raises FieldInvalid, naming what is below `field`, for one that nothing can be sent to."""
        if self.kind == "email":
            _check_address(self.target, field=f"{field}.email.address")
            return self
        _check_url(self.target, field=f"{field}.{self.kind}.url")
        if self.kind == "webhook" and len(self.secret) < SECRET_CHARACTERS_MIN:
            raise FieldInvalid(
                field=f"{field}.webhook.secret", problem=f"must have at least {SECRET_CHARACTERS_MIN} characters"
            )
        return self


def _check_address(address: str, *, field: str) -> None:
    problem = "must be one plain e-mail address"
    if not address.isprintable() or any(character in ' ,;:<>"\\' for character in address):
        raise FieldInvalid(field=field, problem=problem)
    try:
        Address(addr_spec=address)
    except (ValueError, MessageError) as error:
        raise FieldInvalid(field=field, problem=problem) from error


def _check_url(url: str, *, field: str) -> None:
    problem = "must be an http or https URL of printable characters, without credentials"
    if not url.isprintable() or " " in url or "\\" in url:
        raise FieldInvalid(field=field, problem=problem)
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError as error:
        raise FieldInvalid(field=field, problem=problem) from error
    if not named or "@" in parts.netloc or parts.fragment:
        raise FieldInvalid(field=field, problem=problem)


@dataclass(frozen=True, slots=True)
class KeptChannel:
    """A channel that a rule has, by the id that its deliveries know it by."""

    channel_id: str
    channel: Channel


@dataclass(frozen=True, slots=True)
class Addressee:
    """A channel as it may be shown."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """When to alert, and whom. It holds for its scope and everything below it."""

    organization: str
    rule_id: str
    scope: str
    kind: AlertKind
    percents: tuple[int, ...]
    amount_usd_nanos: int
    created_at: datetime
    addressees: tuple[Addressee, ...] = ()

    def covers(self, scope: str) -> bool:
        """Whether it holds for a scope."""
        return scope == self.scope or scope.startswith(f"{self.scope}/")


def checked_thresholds(kind: AlertKind, percents: Sequence[int], amount_usd_nanos: int) -> tuple[tuple[int, ...], int]:
    """The percentages, in order, and the amount of a rule. Raises FieldInvalid for what its kind does not have, or lacks."""
    if kind is not AlertKind.BUDGET_PERCENT and percents:
        raise FieldInvalid(field="percents", problem="are only for ALERT_KIND_BUDGET_PERCENT")
    if kind is AlertKind.DAILY_COST and amount_usd_nanos < 1:
        raise FieldInvalid(field="amount_usd_nanos", problem="must be at least 1 for ALERT_KIND_DAILY_COST")
    if kind is not AlertKind.DAILY_COST and amount_usd_nanos:
        raise FieldInvalid(field="amount_usd_nanos", problem="is only for ALERT_KIND_DAILY_COST")
    chosen = percents or PERCENTS if kind is AlertKind.BUDGET_PERCENT else ()
    return tuple(sorted(chosen)), amount_usd_nanos


@dataclass(frozen=True, slots=True)
class RuleDraft:
    """A rule to be made, with its channels."""

    rule: Rule
    channels: tuple[KeptChannel, ...]
    request_id: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class RuleChange:
    """What a rule's thresholds and channels become."""

    percents: tuple[int, ...]
    amount_usd_nanos: int
    channels: tuple[KeptChannel, ...]

    def of(self, rule: Rule, known: Sequence[KeptChannel]) -> tuple[tuple[int, ...], int, list[KeptChannel]]:
        """Percentages, amount and channels after the change. Raises FieldInvalid.

        A channel that the rule has already keeps its id and, where none is given, its secret. It is recognised by what was shown of it.
        """
        percents, amount = checked_thresholds(rule.kind, self.percents, self.amount_usd_nanos)
        left = list(known)
        channels = []
        for number, given in enumerate(self.channels):
            match = next((each for each in left if _is_same(each.channel, given.channel)), None)
            if match is not None:
                left.remove(match)
                secret = given.channel.secret or match.channel.secret
                given = KeptChannel(match.channel_id, Channel(given.channel.kind, match.channel.target, secret))
            given.channel.checked(field=f"channels[{number}]")
            channels.append(given)
        return percents, amount, channels


def _is_same(known: Channel, given: Channel) -> bool:
    return known.kind == given.kind and given.target in (known.target, known.addressee)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a rule wants to hear of. It becomes an alert unless it is one already.

    What makes it the same again: `rule_id`, `subject`, `resets` (how often the budget was reset) and the period, which for a window that
    moves is any stretch of `window_s`. The same with a larger `limit` is new.
    """

    rule_id: str
    kind: AlertKind
    scope: str
    subject: str
    period_start: datetime
    threshold: int = 0
    observed: int = 0
    amount: int = 0
    limit: int = 0
    unit: int = 0
    budget_id: str = ""
    window_s: int = 0
    resets: int = 0
    incidents: int = 0
    detail: str = ""
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the delivery of an alert to one addressee goes."""

    addressee: Addressee
    state: str
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that was raised."""

    organization: str
    alert_id: str
    created_at: datetime
    finding: Finding
    deliveries: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True)
class AlertsQuestion:
    """Which alerts are asked for: `before` is the (moment, alert id) where the previous page ended."""

    organization: str
    scope: str
    page_size: int
    before: tuple[datetime, str] | None = None


def text_of(finding: Finding) -> str:
    """What an alert says to people, in one line."""
    budget = f"budget {_plain(finding.detail) or finding.budget_id} of {finding.scope}"
    paid = usd_text(finding.amount, digits=2)
    match finding.kind:
        case AlertKind.BUDGET_PERCENT:
            used, limit = _measured(finding.amount, finding.unit), _measured(finding.limit, finding.unit)
            return f"{budget} reached {finding.threshold} %: {used} of {limit} used"
        case AlertKind.DAILY_COST:
            day = f"{finding.period_start:%Y-%m-%d}"
            return f"{finding.scope} cost {paid} on {day} (UTC): {usd_text(finding.threshold, digits=2)} reached"
        case AlertKind.VELOCITY:
            ends = f"{finding.ends_at:%Y-%m-%d %H:%M} UTC" if finding.ends_at else "too early"
            projected, limit = usd_text(finding.observed, digits=2), usd_text(finding.limit, digits=2)
            return f"{budget} ends at {ends} at its present rate of {paid} an hour: {projected} would be needed, the limit is {limit}"
        case AlertKind.SUSPENSE:
            return f"{_counted(finding, 'hold')} moved to suspense: {paid} count as spent until somebody says what was used"
        case AlertKind.PRICE_UNKNOWN:
            model = f"model {_plain(finding.detail)} has no price" if finding.detail else "models have no price"
            return f"{model}: {_counted(finding, 'attempt')} counted at an upper bound, {paid} together"
        case AlertKind.OVERRUN:
            return f"{_counted(finding, 'settlement')} exceeded what was authorised, by {paid} together"


def _counted(finding: Finding, noun: str) -> str:
    many = "" if finding.incidents == 1 else "s"
    return f"{finding.incidents} {noun}{many} of {finding.scope} since {finding.period_start:%Y-%m-%d %H:%M} UTC"


def _measured(amount: int, unit: int) -> str:
    return usd_text(amount, digits=2) if unit == 0 else f"{amount:,} {UNITS[unit]}"


def _plain(text: str) -> str:
    """A name that people gave, on one line."""
    return "".join(character if character.isprintable() else " " for character in text)
