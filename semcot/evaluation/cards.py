"""An evaluation's figures in a checkpoint's card and, of the Hub's benchmarks, in `.eval_results/`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard
from huggingface_hub import eval_result_entries_to_yaml as to_yaml
from huggingface_hub import parse_eval_result_entries as parse_yaml

from semcot.data import HUB_DATASETS
from semcot.evaluation.judging import Row
from semcot.files import write_text

# Data sets that the Hub registers as benchmarks: their id, the task's, and how many problems are the whole of it.
BENCHMARKS = {"gsm8k": ("openai/gsm8k", "gsm8k", 1319)}
CARD, RESULTS_FOLDER = "README.md", ".eval_results"


def check_card(model: str) -> Path:
    """The card of a checkpoint's folder. Raises `ValueError` where it is no folder or has no card to update."""
    card = Path(model) / CARD
    if not card.is_file():
        raise ValueError(f"update_card writes into {CARD} of a checkpoint's own folder, and there is no {card}.")
    return card


def update_card(model: str, record: Row, method: str = "semcot") -> list[Path]:
    """
    Writes strict accuracy, in percent, of a checkpoint's own method into the `model-index` of its card, instead of an
    earlier figure of the same kind, and of a whole benchmark into `.eval_results/NAME.yaml`, as `EvalResultEntry`
    describes it. Weights and all other files stay as they are.

    Returns:
        The files that were written, each read again as the Hub's library reads it.

    Raises:
        ValueError: the folder has no card, the record no figure of the method, or what was written is read otherwise.
    """
    file = check_card(model)
    rows = [row for row in record["eval"] if row["method"] == method]
    if not rows:
        raise ValueError(f"update_card gives the figures of {method}, which was not evaluated: add it to the methods.")
    card = ModelCard.load(file)
    card.data.model_name = card.data.model_name or file.parent.resolve().name
    result, kept = _result(record, rows), card.data.eval_results or []
    card.data.eval_results = [*(other for other in kept if not other.is_equal_except_value(result)), result]
    write_text(file, str(card))
    if result not in (ModelCard.load(file).data.eval_results or []):
        raise ValueError(f"{file} does not give back the figure that was written into its model-index: {result}.")
    return [file, *_write_entry(file.parent, record, rows)]


def _result(record: Row, rows: list[Row]) -> EvalResult:
    row, measured = rows[0], {"n": rows[0]["n"], "seeds": [row["seed"] for row in rows]}
    return EvalResult(
        task_type="text-generation",
        dataset_type=HUB_DATASETS.get(row["dataset"], Path(row["dataset"]).name),
        dataset_name=Path(row["dataset"]).name,
        dataset_split=_hub_split(row),
        metric_type="accuracy",
        metric_name=f"strict accuracy, %, {_how(record)}",
        metric_value=_percent(rows),
        metric_args=measured,
    )


def _write_entry(folder: Path, record: Row, rows: list[Row]) -> list[Path]:
    row = rows[0]
    dataset, task, whole = BENCHMARKS.get(row["dataset"], (None, None, None))
    if row["n"] != whole or _hub_split(row) != "test":
        return []
    entry = EvalResultEntry(
        dataset_id=dataset,
        task_id=task,
        value=_percent(rows),
        date=datetime.now(UTC).date().isoformat(),
        notes=f"strict accuracy, {_how(record)}, implicit chain of thought",
    )
    file = folder / RESULTS_FOLDER / f"{row['dataset']}.yaml"
    write_text(file, yaml.safe_dump(to_yaml([entry]), sort_keys=False))
    if parse_yaml(yaml.safe_load(file.read_text(encoding="utf-8"))) != [entry]:
        raise ValueError(f"{file} does not give back the entry that was written into it: {entry}.")
    return [file]


def _percent(rows: list[Row]) -> float:
    return round(100 * sum(row["accuracy"] for row in rows) / len(rows), 2)


def _hub_split(row: dict[str, Any]) -> str:
    """The split as the Hub names it; `load_problems` says which "eval" is."""
    if row["split"] == "train" or row["dataset"] not in HUB_DATASETS:
        return row["split"]
    return "validation" if row["dataset"] == "commonsense_qa" else "test"


def _how(record: Row) -> str:
    options = record["run"]["options"]
    return "greedy" if options["temperature"] is None else f"temperature {options['temperature']}"
