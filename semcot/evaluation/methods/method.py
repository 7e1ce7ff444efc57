"""The interface of all methods to compare: questions in, texts and token counts out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semcot.tokenization import THOUGHT_TOKEN, render_prompt, tokenize_prompts


class Output(NamedTuple):
    """A method's answer: its text, its number of tokens, with the end-of-sequence token, and whether it has an end."""

    text: str
    num_tokens: int
    cut_off: bool = False
    """It has all the tokens that were allowed, and none of them, nor a stop string, ends it."""


class Method(ABC):
    """
    A way to answer questions with a SemCoT checkpoint or the base inside it. Greedy, unless `sampling` says otherwise.

    Args:
        model: a loaded SemCoT checkpoint.
        tokenizer: its tokenizer.
    """

    name: ClassVar[str]
    max_new_tokens: ClassVar[int] = 16
    explicit_reasoning: ClassVar[bool] = False
    """The output holds the reasoning before the answer; otherwise the prompt ends with the answer cue."""
    stop_string: str | None = None
    """Text that ends an answer, besides the end-of-sequence tokens."""
    sampling: Mapping[str, Any] = MappingProxyType({"do_sample": False})
    """How `generate` chooses tokens."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer
        ends = model.generation_config.eos_token_id
        ends = [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id]
        self.end_ids = sorted({token_id for token_id in ends if token_id is not None})

    @abstractmethod
    def prompts(self, questions: Sequence[str]) -> list[str]:
        """The whole prompt of each question."""

    def generate(self, **inputs) -> torch.LongTensor:
        """Continues `input_ids` `(batch, length)`; returns `(batch, length + new)`. By default with the plain base."""
        return self.model.language_model.generate(**inputs)

    def answer(self, questions: Sequence[str], max_new_tokens: int | None = None) -> list[Output]:
        """Answers a batch of questions, padded on the left. `max_new_tokens` is the method's own by default."""
        limit = max_new_tokens or self.max_new_tokens
        batch = tokenize_prompts(self.tokenizer, self.prompts(questions)).to(self.model.device)
        sequences = self.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=limit,
            **self.sampling,
            # Some bases ship with others, and no longer take the likeliest token, or read all again for each.
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            use_cache=True,
            eos_token_id=self.end_ids,
            pad_token_id=self.tokenizer.pad_token_id,
            **({"stop_strings": self.stop_string, "tokenizer": self.tokenizer} if self.stop_string else {}),
        )
        new = sequences[:, batch.input_ids.shape[1] :]
        is_end = torch.isin(new, torch.tensor(self.end_ids, device=new.device))
        is_written = (is_end.cumsum(1) - is_end.long() == 0) & (is_end | (new != self.tokenizer.pad_token_id))
        rows = [row[written].tolist() for row, written in zip(new, is_written, strict=True)]
        if self.stop_string and self.tokenizer.pad_token_id in self.end_ids:
            # What follows the stop string is padding, and only looks like an end that was written.
            rows = [row[:-1] if self.stop_string in self.tokenizer.decode(row[:-1]) else row for row in rows]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [Output(text, len(row), self._cut_off(row, text, limit)) for text, row in zip(texts, rows, strict=True)]

    def _cut_off(self, row: list[int], text: str, limit: int) -> bool:
        stopped = self.stop_string is not None and self.stop_string in text
        return len(row) >= limit and row[-1] not in self.end_ids and not stopped


def prompt_without_thoughts(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The SemCoT prompt of a question, cue included, less the thoughts: for the plain base."""
    return render_prompt(tokenizer, question).replace(THOUGHT_TOKEN, "")
