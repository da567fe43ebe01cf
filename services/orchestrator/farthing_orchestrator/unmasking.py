"""Putting originals back where mask tokens stand, also in the middle of a stream."""

from __future__ import annotations

import json
import re

_UNFINISHED = re.compile(r"\[[A-Z_]*[0-9]*\Z")
_TOKEN_CHARACTERS_MAX = 40


class Unmasker:
    """Replaces mask tokens by their originals. One for each request; it forgets them with the request."""

    def __init__(self, originals: dict[str, str]) -> None:
        self._originals = originals
        self._pattern = re.compile("|".join(re.escape(token) for token in sorted(originals, key=len, reverse=True)))
        self._held = ""

    def text(self, text: str) -> str:
        """A whole text with its originals."""
        return self._pattern.sub(lambda found: self._originals[found.group()], text)

    def json(self, text: str) -> str:
        """JSON with the originals inside its strings, escaped as JSON asks. Mask tokens need no escaping, so the text is not parsed."""
        return self._pattern.sub(lambda found: json.dumps(self._originals[found.group()], ensure_ascii=False)[1:-1], text)

    def piece(self, text: str) -> str:
        """The next piece of a stream: what may be the beginning of a mask token is held back until it is known."""
        text = self._held + text
        self._held = ""
        unfinished = _UNFINISHED.search(text, max(0, len(text) - _TOKEN_CHARACTERS_MAX))
        if unfinished is not None:
            text, self._held = text[: unfinished.start()], text[unfinished.start() :]
        return self.text(text)

    def rest(self) -> str:
        """What was held back, at the end of a stream."""
        held, self._held = self._held, ""
        return self.text(held)
