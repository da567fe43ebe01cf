"""A whole suite in front of a replay server: what the orchestrator's tests talk to."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing_runtime.replay.answers import Recorded, Recordings
from farthing_runtime.replay.server import Behaviour, running_replay

SCOPE = "organizations/acme/workspaces/search/projects/ranker/users/ann"
EVERYTHING = ("budget", "cache", "optimizer", "router", "privacy", "orchestrator")
CATALOG = """\
version: 1
providers:
  replay: {{base_url: "{url}", api_key_optional: true, retries: 1, timeout_s: 5}}
  own: {{base_url: "{url}", hosted: false, retries: 0}}
models:
  small:
    provider: replay
    tier: free
    price: {{input_usd_per_million_tokens: "0.15", output_usd_per_million_tokens: "0.60"}}
    context_window_tokens: 4000
  large:
    provider: replay
    tier: premium
    price: {{input_usd_per_million_tokens: "5", output_usd_per_million_tokens: "15"}}
    capabilities: [tools, json, streaming]
  open:
    provider: own
    tier: free
    price: {{input_usd_per_million_tokens: "0", output_usd_per_million_tokens: "0"}}
  unpriced: {{provider: replay}}
routing:
  baseline_model: large
  cascades: [{{steps: [small, large]}}]
{more}"""
GOOD = "Open Settings, choose Security, and press Reset password; a link arrives by mail."
HEDGED = "I'm not sure, please contact support."


def recorded(prompt: str, *, small: str = GOOD, large: str = GOOD) -> list[Recorded]:
    """What both models (and the open one) said to a prompt."""
    return [Recorded(model, prompt, answer, 100, 20) for model, answer in (("small", small), ("large", large), ("open", small))]


EASY = "How do I reset my password?"
ALIKE = "How can I reset my password?"
HARD = "Why does clause 7 of the contract not apply to resellers?"
PERSONAL = "Write to ann@example.com that the order has left."
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RECORDINGS = Recordings(
    [
        *recorded(EASY),
        *recorded(ALIKE),
        *recorded(HARD, small=HEDGED, large="Because resellers are named in clause 9, which takes precedence."),
        *recorded("Write to [EMAIL_1] that the order has left.", small="Sent to [EMAIL_1]: your order has left the warehouse."),
        Recorded("large", "only large knows", GOOD, 100, 20),
        Recorded(
            "large",
            "call a tool",
            "",
            50,
            10,
            finish_reason="tool_calls",
            tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        ),
    ]
)


def complete_request(prompt: str, **fields: Any) -> Any:
    """A request of one user turn."""
    request = orchestrator_pb2.CompleteRequest(**{"request_id": str(uuid.uuid4()), "scope": SCOPE, **fields})
    request.messages.add(role="user", content=prompt)
    return request


@pytest.fixture
def whole(api: Any, tmp_path: Path) -> Callable[..., Any]:
    """Hosts the suite on recordings: `async with whole(policy="…", targets=[…]) as channel_of:`."""

    @asynccontextmanager
    async def host(
        *, more: str = "", targets: tuple[str, ...] = EVERYTHING, behaviour: Behaviour | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(running_replay(RECORDINGS, behaviour))
            path = tmp_path / "farthing.yaml"
            path.write_text(CATALOG.format(url=url, more=more))
            yield await stack.enter_async_context(api(*targets, config_file=path, **options))

    return host
