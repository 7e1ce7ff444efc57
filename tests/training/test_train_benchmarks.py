"""The measurements of training that take long on real models, on a tiny one."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


def run(script: str, *arguments) -> str:
    command = [sys.executable, "-m", f"benchmarks.{script}", *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_throughput_compares_equal_losses_and_says_what_work_was_saved(base, tmp_path):
    sizes = ["--generator_layers", 2, "--samples", 8, "--baseline_samples", 4, "--batch_sizes", 1, 4]
    run("train_throughput", "--base_model", base, *sizes, "--output", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["shared_prefix"] > 0
    assert 0 < figures["gflop_per_sample"]["batch 4"] < figures["gflop_per_sample"]["baseline"]
    rates, sizes = figures["baseline_samples_per_s"], ("batch 1", "batch 4")
    assert rates[0] == figures["samples_per_s"]["baseline"] and len(rates) == 1 + len(sizes)
    for i, name in enumerate(sizes):
        assert figures["largest_difference_of_losses"][name] < 1e-4
        seconds = (1 / rates[i] + 1 / rates[i + 1]) / 2
        assert figures["ratio"][name] == pytest.approx(seconds * figures["samples_per_s"][name])
        assert 0 < figures["share_of_matrix_peak"][name] < 2


def test_memory_of_training(tmp_path):
    table = run("train_memory", "--output", tmp_path / "computed.json")
    figures = json.loads((tmp_path / "computed.json").read_text())["gb"]["Llama-2-7B + Sheared-LLaMA-1.3B"]
    assert "| Llama-2-7B + Sheared-LLaMA-1.3B | 13.5 |" in table
    # 6.74 and 1.28 billion weights, four layers of 202 million, of 32.
    base, trained, encoder = 6.738 * 2, 1.28 * 4, 4 * 0.2024 * 4
    expected = {
        "in all": base + 4 * trained + encoder,
        "adafactor": base + 2 * trained + encoder,
        "stage 1": base + 4 * encoder,
        "stage 1, adafactor": base + 2 * encoder,
        "warm-up": base + trained + encoder,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=0.1)
    run("train_memory", "--measure", "tiny + tiny", "--output", tmp_path / "measured.json")
    peaks = json.loads((tmp_path / "measured.json").read_text())["peak_gb"]
    assert set(peaks) == {"reasoning_encoder", "warm_up", "generator"} and min(peaks.values()) > 0
