"""
Prompts for an engine that serves the base and takes prompt embeddings, such as vLLM.

The generator thinks outside the engine, once for each question; what the engine gets is the base's own prompt with the
thoughts in place, and from there on it serves an ordinary language model.
"""

import base64
import io
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from modeling_semcot import SemCoTForCausalLM
from semcot.tokenization import render_prompt, tokenize_prompts


def prompt_embeds(
    model: SemCoTForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]
) -> list[torch.FloatTensor]:
    """
    Each question's prompt, with its thoughts in place, as embeddings of the base: `(its length, hidden size)`, in the
    base's dtype, on the CPU. The questions are thought about in one batch.
    """
    return embed_prompts(model, tokenizer, [render_prompt(tokenizer, question) for question in questions])


@torch.no_grad()
def embed_prompts(
    model: SemCoTForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> list[torch.FloatTensor]:
    """The same of whole prompts, up to and with the answer cue, as the tokenizer's chat template renders them."""
    batch = tokenize_prompts(tokenizer, prompts).to(model.device)
    embeds = model.embed_prompt(batch.input_ids, batch.attention_mask)
    return [row[mask.bool()].cpu() for row, mask in zip(embeds, batch.attention_mask, strict=True)]


def encode_embeds(embeds: torch.FloatTensor) -> str:
    """One prompt as the `prompt_embeds` of a request to vLLM's server: base64 of what `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(embeds, buffer)
    return base64.b64encode(buffer.getvalue()).decode()
