"""The thoughts of problems, the tokens that they spell and the answers that they give: shared by the scripts here."""

import torch
from transformers import BatchEncoding, PreTrainedTokenizerBase

from modeling_semcot import SemCoTForCausalLM
from semcot.distillation import IGNORED, token_supervision_targets
from semcot.tokenization import render_prompt, tokenize_prompts

STEPS = 3
"""`supervised_steps` that the checkpoints were trained with."""


def prompts_of(tokenizer: PreTrainedTokenizerBase, problems: list[dict[str, str]]) -> BatchEncoding:
    """The prompts of problems as one batch, each with its placeholders and cue."""
    return tokenize_prompts(tokenizer, [render_prompt(tokenizer, problem["question"]) for problem in problems])


def spelt_by(
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[dict[str, str]],
    thoughts: torch.FloatTensor,
) -> tuple[torch.LongTensor, torch.BoolTensor]:
    """
    The tokens that thoughts (..., problems, K, hidden) spell, read with the base's embeddings among all that some step
    ends with, and which are right or need not be; both (..., problems, K).
    """
    size = model.config.num_thoughts
    targets = torch.tensor(
        [token_supervision_targets(p["condensed_reasoning"], tokenizer, size, STEPS) for p in problems]
    )
    tokens = torch.tensor(sorted(set(targets.flatten().tolist()) - {IGNORED}))
    spelt = tokens[(thoughts @ model.get_input_embeddings().weight[tokens].T).argmax(-1)]
    return spelt, (spelt == targets) | (targets == IGNORED)


def answer_with(
    model: SemCoTForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[dict[str, str]],
    thoughts: torch.FloatTensor,
    batch_size: int = 16,
) -> list[str]:
    """The base's greedy answers with these thoughts (problems, K, hidden) in place."""
    answers = []
    for start in range(0, len(problems), batch_size):
        rows = slice(start, start + batch_size)
        batch = prompts_of(tokenizer, problems[rows])
        written = model.generate(**batch, thoughts=thoughts[rows], max_new_tokens=16, do_sample=False)
        answers += tokenizer.batch_decode(written[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
    return answers
