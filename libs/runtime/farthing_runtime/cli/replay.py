"""`farthing replay`: recorded answers behind the OpenAI wire."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer


def replay(
    answers: Annotated[list[Path], typer.Option(help="A JSON lines file, or a folder with parquet files. May be given again.")],
    latency: Annotated[str, typer.Option(help="real (as recorded), none, or a factor such as 0.5.")] = "none",
    fail: Annotated[float, typer.Option(min=0, max=1, help="The share of requests that fail.")] = 0.0,
    seed: Annotated[int, typer.Option(help="What failures are drawn from.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 4010,
) -> None:
    """Serves recorded answers over the OpenAI HTTP wire until Ctrl-C; an unknown prompt is a 404."""
    from farthing_runtime.replay.answers import Recordings, read_recordings
    from farthing_runtime.replay.server import Behaviour, running_replay

    factors = {"real": 1.0, "none": 0.0}
    try:
        factor = factors[latency] if latency in factors else float(latency)
    except ValueError as error:
        raise typer.BadParameter("must be real, none, or a factor", param_hint="--latency") from error
    every = [read_recordings(path) for path in answers]
    recordings = Recordings(each for found in every for model in found.models for each in found.all_of(model))

    async def serve() -> None:
        async with running_replay(recordings, Behaviour(factor, fail, seed), host=host, port=port) as url:
            typer.echo(f"replaying {len(recordings)} answers of {len(recordings.models)} models on {url}")
            await asyncio.Event().wait()

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
