"""Whole training runs on a tiny base: what they write, what they refuse, and what a SIGKILL costs."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, tiny_base_tokenizer, tiny_language_model
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

from semcot.data import load_problems
from semcot.options import TrainOptions, parse_options
from semcot.training import build_model, load_data, train

SCRIPT = [sys.executable, str(ROOT / "train_semcot.py")]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_language_model(max_position_embeddings=1024).save_pretrained(folder)
    tiny_base_tokenizer().save_pretrained(folder)
    return folder


def tiny_options(base: Path, folder: Path) -> TrainOptions:
    return TrainOptions(
        output_dir=str(folder),
        base_model=str(base),
        generator_layers=2,
        num_samples=[40, 60],
        validation_fraction=0.1,
        encoder_batch_size=8,
        encoder_embedding_dim=16,
        batch_size=8,
        warmup_epochs=0.5,
        lens_weight=0.5,
        lens_epochs=0.5,
        max_steps=5,
        eval_steps=5,
        save_steps=2,
        logging_steps=1,
        bf16=False,
    )


@pytest.fixture
def options(base, tmp_path) -> TrainOptions:
    return tiny_options(base, tmp_path / "run")


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory) -> tuple[TrainOptions, Path]:
    """One run to the end, shared by the tests that look at what it left."""
    options = tiny_options(base, tmp_path_factory.mktemp("finished") / "run")
    train(options)
    return options, Path(options.output_dir)


def test_the_output_folder_is_a_checkpoint(finished):
    options, folder = finished
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    batch = tokenizer(["How many songs are left?"], return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[1] > batch.input_ids.shape[1]
    assert model.config.checkpoint_kind == "adapter" and not list(folder.rglob("*.pkl"))
    assert json.loads((folder / "options.json").read_text()) == asdict(options)
    encoder = SentenceTransformer(str(folder / "reasoning_encoder"), trust_remote_code=True)
    assert encoder.encode("2 + 2 = 4").shape == (16,)


def test_the_card_and_the_records(finished):
    options, folder = finished
    card = (folder / "README.md").read_text()
    for text in ("synthetic_coin_flip (40)", "| learning_rate | 0.0003 |", "| generator, generator | answer loss |"):
        assert text in card
    record = json.loads((folder / "training.json").read_text())
    assert record["train_problems"] + record["validation_problems"] == 100 and len(record["data_sha256"]) == 64
    for phase, terms in (("warmup", "answer_loss alignment_loss lens_loss"), ("lens", "lens_loss")):
        history = json.loads((folder / "phases" / phase / "losses.json").read_text())
        for term in terms.split():
            assert sum(term in entry for entry in history) == 5, "a training loss for each step"
            assert any(f"eval_{term}" in entry for entry in history)


def test_only_the_projection_trains_in_the_warm_up_and_the_base_never(finished):
    options, folder = finished
    before = build_model(options)[0].state_dict()
    warm, done = (
        load_file(folder / "phases" / phase / "finished" / "model.safetensors") for phase in ("warmup", "generator")
    )
    changed = {name for name in warm if not torch.equal(warm[name], before[name])}
    assert changed == {"projection.weight", "projection.bias", "thought_embedding"}
    assert sum(not torch.equal(done[name], warm[name]) for name in done) > 10
    assert not any(name.startswith("language_model") for name in done)
    assert load_file(folder / "model.safetensors").keys() == done.keys()


def test_losses_fall(options):
    options = replace(options, alpha=0.0, lens_epochs=0.0, lens_weight=0.0, max_steps=60, epochs=20, learning_rate=3e-3)
    train(replace(options, eval_steps=30, save_steps=100))
    history = json.loads((Path(options.output_dir) / "phases/generator/losses.json").read_text())
    losses = [entry["answer_loss"] for entry in history if "answer_loss" in entry]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert not (Path(options.output_dir) / "reasoning_encoder").exists(), "alpha = 0 needs no stage 1"


@pytest.mark.slow
def test_killed_in_every_phase_and_resumed(finished, tmp_path):
    options, uninterrupted = finished
    folder = tmp_path / "run"
    flags = []
    for name, value in {**asdict(options), "output_dir": str(folder)}.items():
        if value is not None:
            flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    marks = ["reasoning_encoder/phases/dense", "reasoning_encoder/phases/all", "phases/warmup", "phases/generator"]
    for mark in marks:
        command = subprocess.Popen([*SCRIPT, *flags], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        while not list((folder / mark).glob("checkpoint-*")):
            assert command.poll() is None, f"ended before {mark}: {command.stderr.read()}"
            time.sleep(0.005)
        command.send_signal(signal.SIGKILL)
        command.communicate()
        assert not (folder / "model.safetensors").exists()
        flags[flags.index("--resume_from_checkpoint") + 1] = "True"
    result = subprocess.run([*SCRIPT, *flags], env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in (
        "model.safetensors",
        "reasoning_encoder/model.safetensors",
        "reasoning_encoder/2_Dense/model.safetensors",
    ):
        resumed, expected = load_file(folder / name), load_file(uninterrupted / name)
        assert resumed.keys() == expected.keys()
        for key in expected:
            assert torch.equal(resumed[key], expected[key]), f"{name}: {key}"


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_non_empty_folder(options, finished):
    Path(options.output_dir).mkdir()
    (Path(options.output_dir) / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        train(options)
    with pytest.raises(FileExistsError, match="holds no earlier run"):
        train(replace(options, overwrite_output_dir=True))
    assert (Path(options.output_dir) / "thesis.txt").read_text() == "mine"
    with pytest.raises(ValueError, match="alpha was 0.5, now 0.25"):
        train(replace(finished[0], alpha=0.25, resume_from_checkpoint=True))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"generator": "x/y"}, "either generator .* or generator_layers"),
        ({"generator_layers": None}, "either generator .* or generator_layers"),
        ({"alpha": 1.5}, "alpha must lie between 0 and 1"),
        ({"num_samples": [1]}, "1 numbers for 2 data sets"),
        ({"validation_fraction": 0.0}, "validation_fraction"),
    ],
)
def test_options(options, wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(options, **wrong)


def test_flags_override_the_file_and_unknown_names_are_refused(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("generator_layers: 3\nalpha: 0.25\ndataset: [gsm8k, svamp]\n")
    options = parse_options([str(recipe), "--output_dir", "x", "--alpha", "0.75"])
    assert (options.alpha, options.generator_layers, options.dataset) == (0.75, 3, ["gsm8k", "svamp"])
    with pytest.raises(FileNotFoundError, match="no recipe"):
        parse_options([str(tmp_path / "other.yaml"), "--output_dir", "x"])
    recipe.write_text("generator_layer: 3\n")
    with pytest.raises((ValueError, SystemExit)):
        parse_options([str(recipe), "--output_dir", "x", "--generator_layers", "2"])


@pytest.mark.parametrize("recipe", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_parse(recipe):
    assert parse_options([str(recipe), "--output_dir", "x"]).base_model


def test_a_generator_with_other_token_ids(options, tmp_path):
    other = tmp_path / "other"
    tiny_language_model(hidden_size=16, vocab_size=340, max_position_embeddings=1024).save_pretrained(other)
    tokenizer = tiny_base_tokenizer()
    tokenizer.add_tokens(["extra"])
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) < 340
    tokenizer.save_pretrained(other)
    base = AutoTokenizer.from_pretrained(options.base_model)
    base.add_tokens(["another", "extra"])
    base.save_pretrained(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(options.base_model).save_pretrained(tmp_path / "base")
    options = replace(options, base_model=str(tmp_path / "base"), generator=str(other), generator_layers=None)
    with pytest.raises(ValueError, match="other token ids than the base"):
        build_model(options)


def test_a_named_generator(options, tmp_path):
    small = tmp_path / "small"
    tiny_language_model(hidden_size=16, max_position_embeddings=1024).save_pretrained(small)
    tiny_base_tokenizer().save_pretrained(small)
    model, _ = build_model(replace(options, generator=str(small), generator_layers=None))
    assert model.projection.weight.shape == (32, 16) and not model.config.share_embeddings


def test_evaluation_questions_are_left_out_and_counted(options, tmp_path, capsys):
    problems = load_problems("synthetic_coin_flip", "train", num_samples=20)
    train_file, evaluation_file = tmp_path / "train.json", tmp_path / "eval.json"
    train_file.write_text(json.dumps(list(problems)))
    evaluation_file.write_text(json.dumps(list(problems)[:3]))
    options = replace(options, train_file=[str(train_file)], evaluation_file=[str(evaluation_file)], num_samples=None)
    parts = load_data(options)
    assert "3 of 3 evaluation questions also stand in train; left out" in capsys.readouterr().out
    questions = {question for part in parts for question in part["question"]}
    assert len(questions) == 17 and not questions & set(problems["question"][:3])


def test_semantic_loss_needs_both_forms_of_the_reasoning(options, tmp_path):
    file = tmp_path / "train.json"
    file.write_text(json.dumps([{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(20)]))
    with pytest.raises(ValueError, match="no pairs of reasoning and condensed_reasoning"):
        train(replace(options, train_file=[str(file)], num_samples=None))


@pytest.mark.parametrize("script", ["train_semcot.py", "eval_semcot.py"])
def test_help_from_another_folder(script, tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert result.returncode == 0 and "--output_dir" in result.stdout
