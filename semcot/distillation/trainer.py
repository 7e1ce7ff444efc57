"""
Stage 2 of training: the generator learns implicit tokens that mean the reasoning and let the frozen base answer.

    L = alpha * (1 - cos(encoder(thoughts), encoder(reasoning))) + (1 - alpha) * CE(answer)        (paper, section 4.3)

with whatever weights, and with token supervision of the thoughts beside or before it (`semcot.distillation.losses`).
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer

from semcot.data.step_ends import IGNORED
from semcot.distillation.losses import Term, alignment_loss, answer_loss, exact_matches, token_supervision_loss
from semcot.distillation.student import StudentOutput
from semcot.files import whole

WEIGHTS = "model.safetensors"


class DistillationTrainer(Trainer):
    """
    [`transformers.Trainer`] of a [`Student`], with the losses of the paper; logs each and the share of answers that
    are exactly right. Its checkpoints hold the model's own weights and nothing of the frozen base.

    Args:
        losses: weights of `answer`, `alignment`, `token_supervision`; without `answer` no base is run.
        reasoning_encoder: stage 1's encoder, frozen; for the alignment, with a `reasoning_embedding` column.
        supervised_tokens: ids of the tokens that thoughts are to spell; each step tells them apart from one another and
            from `negatives` others, drawn anew by seed and step (a sampled softmax), and validation from the whole
            vocabulary, as training does by default.
        negatives: how many others.
    """

    def __init__(
        self,
        *args,
        losses: dict[str, float],
        reasoning_encoder: SentenceTransformer | None = None,
        supervised_tokens: torch.LongTensor | None = None,
        negatives: int = 0,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if "alignment" in losses and reasoning_encoder is None:
            raise ValueError("The alignment needs a reasoning encoder; leave it out of the losses to train without.")
        self.losses = losses
        self.reasoning_encoder = reasoning_encoder
        self.supervised_tokens = supervised_tokens
        self.negatives = negatives
        self.label_names = ["labels"]  # whose presence has the Trainer compute a loss in validation
        self.model_accepts_loss_kwargs = True  # has the Trainer count the answer tokens of a whole optimizer step
        self._terms: dict[str, dict[str, list[torch.Tensor]]] = {"": defaultdict(list), "eval_": defaultdict(list)}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ):
        terms, outputs = self._read_batch(model, inputs)
        # A step may span several batches and processes, with unequal numbers of answer tokens. Its loss is the same
        # however it is cut: the answer's term a mean over all of the step's tokens, the others over all of its rows.
        batches = getattr(self, "current_gradient_accumulation_steps", 1) if model.training else 1
        counts = dict.fromkeys(self.losses, len(inputs["labels"]))
        counts["answer"] = terms["answer_loss"].count.clamp(min=1) if "answer" in self.losses else None
        if model.training and num_items_in_batch is not None:  # a batch's share of the answers' tokens
            counts["answer"] = num_items_in_batch / (batches * self.args.world_size)
        loss = sum(weight * terms[f"{name}_loss"].total / counts[name] for name, weight in self.losses.items())
        for name, term in terms.items():
            figure = torch.stack([term.total.detach().float(), term.count.float()])
            self._terms["" if model.training else "eval_"][name].append(figure)
        return (loss / batches, outputs) if return_outputs else loss / batches

    def _read_batch(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> tuple[dict[str, Term], StudentOutput]:
        """A pass over a batch and what it adds to each figure."""
        targets, num_targets = inputs["labels"][:, -inputs["num_targets"] :], inputs["num_targets"]
        embedding, thought_labels = inputs.get("reasoning_embedding"), inputs["thought_labels"]
        if not model.training and not (counted := self._counted(len(targets)).to(targets.device)).all():
            targets, thought_labels = (
                labels.masked_fill(~counted[:, None], IGNORED) for labels in (targets, thought_labels)
            )
            embedding = None if embedding is None else embedding * counted[:, None]
        outputs = model(
            # The last token is predicted, but nothing is predicted from it: it is not read.
            input_ids=inputs["input_ids"][:, :-1],
            attention_mask=inputs["attention_mask"][:, :-1],
            num_targets=num_targets if "answer" in self.losses else 0,
            thought_labels=inputs["thought_labels"],
        )
        terms: dict[str, Term] = {}
        if "answer" in self.losses:
            logits = outputs.logits.float()
            terms["answer_loss"] = answer_loss(logits, targets)
            terms["accuracy"] = exact_matches(logits, targets)
        if "alignment" in self.losses:
            thoughts = self.model.model.project(outputs.states) if outputs.thoughts is None else outputs.thoughts
            terms["alignment_loss"] = alignment_loss(self.reasoning_encoder, thoughts, embedding)
        if "token_supervision" in self.losses:
            read, told_apart = self.model.model.spelt_scores, None
            if model.training and self.supervised_tokens is not None:
                told_apart = self._told_apart(self.model.model.config.text_config.vocab_size).to(thought_labels)
                places = torch.searchsorted(told_apart, thought_labels)
                thought_labels = torch.where(thought_labels == IGNORED, IGNORED, places)
            scores = read(outputs.states, told_apart, outputs.thoughts)
            terms["token_supervision_loss"] = token_supervision_loss(scores, thought_labels)
            terms["token_supervision_accuracy"] = exact_matches(scores, thought_labels)
            if outputs.one_by_one is not None:
                scores = read(outputs.one_by_one, told_apart)
                one_by_one, block = token_supervision_loss(scores, thought_labels), terms["token_supervision_loss"]
                terms["one_by_one_loss"] = one_by_one
                terms["token_supervision_loss"] = Term((block.total + one_by_one.total) / 2, block.count)
        return terms, outputs

    def _told_apart(self, vocabulary: int) -> torch.LongTensor:
        """The ids of the supervised tokens and of this step's negatives, ascending."""
        draw = torch.Generator().manual_seed(self.args.seed + self.state.global_step)
        others = torch.randint(vocabulary, (self.negatives,), generator=draw)
        return torch.cat([self.supervised_tokens.cpu(), others]).unique()

    def _counted(self, num_rows: int) -> torch.BoolTensor:
        """The rows of a validation batch that count; several processes fill up their last with the first ones."""
        state = self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder <= 0:
            return torch.ones(num_rows, dtype=torch.bool)
        return torch.arange(num_rows) + self.args.process_index * num_rows < state.remainder

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> "LikeLengths":
        # In batches of a whole step of all processes, so that the data's order does not depend on their number.
        rows = train_dataset or self.train_dataset
        per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        lengths = list(rows["length"])
        if self.model.model.config.adapter_rank:  # what is told costs most: it is read twice, and backwards
            told = (sum(label != IGNORED for label in labels) for labels in rows["thought_labels"])
            lengths = list(zip(told, lengths, strict=True))
        return LikeLengths(lengths, per_step, seed=self.args.seed, epoch=lambda: self.epoch)

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
                    weighted = (weight * means.get(f"{name}_loss", 0.0) for name, weight in self.losses.items())
                    logs["eval_loss"] = sum(weighted)
                record.clear()
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if not self.args.should_save:  # called in every process, of which one writes
            return
        save_weights(self.model.own_weights(), Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.model.model, Path(resume_from_checkpoint))


def save_weights(weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Writes a model's own weights into a folder, whole or not at all."""
    with whole(folder / WEIGHTS) as unfinished:
        save_file({name: weight.contiguous() for name, weight in weights.items()}, unfinished, {"format": "pt"})


def load_weights(model: nn.Module, folder: Path) -> None:
    """Puts them back, beside the base, which stays."""
    found = model.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    if missing := [name for name in found.missing_keys if not name.startswith("language_model.")]:
        raise ValueError(f"{folder / WEIGHTS} lacks {', '.join(missing)}.")


class LikeLengths(Sampler[int]):
    """
    Batches of rows of like lengths, in an order of chance that seed and epoch alone decide, so that a run resumed
    within an epoch finds its order. The longest batch comes first: what is too much for the memory is found out then.

    Args:
        lengths: of the rows; where a row has several, the one that costs most first.
        batch_size: rows in a batch; what is left over comes last.
        seed, epoch: of the draws; the epoch is asked for when one begins.
    """

    POOL = 200
    """Batches among which their rows are parted by length."""

    def __init__(
        self, lengths: list[int] | list[tuple[int, ...]], batch_size: int, seed: int, epoch: Callable[[], int]
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng, size = random.Random(f"{self.seed}, epoch {self.epoch()}"), self.batch_size
        rows, pool = rng.sample(range(len(self)), len(self)), self.POOL * size
        for i in range(0, len(rows), pool):
            rows[i : i + pool] = sorted(rows[i : i + pool], key=self.lengths.__getitem__)
        whole = len(rows) - len(rows) % size
        batches = [rows[i : i + size] for i in range(0, whole, size)]
        rng.shuffle(batches)
        longest = max(range(len(batches)), key=lambda i: self.lengths[batches[i][-1]], default=0)
        batches[:1], batches[longest : longest + 1] = batches[longest : longest + 1], batches[:1]
        return chain(*batches, rows[whole:])
