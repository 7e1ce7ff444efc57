# Copyright 2026 The SemCoT Implementation Authors. Licensed under the Apache License, Version 2.0.
"""
What `generate` takes and refuses, and shortcuts of greedy decoding, which change how long an answer takes and not, but
for rounding, the answer. Ships beside modeling_semcot.py inside every checkpoint as remote code.

*Drafts from thoughts.* Thoughts that spell the end of a reasoning ("= 1 0") spell the answer before the base has read
anything. The base reads it behind the prompt, in one pass, and says of each token whether it would have written it:
speculative decoding (Leviathan et al., arXiv 2211.17192; greedy) whose drafts cost no model of their own.

*Parts.* On a CPU a batch of prompts of many lengths, whose answers are short, is answered four by four, by length: less
padding is read.
"""

import copy

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.generation import (
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
    SuppressTokensLogitsProcessor,
)
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

try:
    from .prefix_semcot import CACHE, States, fill
except ImportError:  # as plain top-level modules, from a clone or an installation
    from prefix_semcot import CACHE, States, fill

logger = logging.get_logger(__name__)

# Settings of `generate` that cannot go through the thoughts: the values that are none, and why no others are taken.
UNSUPPORTED_SETTINGS = {
    "prefill_chunk_size": ((None,), "the implicit tokens need the prompt in one piece."),
    "guidance_scale": ((None, 1), "the prompt that it compares with has no question, and so no implicit tokens."),
    "token_healing": ((None, False), "it would write the end of the answer cue anew."),
    "assistant_early_exit": (
        (None, 0),
        "the base's first layers cannot draft by themselves. Pass assistant_model= or prompt_lookup_num_tokens=.",
    ),
}
# What a batch may be told that is to be answered in parts: nothing that looks at padding, or at the batch; and the
# values of other settings that change nothing.
HARMLESS_SETTINGS = set(
    "max_new_tokens do_sample eos_token_id pad_token_id bos_token_id use_cache transformers_version suppress_tokens "
    "_from_model_config".split()
)
NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1, "no_repeat_ngram_size": 0}
# On a CPU four prompts, of 128 tokens or more, keep a matrix product as busy as many do. Long answers are better
# decoded together.
ROWS_OF_A_PART, SHORT_ANSWER = 4, 32


class DraftsMixin:
    """Settings and shortcuts of `generate`, for a class that goes on with [`GenerationMixin`]."""

    _norms: tuple = (None, None)
    """Of the base's token embeddings, and of which they were: a draft by old ones would be a poorer draft only."""

    def draft_answers(self, thoughts: torch.FloatTensor) -> torch.LongTensor | None:
        r"""
        The answers that thoughts `(batch, num_thoughts, hidden_size)` spell, as tokens `(batch, longest)` that may
        follow the answer cue, with -1 behind the end of each; `None` where none is spelt.

        An answer is what stands behind the last of the tokens that `config.draft_marks` names, as "=".
        """
        marks, table = self.config.draft_marks, getattr(self.get_input_embeddings(), "weight", None)
        if not marks or type(table) is not nn.Parameter or table.is_meta:  # quantised or offloaded
            return None
        of_table = table.data_ptr(), table._version, table.dtype
        if self._norms[0] != of_table:
            self._norms = of_table, table.float().norm(dim=-1).clamp(min=1e-6)
        drafts, end = [], self.end_of_reasoning
        # By the angle: of the dot products that `read_thoughts` reads by, long embeddings win one in ten.
        head, thoughts = self.get_output_embeddings(), thoughts.to(table)
        is_tied = type(head) is nn.Linear and head.weight is table and head.bias is None
        scores = head(thoughts) if is_tied else nn.functional.linear(thoughts, table)  # which an engine may run
        nearest = (scores / self._norms[1]).argmax(-1)
        for row in nearest.tolist():
            row = row[: row.index(end)] if end in row else row  # behind its end a reasoning says nothing more
            last = max((i for i, token in enumerate(row) if token in marks), default=len(row))
            drafts.append([*marks[row[last]], *row[last + 1 :]] if last + 1 < len(row) else [])
        longest = max(map(len, drafts))
        if not longest:
            return None
        return torch.tensor([draft + [-1] * (longest - len(draft)) for draft in drafts], device=thoughts.device)

    def _check_settings(self, generation_config, kwargs: dict):
        """Raises `ValueError` for settings that cannot go through the thoughts; keeps the base from writing any."""
        for name, (harmless, reason) in UNSUPPORTED_SETTINGS.items():
            if self._setting(name, generation_config, kwargs) not in harmless:
                raise ValueError(f"{name} cannot be used with implicit tokens: {reason}")
        if self.config.thought_token_id < self.config.text_config.vocab_size:
            # A base with a padded vocabulary could write a placeholder, and would seem to begin another prompt.
            said = self._setting("suppress_tokens", generation_config, kwargs)
            suppressed = [*([] if said is None else said), self.config.thought_token_id]
            if generation_config is not None and "suppress_tokens" not in kwargs:
                generation_config = copy.copy(generation_config)
                generation_config.suppress_tokens = suppressed
            else:
                kwargs["suppress_tokens"] = suppressed
        return generation_config

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

    def _parts(self, input_ids: torch.LongTensor, attention_mask: torch.Tensor, config, kwargs: dict) -> list | None:
        """
        Rows of about the same length, of which each part is answered by itself with less padding; `None` where that
        saves little, or where more than the prompts, their ends and the number of new tokens may have a say.
        """
        settings = self.generation_config.to_diff_dict() | kwargs
        most = settings.get("max_new_tokens")
        if (
            len(input_ids) < 2 * ROWS_OF_A_PART
            or input_ids.device.type != "cpu"
            or not self.config.draft_marks  # without drafts each part would decode by itself
            or config is not None
            or any(_matters(*setting) for setting in settings.items())
            or settings.get("do_sample")
            or most is None
            or most > SHORT_ANSWER
            or ((input_ids == self.config.thought_token_id).sum(1) != self.config.num_thoughts).any()
        ):
            return None
        lengths = input_ids.shape[1] - attention_mask.long().argmax(1)
        parts = lengths.argsort(stable=True).split(ROWS_OF_A_PART)
        fewer = sum(len(part) * int(lengths[part].max()) for part in parts) < 0.9 * input_ids.numel()
        return list(parts) if fewer and ROWS_OF_A_PART * int(lengths.min()) >= 128 else None

    def _answer_in_parts(self, parts: list, input_ids: torch.LongTensor, attention_mask: torch.Tensor, **kwargs):
        """What [`generate`] returns, of each part by itself; `thoughts` among the `kwargs`."""
        thoughts, answers = kwargs.pop("thoughts"), [None] * len(input_ids)
        kwargs["prefix"] = self.shared_prefix(input_ids, attention_mask)  # looked up once for all parts
        for rows in parts:
            padding = int(attention_mask[rows].long().argmax(1).min())
            given = None if thoughts is None else thoughts[rows]
            part, mask = input_ids[rows, padding:], attention_mask[rows, padding:]
            sequences = self.generate(part, attention_mask=mask, thoughts=given, **kwargs)
            for row, text in zip(rows.tolist(), sequences, strict=True):
                answers[row] = text[part.shape[1] :]
        end, pad = (self._setting(name, None, kwargs) for name in ("eos_token_id", "pad_token_id"))
        padding = int(torch.as_tensor(0 if end is None else end).flatten()[0]) if pad is None else int(pad)
        answers = nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=padding)
        return torch.cat([input_ids, answers], dim=1)

    def _may_share(self, is_thought: torch.BoolTensor, generation_config, kwargs: dict) -> bool:
        """Whether a call of `generate` returns nothing that would be another behind a prefix in other columns."""
        others = "return_dict_in_generate assistant_model custom_generate".split()
        whole = is_thought.device.type == "cpu" and (is_thought.sum(1) == self.config.num_thoughts).all()
        return bool(whole) and not any(self._setting(name, generation_config, kwargs) for name in others)

    def _may_draft(self, generation_config, kwargs: dict) -> bool:
        """Whether a call of `generate` decodes greedily, with a cache, and returns the text alone."""
        others = "do_sample return_dict_in_generate assistant_model prompt_lookup_num_tokens custom_generate".split()
        return (
            not any(self._setting(name, generation_config, kwargs) for name in others)
            and self._setting("num_beams", generation_config, kwargs) in (None, 1)
            and self._setting("use_cache", generation_config, kwargs) is not False
        )

    def _sample(
        self,
        input_ids: torch.LongTensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        streamer: BaseStreamer | None = None,
        drafts: torch.LongTensor | None = None,
        prefix: States | None = None,
        **model_kwargs,
    ):
        """
        As of every model. With `drafts` the first pass reads them too: rows that it confirms to their end are done, the
        others go on behind what all of them have in common with their drafts.
        """
        controls, length = (logits_processor, stopping_criteria, generation_config), input_ids.shape[1]
        cache, may_draft = model_kwargs.get(CACHE), drafts is not None and not synced_gpus
        may_draft = may_draft and _may_draft(*controls, len(input_ids), streamer, cache)
        if prefix is not None and _is_plain(cache):
            fill(cache, prefix, len(input_ids))
        if not may_draft:
            return super()._sample(input_ids, *controls, synced_gpus=synced_gpus, streamer=streamer, **model_kwargs)
        drafts = drafts[:, : stopping_criteria.max_length - length - 1]
        count, batch = drafts.shape[1], input_ids.shape[:1]
        drafted = torch.cat([input_ids, drafts.clamp(min=0)], dim=1)
        unread, longer = drafted.shape[1] - cache.get_seq_length(), _longer(model_kwargs, count)
        inputs = self.prepare_inputs_for_generation(drafted, is_first_iteration=True, **longer)
        inputs |= {name: inputs[name][:, -unread:] for name in ("inputs_embeds", "position_ids") if name in inputs}
        logits = self(**(inputs | {"logits_to_keep": count + 1}), return_dict=True).logits
        ends = [each.eos_token_id for each in stopping_criteria if type(each) is EosTokenCriteria]
        ends = torch.cat(ends).to(drafts) if ends else drafts.new_empty(0)
        written, agreed = [], drafts.new_zeros(len(drafts))
        for place in range(count + 1):  # processors are shown no more than they would be token by token
            scores = logits[:, place].to(input_ids.device, torch.float32, copy=True)
            written.append(logits_processor(drafted[:, : length + place], scores).argmax(-1))
            if place == count:
                break
            agreed += (agreed == place) & (written[-1] == drafts[:, place]) & ~torch.isin(written[-1], ends)
            if not (agreed > place).any():
                break
        written = torch.stack(written, dim=1)
        last = written.gather(1, agreed[:, None])[:, 0]
        rows = ~torch.isin(last, ends) & (length + agreed + 1 < stopping_criteria.max_length)
        rows = rows.nonzero().flatten()  # that go on
        answers = [row[: number + 1] for row, number in zip(written, agreed.tolist(), strict=True)]
        if streamer is not None:
            for token in answers[0].cpu().split(1):
                streamer.put(token)
            if not len(rows):
                streamer.end()
        if len(rows):
            common = int(agreed[rows].min()) + 1
            input_ids = torch.cat([input_ids, written[:, :common]], dim=1)
            model_kwargs = _longer(model_kwargs, common)
            del model_kwargs["inputs_embeds"]
            if model_kwargs.get("attention_mask") is None:
                model_kwargs["attention_mask"] = torch.ones_like(input_ids)
            for key, value in model_kwargs.items():
                if isinstance(value, torch.Tensor) and value.shape[:1] == batch:
                    model_kwargs[key] = value[rows]
            for layer in cache.layers:  # the last token has not been read
                layer.keys, layer.values = (part[rows, :, : length + common - 1] for part in (layer.keys, layer.values))
            output = super()._sample(input_ids[rows], *controls, streamer=streamer, **model_kwargs)
            for row, text in zip(rows.tolist(), output, strict=True):
                answers[row] = text[length:]
        padding = getattr(generation_config, "_pad_token_tensor", None)
        padding = 0 if padding is None else int(padding)
        answers = nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=padding)
        return torch.cat([input_ids[:, :length], answers], dim=1)


def _matters(name: str, value: object) -> bool:
    """Whether a setting of `generate` may look at more than a row's own tokens."""
    nothing = value is None or value is False or isinstance(value, (int, float)) and value == NEUTRAL.get(name)
    return name not in HARMLESS_SETTINGS and not nothing


def _may_draft(
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    rows: int,
    streamer: BaseStreamer | None,
    cache: Cache | None,
) -> bool:
    """Whether a pass over several tokens, and for several rows on without those that are done, changes nothing."""
    greedy = not (generation_config.do_sample or generation_config.return_dict_in_generate)
    counted = all(type(each) in (MaxLengthCriteria, EosTokenCriteria) for each in stopping_criteria)
    by_row = streamer is None and all(type(each) is SuppressTokensLogitsProcessor for each in logits_processor)
    return greedy and counted and (rows == 1 or by_row) and _is_plain(cache)


def _is_plain(cache: Cache | None) -> bool:
    """True for an empty cache that will keep keys and values of each token, in every layer."""
    return (
        type(cache) is DynamicCache
        and not cache.offloading
        and bool(cache.layers)
        and all(type(layer) is DynamicLayer for layer in cache.layers)
        and not cache.get_seq_length()
    )


def _longer(model_kwargs: dict, count: int) -> dict:
    """What a pass is told of a batch, for so many tokens more."""
    longer = dict(model_kwargs)
    if (mask := longer.get("attention_mask")) is not None:
        longer["attention_mask"] = nn.functional.pad(mask, (0, count), value=1)
    if (places := longer.get("position_ids")) is not None:
        following = torch.arange(1, count + 1, device=places.device) + places[:, -1:]
        longer["position_ids"] = torch.cat([places, following], dim=1)
    return longer


class PromptStreamer(BaseStreamer):
    """Hands the streamer the prompt that the caller passed, placeholders included."""

    def __init__(self, streamer: BaseStreamer, prompt: torch.LongTensor) -> None:
        self.streamer, self.prompt = streamer, prompt

    def put(self, value: torch.Tensor) -> None:
        if self.prompt is not None:
            value, self.prompt = self.prompt.cpu(), None
        self.streamer.put(value)

    def end(self) -> None:
        self.streamer.end()
