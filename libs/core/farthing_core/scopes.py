"""Scopes: the paths that budgets, keys, rules and reports attach to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from farthing_core.errors import FieldInvalid

_LEVELS = ("organizations", "workspaces", "projects", "users")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,126}\Z")


@dataclass(frozen=True, slots=True)
class Scope:
    """A place in the tree organisation → workspace → project → user.

    `path` is its text, such as `organizations/acme/workspaces/search`; `ancestors` are the texts of every level from the
    organisation down to this scope itself.
    """

    path: str
    ancestors: tuple[str, ...]

    @property
    def organization(self) -> str:
        """The name of the organisation, without `organizations/`."""
        return self.ancestors[0].removeprefix("organizations/")

    @property
    def workspace(self) -> str:
        """The path down to the workspace, or to the organisation where no workspace is named."""
        return self.ancestors[min(1, len(self.ancestors) - 1)]

    def contains(self, other: Scope) -> bool:
        """Whether `other` is this scope or lies below it."""
        return self.path in other.ancestors

    def __str__(self) -> str:
        return self.path


@lru_cache(maxsize=4096)
def parse_scope(path: str, *, field: str = "scope") -> Scope:
    """The scope of a path.

    Raises FieldInvalid, naming `field`, for anything but `organizations/O[/workspaces/W[/projects/P[/users/U]]]`.
    """
    parts = path.split("/")
    if len(parts) % 2 or not 2 <= len(parts) <= 2 * len(_LEVELS):
        raise FieldInvalid(field=field, problem=_EXPECTED)
    for depth in range(len(parts) // 2):
        collection, name = parts[2 * depth], parts[2 * depth + 1]
        pattern = _USER if collection == "users" else _NAME
        if collection != _LEVELS[depth] or not pattern.match(name):
            raise FieldInvalid(field=field, problem=_EXPECTED)
    ancestors = tuple("/".join(parts[: 2 * depth]) for depth in range(1, len(parts) // 2 + 1))
    return Scope(path=path, ancestors=ancestors)


_EXPECTED = (
    "must be organizations/NAME, optionally followed by workspaces/NAME, projects/NAME and users/NAME; "
    "names have letters, digits, '.', '_' and '-', at most 63 characters"
)
