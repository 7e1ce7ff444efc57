# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""
Building of a [`SemCoTForCausalLM`] from a base and a generator, and the values that its own weights start from. Ships
beside modeling_semcot.py inside every checkpoint as remote code.
"""

import copy
import os
from typing import Self

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D


class BuildingMixin:
    """Building from components, for a class that goes on with [`PreTrainedModel`]."""

    @classmethod
    def from_components(
        cls,
        base: PreTrainedModel,
        generator: PreTrainedModel | int | None,
        *,
        num_thoughts: int = 5,
        tokenizer: PreTrainedTokenizerBase | None = None,
        generator_tokenizer: PreTrainedTokenizerBase | None = None,
        **config_kwargs,
    ) -> Self:
        r"""
        Wraps a base and a generator, the projection started so that the implicit tokens have the scale of the base's
        token embeddings (a default-initialised one starts far off, and learns slowly).

        Args:
            base: a decoder-only causal LM. It is frozen in place.
            generator: a causal LM with the base's token ids, or a number N: the base's own first N layers, copied,
                reading the base's token embeddings. `None`: the base itself, with the updates of `adapter_rank`.
            num_thoughts: K.
            tokenizer, generator_tokenizer: compared, when given, to make sure that both models mean the same by an id.
                Needed when the two vocabularies are padded to different sizes.
            config_kwargs: further fields of [`SemCoTConfig`].

        Raises:
            ValueError: base or generator is of a kind that cannot be wrapped, the generator has other token ids, or
                more layers are asked for than the base has.
        """
        _check_kind(base)
        share_embeddings = generator is None or isinstance(generator, int)
        if generator is None:
            if not config_kwargs.get("adapter_rank"):
                raise ValueError("Without a generator the base itself is it, and needs adapter_rank.")
        elif share_embeddings:
            generator = first_layers(base, generator)
        else:
            _check_kind(generator)
            if getattr(generator.config, "quantization_config", None) is not None:
                raise ValueError("The generator is trained, so it cannot be quantised: load it unquantised.")
            generator = generator.base_model
            _check_same_token_ids(base, generator, tokenizer, generator_tokenizer)
        if tokenizer is not None and "thought_token_id" not in config_kwargs:
            thought_id = tokenizer.convert_tokens_to_ids("<thought>")
            if thought_id is not None and thought_id != tokenizer.unk_token_id:
                config_kwargs["thought_token_id"] = thought_id
        source = base.config._name_or_path
        config_kwargs.setdefault("base_model_name_or_path", source or None)
        config_kwargs.setdefault("local_base_model", os.path.abspath(source) if os.path.isdir(source) else None)
        config = cls.config_class(
            text_config=base.config,
            generator_config=copy.deepcopy(base.config) if generator is None else generator.config,
            num_thoughts=num_thoughts,
            share_embeddings=share_embeddings,
            **config_kwargs,
        )
        if tokenizer is not None and not config.draft_marks:
            config.draft_marks = draft_marks(tokenizer, config.answer_cue)
        model = cls(config, with_base=False)
        cast_weights(model, base.dtype if generator is None else generator.dtype)
        if generator is not None:
            model.generator = generator.requires_grad_(True)
        model.to(device=base.get_input_embeddings().weight.device)
        model.attach_base(base)
        model._start_at_embedding_scale()
        if base.generation_config is not None:
            model.generation_config = base.generation_config
        return model.eval()

    @torch.no_grad()
    def _start_at_embedding_scale(self) -> None:
        """
        Starts the thought embedding and the projection at the root mean square of the base's token embeddings; at zero
        that of the base as its own generator, whose thoughts are soft tokens.
        """
        embed = self.get_input_embeddings()
        own_embed = embed if self.config.share_embeddings else self.generator.get_input_embeddings()
        table, own_table = embed.weight, own_embed.weight
        base_rms, own_rms = (_embedding_scale(part) * _rms(part.weight) for part in (embed, own_embed))

        draw = torch.Generator().manual_seed(torch.initial_seed())
        width = self.thought_embedding.shape[0]
        self.thought_embedding.copy_(torch.randn(width, generator=draw) * own_rms.cpu())
        ids = torch.randint(own_table.shape[0], (1, 64), generator=draw).to(table.device)
        self.projection.bias.zero_()
        if self.config.adapter_rank:
            self.projection.weight.zero_()
            return
        states = self.generator(inputs_embeds=own_embed(ids).to(self.generator.dtype))
        state_rms = _rms(states.last_hidden_state)
        if self.projection.in_features == self.projection.out_features:
            weight = torch.eye(width)
        else:
            weight = torch.randn(self.projection.weight.shape, generator=draw) / width**0.5
        self.projection.weight.copy_(weight.to(table.device) * (base_rms / state_rms))


def first_layers(base: PreTrainedModel, num_layers: int) -> PreTrainedModel:
    """A copy of the base's first `num_layers` layers and its final norm, to be trained as a generator."""
    depth = base.config.num_hidden_layers
    if not 1 <= num_layers <= depth:
        raise ValueError(f"A generator can be cut from 1 to {depth} layers of this base, got {num_layers}.")
    config = _with_layers(base.config, slice(num_layers))
    quantised = vars(config).pop("quantization_config", None) is not None
    generator = AutoModel.from_config(config, dtype=base.dtype)
    generator.set_input_embeddings(None)
    wanted = generator.state_dict().keys()
    tensors = (*base.base_model.named_parameters(), *base.base_model.named_buffers())
    source = {name: tensor for name, tensor in tensors if name in wanted}
    if quantised:
        source |= _dequantised(base.base_model, generator)
    generator.load_state_dict(source)
    return generator


def draft_marks(tokenizer: PreTrainedTokenizerBase, answer_cue: str) -> dict[int, list[int]]:
    """Of condensed reasonings, "3 + 4 = 7" and "… so yes": what the config's field of this name says."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    def is_blank(token: int) -> bool:
        return not tokenizer.decode([token]).strip()

    marks, cue = {}, ids(answer_cue)
    for mark, answer in (("=", "7"), ("so", "yes")):
        before = [token for token in ids(f" 4 {mark}") if not is_blank(token)]
        spelt = [token for token in ids(f" 4 {mark} {answer}") if not is_blank(token)][len(before) :]
        written = ids(f"{answer_cue} {answer}")[len(cue) :]
        beginning = written[: len(written) - len(spelt)]
        if written == beginning + spelt and all(map(is_blank, beginning)):
            marks[before[-1]] = beginning
    return marks


def _dequantised(backbone: PreTrainedModel, like: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights of the linear layers that `like` has too: what each, quantised in any way, makes of an identity."""
    weights = {}
    for name, layer in like.named_modules():
        if isinstance(layer, (nn.Linear, Conv1D)):
            quantised, turned = backbone.get_submodule(name), isinstance(layer, Conv1D)  # GPT-2's
            width = layer.weight.shape[0 if turned else 1]
            # With a gradient, which bitsandbytes' inexact kernels for inference do not carry.
            identity = torch.eye(width, dtype=layer.weight.dtype, device=backbone.device).requires_grad_()
            with torch.enable_grad():
                weight = quantised(identity) - (0 if layer.bias is None else quantised.bias)
            weights[f"{name}.weight"] = weight.detach() if turned else weight.detach().T
    return weights


def decoder_layers(backbone: PreTrainedModel) -> nn.ModuleList:
    """The layers of a decoder without its head."""
    depth = backbone.config.num_hidden_layers
    for part in backbone.modules():
        if isinstance(part, nn.ModuleList) and len(part) == depth:
            return part
    raise ValueError(f"A {type(backbone).__name__} has no stack of {depth} layers.")


def _check_kind(model: PreTrainedModel) -> None:
    """Raises `ValueError` for a model that cannot be a base or a generator."""
    config, width = model.config, model.get_input_embeddings().weight.shape[1]
    reason = None
    if config.get_text_config() is not config:
        reason = "it is made of several models; give the language model among them, saved by itself"
    elif model.base_model is model and model.get_output_embeddings() is not None:
        reason = "its stack of layers cannot be told from its head"
    elif getattr(config, "hidden_size_per_layer_input", None):
        reason = "each of its layers looks up the token ids, which a thought does not have"
    elif width != config.hidden_size:
        reason = f"its token embeddings are {width} wide, its layers {config.hidden_size}"
    if reason:
        raise ValueError(f"A {type(model).__name__} can be neither base nor generator: {reason}.")


def _rms(values: torch.Tensor) -> torch.Tensor:
    return values.float().square().mean().sqrt()


def _embedding_scale(embed: nn.Module) -> torch.Tensor:
    """What token embeddings are multiplied by when they are looked up, as Gemma's are; 1 for most."""
    ids = torch.arange(0, len(embed.weight), 1 + len(embed.weight) // 64, device=embed.weight.device)
    return _rms(embed(ids)) / _rms(nn.functional.embedding(ids, embed.weight))


def _with_layers(config: PreTrainedConfig, kept: slice) -> PreTrainedConfig:
    """A copy of a decoder's config with some of its layers."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = len(range(config.num_hidden_layers)[kept])
    if getattr(config, "layer_types", None):
        try:
            config.layer_types = config.layer_types[kept]
        except AttributeError:
            raise ValueError(
                f"The layers of a {config.model_type} cannot be cut: of which kind each is follows from other fields."
            ) from None
    return config


def _check_same_token_ids(
    base: PreTrainedModel,
    generator: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    generator_tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    if tokenizer is not None and generator_tokenizer is not None:
        vocabulary, other = tokenizer.get_vocab(), generator_tokenizer.get_vocab()
        different = [token for token, i in other.items() if vocabulary.get(token, i) != i]
        unknown = [token for token in vocabulary if token not in other and token != "<thought>"]
        if different or unknown:
            raise ValueError(
                f"The generator has other token ids than the base: {len(different)} tokens differ and {len(unknown)} "
                f"are missing, such as {(different + unknown)[0]!r}. Take a generator of the base's family, or cut one "
                "from the base's own layers (generator_layers)."
            )
    elif base.config.vocab_size != generator.config.vocab_size:
        raise ValueError(
            f"The generator has {generator.config.vocab_size} token ids, the base {base.config.vocab_size}. If they "
            "agree but for padding, pass both tokenizers; else take a generator of the base's family."
        )


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """The weights alone: a rotary embedding's frequencies, which are buffers, would be rounded for good."""
    for weight in module.parameters():
        weight.data = weight.data.to(dtype)
