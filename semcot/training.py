"""The recipe of a training run, from data sets to a loadable checkpoint, to be read top to bottom."""

import dataclasses
import hashlib
import json
import os
import platform
import resource
import shutil
import sys
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, concatenate_datasets
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, TrainingArguments, set_seed

from modeling_semcot import SemCoTForCausalLM, find_base
from semcot.data import HUB_DATASETS, load_problems, shared_questions, split_validation, without
from semcot.distillation import DistillationCollator, DistillationTrainer, tokenize_problems
from semcot.files import last_whole_checkpoint, write_json
from semcot.options import TrainOptions
from semcot.reasoning_encoder import PHASES as ENCODER_PHASES
from semcot.reasoning_encoder import build_reasoning_encoder, encode_texts, train_reasoning_encoder
from semcot.tokenization import build_tokenizer


class Phase(NamedTuple):
    """The options that say how long and how fast a phase of stage 2 trains."""

    epochs: str
    learning_rate: str


PHASES = {
    "warmup": Phase("warmup_epochs", "warmup_learning_rate"),
    "lens": Phase("lens_epochs", "lens_learning_rate"),
    "generator": Phase("epochs", "learning_rate"),
}


def train(options: TrainOptions) -> SemCoTForCausalLM:
    """Runs both stages and writes the checkpoint to `options.output_dir`."""
    # Of all processes, where torchrun or accelerate started several; the first may prepare data for long.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=6))
    output_dir = Path(options.output_dir)
    if state.is_main_process:
        prepare_output_dir(options)
    state.wait_for_everyone()
    set_seed(options.seed)
    train_set, validation_set = load_data(options)
    model, tokenizer = build_model(options)
    trained, total = (model.num_parameters(only_trainable=only) / 1e6 for only in (True, False))
    state.print(f"{len(train_set)} problems to train on, {len(validation_set)} for validation.")
    state.print(f"{trained:.1f}M of {total:.1f}M parameters are trained.")
    record = describe_run(train_set, validation_set)

    encoder = None
    if options.alpha > 0:
        encoder, record["reasoning_encoder"] = train_encoder(options, model, tokenizer, train_set, validation_set)
        train_set = embed_reasonings(options, train_set, encoder, "train")
        validation_set = embed_reasonings(options, validation_set, encoder, "validation")
    explain = options.explanation_weight > 0
    train_set, validation_set = (
        tokenize_problems(part, tokenizer, options.num_thoughts, explain) for part in (train_set, validation_set)
    )
    for phase in PHASES:
        if getattr(options, PHASES[phase].epochs) > 0:
            record[phase] = train_phase(options, phase, model, tokenizer, encoder, train_set, validation_set)

    if not state.is_main_process:
        return model
    record["peak_memory_gb"] = peak_memory_gb()
    card = {"datasets": hub_datasets(options), "details": describe_for_card(options, record)}
    model.save_pretrained(output_dir, model_card_kwargs=card)
    tokenizer.save_pretrained(output_dir)
    write_json(output_dir / "training.json", record)
    print(f"The checkpoint is in {output_dir}. Peak memory: {record['peak_memory_gb']} GB.")
    if options.push_to_hub:
        repo_id = options.hub_model_id or output_dir.resolve().name
        try:
            print(model.push_to_hub(repo_id, tokenizer=tokenizer, model_card_kwargs=card))
        except Exception as error:
            error.add_note(
                f"The checkpoint in {output_dir} is whole. To push it, run the same command once more with "
                "--resume_from_checkpoint True --push_to_hub True; nothing is trained again."
            )
            raise
    return model


def prepare_output_dir(options: TrainOptions) -> None:
    """
    Makes the output folder and writes the options into it.

    Raises:
        FileExistsError: it holds something and neither resuming nor overwriting was asked for.
        ValueError: resuming with other options than the run was started with.
    """
    folder = Path(options.output_dir)
    record = folder / "options.json"
    if folder.exists() and any(folder.iterdir()):
        if options.resume_from_checkpoint and record.exists():
            before, now = json.loads(record.read_text()), asdict(options)
            changed = [name for name in now if now[name] != before.get(name) and name not in RESUME_FLAGS]
            if changed:
                raise ValueError(
                    f"{folder} was started with other options: "
                    + ", ".join(f"{name} was {before.get(name)!r}, now {now[name]!r}" for name in changed)
                    + ". Resume with the same ones, or start in another folder."
                )
            return
        if not options.overwrite_output_dir:
            raise FileExistsError(
                f"{folder} is not empty. Give another --output_dir, or --resume_from_checkpoint True to go on with the "
                "run in it, or --overwrite_output_dir True to start afresh."
            )
        if not record.exists():
            raise FileExistsError(f"{folder} holds no earlier run (no options.json), so it is not cleared. Empty it.")
        for name in ("phases", "reasoning_encoder"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "README.md").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, asdict(options))


RESUME_FLAGS = ("resume_from_checkpoint", "overwrite_output_dir", "push_to_hub", "hub_model_id", "report_to")


def load_data(options: TrainOptions) -> tuple[Dataset, Dataset]:
    """The train and validation splits. Questions that also stand in an evaluation split are left out and counted."""
    parts = []
    for name, num_samples in options.sources:
        part = load_problems(name, "train", num_samples=num_samples, seed=options.seed)
        if name in HUB_DATASETS:
            try:
                evaluation = load_problems(name, "eval")
            except FileNotFoundError as error:
                PartialState().print(
                    f"{name}: whether evaluation questions also stand in train was not checked. {error}"
                )
            else:
                part = leave_out(part, evaluation, name)
        parts.append(part)
    for file in options.evaluation_file or []:
        evaluation = load_problems(file, "eval")
        parts = [leave_out(part, evaluation, file) for part in parts]
    return split_validation(concatenate_datasets(parts), options.validation_fraction, options.seed)


def leave_out(problems: Dataset, evaluation: Dataset, name: str) -> Dataset:
    """The problems whose questions do not stand in the evaluation split; says how many do."""
    shared = shared_questions(problems, evaluation)
    PartialState().print(
        f"{name}: {len(shared)} of {len(evaluation)} evaluation questions also stand in train; left out."
    )
    return without(problems, shared)


def build_model(options: TrainOptions) -> tuple[SemCoTForCausalLM, PreTrainedTokenizerBase]:
    """The frozen base with a fresh generator, and the tokenizer with its thoughts."""
    clone = Path(__file__).parents[1]
    source = find_base(options.base_model, os.curdir, clone)
    on_gpu = torch.cuda.is_available()
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    loading = {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}
    base = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **loading)
    base_tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer, prompt_template = build_tokenizer(base_tokenizer, options.num_thoughts)
    generator, generator_tokenizer = options.generator_layers, None
    if options.generator is not None:
        generator_source = find_base(options.generator, os.curdir, clone)
        generator = AutoModelForCausalLM.from_pretrained(generator_source, dtype="float32", **loading)
        generator_tokenizer = AutoTokenizer.from_pretrained(generator_source)
    model = SemCoTForCausalLM.from_components(
        base,
        generator,
        num_thoughts=options.num_thoughts,
        tokenizer=tokenizer,
        generator_tokenizer=generator_tokenizer,
        prompt_template=prompt_template,
        thought_offset=options.thought_offset,
        checkpoint_kind="adapter",
        base_model_name_or_path=options.base_model,
        local_base_model=os.path.abspath(source) if os.path.isdir(source) else None,
        encoder_start_layer=options.encoder_start_layer,
        encoder_end_layer=options.encoder_end_layer,
    )
    # What is trained is kept in float32; on a GPU it computes in bfloat16 under autocast.
    for part in (model.generator, model.projection):
        part.float()
    model.thought_embedding.data = model.thought_embedding.data.float()
    return model, tokenizer


def train_encoder(
    options: TrainOptions,
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    train_set: Dataset,
    validation_set: Dataset,
) -> tuple[SentenceTransformer, dict]:
    """Stage 1: the reasoning encoder, on all problems that have both forms of their reasoning, and its figures."""

    def has_both(row: dict) -> bool:
        return bool(row["reasoning"] and row["condensed_reasoning"])

    pairs = [part.filter(has_both) for part in (train_set, validation_set)]
    if not all(pairs):
        raise ValueError(
            "The data have no pairs of reasoning and condensed_reasoning to train the reasoning encoder on. Use data "
            "that have both, or train without semantic loss: --alpha 0."
        )
    set_seed(options.seed)
    encoder = build_reasoning_encoder(
        model.language_model,
        tokenizer,
        start=model.config.encoder_start_layer,
        end=model.config.encoder_end_layer,
        embedding_dim=options.encoder_embedding_dim,
        base_model_name_or_path=options.base_model,
    )
    epochs = {"dense": options.encoder_dense_epochs, "all": options.encoder_epochs}
    num_processes = PartialState().num_processes
    rates = {"dense": options.encoder_dense_learning_rate, "all": options.encoder_learning_rate}
    phases = [
        dataclasses.replace(
            phase,
            learning_rate=rates[phase.name],
            max_steps=num_steps(
                options, len(pairs[0]) / (options.encoder_batch_size * num_processes), epochs[phase.name]
            ),
        )
        for phase in ENCODER_PHASES
    ]
    figures = train_reasoning_encoder(
        encoder,
        *pairs,
        Path(options.output_dir) / "reasoning_encoder",
        phases=phases,
        batch_size=options.encoder_batch_size,
        temperature=options.encoder_temperature,
        seed=options.seed,
        resume_from_checkpoint=options.resume_from_checkpoint,
        bf16=options.autocast,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=options.logging_steps,
        save_steps=options.save_steps,
        report_to=options.report_to,
        project="semcot",
        run_name=f"{Path(options.output_dir).name}-encoder",
    )
    return encoder, figures


def embed_reasonings(options: TrainOptions, problems: Dataset, encoder: SentenceTransformer, name: str) -> Dataset:
    """Adds the meaning of each reasoning, one vector a problem: computed once, each process its share, and kept."""
    state = PartialState()
    file = Path(options.output_dir) / "phases" / f"reasoning_embeddings_{name}.safetensors"
    if not file.exists():
        autocast = torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=options.autocast)
        with state.split_between_processes(list(problems["reasoning"])) as share, autocast:
            embeddings = encode_texts(encoder, share).float().cpu()
        embeddings = torch.cat(gather_object([embeddings]))
        if state.is_main_process:
            file.parent.mkdir(exist_ok=True)
            save_file({"embeddings": embeddings}, file.with_suffix(".tmp"))
            os.replace(file.with_suffix(".tmp"), file)
        state.wait_for_everyone()
    return problems.add_column("reasoning_embedding", list(load_file(file)["embeddings"].numpy()))


def train_phase(
    options: TrainOptions,
    phase: str,
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    encoder,
    train_set: Dataset,
    validation_set: Dataset,
) -> dict[str, float]:
    """
    One phase of stage 2: `warmup` trains the projection and the thought embedding, the others the whole generator.
    A phase that was finished before is loaded; one that was killed goes on from its last whole checkpoint.
    """
    folder = Path(options.output_dir) / "phases" / phase
    finished = folder / "finished"
    if (finished / "figures.json").exists():
        model.load_state_dict(load_file(finished / "model.safetensors"), strict=False)
        return json.loads((finished / "figures.json").read_text())

    model.requires_grad_(False)
    trained = [model.projection, model.thought_embedding] + ([] if phase == "warmup" else [model.generator])
    for part in trained:
        part.requires_grad_(True)
    per_step = options.batch_size * options.gradient_accumulation_steps * PartialState().num_processes
    steps_per_epoch = len(train_set) / per_step
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        max_steps=num_steps(options, steps_per_epoch, getattr(options, PHASES[phase].epochs)),
        learning_rate=getattr(options, PHASES[phase].learning_rate),
        lr_scheduler_type=options.lr_scheduler_type,
        warmup_steps=0.03,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        bf16=options.autocast,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        eval_strategy="steps",
        eval_steps=options.eval_steps,
        save_steps=options.save_steps,
        save_total_limit=2,
        logging_steps=options.logging_steps,
        report_to=options.report_to,
        project="semcot",
        run_name=f"{Path(options.output_dir).name}-{phase}",
        seed=options.seed,
        # Only where asked for: the name is about to change.
        **({"gradient_checkpointing": True} if options.gradient_checkpointing else {}),
    )
    # Several GPUs are used by several processes (torchrun), never by the slow threads of DataParallel.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    set_seed(options.seed)
    header = model.config.prompt_template.split("{question}")[0]
    trainer = DistillationTrainer(
        model,
        arguments,
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=DistillationCollator(
            tokenizer.pad_token_id, len(tokenizer(header, add_special_tokens=False).input_ids)
        ),
        reasoning_encoder=encoder,
        alpha=options.alpha,
        explanation_weight=options.explanation_weight,
        lens_weight=options.lens_weight,
        lens_only=phase == "lens",
    )
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    figures = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
    if trainer.is_world_process_zero():
        model.save_pretrained(finished)
        write_json(folder / "losses.json", trainer.state.log_history)
        write_json(finished / "figures.json", figures)
    trainer.accelerator.wait_for_everyone()
    return figures


def num_steps(options: TrainOptions, steps_per_epoch: float, epochs: float) -> int:
    """Optimizer steps of a phase, at least one, at most `max_steps` where that is set."""
    steps = max(1, round(epochs * steps_per_epoch))
    return min(steps, options.max_steps) if options.max_steps > 0 else steps


def peak_memory_gb() -> float:
    """The most that this process took: of the GPU's memory where there is one, else of the machine's."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return round(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9, 2
    )


def describe_run(train_set: Dataset, validation_set: Dataset) -> dict:
    """What is needed to tell one run from another: versions, hardware and a fingerprint of the data."""
    digest = hashlib.sha256()
    for row in train_set:
        digest.update(json.dumps([row["question"], row["answer"]]).encode())
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    packages = ("torch", "transformers", "sentence_transformers", "datasets")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "device": device,
        "processes": PartialState().num_processes,
        "train_problems": len(train_set),
        "validation_problems": len(validation_set),
        "data_sha256": digest.hexdigest(),
    }


def hub_datasets(options: TrainOptions) -> list[str]:
    """Ids of the Hub's data sets among the sources, for the card."""
    return [HUB_DATASETS[name] for name, _ in options.sources if name in HUB_DATASETS]


def describe_for_card(options: TrainOptions, record: dict) -> str:
    """The card's sections on data, validation figures and hyperparameters."""
    data = ", ".join(f"{name} ({count})" if count else name for name, count in options.sources)
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
    skipped = {"output_dir", "hub_model_id", "report_to", *RESUME_FLAGS}
    lines += [f"| {name} | {value} |" for name, value in asdict(options).items() if name not in skipped]
    return "\n".join(lines)


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
