"""
Does each part earn its place? Trains every variant of a recipe with several seeds, has each answer the same problems of
an "eval" split, and writes a table of means with 95 % intervals. Runs that are finished are not done again.
`python benchmarks/ablations.py configs/ablations.yaml --data synthetic_coin_flip:2 --output_dir results/ablations`
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).parents[1]))
from semcot.files import write_text

ROOT = Path(__file__).parents[1]
# What each variant changes. A recipe has the full method; thoughts are replaced in its evaluation.
VARIANTS = {
    "full": {},
    "no semantic loss": {"alpha": 0},
    "encoder hardly trained": {"encoder_dense_epochs": 1e-6, "encoder_epochs": 0},
    "no warm-up": {"warmup_epochs": 0},
    "no lens": {"lens_weight": 0, "lens_epochs": 0},
    "whole base as generator": {"generator_layers": 30},  # of SmolLM2-135M
    "K = 1": {"num_thoughts": 1},
    "K = 2": {"num_thoughts": 2},
    "K = 4": {"num_thoughts": 4},
}
CONTROLS = ["semcot_zeroed", "semcot_shuffled", "semcot_random"]


def run(*command: str) -> None:
    print(shlex.join(command), flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def accuracies(folder: Path) -> dict[str, float]:
    return {result["method"]: result["accuracy"] for result in json.loads((folder / "results.json").read_text())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--runs_dir", default="runs/ablations", help="where the checkpoints go")
    parser.add_argument("--output_dir", required=True)
    arguments = parser.parse_args()
    output_dir = Path(arguments.output_dir)
    found: dict[str, list[float]] = {}
    for variant in arguments.variants:
        for seed in arguments.seeds:
            name = f"{variant.replace(' ', '_').replace('_=_', '')}-{seed}"
            # Relative to the repository, where the commands run: records name no folder of a machine.
            trained, evaluated = (Path(os.path.relpath(f, ROOT)) / name for f in (arguments.runs_dir, output_dir))
            if not (ROOT / evaluated / "results.json").exists():
                changes = [part for option, value in VARIANTS[variant].items() for part in (f"--{option}", str(value))]
                settings = ["--seed", str(seed), "--output_dir", str(trained), "--resume_from_checkpoint", "True"]
                run("train_semcot.py", os.path.relpath(arguments.recipe, ROOT), *changes, *settings)
                methods = ["semcot", *(CONTROLS if variant == "full" else [])]
                # Problems of a seed that no run was trained on, the same for all.
                draw = ["--data", arguments.data, "--limit", str(arguments.limit), "--seed", "1000"]
                evaluation = ["--latency_samples", "0", "--output_dir", str(evaluated)]
                run("eval_semcot.py", "--model", str(trained), *draw, "--methods", *methods, *evaluation)
                shutil.copy(ROOT / trained / "training.json", ROOT / evaluated)
            for method, accuracy in accuracies(ROOT / evaluated).items():
                label = variant if method == "semcot" else f"thoughts {method.removeprefix('semcot_')}"
                found.setdefault(label, []).append(accuracy)
    lines = ["| variant | seeds | accuracy, mean ± 95 % | each |", "|---|---|---|---|"]
    for label, values in found.items():
        n = len(values)
        half = student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5 if n > 1 else float("nan")
        each = ", ".join(f"{value:.1%}" for value in values)
        lines.append(f"| {label} | {n} | {np.mean(values):.1%} ± {half:.1%} | {each} |")
    command = shlex.join(["python", "benchmarks/ablations.py", *sys.argv[1:]])
    write_text(output_dir / "report.md", f"# Ablations\n\n```\n{command}\n```\n\n" + "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
