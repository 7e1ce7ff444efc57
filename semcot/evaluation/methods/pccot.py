"""PCCoT, continuous thoughts by Jacobi iteration."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicCache

from semcot.evaluation.methods.codi import Codi


class PCCoT(Codi):
    """
    Parallel Continuous Chain-of-Thought with Jacobi Iteration (Wu et al. 2025, arXiv 2506.18582).

    CODI's model and loss, but the thoughts are not computed one after another. First c dummy tokens `<latent>` stand
    behind `<bot>`, and a first pass f over all gives states `H^(0)`; then T times at once for every thought

        H^(t) = f([x_1, …, <bot>, h^(t-1)_<bot>, h^(t-1)_1, …, h^(t-1)_(c-1)])

    the state of the column before, through CODI's projection, is read anew; behind the T-th such pass stands the
    answer. Attention looks back only, so that the first j thoughts are those of the sequential computation after j
    iterations, and T = c gives CODI. The T-th pass is the one that reads on to the answer.

    Args:
        base, tokenizer, distillation_weight, with_last_step: as for CODI.
        num_latents: c.
        iterations: T.
    """

    name = "pccot"

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_latents: int = 24,
        iterations: int = 3,
        distillation_weight: float = 1.0,
        with_last_step: bool = False,
    ) -> None:
        super().__init__(
            base,
            tokenizer,
            num_latents=num_latents,
            distillation_weight=distillation_weight,
            with_last_step=with_last_step,
        )
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}.")
        self.iterations = iterations
        self.dummy = self.mark()

    def latents(
        self, question: torch.FloatTensor, mask: torch.LongTensor, num_latents: int
    ) -> tuple[torch.FloatTensor, Cache]:
        cache = DynamicCache(config=self.base.config)
        latents = self.dummy.to(question.dtype).expand(len(question), num_latents, -1)
        states = self.read(torch.cat([question, latents], dim=1), mask, cache)
        cache.crop(-num_latents)
        first, states = states[:, -num_latents - 1 : -num_latents], states[:, -num_latents:]
        for t in range(self.iterations):
            if t:
                states = self.read(torch.cat([question, latents], dim=1), mask, cache)
                cache.crop(-num_latents)
            latents = self.project(torch.cat([first, states[:, :-1]], dim=1)).to(question.dtype)
        return latents, cache
