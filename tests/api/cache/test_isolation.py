"""Cases 17, 18 and 20: the isolation matrix. Every request differs from every other in something; half of them have an answer.

Whom an answer belongs to is said here a second time, by a model of two lines: who shares it, and what it was asked with. Whatever a look-up
serves must be the answer of exactly that class, and a class without an answer must be served nothing, exactly and by meaning.
"""

from __future__ import annotations

import asyncio
import itertools
from random import Random
from typing import Any, NamedTuple

from farthing.cache.v1 import cache_pb2, cache_pb2_grpc
from farthing.chat.v1 import chat_pb2

QUESTION, PARAPHRASE = "How do I reset my password?", "How can I reset my password?"
EXACT, SEMANTIC = cache_pb2.LOOKUP_MODE_EXACT, cache_pb2.LOOKUP_MODE_SEMANTIC
HITS = {EXACT: cache_pb2.LOOKUP_OUTCOME_HIT_EXACT, SEMANTIC: cache_pb2.LOOKUP_OUTCOME_HIT_SEMANTIC}
MISS = cache_pb2.LOOKUP_OUTCOME_MISS
TOOLS = ("", '[{"type":"function","function":{"name":"reset"}}]')
AT_ONCE = 64


class Cell(NamedTuple):
    """A request of the matrix, a choice by dimension."""

    organization: int
    workspace: int
    user: int
    sharing: int
    personal: int
    policy: int
    system: int
    tools: int
    temperature: int
    earlier: int

    @property
    def owner(self) -> tuple[Any, ...]:
        """Whom its answer belongs to: who shares it, and what it was asked with."""
        narrowed = 2 if self.personal else self.sharing
        who = (self.organization, self.workspace, self.user)[: narrowed + 1]
        masked = self.personal and self.organization  # a turn more
        return (narrowed, who, self.policy, self.system, self.tools, self.temperature, self.earlier, masked)

    def asked(self, question: str) -> Any:
        """The request."""
        scope = f"organizations/o{self.organization}/workspaces/w{self.workspace}/projects/p/users/u{self.user}"
        made = cache_pb2.CacheRequest(scope=scope, model_policy=f"policy {self.policy}", sharing=self.sharing + 1)
        made.messages.add(role="system", content=("Be brief.", "Be long.")[self.system])
        if self.earlier:
            made.messages.add(role="user", content="I am on a phone.")
            made.messages.add(role="assistant", content="Fine.")
        # What is personal is so by what the caller says in one organisation, and by a mask token in the other.
        if self.personal and self.organization:
            made.messages.add(role="developer", content="The user is [EMAIL_1].")
        made.personal = bool(self.personal and not self.organization)
        made.messages.add(role="user", content=question)
        made.parameters.CopyFrom(chat_pb2.Parameters(temperature=self.temperature / 4, tools_json=TOOLS[self.tools]))
        return made


SIZES = Cell(2, 2, 2, 3, 2, 2, 2, 2, 2, 2)


def cells() -> list[Cell]:
    return [Cell(*chosen) for chosen in itertools.product(*(range(size) for size in SIZES))]


def chosen_for_the_test(rng: Random) -> tuple[list[Cell], dict[tuple[Any, ...], Cell]]:
    """Cells that are asked, and those among them whose answer is stored, by owner: half of the owners of all."""
    asked = rng.sample(cells(), 700)
    owners = sorted({cell.owner for cell in asked})
    stored = set(rng.sample(owners, len(owners) // 2))
    return asked, {cell.owner: cell for cell in asked if cell.owner in stored}


async def at_once(calls: list[Any]) -> list[Any]:
    done = []
    for start in range(0, len(calls), AT_ONCE):
        done += await asyncio.gather(*calls[start : start + AT_ONCE])
    return done


async def test_case_17_18_and_20_nothing_crosses_a_partition_and_paraphrases_within_one_hit(suite: Any) -> None:
    asked, stored = chosen_for_the_test(Random(17))
    async with suite("cache") as running:
        stub = cache_pb2_grpc.CacheServiceStub(running.mesh.channel("cache"))

        def store(cell: Cell) -> Any:
            answer = chat_pb2.Answer(content=repr(cell.owner), finish_reason="stop")
            request = cache_pb2.StoreAnswerRequest(request=cell.asked(QUESTION), answer=answer, model="m", semantic=True)
            return stub.StoreAnswer(request)

        await at_once([store(cell) for cell in stored.values()])
        for mode, question in ((EXACT, QUESTION), (SEMANTIC, PARAPHRASE)):
            calls = [
                stub.LookUpAnswer(cache_pb2.LookUpAnswerRequest(request=cell.asked(question), mode=mode)) for cell in asked
            ]
            for cell, found in zip(asked, await at_once(calls), strict=True):
                if cell.owner in stored:
                    assert (found.outcome, found.entry.answer.content) == (HITS[mode], repr(cell.owner)), cell
                else:
                    assert (found.outcome, found.entry.answer.content) == (MISS, ""), cell


def test_the_matrix_has_pairs_that_differ_in_each_dimension_alone_and_in_several() -> None:
    asked, stored = chosen_for_the_test(Random(17))
    answered = [cell for cell in asked if cell.owner in stored]
    unanswered = [cell for cell in asked if cell.owner not in stored]
    alone = dict.fromkeys(Cell._fields, 0)
    several = 0
    for one, other in itertools.product(answered, unanswered):
        different = [name for name in Cell._fields if getattr(one, name) != getattr(other, name)]
        if len(different) == 1:
            alone[different[0]] += 1
        several += len(different) > 1
    assert min(alone.values()) >= 10, alone
    assert several > 10_000
