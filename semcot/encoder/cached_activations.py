"""Cached activations: what frozen layers make of texts, computed once where training reads the texts many times."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from semcot.encoder.reasoning_module import ReasoningModule
from semcot.files import whole

LARGEST = torch.finfo(torch.float16).max


class CachedStates:
    """
    The base's states at layer `start` of a reasoning encoder's first module, for a set of texts, in half precision.

    They lie in one file, (tokens of all texts, hidden), which is read into memory or, where it is larger than
    `max_bytes`, mapped. A file that an earlier run finished is used as it is. Values beyond what half precision holds,
    which some bases give to a channel of the first token, are cut to its largest.

    Args:
        module: whose base and tokenizer are used.
        texts: all texts that will be asked for; the same text twice is kept once.
        file: where the states go.
        max_bytes: the largest file that is read into memory.
        batch_size: texts in a pass of the base.
    """

    def __init__(
        self,
        module: ReasoningModule,
        texts: Sequence[str],
        file: Path,
        max_bytes: int = 2**31,
        batch_size: int = 32,
    ) -> None:
        # In an order that depends on the texts alone, so that the same ones always give the same states.
        lengths = {text: len(ids) for text, ids in _tokenize(module, sorted(set(texts))).items()}
        order = sorted(lengths, key=lambda text: (lengths[text], text))
        ends = np.cumsum([lengths[text] for text in order]).tolist()
        self._spans = {text: slice(end - lengths[text], end) for text, end in zip(order, ends, strict=True)}
        shape = (ends[-1], module.get_embedding_dimension())
        if not file.exists():
            with whole(file) as unfinished:
                states = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float16, shape=shape)
                for start in range(0, len(order), batch_size):
                    batch = order[start : start + batch_size]
                    features = module.preprocess(batch)
                    found = module.base_states(**features).clamp(-LARGEST, LARGEST).half().cpu()
                    for text, row in zip(batch, found, strict=True):
                        states[self._spans[text]] = row[: lengths[text]].numpy()
                states.flush()
                del states
        is_large = shape[0] * shape[1] * 2 > max_bytes
        self._states = np.load(file, mmap_mode="r" if is_large else None)
        if self._states.shape != shape:
            raise ValueError(f"{file} holds states {self._states.shape} of other texts, expected {shape}. Remove it.")

    def __contains__(self, text: str) -> bool:
        return text in self._spans

    def __call__(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`input_features` (batch, length, hidden) in half precision and `attention_mask` (batch, length)."""
        rows = [torch.from_numpy(np.array(self._states[self._spans[text]])) for text in texts]
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_features": pad(rows, batch_first=True),
            "attention_mask": pad([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True),
        }


class CachedMeans:
    """
    The mean of each text's states behind a reasoning encoder's first module, for a training that leaves the module as
    it is: one vector a text, in float32.

    Args:
        module: in whose place the cache answers.
        texts: all texts that will be asked for; the same text twice is kept once.
        batch_size: texts in a pass of the module.
    """

    @torch.no_grad()
    def __init__(self, module: ReasoningModule, texts: Sequence[str], batch_size: int = 32) -> None:
        order = sorted(set(texts), key=lambda text: (len(text), text))
        training = module.training
        module.eval()
        pooling = Pooling(module.get_embedding_dimension(), "mean")
        self._means: dict[str, torch.Tensor] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            means = pooling(module(module.preprocess(batch)))["sentence_embedding"]
            self._means |= zip(batch, means.float().cpu(), strict=True)
        module.train(training)

    def __contains__(self, text: str) -> bool:
        return text in self._means

    def __call__(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Each text as a row of one token, (batch, 1, hidden), whose mean is the text's."""
        means = torch.stack([self._means[text] for text in texts]).unsqueeze(1)
        mask = torch.ones(means.shape[:2], dtype=torch.long)
        # By `input_features` sentence-transformers knows them for a text's features.
        return {"input_features": means, "token_embeddings": means, "attention_mask": mask}


def _tokenize(module: ReasoningModule, texts: list[str]) -> dict[str, list[int]]:
    rows = module.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=module.max_seq_length)
    return dict(zip(texts, rows["input_ids"], strict=True))
