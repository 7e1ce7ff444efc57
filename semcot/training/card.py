"""What the model card says of a training run."""

import os
from dataclasses import asdict
from pathlib import Path

from semcot.data import AUGMENTED, HUB_DATASETS
from semcot.training.options import PHASES, TrainOptions
from semcot.training.record import RESUME_FLAGS

SHOWN = (
    "loss",
    "answer_loss",
    "alignment_loss",
    "explanation_loss",
    "lens_loss",
    "lens_accuracy",
    "accuracy",
    "reasoning_to_condensed",
    "condensed_to_reasoning",
)


def hub_datasets(options: TrainOptions) -> list[str]:
    """Ids of the Hub's data sets among the sources, for the card."""
    names = dict.fromkeys(name.removeprefix(AUGMENTED) for name, _ in options.sources)
    return [HUB_DATASETS[name] for name in names if name in HUB_DATASETS]


def describe_for_card(options: TrainOptions, record: dict) -> str:
    """The card's sections on data, validation figures and hyperparameters."""
    data = ", ".join(f"{_shown(name)} ({count})" if count else _shown(name) for name, count in options.sources)
    lines = [
        "## Training",
        "",
        f"Data: {data}; {record['train_problems']} problems to train on and {record['validation_problems']} of the "
        f"same source for validation (seed {options.seed}). Hardware: {record['device']}.",
        "",
        "| phase | figure on the validation split | value |",
        "|---|---|---|",
    ]
    encoder = record.get("reasoning_encoder", {})
    rows = {f"reasoning encoder, {name}": encoder[name] for name in ("dense", "all") if name in encoder}
    rows |= {f"generator, {name}": record[name] for name in PHASES if name in record}
    for phase, figures in rows.items():
        lines += [f"| {phase} | {name.replace('_', ' ')} | {figures[name]:.4g} |" for name in figures if name in SHOWN]
    lines += ["", "| option | value |", "|---|---|"]
    skipped = {*RESUME_FLAGS, "dataset" if options.train_file else "train_file"}
    lines += [f"| {name} | {_shown(value)} |" for name, value in asdict(options).items() if name not in skipped]
    return "\n".join(lines)


def _shown(value: object) -> object:
    """An option's value on the card: of a path, which says nothing elsewhere, its last part."""
    if isinstance(value, list):
        return [_shown(part) for part in value]
    if isinstance(value, str) and os.path.exists(name := value.removeprefix(AUGMENTED)):
        return value[: -len(name)] + Path(name).resolve().name
    return value
