"""iCoT-SI: a chain of thought that is taken away token by token while the base goes on answering."""

import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semcot.evaluation.methods.trained import Problem, TrainedMethod


class ICoTSI(TrainedMethod):
    """
    Stepwise internalization (Deng et al. 2024, arXiv 2405.14838, section 3). Beginning with the whole reasoning z of m
    tokens, so many more are removed from its left as training goes on,

        L = CE(z_{1+s(t)+o : m}, cue, answer | question),    s(t) = ⌊Δ t / T⌋,    P(o) ∝ exp(-λ o)

    with t the step, T the steps of an epoch, Δ the tokens removed in one, and o drawn for each problem (removal
    smoothing). At each further removal the optimizer forgets its state. When `num_tokens` are removed, so are all
    others, and the base is trained to answer alone. The reasonings are the condensed ones, as the paper's of GSM8K are.

    Args:
        num_tokens: removed one after another; then all are (the paper's GSM8K runs: 39).
        removal: the share of training in which they are, so that Δ = num_tokens / (removal · epochs).
        smoothing: λ; `inf` for no smoothing.
    """

    name = "icot_si"
    needs = ("condensed_reasoning", "answer")

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_tokens: int = 40,
        removal: float = 0.75,
        smoothing: float = 4.0,
    ) -> None:
        super().__init__(base, tokenizer)
        if num_tokens < 1 or not 0 < removal < 1 or not smoothing > 0:
            raise ValueError(
                "num_tokens must be at least 1, removal between 0 and 1, smoothing above 0, got "
                f"{num_tokens}, {removal} and {smoothing}."
            )
        self.num_tokens, self.removal, self.smoothing = num_tokens, removal, float(smoothing)

    def stage(self, progress: float) -> int:
        """s(t): how many tokens are removed; `num_tokens` for all."""
        # Rounded: 0.3 / 0.75 * 10 is a little below 4.
        return min(int(round(progress / self.removal * self.num_tokens, 6)), self.num_tokens)

    def removed(self, num_problems: int, stage: int) -> list[int | None]:
        """How many tokens each problem of a batch loses, s(t) + o; `None` for all."""
        if stage == self.num_tokens:
            return [None] * num_problems
        # o is geometric: the whole part of an exponential variable of rate λ.
        return [stage + int(random.expovariate(self.smoothing)) for _ in range(num_problems)]

    def loss(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        contexts, targets = [], []
        parts = zip(
            self.around([problem["question"] for problem in problems]),
            self.target_ids([f"{problem['condensed_reasoning'].strip()}\n" for problem in problems], end=False),
            self.target_ids([problem["answer"] for problem in problems]),
            self.removed(len(problems), stage),
            strict=True,
        )
        for (before, cue), reasoning, answer, removed in parts:
            contexts.append(before)
            targets.append(([] if removed is None else reasoning[removed:]) + cue + answer)
        return self.cross_entropy(contexts, targets)

    def prompt_ids(self, questions: Sequence[str]) -> list[list[int]]:
        return [before + cue for before, cue in self.around(questions)]
