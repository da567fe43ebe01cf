"""RPCs that begin, read and end experiments."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from farthing.router.v1 import router_pb2
from farthing_core.errors import FieldInvalid

from farthing_router.edge import experiment_messages
from farthing_router.experiments.experiment_book import ExperimentBook
from farthing_router.experiments.ports import Page
from farthing_router.experiments.terms import State

_PAGE_SIZE = 100
_DIGITS_MAX = 18


class ExperimentRpcs:
    """Experiments."""

    def __init__(self, book: ExperimentBook) -> None:
        self._book = book

    async def CreateExperiment(self, request: Any, context: Any) -> Any:
        """Starts an experiment."""
        draft = experiment_messages.draft(request.experiment)
        fingerprint = sha256(request.experiment.SerializeToString(deterministic=True)).digest()
        report = await self._book.create(draft, request_id=request.request_id.lower(), fingerprint=fingerprint)
        return router_pb2.CreateExperimentResponse(experiment=experiment_messages.report(report))

    async def GetExperiment(self, request: Any, context: Any) -> Any:
        """Reads an experiment with its results."""
        report = await self._book.get(request.scope, request.experiment_id)
        return router_pb2.GetExperimentResponse(experiment=experiment_messages.report(report))

    async def ListExperiments(self, request: Any, context: Any) -> Any:
        """Lists experiments, newest first."""
        size, state = request.page_size or _PAGE_SIZE, State(request.state) if request.state else None
        found = await self._book.listed(Page(request.scope, state, _place(request.page_token), size + 1))
        return router_pb2.ListExperimentsResponse(
            experiments=[experiment_messages.experiment(each) for each in found[:size]],
            next_page_token=str(found[size - 1].serial) if len(found) > size else "",
        )

    async def StopExperiment(self, request: Any, context: Any) -> Any:
        """Ends an experiment."""
        report = await self._book.stop(request.scope, request.experiment_id, reason=request.reason)
        return router_pb2.StopExperimentResponse(experiment=experiment_messages.report(report))


def _place(token: str) -> int | None:
    if token and (not token.isdecimal() or not token.isascii() or len(token) > _DIGITS_MAX):
        raise FieldInvalid(field="page_token", problem="is not from this list")
    return int(token) if token else None
