"""A base that is fine-tuned, all of it, to write out what stands between question and answer."""

from collections.abc import Sequence

import torch

from semcot.evaluation.methods.trained import Problem, TrainedMethod


class FineTunedDirect(TrainedMethod):
    """
    No chain of thought: the base learns to write the answer behind the cue, as "No CoT" in iCoT-SI and Coconut.

        L = CE(answer | question)
    """

    name = "direct_finetuned"

    def loss(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        contexts = self.prompt_ids([problem["question"] for problem in problems])
        return self.cross_entropy(contexts, self.target_ids([problem["answer"] for problem in problems]))

    def prompt_ids(self, questions: Sequence[str]) -> list[list[int]]:
        return [before + cue for before, cue in self.around(questions)]


class FineTunedCoT(TrainedMethod):
    """
    The base learns to write the reasoning, then the cue, then the answer: `L = CE(reasoning, cue, answer | question)`.
    """

    name = "cot_finetuned"
    max_new_tokens = 256
    explicit_reasoning = True
    reasoning = "reasoning"
    """The column that is written out."""
    needs = (reasoning, "answer")

    def loss(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        contexts = self.prompt_ids([problem["question"] for problem in problems])
        texts = [f"{problem[self.reasoning].strip()}\nAnswer: {problem['answer']}" for problem in problems]
        return self.cross_entropy(contexts, self.target_ids(texts))

    def prompt_ids(self, questions: Sequence[str]) -> list[list[int]]:
        return [before for before, _ in self.around(questions)]


class FineTunedCondensedCoT(FineTunedCoT):
    """The same with the condensed reasoning, which is a fraction as long."""

    name = "cot_condensed_finetuned"
    reasoning = "condensed_reasoning"
    needs = (reasoning, "answer")
