"""The stages of a run: each is brought to its end once, and goes on from its last whole checkpoint when resumed."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerBase, Trainer, TrainerState, TrainingArguments, set_seed

from modeling_semcot import SemCoTForCausalLM
from semcot.distillation import IGNORED, DistillationCollator, DistillationTrainer, Student
from semcot.distillation.base_noise import BaseNoise
from semcot.distillation.trainer import load_weights
from semcot.encoder import build_reasoning_encoder, encode_texts, train_reasoning_encoder
from semcot.encoder.contrastive import Phase, warm_up_steps
from semcot.files import last_whole_checkpoint, whole, write_json
from semcot.training.build import train_only
from semcot.training.options import ENCODER, RunOptions, Stage, TrainOptions
from semcot.training.problems import Problems, num_steps, step_size, with_both_reasonings

WARM_UP = 0.03
"""Share of a stage's steps in which the learning rate rises."""
NEGATIVES = 2048
"""Other tokens in each step's token supervision: without them thoughts spell words in between."""
FOR_THE_ENCODER = ("optim", "logging_steps", "save_steps", "report_to")
"""The part of `trainer` that the reasoning encoder's stages heed: they are short, and have a schedule of their own."""
TAKEN = ("output_dir", "max_steps", "num_train_epochs", "learning_rate", "seed", "eval_strategy", "save_strategy")
TAKEN += ("per_device_train_batch_size", "per_device_eval_batch_size", "resume_from_checkpoint", "push_to_hub")
"""Arguments that a recipe gives elsewhere than in `trainer`."""


@dataclass
class Run:
    """A run: its recipe, model, problems and record, which the stages share."""

    options: TrainOptions
    model: SemCoTForCausalLM
    tokenizer: PreTrainedTokenizerBase
    problems: dict[str, Problems]
    """Tokenized, by the names of the stages."""
    record: dict
    shared_prefix: int = 0
    pad_to_multiple_of: int = 1
    encoder: SentenceTransformer | None = None
    supervised_tokens: torch.LongTensor = field(init=False)
    """The tokens that token supervision tells apart: those that some step of a reasoning ends with."""

    def __post_init__(self) -> None:
        parts = [part for own in self.problems.values() for part in (own.train, own.validation)]
        found = {token for part in parts for labels in part["thought_labels"] for token in labels}
        self.supervised_tokens = torch.tensor(sorted(found - {IGNORED}))

    @property
    def folder(self) -> Path:
        return Path(self.options.output_dir)

    def steps(self, stage: Stage) -> int:
        """Optimizer steps of a stage."""
        return num_steps(self.options, stage, self.problems[stage.name].num_in_epoch, step_size(self.options, stage))


def train_encoder(run: Run, stages: list[Stage]) -> None:
    """Stage 1: the reasoning encoder, on problems that have both forms of their reasoning."""
    options, problems = run.options, run.problems[stages[0].name]
    set_seed(options.seed)
    run.encoder = build_reasoning_encoder(
        run.model.language_model,
        run.tokenizer,
        (run.model.config.encoder_start_layer, run.model.config.encoder_end_layer),
        base_model_name_or_path=options.base_model,
    )
    train, validation = (with_both_reasonings(part) for part in (problems.train, problems.validation))
    share = len(train) / len(problems.train)
    phases = [
        Phase(
            stage.name,
            stage.learning_rate,
            train_layers=stage.train == [ENCODER],
            max_steps=num_steps(options, stage, problems.num_in_epoch * share, step_size(options, stage)),
            batch_size=stage.batch_size,
        )
        for stage in stages
    ]
    figures = train_reasoning_encoder(
        run.encoder,
        train,
        validation,
        run.folder / "reasoning_encoder",
        phases,
        options.resume_from_checkpoint,
        seed=options.seed,
        use_cpu=not torch.cuda.is_available(),
        project="semcot",
        run_name=f"{run.folder.name}-encoder",
        bf16=options.autocast,
        **{name: options.trainer[name] for name in FOR_THE_ENCODER},
    )
    run.record["stages"] |= {stage.name: figures[stage.name] for stage in stages}
    run.record["reasoning_encoder"] = {name: figures[name] for name in ("kept", "pool")}


def train_stage(run: Run, stage: Stage) -> dict[str, float]:
    """
    Trains a stage and returns its validation figures. One that was finished before is loaded; one that was cut short
    goes on from its last whole checkpoint.
    """
    folder = run.folder / "stages" / stage.name
    return train_to_the_end(
        folder, lambda: make_trainer(run, stage, folder), lambda kept: load_weights(run.model, kept)
    )


def train_to_the_end(folder: Path, trainer_of: Callable[[], Trainer], load: Callable[[Path], None]) -> dict[str, float]:
    """
    Trains what the Trainer trains and returns its validation figures. What was finished before is loaded; what was cut
    short goes on from its last whole checkpoint.

    Args:
        folder: of the Trainer's checkpoints, and of `finished` with the weights and the figures.
        trainer_of: makes the Trainer, where there is something left to train. It saves the trained weights alone.
        load: reads these from a folder.
    """
    finished = folder / "finished"
    if (finished / "figures.json").exists():
        load(finished)
        return json.loads((finished / "figures.json").read_text())

    trainer = trainer_of()
    checkpoint = last_whole_checkpoint(folder)
    if checkpoint == str(folder / f"checkpoint-{trainer.args.max_steps}"):  # cut short between its last one and its end
        load(Path(checkpoint))
        trainer.state = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json")
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    figures = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
    if trainer.is_world_process_zero():
        finished.mkdir(exist_ok=True)
        trainer.save_model(str(finished))
        write_json(folder / "losses.json", trainer.state.log_history)
        write_json(finished / "figures.json", figures)
    trainer.accelerator.wait_for_everyone()
    return figures


def make_trainer(run: Run, stage: Stage, folder: Path) -> DistillationTrainer:
    """The Trainer of a stage, with the model set to train what the stage says."""
    options, model = run.options, run.model
    train_only(model, stage.train)
    arguments = training_arguments(options, stage, folder, run.steps(stage))
    train, validation = run.problems[stage.name].train, run.problems[stage.name].validation
    if "alignment" in stage.losses:
        train, validation = with_meanings(run, stage)
    set_seed(options.seed)
    collator = DistillationCollator(run.tokenizer.pad_token_id, run.shared_prefix, run.pad_to_multiple_of)
    return DistillationTrainer(
        Student(model, run.shared_prefix),
        arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collator,
        losses=stage.losses,
        reasoning_encoder=run.encoder,
        supervised_tokens=run.supervised_tokens,
        negatives=NEGATIVES,
        callbacks=[BaseNoise(model.language_model, stage.base_noise, options.seed)] if stage.base_noise else None,
    )


def with_meanings(run: Run, stage: Stage) -> tuple[Dataset, Dataset]:
    """
    The problems of a stage with the embeddings of their reasonings; of those to train on only the first that stages
    which need them will read.
    """
    problems = run.problems[stage.name]
    peers = [other for other in run.options.stages if run.problems[other.name] is problems]
    peers = [other for other in peers if "alignment" in other.losses]
    needed = max(run.steps(other) * step_size(run.options, other) for other in peers)
    train = problems.train.select(range(min(needed, len(problems.train))))
    return tuple(
        embed_reasonings(run, part, f"{peers[0].name}_{split}")
        for part, split in ((train, "train"), (problems.validation, "validation"))
    )


def embed_reasonings(run: Run, problems: Dataset, name: str) -> Dataset:
    """
    Adds `reasoning_embedding`, the meaning of each reasoning, zero where there is none: computed once, each process its
    share, and kept.
    """
    state, encoder = PartialState(), run.encoder
    file = run.folder / "stages" / f"reasoning_embeddings_{name}.safetensors"
    if not file.exists():
        autocast = torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=run.options.autocast)
        with state.split_between_processes(list(problems["reasoning"])) as share, autocast:
            given = [i for i, reasoning in enumerate(share) if reasoning]
            embeddings = torch.zeros(len(share), encoder[2].out_features)
            if given:
                embeddings[given] = encode_texts(encoder, [share[i] for i in given]).float().cpu()
        embeddings = torch.cat(gather_object([embeddings]))
        if state.is_main_process:
            with whole(file) as unfinished:
                save_file({"embeddings": embeddings}, unfinished)
        state.wait_for_everyone()
    return problems.add_column("reasoning_embedding", list(load_file(file)["embeddings"].numpy()))


def check_trainer_options(options: RunOptions, stage: Stage) -> None:
    """Raises `ValueError` for what `trainer` says in vain, or what transformers does not take."""
    known = {option.name for option in fields(TrainingArguments)} | {"gradient_checkpointing"}
    if unknown := sorted(options.trainer.keys() - known):
        raise ValueError(f"trainer: transformers' TrainingArguments has no {', '.join(unknown)}.")
    if taken := sorted(options.trainer.keys() & set(TAKEN)):
        raise ValueError(f"trainer: {', '.join(taken)} is said by the recipe itself (output_dir, seed, stages).")
    try:
        training_arguments(options, stage, Path(options.output_dir), max_steps=1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"trainer: {error}") from error


def training_arguments(options: RunOptions, stage: Stage, folder: Path, max_steps: int) -> TrainingArguments:
    """The Trainer's arguments, from recipe and stage."""
    given = {"warmup_steps": warm_up_steps(WARM_UP, max_steps), **options.trainer, "bf16": options.autocast}
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=stage.batch_size,
        per_device_eval_batch_size=stage.batch_size,
        max_steps=max_steps,
        learning_rate=stage.learning_rate,
        seed=options.seed,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        eval_strategy="steps",
        project="semcot",
        run_name=f"{Path(options.output_dir).name}-{stage.name}",
        # Which the search for unused parameters breaks.
        **({"ddp_find_unused_parameters": False} if given.get("gradient_checkpointing") else {}),
        **given,
    )
    # Several GPUs are used by several processes (torchrun), never by the slow threads of DataParallel.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
