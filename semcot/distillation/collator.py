"""Batches of stage 2."""

from dataclasses import dataclass, field

import numpy as np
import torch

from semcot.distillation.question_cache import QuestionCache
from semcot.distillation.targets import IGNORED


@dataclass
class DistillationCollator:
    """
    Pads a batch so that the thoughts stand in the same columns in every row: questions are padded on their left, after
    the prompt's fixed beginning, which then is the same in every row and is run once for all; targets on their right.
    """

    pad_token_id: int
    header_length: int
    """Number of fixed tokens before the question."""
    question_cache: QuestionCache | None = field(default=None, kw_only=True)
    """What the base made of the questions, where that was computed once for all passes over them."""
    pad_to_multiple_of: int = field(default=1, kw_only=True)
    """What the lengths that the models read are padded to a multiple of, where each new length costs a GPU time."""

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | int]:
        longest = max(len(row["prompt_ids"]) for row in rows)
        prompt_length = self._rounded(longest)
        target_length = max(len(row["answer_ids"]) + len(row["explanation_ids"]) for row in rows)
        target_length = self._rounded(target_length - 1) + 1  # nothing is predicted from the last, which is not read
        shape = (len(rows), prompt_length + target_length)
        input_ids, attention_mask = np.full(shape, self.pad_token_id), np.zeros(shape, dtype=np.int64)
        labels, explanation_labels = np.full(shape, IGNORED), np.full(shape, IGNORED)
        header = self.header_length
        for i, row in enumerate(rows):
            prompt, answer, explanation = (row[name] for name in ("prompt_ids", "answer_ids", "explanation_ids"))
            question = prompt_length - len(prompt) + header
            answer_end = prompt_length + len(answer)
            target_end = answer_end + len(explanation)
            input_ids[i, :header] = prompt[:header]
            input_ids[i, question:target_end] = [*prompt[header:], *answer, *explanation]
            attention_mask[i, :header] = attention_mask[i, question:target_end] = 1
            labels[i, prompt_length:answer_end] = answer
            explanation_labels[i, answer_end:target_end] = explanation
        arrays = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "explanation_labels": explanation_labels,
        }
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        batch["lens_labels"] = torch.tensor([row["lens_ids"] for row in rows])
        if "reasoning_embedding" in rows[0]:
            embeddings = np.array([row["reasoning_embedding"] for row in rows], dtype=np.float32)
            batch["reasoning_embedding"] = torch.from_numpy(embeddings)
        if "generator_states" in rows[0]:
            states = [torch.as_tensor(row["generator_states"], dtype=torch.float32) for row in rows]
            batch["generator_states"] = torch.stack(states)
        if self.question_cache is not None:
            prompts = [row["prompt_ids"] for row in rows]
            batch["question_states"] = self.question_cache(prompts, padding=prompt_length - longest)
        # The logits of the last prompt token, which predicts the answer's first, and of all that follow.
        return {**batch, "logits_to_keep": target_length + 1}

    def _rounded(self, length: int) -> int:
        return -(-length // self.pad_to_multiple_of) * self.pad_to_multiple_of
