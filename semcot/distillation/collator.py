"""Batches of stage 2."""

from dataclasses import dataclass

import numpy as np
import torch

from semcot.data.step_ends import IGNORED


@dataclass
class DistillationCollator:
    """
    Pads a batch so that the thoughts stand in the same columns in every row: on the left of the questions, but behind
    the shared prefix, which [`Student`] then runs once for all; and on the right of the answers.

        shared prefix | padding | rest of the question | K thoughts | cue | answer | padding
    """

    pad_token_id: int
    shared_prefix: int = 0
    """Number of tokens that all prompts begin with."""
    pad_to_multiple_of: int = 1
    """Of the lengths that the models read, where each new length costs a GPU time."""

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | int]:
        """
        `input_ids`, `attention_mask`, `labels` `(batch, length)`, `num_targets`: so many last columns may have labels,
        `thought_labels` `(batch, K)`, and `reasoning_embedding`, where the rows have one.
        """
        prompt_length = self._rounded(max(len(row["prompt_ids"]) for row in rows))
        # The last token of an answer is predicted, and nothing from it.
        num_targets = self._rounded(max(len(row["answer_ids"]) for row in rows) - 1) + 1
        shape, shared = (len(rows), prompt_length + num_targets), self.shared_prefix
        input_ids, attention_mask = np.full(shape, self.pad_token_id), np.zeros(shape, dtype=np.int64)
        labels = np.full(shape, IGNORED)
        for i, row in enumerate(rows):
            prompt, answer = row["prompt_ids"], row["answer_ids"]
            question, end = prompt_length - len(prompt) + shared, prompt_length + len(answer)
            input_ids[i, :shared] = prompt[:shared]
            input_ids[i, question:end] = [*prompt[shared:], *answer]
            attention_mask[i, :shared] = attention_mask[i, question:end] = 1
            labels[i, prompt_length:end] = answer
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        batch["thought_labels"] = np.array([row["thought_labels"] for row in rows])
        if (name := "reasoning_embedding") in rows[0]:
            batch[name] = np.array([row[name] for row in rows], dtype=np.float32)
        return {name: torch.from_numpy(array) for name, array in batch.items()} | {"num_targets": num_targets}

    def _rounded(self, length: int) -> int:
        return -(-length // self.pad_to_multiple_of) * self.pad_to_multiple_of
