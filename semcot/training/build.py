"""The model that a run trains: a frozen base with a fresh generator, or with that of another checkpoint."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from checkpoint_semcot import find_base
from modeling_semcot import SemCoTForCausalLM
from semcot.encoder.reasoning_module import check_base
from semcot.machine import dtype_named
from semcot.tokenization import THOUGHT_TOKEN, build_tokenizer
from semcot.training.options import TOLD_IN_ORDER, TrainOptions

CLONE = Path(__file__).parents[2]
THOUGHTS_PER_PASS = 6
"""Of a generator that thinks in blocks, at the most: those further ahead are learnt last."""
CONFIDENCE = 0.9
"""How sure a thought must be to be kept in a pass whose first it is not, where thoughts come in blocks."""


def build_model(options: TrainOptions) -> tuple[SemCoTForCausalLM, PreTrainedTokenizerBase]:
    """
    The model, its own parts in float32, and the tokenizer with its thoughts.

    Raises:
        OSError: base or generator cannot be loaded.
        ValueError: they do not fit each other or what the options ask of them.
    """
    source = find_base(options.base_model, os.curdir, CLONE)
    dtype = options.dtype or ("bfloat16" if torch.cuda.is_available() else "float32")
    loading = {"attn_implementation": options.attention} if options.attention else {}
    with loading_part("base", options.base_model):
        base = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype if dtype == "auto" else dtype_named(dtype), **loading
        )
    base.to(PartialState().device)
    tokenizer, prompt_template = build_tokenizer(AutoTokenizer.from_pretrained(source), options.num_thoughts)
    settings = {
        "num_thoughts": options.num_thoughts,
        "prompt_template": prompt_template,
        "thought_offset": options.thought_offset,
        "checkpoint_kind": "adapter",
        "base_model_name_or_path": options.base_model,
        "local_base_model": os.path.abspath(source) if os.path.isdir(source) else None,
    }
    layers = dict(zip(("encoder_start_layer", "encoder_end_layer"), options.encoder_layers or [], strict=False))
    generator, found, path = options.generator, {}, None
    if isinstance(generator, str) and not options.adapter_rank:
        path = find_base(generator, os.curdir, CLONE)
        with loading_part("generator", generator):
            found = PreTrainedConfig.get_config_dict(path)[0]
    if found.get("model_type") == "semcot":
        own = {"base_model": base} if found.get("checkpoint_kind") == "adapter" else {}
        model = SemCoTForCausalLM.from_pretrained(path, dtype="float32", **own, **loading)
        _train_on(model, base, tokenizer, options, settings)
        if layers:
            model.config.set_encoder_layers(**layers)
    else:
        generator_tokenizer = None
        if options.adapter_rank:
            generator = None
            settings |= {"adapter_rank": options.adapter_rank, "thought_confidence": CONFIDENCE}
            settings["thoughts_per_pass"] = min(THOUGHTS_PER_PASS, options.num_thoughts)
        elif path:
            generator = AutoModelForCausalLM.from_pretrained(path, dtype="float32", **loading)
            generator_tokenizer = AutoTokenizer.from_pretrained(path)
        model = SemCoTForCausalLM.from_components(
            base, generator, tokenizer=tokenizer, generator_tokenizer=generator_tokenizer, **settings, **layers
        )
    if model.config.adapter_rank and options.supervised_steps:
        raise ValueError(TOLD_IN_ORDER)
    # What is trained is kept in float32; on a GPU it computes in bfloat16 under autocast.
    for name, weight in model.named_parameters():
        if not name.startswith("language_model."):
            weight.data = weight.data.float()
    if options.stages[0].trains_encoder:  # before stage 1 asks: an earlier run is not cleared for one that cannot begin
        check_base(model.language_model, model.config.encoder_start_layer, model.config.encoder_end_layer)
    return model, tokenizer


def _train_on(
    model: SemCoTForCausalLM,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    options: TrainOptions,
    settings: dict,
) -> None:
    """Gives the model of a checkpoint the base that was just loaded, whatever it was trained with before."""
    model.attach_base(base)
    for name in ("num_thoughts", "thought_offset"):
        if (own := getattr(model.config, name)) != settings[name]:
            raise ValueError(f"The checkpoint {options.generator} has {name} {own}; give --{name} {own}.")
    thought_token_id = tokenizer.convert_tokens_to_ids(THOUGHT_TOKEN)  # another where tokens were added to the base
    model.config.update(settings | {"thought_token_id": thought_token_id})
    model.to(base.device)


def train_only(model: SemCoTForCausalLM, parts: list[str]) -> None:
    """Makes these parts trainable, and nothing else. Raises `ValueError` for one that the model has not."""
    model.requires_grad_(False)
    for part in parts:
        weights = [weight for name, weight in model.named_parameters() if f"{name}.".startswith(f"{part}.")]
        if part.startswith("language_model") or not weights:
            there = {name.split(".")[0] for name, _ in model.named_parameters()} - {"language_model"}
            raise ValueError(
                f"A stage trains {part!r}, which is no part of this model to train: it has {', '.join(sorted(there))}."
            )
        for weight in weights:
            weight.requires_grad_(True)


@contextmanager
def loading_part(part: str, name: str) -> Iterator[None]:
    """Says which model could not be loaded, and where it may be put."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"The {part} {name!r} could not be loaded: {error}\n"
            f"Give its folder, put it at models/{Path(name).name}, or allow the Hub."
        ) from error
