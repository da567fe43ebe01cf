"""What a provider says beside its answer stands where OpenAI's clients look for it."""

from __future__ import annotations

import json

from farthing.chat.v1 import chat_pb2
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing_gateway.openai_shapes import Chunks, chat_completion

LOGPROBS = {"content": [{"token": "a", "logprob": -0.1}]}


def test_log_probabilities_of_a_chunk_stand_in_its_choice() -> None:
    chunks = Chunks(request_id="r", created=1)
    event = chunks.delta("a", json.dumps({"logprobs": LOGPROBS}), "m").split(b"\n\n")[1]
    (choice,) = json.loads(event.removeprefix(b"data: "))["choices"]
    assert choice == {"index": 0, "delta": {"content": "a"}, "logprobs": LOGPROBS, "finish_reason": None}


def test_fields_of_a_choice_that_nobody_knows_are_its_fields_again() -> None:
    extra = json.dumps({"logprobs": LOGPROBS, "choices": [{"index": 0, "stop_reason": 7}], "system_fingerprint": "fp"})
    response = orchestrator_pb2.CompleteResponse(answer=chat_pb2.Answer(content="a", finish_reason="stop"), extra_json=extra)
    body = json.loads(chat_completion(response, created=1, receipt=None))
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "a"},
            "logprobs": LOGPROBS,
            "finish_reason": "stop",
            "stop_reason": 7,
        }
    ]
    assert body["system_fingerprint"] == "fp"
