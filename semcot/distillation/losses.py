"""The losses of stage 2, each as what a batch adds: a sum, and over how many it is a mean."""

from typing import NamedTuple

import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F

from semcot.data.step_ends import IGNORED
from semcot.encoder import encode_thoughts


class Term(NamedTuple):
    """A batch's part of a figure, which is the sum of totals over the sum of counts."""

    total: torch.Tensor
    count: torch.Tensor


def answer_loss(logits: torch.FloatTensor, labels: torch.LongTensor) -> Term:
    """
    Cross-entropy of the answer's tokens, the base reading the thoughts (SemCoT, arXiv 2510.24940, section 4.3).

    Args:
        logits, labels: `(batch, length, vocabulary)` and `(batch, length)`, label i predicted by logits i.
    """
    total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return Term(total, (labels != IGNORED).sum())


def alignment_loss(
    encoder: SentenceTransformer, thoughts: torch.FloatTensor, reasoning_embedding: torch.FloatTensor
) -> Term:
    """
    Semantic alignment: 1 - cos(encoder(thoughts), encoder(reasoning)) (SemCoT, arXiv 2510.24940, section 4.3).

    Args:
        thoughts: `(batch, K, hidden)`.
        reasoning_embedding: `(batch, dim)`, zero for a problem without reasoning, which is left out.
    """
    meaning, has_reasoning = encode_thoughts(encoder, thoughts), reasoning_embedding.any(-1)
    distances = 1 - F.cosine_similarity(meaning, reasoning_embedding.to(meaning), dim=-1)
    return Term((distances * has_reasoning).sum(), has_reasoning.sum())


def token_supervision_loss(scores: torch.FloatTensor, labels: torch.LongTensor) -> Term:
    """
    Token or step supervision: cross-entropy of the tokens of the condensed reasoning that the thoughts are to spell, a
    mean within each row (SIM-CoT, arXiv 2509.20317; LOTUS, arXiv 2606.31779). Here the thoughts are read with the
    base's own token embeddings, which costs no pass of a model (a logit lens).

    Args:
        scores, labels: `(batch, K, tokens)`, the likeness of each thought to each token, and `(batch, K)`.
    """
    losses = F.cross_entropy(scores.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    num_labels = (labels != IGNORED).sum(1)
    return Term((losses.sum(1) / num_labels.clamp(min=1)).sum(), (num_labels > 0).sum())


def exact_matches(scores: torch.FloatTensor, labels: torch.LongTensor) -> Term:
    """Rows whose labels are all the likeliest tokens, of the rows that have any."""
    has_labels = (labels != IGNORED).any(1)
    right = ((scores.argmax(-1) == labels) | (labels == IGNORED)).all(1)
    return Term((right & has_labels).sum(), has_labels.sum())
