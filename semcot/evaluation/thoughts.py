"""What a checkpoint's thoughts mean, for the record and the report's plots: what they spell, and their alignment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from modeling_semcot import SemCoTForCausalLM
from semcot.evaluation.alignment import LAYER, LAYERS, POOL, MeanStates, alignment, cosines, mean_states, reasoning_of
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
        alignment: see `alignment`; empty where a problem has no reasoning.
        cosine: `(shown, shown)`, of thoughts and reasonings; `None` then.
        plane: `(2, shown, 2)`, thoughts and reasonings on the first two principal components of both; `None` then.
    """

    rows: list[Row]
    reading: Row
    alignment: list[Row]
    cosine: np.ndarray | None = None
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
    states = mean_states(model, tokenizer, problems, batch_size)
    cosine = cosines(states)[:SHOWN, :SHOWN].cpu().numpy()
    return Thoughts(rows, spelling_shares(rows), alignment(states, texts), cosine, _plane(states)[:, :SHOWN])


def _plane(states: MeanStates) -> np.ndarray:
    """Principal components of the states of `LAYER`, each kind brought to the same mean length."""
    kinds = [kind[LAYERS.index(LAYER)] for kind in states]
    points = torch.cat([kind / kind.norm(dim=-1).mean() for kind in kinds]).cpu().double().numpy()
    _, _, axes = np.linalg.svd(points, full_matrices=False)
    return (points @ axes[:2].T).reshape(2, -1, min(2, len(axes)))
