"""A training run of a method to compare SemCoT with: one loop for all of them."""

import os
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import nn
from transformers import Trainer, set_seed

from checkpoint_semcot import find_base
from semcot.distillation.trainer import LikeLengths
from semcot.evaluation.methods import TRAINED, TrainedMethod
from semcot.files import write_json
from semcot.machine import dtype_named, peak_memory
from semcot.training.build import CLONE, loading_part
from semcot.training.options import MethodOptions
from semcot.training.problems import Problems, load_data, num_steps, step_size
from semcot.training.record import check_same_run, describe_run, prepare_output_dir
from semcot.training.run import check, start
from semcot.training.stages import train_to_the_end, training_arguments


def train_method(options: MethodOptions) -> TrainedMethod:
    """
    Trains a method of `semcot.evaluation.methods` and writes it to `options.output_dir`, for `eval_semcot.py --methods
    NAME=FOLDER`: `model.safetensors`, `method.json` and, as of every run, its options, data and figures.

    Raises:
        ValueError: the options, the problems and the method do not go together.
        OSError: the base cannot be loaded, or the folder is taken.
    """
    state = start()
    check(options)
    (stage,) = options.stages
    problems = learnable(load_data(options), TRAINED[options.method].needs)
    record = describe_run({stage.name: problems}, problems)
    method = build_method(options)
    set_seed(options.seed)
    state.print(f"{len(problems.train)} problems to train on, {len(problems.validation)} for validation.")
    folder = Path(options.output_dir)
    if state.is_main_process:
        prepare_output_dir(options)
        check_same_run(folder, record)
    state.wait_for_everyone()

    def trainer() -> MethodTrainer:
        steps = num_steps(options, stage, problems.num_in_epoch, step_size(options, stage))
        return MethodTrainer(
            method,
            training_arguments(options, stage, folder / "stages" / stage.name, steps),
            train_dataset=with_lengths(problems.train, method),
            eval_dataset=problems.validation,
            data_collator=lambda rows: {"problems": rows},
        )

    figures = train_to_the_end(folder / "stages" / stage.name, trainer, method.load_weights)
    method.eval()
    with state.main_process_first():
        if state.is_main_process:
            method.save(folder)
            record["stages"][stage.name] = figures
            record["trained_weights"] = sum(weight.numel() for weight in method.own_weights().values())
            record["peak_memory_gb"][stage.name] = round(peak_memory(state.device) / 1e9, 2)
            write_json(folder / "training.json", record)
            print(f"The method is in {folder}: eval_semcot.py --methods {method.name}={folder}")
    return method


def build_method(options: MethodOptions) -> TrainedMethod:
    """The method, untrained, on the device: what it trains in float32, the rest as the options say."""
    source = find_base(options.base_model, os.curdir, CLONE)
    dtype = options.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")
    loading = {"attn_implementation": options.attention} if options.attention else {}
    with loading_part("base", options.base_model):
        # First as it is stored: what is trained would keep the rounding of another dtype.
        method = TRAINED[options.method].build(options.base_model, source, options.settings, dtype="auto", **loading)
    own = method.own_weights()
    for name, weight in method.named_parameters():
        if name in own or dtype != "auto":
            weight.data = weight.data.to(torch.float32 if name in own else dtype_named(dtype))
    return method.to(PartialState().device)


def learnable(problems: Problems, needs: tuple[str, ...]) -> Problems:
    """The problems that have something in all of these columns. Raises `ValueError` where a split has none."""
    parts = []
    for name in ("train", "validation"):
        part: Dataset = getattr(problems, name)
        whole = [i for i, row in enumerate(part) if all(row[column] for column in needs)]
        if not whole:
            raise ValueError(
                f"None of the {len(part)} problems of the {name} split has {' and '.join(needs)}, which this method "
                "learns from. Use data that have them (python -m semcot.data.condense writes condensed reasonings)."
            )
        if len(whole) < len(part):
            PartialState().print(f"{name}: {len(part) - len(whole)} of {len(part)} problems lack it; left out.")
        parts.append(part.select(whole))
    share = len(parts[0]) / len(problems.train)
    return Problems(*parts, round(problems.num_in_epoch * share))


def with_lengths(problems: Dataset, method: TrainedMethod) -> Dataset:
    """The problems with the characters of what the method reads of each, by which batches are put together."""
    columns = {"question", *method.needs}
    return problems.add_column("length", [sum(len(row[column]) for column in columns) for row in problems])


class MethodTrainer(Trainer):
    """
    [`transformers.Trainer`] of a [`TrainedMethod`]. At the first step of a new stage of its curriculum the optimizer
    forgets its state. Its checkpoints hold the method's own weights alone.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.label_names = ["problems"]  # whose presence has the Trainer compute a loss in validation

    @property
    def stage(self) -> int:
        return self._stage_at(self.state.global_step)

    def _stage_at(self, step: int) -> int:
        """The stage that the step of this number, from 0, belongs to; validation after the last one to the last."""
        return self.model.stage(min(step, self.args.max_steps - 1) / self.args.max_steps)

    def training_step(self, model: nn.Module, inputs: dict, num_items_in_batch: torch.Tensor | None = None):
        step = self.state.global_step
        if step and self.stage != self._stage_at(step - 1):
            self.optimizer.state.clear()
        return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model: nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        return model(inputs["problems"], self.stage)

    def prediction_step(self, model: nn.Module, inputs: dict, prediction_loss_only: bool, ignore_keys=None):
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        stage = {"stage": self._stage_at(self.state.global_step - 1)} if "loss" in logs else {}  # of the step just done
        super().log(logs | stage, start_time)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LikeLengths:
        rows = train_dataset or self.train_dataset
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        epoch = lambda: int(self.state.epoch or 0)  # noqa: E731
        return LikeLengths(list(rows["length"]), per_step, seed=self.args.seed, epoch=epoch)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if self.args.should_save:  # called in every process, of which one writes
            self.model.save_weights(Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.model.load_weights(Path(resume_from_checkpoint))
