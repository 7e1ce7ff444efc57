"""The comparisons that take hours on real models, on a tiny one."""

import json
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, tiny_base_tokenizer, tiny_language_model

from benchmarks.train_throughput import ratios_over_passes


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    base = folder / "models" / "tiny-llama"
    tiny_language_model(max_position_embeddings=1024).save_pretrained(base)
    tiny_base_tokenizer().save_pretrained(base)
    options = {
        "base_model": str(base),
        "generator_layers": 2,
        "num_thoughts": 4,
        "dataset": ["synthetic_coin_flip"],
        "num_samples": [60],
        "validation_fraction": 0.2,
        "encoder_batch_size": 8,
        "encoder_embedding_dim": 16,
        "batch_size": 8,
        "max_steps": 2,
        "logging_steps": 1,
        "bf16": False,
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(options))
    return file


def run(script, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_throughput_compares_equal_losses_and_says_what_work_was_saved(recipe, tmp_path):
    base = yaml.safe_load(recipe.read_text())["base_model"]
    sizes = ["--generator_layers", 2, "--samples", 8, "--plain_samples", 4, "--batch_sizes", 1, 4]
    run("train_throughput.py", "--base_model", base, *sizes, "--output", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    for name in ("batch 1", "batch 4", "batch 4, questions cached"):
        assert figures["largest_difference_of_losses"][name] < 1e-4
    assert 0 < figures["gflop_per_sample"]["batch 4"] < figures["gflop_per_sample"]["plain"]
    work, plain = figures["gflop_per_sample"], figures["plain_samples_per_s"]
    assert work["batch 4, questions cached"] < work["batch 4"]
    ways = ("batch 1", "batch 4", "batch 1, questions cached", "batch 4, questions cached")
    assert plain[0] == plain[1] == figures["samples_per_s"]["plain"] and len(plain) == 2 + len(ways)
    for i, name in enumerate(ways, 1):
        seconds = (1 / plain[i] + 1 / plain[i + 1]) / 2
        assert figures["ratio"][name] == pytest.approx(seconds * figures["samples_per_s"][name])
        assert 0 < figures["share_of_matrix_peak"][name] < 2
    one, ten = (figures["ratio_over_passes"]["batch 4"][passes] for passes in ("1", "10"))
    assert max(one, ten) < max(figures["ratio"][name] for name in ways[1::2]), "as reasonings are embedded once"


def test_memory_of_training(tmp_path):
    table = run("train_memory.py", "--processes", 4, "--output", tmp_path / "computed.json")
    figures = json.loads((tmp_path / "computed.json").read_text())["gb"]["Llama-2-7B + Sheared-LLaMA-1.3B"]
    assert "| Llama-2-7B + Sheared-LLaMA-1.3B | 13.5 |" in table
    # 6.74 and 1.28 billion weights, four layers of 202 million, of 32.
    base, trained, encoder = 6.738 * 2, 1.28 * 4, 4 * 0.2024 * 4
    shard = base - 24 * 0.2024 * 2
    expected = {
        "each whole": base + 4 * trained + encoder,
        "shard_base": shard + 4 * trained + encoder,
        "shard_base, adafactor": shard + 2 * trained + encoder,
        "zero2": base + trained * (1 + 4 / 4) + encoder,
        "fsdp": (base + 4 * trained) / 4 + encoder,
        "stage 1": base + 4 * encoder,
        "stage 1, adafactor": base + 2 * encoder,
        "warm-up": base + trained + encoder,
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=0.1)
    run("train_memory.py", "--measure", "tiny + tiny", "--output", tmp_path / "measured.json")
    peaks = json.loads((tmp_path / "measured.json").read_text())["peak_gb"]
    assert set(peaks) == {"reasoning_encoder", "warmup", "generator"} and min(peaks.values()) > 0


def test_a_run_of_several_passes_pays_once_for_what_is_computed_once():
    assert ratios_over_passes(each=0.25, cached=0.125, embedded=0.25, kept=0.5) == pytest.approx(
        {1: 1 / 0.5, 3: 3 / 1.0, 5: 5 / (0.25 + 0.5 + 0.625), 10: 10 / (0.25 + 0.5 + 1.25)}
    )
