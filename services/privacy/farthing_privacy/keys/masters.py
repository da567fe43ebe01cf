"""Master keys: they wrap data keys and nothing else. A key service of a cloud can stand behind the same port."""

from __future__ import annotations

import base64
import binascii
import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from farthing_core.errors import FarthingError, FieldInvalid
from farthing_runtime.envelopes import KEY_BYTES, DataKeys

_SETTING = "FARTHING_PRIVACY_MASTER_KEYS"
_OTHERS = 0o007


class MasterKeyMissing(FarthingError):
    """Data keys are wrapped under a master key that this process was not given, or were changed where they lie."""

    def __init__(self, *, master_key_id: str) -> None:
        super().__init__(
            f"data keys cannot be unwrapped with master key {master_key_id!r}: is it in {_SETTING}?",
            master_key_id=master_key_id,
        )


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key under a master key."""

    master_key_id: str
    wrapped: bytes = field(repr=False)


class MasterKeys(Protocol):
    """Wraps and unwraps data keys. `bound_to` is authenticated: a wrapped key opens only with the same."""

    @property
    def current_id(self) -> str:
        """The master key that wraps from now on."""
        ...

    async def wrap(self, key: bytes, *, bound_to: bytes) -> Wrapped:
        """The key under the current master key."""
        ...

    async def unwrap(self, wrapped: Wrapped, *, bound_to: bytes) -> bytes:
        """The key. Raises MasterKeyMissing."""
        ...


class GivenMasterKeys:
    """Master keys of this process, by id; the first one wraps."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = {name: DataKeys("", f"master/{name}", {1: key}) for name, key in keys.items()}
        self._current_id = next(iter(keys))

    @property
    def current_id(self) -> str:
        """The first one."""
        return self._current_id

    async def wrap(self, key: bytes, *, bound_to: bytes) -> Wrapped:
        """The key under the first master key."""
        return Wrapped(self._current_id, self._keys[self._current_id].seal(key, belongs_to=bound_to))

    async def unwrap(self, wrapped: Wrapped, *, bound_to: bytes) -> bytes:
        """The key. Raises MasterKeyMissing."""
        master = self._keys.get(wrapped.master_key_id)
        key = None if master is None else master.open(wrapped.wrapped, belongs_to=bound_to)
        if key is None:
            raise MasterKeyMissing(master_key_id=wrapped.master_key_id)
        return key


def parsed_masters(text: str, *, source: str = _SETTING) -> dict[str, bytes]:
    """Master keys of a list "id:base64,id:base64". Raises FieldInvalid, which never shows a key."""
    keys: dict[str, bytes] = {}
    for place, each in enumerate((part.strip() for part in text.split(",") if part.strip()), start=1):
        name, _, encoded = each.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if not name or len(key) != KEY_BYTES or name in keys:
            problem = f"entry {place} must be ID:BASE64 of {KEY_BYTES} random bytes, each id once"
            raise FieldInvalid(field=source, problem=problem)
        keys[name] = key
    if not keys:
        raise FieldInvalid(field=source, problem="names no key")
    return keys


def kept_masters(path: Path, *, new_key: Callable[[], bytes]) -> dict[str, bytes]:
    """Master keys of a file, made once for all who share the folder, readable by its owner alone. Blocks.

    Raises FieldInvalid for a file that others may read, or that holds no key.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _write(path, f"file:{base64.b64encode(new_key()).decode()}\n")
    if path.stat().st_mode & _OTHERS:
        raise FieldInvalid(field=str(path), problem="may be read by others: chmod 600")
    return parsed_masters(path.read_text().replace("\n", ","), source=str(path))


def _write(path: Path, text: str) -> None:
    """All of it or nothing, and on the disk before it is used: what it wraps cannot be read without it."""
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
