# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""
A generator that is the base itself, with a low-rank update of each of its linear layers (LoRA, arXiv 2106.09685) that
the thoughts alone go through. Ships beside modeling_semcot.py inside every checkpoint as remote code.

    question ──► base ──► keys and values ──┐
          K thoughts, in blocks ──► base with updates ──► states ──► soft tokens + projection

A thought is what its state spells by the base's own head, as a mean of token embeddings, which the base reads as it
reads text; the projection, which starts at zero, adds to it. The question is read by the base as it is. The thoughts
come in blocks, each formed in one parallel pass that reads what the blocks before it spell, and kept as far as its
thoughts are sure: a loop over the backbone as in PCCoT (arXiv 2506.18582) and LOTUS (arXiv 2606.31779), of no more
passes than the reasoning needs.
"""

import copy

import torch
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.pytorch_utils import Conv1D

try:
    from .prefix_semcot import CACHE, States, fill
except ImportError:  # as a plain top-level module, from a clone or an installation
    from prefix_semcot import CACHE, States, fill


LIKELIEST = 8
"""Tokens whose embeddings make up a thought: the others have next to no probability."""


class LowRank(nn.Module):
    """What is added to a linear layer, `(…, in) -> (…, out)`: nothing until it is trained."""

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, in_features) / in_features**0.5)
        self.up = nn.Parameter(torch.zeros(out_features, rank))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(nn.functional.linear(inputs, self.down), self.up)


class Updated(nn.Module):
    """A linear layer of the base, of whatever kind, and its update. Both stay where they are, and are no children."""

    def __init__(self, layer: nn.Module, update: LowRank) -> None:
        super().__init__()
        self.layer_and_update = layer, update

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        layer, update = self.layer_and_update
        return layer(inputs) + update(inputs.to(update.up.dtype)).to(inputs.dtype)


class AdaptedBase(nn.Module):
    """
    The updates of all linear layers of a base, under the names of the layers.

    Args:
        config: of the base.
        rank: of the updates.
    """

    def __init__(self, config: PreTrainedConfig, rank: int) -> None:
        super().__init__()
        self.config = config
        self.engine = None
        """What runs the stack with the updates, if not torch."""
        with torch.device("meta"):
            layers = AutoModel.from_config(config).named_modules()
        for name, layer in layers:
            if isinstance(layer, (nn.Linear, Conv1D)):
                *parents, last = name.split(".")
                place = self
                for parent in parents:
                    if parent not in place._modules:
                        place.add_module(parent, nn.Module())
                    place = place._modules[parent]
                sizes = layer.weight.shape if isinstance(layer, Conv1D) else layer.weight.shape[::-1]
                place.add_module(last, LowRank(*sizes, rank))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def onto(self, stack: PreTrainedModel) -> PreTrainedModel:
        """The base's stack of layers with the updates. All else in it is the base's own, and nothing is copied."""
        whole = _with_updates(stack, self)
        if self.engine is not None:
            whole.forward = self.engine
        return whole

    @torch.no_grad()
    def merged(self, stack: PreTrainedModel) -> PreTrainedModel:
        """A copy of the base's stack of layers, which are not quantised, with the updates in its weights."""
        whole = copy.deepcopy(stack)
        for name, update in self.named_modules():
            if isinstance(update, LowRank):
                layer, added = whole.get_submodule(name), update.up.float() @ update.down.float()
                layer.weight.copy_(layer.weight + (added.T if isinstance(layer, Conv1D) else added))
        return whole


def _with_updates(part: nn.Module, updates: nn.Module) -> nn.Module:
    if isinstance(updates, LowRank):
        return Updated(part, updates)
    whole = copy.copy(part)
    changed = {name: _with_updates(part.get_submodule(name), update) for name, update in updates.named_children()}
    whole._modules = part._modules | changed
    # An engine, or accelerate, may have put another `forward` there, of the stack without updates.
    for name in ("forward", "_old_forward", "_hf_hook"):
        vars(whole).pop(name, None)
    return whole


class BlocksMixin:
    """Thinking in blocks, for a [`SemCoTForCausalLM`] whose generator is an [`AdaptedBase`]."""

    def states_in_blocks(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        prefix: States | None = None,
        told: torch.LongTensor | None = None,
        first_block: int | None = None,
    ) -> tuple[torch.FloatTensor, torch.FloatTensor | None]:
        r"""
        The generator's states of the thoughts, `(batch, num_thoughts, width)`, zero behind the end of the reasoning.

        A block reads the question, what the thoughts before it spell, and its own placeholders. As in a language model,
        a state is that of the place to the left of its thought.

        Args:
            input_ids, attention_mask, prefix: as of [`SemCoTForCausalLM.think`]; the prefix's states are the base's.
            told (`(batch, num_thoughts)`): the tokens that each block finds before it, instead of what was spelt, with
                the end of sequence last and -100 behind it. All blocks are then thought in one pass, and what each
                thought would be if all before it were told comes second.
            first_block: with `told`, so many thoughts, no more than `thoughts_per_pass`, are the first block.
        """
        question, mask = self._questions(input_ids, attention_mask)
        cache, stack = self._read(question, mask, prefix), self.generator.onto(self.language_model.base_model)
        read = stack, cache, mask, self.embed_for_generator(question[:, -1:])
        if told is None:
            return self._spelt_states(*read), None
        position = (mask.long().sum(1, keepdim=True) - 1).clamp(min=0)
        return self._told_states(*read, position, told, first_block)

    def question_states(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor, prefix: States | None = None
    ) -> States | None:
        """
        The base's keys and values of the questions, but for their last tokens, for thoughts and answers both; `None`
        where the thoughts of the rows begin in several columns, or the base's cache does not keep all.
        """
        starts = (input_ids == self.config.thought_token_id).long().argmax(1).unique()
        cache = DynamicCache(config=self.language_model.base_model.config)
        if len(starts) > 1 or starts < 2 or {type(layer) for layer in cache.layers} != {DynamicLayer}:
            return None
        cache = self._read(*self._questions(input_ids, attention_mask), prefix)
        return [(layer.keys, layer.values) for layer in cache.layers]

    @torch.no_grad()
    def _read(self, question: torch.LongTensor, mask: torch.LongTensor, prefix: States | None) -> Cache:
        """A cache with all of the questions but their last token, of which `prefix` has the first columns."""
        base, first = self.language_model.base_model, 0
        cache = DynamicCache(config=base.config)
        if prefix:
            cache, first = fill(cache, prefix, len(question)), prefix[0][0].shape[2]
        if first < question.shape[1] - 1:
            base(
                inputs_embeds=self.embed_for_generator(question[:, first:-1]).to(base.dtype),
                attention_mask=mask[:, :-1],
                position_ids=(mask.long().cumsum(-1) - 1).clamp(min=0)[:, first:-1],
                use_cache=True,
                **{CACHE: cache},
            )
        return cache

    def _spelt_states(
        self, stack: PreTrainedModel, cache: Cache, mask: torch.LongTensor, before: torch.FloatTensor
    ) -> torch.FloatTensor:
        """Block by block; `before` is what is read next, at first the question's last token, which `mask` ends with."""
        total, end = self.config.num_thoughts, self.end_of_reasoning
        per_pass = self.config.thoughts_per_pass or total
        seen, mask = mask[:, :-1], mask[:, -1:]
        found = before.new_zeros(len(before), total, before.shape[-1], dtype=self.thought_embedding.dtype)
        count, row = torch.zeros_like(mask), torch.arange(len(mask), device=mask.device)
        placeholder = self.embed_for_generator(torch.full_like(mask[:1], self.config.thought_token_id))
        while True:
            length = min(per_pass, total - int(count.min()))
            place = torch.arange(length, device=count.device)
            placeholders = placeholder.expand(len(before), length - 1, -1)
            columns = nn.functional.pad(torch.cat([seen, mask], dim=1), (0, length - 1), value=1)
            inputs = torch.cat([before, placeholders.to(before)], dim=1)
            states = stack(
                inputs_embeds=inputs.to(stack.dtype),
                attention_mask=columns,
                position_ids=(columns.cumsum(-1) - 1).clamp(min=0)[:, -inputs.shape[1] :],
                use_cache=True,
                **{CACHE: cache},
            ).last_hidden_state[:, before.shape[1] - 1 :]
            spelt, surety = self._spell(states)
            # Kept are the first, those that follow as long as each is sure, and none behind an end.
            is_kept = (surety >= self.config.thought_confidence) | (place == 0)
            is_kept &= nn.functional.pad(spelt == end, (1, -1)).cumsum(1) == 0
            is_kept = (is_kept & (count + place < total)).long().cumprod(1).bool()
            rows, places = is_kept.nonzero(as_tuple=True)
            found[row[rows], count[rows, 0] + places] = states[is_kept].to(found)
            kept = is_kept.sum(1, keepdim=True)
            ended = (is_kept & (spelt == end)).any(1, keepdim=True)
            count = torch.where(ended, total, count + kept)
            goes_on = (count < total).flatten()
            if not goes_on.any():
                return found
            if length > 1:
                cache.crop(1 - length)  # without the placeholders
            seen = torch.cat([seen, mask], dim=1)
            if not goes_on.all():  # a row that has ended costs nothing more
                cache.batch_select_indices(goes_on.nonzero().flatten())
                seen, spelt, kept, count, row = (part[goes_on] for part in (seen, spelt, kept, count, row))
            # What rows have kept ends in one column.
            width = int(kept.max())
            column = torch.arange(width, device=count.device) - width + kept
            mask = (column >= 0).long()
            before = self.get_input_embeddings()(spelt.gather(1, column.clamp(min=0))).to(before)

    def _told_states(
        self,
        stack: PreTrainedModel,
        cache: Cache,
        mask: torch.LongTensor,
        before: torch.FloatTensor,
        position: torch.LongTensor,
        told: torch.LongTensor,
        first_block: int | None,
    ) -> tuple[torch.FloatTensor, torch.FloatTensor]:
        """All in one pass: the told text as a language model reads it, and behind it the placeholders of all blocks."""
        per_pass, is_told = self.config.thoughts_per_pass or self.config.num_thoughts, told != -100
        if not is_told[:, 0].all():
            raise ValueError("A row of `told` has no token: leave it out.")
        length = int(is_told.sum(1).max())
        tokens = told[:, :length].masked_fill(~is_told[:, :length], self.end_of_reasoning)
        text = torch.arange(length, device=told.device)
        behind_first = text - (first_block or per_pass)
        block = torch.where(behind_first < 0, 0, text - behind_first % per_pass)
        placeholder = text[text != block]
        inputs = torch.cat([before, self.get_input_embeddings()(tokens[:, :-1])], dim=1)
        inputs = torch.cat([inputs, self.thought_embedding.expand(len(told), len(placeholder), -1).to(inputs)], dim=1)
        # A placeholder sees the text as far as its block's beginning, and the placeholders of its block before it.
        place, start = torch.cat([text, placeholder]), block[placeholder]
        text_seen = text <= torch.cat([text, start])[:, None]
        block_seen = (start == torch.cat([text * 0 - 1, start])[:, None]) & (placeholder <= place[:, None])
        own = torch.cat([text_seen, block_seen], dim=1).expand(len(told), -1, -1)
        sees = torch.cat([mask[:, None, :-1].bool().expand(-1, len(place), -1), own], dim=2)
        bias = torch.zeros(sees.shape, dtype=stack.dtype, device=told.device)
        states = stack(
            inputs_embeds=inputs.to(stack.dtype),
            attention_mask=bias.masked_fill(~sees, torch.finfo(stack.dtype).min)[:, None],
            position_ids=position + place,
            use_cache=True,
            **{CACHE: cache},
        ).last_hidden_state
        states = states.to(self.thought_embedding.dtype)
        columns = text.clone()
        columns[placeholder] = length + torch.arange(len(placeholder), device=told.device)
        behind, rest = ~is_told[:, :length, None], (0, 0, 0, self.config.num_thoughts - length)
        in_blocks, one_by_one = states[:, columns], states[:, :length]
        return tuple(nn.functional.pad(part.masked_fill(behind, 0), rest) for part in (in_blocks, one_by_one))

    def soft_tokens(self, states: torch.FloatTensor) -> torch.FloatTensor:
        """
        The embeddings of what states spell, `(…, hidden size)`: a mean over the `LIKELIEST` tokens by their
        probabilities, zero behind the end of the reasoning. A base reads a token that is sure as if it were written.
        """
        scores, tokens = self.head_scores(states).topk(min(LIKELIEST, self.config.text_config.vocab_size), dim=-1)
        embeds = self.get_input_embeddings()(tokens)
        mean = (scores.softmax(-1).to(embeds).unsqueeze(-1) * embeds).sum(-2)
        return mean * states.any(-1, keepdim=True)

    def head_scores(self, states: torch.FloatTensor, token_ids: torch.LongTensor | None = None) -> torch.FloatTensor:
        """The base's logits, of these tokens or of all, for states of its last layer."""
        head = self.get_output_embeddings()
        weight = getattr(head, "weight", None)
        if token_ids is None or type(weight) is not nn.Parameter or weight.is_meta or not weight.is_floating_point():
            scores = head(states.to(self.language_model.dtype)).float()
            return scores if token_ids is None else scores[..., token_ids]
        bias = None if head.bias is None else head.bias[token_ids]
        return nn.functional.linear(states.to(weight.dtype), weight[token_ids], bias).float()

    def _spell(self, states: torch.FloatTensor) -> tuple[torch.LongTensor, torch.FloatTensor]:
        """The likeliest token of each state, and its probability."""
        return tuple(reversed(self.head_scores(states).softmax(-1).max(-1)))

    @property
    def end_of_reasoning(self) -> int:
        """The token that stands for the end of a reasoning: the base's end of sequence."""
        end = self.config.text_config.eos_token_id
        return end[0] if isinstance(end, list) else end

    def _questions(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.LongTensor, torch.LongTensor]:
        """What stands before the last K placeholders of each row, all ending in one column, and the mask of that."""
        is_thought = input_ids == self.config.thought_token_id
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids)
        later = is_thought.flip(1).long().cumsum(1).flip(1)
        is_before = (later > self.config.num_thoughts) | (later == self.config.num_thoughts) & ~is_thought
        ends = is_before.sum(1)
        if (ends == ends[0]).all():
            return input_ids[:, : ends[0]], real[:, : ends[0]]
        kept = is_before & real.bool()
        order = kept.long().argsort(dim=1, stable=True)[:, -int(kept.sum(1).max()) :]
        return input_ids.gather(1, order), kept.gather(1, order).long()
