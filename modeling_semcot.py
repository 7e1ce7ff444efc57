# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""
SemCoT: semantically aligned implicit chain-of-thought (He et al., NeurIPS 2025, arXiv 2510.24940).

    question ──► generator (one parallel pass) ──► states at the K placeholders ──► projection ──┐
    question ──► language_model.embed_tokens ──────── placeholders replaced by the thoughts ◄────┘
                                          └──► language_model (frozen) ──► answer

The implicit tokens are to this model what image features are to LLaVA: placeholders in `input_ids`, filled at prefill,
and from there an ordinary causal LM with an ordinary cache. This file ships inside every checkpoint as remote code.
"""

import copy
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData, PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple, logging

try:
    from .configuration_semcot import SemCoTConfig
except ImportError:  # run as a plain top-level module, from a clone
    from configuration_semcot import SemCoTConfig

logger = logging.get_logger(__name__)

BASE_MODEL_VARIABLE = "SEMCOT_BASE_MODEL"
# What an embedding lookup sees in place of a placeholder, whose id may lie outside the vocabulary. Never used as such.
FILLER_ID = 0
# What transformers calls a cache: `past_key_values`, and `cache` from 5.24 on. Callers may use either name.
CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"

MODEL_CARD_TEMPLATE = """---
{{ card_data }}
---

# {{ model_name | default("SemCoT checkpoint", true) }}

An implicit chain-of-thought model after [SemCoT](https://arxiv.org/abs/2510.24940): a small generator turns the
question, in {{ "one parallel pass" if thought_passes == 1 else thought_passes ~ " parallel passes" }}, into
{{ num_thoughts }} implicit tokens, and the frozen base
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


@dataclass
class SemCoTOutputWithPast(CausalLMOutputWithPast):
    """
    [`CausalLMOutputWithPast`] with the implicit tokens.

    Args:
        thoughts (`torch.Tensor` of shape `(batch, num_thoughts, hidden_size)`, *optional*):
            The implicit tokens in the base's embedding space; `None` in a pass that holds no placeholders.
        earlier_thoughts (tuple of `torch.Tensor` of that shape, *optional*):
            What they were after each of the generator's passes but the last; `None` where the generator did not run.
    """

    thoughts: torch.FloatTensor | None = None
    earlier_thoughts: tuple[torch.FloatTensor, ...] | None = None


class SemCoTForCausalLM(
    PreTrainedModel,
    GenerationMixin,
    PyTorchModelHubMixin,
    library_name="transformers",
    pipeline_tag="text-generation",
    license="apache-2.0",
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
    generator_is_sharded = False
    """Set by whoever spreads the generator over devices, so that its layers are whole only while each of them runs."""
    prefill_question = True
    """Whether training reads questions in a pass of their own, without a gradient: less arithmetic, in more calls."""

    def __init__(self, config: SemCoTConfig, with_base: bool = True) -> None:
        super().__init__(config)
        language_model = AutoModelForCausalLM.from_config(config.text_config) if with_base else None
        self.register_module("language_model", language_model)
        self.generator = AutoModel.from_config(config.generator_config)
        if config.share_embeddings:
            self.generator.set_input_embeddings(None)
        width = config.generator_config.hidden_size
        self.thought_layers = None
        if config.thought_layers:
            self.thought_layers = AutoModel.from_config(_thought_layers_config(config))
            self.thought_layers.set_input_embeddings(None)
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
        generator_states: torch.FloatTensor | None = None,
        question_states: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        thoughts_only: bool = False,
        cache: Cache | None = None,
        **kwargs,
    ) -> SemCoTOutputWithPast:
        r"""
        Args:
            input_ids (`(batch, length)`):
                Tokens of the prompt, and of the answer in training. Each row of a prompt holds exactly K placeholders.
            attention_mask (`(batch, cached length + length)`):
                1 for real tokens, 0 for padding, on either side.
            inputs_embeds (`(batch, length, hidden_size)`):
                Instead of `input_ids`, with the thoughts in place.
            thoughts (`(batch, num_thoughts, hidden_size)`):
                Implicit tokens to use instead of the generator's.
            generator_states (`(batch, num_thoughts, generator width)`):
                What [`generator_states`] returned for these prompts or others, instead of a pass of the generator.
            question_states (`(batch, layers, 2, heads, question length, head width)`):
                The base's keys and values of the first columns, all before the placeholders, instead of its pass over
                them. For training, with `input_ids` and without a cache.
            labels (`(batch, length)`):
                Tokens to predict, -100 elsewhere and on every placeholder.
            logits_to_keep (`int`):
                Number of last positions whose logits are returned, 0 for all. When none of the question's are, and
                `prefill_question`, no gradient is carried through the base's pass over it: nothing there is trained.
            thoughts_only (`bool`):
                Stop after the generator: the output holds nothing but the thoughts.
            past_key_values, cache (`Cache`):
                Keys and values of what came before, under either name.

        Returns:
            `loss` (mean over label tokens), `logits` (`(batch, kept length, vocabulary)`), the cache,
            `thoughts` (`(batch, num_thoughts, hidden_size)`), `earlier_thoughts` (the same of each pass before).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either input_ids or inputs_embeds, and not both.")
        cache = past_key_values if cache is None else cache
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)  # for the loss, not for the base
        question_length, earlier_thoughts = 0, None
        if inputs_embeds is None:
            is_thought = input_ids == self.config.thought_token_id
            inputs_embeds = self.get_input_embeddings()(input_ids.masked_fill(is_thought, FILLER_ID))
            if self._is_prompt(is_thought, cache):
                self._check_prompt(is_thought, attention_mask, labels)
                if thoughts is None and generator_states is not None:
                    earlier_thoughts, thoughts = (), self.project(generator_states)
                elif thoughts is None:
                    self._check_whole(cache)
                    *earlier_thoughts, thoughts = self.think_in_passes(input_ids, attention_mask)
                    earlier_thoughts = tuple(earlier_thoughts)
                if thoughts_only:
                    return SemCoTOutputWithPast(thoughts=thoughts, earlier_thoughts=earlier_thoughts)
                thoughts = thoughts.to(inputs_embeds)
                inputs_embeds = self._put_in(inputs_embeds, is_thought, thoughts)
                if question_states is not None:
                    question_length = question_states.shape[-2]
                    if question_length > (first := _first_column(is_thought)):
                        raise ValueError(
                            f"question_states go over {question_length} columns, but the thoughts begin at {first}."
                        )
                    cache = _filled_cache(question_states, self.config.text_config)
                elif logits_to_keep and cache is None and not use_cache and self._prefills_question():
                    question_length = min(_first_column(is_thought), input_ids.shape[1] - logits_to_keep)
                    shared_length = min(_shared_length(input_ids, attention_mask), max(0, question_length - 1))

        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = _position_ids(attention_mask)[:, -inputs_embeds.shape[1] :]
        if question_length > 0:
            if question_states is None:
                with torch.no_grad():
                    prefilled = run_backbone(
                        self.language_model.base_model,
                        inputs_embeds[:, :question_length].detach(),
                        None if attention_mask is None else attention_mask[:, :question_length],
                        shared_length,
                        use_cache=True,
                    )
                cache = prefilled[CACHE]
            inputs_embeds = inputs_embeds[:, question_length:]
            position_ids = None if position_ids is None else position_ids[:, question_length:]

        if logits_to_keep:
            # As indices and not as a slice: of a slice's rows each would read the whole output table for itself.
            length = inputs_embeds.shape[1]
            logits_to_keep = torch.arange(max(length - logits_to_keep, 0), length, device=inputs_embeds.device)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **{CACHE: cache},
            **kwargs,
        )
        loss = None
        if labels is not None:
            labels = labels[:, -outputs.logits.shape[1] :]
            loss = self.loss_function(
                outputs.logits,
                labels,
                vocab_size=self.config.text_config.vocab_size,
                num_items_in_batch=num_items_in_batch,
            )
        return SemCoTOutputWithPast(
            loss=loss,
            logits=outputs.logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.get("attentions"),
            thoughts=thoughts,
            earlier_thoughts=earlier_thoughts,
            **{CACHE: None if question_length > 0 else outputs.get(CACHE)},
        )

    def think(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None) -> torch.FloatTensor:
        r"""
        The implicit tokens of a batch of prompts.

        Args:
            input_ids (`(batch, length)`): prompts; the last K placeholders of each row are read.
            attention_mask (`(batch, length)`): 1 for real tokens, 0 for padding, on either side.

        Returns:
            `(batch, num_thoughts, hidden_size)`, in the base's embedding space.
        """
        self._check_enough(input_ids)
        return self.think_in_passes(input_ids, attention_mask)[-1]

    def embed_prompt(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        thoughts: torch.FloatTensor | None = None,
        cached: int = 0,
    ) -> torch.FloatTensor:
        r"""
        The base's embeddings of a batch of prompts, `(batch, length, hidden_size)`, with the thoughts, the generator's
        or those given, in place of the placeholders. Of the first `cached` columns none is filled.
        """
        is_thought = input_ids == self.config.thought_token_id
        embeds = self.get_input_embeddings()(input_ids.masked_fill(is_thought, FILLER_ID))
        is_thought[:, :cached] = False
        if cached and not is_thought.any():
            return embeds
        self._check_prompt(is_thought, attention_mask)
        thoughts = self.think(input_ids, attention_mask) if thoughts is None else thoughts
        return self._put_in(embeds, is_thought, thoughts)

    def think_in_passes(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None
    ) -> list[torch.FloatTensor]:
        r"""
        What [`think`] returns, after each of `config.thought_passes`. The first pass of the generator reads the prompt;
        in those that follow it reads its own thoughts at the placeholders, all K in parallel (the Jacobi iteration of
        PCCoT, arXiv 2506.18582).
        """
        states, cache, attention_mask = self._read(input_ids, attention_mask)
        passes = [self.project(states)]
        for _ in range(self.config.thought_passes - 1):
            # What the generator made of the question stays in its cache; the placeholders alone are read again.
            cache.crop(-self.config.num_thoughts)
            outputs = self.generator(
                inputs_embeds=self.thought_embedding + passes[-1],
                attention_mask=attention_mask,
                position_ids=_position_ids(attention_mask)[:, -self.config.num_thoughts :],
                use_cache=True,
                **{CACHE: cache},
            )
            cache = outputs[CACHE]
            passes.append(self.project(outputs.last_hidden_state))
        return passes

    def generator_states(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None
    ) -> torch.FloatTensor:
        r"""The generator's states at the placeholders, after its first pass: `(batch, num_thoughts, its width)`."""
        self._check_enough(input_ids)
        return self._read(input_ids, attention_mask)[0]

    def project(self, states: torch.FloatTensor) -> torch.FloatTensor:
        r"""Implicit tokens `(batch, num_thoughts, hidden_size)` of what [`generator_states`] returns."""
        if self.thought_layers is not None:
            states = states + self.thought_layers(inputs_embeds=states, use_cache=False).last_hidden_state
        return self.projection(states)

    def _read(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.FloatTensor, Cache | None, torch.Tensor | None]:
        """The generator over a batch of prompts: its states at the placeholders, and what a further pass needs."""
        is_thought = input_ids == self.config.thought_token_id
        if not torch.compiler.is_compiling():
            # Nothing after the last placeholder can reach it: the generator is causal.
            length = input_ids.shape[1] - _first_column(is_thought.flip(1))
            input_ids, is_thought = input_ids[:, :length], is_thought[:, :length]
            attention_mask = None if attention_mask is None else attention_mask[:, :length]
        num_thoughts, more_passes = self.config.num_thoughts, self.config.thought_passes - 1
        if more_passes:
            attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            input_ids, attention_mask = _ending_with(is_thought, input_ids, attention_mask)
            is_thought = input_ids == self.config.thought_token_id
            self._check_passes(is_thought)
        embed_tokens = (self if self.config.share_embeddings else self.generator).get_input_embeddings()
        embeds = embed_tokens(input_ids.masked_fill(is_thought, FILLER_ID)).to(self.thought_embedding.dtype)
        embeds = torch.where(is_thought.unsqueeze(-1), self.thought_embedding, embeds)
        shared_length = 0
        if not torch.compiler.is_compiling() and self._prefills_question() and self._trains_through_cache():
            first_state = max(0, _first_column(is_thought) + self.config.thought_offset)
            shared_length = min(_shared_length(input_ids, attention_mask), first_state)
        outputs = run_backbone(self.generator, embeds, attention_mask, shared_length, use_cache=more_passes > 0)
        columns = torch.arange(input_ids.shape[1], device=input_ids.device) * is_thought
        columns = columns.topk(num_thoughts, dim=1).values.flip(1) + self.config.thought_offset - shared_length
        states = outputs.last_hidden_state.take_along_dim(columns.unsqueeze(-1), dim=1)
        return states, outputs.get(CACHE), attention_mask

    def _trains_through_cache(self) -> bool:
        """Whether a gradient can pass through the generator's keys and values to an earlier pass of its layers."""
        read_again = self.generator_is_sharded or getattr(self.generator, "gradient_checkpointing", False)
        return not read_again and keeps_keys_alone(self.config.generator_config)

    def _prefills_question(self) -> bool:
        # Not where the base is trained after all, with LoRA on its layers say: its gradient needs the question too.
        if not (self.prefill_question and torch.is_grad_enabled()):
            return False
        if any(weight.requires_grad for weight in self.language_model.parameters()):
            return False
        return keeps_keys_alone(self.config.text_config)

    def _is_prompt(self, is_thought: torch.BoolTensor, cache: Cache | None) -> bool:
        """A pass over a prompt has thoughts to fill in; a decoding step has a cache and, compiled, one token."""
        if cache is None:
            return True
        if torch.compiler.is_compiling() and is_thought.shape[1] == 1:
            return False
        return bool(is_thought.any())

    def _check_whole(self, cache: Cache | None) -> None:
        """Raises `ValueError` where the generator would read the rest of a prompt only."""
        if not torch.compiler.is_compiling() and cache is not None and (cached := int(cache.get_seq_length())):
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

    def _check_enough(self, input_ids: torch.LongTensor) -> None:
        """Raises `ValueError` for a prompt with fewer placeholders than are read."""
        wanted = self.config.num_thoughts
        if not torch.compiler.is_compiling() and (input_ids == self.config.thought_token_id).sum(1).min() < wanted:
            raise ValueError(
                f"A row holds fewer than {wanted} <thought> placeholders (id {self.config.thought_token_id}), which "
                "this checkpoint reads. Use its own tokenizer, with add_generation_prompt=True for chats."
            )

    def _check_passes(self, is_thought: torch.BoolTensor) -> None:
        """Raises `ValueError` where thoughts cannot be fed back to the generator."""
        if torch.compiler.is_compiling():
            return
        self.config.check_passes()
        if not keeps_keys_alone(self.config.generator_config):
            raise ValueError("thought_passes above 1 needs a generator whose layers all keep keys and values alone.")
        window = shortest_window(self.config.generator_config)
        if window and is_thought.shape[1] >= window:
            raise ValueError(
                "thought_passes above 1 needs the whole prompt in the generator's cache, which holds the last "
                f"{window - 1} tokens; here are {is_thought.shape[1]}."
            )
        if self.training and not self._trains_through_cache():
            raise ValueError(
                "thought_passes above 1 trains through the generator's cache: switch gradient checkpointing off, and "
                "leave the generator's weights whole on each device."
            )
        if not is_thought[:, -self.config.num_thoughts :].all():
            raise ValueError("thought_passes above 1 needs each row's <thought> placeholders side by side.")

    def _check_prompt(
        self, is_thought: torch.BoolTensor, attention_mask: torch.Tensor | None, labels: torch.Tensor | None = None
    ) -> None:
        """Raises `ValueError` for a prompt that this checkpoint cannot answer."""
        if torch.compiler.is_compiling():
            return
        wanted, counts = self.config.num_thoughts, is_thought.sum(1)
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
        **kwargs,
    ):
        r"""
        [`GenerationMixin.generate`] with all it offers, after one pass of the generator over the prompt.

        `thoughts` (`(batch, num_thoughts, hidden_size)`) replaces the generator's. With a cache, as `past_key_values`
        or `cache`, the prompt is the whole conversation, and only what the cache does not hold may have placeholders
        to fill.
        """
        if kwargs.get("prefill_chunk_size") or getattr(generation_config, "prefill_chunk_size", None):
            raise ValueError("prefill_chunk_size cannot be used: the implicit tokens need the prompt in one piece.")
        cache = past_key_values if cache is None else cache
        if self.config.thought_token_id < self.config.text_config.vocab_size:
            # A base with a padded vocabulary could write it, and would seem to begin another prompt.
            said = self._setting("suppress_tokens", generation_config, kwargs)
            suppressed = [*([] if said is None else said), self.config.thought_token_id]
            if generation_config is not None and "suppress_tokens" not in kwargs:
                generation_config = copy.copy(generation_config)
                generation_config.suppress_tokens = suppressed
            else:
                kwargs["suppress_tokens"] = suppressed
        prompt = inputs if inputs is not None else input_ids
        if prompt is None or inputs_embeds is not None:
            if thoughts is not None:
                raise ValueError("inputs_embeds have the thoughts in place already: pass input_ids with thoughts.")
            return super().generate(
                prompt,
                generation_config,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                streamer=streamer,
                **{CACHE: cache},
                **kwargs,
            )
        if attention_mask is None:
            attention_mask = self._mask_of(prompt, generation_config, kwargs)
        if not attention_mask[:, -1].all():
            raise ValueError(
                "A prompt ends with padding, and an answer cannot be written after it: "
                'pad on the left (tokenizer.padding_side = "left").'
            )
        cached = 0 if cache is None else int(cache.get_seq_length())
        embeds = self.embed_prompt(prompt, attention_mask, thoughts, cached)
        # The placeholder ids go back into what the caller sees; logits processors need ids inside the vocabulary.
        output = super().generate(
            prompt.masked_fill(prompt == self.config.thought_token_id, FILLER_ID),
            generation_config,
            attention_mask=attention_mask,
            inputs_embeds=embeds,
            streamer=None if streamer is None else _PromptStreamer(streamer, prompt),
            **{CACHE: cache},
            **kwargs,
        )
        sequences = output if isinstance(output, torch.Tensor) else output.sequences
        sequences[:, : prompt.shape[1]] = prompt.repeat_interleave(sequences.shape[0] // prompt.shape[0], dim=0)
        return output

    def _setting(self, name: str, generation_config, kwargs: dict):
        """What a call of `generate` says of a setting, or else the model's own config."""
        said = kwargs.get(name), getattr(generation_config, name, None), getattr(self.generation_config, name, None)
        return next((value for value in said if value is not None), None)

    def _mask_of(self, prompt: torch.LongTensor, generation_config, kwargs: dict) -> torch.LongTensor:
        """What is no padding in prompts that came without a mask; all, where padding cannot be told from the text."""
        pad, eos = (self._setting(name, generation_config, kwargs) for name in ("pad_token_id", "eos_token_id"))
        if pad is not None and pad not in torch.as_tensor([] if eos is None else eos).flatten().tolist():
            return (prompt != pad).long()
        if len(prompt) > 1:
            logger.warning_once(
                "Several prompts without an attention_mask: it cannot be told whether they are padded, as "
                f"{'there is no padding token' if pad is None else 'the padding token also ends a text'}, and all of "
                "their tokens are read. Pass the attention_mask that the tokenizer returns."
            )
        return torch.ones_like(prompt)

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, inputs_embeds=None, is_first_iteration=False, cache=None, **kwargs
    ):
        cache = past_key_values if cache is None else cache
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
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.generator_config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    # ------------------------------------------------------------------------------------------------ building

    @classmethod
    def from_components(
        cls,
        base: PreTrainedModel,
        generator: PreTrainedModel | int,
        *,
        num_thoughts: int = 5,
        tokenizer: PreTrainedTokenizerBase | None = None,
        generator_tokenizer: PreTrainedTokenizerBase | None = None,
        **config_kwargs,
    ) -> "SemCoTForCausalLM":
        r"""
        Wraps a base and a generator, the projection started so that the implicit tokens have the scale of the base's
        token embeddings (a default-initialised one starts far off, and learns slowly).

        Args:
            base: a decoder-only causal LM. It is frozen in place.
            generator: a causal LM with the base's token ids, or a number N: the base's own first N layers, copied,
                reading the base's token embeddings.
            num_thoughts: K.
            tokenizer, generator_tokenizer: compared, when given, to make sure that both models mean the same by an id.
                Needed when the two vocabularies are padded to different sizes.
            config_kwargs: further fields of [`SemCoTConfig`].

        Raises:
            ValueError: base or generator is of a kind that cannot be wrapped, the generator has other token ids, or
                more layers are asked for than the base has.
        """
        _check_kind(base)
        share_embeddings = isinstance(generator, int)
        if share_embeddings:
            generator = first_layers(base, generator)
        else:
            _check_kind(generator)
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
            generator_config=generator.config,
            num_thoughts=num_thoughts,
            share_embeddings=share_embeddings,
            **config_kwargs,
        )
        model = cls(config, with_base=False)
        cast_weights(model, generator.dtype)
        model.generator = generator.requires_grad_(True)
        model.to(device=base.get_input_embeddings().weight.device)
        model.attach_base(base)
        model._start_thought_layers()
        model._start_at_embedding_scale()
        if base.generation_config is not None:
            model.generation_config = base.generation_config
        return model.eval()

    def add_thought_layers(self, count: int) -> None:
        """Gives the model `config.thought_layers` of this number; until they are trained, they change nothing."""
        if self.config.thought_layers:
            raise ValueError(
                f"This model has {self.config.thought_layers} thought layers already, and keeps them: leave the number "
                "out, or give that one."
            )
        self.config.thought_layers = count
        self.thought_layers = AutoModel.from_config(_thought_layers_config(self.config))
        self.thought_layers.set_input_embeddings(None)
        self._start_thought_layers()
        cast_weights(self.thought_layers, self.projection.weight.dtype)
        self.thought_layers.to(self.projection.weight.device).train(self.training)

    @torch.no_grad()
    def _start_thought_layers(self) -> None:
        """Starts them as copies of the generator's last layers whose sum is, by the final norm, multiplied by zero."""
        if self.thought_layers is None:
            return
        copies = decoder_layers(self.thought_layers)
        for layer, source in zip(copies, decoder_layers(self.generator)[-len(copies) :], strict=True):
            layer.load_state_dict(source.state_dict())
        tables = [part for part in self.thought_layers.modules() if isinstance(part, nn.Embedding)]
        others = {weight for part in (copies, *tables) for weight in part.parameters()}
        norms = [
            part for part in self.thought_layers.modules() if not others.issuperset(part.parameters(recurse=False))
        ]
        probe = torch.linspace(-1, 1, self.thought_embedding.shape[0]).to(next(copies.parameters()))
        for zero in (0, -1):  # Gemma's norms, and those of others, multiply by 1 + weight
            for part in norms:
                for name, weight in part.named_parameters():
                    nn.init.constant_(weight, 0 if name == "bias" else zero)
            if norms and not any(part(probe).any() for part in norms):
                return
        raise ValueError(
            f"A {type(self.generator).__name__} cannot have thought_layers: no weights of its final norm make it zero, "
            "so that they would change the thoughts from the start."
        )

    @torch.no_grad()
    def _start_at_embedding_scale(self) -> None:
        """Starts the thought embedding and the projection at the root mean square of the base's token embeddings."""
        embed = self.get_input_embeddings()
        own_embed = embed if self.config.share_embeddings else self.generator.get_input_embeddings()
        table, own_table = embed.weight, own_embed.weight
        base_rms, own_rms = (_embedding_scale(part) * _rms(part.weight) for part in (embed, own_embed))

        draw = torch.Generator().manual_seed(torch.initial_seed())
        width = self.thought_embedding.shape[0]
        self.thought_embedding.copy_(torch.randn(width, generator=draw) * own_rms.cpu())
        ids = torch.randint(own_table.shape[0], (1, 64), generator=draw).to(table.device)
        states = self.generator(inputs_embeds=own_embed(ids).to(self.generator.dtype))
        state_rms = _rms(states.last_hidden_state)
        if self.projection.in_features == self.projection.out_features:
            weight = torch.eye(width)
        else:
            weight = torch.randn(self.projection.weight.shape, generator=draw) / width**0.5
        self.projection.weight.copy_(weight.to(table.device) * (base_rms / state_rms))
        self.projection.bias.zero_()

    # ------------------------------------------------------------------------------------------- loading and saving

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
                    for source in (Path(__file__), Path(sys.modules[SemCoTConfig.__module__].__file__)):
                        shutil.copyfile(source, Path(aside) / source.name)
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
            "thought_passes": self.config.thought_passes,
            "checkpoint_kind": self.config.checkpoint_kind,
            "base_model": base,
        }
        return ModelCard.from_template(
            card_data=ModelCardData(**metadata), template_str=info.model_card_template, **{**values, **kwargs}
        )


AUTO_MAP = {
    "AutoConfig": "configuration_semcot.SemCoTConfig",
    "AutoModel": "modeling_semcot.SemCoTForCausalLM",
    "AutoModelForCausalLM": "modeling_semcot.SemCoTForCausalLM",
}


def first_layers(base: PreTrainedModel, num_layers: int) -> PreTrainedModel:
    """A copy of the base's first `num_layers` layers and its final norm, to be trained as a generator."""
    depth = base.config.num_hidden_layers
    if not 1 <= num_layers <= depth:
        raise ValueError(f"A generator can be cut from 1 to {depth} layers of this base, got {num_layers}.")
    config = _with_layers(base.config, slice(num_layers))
    generator = AutoModel.from_config(config, dtype=base.dtype)
    generator.set_input_embeddings(None)
    wanted = generator.state_dict().keys()
    source = {name: weight for name, weight in base.base_model.state_dict().items() if name in wanted}
    generator.load_state_dict(source)
    return generator


def decoder_layers(backbone: PreTrainedModel) -> nn.ModuleList:
    """The layers of a decoder without its head."""
    depth = backbone.config.num_hidden_layers
    for part in backbone.modules():
        if isinstance(part, nn.ModuleList) and len(part) == depth:
            return part
    raise ValueError(f"A {type(backbone).__name__} has no stack of {depth} layers.")


def keeps_keys_alone(config: PreTrainedConfig) -> bool:
    """Whether all that a stack remembers of a text are keys and values: no state that every token changes."""
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers)


def shortest_window(config: PreTrainedConfig) -> int | None:
    """The shortest sliding window among a stack's layers; `None` where each reads the whole text."""
    layers = DynamicCache(config=config).layers
    return min((layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)), default=None)


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


def _thought_layers_config(config: SemCoTConfig) -> PreTrainedConfig:
    """Of the stack that goes over the thoughts: the generator's with its last `thought_layers` layers."""
    depth = config.generator_config.num_hidden_layers
    if config.thought_layers > depth:
        raise ValueError(f"thought_layers is {config.thought_layers}, but can be at most the generator's {depth}.")
    return _with_layers(config.generator_config, slice(depth - config.thought_layers, depth))


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


def _load_base(
    config: SemCoTConfig,
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
    if source == name and config.base_model_revision:
        options["revision"] = config.base_model_revision
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


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """The weights alone: a rotary embedding's frequencies, which are buffers, would be rounded for good."""
    for weight in module.parameters():
        weight.data = weight.data.to(dtype)


def _device_of(module: nn.Module) -> torch.device | int | str:
    """Where a module's weights are, or, when they are offloaded, are brought to."""
    device = next(module.parameters()).device
    hook = getattr(module, "_hf_hook", None)
    return device if device.type != "meta" or hook is None else hook.execution_device


def is_local(name: str | None) -> bool:
    """Whether a base's name is a folder's, which says nothing on another machine."""
    return bool(name) and (os.path.isdir(name) or os.path.isabs(name) or name.startswith("."))


def run_backbone(
    backbone: PreTrainedModel,
    embeds: torch.FloatTensor,
    attention_mask: torch.Tensor | None,
    shared_length: int = 0,
    use_cache: bool = False,
) -> BaseModelOutputWithPast:
    """
    Runs a decoder stack on `(batch, length, hidden)`. The first `shared_length` positions, the same in every row (a
    system prompt, a question's header), are run on one row only, and `last_hidden_state` leaves them out.
    """
    position_ids = None if attention_mask is None else _position_ids(attention_mask)
    if not shared_length:
        return backbone(
            inputs_embeds=embeds, attention_mask=attention_mask, position_ids=position_ids, use_cache=use_cache
        )
    cache = backbone(inputs_embeds=embeds[:1, :shared_length], use_cache=True)[CACHE]
    cache.batch_repeat_interleave(embeds.shape[0])
    return backbone(
        inputs_embeds=embeds[:, shared_length:],
        attention_mask=attention_mask,
        position_ids=None if position_ids is None else position_ids[:, shared_length:],
        use_cache=True,
        **{CACHE: cache},
    )


def _filled_cache(states: torch.FloatTensor, config: PreTrainedConfig) -> Cache:
    """A cache of keys and values `(batch, layers, 2, heads, length, head width)`."""
    cache = DynamicCache(config=config)
    for layer, (keys, values) in enumerate(part.unbind(1) for part in states.unbind(1)):
        cache.update(keys, values, layer)
    return cache


def _shared_length(input_ids: torch.LongTensor, attention_mask: torch.Tensor | None) -> int:
    """The number of leading tokens, none of them padding, that all rows of a batch have in common."""
    if input_ids.shape[0] == 1:
        return 0
    differs = (input_ids != input_ids[:1]).any(0)
    if attention_mask is not None:
        differs |= (attention_mask == 0).any(0)
    return _first_column(differs.unsqueeze(0))


def _ending_with(mask: torch.BoolTensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """Shifts the rows to the right, each until the last true column of `mask` is the last; zeros move in."""
    columns = torch.arange(mask.shape[1], device=mask.device)
    source = columns - (mask.shape[1] - 1 - (columns * mask).amax(1, keepdim=True))
    return [tensor.gather(1, source.clamp(min=0)) * (source >= 0) for tensor in tensors]


def _position_ids(attention_mask: torch.Tensor) -> torch.LongTensor:
    """Positions that count real tokens only, so that padding on either side changes nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def _first_column(mask: torch.BoolTensor) -> int:
    """The first column in which any row is true; the width if none is."""
    columns = mask.any(0).nonzero()
    return int(columns[0]) if len(columns) else mask.shape[1]


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


class _PromptStreamer(BaseStreamer):
    """Hands the streamer the prompt that the caller passed, placeholders included."""

    def __init__(self, streamer: BaseStreamer, prompt: torch.LongTensor) -> None:
        self.streamer, self.prompt = streamer, prompt

    def put(self, value: torch.Tensor) -> None:
        if self.prompt is not None:
            value, self.prompt = self.prompt.cpu(), None
        self.streamer.put(value)

    def end(self) -> None:
        self.streamer.end()
