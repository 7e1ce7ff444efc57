"""Stage 1 of training: contrast within a batch, between each reasoning and its condensed form."""

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import BatchSamplers

from semcot.encoder.cached_activations import CachedMeans, CachedStates
from semcot.encoder.reasoning_encoder import encode_texts, frozen, load_weights
from semcot.files import last_whole_checkpoint, write_json

PAIR = ["reasoning", "condensed_reasoning"]
RETRIEVAL_POOL = 100
FIGURES_FILE = "validation.json"
LOSSES_FILE = "losses.json"
LOGS = "runs"
"""The folder in which TensorBoard's curves lie, by the Trainer."""
DEFAULT_ARGUMENTS = {
    "report_to": "none",
    "logging_steps": 10,
    "save_steps": 100,
    "save_total_limit": 1,
    "dataloader_pin_memory": torch.cuda.is_available(),
}


@dataclass(frozen=True)
class Phase:
    """One round of training; `max_steps` above zero overrides `epochs`."""

    name: str
    learning_rate: float
    train_layers: bool
    """The copied layers too, not the dense layer alone."""
    epochs: float = 1.0
    max_steps: int = -1
    batch_size: int = 32
    temperature: float = 0.05
    """Cosine similarities are divided by it."""

    def passes(self, num_pairs: int, world_size: int) -> float:
        """Times that each pair is read."""
        return self.epochs if self.max_steps < 0 else self.max_steps * self.batch_size * world_size / num_pairs

    def arguments(self, folder: Path, num_pairs: int, given: dict[str, Any]) -> SentenceTransformerTrainingArguments:
        """Arguments for sentence-transformers."""
        arguments = SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            learning_rate=self.learning_rate,
            num_train_epochs=self.epochs,
            max_steps=self.max_steps,
            per_device_train_batch_size=self.batch_size,
            per_device_eval_batch_size=self.batch_size,
            batch_sampler=BatchSamplers.NO_DUPLICATES,  # the same text twice would be its own negative
            **DEFAULT_ARGUMENTS | given,
        )
        if "warmup_steps" not in given:
            steps = self.passes(num_pairs, arguments.world_size) * num_pairs
            arguments.warmup_steps = warm_up_steps(WARM_UP, round(steps / (self.batch_size * arguments.world_size)))
        arguments._n_gpu = min(arguments.n_gpu, 1)  # never DataParallel
        return arguments


WARM_UP = 0.1
"""Share of a phase's steps in which the learning rate rises."""
PHASES = (
    Phase("dense", learning_rate=1e-3, train_layers=False),
    Phase("all", learning_rate=1e-5, train_layers=True),
)


def train_reasoning_encoder(
    encoder: SentenceTransformer,
    train: Dataset,
    validation: Dataset,
    output_dir: str | os.PathLike,
    phases: Sequence[Phase] = PHASES,
    resume_from_checkpoint: bool = False,
    **training_arguments: Any,
) -> dict[str, Any]:
    """
    Trains the encoder by in-batch contrast between `reasoning` and `condensed_reasoning`, in both directions, and
    saves it to `output_dir`. Every phase is followed by a look at held-out pairs; one that made retrieval worse is
    undone. The encoder is left frozen, in eval mode, with the weights that were kept.

    Args:
        train, validation: data sets with the columns `reasoning` and `condensed_reasoning`.
        output_dir: becomes the encoder's folder; while training goes on, `output_dir/phases` holds its checkpoints.
        phases: what to train and how fast, one after the other; by default the dense layer, then the layers as well.
        resume_from_checkpoint: go on where an earlier call with the same arguments ended, or start if there was none.
            The outcome is that of an uninterrupted run. Otherwise checkpoints of an earlier call are thrown away.
        training_arguments: for `SentenceTransformerTrainingArguments`: seed, logging_steps, save_steps, bf16, …

    Returns:
        Per phase `loss` and the share of held-out pairs found, `reasoning_to_condensed` and `condensed_to_reasoning`
        (see `retrieval_accuracy`); `kept`, the phase whose weights were kept; `pool`, the number of pairs searched.

    Raises:
        ValueError: a data set lacks a column or has too few pairs, or two phases have one name.
    """
    train, validation = _pairs(train, "train", 2), _pairs(validation, "validation", 1)
    if len({phase.name for phase in phases}) < max(1, len(phases)):
        raise ValueError(f"Phases need names of their own, got {[phase.name for phase in phases]}.")
    folder = Path(output_dir)
    work, summary = folder / "phases", folder / FIGURES_FILE
    arguments = {phase: phase.arguments(work / phase.name, len(train), training_arguments) for phase in phases}
    process = arguments[phases[0]]
    with process.main_process_first(local=False):
        if process.should_save and not resume_from_checkpoint:
            summary.unlink(missing_ok=True)
            shutil.rmtree(work, ignore_errors=True)
    if summary.is_file():
        load_weights(encoder, folder)
        frozen(encoder)
        return json.loads(summary.read_text())

    figures = _train_phases(encoder, train, validation, arguments, work)
    with process.main_process_first(local=False):
        if process.should_save:
            encoder.save_pretrained(str(folder))
            losses = {phase.name: json.loads((work / phase.name / LOSSES_FILE).read_text()) for phase in phases}
            write_json(folder / LOSSES_FILE, losses)
            write_json(summary, figures)
    if process.should_save:
        _clear(work)
    return figures


def _train_phases(
    encoder: SentenceTransformer,
    train: Dataset,
    validation: Dataset,
    arguments: dict[Phase, SentenceTransformerTrainingArguments],
    work: Path,
) -> dict[str, Any]:
    """Trains the phases, each with its arguments, keeps the best one's weights, and returns the figures of all."""
    process = next(iter(arguments.values()))
    passes = {phase: phase.passes(len(train), process.world_size) for phase in arguments}
    texts = [text for pairs in (train, validation) for column in PAIR for text in pairs[column]]
    cached, figures, kept = None, {}, None
    if sum(passes.values()) > 1:
        with process.main_process_first(local=False):
            cached = CachedStates(encoder[0], texts, work / "states.npy")
    for phase in arguments:
        record = work / phase.name / FIGURES_FILE
        if not record.is_file():
            encoder[0].cached_activations = cached
            if passes[phase] > 1 and not phase.train_layers:
                encoder[0].cached_activations = CachedMeans(encoder[0], texts)
            found = _train_phase(encoder, train, validation, phase, arguments[phase])
            with process.main_process_first(local=False):
                if process.should_save:
                    encoder.save_pretrained(str(work / phase.name / "encoder"))
                    write_json(record, found)
        figures[phase.name] = json.loads(record.read_text())
        if kept is None or _mean_accuracy(figures[phase.name]) >= _mean_accuracy(figures[kept]):
            kept = phase.name
        load_weights(encoder, work / kept / "encoder")
        if process.should_save:
            print(_describe(phase, figures[phase.name], kept), flush=True)
    encoder[0].cached_activations = None
    frozen(encoder)
    return figures | {"kept": kept, "pool": min(len(validation), RETRIEVAL_POOL)}


def _pairs(problems: Dataset, split: str, least: int) -> Dataset:
    if missing := set(PAIR) - set(problems.column_names):
        raise ValueError(f"The {split} set lacks the columns {sorted(missing)}; it has {problems.column_names}.")
    if len(problems) < least:
        raise ValueError(f"The {split} set has {len(problems)} pairs; contrastive training needs at least {least}.")
    return problems.select_columns(PAIR)


def _clear(work: Path) -> None:
    """Removes the checkpoints, no more needed, but leaves the curves that report_to drew."""
    for folder in (*(path for path in work.iterdir() if path.is_dir()), work):
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
            elif folder != work and path.name != LOGS:
                shutil.rmtree(path)
        if not any(folder.iterdir()):
            folder.rmdir()


def warm_up_steps(share: float, steps: int) -> int:
    """Steps of a phase in which its learning rate rises from 0; not all of them, so that the shortest trains too."""
    return min(math.ceil(share * steps), max(steps - 1, 0))


def retrieval_accuracy(encoder: SentenceTransformer, pairs: Dataset, batch_size: int = 32) -> dict[str, float]:
    """
    How often the nearest text by cosine is the right one, among the first 100 `pairs`, in both directions.

    Pairs that share a text cannot be told apart by it, so any of them is right.
    """
    pairs = pairs.select(range(min(len(pairs), RETRIEVAL_POOL)))
    reasonings, condensed = (list(pairs[column]) for column in PAIR)
    similarity = encoder.similarity(*(encode_texts(encoder, texts, batch_size) for texts in (reasonings, condensed)))

    def accuracy(similarity: torch.Tensor) -> float:
        nearest = similarity.argmax(1).tolist()
        right = [reasonings[i] == reasonings[j] or condensed[i] == condensed[j] for i, j in enumerate(nearest)]
        return sum(right) / len(right)

    return {"reasoning_to_condensed": accuracy(similarity), "condensed_to_reasoning": accuracy(similarity.T)}


class _Trainer(SentenceTransformerTrainer):
    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        # The base stays where it is; the stock method would load it a second time, by name.
        load_weights(self.model, Path(checkpoint_path))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        # transformers calls this in every process, sentence-transformers expects the first only.
        if self.args.should_save:
            super()._save(output_dir, state_dict)


def _train_phase(
    encoder: SentenceTransformer,
    train: Dataset,
    validation: Dataset,
    phase: Phase,
    arguments: SentenceTransformerTrainingArguments,
) -> dict[str, float]:
    """Trains one phase, from its last whole checkpoint if there is one, and returns its validation figures."""
    encoder.requires_grad_(True)
    encoder[0].requires_grad_(phase.train_layers)
    loss = MultipleNegativesRankingLoss(
        encoder,
        scale=1 / phase.temperature,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
        gather_across_devices=arguments.world_size > 1,
    )
    trainer = _Trainer(encoder, arguments, train_dataset=train, eval_dataset=validation, loss=loss)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(Path(arguments.output_dir)))
    if trainer.state.global_step < phase.max_steps:  # several processes leave out batches that are not full
        raise ValueError(
            f"The reasoning encoder took {trainer.state.global_step} of {phase.max_steps} steps: {len(train)} pairs of "
            f"reasoning and condensed reasoning, of which no two in a batch are equal, do not fill a batch of "
            f"{arguments.per_device_train_batch_size} in each process, of {arguments.world_size}. Give a smaller "
            "batch_size, more data, or one process."
        )
    if arguments.should_save:
        write_json(Path(arguments.output_dir) / LOSSES_FILE, trainer.state.log_history)
    arguments.dataloader_drop_last = False  # set for several processes; a small validation split would be gone
    figures = {"loss": trainer.evaluate()["eval_loss"]}
    return figures | retrieval_accuracy(encoder, validation, arguments.per_device_eval_batch_size)


def _mean_accuracy(figures: dict[str, float]) -> float:
    return (figures["reasoning_to_condensed"] + figures["condensed_to_reasoning"]) / 2


def _describe(phase: Phase, figures: dict[str, float], kept: str) -> str:
    return (
        f"reasoning encoder, phase {phase.name}: validation loss {figures['loss']:.4f}, "
        f"retrieval {figures['reasoning_to_condensed']:.1%} from reasoning to condensed, "
        f"{figures['condensed_to_reasoning']:.1%} back"
        + ("" if kept == phase.name else f"; worse than phase {kept}, whose weights are kept")
    )
