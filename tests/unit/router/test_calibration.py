"""Fitting a policy to labelled answers, and what it decides."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import numpy as np
import orjson
import pytest
from farthing_core.errors import FieldInvalid
from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.calibration.examples import Example, ExampleAnswer, example, read_examples
from farthing_router.calibration.fitting import FitSpec, Fitted, TargetUnreachable, fit
from farthing_router.calibration.labelled import DataTooSmall, ModelMissing
from farthing_router.calibration.policy import FORMAT, FittedPolicy, PolicyUnreadable

SPEC = FitSpec(opening=("small", "other"), strong=("big",), saving_min=0.45)


def world(count: int, *, seed: int = 1) -> list[Example]:
    """Sums that small models get wrong where a number is large, and then disagree; the big one nearly never does."""
    chance = random.Random(seed)
    examples = []
    for _ in range(count):
        one, other = chance.randrange(1, 100), chance.choice([chance.randrange(1, 10), chance.randrange(1000, 9999)])
        hard = other > 999
        right = one + other

        def answer(skill: float, nanos: int, right: int = right) -> ExampleAnswer:
            good = chance.random() < skill
            said = right if good else right + chance.randrange(1, 50)
            return ExampleAnswer(
                text=f"Adding both gives {said}. The answer is {said}", score=float(good), cost_usd_nanos=nanos
            )

        answers = {
            "small": answer(0.4 if hard else 0.98, 40),
            "other": answer(0.3 if hard else 0.95, 60),
            "big": answer(0.98, 1000),
        }
        examples.append(example(f"What is {one} + {other}?", answers))
    return examples


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit(world(400), SPEC, seed=1)


def bought(*texts: str) -> dict[str, BoughtAnswer]:
    return {model: BoughtAnswer(text=text) for model, text in zip(("small", "other"), texts, strict=False)}


def test_a_policy_escalates_where_the_strong_model_is_worth_its_price(fitted: Fitted) -> None:
    before = fitted.policy.before("What is 7 + 5?")
    assert (before.buy, before.escalate) == (("small", "other"), False)
    easy = fitted.policy.decide("What is 7 + 5?", bought("The answer is 12", "The answer is 12"))
    hard = fitted.policy.decide("What is 7 + 5123?", bought("The answer is 5160", "The answer is 5130"))
    assert (easy.buy, easy.escalate, easy.chosen) == ((), False, "small")
    assert (hard.buy, hard.escalate) == (("big",), True)
    assert hard.gain > easy.gain
    assert hard.confidence < easy.confidence


def test_the_report_says_what_comes_true_on_other_prompts(fitted: Fitted) -> None:
    served = paid = strong = 0.0
    others = world(600, seed=2)
    for each in others:
        decision = fitted.policy.decide(each.prompt, {model: each.answers[model] for model in ("small", "other")})
        final = each.answers["big" if decision.escalate else decision.chosen or ""]
        served += final.score
        paid += 100 + (1000 if decision.escalate else 0)
        strong += each.answers["big"].score
    report = fitted.report
    assert report.saving.low - 0.05 <= 1 - paid / (1000 * len(others)) <= report.saving.high + 0.05
    assert abs(served / strong - report.quality_ratio.value) < 0.05
    assert len(report.curve) <= 41
    assert report.curve[0].escalated_share == 1
    assert report.curve[-1].escalated_share == 0


def test_a_policy_is_the_same_after_it_was_kept(fitted: Fitted) -> None:
    again = FittedPolicy.from_json(fitted.policy.to_json())
    assert again.to_json() == fitted.policy.to_json()
    for each in world(20, seed=3):
        answers = {model: each.answers[model] for model in ("small", "other")}
        assert again.decide(each.prompt, answers) == fitted.policy.decide(each.prompt, answers)


@pytest.mark.parametrize("broken", ["", "[]", "{}", '{"format": 0}', "nonsense"])
def test_what_is_no_policy_is_refused_by_name(broken: str) -> None:
    with pytest.raises(PolicyUnreadable):
        FittedPolicy.from_json(broken)


def test_a_policy_of_another_format_says_to_fit_it_again(fitted: Fitted) -> None:
    other = orjson.dumps({**orjson.loads(fitted.policy.to_json()), "format": FORMAT - 1})
    with pytest.raises(
        PolicyUnreadable, match=f"format {FORMAT - 1} instead of {FORMAT}: fit it again with farthing calibrate"
    ):
        FittedPolicy.from_json(other)


def test_a_policy_with_a_missing_or_damaged_part_is_refused(fitted: Fitted) -> None:
    whole = orjson.loads(fitted.policy.to_json())
    for name in whole:
        with pytest.raises(PolicyUnreadable):
            FittedPolicy.from_json(orjson.dumps({key: value for key, value in whole.items() if key != name}))
    whole["stages"]["small"]["forest"]["left"][0] = 10**6
    with pytest.raises(PolicyUnreadable):
        FittedPolicy.from_json(orjson.dumps(whole))


def test_a_peer_that_failed_and_hostile_texts_do_not_stop_a_decision(fitted: Fitted) -> None:
    policy = fitted.policy
    assert policy.decide("What is 7 + 5?", bought("The answer is 12")).chosen == "small"
    assert policy.decide("What is 7 + 5?", {}).buy == ("big",)
    done = policy.decide("What is 7 + 5?", {**bought("12"), "big": BoughtAnswer(text="12")})
    assert (done.buy, done.chosen) == ((), "big")
    for text in ("", "\x00\ud800", "=" * 100_000, "1," * 100_000, "\\boxed{" * 30_000):
        assert policy.decide(text, bought(text, text[::-1])).reason


def test_a_dearer_strong_model_must_promise_more(fitted: Fitted) -> None:
    prompt, answers = "What is 7 + 5123?", bought("The answer is 5160", "The answer is 5130")
    usual = fitted.policy.decide(prompt, answers)
    dear = fitted.policy.decide(prompt, answers, costs={"big": 1_000_000})
    assert dear.value < usual.value
    assert (usual.escalate, dear.escalate) == (True, False)


def test_a_query_only_policy_decides_before_anything_is_bought() -> None:
    spec = FitSpec(opening=("small",), strong=("big",), saving_min=0.3, query_only=True)
    policy = fit(world(400), spec, seed=1).policy
    assert policy.before("What is 7 + 5?").buy == ("small",)
    assert policy.before("What is 7 + 5123?").buy == ("big",)
    assert policy.decide("What is 7 + 5?", bought("12")).chosen == "small"


def test_a_promise_is_refused_where_the_data_are_too_few() -> None:
    with pytest.raises(DataTooSmall) as few:
        fit(world(20), SPEC, seed=1)
    assert few.value.examples_needed > 20
    with pytest.raises(DataTooSmall) as vague:
        fit(world(80), FitSpec(opening=("small",), strong=("big",), quality_ratio_min=0.995, confidence=0.9999), seed=1)
    assert vague.value.examples_needed > 80
    promised = fit(world(600), FitSpec(opening=("small", "other"), strong=("big",), quality_ratio_min=0.95), seed=1)
    assert promised.policy.guarantee is not None
    assert promised.policy.guarantee.bound >= 0.95
    assert promised.report.saving.value > 0.3


def test_what_cannot_be_fitted_is_named() -> None:
    with pytest.raises(ModelMissing, match="huge"):
        fit(world(80), dataclasses.replace(SPEC, strong=("huge",)), seed=1)
    with pytest.raises(TargetUnreachable) as unreachable:
        fit(world(80), dataclasses.replace(SPEC, saving_min=0.97), seed=1)
    assert unreachable.value.best < 0.97
    for wrong in (
        {"saving_min": None},
        {"quality_ratio_min": 0.9},
        {"opening": ("big",)},
        {"opening": ()},
        {"saving_min": 2.0},
    ):
        with pytest.raises(FieldInvalid):
            fit(world(80), dataclasses.replace(SPEC, **wrong), seed=1)


def line(**changes: object) -> str:
    answer = {"text": "12", "score": True, "cost_usd": 0.000_001, "output_tokens": 3, "logprobs": [-0.1, -0.3]}
    return orjson.dumps({"prompt": "7 + 5?", "answers": {"small": answer}} | changes).decode()


def test_examples_are_read_from_json_lines() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "7 + 5?"}]
    plain, chat = read_examples([line(), "", line(messages=turns, prompt=None).replace('"prompt":null,', "")])
    answer = plain.answers["small"]
    assert (answer.score, answer.cost_usd_nanos, answer.output_tokens) == (1.0, 1000, 3)
    assert answer.mean_logprob == pytest.approx(-0.2)
    assert "Be brief." in chat.prompt
    assert chat.prompt.endswith("7 + 5?")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ("{", "line 2"),
        ("[1]", "line 2"),
        (line(prompt=""), "line 2: prompt"),
        (line(messages=[]), "line 2: prompt"),
        (line(surprise=1), "line 2: surprise"),
        (line(answers={}), "line 2: answers"),
        (line(answers={"m": {"text": "a", "score": 1.1}}), "line 2: answers.m.score"),
        (line(answers={"m": {"text": "a"}}), "line 2: answers.m.score"),
        (line(answers={"m": {"text": 1, "score": 1}}), "line 2: answers.m.text"),
        (line(answers={"m": {"text": "a", "score": 1, "cost_usd": -1}}), "line 2: answers.m.cost_usd"),
        (line(answers={"m": {"text": "a", "score": 1, "cost_usd_nanos": 1.5}}), "line 2: answers.m.cost_usd_nanos"),
        (line(answers={"m": {"text": "a", "score": 1, "logprobs": [0.5]}}), "line 2: answers.m.logprobs"),
        (line(answers={"m": {"text": "a", "score": 1, "output_tokens": -1}}), "line 2: answers.m.output_tokens"),
    ],
)
def test_a_line_that_is_no_example_is_named_with_its_field(wrong: str, field: str) -> None:
    with pytest.raises(FieldInvalid) as invalid:
        read_examples([line(), wrong])
    assert invalid.value.field == field


def boosters(rows: np.ndarray, target: np.ndarray) -> Sequence[object]:
    import lightgbm

    parameters = {"objective": "regression", "num_leaves": 6, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    return [lightgbm.train({**parameters, "seed": seed}, lightgbm.Dataset(rows, target), num_boost_round=30) for seed in (1, 2)]


@pytest.mark.parametrize("missing", [False, True])
def test_our_trees_say_what_lightgbm_says(missing: bool) -> None:
    from farthing_router.calibration.forest import Forest, forest_of

    rng = np.random.default_rng(5)
    rows = rng.normal(size=(400, 5))
    target = np.sin(rows[:, 0]) + rows[:, 1] * (rows[:, 2] > 0)
    if missing:
        rows[rng.random(rows.shape) < 0.2] = np.nan
    grown = boosters(rows, target)
    forest = forest_of([[(grown[0].dump_model(), 1.0)], [(each.dump_model(), 0.5) for each in grown]])
    fresh = rng.normal(size=(300, 5))
    fresh[rng.random(fresh.shape) < 0.2] = np.nan
    for tested in (forest, Forest.from_json(orjson.loads(orjson.dumps(forest.to_json())))):
        scores = tested.scores(fresh)
        assert np.allclose(scores[:, 0], grown[0].predict(fresh), atol=1e-9)
        assert np.allclose(scores[:, 1], (grown[0].predict(fresh) + grown[1].predict(fresh)) / 2, atol=1e-9)
        assert np.array_equal(tested.score(fresh[0]), scores[0])


def test_a_policy_of_answers_that_nothing_tells_apart_decides_all_the_same() -> None:
    chance = random.Random(4)
    examples = []
    for number in range(120):
        answers = {
            model: ExampleAnswer(text="It is so.", score=float(chance.random() < 0.6), cost_usd_nanos=cost)
            for model, cost in (("small", 40), ("other", 60), ("big", 1000))
        }
        examples.append(example(f"Is it so ({number})?", answers))
    policy = fit(examples, SPEC, seed=1).policy
    read = FittedPolicy.from_json(policy.to_json())
    for each in (policy, read):
        stage = dataclasses.replace(
            each.stages["small+other"], blend=dataclasses.replace(each.stages["small+other"].blend, weights={}, without={})
        )
        decided = dataclasses.replace(each, stages={**each.stages, "small+other": stage}).decide(
            "Is it?", bought("It is.", "It is.")
        )
        assert decided.chosen in ("small", "other")
        assert each.decide("Is it?", bought("It is.", "It is.")).chosen in ("small", "other")


def test_trees_of_classes_say_what_lightgbm_says() -> None:
    import lightgbm
    from farthing_router.calibration.growing import classes_from
    from farthing_router.calibration.scorer import class_gains

    rng = np.random.default_rng(6)
    rows = rng.normal(size=(500, 4))
    weak, strong = (rows[:, 0] > 0).astype(float), (rows[:, 1] > -0.5).astype(float)
    forest = classes_from(rows, weak, strong, seed=3, rounds=40, share=1.0)
    parameters = {
        "objective": "multiclass", "num_class": 4, "num_leaves": 4, "min_data_in_leaf": 15, "feature_fraction": 1.0,
        "bagging_fraction": 0.8, "bagging_freq": 1, "learning_rate": 0.05, "verbosity": -1, "num_threads": 1, "seed": 3,
        "deterministic": True, "force_col_wise": True,
    }  # fmt: skip
    data = lightgbm.Dataset(rows, 2 * weak + strong, params={"max_bin": 63, "verbosity": -1})
    said = lightgbm.train(parameters, data, num_boost_round=40).predict(rows)
    assert np.allclose(class_gains([forest], rows)[:, 0], said[:, 1] - said[:, 2], atol=1e-9)


def test_a_promise_with_several_strong_models_costs_no_more_than_with_the_first_alone() -> None:
    chance = random.Random(9)
    examples = [
        dataclasses.replace(
            each,
            answers={
                **each.answers,
                "third": dataclasses.replace(each.answers["big"], score=float(chance.random() < 0.9), cost_usd_nanos=900),
            },
        )
        for each in world(500)
    ]
    spec = FitSpec(opening=("small", "other"), strong=("big",), quality_ratio_min=0.95)
    alone = fit(examples, spec, seed=1)
    both = fit(examples, dataclasses.replace(spec, strong=("big", "third")), seed=1)
    assert both.report.saving.value >= alone.report.saving.value - 0.02
    assert both.policy.guarantee is not None


def test_features_stay_bounded_and_linear_on_hostile_texts() -> None:
    from farthing_router.calibration.answers import ANSWER_CHARACTERS_MAX
    from farthing_router.calibration.features import features_of, names_of
    from farthing_router.calibration.texts import Parts

    hostile = ("=" * 300_000, "1," * 200_000, "9" * 300_000 + "=" + "9" * 9, "\\boxed{" * 50_000, '{"answer":' * 50_000,
               "answer is " * 50_000, "1 + 1 = " * 50_000, "\x00\ud800" * 1000, "```" * 90_000, "A. " * 90_000)  # fmt: skip
    for text in hostile:
        row = features_of(text, [BoughtAnswer(text=text), BoughtAnswer(text=text[::-1])])
        assert len(row) == len(names_of(2))
        assert not np.isinf(row).any()
        assert np.nanmax(np.abs(row)) < 1e6
        parts = Parts(text[:ANSWER_CHARACTERS_MAX])
        assert len(parts.tokens) <= ANSWER_CHARACTERS_MAX
        assert len(parts.claims) <= 60
        assert sum(parts.reckoned) <= 60


@pytest.mark.parametrize(
    ("one", "other"),
    [("2,400", "2400.00"), ("$2400", "2400 dollars"), ("(B)", "B. because"), ("[1, 2]", "[1,2]"), ("'Ab'", "ab")],
)
def test_what_is_the_same_however_written_has_one_form(one: str, other: str) -> None:
    from farthing_router.judging.answers import canonical

    assert canonical(one) == canonical(other)
    assert canonical("2,400") != canonical("2,401")


def test_equations_are_reckoned_again() -> None:
    from farthing_router.calibration.texts import Parts

    assert Parts("12 + 30 = 42, then 42 * 2 = 84 and 84 / 4 = 21").reckoned == (3, 0)
    assert Parts("12 + 30 = 43; 1,200 - 200 = 1,000; 7 / 0 = 7").reckoned == (1, 2)


def test_an_embedding_is_read_where_it_is_known_and_missed_by_nobody() -> None:
    examples = world(300)
    rng = np.random.default_rng(1)
    hard = np.array([len(each.prompt) > 16 for each in examples])
    embeddings = rng.normal(size=(300, 384)) + 3 * hard[:, None]
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    spec = FitSpec(opening=("small",), strong=("big",), saving_min=0.4, query_only=True)
    policy = FittedPolicy.from_json(fit(examples, spec, seed=1, embeddings=embeddings).policy.to_json())
    place = int(np.flatnonzero(hard)[0])
    told = policy.before(examples[place].prompt, embedding=embeddings[place])
    untold = policy.before(examples[place].prompt)
    assert told.value != untold.value
    assert told.gain > 0.2
    assert untold.gain > 0.2
