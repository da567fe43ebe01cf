"""What is worth keeping: value by cost, reuse and stability saves more than recency or frequency in the same room."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from dataclasses import dataclass
from random import Random

import pytest
from farthing_cache.answers.rooms import Room, Rooms
from farthing_cache.answers.sketch import Sketch
from farthing_cache.answers.worth import (
    HALF_LIFE_S,
    Candidate,
    Worth,
    log_density,
    rank,
    stability,
    used,
    value_usd_nanos,
)

NOW_S = 1_800_000_000.0
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Item:
    """Something that is asked for."""

    key: bytes
    partition: bytes
    cost_usd_nanos: int
    payload_bytes: int


def item(name: str, chance: Random, partition: str = "p") -> Item:
    cost = int(20_000 * chance.paretovariate(1.2))
    return Item(hashed(name), hashed(partition), min(cost, 10**9), int(min(chance.lognormvariate(7, 1), 200_000)))


def hashed(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def traffic(seed: int, *, requests: int = 30_000) -> list[Item]:
    """Popular questions by Zipf, one-offs, and scans that ask for a thousand things once, one after the other."""
    chance = Random(seed)
    popular = [item(f"popular {number}", chance) for number in range(3_000)]
    weights = [1 / (number + 1) ** 0.8 for number in range(len(popular))]
    stream: list[Item] = []
    while len(stream) < requests:
        stream += chance.choices(popular, weights, k=500)
        stream += [item(f"once {len(stream)} {number}", chance, "once") for number in range(300)]
        if chance.random() < 0.1:
            stream += [item(f"scan {len(stream)} {number}", chance, f"scan {len(stream)}") for number in range(1_000)]
        tail = stream[-800:]
        chance.shuffle(tail)
        stream[-800:] = tail
    return stream


def saved_by_recency(stream: list[Item], bytes_max: int) -> int:
    kept: OrderedDict[bytes, Item] = OrderedDict()
    taken, saved = 0, 0
    for asked in stream:
        if asked.key in kept:
            kept.move_to_end(asked.key)
            saved += asked.cost_usd_nanos
            continue
        kept[asked.key] = asked
        taken += asked.payload_bytes
        while taken > bytes_max:
            taken -= kept.popitem(last=False)[1].payload_bytes
    return saved


def saved_by_frequency(stream: list[Item], bytes_max: int) -> int:
    """With perfect memory of how often everything was asked for, also what is not kept."""
    kept: dict[bytes, Item] = {}
    asked_for: Counter[bytes] = Counter()
    taken, saved = 0, 0
    for asked in stream:
        asked_for[asked.key] += 1
        if asked.key in kept:
            saved += asked.cost_usd_nanos
            continue
        kept[asked.key] = asked
        taken += asked.payload_bytes
        if taken > bytes_max:
            for key in sorted(kept, key=lambda each: asked_for[each]):
                taken -= kept.pop(key).payload_bytes
                if taken <= 0.95 * bytes_max:
                    break
    return saved


def saved_by_worth(stream: list[Item], bytes_max: int, *, step_s: float = 3.0) -> int:
    worth, rooms = Worth(), Rooms(entries_max=10**9, payload_bytes_max=bytes_max)
    kept: dict[bytes, tuple[float, Item]] = {}
    taken, saved, now_s = 0, 0, NOW_S
    for asked in stream:
        now_s += step_s
        hit = asked.key in kept
        worth.note("acme", key=asked.key, partition=asked.partition, hit=hit)
        if hit:
            before, _ = kept[asked.key]
            facts = {"cost_usd_nanos": asked.cost_usd_nanos, "payload_bytes": asked.payload_bytes}
            kept[asked.key] = used(before, uses=1, at_s=now_s, **facts), asked
            saved += asked.cost_usd_nanos
            continue
        uses = worth.uses("acme", Candidate(asked.key, asked.partition, None, asked.cost_usd_nanos, asked.payload_bytes, DAY_S))
        given = rank(uses=uses, cost_usd_nanos=asked.cost_usd_nanos, payload_bytes=asked.payload_bytes, at_s=now_s)
        if rooms.objection("acme", rank=given, payload_bytes=asked.payload_bytes):
            continue
        kept[asked.key] = given, asked
        taken += asked.payload_bytes
        if rooms.note("acme", Room(len(kept), taken)):
            gone = 0
            for key in sorted(kept, key=lambda each: kept[each][0]):
                rank_max, victim = kept.pop(key)
                gone += victim.payload_bytes
                if taken - gone <= rooms.down_to.payload_bytes:
                    break
            taken -= gone
            rooms.note("acme", Room(len(kept), taken))
            rooms.note_evicted("acme", rank_max=rank_max)
    return saved


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_value_saves_clearly_more_than_recency_and_frequency_in_the_same_room(share: float) -> None:
    stream = traffic(7)
    bytes_max = int(share * sum(each.payload_bytes for each in {each.key: each for each in stream}.values()))
    by_worth = saved_by_worth(stream, bytes_max)
    assert by_worth > 1.5 * saved_by_recency(stream, bytes_max)
    assert by_worth > 1.15 * saved_by_frequency(stream, bytes_max)


def test_a_later_use_counts_for_more_and_time_alone_changes_no_order() -> None:
    facts = {"cost_usd_nanos": 10_000_000, "payload_bytes": 1_000}
    early, late = rank(uses=1, at_s=NOW_S, **facts), rank(uses=1, at_s=NOW_S + HALF_LIFE_S, **facts)
    assert late == pytest.approx(early + 1)
    assert used(early, uses=3, at_s=NOW_S, **facts) == pytest.approx(early + 2)  # four uses in all
    assert value_usd_nanos(early, payload_bytes=1_000, at_s=NOW_S) == pytest.approx(10_000_000, rel=1e-6)
    assert value_usd_nanos(early, payload_bytes=1_000, at_s=NOW_S + HALF_LIFE_S) == pytest.approx(5_000_000, rel=1e-6)
    assert value_usd_nanos(early, payload_bytes=1_000, at_s=NOW_S + 10_000 * HALF_LIFE_S) == 0


def test_what_is_dear_small_and_stable_is_worth_more() -> None:
    assert log_density(2_000_000, 1_000) > log_density(1_000_000, 1_000) > log_density(1_000_000, 50_000)
    assert stability(300) < 0.05 < 0.8 < stability(DAY_S)


def test_what_was_asked_before_is_likely_to_be_asked_again() -> None:
    worth, chance = Worth(), Random(1)
    fresh, again, other_words = (item(name, chance) for name in ("fresh", "again", "other words"))
    texts = {fresh.key: "How do bees fly?", again.key: "Why is the sea salty?", other_words.key: "Is salty the sea? Why?"}
    for asked in (fresh, again, again, again, other_words):
        worth.note("acme", key=asked.key, partition=asked.partition, hit=False, text=texts[asked.key])

    def uses(asked: Item) -> float:
        return worth.uses("acme", Candidate(asked.key, asked.partition, texts[asked.key], 1, 1, DAY_S))

    assert uses(again) > uses(other_words) > uses(fresh)
    assert uses(again) > 2 * stability(DAY_S)
    assert worth.uses("other", Candidate(again.key, again.partition, None, 1, 1, DAY_S)) < uses(again) / 4


def test_entries_of_a_partition_whose_answers_are_used_again_are_worth_more() -> None:
    worth, chance = Worth(), Random(2)
    for number in range(200):
        worth.note("acme", key=hashed(f"{number}"), partition=hashed("busy"), hit=number % 3 > 0)
        worth.note("acme", key=hashed(f"-{number}"), partition=hashed("idle"), hit=False)
    busy, idle = item("new", chance, "busy"), item("new", chance, "idle")
    of = [worth.uses("acme", Candidate(each.key, each.partition, None, 1, 1, DAY_S)) for each in (busy, idle)]
    assert of[0] > 10 * of[1]


def test_long_letters_about_oneself_are_hardly_asked_for_twice() -> None:
    worth = Worth()
    letter = "Dear team, I lost my card and my phone. " * 60
    long_question = "Explain how a suspension bridge carries its load. " * 60
    of = [worth.uses("acme", Candidate(hashed(text), hashed("p"), text, 1, 1, DAY_S)) for text in (letter, long_question)]
    assert of[0] == pytest.approx(of[1] / 5)


def test_a_sketch_never_counts_too_little_and_forgets_in_time() -> None:
    sketch, chance = Sketch(1_024), Random(3)
    items = [hashed(str(number)) for number in range(500)]
    true = Counter(chance.choices(items, k=3_000))
    for each, count in true.items():
        for _ in range(count):
            sketch.add(each)
    assert all(sketch.count(each) >= count for each, count in true.items())
    assert sum(sketch.count(each) - count for each, count in true.items()) < 0.02 * 3_000
    for number in range(20_000):
        sketch.add(hashed(f"later {number}"))
    assert sketch.count(items[0]) < true[items[0]] + 20


def test_a_full_room_lets_in_only_what_is_worth_more_than_what_went_last() -> None:
    rooms = Rooms(entries_max=100, payload_bytes_max=10_000)
    assert not rooms.note("acme", Room(100, 9_900))
    assert rooms.note("acme", Room(101, 9_900))
    assert rooms.down_to == Room(95, 9_500)
    rooms.note_evicted("acme", rank_max=5.0)
    assert rooms.objection("acme", rank=4.0, payload_bytes=10) == "worth less than what would have to go"
    assert rooms.objection("acme", rank=6.0, payload_bytes=10) == ""
    assert rooms.objection("other", rank=4.0, payload_bytes=10) == ""
    assert rooms.objection("acme", rank=math.inf, payload_bytes=2_000) == "larger than an eighth of the organisation's room"
    rooms.note("acme", Room(50, 5_000))
    assert rooms.objection("acme", rank=4.0, payload_bytes=10) == ""
