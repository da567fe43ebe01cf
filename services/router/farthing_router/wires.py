"""How a provider is spoken to, as farthing.yaml writes it: which wire, where the key goes, what it calls things, and batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from farthing_core.errors import FieldInvalid
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

WireName = Literal["openai", "azure", "anthropic", "cohere", "any_llm"]
_Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
_HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{0,4000}$")]
# Reasoning models of OpenAI refuse the older name of the limit, whoever hosts them.
_NEWER_LIMIT = re.compile(r"^(?:.*/)?(?:o[1-9]|gpt-5)")


class BatchEntry(BaseModel):
    """The `batch` of a provider: its calls are collected for `linger_s`, sent as one provider batch, and asked after from `poll_s` on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    turnaround_s: float = Field(default=86_400.0, gt=0, le=604_800)
    linger_s: float = Field(default=60.0, ge=0, le=3600)
    poll_s: float = Field(default=30.0, gt=0, le=3600)
    calls_max: int = Field(default=1000, ge=1, le=50_000)
    bytes_max: int = Field(default=64 * 2**20, ge=2**20, le=200 * 2**20)


class WireEntry(BaseModel):
    """The part of a provider's entry that says how to speak to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wire: WireName = "openai"
    any_llm_provider: str = ""
    api_key_header: _Token | Literal[""] = ""
    headers: dict[_Token, _HeaderValue] = Field(default_factory=dict, max_length=32)
    header_envs: dict[_Token, _Token] = Field(default_factory=dict, max_length=32)
    query: dict[_Token, str] = Field(default_factory=dict, max_length=32)
    rename: dict[_Token, _Token] = Field(default_factory=dict, max_length=32)
    omit: tuple[_Token, ...] = Field(default=(), max_length=32)
    developer_role: Literal["developer", "system"] = "developer"
    json_schema: Literal["native", "tool"] = "native"
    batch: BatchEntry | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    """How a deployment is spoken to. `headers` hold what farthing.yaml adds; `rename` and `omit` are about fields of the request's body."""

    name: str = "openai"
    any_llm_provider: str = ""
    api_key_header: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    rename: Mapping[str, str] = field(default_factory=dict)
    omit: frozenset[str] = frozenset()
    developer_role: str = "developer"
    json_schema: str = "native"
    batch: BatchEntry | None = None

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request's body without the fields that the provider does not take, and with its own names for others."""
        for name in self.omit:
            body.pop(name, None)
        for name, theirs in self.rename.items():
            if name in body:
                body[theirs] = body.pop(name)
        return body


def wire_of(entry: WireEntry, *, name: str, upstream_model: str, key_of: Callable[[str], str | None]) -> Wire:
    """How a model of a provider is spoken to. Raises FieldInvalid for what is not set, and for what does not go together."""
    headers = dict(entry.headers)
    for header, variable in entry.header_envs.items():
        value = key_of(variable)
        if value is None:
            raise FieldInvalid(field=f"providers.{name}.header_envs.{header}", problem=f"{variable} is not set")
        headers[header] = value
    if entry.wire == "any_llm" and not entry.any_llm_provider:
        raise FieldInvalid(
            field=f"providers.{name}.any_llm_provider", problem="says which provider of any-llm is meant; it is not set"
        )
    if entry.wire == "any_llm" and find_spec("any_llm") is None:
        raise FieldInvalid(
            field=f"providers.{name}.wire", problem="needs the extra farthing-router[any-llm], which is not installed"
        )
    if entry.batch is not None and entry.wire in ("cohere", "any_llm"):
        raise FieldInvalid(field=f"providers.{name}.batch", problem=f"there are no batches on the wire {entry.wire}")
    rename = dict(entry.rename)
    if entry.wire in ("openai", "azure") and _NEWER_LIMIT.match(upstream_model):
        rename.setdefault("max_tokens", "max_completion_tokens")
    return Wire(
        name=entry.wire,
        any_llm_provider=entry.any_llm_provider,
        api_key_header=entry.api_key_header,
        headers=headers,
        query=dict(entry.query),
        rename=rename,
        omit=frozenset(entry.omit),
        developer_role=entry.developer_role,
        json_schema=entry.json_schema,
        batch=entry.batch,
    )
