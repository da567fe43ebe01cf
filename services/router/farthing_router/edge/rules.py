"""RPCs that keep and read routing rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from farthing.router.v1 import router_pb2
from farthing_core.errors import FieldInvalid

from farthing_router.edge import rule_messages
from farthing_router.routing.rule_book import RuleBook, RuleName, Writing
from farthing_router.routing.rules import Rule

_PAGE_SIZE = 100


class RuleRpcs:
    """Rules."""

    def __init__(self, rules: RuleBook) -> None:
        self._rules = rules

    async def CreateRule(self, request: Any, context: Any) -> Any:
        """Creates a rule."""
        kept = await self._rules.create(rule_messages.rule(request.rule), _writing(request))
        return router_pb2.CreateRuleResponse(rule=rule_messages.rule_message(kept))

    async def GetRule(self, request: Any, context: Any) -> Any:
        """Reads a rule."""
        found = await self._rules.get(request.scope, request.rule_id, version=request.version)
        return router_pb2.GetRuleResponse(rule=rule_messages.rule_message(found))

    async def ListRules(self, request: Any, context: Any) -> Any:
        """Lists rules, or the versions of one."""
        size, start = request.page_size or _PAGE_SIZE, _place(request.page_token)
        if request.rule_id:
            found = await self._rules.history(request.scope, request.rule_id, below=start or None, rows_max=size + 1)
            return _page(found[:size], str(found[size - 1].version) if len(found) > size else "")
        applying = self._rules.applying(request.scope)
        return _page(applying[start : start + size], str(start + size) if len(applying) > start + size else "")

    async def UpdateRule(self, request: Any, context: Any) -> Any:
        """Changes a rule."""
        named, changed = RuleName(request.rule.scope, request.rule.rule_id, request.rule.version), rule_messages.change(request)
        kept = await self._rules.change(named, _writing(request), changed=changed)
        return router_pb2.UpdateRuleResponse(rule=rule_messages.rule_message(kept))

    async def DeleteRule(self, request: Any, context: Any) -> Any:
        """Takes a rule out of use."""
        named = RuleName(request.scope, request.rule_id, request.version)
        kept = await self._rules.change(named, _writing(request), changed=lambda newest: replace(newest, deleted=True))
        return router_pb2.DeleteRuleResponse(rule=rule_messages.rule_message(kept))


def _writing(request: Any) -> Writing:
    body = type(request).FromString(request.SerializeToString())
    body.request_id = type(request).DESCRIPTOR.name
    return Writing(request.request_id.lower(), sha256(body.SerializeToString(deterministic=True)).digest())


def _page(rules: Sequence[Rule], token: str) -> Any:
    return router_pb2.ListRulesResponse(rules=[rule_messages.rule_message(each) for each in rules], next_page_token=token)


def _place(token: str) -> int:
    if token and (not token.isdecimal() or len(token) > 18):
        raise FieldInvalid(field="page_token", problem="is not from this list")
    return int(token or 0)
