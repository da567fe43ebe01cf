"""Data keys through the stub: who may borrow them, and that what cannot be read tells nobody why."""

from __future__ import annotations

import uuid
from typing import Any

import grpc
import pytest
from farthing.budget.v1 import budget_pb2_grpc
from farthing.privacy.v1 import privacy_pb2 as pb
from farthing.privacy.v1.privacy_pb2_grpc import PrivacyServiceStub
from farthing_runtime.mesh import PROOF_KEY, network_channel
from farthing_runtime.registration import ServiceBinding
from farthing_runtime.status import error_info, rich_status

SCOPE, OTHER = "organizations/acme", "organizations/other"
LEASE = pb.LeaseDataKeysRequest(scope=SCOPE, purpose="cache")


def budget() -> dict[str, ServiceBinding]:
    """A ledger that nobody asks here."""
    add = budget_pb2_grpc.add_BudgetServiceServicer_to_server
    return {"budget": ServiceBinding("farthing.budget.v1.BudgetService", add, budget_pb2_grpc.BudgetServiceServicer(), {})}


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    status = rich_status(refused.value)
    info = error_info(status) if status is not None else None
    return refused.value.code(), info.reason if info is not None else ""


async def encrypted(stub: Any, *payloads: bytes, associated: tuple[bytes, ...] = (b"row",)) -> list[bytes]:
    request = pb.EncryptPayloadRequest(scope=SCOPE, purpose="cache", payloads=payloads, associated=associated)
    return list((await stub.EncryptPayload(request)).sealed)


async def decrypted(stub: Any, *sealed: bytes, scope: str = SCOPE, associated: tuple[bytes, ...] = (b"row",)) -> list[Any]:
    request = pb.DecryptPayloadRequest(scope=scope, purpose="cache", sealed=sealed, associated=associated)
    return [each.payload if each.found else None for each in (await stub.DecryptPayload(request)).payloads]


async def test_payloads_are_encrypted_and_come_back(api: Any) -> None:
    large = b"l" * 400_000
    async with api("privacy", peers=budget()) as channel_of:
        stub = PrivacyServiceStub(channel_of("privacy"))
        sealed = await encrypted(stub, b"one", large, b"", associated=(b"1", b"2", b"3"))
        assert not any(b"one" in each for each in sealed)
        assert await decrypted(stub, *sealed, associated=(b"1", b"2", b"3")) == [b"one", large, b""]
        assert await decrypted(stub, *sealed, associated=(b"2", b"1", b"3")) == [None, None, b""]
        wrong = pb.EncryptPayloadRequest(scope=SCOPE, purpose="cache", payloads=[b"1"] * 3, associated=[b"1"] * 2)
        assert (await refusal(stub.EncryptPayload(wrong)))[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_what_cannot_be_read_is_not_found_whatever_the_cause(api: Any) -> None:
    async with api("privacy", peers=budget()) as channel_of:
        stub = PrivacyServiceStub(channel_of("privacy"))
        (sealed,) = await encrypted(stub, b"payload")
        changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
        unread = [pb.OpenedPayload()] * 3
        request = pb.DecryptPayloadRequest(scope=SCOPE, purpose="cache", sealed=[changed, b"?", sealed], associated=[b"other"])
        assert list((await stub.DecryptPayload(request)).payloads) == unread
        assert await decrypted(stub, sealed, scope=OTHER) == [None]
        await stub.EraseKeys(pb.EraseKeysRequest(scope=SCOPE, purpose="cache", actor="ann"))
        assert list((await stub.DecryptPayload(request)).payloads) == unread
        assert await decrypted(stub, sealed) == [None]
        assert await refusal(stub.EncryptPayload(pb.EncryptPayloadRequest(scope=SCOPE, purpose="cache", payloads=[b"x"]))) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "KEYS_ERASED",
        )


async def test_a_stranger_borrows_no_keys(api: Any) -> None:
    async with api("privacy", peers=budget(), internal_token="ours") as channel_of:
        stub = PrivacyServiceStub(channel_of("privacy"))
        for metadata in ((), ((PROOF_KEY, "theirs"),), ((PROOF_KEY, ""),), ((PROOF_KEY, "ours"), (PROOF_KEY, "theirs"))):
            refused = await refusal(stub.LeaseDataKeys(LEASE, metadata=metadata))
            assert refused == (grpc.StatusCode.PERMISSION_DENIED, "PEERS_ONLY"), metadata
        lease = await stub.LeaseDataKeys(LEASE, metadata=((PROOF_KEY, "ours"),))
        assert ([(key.number, len(key.key)) for key in lease.keys], lease.lease_s) == ([(1, 32)], 60)


async def test_without_a_shared_token_nobody_outside_the_process_borrows_keys(suite: Any) -> None:
    async with suite("privacy", peers=budget()) as running, network_channel(running.grpc_address) as channel:
        for metadata in ((), ((PROOF_KEY, ""),)):
            refused = await refusal(PrivacyServiceStub(channel).LeaseDataKeys(LEASE, metadata=metadata))
            assert refused == (grpc.StatusCode.PERMISSION_DENIED, "PEERS_ONLY")
        own = PrivacyServiceStub(running.mesh.channel("privacy"))
        assert (await own.LeaseDataKeys(LEASE, metadata=running.mesh.proof("privacy"))).keys


async def test_rotation_erasure_and_the_list_of_keys(api: Any) -> None:
    async with api("privacy", peers=budget()) as channel_of:
        stub = PrivacyServiceStub(channel_of("privacy"))
        (sealed,) = await encrypted(stub, b"payload")
        rotation = pb.RotateKeysRequest(request_id=str(uuid.uuid4()), scope=SCOPE)
        for _ in range(2):
            assert (await stub.RotateKeys(rotation)).made == 1
        assert await decrypted(stub, sealed) == [b"payload"]
        (newer,) = await encrypted(stub, b"payload")
        assert (sealed[4], newer[4]) == (1, 2)
        rotation.rewrap_only = True
        assert (await refusal(stub.RotateKeys(rotation)))[1] == "REQUEST_ID_REUSED"
        erased = await stub.EraseKeys(pb.EraseKeysRequest(scope=SCOPE, may_begin_again=True, actor="ann"))
        assert (erased.erased, erased.leases_end_s) == (2, 60)
        (again,) = await encrypted(stub, b"payload")
        assert again[4] == 3
        request, seen = pb.ListDataKeysRequest(scope=SCOPE, page_size=2), []
        while True:
            page = await stub.ListDataKeys(request)
            seen += [(key.purpose, key.number, key.erased_by, key.HasField("erase_time")) for key in page.keys]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        assert seen == [("cache", 1, "ann", True), ("cache", 2, "ann", True), ("cache", 3, "", False)]
