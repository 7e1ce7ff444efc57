"""
Makes a published SemCoT checkpoint (github.com/YinhanHe123/SemCoT) an ordinary adapter checkpoint of this project:

    python -m semcot.import_published --checkpoint ID_OR_FOLDER --base_model MY/BASE --output_dir runs/published

It reads the form of the Hub, model.safetensors and config.json, and the one that the released code writes, model.pt and
config.pt, of which only tensors and plain values are read. Generator and base read `Question: …` in the format that the
released code has for the base's family; the state left of each `<thought>`, projected, is the thought. Of generator and
base nothing but config and tokenizer is needed.
"""

import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, HfArgumentParser, PreTrainedConfig

from checkpoint_semcot import find_base
from configuration_semcot import SemCoTConfig
from modeling_semcot import SemCoTForCausalLM
from semcot.tokenization import THOUGHT_TOKEN, build_tokenizer

# What stands before the question, for generator and base alike, and what the base reads behind the thoughts. No
# beginning-of-sequence token is added; Mistral's is part of the text.
PROMPTS = {
    "llama": ("Question: ", "\n Answer:"),
    "mistral": ("<s>[INST] Question: ", "\n Answer: [/INST]"),
    "qwen2": ("<|im_start|>user\nQuestion: ", "<|im_end|>\n<|im_start|>assistant\nAnswer: "),
}
SETTINGS = {"model_name": str, "teacher_hid_dim": int}
EMBEDDING = "embed_tokens.weight"
_LORA = re.compile(r"(.+)\.lora_(A|B)\.\w+\.weight")


@dataclass
class ImportOptions:
    """Options of `python -m semcot.import_published`."""

    checkpoint: str = field(metadata={"help": "The published checkpoint: a folder or a Hub id."})
    base_model: str = field(metadata={"help": "The base that it was trained for: a folder or a Hub id."})
    output_dir: str = field(metadata={"help": "The folder to make."})
    generator: str | None = field(
        default=None, metadata={"help": "Folder or Hub id with the generator's config; by default the checkpoint says."}
    )
    num_thoughts: int = field(
        default=5, metadata={"help": "K. The released code trains with 5, and evaluates with 1 unless told otherwise."}
    )
    prompt: str | None = field(
        default=None, metadata={"choices": [*PROMPTS], "help": "Its format; by default that of the base's family."}
    )


def import_published(options: ImportOptions) -> Path:
    """
    Writes the checkpoint, its tokenizer and a model card into `options.output_dir`, and returns that folder, which
    appears complete or not at all. Weights keep their numbers and dtypes; LoRA's are merged into those that they adapt.

    Raises:
        FileExistsError: the folder holds something, or cannot be replaced.
        OSError: the checkpoint, or a config or tokenizer that it needs, is neither a folder nor on a reachable Hub.
        ValueError: a file holds something else than such a checkpoint, or it does not fit base or generator.
    """
    output = Path(options.output_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} is there and not empty: name another --output_dir.")
    settings, weights = read_published(_fetch(options.checkpoint))
    base, generator = _find(options.base_model), _find(options.generator or settings["model_name"])
    text_config = _load(AutoConfig, base, "the base", "--base_model")
    base_tokenizer = _load(AutoTokenizer, base, "the base", "--base_model")
    generator_config = _load(AutoConfig, generator, "the generator", "--generator")
    family = options.prompt or text_config.model_type
    if family not in PROMPTS:
        raise ValueError(
            f"{options.base_model} is a {family} model, for which the released code has no format: give "
            f"--prompt, one of {', '.join(PROMPTS)}."
        )
    tokenizer, prompt_template = build_tokenizer(base_tokenizer, options.num_thoughts, PROMPTS[family])
    own = _own_weights(weights, settings, options)
    num_ids = own["generator." + EMBEDDING].shape[0]
    if num_ids not in (text_config.vocab_size, len(base_tokenizer)):
        raise ValueError(
            f"The embedding of {options.checkpoint} has {num_ids + 1} rows, the last for {THOUGHT_TOKEN}, but the base "
            f"{options.base_model} has {text_config.vocab_size} token ids, and its tokenizer {len(base_tokenizer)}: it "
            "was trained for another base. Name that one with --base_model."
        )
    if settings["teacher_hid_dim"] != text_config.hidden_size:
        raise ValueError(
            f"{options.checkpoint} was trained for a base of width {settings['teacher_hid_dim']} (teacher_hid_dim), "
            f"{options.base_model} has {text_config.hidden_size}. Name the right one with --base_model."
        )
    generator_config.vocab_size = num_ids
    if (getattr(generator_config, "pad_token_id", None) or 0) >= num_ids:  # of a table with more ids
        generator_config.pad_token_id = None
    config = SemCoTConfig(
        text_config=text_config,
        generator_config=generator_config,
        num_thoughts=options.num_thoughts,
        thought_token_id=tokenizer.convert_tokens_to_ids(THOUGHT_TOKEN),
        thought_offset=-1,
        checkpoint_kind="adapter",
        base_model_name_or_path=options.base_model,
        local_base_model=os.path.abspath(base) if os.path.isdir(base) else None,
        prompt_template=prompt_template,
    )
    with torch.device("meta"):  # its weights come from the files
        model = SemCoTForCausalLM(config, with_base=False)
    _check_weights(own, model.state_dict(), options, generator)
    model.load_state_dict(own, assign=True)
    model.generation_config = _generation_config(base, text_config)
    source = options.checkpoint if not os.path.isdir(options.checkpoint) else Path(options.checkpoint).resolve().name
    details = f"Imported from the published checkpoint `{source}`, whose generator is a `{settings['model_name']}`."
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as scratch:
        folder = Path(scratch) / output.name
        model.save_pretrained(folder, model_card_kwargs={"details": details})
        tokenizer.save_pretrained(folder)
        try:
            os.replace(folder, output)
        except OSError as error:  # a link, a mount, this very folder
            reason = f"{output} cannot be replaced ({error.strerror}): name another --output_dir."
            raise FileExistsError(reason) from error
    return output


def read_published(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """
    Settings (`model_name`, `teacher_hid_dim`, of the local form `variation`, `r`, `lora_alpha` too) and weights of a
    published checkpoint, under the names that they have there. Raises `FileNotFoundError` and `ValueError`.
    """
    if (file := folder / "model.safetensors").is_file() and (folder / "config.json").is_file():
        try:
            settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            weights = load_file(file)
        except (ValueError, SafetensorError) as error:
            raise ValueError(f"The files of {folder} are truncated or corrupt ({error}): fetch them again.") from error
    elif (file := folder / "model.pt").is_file() and (folder / "config.pt").is_file():
        settings, weights = _unpickled(folder / "config.pt"), _unpickled(file)
    else:
        raise FileNotFoundError(
            f"{folder} holds no published checkpoint: neither model.safetensors with config.json nor model.pt with "
            "config.pt."
        )
    for name, kind in SETTINGS.items():
        found = settings.get(name) if isinstance(settings, dict) else None
        if type(found) is not kind:
            raise ValueError(
                f"The config of {folder} has no {name} ({kind.__name__}), as a published checkpoint's has, but "
                f"{found!r}. It belongs to something else."
            )
    if not isinstance(weights, dict) or not all(map(_is_weight, weights, weights.values())):
        raise ValueError(f"{file} is no state dict, names of weights with tensors of numbers in them: not loaded.")
    return settings, weights


def _unpickled(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        # What torch says goes on with how to load it all the same.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{file} is damaged, or a pickle with more in it than tensors and plain values, which could run code: not "
            f"loaded{f' (it asks for {asked[1]})' if asked else ''}."
        ) from error


def _is_weight(name: Any, weight: Any) -> bool:
    plain = isinstance(weight, torch.Tensor) and weight.layout == torch.strided and not weight.is_meta
    return isinstance(name, str) and plain and weight.is_floating_point()


def _own_weights(
    weights: dict[str, torch.Tensor], settings: dict[str, Any], options: ImportOptions
) -> dict[str, torch.Tensor]:
    """The weights under this project's names, the last row of the embedding as the thought embedding."""
    if unknown := sorted(name for name in weights if not name.startswith(("model.", "projection_layer."))):
        raise ValueError(f"{options.checkpoint} has {len(unknown)} weights that are not known, such as {unknown[0]}.")
    own: dict[str, torch.Tensor] = {}
    lora: dict[str, dict[str, torch.Tensor]] = {}
    with_lora = settings.get("variation") == "no_small_contemp_gen"  # a whole causal LM, under PEFT, without projection
    for name, weight in weights.items():
        part = name.removeprefix("model.")
        if with_lora:
            part = part.removeprefix("base_model.model.").removeprefix("model.").replace(".base_layer.", ".")
        if (with_lora and part == "lm_head.weight") or part.endswith("rotary_emb.inv_freq"):
            continue  # it writes nothing; earlier versions of transformers saved what follows from the config
        if with_lora and (found := _LORA.fullmatch(part)):
            lora.setdefault(f"generator.{found[1]}.weight", {})[found[2]] = weight
        elif name.startswith("projection_layer."):
            own[name.replace("projection_layer.", "projection.")] = weight
        else:
            own[f"generator.{part}"] = weight
    for name, pair in lora.items():
        own[name] = _merged(own.get(name), pair, name, settings, options)
    table = own.get("generator." + EMBEDDING)
    if table is None or table.ndim != 2 or len(table) < 2:
        raise ValueError(f"{options.checkpoint} lacks model.{EMBEDDING}, the generator's table: it is incomplete.")
    own |= {"generator." + EMBEDDING: table[:-1].clone(), "thought_embedding": table[-1].clone()}
    if with_lora:
        own.setdefault("projection.weight", torch.eye(table.shape[1], dtype=table.dtype))
        own.setdefault("projection.bias", torch.zeros(table.shape[1], dtype=table.dtype))
    return own


def _merged(
    weight: torch.Tensor | None,
    pair: dict[str, torch.Tensor],
    name: str,
    settings: dict[str, Any],
    options: ImportOptions,
) -> torch.Tensor:
    """W + α/r · B A (Hu et al. 2021, equation 3)."""
    rank, alpha = (settings.get(key) for key in ("r", "lora_alpha"))
    if type(rank) is not int or rank < 1 or type(alpha) not in (int, float):
        raise ValueError(f"{options.checkpoint} has LoRA weights, and its config no r and lora_alpha: {settings}.")
    shapes = {key: tuple(part.shape) for key, part in pair.items()}
    if weight is None or shapes != {"A": (rank, weight.shape[1]), "B": (weight.shape[0], rank)}:
        raise ValueError(
            f"The LoRA weights of {options.checkpoint} for {name} have the shapes {shapes}, which do not fit r {rank} "
            f"and a weight of {None if weight is None else tuple(weight.shape)}: fetch it again."
        )
    return (weight.double() + alpha / rank * (pair["B"].double() @ pair["A"].double())).to(weight.dtype)


def _check_weights(
    own: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], options: ImportOptions, generator: str
) -> None:
    """Raises `ValueError` for weights that are missing, too many, or of other shapes."""
    missing, unexpected = sorted(wanted.keys() - own.keys()), sorted(own.keys() - wanted.keys())
    shapes = {name: (tuple(own[name].shape), tuple(wanted[name].shape)) for name in own.keys() & wanted.keys()}
    other = sorted(name for name, (found, expected) in shapes.items() if found != expected)
    problems = [
        f"{len(names)} {what}, such as {names[0]}"
        for names, what in ((missing, "weights are missing"), (unexpected, "are not known"))
        if names
    ]
    if other:
        found, expected = shapes[other[0]]
        problems.append(f"{len(other)} have other shapes, such as {other[0]}, {found} where {expected} is needed")
    if problems:
        raise ValueError(
            f"The weights of {options.checkpoint} are not those of a {wanted['projection.weight'].shape[0]} wide base "
            f"and the generator {generator}: {'; '.join(problems)}. Name the right --base_model, or the generator's "
            "config with --generator, or fetch the checkpoint again."
        )


def _fetch(checkpoint: str) -> Path:
    if os.path.isdir(checkpoint):
        return Path(checkpoint)
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=["config.*", "model.safetensors", "model.pt"]))
    except (OSError, ValueError) as error:
        raise OSError(f"There is no folder {checkpoint!r}, nor could it be had from the Hub: {error}") from error


def _find(name: str) -> str:
    """A folder or Hub id: `models/<name>` in this folder or one above it, or in the clone, goes first."""
    return find_base(name, os.curdir, Path(__file__).parents[1])


def _load(auto: type, source: str, what: str, option: str) -> Any:
    """Config or tokenizer of base or generator, whose own code, if it has any, is not run."""
    try:
        return auto.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        kind = auto.__name__.removeprefix("Auto").lower()
        raise OSError(
            f"The {kind} of {what}, {source!r}, could not be loaded: {error}\nName its folder or Hub id with {option}."
        ) from error


def _generation_config(base: str, text_config: PreTrainedConfig) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(base)
    except OSError:  # it has none
        return GenerationConfig.from_model_config(text_config)


def main() -> None:
    parser = HfArgumentParser(ImportOptions, prog="semcot.import_published", allow_abbrev=False)
    try:
        output = import_published(parser.parse_args_into_dataclasses()[0])
    except (OSError, ValueError) as error:
        sys.exit(f"semcot.import_published: {error}")
    print(f"{output}: a checkpoint, as train_semcot.py writes them.")


if __name__ == "__main__":
    main()
