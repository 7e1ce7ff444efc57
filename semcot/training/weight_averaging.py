"""
A small, portable copy of a checkpoint: `python -m semcot.training.weight_averaging --model RUN --output_dir .`

The weights are stored in bfloat16 (or another dtype) and still load in the one that config.json names,
float32. The base is named by its Hub id alone; no path of this machine goes along. Of several checkpoints, each of
which was trained on from the one before, the weights are averaged, which can be better than any of them (model soups,
arXiv 2203.05482). The clone's own checkpoint is made this way.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoTokenizer, HfArgumentParser

from checkpoint_semcot import is_local
from modeling_semcot import SemCoTForCausalLM
from semcot.distillation import Student
from semcot.machine import dtype_named


@dataclass
class AveragingOptions:
    """Options of `python -m semcot.training.weight_averaging`."""

    model: list[str] = field(metadata={"help": "The checkpoint to copy, or several whose weights are averaged."})
    output_dir: str = field(metadata={"help": "Where to. A README.md that is there stays."})
    weights_dtype: str = field(default="bfloat16", metadata={"help": "Dtype in which the weights are stored."})


def average_weights(options: AveragingOptions) -> None:
    """Writes the copy and says how large it is."""
    dtype = dtype_named(options.weights_dtype)
    models = [SemCoTForCausalLM.from_pretrained(path, dtype=torch.float32) for path in options.model]
    model = models[-1]
    weights = [Student(other).own_weights() for other in models]  # the base is named, not copied
    shapes = [{name: weight.shape for name, weight in part.items()} for part in weights]
    same = ["base_model_name_or_path", "num_thoughts", "thought_offset"]
    for path, other, found in zip(options.model, models, shapes, strict=True):
        differs = [name for name in same if getattr(other.config, name) != getattr(model.config, name)]
        differs += ["weights of other shapes"] if found != shapes[-1] else []
        if differs:
            raise ValueError(
                f"{path} differs from {options.model[-1]} in {', '.join(differs)}; their average would be neither's."
            )
    if is_local(model.config.base_model_name_or_path):
        raise ValueError(
            f"The checkpoint names its base by a folder, {model.config.base_model_name_or_path}, which others do not "
            "have. Put its Hub id in as base_model_name_or_path in the checkpoint's config.json."
        )
    mean = {name: (sum(w[name] for w in weights) / len(weights)).to(dtype) for name in weights[0]}
    model.save_pretrained(options.output_dir, state_dict=mean, checkpoint_kind="adapter", keep_local_base_model=False)
    tokenizer = AutoTokenizer.from_pretrained(options.model[-1], trust_remote_code=True, padding_side="left")
    for key in ("is_local", "local_files_only"):  # how it was loaded here, which transformers would save
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(options.output_dir)
    size = (Path(options.output_dir) / "model.safetensors").stat().st_size
    print(f"{options.output_dir}: {size / 2**20:.1f} MiB of weights in {options.weights_dtype}.")


if __name__ == "__main__":
    average_weights(HfArgumentParser(AveragingOptions).parse_args_into_dataclasses()[0])
