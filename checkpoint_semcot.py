# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""
Loading, saving and pushing of [`SemCoTForCausalLM`]. A checkpoint is *full*, or an *adapter*: all but the frozen base,
which it names. Ships beside modeling_semcot.py inside every checkpoint as remote code.
"""

import os
import tempfile
from pathlib import Path

import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BASE_MODEL_VARIABLE = "SEMCOT_BASE_MODEL"
# Names of weights in checkpoints of earlier versions, and today's.
RENAMED = {"^thought_layers": "refiner"}

MODEL_CARD_TEMPLATE = """---
{{ card_data }}
---

# {{ model_name | default("SemCoT checkpoint", true) }}

An implicit chain-of-thought model after [SemCoT](https://arxiv.org/abs/2510.24940): a small generator turns the
question, in one parallel pass, into {{ num_thoughts }} implicit tokens, and the frozen base
`{{ base_model | default("(inside this checkpoint)", true) }}` writes only the answer.

## How to use

```python
from transformers import pipeline

answer = pipeline("text-generation", model="{{ repo_id | default("PATH_OR_REPO", true) }}", trust_remote_code=True)
print(answer("Paige had 11 songs and deleted 9 of them. How many are left?", return_full_text=False))
```
{% if checkpoint_kind == "adapter" %}
The base is not in this checkpoint: it is loaded from the Hub, or from the folder that `base_model=` or the environment
variable `SEMCOT_BASE_MODEL` names.
{% endif %}
{{ details | default("", true) }}
"""


AUTO_MAP = {
    "AutoConfig": "configuration_semcot.SemCoTConfig",
    "AutoModel": "modeling_semcot.SemCoTForCausalLM",
    "AutoModelForCausalLM": "modeling_semcot.SemCoTForCausalLM",
}


class CheckpointMixin:
    """Loading, saving and pushing, for a class that goes on with [`PreTrainedModel`]."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *model_args,
        base_model: str | os.PathLike | PreTrainedModel | None = None,
        config: PreTrainedConfig | None = None,
        quantization_config=None,
        output_loading_info: bool = False,
        **kwargs,
    ):
        r"""
        [`PreTrainedModel.from_pretrained`] for both kinds of checkpoint.

        An adapter's base is taken from `base_model` (a loaded model, a folder or a Hub id), else from the environment
        variable `SEMCOT_BASE_MODEL`, else from the folder that it was trained with, else from `models/<name>` in the
        checkpoint's folder or one above it, else from the Hub. `dtype`, `device_map`, `attn_implementation` and
        `quantization_config` reach it; the generator is small and never quantised.

        Raises:
            OSError: the base cannot be found, or the weights are truncated or corrupt.
            ValueError: weights are missing from the checkpoint or have other shapes than its config says, the base does
                not fit it, or one was given that it does not need.
        """
        path = os.fspath(pretrained_model_name_or_path)
        if "torch_dtype" in kwargs:  # its name before transformers 5
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
        if not isinstance(config, PreTrainedConfig):
            # The config's loader takes these away, and the weights' must get them too.
            names = "cache_dir force_download local_files_only token revision subfolder dtype attn_implementation"
            needed = {name: kwargs[name] for name in names.split() if name in kwargs}
            if kwargs.get("dtype") == "auto":  # for the weights; the config would take it for a dtype's name
                del kwargs["dtype"]
            config, kwargs = cls.config_class.from_pretrained(config or path, return_unused_kwargs=True, **kwargs)
            kwargs.update(needed)
        base = None
        if config.checkpoint_kind == "adapter":
            base = _load_base(config, path, base_model, quantization_config, kwargs)
            if kwargs.get("device_map") is not None:
                kwargs["device_map"] = {"": _device_of(base.get_input_embeddings())}
            model_args, kwargs["with_base"] = (), False
        elif quantization_config is not None:
            raise ValueError("A full checkpoint cannot be quantised at load; save it as an adapter, whose base can.")
        elif base_model is not None:
            raise ValueError(f"{path} is a full checkpoint, which holds its base: leave base_model out.")
        own_dtype, base_dtype = (  # which are strings in a model that was saved
            getattr(torch, str(part.dtype).removeprefix("torch."), None) for part in (config, config.text_config)
        )
        two_dtypes = base is None and kwargs.get("dtype") in (None, "auto") and None not in (own_dtype, base_dtype)
        if two_dtypes:  # loaded in one that holds both
            kwargs["dtype"] = torch.promote_types(own_dtype, base_dtype)
        kwargs["key_mapping"] = RENAMED | (kwargs.get("key_mapping") or {})
        try:
            model, info = super().from_pretrained(path, *model_args, config=config, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise OSError(
                f"The weights of {path} are truncated or corrupt ({error}). Fetch or save the checkpoint again."
            ) from error
        except RuntimeError as error:
            if "mismatch" not in str(error):
                raise
            raise ValueError(f"The weights of {path} have other shapes than its config.json says: {error}") from error
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ValueError(
                f"{path} lacks {len(missing)} weights that its config.json calls for, such as {missing[0]}: the "
                "checkpoint is incomplete or its config belongs to another one. Fetch or save it again."
            )
        # Saved under today's names, whatever they were called in the file.
        model._weight_conversions = [c for c in model._weight_conversions if c.source_patterns != list(RENAMED)]
        if base is not None:
            model.attach_base(base)
        elif two_dtypes:
            for name, weight in model.named_parameters():
                weight.data = weight.data.to(base_dtype if name.startswith("language_model.") else own_dtype)
            model.config.dtype, model.config.text_config.dtype = own_dtype, base_dtype
        model._freeze_base()
        return (model, info) if output_loading_info else model

    def attach_base(self, base: PreTrainedModel) -> None:
        """Gives an adapter its frozen base. Raises `ValueError` when the base does not fit."""
        found, wanted = base.config, self.config.text_config
        if found.model_type == wanted.model_type and base.base_model is base:
            raise ValueError(f"A {type(base).__name__} writes no text, as a base must: load it as a causal LM.")
        for field in ("model_type", "hidden_size", "vocab_size", "num_hidden_layers"):
            if getattr(found, field) != getattr(wanted, field):
                raise ValueError(
                    f"The base {found._name_or_path!r} has {field} {getattr(found, field)}, this checkpoint was "
                    f"trained on {self.config.base_model_name_or_path!r} with {getattr(wanted, field)}. "
                    f"Name the right base with base_model= or {BASE_MODEL_VARIABLE}."
                )
        self.config.text_config = base.config
        self.language_model = base
        self._freeze_base()
        self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=True)
        if hasattr(base, "hf_device_map"):
            own_device = self.projection.weight.device
            self.hf_device_map = {f"language_model.{name}".rstrip("."): d for name, d in base.hf_device_map.items()}
            self.hf_device_map |= {name: own_device for name, _ in self.named_children() if name != "language_model"}

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *,
        checkpoint_kind: str | None = None,
        state_dict: dict[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        is_main_process: bool = True,
        model_card_kwargs: dict | None = None,
        config: PreTrainedConfig | None = None,
        keep_local_base_model: bool = True,
        **kwargs,
    ) -> None:
        r"""
        Writes weights (safetensors), config, remote code and, where there is none, a model card.

        Files are written aside and moved into place whole. `checkpoint_kind` is `"adapter"` or `"full"`, the config's
        own by default. `model_card_kwargs` fill the card (`model_name`, `details`, `datasets`, ...). Without
        `keep_local_base_model` the config names no folder that this machine found the base in, but for an adapter's own
        `base_model_name_or_path`.

        Raises:
            ValueError: an adapter was asked for but nothing names its base.
        """
        if push_to_hub:
            target = repo_id or Path(save_directory).name
            hub = {k: kwargs.pop(k) for k in ("commit_message", "private", "revision", "create_pr") if k in kwargs}
        kind = checkpoint_kind or self.config.checkpoint_kind
        if kind == "adapter" and not self.config.base_model_name_or_path:
            raise ValueError(
                "An adapter checkpoint does not hold the base, so it must name it: set "
                "model.config.base_model_name_or_path, or save with checkpoint_kind='full'."
            )
        state_dict = dict(self.state_dict() if state_dict is None else state_dict)
        if kind == "adapter":
            state_dict = {name: weight for name, weight in state_dict.items() if "language_model." not in name}
        elif self.language_model is None:
            raise ValueError("There is no base to save: load the adapter with its base, or save it as an adapter.")
        else:
            self.config.text_config.dtype = self.language_model.dtype
        if config is not None and config is not self.config:
            raise ValueError("A checkpoint is saved with the model's own config: change model.config.")

        remembered = {"checkpoint_kind": kind, "auto_map": AUTO_MAP}
        if not keep_local_base_model:
            remembered["local_base_model"] = None
            if kind == "full" and is_local(self.config.base_model_name_or_path):
                remembered["base_model_name_or_path"] = None
        before = {name: getattr(self.config, name, None) for name in remembered}
        for name, value in remembered.items():
            setattr(self.config, name, value)
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as aside:
                # It takes the weights out of what it is given, and a push has to save them once more.
                super().save_pretrained(aside, state_dict=dict(state_dict), is_main_process=is_main_process, **kwargs)
                if is_main_process:
                    if not (folder / "README.md").exists():
                        self.generate_model_card(**(model_card_kwargs or {})).save(Path(aside) / "README.md")
                    _move_into(Path(aside), folder, _weight_files(kwargs.get("variant")))
        finally:
            for name, value in before.items():
                setattr(self.config, name, value)
        if push_to_hub and is_main_process:
            kwargs |= {"checkpoint_kind": kind, "state_dict": state_dict, "model_card_kwargs": model_card_kwargs, **hub}
            self.push_to_hub(target, **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        commit_message: str = "Upload SemCoTForCausalLM",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        tags: list[str] | None = None,
        model_card_kwargs: dict | None = None,
        commit_description: str | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        **save_kwargs,
    ) -> str:
        r"""
        Uploads what [`save_pretrained`] writes, and `tokenizer` if given, in one commit; returns the commit's address.
        No folder of this machine is named in it.

        `revision` (or `branch`) names the branch, which is created when it is not there. The patterns choose among the
        files. `save_kwargs` go to [`save_pretrained`]: `checkpoint_kind`, `max_shard_size`, ...

        Raises:
            ValueError: an adapter whose base is a local folder.
        """
        base = self.config.base_model_name_or_path
        kind = save_kwargs.get("checkpoint_kind") or self.config.checkpoint_kind
        if kind == "adapter" and is_local(base):
            raise ValueError(
                f"The base of this adapter is the local folder {base!r}, which nobody who downloads it has. Set "
                "model.config.base_model_name_or_path to its Hub id, or push with checkpoint_kind='full'."
            )
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if (revision := revision or branch) is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        card = {"repo_id": repo_id, "tags": tags, **(model_card_kwargs or {})}
        # Shards of an earlier upload; where files are chosen, those may be all the weights that there are.
        stale = None if allow_patterns or ignore_patterns else _weight_files(save_kwargs.get("variant"))
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, model_card_kwargs=card, keep_local_base_model=False, **save_kwargs)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                delete_patterns=stale,
            )

    def generate_model_card(
        self, *, datasets: list[str] | None = None, tags: list[str] | None = None, **kwargs
    ) -> ModelCard:
        """The README.md of this checkpoint. `kwargs` fill the template: `model_name`, `repo_id`, `details`, ..."""
        info = self._hub_mixin_info
        metadata = info.model_card_data.to_dict()
        metadata["tags"] = sorted({*metadata["tags"], *(self.model_tags or []), *(tags or [])})
        if datasets:
            metadata["datasets"] = datasets
        base = self.config.base_model_name_or_path
        if is_local(base):
            base = Path(base).resolve().name
        elif base:
            metadata["base_model"] = base
        values = {
            "num_thoughts": self.config.num_thoughts,
            "checkpoint_kind": self.config.checkpoint_kind,
            "base_model": base,
        }
        return ModelCard.from_template(
            card_data=ModelCardData(**metadata), template_str=info.model_card_template, **{**values, **kwargs}
        )


def find_base(name: str, *folders: str | os.PathLike | None) -> str:
    """
    Where to load the base `name` from: itself if it is a folder, else `models/<last part of the name>` in one of
    `folders` or above it, else the name, for the Hub.
    """
    candidates = [Path(name)]
    for folder in folders:
        if folder and os.path.isdir(folder):
            for here in (Path(folder).absolute(), Path(folder).resolve()):
                candidates += [above / "models" / Path(name).name for above in (here, *here.parents)]
    return next((str(folder) for folder in candidates if (folder / "config.json").is_file()), name)


def is_local(name: str | None) -> bool:
    """Whether a base's name is a folder's, which says nothing on another machine."""
    return bool(name) and (os.path.isdir(name) or os.path.isabs(name) or name.startswith("."))


def _load_base(
    config: PreTrainedConfig,
    path: str,
    base_model: str | os.PathLike | PreTrainedModel | None,
    quantization_config,
    kwargs: dict,
) -> PreTrainedModel:
    """The frozen base of the adapter at `path`, loaded the way that `kwargs` of `from_pretrained` ask."""
    if isinstance(base_model, PreTrainedModel):
        return base_model
    name = config.base_model_name_or_path
    source = base_model or os.environ.get(BASE_MODEL_VARIABLE)
    if not source and not name:
        raise OSError(f"{path} does not name its base: pass base_model=... or set {BASE_MODEL_VARIABLE}.")
    if not source:
        last = config.local_base_model
        source = last if last and os.path.isdir(last) else find_base(name, path)
    source = os.fspath(source)
    names = "cache_dir local_files_only token device_map max_memory offload_folder attn_implementation".split()
    options = {name: kwargs[name] for name in names if name in kwargs}
    # The Auto classes leave it in the config alone.
    options.setdefault("attn_implementation", config.text_config._attn_implementation)
    if isinstance(options["attn_implementation"], dict):
        options["attn_implementation"] = options["attn_implementation"].get("text_config")
    options["dtype"] = kwargs.get("dtype") or config.text_config.dtype or config.dtype or "auto"
    try:
        if os.path.isdir(source) and not os.path.isfile(os.path.join(source, "config.json")):
            raise OSError("this folder holds no config.json.")
        base, info = AutoModelForCausalLM.from_pretrained(
            source, quantization_config=quantization_config, output_loading_info=True, **options
        )
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"The base of this checkpoint, {name!r}, could not be loaded from {source!r}: {error}\nGive its folder "
            f"with base_model=..., set {BASE_MODEL_VARIABLE}, put it at models/{Path(name or source).name} beside the "
            "checkpoint, or allow the Hub."
        ) from error
    if info["missing_keys"]:
        raise OSError(f"The base at {source!r} lacks weights, such as {sorted(info['missing_keys'])[0]}.")
    return base


def _device_of(module: nn.Module) -> torch.device | int | str:
    """Where a module's weights are, or, when they are offloaded, are brought to."""
    device = next(module.parameters()).device
    hook = getattr(module, "_hf_hook", None)
    return device if device.type != "meta" or hook is None else hook.execution_device


def _weight_files(variant: str | None) -> list[str]:
    """Patterns of the files that the weights of a variant (`"fp16"`, say, or none) may be in."""
    name, index = (f"model.{variant}", f"index.{variant}") if variant else ("model", "index")
    return [f"{name}.safetensors", f"{name}-*.safetensors", f"model.safetensors.{index}.json"]


def _move_into(source: Path, folder: Path, weight_files: list[str]) -> None:
    """Moves every file into place and drops weights of an earlier save that are no longer part of the checkpoint."""
    names = {file.name for file in source.iterdir()}
    for name in sorted(names):
        os.replace(source / name, folder / name)
    for stale in (file for pattern in weight_files for file in folder.glob(pattern)):
        if stale.name not in names:
            stale.unlink()
