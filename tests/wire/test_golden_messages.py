"""Messages of the first contracts, byte for byte: what was written then is still read, and written the same."""

from __future__ import annotations

from typing import Any

import pytest
from farthing.budget.v1 import budget_pb2
from farthing.cache.v1 import cache_pb2
from farthing.chat.v1 import chat_pb2
from farthing.gateway.v1 import access_pb2
from farthing.optimizer.v1 import optimizer_pb2
from farthing.orchestrator.v1 import orchestrator_pb2
from farthing.privacy.v1 import privacy_pb2
from farthing.router.v1 import router_pb2

ID = "6f1d9f0e-3d6e-4d0b-9a53-0b7f0c7a7c11"
SCOPE = "organizations/acme"


def messages() -> dict[str, Any]:
    complete = orchestrator_pb2.CompleteRequest(request_id=ID, scope=SCOPE, model="farthing/auto", task="chat", tags=["a"])
    complete.messages.add(role="user", content="hi", extra_json='{"name":"n"}')
    complete.parameters.temperature = 0.5
    complete.overrides.cache_mode = orchestrator_pb2.CACHE_MODE_EXACT
    receipt = orchestrator_pb2.Receipt(request_id=ID, cost_usd_nanos=3, baseline_usd_nanos=9, cache_similarity=0.5)
    receipt.steps.add(name=orchestrator_pb2.STEP_NAME_PLAN, outcome=orchestrator_pb2.STEP_OUTCOME_DONE, note="x", duration_us=7)
    receipt.attempts.add(model="m", outcome=router_pb2.ATTEMPT_OUTCOME_ACCEPTED, confidence=0.25, cost_usd_nanos=3)
    reserve = budget_pb2.ReserveBudgetRequest(request_id=ID, scope=SCOPE, amount_usd_nanos=2**53 - 1, tokens=5, ttl_s=60)
    look_up = cache_pb2.LookUpAnswerRequest(mode=cache_pb2.LOOKUP_MODE_SEMANTIC)
    look_up.request.scope, look_up.request.model_policy = SCOPE, "m"
    shape = optimizer_pb2.OptimizePromptRequest(level=optimizer_pb2.LEVEL_LOSSLESS, encodings=["o200k"])
    mask = privacy_pb2.MaskTextResponse(texts=["[EMAIL_1]"])
    mask.spans.add(mask_token="[EMAIL_1]", original="a@b.c", kind=privacy_pb2.MASK_KIND_EMAIL)
    key = access_pb2.CreateKeyRequest(scope=SCOPE, display_name="ci", ttl_s=9)
    usage = chat_pb2.TokenUsage(
        input_tokens=9, cache_write_1h_tokens=4, audio_output_tokens=2, source=chat_pb2.TOKENS_SOURCE_DERIVED
    )
    attempt = router_pb2.Attempt(model="m", usage=usage, service_tier="flex", price_source="contract/1", price_unknown=True)
    upsert = router_pb2.UpsertPriceRequest(request_id=ID)
    upsert.price.scope, upsert.price.model, upsert.price.source = SCOPE, "m", "contract 7"
    upsert.price.effective_time.seconds = 1_782_864_000
    upsert.price.rates.rates.input_usd_nanos_per_million_tokens = 2**53 - 1
    upsert.price.rates.rates.output_usd_nanos_per_million_tokens = 0
    upsert.price.rates.long_context.add(input_tokens_over=200_000).rates.request_usd_nanos = 5
    upsert.price.rates.service_tiers.add(service_tier="batch").rates.cache_write_5m_usd_nanos_per_million_tokens = 7
    discount = router_pb2.Price(scope=SCOPE, provider="p", discount_bps=1250, unknown=True)
    rate = router_pb2.RateUsageRequest(model="m", usage=usage, scope=SCOPE, service_tier="batch", provider="p")
    rate.at.seconds = 1_782_864_000
    sealed = privacy_pb2.EncryptPayloadRequest(scope=SCOPE, purpose="cache", payloads=[b"p"], associated=[b"row"])
    opened = privacy_pb2.DecryptPayloadResponse()
    opened.payloads.add(found=True, payload=b"p")
    opened.payloads.add()
    lease = privacy_pb2.LeaseDataKeysResponse(lease_s=60)
    lease.keys.add(number=1, key=b"k" * 32)
    rotate = privacy_pb2.RotateKeysRequest(request_id=ID, scope=SCOPE, purpose="cache", rewrap_only=True)
    erase = privacy_pb2.EraseKeysRequest(scope=SCOPE, purpose="cache", may_begin_again=True, actor="ann", reason="r")
    states = privacy_pb2.ListDataKeysResponse(next_page_token="t")
    states.keys.add(purpose="cache", number=2, master_key_id="m", erased_by="ann").erase_time.seconds = 1_782_864_000
    return {
        "encrypt": sealed,
        "opened": opened,
        "lease": lease,
        "rotate": rotate,
        "erase": erase,
        "states": states,
        "attempt": attempt,
        "upsert": upsert,
        "discount": discount,
        "rate": rate,
        "complete": complete,
        "receipt": receipt,
        "reserve": reserve,
        "look_up": look_up,
        "shape": shape,
        "mask": mask,
        "key": key,
    }


GOLDEN = {
    "encrypt": ("0a126f7267616e697a6174696f6e732f61636d65120563616368651a01702203726f77"),
    "opened": ("0a0508011201700a00"),
    "lease": ("0a24080112206b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b6b103c"),
    "rotate": (
        "0a2436663164396630652d336436652d346430622d396135332d30623766306337613763313112126f7267616e697a6174696f6e732f"
        "61636d651a0563616368652001"
    ),
    "erase": ("0a126f7267616e697a6174696f6e732f61636d651205636163686518012203616e6e2a0172"),
    "states": ("0a190a05636163686510021a016d2a060880b191d2063203616e6e120174"),
    "attempt": ("0a016d3a0808093804480278025a04666c6578620a636f6e74726163742f316801"),
    "upsert": (
        "0a2436663164396630652d336436652d346430622d396135332d306237663063376137633131125112126f7267616e697a6174696f6e73"
        "2f61636d6522016d2a060880b191d2063a240a0b08ffffffffffffff0f4800120808c09a0c120268051a0b0a0562617463681202180752"
        "0a636f6e74726163742037"
    ),
    "discount": ("12126f7267616e697a6174696f6e732f61636d651a017040e2096001"),
    "rate": ("0a016d120808093804480278021a126f7267616e697a6174696f6e732f61636d65220562617463682a060880b191d206320170"),
    "complete": (
        "0a2436663164396630652d336436652d346430622d396135332d30623766306337613763313112126f7267616e697a6174696f6e732f61"
        "636d651a0d6661727468696e672f6175746f22046368617432180a047573657212026869220c7b226e616d65223a226e227d3a09090000"
        "00000000e03f4201614a020802"
    ),
    "receipt": (
        "0a2436663164396630652d336436652d346430622d396135332d3062376630633761376331312209080410011a01782007280330096100"
        "0000000000e03f7a100a016d200131000000000000d03f4003"
    ),
    "reserve": (
        "0a2436663164396630652d336436652d346430622d396135332d30623766306337613763313112126f7267616e697a6174696f6e732f61"
        "636d6518ffffffffffffff0f2005283c"
    ),
    "look_up": ("0a170a126f7267616e697a6174696f6e732f61636d6512016d1002"),
    "shape": ("180222056f3230306b"),
    "mask": ("0a095b454d41494c5f315d12140a095b454d41494c5f315d12056140622e631801"),
    "key": ("0a126f7267616e697a6174696f6e732f61636d65120263691809"),
}


@pytest.mark.parametrize("name", messages())
def test_old_bytes_still_parse_and_are_written_the_same(name: str) -> None:
    message = messages()[name]
    old = bytes.fromhex(GOLDEN[name])
    assert type(message).FromString(old) == message
    assert message.SerializeToString(deterministic=True) == old
