"""
One question answered three ways by the same frozen base, each timed alone: for the page and the terminal.

At once (direct), after writing the reasoning out (cot), and after the implicit tokens of the checkpoint (semcot).
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteriaList

from semcot.answers import answer_kind, normalize_answer, parse_answer
from semcot.evaluation.measure import check_questions
from semcot.evaluation.methods import METHODS, Output
from semcot.tokenization import render_prompt, tokenize_prompts


class TimedAnswer(NamedTuple):
    """A text, its number of tokens, with the end-of-sequence token, milliseconds, and whether it lacks an end."""

    text: str
    num_tokens: int
    milliseconds: float
    cut_off: bool = False


class Comparison:
    """
    A checkpoint and its base, ready to answer from any thread. One answer at a time is computed, so that the time of
    each is its own; a stream lets the others go first after each of its tokens, and its clock stands still meanwhile.

    Args:
        model: a loaded SemCoT checkpoint.
        tokenizer: its tokenizer.
    """

    NAMES = ("direct", "semcot", "cot")

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.methods = {name: METHODS[name](model, tokenizer) for name in self.NAMES}
        self._turn = threading.Condition()
        self._waiting: set[int] = set()
        for method in self.methods.values():
            method.answer(["How many?"], max_new_tokens=2)  # the first call is not typical

    def check(self, question: str) -> None:
        """Raises `ValueError`, with a sentence for whoever asked, where a question cannot be put to all three."""
        if not question.strip():
            raise ValueError("There is no question yet: type one, or take an example.")
        for method in self.methods.values():
            check_questions(method, [question], method.max_new_tokens)

    def answer(self, name: str, question: str) -> TimedAnswer:
        """The answer of `direct`, `semcot` or `cot`."""
        with self._first():
            started = time.perf_counter()
            return _timed(self.methods[name].answer([question])[0], started)

    def stream(self, name: str, question: str) -> Iterator[TimedAnswer]:
        """The answer as it stands after each token, and at last the whole one; a reader who leaves ends it."""
        method, parts, is_left = self.methods[name], SimpleQueue(), threading.Event()

        def write() -> TimedAnswer:
            with self._turn:
                self._let_others_go_first()
                started, prompt_length = time.perf_counter(), None

                def after_token(input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> bool:
                    nonlocal started, prompt_length
                    now = time.perf_counter()
                    prompt_length = input_ids.shape[1] - 1 if prompt_length is None else prompt_length
                    new = input_ids[0, prompt_length:]
                    text = self.tokenizer.decode(new, skip_special_tokens=True)
                    parts.put(TimedAnswer(text, len(new), (now - started) * 1000, cut_off=True))
                    self._let_others_go_first()
                    started += time.perf_counter() - now
                    return is_left.is_set()

                output = method.answer([question], stopping_criteria=StoppingCriteriaList([after_token]))[0]
                return _timed(output, started)

        writer = ThreadPoolExecutor(1)
        whole = writer.submit(write)
        whole.add_done_callback(lambda _: parts.put(None))
        try:
            yield from iter(parts.get, None)
            yield whole.result()
        finally:
            is_left.set()
            writer.shutdown(wait=False)

    def read_thoughts(self, question: str) -> list[tuple[str, float]]:
        """Of each implicit token the nearest word of the base's vocabulary and its probability."""
        prompt = tokenize_prompts(self.tokenizer, [render_prompt(self.tokenizer, question)]).to(self.model.device)
        with self._first():
            token_ids, scores = self.model.read_thoughts(**prompt)
        ids = token_ids[0, :, 0].tolist()
        if self.model.config.adapter_rank and (end := self.model.end_of_reasoning) in ids:
            ids = ids[: ids.index(end) + 1]
        words = [self.tokenizer.decode([token]) for token in ids]
        return list(zip(words, scores[0, : len(ids), 0].tolist(), strict=True))

    def verdict(self, name: str, text: str, gold: str) -> str:
        """ "right" or "wrong", by the strict reading of a text; nothing where no gold answer is known."""
        if not gold:
            return ""
        parsed = parse_answer(text, answer_kind(gold), self.methods[name].explicit_reasoning)
        return "right" if parsed == normalize_answer(gold) else "wrong"

    @contextmanager
    def _first(self) -> Iterator[None]:
        """The machine for one answer, before any stream goes on."""
        self._waiting.add(me := threading.get_ident())
        with self._turn:
            self._waiting.discard(me)
            try:
                yield
            finally:
                self._turn.notify_all()

    def _let_others_go_first(self) -> None:
        self._turn.wait_for(lambda: not self._waiting)


def _timed(output: Output, started: float) -> TimedAnswer:
    return TimedAnswer(output.text, output.num_tokens, (time.perf_counter() - started) * 1000, output.cut_off)
