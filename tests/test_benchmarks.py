"""The measurements of answering that take long on real models, on a tiny one."""

import json
import os
import subprocess
import sys

from conftest import ROOT


def figures_of(script: str, folder, *arguments) -> dict:
    command = [sys.executable, "-m", f"benchmarks.{script}", "--model", folder, *arguments]
    command += ["--output", folder.parent / "figures.json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads((folder.parent / "figures.json").read_text())


def test_latency_compares_the_same_answers_and_says_what_is_above_the_floor(adapter):
    rows = figures_of("latency", adapter, "--questions", 9, "--batch_sizes", 1, 3)["eval"]
    assert [row["batch_size"] for row in rows] == [1, 3]
    for row in rows:
        assert row["rows_with_other_answers"] == 0 and 0 < row["ratio"] < 10 and row["steps"] > 0
        shares = [phase.get("share_of_the_gap", 0) for phase in row["phases"].values()]
        assert len(shares) == 5 and abs(sum(shares) - 1) < 1e-6


def test_precision_tells_what_each_kind_of_weights_takes(adapter):
    rows = figures_of("precision", adapter, "--limit", 4, "--latency_samples", 4)["eval"]
    assert [row["n"] for row in rows] == [4] * 6 and all(row["ratio"] > 0 for row in rows)
    sizes = {row["name"]: row["weights_mb"] for row in rows}
    assert sizes["bfloat16"] == sizes["float32"] / 2 and sizes["float32, base int8"] < sizes["float32"]
