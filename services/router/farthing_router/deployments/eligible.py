"""Which deployments of a model may and can serve a request."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass

from farthing_router.catalog import Model
from farthing_router.deployments.declared import Deployment

WINDOW_TOO_SMALL = "its context window is too small"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request needs of a deployment. `tokens` are prompt and answer together; every provider may be asked when none is named."""

    capabilities: Set[str]
    tokens: int
    allowed_providers: Set[str] = frozenset()
    open_only: bool = False
    batch: bool = False


@dataclass(frozen=True, slots=True)
class Able:
    """The deployments that can serve a request; where none can, what most of them lack."""

    deployments: list[Deployment]
    reason: str = ""


def able(model: Model, needs: Needs) -> Able:
    """The deployments of a model that may and can serve a request."""
    found, why = [], ""
    for each in model.deployments:
        lacking = _lacking(each, needs)
        if not lacking:
            found.append(each)
        # A window too small is said before all else: the caller may shorten the prompt.
        elif not why or lacking == WINDOW_TOO_SMALL:
            why = lacking
    return Able(found, why)


def permitted(model: Model, names: Collection[str], *, batch: bool = False) -> list[Deployment]:
    """The deployments that are, or are not, a Batch API: those of these names, all where none is named."""
    return [each for each in model.deployments if each.batch == batch and (not names or each.name in names)]


def _lacking(deployment: Deployment, needs: Needs) -> str:
    """Why a deployment is not called, in a few words; empty where it may be."""
    if deployment.batch != needs.batch:
        return "answers in batches only" if deployment.batch else "has no batches"
    if needs.allowed_providers and deployment.provider not in needs.allowed_providers:
        return f"provider {deployment.provider} is not allowed"
    if needs.open_only and deployment.hosted:
        return "is not an open model"
    if missing := needs.capabilities - deployment.capabilities:
        return f"has no {', '.join(sorted(missing))}"
    if needs.tokens > deployment.context_window_tokens:
        return WINDOW_TOO_SMALL
    return ""
