# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""
The reasoning encoder's first module: the middle of a language model, for texts and for implicit tokens alike.

    text ──► language_model, layers 0…start (frozen, borrowed) ──┐
    implicit tokens (batch, K, hidden) ──────────────────────────┴─► copies of layers start…end (trained) ─► final norm

Pooling and a dense layer follow it in a `SentenceTransformer`. This file ships inside every saved encoder as remote
code; the base never does: it is named in `reasoning_module_config.json` and found again at load.
"""

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

BASE_MODEL_VARIABLE = "SEMCOT_BASE_MODEL"


class ReasoningModule(InputModule):
    """
    Turns texts, or implicit tokens, into states behind the base's layer `end` and its final norm.

    The base is borrowed, not owned: its parameters are neither listed among the module's, nor trained, nor saved. It
    follows the module from device to device unless it has a device map of its own.

    Args:
        language_model: the frozen base, a causal LM with a plain stack of decoder layers (Llama, Mistral, Qwen2,
            GPT-2, …). Put into eval mode and frozen here.
        tokenizer: the base's tokenizer; chat templates and post-processors are not used.
        start: layer at which implicit tokens enter, as if they were its input states; texts pass layers 0…start first.
        end: the layers start…end (exclusive) are copied in float32 and can be trained.
        max_seq_length: longer texts are truncated to this many tokens.
        base_model_name_or_path: where a saved encoder finds its base; by default where `language_model` came from.

    Raises:
        ValueError: the range does not fit the base's depth, or the base is of a kind that cannot be cut this way.
    """

    config_file_name = "reasoning_module_config.json"
    config_keys = ["base_model_name_or_path", "start", "end", "max_seq_length"]

    def __init__(
        self,
        language_model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        start: int,
        end: int,
        max_seq_length: int = 512,
        base_model_name_or_path: str | None = None,
    ) -> None:
        super().__init__()
        depth = language_model.config.num_hidden_layers
        if not 0 <= start < end <= depth:
            raise ValueError(
                f"Layers {start} to {end} do not lie within a base of {depth}: need 0 <= start < end <= depth."
            )
        self.base_model_name_or_path = base_model_name_or_path or language_model.name_or_path
        self.start, self.end = start, end
        limit = getattr(language_model.config, "max_position_embeddings", None) or max_seq_length
        self.max_seq_length = min(max_seq_length, limit)
        self.tokenizer = tokenizer
        if tokenizer.pad_token is None:
            self.tokenizer = copy.deepcopy(tokenizer)
            self.tokenizer.pad_token = tokenizer.eos_token
        # In a dict, so that the base does not become a submodule.
        self._borrowed = {"language_model": language_model.eval().requires_grad_(False)}

        upper = _dequantised(copy.deepcopy(_behind_embeddings(_layer_view(language_model, start, end))))
        if not all(parameter.is_floating_point() for parameter in upper.parameters()):
            raise ValueError(f"The base {language_model.name_or_path!r} is quantised: load it unquantised for stage 1.")
        self.upper = upper.float().requires_grad_(True)
        self.cached_activations = None
        """Computed ahead by training: gives the features of texts that it contains."""

    @property
    def language_model(self) -> PreTrainedModel:
        """The frozen base."""
        return self._borrowed["language_model"]

    def preprocess(
        self, inputs: list[str], prompt: str | None = None, max_length: int | None = None, **kwargs
    ) -> dict[str, torch.Tensor]:
        """
        Tokenizes texts, without special tokens: `input_ids` and `attention_mask`, (batch, length), padded on the right.
        Of texts in the `cached_activations`, instead of `input_ids` what it holds.

        Raises:
            ValueError: a text is empty.
        """
        cache = self.cached_activations
        if cache is not None and not prompt and max_length is None and all(text in cache for text in inputs):
            return cache(inputs)
        batch = self.tokenizer(
            [(prompt or "") + text for text in inputs],
            add_special_tokens=False,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=max_length or self.max_seq_length,
            return_attention_mask=True,
            return_tensors="pt",
        )
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            if not length:
                raise ValueError(f"Text {row} of the batch holds no tokens: {inputs[row]!r}. Leave empty texts out.")
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    @torch.no_grad()
    def base_states(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor) -> torch.FloatTensor:
        """The base's input states of layer `start`, (batch, length, hidden), without running the layers above."""
        lower = _layer_view(self.language_model, 0, self.start, final_norm=False)
        device = self.language_model.get_input_embeddings().weight.device
        return _run(lower, attention_mask.to(device), input_ids=input_ids.to(device))

    @torch.no_grad()
    def token_scale(self) -> torch.FloatTensor:
        """The root mean square of the base's token embeddings as its first layer reads them, of every so many."""
        embed = self.language_model.get_input_embeddings()
        ids = torch.arange(0, len(embed.weight), 1 + len(embed.weight) // 256, device=embed.weight.device)
        return embed(ids).float().square().mean().sqrt()

    def forward(self, features: dict[str, torch.Tensor], **kwargs) -> dict[str, torch.Tensor]:
        """
        Adds `token_embeddings`, (batch, length, hidden), to `features`, which hold `attention_mask` and either
        `input_ids`, both (batch, length), or states at layer `start` as `input_features`, (batch, length, hidden);
        features that hold them already stay as they are.
        """
        if "token_embeddings" in features:
            return features
        states = features.get("input_features")
        if states is None:
            states = self.base_states(features["input_ids"], features["attention_mask"])
        weight = next(self.upper.parameters())
        states = states.to(weight.device, weight.dtype)
        mask = features["attention_mask"].to(weight.device)
        features["token_embeddings"] = _run(self.upper, mask, inputs_embeds=states)
        return features

    def get_embedding_dimension(self) -> int:
        """Hidden size of the base."""
        return self.language_model.config.hidden_size

    def _apply(self, *args, **kwargs) -> "ReasoningModule":
        super()._apply(*args, **kwargs)
        if getattr(self.language_model, "hf_device_map", None) is None:
            self.language_model.to(next(self.upper.parameters()).device)
        return self

    def save(self, output_path: str, *args, **kwargs) -> None:
        """Writes the trained layers, the tokenizer and where to find the base."""
        self.save_config(output_path)
        self.save_torch_weights(output_path)
        self.save_tokenizer(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        model_kwargs: dict[str, Any] | None = None,
        trust_remote_code: bool = False,
        **kwargs,
    ) -> "ReasoningModule":
        """
        Loads the module of a saved encoder.

        Args:
            model_name_or_path: folder or Hub name of the encoder.
            model_kwargs: `language_model` is the base, or where to load it from; the rest (dtype, device_map, …) goes
                to the base's `from_pretrained`. Without it the environment variable `SEMCOT_BASE_MODEL` and then the
                name that the encoder was saved with decide: a folder, `models/<name>` beside the encoder or above it,
                or one of the Hub.

        Raises:
            OSError: the base cannot be loaded.
            ValueError: the weights do not fit the base.
        """
        names = ("token", "cache_folder", "revision", "local_files_only")
        hub = {name: kwargs[name] for name in names if name in kwargs}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **hub)
        tokenizer = AutoTokenizer.from_pretrained(
            model_name_or_path,
            subfolder=subfolder,
            token=hub.get("token"),
            cache_dir=hub.get("cache_folder"),
            revision=hub.get("revision"),
            local_files_only=hub.get("local_files_only", False),
        )
        options = dict(model_kwargs or {})
        base = options.pop("language_model", None) or os.environ.get(BASE_MODEL_VARIABLE)
        base = base or _find_base(config["base_model_name_or_path"], model_name_or_path)
        if not isinstance(base, PreTrainedModel):
            base = _load_base(base, model_name_or_path, trust_remote_code, options)
        module = cls(base, tokenizer, **config)
        try:
            return cls.load_torch_weights(model_name_or_path, subfolder=subfolder, model=module, **hub)
        except RuntimeError as error:
            raise ValueError(
                f"The weights of {model_name_or_path} do not fit the base {base.name_or_path!r}; they were trained on "
                f"{config['base_model_name_or_path']!r}. Give that one as language_model.\n{error}"
            ) from error


def default_layers(language_model: PreTrainedModel) -> tuple[int, int]:
    """Layers `start` and `end` for a base of any depth: half way, an eighth of the depth (paper: 16–20 of 32)."""
    depth = language_model.config.num_hidden_layers
    return depth // 2, depth // 2 + max(1, depth // 8)


@torch.no_grad()
def check_base(language_model: PreTrainedModel, start: int, end: int) -> None:
    """
    Sees that states put in at layer `start` come out at `end` as they do when passing through the whole base.

    Raises:
        ValueError: they do not, because this kind of base does something to its input embeddings or to its states
            that is not known here.
    """
    device = language_model.get_input_embeddings().weight.device
    input_ids = torch.arange(4, device=device).unsqueeze(0)
    mask = torch.ones_like(input_ids)
    whole = _run(_layer_view(language_model, 0, end), mask, input_ids=input_ids)
    states = _run(_layer_view(language_model, 0, start, final_norm=False), mask, input_ids=input_ids)
    in_two = _run(_behind_embeddings(_layer_view(language_model, start, end)), mask, inputs_embeds=states)
    if not torch.allclose(whole, in_two, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"A {type(language_model).__name__} cannot be cut at layer {start}: its states come out changed, so that "
            "there is no reasoning encoder for it. Training goes without (--alpha 0)."
        )


def _dequantised(stack: nn.Module) -> nn.Module:
    """The stack, with plain linear layers in the places of those that bitsandbytes or torchao quantised."""
    for name, layer in list(stack.named_modules()):
        weight = getattr(layer, "weight", None)
        if isinstance(layer, nn.Linear) and (not weight.is_floating_point() or hasattr(weight, "__tensor_flatten__")):
            # With a gradient, which bitsandbytes' inexact kernels for inference do not carry.
            identity = torch.eye(layer.in_features, device=weight.device).requires_grad_()
            with torch.enable_grad():
                weight = layer(identity) - (0 if layer.bias is None else layer.bias)
            plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
            plain.weight, plain.bias = nn.Parameter(weight.detach().T.contiguous()), layer.bias
            stack.set_submodule(name, plain)
    return stack


def _layer_view(language_model: PreTrainedModel, start: int, end: int, final_norm: bool = True) -> PreTrainedModel:
    """The base's decoder with its layers start…end only. Its modules are the base's own, not copies."""
    decoder = language_model.base_model
    view = copy.copy(decoder)
    view._modules = dict(decoder._modules)
    layers, norm = _layers_and_norm(decoder)
    view._modules[layers] = decoder._modules[layers][start:end]
    if not final_norm:
        view._modules[norm] = nn.Identity()

    view.config = copy.copy(decoder.config)
    if getattr(decoder.config, "layer_types", None) is not None:
        try:
            view.config.layer_types = decoder.config.layer_types[start:end]
        except AttributeError:
            raise ValueError(
                f"A {type(decoder).__name__} cannot be cut: of which kind each layer is follows from other fields, so "
                "that there is no reasoning encoder for it. Training goes without (--alpha 0)."
            ) from None
    view.config.num_hidden_layers = end - start
    return view


def _behind_embeddings(view: PreTrainedModel) -> PreTrainedModel:
    """Takes token and position embeddings off a view, which then leaves `inputs_embeds` as they are."""
    embeddings = view.get_input_embeddings()
    for name in [name for name, module in view._modules.items() if module is embeddings]:
        del view._modules[name]
    if "wpe" in view._modules:  # GPT-2 adds learnt positions to inputs_embeds; here the lower layers have had them
        view._modules["wpe"] = _NoPositions()
    if hasattr(view, "embedding_multiplier"):  # by which Granite multiplies inputs_embeds
        view.embedding_multiplier = 1.0
    return view


class _NoPositions(nn.Module):
    def forward(self, position_ids: torch.LongTensor) -> torch.Tensor:
        # A scalar takes part in no type promotion.
        return torch.zeros((), device=position_ids.device)


def _layers_and_norm(decoder: PreTrainedModel) -> tuple[str, str]:
    """The names of a decoder's stack of layers and of the norm behind it."""
    children = list(decoder._modules.items())
    stacks = [name for name, part in children if isinstance(part, nn.ModuleList)]
    norms = [name for name, part in children if "norm" in type(part).__name__.lower()]
    if len(stacks) != 1 or not norms:
        raise ValueError(
            f"{type(decoder).__name__} has no single stack of layers with a norm behind it: the reasoning encoder "
            "needs a decoder-only language model such as Llama, Mistral, Qwen2 or GPT-2. Training goes without "
            "(--alpha 0)."
        )
    return stacks[0], norms[-1]


def _run(decoder: PreTrainedModel, attention_mask: torch.Tensor, **inputs: torch.Tensor) -> torch.FloatTensor:
    # Positions count real tokens, so that padding on either side changes nothing.
    position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
    outputs = decoder(attention_mask=attention_mask, position_ids=position_ids, use_cache=False, **inputs)
    return outputs.last_hidden_state


def _find_base(name: str, encoder: str) -> str:
    """Where the base lies, as the checkpoint finds it that the encoder was trained for, if it is the folder above."""
    folder, local = Path(encoder), None
    if not name or not folder.is_dir():
        return name
    try:
        checkpoint = json.loads((folder.resolve().parent / "config.json").read_text(encoding="utf-8"))
        local = checkpoint["local_base_model"] if checkpoint["base_model_name_or_path"] == name else None
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no such checkpoint
    above = [part for here in (folder.absolute(), folder.resolve()) for part in (here, *here.parents)]
    candidates = [name, *([local] if local else []), *(part / "models" / Path(name).name for part in above)]
    return next((str(path) for path in candidates if (Path(path) / "config.json").is_file()), name)


def _load_base(source: str, encoder: str, trust_remote_code: bool, options: dict[str, Any]) -> PreTrainedModel:
    if not source:
        raise OSError(f"{encoder} does not name its base: give it as language_model, or set {BASE_MODEL_VARIABLE}.")
    try:
        return AutoModelForCausalLM.from_pretrained(source, trust_remote_code=trust_remote_code, **options)
    except OSError as error:
        raise OSError(
            f"The base of the reasoning encoder {encoder} could not be loaded from {source!r}: {error}\n"
            f"Give the base or its folder as language_model, set {BASE_MODEL_VARIABLE}, or allow the Hub."
        ) from error
