"""Whole training runs on a tiny base, for the tests that start them."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
import yaml
from conftest import ROOT
from safetensors.torch import load_file

from semcot.training.options import TrainOptions

SCRIPT = [sys.executable, str(ROOT / "train_semcot.py")]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def with_stages(options: TrainOptions, *names: str, **changes) -> TrainOptions:
    """The recipe with these of its stages alone, each with the changes."""
    stages = [replace(stage, **changes) for stage in options.stages if stage.name in names]
    return replace(options, stages=stages)


def answers_alone(options: TrainOptions, **changes) -> TrainOptions:
    """The last stage alone, on the answer's loss: the cheapest run there is."""
    return with_stages(options, "generator", losses={"answer": 1.0}, **changes)


def as_flags(options: TrainOptions, folder: Path) -> list[str]:
    """The recipe as a file in `folder`, for a command."""
    file = folder / f"{Path(options.output_dir).name}.yaml"
    file.write_text(yaml.safe_dump(asdict(options), sort_keys=False))
    return [str(file)]


def run(options: TrainOptions, *launcher: str) -> dict[str, list[dict[str, float]]]:
    """Trains in a process (or more) of its own; returns the history of each stage but the encoder's."""
    command = [sys.executable, *launcher, *SCRIPT[1:], *as_flags(options, Path(options.output_dir).parent)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return histories(options)


def histories(options: TrainOptions) -> dict[str, list[dict[str, float]]]:
    files = sorted((Path(options.output_dir) / "stages").glob("*/losses.json"))
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def check_losses(found: dict, expected: dict, terms: set[str], tolerance: float = 1.01e-4) -> int:
    """Compares every logged loss of two runs; returns how many there were."""
    compared = 0
    assert found.keys() == expected.keys()
    for stage, history in expected.items():
        for entry, other in zip(history, found[stage], strict=True):
            for term in terms & entry.keys():
                assert abs(other[term] - entry[term]) <= tolerance, f"{stage}, {entry['step']}: {term}"
                compared += 1
    return compared


def assert_same_weights(folder: Path, other: Path) -> None:
    """Bitwise, of the model and of the reasoning encoder."""
    names = "", "reasoning_encoder", "reasoning_encoder/2_Dense"
    for name in (f"{part}/model.safetensors".lstrip("/") for part in names):
        if not (other / name).exists():
            continue
        weights, expected = load_file(folder / name), load_file(other / name)
        assert weights.keys() == expected.keys()
        for key in expected:
            assert torch.equal(weights[key], expected[key]), f"{name}: {key}"
