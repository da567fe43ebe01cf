"""Whether an answer has the structure that its request asks for: JSON of a schema, tool calls whose arguments fit their tools, code that
parses. Everything is bounded; a schema that cannot be read or is too large is not held against an answer.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

_SCHEMA_CHARACTERS_MAX = 100_000
_JSON_CHARACTERS_MAX = 200_000
_CODE_CHARACTERS_MAX = 8_000
_DEPTH_MAX = 60
_BLOCK = re.compile(r"```([A-Za-z0-9+#-]{0,20})[^\n`]{0,80}\n(.*?)(?:```|\Z)", re.DOTALL)
Fits = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks of the form of its answer. `json`: it is to be JSON; `fits`: of which kind, None where any will do. `tools`: by
    name, what fits a tool's arguments, None where anything does."""

    json: bool = False
    fits: Fits | None = None
    tools: Mapping[str, Fits | None] = field(default_factory=dict)


NOTHING = Asked()


@lru_cache(maxsize=256)
def asked(response_format_json: str, tools_json: str) -> Asked:
    """What these parameters ask for. They are JSON, as checked at the edge; what is not as OpenAI defines it asks for nothing."""
    wanted = _parsed(response_format_json)
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    schema = wanted.get("json_schema") if isinstance(wanted, dict) else None
    fits = _fits(schema.get("schema")) if kind == "json_schema" and isinstance(schema, dict) else None
    tools: dict[str, Fits | None] = {}
    for tool in _parsed(tools_json) or ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            tools[function["name"]] = _fits(function.get("parameters"))
    return Asked(kind in ("json_object", "json_schema"), fits, tools)


def json_fault(text: str, wanted: Asked) -> str | None:
    """What is wrong with a text that is to be JSON; None where nothing is."""
    if len(text) > _JSON_CHARACTERS_MAX:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "not the JSON that was asked for"
    if wanted.fits is not None and not wanted.fits(value):
        return "JSON that does not fit the schema"
    return None


def tool_fault(extra_json: str, wanted: Asked) -> str | None:
    """What is wrong with an answer's tool calls; None where nothing is, or nobody can tell."""
    message = _parsed(extra_json)
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or function.get("name") not in wanted.tools:
            return "calls a tool that is not there"
        arguments, fits = function.get("arguments"), wanted.tools[function["name"]]
        if isinstance(arguments, str):
            if len(arguments) > _JSON_CHARACTERS_MAX:
                continue
            try:
                arguments = orjson.loads(arguments or "{}")
            except orjson.JSONDecodeError:
                return "calls a tool with what is not JSON"
        if fits is not None and not fits(arguments):
            return "calls a tool with what does not fit it"
    return None


def code_fault(text: str) -> str | None:
    """What is wrong with the code of a text, by its fences: one that does not close, or Python or JSON that does not parse."""
    if "```" not in text:
        return None
    if text.count("```") % 2:
        return "code is cut off"
    left = _CODE_CHARACTERS_MAX
    for block in _BLOCK.finditer(text):
        language, code = block.group(1).lower(), block.group(2)
        left -= len(code)
        if left < 0:
            return None
        if language in ("python", "py", "python3") and not is_python(code):
            return "Python that does not parse"
        if language == "json" and "..." not in code and "//" not in code and _parsed(code) is None and code.strip() != "null":
            return "JSON that does not parse"
    return None


def is_python(code: str) -> bool:
    """Whether code parses as Python; True where nobody can tell: an excerpt of a session, or nested too deeply to try."""
    if any(line.lstrip().startswith((">>>", "...", "%", "!", "$")) for line in code.splitlines()):
        return True  # an excerpt of a session or a notebook, which nobody parses
    depth = deepest = 0
    for character in code:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > _DEPTH_MAX:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except (SyntaxError, ValueError):
        return False
    except (RecursionError, MemoryError):
        return True
    return True


def _fits(schema: Any) -> Fits | None:
    """What says whether a value fits a schema; None where the schema is none, too large, or one that refers to elsewhere."""
    if not isinstance(schema, dict) or not schema:
        return None
    import jsonschema_rs

    try:
        if len(orjson.dumps(schema)) > _SCHEMA_CHARACTERS_MAX:
            return None
        # Nothing is fetched, and patterns are matched in linear time, whatever a schema says.
        validator = jsonschema_rs.validator_for(schema, offline=True, pattern_options=jsonschema_rs.RegexOptions())
    except (ValueError, orjson.JSONEncodeError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return None
    return lambda value: bool(validator.is_valid(value))


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None
