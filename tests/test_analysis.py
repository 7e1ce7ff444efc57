"""The scripts that look into a checkpoint and its thoughts, on a tiny one."""

import json
import sys

import pytest
import torch
import yaml
from conftest import ROOT, tiny_base_tokenizer, tiny_language_model, tiny_semcot

from analysis import (
    ablations,
    accuracy_by_steps,
    base_precision,
    meaning_of_thoughts,
    templates,
)
from semcot.data import load_problems
from semcot.encoder import build_reasoning_encoder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The folder of a tiny full checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model, tokenizer = tiny_semcot(num_thoughts=4, checkpoint_kind="full")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """Calls a script's main with arguments; returns the lines that it prints."""

    def call(script, *arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
        script.main()
        return capsys.readouterr().out.splitlines()

    return call


def test_base_precision_changes_the_base_by_as_much_as_it_says(checkpoint, call, tmp_path):
    output = tmp_path / "precision.json"
    options = ["--data", "synthetic_coin_flip", "--limit", 4, "--noise", 0.05, 0.5, "--output", output]
    printed = call(base_precision, "--model", checkpoint, *options)
    rows = json.loads(output.read_text())["eval"]
    sizes = {row["base"]: row["relative_change"]["median"] for row in rows}
    assert len(printed) == len(rows) == 7 and all(row["n"] == 4 for row in rows)
    assert sizes["as is"] == 0 < sizes["bfloat16"] < sizes["int8, a scale for each row"] < 0.02
    assert sizes["6 bit, in groups of 32"] < 0.04 < sizes["4 bit, in groups of 32"] < 0.2
    assert (sizes["noise of 5%"], sizes["noise of 50%"]) == pytest.approx((0.05, 0.5), rel=1e-4)


def test_the_base_gets_the_changed_matrices():
    weight = torch.tensor([[7.0, -3.0, 2.0, 0.0], [0.7, 0.34, -0.36, 0.0]])
    base, original = torch.nn.Linear(4, 2, bias=False), {"weight": weight}
    sizes = base_precision.change_base(base, original, lambda matrix: 1.5 * matrix)
    assert torch.equal(base.weight, 1.5 * weight) and sizes == pytest.approx({"weight": 0.5})


def test_accuracy_by_steps_tells_lengths_operations_and_large_answers_apart(call, tmp_path):
    problems = load_problems("synthetic_shapes", "train", num_samples=60, seed=3)
    results = {"eval": [{"dataset": "synthetic_shapes", "split": "train", "n": 60, "seed": 3}]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    rows = [{"question": p["question"], "method": "semcot", "correct": int(p["answer"]) <= 100} for p in problems]
    rows += [{**row, "method": "direct"} for row in rows]
    (tmp_path / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = {line[:24].strip(): line[24:].split() for line in call(accuracy_by_steps, tmp_path)}
    lengths = [condensed.count("=") for condensed in problems["condensed_reasoning"]]
    large = sum(int(answer) > 100 for answer in problems["answer"])
    assert large and found["above 100"] == ["0.0%", "of", str(large)]
    assert all(found[f"{n} steps"][1:] == ["of", str(lengths.count(n))] for n in (1, 2, 3))
    told = [" then ".join(step.split()[1] for step in p["condensed_reasoning"].split(", ")) for p in problems]
    assert all(found[name][-1] == str(told.count(name)) for name in set(told))


def test_templates_are_counted_and_what_of_an_evaluation_stands_among_them(call, tmp_path):
    problems = [
        {
            "question": f"{name} had {a} eggs and ate {b}. How many? ({'x' * i})",
            "reasoning": f"{a} - {b} = {a - b}",
            "answer": str(a - b),
        }
        for name in ("Haley", "Robin")
        for a, b in ((9, 4), (50, 7))
        for i in range(1, 31)
    ]
    problems.append({"question": "Why?", "reasoning": "So.", "answer": "7"})
    file = tmp_path / "own.json"
    file.write_text(json.dumps(problems))
    asked = [problems[0]["question"], problems[0]["question"].replace("Haley had 9", "Robin had 7"), "Who had 9 eggs?"]
    (tmp_path / "eval.json").write_text(json.dumps([{"question": question, "answer": "7"} for question in asked]))
    lines = call(templates, file, "--eval", tmp_path / "eval.json")
    train, evaluation = (int(line.split()[1]) for line in lines[:2])
    assert train + evaluation == 120 and 0 < evaluation < train
    assert lines[0] == f"train: {train} of 121 problems, in {train // 4} templates"
    assert [line.partition(" evaluated")[0] for line in lines[2:]] == [
        "verbatim: 1 of 3",
        "twin: 1 of 3",
        "near: 1 of 3",
        "new: 0 of 3",
    ]


def test_ablations_give_the_mean_with_its_interval():
    rows = [{"variant": "no warm-up", "method": "semcot", "accuracy": share} for share in (0.5, 0.7, 0.6)]
    rows.append({"variant": "full", "method": "semcot_zeroed", "accuracy": 0.1})
    table = ablations.means(rows)
    # Student's 4.303 at two degrees of freedom, times 0.1 / sqrt(3).
    assert table["no warm-up"] == pytest.approx({"seeds": 3, "mean": 0.6, "half_width": 0.2484}, abs=1e-4)
    assert table["thoughts zeroed"] == {"seeds": 1, "mean": 0.1, "half_width": None}


def test_ablations_train_and_evaluate_each_variant_once(call, tmp_path, monkeypatch):
    commands = []

    def run(*command):
        commands.append(command)
        if command[0] == "eval_semcot.py":
            folder = tmp_path / command[command.index("--output_dir") + 1]
            folder.mkdir()
            methods = command[command.index("--methods") + 1 : command.index("--latency_samples")]
            rows = [{"method": method, "accuracy": 0.5, "n": 10} for method in methods]
            record = {"eval": rows, "meta": {"device": "Abacus"}}
            (folder / "results.json").write_text(json.dumps(record))

    monkeypatch.setattr(ablations, "run", run)
    options = ["--data", "synthetic_coin_flip", "--limit", 10, "--seeds", 1, "--runs_dir", tmp_path / "runs"]
    options += ["--variants", "full", "K = 1", "--output", tmp_path / "ablations.json"]
    recipe = ROOT / "configs" / "ablations.yaml"
    for _ in range(2):
        assert call(ablations, recipe, *options)[0].split() == ["full", "50.0%", "over", "1", "seeds"]
        assert [command[0] for command in commands] == ["train_semcot.py", "eval_semcot.py"] * 2
    record = json.loads((tmp_path / "ablations.json").read_text())
    assert [(row["variant"], row["train_seed"]) for row in record["eval"]] == [("full", 1)] * 4 + [("K = 1", 1)]
    written = yaml.safe_load((tmp_path / "runs" / "K1-1" / "recipe.yaml").read_text())
    assert written == {**yaml.safe_load(recipe.read_text()), "num_thoughts": 1}


def test_variants_leave_out_what_they_say():
    def stages():
        return [
            {"name": "encoder", "train": "reasoning_encoder"},
            {"name": "warm_up", "train": ["projection"], "losses": {"answer": 0.5, "alignment": 0.5}},
            {"name": "thoughts", "train": ["generator"], "losses": {"token_supervision": 1}},
        ]

    def left(variant):
        recipe = {"stages": stages()}
        ablations.VARIANTS[variant](recipe)
        return {stage["name"]: stage.get("losses", stage.get("max_steps")) for stage in recipe["stages"]}

    both = {"answer": 0.5, "alignment": 0.5}
    assert left("no semantic loss") == {"warm_up": {"answer": 0.5}, "thoughts": {"token_supervision": 1}}
    assert left("no token supervision") == {"encoder": None, "warm_up": both}
    assert left("no warm-up") == {"encoder": None, "thoughts": {"token_supervision": 1}}
    assert left("encoder hardly trained")["encoder"] == 1


@pytest.mark.slow
def test_ablations_with_whole_runs(call, tmp_path):
    """Trained and evaluated in processes of their own."""
    tiny_language_model(max_position_embeddings=1024).save_pretrained(tmp_path / "base")
    tiny_base_tokenizer().save_pretrained(tmp_path / "base")
    stages = yaml.safe_load((ROOT / "configs" / "ablations.yaml").read_text())["stages"]
    recipe = {"base_model": str(tmp_path / "base"), "generator": 2, "num_thoughts": 4, "max_steps": 2}
    recipe |= {"dataset": {"synthetic_coin_flip": 60}, "validation_fraction": 0.2, "stages": stages}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"trainer": {"bf16": False}}))
    options = ["--data", "synthetic_coin_flip", "--limit", 5, "--seeds", 1, "--runs_dir", tmp_path / "runs"]
    options += ["--variants", "no semantic loss", "K = 1", "--output", tmp_path / "ablations.json"]
    call(ablations, tmp_path / "recipe.yaml", *options)
    rows = json.loads((tmp_path / "ablations.json").read_text())["eval"]
    assert [(row["variant"], row["n"], row["seed"]) for row in rows] == [
        ("no semantic loss", 5, 1000),
        ("K = 1", 5, 1000),
    ]


def test_answers_with_given_thoughts_do_not_depend_on_the_batch():
    model, tokenizer = tiny_semcot(num_thoughts=4)
    problems = [{"question": "x" * n} for n in range(1, 6)]
    thoughts = torch.randn(5, 4, 32, generator=torch.Generator().manual_seed(0)) * 5
    answers = meaning_of_thoughts.answer_with(model, tokenizer, problems, thoughts)
    assert meaning_of_thoughts.answer_with(model, tokenizer, problems, thoughts, 2) == answers
    assert len(set(answers)) > 3


def test_meaning_of_thoughts_fits_them_to_the_reasonings(checkpoint, call, tmp_path):
    model, tokenizer = tiny_semcot(num_thoughts=4)
    build_reasoning_encoder(model.language_model, tokenizer, embedding_dim=16).save(str(tmp_path / "encoder"))
    output = tmp_path / "meaning.json"
    options = ["--data", "synthetic_coin_flip", "--limit", 6, "--steps", 40, "--output", output]
    call(meaning_of_thoughts, checkpoint, "--encoder", tmp_path / "encoder", *options)
    rows = {row["thoughts"]: row for row in json.loads(output.read_text())["eval"]}
    start, fitted = rows["tokens at random"], rows["those, fitted to the reasoning"]
    assert fitted["cosine"] > max(0.9, start["cosine"]) and fitted["own reasoning found"] > 0.5
    assert all(0 <= row["accuracy"] <= 1 and row["n"] == 6 for row in rows.values())


def test_thoughts_are_judged_by_their_own_reasonings(monkeypatch):
    monkeypatch.setattr(meaning_of_thoughts, "encode_thoughts", lambda encoder, thoughts: thoughts)
    monkeypatch.setattr(meaning_of_thoughts, "answer_with", lambda *_: [" 7", " 8", " 9"])
    problems = [{"answer": "7"}, {"answer": "7"}, {"answer": "9"}]
    thoughts = torch.tensor([[2.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    figures = meaning_of_thoughts.judge(None, None, None, problems, 3 * torch.eye(3), thoughts)
    assert figures == {"cosine": 0.8667, "own reasoning found": 0.6667, "accuracy": 0.6667}
