"""Figures in a checkpoint's card, as the Hub's own library reads them."""

import hashlib
import sys

import pytest
import yaml
from conftest import tiny_semcot
from huggingface_hub import EvalResultEntry, ModelCard, parse_eval_result_entries

import eval_semcot
from semcot.evaluation import cards
from semcot.evaluation.cards import update_card
from semcot.evaluation.evaluate import load_problems


@pytest.fixture
def checkpoint(tmp_path):
    model, tokenizer = tiny_semcot(checkpoint_kind="full")
    model.save_pretrained(tmp_path / "checkpoint")
    tokenizer.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def record(dataset="multiarith", n=180, accuracies=(0.9667,), split="eval", temperature=None):
    rows = [
        {"method": method, "dataset": dataset, "split": split, "seed": seed, "n": n, "accuracy": accuracy}
        for seed, accuracy in enumerate(accuracies)
        for method in ("direct", "semcot")
    ]
    return {"eval": rows, "run": {"options": {"temperature": temperature}}}


def figures(folder):
    data = ModelCard.load(folder / "README.md").data
    return {(found.dataset_type, found.dataset_split, found.metric_args["n"]): found for found in data.eval_results}


def test_the_card_shows_the_figure_on_a_second_load(checkpoint):
    before = ModelCard.load(checkpoint / "README.md")
    assert update_card(str(checkpoint), record()) == [checkpoint / "README.md"]
    (found,) = figures(checkpoint).values()
    assert (found.metric_type, found.metric_value) == ("accuracy", 96.67)
    assert (found.dataset_type, found.dataset_split) == ("ChilleD/MultiArith", "test")
    assert found.metric_args == {"n": 180, "seeds": [0]} and "greedy" in found.metric_name
    after = ModelCard.load(checkpoint / "README.md")
    assert after.text == before.text and after.data.model_name == "checkpoint"
    unchanged = {name: value for name, value in after.data.to_dict().items() if name != "model-index"}
    assert unchanged == before.data.to_dict()


def test_a_new_figure_replaces_its_like_and_no_other(checkpoint):
    for found in (record(), record(n=50, accuracies=(0.5,)), record("own.jsonl", accuracies=(0.1, 0.2))):
        update_card(str(checkpoint), found)
    update_card(str(checkpoint), record(accuracies=(0.75,)))
    update_card(str(checkpoint), record(accuracies=(0.25,), temperature=0.7))
    found = ModelCard.load(checkpoint / "README.md").data.eval_results
    assert sorted(result.metric_value for result in found) == [15.0, 25.0, 50.0, 75.0]
    assert figures(checkpoint)["own.jsonl", "eval", 180].metric_args["seeds"] == [0, 1]


def test_a_whole_benchmark_gets_an_entry_of_the_hub(checkpoint):
    card, file = update_card(str(checkpoint), record("gsm8k", 1319, (0.1234,)))
    assert file == checkpoint / ".eval_results" / "gsm8k.yaml"
    (entry,) = parse_eval_result_entries(yaml.safe_load(file.read_text()))
    wanted = EvalResultEntry("openai/gsm8k", "gsm8k", 12.34, date=entry.date, notes=entry.notes)
    assert entry == wanted and len(entry.date) == 10 and "greedy" in entry.notes
    update_card(str(checkpoint), record("gsm8k", 1319, (0.5,)))
    assert yaml.safe_load(file.read_text())[0]["value"] == 50.0


def test_the_split_is_the_one_that_the_hub_has_answers_of(checkpoint):
    update_card(str(checkpoint), record("commonsense_qa", 1221))
    assert list(figures(checkpoint)) == [("tau/commonsense_qa", "validation", 1221)]


@pytest.mark.parametrize("part", [{"n": 400}, {"n": 1319, "split": "train"}])
def test_a_part_of_it_does_not(checkpoint, part):
    assert update_card(str(checkpoint), record("gsm8k", **part)) == [checkpoint / "README.md"]
    assert not (checkpoint / ".eval_results").exists()


def test_the_command_updates_the_card_and_nothing_else(checkpoint, tmp_path, monkeypatch, capsys):
    (tmp_path / "gsm8k").mkdir()
    load_problems("synthetic_arithmetic", num_samples=3).to_json(tmp_path / "gsm8k" / "eval.json", lines=False)
    monkeypatch.setenv("SEMCOT_DATA_DIR", str(tmp_path))
    monkeypatch.setitem(cards.BENCHMARKS, "gsm8k", ("openai/gsm8k", "gsm8k", 3))
    before = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.iterdir()}
    command = f"eval_semcot.py --model {checkpoint} --data gsm8k --output_dir {tmp_path}/out --methods semcot"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--latency_samples", "0"])
    eval_semcot.main()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--update_card", "True"])
    eval_semcot.main()
    assert f"Updated: {checkpoint}/README.md, {checkpoint}/.eval_results/gsm8k.yaml" in capsys.readouterr().out
    after = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in checkpoint.iterdir() if file.is_file()
    }
    assert {name for name in after if after[name] != before.get(name)} == {"README.md"}
    assert figures(checkpoint)["openai/gsm8k", "test", 3].metric_value in (0.0, 33.33, 66.67, 100.0)


@pytest.mark.parametrize("model", ["someone/on-the-hub", "."])
def test_what_has_no_card_is_named_before_anything_is_run(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = eval_semcot.EvalOptions(model=model, data="nothing", output_dir="out", update_card=True)
    with pytest.raises(ValueError, match="update_card writes into README.md of a checkpoint's own folder"):
        eval_semcot.evaluate(options)
    assert not (tmp_path / "out").exists()


def test_without_a_figure_there_is_nothing_to_write(checkpoint):
    found = record()
    found["eval"] = [row for row in found["eval"] if row["method"] == "direct"]
    with pytest.raises(ValueError, match="semcot, which was not evaluated"):
        update_card(str(checkpoint), found)
