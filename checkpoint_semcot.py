# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""
Loading, saving and pushing of [`SemCoTForCausalLM`]. A checkpoint is *full*, or an *adapter*: all but the frozen base,
which it names. Ships beside modeling_semcot.py inside every checkpoint as remote code.
"""

import copy
import os
import tempfile
from pathlib import Path
from typing import Self

import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BASE_MODEL_VARIABLE = "SEMCOT_BASE_MODEL"

MODEL_CARD_TEMPLATE = """---
{{ card_data }}
---

# {{ model_name | default("SemCoT checkpoint", true) }}

An implicit chain-of-thought model after [SemCoT]({{ paper_url }}): a small generator turns the
question, in parallel passes, into {{ num_thoughts }} implicit tokens, and the frozen base
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

    _base_as_loaded: tuple[str | None, dict[str, torch.Tensor]] = (None, {})
    """The base's name and some of its numbers when it was attached, by which an adapter's save knows it again."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args,
        base_model: str | os.PathLike | PreTrainedModel | None = None,
        config: PreTrainedConfig | str | os.PathLike | None = None,
        quantization_config=None,
        output_loading_info: bool = False,
        **kwargs,
    ) -> Self | tuple[Self, dict]:
        r"""
        [`PreTrainedModel.from_pretrained`] for both kinds of checkpoint.

        An adapter's base is taken from `base_model` (a loaded model, a folder or a Hub id), else from the environment
        variable `SEMCOT_BASE_MODEL`, else from the folder that it was trained with, else from `models/<name>` in the
        checkpoint's folder or one above it, else from the Hub. `dtype`, `device_map`, `attn_implementation`,
        `quantization_config` and fields of the base's own config (`use_cache`, `pad_token_id`, ...) reach it; the
        generator is small and never quantised.

        Raises:
            OSError: the base cannot be found, or the weights are truncated or corrupt.
            ValueError: weights are missing from the checkpoint or have other shapes than its config says, the base does
                not fit it, or one was given that it does not need.
        """
        path = None if pretrained_model_name_or_path is None else os.fspath(pretrained_model_name_or_path)
        if "torch_dtype" in kwargs:  # its name before transformers 5
            kwargs.setdefault("dtype", kwargs.pop("torch_dtype"))
        config, of_base, kwargs = cls._read_config(path, config, kwargs)
        base = None
        if config.checkpoint_kind == "adapter":
            base = _load_base(config, path, base_model, quantization_config, kwargs, of_base)
            if os.path.isdir(base.config._name_or_path):
                config.local_base_model = os.path.abspath(base.config._name_or_path)
            if kwargs.get("device_map") is not None:
                kwargs["device_map"] = {"": _device_of(base.get_input_embeddings())}
            model_args, kwargs["with_base"] = (), False
            for part in (config.text_config, config.generator_config):
                vars(part).pop("quantization_config", None)  # of the base that it was trained with, in earlier files
        elif base_model is not None:
            raise ValueError(f"{path} is a full checkpoint, which holds its base: leave base_model out.")
        elif quantization_config is not None or _quantisation(config.text_config):
            raise ValueError("A full checkpoint cannot be quantised; save it as an adapter, whose base can.")
        for name, value in of_base.items():
            setattr(config.text_config, name, value)
        own_dtype, base_dtype = (  # which are strings in a model that was saved
            getattr(torch, str(part.dtype).removeprefix("torch."), None) for part in (config, config.text_config)
        )
        two_dtypes = base is None and kwargs.get("dtype") in (None, "auto") and None not in (own_dtype, base_dtype)
        if two_dtypes:  # loaded in one that holds both
            kwargs["dtype"] = torch.promote_types(own_dtype, base_dtype)
        model, info = cls._load_own(path, *model_args, config=config, **kwargs)
        if base is not None:
            model.attach_base(base)
        else:
            if two_dtypes:
                for name, weight in model.named_parameters():
                    weight.data = weight.data.to(base_dtype if name.startswith("language_model.") else own_dtype)
                model.config.dtype, model.config.text_config.dtype = own_dtype, base_dtype
            model._freeze_base()
            model._base_as_loaded = model.config.base_model_name_or_path, _samples(model.state_dict())
        model.generation_config.update(**of_base)
        return (model, info) if output_loading_info else model

    @classmethod
    def _read_config(cls, path: str | None, config: PreTrainedConfig | str | os.PathLike | None, kwargs: dict) -> tuple:
        """
        The config of the checkpoint at `path`; fields of the base's config among `kwargs`, and outputs that the model's
        config asks for; the `kwargs` that are left.
        """
        if isinstance(config, PreTrainedConfig):
            config = copy.deepcopy(config)
        else:
            # The config's loader takes these away, and the weights' must get them too.
            names = "cache_dir force_download local_files_only token revision subfolder dtype attn_implementation"
            needed = {name: kwargs[name] for name in names.split() if name in kwargs}
            if kwargs.get("dtype") == "auto":  # for the weights; the config would take it for a dtype's name
                del kwargs["dtype"]
            config, kwargs = cls.config_class.from_pretrained(config or path, return_unused_kwargs=True, **kwargs)
            kwargs.update(needed)
        names = [name for name in kwargs if hasattr(config.text_config, name) and not hasattr(config, name)]
        of_base = {name: kwargs.pop(name) for name in names}
        of_base |= {name: True for name in ("output_attentions", "output_hidden_states") if getattr(config, name)}
        return config, of_base, kwargs

    @classmethod
    def _load_own(cls, path: str | None, *model_args, **kwargs) -> tuple[Self, dict]:
        """The model but for an adapter's base, all of whose weights were found, and transformers' loading info."""
        try:
            model, info = super().from_pretrained(path, *model_args, output_loading_info=True, **kwargs)
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
                f"{path or 'The state dict'} lacks {len(missing)} weights that its config calls for, such as "
                f"{missing[0]}: it is incomplete or the config belongs to another one. Fetch or save it again."
            )
        peft_of_base = any("language_model." in name for name in info["unexpected_keys"])
        if peft_of_base and model.language_model is None and getattr(model, "_hf_peft_config_loaded", False):
            raise ValueError(
                f"The PEFT adapter of {path} has weights for the base too, which is not in the checkpoint: keep it in "
                "a folder of its own and load it with PeftModel.from_pretrained(model, that folder)."
            )
        return model, info

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
        for layer in base.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                # bitsandbytes' 4-bit layers on a CPU, once repacked for inference, pass no gradient on.
                layer.support_avx512bf16_for_cpu = False
        self.config.text_config = base.config
        self.language_model = base
        self._freeze_base()
        self._base_as_loaded = self.config.base_model_name_or_path, _samples(self.state_dict())
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
    ) -> str | None:
        r"""
        Writes weights (safetensors), config, remote code and, where there is none, a model card; with `push_to_hub`,
        returns what [`push_to_hub`] returns.

        Files are written aside and moved into place whole; of the files that are there, those with the names of a
        checkpoint's weights are replaced. `checkpoint_kind` is `"adapter"` or `"full"`, the config's own by default.
        `model_card_kwargs` fill the card (`model_name`, `details`, `datasets`, ...). Without `keep_local_base_model`
        the config names no folder that this machine found the base in, but for an adapter's own
        `base_model_name_or_path`. After `add_adapter` PEFT's files alone are written, as of every model.

        Raises:
            ValueError: an adapter was asked for, but nothing names its base, or the base was changed since it was
                loaded; a full checkpoint, but the base is quantised or absent.
        """
        if push_to_hub:
            target = repo_id or Path(save_directory).name
            hub = {k: kwargs.pop(k) for k in ("commit_message", "private", "revision", "create_pr") if k in kwargs}
        if config is not None and config is not self.config:
            raise ValueError("A checkpoint is saved with the model's own config: change model.config.")
        kind = checkpoint_kind or self.config.checkpoint_kind
        only_peft = getattr(self, "_hf_peft_config_loaded", False)
        state_dict = dict(self.state_dict() if state_dict is None else state_dict)
        remembered = {} if only_peft else self._check_for_saving(kind, state_dict)
        if not keep_local_base_model:
            remembered["local_base_model"] = None
            if kind == "full" and is_local(self.config.base_model_name_or_path):
                remembered["base_model_name_or_path"] = None
        if kind == "adapter" and not only_peft:
            state_dict = {name: weight for name, weight in state_dict.items() if "language_model." not in name}
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
                    if not only_peft and not (folder / "README.md").exists():
                        self.generate_model_card(**(model_card_kwargs or {})).save(Path(aside) / "README.md")
                    _move_into(Path(aside), folder, [] if only_peft else _weight_files(kwargs.get("variant")))
        finally:
            for name, value in before.items():
                setattr(self.config, name, value)
        if not (push_to_hub and is_main_process):
            return None
        kwargs |= {"checkpoint_kind": kind, "state_dict": state_dict, "model_card_kwargs": model_card_kwargs, **hub}
        return self.push_to_hub(target, **kwargs)

    def _check_for_saving(self, kind: str, weights: dict[str, torch.Tensor]) -> dict:
        """What the config of such a checkpoint says beside its own. Raises `ValueError` if it would lose something."""
        if any(part in name for name in weights for part in (".base_layer.", ".modules_to_save.", ".lora_")):
            raise ValueError(
                "The model holds layers of PEFT's: save them with the PeftModel's own save_pretrained, or merge them "
                "into the weights first (merge_and_unload)."
            )
        remembered = {"checkpoint_kind": kind, "auto_map": AUTO_MAP}
        name, samples = self._base_as_loaded
        if name and name != self.config.base_model_name_or_path:  # saved since, as a base of its own
            changed, remembered["local_base_model"] = None, None
        else:
            changed = _first_changed(samples, _samples(weights))
        if kind == "full":
            if self.language_model is None:
                raise ValueError("There is no base to save: load the adapter with its base, or save it as an adapter.")
            if method := _quantisation(self.language_model.config):
                raise ValueError(
                    f"The base is quantised ({method}), and a full checkpoint cannot hold it so: save with "
                    "checkpoint_kind='adapter', or load the base unquantised."
                )
            self.config.text_config.dtype = self.language_model.dtype
            # A base that was changed has no name any more, by which an adapter could be saved of it later.
            return remembered | (dict.fromkeys(("base_model_name_or_path", "local_base_model")) if changed else {})
        if not self.config.base_model_name_or_path:
            raise ValueError(
                "An adapter checkpoint does not hold the base, so it must name it: set "
                "model.config.base_model_name_or_path, or save with checkpoint_kind='full'."
            )
        if changed:
            raise ValueError(
                f"The base was changed after it was loaded ({changed}), by training, merge_and_unload or "
                "resize_token_embeddings, say, and an adapter would lose that: save with checkpoint_kind='full', or "
                "save the base by itself and set model.config.base_model_name_or_path to it."
            )
        return remembered

    @property
    def _keys_to_ignore_on_save(self) -> set[str]:
        """The base's weights, which an adapter leaves out, so that the Trainer does not miss them."""
        if self.config.checkpoint_kind == "full" or self.language_model is None:
            return set()
        return {f"language_model.{name}" for name, _ in self.language_model.named_parameters(remove_duplicate=False)}

    @_keys_to_ignore_on_save.setter
    def _keys_to_ignore_on_save(self, names: set[str]) -> None:
        """They follow from the checkpoint's kind alone, which may change; every model's `__init__` sets them once."""

    def get_submodule(self, target: str) -> nn.Module:
        """As every module's, but refused to PEFT's prompt learning, which looks up its base's embeddings by a name."""
        if target == "embeddings.word_embeddings":
            raise ValueError(
                "Prompt tuning, prefix tuning and P-tuning pass the generator by, and the implicit tokens with it: use "
                "LoRA on the generator (target_modules=r'generator\\..*\\.(q_proj|v_proj)')."
            )
        return super().get_submodule(target)

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
        delete_patterns: list[str] | str | None = None,
        **save_kwargs,
    ) -> str:
        r"""
        Uploads what [`save_pretrained`] writes, and `tokenizer` if given, in one commit; returns the commit's address.
        No folder of this machine is named in it. A card that is there keeps its text, and its metadata are
        brought up to date.

        `revision` (or `branch`) names the branch, which is created when it is not there. The patterns choose among the
        files; `delete_patterns` among those on the Hub, where weights of an earlier push, if all files are pushed, are
        deleted in any case. `save_kwargs` go to [`save_pretrained`]: `checkpoint_kind`, `max_shard_size`, ...

        Raises:
            ValueError: an adapter whose base is a local folder.
        """
        base = self.config.base_model_name_or_path
        kind = save_kwargs.get("checkpoint_kind") or self.config.checkpoint_kind
        only_peft = getattr(self, "_hf_peft_config_loaded", False)
        if kind == "adapter" and is_local(base) and not only_peft:
            raise ValueError(
                f"The base of this adapter is the local folder {base!r}, which nobody who downloads it has. Set "
                "model.config.base_model_name_or_path to its Hub id, or push with checkpoint_kind='full'."
            )
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if (revision := revision or branch) is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        card = {"repo_id": repo_id, "tags": tags, **(model_card_kwargs or {})}
        stale = [delete_patterns] if isinstance(delete_patterns, str) else list(delete_patterns or [])
        if not (allow_patterns or ignore_patterns or only_peft):  # else those may be all the weights that there are
            stale += _weight_files(save_kwargs.get("variant"))
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, model_card_kwargs=card, keep_local_base_model=False, **save_kwargs)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
            if (readme := Path(folder) / "README.md").exists():
                _update_card(readme, api, repo_id, revision)
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                delete_patterns=stale or None,
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
            **{url: getattr(info, url) for url in ("repo_url", "paper_url", "docs_url")},
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
    of_base: dict,
) -> PreTrainedModel:
    """
    The frozen base of the adapter at `path`, loaded the way that `kwargs` of `from_pretrained` ask, with the fields
    `of_base` in its config.
    """
    if isinstance(base_model, PreTrainedModel):
        for field, value in of_base.items():
            setattr(base_model.config, field, value)
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
    options = of_base | {name: kwargs[name] for name in names if name in kwargs}
    if quantization_config is not None:  # None would be read as none, where the base's own config names one
        options["quantization_config"] = quantization_config
    # The Auto classes leave it in the config alone.
    options.setdefault("attn_implementation", config.text_config._attn_implementation)
    if isinstance(options["attn_implementation"], dict):
        options["attn_implementation"] = options["attn_implementation"].get("text_config")
    options["dtype"] = kwargs.get("dtype") or config.text_config.dtype or config.dtype or "auto"
    try:
        if os.path.isdir(source) and not os.path.isfile(os.path.join(source, "config.json")):
            raise OSError("this folder holds no config.json.")
        base, info = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **options)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"The base of this checkpoint, {name!r}, could not be loaded from {source!r}: {error}\nGive its folder "
            f"with base_model=..., set {BASE_MODEL_VARIABLE}, put it at models/{Path(name or source).name} beside the "
            "checkpoint, or allow the Hub."
        ) from error
    if info["missing_keys"]:
        raise OSError(f"The base at {source!r} lacks weights, such as {sorted(info['missing_keys'])[0]}.")
    return base


def _quantisation(config: PreTrainedConfig) -> str | None:
    """The method by which a model's weights are quantised."""
    found = getattr(config, "quantization_config", None)
    method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
    return None if found is None else str(getattr(method, "value", method))


def _samples(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A number of each row of the base's weights, at most some 2^18 of each; none of those that are elsewhere."""
    samples = {}
    for name, weight in weights.items():
        if "language_model." in name and isinstance(weight, torch.Tensor) and weight.device.type != "meta":
            if weight.numel() and not hasattr(weight, "__tensor_flatten__"):  # neither torchao's nor a sharded one
                step = max(weight.shape[-1] if weight.ndim > 1 else 1, weight.numel() >> 18)
                samples[name] = weight.detach().reshape(-1)[::step].cpu().clone()
    return samples


def _first_changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> str | None:
    """The first weight that has other numbers than before: other than a change of dtype or quantising makes them."""
    for name in before:
        old, new = before[name], after.get(name)
        if new is None or new.is_floating_point() != old.is_floating_point():
            continue
        same = old.shape == new.shape and old.double().isclose(new.double(), rtol=2**-7, atol=2**-24, equal_nan=True)
        if not torch.as_tensor(same).all():
            return name
    return None


def _update_card(readme: Path, api: HfApi, repo_id: str, revision: str | None) -> None:
    """Gives the card of this push the text that the Hub's has, and what its metadata say beside."""
    try:
        earlier = ModelCard.load(api.hf_hub_download(repo_id, "README.md", revision=revision))
    except RemoteEntryNotFoundError:
        return
    for name, value in ModelCard.load(readme).data.to_dict().items():
        found = earlier.data.get(name)
        if isinstance(value, list) and found is not None:
            earlier.data[name] = list(dict.fromkeys([*(found if isinstance(found, list) else [found]), *value]))
        elif name == "base_model" or found is None:
            earlier.data[name] = value
    earlier.save(readme)


def _device_of(module: nn.Module) -> torch.device | int | str:
    """Where a module's weights are, or, when they are offloaded, are brought to."""
    device = next(module.parameters()).device
    hook = getattr(module, "_hf_hook", None)
    return device if device.type != "meta" or hook is None else hook.execution_device


def _weight_files(variant: str | None) -> list[str]:
    """Patterns of the files that the weights of a variant (`"fp16"`, say, or none) are saved in."""
    name, index = (f"model.{variant}", f"index.{variant}") if variant else ("model", "index")
    number = "[0-9]" * 5
    return [f"{name}.safetensors", f"{name}-{number}-of-{number}.safetensors", f"model.safetensors.{index}.json"]


def _move_into(source: Path, folder: Path, weight_files: list[str]) -> None:
    """Moves every file into place and drops weights of an earlier save that are no longer part of the checkpoint."""
    names = {file.name for file in source.iterdir()}
    for name in sorted(names):
        os.replace(source / name, folder / name)
    for stale in (file for pattern in weight_files for file in folder.glob(pattern)):
        if stale.name not in names:
            stale.unlink()
