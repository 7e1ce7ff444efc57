"""The problems of a run: drawn, freed of those of evaluation splits, parted, tokenized and checked."""

import math
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from modeling_semcot import SemCoTForCausalLM
from semcot.data import (
    AUGMENTED,
    HUB_DATASETS,
    load_problems,
    masked,
    shared_questions,
    split_validation,
    without,
    without_repeats,
)
from semcot.distillation import tokenize_problems
from semcot.encoder.contrastive import PAIR
from semcot.training.options import RunOptions, Stage, TrainOptions


@dataclass
class Problems:
    """The train and validation splits of a stage."""

    train: Dataset
    validation: Dataset
    num_in_epoch: int
    """Problems that an epoch has in the recipe, of which `max_steps` may need a part only."""

    def tokenized(self, tokenizer: PreTrainedTokenizerBase, options: TrainOptions) -> "Problems":
        train, validation = (
            tokenize_problems(part, tokenizer, options.num_thoughts, options.supervised_steps)
            for part in (self.train, self.validation)
        )
        return Problems(train, validation, self.num_in_epoch)


def num_steps(options: RunOptions, stage: Stage, num_in_epoch: int, batch: int) -> int:
    """Optimizer steps of a stage, in batches of all devices: at least one, at most `max_steps` where that is set."""
    limits = [limit for limit in (options.max_steps, stage.max_steps) if limit > 0]
    return min([max(1, round(stage.epochs * num_in_epoch / batch)), *limits])


def step_size(options: RunOptions, stage: Stage) -> int:
    """Problems in an optimizer step, over all processes and accumulated batches."""
    accumulated = 1 if stage.trains_encoder else options.trainer.get("gradient_accumulation_steps", 1)
    return stage.batch_size * accumulated * PartialState().num_processes


def load_data(options: RunOptions, stage: Stage | None = None, parted: dict[str, bool] | None = None) -> Problems:
    """
    The problems of a stage, by default the recipe's, each question once. Questions that also stand in an evaluation
    split, of a named data set, beside a file (`eval.json` beside `train.json`) or named by the options, are left out
    and counted. Where `max_steps` bounds the run, no more problems are drawn than its stages need. Stages with problems
    of their own draw each from a seed of its own; templates that an earlier one parted, kept in `parted`, go where they
    went, so that what is held out is in no stage's train split.
    """
    own = bool(stage and stage.dataset)
    seed = options.seed + (1 + [other.name for other in options.stages].index(stage.name) if own else 0)
    sources = stage.dataset if own else options.dataset
    stages = [stage] if own else [other for other in options.stages if not other.dataset]
    share, needed = 1.0, None
    bounds = [options.max_steps if options.max_steps > 0 else other.max_steps for other in stages]
    if stages and min(bounds) > 0:
        steps = (bound * step_size(options, other) for bound, other in zip(bounds, stages, strict=True))
        needed = math.ceil(max(steps) / (1 - options.validation_fraction))
        counted = sum(count for count in sources.values() if count)
        share = min(1.0, needed / counted) if counted else 1.0
    drawn = {name: count and math.ceil(count * share) for name, count in sources.items()}
    parts = [load_problems(name, "train", num_samples=count, seed=seed) for name, count in drawn.items()]
    problems = without_repeats(concatenate_datasets(parts))
    for name in _evaluation_splits(options, sources):
        try:
            evaluation = load_problems(name, "eval")
        except FileNotFoundError as error:
            if name not in HUB_DATASETS:
                raise
            PartialState().print(f"{name}: whether evaluation questions also stand in train was not checked. {error}")
            continue
        shared = shared_questions(problems, evaluation)
        PartialState().print(
            f"{name}: {len(shared)} of {len(evaluation)} evaluation questions also stand in train; left out."
        )
        problems = without(problems, shared)
    if not len(problems):
        raise ValueError("No problem is left to train on: all of their questions are those of an evaluation split.")
    train, validation = split_validation(
        problems, options.validation_fraction, seed, by_template=options.validation_by_template, parted=parted
    )
    if parted is not None:
        for part, is_held_out in ((train, False), (validation, True)):
            parted |= dict.fromkeys(map(masked, part["question"]), is_held_out)
    num_in_epoch = round(len(train) / share)
    train, validation = (part.select(range(min(len(part), needed or len(part)))) for part in (train, validation))
    return Problems(train, validation, num_in_epoch)


def _evaluation_splits(options: RunOptions, sources: dict[str, int | None]) -> list[str]:
    found = list(options.evaluation_file or [])
    for name in (name.removeprefix(AUGMENTED) for name in sources):
        beside = Path(name).with_name(f"eval{Path(name).suffix}")
        if name in HUB_DATASETS:
            found.append(name)
        elif Path(name).is_file() and beside.is_file() and beside != Path(name):
            found.append(str(beside))
    return list(dict.fromkeys(found))


def with_both_reasonings(problems: Dataset) -> Dataset:
    """The problems that stage 1 can learn from."""
    texts = zip(*(problems[column] for column in PAIR), strict=True)
    return problems.select([i for i, (full, condensed) in enumerate(texts) if full and condensed])


def check_reasonings(options: TrainOptions, stage: Stage, problems: Problems) -> None:
    """Raises `ValueError` when a loss was asked for that the data cannot give."""
    remedy = "Use data that have them (python -m semcot.data.condense writes them), or train without: "
    if stage.trains_encoder:
        for name, part in (("train", problems.train), ("validation", problems.validation)):
            if not len(with_both_reasonings(part)):
                if name == "validation":
                    remedy = "Give a larger --validation_fraction or another --seed, or train without: "
                raise ValueError(
                    f"None of the {len(part)} problems of the {name} split has both reasoning and condensed_reasoning "
                    f"for the reasoning encoder. {remedy}--alpha 0."
                )
        if step_size(options, stage) < 2:
            raise ValueError(
                f"batch_size of stage {stage.name} is 1: a pair without others beside it has nothing to be told apart "
                "from."
            )
    if "token_supervision" in stage.losses and not any(problems.train["condensed_reasoning"]):
        raise ValueError(
            f"Stage {stage.name}: the train split has no condensed_reasoning. {remedy}"
            f"--stages.{stage.name}.losses.token_supervision 0, or --stages.{stage.name}.epochs 0."
        )


def check_lengths(model: SemCoTForCausalLM, *parts: Dataset) -> None:
    """Raises `ValueError`, with the question, for a problem that is longer than the base or the generator can read."""
    configs = (model.config.text_config, model.config.generator_config)
    limits = [config.max_position_embeddings for config in configs if hasattr(config, "max_position_embeddings")]
    for part in parts:
        for i, length in enumerate(part["length"]):
            if limits and length > min(limits):
                raise ValueError(
                    f"A problem has {length} tokens, the models read at most {min(limits)}. Leave it out or shorten "
                    f"it, or take a generator with more positions: {part['question'][i][:100]!r}…"
                )
