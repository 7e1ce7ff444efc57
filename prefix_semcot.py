# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""
What all prompts begin with, the head of the chat template, read once for many: its keys and values in generator and
base. Ships beside modeling_semcot.py inside every checkpoint as remote code.

They are kept from one call of `generate` to the next, and used where nothing that they follow from has changed: the
bits of all weights are added up each time, which takes a fraction of what is saved. Where weights, settings and code
are not all that matters (hooks, layers of other libraries, training), nothing is kept. On CPUs only: a GPU waits for
the launch of its kernels, whose number stays the same.
"""

from dataclasses import fields
from itertools import chain
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules import module as torch_module
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

SHORTEST, LONGEST = 8, 512
"""Tokens of a prefix: fewer do not pay, and more are not kept."""
ROTATIONS = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings by a token's own place, whatever the length of the text."""
KNOWN_CODE = ("torch.nn.modules.", "transformers.models.", "transformers.activations", "transformers.pytorch_utils")
"""Where modules come from whose weights and settings are all that they follow."""
# What transformers calls a cache: `past_key_values`, and `cache` from 5.24 on. Callers may use either name.
CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"
States = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, `(rows, heads, length, head size)`, of one row where all have the same."""


class Prefix(NamedTuple):
    """
    Tokens `(length,)` that prompts begin with, and keys and values of generator and base, or none yet, with what they
    follow from: settings and code of the modules, sums of the bits of each row of the weights, the embeddings.
    """

    ids: torch.LongTensor
    generator: States = []
    base: States = []
    modules: list = []
    bits: torch.LongTensor | None = None
    embeds: tuple[torch.Tensor, ...] = ()

    def cropped(self, length: int) -> "Prefix":
        """Its first tokens."""
        generator, base = (
            [tuple(part[:, :, :length] for part in layer) for layer in states] for states in (self.generator, self.base)
        )
        embeds = tuple(part[:length] for part in self.embeds)
        return self._replace(ids=self.ids[:length], generator=generator, base=base, embeds=embeds)

    def follows_from(self, modules: list, bits: torch.LongTensor, embeds: tuple[torch.Tensor, ...]) -> bool:
        """Whether there are keys and values, and would be no others today."""
        pairs = ((self.bits, bits), *zip(self.embeds, embeds, strict=True)) if self.embeds else ()
        return bool(pairs) and self.modules == modules and all(torch.equal(*pair) for pair in pairs)

    def columns_behind(self, attention_mask: torch.Tensor) -> torch.LongTensor:
        """Columns `(batch, length)` of prompts that are padded on the left, in the order prefix, padding, rest."""
        column = torch.arange(attention_mask.shape[1], device=attention_mask.device)
        padding, length = attention_mask.long().argmax(1, keepdim=True), len(self.ids)
        behind = torch.where(column < length + padding, column - length, column)
        return torch.where(column < length, column + padding, behind)


def fill(cache: Cache, states: States, rows: int) -> Cache:
    """Puts keys and values into an empty cache for so many rows: of one for all, or of each for its copies."""
    for layer, parts in enumerate(states):
        copies = rows // len(parts[0])
        cache.update(*(part.repeat_interleave(copies, dim=0) if copies > 1 else part for part in parts), layer)
    return cache


class PrefixMixin:
    """Keeps the prefix of a [`SemCoTForCausalLM`]'s prompts."""

    _prefix: Prefix | None = None

    def shared_prefix(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor) -> Prefix | None:
        """
        What all prompts `(batch, length)`, padded on the left, begin with, and with those of earlier calls too, as long
        as they have something in common; `None` where nothing can be shared.
        """
        base, padding = self.language_model.base_model, attention_mask.long().argmax(1)
        stacks = (base if self.config.adapter_rank else self.generator, base)
        whole = (attention_mask.sum(1) == attention_mask.shape[1] - padding).all()  # no token is hidden within a prompt
        if not (whole and all(_may_share(stack, bool(padding.any())) for stack in stacks)):
            return None
        # The states of the last token before the thoughts may be one of theirs.
        question = (input_ids == self.config.thought_token_id).long().argmax(1) - padding - 1
        column = torch.arange(max(0, min(LONGEST, int(question.min()))), device=input_ids.device)
        heads = input_ids.gather(1, column + padding[:, None])
        kept = self._prefix
        if kept is None or (length := _common(heads, kept.ids)) < SHORTEST:
            kept = Prefix(heads[0, : (length := _common(heads, heads[0]))].clone())
            if len(heads) == 1 or length < SHORTEST:  # one prompt alone does not tell what the next begins with
                self._prefix = kept
                return None
        if length < len(kept.ids):
            kept = kept.cropped(length)
        embeds = self.embed_for_generator(kept.ids[None]), self.get_input_embeddings()(kept.ids[None])
        found = _dependencies(self, *stacks)
        if found is None:
            self._prefix = None
            return None
        found = (*found, tuple(part[0] for part in embeds))
        if not kept.follows_from(*found):
            states = (_read(stack, part) for stack, part in zip(stacks, embeds, strict=True))
            kept = Prefix(kept.ids, *states, *found)
        self._prefix = kept
        return kept


def _may_share(stack: PreTrainedModel, padded: bool) -> bool:
    """
    Whether keys and values of a text's first tokens are those of these tokens alone, and may stand before padding: they
    do where distances are counted by position ids, in rotary embeddings, and not in columns, as in ALiBi.
    """
    rotary = getattr(stack.config, "rope_parameters", None) or {}
    by_position = bool(rotary) and not getattr(stack.config, "alibi", False)
    return (
        stack.device.type == "cpu"
        and not stack.training
        and not torch.is_autocast_enabled("cpu")
        and {type(layer) for layer in DynamicCache(config=stack.config).layers} == {DynamicLayer}
        and (by_position or not padded)
        and (not rotary or rotary.get("rope_type") in ROTATIONS)
    )


def _dependencies(model: PreTrainedModel, *stacks: PreTrainedModel) -> tuple[list, torch.LongTensor] | None:
    """
    Settings and code of all modules of the stacks, and sums of the bits of each row of their weights, but for the token
    embeddings; `None` where these may not be all that their states follow from.
    """
    hooked = (torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks)
    if any(map(len, hooked)) or any(map(_is_hooked, (model, model.language_model))):
        return None
    readers = (model,) if model.config.share_embeddings else (model, model.generator)
    tables, modules, bits = [reader.get_input_embeddings() for reader in readers], [], []
    for stack in stacks:
        modules.append(_settings(stack.config))
        if getattr(engine := vars(stack).get("forward"), "has_own_weights", False):
            modules.append(engine)  # whose states nothing else changes
            continue
        for module in stack.modules():
            kind = type(module)
            if _is_hooked(module) or not kind.__module__.startswith(KNOWN_CODE):
                return None
            modules.append((kind, kind.forward, _settings(module)))
            if module in tables:
                continue
            for weight in chain(module._parameters.values(), module._buffers.values()):
                parts = _parts(weight, modules)
                if any(type(part) not in (nn.Parameter, torch.Tensor) or part.device.type != "cpu" for part in parts):
                    return None
                bits += [_bits(part.detach()) for part in parts if part.numel()]
    return modules, torch.cat([torch.zeros(0, dtype=torch.int64), *bits])


def _parts(weight: torch.Tensor | None, settings: list) -> list[torch.Tensor]:
    """A weight, or what a quantised one of torchao's is made of; its kind and what else it holds go to the settings."""
    if not hasattr(weight, "__tensor_flatten__"):
        return [] if weight is None else [weight]
    names, rest = weight.__tensor_flatten__()
    settings.append((type(weight), repr(rest)))
    return [part for name in names for part in _parts(getattr(weight, name), settings)]


def _is_hooked(module: nn.Module) -> bool:
    """Whether something else runs where a module is called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or "forward" in vars(module)
        or module._compiled_call_impl is not None
    )


def _settings(part: object) -> list[tuple]:
    return [(name, value) for name, value in vars(part).items() if type(value) in (bool, int, float, str)]


def _bits(weight: torch.Tensor) -> torch.LongTensor:
    """The sum of the bits of each row, read as whole numbers: another where one value in it is another."""
    rows = weight.contiguous().reshape(-1, weight.shape[-1] if weight.ndim else 1)
    sizes = rows.shape[1] * rows.itemsize, rows.storage_offset() * rows.itemsize
    numbers = (torch.int64, torch.int32, torch.int16, torch.uint8)
    number = next(number for number in numbers if not any(size % number.itemsize for size in sizes))
    return rows.view(number).sum(-1, dtype=torch.int64)


def _read(stack: PreTrainedModel, embeds: torch.Tensor) -> States:
    """Keys and values of a text `(1, length, width)`."""
    cache = stack(inputs_embeds=embeds, use_cache=True)[CACHE]
    return [(layer.keys, layer.values) for layer in cache.layers]


def _common(rows: torch.LongTensor, ids: torch.LongTensor) -> int:
    """The number of tokens that all rows and the ids begin with."""
    length = min(rows.shape[1], len(ids))
    different = (rows[:, :length] != ids[:length]).any(0).nonzero()
    return int(different[0]) if len(different) else length
