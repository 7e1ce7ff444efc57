"""What a checkpoint's thoughts mean, for the record and the report's plots: what they spell, and their alignment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from modeling_semcot import SemCoTForCausalLM
from semcot.evaluation.alignment import (
    POOL,
    MeanStates,
    cosines,
    likelihoods,
    mean_states,
    reasoning_of,
    retrieval,
    think_all,
)
from semcot.evaluation.judging import Row
from semcot.evaluation.reading import spelling_shares, with_spelling

SHOWN = 40
"""Problems in the heat map and in the plane."""


@dataclass
class Thoughts:
    """
    Args:
        rows: SemCoT's predictions, with `thoughts`, the tokens that are spelt, and `spells_result`.
        reading: see `spelling_shares`.
        alignment: see `retrieval`, `by` tokens and by states; empty where a problem has no reasoning.
        likelihood: `(shown, shown)`, of reasonings under thoughts; `None` then.
        plane: `(2, shown, 2)`, thoughts and reasonings on the first two principal components of both; `None` then.
    """

    rows: list[Row]
    reading: Row
    alignment: list[Row]
    likelihood: np.ndarray | None = None
    plane: np.ndarray | None = None


def study_thoughts(
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[dict[str, str]],
    predictions: Sequence[Row],
    batch_size: int = 16,
) -> Thoughts:
    """Reads the thoughts of problems that SemCoT answered, `predictions` in the same order."""
    rows = with_spelling(model, tokenizer, predictions, batch_size)
    problems = problems[:POOL]
    texts = list(map(reasoning_of, problems))
    if not all(texts):
        return Thoughts(rows, spelling_shares(rows), [])
    thoughts, spelt = think_all(model, tokenizer, [problem["question"] for problem in problems], batch_size)
    states = mean_states(model, tokenizer, thoughts, texts, batch_size)
    likeness = {"tokens": likelihoods(model, tokenizer, spelt, texts), "states": cosines(states)}
    found = [{"by": name, **retrieval(matrix, texts)} for name, matrix in likeness.items()]
    shown = likeness["tokens"][:SHOWN, :SHOWN].cpu().numpy()
    return Thoughts(rows, spelling_shares(rows), found, shown, _plane(states)[:, :SHOWN])


def _plane(states: MeanStates) -> np.ndarray:
    """Principal components of the states, each kind brought to the same mean length."""
    # States that are all the same, such as a single one, are of no length, less their mean.
    points = torch.cat([kind / kind.norm(dim=-1).mean().clamp(min=1e-9) for kind in states]).cpu().double().numpy()
    _, _, axes = np.linalg.svd(points, full_matrices=False)
    return (points @ axes[:2].T).reshape(2, -1, 2)
