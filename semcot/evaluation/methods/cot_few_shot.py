"""The explicit chain of thought after examples of one."""

import random
from collections.abc import Sequence
from typing import Self

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semcot.data import load_problems
from semcot.evaluation.methods.cot import INSTRUCTION, OPENING, ExplicitCoT
from semcot.evaluation.methods.trained import Problem
from semcot.tokenization import THOUGHT_TOKEN

NUM_EXAMPLES = 4


class FewShotCoT(ExplicitCoT):
    """
    Few-shot chain of thought (Wei et al. 2022, arXiv 2201.11903): problems with their reasonings and answers stand
    before the question, as earlier turns of the chat.

    `cot_few_shot=DATA` draws them from the train split of this data set or file, `cot_few_shot=DATA,8` so many.

    Args:
        examples: the problems, with `reasoning`.
    """

    name = "cot_few_shot"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Problem]) -> None:
        super().__init__(model, tokenizer)
        self.examples = list(examples)

    @classmethod
    def open(cls, source: str | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **loading) -> Self:
        if source is None:
            raise ValueError(f"{cls.name} needs examples: give {cls.name}=DATA, a data set or a file, or =DATA,NUMBER.")
        data, comma, number = source.rpartition(",")
        if not (comma and number.isdigit()):
            data, number = source, NUM_EXAMPLES
        problems = [row for row in load_problems(data, "train") if row["reasoning"]]
        if not 1 <= int(number) <= len(problems):
            raise ValueError(
                f"{cls.name}={source} asks for {number} examples; {len(problems)} problems of the train split have a "
                "reasoning."
            )
        return cls(model, tokenizer, random.Random(0).sample(problems, int(number)))

    def prompts(self, questions: Sequence[str]) -> list[str]:
        asks, opens = (INSTRUCTION, "") if self._has_chat_format else ("", OPENING)
        turns = []
        for example in self.examples:
            written = f"{opens} {example['reasoning'].strip()}\nAnswer: {example['answer']}".strip()
            turns.append({"role": "user", "content": example["question"] + asks})
            turns.append({"role": "assistant", "content": written})
        prompts = []
        for question in questions:
            chat = [*turns, {"role": "user", "content": question + asks}]
            prompt = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            before, _, cue = prompt.rpartition(THOUGHT_TOKEN)
            before = before.replace(THOUGHT_TOKEN, "")
            prompts.append(before if self._has_chat_format else before + cue + opens)
        return prompts
