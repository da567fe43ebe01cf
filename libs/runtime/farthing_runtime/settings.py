"""Settings: the only readers of the environment.

`FARTHING_…` belongs to the host, `FARTHING_<SERVICE>_…` to a service. Everything has a default that works on a laptop.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from farthing_core.errors import FarthingError
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_Settings = TypeVar("_Settings", bound=BaseSettings)
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class SettingsInvalid(FarthingError):
    """A setting, or a field of farthing.yaml, that cannot be: which and why. Raised at start-up."""

    def __init__(self, *, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", field=field)
        self.field = field
        self.problem = problem


def _default_data_dir() -> Path:
    home = os.environ.get("XDG_DATA_HOME")
    return Path(home) / "farthing" if home else Path.home() / ".local" / "share" / "farthing"


class HostSettings(BaseSettings):
    """What the host of services needs to know."""

    model_config = SettingsConfigDict(env_prefix="FARTHING_", frozen=True, extra="ignore")

    data_dir: Path = Field(default_factory=_default_data_dir, description="Where the embedded Postgres and built models live.")
    database_url: str = Field(
        default="", description="A Postgres (15 or newer, with pgvector). Empty: an embedded one in data_dir."
    )
    redis_url: str = Field(
        default="",
        pattern=r"^$|^(redis|rediss)(\+cluster)?://.+|^unix://.+",
        description="A Redis (redis://, rediss://, unix://) or Redis Cluster (redis+cluster://, any node) for what replicas share. "
        "Empty: memory, which is right for one process.",
    )
    config_file: Path | None = Field(default=None, description="farthing.yaml. Empty: ./farthing.yaml when it exists.")
    grpc_host: str = Field(default="127.0.0.1", description="Address on which gRPC is served.")
    grpc_port: int = Field(default=50051, ge=0, le=65535, description="Port of gRPC; 0 takes a free one.")
    peers: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="Where peers are that do not run in this process: budget=host:port,router=host:port."
    )
    internal_token: SecretStr = Field(
        default=SecretStr(""),
        description="A secret that every process of the suite shares: it opens what only services may call (keys on loan). Needed where "
        "the cache and privacy run in different processes.",
    )
    shutdown_grace_s: float = Field(
        default=10.0, ge=0, le=600, description="How long calls in flight may take to end at shutdown."
    )
    concurrent_rpcs_max: int = Field(default=4096, ge=1, description="gRPC calls served at once; more are refused.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="How much is logged.")
    log_format: Literal["json", "text"] = Field(default="text", description="json for machines, text for people.")

    @field_validator("peers", mode="before")
    @classmethod
    def _parse_peers(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [pair.strip() for pair in value.split(",") if pair.strip()]
        if wrong := [pair for pair in pairs if "=" not in pair]:
            raise ValueError(f"{wrong[0]!r} is not NAME=HOST:PORT")
        return dict(pair.split("=", 1) for pair in pairs)

    @model_validator(mode="after")
    def _find_config_file(self) -> Self:
        if self.config_file is None and Path("farthing.yaml").is_file():
            object.__setattr__(self, "config_file", Path("farthing.yaml"))
        return self


def service_config(service: str) -> SettingsConfigDict:
    """The model_config of a service's Settings: environment prefix, frozen, nothing unknown."""
    return SettingsConfigDict(env_prefix=f"FARTHING_{service.upper()}_", frozen=True, extra="forbid", populate_by_name=True)


class ServiceSettings(BaseSettings):
    """What every service's Settings begin with; the host fills these in."""

    database_url: str = Field(
        default="", validation_alias=AliasChoices("FARTHING_DATABASE_URL"), description="Given by the host."
    )
    redis_url: str | None = Field(
        default=None, validation_alias=AliasChoices("FARTHING_REDIS_URL"), description="Given by the host."
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir, validation_alias=AliasChoices("FARTHING_DATA_DIR"), description="Given by the host."
    )
    config_file: Path | None = Field(
        default=None, validation_alias=AliasChoices("FARTHING_CONFIG_FILE"), description="Given by the host."
    )


SHARED_FIELDS = tuple(ServiceSettings.model_fields)
"""The names of the fields that the host fills in."""


def load(kind: type[_Settings], **values: Any) -> _Settings:
    """Reads settings from the environment.

    Raises SettingsInvalid, naming the environment variable, for a value that cannot be.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or kind.__name__
        prefix = kind.model_config.get("env_prefix") or ""
        variable = name if name.startswith("FARTHING_") else f"{prefix}{name.upper()}"
        raise SettingsInvalid(field=variable, problem=first["msg"]) from error


def differences(settings: BaseSettings) -> dict[str, tuple[Any, Any]]:
    """Field → (value, default) of what is not at its default; secrets in URLs are blanked."""
    found: dict[str, tuple[Any, Any]] = {}
    for name, info in type(settings).model_fields.items():
        value, default = getattr(settings, name), info.get_default(call_default_factory=True, validated_data={})
        if value != default:
            found[name] = (blank_password(value), default)
    return found


def blank_password(value: Any) -> Any:
    """A URL without its password; anything else as it is."""
    if isinstance(value, str) and "://" in value and "@" in value:
        scheme, rest = value.split("://", 1)
        credentials, host = rest.rsplit("@", 1)
        return f"{scheme}://{credentials.split(':', 1)[0]}:***@{host}"
    return value
