"""Case 22: the same request has the same key in every process, for ever. `python tests/unit/cache/test_golden_keys.py` prints the keys.

A key that changes here makes every entry of every installation unfindable: change `VERSION` in canonical.py with it, and say so in the
CHANGELOG.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import orjson
from farthing.cache.v1 import cache_pb2
from farthing.chat.v1 import chat_pb2
from farthing_cache.edge.messages import address_of

ACME = "organizations/acme"
TEAM = f"{ACME}/workspaces/search"
ANN = f"{TEAM}/projects/ranker/users/ann"
TOOLS = '[{"type":"function","function":{"name":"find","parameters":{"type":"object","properties":{"q":{"type":"string"}}}}}]'
CALL = '{"tool_calls":[{"id":"call_1","type":"function","function":{"name":"find","arguments":"{\\"q\\":\\"x\\"}"}}]}'
IMAGE = '[{"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0="}}]'
SHARINGS = {
    "workspace": cache_pb2.SHARING_SCOPE_WORKSPACE,
    "user": cache_pb2.SHARING_SCOPE_USER,
    "organization": cache_pb2.SHARING_SCOPE_ORGANIZATION,
}


def request(*turns: tuple[str, ...], scope: str = ANN, policy: str = "auto", sharing: str = "", **parameters: Any) -> Any:
    """A request; turns are (role, content[, extra_json[, content_parts_json]])."""
    made = cache_pb2.CacheRequest(scope=scope, model_policy=policy, sharing=SHARINGS.get(sharing, 0))
    made.personal = bool(parameters.pop("personal", False))
    for role, content, *further in turns or (("user", "What is a quorum?"),):
        extra, parts = (*further, "", "")[:2]
        made.messages.append(
            chat_pb2.ChatMessage(role=role, content=content, extra_json=extra or "", content_parts_json=parts or "")
        )
    made.parameters.CopyFrom(chat_pb2.Parameters(**parameters))
    return made


USER, SYSTEM = ("user", "What is a quorum?"), ("system", "Be brief.")
REQUESTS = {
    "plain": request(),
    "system": request(SYSTEM, USER),
    "developer": request(("developer", "Be brief."), USER),
    "earlier turns": request(SYSTEM, ("user", "Hello"), ("assistant", "Hi, how can I help?"), USER),
    "white space counts": request(("user", "What is a quorum? ")),
    "case counts": request(("user", "what is a quorum?")),
    "empty text": request(("user", "")),
    "line breaks and quotes": request(("user", 'a\n"b"\\\t\u2028\u0000c')),
    "umlauts": request(("user", "Größe für Käse")),
    "an emoji": request(("user", "👩\u200d🚀 ok")),
    "hangul, composed": request(("user", "\ud55c\uad6d\uc5b4")),
    "chinese": request(("user", "什么是法定人数？")),
    "arabic": request(("user", "ما هو النصاب القانوني؟")),
    "long": request(("user", "quorum " * 10_000)),
    "organisation": request(scope=ACME),
    "another organisation": request(scope="organizations/zenith"),
    "workspace sharing": request(sharing="workspace"),
    "workspace sharing without a workspace": request(scope=ACME, sharing="workspace"),
    "user sharing": request(sharing="user"),
    "user sharing without a user": request(scope=TEAM, sharing="user"),
    "personal": request(personal=True),
    "masked": request(("user", "Write to [EMAIL_1]")),
    "policy": request(policy="farthing/auto|policy=1|task=chat|tier="),
    "temperature": request(temperature=0.2),
    "temperature, whole": request(temperature=1.0),
    "temperature zero": request(temperature=0.0),
    "top_p": request(top_p=0.95),
    "tokens": request(output_tokens_max=256),
    "seed": request(seed=42),
    "negative seed": request(seed=-(2**63)),
    "stop": request(stop=["\n", "END"]),
    "tools": request(tools_json=TOOLS),
    "response format": request(response_format_json='{"type":"json_object"}'),
    "everything": request(
        SYSTEM, USER, temperature=0.7, top_p=1.0, output_tokens_max=1024, seed=7, stop=["."], tools_json=TOOLS, sharing="user"
    ),
    "further parameter": request(extra_json='{"logit_bias":{"50256":-100},"n":1}'),
    "further fraction": request(extra_json='{"frequency_penalty":0.1}'),
    "further small fraction": request(extra_json='{"penalty":1.5e-7}'),
    "further long number": request(extra_json='{"id":123456789012345678901234567890}'),
    "a named one again": request(temperature=0.2, extra_json='{"temperature":0.9}'),
    "name": request(("user", "What is a quorum?", '{"name":"ann"}')),
    "tool call": request(USER, ("assistant", "", CALL), ("tool", "42", '{"tool_call_id":"call_1"}')),
    "image": request(("user", "", "", IMAGE)),
    "function": request(("function", "42", '{"name":"find"}')),
}
KEYS = {
    "plain": "3056bb316bd0435add2cc468a62a796ec352bf6882f0927e7747c596dc8c0a62",
    "system": "fb6219c5aeeb7103aa332e1300d61487eeecd9f9b83aee1f791a1e808a3e9384",
    "developer": "d580e0e1adb0789f4a499cce5c6b2cf3ed3c27fc868a7c66e6e371b21ec920a7",
    "earlier turns": "42b445d80b119524c1eb843d4ab1caebe44d74b4cd7b0d7992cd46c06745b08d",
    "white space counts": "80aedd93807e02252ddf7fe34e4aae8d9719822c1b00a06d5aa81878f7ffafb8",
    "case counts": "8350ec740886ac59c96ebc0bb9ec3935a9194c24c111bbf0d4097e71f25dcdc5",
    "empty text": "27e9b59869d4e26b2e2a3fdb5f5475524f6bc3d403f307aa22d1bfcf54bd69a5",
    "line breaks and quotes": "7a9348da0fd1bc461ea6b12b408329ffe70352809325db044a2d77f7c47cc550",
    "umlauts": "2aed78449e27839eb590c402c54e8a53a247177038f715ff2c50872f84955163",
    "an emoji": "c35205696ed6acb95744a42e624f128042742fe78c7aedeb37d5efb5b83b2a2e",
    "hangul, composed": "f7efa56d25c647c816d1cba918f421ca6377e74a198aa026cf92d33d9d9cb3aa",
    "chinese": "3e199392b197ebf56694df22d22cab15e9d641b69649feee1732d6b907a47a90",
    "arabic": "4074c3795672a637fcbc89dd9cbdd86dc9d8eef48fc2a9cc5b0b1e5b0f1c9478",
    "long": "5c443d4b08be110fb238a35abf57aa37877f2296ba71b352cd28723779223779",
    "organisation": "3056bb316bd0435add2cc468a62a796ec352bf6882f0927e7747c596dc8c0a62",
    "another organisation": "c833533fc3a309e3d209503b05b137d0d6a49d5263940e630f62907a09318afe",
    "workspace sharing": "bc6ab5841867747f5a22ea2f06aded031bd12f0fe4f08c2884b5059ec8666045",
    "workspace sharing without a workspace": "8dafdc4aff2663a448f42d3eb40068e3bc69dcb8f4dfe91fbebf4e4703a306ca",
    "user sharing": "e852815404298c6c5a1da149a6455e02a3ff0c646b01d029843a8167a4d2f822",
    "user sharing without a user": "e7b008fc7d09987c7c1c942f5ea3237318dfb9a71afe55ce06880ca53521ade1",
    "personal": "e852815404298c6c5a1da149a6455e02a3ff0c646b01d029843a8167a4d2f822",
    "masked": "82cbee05786ab66aaafaa04c6dd58e3cffbf989060238eb86fd906feeca01e19",
    "policy": "84972d3e700e2c3d2ca70025c80d2a4f466e033c5825d6e559ff5a4eb326167e",
    "temperature": "406a7b4aea6f67bf0d7de6d9b36b0cf07bf9a086b3f354ca4d474452268ea266",
    "temperature, whole": "e2a6689004034d47b1c2d89214855db2454f04a923f35c09da8cbe6a1add730c",
    "temperature zero": "abad54f2fb94afc8760dfad996250a556454816a614135495da621d564dbc8ca",
    "top_p": "691b9a9bc7f5f6561796b1ee942465765c4848528dc06181b7997b99534efe26",
    "tokens": "63e6ecdc129db35d54e27046930914b4e717fca158259ac6e5f0214017b37c25",
    "seed": "fb75c89214bc1cfa6e7334aca2fdf4d964e68e221106ab6404778b322a74620a",
    "negative seed": "7053b8c7ff3b4399a46a3a01a5665d3d5e9895fd896cbdffa1e3a27d5910f978",
    "stop": "a8918a0baf9614d6f9fef6c0ae2c866273ede63d2f8414b25a9865253713ea45",
    "tools": "e54bb6ce4db11de8b2450174686bb85f0a23da7ce3f1b56b903a88d8c0c54d79",
    "response format": "2e72be826e8e779ce3bcb9a71b4c5d48c3e1af9728cfe5b2bbccd2a5a4be0394",
    "everything": "6f9d4a2b110eb2e62480e1654755f7a6b6524eda06190e70ae73e6e6d8e9881d",
    "further parameter": "4face3d35800a9576394220337e4b590e954e0027a6c56c5daaaee6df97ff037",
    "further fraction": "6cb6d07feb68791b9cffe9b414a3c5c5ecbb421fa3e282c4a778980a3d4448ca",
    "further small fraction": "8ee082760f3059c5d408d031c7f71e6bc22d70c45a388b3690efe71c5ae77a15",
    "further long number": "b7d0a2dda9c2eb7cbded72d434131f15166b2c1ff4ba3f44e3517f2fcdb05310",
    "a named one again": "5170732f6d9eda9e734ae77d7c794e951d0a2eae89a2113800efa7c8e90fd684",
    "name": "98fc1a7a7757f4817457c79ebc39113c0138bbb15ee003c49b287644dbc6e3a0",
    "tool call": "06d9f9c400318cabdb1e5a6136ee6bb05f236a059b47637f3a296e65c247cb48",
    "image": "3c980723e5daedf865750ac99bb344217245358175e9e3c391693fdfd41617db",
    "function": "e6791e6dbf20490645963bbd6cc4cad37feb92cd3281f608bc01eff7d1e7e0d6",
}


async def keys_now() -> dict[str, str]:
    return {name: (await address_of(made)).key.hex() for name, made in REQUESTS.items()}


async def test_case_22_every_request_has_the_key_that_it_always_had() -> None:
    assert await keys_now() == KEYS
    shared = {("plain", "organisation"), ("personal", "user sharing")}  # whoever shares is the same, whatever is asked for
    assert all(KEYS[one] == KEYS[other] for one, other in shared)
    assert len(set(KEYS.values())) == len(KEYS) - len(shared) >= 40


def test_case_22_another_process_with_another_hash_seed_computes_the_same_keys() -> None:
    for seed in ("1", "4242"):
        done = subprocess.run(
            [sys.executable, __file__], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, timeout=60
        )
        assert orjson.loads(done.stdout) == KEYS


if __name__ == "__main__":
    print(orjson.dumps(asyncio.run(keys_now()), option=orjson.OPT_INDENT_2).decode())
