"""LOTUS, latent tokens in parallel through a looped base, each supervised by a token."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicCache

from semcot.data import split_steps
from semcot.evaluation.methods.coconut import Coconut
from semcot.evaluation.methods.latent import next_token_loss
from semcot.evaluation.methods.method import padded
from semcot.evaluation.methods.trained import IGNORED, Problem


class Lotus(Coconut):
    """
    Bridging the Gap Between Latent and Explicit Reasoning with Looped Transformers (Fan et al. 2026, arXiv 2606.31779).

    Section 3: behind question and `<BoT>` stand K blocks of c latent tokens with embeddings E (of one token, as in the
    authors' code), one block for each step. The base f reads all of them at once, R times over, the question's keys and
    values C once for all:

        h^(0) = f(E | C),    h^(t) = f(E + h^(t-1) | C),    t = 1, …, R

    and the answer is read behind the R-th pass. Token j of step i is what the base's own head H makes of the latent in
    its place, `L_step = 1/N Σ_i Σ_j CE(H(h^(R)_ij), T_ij)` over the N tokens that have a place, and

        L = L_answer + λ L_step

    A latent is supervised in its own place, as this equation has it; the authors' code reads each token one column
    before. The curriculum is Coconut's: the written reasoning, then step after step in blocks. The paper starts from a
    model that is fine-tuned on written reasonings, here the first stage, and keeps its optimizer through the stages.

    Args:
        base, tokenizer: as for every trained method.
        max_stage: K, as many as the most steps of a problem; further steps are left out.
        thoughts_per_step: c, as many as the tokens of a step; further tokens are not supervised.
        loops: R.
        step_weight: λ.
        first_share, stage_share: of training, for the written reasonings and for each stage but the last.
    """

    name = "lotus"

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_stage: int = 4,
        thoughts_per_step: int = 13,
        loops: int = 6,
        step_weight: float = 0.05,
        first_share: float = 0.2,
        stage_share: float = 0.04,
    ) -> None:
        super().__init__(
            base,
            tokenizer,
            max_stage=max_stage,
            thoughts_per_step=thoughts_per_step,
            first_share=first_share,
            stage_share=stage_share,
        )
        if loops < 1:
            raise ValueError(f"loops must be at least 1, got {loops}.")
        self.loops, self.step_weight = loops, step_weight
        self.latent = self.mark()

    def latents(
        self, question: torch.FloatTensor, mask: torch.LongTensor, num_latents: int
    ) -> tuple[torch.FloatTensor, Cache]:
        """What the R-th pass reads, `E + h^(R-1)`; the pass itself is the one that reads on to the answer."""
        cache = DynamicCache(config=self.base.config)
        placeholders = self.latent.to(question.dtype).expand(len(question), num_latents, -1)
        latents = placeholders
        for _ in range(self.loops):
            states = self.read(torch.cat([question, latents], dim=1), mask, cache)[:, -num_latents:]
            cache.crop(-num_latents)
            latents = placeholders + states.to(question.dtype)
        return latents, cache

    def loss(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        spelt = self.step_labels(problems, stage)
        outputs, labels = self.predict_stage(problems, stage, before=spelt.shape[1])
        loss = next_token_loss(outputs.logits, labels)
        if not stage:
            return loss
        logits = outputs.logits[:, : spelt.shape[1]].flatten(0, 1).float()
        return loss + self.step_weight * nn.functional.cross_entropy(logits, spelt.flatten(), ignore_index=IGNORED)

    def step_labels(self, problems: Sequence[Problem], stage: int) -> torch.LongTensor:
        """The token of each latent in this stage, `(batch, latents)`: those of a step in its block, then -100."""
        blocks, width = min(stage, self.max_stage), self.thoughts_per_step
        rows = []
        for problem in problems:
            steps = self.target_ids(split_steps(problem["condensed_reasoning"])[:blocks], end=False)
            row = [token for step in steps for token in [*step[:width], *[IGNORED] * (width - len(step))]]
            rows.append(row + [IGNORED] * (blocks * width - len(row)))
        return padded(rows, IGNORED, "right", self.device)[0]
