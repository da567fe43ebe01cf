"""What the demonstration sends, and how it knows that an answer is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from farthing_runtime.replay.answers import Recorded, Recordings, read_recordings
from farthing_runtime.replay.routing_data import read_zeroeval

_HERE = Path(__file__).parent
_CHARACTERS_PER_TOKEN = 4
_SEED = 7
_REPEATS = 60
_ZEROEVAL_PAIR = ("gpt-4o-mini-2024-07-18", "gemini-1.5-flash")
_ZEROEVAL_STRONG = "gpt-4o"
_DESK_MODELS = ("small", "medium", "large")


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt, and whether a model's answer to it is right; None where nobody knows."""

    prompt: str
    is_right: Callable[[str, str], bool | None]


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything a demonstration needs: `config` is a farthing.yaml with REPLAY_URL where the replay server's address goes."""

    title: str
    questions: tuple[Question, ...]
    recordings: Recordings
    config: str
    baseline_model: str

    def baseline_right(self) -> int | None:
        """How many answers the baseline model alone would have got right."""
        verdicts = []
        for question in self.questions:
            recorded = self.recordings.find(self.baseline_model, question.prompt)
            verdicts.append(question.is_right(self.baseline_model, recorded.answer) if recorded else None)
        return None if None in verdicts else sum(bool(verdict) for verdict in verdicts)


def support_desk() -> Workload:
    """The made-up support desk: every question once, some again, in a shuffled order that is the same every time."""
    topics = [json.loads(line) for line in (_HERE / "support_desk.jsonl").read_text().splitlines() if not line.startswith("#")]
    questions = [Question(asking, _says(topic["right"])) for topic in topics for asking in topic["askings"]]
    rng = Random(_SEED)
    questions += rng.choices(questions, k=_REPEATS)
    rng.shuffle(questions)
    config = (_HERE / "farthing.yaml").read_text()
    return Workload("a made-up support desk", tuple(questions), Recordings(_desk_answers(topics)), config, "desk-large")


def _desk_answers(topics: list[dict[str, Any]]) -> list[Recorded]:
    answers = []
    for topic in topics:
        for prompt in (*topic["askings"], *topic.get("sent_as", ())):
            for size in _DESK_MODELS:
                answer = topic[size]
                tokens = -(-len(prompt) // _CHARACTERS_PER_TOKEN) + 8, -(-len(answer) // _CHARACTERS_PER_TOKEN)
                answers.append(Recorded(f"desk-{size}", prompt, answer, *tokens, finish_reason="stop"))
    return answers


def _says(phrase: str) -> Callable[[str, str], bool]:
    return lambda _model, answer: phrase.lower() in answer.lower()


def recorded_answers(folder: Path) -> Workload:
    """The ZeroEval questions against the recorded answers of its models, at the prices in `prices.json`; other recordings as they are."""
    zeroeval = (folder / "zeroeval_questions.parquet").is_file()
    recordings = Recordings(read_zeroeval(folder)) if zeroeval else read_recordings(folder)
    strong = _strong(recordings)
    questions = [Question(each.prompt, _recorded_verdict(recordings, each.prompt)) for each in recordings.all_of(strong)]
    Random(_SEED).shuffle(questions)
    title = f"recorded answers of {len(recordings.models)} models"
    return Workload(title, tuple(questions), recordings, _config(folder, recordings, strong), strong)


def _recorded_verdict(recordings: Recordings, prompt: str) -> Callable[[str, str], bool | None]:
    """What was recorded of this very answer to this very prompt: an answer to another prompt is not right here."""

    def is_right(model: str, answer: str) -> bool | None:
        recorded = recordings.find(model, prompt)
        return recorded is not None and recorded.answer.strip() == answer.strip() and bool(recorded.correct)

    return is_right


def _strong(recordings: Recordings) -> str:
    return next(name for name in recordings.models if name.startswith(_ZEROEVAL_STRONG) and "mini" not in name)


def _config(folder: Path, recordings: Recordings, strong: str) -> str:
    prices: dict[str, list[float]] = next(iter(json.loads((folder / "prices.json").read_text()).values()))
    lines = ["version: 1", "providers:", '  replay: {base_url: "REPLAY_URL", api_key_optional: true, retries: 1}', "models:"]
    for name in recordings.models:
        paid, made = prices[name]
        lines.append(
            f'  "{name}": {{provider: replay, output_tokens_max: 8192, token_margin_pct: 60, price: '
            f'{{input_usd_per_million_tokens: "{paid}", output_usd_per_million_tokens: "{made}"}}}}'
        )
    pair = [next(known for known in recordings.models if known.startswith(name)) for name in _ZEROEVAL_PAIR]
    lines += [
        "routing:",
        f'  baseline_model: "{strong}"',
        "  output_tokens_default: 8192",
        "  detect_capabilities: false",
        "  cascades:",
        f'    - {{steps: ["{pair[0]}", "{strong}"], agreement: ["{pair[0]}", "{pair[1]}"], accept_confidence: 0.9}}',
        "policy: {version: recorded-answers}",
    ]
    return "\n".join(lines) + "\n"
