"""Targets of stage 2: token ids of prompts, answers and the condensed reasoning that the thoughts spell."""

import logging

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from semcot.data.step_ends import IGNORED, token_supervision_targets
from semcot.tokenization import render_prompt, tokenize_targets

logger = logging.getLogger(__name__)


def tokenize_problems(
    problems: Dataset, tokenizer: PreTrainedTokenizerBase, num_thoughts: int, supervised_steps: int = 1
) -> Dataset:
    """
    Token ids of each problem: `prompt_ids` (the question, K placeholders, the cue), `answer_ids` (with its leading
    space and the end of sequence), `thought_labels` (what [`token_supervision_targets`] says), `length`. Where whole
    reasonings are spelt, problems whose reasoning is longer than the thoughts are left out, and counted.

    Raises:
        ValueError: none is left.
    """

    def tokenize(batch: dict) -> dict:
        rendered = [render_prompt(tokenizer, question) for question in batch["question"]]
        prompts = tokenizer(rendered, add_special_tokens=False).input_ids
        answers = [[*tokens, tokenizer.eos_token_id] for tokens in tokenize_targets(tokenizer, batch["answer"])]
        spelt = (num_thoughts, supervised_steps)
        return {
            "prompt_ids": prompts,
            "answer_ids": answers,
            "thought_labels": [
                token_supervision_targets(text, tokenizer, *spelt) for text in batch["condensed_reasoning"]
            ],
            "length": [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)],
        }

    tokenized = problems.map(tokenize, batched=True, desc="Tokenizing")
    if supervised_steps:
        return tokenized
    fitting = tokenized.filter(lambda labels: labels[0] != IGNORED, input_columns="thought_labels", desc="Fitting K")
    if left_out := len(problems) - len(fitting):
        said = (
            f"{left_out} of {len(problems)} problems have no condensed reasoning of at most {num_thoughts - 1} tokens"
        )
        if not len(fitting):
            raise ValueError(f"{said}, and none is left: give more num_thoughts, or shorter reasonings.")
        logger.warning("%s, and are left out: there are %d thoughts.", said, num_thoughts)
    return fitting
