"""Coconut, the chain of continuous thought."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import CausalLMOutputWithPast

from semcot.evaluation.methods.latent import ChainOfLatents, next_token_loss
from semcot.evaluation.methods.trained import Problem


class Coconut(ChainOfLatents):
    """
    Training Large Language Models to Reason in a Continuous Latent Space (Hao et al. 2024, arXiv 2412.06769).

    Section 3: between `<bot>` and `<eot>` the model reads no tokens but its own last hidden states, each one column on,
    `E_t = [e(x_1), …, e(x_i), h_i, h_(i+1), …, h_(t-1)]`. It is trained by a curriculum: first it learns to write
    reasonings. In stage k the first k steps are gone and k · c thoughts stand for them; in the last stage all steps are
    gone, and there are no more thoughts than before. The loss is the cross-entropy of all that stands behind the
    thoughts, and the optimizer starts afresh with each stage. The shares of the stages are those of the paper's GSM8K:
    6 epochs, then 3 for each, 50 in all. At test time there are always as many thoughts as in the last stage.

    Args:
        base, tokenizer: as for every trained method.
        max_stage: the most steps that thoughts stand for.
        thoughts_per_step: c.
        first_share, stage_share: of training, for the written reasonings and for each stage but the last.

    Raises:
        ValueError: there would be no thoughts, or no last stage.
    """

    name = "coconut"

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_stage: int = 3,
        thoughts_per_step: int = 2,
        first_share: float = 0.12,
        stage_share: float = 0.06,
    ) -> None:
        super().__init__(base, tokenizer, max_stage * thoughts_per_step)
        if stage_share <= 0 or first_share + max_stage * stage_share >= 1:
            raise ValueError(
                f"{self.name} needs a stage_share above 0, and first_share + max_stage * stage_share below 1, for "
                f"the last stage; got {first_share} + {max_stage} * {stage_share}."
            )
        self.max_stage, self.thoughts_per_step = max_stage, thoughts_per_step
        self.first_share, self.stage_share = first_share, stage_share

    def stage(self, progress: float) -> int:
        """From 0, where reasonings are written, to `max_stage + 1`, where none are."""
        if progress < self.first_share:
            return 0
        # Rounded: (0.24 - 0.2) / 0.04 is a little below 1.
        return min(self.max_stage + 1, 1 + int(round((progress - self.first_share) / self.stage_share, 6)))

    def loss(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        outputs, labels = self.predict_stage(problems, stage)
        return next_token_loss(outputs.logits, labels)

    def predict_stage(
        self, problems: Sequence[Problem], stage: int, before: int = 0
    ) -> tuple[CausalLMOutputWithPast, torch.LongTensor]:
        """Outputs and labels of a batch in this stage, as [`LatentMethod.predict`] gives them."""
        steps = slice(stage, None) if stage <= self.max_stage else slice(0)
        texts = [text + answer for text, answer in self.texts(problems, steps)]
        return self.predict(problems, texts, min(stage, self.max_stage) * self.thoughts_per_step, before)
