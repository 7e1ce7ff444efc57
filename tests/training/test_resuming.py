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
from safetensors.torch import load_file
from training_runs import ENVIRONMENT, SCRIPT, answers_alone, as_flags, assert_same_weights, run

from modeling_semcot import SemCoTForCausalLM
from semcot.training import train

SMALL = {"synthetic_coin_flip": 10, "synthetic_arithmetic": 14}


@pytest.mark.slow
def test_killed_in_every_stage_and_resumed(finished, tmp_path):
    options, uninterrupted = finished
    options = replace(options, output_dir=str(tmp_path / "run"))
    marks = ["reasoning_encoder/phases/all", "stages/thoughts", "stages/generator"]
    for mark in marks:
        command = [*SCRIPT, *as_flags(options, tmp_path)]
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        while not list((tmp_path / "run" / mark).glob("checkpoint-*")):
            assert process.poll() is None, f"ended before {mark}: {process.stderr.read()}"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "run" / "model.safetensors").exists()
        options = replace(options, resume_from_checkpoint=True)
    run(options)
    assert_same_weights(tmp_path / "run", uninterrupted)


@pytest.mark.slow
@pytest.mark.skipif(
    "SEMCOT_KILLS" not in os.environ, reason="a long look: SEMCOT_KILLS=20, logged in results/kills.json"
)
def test_killed_at_random_moments_and_resumed(finished, tmp_path):
    """SEMCOT_KILLS is how many kills must find the run alive."""
    options, uninterrupted = finished
    folder = tmp_path / "killed"
    options = replace(options, output_dir=str(folder))
    started = time.monotonic()
    run(options)
    moments, kills, longest = random.Random(0), 0, time.monotonic() - started
    while kills < int(os.environ["SEMCOT_KILLS"]):
        shutil.rmtree(folder, ignore_errors=True)
        command = [*SCRIPT, *as_flags(options, tmp_path)]
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
        run(replace(options, resume_from_checkpoint=True))
        assert_same_weights(folder, uninterrupted)


def test_two_runs_are_equal_and_a_run_cut_short_ends_as_they_do(options, tmp_path):
    """In a stage of several epochs: within its second one, and after its last step."""
    cut = answers_alone(options, epochs=3.0)
    trainer = {**options.trainer, "lr_scheduler_type": "constant"}
    options = replace(cut, dataset=SMALL, max_steps=-1, trainer=trainer)
    again = replace(options, output_dir=str(tmp_path / "again"))
    train(options)
    train(again)
    whole = Path(options.output_dir)
    assert_same_weights(whole, tmp_path / "again")
    steps = sorted(int(path.name.split("-")[1]) for path in (whole / "stages/generator").glob("checkpoint-*"))
    assert steps == [6, 8]
    for lost in (["checkpoint-8"], []):
        folder = tmp_path / f"cut-short-{len(lost)}"
        shutil.copytree(whole, folder)
        for name in ["finished", *lost]:
            shutil.rmtree(folder / "stages/generator" / name)
        (folder / "model.safetensors").unlink()
        train(replace(options, output_dir=str(folder), resume_from_checkpoint=True))
        assert_same_weights(folder, whole)


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_was_saved(options, tmp_path):
    options = replace(options, alpha=0.0)  # what stage 1 keeps is larger than an optimizer here
    train(options)
    uninterrupted, folder = Path(options.output_dir), tmp_path / "cut-short"
    largest = max((uninterrupted / "stages/generator").glob("checkpoint-*/optimizer.pt")).stat().st_size

    def no_file_as_large() -> None:  # what a write beyond it gets is an OSError, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1))

    options = replace(options, output_dir=str(folder))
    command = [*SCRIPT, *as_flags(options, tmp_path)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=no_file_as_large)
    assert result.returncode != 0 and not (folder / "model.safetensors").exists()
    assert (folder / "stages/warm_up/finished/figures.json").exists(), result.stderr
    run(replace(options, resume_from_checkpoint=True))
    assert_same_weights(folder, uninterrupted)


@pytest.mark.slow
def test_a_lost_hub_costs_no_checkpoint(finished, base, tmp_path):
    options, uninterrupted = finished
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    (folder / "model.safetensors").unlink()
    (folder / "stages/generator/finished/figures.json").unlink()  # as when it was killed before the last file
    # The base by a Hub's name, since nothing that hangs on a local folder is pushed; found in models/ all the same.
    options = replace(options, output_dir=str(folder), base_model="someone/tiny-llama")
    (folder / "options.json").write_text(json.dumps(asdict(options)))
    shutil.copytree(base, tmp_path / "models" / "tiny-llama")
    options = replace(options, resume_from_checkpoint=True, push_to_hub=True, hub_model_id="someone/model")
    environment = {**ENVIRONMENT, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_x"}
    command = [*SCRIPT, *as_flags(options, tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode != 0 and f"The checkpoint is in {folder}" in result.stdout, result.stderr
    assert "onnect" in result.stderr and "--resume_from_checkpoint True --push_to_hub True" in result.stderr
    assert_same_weights(folder, uninterrupted)
    found = [json.loads((where / "stages/generator/losses.json").read_text()) for where in (folder, uninterrupted)]
    again, once = ([entry["loss"] for entry in history if "loss" in entry] for history in found)
    assert again == once


@pytest.mark.parametrize("name, repository", [("someone/mine", "someone/mine"), (None, "pushed")])
def test_what_is_pushed_and_where_to(finished, tmp_path, monkeypatch, name, repository):
    folder = tmp_path / "pushed"
    shutil.copytree(finished[1], folder)
    pushed = []
    monkeypatch.setattr(
        SemCoTForCausalLM, "push_to_hub", lambda self, repo_id, **given: pushed.append((self, repo_id, given))
    )
    # A base by a Hub's name, as for whoever downloads the checkpoint.
    shutil.copytree(finished[0].base_model, tmp_path / "models" / "tiny-llama")
    monkeypatch.chdir(tmp_path)
    options = replace(finished[0], output_dir=str(folder), base_model="someone/tiny-llama", hub_model_id=name)
    (folder / "options.json").write_text(json.dumps(asdict(options)))
    monkeypatch.setattr("semcot.encoder.contrastive._train_phase", None)  # nothing is trained again
    monkeypatch.setattr("semcot.training.run.hub_datasets", lambda options: ["someone/problems"])
    train(replace(options, resume_from_checkpoint=True, push_to_hub=True))
    ((model, repo_id, given),) = pushed
    assert repo_id == repository and given["model_card_kwargs"]["datasets"] == ["someone/problems"]
    assert given["tokenizer"].convert_tokens_to_ids("<thought>") == given["tokenizer"].vocab_size
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in weights.items())


def test_a_run_that_is_written_over_leaves_no_model_behind(finished, tmp_path, monkeypatch):
    folder = tmp_path / "again"
    shutil.copytree(finished[1], folder)
    for name in ("model.safetensors.index.json", "model-00001-of-00002.safetensors"):  # as of a large one
        (folder / name).write_text("{}")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("semcot.training.stages.train_encoder", killed)
    with pytest.raises(KeyboardInterrupt):
        train(replace(finished[0], output_dir=str(folder), seed=5, overwrite_output_dir=True))
    assert json.loads((folder / "options.json").read_text())["seed"] == 5
    earlier = [file for name in ("training.json", "config.json", "README.md") for file in folder.glob(name)]
    assert not [*folder.rglob("*.safetensors*"), *earlier]
    assert not (folder / "stages").exists() and not (folder / "reasoning_encoder").exists()
