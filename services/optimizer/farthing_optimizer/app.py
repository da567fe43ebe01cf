"""Wiring: settings → counter and worker threads → servicer."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from farthing.optimizer.v1.optimizer_pb2_grpc import add_OptimizerServiceServicer_to_server
from farthing_runtime.registration import AppIterator, Mesh, Registration, ServiceBinding

from farthing_optimizer.servicer import OptimizerServicer
from farthing_optimizer.settings import Settings
from farthing_optimizer.status import STATUS_TABLE
from farthing_optimizer.tokens import TokenCounter, load_encodings


@asynccontextmanager
async def app(settings: Settings, mesh: Mesh) -> AppIterator:
    """The optimizer, until the block ends and its workers have finished."""
    with ThreadPoolExecutor(settings.workers, thread_name_prefix="optimizer") as executor:
        await asyncio.get_running_loop().run_in_executor(executor, load_encodings)
        servicer = OptimizerServicer(
            TokenCounter(remembered_max=settings.remembered_counts_max),
            executor=executor,
            inline_characters_max=settings.inline_characters_max,
        )
        yield Registration(
            (
                ServiceBinding(
                    name="farthing.optimizer.v1.OptimizerService",
                    add_to_server=add_OptimizerServiceServicer_to_server,
                    servicer=servicer,
                    status_table=STATUS_TABLE,
                ),
            )
        )
