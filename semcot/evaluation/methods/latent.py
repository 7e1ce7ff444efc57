"""What the methods share whose model reads vectors, its latent tokens, between a question and its answer."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from modeling_semcot import CACHE, position_ids_of
from semcot.data import split_steps
from semcot.evaluation.methods.method import padded
from semcot.evaluation.methods.trained import IGNORED, Problem, TrainedMethod


class LatentMethod(TrainedMethod):
    """
    A base, all of it trained, that thinks in latent tokens. Every row of a batch has in the same columns

        padding | question | begin | latents | end | cue | answer | padding

    where begin and end are two vectors of their own.

    Args:
        base, tokenizer: as for every trained method.
        num_latents: so many stand before every answer, whatever the question.

    Raises:
        ValueError: there would be none.
    """

    needs = ("condensed_reasoning", "answer")

    def __init__(self, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, num_latents: int) -> None:
        super().__init__(base, tokenizer)
        if num_latents < 1:
            raise ValueError(f"{self.name} needs at least 1 latent token, got {num_latents}.")
        self.num_latents = num_latents
        self.begin, self.end = self.mark(), self.mark()

    def mark(self) -> nn.Parameter:
        """The embedding `(hidden size,)` of a token of the method's own, drawn like those of the vocabulary."""
        table = self.base.get_input_embeddings().weight.detach().float()
        return nn.Parameter(torch.normal(table.mean(0), table.std(0)).to(self.base.dtype))

    def prompt_ids(self, questions: Sequence[str]) -> list[list[int]]:
        return [before + self.places(self.num_latents) + cue for before, cue in self.around(questions)]

    def places(self, num_latents: int) -> list[int]:
        """The ids that stand for begin, latents and end; none where there are no latents."""
        return [self.thought_id] * (num_latents + 2) if num_latents else []

    def generate(self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor, **options) -> torch.LongTensor:
        embeds, cache = self.think(input_ids, attention_mask)
        given = {"inputs_embeds": embeds, "attention_mask": attention_mask, CACHE: cache}
        return torch.cat([input_ids, self.base.generate(**given, **options)], dim=1)

    def think(self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor) -> tuple[torch.FloatTensor, Cache]:
        """
        Args:
            input_ids, attention_mask: `(batch, length)`, with the places of begin, latents and end in the same columns.

        Returns:
            The vectors `(batch, length, hidden size)` that the base reads, and the cache of the first of them, which it
            has read already.
        """
        columns = (input_ids[0] == self.thought_id).nonzero().flatten().tolist()
        if not columns:
            return self.base.get_input_embeddings()(input_ids), DynamicCache(config=self.base.config)
        question = self.embed(input_ids[:, : columns[0] + 1], self.begin)
        latents, cache = self.latents(question, attention_mask[:, : columns[-1]], len(columns) - 2)
        begin, end = (mark.to(latents.dtype).expand(len(latents), 1, -1) for mark in (self.begin, self.end))
        return self.embed(input_ids, torch.cat([begin, latents, end], dim=1)), cache

    @abstractmethod
    def latents(
        self, question: torch.FloatTensor, mask: torch.LongTensor, num_latents: int
    ) -> tuple[torch.FloatTensor, Cache]:
        """
        The latent tokens of a batch of questions.

        Args:
            question: `(batch, length, hidden size)`, up to begin.
            mask: `(batch, length + num_latents)`.

        Returns:
            The vectors `(batch, num_latents, hidden size)`, and a cache that holds the question and, it may be, the
            first of the latents. Those that it lacks are read together with what follows them.
        """

    def read(self, embeds: torch.FloatTensor, mask: torch.LongTensor, cache: Cache) -> torch.FloatTensor:
        """
        The last hidden states `(batch, unread, hidden size)` of those of `embeds` that are not in the cache yet; it
        then has them. The mask may be longer.
        """
        return self.base.base_model(**_unread(embeds, mask[:, : embeds.shape[1]], cache)).last_hidden_state

    # Training.

    def texts(self, problems: Sequence[Problem], steps: slice) -> list[tuple[list[int], list[int]]]:
        """The ids of some steps of each reasoning, as they are written, with the cue; and those of the answer."""
        cues = [cue for _, cue in self.around([problem["question"] for problem in problems])]
        new_line = "" if self.tokenizer.decode(cues[0]).startswith("\n") else "\n"
        written = [", ".join(split_steps(problem["condensed_reasoning"])[steps]) for problem in problems]
        reasonings = self.target_ids([text + new_line for text in written], end=False)
        reasonings = [ids if text else [] for text, ids in zip(written, reasonings, strict=True)]
        answers = self.target_ids([problem["answer"] for problem in problems])
        return [(ids + cue, answer) for ids, cue, answer in zip(reasonings, cues, answers, strict=True)]

    def predict(
        self,
        problems: Sequence[Problem],
        texts: Sequence[list[int]],
        num_latents: int,
        before: int = 0,
        **options,
    ) -> tuple[CausalLMOutputWithPast, torch.LongTensor]:
        """
        Has the base read questions, latents and texts.

        Args:
            texts: token ids of what stands behind the latents.
            before: of so many columns before the end and the texts there are logits, too.
            options: of the base.

        Returns:
            The base's outputs, whose last columns are those of the texts, and the ids `(batch, text length)` of these,
            -100 for padding.
        """
        pad = self.tokenizer.pad_token_id
        contexts = [row + self.places(num_latents) for row, _ in self.around([p["question"] for p in problems])]
        (contexts, mask), (ids, text_mask) = (
            padded(rows, pad, side, self.device) for rows, side in ((contexts, "left"), (texts, "right"))
        )
        mask = torch.cat([mask, text_mask], dim=1)
        embeds, cache = self.think(torch.cat([contexts, ids], dim=1), mask)
        outputs = self.base(**_unread(embeds, mask, cache), logits_to_keep=before + 1 + ids.shape[1], **options)
        return outputs, ids.masked_fill(text_mask == 0, IGNORED)


class ChainOfLatents(LatentMethod):
    """Latent tokens one after another: each is the last hidden state in the column before it, put through `project`."""

    def latents(
        self, question: torch.FloatTensor, mask: torch.LongTensor, num_latents: int
    ) -> tuple[torch.FloatTensor, Cache]:
        """A pass of one column for each, since the keys and values of those before are kept."""
        embeds, cache = question, DynamicCache(config=self.base.config)
        for _ in range(num_latents):
            latent = self.project(self.read(embeds, mask, cache)[:, -1:])
            embeds = torch.cat([embeds, latent.to(embeds.dtype)], dim=1)
        return embeds[:, -num_latents:], cache

    def project(self, states: torch.FloatTensor) -> torch.FloatTensor:
        """What is read for hidden states `(batch, latents, hidden size)`: the same vectors."""
        return states


def next_token_loss(logits: torch.FloatTensor, labels: torch.LongTensor) -> torch.FloatTensor:
    """
    The mean cross-entropy of the labels `(batch, length)` of the last columns, but for -100; each is predicted by the
    logits `(batch, length or more, vocabulary)` one column before.
    """
    logits = logits[:, -labels.shape[1] - 1 : -1]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)


def _unread(embeds: torch.FloatTensor, mask: torch.LongTensor, cache: Cache) -> dict:
    """A model's inputs: the columns that are not in the cache, at positions that leave padding out."""
    read = cache.get_seq_length()
    given = {"inputs_embeds": embeds[:, read:], "attention_mask": mask, CACHE: cache, "use_cache": True}
    return given | {"position_ids": position_ids_of(mask)[:, read:]}
