"""Pause tokens: more computation before the answer, but no thoughts."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semcot.evaluation.methods.trained import Problem, TrainedMethod


class Pause(TrainedMethod):
    """
    Pause-finetuning of a base that was pretrained without (Goyal et al. 2024, arXiv 2310.02226, section 3): M copies of
    one learnt `<pause>` token are appended to the prefix p, the outputs up to the last one ignored, and the whole base
    fine-tuned on the target t alone,

        L = 1/T Σ_k CE(t_{k+1}, f(p_{1:N}, <pause>_{1:M}, t_{1:k}))

    Here the prefix is the prompt with its cue, the target the answer.

    Args:
        num_pauses: M; 10 and 50 in the paper.
    """

    name = "pause"

    def __init__(self, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, num_pauses: int = 10) -> None:
        super().__init__(base, tokenizer)
        if num_pauses < 1:
            raise ValueError(f"num_pauses must be at least 1, got {num_pauses}.")
        self.num_pauses = num_pauses
        # Started at the mean of all tokens, as new ones are by transformers' resize_token_embeddings.
        self.pause = nn.Parameter(base.get_input_embeddings().weight.detach().mean(0))

    def loss(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        contexts = self.prompt_ids([problem["question"] for problem in problems])
        return self.cross_entropy(contexts, self.target_ids([problem["answer"] for problem in problems]), self.pause)

    def prompt_ids(self, questions: Sequence[str]) -> list[list[int]]:
        return [before + cue + [self.thought_id] * self.num_pauses for before, cue in self.around(questions)]

    def generate(self, **inputs) -> torch.LongTensor:
        return self.generate_after(self.pause, **inputs)
