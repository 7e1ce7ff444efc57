"""The measurements of answering that take long on real models, on a tiny one."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT


def figures_of(script: str, folder, *arguments) -> dict:
    command = [sys.executable, "-m", f"benchmarks.{script}", "--model", folder, *arguments]
    command += ["--output", folder.parent / "figures.json"]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    result = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads((folder.parent / "figures.json").read_text())


def test_latency_compares_the_same_answers_and_says_what_is_above_the_floor(adapter):
    figures = figures_of("latency", adapter, "--questions", 12, "--batch_sizes", 1, 3, "--slow", 2, "--openvino")
    for size in (1, 3):
        rows = {row["way"]: row for row in figures["eval"] if row["batch_size"] == size}
        assert rows.keys() == {"fast", "plain", "released_style", "direct", "cot", "openvino", "openvino_bfloat16"}
        assert rows["plain"]["ratio"] == 1 and all(
            0 < row["ratio"] < 100 and row["tokens"] > 0 for row in rows.values()
        )
        assert rows["fast"]["other_answers"] == rows["released_style"]["other_answers"] == 0
        assert rows["openvino"]["other_answers"] == 0
        assert rows["cot"]["tokens"] > rows["direct"]["tokens"] and rows["direct"]["other_answers"] > 0
        assert rows["fast"]["batches"] == 12 / size - 2 and rows["released_style"]["batches"] == 2
    assert [phases.pop("batch_size") for phases in figures["phases"]] == [1, 3]
    for phases in figures["phases"]:
        shares = [phase.get("share_of_the_gap", 0) for phase in phases.values()]
        assert len(shares) == 5 and abs(sum(shares) - 1) < 1e-6


def test_precision_tells_what_each_kind_of_weights_takes(adapter):
    rows = figures_of("precision", adapter, "--limit", 4, "--latency_samples", 4)["eval"]
    assert [row["n"] for row in rows] == [4] * 8 and all(row["ratio"] > 0 for row in rows)
    sizes = {row["name"]: row["weights_mb"] for row in rows}
    assert sizes["bfloat16"] == sizes["float32"] / 2 and sizes["float32, base int8"] < sizes["float32"]


@pytest.mark.slow
def test_serving_asks_real_servers_and_loses_nothing(adapter):
    pytest.importorskip("prometheus_client")
    rows = figures_of("serving", adapter, "--clients", 3, "--seconds", 1, "--max_batch", 1, 2)["eval"]
    assert [row["max_batch"] for row in rows] == [1, 2]
    for row in rows:
        assert row["asked"] == row["answers"] >= 3 and row["different_answers"] > 1
        assert row["wrong"] == 0 and not row["failures"] and row["processor_s_per_answer"] > 0
