"""
Semantic alignment: is each question's own reasoning found by its thoughts among all, and they by it? Both are read by
the base at its input side, where thoughts live, and compared by the cosine of their mean states.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from building_semcot import decoder_layers
from modeling_semcot import SemCoTForCausalLM
from semcot.evaluation.judging import Row
from semcot.tokenization import render_prompt, tokenize_prompts

LAYERS = (0, 1, 2)
"""After how many of the base's layers states are compared; 0 is the embeddings."""
LAYER = 1
"""The one whose figures come first and are drawn: later ones hardly tell reasonings apart."""
POOL = 100
"""Among how many problems the own reasoning is looked for, at the most: shares of larger pools are smaller."""


class MeanStates(NamedTuple):
    """Of each text the mean over its tokens, at each of `LAYERS`; both `(layers, problems, hidden size)`."""

    thoughts: torch.FloatTensor
    reasonings: torch.FloatTensor


def reasoning_of(problem: dict[str, str]) -> str:
    """What a problem's thoughts stand for: its condensed reasoning, or else its reasoning."""
    return problem["condensed_reasoning"] or problem["reasoning"]


@torch.no_grad()
def mean_states(
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[dict[str, str]],
    batch_size: int = 16,
) -> MeanStates:
    """
    The states of thoughts and reasonings in the base. Those of each kind are centred, as all texts share most of their
    mean state; a reasoning's tokens are given the thoughts' scale, which is many times theirs.
    """
    embed, batches = model.get_input_embeddings(), range(0, len(problems), batch_size)
    batches = [problems[start : start + batch_size] for start in batches]

    def thoughts() -> Iterator[tuple[torch.FloatTensor, torch.LongTensor]]:
        for batch in batches:
            prompts = [render_prompt(tokenizer, problem["question"]) for problem in batch]
            own = model.think(**tokenize_prompts(tokenizer, prompts).to(model.device))
            yield own, torch.ones(own.shape[:2], dtype=torch.long, device=own.device)

    def reasonings() -> Iterator[tuple[torch.FloatTensor, torch.LongTensor]]:
        for batch in batches:
            texts = list(map(reasoning_of, batch))
            # Padded on the right: each text begins at the base's first position.
            tokens = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
            tokens = tokens.to(model.device)
            yield embed(tokens.input_ids), tokens.attention_mask

    read, told = list(thoughts()), list(reasonings())
    own, theirs = (
        torch.cat([embeds[mask.bool()].float().norm(dim=-1) for embeds, mask in kind]) for kind in (read, told)
    )
    told = [(embeds * (own.mean() / theirs.mean()), mask) for embeds, mask in told]
    return MeanStates(*(_centred(torch.cat([_states(model, *part) for part in kind], 1)) for kind in (read, told)))


def _states(model: SemCoTForCausalLM, embeds: torch.FloatTensor, mask: torch.LongTensor) -> torch.FloatTensor:
    """The mean states of texts `(batch, length, hidden size)` at `LAYERS`; the layers above are not run."""
    base, inputs = model.language_model, {}
    stack = decoder_layers(base.base_model)
    places = [min(layer, len(stack) - 1) for layer in LAYERS]

    def keep(place: int, args: tuple, kwargs: dict) -> None:
        inputs[place] = args[0] if args else kwargs["hidden_states"]
        if place == max(places):
            raise _Reached

    hooks = [
        stack[place].register_forward_pre_hook(
            lambda _, args, kwargs, place=place: keep(place, args, kwargs), with_kwargs=True
        )
        for place in set(places)
    ]
    try:
        base.base_model(inputs_embeds=embeds.to(base.dtype), attention_mask=mask, use_cache=False)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    weights = mask.unsqueeze(-1) / mask.sum(1).view(-1, 1, 1)
    return torch.stack([(inputs[place].float() * weights).sum(1) for place in places])


class _Reached(Exception):
    """The base has read far enough."""


def _centred(states: torch.FloatTensor) -> torch.FloatTensor:
    return states - states.mean(1, keepdim=True)


def cosines(states: MeanStates, layer: int = LAYER) -> torch.FloatTensor:
    """Of thoughts (rows) and reasonings (columns), `(problems, problems)`."""
    thoughts, reasonings = (F.normalize(part[LAYERS.index(layer)], dim=-1) for part in states)
    return thoughts @ reasonings.T


def retrieval(cosine: torch.FloatTensor, texts: Sequence[str]) -> Row:
    """
    The shares of thoughts that are nearest to their own reasoning and of reasonings nearest to their own thoughts, the
    mean rank of the own one both ways (1 is best), and the mean cosine with it. Problems with the same reasoning text
    do not count against each other.
    """
    rivals = torch.tensor([[own != other for other in texts] for own in texts], device=cosine.device)
    own = cosine.diag()
    ranks = [1 + ((matrix > own.unsqueeze(1)) & rivals).sum(1).float() for matrix in (cosine, cosine.T)]
    figures = {"pool": len(texts), "cosine": own.mean().item()}
    for name, rank in zip(("thoughts_to_reasonings", "reasonings_to_thoughts"), ranks, strict=True):
        figures |= {name: (rank == 1).float().mean().item(), f"{name}_mean_rank": rank.mean().item()}
    return figures


def alignment(states: MeanStates, texts: Sequence[str]) -> list[Row]:
    """`retrieval` after each of `LAYERS`, that of `LAYER` first."""
    layers = sorted(LAYERS, key=lambda layer: (layer != LAYER, layer))
    return [{"layer": layer, **retrieval(cosines(states, layer), texts)} for layer in layers]
