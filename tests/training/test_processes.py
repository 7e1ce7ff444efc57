"""Training in several processes: the losses are those of one process with their batches."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import ENVIRONMENT, SCRIPT, as_flags, check_losses, histories, run

from semcot.training import train

TORCHRUN = "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"


def halved(options, folder: Path, **trainer):
    stages = [replace(stage, batch_size=4) for stage in options.stages]
    return replace(options, output_dir=str(folder), stages=stages, trainer={**options.trainer, **trainer})


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_with_their_batches(options, tmp_path):
    options = replace(options, dataset={"synthetic_arithmetic": 60})
    alone = run(options)
    together = run(halved(options, tmp_path / "two"), *TORCHRUN)
    terms = {"loss", "answer_loss", "alignment_loss", "token_supervision_loss", "accuracy"}
    terms |= {f"eval_{term}" for term in terms}  # of few validation problems: none is counted twice
    assert check_losses(together, alone, terms) > 50
    assert terms <= {term for history in alone.values() for entry in history for term in entry}
    for name in ("model.safetensors", "reasoning_encoder/model.safetensors"):
        expected = load_file(Path(options.output_dir) / name)
        for key, weight in load_file(tmp_path / "two" / name).items():
            torch.testing.assert_close(weight, expected[key], atol=1e-3, rtol=1e-3)
    # A run of two that was cut short ends as it would have.
    folder = tmp_path / "two"
    before = load_file(folder / "model.safetensors")
    (folder / "stages/generator/finished/figures.json").unlink()
    (folder / "stages/generator/checkpoint-5/trainer_state.json").unlink()
    run(replace(halved(options, folder), resume_from_checkpoint=True), *TORCHRUN)
    again = load_file(folder / "model.safetensors")
    assert all(torch.equal(again[name], weight) for name, weight in before.items())


def test_accumulated_batches_give_the_losses_of_one(finished, tmp_path):
    """In one process: the answer's term is a mean over a step's tokens, the others over its rows."""
    options, _ = finished
    kept = [stage for stage in options.stages if not stage.trains_encoder]
    without = {"answer": 1.0, "token_supervision": 0.5}
    kept = [replace(stage, losses=without if "answer" in stage.losses else stage.losses) for stage in kept]
    alone = replace(options, stages=kept, output_dir=str(tmp_path / "alone"))
    parts = halved(alone, tmp_path / "parts", gradient_accumulation_steps=2)
    train(alone)
    train(parts)
    terms = {"loss", "answer_loss", "token_supervision_loss", "accuracy", "eval_loss", "eval_answer_loss"}
    assert check_losses(histories(parts), histories(alone), terms) > 50


@pytest.mark.slow
def test_pairs_that_fill_no_batch_of_several_processes_are_too_few(options, tmp_path):
    stages = [replace(stage, batch_size=16) for stage in options.stages]
    options = replace(options, dataset={"synthetic_arithmetic": 12}, stages=stages, max_steps=1)
    command = [SCRIPT[0], *TORCHRUN[:3], *SCRIPT[1:], *as_flags(options, tmp_path)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode != 0 and "took 0 of 1 steps: 10 pairs" in result.stderr, result.stderr
