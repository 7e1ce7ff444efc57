"""What a SIGKILL, a full disk or a lost Hub costs a training run: no finished work, and no bit of the result."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from runs import ENVIRONMENT, SCRIPT, as_flags, assert_same_weights, run
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import semcot.training.run
from modeling_semcot import SemCoTForCausalLM
from semcot.distillation.interchange import ExchangeCollator, spelt_right
from semcot.training import train


@pytest.mark.slow
def test_killed_in_every_phase_and_resumed(finished, tmp_path):
    options, uninterrupted = finished
    folder = tmp_path / "run"
    flags = as_flags(replace(options, output_dir=str(folder)))
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
    assert_same_weights(folder, uninterrupted)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(options, tmp_path):
    """SEMCOT_KILLS sets how many kills must find the run alive; `results/kills.json` tells of 40."""
    options, uninterrupted = replace(options, cache_questions=True), Path(options.output_dir)
    started = time.monotonic()
    run(options)
    moments, kills, longest = random.Random(0), 0, time.monotonic() - started
    while kills < int(os.environ.get("SEMCOT_KILLS", "2")):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        command = [*SCRIPT, *as_flags(replace(options, output_dir=str(folder)))]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (folder / "options.json").exists():
            assert process.poll() is None, "ended before it began"
            time.sleep(0.01)
        seconds = moments.uniform(0, longest)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            assert process.returncode == 0
            longest = seconds  # it had ended by then: sooner next time
            continue
        kills += 1
        reached = sorted(str(path.relative_to(folder)) for path in folder.rglob("checkpoint-*"))
        done = sorted(path.parent.parent.name for path in folder.rglob("finished/figures.json"))
        print(f"kill {kills} after {seconds:.2f} s: checkpoints {reached}, finished {done}")
        run(replace(options, output_dir=str(folder), resume_from_checkpoint=True))
        assert_same_weights(folder, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [["checkpoint-5"], []], ids=["within its second epoch", "after its last step"])
def test_resumed_in_a_phase_of_several_epochs(options, tmp_path, lost):
    options = replace(options, num_samples=[10, 14], warmup_epochs=0.1, epochs=3.0, lr_scheduler_type="constant")
    train(options)
    uninterrupted, folder = Path(options.output_dir), tmp_path / "cut-short"
    shutil.copytree(uninterrupted, folder)
    for name in ["finished", *lost]:
        shutil.rmtree(folder / "phases/generator" / name)
    (folder / "model.safetensors").unlink()
    run(replace(options, output_dir=str(folder), resume_from_checkpoint=True))
    assert_same_weights(folder, uninterrupted)


def test_exchanged_steps_train_the_thought_layers_alone_and_a_resumed_run_repeats(
    options, finished, tmp_path, monkeypatch
):
    collators, passes, found = [], [], []

    class Observed(ExchangeCollator):
        def __call__(self, rows):
            collators.append(self)
            passes.append(self.epoch())
            return super().__call__(rows)

    def observed(*arguments):
        found.append(spelt_right(*arguments))
        return found[-1]

    monkeypatch.setattr(semcot.training.run, "ExchangeCollator", Observed)
    monkeypatch.setattr(semcot.training.run, "spelt_right", observed)
    options = replace(
        options,
        generator=str(finished[1]),
        generator_layers=None,
        thought_layers=1,
        lens_steps=3,
        alpha=0.0,
        warmup_epochs=0.0,
        lens_epochs=0.0,
        epochs=0.0,
        exchange_epochs=3.0,
        exchange_batch_size=16,
        max_steps=-1,
        save_steps=5,
        dataset=["synthetic_arithmetic"],
        num_samples=[48],
        lr_scheduler_type="constant",
    )
    train(options)
    (right,) = found
    assert collators[0].spelt is right and len(right) == len(collators[0].problems)
    assert set(passes) == {0, 1, 2}, "each pass over the problems draws anew"
    whole, folder = Path(options.output_dir), tmp_path / "cut-short"
    before, after = load_file(finished[1] / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"thought_layers"}
    assert after["thought_layers.norm.weight"].any(), "they started as nothing, and no longer are"
    losses = [entry for entry in json.loads((whole / "phases/exchange/losses.json").read_text()) if "loss" in entry]
    assert len(losses) == 8
    assert AutoModelForCausalLM.from_pretrained(whole, trust_remote_code=True).config.thought_layers == 1

    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "phases/exchange/finished")
    shutil.rmtree(folder / "phases/exchange/checkpoint-8")
    written = (folder / "phases/exchange/checkpoint-5/trainer_state.json").stat().st_mtime_ns
    run(replace(options, output_dir=str(folder), resume_from_checkpoint=True))
    again = load_file(folder / "model.safetensors")
    assert all(torch.equal(again[name], after[name]) for name in after)
    assert (folder / "phases/exchange/checkpoint-5/trainer_state.json").stat().st_mtime_ns == written, "not once more"


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_was_saved(finished, tmp_path):
    options, uninterrupted = finished
    folder = tmp_path / "run"
    largest = max((uninterrupted / "phases/generator").glob("checkpoint-*/optimizer.pt")).stat().st_size

    def no_file_as_large() -> None:  # what a write beyond it gets is an OSError, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1))

    options = replace(options, output_dir=str(folder))
    command = [*SCRIPT, *as_flags(options)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=no_file_as_large)
    assert result.returncode != 0 and not (folder / "model.safetensors").exists()
    assert (folder / "phases/warmup/finished/figures.json").exists(), result.stderr
    run(replace(options, resume_from_checkpoint=True))
    assert_same_weights(folder, uninterrupted)


def test_a_lost_hub_costs_no_checkpoint(finished, base, tmp_path):
    options, uninterrupted = finished
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    (folder / "model.safetensors").unlink()
    (folder / "phases/generator/finished/figures.json").unlink()  # as when it was killed before the last file
    # The base by a Hub's name, since nothing that hangs on a local folder is pushed; found in models/ all the same.
    options = replace(options, output_dir=str(folder), base_model="someone/tiny-llama")
    (folder / "options.json").write_text(json.dumps(asdict(options)))
    shutil.copytree(base, tmp_path / "models" / "tiny-llama")
    options = replace(options, resume_from_checkpoint=True, push_to_hub=True, hub_model_id="someone/model")
    environment = {**ENVIRONMENT, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x"}
    command = [*SCRIPT, *as_flags(options)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode != 0 and f"The checkpoint is in {folder}" in result.stdout, result.stderr
    assert "onnect" in result.stderr and "--resume_from_checkpoint True --push_to_hub True" in result.stderr
    assert_same_weights(folder, uninterrupted)
    histories = [json.loads((where / "phases/generator/losses.json").read_text()) for where in (folder, uninterrupted)]
    again, once = ([entry["loss"] for entry in history if "loss" in entry] for history in histories)
    assert again == once
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, base_model=base)


@pytest.mark.parametrize("name, repository", [("someone/mine", "someone/mine"), (None, "pushed")])
def test_what_is_pushed_and_where_to(finished, tmp_path, monkeypatch, name, repository):
    folder = tmp_path / "pushed"
    shutil.copytree(finished[1], folder)
    pushed = []
    monkeypatch.setattr(
        SemCoTForCausalLM, "push_to_hub", lambda self, repo_id, **given: pushed.append((repo_id, given))
    )
    # A base by a Hub's name, as for whoever downloads the checkpoint.
    base = tmp_path / "models" / "tiny-llama"
    shutil.copytree(finished[0].base_model, base)
    monkeypatch.chdir(tmp_path)
    options = replace(finished[0], output_dir=str(folder), base_model="someone/tiny-llama", hub_model_id=name)
    (folder / "options.json").write_text(json.dumps(asdict(options)))
    monkeypatch.setattr("semcot.encoder.contrastive._train_phase", None)  # nothing is trained again
    monkeypatch.setattr("semcot.training.run.hub_datasets", lambda options: ["someone/problems"])
    train(replace(options, resume_from_checkpoint=True, push_to_hub=True))
    ((repo_id, given),) = pushed
    assert repo_id == repository and given["model_card_kwargs"]["datasets"] == ["someone/problems"]
    assert given["tokenizer"].convert_tokens_to_ids("<thought>") == given["tokenizer"].vocab_size
    weights = load_file(folder / "model.safetensors")
    assert given["state_dict"].keys() == weights.keys()
    assert all(torch.equal(given["state_dict"][name], weight) for name, weight in weights.items())


def test_a_run_that_is_written_over_leaves_no_model_behind(finished, tmp_path, monkeypatch):
    folder = tmp_path / "again"
    shutil.copytree(finished[1], folder)
    for name in ("model.safetensors.index.json", "model-00001-of-00002.safetensors"):  # as of a large one
        (folder / name).write_text("{}")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("semcot.training.run.num_steps", killed)
    with pytest.raises(KeyboardInterrupt):
        train(replace(finished[0], output_dir=str(folder), seed=5, overwrite_output_dir=True))
    assert json.loads((folder / "options.json").read_text())["seed"] == 5
    earlier = [file for name in ("training.json", "config.json", "README.md") for file in folder.glob(name)]
    assert not [*folder.rglob("*.safetensors*"), *earlier]
    assert not (folder / "phases").exists() and not (folder / "reasoning_encoder").exists()
