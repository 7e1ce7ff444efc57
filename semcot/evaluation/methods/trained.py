"""The interface of methods that are trained: parts on a base, a loss on problems, a folder to keep it all."""

import inspect
import json
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from building_semcot import cast_weights
from checkpoint_semcot import BASE_MODEL_VARIABLE, find_base
from semcot.evaluation.methods.method import Method, padded
from semcot.files import whole, write_json
from semcot.tokenization import THOUGHT_TOKEN, build_tokenizer, render_prompt, tokenize_targets

IGNORED = -100
DESCRIPTION, WEIGHTS = "method.json", "model.safetensors"

Problem = Mapping[str, str]
"""`question`, `reasoning`, `condensed_reasoning`, `answer`."""


class TrainedMethod(Method, nn.Module):
    """
    A method with weights of its own. A subclass makes its parts in `__init__`, says what it learns from in [`loss`]
    and which tokens it continues in [`prompt_ids`] (and how, in `generate`, where the base's own does not do).

    The parts that require a gradient after `__init__`, of the base or beside it, are those that are trained, saved and
    loaded. All else is frozen: set `base.requires_grad_(False)` for a base that stays as it is.

    Args:
        base: a causal LM, of this method alone.
        tokenizer: the base's, with one `<thought>` before the answer cue.
        settings: keyword arguments of the subclass, each with a default.
    """

    needs: ClassVar[tuple[str, ...]] = ("answer",)
    """Columns that [`loss`] reads. Problems that have nothing there are left out of training."""
    settings: dict[str, Any]
    base_model: str | None = None
    """The base's name, and the folder that it was loaded from."""
    local_base_model: str | None = None

    def __init__(self, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(base, tokenizer)
        self.thought_id = tokenizer.convert_tokens_to_ids(THOUGHT_TOKEN)

    @abstractmethod
    def loss(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        """The mean loss of a batch, a scalar, in this [`stage`] of training."""

    def stage(self, progress: float) -> int:
        """
        The stage of a curriculum that training is in, once the share `progress` of its steps is done, from 0 to below
        1. It never falls. Where it rises, the optimizer forgets its state.
        """
        return 0

    @abstractmethod
    def prompt_ids(self, questions: Sequence[str]) -> list[list[int]]:
        """The token ids that each answer continues; `thought_id` stands where a vector goes."""

    def prompts(self, questions: Sequence[str]) -> list[str]:
        return self.tokenizer.batch_decode(self.prompt_ids(questions))

    def forward(self, problems: Sequence[Problem], stage: int) -> torch.Tensor:
        return self.loss(problems, stage)

    # What most methods need.

    def around(self, questions: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """The token ids of each prompt, before the place of a reasoning and after it: those of the cue."""
        return around(self.tokenizer, questions)

    def target_ids(self, texts: Sequence[str], end: bool = True) -> list[list[int]]:
        """The token ids of texts that go on after a blank, with the end of sequence."""
        ending = [self.tokenizer.eos_token_id] if end else []
        return [[*ids, *ending] for ids in tokenize_targets(self.tokenizer, texts)]

    def embed(self, input_ids: torch.LongTensor, vectors: torch.Tensor) -> torch.Tensor:
        """
        The base's embeddings of `input_ids` `(batch, length)`, with `vectors`, of a shape that broadcasts to
        `(batch, places in a row, width)`, at the places of `thought_id`, of which each row has equally many.
        """
        places = input_ids == self.thought_id
        embeddings = self.base.get_input_embeddings()(input_ids.masked_fill(places, self.tokenizer.pad_token_id))
        shape = len(input_ids), int(places[0].sum()), embeddings.shape[-1]
        return embeddings.masked_scatter(places[..., None], vectors.to(embeddings.dtype).expand(shape))

    def generate_after(self, vectors: torch.Tensor, input_ids: torch.LongTensor, **inputs) -> torch.LongTensor:
        """What the base generates where it reads `vectors` at the places of `thought_id`, as [`embed`] puts them."""
        new = self.base.generate(inputs_embeds=self.embed(input_ids, vectors), **inputs)
        return torch.cat([input_ids, new], dim=1)

    def cross_entropy(
        self,
        contexts: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        vectors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The mean negative log-likelihood of target tokens after their contexts, with `vectors` as for [`embed`]."""
        pairs = list(zip(contexts, targets, strict=True))
        rows, pad = [[*context, *target] for context, target in pairs], self.tokenizer.pad_token_id
        input_ids, attention_mask = padded(rows, pad, "right", self.device)
        labels, _ = padded([[IGNORED] * len(c) + [*target] for c, target in pairs], IGNORED, "right", self.device)
        given = {"input_ids": input_ids} if vectors is None else {"inputs_embeds": self.embed(input_ids, vectors)}
        kept = input_ids.shape[1] - min(map(len, contexts)) + 1  # before them no token is predicted
        logits = self.base(attention_mask=attention_mask, use_cache=False, logits_to_keep=kept, **given).logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1 - kept :].flatten())

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for part in self.children():
            if not any(weight.requires_grad for weight in part.parameters()):
                part.eval()  # what is frozen drops nothing out
        return self

    # Weights and files.

    def own_weights(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: weight for name, weight in self.named_parameters() if name in self._own}

    @classmethod
    def make(
        cls, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any] | None = None
    ) -> Self:
        """
        The method, untrained.

        Raises:
            ValueError: a setting that it does not have, or a value that it cannot take.
        """
        known = {
            name: option.default
            for name, option in inspect.signature(cls).parameters.items()
            if option.kind is inspect.Parameter.KEYWORD_ONLY
        }
        settings = dict(settings or {})
        if unknown := sorted(settings.keys() - known.keys()):
            has = f"its settings are {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{cls.name} has no setting {', '.join(unknown)}: {has}.")
        settings = known | settings
        method = cls(base, tokenizer, **settings)
        method.settings = settings
        method._own = {name for name, weight in method.named_parameters() if weight.requires_grad}
        return method

    @classmethod
    def build(
        cls,
        base_model: str,
        source: str,
        settings: Mapping[str, Any] | None = None,
        **loading,
    ) -> Self:
        """The method, untrained, on the base of this name, from `source`, a folder or Hub id, loaded with `loading`."""
        base = AutoModelForCausalLM.from_pretrained(source, **loading)
        tokenizer, _ = build_tokenizer(AutoTokenizer.from_pretrained(source), num_thoughts=1)
        method = cls.make(base, tokenizer, settings)
        method.base_model, method.local_base_model = base_model, source if os.path.isdir(source) else None
        return method

    def save(self, folder: str | os.PathLike) -> None:
        """Writes `model.safetensors`, the trained weights alone, and `method.json`, what they are of."""
        folder = Path(folder)
        self.save_weights(folder)
        local = self.local_base_model and os.path.abspath(self.local_base_model)
        described = {"method": self.name, "base_model": self.base_model, "local_base_model": local}
        write_json(folder / DESCRIPTION, described | {"settings": self.settings})

    def save_weights(self, folder: Path) -> None:
        with whole(folder / WEIGHTS) as unfinished:
            weights = {name: weight.detach().contiguous() for name, weight in self.own_weights().items()}
            save_file(weights, unfinished, {"format": "pt"})

    def load_weights(self, folder: Path) -> None:
        """Puts saved weights back. Raises `ValueError` where they are not those of this method."""
        found, own = load_file(folder / WEIGHTS), self.own_weights()
        if found.keys() != own.keys():
            raise ValueError(
                f"{folder / WEIGHTS} does not hold the weights of {self.name}: {sorted(found.keys() ^ own.keys())[:3]}."
            )
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(found[name])

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike,
        *,
        base_model: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """
        A method as `train_semcot.py --method` wrote it, in eval mode.

        Args:
            folder: with `method.json` and `model.safetensors`.
            base_model: folder or Hub id of the base, if it is not to be looked for as a checkpoint's is.
            device, dtype: of all weights.

        Raises:
            FileNotFoundError: the folder holds no trained method.
            ValueError: it holds another one, or weights that do not fit.
        """
        folder = Path(folder)
        try:
            described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder} holds no trained method (no {DESCRIPTION}): train_semcot.py --method {cls.name} writes one."
            ) from None
        if described["method"] != cls.name:
            raise ValueError(f"{folder} holds the method {described['method']}: give {described['method']}={folder}.")
        name, last = described["base_model"], described["local_base_model"]
        source = base_model or os.environ.get(BASE_MODEL_VARIABLE)
        source = source or (last if last and os.path.isdir(last) else find_base(name, folder))
        method = cls.build(name, source, described["settings"], dtype=dtype)
        cast_weights(method, dtype)
        method.load_weights(folder)
        return method.to(device).eval().requires_grad_(False)

    @classmethod
    def open(cls, source: str | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **loading) -> Self:
        if source is None:
            raise ValueError(f"{cls.name} is a trained method: give {cls.name}=FOLDER, as train_semcot.py wrote it.")
        base = model.language_model
        return cls.load(source, device=base.device, dtype=base.dtype, **loading)


def around(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """The token ids of each question's prompt, with one `<thought>`, before it and after it."""
    prompts = [render_prompt(tokenizer, question) for question in questions]
    rows = tokenizer(prompts, add_special_tokens=False).input_ids
    thought_id = tokenizer.convert_tokens_to_ids(THOUGHT_TOKEN)
    places = [len(row) - 1 - row[::-1].index(thought_id) for row in rows]
    return [(row[:place], row[place + 1 :]) for row, place in zip(rows, places, strict=True)]
