"""Exact token counts, and what the chat format adds to them.

Texts are counted exactly, by byte-pair encoding with OpenAI's published vocabularies. What the chat format adds follows OpenAI's
cookbook ("How to count tokens with tiktoken"): 3 tokens a message, 1 for a name, 3 that prime the reply, and for tools the
constants of its `num_tokens_for_tools`. Approximations, since no provider says more: a tool call counts its name, its arguments and 3;
an image counts 85 in low detail and 765 otherwise (1,024 × 1,024 pixels); audio counts one token per KiB of its encoding; a response format
counts its JSON text.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from typing import Any

import orjson
from farthing_core.errors import FarthingError

from farthing_optimizer.conversation import Message

DEFAULT_ENCODING = "o200k"
ENCODINGS = ("o200k", "cl100k")
REPLY_TOKENS = 3
_MESSAGE_TOKENS = 3
_NAME_TOKENS = 1
_CALL_TOKENS = 3
_IMAGE_TOKENS = {"low": 85}
_IMAGE_TOKENS_DEFAULT = 765
_AUDIO_CHARACTERS_PER_TOKEN = 1024
_FUNCTION_TOKENS = {"o200k": 7, "cl100k": 10}
_FUNCTIONS_END_TOKENS = 12
_PROPERTIES_TOKENS = 3
_PROPERTY_TOKENS = 3
_ENUM_TOKENS = -3
_ENUM_ITEM_TOKENS = 3
_REMEMBERED_CHARACTERS_MIN = 192


class EncodingUnknown(FarthingError):
    """An encoding that is not compiled in."""

    def __init__(self, *, encoding: str) -> None:
        super().__init__(
            f"encoding {encoding!r} is unknown; known are {', '.join(ENCODINGS)}", encoding=encoding, known=",".join(ENCODINGS)
        )


class TokenCounter:
    """Counts texts and conversations. Remembers up to `remembered_max` counts by a digest of the text, since prompts share much;
    of the texts themselves it holds the last one alone."""

    def __init__(self, *, remembered_max: int = 8192) -> None:
        self._remembered: OrderedDict[tuple[bytes, str], int] = OrderedDict()
        self._remembered_max = remembered_max
        self._digested: tuple[str, bytes] = ("", b"")

    def text(self, text: str, *, encoding: str) -> int:
        """Tokens of a text. What looks like a special token is counted as the text that it is."""
        if not text:
            return 0
        if len(text) < _REMEMBERED_CHARACTERS_MIN:
            return _counter(encoding)(text)
        key = (self._digest(text), encoding)
        known = self._remembered.get(key)
        if known is None:
            known = _counter(encoding)(text)
            self._remember(key, known)
        return known

    def message(self, message: Message, *, encoding: str) -> int:
        """Tokens of one message with what the chat format adds to it."""
        tokens = _MESSAGE_TOKENS + _role_tokens(message.role, encoding) + self.text(message.content, encoding=encoding)
        if message.parts_json:
            tokens += self._parts(message.parts_json, encoding)
        if message.extra_json:
            tokens += self._extra(message.extra_json, encoding)
        return tokens

    def conversation(self, messages: Iterable[Message], *, encoding: str) -> int:
        """Tokens of a conversation, the primed reply included; `overhead` counts what the parameters add."""
        return sum(self.message(message, encoding=encoding) for message in messages) + REPLY_TOKENS

    def overhead(self, *, tools_json: str, response_format_json: str, encoding: str) -> int:
        """Tokens that tools and the response format add."""
        tokens = self.text(response_format_json, encoding=encoding)
        if tools_json:
            tokens += self._tools(tools_json, encoding)
        return tokens

    def _digest(self, text: str) -> bytes:
        # A text is counted in one encoding after the other: its digest is the same.
        last, digest = self._digested
        if last is not text:
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            self._digested = (text, digest)
        return digest

    def _remember(self, key: tuple[bytes, str], tokens: int) -> None:
        # Large conversations are counted in worker threads beside the event loop: each step here is atomic on its own, and an
        # entry that another thread has just evicted is no loss.
        self._remembered[key] = tokens
        if len(self._remembered) > self._remembered_max:
            try:
                self._remembered.popitem(last=False)
            except KeyError:
                return

    def _parts(self, parts_json: str, encoding: str) -> int:
        parts = _parsed(parts_json)
        if not isinstance(parts, list):
            return self.text(parts_json, encoding=encoding)
        return sum(self._part(part, encoding) for part in parts)

    def _part(self, part: Any, encoding: str) -> int:
        if not isinstance(part, dict):
            return self._value(part, encoding)
        kind = part.get("type")
        if isinstance(part.get("text"), str):
            return self.text(part["text"], encoding=encoding)
        if kind in ("image_url", "input_image", "image"):
            image = part.get("image_url")
            detail = image.get("detail") if isinstance(image, dict) else part.get("detail")
            return _IMAGE_TOKENS.get(str(detail), _IMAGE_TOKENS_DEFAULT)
        if kind == "input_audio":
            audio = part.get("input_audio")
            data = audio.get("data") if isinstance(audio, dict) else None
            return -(-len(data) // _AUDIO_CHARACTERS_PER_TOKEN) if isinstance(data, str) else 0
        return self._value(part, encoding)

    def _extra(self, extra_json: str, encoding: str) -> int:
        extra = _parsed(extra_json)
        if not isinstance(extra, dict):
            return self.text(extra_json, encoding=encoding)
        tokens = 0
        if isinstance(extra.get("name"), str):
            tokens += _NAME_TOKENS + self.text(extra["name"], encoding=encoding)
        calls = extra.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            tokens += self._call(call.get("function") if isinstance(call, dict) else call, encoding)
        if "function_call" in extra:
            tokens += self._call(extra["function_call"], encoding)
        return tokens

    def _call(self, function: Any, encoding: str) -> int:
        if not isinstance(function, dict):
            return _CALL_TOKENS + self._value(function, encoding)
        return _CALL_TOKENS + sum(self._value(function.get(key), encoding) for key in ("name", "arguments"))

    def _tools(self, tools_json: str, encoding: str) -> int:
        tools = _parsed(tools_json)
        if not isinstance(tools, list):
            return self.text(tools_json, encoding=encoding)
        tokens = _FUNCTIONS_END_TOKENS if tools else 0
        for tool in tools:
            function = tool.get("function", tool) if isinstance(tool, dict) else None
            if not isinstance(function, dict):
                tokens += self._value(tool, encoding)
                continue
            description = str(function.get("description") or "").rstrip(".")
            tokens += _FUNCTION_TOKENS[encoding] + self.text(f"{function.get('name')}:{description}", encoding=encoding)
            tokens += self._schema(function.get("parameters"), encoding)
        return tokens

    def _schema(self, schema: Any, encoding: str) -> int:
        """Walks the properties of a schema, nested ones too, without recursion: a schema may be as deep as a caller likes."""
        tokens, waiting = 0, [schema]
        while waiting:
            node = waiting.pop()
            if not isinstance(node, dict):
                continue
            waiting.append(node.get("items"))
            properties = node.get("properties")
            if not isinstance(properties, dict) or not properties:
                continue
            tokens += _PROPERTIES_TOKENS
            for name, about in properties.items():
                tokens += _PROPERTY_TOKENS + self._property(name, about, encoding)
                waiting.append(about)
        return tokens

    def _property(self, name: str, about: Any, encoding: str) -> int:
        if not isinstance(about, dict):
            return self.text(name, encoding=encoding)
        choices = about.get("enum")
        tokens = 0
        if isinstance(choices, list) and choices:
            tokens = _ENUM_TOKENS + sum(_ENUM_ITEM_TOKENS + self._value(choice, encoding) for choice in choices)
        description = str(about.get("description") or "").rstrip(".")
        return tokens + self.text(f"{name}:{about.get('type')}:{description}", encoding=encoding)

    def _value(self, value: Any, encoding: str) -> int:
        """Tokens of a JSON value as compact JSON; what is nested too deep to be written is counted piece by piece."""
        if value is None:
            return 0
        if isinstance(value, str):
            return self.text(value, encoding=encoding)
        try:
            return self.text(orjson.dumps(value).decode(), encoding=encoding)
        except orjson.JSONEncodeError:
            return sum(self.text(piece, encoding=encoding) for piece in _pieces(value))


def known_encoding(name: str) -> str:
    """The encoding of a name; the default for "". Raises EncodingUnknown."""
    if not name:
        return DEFAULT_ENCODING
    if name not in ENCODINGS:
        raise EncodingUnknown(encoding=name)
    return name


def load_encodings() -> None:
    """Builds the vocabularies (about 70 ms), so that the first request does not wait for them."""
    for encoding in ENCODINGS:
        _counter(encoding)("")


@lru_cache(maxsize=64)
def _role_tokens(role: str, encoding: str) -> int:
    return _counter(encoding)(role)


@cache
def _counter(encoding: str) -> Callable[[str], int]:
    from rs_bpe import openai

    makers: dict[str, Callable[[], Any]] = {"o200k": openai.o200k_base, "cl100k": openai.cl100k_base}
    count: Callable[[str], int] = makers[encoding]().count
    return count


def _parsed(text: str) -> Any:
    """The value of a JSON text; None for what is no JSON or is nested deeper than the parser goes (1,024)."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _pieces(value: Any) -> Iterator[str]:
    """Brackets, keys and scalars of a JSON value, without recursion."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield from ("{", "}")
            yield from node
            waiting.extend(node.values())
        elif isinstance(node, list):
            yield from ("[", "]")
            waiting.extend(node)
        else:
            yield str(node)
