"""CODI, self-distillation of the hidden state before the answer."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from semcot.evaluation.methods.latent import ChainOfLatents, next_token_loss
from semcot.evaluation.methods.trained import Problem


class Codi(ChainOfLatents):
    """
    CODI: Compressing Chain-of-Thought into Continuous Space via Self-Distillation (Shen et al. 2025, arXiv 2502.21074).

    Section 3: one model learns two tasks at once, and the one from the other.

    - Teacher: question, written reasoning, cue, answer. `L_teacher` is the cross-entropy of the last three.
    - Student: question, `<bot>`, c continuous thoughts, `<eot>`, cue, answer. `L_student` is that of cue and answer. A
      thought is the last hidden state one column before, through two linear layers with GELU, and a layer norm.
    - `L_KD = 1/M Σ_l |sg[h_l(teacher)] - h_l(student)|` over the M layers, at the token before the answer, the colon of
      the cue, or the blank behind it where that is a token. The gradient stops at sg: the student comes to the teacher.

        L = L_teacher + L_student + γ L_KD

    As in the authors' code the distance is smooth L1 in units of the standard deviation of the teacher's states in that
    layer, and the teacher's reasoning lacks the last step, whose result would leave it nothing but to copy. At test
    time c is a setting and the question all that is read.

    Args:
        base, tokenizer: as for every trained method.
        num_latents: c.
        distillation_weight: γ, 1 for the paper's GPT-2, 20 for its Llama-3.2-1B.
        with_last_step: the teacher reads the last step, too.
    """

    name = "codi"

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_latents: int = 6,
        distillation_weight: float = 1.0,
        with_last_step: bool = False,
    ) -> None:
        super().__init__(base, tokenizer, num_latents)
        self.distillation_weight, self.with_last_step = distillation_weight, with_last_step
        width = len(self.begin)
        layers = nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width)
        self.projection = nn.Sequential(*layers).to(base.dtype)

    def project(self, states: torch.FloatTensor) -> torch.FloatTensor:
        return self.projection(states)

    def loss(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        teacher, student, distance = self.losses(problems)
        return teacher + student + self.distillation_weight * distance

    def losses(self, problems: Sequence[Problem]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`L_teacher`, `L_student` and `L_KD` of a batch."""
        losses, states = [], []
        for num_latents, steps in (
            (0, slice(None) if self.with_last_step else slice(-1)),
            (self.num_latents, slice(0)),
        ):
            texts = self.texts(problems, steps)
            outputs, labels = self.predict(problems, [a + b for a, b in texts], num_latents, output_hidden_states=True)
            places = [len(text) - bool(self.tokenizer.decode(answer[0]).strip()) for text, answer in texts]
            columns = torch.tensor(places, device=labels.device) - labels.shape[1]
            rows = torch.arange(len(labels), device=labels.device)
            states.append([layer[rows, columns] for layer in outputs.hidden_states[1:]])
            losses.append(next_token_loss(outputs.logits, labels))
        return *losses, distillation_loss(*states)


def distillation_loss(teacher: Sequence[torch.FloatTensor], student: Sequence[torch.FloatTensor]) -> torch.FloatTensor:
    """`L_KD` of the states `(batch, hidden size)` of each layer, with no gradient for the teacher's."""
    distances = []
    for target, state in zip(teacher, student, strict=True):
        target = target.detach().float()
        distances.append(nn.functional.smooth_l1_loss(state.float(), target) / target.std())
    return torch.stack(distances).mean()
