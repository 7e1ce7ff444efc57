"""The problems of a run: which are read, which are left out, and how many a bounded run needs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import tiny_semcot
from training_runs import answers_alone, with_stages

from semcot.data import load_problems
from semcot.data.templates import masked
from semcot.training.options import Stage
from semcot.training.problems import Problems, check_lengths, check_reasonings, load_data, num_steps


@pytest.fixture
def unbounded(options):
    return replace(options, max_steps=-1)


def questions(problems: Problems) -> list[str]:
    return [question for part in (problems.train, problems.validation) for question in part["question"]]


@pytest.mark.parametrize("name", ["eval.json", "other.json"])
def test_evaluation_questions_are_left_out_and_counted(unbounded, tmp_path, capsys, name):
    problems = list(load_problems("synthetic_coin_flip", "train", num_samples=20))
    train_file, evaluation_file = tmp_path / "train.json", tmp_path / name
    train_file.write_text(json.dumps([*problems, {**problems[5], "question": problems[5]["question"].upper()}]))
    evaluation_file.write_text(json.dumps(problems[:3]))
    named = [str(evaluation_file)] if name != "eval.json" else None  # eval.json beside train.json is found
    found = load_data(replace(unbounded, dataset={str(train_file): None}, evaluation_file=named))
    assert "3 of 3 evaluation questions also stand in train; left out" in capsys.readouterr().out
    assert sorted(questions(found)) == sorted(problem["question"] for problem in problems[3:]), (
        "each of the others once"
    )


@pytest.mark.parametrize("name", ["svamp", "augmented:svamp"])
def test_evaluation_questions_of_a_named_data_set_are_left_out(unbounded, tmp_path, monkeypatch, capsys, name):
    problems = list(load_problems("synthetic_arithmetic", "train", num_samples=60))
    (tmp_path / "svamp").mkdir()
    (tmp_path / "svamp" / "train.json").write_text(json.dumps(problems))
    (tmp_path / "svamp" / "eval.json").write_text(json.dumps(problems[:3]))
    monkeypatch.setenv("SEMCOT_DATA_DIR", str(tmp_path))
    found = load_data(replace(unbounded, dataset={name: None if name == "svamp" else 20}))
    shared = 3 if name == "svamp" else 0
    assert f"svamp: {shared} of 3 evaluation questions also stand in train" in capsys.readouterr().out
    assert not set(questions(found)) & {problem["question"] for problem in problems[:3]}
    with pytest.raises(FileNotFoundError, match="none.json"):
        load_data(replace(unbounded, evaluation_file=[str(tmp_path / "none.json")]))


def test_the_seed_draws_problems_and_their_split(unbounded, tmp_path):
    first, second = (load_data(replace(unbounded, seed=seed)).train["question"] for seed in (0, 1))
    assert not set(first) & set(second)
    file = tmp_path / "own.json"
    file.write_text(json.dumps(list(load_problems("synthetic_arithmetic", num_samples=40))))
    own = replace(unbounded, dataset={str(file): None}, validation_fraction=0.5)
    first, second = (load_data(replace(own, seed=seed)).validation["question"] for seed in (0, 1))
    assert set(first) != set(second)


def test_a_file_named_as_evaluation_splits_are_is_none_of_a_synthetic_set(unbounded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("eval").write_text("something else")
    assert len(load_data(unbounded).train) == 90


def test_what_bounds_steps_bounds_problems_and_validation(options, tmp_path, monkeypatch):
    drawn = []

    def counted(name, split, **given):
        drawn.append(given.get("num_samples"))
        return load_problems(name, split, **given)

    monkeypatch.setattr("semcot.training.problems.load_problems", counted)
    large = replace(options, dataset={"synthetic_arithmetic": 165000, "synthetic_coin_flip": 10000}, max_steps=10)
    found = load_data(large)
    assert sum(drawn) <= 10 * 8 / 0.9 + 2 and drawn[0] > 10 * drawn[1]
    assert 60 < len(found.train) <= 90 and len(found.validation) <= 10
    assert abs(found.num_in_epoch - 0.9 * 175000) < 0.02 * 175000
    stages = {stage.name: stage for stage in large.stages}
    assert num_steps(large, stages["generator"], found.num_in_epoch, 8) == 10
    few = replace(stages["warm_up"], epochs=1e-4)
    assert num_steps(large, few, found.num_in_epoch, 8) == 2, "as many as its epochs have, where these are fewer"
    # A file's number of problems is known only once it was read.
    file = tmp_path / "own.json"
    file.write_text(json.dumps(list(load_problems("synthetic_arithmetic", num_samples=300))))
    found = load_data(replace(large, dataset={str(file): None}))
    assert len(found.train) == 89 and len(found.validation) == 30 and found.num_in_epoch == 270
    bounded = with_stages(replace(options, max_steps=-1), "warm_up", "generator", losses={"answer": 1}, max_steps=2)
    assert len(load_data(bounded).train) < 20
    one = [bounded.stages[0], replace(bounded.stages[1], max_steps=-1)]
    assert len(load_data(replace(bounded, stages=one)).train) == 90, "one of the stages reads all"


def test_a_stage_may_have_problems_of_its_own(unbounded):
    stage = replace(unbounded.stages[-1], dataset={"synthetic_coin_flip": 30})
    found = load_data(unbounded, stage)
    assert len(questions(found)) == 30 and all("coin" in question for question in questions(found))


def test_stages_with_problems_of_their_own_draw_others(unbounded):
    first, second = (replace(unbounded.stages[-1], name=name, dataset={"synthetic_coin_flip": 30}) for name in "ab")
    both = replace(unbounded, dataset={"synthetic_coin_flip": 30}, stages=[*unbounded.stages[:2], first, second])
    drawn = [set(questions(load_data(both, stage))) for stage in (None, first, second)]
    assert len(set.union(*drawn)) > 80, "30 problems, three times"


def test_what_a_stage_holds_out_is_trained_on_in_none(unbounded, tmp_path):
    file, words = tmp_path / "train.json", "abcdefghij"
    rows = [{"question": f"{i} {a} and 2 {b}?", "answer": str(i + 2)} for a in words for b in words for i in range(3)]
    file.write_text(json.dumps(rows))
    own = {"dataset": {str(file): None}, "losses": {"answer": 1.0}}
    stages = [replace(unbounded.stages[-1], name=name, **own) for name in "abc"]
    options, parted = replace(unbounded, dataset=own["dataset"], stages=stages, validation_by_template=True), {}
    found = [load_data(options, parted=parted)] + [load_data(options, stage, parted) for stage in stages]
    held_out, trained = (
        [set(map(masked, getattr(part, name)["question"])) for part in found] for name in ("validation", "train")
    )
    assert held_out[0] and all(templates == held_out[0] for templates in held_out)
    assert not held_out[0] & set.union(*trained)
    assert set(map(masked, load_data(options, stages[1]).validation["question"])) != held_out[0], "alone, of its seed"


def test_validation_is_of_other_templates_unless_told_otherwise(unbounded, tmp_path):
    file = tmp_path / "train.json"
    rows = [{"question": f"{i} {thing} and 2?", "answer": str(i + 2)} for thing in "abcdefghij" for i in range(9)]
    file.write_text(json.dumps(rows))
    for by_template in (True, False):
        found = load_data(replace(unbounded, dataset={str(file): None}, alpha=0, validation_by_template=by_template))
        shared = set(map(masked, found.train["question"])) & set(map(masked, found.validation["question"]))
        assert len(found.validation) == 9 and bool(shared) != by_template


def test_all_questions_may_be_those_of_the_evaluation(unbounded, tmp_path):
    file = tmp_path / "train.json"
    file.write_text(json.dumps([{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(20)]))
    with pytest.raises(ValueError, match="No problem is left to train on"):
        load_data(replace(unbounded, dataset={str(file): None}, evaluation_file=[str(file)]))


def test_a_loss_that_the_data_cannot_give_is_refused(unbounded, tmp_path):
    file = tmp_path / "train.json"
    bare = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(20)]

    def check(stage: Stage, rows: list[dict], **changes) -> None:
        file.write_text(json.dumps(rows))
        options = replace(unbounded, dataset={str(file): None}, **changes)
        check_reasonings(options, stage, load_data(options))

    dense, _, _, thoughts, generator = unbounded.stages
    check(answers_alone(unbounded).stages[0], bare)
    with pytest.raises(ValueError, match="None of the 18 problems of the train split has both .*--alpha 0"):
        check(dense, bare)
    with pytest.raises(ValueError, match="Stage thoughts: .*no condensed_reasoning.*--stages.thoughts.epochs 0"):
        check(thoughts, bare)
    both = [{**problem, "reasoning": "r", "condensed_reasoning": "c"} for problem in bare[:5]]
    with pytest.raises(ValueError, match="problems of the validation split has both .*--validation_fraction"):
        for seed in range(50):
            check(dense, [*both, *bare[5:]], seed=seed)
    with pytest.raises(ValueError, match="batch_size of stage dense is 1"):
        check(
            replace(dense, batch_size=1),
            [{**problem, "reasoning": "r", "condensed_reasoning": "c"} for problem in bare],
        )


def test_a_problem_may_be_as_long_as_the_models_read():
    model, _ = tiny_semcot()
    check_lengths(model, {"question": ["x"], "length": [512]})
    with pytest.raises(ValueError, match="has 513 tokens"):
        check_lengths(model, {"question": ["x"], "length": [513]})
