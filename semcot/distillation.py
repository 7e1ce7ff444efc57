"""
Stage 2 of training: the generator learns implicit tokens that mean the reasoning and let the frozen base answer.

    L = alpha * (1 - cos(encoder(thoughts), encoder(reasoning))) + (1 - alpha) * CE(answer)        (paper, section 4.3)

optionally with two more terms, which supervise the thoughts densely and cost nothing at inference:

- explanation: after the answer's end the base, reading the same thoughts, must also write the condensed reasoning (the
  auxiliary decoder of SIM-CoT, arXiv 2509.20317, here the frozen base itself).
- lens: read with the base's token embeddings, the thoughts spell the last K tokens of the condensed reasoning (a logit
  lens on the implicit tokens). It needs no pass of the base, so that it can also be trained ahead of the rest, cheaply.
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from semcot.reasoning_encoder import encode_thoughts
from semcot.tokenization import render_prompt

IGNORED = -100


def tokenize_problems(
    problems: Dataset, tokenizer: PreTrainedTokenizerBase, num_thoughts: int, explain: bool = False
) -> Dataset:
    """
    Token ids of each problem: `prompt_ids` (the question, K placeholders, the cue), `answer_ids` (with its leading
    space and the end of sequence), `explanation_ids` (the condensed reasoning, empty unless `explain`), `lens_ids` (the
    last K tokens of the condensed reasoning, -100 in front of a shorter one), `length`.
    """
    eos = [tokenizer.eos_token_id]

    def tokenize(batch: dict) -> dict:
        def ids(texts: list[str]) -> list[list[int]]:
            return tokenizer(texts, add_special_tokens=False).input_ids

        prompts = ids([render_prompt(tokenizer, question) for question in batch["question"]])
        answers = [answer + eos for answer in ids([f" {answer}" for answer in batch["answer"]])]
        condensed = ids([f" {text}" if text else "" for text in batch["condensed_reasoning"]])
        explanations = [tokens + eos if explain and tokens else [] for tokens in condensed]
        last = [tokens[-num_thoughts:] for tokens in condensed]
        return {
            "prompt_ids": prompts,
            "answer_ids": answers,
            "explanation_ids": explanations,
            "lens_ids": [[IGNORED] * (num_thoughts - len(tokens)) + tokens for tokens in last],
            "length": [len(p) + len(a) + len(e) for p, a, e in zip(prompts, answers, explanations, strict=True)],
        }

    return problems.map(tokenize, batched=True, desc="Tokenizing")


@dataclass
class DistillationCollator:
    """
    Pads a batch so that the thoughts stand in the same columns in every row: questions are padded on their left, after
    the prompt's fixed beginning, which then is the same in every row and is run once for all; targets on their right.
    """

    pad_token_id: int
    header_length: int
    """Number of fixed tokens before the question."""

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | int]:
        prompt_length = max(len(row["prompt_ids"]) for row in rows)
        target_length = max(len(row["answer_ids"]) + len(row["explanation_ids"]) for row in rows)
        shape = (len(rows), prompt_length + target_length)
        batch = {
            "input_ids": torch.full(shape, self.pad_token_id),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "labels": torch.full(shape, IGNORED),
            "explanation_labels": torch.full(shape, IGNORED),
        }
        for i, row in enumerate(rows):
            prompt, answer, explanation = (
                torch.tensor(row[name], dtype=torch.long) for name in ("prompt_ids", "answer_ids", "explanation_ids")
            )
            header = self.header_length
            question = slice(prompt_length - len(prompt) + header, prompt_length)
            target = slice(prompt_length, prompt_length + len(answer) + len(explanation))
            batch["input_ids"][i, :header] = prompt[:header]
            batch["input_ids"][i, question] = prompt[header:]
            batch["input_ids"][i, target] = torch.cat([answer, explanation])
            for part in (slice(header), question, target):
                batch["attention_mask"][i, part] = 1
            batch["labels"][i, prompt_length : prompt_length + len(answer)] = answer
            batch["explanation_labels"][i, prompt_length + len(answer) : target.stop] = explanation
        batch["lens_labels"] = torch.tensor([row["lens_ids"] for row in rows])
        if "reasoning_embedding" in rows[0]:
            batch["reasoning_embedding"] = torch.stack([torch.as_tensor(row["reasoning_embedding"]) for row in rows])
        # The logits of the last prompt token, which predicts the answer's first, and of all that follow.
        return {**batch, "logits_to_keep": target_length + 1}


class DistillationTrainer(Trainer):
    """
    [`transformers.Trainer`] with the loss of the paper; logs its terms and the share of answers that are exactly right.

    Args:
        reasoning_encoder: stage 1's encoder, frozen; needed when `alpha` > 0, with a `reasoning_embedding` column.
        alpha: weight of the semantic alignment, against the answer's cross-entropy.
        explanation_weight: weight of the cross-entropy of the condensed reasoning, 0 to leave it out.
        lens_weight: weight of the cross-entropy of the thoughts as tokens of the condensed reasoning, 0 for none.
        lens_only: train on the lens term alone, without a pass of the base.
    """

    def __init__(
        self,
        *args,
        reasoning_encoder: SentenceTransformer | None = None,
        alpha: float = 0.5,
        explanation_weight: float = 0.0,
        lens_weight: float = 0.0,
        lens_only: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if alpha > 0 and reasoning_encoder is None:
            raise ValueError(f"alpha = {alpha} needs a reasoning encoder; pass alpha=0 to train without semantic loss.")
        self.reasoning_encoder = reasoning_encoder
        self.alpha = alpha
        self.explanation_weight = explanation_weight
        self.lens_weight = lens_weight
        self.lens_only = lens_only
        self.model_accepts_loss_kwargs = True  # has the Trainer count the answer tokens of a whole optimizer step
        self._terms: dict[str, dict[str, list[torch.Tensor]]] = {"": defaultdict(list), "eval_": defaultdict(list)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ):
        embedding = inputs.pop("reasoning_embedding", None)
        explanation_labels = inputs.pop("explanation_labels")
        lens_labels = inputs.pop("lens_labels")
        # One step may span several batches and processes, with unequal numbers of answer tokens. Its loss is the same
        # however it is cut: the answer's term a mean over all of the step's tokens, the others over all of its rows.
        batches = getattr(self, "current_gradient_accumulation_steps", 1) if model.training else 1
        if model.training and num_items_in_batch is not None and not self.lens_only:
            inputs["num_items_in_batch"] = num_items_in_batch / (batches * self.args.world_size)
        outputs = model(**inputs, thoughts_only=self.lens_only)
        terms, weights = {}, {}
        if not self.lens_only:
            terms["answer_loss"], weights["answer_loss"] = outputs.loss, 1 - self.alpha
            logits = outputs.logits[:, :-1].float()
            kept = slice(-logits.shape[1], None)
            terms["accuracy"] = _all_right(logits, inputs["labels"][:, kept])
        if self.alpha > 0 and not self.lens_only:
            meaning = encode_thoughts(self.reasoning_encoder, outputs.thoughts)
            terms["alignment_loss"] = 1 - F.cosine_similarity(meaning, embedding.to(meaning), dim=-1).mean()
            weights["alignment_loss"] = self.alpha
        if self.explanation_weight > 0 and not self.lens_only:
            terms["explanation_loss"] = _mean_over_rows(logits, explanation_labels[:, kept])
            weights["explanation_loss"] = self.explanation_weight
        if self.lens_weight > 0 or self.lens_only:
            table = self.accelerator.unwrap_model(self.model).get_input_embeddings().weight
            spelling = F.linear(outputs.thoughts, table.to(outputs.thoughts.dtype)).float()
            terms["lens_loss"] = _mean_over_rows(spelling, lens_labels)
            terms["lens_accuracy"] = _all_right(spelling, lens_labels)
            weights["lens_loss"] = 1.0 if self.lens_only else self.lens_weight
        for name, value in terms.items():
            self._terms["" if model.training else "eval_"][name].append(value.detach())
        loss = sum(weight * terms[name] for name, weight in weights.items()) / batches
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler:
        # In buckets of a whole step of all processes, so that the data's order does not depend on their number.
        rows = train_dataset or self.train_dataset
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler(per_step, lengths=list(rows["length"]))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        for prefix, record in self._terms.items():
            if f"{prefix}loss" in logs:
                for name, values in record.items():
                    mean = self.accelerator.reduce(torch.stack(values).mean(), reduction="mean")
                    logs[prefix + name] = round(mean.item(), 4)
                record.clear()
        super().log(logs, start_time)


def _mean_over_rows(logits: torch.FloatTensor, labels: torch.LongTensor) -> torch.Tensor:
    """The mean over rows of each row's mean cross-entropy; a row without labels counts as 0."""
    losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return (losses.sum(1) / (labels != IGNORED).sum(1).clamp(min=1)).mean()


def _all_right(logits: torch.FloatTensor, labels: torch.LongTensor) -> torch.Tensor:
    """The share of rows whose labels are all the likeliest tokens."""
    return ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(1).float().mean()
