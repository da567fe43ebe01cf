"""Who may call: keys over gRPC, and what they open over HTTP."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from farthing.gateway.v1 import access_pb2, access_pb2_grpc
from farthing_runtime.settings import SettingsInvalid
from farthing_runtime.status import error_info, rich_status

SCOPE = "organizations/acme/workspaces/w"


def access(running: Any) -> Any:
    return access_pb2_grpc.AccessServiceStub(running.suite.mesh.channel("gateway"))


async def make_key(running: Any, scope: str = SCOPE, **fields: Any) -> Any:
    return await access(running).CreateKey(access_pb2.CreateKeyRequest(scope=scope, **fields))


def bearer(secret: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}", **{name.replace("_", "-"): value for name, value in headers.items()}}


async def test_on_this_machine_no_key_is_needed_and_a_foreign_one_is_ignored(gateway: Any) -> None:
    async with gateway() as running:
        for headers in ({}, bearer("sk-something"), {"authorization": "Basic eDp5"}):
            assert (await running.chat(headers=headers)).status == 200
        assert (await running.chat(headers={"x-farthing-scope": "organizations/other"})).status == 200
    assert [seen.scope for seen in running.orchestrator.seen] == ["organizations/default"] * 3 + ["organizations/other"]


async def test_a_key_of_ours_is_checked_everywhere(gateway: Any) -> None:
    for mode in ("auto", "open", "required"):
        async with gateway(FARTHING_GATEWAY_AUTH=mode) as running:
            for wrong in ("fk-", "fk-nonsense", "fk-" + "x" * 500, "fk-ключ"):
                answer = await running.chat(headers=bearer(wrong.encode().decode("latin-1") if not wrong.isascii() else wrong))
                assert (answer.status, answer.error["code"], answer.error["type"]) == (
                    401,
                    "key_invalid",
                    "authentication_error",
                )
            made = await make_key(running)
            assert (await running.chat(headers=bearer(made.secret))).status == 200
            seen = running.orchestrator.seen[-1]
            assert (seen.scope, seen.key_id) == (SCOPE, made.key.key_id)


async def test_where_keys_are_required_nothing_opens_without_one(gateway: Any) -> None:
    async with gateway(FARTHING_GATEWAY_AUTH="required") as running:
        for headers in ({}, bearer("sk-something"), {"x-farthing-scope": SCOPE}):
            assert (await running.chat(headers=headers)).status == 401
        for path in ("/v1/models", "/v1/models/large"):
            assert (await running.send("GET", path)).status == 401
            secret = (await make_key(running)).secret
            assert (await running.send("GET", path, headers=bearer(secret))).status == 200
        assert (await running.send("GET", "/healthz")).status == 200
        assert (await running.send("GET", "/readyz")).status == 200
        assert running.orchestrator.seen == []


async def test_a_listener_for_other_machines_asks_for_keys_by_itself(gateway: Any) -> None:
    async with gateway(FARTHING_GATEWAY_HTTP_HOST="0.0.0.0") as running:
        assert (await running.chat()).status == 401
    with pytest.raises(SettingsInvalid, match="FARTHING_GATEWAY"):
        async with gateway(FARTHING_GATEWAY_HTTP_HOST="0.0.0.0", FARTHING_GATEWAY_AUTH="open"):
            raise AssertionError("it must not start")


async def test_a_key_speaks_for_its_scope_and_below_and_says_nothing_of_the_rest(gateway: Any) -> None:
    async with gateway() as running:
        secret = (await make_key(running)).secret
        below = f"{SCOPE}/projects/p/users/ann"
        assert (await running.chat(headers=bearer(secret, x_farthing_scope=below))).status == 200
        assert running.orchestrator.seen[-1].scope == below
        answers = [
            await running.chat(headers=bearer(secret, x_farthing_scope=outside))
            for outside in (
                "organizations/acme",
                "organizations/acme/workspaces/w2",
                "organizations/other",
                "organizations/none",
            )
        ]
        assert {answer.status for answer in answers} == {403}
        assert len({answer.raw for answer in answers}) == 1


async def test_pages_of_other_sites_get_nothing_without_a_key(gateway: Any) -> None:
    async with gateway() as running:
        for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example:80"):
            answer = await running.chat(headers={"origin": origin})
            assert (answer.status, answer.error["code"]) == (403, "origin_forbidden")
        for origin in ("http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]", "https://app.localhost"):
            assert (await running.chat(headers={"origin": origin})).status == 200
        secret = (await make_key(running)).secret
        assert (await running.chat(headers=bearer(secret, origin="https://acme.example"))).status == 200


async def test_an_ended_key_is_dead_at_once_where_it_was_ended(gateway: Any) -> None:
    async with gateway() as running:
        made = await make_key(running)
        assert (await running.chat(headers=bearer(made.secret))).status == 200
        revoke = access_pb2.RevokeKeyRequest(scope=SCOPE, key_id=made.key.key_id)
        first = (await access(running).RevokeKey(revoke)).key.revoke_time
        assert (await running.chat(headers=bearer(made.secret))).status == 401
        assert (await access(running).RevokeKey(revoke)).key.revoke_time == first


async def test_keys_are_managed_over_both_transports(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARTHING_GATEWAY_HTTP_PORT", "0")
    async with api("gateway", peers={"orchestrator": (), "router": ()}) as channel_of:
        stub = access_pb2_grpc.AccessServiceStub(channel_of("gateway"))
        made = [
            await stub.CreateKey(access_pb2.CreateKeyRequest(scope=scope, display_name=f"n{number}", ttl_s=60 * number))
            for number, scope in enumerate((SCOPE, "organizations/acme", "organizations/other", f"{SCOPE}/projects/p"))
        ]
        assert len({each.secret for each in made}) == 4
        assert all(each.secret.startswith(each.key.prefix) and len(each.key.prefix) < 12 for each in made)
        assert [each.key.HasField("expire_time") for each in made] == [False, True, True, True]
        who = (await stub.WhoAmI(access_pb2.WhoAmIRequest(secret=made[0].secret))).key
        assert who == made[0].key
        first = await stub.ListKeys(access_pb2.ListKeysRequest(scope="organizations/acme", page_size=2))
        token = first.next_page_token
        rest = await stub.ListKeys(access_pb2.ListKeysRequest(scope="organizations/acme", page_size=2, page_token=token))
        assert [key.display_name for key in (*first.keys, *rest.keys)] == ["n0", "n1", "n3"]
        assert rest.next_page_token == ""
        below = await stub.ListKeys(access_pb2.ListKeysRequest(scope=SCOPE))
        assert [key.display_name for key in below.keys] == ["n0", "n3"]


async def test_what_is_wrong_with_a_key_request_is_named(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARTHING_GATEWAY_HTTP_PORT", "0")
    cases: list[tuple[str, Any, grpc.StatusCode, str]] = [
        ("WhoAmI", access_pb2.WhoAmIRequest(secret="fk-no"), grpc.StatusCode.UNAUTHENTICATED, "KEY_INVALID"),
        ("RevokeKey", access_pb2.RevokeKeyRequest(scope=SCOPE, key_id="no"), grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND"),
        ("CreateKey", access_pb2.CreateKeyRequest(scope="acme"), grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        ("CreateKey", access_pb2.CreateKeyRequest(scope=SCOPE, ttl_s=-1), grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        (
            "ListKeys",
            access_pb2.ListKeysRequest(scope=SCOPE, page_token="never"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "FIELD_INVALID",
        ),
    ]
    async with api("gateway", peers={"orchestrator": (), "router": ()}) as channel_of:
        stub = access_pb2_grpc.AccessServiceStub(channel_of("gateway"))
        made = await stub.CreateKey(access_pb2.CreateKeyRequest(scope=SCOPE))
        other = access_pb2.RevokeKeyRequest(scope="organizations/other", key_id=made.key.key_id)
        cases.append(("RevokeKey", other, grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND"))
        for method, request, code, reason in cases:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await getattr(stub, method)(request)
            status = rich_status(caught.value)
            assert status is not None
            assert (caught.value.code(), error_info(status).reason) == (code, reason)  # type: ignore[union-attr]
