"""What refusals mean, in the bodies that providers really send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from farthing_router.upstreams import FailureKind, UpstreamFailed, UpstreamRejected
from farthing_router.upstreams.failures import refusal

K = FailureKind
FAILURES: list[tuple[str, int, Any, FailureKind, bool]] = [
    (
        "openai quota",
        429,
        {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}},
        K.OUT_OF_CREDIT,
        False,
    ),
    ("openai rate", 429, {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}, K.RATE_LIMITED, True),
    ("openai engine", 429, {"error": {"message": "The engine is currently overloaded"}}, K.OVERLOADED, True),
    (
        "openai long",
        400,
        {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"}},
        K.CONTEXT_TOO_LONG,
        False,
    ),
    (
        "anthropic long",
        400,
        {"error": {"type": "invalid_request_error", "message": "prompt is too long: 5 > 4"}},
        K.CONTEXT_TOO_LONG,
        False,
    ),
    ("anthropic credit", 400, {"error": {"message": "Your credit balance is too low"}}, K.OUT_OF_CREDIT, False),
    ("anthropic overloaded", 529, {"type": "error", "error": {"type": "overloaded_error"}}, K.OVERLOADED, True),
    (
        "anthropic model",
        404,
        {"type": "error", "error": {"type": "not_found_error", "message": "model: x"}},
        K.NOT_FOUND,
        False,
    ),
    (
        "azure filter",
        400,
        {"error": {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}, "message": "filtered"}},
        K.CONTENT_FILTER,
        False,
    ),
    ("azure gateway", 401, {"statusCode": 401, "message": "Access denied due to invalid subscription key"}, K.AUTH, False),
    ("azure deployment", 404, {"error": {"code": "DeploymentNotFound", "message": "does not exist"}}, K.NOT_FOUND, False),
    (
        "gemini list",
        400,
        [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
        K.AUTH,
        False,
    ),
    (
        "gemini long",
        400,
        [{"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}}],
        K.CONTEXT_TOO_LONG,
        False,
    ),
    (
        "gemini quota",
        429,
        [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded"}}],
        K.RATE_LIMITED,
        True,
    ),
    (
        "mistral model",
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
        K.NOT_FOUND,
        False,
    ),
    (
        "vllm long",
        400,
        {"object": "error", "message": "maximum context length is 4096", "type": "BadRequestError"},
        K.CONTEXT_TOO_LONG,
        False,
    ),
    ("vllm model", 404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}, K.NOT_FOUND, False),
    (
        "tgi long",
        422,
        {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "validation"},
        K.CONTEXT_TOO_LONG,
        False,
    ),
    ("tgi busy", 429, {"error": "Model is overloaded", "error_type": "overloaded"}, K.OVERLOADED, True),
    ("ollama model", 404, {"error": "model 'x' not found, try pulling it first"}, K.NOT_FOUND, False),
    ("cohere token", 498, {"message": "invalid api token"}, K.AUTH, False),
    ("groq capacity", 498, {"error": {"message": "flex capacity exceeded"}}, K.OVERLOADED, True),
    (
        "openrouter moderation",
        403,
        {"error": {"code": 403, "message": "Your input was flagged by moderation"}},
        K.CONTENT_FILTER,
        False,
    ),
    ("deepseek balance", 402, {"error": {"message": "Insufficient Balance"}}, K.OUT_OF_CREDIT, False),
    ("groq large", 413, {"error": {"message": "Request too large"}}, K.CONTEXT_TOO_LONG, False),
    ("a page", 503, "<html>", K.OVERLOADED, True),
    ("nothing", 500, "", K.SERVER_ERROR, True),
    ("lost", 524, "", K.SERVER_ERROR, True),
    ("moved", 308, "", K.NOT_FOUND, False),
    ("teapot", 204, "", K.GARBAGE, False),
]


@pytest.mark.parametrize(("name", "status", "body", "kind", "retryable"), FAILURES, ids=[each[0] for each in FAILURES])
def test_a_refusal_that_is_not_the_callers_fault_fails_over(
    name: str, status: int, body: Any, kind: FailureKind, retryable: bool
) -> None:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    error = refusal(status=status, headers={}, body=raw, provider="p")
    assert isinstance(error, UpstreamFailed)
    assert (error.kind, error.retryable) == (kind, retryable)
    assert error.may_be_billed == (status in (408, 499, 502, 504, 520, 522, 524))


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, {"error": {"message": "temperature is too hot"}}, "temperature is too hot"),
        (422, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]}, "Extra inputs"),
        (422, {"message": "tools must be given", "type": "invalid_request_error"}, "tools must be given"),
        (404, {"error": {"message": "no answer was recorded", "param": "messages"}}, "no answer was recorded"),
        (400, "no JSON", "no reason given"),
        (418, "", "no reason given"),
    ],
)
def test_a_refusal_of_the_request_itself_is_passed_back(status: int, body: Any, said: str) -> None:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    error = refusal(status=status, headers={}, body=raw, provider="p")
    assert isinstance(error, UpstreamRejected)
    assert said in error.message


def test_a_filter_that_reads_before_it_refuses_may_be_billed_where_the_provider_says_so() -> None:
    body = json.dumps({"error": {"code": "content_filter"}}).encode()
    billed = [
        refusal(status=400, headers={}, body=body, provider="p", bills_refusals=bills).may_be_billed  # type: ignore[union-attr]
        for bills in (True, False)
    ]
    assert billed == [True, False]


def test_a_long_message_and_a_strange_request_id_are_kept_out() -> None:
    body = json.dumps({"error": {"message": "x" * 10_000}}).encode()
    error = refusal(status=500, headers={"request-id": "a\nb"}, body=body, provider="p")
    assert len(error.message) < 400
    assert "request" not in error.message


@pytest.mark.parametrize(("status", "said", "retryable"), [(429, "false", False), (401, "true", True), (503, "perhaps", True)])
def test_a_provider_that_says_whether_to_ask_again_is_believed(status: int, said: str, retryable: bool) -> None:
    error = refusal(status=status, headers={"x-should-retry": said}, body=b"", provider="p")
    assert isinstance(error, UpstreamFailed)
    assert error.retryable == retryable
