"""Whole training runs on a tiny base, for the tests that start them."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from conftest import ROOT
from safetensors.torch import load_file

from semcot.training.options import PHASES, TrainOptions

SCRIPT = [sys.executable, str(ROOT / "train_semcot.py")]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def as_flags(options: TrainOptions) -> list[str]:
    given = {name: value for name, value in asdict(options).items() if value is not None}
    lists = {name: value if isinstance(value, list) else [value] for name, value in given.items()}
    return [part for name, values in lists.items() for part in (f"--{name}", *map(str, values))]


def run(options: TrainOptions, *launcher: str) -> dict[str, list[dict[str, float]]]:
    """Trains in a process (or more) of its own; returns the history of each phase of stage 2."""
    command = [sys.executable, *launcher, *SCRIPT[1:], *as_flags(options)]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (Path(options.output_dir) / "output.txt").write_text(result.stdout)
    folder = Path(options.output_dir) / "phases"
    files = {phase: folder / phase / "losses.json" for phase in PHASES}
    return {phase: json.loads(file.read_text()) for phase, file in files.items() if file.exists()}


def assert_same_weights(folder: Path, other: Path) -> None:
    """Bitwise, of the model and of the reasoning encoder."""
    for name in (
        "model.safetensors",
        "reasoning_encoder/model.safetensors",
        "reasoning_encoder/2_Dense/model.safetensors",
    ):
        weights, expected = load_file(folder / name), load_file(other / name)
        assert weights.keys() == expected.keys()
        for key in expected:
            assert torch.equal(weights[key], expected[key]), f"{name}: {key}"
