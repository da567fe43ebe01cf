"""RPCs that make and read alert rules, and read alerts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from farthing.budget.v1 import budget_pb2
from farthing_core.clock import Clock
from farthing_core.errors import FieldInvalid
from farthing_core.ids import NewId
from farthing_core.scopes import parse_scope

from farthing_budget import messages
from farthing_budget.alerts import (
    UNITS,
    Addressee,
    Alert,
    AlertKind,
    AlertsQuestion,
    Channel,
    KeptChannel,
    Rule,
    RuleChange,
    RuleDraft,
    checked_thresholds,
    text_of,
)
from farthing_budget.store import AlertStore

_PAGE_SIZE = 100
RulesChanged = Callable[[str], None]
"""Told of an organisation whose rules were changed."""


class AlertRpcs:
    """Alert rules and alerts."""

    def __init__(self, *, alerts: AlertStore, clock: Clock, new_id: NewId, changed: RulesChanged) -> None:
        self._alerts = alerts
        self._clock = clock
        self._new_id = new_id
        self._changed = changed

    async def CreateAlertRule(self, request: Any, context: Any) -> Any:
        """Creates a rule."""
        organization = parse_scope(request.scope).organization
        kind = AlertKind(request.kind)
        percents, amount = checked_thresholds(kind, request.percents, request.amount_usd_nanos)
        channels = self._channels(request.channels)
        for number, each in enumerate(channels):
            each.channel.checked(field=f"channels[{number}]")
        rule = Rule(organization, self._new_id(), request.scope, kind, percents, amount, self._clock.now())
        draft = RuleDraft(rule, channels, request.request_id.lower(), messages.body_hash(request))
        made = await self._alerts.create(draft)
        self._changed(organization)
        return budget_pb2.CreateAlertRuleResponse(alert_rule=_rule(made))

    async def ListAlertRules(self, request: Any, context: Any) -> Any:
        """Lists rules."""
        size, after = request.page_size or _PAGE_SIZE, _last_rule(request.page_token)
        found = await self._alerts.list_from(parse_scope(request.scope), after=after, count_max=size + 1)
        more = found[size - 1] if len(found) > size else None
        token = messages.page_token((more.scope, more.rule_id)) if more else ""
        return budget_pb2.ListAlertRulesResponse(alert_rules=[_rule(each) for each in found[:size]], next_page_token=token)

    async def UpdateAlertRule(self, request: Any, context: Any) -> Any:
        """Changes a rule."""
        organization = parse_scope(request.scope).organization
        change = RuleChange(tuple(request.percents), request.amount_usd_nanos, self._channels(request.channels))
        changed = await self._alerts.update(organization, _rule_id(request), change)
        self._changed(organization)
        return budget_pb2.UpdateAlertRuleResponse(alert_rule=_rule(changed))

    async def DeleteAlertRule(self, request: Any, context: Any) -> Any:
        """Deletes a rule."""
        organization = parse_scope(request.scope).organization
        await self._alerts.delete(organization, _rule_id(request))
        self._changed(organization)
        return budget_pb2.DeleteAlertRuleResponse()

    async def ListAlerts(self, request: Any, context: Any) -> Any:
        """Lists alerts."""
        scope, size = parse_scope(request.scope), request.page_size or _PAGE_SIZE
        question = AlertsQuestion(scope.organization, scope.path, size + 1, _last_alert(request.page_token))
        found = await self._alerts.alerts(question)
        last = found[size - 1] if len(found) > size else None
        token = messages.page_token((last.created_at.isoformat(), last.alert_id)) if last else ""
        return budget_pb2.ListAlertsResponse(alerts=[_alert(each) for each in found[:size]], next_page_token=token)

    def _channels(self, given: Sequence[Any]) -> tuple[KeptChannel, ...]:
        found = []
        for number, each in enumerate(given):
            kind = each.WhichOneof("channel")
            target = each.email.address if kind == "email" else getattr(each, kind).url
            messages.text(target + each.webhook.secret, field=f"channels[{number}]")
            found.append(KeptChannel(self._new_id(), Channel(kind, target, each.webhook.secret)))
        return tuple(found)


def _rule_id(request: Any) -> str:
    return messages.text(request.alert_rule_id, field="alert_rule_id")


def _rule(rule: Rule) -> Any:
    return budget_pb2.AlertRule(
        alert_rule_id=rule.rule_id,
        scope=rule.scope,
        kind=int(rule.kind),  # type: ignore[arg-type]
        percents=rule.percents,
        amount_usd_nanos=rule.amount_usd_nanos,
        channels=[_channel(each) for each in rule.addressees],
    )


def _channel(shown: Addressee) -> Any:
    match shown.kind:
        case "webhook":
            return budget_pb2.AlertChannel(webhook=budget_pb2.WebhookChannel(url=shown.text))
        case "slack":
            return budget_pb2.AlertChannel(slack=budget_pb2.SlackChannel(url=shown.text))
        case _:
            return budget_pb2.AlertChannel(email=budget_pb2.EmailChannel(address=shown.text))


def _alert(alert: Alert) -> Any:
    finding = alert.finding
    return budget_pb2.Alert(
        alert_id=alert.alert_id,
        kind=int(finding.kind),  # type: ignore[arg-type]
        scope=finding.scope,
        budget_id=finding.budget_id,
        threshold=finding.threshold,
        observed=finding.observed,
        message=text_of(finding),
        create_time=messages.timestamp(alert.created_at),
        period_start_time=messages.timestamp(finding.period_start),
        deliveries=[
            budget_pb2.AlertDelivery(
                channel=each.addressee.kind,
                addressee=each.addressee.text,
                state=each.state,
                attempts=each.attempts,
                error=each.error,
            )
            for each in alert.deliveries
        ],
        alert_rule_id=finding.rule_id,
        incidents=finding.incidents,
        unit=UNITS[finding.unit] if finding.kind is AlertKind.BUDGET_PERCENT else "",
    )


def _last_rule(token: str) -> tuple[str, str] | None:
    keys = messages.page_keys(token)
    if keys is None:
        return None
    if len(keys) != 2:
        raise FieldInvalid(field="page_token", problem="is not one of ours")
    return keys[0], keys[1]


def _last_alert(token: str) -> tuple[datetime, str] | None:
    keys = _last_rule(token)
    if keys is None:
        return None
    try:
        at = datetime.fromisoformat(keys[0])
    except ValueError as error:
        raise FieldInvalid(field="page_token", problem="is not one of ours") from error
    if at.tzinfo is None:
        raise FieldInvalid(field="page_token", problem="is not one of ours")
    return at, keys[1]
