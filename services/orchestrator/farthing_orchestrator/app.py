"""Wiring: settings → policy → peers → pipeline → servicer."""

from __future__ import annotations

from contextlib import asynccontextmanager

from farthing.orchestrator.v1.orchestrator_pb2_grpc import add_OrchestratorServiceServicer_to_server
from farthing_core.clock import SystemClock
from farthing_core.errors import FieldInvalid
from farthing_runtime.config_file import load_config
from farthing_runtime.registration import AppIterator, Mesh, Registration, ServiceBinding
from farthing_runtime.settings import SettingsInvalid

from farthing_orchestrator.aside import AsideLimits
from farthing_orchestrator.deferred import Deferred
from farthing_orchestrator.peers import GrpcPeers
from farthing_orchestrator.pipeline import Pipeline
from farthing_orchestrator.policy import Policy
from farthing_orchestrator.receipts import Requests
from farthing_orchestrator.servicer import OrchestratorServicer
from farthing_orchestrator.settings import Settings
from farthing_orchestrator.status import STATUS_TABLE

_DEADLINE_S = 600.0


@asynccontextmanager
async def app(settings: Settings, mesh: Mesh) -> AppIterator:
    """The orchestrator, until the block ends and what it deferred is done."""
    try:
        policy = Policy.parse(load_config(settings.config_file).get("policy"))
    except FieldInvalid as error:
        raise SettingsInvalid(field=f"farthing.yaml: {error.field}", problem=error.problem) from error
    clock = SystemClock()
    deferred = Deferred(
        outstanding_max=settings.deferred_max, attempts_max=settings.deferred_attempts_max, backoff_s=0.1, backoff_s_max=10.0
    )
    async with deferred.running(grace_s=settings.deferred_grace_s):
        beside = AsideLimits(settings.shadows_at_once_max, settings.shadows_waiting_max)
        peers = GrpcPeers(mesh, settings, clock)
        pipeline = Pipeline(peers=peers, policy=policy, clock=clock, deferred=deferred, beside=beside)
        servicer = OrchestratorServicer(pipeline, Requests(policy))
        yield Registration(
            (
                ServiceBinding(
                    name="farthing.orchestrator.v1.OrchestratorService",
                    add_to_server=add_OrchestratorServiceServicer_to_server,
                    servicer=servicer,
                    status_table=STATUS_TABLE,
                    deadline_s=_DEADLINE_S,
                ),
            )
        )
