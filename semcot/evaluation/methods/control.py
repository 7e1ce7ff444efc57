"""Controls: the same checkpoint with thoughts that cannot help. What it still answers, it does not owe to them."""

from abc import abstractmethod

import torch

from semcot.evaluation.methods.semcot import SemCoT


class Control(SemCoT):
    """SemCoT with its thoughts replaced by others of the same shape `(batch, K, hidden size)`."""

    def generate(self, **inputs) -> torch.LongTensor:
        with torch.no_grad():
            thoughts = self.model.think(inputs["input_ids"], inputs["attention_mask"])
        return super().generate(thoughts=self.replace(thoughts), **inputs)

    @abstractmethod
    def replace(self, thoughts: torch.FloatTensor) -> torch.FloatTensor:
        """The vectors, `(batch, K, hidden size)`, that the base reads instead."""
