"""A training run, from a recipe to a loadable checkpoint, to be read top to bottom."""

import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from huggingface_hub.utils import validate_repo_id
from transformers import set_seed

from modeling_semcot import SemCoTForCausalLM
from semcot.distillation import shared_prefix_length
from semcot.files import write_json
from semcot.machine import peak_memory, without_cudnn_attention
from semcot.training import stages
from semcot.training.build import build_model, train_only
from semcot.training.card import describe_for_card, hub_datasets
from semcot.training.options import RunOptions, TrainOptions
from semcot.training.problems import Problems, check_lengths, check_reasonings, load_data
from semcot.training.record import check_output_dir, check_same_run, describe_run, prepare_output_dir
from semcot.training.stages import Run

PAD_TO_MULTIPLE_OF = 8
"""On a GPU, of the lengths of batches: its kernels are chosen, and compiled, anew for other lengths."""


def train(options: TrainOptions) -> SemCoTForCausalLM:
    """Runs the stages in their order and writes the checkpoint to `options.output_dir`."""
    run = prepare(options)
    encoder_stages = [stage for stage in options.stages if stage.trains_encoder]
    if encoder_stages:
        stages.train_encoder(run, encoder_stages)
        _note_peak_memory(run, "reasoning_encoder")
    for stage in options.stages[len(encoder_stages) :]:
        run.record["stages"][stage.name] = stages.train_stage(run, stage)
        _note_peak_memory(run, stage.name)
    # The others wait: a launcher that sees one of its processes end badly ends the rest.
    with PartialState().main_process_first():
        if PartialState().is_main_process:
            finish(run)
    return run.model


def prepare(options: TrainOptions) -> Run:
    """All that can be wrong with a run is found here, before it clears a folder or trains anything."""
    state = start()
    if options.push_to_hub:
        validate_repo_id(repository(options))
        if os.path.isdir(options.base_model):
            raise ValueError(
                f"The base is the local folder {options.base_model}, which nobody who downloads the checkpoint has. "
                "Give its Hub id as base_model; it is still found in models/ where there is no connection."
            )
    check(options)
    parted: dict[str, bool] = {}
    shared = load_data(options, parted=parted)
    problems = {stage.name: load_data(options, stage, parted) if stage.dataset else shared for stage in options.stages}
    for stage in options.stages:
        check_reasonings(options, stage, problems[stage.name])
    record = describe_run(problems, shared)
    model, tokenizer = build_model(options)
    for stage in options.stages:
        if not stage.trains_encoder:
            train_only(model, stage.train)
    state.print(f"{len(shared.train)} problems to train on, {len(shared.validation)} for validation.")
    different = {id(own): own for own in problems.values()}
    tokenized = {name: own.tokenized(tokenizer, options) for name, own in different.items()}
    problems = {name: tokenized[id(own)] for name, own in problems.items()}
    for own in tokenized.values():
        check_lengths(model, own.train, own.validation)
    run = Run(options, model, tokenizer, problems, record)
    _choose_padding(run, list(tokenized.values()))
    # Only now: an earlier run is not cleared for one that cannot begin.
    if state.is_main_process:
        prepare_output_dir(options)
        check_same_run(run.folder, record)
    state.wait_for_everyone()
    return run


def start() -> PartialState:
    """Of all processes, where torchrun or accelerate started several; the first may prepare data for long."""
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=6))
    if (precision := os.environ.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        raise ValueError(
            f"accelerate was given mixed_precision {precision}: set it to 'no', trainer.bf16 decides here."
        )
    return state


def check(options: RunOptions) -> None:
    """Raises an error for options that cannot be trained with, or a folder that is taken. Then the seed is set."""
    for stage in options.stages:
        stages.check_trainer_options(options, stage)
    if PartialState().is_main_process:
        check_output_dir(options)
    set_seed(options.seed)
    without_cudnn_attention()


def finish(run: Run) -> None:
    """Writes the checkpoint with its card and the record of its run, and pushes it where that was asked for."""
    options, folder = run.options, run.folder
    card = {"datasets": hub_datasets(options), "details": describe_for_card(options, run.record)}
    run.model.save_pretrained(folder, model_card_kwargs=card)
    run.tokenizer.save_pretrained(folder)
    write_json(folder / "training.json", run.record)
    print(f"The checkpoint is in {folder}. Peak memory: {max(run.record['peak_memory_gb'].values())} GB.")
    if options.push_to_hub:
        try:
            print(run.model.push_to_hub(repository(options), tokenizer=run.tokenizer, model_card_kwargs=card))
        except Exception as error:
            error.add_note(
                f"The checkpoint in {folder} is whole. To push it, run the same command once more with "
                "--resume_from_checkpoint True --push_to_hub True; nothing is trained again."
            )
            raise


def repository(options: TrainOptions) -> str:
    """The name of the Hub's repository that the checkpoint is pushed to."""
    return options.hub_model_id or Path(options.output_dir).resolve().name


def _choose_padding(run: Run, sets: list[Problems]) -> None:
    """Where batches are padded, by the device and by all rows that will be read."""
    on_gpu = run.model.device.type == "cuda"
    run.pad_to_multiple_of = PAD_TO_MULTIPLE_OF if on_gpu else 1
    parts = [part for own in sets for part in (own.train, own.validation)]
    prompts = [ids for part in parts for ids in part["prompt_ids"]]
    answers = max(len(ids) for part in parts for ids in part["answer_ids"])
    longest = max(map(len, prompts)) + answers + run.pad_to_multiple_of
    with torch.autocast(run.model.device.type, dtype=torch.bfloat16, enabled=run.options.autocast):  # as in training
        run.shared_prefix = shared_prefix_length(run.model, prompts, longest)


def _note_peak_memory(run: Run, name: str) -> None:
    run.record["peak_memory_gb"][name] = round(peak_memory(PartialState().device, restart=True) / 1e9, 2)
