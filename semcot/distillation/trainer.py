"""
Stage 2 of training: the generator learns implicit tokens that mean the reasoning and let the frozen base answer.

    L = alpha * (1 - cos(encoder(thoughts), encoder(reasoning))) + (1 - alpha) * CE(answer)        (paper, section 4.3)

optionally with two more terms, which supervise the thoughts densely and cost nothing at inference:

- explanation: after the answer's end the base, reading the same thoughts, must also write the condensed reasoning (the
  auxiliary decoder of SIM-CoT, arXiv 2509.20317, here the frozen base itself).
- lens: read with the base's token embeddings, the thoughts spell the ends of the last steps of the condensed reasoning
  (a logit lens on the implicit tokens). It needs no pass of the base, so that it can also be trained ahead of the rest,
  cheaply. Of the vocabulary, only the tokens that some step ends with are told apart.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.nn import functional as F
from transformers.trainer_pt_utils import LengthGroupedSampler

from semcot.distillation.targets import IGNORED
from semcot.encoder import encode_thoughts
from semcot.sharding import ShardedTrainer, whole


class DistillationTrainer(ShardedTrainer):
    """
    [`transformers.Trainer`] with the loss of the paper; logs its terms and the share of answers that are exactly right.

    Args:
        reasoning_encoder: stage 1's encoder, frozen; needed when `alpha` > 0, with a `reasoning_embedding` column.
        alpha: weight of the semantic alignment, against the answer's cross-entropy.
        explanation_weight: weight of the cross-entropy of the condensed reasoning, 0 to leave it out.
        lens_weight: weight of the cross-entropy of the thoughts as tokens of the condensed reasoning, 0 for none.
        lens_only: train on the lens term alone, without a pass of the base; where the batches hold `generator_states`,
            without one of the generator too.
        lens_tokens: ids of the tokens that the lens tells apart, ascending; the whole vocabulary by default.
    """

    def __init__(
        self,
        *args,
        reasoning_encoder: SentenceTransformer | None = None,
        alpha: float = 0.5,
        explanation_weight: float = 0.0,
        lens_weight: float = 0.0,
        lens_only: bool = False,
        lens_tokens: torch.LongTensor | None = None,
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
        self.lens_tokens = None if lens_tokens is None else lens_tokens.to(self.args.device)
        self.weights = {
            "answer_loss": 1 - alpha,
            "alignment_loss": alpha,
            "explanation_loss": explanation_weight,
            "lens_loss": 1.0 if lens_only else lens_weight,
        }
        if lens_weight > 0 or lens_only:
            # The base's, which does not change, taken here: in training it may be spread over the processes.
            table = whole(self.model.get_input_embeddings().weight)
            self.lens_table = table if lens_tokens is None else table[self.lens_tokens]
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
        lens_labels = inputs.pop("lens_labels")
        # The last token is predicted, but nothing is predicted from it: it is not read.
        num_targets = inputs.pop("logits_to_keep") - 1
        labels, explanation_labels = (inputs.pop(name)[:, -num_targets:] for name in ("labels", "explanation_labels"))
        inputs |= {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
        if not model.training and not (counted := self._counted(len(labels))).all():
            for part in (labels, explanation_labels, lens_labels):
                part[~counted.to(part.device)] = IGNORED
            embedding = None if embedding is None else embedding * counted.to(embedding).unsqueeze(-1)
        outputs = model(**inputs, logits_to_keep=num_targets, thoughts_only=self.lens_only, use_cache=False)
        if self.lens_only and self.is_fsdp_enabled:
            # FSDP gathers token embeddings and the head that is tied to them as one, until the head was run.
            head = self.model.get_output_embeddings()
            head(outputs.thoughts[:, :0].detach().to(head.weight.dtype))
        # One step may span several batches and processes, with unequal numbers of answer tokens. Its loss is the same
        # however it is cut: the answer's term a mean over all of the step's tokens, the others over all of its rows.
        batches = getattr(self, "current_gradient_accumulation_steps", 1) if model.training else 1
        losses: dict[str, torch.Tensor] = {}
        terms: dict[str, _Term] = {}
        if not self.lens_only:
            logits = outputs.logits.float()
            total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
            num_tokens = (labels != IGNORED).sum()
            in_step = num_tokens.clamp(min=1)  # a batch's share of them, where several batches make a step
            if model.training and num_items_in_batch is not None:
                in_step = num_items_in_batch / (batches * self.args.world_size)
            losses["answer_loss"] = total / in_step
            terms["answer_loss"] = _Term(total, num_tokens)
            terms["accuracy"] = _all_right(logits, labels)
        if self.alpha > 0 and not self.lens_only:
            meaning = encode_thoughts(self.reasoning_encoder, outputs.thoughts)
            has_reasoning = embedding.any(-1)
            distances = (1 - F.cosine_similarity(meaning, embedding.to(meaning), dim=-1)) * has_reasoning
            losses["alignment_loss"] = distances.mean()
            terms["alignment_loss"] = _Term(distances.sum(), has_reasoning.sum())
        if self.explanation_weight > 0 and not self.lens_only:
            per_row, has_explanation = _mean_of_rows(logits, explanation_labels)
            losses["explanation_loss"] = per_row.mean()
            terms["explanation_loss"] = _Term(per_row.sum(), has_explanation.sum())
        if self.lens_weight > 0 or self.lens_only:
            if self.lens_tokens is not None:
                places = torch.searchsorted(self.lens_tokens, lens_labels)
                lens_labels = torch.where(lens_labels == IGNORED, IGNORED, places)
            # Each pass must spell them: those before the last would else become a code that only the next one reads.
            passes = torch.stack([*outputs.earlier_thoughts, outputs.thoughts])
            spelling = F.linear(passes, self.lens_table.to(passes.dtype)).float()
            per_row, is_spelt = _mean_of_rows(spelling.flatten(0, 1), lens_labels.repeat(len(passes), 1))
            losses["lens_loss"] = per_row.mean()
            terms["lens_loss"] = _Term(per_row.sum(), is_spelt.sum())
            terms["lens_accuracy"] = _all_right(spelling[-1], lens_labels)
        for name, (total, count) in terms.items():
            term = torch.stack([total.detach().float(), torch.as_tensor(count, device=total.device).float()])
            self._terms["" if model.training else "eval_"][name].append(term)
        loss = sum(self.weights[name] * value for name, value in losses.items()) / batches
        return (loss, outputs) if return_outputs else loss

    def _counted(self, num_rows: int) -> torch.BoolTensor:
        """Which rows of a validation batch count: several processes fill up their last batches with the first rows."""
        state = self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder <= 0:
            return torch.ones(num_rows, dtype=torch.bool)
        return torch.arange(num_rows) + self.args.process_index * num_rows < state.remainder

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler:
        # In buckets of a whole step of all processes, so that the data's order does not depend on their number.
        rows = train_dataset or self.train_dataset
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return _EpochSampler(per_step, list(rows["length"]), seed=self.args.seed, epoch=lambda: self.epoch)

    @property
    def epoch(self) -> int:
        """The pass over the problems that the run is in, from 0; when resumed, the one that it was cut short in."""
        return int(self.state.epoch or 0)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        for prefix, record in self._terms.items():
            if f"{prefix}loss" in logs:
                sums = {name: torch.stack(terms).sum(0) for name, terms in record.items()}
                sums = {name: self.accelerator.reduce(term, reduction="sum").tolist() for name, term in sums.items()}
                means = {name: total / count for name, (total, count) in sums.items() if count}
                logs |= {prefix + name: round(mean, 4) for name, mean in means.items()}
                if prefix:  # the stock one is a mean over batches, of which the last ones may hold rows twice
                    logs["eval_loss"] = sum(self.weights.get(name, 0.0) * mean for name, mean in means.items())
                record.clear()
        super().log(logs, start_time)


class _Term(NamedTuple):
    """What a batch adds to a logged figure, which is the sum of totals over the sum of counts."""

    total: torch.Tensor
    count: torch.Tensor | int


class _EpochSampler(LengthGroupedSampler):
    """Draws each epoch's order from seed and epoch alone, so that a run resumed within an epoch finds its order."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(batch_size, lengths=lengths)
        self.seed, self.epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch())
        return super().__iter__()


def _mean_of_rows(logits: torch.FloatTensor, labels: torch.LongTensor) -> tuple[torch.Tensor, torch.BoolTensor]:
    """Each row's mean cross-entropy, 0 for a row without labels, and which rows have any."""
    losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    num_labels = (labels != IGNORED).sum(1)
    return losses.sum(1) / num_labels.clamp(min=1), num_labels > 0


def _all_right(logits: torch.FloatTensor, labels: torch.LongTensor) -> _Term:
    """How many of the rows that have labels have the likeliest token at each."""
    has_labels = (labels != IGNORED).any(1)
    right = ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(1)
    return _Term((right & has_labels).sum(), has_labels.sum())
