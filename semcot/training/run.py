"""The recipe of a training run, from data sets to a loadable checkpoint, to be read top to bottom."""

import dataclasses
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, concatenate_datasets
from huggingface_hub.utils import validate_repo_id
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from modeling_semcot import (
    SemCoTForCausalLM,
    decoder_layers,
    find_base,
    keeps_keys_alone,
    run_backbone,
    shortest_window,
)
from semcot.data import (
    AUGMENTED,
    HUB_DATASETS,
    load_problems,
    shared_questions,
    split_validation,
    with_other_numbers,
    without,
    without_repeats,
)
from semcot.distillation import IGNORED, DistillationCollator, DistillationTrainer, tokenize_problems
from semcot.distillation.interchange import ExchangeCollator, last_step, spelt_right, states_of, with_index
from semcot.distillation.question_cache import QuestionCache
from semcot.encoder import build_reasoning_encoder, encode_texts, train_reasoning_encoder
from semcot.encoder.contrastive import PAIR, warm_up_steps
from semcot.encoder.contrastive import PHASES as ENCODER_PHASES
from semcot.encoder.reasoning_module import check_base
from semcot.files import last_whole_checkpoint, write_json
from semcot.machine import dtype_named, peak_memory, without_cudnn_attention
from semcot.sharding import check_engine, engine, own_weights, plain_data_parallelism, shard_base
from semcot.tokenization import THOUGHT_TOKEN, build_tokenizer
from semcot.training.card import describe_for_card, hub_datasets
from semcot.training.options import PHASES, TrainOptions
from semcot.training.record import check_output_dir, check_same_run, describe_run, prepare_output_dir

LENS_PHASES = ("lens", "exchange")
"""The phases of stage 2 that have the lens term alone, without a pass of the base."""
GENERATOR_PHASES = ("lens", "generator")
"""The phases that train the generator, all of them the same weights, which an engine may spread."""
QUESTION_STATES = "phases/question_states.bin"
LARGE_BATCH = 1.5e9
"""
Problems in a batch times weights in a layer of the base, from which on a GPU gains by prefilling questions: an
estimate from what a launch takes and what a matrix product does, not measured.
"""
PAD_TO_MULTIPLE_OF = 8
"""On a GPU, of the lengths of batches: its kernels are chosen, and compiled, anew for other lengths."""


def train(options: TrainOptions) -> SemCoTForCausalLM:
    """Runs both stages and writes the checkpoint to `options.output_dir`."""
    # Of all processes, where torchrun or accelerate started several; the first may prepare data for long.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=6))
    output_dir = Path(options.output_dir)
    check_engine(options, state.num_processes)
    if options.push_to_hub:
        validate_repo_id(repository(options))
        if os.path.isdir(options.base_model):
            raise ValueError(
                f"The base is the local folder {options.base_model}, which nobody who downloads the checkpoint has. "
                "Give its Hub id as base_model; it is still found in models/ where there is no connection."
            )
    if state.is_main_process:
        check_output_dir(options)
    set_seed(options.seed)
    without_cudnn_attention()
    train_set, validation_set = load_data(options)
    check_reasonings(options, train_set, validation_set)
    record = describe_run(train_set, validation_set)
    model, tokenizer = build_model(options)
    trained, total = (model.num_parameters(only_trainable=only) / 1e6 for only in (True, False))
    state.print(f"{len(train_set)} problems to train on, {len(validation_set)} for validation.")
    state.print(f"{trained:.1f}M of {total:.1f}M parameters are trained.")

    explain = options.explanation_weight > 0
    train_set, validation_set = (
        tokenize_problems(part, tokenizer, options.num_thoughts, explain, options.lens_steps)
        for part in (train_set, validation_set)
    )
    check_lengths(model, train_set, validation_set)
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=options.autocast):  # as in training
        if options.cache_questions:
            prompts = [prompt for part in (train_set, validation_set) for prompt in part["prompt_ids"]]
            QuestionCache.check(model, prompts)
        header = header_length(model, tokenizer, train_set, validation_set)
    # Only now: an earlier run is not cleared for one that cannot begin.
    if state.is_main_process:
        prepare_output_dir(options)
        check_same_run(output_dir, record)
    state.wait_for_everyone()
    lens_tokens = {token for part in (train_set, validation_set) for ids in part["lens_ids"] for token in ids}
    lens_tokens = torch.tensor(sorted(lens_tokens - {IGNORED}))

    step_size = options.gradient_accumulation_steps * state.num_processes
    steps = {
        name: num_steps(
            options, len(train_set) / (step_size * batch_size(options, name)), getattr(options, phase.epochs)
        )
        for name, phase in PHASES.items()
        if getattr(options, phase.epochs) > 0
    }
    encoder, aligned_set = None, train_set
    peaks = record["peak_memory_gb"] = {}
    if options.alpha > 0:
        with plain_data_parallelism():
            encoder, record["reasoning_encoder"] = train_encoder(options, model, tokenizer, train_set, validation_set)
        # The phases of the lens read all problems; the others, which need the reasoning's meaning, may read fewer.
        aligned_steps = max((steps[name] for name in steps if name not in LENS_PHASES), default=1)
        num_aligned = step_size * options.batch_size * aligned_steps
        aligned_set = train_set.select(range(min(num_aligned, len(train_set))))
        aligned_set = embed_reasonings(options, aligned_set, encoder, "train")
        validation_set = embed_reasonings(options, validation_set, encoder, "validation")
        peaks["reasoning_encoder"] = round(peak_memory(state.device, restart=True) / 1e9, 2)
    if options.torch_compile:
        compile_layers(options, model, encoder)
    question_cache = None
    if options.cache_questions and any(not is_finished(options, name) for name in steps if name not in LENS_PHASES):
        problems = concatenate_datasets([part.select_columns("prompt_ids") for part in (aligned_set, validation_set)])
        with state.main_process_first():
            question_cache = QuestionCache(model, problems, header, output_dir / QUESTION_STATES, options.autocast)
    if options.shard_base:
        shard_base(model)
    for name in steps:
        problems, cache = (train_set, None) if name in LENS_PHASES else (aligned_set, question_cache)
        with nullcontext() if name in GENERATOR_PHASES else plain_data_parallelism():
            record[name] = train_phase(
                options,
                name,
                steps[name],
                model,
                tokenizer,
                header,
                encoder,
                lens_tokens,
                cache,
                problems,
                validation_set,
            )
        peaks[name] = round(peak_memory(state.device, restart=True) / 1e9, 2)

    weights = own_weights(model)
    # The others wait: a launcher that sees one of its processes end badly ends the rest.
    with state.main_process_first():
        if state.is_main_process:
            finish(options, model, weights, tokenizer, record)
    return model


def finish(
    options: TrainOptions,
    model: SemCoTForCausalLM,
    weights: dict[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    record: dict,
) -> None:
    """Writes the checkpoint with its card and the record of its run, and pushes it where that was asked for."""
    output_dir = Path(options.output_dir)
    (output_dir / QUESTION_STATES).unlink(missing_ok=True)  # gigabytes that no phase will read again
    card = {"datasets": hub_datasets(options), "details": describe_for_card(options, record)}
    model.save_pretrained(output_dir, state_dict=weights, model_card_kwargs=card)
    tokenizer.save_pretrained(output_dir)
    write_json(output_dir / "training.json", record)
    print(f"The checkpoint is in {output_dir}. Peak memory: {max(record['peak_memory_gb'].values())} GB.")
    if options.push_to_hub:
        try:
            repo_id = repository(options)
            print(model.push_to_hub(repo_id, tokenizer=tokenizer, state_dict=weights, model_card_kwargs=card))
        except Exception as error:
            error.add_note(
                f"The checkpoint in {output_dir} is whole. To push it, run the same command once more with "
                "--resume_from_checkpoint True --push_to_hub True; nothing is trained again."
            )
            raise


def repository(options: TrainOptions) -> str:
    """The name of the Hub's repository that the checkpoint is pushed to."""
    return options.hub_model_id or Path(options.output_dir).resolve().name


def load_data(options: TrainOptions) -> tuple[Dataset, Dataset]:
    """
    The train and validation splits, each question once. Questions that also stand in an evaluation split, of a named
    data set, beside a file (`eval.json` beside `train.json`) or named by the options, are left out and counted.
    Validation problems come from all data sets, or from those in `options.validation_dataset` alone.
    """
    parts = [
        load_problems(name, "train", num_samples=num_samples, seed=options.seed)
        for name, num_samples in options.sources
    ]
    problems = without_repeats(concatenate_datasets(parts))
    evaluations = list(options.evaluation_file or [])
    for name in (name.removeprefix(AUGMENTED) for name, _ in options.sources):
        beside = Path(name).with_name(f"eval{Path(name).suffix}")
        if name in HUB_DATASETS:
            evaluations.append(name)
        elif Path(name).is_file() and beside.is_file() and beside != Path(name):
            evaluations.append(str(beside))
    for name in dict.fromkeys(evaluations):
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
    others = problems.select([])
    if options.validation_dataset:
        named = zip(options.sources, parts, strict=True)
        chosen = concatenate_datasets([part for (name, _), part in named if name in options.validation_dataset])
        others = without(problems, chosen["question"])
        problems = without(problems, others["question"])
    if not len(problems):
        raise ValueError("No problem is left to train on: all of their questions are those of an evaluation split.")
    train_set, validation_set = split_validation(problems, options.validation_fraction, options.seed)
    if len(others):  # not at the end: some phases read the first problems only
        train_set = concatenate_datasets([train_set, others]).shuffle(seed=options.seed)
    return train_set, validation_set


def check_reasonings(options: TrainOptions, train_set: Dataset, validation_set: Dataset) -> None:
    """Raises `ValueError` when a loss was asked for that the data cannot give."""
    remedy = "Use data that have them (python -m semcot.data.condense writes them), or train without that loss: "
    if options.alpha > 0:
        for name, part in (("train", train_set), ("validation", validation_set)):
            if not len(with_both_reasonings(part)):
                if name == "validation":
                    remedy = "Give a larger --validation_fraction or another --seed, or train without that loss: "
                raise ValueError(
                    f"None of the {len(part)} problems of the {name} split has both reasoning and condensed_reasoning "
                    f"for the reasoning encoder. {remedy}--alpha 0."
                )
    if options.alpha > 0 and options.encoder_batch_size * PartialState().num_processes < 2:
        raise ValueError("encoder_batch_size is 1: a pair without others beside it has nothing to be told apart from.")
    losses = ("lens_weight", "lens_epochs", "exchange_epochs", "explanation_weight")
    condensed = [name for name in losses if getattr(options, name) > 0]
    if condensed and not any(train_set["condensed_reasoning"]):
        raise ValueError(
            f"The train split has no condensed_reasoning. {remedy}{' '.join(f'--{name} 0' for name in condensed)}."
        )
    steps = options.lens_steps
    if options.exchange_epochs > 0 and not any(last_step(text, steps) for text in train_set["condensed_reasoning"]):
        raise ValueError(
            "exchange_epochs needs condensed reasonings of the form '12 + 3 = 15, 15 - 4 = 11', whose last step goes "
            f"on from those before it. The train split has none of at most {steps} steps (lens_steps)."
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


def with_both_reasonings(problems: Dataset) -> Dataset:
    """The problems that stage 1 can learn from."""
    texts = zip(problems["reasoning"], problems["condensed_reasoning"], strict=True)
    return problems.select([i for i, (full, condensed) in enumerate(texts) if full and condensed])


def with_renumbered(pairs: Dataset, copies: int, seed: int) -> Dataset:
    """The pairs, their texts alone, and after them as many copies of each with other numbers."""
    pairs = pairs.select_columns(PAIR)
    if not copies:
        return pairs
    rng = random.Random(seed)
    others = [with_other_numbers([pair[column] for column in PAIR], rng) for pair in pairs for _ in range(copies)]
    return concatenate_datasets([pairs, Dataset.from_list([dict(zip(PAIR, texts, strict=True)) for texts in others])])


def build_model(options: TrainOptions) -> tuple[SemCoTForCausalLM, PreTrainedTokenizerBase]:
    """The frozen base with a fresh generator, or that of another checkpoint, and the tokenizer with its thoughts."""
    clone = Path(__file__).parents[2]
    source = find_base(options.base_model, os.curdir, clone)
    on_gpu = torch.cuda.is_available()
    dtype = options.dtype or ("bfloat16" if on_gpu else "float32")
    dtype = dtype if dtype == "auto" else dtype_named(dtype)
    loading = {"attn_implementation": options.attention} if options.attention else {}
    with _loading("base", options.base_model):
        base = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **loading)
    base.to(PartialState().device)
    tokenizer, prompt_template = build_tokenizer(AutoTokenizer.from_pretrained(source), options.num_thoughts)
    settings = {
        "num_thoughts": options.num_thoughts,
        "prompt_template": prompt_template,
        "thought_offset": options.thought_offset,
        "thought_passes": options.thought_passes,
        "thought_layers": options.thought_layers,
        "checkpoint_kind": "adapter",
        "base_model_name_or_path": options.base_model,
        "local_base_model": os.path.abspath(source) if os.path.isdir(source) else None,
    }
    layers = {"encoder_start_layer": options.encoder_start_layer, "encoder_end_layer": options.encoder_end_layer}
    settings, layers = ({k: v for k, v in part.items() if v is not None} for part in (settings, layers))
    generator, generator_source, generator_tokenizer = options.generator_layers, None, None
    if options.generator is not None:
        generator_source = find_base(options.generator, os.curdir, clone)
        with _loading("generator", options.generator):
            found = PreTrainedConfig.get_config_dict(generator_source)[0]
    if generator_source and found.get("model_type") == "semcot":
        own = {"base_model": base} if found.get("checkpoint_kind") == "adapter" else {}
        model = SemCoTForCausalLM.from_pretrained(generator_source, dtype="float32", **own, **loading)
        model.attach_base(base)
        for name in ("num_thoughts", "thought_offset"):
            if (own := getattr(model.config, name)) != settings[name]:
                raise ValueError(f"The checkpoint {options.generator} has {name} {own}; give --{name} {own}.")
        wanted = settings.pop("thought_layers", model.config.thought_layers)
        # The base is the one that was just loaded, whatever the checkpoint was trained with.
        thought_token_id = tokenizer.convert_tokens_to_ids(THOUGHT_TOKEN)  # another where tokens were added to the base
        loaded = {"local_base_model": None, "base_model_revision": None, "thought_token_id": thought_token_id}
        model.config.update(loaded | settings)
        model.config.check_passes()
        if layers:
            model.config.set_encoder_layers(**{"encoder_start_layer": model.config.encoder_start_layer, **layers})
        if wanted != model.config.thought_layers:
            model.add_thought_layers(wanted)
        model.to(base.device)
    else:
        if generator_source:
            generator = AutoModelForCausalLM.from_pretrained(generator_source, dtype="float32", **loading)
            generator_tokenizer = AutoTokenizer.from_pretrained(generator_source)
        model = SemCoTForCausalLM.from_components(
            base, generator, tokenizer=tokenizer, generator_tokenizer=generator_tokenizer, **settings, **layers
        )
    depth = model.config.generator_config.num_hidden_layers
    if options.frozen_layers > depth:
        raise ValueError(f"frozen_layers is {options.frozen_layers}, but the generator has {depth} layers in all.")
    if options.exchange_epochs > 0 and (not model.config.thought_layers or model.config.thought_passes > 1):
        raise ValueError("exchange_epochs trains thought_layers behind one pass: give --thought_layers 3, say.")
    # What is trained is kept in float32; on a GPU it computes in bfloat16 under autocast.
    for part in (model.generator, model.thought_layers, model.projection):
        if part is not None:
            part.float()
    model.thought_embedding.data = model.thought_embedding.data.float()
    model.prefill_question = prefills_question(options, model)
    if options.alpha > 0:  # before stage 1 asks: an earlier run is not cleared for one that cannot begin
        check_base(model.language_model, model.config.encoder_start_layer, model.config.encoder_end_layer)
    return model, tokenizer


@contextmanager
def _loading(part: str, name: str) -> Iterator[None]:
    """An error in loading a model says which one, and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"The {part} {name!r} could not be loaded: {error}\n"
            f"Give its folder, put it at models/{Path(name).name}, or allow the Hub."
        ) from error


def prefills_question(options: TrainOptions, model: SemCoTForCausalLM) -> bool:
    """
    Whether a pass of its own over the questions pays. It saves their backward pass, which is most of the arithmetic. A
    small model on a GPU waits for the launch of its kernels, however little each has to do, and has more of them then.
    """
    if options.prefill_question is not None:
        return options.prefill_question
    if model.device.type == "cpu":
        return True
    layer_size = sum(weight.numel() for weight in decoder_layers(model.language_model.base_model)[0].parameters())
    return not options.torch_compile and options.batch_size * layer_size >= LARGE_BATCH


def compile_layers(options: TrainOptions, model: SemCoTForCausalLM, encoder: SentenceTransformer | None) -> None:
    """
    Compiles the generator and, unless questions are prefilled, the base and the encoder. Layer by layer, as all layers
    of a stack are one code then, but for those that read a cache, which is another in each.
    """
    layers = []
    if model.prefill_question or model.config.thought_passes > 1:
        model.generator.compile(dynamic=True)
    else:
        layers += decoder_layers(model.generator)
    if not (model.prefill_question or options.cache_questions):
        layers += decoder_layers(model.language_model.base_model)
    if not model.prefill_question and encoder is not None:
        layers += decoder_layers(encoder[0].upper)
    # Of one code: for each stack and what of it is trained, with a mask and without, in training and validation.
    torch._dynamo.config.recompile_limit = 64
    # Checks of indices before they are declared: what PyTorch writes for CPUs does not compile before 2.13.
    torch._inductor.config.assert_indirect_indexing = False
    for layer in layers:
        layer.compile(dynamic=True)


def freeze_layers(model: SemCoTForCausalLM, count: int) -> None:
    """Leaves the generator's first `count` layers, and all embeddings, as they are: no gradient is sent that far."""
    if not count:
        return
    embeddings = [module for module in model.generator.modules() if isinstance(module, torch.nn.Embedding)]
    for part in (model.thought_embedding, *embeddings, decoder_layers(model.generator)[:count]):
        part.requires_grad_(False)


def train_encoder(
    options: TrainOptions,
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    train_set: Dataset,
    validation_set: Dataset,
) -> tuple[SentenceTransformer, dict]:
    """Stage 1: the reasoning encoder, on problems that have both forms of their reasoning, and its figures."""
    train_pairs, validation_pairs = with_both_reasonings(train_set), with_both_reasonings(validation_set)
    train_pairs = with_renumbered(train_pairs, options.encoder_renumbered, options.seed)
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
    rates = {"dense": options.encoder_dense_learning_rate, "all": options.encoder_learning_rate}
    steps_per_epoch = len(train_pairs) / (options.encoder_batch_size * PartialState().num_processes)
    phases = [
        dataclasses.replace(
            phase,
            learning_rate=rates[phase.name],
            max_steps=num_steps(options, steps_per_epoch, epochs[phase.name]),
        )
        for phase in ENCODER_PHASES
        if epochs[phase.name] > 0
    ]
    figures = train_reasoning_encoder(
        encoder,
        train_pairs,
        validation_pairs,
        Path(options.output_dir) / "reasoning_encoder",
        phases=phases,
        batch_size=options.encoder_batch_size,
        temperature=options.encoder_temperature,
        seed=options.seed,
        resume_from_checkpoint=options.resume_from_checkpoint,
        bf16=options.autocast,
        optim=options.optim,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=options.logging_steps,
        save_steps=options.save_steps,
        report_to=options.report_to,
        project="semcot",
        run_name=f"{Path(options.output_dir).name}-encoder",
    )
    return encoder, figures


def embed_reasonings(options: TrainOptions, problems: Dataset, encoder: SentenceTransformer, name: str) -> Dataset:
    """
    Adds the meaning of each reasoning, one vector a problem, zero where there is no reasoning: computed once, each
    process its share, and kept.
    """
    state = PartialState()
    file = Path(options.output_dir) / "phases" / f"reasoning_embeddings_{name}.safetensors"
    if not file.exists():
        autocast = torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=options.autocast)
        with state.split_between_processes(list(problems["reasoning"])) as share, autocast:
            given = [i for i, reasoning in enumerate(share) if reasoning]
            embeddings = torch.zeros(len(share), options.encoder_embedding_dim)
            if given:
                embeddings[given] = encode_texts(encoder, [share[i] for i in given]).float().cpu()
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
    max_steps: int,
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    header: int,
    encoder: SentenceTransformer | None,
    lens_tokens: torch.LongTensor,
    question_cache: QuestionCache | None,
    train_set: Dataset,
    validation_set: Dataset,
) -> dict[str, float]:
    """
    One phase of stage 2: `warmup` trains the projection and the thought embedding, `exchange` the thought layers, the
    others all of these and the generator. A phase that was finished before is loaded; one that was killed goes on from
    its last whole checkpoint.
    """
    folder = Path(options.output_dir) / "phases" / phase
    finished = folder / "finished"
    if is_finished(options, phase):
        model.load_state_dict(load_file(finished / "model.safetensors"), strict=False)
        return json.loads((finished / "figures.json").read_text())

    model.requires_grad_(False)
    started = [model.projection, model.thought_embedding]
    layers = [part for part in (model.generator, model.thought_layers) if part is not None]
    for part in {"warmup": started, "exchange": [model.thought_layers]}.get(phase, started + layers):
        part.requires_grad_(True)
    if phase in (*GENERATOR_PHASES, "warmup"):
        freeze_layers(model, options.frozen_layers)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size(options, phase),
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        max_steps=max_steps,
        learning_rate=getattr(options, PHASES[phase].learning_rate),
        lr_scheduler_type=options.lr_scheduler_type,
        optim=options.optim,
        warmup_steps=warm_up_steps(0.03, max_steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        bf16=options.autocast and engine() != "DeepSpeed",  # which has an autocast of its own
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
    collation = tokenizer.pad_token_id, header
    if phase == "exchange":
        train_set, validation_set = with_index(train_set), with_index(validation_set, start=len(train_set))
        problems = concatenate_datasets([train_set, validation_set])
        states = states_of(model, tokenizer, problems, folder / "states.npy", options.autocast)
        spelt = spelt_right(model, states[: len(train_set)], train_set["lens_ids"], lens_tokens)
        drawing = options.lens_steps, options.exchange_share, options.seed, lambda: trainer.epoch
        collator = ExchangeCollator(*collation, states, train_set, spelt, tokenizer, *drawing)
    else:
        multiple = PAD_TO_MULTIPLE_OF if arguments.device.type == "cuda" else 1
        collator = DistillationCollator(*collation, question_cache=question_cache, pad_to_multiple_of=multiple)
    trainer = DistillationTrainer(
        model,
        arguments,
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=collator,
        reasoning_encoder=encoder,
        alpha=options.alpha,
        explanation_weight=options.explanation_weight,
        lens_weight=options.lens_weight,
        lens_only=phase in LENS_PHASES,
        lens_tokens=lens_tokens,
    )
    checkpoint = last_whole_checkpoint(folder)
    all_steps_taken = checkpoint == str(folder / f"checkpoint-{max_steps}")  # killed between the last one and the end
    if all_steps_taken and engine() is None:
        model.load_state_dict(load_file(Path(checkpoint) / "model.safetensors"), strict=False)
        trainer.state = TrainerState.load_from_json(f"{checkpoint}/trainer_state.json")
    else:
        if all_steps_taken:  # an engine spreads a model that is trained, not one that is evaluated alone
            checkpoint = last_whole_checkpoint(folder, before=max_steps)
        trainer.train(resume_from_checkpoint=checkpoint)
    figures = {name.removeprefix("eval_"): value for name, value in trainer.evaluate().items()}
    trainer.release()
    weights = own_weights(model)
    if trainer.is_world_process_zero():
        model.save_pretrained(finished, state_dict=weights)
        write_json(folder / "losses.json", trainer.state.log_history)
        write_json(finished / "figures.json", figures)
    trainer.accelerator.wait_for_everyone()
    return figures


def is_finished(options: TrainOptions, phase: str) -> bool:
    """Whether a phase was brought to its end before, in a run that is resumed."""
    return (Path(options.output_dir) / "phases" / phase / "finished" / "figures.json").exists()


def header_length(model: SemCoTForCausalLM, tokenizer: PreTrainedTokenizerBase, *parts: Dataset) -> int:
    """
    The number of fixed tokens before the question, behind which shorter questions are padded; none where padding there
    would change what the problems' rows say. A blank at their end is none: it may merge with the question.
    """
    prompts = [len(ids) for part in parts for ids in part["prompt_ids"]]
    lengths = [length for part in parts for length in part["length"]]
    targets = [length - prompt for length, prompt in zip(lengths, prompts, strict=True)]
    if not reads_over_padding(model, max(prompts, default=0) + max(targets, default=0) + PAD_TO_MULTIPLE_OF):
        return 0
    header = model.config.prompt_template.split("{question}")[0].rstrip()
    return len(tokenizer(header, add_special_tokens=False).input_ids)


@torch.no_grad()
def reads_over_padding(model: SemCoTForCausalLM, length: int) -> bool:
    """
    Whether padding in the middle of rows of `length` tokens changes nothing. It does with a sliding window that is
    shorter, with a state that every token changes, and where distances are counted in columns (MPT).
    """
    config, ids = model.config, torch.arange(8, device=model.device)
    for part in (config.text_config, config.generator_config):
        if not keeps_keys_alone(part) or (shortest_window(part) or length + 1) <= length:
            return False
    mask = torch.ones(1, 40, dtype=torch.long, device=model.device)
    mask[:, 4:-4] = 0
    was_training = model.training
    model.eval()
    own_embed = (model if config.share_embeddings else model.generator).get_input_embeddings()
    changes = []
    for stack, embed in ((model.language_model.base_model, model.get_input_embeddings()), (model.generator, own_embed)):
        embeds = embed(ids)[None].to(stack.dtype)
        apart = embeds.new_zeros(1, mask.shape[1], embeds.shape[-1])
        apart[mask == 1] = embeds[0]
        expected = run_backbone(stack, embeds, None).last_hidden_state[:, -4:].float()
        found = run_backbone(stack, apart, mask).last_hidden_state[:, -4:].float()
        changes.append((found - expected).abs().max() / expected.abs().max())
    model.train(was_training)
    return max(changes).item() < 0.3  # in bfloat16 SmolLM2's rounding alone makes 0.05; MPT's distances make 0.9


def batch_size(options: TrainOptions, phase: str) -> int:
    """Problems in a batch of a phase, per device."""
    return options.exchange_batch_size if phase == "exchange" else options.batch_size


def num_steps(options: TrainOptions, steps_per_epoch: float, epochs: float) -> int:
    """Optimizer steps of a phase, at least one, at most `max_steps` where that is set."""
    steps = max(1, round(epochs * steps_per_epoch))
    return min(steps, options.max_steps) if options.max_steps > 0 else steps
