"""The interface of all methods to compare: questions in, texts and token counts out."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semcot.tokenization import THOUGHT_TOKEN, render_prompt


class Output(NamedTuple):
    """A method's answer: its text, its number of tokens, with the end-of-sequence token, and whether it has an end."""

    text: str
    num_tokens: int
    cut_off: bool = False
    """It has all the tokens that were allowed, and none of them, nor a stop string, ends it."""


class Method(ABC):
    """
    A way to answer questions with a SemCoT checkpoint or a base alone. Greedy, unless `sampling` says otherwise.

    Args:
        model: a loaded SemCoT checkpoint, whose base is taken, or a base.
        tokenizer: of a SemCoT checkpoint on this base (`semcot.tokenization.build_tokenizer`).
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
        super().__init__()
        self.base = getattr(model, "language_model", model)
        self.tokenizer = tokenizer
        ends = model.generation_config.eos_token_id
        ends = [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id]
        self.end_ids = sorted({token_id for token_id in ends if token_id is not None})

    @classmethod
    def open(cls, source: str | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **loading) -> Self:
        """
        The method as `NAME=SOURCE` names it beside a loaded checkpoint.

        Raises:
            ValueError: this method takes no source.
        """
        if source is not None:
            raise ValueError(f"{cls.name} has nothing to load: give {cls.name}, without ={source}.")
        return cls(model, tokenizer)

    @property
    def device(self) -> torch.device:
        """Where the base is."""
        return self.base.device

    @abstractmethod
    def prompts(self, questions: Sequence[str]) -> list[str]:
        """The whole prompt of each question."""

    def prompt_ids(self, questions: Sequence[str]) -> list[list[int]]:
        """The token ids of the prompts."""
        return self.tokenizer(self.prompts(questions), add_special_tokens=False).input_ids

    def beside(self, questions: Sequence[str]) -> dict[str, Any]:
        """What `generate` takes beside the prompts."""
        return {}

    def generate(self, **inputs) -> torch.LongTensor:
        """Continues `input_ids` `(batch, length)`; returns `(batch, length + new)`. By default with the plain base."""
        return self.base.generate(**inputs)

    @torch.no_grad()
    def answer(self, questions: Sequence[str], max_new_tokens: int | None = None, **options) -> list[Output]:
        """
        Answers a batch of questions, padded on the left. `max_new_tokens` is the method's own by default; `options`,
        such as stopping criteria, go to `generate`.
        """
        limit = max_new_tokens or self.max_new_tokens
        input_ids, attention_mask = padded(self.prompt_ids(questions), self.tokenizer.pad_token_id, "left", self.device)
        sequences = self.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            **self.beside(questions),
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
            **options,
        )
        new = sequences[:, input_ids.shape[1] :]
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


def padded(
    rows: Sequence[Sequence[int]], pad_token_id: int, side: str, device: torch.device | None = None
) -> tuple[torch.LongTensor, torch.LongTensor]:
    """Rows of token ids as `input_ids` and `attention_mask`, `(batch, length)`, padded on a side, left or right."""

    def together(parts: Iterable[Sequence[int]], value: int) -> torch.LongTensor:
        tensors = [torch.tensor(part, dtype=torch.long) for part in parts]
        return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side).to(device)

    return together(rows, pad_token_id), together(([1] * len(row) for row in rows), 0)


def prompt_without_thoughts(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The SemCoT prompt of a question, cue included, less the thoughts: for the plain base."""
    return render_prompt(tokenizer, question).replace(THOUGHT_TOKEN, "")
