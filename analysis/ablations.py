"""
Does each part earn its place? Trains every variant of a recipe with several seeds, has each answer the same problems of
an "eval" split, and writes each figure and the means with 95 % intervals. Runs that are finished are not done again.

    python -m analysis.ablations configs/ablations.yaml --data synthetic_coin_flip:2 --output results/ablations.json
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from semcot.evaluation import mean_with_interval
from semcot.files import write_json, write_text

ROOT = Path(__file__).parents[1]
ENCODER = "reasoning_encoder"
CONTROLS = ["semcot_zeroed", "semcot_shuffled", "semcot_random"]
Recipe = dict[str, Any]


def without_loss(recipe: Recipe, loss: str) -> None:
    """Takes a loss out of all stages, and out of the recipe the stages that it leaves nothing to do."""
    for stage in recipe["stages"]:
        stage.get("losses", {}).pop(loss, None)
    recipe["stages"] = [
        stage for stage in recipe["stages"] if stage.get("losses") or (trains_encoder(stage) and loss != "alignment")
    ]


def trains_encoder(stage: dict[str, Any]) -> bool:
    return str(stage["train"]).startswith(ENCODER)


def hardly_trained_encoder(recipe: Recipe) -> None:
    for stage in filter(trains_encoder, recipe["stages"]):
        stage["max_steps"] = 1


def without_warm_up(recipe: Recipe) -> None:
    recipe["stages"] = [stage for stage in recipe["stages"] if stage.get("name") != "warm_up"]


# What each variant changes. A recipe has the full method; thoughts are replaced in its evaluation.
VARIANTS: dict[str, Callable[[Recipe], None]] = {
    "full": lambda recipe: None,
    "no semantic loss": lambda recipe: without_loss(recipe, "alignment"),
    "encoder hardly trained": hardly_trained_encoder,
    "no warm-up": without_warm_up,
    "no token supervision": lambda recipe: without_loss(recipe, "token_supervision"),
    "whole base as generator": lambda recipe: recipe.update(generator=30),  # of SmolLM2-135M
    "K = 1": lambda recipe: recipe.update(num_thoughts=1),
    "K = 2": lambda recipe: recipe.update(num_thoughts=2),
    "K = 4": lambda recipe: recipe.update(num_thoughts=4),
}


def run(*command: str) -> None:
    print(shlex.join(["python", *command]), flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def figures_of(folder: Path, recipe: Recipe, variant: str, seed: int, data: list[str]) -> dict[str, Any]:
    """The record of an evaluation of this variant; trains and evaluates it where there is none yet."""
    results = folder / "evaluation" / "results.json"
    methods = ["semcot", *(CONTROLS if variant == "full" else [])]
    if not results.exists() or len(json.loads(results.read_text())["eval"]) < len(methods):
        VARIANTS[variant](recipe)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))
        checkpoint = str(folder / "checkpoint")
        settings = ["--seed", str(seed), "--output_dir", checkpoint, "--resume_from_checkpoint", "True"]
        run("train_semcot.py", str(folder / "recipe.yaml"), *settings)
        draw = [*data, "--methods", *methods, "--latency_samples", "0", "--output_dir", str(results.parent)]
        run("eval_semcot.py", "--model", checkpoint, *draw)
    return json.loads(results.read_text())


def means(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each variant the mean accuracy over its seeds and the half width of its 95 % interval (Student's t)."""
    found: dict[str, list[float]] = {}
    for row in rows:
        control = row["method"].removeprefix("semcot").removeprefix("_")
        found.setdefault(f"thoughts {control}" if control else row["variant"], []).append(row["accuracy"])
    table = {}
    for label, values in found.items():
        table[label] = {"seeds": len(values), **mean_with_interval(values)._asdict()}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--runs_dir", type=Path, default=Path("runs/ablations"), help="where the checkpoints go")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    # Problems of a seed that no run was trained on, the same for all.
    data = ["--data", options.data, "--limit", str(options.limit), "--seed", "1000"]
    record = {"run": {"command": shlex.join(["python", "-m", "analysis.ablations", *sys.argv[1:]])}, "eval": []}
    for variant in options.variants:
        for seed in options.seeds:
            folder = options.runs_dir.absolute() / f"{variant.replace(' = ', '').replace(' ', '_')}-{seed}"
            found = figures_of(folder, yaml.safe_load(options.recipe.read_text()), variant, seed, data)
            record["eval"] += [{"variant": variant, "train_seed": seed, **row} for row in found["eval"]]
            record["meta"] = {key: value for key, value in found["meta"].items() if not key.startswith("model")}
            write_json(options.output, record | {"means": means(record["eval"])})
    for label, row in means(record["eval"]).items():
        half = "" if row["half_width"] is None else f" ± {row['half_width']:.1%}"
        print(f"{label:28} {row['mean']:6.1%}{half} over {row['seeds']} seeds")


if __name__ == "__main__":
    main()
