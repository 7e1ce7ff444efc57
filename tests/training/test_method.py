"""train_semcot.py --method, from the command to figures that eval_semcot.py makes of its folder."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from datasets import Dataset
from safetensors.torch import load_file
from training_runs import ENVIRONMENT, SCRIPT

import eval_semcot
from semcot.evaluation.methods import TRAINED
from semcot.training import MethodOptions, parse_options, train_method
from semcot.training.method import build_method, learnable
from semcot.training.problems import Problems


@pytest.fixture
def recipe(base, tmp_path) -> MethodOptions:
    return MethodOptions(
        method="cot_condensed_finetuned",
        base_model=str(base),
        output_dir=str(tmp_path / "run"),
        dataset={"synthetic_coin_flip": 20, "synthetic_arithmetic": 20},
        validation_fraction=0.1,
        batch_size=4,
        learning_rate=1e-2,
        epochs=2.0,
        trainer={"eval_steps": 5, "save_steps": 5, "logging_steps": 1, "bf16": False},
    )


def test_from_the_command_to_the_figures(base, adapter, tmp_path):
    folder = tmp_path / "rival"
    flags = ["--base_model", base, "--dataset", "synthetic_coin_flip=24", "--validation_fraction", "0.2"]
    flags += ["--batch_size", "4", "--learning_rate", "1e-2", "--max_steps", "3", "--trainer.bf16", "False"]
    command = [*SCRIPT, "--method", "cot_finetuned", *map(str, flags), "--output_dir", str(folder)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    record = json.loads((folder / "training.json").read_text())
    assert record["train_problems"] == 12 and record["stages"]["cot_finetuned"]["loss"] < 6.0, "log(330) is 5.8"
    weights = load_file(folder / "model.safetensors")
    assert sum(weight.numel() for weight in weights.values()) == record["trained_weights"] > 0
    assert (folder / "method.json").exists() and (folder / "options.json").exists()

    evaluated = tmp_path / "evaluation"
    arguments = ["--model", adapter, "--data", "synthetic_coin_flip", "--limit", 3, "--latency_samples", 1]
    arguments += ["--cot_max_new_tokens", 12, "--output_dir", evaluated]
    arguments += ["--methods", "semcot", "direct", f"cot_finetuned={folder}"]
    command = [sys.executable, str(ROOT / "eval_semcot.py"), *map(str, arguments)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    rows = json.loads((evaluated / "results.json").read_text())["eval"]
    assert [(row["method"], row["n"]) for row in rows] == [("semcot", 3), ("direct", 3), ("cot_finetuned", 3)]
    assert rows[2]["new_tokens_mean"] > 0
    assert eval_semcot.__doc__.count("--methods NAME=FOLDER")


def test_a_run_cut_short_goes_on_to_the_same_weights(recipe, tmp_path):
    """Within its second epoch, after its last step, and when it was finished."""
    train_method(recipe)
    whole = Path(recipe.output_dir)
    expected = load_file(whole / "model.safetensors")
    stage = "stages/cot_condensed_finetuned"
    steps = sorted(int(path.name.split("-")[1]) for path in (whole / stage).glob("checkpoint-*"))
    assert steps == [15, 18]
    for lost in ([f"{stage}/checkpoint-18", f"{stage}/finished"], [f"{stage}/finished"], []):
        folder = tmp_path / f"cut-{len(lost)}"
        shutil.copytree(whole, folder)
        for part in lost:
            shutil.rmtree(folder / part)
        for file in ("model.safetensors", "method.json", "training.json"):
            (folder / file).unlink()
        train_method(replace(recipe, output_dir=str(folder), resume_from_checkpoint=True))
        found = load_file(folder / "model.safetensors")
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    with pytest.raises(ValueError, match="learning_rate was 0.01, now 0.1"):
        train_method(replace(recipe, learning_rate=0.1, resume_from_checkpoint=True))
    with pytest.raises(FileExistsError, match="is not empty"):
        train_method(recipe)


def test_what_is_missing_is_said_before_anything_is_written(recipe, tmp_path):
    bare = tmp_path / "bare.jsonl"
    rows = [{"question": f"How much is {i} + 1?", "answer": str(i + 1), "reasoning": ""} for i in range(20)]
    rows[0]["condensed_reasoning"] = "0 + 1 = 1"
    bare.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        ValueError, match="None of the 18 problems of the train split has condensed_reasoning|validation"
    ):
        train_method(replace(recipe, dataset={str(bare): None}))
    with pytest.raises(ValueError, match="cot_condensed_finetuned has no setting width: it has none"):
        train_method(replace(recipe, settings={"width": 3}))
    with pytest.raises(OSError, match="The base 'nobody/nothing' could not be loaded"):
        train_method(replace(recipe, base_model="nobody/nothing"))
    assert not Path(recipe.output_dir).exists()


def test_an_epoch_is_of_the_problems_that_are_learnt_from():
    rows = Dataset.from_list([{"question": f"{i}?", "reasoning": "So." * (i % 4 > 0), "answer": "7"} for i in range(8)])
    found = learnable(Problems(rows, rows, num_in_epoch=80), ("reasoning", "answer"))
    assert len(found.train) == len(found.validation) == 6 and found.num_in_epoch == 60


def test_what_is_trained_is_in_float32_and_the_rest_as_told(recipe):
    method = build_method(replace(recipe, method="softcot", dtype="bfloat16"))
    own = method.own_weights()
    for name, weight in method.named_parameters():
        assert weight.dtype == (torch.float32 if name in own else torch.bfloat16)


def test_options_of_a_method():
    options = parse_options(
        ["--method", "cot_finetuned", "--output_dir", "o", "--settings.a", "1e-3", "--settings.b", "x"]
    )
    assert isinstance(options, MethodOptions) and options.settings == {"a": 1e-3, "b": "x"}
    (stage,) = options.stages
    assert (stage.name, stage.learning_rate, stage.batch_size) == ("cot_finetuned", 1e-4, 16)
    with pytest.raises(ValueError, match=f"there is no method 'guess' to train; there are {next(iter(TRAINED))}"):
        parse_options(["--method", "guess", "--output_dir", "o"])
    with pytest.raises(SystemExit):
        parse_options(["--method", "cot_finetuned", "--output_dir", "o", "--generator", "8"])
