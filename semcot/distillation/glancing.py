"""
Glancing: in training the generator reads some of the tokens that its thoughts are to spell (GLAT, Qian et al. 2021,
arXiv 2008.07905, made for translating all words at once).

Without it each thought has to find its operands in the question and compute with them before any of this pays. A glance
at the others makes every part of that a lesson of its own: the next token of a written reasoning, a result of operands
that stand there, the operands themselves. What is glanced at is not asked for.
"""

import torch

from semcot.data.step_ends import IGNORED

UNAIDED = 0.4
"""Share of a stage's steps, its last ones, without a glance."""


def glances_at(thought_labels: torch.LongTensor, most: float, draw: torch.Generator | None = None) -> torch.LongTensor:
    """
    The tokens that are glanced at, `(batch, K)`, -100 elsewhere: of each row a share drawn evenly from 0 to `most`.

    Args:
        thought_labels: `(batch, K)`, the tokens to spell, -100 where there are none.
    """
    shares = torch.rand(len(thought_labels), 1, generator=draw) * most
    seen = torch.rand(thought_labels.shape, generator=draw) < shares
    return thought_labels.where(seen.to(thought_labels.device), IGNORED)


def glancing_left(progress: float) -> float:
    """How much of the first step's glancing is left, from 1 to 0, at `progress` of a stage, from 0 to 1."""
    return max(0.0, 1 - progress / (1 - UNAIDED))
