"""The implicit chain of thought: K implicit tokens of the generator, then the answer."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semcot.evaluation.methods.method import Method
from semcot.tokenization import render_prompt


class SemCoT(Method):
    """The checkpoint as it is meant to be used."""

    name = "semcot"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(model, tokenizer)
        self.model = model

    def prompts(self, questions: Sequence[str]) -> list[str]:
        return [render_prompt(self.tokenizer, question) for question in questions]

    def generate(self, **inputs) -> torch.LongTensor:
        return self.model.generate(**inputs)
