"""Checkpoints to evaluate."""

import hashlib
import os
import re
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from semcot.machine import dtype_named


def load_model(
    path: str, device: str | None = None, dtype: str | None = None, base_model: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    Loads a SemCoT checkpoint, in eval mode, and its tokenizer.

    Args:
        path: the checkpoint's folder or Hub id.
        device: a CUDA device where there is one, else the CPU, by default.
        dtype: "float32", "bfloat16", … By default bfloat16 on CUDA and float32 elsewhere.
        base_model: the folder or Hub id of an adapter's base, if it is not to be looked for.

    Raises:
        FileNotFoundError: there is no such folder, and `path` cannot be a Hub id.
        ValueError: it is another kind of model or none, or device or dtype cannot be used.
        OSError: the checkpoint or its base could not be loaded.
    """
    if os.path.isdir(path):
        path = os.path.abspath(path)
    elif not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", path):
        raise FileNotFoundError(f"There is no checkpoint folder {path!r}, and it is no Hub id (owner/name) either.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device}, but PyTorch sees no GPU here: give cpu.")
    dtype = dtype if dtype == "auto" else dtype_named(dtype)
    try:
        torch.zeros(1).to(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device}, which PyTorch cannot use here: {error}") from error
    try:
        kind = PreTrainedConfig.get_config_dict(path)[0].get("model_type")
    except OSError as error:
        if os.path.isdir(path):
            raise
        raise OSError(f"There is no checkpoint folder {path!r}, nor was one found on the Hub: {error}") from error
    if kind is None:
        raise ValueError(f"{path} holds no checkpoint: there is no config.json with a model_type in it.")
    if kind != "semcot":
        raise ValueError(
            f"{path} holds a {kind} model, not a SemCoT checkpoint. Train one on it with "
            "train_semcot.py; the methods direct and cot then run on it as the checkpoint's base."
        )
    options = {} if base_model is None else {"base_model": base_model}
    model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True, dtype=dtype, **options)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(path, trust_remote_code=True)


def weights_sha256(path: str | os.PathLike) -> str | None:
    """The SHA-256 of a folder's safetensors files, one after another; `None` where `path` is no folder."""
    if not os.path.isdir(path):
        return None
    digest = hashlib.sha256()
    for file in sorted(Path(path).glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
