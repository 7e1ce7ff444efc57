# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""
SemCoT: semantically aligned implicit chain-of-thought (He et al., NeurIPS 2025, arXiv 2510.24940).

    question ──► generator (parallel passes) ────► states at the K placeholders ──► projection ──┐
    question ──► language_model.embed_tokens ──── placeholders replaced by the thoughts ◄────────┘
                                          └──► language_model (frozen) ──► answer

The implicit tokens are to this model what image features are to LLaVA: placeholders in `input_ids`, filled at prefill,
and from there an ordinary causal LM with an ordinary KV cache. This file ships inside every checkpoint as remote code.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedModel,
    initialization,
)
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import can_return_tuple, logging

try:
    from .adapter_semcot import AdaptedBase, BlocksMixin
    from .building_semcot import BuildingMixin
    from .checkpoint_semcot import MODEL_CARD_TEMPLATE, CheckpointMixin
    from .configuration_semcot import SemCoTConfig
    from .generation_semcot import DraftsMixin, PromptStreamer
    from .prefix_semcot import CACHE, PrefixMixin, States, fill
except ImportError:  # as plain top-level modules, from a clone or an installation
    from adapter_semcot import AdaptedBase, BlocksMixin
    from building_semcot import BuildingMixin
    from checkpoint_semcot import MODEL_CARD_TEMPLATE, CheckpointMixin
    from configuration_semcot import SemCoTConfig
    from generation_semcot import DraftsMixin, PromptStreamer
    from prefix_semcot import CACHE, PrefixMixin, States, fill

logger = logging.get_logger(__name__)

# What an embedding lookup sees in place of a placeholder, whose id may lie outside the vocabulary. Never used as such.
FILLER_ID = 0
NO_CONTINUOUS_BATCHING = (
    "Continuous batching (generate_batch, init_continuous_batching, cache_implementation='paged') passes token ids "
    "alone, and cannot go through the implicit tokens. Call generate with a padded batch of prompts."
)
# Trainer's label smoothing, say, shifts the labels of the models that this table of transformers' names.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["semcot"] = "SemCoTForCausalLM"


@dataclass
class SemCoTOutputWithPast(CausalLMOutputWithPast):
    """
    [`CausalLMOutputWithPast`] with the implicit tokens.

    Args:
        thoughts (`torch.Tensor` of shape `(batch, num_thoughts, hidden_size)`, *optional*):
            The implicit tokens in the base's embedding space; `None` in a pass that holds no placeholders.
    """

    thoughts: torch.FloatTensor | None = None


class ReadThoughts(NamedTuple):
    """The tokens nearest to each thought, best first, and their probabilities; both `(batch, num_thoughts, top_k)`."""

    token_ids: torch.LongTensor
    scores: torch.FloatTensor


class SemCoTForCausalLM(
    BlocksMixin,
    BuildingMixin,
    CheckpointMixin,
    DraftsMixin,
    PrefixMixin,
    PreTrainedModel,
    GenerationMixin,
    PyTorchModelHubMixin,
    library_name="transformers",
    pipeline_tag="text-generation",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2510.24940",
    tags=["semcot", "chain-of-thought", "implicit-reasoning", "pytorch_model_hub_mixin"],
    model_card_template=MODEL_CARD_TEMPLATE,
):
    """
    A frozen language model that answers after a few implicit tokens instead of a written chain of thought.

    Build one from two models with [`from_components`], load one with [`from_pretrained`] or any `Auto` class.
    """

    config_class = SemCoTConfig
    base_model_prefix = "semcot"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: SemCoTConfig, with_base: bool = True) -> None:
        super().__init__(config)
        language_model = AutoModelForCausalLM.from_config(config.text_config) if with_base else None
        self.register_module("language_model", language_model)
        if config.adapter_rank:
            self.generator = AdaptedBase(config.text_config, config.adapter_rank)
        else:
            self.generator = AutoModel.from_config(config.generator_config)
            if config.share_embeddings:
                self.generator.set_input_embeddings(None)
        width = config.generator_config.hidden_size
        self.thought_embedding = nn.Parameter(torch.randn(width) * config.generator_config.initializer_range)
        self.projection = nn.Linear(width, config.text_config.hidden_size)
        self.post_init()
        self._freeze_base()

    # ------------------------------------------------------------------------------------------ the forward pass

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        thoughts: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.LongTensor = 0,
        cache: Cache | None = None,
        **kwargs,
    ) -> SemCoTOutputWithPast:
        r"""
        Loss (mean over label tokens), logits `(batch, kept, vocabulary)`, the cache and the thoughts of a batch.

        Args:
            input_ids (`(batch, length)`): prompts with K placeholders in each row, followed by answers in training.
            attention_mask (`(batch, cached length + length)`): 0 on padding, on either side.
            past_key_values, cache: keys and values of what came before, under either name.
            inputs_embeds (`(batch, length, hidden_size)`): instead of `input_ids`, with the thoughts in place.
            thoughts (`(batch, num_thoughts, hidden_size)`): implicit tokens to use instead of the generator's.
            labels (`(batch, length)`): tokens to predict, -100 elsewhere and on every placeholder.
            logits_to_keep (`int` or indices): how many last positions' logits are returned, 0 for all; or which.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either input_ids or inputs_embeds, and not both.")
        cache = past_key_values if cache is None else cache
        for_loss = {name: kwargs.pop(name, None) for name in ("num_items_in_batch", "shift_labels")}
        is_prompt = False
        if inputs_embeds is None:
            is_thought = input_ids == self.config.thought_token_id
            inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(is_thought, FILLER_ID))
            if is_prompt := self._is_prompt(is_thought, cache, thoughts):
                self._check_prompt(is_thought, attention_mask, labels)
                self._check_whole(cache, thoughts)
                thoughts = (self.think(input_ids, attention_mask) if thoughts is None else thoughts).to(inputs_embeds)
                inputs_embeds = self._put_in(inputs_embeds, is_thought, thoughts)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = position_ids_of(attention_mask)[:, -inputs_embeds.shape[1] :]
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **{CACHE: cache},
            **kwargs,
        )
        if is_prompt and not torch.compiler.is_compiling():
            _note_columns(outputs.get(CACHE), is_thought)
        return SemCoTOutputWithPast(
            loss=None if labels is None else self._loss(outputs.logits, labels, logits_to_keep, **for_loss),
            logits=outputs.logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.get("attentions"),
            thoughts=thoughts,
            **{CACHE: outputs.get(CACHE)},
        )

    def think(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, prefix: States | None = None
    ) -> torch.FloatTensor:
        r"""
        The implicit tokens of a batch of prompts.

        Args:
            input_ids (`(batch, length)`): prompts; the last K placeholders of each row are read.
            attention_mask (`(batch, length)`): 1 for real tokens, 0 for padding, wherever it stands.
            prefix: the generator's keys and values of the first columns, the same in all rows.

        Returns:
            `(batch, num_thoughts, hidden_size)`, in the base's embedding space.
        """
        return self.project(self.generator_states(input_ids, attention_mask, prefix))

    @torch.no_grad()
    def read_thoughts(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, top_k: int = 1
    ) -> ReadThoughts:
        r"""
        What the thoughts of a batch of prompts spell (see [`spelt_scores`]): after token supervision, the ends of the
        steps of a reasoning. `input_ids` and `attention_mask` as of [`think`].
        """
        scores = self.spelt_scores(self.generator_states(input_ids, attention_mask)).softmax(-1)
        scores, token_ids = scores.topk(top_k, dim=-1)
        if self.config.adapter_rank:  # behind its end a reasoning says nothing more
            is_end = (token_ids[..., :1] == self.end_of_reasoning).long()
            token_ids = token_ids.masked_fill(is_end.cumsum(1) > is_end, self.end_of_reasoning)
        return ReadThoughts(token_ids, scores)

    def generator_states(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None, prefix: States | None = None
    ) -> torch.FloatTensor:
        r"""The generator's states at the placeholders of a batch of prompts, `(batch, num_thoughts, its width)`."""
        is_thought = input_ids == self.config.thought_token_id
        _check_mask(attention_mask)
        self._check_enough(is_thought, attention_mask)
        if self.config.adapter_rank:
            return self.states_in_blocks(input_ids, attention_mask, prefix)[0]
        if not torch.compiler.is_compiling():
            # Nothing after the last placeholder can reach it: the generator is causal.
            length = input_ids.shape[1] - first_column(is_thought.flip(1))
            input_ids, is_thought = input_ids[:, :length], is_thought[:, :length]
            attention_mask = None if attention_mask is None else attention_mask[:, :length]
        cache, first = {}, 0
        if prefix:
            cache = {CACHE: fill(DynamicCache(config=self.generator.config), prefix, len(input_ids))}
            first = _length_of(cache[CACHE])
        outputs = self.generator(
            inputs_embeds=self.embed_for_generator(input_ids[:, first:]),
            attention_mask=attention_mask,
            position_ids=None if attention_mask is None else position_ids_of(attention_mask)[:, first:],
            use_cache=bool(prefix),
            **cache,
        )
        return self.states_at_placeholders(outputs.last_hidden_state, is_thought, first)

    def embed_for_generator(self, input_ids: torch.LongTensor) -> torch.FloatTensor:
        r"""What the generator reads, `(batch, length, its width)`: token embeddings, and one vector at placeholders."""
        is_thought = input_ids == self.config.thought_token_id
        embed_tokens = (self if self.config.share_embeddings else self.generator).get_input_embeddings()
        embeds = embed_tokens(input_ids.masked_fill(is_thought, FILLER_ID)).to(self.thought_embedding.dtype)
        if offloaded := self.thought_embedding.is_meta:  # accelerate brings it in while `forward` runs, and only then
            self._hf_hook.pre_forward(self)
        embeds = torch.where(is_thought.unsqueeze(-1), self.thought_embedding, embeds)
        if offloaded:
            self._hf_hook.post_forward(self, None)
        return embeds

    def states_at_placeholders(
        self, states: torch.FloatTensor, is_thought: torch.BoolTensor, first: int = 0
    ) -> torch.FloatTensor:
        r"""
        The states that become thoughts, `(batch, num_thoughts, width)`, of `states` `(batch, length - first, width)`
        over the columns from `first` on. `is_thought` is `(batch, length)`.
        """
        columns = torch.arange(is_thought.shape[1], device=states.device) * is_thought
        columns = columns.topk(self.config.num_thoughts, dim=1).values.flip(1) + self.config.thought_offset - first
        return states.take_along_dim(columns.unsqueeze(-1), dim=1)

    def project(self, states: torch.FloatTensor) -> torch.FloatTensor:
        r"""The projection: `(batch, num_thoughts, generator width)` to `(batch, num_thoughts, hidden_size)`."""
        if self.config.adapter_rank:
            return self.soft_tokens(states) + self.projection(states)
        return self.projection(states)

    def spelt_scores(
        self,
        states: torch.FloatTensor,
        token_ids: torch.LongTensor | None = None,
        thoughts: torch.FloatTensor | None = None,
    ) -> torch.FloatTensor:
        r"""
        Logits of the tokens, `(batch, num_thoughts, vocabulary)` or of `token_ids` alone, that the thoughts of these
        states spell: those of the base's token embeddings, as an output table, for the thoughts (`thoughts`, if they
        are known); those of the base's head for states of the base as its own generator.
        """
        if self.config.adapter_rank:
            return self.head_scores(states, token_ids)
        # By look-up, which brings an offloaded table in.
        ids = torch.arange(self.config.text_config.vocab_size) if token_ids is None else token_ids
        table = self.get_input_embeddings()(ids.to(states.device))
        return nn.functional.linear((self.project(states) if thoughts is None else thoughts).to(table), table).float()

    def embed_prompt(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        thoughts: torch.FloatTensor | None = None,
        cached: int = 0,
        prefix: States | None = None,
    ) -> torch.FloatTensor:
        r"""
        The base's embeddings of a batch of prompts, `(batch, length, hidden_size)`, with the thoughts, the generator's
        (`prefix` as of [`think`]) or those given, in place of the placeholders. Of the first `cached` columns none is
        filled.
        """
        is_thought = input_ids == self.config.thought_token_id
        embeds = self.get_input_embeddings()(input_ids.masked_fill(is_thought, FILLER_ID))
        is_thought[:, :cached] = False
        if cached and not is_thought.any():
            return embeds
        self._check_prompt(is_thought, attention_mask)
        thoughts = self.think(input_ids, attention_mask, prefix) if thoughts is None else thoughts
        return self._put_in(embeds, is_thought, thoughts)

    def _loss(
        self,
        logits: torch.FloatTensor,
        labels: torch.LongTensor,
        logits_to_keep: int | torch.LongTensor,
        num_items_in_batch: torch.Tensor | int | None,
        shift_labels: torch.LongTensor | None,
    ) -> torch.FloatTensor:
        """
        Cross-entropy of the label that follows each position whose logits were kept. Sequence parallelism parts a text,
        and gives labels that were shifted before.
        """
        if shift_labels is None:
            shift_labels = nn.functional.pad(labels, (0, 1), value=-100)[:, 1:]
        kept = logits_to_keep if isinstance(logits_to_keep, torch.Tensor) else slice(-logits_to_keep, None)
        vocab_size, following = self.config.text_config.vocab_size, shift_labels[:, kept].contiguous()
        return self.loss_function(logits, None, vocab_size, num_items_in_batch, shift_labels=following)

    def _is_prompt(self, is_thought: torch.BoolTensor, cache: Cache | None, thoughts: torch.Tensor | None) -> bool:
        """A prompt has thoughts to fill in; a decoding step goes on from what a cache holds."""
        if cache is None:
            return True
        if not torch.compiler.is_compiling():
            return bool(is_thought.any()) or not _length_of(cache)
        # A graph ends where the tokens decide: here a cache that may hold some, and no thoughts, make a step.
        cached = cache.get_seq_length()
        if thoughts is not None or not isinstance(cached, torch.Tensor) and cached == 0:
            return True
        _require(~is_thought, "Compiled, a prompt needs thoughts= or an empty cache.")
        return False

    def _check_whole(self, cache: Cache | None, thoughts: torch.Tensor | None) -> None:
        """Raises `ValueError` where the generator would read the rest of a prompt only."""
        if thoughts is not None or cache is None or torch.compiler.is_compiling():
            return
        if cached := _length_of(cache):
            raise ValueError(
                f"The generator must read the whole prompt, but {cached} of its tokens are in the cache already. Pass "
                "thoughts=model.think(the whole prompt), or call generate with the whole prompt and this cache."
            )

    def _put_in(
        self, embeds: torch.FloatTensor, is_thought: torch.BoolTensor, thoughts: torch.FloatTensor
    ) -> torch.FloatTensor:
        """The embeddings of a batch of prompts with the thoughts in place of the placeholders."""
        wanted = (embeds.shape[0], self.config.num_thoughts, embeds.shape[-1])
        if thoughts.shape != wanted:
            raise ValueError(f"thoughts have the shape {tuple(thoughts.shape)}, these prompts need {wanted}.")
        return embeds.masked_scatter(is_thought.unsqueeze(-1), thoughts.to(embeds))

    def _check_enough(self, is_thought: torch.BoolTensor, attention_mask: torch.Tensor | None) -> None:
        """Raises `ValueError` for a prompt that lacks placeholders, or the states to their left."""
        wanted = self.config.num_thoughts
        _require(
            is_thought.sum(1) >= wanted,
            f"A row holds fewer than {wanted} <thought> placeholders (id {self.config.thought_token_id}), which "
            "this checkpoint reads. Use its own tokenizer, with add_generation_prompt=True for chats.",
        )
        if self.config.thought_offset:
            real = torch.ones_like(is_thought) if attention_mask is None else attention_mask
            _require(
                ~is_thought | (nn.functional.pad(real, (1, -1)) != 0),
                "A row begins with a <thought> placeholder, but this checkpoint reads the state to its left "
                "(thought_offset -1). Use its own tokenizer, which puts the question there.",
            )

    def _check_prompt(
        self, is_thought: torch.BoolTensor, attention_mask: torch.Tensor | None, labels: torch.Tensor | None = None
    ) -> None:
        """Raises `ValueError` for a prompt that this checkpoint cannot answer."""
        wanted, counts = self.config.num_thoughts, is_thought.sum(1)
        if torch.compiler.is_compiling():
            return _require(counts == wanted, f"Each row needs exactly {wanted} <thought> placeholders.")
        if wrong := (counts != wanted).nonzero().flatten().tolist():
            raise ValueError(
                f"Row {wrong[0]} holds {counts[wrong[0]].item()} <thought> placeholders (id "
                f"{self.config.thought_token_id}), this checkpoint needs exactly {wanted}. Use the checkpoint's own "
                "tokenizer, with add_generation_prompt=True for chats, and take '<thought>' out of the question; "
                "for the base without thoughts call `model.language_model`."
            )
        if labels is not None and (labels[is_thought] != -100).any():
            raise ValueError("labels must be -100 on every <thought> placeholder: the base cannot predict them.")
        longest = is_thought.shape[1]
        for part in ("text_config", "generator_config"):
            limit = getattr(getattr(self.config, part), "max_position_embeddings", None)
            if limit is not None and longest > limit:
                if attention_mask is not None and attention_mask.ndim == 2:
                    longest = int(attention_mask.sum(1).max())
                if longest > limit:
                    raise ValueError(f"The prompt has {longest} tokens, the position limit of {part} is {limit}.")

    # ------------------------------------------------------------------------------------------------ generation

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.LongTensor | None = None,
        generation_config=None,
        *,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        thoughts: torch.FloatTensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        streamer: BaseStreamer | None = None,
        shortcuts: bool = True,
        **kwargs,
    ):
        r"""
        [`GenerationMixin.generate`] with all it offers, after one pass of the generator over the prompt.

        `thoughts` (`(batch, num_thoughts, hidden_size)`) replaces the generator's. With a cache, as `past_key_values`
        or `cache`, the prompt is the whole conversation, and only what the cache does not hold may have placeholders
        to fill. Without `shortcuts` (see generation_semcot.py) the same is written in the ordinary, slower way.
        """
        cache = past_key_values if cache is None else cache
        generation_config = self._check_settings(generation_config, kwargs)
        if cache is not None:
            kwargs[CACHE] = cache
        prompt = inputs if inputs is not None else input_ids
        if prompt is None or inputs_embeds is not None:
            if thoughts is not None:
                raise ValueError("inputs_embeds have the thoughts in place already: pass input_ids with thoughts.")
            kwargs |= {"attention_mask": attention_mask, "inputs_embeds": inputs_embeds, "streamer": streamer}
            return super().generate(prompt, generation_config, **kwargs)
        if attention_mask is None:
            attention_mask = self._mask_of(prompt, generation_config, kwargs)
        _check_mask(attention_mask)
        if not attention_mask[:, -1].all():
            raise ValueError(
                "A prompt ends with padding, and an answer cannot be written after it: "
                'pad on the left (tokenizer.padding_side = "left").'
            )
        is_thought, cached = prompt == self.config.thought_token_id, _length_of(cache)
        _check_continued(cache, is_thought)
        if shortcuts and cache is None and streamer is None:
            if parts := self._parts(prompt, attention_mask, generation_config, kwargs):
                return self._answer_in_parts(parts, prompt, attention_mask, thoughts=thoughts, **kwargs)
        laid, prefix = prompt, kwargs.pop("prefix", None)  # which is known where this is a part of a batch
        may_share = shortcuts and cache is None and self._may_share(is_thought, generation_config, kwargs)
        if prefix is None and may_share:
            prefix = self.shared_prefix(prompt, attention_mask)
        read = prefix and prefix.generator
        if prefix is not None:
            columns, kwargs["prefix"] = prefix.columns_behind(attention_mask), prefix.base
            laid, attention_mask = prompt.gather(1, columns), attention_mask.gather(1, columns)
        if may_share and thoughts is None and self.config.adapter_rank:  # whose thoughts the base's own reading opens
            read = kwargs["prefix"] = self.question_states(laid, attention_mask, read) or read
        embeds = self.embed_prompt(laid, attention_mask, thoughts, cached, read)
        if shortcuts and cache is None and self._may_draft(generation_config, kwargs):
            kwargs["drafts"] = self.draft_answers(embeds[is_thought].view(len(prompt), -1, embeds.shape[-1]))
        # With inputs_embeds transformers uses a cache whatever it is told.
        name = "prompt_embeds" if self._setting("use_cache", generation_config, kwargs) is False else "inputs_embeds"
        # The placeholder ids go back into what the caller sees; logits processors need ids inside the vocabulary, and
        # none that the prompt does not have: a penalty for repetitions would be one for its first use.
        in_vocabulary = prompt.masked_fill(is_thought, FILLER_ID)
        output = super().generate(
            in_vocabulary.where(~is_thought, in_vocabulary[:, -1:]),
            generation_config,
            attention_mask=attention_mask,
            streamer=None if streamer is None else PromptStreamer(streamer, prompt),
            **{name: embeds},
            **kwargs,
        )
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        for filled in (cache, None if sequences is output else output.get(CACHE)):
            if filled is not None:
                filled.thought_columns = _columns_of(is_thought)
        sequences[:, : prompt.shape[1]] = prompt.repeat_interleave(sequences.shape[0] // prompt.shape[0], dim=0)
        return output

    def prepare_inputs_for_generation(
        self,
        input_ids,
        past_key_values=None,
        inputs_embeds=None,
        is_first_iteration=False,
        cache=None,
        prompt_embeds=None,
        drafts=None,
        prefix=None,
        **kwargs,
    ):
        """As of every model; `prompt_embeds` are `inputs_embeds` that need no cache, `forward` takes no shortcuts."""
        cache = past_key_values if cache is None else cache
        inputs_embeds = prompt_embeds if inputs_embeds is None else inputs_embeds
        # Without a cache, and when drafted tokens are checked in the first pass, there are more ids than embeddings.
        if inputs_embeds is not None and (is_first_iteration or cache is None):
            is_first_iteration = True
            drafted = input_ids[:, inputs_embeds.shape[1] :]
            inputs_embeds = torch.cat([inputs_embeds, self.get_input_embeddings()(drafted)], dim=1)
        return super().prepare_inputs_for_generation(
            input_ids,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **{CACHE: cache},
            **kwargs,
        )

    def generate_batch(self, *args, **kwargs):
        """Raises `ValueError`: continuous batching cannot go through the thoughts."""
        raise ValueError(NO_CONTINUOUS_BATCHING)

    continuous_batching_context_manager = generate_batch

    @property
    def init_continuous_batching(self):
        """Missing to `hasattr`, by which `transformers serve` tells that it must answer one request after another."""
        raise AttributeError

    def __getattr__(self, name: str):
        if name == "init_continuous_batching":  # whose property led here
            raise AttributeError(NO_CONTINUOUS_BATCHING)
        return super().__getattr__(name)

    # ------------------------------------------------------------------------------------------------ the frozen base

    def get_input_embeddings(self) -> nn.Module | None:
        return None if self.language_model is None else self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return None if self.language_model is None else self.language_model.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_output_embeddings(value)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        """As of every model; the generator reads the same token ids."""
        if not self.config.share_embeddings:
            self.generator.resize_token_embeddings(*args, **kwargs)
        return super().resize_token_embeddings(*args, **kwargs)

    def train(self, mode: bool = True) -> "SemCoTForCausalLM":
        """The base stays in eval mode, whatever `mode` says."""
        super().train(mode)
        if self.language_model is not None:
            self.language_model.eval()
        return self

    def _freeze_base(self) -> None:
        if self.language_model is not None:
            self.language_model.requires_grad_(False).eval()

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.generator_config.initializer_range
        if isinstance(module, nn.Linear):
            initialization.normal_(module.weight, std=std)
            if module.bias is not None:
                initialization.zeros_(module.bias)
        elif module is self:
            initialization.normal_(self.thought_embedding, std=std)


def position_ids_of(attention_mask: torch.Tensor) -> torch.LongTensor:
    """Positions that count real tokens only, so that padding on either side changes nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def first_column(mask: torch.BoolTensor) -> int:
    """The first column in which any row is true; the width if none is."""
    columns = mask.any(0).nonzero()
    return int(columns[0]) if len(columns) else mask.shape[1]


def _require(condition: torch.BoolTensor, message: str) -> None:
    """Raises `ValueError` where a condition does not hold everywhere; in a graph `RuntimeError`."""
    if torch.compiler.is_compiling():
        torch._assert_async(condition.all(), message)
    elif not condition.all():
        raise ValueError(message)


def _check_mask(attention_mask: torch.Tensor | None) -> None:
    """Raises `ValueError` for a mask that says more than what is padding."""
    if attention_mask is not None and attention_mask.ndim != 2:
        raise ValueError(
            f"attention_mask must be (batch, length), 0 on padding, as the generator reads it too; it has the shape "
            f"{tuple(attention_mask.shape)}."
        )


def _columns_of(is_thought: torch.BoolTensor) -> list[int]:
    """The columns that hold a placeholder in any row."""
    return is_thought.any(0).nonzero().flatten().tolist()


def _length_of(cache: Cache | None) -> int:
    """The number of tokens that a cache holds."""
    return 0 if cache is None else int(cache.get_seq_length())


def _note_columns(cache: Cache | None, is_thought: torch.BoolTensor) -> None:
    """Notes in a cache in which columns it holds thoughts, those of its last tokens among them."""
    if cache is not None:
        first = max(0, _length_of(cache) - is_thought.shape[1])
        earlier = getattr(cache, "thought_columns", []) if first else []
        cache.thought_columns = [*earlier, *(first + column for column in _columns_of(is_thought))]


def _check_continued(cache: Cache | None, is_thought: torch.BoolTensor) -> None:
    """Raises `ValueError` for a cache with thoughts in other columns than the prompt, or with no fewer tokens."""
    cached, length = _length_of(cache), is_thought.shape[1]
    columns, held = _columns_of(is_thought[:, :cached]), getattr(cache, "thought_columns", None)
    if held is not None and columns != (held := [column for column in held if column < min(cached, length)]):
        raise ValueError(
            f"The cache holds thoughts in columns {held}, but this prompt has its placeholders there in {columns}: a "
            "chat template leaves them out of earlier turns. Append the next turn to the ids that generate returned, "
            "or leave the cache out."
        )
    if cached >= length:
        raise ValueError(
            f"The cache holds {cached} tokens already, and the prompt has {length}: nothing is left to read. Pass the "
            "whole conversation with its next turn, or leave the cache out."
        )


SemCoTForCausalLM.register_for_auto_class("AutoModelForCausalLM")
