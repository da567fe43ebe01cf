"""What a service hands to its host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from farthing_runtime.status import StatusTable


class Registrar(Protocol):
    """Where generated `add_…Servicer_to_server` functions put their handlers: a gRPC server, or one of ours."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Any) -> None:
        """Takes handlers that look methods up by name."""
        ...

    def add_registered_method_handlers(self, service_name: str, method_handlers: Any) -> None:
        """Takes the handlers of one service by method name."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceBinding:
    """One gRPC service: its full name, the generated function that registers it, its servicer and its status table.

    `deadline_s` bounds a call whose caller set no deadline. `internal` names RPCs that only services of this suite may call.
    """

    name: str
    add_to_server: Callable[[Any, Any], None]
    servicer: object
    status_table: StatusTable
    deadline_s: float = 30.0
    internal: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Registration:
    """What one target brings: its gRPC services, and addresses it listens on besides."""

    services: tuple[ServiceBinding, ...]
    endpoints: dict[str, str] = field(default_factory=dict)


class Mesh(Protocol):
    """How a service reaches its peers without learning where they run."""

    def channel(self, target: str) -> Any:
        """A `grpc.aio.Channel` to the peer: in this process or over the network.

        Raises SettingsInvalid when the peer is neither hosted here nor has an address.
        """
        ...

    def proof(self, target: str) -> tuple[tuple[str, str], ...]:
        """Metadata for RPCs that only services of this suite may call.

        Raises SettingsInvalid when the peer runs in another process and no secret is shared with it.
        """
        ...


App = Callable[[Any, Mesh], AbstractAsyncContextManager[Registration]]
"""`app(settings, mesh)`: opens what the service needs, yields its registration, closes in reverse order."""

AppIterator = AsyncIterator[Registration]
"""What the body of an app yields."""
