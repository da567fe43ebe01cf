"""Servicers put together from groups of RPCs, one group an area."""

from __future__ import annotations

from typing import Any


def put_together(servicer: Any, service: Any, groups: tuple[Any, ...]) -> None:
    """Gives a servicer every RPC of a service's descriptor from the group that has it. Raises TypeError where two have it."""
    for rpc in (method.name for method in service.methods):
        having = [group for group in groups if hasattr(group, rpc)]
        if len(having) > 1:
            raise TypeError(f"{rpc} is in {len(having)} groups of RPCs instead of in one")
        if having:
            setattr(servicer, rpc, getattr(having[0], rpc))
