"""Whether answers have the form that was asked for."""

from __future__ import annotations

import json
import time

import orjson
import pytest
from farthing_router.judging.opinions import Judged, judge
from farthing_router.judging.structures import NOTHING, asked, code_fault, json_fault, tool_fault

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer", "minimum": -90}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


def json_schema(schema: object) -> str:
    return json.dumps({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


def tools(parameters: object) -> str:
    return orjson.dumps([{"type": "function", "function": {"name": "weather", "parameters": parameters}}]).decode()


def call(name: str, arguments: str) -> str:
    return orjson.dumps({"tool_calls": [{"id": "1", "function": {"name": name, "arguments": arguments}}]}).decode()


def test_json_is_held_against_its_schema() -> None:
    wanted = asked(json_schema(SCHEMA), "")
    assert json_fault('{"city": "Oslo", "degrees": 4}', wanted) is None
    assert json_fault('{"city": "Oslo", "degrees": "4"}', wanted) == "JSON that does not fit the schema"
    assert json_fault('{"city": "Oslo"}', wanted) == "JSON that does not fit the schema"
    assert json_fault("Oslo has 4 degrees", wanted) == "not the JSON that was asked for"
    assert json_fault("[1]", asked('{"type": "json_object"}', "")) is None
    assert asked('{"type": "text"}', "") == NOTHING


def test_a_tool_call_must_be_of_a_tool_that_is_there_with_arguments_that_fit() -> None:
    wanted = asked("", tools(SCHEMA))
    assert tool_fault(call("weather", '{"city": "Oslo", "degrees": 4}'), wanted) is None
    assert tool_fault(call("weather", '{"city": 7, "degrees": 4}'), wanted) == "calls a tool with what does not fit it"
    assert tool_fault(call("weather", '{"city"'), wanted) == "calls a tool with what is not JSON"
    assert tool_fault(call("wether", "{}"), wanted) == "calls a tool that is not there"
    good = judge(Judged("", "tool_calls", wanted, call("weather", '{"city": "Oslo", "degrees": 4}')), [])
    bad = judge(Judged("", "tool_calls", wanted, call("wether", "{}")), [])
    assert good.confidence > 0.7 > 0.1 > bad.confidence


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/hosts"},
        {"type": "nonsense"},
        [],
        {"pattern": "(?=a)b"},
    ],
)
def test_a_schema_that_cannot_be_read_is_not_held_against_an_answer(schema: object) -> None:
    assert json_fault('{"any": "thing"}', asked(json_schema(schema), "")) is None


def test_hostile_schemas_and_answers_are_judged_in_no_time() -> None:
    deep: dict[str, object] = {}
    for _ in range(900):
        deep = {"items": deep}
    slow = {"type": "string", "pattern": "^(a+)+$"}
    began = time.process_time()
    for schema in (deep, slow, {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}):
        json_fault(orjson.dumps("a" * 50_000 + "b").decode(), asked(json_schema(schema), ""))
    for code in ("(" * 5_000, "-" * 5_000 + "1", "a" + "+a" * 2_000, "[" * 59 + "]" * 59, "x=" * 3_000 + "1"):
        code_fault(f"```python\n{code}\n```")
    code_fault("```" * 200_000)
    assert time.process_time() - began < 2.0


def test_code_must_parse() -> None:
    assert code_fault("```python\nprint(1)\n```") is None
    assert code_fault("Use `x`.\n```python\ndef f(:\n    pass\n```") == "Python that does not parse"
    assert code_fault("```python\n>>> f(1)\n2\n```") is None
    assert code_fault('```json\n{"a": 1,}\n```') == "JSON that does not parse"
    assert code_fault('```json\n{"a": 1, ...}\n```') is None
    assert code_fault("```rust\nfn main() {\n```") is None
    assert code_fault("```python\nprint(1)") == "code is cut off"


def test_a_model_that_is_not_sure_of_its_tokens_is_believed_less() -> None:
    sure = judge(Judged("The capital is Oslo.", "stop", mean_logprob=-0.01), [])
    unsure = judge(Judged("The capital is Oslo.", "stop", mean_logprob=-1.6), [])
    assert sure.confidence > 0.7 > unsure.confidence


def test_an_answer_that_reckons_wrong_is_not_believed() -> None:
    right = judge(Judged("3 + 4 = 7 apples, and 7 * 2 = 14. The answer is 14", "stop"), [])
    wrong = judge(Judged("3 + 4 = 8 apples, and 8 * 2 = 16. The answer is 16", "stop"), [])
    assert right.confidence > 0.7 > 0.5 > wrong.confidence
    assert wrong.reason == "reckons wrong"
