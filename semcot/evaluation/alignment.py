"""
Semantic alignment: is each question's own reasoning found by its thoughts among all, and they by it?

Two ways to compare them. *By tokens*: how likely the thoughts, read with the base's token embeddings, make the ends of
the reasoning's steps, which token supervision teaches. *By states*: the cosine of the mean states of both in the base,
read at its input, where thoughts live; nothing was trained for that.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from building_semcot import decoder_layers
from modeling_semcot import SemCoTForCausalLM
from semcot.data import worked_steps
from semcot.data.step_ends import IGNORED, token_supervision_targets
from semcot.evaluation.judging import Row
from semcot.tokenization import render_prompt, tokenize_prompts

LAYER = 1
"""After how many of the base's layers states are compared: later ones hardly tell reasonings apart."""
MOST_STEPS = 3
"""Ends of so many last steps, at the most, are looked for in the thoughts: those that suit them best."""
POOL = 100
"""Among how many problems the own reasoning is looked for, at the most: shares of larger pools are smaller."""


class MeanStates(NamedTuple):
    """Of each text the mean over its tokens, after `LAYER` layers; both `(problems, hidden size)`."""

    thoughts: torch.FloatTensor
    reasonings: torch.FloatTensor


def reasoning_of(problem: dict[str, str]) -> str:
    """What a problem's thoughts stand for: its steps, or else its whole reasoning."""
    return worked_steps(problem) or problem["reasoning"]


@torch.no_grad()
def think_all(
    model: SemCoTForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], batch_size: int = 16
) -> tuple[torch.FloatTensor, torch.FloatTensor]:
    """The thoughts of all questions, `(questions, K, hidden size)`, and log-likelihoods of the tokens they spell."""
    thoughts, spelt = [], []
    for start in range(0, len(questions), batch_size):
        prompts = [render_prompt(tokenizer, question) for question in questions[start : start + batch_size]]
        states = model.generator_states(**tokenize_prompts(tokenizer, prompts).to(model.device))
        thoughts.append(model.project(states))
        spelt.append(model.spelt_scores(states).log_softmax(-1))
    return torch.cat(thoughts), torch.cat(spelt)


@torch.no_grad()
def likelihoods(
    model: SemCoTForCausalLM, tokenizer: PreTrainedTokenizerBase, spelt: torch.FloatTensor, texts: Sequence[str]
) -> torch.FloatTensor:
    """
    The mean log-likelihood of the tokens of each reasoning (columns) that thoughts (rows) are to spell, `(problems,
    problems)`: of the ends of its last one, two or three steps, whichever the thoughts make likeliest of their own; for
    thoughts in blocks, which spell whole reasonings, of the whole one. One too long for them is as unlikely as can be.
    """
    found, num_thoughts = [], spelt.shape[1]
    ends = range(1, min(MOST_STEPS, 1 + num_thoughts // 2) + 1)
    for steps in (0,) if model.config.adapter_rank else ends:
        columns = []
        for text in texts:
            targets = torch.tensor(token_supervision_targets(text, tokenizer, num_thoughts, steps))
            (places,) = (targets != IGNORED).nonzero(as_tuple=True)
            likelihood = spelt[:, places, targets[places]].mean(1)
            columns.append(likelihood if len(places) else spelt.min().expand(len(spelt)))
        found.append(torch.stack(columns, dim=1))
    return max(found, key=lambda matrix: matrix.diag().mean())


@torch.no_grad()
def mean_states(
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    thoughts: torch.FloatTensor,
    texts: Sequence[str],
    batch_size: int = 16,
) -> MeanStates:
    """
    The states of thoughts and reasonings in the base. Those of each kind are centred, as all texts share most of their
    mean state; a reasoning's tokens are given the thoughts' scale, which is many times theirs.
    """
    embed, starts = model.get_input_embeddings(), range(0, len(texts), batch_size)

    def reasonings() -> Iterator[tuple[torch.FloatTensor, torch.LongTensor]]:
        for start in starts:
            batch = list(texts[start : start + batch_size])
            # Padded on the right: each text begins at the base's first position.
            tokens = tokenizer(batch, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
            tokens = tokens.to(model.device)
            yield embed(tokens.input_ids), tokens.attention_mask

    read = [(part, torch.ones_like(part[..., 0], dtype=torch.long)) for part in thoughts.split(batch_size)]
    told = list(reasonings())
    own, theirs = (
        torch.cat([embeds[mask.bool()].float().norm(dim=-1) for embeds, mask in kind]) for kind in (read, told)
    )
    told = [(embeds * (own.mean() / theirs.mean()), mask) for embeds, mask in told]
    return MeanStates(*(_centred(torch.cat([_mean_state(model, *part) for part in kind])) for kind in (read, told)))


def _mean_state(model: SemCoTForCausalLM, embeds: torch.FloatTensor, mask: torch.LongTensor) -> torch.FloatTensor:
    """The mean states of texts `(batch, length, hidden size)` after `LAYER` layers; the layers above are not run."""
    base, found = model.language_model, []
    stack = decoder_layers(base.base_model)

    def keep(_, args: tuple, kwargs: dict) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    hook = stack[min(LAYER, len(stack) - 1)].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        base.base_model(inputs_embeds=embeds.to(base.dtype), attention_mask=mask, use_cache=False)
    except _Reached:
        pass
    finally:
        hook.remove()
    return (found[0].float() * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)


class _Reached(Exception):
    """The base has read far enough."""


def _centred(states: torch.FloatTensor) -> torch.FloatTensor:
    return states - states.mean(0, keepdim=True)


def cosines(states: MeanStates) -> torch.FloatTensor:
    """Of thoughts (rows) and reasonings (columns), `(problems, problems)`."""
    thoughts, reasonings = (F.normalize(part, dim=-1) for part in states)
    return thoughts @ reasonings.T


def retrieval(likeness: torch.FloatTensor, texts: Sequence[str]) -> Row:
    """
    The shares of thoughts (rows) that are nearest to their own reasoning and of reasonings (columns) nearest to their
    own thoughts, the mean rank of the own one both ways (1 is best), and the mean likeness to it. What is as near as
    the own one stands before it, but problems with the same reasoning text do not count against each other.
    """
    rivals = torch.tensor([[own != other for other in texts] for own in texts], device=likeness.device)
    own = likeness.diag()
    ranks = [1 + ((matrix >= own.unsqueeze(1)) & rivals).sum(1).float() for matrix in (likeness, likeness.T)]
    figures = {"pool": len(texts), "likeness": own.mean().item()}
    for name, rank in zip(("thoughts_to_reasonings", "reasonings_to_thoughts"), ranks, strict=True):
        figures |= {name: (rank == 1).float().mean().item(), f"{name}_mean_rank": rank.mean().item()}
    return figures
