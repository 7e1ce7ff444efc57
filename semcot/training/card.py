"""The model card's section on a training run; the template is `card.md.jinja` beside this file."""

import os
from dataclasses import asdict
from pathlib import Path

from jinja2 import Environment

from semcot.data import AUGMENTED, HUB_DATASETS
from semcot.training.options import TrainOptions, flat
from semcot.training.record import RESUME_FLAGS

TEMPLATE = Path(__file__).with_name("card.md.jinja")
SHOWN = (
    "loss",
    "answer_loss",
    "alignment_loss",
    "token_supervision_loss",
    "token_supervision_accuracy",
    "accuracy",
    "reasoning_to_condensed",
    "condensed_to_reasoning",
)
"""The figures of a stage that are worth a line."""


def hub_datasets(options: TrainOptions) -> list[str]:
    """Ids of the Hub's data sets among the sources, for the card."""
    names = dict.fromkeys(name.removeprefix(AUGMENTED) for name in _sources(options))
    return [HUB_DATASETS[name] for name in names if name in HUB_DATASETS]


def describe_for_card(options: TrainOptions, record: dict) -> str:
    """The card's sections on data, validation figures and hyperparameters."""
    shown = {name: _shown(value) for name, value in flat(asdict(options)).items() if name not in RESUME_FLAGS}
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        sources={_shown(name): count for name, count in _sources(options).items()},
        record=record,
        seed=options.seed,
        figures=SHOWN,
        options=shown,
    )


def _sources(options: TrainOptions) -> dict[str, int | None]:
    """Each source with the number of problems that all stages together draw of it; `None` where one takes it whole."""
    found: dict[str, int | None] = dict(options.dataset)
    for stage in options.stages:
        for name, count in (stage.dataset or {}).items():
            before = found.get(name, 0)
            found[name] = None if None in (before, count) else before + count
    return found


def _shown(value: object) -> object:
    """An option's value on the card: of a path, which says nothing elsewhere, its last part."""
    if isinstance(value, list):
        return [_shown(part) for part in value]
    if isinstance(value, dict):
        return {_shown(name): part for name, part in value.items()}
    if isinstance(value, str) and os.path.exists(name := value.removeprefix(AUGMENTED)):
        return value[: -len(name)] + Path(name).resolve().name
    return value
