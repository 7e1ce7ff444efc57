"""
Trains SemCoT and its rivals for the same minutes on the same problems, asks all of them the same questions, and makes a
page of it: `docs/methods.md` and `docs/methods.html`, and one JSON file a method in `results/methods/`.

    python -m benchmarks.methods configs/methods.yaml [--minutes 15] [--seeds 0 1 2] [--methods semcot coconut]

A schedule, and a curriculum, must know its number of steps beforehand. So each stage of a method is first run in
miniature, for a few steps, which pass through its whole curriculum; the speed of these tells how many steps the minutes
have. The minutes that they then really took are in the table. On a CPU all times are those of the process itself, which
others on the machine do not lengthen as they do a clock's. What is done is not done again: the same command goes on
with the next method, and the page is made anew after each.
"""

import argparse
import copy
import gc
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import yaml
from datasets import Dataset, concatenate_datasets
from pydantic import Field
from pydantic.dataclasses import dataclass
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from semcot.data import load_problems
from semcot.evaluation import EvalOptions, load_model, weights_sha256
from semcot.evaluation.comparison import SEMCOT, write_comparison
from semcot.evaluation.evaluate import FREE, evaluate
from semcot.evaluation.methods import open_method
from semcot.files import write_json, write_text
from semcot.training import MethodOptions, parse_options, train, train_method
from semcot.training.options import STRICT, Positive
from semcot.training.problems import step_size

PROBLEMS = "PROBLEMS"
"""In the name of a method the file of problems that the others are trained on."""
MODEL = "."
"""The checkpoint whose base and tokenizer a rival is evaluated with: this repository's."""
RECORD = "trained.json"
"""In a trained method's folder, written last: with what recipe, how long, how many problems."""
TRAINER = {"save_only_model": True, "save_steps": 10**9, "eval_steps": 10**9, "logging_steps": 5}
"""Nothing but training counts."""
STAGES_OWN = ("batch_size", "learning_rate")
"""Options that a recipe with stages says in each of them."""


@dataclass(config=STRICT, kw_only=True)
class Comparison:
    """What is compared; `configs/methods.yaml` says more of each."""

    minutes: Annotated[float, Field(gt=0)]
    seeds: Annotated[list[int], Field(min_length=1)]
    trial_steps: Positive
    problems: dict[str, Positive]
    recipe: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    untrained: dict[str, dict[str, Any]]
    data: dict[str, str]
    evaluation: dict[str, Any]
    note: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="What is compared: configs/methods.yaml.")
    parser.add_argument("--minutes", type=float, help="Of training, for each method and seed.")
    parser.add_argument("--seeds", type=int, nargs="+", help="Of problems, initial weights and order.")
    parser.add_argument("--methods", nargs="+", help="Only these of the file's.")
    parser.add_argument("--note", help="What else the page's readers must know, such as what else the machine did.")
    parser.add_argument("--only_page", action="store_true", help="Make the page of the results that are there.")
    parser.add_argument("--runs", type=Path, default=Path("runs/methods"), help="Where methods and answers are kept.")
    parser.add_argument("--results", type=Path, default=Path("results/methods"), help="Where the figures go.")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="Where methods.md and methods.html go.")
    options = parser.parse_args()
    told = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    told |= {name: value for name in ("minutes", "seeds", "note") if (value := getattr(options, name)) is not None}
    comparison = Comparison(**told)
    if options.only_page:
        make_page(comparison, options.results, options.docs)
    else:
        compare(comparison, options.runs, options.results, options.docs, options.methods)


def compare(
    comparison: Comparison, runs: Path, results: Path, docs: Path, methods: Sequence[str] | None = None
) -> None:
    """Trains and evaluates what is not done yet, the untrained first, and makes the page anew after each."""
    names = [*comparison.untrained, *comparison.methods]
    if unknown := sorted({*(methods or ())}.difference(names)):
        raise ValueError(f"There is nothing named {', '.join(unknown)} to compare; there are {', '.join(names)}.")
    files = {seed: draw_problems(comparison, seed, runs) for seed in comparison.seeds}
    sets = {title: shuffled(data, runs / f"{title.replace(' ', '_')}.jsonl") for title, data in comparison.data.items()}
    for name in methods or names:
        rows, trained = [], []
        for seed, file in files.items():
            if name in comparison.methods:
                folder = runs / name / f"seed-{seed}"
                trained.append(train_for_minutes(comparison, name, seed, file, folder))
                model, method = (folder, SEMCOT) if name == SEMCOT else (MODEL, f"{name}={folder}")
            elif seed == comparison.seeds[0]:  # what is not trained has no seed of its own
                folder, own = runs / name, comparison.untrained[name]
                model, method = own["model"], own["method"].replace(PROBLEMS, str(file))
            else:
                continue
            own = comparison.evaluation | (comparison.methods | comparison.untrained)[name].get("evaluation", {})
            told = {**own, "model": str(model), "methods": [method], "latency_samples": 0}
            asked = {
                title: EvalOptions(data=data, output_dir=str(folder / "answers" / data.replace("/", "-")), **told)
                for title, data in sets.items()
            }
            rows += [{"title": title, "train_seed": seed, **evaluated(options)} for title, options in asked.items()]
            for title, latencies in timed(asked, own["latency_samples"], folder / "latencies.json").items():
                next(row for row in rows if (row["title"], row["train_seed"]) == (title, seed)).update(latencies)
            release_memory()
        write_json(results / f"{name}.json", describe(comparison, name, trained, rows))
        make_page(comparison, results, docs)


def make_page(comparison: Comparison, results: Path, docs: Path) -> None:
    """Of the methods that have results, of no other budget than the file's, and which have none yet."""
    names = [*comparison.untrained, *comparison.methods]
    files = [file for name in names if (file := results / f"{name}.json").exists()]
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    found = [record for record in found if record["budget_minutes"] in (None, comparison.minutes)]
    missing = [name for name in names if name not in {record["name"] for record in found}]
    write_comparison(docs, found, missing, comparison.note)


def draw_problems(comparison: Comparison, seed: int, runs: Path) -> Path:
    """The list of problems that every method reads from its beginning, drawn and shuffled once for each seed."""
    drawn = [load_problems(name, "train", num_samples=n, seed=seed) for name, n in comparison.problems.items()]
    return keep(runs / f"problems-{seed}.jsonl", concatenate_datasets(drawn).shuffle(seed=seed))


def shuffled(data: str, file: Path) -> str:
    """
    A file of problems in an order of chance, the same for all: so many first ones are then a fair sample, also of a set
    that begins with easier ones. Named data are asked as they are.
    """
    return str(keep(file, load_problems(data, "eval").shuffle(seed=0))) if Path(data).is_file() else data


def keep(file: Path, problems: Dataset) -> Path:
    """Writes the problems, for all methods; raises `ValueError` where the file holds others, which some have read."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in problems)
    if not file.exists():
        write_text(file, text)
    elif file.read_text(encoding="utf-8") != text:
        raise ValueError(f"{file} holds other problems than are drawn now: move it away, or give other --runs.")
    return file


def train_for_minutes(comparison: Comparison, name: str, seed: int, problems: Path, folder: Path) -> dict[str, Any]:
    """
    Trains a method, unless it was, as train_semcot.py does.

    Returns:
        Its `seed`, `recipe`, `command`, the `minutes` that its steps took, how many `problems` it read, its record.

    Raises:
        ValueError: the folder holds it, trained with another recipe or other minutes.
    """
    own = {key: value for key, value in comparison.methods[name].items() if key != "evaluation"}
    common = {key: value for key, value in comparison.recipe.items() if "stages" not in own or key not in STAGES_OWN}
    recipe = {
        **common,
        **({} if name == SEMCOT else {"method": name}),
        **own,
        "dataset": {str(problems): None},
        "evaluation_file": list(comparison.data.values()),
        "validation_by_template": False,  # so that its order is another random one, whatever is drawn
        "seed": seed,
        "trainer": TRAINER | common.get("trainer", {}) | own.get("trainer", {}),
    }
    asked = {"recipe": recipe, "budget_minutes": comparison.minutes, "trial_steps": comparison.trial_steps}
    if (folder / RECORD).exists():
        record = json.loads((folder / RECORD).read_text())
        if changed := [key for key, value in asked.items() if record["asked"][key] != value]:
            raise ValueError(
                f"{folder} was trained with other {', '.join(changed)}: move it away, or give other --runs."
            )
        return record
    shares = [stage.get("share", 1.0) for stage in recipe.get("stages", [recipe])]
    trial_folder = folder.with_name(f"{folder.name}-trial")
    trial = run(with_steps(recipe, [comparison.trial_steps] * len(shares)), trial_folder)
    seconds = [60 * comparison.minutes * share / sum(shares) for share in shares]
    steps = [steps_within(had, moments) for had, moments in zip(seconds, trial["moments"], strict=True)]
    shutil.rmtree(trial_folder)
    record = {"asked": asked, "seed": seed, **run(with_steps(recipe, steps), folder)}
    del record["moments"]
    shutil.rmtree(folder / "stages")  # weights that are in the folder itself
    write_json(folder / RECORD, record)
    return record


def with_steps(recipe: dict[str, Any], steps: Sequence[int]) -> dict[str, Any]:
    """The recipe with so many steps in each of its stages, however many problems there are."""
    recipe = copy.deepcopy(recipe)
    for stage, number in zip(recipe.get("stages", [recipe]), steps, strict=True):
        stage.pop("share", None)
        stage |= {"max_steps": number, "epochs": number}
    return recipe


def steps_within(seconds: float, moments: Sequence[float]) -> int:
    """
    How many steps the seconds have, by the moments at which a trial began and each of its steps ended; at least one.
    The first step, which is slower than those to come, counts only if there is no other.
    """
    timed = moments[1:] if len(moments) > 2 else moments
    return max(1, round(seconds * (len(timed) - 1) / (timed[-1] - timed[0])))


class Clock(TrainerCallback):
    """Notes, for each training in turn, when it began and when each of its steps ended, in seconds."""

    def __init__(self) -> None:
        self.moments: list[list[float]] = []

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.moments.append([now()])

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.moments[-1].append(now())


def now() -> float:
    """Seconds: on a GPU of the clock, once all is done; on a CPU of the process, a mean over its threads."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


@contextmanager
def clock() -> Iterator[Clock]:
    """A clock of every Trainer that is made meanwhile."""
    DEFAULT_CALLBACKS.append(made := Clock())
    try:
        yield made
    finally:
        DEFAULT_CALLBACKS.remove(made)


def run(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Trains by a recipe, afresh; returns command and recipe, moments, minutes and problems, and the run's record."""
    file = folder.with_name(f"{folder.name}.yaml")
    write_text(file, yaml.safe_dump(recipe, sort_keys=False))
    arguments = [str(file), "--output_dir", str(folder), "--overwrite_output_dir", "True"]
    options = parse_options(arguments)
    with clock() as made:
        (train_method if isinstance(options, MethodOptions) else train)(options)
    release_memory()
    stages = {}
    for stage, moments in zip(options.stages, made.moments, strict=True):
        history = json.loads((folder / "stages" / stage.name / "losses.json").read_text())
        stages[stage.name] = {
            "minutes": (moments[-1] - moments[0]) / 60,
            "problems": (len(moments) - 1) * step_size(options, stage),
            "losses": [round(row["loss"], 4) for row in history if "loss" in row],
        }
    return {
        "command": f"python train_semcot.py {' '.join(arguments)}",
        "commit": commit(),
        "recipe": recipe,
        **{figure: sum(stage[figure] for stage in stages.values()) for figure in ("minutes", "problems")},
        "stages": stages,
        "moments": made.moments,
        "record": json.loads((folder / "training.json").read_text()),
    }


def evaluated(options: EvalOptions) -> dict[str, Any]:
    """
    The row of an evaluation by eval_semcot.py, unless it was made, with its command, its `meta` and, as a text of 1 and
    0, which answers are right.
    """
    folder = Path(options.output_dir)
    record = json.loads((folder / "results.json").read_text()) if (folder / "report.html").exists() else None
    is_same = record and record["run"]["options"] == {k: v for k, v in asdict(options).items() if k not in FREE}
    if is_same and SEMCOT in options.methods:  # the others take of the checkpoint its base alone
        is_same = record["meta"]["model_sha256"] == weights_sha256(options.model)
    if not is_same:
        record = evaluate(options)  # which says what is another, where an evaluation is
        release_memory()
    (row,) = record["eval"]
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    right = "".join(str(int(json.loads(line)["correct"])) for line in lines)
    unused = ("mcnemar", "speedup_vs_cot", "batch_sweep", "accuracy_per_s", "samples_per_s")
    row = {name: value for name, value in row.items() if name not in unused}
    return row | {"right": right, "command": record["run"]["command"], "meta": record["meta"]}


def timed(asked: dict[str, EvalOptions], num_questions: int, file: Path) -> dict[str, dict[str, float]]:
    """
    The latencies of a method on each data set, unless the file has them: from a question to its answer at batch size 1,
    after a warm-up, of so many first questions, by [`now`].
    """
    if file.exists():
        return json.loads(file.read_text())
    first, found = next(iter(asked.values())), {}
    model, tokenizer = load_model(first.model, first.device, first.dtype, first.base_model)
    method = open_method(first.methods[0], model, tokenizer, first.base_model)
    for title, options in asked.items():
        problems = load_problems(options.data, options.split, num_samples=options.limit, seed=options.seeds[0])
        limit = options.cot_max_new_tokens if method.explicit_reasoning else options.max_new_tokens
        questions = problems["question"][:num_questions]
        method.answer(questions[:1], 4)
        moments = [now(), *((method.answer([question], limit), now())[1] for question in questions)]
        p50, p95 = np.percentile(np.diff(moments), [50, 95]).tolist()
        found[title] = {"latency_p50_s": p50, "latency_p95_s": p95, "latency_n": len(questions)}
    write_json(file, found)
    return found


def describe(comparison: Comparison, name: str, trained: list[dict], rows: list[dict]) -> dict[str, Any]:
    """A method's results, in the form of results/README.md."""
    code = trained[0]["commit"] if trained else commit()
    meta = {key: value for key, value in rows[0]["meta"].items() if key not in ("model", "model_sha256")}
    for row in rows:
        row["meta"] = {key: value for key, value in row["meta"].items() if key not in meta}
    return {
        "name": name,
        "run": {"command": "python -m benchmarks.methods " + " ".join(sys.argv[1:]), "commit": code},
        "budget_minutes": comparison.minutes if trained else None,
        "trained": comparison.untrained.get(name, {}).get("trained"),
        "train": [{key: value for key, value in row.items() if key != "asked"} for row in trained],
        "eval": rows,
        "meta": meta,
    }


def commit() -> str:
    """Of the code; empty outside a clone."""
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def release_memory() -> None:
    """Models of earlier runs are gone before the next is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
